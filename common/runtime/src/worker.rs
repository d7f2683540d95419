//! The worker trait and the loop that runs a worker.
//!
//! ```text
//! connect ─▶ declare ─▶ consume ─▶ ┌ decode ─▶ handle ─▶ publish ─▶ confirms ┐ ─▶ acknowledge
//!    ▲                             └──────── failed: decide() ───────────────┘    (or: retry, dead letter,
//!    └── backoff with jitter ◀── lost connection, until give-up                    confirmed first)
//! ```

mod compressed;
mod delivery;
mod session;
mod stalls;

pub use session::{RunError, RunOptions, run};

use bytes::Bytes;
use common::{
    envelope::{Envelope, Properties},
    message::{Input, Kind, Undecodable, recognise},
    outcome::{Failure, Outgoing, Outputs},
};
use futures::future::{BoxFuture, FutureExt};

/// A stage of the fleet: reads the queue of its name and returns the messages to publish.
///
/// The handler *returns* its outputs. Only the runtime publishes them, awaits their confirms and then acknowledges the
/// input. The same message may be handled again at any time, in any process, so a handler must be idempotent.
pub trait Worker: Send + Sync + 'static {
    /// Name of the worker and of its queue.
    const NAME: &'static str;
    /// Messages that the worker reads.
    type In: Input;
    /// Default number of messages handled concurrently.
    const CONCURRENCY: u16 = 4;
    /// The same if the object store is a service: while one handler waits for its answer, others work.
    const CONCURRENCY_REMOTE: u16 = Self::CONCURRENCY;
    /// Default maximum number of unacknowledged deliveries, including those that wait for a handler.
    const PREFETCH: u16 = Self::CONCURRENCY.saturating_mul(2);

    /// Handles one message and returns the messages to publish.
    fn handle(&self, envelope: Envelope<Self::In>) -> impl Future<Output = Result<Outputs, Failure>> + Send;

    /// Called after each connect, before the first delivery, to catch up on missed events.
    fn connected(&self) -> impl Future<Output = Result<(), Failure>> + Send {
        async { Ok(()) }
    }

    /// Called during a shutdown if handlers still run after half of the drain deadline, to cancel long work.
    fn stopping(&self) {}

    /// Called once at the end of a shutdown, after the last message. Cancelled after 5 seconds.
    fn ended(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Returns an answer to a request that cannot be decoded. With an answer the message is finished; without, it
    /// becomes a dead letter.
    fn answer_undecodable(&self, _properties: &Properties, _why: &Undecodable) -> Option<Outgoing> {
        None
    }

    /// Removes obsolete data. Called after every connect and every hour, while messages are handled. An error is
    /// logged, and the next call tries again.
    fn tend(&self) -> impl Future<Output = Result<(), Failure>> + Send {
        async { Ok(()) }
    }

    /// Returns an answer to a request whose handler failed. With an answer the message is finished; without, [`decide`]
    /// applies.
    ///
    /// [`decide`]: common::outcome::decide
    fn answer_failure(&self, _properties: &Properties, _failure: &Failure) -> Option<Outgoing> {
        None
    }
}

/// A worker that reads bytes, so that the loop is compiled once instead of once per worker.
trait ErasedWorker: Send + Sync {
    fn name(&self) -> &'static str;
    fn connected(&self) -> BoxFuture<'_, Result<(), Failure>>;
    fn decode(&self, wire_kind: Option<&str>, body: &Bytes) -> Result<Decoded<'_>, Undecodable>;
    fn stopping(&self);
    fn tend(&self) -> BoxFuture<'_, Result<(), Failure>>;
    fn answer_undecodable(&self, properties: &Properties, why: &Undecodable) -> Option<Outgoing>;
    fn answer_failure(&self, properties: &Properties, failure: &Failure) -> Option<Outgoing>;
}

/// A decoded message with its handler.
struct Decoded<'a> {
    kind: Kind,
    batch_id: Option<String>,
    handle: Box<dyn FnOnce(Properties) -> BoxFuture<'a, Result<Outputs, Failure>> + Send + 'a>,
}

impl<W: Worker> ErasedWorker for W {
    fn name(&self) -> &'static str {
        W::NAME
    }

    fn connected(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Worker::connected(self).boxed()
    }

    fn stopping(&self) {
        Worker::stopping(self);
    }

    fn tend(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Worker::tend(self).boxed()
    }

    fn decode(&self, wire_kind: Option<&str>, body: &Bytes) -> Result<Decoded<'_>, Undecodable> {
        let kind = recognise(wire_kind, W::In::KINDS)?;
        let payload = W::In::decode(kind, body)?;
        let batch_id = payload.batch_id().map(str::to_owned);
        let handle = move |properties| self.handle(Envelope { payload, properties }).boxed();
        Ok(Decoded { kind, batch_id, handle: Box::new(handle) })
    }

    fn answer_undecodable(&self, properties: &Properties, why: &Undecodable) -> Option<Outgoing> {
        Worker::answer_undecodable(self, properties, why)
    }

    fn answer_failure(&self, properties: &Properties, failure: &Failure) -> Option<Outgoing> {
        Worker::answer_failure(self, properties, failure)
    }
}
