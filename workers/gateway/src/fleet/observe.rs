//! The state of the fleet for the page: queried at most once a second for all clients, and not at all without clients.

use super::management::Management;
use crate::{
    batches::dead_letters::{DeadLetterReader, DeadLetterSnapshot},
    link::{BrokerState, Link, Reach},
    metrics::Metrics,
};
use common::{
    dead_letter::BATCH_ID_CONFLICT,
    exchange,
    message::{DatasetReady, Message, ModelPromoted, decode},
    model::{Alias, AliasName},
    outcome::Failure,
    served::drift,
    topology::{dead_queue, queue, retry_delays_of, retry_queue},
};
use futures::{StreamExt, stream};
use records::{Store, registry, serving, store};
use runtime::{
    broker::{Delivery, deliveries},
    client::{Client, ClientError},
    host,
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Mutex, broadcast},
    time::Instant,
};
use utoipa::ToSchema;

/// Maximum age of a snapshot.
const FRESH: Duration = Duration::from_millis(900);
/// Maximum age of the serving statistics; with a service as the store, which bills every file read.
const STATISTICS_FRESH: Duration = Duration::from_secs(10);
const STATISTICS_FRESH_REMOTE: Duration = Duration::from_secs(60);
/// Days that the serving statistics cover.
const STATISTICS_DAYS: i64 = 7;
/// Timeout for reading the queues, and for reading the serving statistics.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before subscribing to events again.
const RESUBSCRIBE_AFTER: Duration = Duration::from_secs(2);
/// Maximum number of events that a slow client may be behind.
const EVENTS_MAX: usize = 1_024;

/// The fleet at one moment.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Snapshot {
    /// Time of the snapshot, RFC 3339.
    at: String,
    broker: BrokerSeen,
    /// Whether this gateway is shutting down.
    draining: bool,
    /// In the order of the flow.
    pub(crate) queues: Vec<QueueSeen>,
    /// Which values are missing, and what provides them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    note: Option<String>,
    gateway: GatewaySeen,
    /// The served model.
    #[schema(required = true)]
    champion: Option<ChampionSeen>,
}

/// The broker.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct BrokerSeen {
    /// Address, without credentials.
    name: String,
    state: BrokerWord,
    /// Why the broker does not accept messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    why: Option<String>,
}

/// Whether the broker accepts messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BrokerWord {
    /// It accepts messages.
    Open,
    /// It accepts none, because of an alarm.
    Blocked,
    /// It cannot be reached.
    Away,
}

/// A work queue, with its retry queues and dead letters.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct QueueSeen {
    queue: String,
    /// Waiting messages.
    ready: u64,
    /// Messages that workers are handling; null if unknown.
    #[schema(required = true)]
    in_flight: Option<u64>,
    consumers: u64,
    /// Messages in the retry queues.
    retries: u64,
    /// Number of dead letters.
    dead: u64,
    /// Acknowledged messages per second; null if unknown.
    #[schema(required = true)]
    rate_per_s: Option<f64>,
}

/// This gateway.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct GatewaySeen {
    requests_per_s: f64,
    /// Requests in progress.
    in_flight: u64,
    /// Mean number of rides per message to a scorer; null before the first message.
    #[schema(required = true)]
    rides_per_rpc: Option<f64>,
    /// Answers that arrived after their deadline and were dropped.
    late_answers: u64,
}

/// The champion's family and version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ChampionSeen {
    model: String,
    model_id: String,
}

/// A change in the fleet.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A batch changed its state.
    Batch { batch_id: String, state: &'static str },
    /// A model was promoted.
    Model { model: String, model_id: String },
    /// A dead letter arrived.
    Dead { queue: String },
}

/// Observes the fleet for all clients.
pub(crate) struct Observer {
    link: Arc<Link>,
    metrics: Arc<Metrics>,
    store: Store,
    model: String,
    management: Option<Management>,
    namespace: String,
    latest: Mutex<Option<(Instant, Arc<Snapshot>)>>,
    letters: Arc<DeadLetterReader>,
    /// When the serving statistics were last read.
    statistics_read_at: Mutex<Option<Instant>>,
    /// Number of acknowledged messages by queue, and when it was read.
    done: parking_lot::Mutex<HashMap<&'static str, (Instant, u64)>>,
    events: broadcast::Sender<Event>,
}

impl Observer {
    /// Subscribes to events. Queries nothing before the first request.
    pub(crate) fn start(
        link: &Arc<Link>,
        metrics: &Arc<Metrics>,
        store: Store,
        model: String,
        management: Option<Management>,
        namespace: &str,
    ) -> Self {
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let letters = Arc::new(DeadLetterReader::new(Arc::clone(link), namespace));
        tokio::spawn(listen(Arc::clone(link), events.clone(), Arc::clone(&letters)));
        Self {
            link: Arc::clone(link),
            metrics: Arc::clone(metrics),
            store,
            model,
            management,
            namespace: namespace.to_owned(),
            latest: Mutex::default(),
            letters,
            statistics_read_at: Mutex::default(),
            done: parking_lot::Mutex::default(),
            events,
        }
    }

