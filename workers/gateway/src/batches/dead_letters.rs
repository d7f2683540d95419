//! The dead letters: read from their queues, oldest first, and received as they arrive.
//!
//! A queue can hold many. The oldest [`LETTERS_MAX`] of each queue are kept complete, for people to read; of up to
//! [`LETTERS_READ_MAX`] only the batch and the reason are kept, so that a refused batch is never shown as waiting. Reading that
//! many takes seconds: it happens in the background, and dead letters that arrive meanwhile count at once.

use crate::link::Link;
use common::{
    dead_letter::{Letter, is_about},
    envelope,
    topology::{dead_queue, queue},
};
use parking_lot::Mutex;
use runtime::{
    broker::Delivery,
    client::{Client, ClientError},
};
use serde::Serialize;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::time::Instant;
use utoipa::ToSchema;

/// Maximum number of dead letters per queue that are kept complete, the oldest first.
pub const LETTERS_MAX: usize = 500;
/// Maximum number of dead letters per queue that are read, the oldest first.
pub const LETTERS_READ_MAX: usize = 20_000;
/// Maximum number of bytes of dead letters read from one queue.
const BYTES_READ_MAX: usize = 64 << 20;
/// Maximum number of refusals kept per batch.
const REFUSALS_MAX: usize = 16;
/// Maximum age of the queue lengths while no dead letter arrives.
const DEPTHS_FRESH: Duration = Duration::from_millis(900);
/// Maximum age of the dead letters while the queue lengths stay the same, or if a queue holds more than [`LETTERS_MAX`].
const LETTERS_FRESH: Duration = Duration::from_secs(30);
/// Timeout for reading the queue lengths.
const DEPTHS_TIMEOUT: Duration = Duration::from_secs(2);
/// Timeout for reading the dead letters of one queue, if no queue holds more than [`LETTERS_MAX`].
const BROWSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout for reading the dead letters of one queue, if a queue holds more than [`LETTERS_MAX`].
const LONG_BROWSE_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum number of refusals that arrived and were not read from their queue yet.
const ARRIVALS_MAX: usize = 10_000;
/// Maximum length of the explanation (`why`) of a refusal, bytes.
const WHY_BYTES_MAX: usize = 500;

/// A dead letter.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct DeadLetter {
    /// Stable id; `wildrydes dead show` accepts it.
    id: String,
    /// The queue of the worker that gave the message up.
    pub(crate) queue: String,
    /// Name and version of the message.
    #[schema(required = true)]
    kind: Option<String>,
    #[schema(required = true)]
    message_id: Option<String>,
    /// Stable code.
    pub(crate) reason: String,
    /// Explanation.
    pub(crate) why: String,
    /// When the message was given up, RFC 3339.
    #[schema(required = true)]
    dead_at: Option<String>,
    #[schema(required = true)]
    pub(crate) batch_id: Option<String>,
    /// As in [`Letter`].
    #[serde(skip)]
    sha256: Option<String>,
    attempts: u32,
    /// Error of the first attempt.
    #[schema(required = true)]
    first_error: Option<String>,
    body_bytes: usize,
}

/// Why a batch is refused, according to one of its dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The queue of the worker that gave the message up.
    pub(crate) queue: String,
    /// Stable code.
    pub(crate) reason: String,
    /// Explanation.
    pub(crate) why: String,
    /// As in [`Letter`].
    sha256: Option<String>,
}

impl Refusal {
    fn of(letter: &DeadLetter) -> Self {
        let mut end = letter.why.len().min(WHY_BYTES_MAX);
        while !letter.why.is_char_boundary(end) {
            end -= 1;
        }
        Self {
            queue: letter.queue.clone(),
            reason: letter.reason.clone(),
            why: letter.why[..end].to_owned(),
            sha256: letter.sha256.clone(),
        }
    }
}

/// Refusals by batch id, oldest first.
type Refusals = HashMap<String, Vec<Refusal>>;

fn add(refusals: &mut Refusals, letter: &DeadLetter) {
    let Some(batch_id) = &letter.batch_id else { return };
    let (of_batch, refusal) = (refusals.entry(batch_id.clone()).or_default(), Refusal::of(letter));
    // A batch of many chunks can have many dead letters with the same reason.
    if of_batch.len() < REFUSALS_MAX
        && of_batch.iter().all(|known| (&known.reason, &known.sha256) != (&refusal.reason, &refusal.sha256))
    {
        of_batch.push(refusal);
    }
}

