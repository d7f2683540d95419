//! A collector of traces: receives spans as OTLP over HTTP.

use axum::{Router, body::Bytes, extract::State, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value, trace::v1::Span as Wire,
};
use prost::Message;
use std::sync::{Arc, Mutex};

/// A received span.
#[derive(Debug, Clone)]
pub struct Span {
    /// Name of the process.
    pub service: String,
    /// Name of the span.
    pub name: String,
    /// Its role, as OpenTelemetry numbers them: 2 server, 4 producer, 5 consumer.
    pub kind: i32,
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
    /// 16 hex digits; empty for the root of a trace.
    pub parent_id: String,
    /// The spans that it links to: trace id and span id.
    pub links: Vec<(String, String)>,
    /// Its attributes that are texts.
    pub attributes: Vec<(String, String)>,
}

impl Span {
    /// Returns the value of an attribute; an absent one has an empty value.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

/// A running collector; it ends with its runtime.
pub struct Collector {
    /// Base URL, for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub url: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    /// Starts a collector on a free port.
    pub async fn start() -> Self {
        let spans = Arc::default();
        let router = Router::new().route("/v1/traces", post(receive)).with_state(Arc::clone(&spans));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, spans }
    }

    /// The spans received so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().expect("no test panics here").clone()
    }
}

async fn receive(State(spans): State<Arc<Mutex<Vec<Span>>>>, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body).expect("an export request");
    for resource in request.resource_spans {
        let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
        let service = texts(attributes).into_iter().find(|(key, _)| key == "service.name").map(|(_, value)| value);
        let service = service.unwrap_or_default();
        let received = resource.scope_spans.into_iter().flat_map(|scope| scope.spans).map(|span| read(&service, span));
        spans.lock().expect("no test panics here").extend(received);
    }
}

fn read(service: &str, span: Wire) -> Span {
    Span {
        service: service.to_owned(),
        name: span.name,
        kind: span.kind,
        trace_id: hex::encode(span.trace_id),
        span_id: hex::encode(span.span_id),
        parent_id: hex::encode(span.parent_span_id),
        links: span.links.into_iter().map(|link| (hex::encode(link.trace_id), hex::encode(link.span_id))).collect(),
        attributes: texts(span.attributes),
    }
}

fn texts(attributes: Vec<opentelemetry_proto::tonic::common::v1::KeyValue>) -> Vec<(String, String)> {
    let text = |attribute: opentelemetry_proto::tonic::common::v1::KeyValue| match attribute.value?.value? {
        Value::StringValue(value) => Some((attribute.key, value)),
        _ => None,
    };
    attributes.into_iter().filter_map(text).collect()
}