    /// Returns the dead letters.
    pub(crate) async fn dead(&self) -> DeadLetterSnapshot {
        self.letters.dead().await
    }

    /// Returns a receiver of all events from now on.
    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Sends clients the event that a batch is queued.
    pub(crate) fn changed(&self, batch_id: &str) {
        let _ = self.events.send(Event::Batch { batch_id: batch_id.to_owned(), state: "queued" });
    }

    /// Returns a snapshot of the fleet that is less than a second old.
    pub(crate) async fn snapshot(&self, draining: bool) -> Arc<Snapshot> {
        let mut latest = self.latest.lock().await;
        if let Some((at, snapshot)) = latest.as_ref()
            && at.elapsed() < FRESH
            && snapshot.draining == draining
        {
            return Arc::clone(snapshot);
        }
        let snapshot = Arc::new(self.look(draining).await);
        *latest = Some((Instant::now(), Arc::clone(&snapshot)));
        snapshot
    }

    async fn look(&self, draining: bool) -> Snapshot {
        let (mut queues, mut note) = (Vec::new(), None);
        let mut state = self.link.broker_state();
        self.metrics.link(matches!(state, BrokerState::Open), self.link.late_answers());
        if let Ok(client) = self.link.reader() {
            match tokio::time::timeout(LOOK_TIMEOUT, self.queues(&client)).await {
                Ok(Ok(read)) => (queues, note) = read,
                Ok(Err(error)) => state = BrokerState::Away(error.to_string()),
                Err(_) => state = BrokerState::Away(format!("silent for {} ms", LOOK_TIMEOUT.as_millis())),
            }
        }
        let (word, why) = match state {
            BrokerState::Open => (BrokerWord::Open, None),
            BrokerState::Blocked(why) => (BrokerWord::Blocked, Some(why)),
            BrokerState::Away(why) => (BrokerWord::Away, Some(why)),
        };
        for queue in &queues {
            self.metrics.queue(&queue.queue, queue.ready, queue.consumers, queue.dead);
        }
        let champion = registry::read_alias(&self.store, &self.model, AliasName::Champion);
        let champion = tokio::time::timeout(LOOK_TIMEOUT, champion).await.ok().and_then(Result::ok).flatten();
        let champion = champion.map(|Alias { model, model_id, .. }| ChampionSeen { model, model_id });
        Snapshot {
            at: host::now().strftime("%FT%TZ").to_string(),
            broker: BrokerSeen { name: self.link.broker_name().to_owned(), state: word, why },
            draining,
            queues,
            note,
            gateway: GatewaySeen {
                requests_per_s: self.metrics.requests_per_second(),
                in_flight: self.metrics.in_flight(),
                rides_per_rpc: self.metrics.rides_per_message(),
                late_answers: self.link.late_answers(),
            },
            champion,
        }
    }

