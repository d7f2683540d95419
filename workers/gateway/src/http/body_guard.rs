//! Response bodies that hold a guard until they are sent, for instance the permit of their request.

use super::connections::Busy;
use axum::{
    body::{Body, Bytes},
    response::Response,
};
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

struct Held<G> {
    body: Body,
    guard: Option<G>,
    reading: Option<Arc<Reading>>,
}

/// Since when the transport has not polled a body; `None` while the transport waits for the body.
struct Reading(Mutex<Option<Instant>>);

impl Reading {
    fn set(&self, since: Option<Instant>) {
        *self.0.lock() = since;
    }

    fn unread_for(&self, now: Instant) -> Duration {
        let since = *self.0.lock();
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

impl<G: Send + Unpin> http_body::Body for Held<G> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Some(reading) = &self.reading {
            reading.set(polled.is_ready().then(Instant::now));
        }
        if matches!(polled, Poll::Ready(None)) {
            self.guard = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Keeps `guard` until the answer is sent, or its client leaves.
pub(crate) fn until_sent<G: Send + Unpin + 'static>(response: Response, guard: G) -> Response {
    response.map(|body| Body::new(Held { body, guard: Some(guard), reading: None }))
}

/// Keeps `busy` until the answer is sent. Over HTTP/2 one answer may wait for its client while the socket does not: the whole
/// connection is closed if the client does not read a stream of events or a dataset within `write_timeout`.
pub(crate) fn until_taken(response: Response, busy: Busy, is_http2: bool, write_timeout: Duration) -> Response {
    // A complete body is handed to the transport at once.
    if !is_http2 || response.body().size_hint().exact().is_some() {
        return until_sent(response, busy);
    }
    let reading = Arc::new(Reading(Mutex::new(Some(Instant::now()))));
    let (watched, connection) = (Arc::downgrade(&reading), Arc::clone(busy.connection()));
    tokio::spawn(async move {
        let pause = write_timeout / 4;
        loop {
            tokio::time::sleep(pause).await;
            // The answer is sent, or its client left.
            let Some(reading) = watched.upgrade() else { return };
            if reading.unread_for(Instant::now()) >= write_timeout {
                return connection.close_unread();
            }
        }
    });
    response.map(|body| Body::new(Held { body, guard: Some(busy), reading: Some(reading) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{http::connections::Connections, limits::Limit, metrics::Metrics};
    use futures::StreamExt;

    #[tokio::test]
    async fn the_guard_is_kept_until_the_end_of_the_body() {
        let guard = Arc::new(());
        let pieces = futures::stream::iter(["a", "b"].map(Ok::<_, std::io::Error>));
        let response = until_sent(Response::new(Body::from_stream(pieces)), Arc::clone(&guard));
        let mut body = response.into_body().into_data_stream();
        for _ in 0..2 {
            assert!(body.next().await.is_some_and(|piece| piece.is_ok()));
            assert_eq!(Arc::strong_count(&guard), 2);
        }
        assert!(body.next().await.is_none());
        assert_eq!(Arc::strong_count(&guard), 1);
    }

    #[test]
    fn a_guard_keeps_the_length_of_a_body() {
        let response = until_sent(Response::new(Body::from("four")), ());
        assert_eq!(response.body().size_hint().exact(), Some(4));
    }

    #[tokio::test]
    async fn a_stream_that_its_client_does_not_read_ends_its_connection() {
        let metrics = Arc::new(Metrics::new());
        let connections = Connections::new(1, 1, Limit::Connections, &metrics);
        let connection = connections.admit([127, 0, 0, 1].into()).unwrap();
        let pieces = || futures::stream::repeat_with(|| Ok::<_, std::io::Error>("event"));
        let timeout = Duration::from_millis(40);
        let taken = until_taken(Response::new(Body::from_stream(pieces())), connection.begins(), true, timeout);
        drop(taken);
        let mut unread = until_taken(Response::new(Body::from_stream(pieces())), connection.begins(), true, timeout);
        let first = futures::future::poll_fn(|context| Pin::new(unread.body_mut()).poll_frame(context)).await;
        assert!(first.is_some());
        let closed = futures::future::poll_fn(|context| {
            connection.wake_when_closed(context.waker());
            if connection.is_closed() { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::time::timeout(Duration::from_secs(60), closed).await.expect("the connection is closed");
        assert_eq!(metrics.limits().refusals(Limit::Write), 1);
    }
}
