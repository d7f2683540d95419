//! What the page shows of the fleet: one look a second at most, however many watch, and none when nobody does.

use crate::{
    letters::{Dead, Letters},
    link::{BrokerState, Link, Reach},
    management::Management,
    metrics::Metrics,
};
use common::{
    dead_letter::BATCH_ID_CONFLICT,
    exchange,
    message::{DatasetReady, Message, ModelPromoted, decode},
    model::{Alias, AliasName, Model},
    outcome::Failure,
    served::drift,
    topology::{dead_queue, queue, retry_delays_of, retry_queue},
};
use futures::{StreamExt, stream};
use records::{Store, alias, served, store};
use runtime::{
    broker::{Delivery, deliveries},
    client::{Client, ClientError},
    host,
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Mutex, broadcast},
    time::Instant,
};
use utoipa::ToSchema;

/// How old a look may be.
const FRESH: Duration = Duration::from_millis(900);
/// How old may be what is known of what scorers served.
const SERVED_FRESH: Duration = Duration::from_secs(10);
/// How far it reaches back.
const SERVED_DAYS: i64 = 7;
/// How long the broker may take to tell what its queues hold.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// After events are no longer heard.
const LISTEN_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Events that a slow watcher may be behind.
const EVENTS_MAX: usize = 1_024;

/// The fleet at one moment.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Snapshot {
    /// RFC 3339.
    at: String,
    broker: BrokerSeen,
    /// Whether this gateway is shutting down.
    draining: bool,
    /// In the order of the flow.
    pub(crate) queues: Vec<QueueSeen>,
    /// What is not known, and how it could be.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    note: Option<String>,
    gateway: GatewaySeen,
    /// The model that is served.
    #[schema(required = true)]
    champion: Option<ChampionSeen>,
}

/// The broker.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct BrokerSeen {
    /// Its address, without credentials.
    name: String,
    state: BrokerWord,
    /// Why it is not open.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    why: Option<String>,
}

/// Whether the broker takes messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BrokerWord {
    /// It does.
    Open,
    /// Not now: an alarm.
    Blocked,
    /// It cannot be reached.
    Away,
}

/// A work queue, its rungs and its dead letters.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct QueueSeen {
    queue: String,
    /// Messages that wait.
    ready: u64,
    /// Messages that a worker has in hand; null where the broker does not tell.
    #[schema(required = true)]
    in_flight: Option<u64>,
    consumers: u64,
    /// Messages that wait for another attempt.
    retries: u64,
    /// Dead letters.
    dead: u64,
    /// Messages done with per second; null where the broker does not tell.
    #[schema(required = true)]
    rate_per_s: Option<f64>,
}

/// This gateway.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct GatewaySeen {
    requests_per_s: f64,
    /// Requests being worked on.
    in_flight: u64,
    /// Rides that travel together to a scorer, on average; null before the first.
    #[schema(required = true)]
    rides_per_rpc: Option<f64>,
    /// Answers that came after their deadline and were dropped.
    late_answers: u64,
}

/// The champion's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ChampionSeen {
    model: String,
    model_id: String,
}

/// Something happened.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// To a batch.
    Batch { batch_id: String, state: &'static str },
    /// There is another champion.
    Model { model: String, model_id: String },
    /// A dead letter came.
    Dead { queue: String },
}

/// Looks at the fleet for all who watch.
pub(crate) struct Observer {
    link: Arc<Link>,
    metrics: Arc<Metrics>,
    store: Store,
    model: String,
    management: Option<Management>,
    namespace: String,
    latest: Mutex<Option<(Instant, Arc<Snapshot>)>>,
    letters: Arc<Letters>,
    /// When it was last read what scorers served.
    served_at: Mutex<Option<Instant>>,
    /// Messages done with by queue, and when that was read.
    done: std::sync::Mutex<HashMap<&'static str, (Instant, u64)>>,
    events: broadcast::Sender<Event>,
}

