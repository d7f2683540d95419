//! Simulated connections between processes and the broker: late, duplicated, out of order, or broken.

use super::{
    promises,
    sabotage::Sabotage,
    world::{BrokerIs, Fault, Point, Process, World},
};
use async_trait::async_trait;
use common::{
    exchange::{DEAD, RETRY},
    outcome::Outgoing,
};
use runtime::{
    Broker, Connection, MemoryBroker,
    broker::{BrokerError, Browser, ConnectionState, Consumer, Delivery, Depth, PublishError, Publisher, Settle},
};
use serde_json::{Map, Value};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// Name of a message in the trace.
pub fn named(message: &Outgoing) -> String {
    format!("{}:{} {}", message.exchange, message.routing_key, message.properties.message_id.as_deref().unwrap_or("-"))
}

/// Publishes without a simulated connection.
pub async fn straight(core: &MemoryBroker, message: Outgoing) {
    let connection = core.connect("world").await.expect("the core takes connections");
    let publisher = connection.publisher().await.expect("the core takes publishers");
    publisher.publish(message).await.expect("the core takes what it took before");
}

/// A connection as one end sees it.
pub struct Wire {
    state: watch::Sender<ConnectionState>,
    /// Wakes waiting publishers in their order of arrival; a watch channel wakes its receivers in random order.
    changed: Notify,
}

impl Wire {
    fn new(is: BrokerIs) -> Arc<Self> {
        let wire = Self { state: watch::Sender::new(ConnectionState::Open), changed: Notify::new() };
        wire.broker_is(is);
        Arc::new(wire)
    }

    pub fn broker_is(&self, is: BrokerIs) {
        let next = match is {
            BrokerIs::Up => ConnectionState::Open,
            BrokerIs::Blocked => ConnectionState::Blocked("simulated alarm".to_owned()),
            BrokerIs::Down => ConnectionState::Closed("the broker is gone".to_owned()),
        };
        self.state.send_if_modified(|now| {
            let changes = !matches!(now, ConnectionState::Closed(_)) && *now != next;
            if changes {
                *now = next;
            }
            changes
        });
        self.changed.notify_waiters();
    }

    fn cut(&self) {
        self.broker_is(BrokerIs::Down);
    }

    fn broken(&self) -> Option<String> {
        match &*self.state.borrow() {
            ConnectionState::Closed(why) => Some(why.clone()),
            _ => None,
        }
    }

    /// Resolves when the connection breaks.
    async fn breaks(&self) -> String {
        let mut state = self.state.subscribe();
        let _ = state.wait_for(|state| matches!(state, ConnectionState::Closed(_))).await;
        self.broken().unwrap_or_default()
    }

    /// Waits while the broker accepts no publishes.
    async fn takes_publishes(&self) -> Result<(), PublishError> {
        loop {
            let changed = self.changed.notified();
            if !matches!(&*self.state.borrow(), ConnectionState::Blocked(_)) {
                break;
            }
            changed.await;
        }
        self.broken().map_or(Ok(()), |why| Err(PublishError::Unconfirmed(why)))
    }
}

/// The broker as seen by a process.
pub struct SimulatedBroker(pub Arc<Process>);

#[async_trait]
impl Broker for SimulatedBroker {
    async fn connect(&self, name: &str) -> Result<Box<dyn Connection>, BrokerError> {
        let process = &self.0;
        process.alive().await;
        process.latency().await;
        let is = *process.world.broker.borrow();
        if is == BrokerIs::Down {
            return Err(BrokerError::Lost("connection refused".to_owned()));
        }
        let wire = Wire::new(is);
        process.world.add_wire(&wire);
        let inner = process.world.core.connect(name).await?;
        process.tell("connected");
        Ok(Box::new(SimulatedConnection { process: Arc::clone(process), wire, inner }))
    }

    fn describe(&self) -> String {
        "the simulated broker".to_owned()
    }
}