/// The dead letters of all queues.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeadLetterSnapshot {
    /// Number of dead letters.
    pub(crate) total: u64,
    /// The oldest dead letters of each queue.
    pub(crate) letters: Arc<Vec<DeadLetter>>,
    read: Arc<Refusals>,
    arrivals: Arc<Mutex<Arrivals>>,
}

impl DeadLetterSnapshot {
    /// Returns why a batch is refused; `None` if it is not. `claimed` is the SHA-256 in its claim, if that is known:
    /// then dead letters about other bytes with the same id do not count.
    pub(crate) fn of_batch(&self, batch_id: &str, claimed: Option<&str>) -> Option<Refusal> {
        let is_ours = |refusal: &&Refusal| {
            claimed.is_none_or(|claimed| is_about(&refusal.reason, refusal.sha256.as_deref(), claimed))
        };
        let read = self.read.get(batch_id).into_iter().flatten().find(is_ours).cloned();
        read.or_else(|| {
            let arrivals = self.arrivals.lock();
            arrivals.refusals.get(batch_id).into_iter().flatten().map(|(_, refusal)| refusal).find(is_ours).cloned()
        })
    }
}

/// Refusals that arrived and may not have been read from their queue yet, each with its number in order of arrival.
#[derive(Debug, Default)]
struct Arrivals {
    refusals: HashMap<String, Vec<(u64, Refusal)>>,
    /// Number of dead letters that arrived so far.
    count: u64,
    /// Number of refusals kept.
    kept: usize,
}

impl Arrivals {
    fn add(&mut self, letter: &DeadLetter) {
        let place = self.count;
        self.count += 1;
        if let (Some(batch_id), true) = (&letter.batch_id, self.kept < ARRIVALS_MAX) {
            self.kept += 1;
            self.refusals.entry(batch_id.clone()).or_default().push((place, Refusal::of(letter)));
        }
    }

    /// Removes the first `count` refusals: they have been read from their queue by now, or are gone.
    fn forget(&mut self, count: u64) {
        self.refusals.retain(|_, of_batch| {
            of_batch.retain(|(place, _)| *place >= count);
            !of_batch.is_empty()
        });
        self.kept = self.refusals.values().map(Vec::len).sum();
    }
}

/// The last read.
#[derive(Default)]
struct LastRead {
    /// When the queue lengths were read, and how many dead letters had arrived by then.
    looked: Option<(Instant, u64)>,
    /// When all dead letters were read completely, and how long that took.
    read: Option<(Instant, Duration)>,
    /// Number of dead letters by queue.
    depths: Vec<u64>,
    dead: DeadLetterSnapshot,
}

impl LastRead {
    /// Replaces the last read with a newer one. A partial read replaces only another partial read.
    fn take(&mut self, read: Self) {
        if read.read.is_some() || self.read.is_none() {
            *self = Self { looked: self.looked, ..read };
        }
    }
}

/// Reads the dead letters of all queues.
pub(crate) struct DeadLetterReader {
    link: Arc<Link>,
    namespace: String,
    known: tokio::sync::Mutex<LastRead>,
    arrivals: Arc<Mutex<Arrivals>>,
    /// Whether a background task reads many dead letters.
    reading: AtomicBool,
}

impl DeadLetterReader {
    pub(crate) fn new(link: Arc<Link>, namespace: &str) -> Self {
        let arrivals = Arc::<Mutex<Arrivals>>::default();
        let dead = DeadLetterSnapshot { arrivals: Arc::clone(&arrivals), ..DeadLetterSnapshot::default() };
        let known = tokio::sync::Mutex::new(LastRead { dead, ..LastRead::default() });
        Self { link, namespace: namespace.to_owned(), known, arrivals, reading: AtomicBool::new(false) }
    }

    /// Records a dead letter that has just arrived.
    pub(crate) fn record_arrival(&self, delivery: &Delivery) -> DeadLetter {
        let letter = read(&delivery.routing_key, &self.namespace, delivery);
        self.arrivals.lock().add(&letter);
        letter
    }