impl Observer {
    /// Listens to events from now on; looks at nothing before it is asked to.
    pub(crate) fn start(
        link: &Arc<Link>,
        metrics: &Arc<Metrics>,
        store: Store,
        model: String,
        management: Option<Management>,
        namespace: &str,
    ) -> Self {
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let letters = Arc::new(Letters::new(Arc::clone(link), namespace));
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
            served_at: Mutex::default(),
            done: std::sync::Mutex::default(),
            events,
        }
    }

    /// The dead letters.
    pub(crate) async fn dead(&self) -> Dead {
        self.letters.dead().await
    }

    /// What happens from now on.
    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Tells those who watch that something happened to a batch.
    pub(crate) fn changed(&self, batch_id: &str) {
        let _ = self.events.send(Event::Batch { batch_id: batch_id.to_owned(), state: "queued" });
    }

    /// The fleet, as of less than a second ago.
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
        if let Ok(client) = self.link.reader() {
            match tokio::time::timeout(LOOK_TIMEOUT, self.queues(&client)).await {
                Ok(Ok((seen, told))) => (queues, note) = (seen, told),
                Ok(Err(error)) => state = BrokerState::Away(error.to_string()),
                Err(_) => state = BrokerState::Away(format!("silent for {} ms", LOOK_TIMEOUT.as_millis())),
            }
        }
        let (word, why) = match state {
            BrokerState::Open => (BrokerWord::Open, None),
            BrokerState::Blocked(why) => (BrokerWord::Blocked, Some(why)),
            BrokerState::Away(why) => (BrokerWord::Away, Some(why)),
        };
        self.metrics.link(word == BrokerWord::Open, self.link.late_answers());
        for seen in &queues {
            self.metrics.queue(&seen.queue, seen.ready, seen.consumers, seen.dead);
        }
        let champion = alias::current(&self.store, &self.model, AliasName::Champion).await;
        let champion = champion.ok().flatten().map(|Alias { model, model_id, .. }| ChampionSeen { model, model_id });
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

    /// Brings the metrics of what the champion served up to date, as of some seconds ago; where the store does not tell, they stay as they
    /// are.
    pub(crate) async fn watch_served(&self) {
        let mut at = self.served_at.lock().await;
        if at.is_some_and(|at| at.elapsed() < SERVED_FRESH) {
            return;
        }
        match tokio::time::timeout(LOOK_TIMEOUT, self.read_served()).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => tracing::debug!(%why, "what was served cannot be read now"),
            Err(_) => tracing::debug!("what was served takes too long to read"),
        }
        *at = Some(Instant::now());
    }

    async fn read_served(&self) -> Result<(), Failure> {
        let Some(champion) = alias::current(&self.store, &self.model, AliasName::Champion).await? else {
            return Ok(());
        };
        let Some(model) = store::read_json::<Model>(&self.store, &champion.object).await? else { return Ok(()) };
        let since = served::since(SERVED_DAYS, host::now());
        let tally = served::read(&self.store, &champion.model, &champion.model_id, Some(&since)).await?;
        self.metrics.served(&champion.model, &champion.model_id, &tally, &drift(&model, &tally));
        Ok(())
    }

    async fn queues(&self, client: &Client) -> Result<(Vec<QueueSeen>, Option<String>), ClientError> {
        let told = match &self.management {
            None => None,
            Some(management) => Some(management.queues().await),
        };
        let mut by_management = BTreeMap::new();
        for found in told.iter().flatten().flatten() {
            if let Some(name) = found["name"].as_str().and_then(|name| name.strip_prefix(self.namespace.as_str())) {
                by_management.insert(name.to_owned(), found);
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
                None => managed.map(|found| found["message_stats"]["ack_details"]["rate"].as_f64().unwrap_or(0.0)),
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
        let note = match told {
            Some(Err(why)) => Some(why),
            None if queues.iter().any(|seen| seen.in_flight.is_none()) => {
                Some("rates and messages in flight need broker.management_url".to_owned())
            }
            _ => None,
        };
        Ok((queues, note))
    }

    /// Messages done with per second since the last look.
    fn rate(&self, queue: &'static str, total: u64) -> Option<f64> {
        let now = Instant::now();
        let before = self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(queue, (now, total));
        let (at, done) = before?;
        let seconds = now.duration_since(at).as_secs_f64();
        (seconds > 0.0 && total >= done).then(|| (total - done) as f64 / seconds)
    }
}

/// Tells of events, on every connection there is.
async fn listen(link: Arc<Link>, events: broadcast::Sender<Event>, letters: Arc<Letters>) {
    let mut reach = link.reach();
    loop {
        let client = match reach.wait_for(|now| matches!(now, Reach::Up(_))).await.as_deref() {
            Ok(Reach::Up(client)) => Arc::clone(client),
            Ok(Reach::Away(_)) => continue,
            Err(_) => return,
        };
        if let Err(why) = follow(&client, &events, &letters).await {
            tracing::debug!(why, "events are not heard now");
        }
        drop(client);
        // A new connection, or once more over this one: only the queues may have gone.
        tokio::select! {
            biased;
            changed = reach.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(LISTEN_AGAIN_AFTER) => {}
        }
    }
}

async fn follow(client: &Client, events: &broadcast::Sender<Event>, letters: &Letters) -> Result<(), String> {
    let broken = |error: ClientError| error.to_string();
    let mut consumers = vec![client.listen(exchange::EVENTS, "#").await.map_err(broken)?];
    for queue in queue::ALL {
        consumers.push(client.listen(exchange::DEAD, queue).await.map_err(broken)?);
    }
    let mut heard = stream::select_all(consumers.into_iter().map(|consumer| deliveries(consumer).boxed()));
    while let Some(delivery) = heard.next().await {
        let delivery = delivery.map_err(|error| error.to_string())?;
        for event in meaning(&delivery, letters) {
            // Nobody may be watching.
            let _ = events.send(event);
        }
        delivery.settle.ack().await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// What a message on the exchanges of events and dead letters means to who watches.
fn meaning(delivery: &Delivery, letters: &Letters) -> Vec<Event> {
    if delivery.exchange == exchange::DEAD {
        let letter = letters.heard(delivery);
        // Another publisher's message that used the id does not change the state of the batch.
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
