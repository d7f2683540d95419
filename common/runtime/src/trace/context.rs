//! The ids of a trace and of a span, as the header `traceparent` carries them.

use crate::host::random_range;
use common::envelope::{Properties, TRACEPARENT};
use std::fmt;

/// A trace and a span within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    pub(super) trace_id: u128,
    pub(super) span_id: u64,
    pub(super) sampled: bool,
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