struct SimulatedConnection {
    process: Arc<Process>,
    wire: Arc<Wire>,
    inner: Box<dyn Connection>,
}

impl SimulatedConnection {
    fn consumer(&self, queue: &str, prefetch: u16, inner: Box<dyn Consumer>) -> Box<dyn Consumer> {
        Box::new(SimulatedConsumer {
            process: Arc::clone(&self.process),
            wire: Arc::clone(&self.wire),
            queue: queue.to_owned(),
            prefetch: prefetch.into(),
            held: Vec::new(),
            unacknowledged: Arc::default(),
            inner: Some(inner),
        })
    }

    fn check(&self) -> Result<(), BrokerError> {
        self.wire.broken().map_or(Ok(()), |why| Err(BrokerError::Lost(why)))
    }
}

#[async_trait]
impl Connection for SimulatedConnection {
    async fn declare(&self) -> Result<(), BrokerError> {
        self.process.alive().await;
        self.check()?;
        self.inner.declare().await
    }

    async fn publisher(&self) -> Result<Box<dyn Publisher>, BrokerError> {
        self.check()?;
        Ok(Box::new(SimulatedPublisher {
            process: Arc::clone(&self.process),
            wire: Arc::clone(&self.wire),
            inner: Arc::from(self.inner.publisher().await?),
        }))
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        self.check()?;
        Ok(self.consumer(queue, prefetch, self.inner.consume(queue, prefetch).await?))
    }

    async fn subscribe(&self, exchange: &str, pattern: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        self.check()?;
        Ok(self.consumer(pattern, prefetch, self.inner.subscribe(exchange, pattern, prefetch).await?))
    }

    async fn reply_queue(&self) -> Result<(String, Box<dyn Consumer>), BrokerError> {
        self.check()?;
        let (name, inner) = self.inner.reply_queue().await?;
        Ok((name, self.consumer("replies", 0, inner)))
    }

    async fn browse(&self, queue: &str) -> Result<Box<dyn Browser>, BrokerError> {
        self.check()?;
        self.inner.browse(queue).await
    }

    async fn depth(&self, queue: &str) -> Result<Depth, BrokerError> {
        self.check()?;
        self.inner.depth(queue).await
    }

    fn state(&self) -> watch::Receiver<ConnectionState> {
        self.wire.state.subscribe()
    }

    async fn close(&self) {
        self.wire.cut();
        self.inner.close().await;
    }
}

struct SimulatedPublisher {
    process: Arc<Process>,
    wire: Arc<Wire>,
    inner: Arc<dyn Publisher>,
}

impl SimulatedPublisher {
    fn lost(&self, fault: Fault, what: &str) -> Result<(), PublishError> {
        if !self.process.happens(fault) {
            return Ok(());
        }
        self.process.tell(format_args!("✗ {fault} {what}"));
        self.wire.cut();
        Err(PublishError::Unconfirmed(format!("simulated: {fault}")))
    }

    fn check(&self) -> Result<(), PublishError> {
        self.wire.broken().map_or(Ok(()), |why| Err(PublishError::Unconfirmed(why)))
    }

    async fn send(&self, message: Outgoing) -> Result<(), PublishError> {
        tokio::select! {
            biased;
            why = self.wire.breaks() => Err(PublishError::Unconfirmed(why)),
            done = self.inner.publish(message) => done,
        }
    }
}

