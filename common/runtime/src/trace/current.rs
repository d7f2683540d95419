//! The spans that the running task is a part of.

use super::{context::TraceContext, exporter, span::Span};
use parking_lot::Mutex;
use std::{collections::VecDeque, sync::Arc};

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
    /// Attributes to add to the span when the work is done.
    attributes: Arc<Mutex<Vec<(&'static str, String)>>>,
}

/// Runs `work` as a part of the first of these spans, with links to the others: messages that a
/// [`Client`](crate::client::Client) publishes meanwhile, in the same task, belong to it.
pub async fn within<T>(spans: Vec<TraceContext>, work: impl Future<Output = T>) -> T {
    CURRENT.scope(Current { spans, ..Current::default() }, work).await
}

/// Runs the handler of a message as a part of `span`, and adds the links and attributes that the handler asks for with [`link`]
/// and [`attribute`].
pub(crate) async fn handling<T>(span: &mut Span, message: Option<TraceContext>, work: impl Future<Output = T>) -> T {
    let current = Current { spans: vec![span.context()], message, ..Current::default() };
    let done = CURRENT.scope(current.clone(), work).await;
    for link in std::mem::take(&mut *current.links.lock()) {
        span.link(link);
    }
    for (key, value) in std::mem::take(&mut *current.attributes.lock()) {
        span.set(key, &value);
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

/// Adds an attribute to the span of the running handler; of one key the last value counts. Does nothing outside of a handler.
pub fn attribute(key: &'static str, value: impl Into<String>) {
    let _ = CURRENT.try_with(|current| {
        let mut attributes = current.attributes.lock();
        attributes.retain(|(known, _)| *known != key);
        attributes.push((key, value.into()));
    });
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
