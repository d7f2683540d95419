//! W3C Trace Context: the header `traceparent` carries one trace from the publisher through every worker. With an
//! [`exporter`], its spans go to a collector.

pub mod exporter;
mod span;

pub use span::{Kind, Span};

use super::host::random_range;
use common::envelope::{Properties, TRACEPARENT};
use parking_lot::Mutex;
use std::{collections::VecDeque, fmt, sync::Arc};

/// Maximum number of links of one span.
const LINKS_MAX: usize = 64;

tokio::task_local! {
    static CURRENT: Current;
}

/// What the running task works on.
#[derive(Clone, Default)]
struct Current {
    /// The spans that the task is a part of.
    spans: Vec<TraceContext>,
    /// The span that the handled message carries.
    message: Option<TraceContext>,
    /// Links to add to the span when the work is done.
    links: Arc<Mutex<Vec<TraceContext>>>,
}

/// Runs `work` as a part of the first of these spans, with links to the others: messages that a
/// [`Client`](super::client::Client) publishes meanwhile, in the same task, belong to it.
pub async fn within<T>(spans: Vec<TraceContext>, work: impl Future<Output = T>) -> T {
    CURRENT.scope(Current { spans, ..Current::default() }, work).await
}

/// Runs the handler of a message as a part of `span`, and adds the links that the handler asks for with [`link`].
pub(super) async fn handling<T>(span: &mut Span, message: Option<TraceContext>, work: impl Future<Output = T>) -> T {
    let current = Current { spans: vec![span.context()], message, links: Arc::default() };
    let done = CURRENT.scope(current.clone(), work).await;
    for link in std::mem::take(&mut *current.links.lock()) {
        span.link(link);
    }
    done
}

/// Runs `work` as a part of the spans of this task, for a task that it spawns.
pub fn inherited<F: Future>(work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(CURRENT.try_with(Clone::clone).unwrap_or_default(), work)
}

/// Returns the spans that this task is a part of; none outside of a handler and of [`within`].
pub fn current() -> Vec<TraceContext> {
    CURRENT.try_with(|current| current.spans.clone()).unwrap_or_default()
}

/// Links the span of the running handler to `others`, whose results it uses. Does nothing outside of a handler.
pub fn link(others: impl IntoIterator<Item = TraceContext>) {
    let _ = CURRENT.try_with(|current| {
        let mut links = current.links.lock();
        for other in others {
            if links.len() < LINKS_MAX && current.message != Some(other) && !links.contains(&other) {
                links.push(other);
            }
        }
    });
}

/// The newest messages that a later result depends on. A handler of one of them links its span to the others.
#[derive(Debug, Default)]
pub struct Causes(Mutex<VecDeque<TraceContext>>);

impl Causes {
    /// Adds the message that the running handler handles. Does nothing without an exporter.
    pub fn note(&self) {
        if exporter::tracer().is_none() {
            return;
        }
        let Ok(Some(message)) = CURRENT.try_with(|current| current.message) else { return };
        let mut messages = self.0.lock();
        if messages.contains(&message) {
            return;
        }
        if messages.len() == LINKS_MAX {
            messages.pop_front();
        }
        messages.push_back(message);
    }

    /// Links the span of the running handler to the messages.
    pub fn link(&self) {
        link(self.0.lock().iter().copied());
    }

    /// Returns its memory, bytes.
    pub fn bytes(&self) -> usize {
        self.0.lock().capacity() * size_of::<TraceContext>()
    }
}

/// A trace and a span within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    sampled: bool,
}

impl TraceContext {
    /// Returns a new trace.
    pub fn new() -> Self {
        Self { trace_id: random_range(1..=u128::MAX), span_id: random_range(1..=u64::MAX), sampled: true }
    }

    /// Returns another span of the same trace.
    pub fn child(self) -> Self {
        Self { span_id: random_range(1..=u64::MAX), ..self }
    }

    /// Returns the trace context of a message; `None` if it has none or an invalid one.
    pub fn of(properties: &Properties) -> Option<Self> {
        Self::parse(properties.text(TRACEPARENT)?)
    }

    /// Parses `00-<32 hex>-<16 hex>-<2 hex>`. A later version may have further fields (Trace Context §2.2.2, §4.3).
    pub fn parse(header: &str) -> Option<Self> {
        let lower_hex = |text: &str, len: usize| {
            text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let mut parts = header.split('-');
        let (version, trace_id, span_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let well_formed =
            lower_hex(version, 2) && lower_hex(trace_id, 32) && lower_hex(span_id, 16) && lower_hex(flags, 2);
        if !well_formed || version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let trace_id = u128::from_str_radix(trace_id, 16).ok().filter(|id| *id != 0)?;
        let span_id = u64::from_str_radix(span_id, 16).ok().filter(|id| *id != 0)?;
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        Some(Self { trace_id, span_id, sampled })
    }

    /// Returns the trace id as 32 hex digits.
    pub fn trace_id(self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

impl Default for TraceContext {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::TraceContext;

    #[test]
    fn a_context_reads_back_and_a_child_stays_in_the_trace() {
        let context = TraceContext::new();
        assert_eq!(TraceContext::parse(&context.to_string()), Some(context));
        let child = context.child();
        assert_eq!(child.trace_id(), context.trace_id());
        assert_ne!(child, context);
    }

    #[test]
    fn an_invalid_context_is_ignored() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(TraceContext::parse(good).is_some());
        assert!(TraceContext::parse(&good.replacen("00", "01", 1).replace("-01", "-01-more")).is_some());
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }
}
