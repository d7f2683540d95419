//! Sends spans to a collector over OTLP, if one is configured.

use crate::config::TelemetrySettings;
use anyhow::Context as _;
use opentelemetry::{
    Context, KeyValue, TraceId,
    trace::{Link, SpanKind, TraceState, TracerProvider},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        Sampler, SamplingDecision, SamplingResult, SdkTracer, SdkTracerProvider, ShouldSample, SpanData,
        SpanExporter as Export,
    },
};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Maximum time to send the last spans when the process ends.
const LAST_SPANS_WITHIN: Duration = Duration::from_secs(3);
/// Variables that name a collector; the exporter reads them itself.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// Names a sampler in the place of the default; the exporter reads it itself.
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
/// Maximum number of traces per second that a process begins by default. Under load, thousands of requests per second would cost
/// more to trace than to answer, and fill the collector.
const TRACES_PER_SECOND: u32 = 100;

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
    let mut provider =
        SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(Reporting::new(exporter));
    if !named(&SAMPLER) {
        provider = provider.with_sampler(Sampler::ParentBased(Box::new(AtMost::new(TRACES_PER_SECOND))));
    }
    let provider = provider.build();
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

/// Samples at most so many new traces per second.
#[derive(Debug, Clone)]
struct AtMost {
    per_second: f64,
    /// Traces that may begin now, and when that was true.
    left: Arc<Mutex<(f64, Instant)>>,
}

impl AtMost {
    fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, left: Arc::new(Mutex::new((per_second, Instant::now()))) }
    }

    /// Returns whether a trace may begin at this time.
    fn permits(&self, now: Instant) -> bool {
        let mut left = self.left.lock();
        let (count, at) = *left;
        let count = (count + now.saturating_duration_since(at).as_secs_f64() * self.per_second).min(self.per_second);
        let permitted = count >= 1.0;
        *left = (count - f64::from(u8::from(permitted)), now);
        permitted
    }
}

impl ShouldSample for AtMost {
    fn should_sample(
        &self,
        _parent: Option<&Context>,
        _trace_id: TraceId,
        _name: &str,
        _kind: &SpanKind,
        _attributes: &[KeyValue],
        _links: &[Link],
    ) -> SamplingResult {
        let decision = match self.permits(Instant::now()) {
            true => SamplingDecision::RecordAndSample,
            false => SamplingDecision::Drop,
        };
        SamplingResult { decision, attributes: Vec::new(), trace_state: TraceState::default() }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_traces_are_sampled_up_to_a_rate() {
        let (sampler, start) = (AtMost::new(10), Instant::now());
        let sampled = |after: u64| (0..100).filter(|_| sampler.permits(start + Duration::from_millis(after))).count();
        assert_eq!([sampled(0), sampled(500), sampled(60_000)], [10, 5, 10]);
    }
}