    /// Returns the dead letters; the last ones read if the broker does not answer.
    pub(crate) async fn dead(self: &Arc<Self>) -> DeadLetterSnapshot {
        let mut known = self.known.lock().await;
        let arrivals = self.arrivals.lock().count;
        let is_looked_at = known.looked.is_some_and(|(at, then)| at.elapsed() < DEPTHS_FRESH && then == arrivals);
        // RabbitMQ does not count messages that a consumer holds: while the task reads, the lengths are too small.
        if is_looked_at || self.reading.load(SeqCst) {
            return known.dead.clone();
        }
        let Ok(client) = self.link.reader() else { return known.dead.clone() };
        let Ok(Ok(depths)) = tokio::time::timeout(DEPTHS_TIMEOUT, depths(&client)).await else {
            return known.dead.clone();
        };
        let are_many = depths.iter().any(|depth| usize::try_from(*depth).is_ok_and(|depth| depth > LETTERS_MAX));
        let is_fresh = known.read.is_some_and(|(at, took)| at.elapsed() < LETTERS_FRESH.max(took * 10));
        (known.looked, known.dead.total) = (Some((Instant::now(), arrivals)), depths.iter().sum());
        if is_fresh && (known.depths == depths || are_many) {
            return known.dead.clone();
        }
        if !are_many {
            self.read_all(&mut known, &client, depths, BROWSE_TIMEOUT).await;
        } else if !self.reading.swap(true, SeqCst) {
            let reading = Reading(Arc::clone(self));
            tokio::spawn(async move {
                let letters = &reading.0;
                let mut read = LastRead::default();
                letters.read_all(&mut read, &client, depths, LONG_BROWSE_TIMEOUT).await;
                letters.known.lock().await.take(read);
            });
        }
        known.dead.clone()
    }

    /// Reads the dead letters of all queues into `known`. A partial read, after a timeout or while another client holds dead
    /// letters, does not replace a complete one.
    async fn read_all(&self, known: &mut LastRead, client: &Client, depths: Vec<u64>, within: Duration) {
        // Dead letters that arrive from here on may be missing from this read.
        let before = self.arrivals.lock().count;
        let (started, mut found, mut is_whole) = (Instant::now(), Found::default(), true);
        for (name, depth) in queue::ALL.into_iter().zip(&depths).filter(|(_, depth)| **depth > 0) {
            let count = found.count;
            let failed = match tokio::time::timeout(within, self.read_queue(client, name, &mut found)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("not all were read within {} s", within.as_secs())),
            };
            if let Some(why) = &failed {
                tracing::warn!(queue = name, why, "dead letters cannot be read");
            }
            // Fewer than the broker counted: another client holds or has removed some.
            let is_partial = ((found.count - count) as u64) < (*depth).min(LETTERS_READ_MAX as u64);
            is_whole &= failed.is_none() && !is_partial;
        }
        let (total, arrivals) = (depths.iter().sum(), Arc::clone(&self.arrivals));
        let dead =
            DeadLetterSnapshot { total, letters: Arc::new(found.letters), read: Arc::new(found.refusals), arrivals };
        if is_whole {
            self.arrivals.lock().forget(before);
        }
        let read = is_whole.then(|| (Instant::now(), started.elapsed()));
        known.take(LastRead { looked: None, read, depths, dead });
    }

    async fn read_queue(&self, client: &Client, queue: &str, found: &mut Found) -> Result<(), ClientError> {
        let mut browser = client.browse(&dead_queue(queue)).await?;
        let (mut count, mut bytes) = (0, 0);
        while count < LETTERS_READ_MAX
            && bytes < BYTES_READ_MAX
            && let Some(delivery) = browser.next().await?
        {
            count += 1;
            bytes += delivery.body.len();
            let letter = read(queue, &self.namespace, &delivery);
            add(&mut found.refusals, &letter);
            if count <= LETTERS_MAX {
                found.letters.push(letter);
            }
        }
        // A read that stops at the byte limit counts as complete.
        found.count += if bytes < BYTES_READ_MAX { count } else { LETTERS_READ_MAX };
        browser.close().await?;
        Ok(())
    }
}

/// Dead letters read from the queues.
#[derive(Default)]
struct Found {
    letters: Vec<DeadLetter>,
    refusals: Refusals,
    count: usize,
}

