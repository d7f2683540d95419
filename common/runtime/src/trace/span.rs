//! Spans: the units of work of a trace.

use super::{context::TraceContext, exporter};
use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, TraceState, Tracer},
};
use opentelemetry_sdk::trace::Span as Recorded;

/// The role of a span, as OpenTelemetry defines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Answers a request over HTTP.
    Server,
    /// Publishes a message.
    Producer,
    /// Handles a message.
    Consumer,
}

/// A unit of work. It ends when it is dropped; an exporter then sends it. Without an exporter it only has its context.
pub struct Span {
    context: TraceContext,
    recorded: Option<Recorded>,
}

impl Span {
    /// Starts a span below `parent`; without a parent it starts a trace. `links` are the spans of other traces, or of other
    /// branches of this one, whose results it uses.
    pub fn start(kind: Kind, name: &'static str, parent: Option<TraceContext>, links: &[TraceContext]) -> Self {
        let Some(tracer) = exporter::tracer() else {
            return Self { context: parent.map(TraceContext::child).unwrap_or_default(), recorded: None };
        };
        let kind = match kind {
            Kind::Server => SpanKind::Server,
            Kind::Producer => SpanKind::Producer,
            Kind::Consumer => SpanKind::Consumer,
        };
        let links = links.iter().map(|link| Link::with_context(remote(*link))).collect();
        let builder = SpanBuilder::from_name(name).with_kind(kind).with_links(links);
        let parent = match parent {
            Some(parent) => Context::new().with_remote_span_context(remote(parent)),
            None => Context::new(),
        };
        let recorded = tracer.build_with_context(builder, &parent);
        let context = recorded.span_context();
        let context = TraceContext {
            trace_id: u128::from_be_bytes(context.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(context.span_id().to_bytes()),
            sampled: context.is_sampled(),
        };
        Self { context, recorded: Some(recorded) }
    }

    /// Starts the span of a publish below the first of `causes`, with links to the others.
    pub fn publish(exchange: &'static str, routing_key: &str, causes: &[TraceContext]) -> Self {
        let (parent, links) = causes.split_first().map_or((None, causes), |(parent, links)| (Some(*parent), links));
        let mut span = Self::start(Kind::Producer, "publish", parent, links);
        span.set("messaging.system", "rabbitmq");
        span.set("messaging.destination.name", exchange);
        // The name of a reply queue is different for each connection.
        if !exchange.is_empty() {
            span.set("messaging.rabbitmq.destination.routing_key", routing_key);
        }
        span
    }

    /// Returns the context that the messages of this span carry.
    pub fn context(&self) -> TraceContext {
        self.context
    }

    /// Adds an attribute, unless its value is empty.
    pub fn set(&mut self, key: &'static str, value: &str) {
        if let Some(recorded) = self.recorded.as_mut().filter(|recorded| recorded.is_recording() && !value.is_empty()) {
            recorded.set_attribute(KeyValue::new(key, value.to_owned()));
        }
    }

    /// Adds a link to a span whose result this one uses.
    pub fn link(&mut self, other: TraceContext) {
        if let Some(recorded) = &mut self.recorded {
            recorded.add_link(remote(other), Vec::new());
        }
    }

    /// Marks the span as failed.
    pub fn fail(&mut self, code: &'static str, why: &str) {
        self.set("error.type", code);
        if let Some(recorded) = &mut self.recorded {
            recorded.set_status(Status::error(why.to_owned()));
        }
    }
}

fn remote(context: TraceContext) -> SpanContext {
    let flags = if context.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let (trace_id, span_id) = (TraceId::from(context.trace_id), SpanId::from(context.span_id));
    SpanContext::new(trace_id, span_id, flags, true, TraceState::default())
}
