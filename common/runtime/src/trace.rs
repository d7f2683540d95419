//! W3C Trace Context: the header `traceparent` carries one trace from the publisher through every worker. With an
//! [`exporter`], its spans go to a collector.
//!
//! ```text
//! context   the ids that a message carries        span      a unit of work, exported when it ends
//! current   the spans that a task is a part of    exporter  the connection to the collector
//! ```

mod context;
mod current;
pub mod exporter;
mod span;

pub use context::TraceContext;
pub(super) use current::handling;
pub use current::{Causes, attribute, current, inherited, link, within};
pub use span::{Kind, Span};