#[async_trait]
impl Publisher for SimulatedPublisher {
    async fn publish(&self, message: Outgoing) -> Result<(), PublishError> {
        let (process, world) = (&self.process, &self.process.world);
        let what = named(&message);
        // A message that only moves to a retry queue is unchanged.
        let set_aside = [RETRY, DEAD].contains(&message.exchange);
        let message = if process.newer && !set_aside { of_a_newer_version(message) } else { message };
        process.step(Point::BeforePublish, &what).await;
        if world.sabotage == Some(Sabotage::ConfirmNotAwaited) {
            let (process, wire, inner) = (Arc::clone(process), Arc::clone(&self.wire), Arc::clone(&self.inner));
            tokio::spawn(async move {
                process.latency().await;
                if wire.broken().is_none() && !process.happens(Fault::PublishLost) {
                    let _ = inner.publish(message).await;
                }
            });
            return Ok(());
        }
        self.wire.takes_publishes().await?;
        process.latency().await;
        self.check()?;
        self.lost(Fault::PublishLost, &what)?;
        // A full work queue or dead-letter queue.
        if message.mandatory && message.exchange != RETRY && process.happens(Fault::Refused) {
            process.tell(format_args!("✗ Refused {what}"));
            return Err(PublishError::Refused);
        }
        self.send(message.clone()).await?;
        promises::look_at_depths(world, message.body.len());
        if !message.exchange.is_empty() && process.happens(Fault::Duplicate) {
            process.tell(format_args!("✗ Duplicate {what}"));
            self.send(message.clone()).await?;
        }
        if !message.exchange.is_empty() && message.exchange != RETRY && process.happens(Fault::LateDuplicate) {
            process.tell(format_args!("✗ LateDuplicate {what}"));
            world.publish_later(message);
        }
        process.step(Point::Published, &what).await;
        process.latency().await;
        self.check()?;
        self.lost(Fault::ConfirmLost, &what)?;
        process.step(Point::Confirmed, &what).await;
        Ok(())
    }
}

/// Adds what a later version may add to a message without a new major version.
fn of_a_newer_version(mut message: Outgoing) -> Outgoing {
    if let Ok(mut body) = serde_json::from_slice::<Map<String, Value>>(&message.body) {
        body.insert("added_in_a_later_version".to_owned(), Value::Bool(true));
        if let Some(first) = body.get_mut("rides").and_then(Value::as_array_mut).and_then(|rides| rides.first_mut())
            && let Some(ride) = first.as_object_mut()
        {
            ride.insert("rider_mood".to_owned(), Value::from("sunny"));
        }
        message.body = serde_json::to_vec(&body).expect("JSON is written as JSON").into();
    }
    message
}

struct SimulatedConsumer {
    process: Arc<Process>,
    wire: Arc<Wire>,
    queue: String,
    /// 0 means no limit.
    prefetch: usize,
    held: Vec<Delivery>,
    unacknowledged: Arc<AtomicUsize>,
    inner: Option<Box<dyn Consumer>>,
}

impl SimulatedConsumer {
    async fn arrives(&mut self) -> Result<Delivery, BrokerError> {
        if let Some(delivery) = self.held.pop() {
            return Ok(delivery);
        }
        let Some(inner) = &mut self.inner else { return Err(BrokerError::Lost("closed".to_owned())) };
        let first = tokio::select! {
            biased;
            why = self.wire.breaks() => return Err(BrokerError::Lost(why)),
            first = inner.next() => first?,
        };
        if !self.process.happens(Fault::Reorder) {
            return Ok(first);
        }
        // The requester may stop waiting: then the next one gets the message.
        self.held.push(first);
        let overtaking = tokio::time::timeout(Duration::from_millis(50), inner.next()).await;
        if let Ok(Ok(second)) = overtaking {
            self.process.tell(format_args!("✗ Reorder {}", self.queue));
            return Ok(second);
        }
        Ok(self.held.pop().expect("just put there"))
    }
}

