//! Pauses a worker: a record in the object store is authoritative, and an event notifies running workers at once.
//!
//! ```text
//! wildrydes pause ──▶ control/<worker>.json          every replica reads it at every connect
//!                └──▶ events: worker-control.v1 ──▶  every running replica reads it again
//! ```
//!
//! A paused worker stays connected and receives events, but does not read its queue.

use super::broker::{BrokerError, Connection, Consumer, Delivery};
use common::message::{WorkerControl, decode};
use records::{Store, control, layout};
use tracing::{info, warn};

/// Whether a worker is paused; never without a store.
pub(super) struct Control {
    worker: &'static str,
    store: Option<Store>,
    paused: bool,
}

impl Control {
    pub(super) fn new(worker: &'static str, store: Option<Store>) -> Self {
        Self { worker, store, paused: false }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Reads the record, at every connect. Fails if the store cannot be read, so that the worker reconnects instead of
    /// working while paused.
    pub(super) async fn read_record(&mut self) -> Result<(), BrokerError> {
        let Some(store) = &self.store else { return Ok(()) };
        let path = layout::control(self.worker);
        let control = control::read(store, self.worker).await;
        match control.map_err(|error| BrokerError::Lost(format!("not ready: reading {path}: {error}")))? {
            Some(control) => self.apply(&control),
            None => self.paused = false,
        }
        Ok(())
    }

    /// Handles an event: applies the record in the store, or the event itself if the store cannot be read.
    pub(super) async fn receive(&mut self, delivery: Delivery) -> Result<(), BrokerError> {
        let event = decode::<WorkerControl>(&delivery.body);
        delivery.settle.ack().await?;
        let Some(store) = &self.store else { return Ok(()) };
        match event {
            Ok(event) if event.worker == self.worker => match control::read(store, self.worker).await {
                Ok(Some(record)) => self.apply(&record),
                Ok(None) => {
                    let path = layout::control(self.worker);
                    warn!(worker = self.worker, path, "ignored: the store has no such object; is it another store?");
                }
                Err(error) => {
                    warn!(worker = self.worker, %error, "applying the event without the record in the store");
                    self.apply(&event);
                }
            },
            Ok(_) => {}
            Err(error) => warn!(worker = self.worker, %error, "a control message cannot be decoded"),
        }
        Ok(())
    }

    fn apply(&mut self, control: &WorkerControl) {
        let (by, at, why) = (&control.by, &control.at, control.why.as_deref().unwrap_or_default());
        match (control.paused, self.paused) {
            (true, false) => warn!(worker = self.worker, by, at, why, "paused"),
            (false, true) => info!(worker = self.worker, by, at, why, "resumed"),
            _ => {}
        }
        self.paused = control.paused;
    }
}

/// Reads a worker's queue unless [`Control`] pauses it.
pub(super) struct Work {
    queue: &'static str,
    prefetch: u16,
    reading: Reading,
}

enum Reading {
    /// The worker is paused.
    No,
    /// The worker receives deliveries.
    Yes(Box<dyn Consumer>),
    /// The consumer is cancelled; running handlers can still settle their deliveries.
    Finishing { _consumer: Box<dyn Consumer> },
}

impl Work {
    pub(super) fn new(queue: &'static str, prefetch: u16) -> Self {
        Self { queue, prefetch, reading: Reading::No }
    }

    /// Starts or stops reading according to `control`. `idle` is whether no handler runs.
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
            unchanged => unchanged,
        };
        Ok(())
    }

    /// Returns the next delivery; never completes while paused.
    pub(super) async fn next(&mut self) -> Result<Delivery, BrokerError> {
        match &mut self.reading {
            Reading::Yes(consumer) => consumer.next().await,
            Reading::No | Reading::Finishing { .. } => std::future::pending().await,
        }
    }
}