/// Marks that a background task reads dead letters, until it is dropped.
struct Reading(Arc<DeadLetterReader>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.reading.store(false, SeqCst);
    }
}

/// Reads the number of dead letters by queue.
async fn depths(client: &Client) -> Result<Vec<u64>, ClientError> {
    let mut depths = Vec::new();
    for name in queue::ALL {
        depths.push(client.depth(&dead_queue(name)).await?.messages);
    }
    Ok(depths)
}

fn read(queue: &str, namespace: &str, delivery: &Delivery) -> DeadLetter {
    let history = delivery.properties.text(envelope::HISTORY);
    let first_error = history.and_then(|lines| lines.lines().next()).map(str::to_owned);
    let Letter { id, message_id, kind, reason, why, dead_at, batch_id, sha256, attempts, body_bytes, .. } =
        Letter::read(queue, namespace, &delivery.properties, &delivery.body);
    let dead_at = dead_at.map(|at| at.to_string());
    let queue = queue.to_owned();
    DeadLetter {
        id,
        queue,
        kind,
        message_id,
        reason,
        why,
        dead_at,
        batch_id,
        sha256,
        attempts,
        first_error,
        body_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::{envelope::Properties, exchange::DEAD, outcome::Outgoing};
    use runtime::{Broker, MemoryBroker, Shutdown, broker::Publisher};

    /// Publishes a dead letter of the splitter about a batch.
    async fn give_up(publisher: &dyn Publisher, batch_id: &str, reason: &str) {
        let mut properties = Properties { message_id: Some(batch_id.to_owned()), ..Properties::default() };
        properties.set_text(envelope::REASON, reason);
        properties.set_text(envelope::WHY, format!("why {batch_id} cannot be read"));
        let body = format!(r#"{{"batch_id":"{batch_id}","object":"raw/x","sha256":"{}"}}"#, "0".repeat(64));
        let routing_key = queue::SPLITTER.to_owned();
        let letter = Outgoing { exchange: DEAD, routing_key, properties, body: body.into(), mandatory: true };
        publisher.publish(letter).await.unwrap();
    }

    async fn until(letters: &Arc<DeadLetterReader>, batch_id: &str) -> Refusal {
        loop {
            if let Some(refusal) = letters.dead().await.of_batch(batch_id, None) {
                return refusal;
            }
            tokio::task::yield_now().await;
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    }

    /// A batch is refused even if its dead letter is behind more than are kept complete, or arrives later.
    #[tokio::test(start_paused = true)]
    async fn a_refused_batch_is_found_behind_many_dead_letters() {
        let broker = MemoryBroker::new();
        let connection = broker.connect("worker").await.unwrap();
        connection.declare().await.unwrap();
        let publisher = connection.publisher().await.unwrap();
        for number in 0..LETTERS_MAX + 50 {
            give_up(&*publisher, &format!("old-{number}"), "cut_short").await;
        }
        give_up(&*publisher, "last", "not_a_batch").await;
        let link = Arc::new(Link::start(Arc::new(broker.clone()), Shutdown::new()));
        let mut reach = link.reach();
        reach.wait_for(|now| matches!(now, crate::link::Reach::Up(_))).await.unwrap();
        let letters = Arc::new(DeadLetterReader::new(Arc::clone(&link), ""));
        let refusal = until(&letters, "last").await;
        assert_eq!((refusal.queue.as_str(), refusal.reason.as_str()), ("splitter", "not_a_batch"));
        let dead = letters.dead().await;
        assert_eq!((dead.letters.len(), dead.total), (LETTERS_MAX, LETTERS_MAX as u64 + 51));
        assert_eq!(dead.of_batch("last", Some(&"1".repeat(64))), None, "it is about other bytes");
        // Arrives while the last read is still fresh.
        let mut arrivals = connection.subscribe(DEAD, queue::SPLITTER, 10).await.unwrap();
        give_up(&*publisher, "later", "cut_short").await;
        assert_eq!(letters.record_arrival(&arrivals.next().await.unwrap()).batch_id.as_deref(), Some("later"));
        assert_eq!(letters.dead().await.of_batch("later", None).unwrap().reason, "cut_short");
        let refusal = until(&letters, "old-549").await;
        assert_eq!(refusal.why, "why old-549 cannot be read");
    }
}