#[async_trait]
impl Consumer for SimulatedConsumer {
    async fn next(&mut self) -> Result<Delivery, BrokerError> {
        loop {
            self.process.alive().await;
            let mut delivery = self.arrives().await?;
            let what = format!("{} {}", self.queue, delivery.properties.message_id.as_deref().unwrap_or("-"));
            let redelivered = if delivery.redelivered { " again" } else { "" };
            self.process.tell(format_args!("delivered {what}{redelivered}"));
            let sabotage = self.process.world.sabotage;
            if sabotage == Some(Sabotage::AcknowledgeFirst)
                || (sabotage == Some(Sabotage::SkipRedelivered) && delivery.redelivered)
                || (sabotage == Some(Sabotage::DeleteUnreadable) && !is_read_here(&delivery))
            {
                let settle = std::mem::replace(&mut delivery.settle, Box::new(Settled));
                settle.ack().await?;
                if sabotage == Some(Sabotage::AcknowledgeFirst) {
                    return Ok(delivery);
                }
                continue;
            }
            let now = self.unacknowledged.fetch_add(1, SeqCst) + 1;
            if self.prefetch > 0 && now > self.prefetch {
                let most = self.prefetch;
                let what = format!("6: {} holds {now} deliveries of {}, at most {most}", self.process.name, self.queue);
                self.process.world.break_promise(what);
            }
            let settle = std::mem::replace(&mut delivery.settle, Box::new(Settled));
            delivery.settle = Box::new(SimulatedSettle {
                process: Arc::clone(&self.process),
                wire: Arc::clone(&self.wire),
                unacknowledged: Arc::clone(&self.unacknowledged),
                what,
                inner: settle,
            });
            return Ok(delivery);
        }
    }

    async fn cancel(&mut self) -> Result<(), BrokerError> {
        let Some(inner) = &mut self.inner else { return Err(BrokerError::Lost("closed".to_owned())) };
        inner.cancel().await?;
        for delivery in self.held.drain(..) {
            delivery.settle.requeue().await?;
        }
        Ok(())
    }
}

fn is_read_here(delivery: &Delivery) -> bool {
    delivery.properties.kind.as_deref().is_none_or(|kind| kind.ends_with(".v1"))
}

impl Drop for SimulatedConsumer {
    fn drop(&mut self) {
        // The broker returns the messages of a crashed process when it notices the crash; for a half-open connection it notices
        // late.
        let half_open = self.process.is_dead() && self.process.happens(Fault::HalfOpen);
        if let Some(inner) = self.inner.take().filter(|_| half_open)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let world = Arc::clone(&self.process.world);
            let (held, name) = (std::mem::take(&mut self.held), self.process.name.clone());
            let after = Duration::from_secs(30 + world.below(4 * 3_600));
            world.tell(&name, format_args!("✗ HalfOpen {}", self.queue));
            runtime.spawn(async move {
                tokio::time::sleep(after).await;
                world.tell(&name, "given back at last");
                drop((inner, held));
            });
        }
    }
}

/// Returns whether nothing is left to settle.
struct Settled;

#[async_trait]
impl Settle for Settled {
    async fn ack(self: Box<Self>) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn requeue(self: Box<Self>) -> Result<(), BrokerError> {
        Ok(())
    }
}

struct SimulatedSettle {
    process: Arc<Process>,
    wire: Arc<Wire>,
    unacknowledged: Arc<AtomicUsize>,
    what: String,
    inner: Box<dyn Settle>,
}

#[async_trait]
impl Settle for SimulatedSettle {
    async fn ack(self: Box<Self>) -> Result<(), BrokerError> {
        let this = *self;
        this.process.step(Point::BeforeAck, &this.what).await;
        if this.process.happens(Fault::AckLost) {
            this.process.tell(format_args!("✗ AckLost {}", this.what));
            this.wire.cut();
        }
        if let Some(why) = this.wire.broken() {
            return Err(BrokerError::Lost(why));
        }
        this.inner.ack().await?;
        this.unacknowledged.fetch_sub(1, SeqCst);
        this.process.step(Point::AfterAck, &this.what).await;
        Ok(())
    }

    async fn requeue(self: Box<Self>) -> Result<(), BrokerError> {
        self.inner.requeue().await
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World of seed {}", self.plan.seed)
    }
}