    /// Updates the metrics of the champion's serving statistics if they are some seconds old. They stay as they are if the store
    /// fails.
    pub(crate) async fn update_serving_metrics(&self) {
        let mut at = self.statistics_read_at.lock().await;
        let fresh = if store::is_remote(&self.store) { STATISTICS_FRESH_REMOTE } else { STATISTICS_FRESH };
        if at.is_some_and(|at| at.elapsed() < fresh) {
            return;
        }
        match tokio::time::timeout(LOOK_TIMEOUT, self.read_serving_statistics()).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => tracing::debug!(%why, "cannot read the serving statistics"),
            Err(_) => tracing::debug!("timeout while reading the serving statistics"),
        }
        *at = Some(Instant::now());
    }

    async fn read_serving_statistics(&self) -> Result<(), Failure> {
        let Some(champion) = registry::read_alias(&self.store, &self.model, AliasName::Champion).await? else {
            return Ok(());
        };
        let Ok(model) = registry::named_model(&self.store, &champion).await? else { return Ok(()) };
        let since = serving::since(STATISTICS_DAYS, host::now());
        let tally = serving::read(&self.store, &champion.model, &champion.model_id, Some(&since)).await?;
        self.metrics.served(&champion.model, &champion.model_id, &tally, &drift(&model, &tally));
        Ok(())
    }

    async fn queues(&self, client: &Client) -> Result<(Vec<QueueSeen>, Option<String>), ClientError> {
        let managed_queues = match &self.management {
            None => None,
            Some(management) => Some(management.queues().await),
        };
        let mut by_management = BTreeMap::new();
        for queue in managed_queues.iter().flatten().flatten() {
            if let Some(name) = queue["name"].as_str().and_then(|name| name.strip_prefix(self.namespace.as_str())) {
                by_management.insert(name.to_owned(), queue);
            }
        }
        let mut queues = Vec::new();
        for name in queue::ALL {
            let depth = client.depth(name).await?;
            let mut retries = 0;
            for index in 0..retry_delays_of(name).len() {
                retries += client.depth(&retry_queue(name, index)).await?.messages;
            }
            let dead = client.depth(&dead_queue(name)).await?.messages;
            let managed = by_management.get(name);
            let in_flight = depth.unacknowledged.or_else(|| managed?["messages_unacknowledged"].as_u64());
            let rate_per_s = match depth.acknowledged_total {
                Some(total) => self.rate(name, total),
                None => managed.map(|queue| queue["message_stats"]["ack_details"]["rate"].as_f64().unwrap_or(0.0)),
            };
            queues.push(QueueSeen {
                queue: name.to_owned(),
                ready: depth.messages,
                in_flight,
                consumers: depth.consumers,
                retries,
                dead,
                rate_per_s,
            });
        }
        let note = match managed_queues {
            Some(Err(why)) => Some(why),
            None if queues.iter().any(|queue| queue.in_flight.is_none()) => {
                Some("rates and messages in flight need broker.management_url".to_owned())
            }
            _ => None,
        };
        Ok((queues, note))
    }

    /// Returns the acknowledged messages per second since the last snapshot.
    fn rate(&self, queue: &'static str, total: u64) -> Option<f64> {
        let now = Instant::now();
        let before = self.done.lock().insert(queue, (now, total));
        let (at, done) = before?;
        let seconds = now.duration_since(at).as_secs_f64();
        (seconds > 0.0 && total >= done).then(|| (total - done) as f64 / seconds)
    }
}

/// Forwards events to clients, on every connection that the link makes.
async fn listen(link: Arc<Link>, events: broadcast::Sender<Event>, letters: Arc<DeadLetterReader>) {
    let mut reach = link.reach();
    loop {
        let client = match reach.wait_for(|now| matches!(now, Reach::Up(_))).await.as_deref() {
            Ok(Reach::Up(client)) => Arc::clone(client),
            Ok(Reach::Away(_)) => continue,
            Err(_) => return,
        };
        if let Err(why) = follow(&client, &events, &letters).await {
            tracing::debug!(why, "the subscription to events ended");
        }
        drop(client);
        // Subscribes over a new connection, or again over this one, because only the queues may be gone.
        tokio::select! {
            biased;
            changed = reach.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(RESUBSCRIBE_AFTER) => {}
        }
    }
}

async fn follow(client: &Client, events: &broadcast::Sender<Event>, letters: &DeadLetterReader) -> Result<(), String> {
    let broken = |error: ClientError| error.to_string();
    let mut consumers = vec![client.listen(exchange::EVENTS, "#").await.map_err(broken)?];
    for queue in queue::ALL {
        consumers.push(client.listen(exchange::DEAD, queue).await.map_err(broken)?);
    }
    let mut arrivals = stream::select_all(consumers.into_iter().map(deliveries));
    while let Some(delivery) = arrivals.next().await {
        let delivery = delivery.map_err(|error| error.to_string())?;
        for event in events_of(&delivery, letters) {
            // There may be no client.
            let _ = events.send(event);
        }
        delivery.settle.ack().await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Returns the events that a message on the exchanges of events and dead letters stands for.
fn events_of(delivery: &Delivery, letters: &DeadLetterReader) -> Vec<Event> {
    if delivery.exchange == exchange::DEAD {
        let letter = letters.record_arrival(delivery);
        // A message of another publisher that used the same id does not change the state of the batch.
        let of_batch = letter.batch_id.filter(|_| letter.reason != BATCH_ID_CONFLICT);
        let batch = of_batch.map(|batch_id| Event::Batch { batch_id, state: "refused" });
        return std::iter::once(Event::Dead { queue: letter.queue }).chain(batch).collect();
    }
    let kind = delivery.properties.kind.as_deref().unwrap_or_default();
    if kind == DatasetReady::KIND.to_string() {
        let ready = decode::<DatasetReady>(&delivery.body);
        return ready.map(|ready| Event::Batch { batch_id: ready.batch_id, state: "ready" }).into_iter().collect();
    }
    if kind == ModelPromoted::KIND.to_string() {
        let promoted = decode::<ModelPromoted>(&delivery.body);
        return promoted
            .map(|promoted| Event::Model { model: promoted.model, model_id: promoted.model_id })
            .into_iter()
            .collect();
    }
    Vec::new()
}
