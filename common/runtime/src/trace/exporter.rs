//! Sends spans to a collector over OTLP, if one is configured.

use crate::config::TelemetrySettings;
use anyhow::Context;
use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter as Export},
};
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

/// Maximum time to send the last spans when the process ends.
const LAST_SPANS_WITHIN: Duration = Duration::from_secs(3);
/// Variables that name a collector; the exporter reads them itself.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

static EXPORTER: OnceLock<(SdkTracerProvider, SdkTracer)> = OnceLock::new();

/// Starts to export the spans of this process, named `service` unless `OTEL_SERVICE_NAME` names it. Does nothing unless the settings
/// or the environment name a collector, or if `OTEL_SDK_DISABLED` is `true`. Sampler, queue and headers follow the standard variables
/// `OTEL_*`. Spans are sent in batches from a thread of their own; while the collector is down they are dropped.
///
/// # Errors
/// Fails if the URL is invalid.
pub fn start(settings: &TelemetrySettings, service: &'static str) -> anyhow::Result<()> {
    let named = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_disabled = std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    if is_disabled || (settings.otlp.is_empty() && !ENDPOINTS.iter().any(named)) {
        return Ok(());
    }
    records::tls::install_cryptography();
    let exporter = SpanExporter::builder().with_http();
    let exporter = match settings.otlp.is_empty() {
        true => exporter,
        false => exporter.with_endpoint(format!("{}/v1/traces", settings.otlp.trim_end_matches('/'))),
    };
    let exporter = exporter.build().with_context(|| match settings.otlp.as_str() {
        "" => "OTEL_EXPORTER_OTLP_ENDPOINT: expected the URL of a collector, as http://127.0.0.1:4318".to_owned(),
        url => format!("telemetry.otlp = {url}: expected the URL of a collector, as http://127.0.0.1:4318"),
    })?;
    let mut resource = Resource::builder();
    if !named(&"OTEL_SERVICE_NAME") {
        resource = resource.with_service_name(service);
    }
    let resource = resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build();
    let provider =
        SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(Reporting::new(exporter)).build();
    let tracer = provider.tracer("wildrydes");
    EXPORTER.set((provider, tracer)).map_err(|_| anyhow::anyhow!("the exporter of spans is already started"))
}

/// Returns the tracer; `None` without an exporter.
pub(super) fn tracer() -> Option<&'static SdkTracer> {
    EXPORTER.get().map(|(_, tracer)| tracer)
}

/// Sends the remaining spans, for a limited time. Call it from a thread that may block.
pub fn stop() {
    if let Some((provider, _)) = EXPORTER.get() {
        // Spans that a collector does not take in time are lost.
        let _ = provider.shutdown_with_timeout(LAST_SPANS_WITHIN);
    }
}

/// Logs when the collector stops to take spans, and when it takes them again.
#[derive(Debug)]
struct Reporting {
    exporter: SpanExporter,
    is_failing: AtomicBool,
}

impl Reporting {
    fn new(exporter: SpanExporter) -> Self {
        Self { exporter, is_failing: AtomicBool::new(false) }
    }
}

impl Export for Reporting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exported = self.exporter.export(batch).await;
        match (&exported, self.is_failing.swap(exported.is_err(), Relaxed)) {
            (Err(error), false) => tracing::warn!(%error, "the collector of traces takes no spans: dropping them"),
            (Ok(()), true) => tracing::info!("the collector of traces takes spans again"),
            _ => {}
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
