//! The worker trait and the loop around it.
//!
//! ```text
//! connect ─▶ declare ─▶ consume ─▶ ┌ decode ─▶ handle ─▶ publish ─▶ confirms ┐ ─▶ acknowledge
//!    ▲                             └──────── failed: decide() ───────────────┘    (or: rung, dead letter,
//!    └── backoff with jitter ◀── whatever breaks the connection, until give-up     confirmed first)
//! ```

mod compressed;
mod delivery;
mod obstacles;
mod session;

pub use session::{RunError, RunOptions, run};

use bytes::Bytes;
use common::{
    envelope::{Envelope, Properties},
    message::{Input, Kind, Undecodable, recognise},
    outcome::{Failure, Outgoing, Outputs},
};
use futures::future::{BoxFuture, FutureExt};

/// A stage of the fleet: reads the queue of its name, says what to publish.
///
/// The handler *returns* its outputs; only the runtime publishes them, awaits their confirms and then acknowledges the
/// input. A handler may run again with the same message, at any time, here or elsewhere: it must be idempotent.
pub trait Worker: Send + Sync + 'static {
    /// Its name, and that of its queue.
    const NAME: &'static str;
    /// What it reads.
    type In: Input;
    /// Messages handled at the same time, unless the configuration says otherwise.
    const CONCURRENCY: u16 = 4;
    /// Deliveries held at most, those waiting for their turn included, unless the configuration says otherwise.
    const PREFETCH: u16 = Self::CONCURRENCY.saturating_mul(2);

    /// Does the work of one message.
    fn handle(&self, envelope: Envelope<Self::In>) -> impl Future<Output = Result<Outputs, Failure>> + Send;

    /// Called after each connect, before the first delivery: the place to catch up on events missed meanwhile.
    fn connected(&self) -> impl Future<Output = Result<(), Failure>> + Send {
        async { Ok(()) }
    }

    /// Called when the process was told to end, half of the drain deadline has passed and handlers are still running: the place to cut
    /// short what would outlast it.
    fn stopping(&self) {}

    /// Called once, when the worker is asked to end and the last message is done with; what is not over within some seconds is cut
    /// off.
    fn ended(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// An answer to a request that could not be read. With one, the message is done with; without, it is a dead letter.
    fn answer_undecodable(&self, _properties: &Properties, _why: &Undecodable) -> Option<Outgoing> {
        None
    }

    /// Removes leftovers: called after every connect and every hour, while messages are handled. An error is logged,
    /// and the next call tries again.
    fn tend(&self) -> impl Future<Output = Result<(), Failure>> + Send {
        async { Ok(()) }
    }

    /// An answer to a request whose handler failed. With one, the message is done with; without, [`decide`] says.
    ///
    /// [`decide`]: common::outcome::decide
    fn answer_failure(&self, _properties: &Properties, _failure: &Failure) -> Option<Outgoing> {
        None
    }
}

/// A worker over bytes, so that the loop is compiled once and not once per worker.
trait ErasedWorker: Send + Sync {
    fn name(&self) -> &'static str;
    fn connected(&self) -> BoxFuture<'_, Result<(), Failure>>;
    fn decode(&self, wire_kind: Option<&str>, body: &Bytes) -> Result<Decoded<'_>, Undecodable>;
    fn stopping(&self);
    fn tend(&self) -> BoxFuture<'_, Result<(), Failure>>;
    fn answer_undecodable(&self, properties: &Properties, why: &Undecodable) -> Option<Outgoing>;
    fn answer_failure(&self, properties: &Properties, failure: &Failure) -> Option<Outgoing>;
}

/// A message that was read, and the way to have it handled.
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
