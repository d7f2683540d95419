//! Pausing a worker: an operator's word in the object store, which counts, and an event that tells running workers at once.
//!
//! ```text
//! wildrydes pause ──▶ control/<worker>.json          read by every replica at every connect
//!                └──▶ events: worker-control.v1 ──▶  every replica that runs: read it again now
//! ```
//!
//! A paused worker stays connected and reads what is published to `events`, but not its queue.

use super::broker::{BrokerError, Connection, Consumer, Delivery};
use common::message::{WorkerControl, decode};
use records::{Store, control, layout};
use tracing::{info, warn};

/// Whether a worker is to be paused; without a store, never.
pub(super) struct Control {
    worker: &'static str,
    store: Option<Store>,
    paused: bool,
}

impl Control {
    pub(super) fn new(worker: &'static str, store: Option<Store>) -> Self {
        Self { worker, store, paused: false }
    }

    /// At every connect. A store that cannot be read is a reason to connect again: working on while paused is not.
    pub(super) async fn look(&mut self) -> Result<(), BrokerError> {
        let Some(store) = &self.store else { return Ok(()) };
        let path = layout::control(self.worker);
        let control = control::read(store, self.worker).await;
        match control.map_err(|error| BrokerError::Lost(format!("not ready: reading {path}: {error}")))? {
            Some(control) => self.heed(&control),
            None => self.paused = false,
        }
        Ok(())
    }

    /// An event came: what the store says counts, and where it cannot be asked what the event says.
    pub(super) async fn hear(&mut self, delivery: Delivery) -> Result<(), BrokerError> {
        let told = decode::<WorkerControl>(&delivery.body);
        delivery.settle.ack().await?;
        let Some(store) = &self.store else { return Ok(()) };
        match told {
            Ok(told) if told.worker == self.worker => match control::read(store, self.worker).await {
                Ok(Some(kept)) => self.heed(&kept),
                Ok(None) => {
                    let path = layout::control(self.worker);
                    warn!(worker = self.worker, path, "not heeded: the store has no such object; is it another store?");
                }
                Err(error) => {
                    warn!(worker = self.worker, %error, "heeding the event alone");
                    self.heed(&told);
                }
            },
            Ok(_) => {}
            Err(error) => warn!(worker = self.worker, %error, "a control message that cannot be read"),
        }
        Ok(())
    }

    fn heed(&mut self, control: &WorkerControl) {
        let (by, at, why) = (&control.by, &control.at, control.why.as_deref().unwrap_or_default());
        match (control.paused, self.paused) {
            (true, false) => warn!(worker = self.worker, by, at, why, "paused"),
            (false, true) => info!(worker = self.worker, by, at, why, "resumed"),
            _ => {}
        }
        self.paused = control.paused;
    }
}

/// A worker's queue, read or not as [`Control`] says.
pub(super) struct Work {
    queue: &'static str,
    prefetch: u16,
    reading: Reading,
}

enum Reading {
    /// Paused.
    No,
    /// Deliveries come.
    Yes(Box<dyn Consumer>),
    /// To be paused: none come any more, those that were begun can still be settled.
    Finishing { _consumer: Box<dyn Consumer> },
}

impl Work {
    pub(super) fn new(queue: &'static str, prefetch: u16) -> Self {
        Self { queue, prefetch, reading: Reading::No }
    }

    /// Begins or ends reading as `control` says; `idle` when no handler runs.
    pub(super) async fn follow(
        &mut self,
        control: &Control,
        connection: &dyn Connection,
        idle: bool,
    ) -> Result<(), BrokerError> {
        if matches!(self.reading, Reading::Finishing { .. }) && idle {
            self.reading = Reading::No;
            info!(worker = self.queue, "paused, nothing left in hand");
        }
        self.reading = match std::mem::replace(&mut self.reading, Reading::No) {
            Reading::No if !control.paused => {
                let consumer = connection.consume(self.queue, self.prefetch).await?;
                info!(worker = self.queue, "consuming");
                Reading::Yes(consumer)
            }
            Reading::Yes(mut consumer) if control.paused => {
                consumer.cancel().await?;
                Reading::Finishing { _consumer: consumer }
            }
            as_it_was => as_it_was,
        };
        Ok(())
    }

    /// The next delivery; never while paused.
    pub(super) async fn next(&mut self) -> Result<Delivery, BrokerError> {
        match &mut self.reading {
            Reading::Yes(consumer) => consumer.next().await,
            Reading::No | Reading::Finishing { .. } => std::future::pending().await,
        }
    }
}
