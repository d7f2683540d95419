//! The worker trait and the loop around it.

use crate::contract::{
    envelope::{Envelope, Properties},
    message::{Input, Undecodable},
    outcome::{Failure, Outgoing, Outputs},
};

/// A stage of the fleet: reads the queue of its name, says what to publish.
///
/// The handler *returns* its outputs; only the runtime publishes them, awaits their confirms and then acknowledges the
/// input. A handler may run again with the same message, at any time, here or elsewhere: it must be idempotent.
pub trait Worker: Send + Sync + 'static {
    /// Its name, and that of its queue.
    const NAME: &'static str;
    /// What it reads.
    type In: Input;

    /// Does the work of one message.
    fn handle(&self, envelope: Envelope<Self::In>) -> impl Future<Output = Result<Outputs, Failure>> + Send;

    /// Called after each connect, before the first delivery: the place to catch up on events missed meanwhile.
    fn connected(&self) -> impl Future<Output = Result<(), Failure>> + Send {
        async { Ok(()) }
    }

    /// An answer to a request that could not be read. With one, the message is done with; without, it is a dead letter.
    fn answer_undecodable(&self, _properties: &Properties, _why: &Undecodable) -> Option<Outgoing> {
        None
    }
}
