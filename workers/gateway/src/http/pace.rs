//! The pace of uploads, and which of them has a slot.
//!
//! *Pace.* An upload may be slower than the lowest rate for `gateway.stall_ms` in total: each second that the gateway waits for
//! its client costs one second of this credit, and each byte restores the time it takes at the lowest rate. Time in which the
//! gateway waits for the object store costs nothing.
//!
//! *Slots.* An upload needs a slot to be written to the store. It takes one as soon as its first [`READ_AHEAD`] bytes, or all of
//! its bytes, are in memory: uploads that send nothing occupy no slot. If all `gateway.uploads_max` slots are taken, one upload is
//! ended for the new one: the one that is furthest behind the lowest rate; or, if none is behind, the one that began last among
//! those of the owner with the most slots, if that owner has at least two more than the owner of the new one.

use super::problem::Problem;
use crate::{limits::Limit, metrics::Metrics};
use parking_lot::Mutex;
use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};

/// An upload that is less than this behind the lowest rate keeps its slot: it may have just begun.
const BEHIND_MIN: Duration = Duration::from_millis(200);

/// Bytes of an upload that are read before it takes a slot.
pub(crate) const READ_AHEAD: usize = 64 << 10;

/// Maximum number of uploads without a slot: they hold at most 64 MiB in memory.
const WAITING_MAX: usize = 1_024;

/// The owner of an upload. Slots are shared between owners.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// The name of an API key.
    Key(String),
    /// The address of a client without a key, of IPv6 its /64; `None` if it is unknown.
    Peer(Option<IpAddr>),
}

/// The limits of uploads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UploadLimits {
    /// Number of slots.
    pub(crate) uploads_max: usize,
    /// Lowest rate, bytes per second; not 0.
    pub(crate) rate_min: u64,
    /// How long an upload may be silent, and how long in total slower than the lowest rate.
    pub(crate) stall: Duration,
    /// How long an upload may take.
    pub(crate) time_max: Duration,
}

/// The progress of an upload.
#[derive(Debug)]
struct Pace {
    started: Instant,
    bytes: u64,
    /// How much longer it may be below the lowest rate.
    credit: Duration,
    /// Since when the gateway waits for its client; `None` if it does not.
    waits_since: Option<Instant>,
    is_complete: bool,
}

impl Pace {
    fn new(now: Instant, stall: Duration) -> Self {
        Self { started: now, bytes: 0, credit: stall, waits_since: None, is_complete: false }
    }

    fn credit(&self, now: Instant) -> Duration {
        let waited = self.waits_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.credit.saturating_sub(waited)
    }

    /// Records bytes, or with `None` the end of the body.
    fn received(&mut self, now: Instant, bytes: Option<u64>, limits: &UploadLimits) {
        let earned = bytes.map_or(limits.stall, |bytes| Duration::from_secs_f64(bytes as f64 / limits.rate_min as f64));
        self.credit = (self.credit(now) + earned).min(limits.stall);
        self.waits_since = None;
        self.bytes += bytes.unwrap_or_default();
        self.is_complete |= bytes.is_none();
    }

    /// Returns how far the upload is behind the lowest rate.
    fn behind(&self, now: Instant, limits: &UploadLimits) -> Duration {
        if self.is_complete { Duration::ZERO } else { limits.stall.saturating_sub(self.credit(now)) }
    }

    /// Returns how long the client may take for the next bytes, and why the upload is ended after that.
    fn patience(&self, now: Instant, limits: &UploadLimits) -> (Duration, TooSlow) {
        let left = limits.time_max.saturating_sub(now.saturating_duration_since(self.started));
        let silent = (limits.stall, TooSlow::Silent);
        [(self.credit(now), TooSlow::Rate), (left, TooSlow::Time)]
            .into_iter()
            .fold(silent, |least, other| if other.0 < least.0 { other } else { least })
    }

    fn bytes_per_second(&self, now: Instant) -> f64 {
        self.bytes as f64 / now.saturating_duration_since(self.started).as_secs_f64().max(0.001)
    }
}

/// Why an upload is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TooSlow {
    Silent,
    Rate,
    Time,
}

struct Entry {
    owner: Owner,
    has_slot: bool,
    pace: Pace,
    /// Sends the upload the reason why it is ended.
    ended: watch::Sender<Option<Problem>>,
}

struct State {
    next: u64,
    entries: HashMap<u64, Entry>,
}

impl State {
    fn count(&self, has_slot: bool) -> usize {
        self.entries.values().filter(|entry| entry.has_slot == has_slot).count()
    }

    /// Returns the upload that is furthest behind the lowest rate, and how far, among those with a slot or those without one.
    fn slowest(&self, has_slot: bool, now: Instant, limits: &UploadLimits) -> Option<(Duration, u64)> {
        let these = self.entries.iter().filter(|(_, entry)| entry.has_slot == has_slot);
        these.map(|(id, entry)| (entry.pace.behind(now, limits), *id)).max()
    }

    /// Returns the upload that must yield its slot to `owner`, if another owner has at least two slots more.
    fn beyond_its_share(&self, owner: &Owner) -> Option<u64> {
        let mut held: HashMap<&Owner, (usize, Option<u64>)> = HashMap::new();
        for (id, entry) in self.entries.iter().filter(|(_, entry)| entry.has_slot) {
            let (slots, newest) = held.entry(&entry.owner).or_default();
            *slots += 1;
            // A complete upload is about to leave its slot.
            *newest = (*newest).max(Some(*id).filter(|_| !entry.pace.is_complete));
        }
        let own = held.get(owner).map_or(0, |(slots, _)| *slots);
        held.into_values().max().filter(|(slots, _)| *slots >= own + 2)?.1
    }

    /// Ends an upload in favour of another one.
    fn end(&mut self, id: u64, why: Problem) {
        if let Some(entry) = self.entries.remove(&id) {
            entry.ended.send_replace(Some(why));
        }
    }
}

/// The uploads in progress.
pub(crate) struct UploadSlots {
    limits: UploadLimits,
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

/// Current use of the limits.
#[derive(Debug, PartialEq)]
pub(crate) struct Usage {
    /// Number of uploads with a slot.
    pub(crate) uploads: usize,
    /// Duration of the longest upload.
    pub(crate) longest: Option<Duration>,
    /// Rate of the slowest upload.
    pub(crate) bytes_per_second: Option<f64>,
}

impl UploadSlots {
    pub(crate) fn new(limits: UploadLimits, metrics: &Arc<Metrics>) -> Arc<Self> {
        let state = Mutex::new(State { next: 0, entries: HashMap::new() });
        Arc::new(Self { limits, state, metrics: Arc::clone(metrics) })
    }

    /// Registers an upload that begins. It has no slot yet. If too many wait, the one that is furthest behind is ended.
    pub(crate) fn begin(self: &Arc<Self>, owner: Owner) -> UploadSlot {
        let (now, limits) = (Instant::now(), &self.limits);
        let mut state = self.state.lock();
        if state.count(false) >= WAITING_MAX
            && let Some((_, slowest)) = state.slowest(false, now, limits)
        {
            state.end(slowest, Problem::below_rate(limits.rate_min));
            self.metrics.limits().refused(Limit::UploadRate);
        }
        state.next += 1;
        let (id, (ended, why_ended)) = (state.next, watch::channel(None));
        let pace = Pace::new(now, limits.stall);
        state.entries.insert(id, Entry { owner, has_slot: false, pace, ended });
        UploadSlot { id, why_ended, slots: Arc::clone(self) }
    }

    /// Returns the limits of uploads.
    pub(crate) fn limits(&self) -> &UploadLimits {
        &self.limits
    }

    /// Current use of the limits.
    pub(crate) fn usage(&self) -> Usage {
        let (now, state) = (Instant::now(), self.state.lock());
        let paces = || state.entries.values().map(|entry| &entry.pace);
        Usage {
            uploads: state.count(true),
            longest: paces().map(|pace| now.saturating_duration_since(pace.started)).max(),
            bytes_per_second: paces().map(|pace| pace.bytes_per_second(now)).min_by(f64::total_cmp),
        }
    }
}

/// A registered upload, and its slot once it has one, until it is dropped.
pub(crate) struct UploadSlot {
    id: u64,
    why_ended: watch::Receiver<Option<Problem>>,
    slots: Arc<UploadSlots>,
}

impl UploadSlot {
    fn with<T>(&self, act: impl FnOnce(&mut Pace, &UploadLimits) -> T) -> Option<T> {
        self.slots.state.lock().entries.get_mut(&self.id).map(|entry| act(&mut entry.pace, &self.slots.limits))
    }

    /// Takes a slot. If none is free, another upload is ended for this one.
    ///
    /// # Errors
    /// 503 if no upload is behind the lowest rate and no owner has more than its share; 408 if this upload was ended for another.
    pub(crate) fn take(&self) -> Result<(), Problem> {
        let (now, UploadSlots { limits, metrics, .. }) = (Instant::now(), &*self.slots);
        let mut state = self.slots.state.lock();
        let Some(owner) = state.entries.get(&self.id).map(|entry| entry.owner.clone()) else {
            return Err(self.displaced());
        };
        if state.count(true) >= limits.uploads_max {
            let slowest = state.slowest(true, now, limits).filter(|(behind, _)| *behind >= BEHIND_MIN);
            if let Some((_, slowest)) = slowest {
                metrics.limits().refused(Limit::UploadRate);
                state.end(slowest, Problem::below_rate(limits.rate_min));
            } else {
                metrics.limits().refused(Limit::Uploads);
                let full = too_many(limits, "the maximum (gateway.uploads_max)");
                let Some(ended) = state.beyond_its_share(&owner) else { return Err(full) };
                state.end(ended, too_many(limits, "and another client is entitled to this slot"));
            }
        }
        if let Some(entry) = state.entries.get_mut(&self.id) {
            entry.has_slot = true;
        }
        Ok(())
    }

    /// Waits for a piece of the body. `length` returns the bytes of a piece, `None` for the end.
    ///
    /// # Errors
    /// 408 if the upload is silent, too slow or takes too long; 408 or 503 if it was ended for another one.
    pub(crate) async fn piece<T>(
        &self,
        piece: impl Future<Output = T>,
        length: impl FnOnce(&T) -> Option<u64>,
    ) -> Result<T, Problem> {
        let limits = &self.slots.limits;
        let mut why_ended = self.why_ended.clone();
        let now = Instant::now();
        let patience = self.with(|pace, limits| {
            pace.waits_since = Some(now);
            pace.patience(now, limits)
        });
        let Some((patience, too_slow)) = patience else { return Err(self.displaced()) };
        tokio::select! {
            biased;
            _ = why_ended.wait_for(Option::is_some) => Err(self.displaced()),
            read = tokio::time::timeout(patience, piece) => match read {
                Ok(piece) => {
                    let bytes = length(&piece);
                    self.with(|pace, limits| pace.received(Instant::now(), bytes, limits));
                    Ok(piece)
                }
                Err(_) => {
                    let (limit, problem) = match too_slow {
                        TooSlow::Silent => (Limit::UploadRate, Problem::too_slow(limits.stall)),
                        TooSlow::Rate => (Limit::UploadRate, Problem::below_rate(limits.rate_min)),
                        TooSlow::Time => (Limit::UploadTime, Problem::too_late(limits.time_max)),
                    };
                    self.slots.metrics.limits().refused(limit);
                    Err(problem)
                }
            }
        }
    }

    /// Returns why this upload was ended for another one.
    fn displaced(&self) -> Problem {
        let why = self.why_ended.borrow().clone();
        why.unwrap_or_else(|| Problem::below_rate(self.slots.limits.rate_min))
    }
}

impl Drop for UploadSlot {
    fn drop(&mut self) {
        self.slots.state.lock().entries.remove(&self.id);
    }
}

fn too_many(limits: &UploadLimits, why: &str) -> Problem {
    let detail = format!("{} uploads are in progress, {why}; submit the batch again", limits.uploads_max);
    Problem::unavailable("too-many-uploads", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMANDS: UploadLimits = UploadLimits {
        uploads_max: 2,
        rate_min: 1_000,
        stall: Duration::from_secs(10),
        time_max: Duration::from_secs(60),
    };

    fn slots() -> (Arc<UploadSlots>, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new());
        (UploadSlots::new(DEMANDS, &metrics), metrics)
    }

    fn begin(slots: &Arc<UploadSlots>, peer: u8) -> UploadSlot {
        slots.begin(Owner::Peer(Some(IpAddr::from([10, 0, 0, peer]))))
    }

    fn take(slots: &Arc<UploadSlots>, peer: u8) -> Result<UploadSlot, Problem> {
        let slot = begin(slots, peer);
        slot.take().map(|()| slot)
    }

    /// Sends `pieces` pieces of `bytes` bytes, each after a pause. Fails with the number of pieces sent and the problem.
    async fn send(slot: &UploadSlot, bytes: u64, pause: Duration, pieces: usize) -> Result<(), (usize, Problem)> {
        for n in 0..pieces {
            let piece = async {
                tokio::time::sleep(pause).await;
                bytes
            };
            slot.piece(piece, |bytes| Some(*bytes)).await.map_err(|problem| (n, problem))?;
        }
        slot.piece(async {}, |()| None).await.map_err(|problem| (pieces, problem))
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_upload_is_ended_when_its_credit_is_spent() {
        let (slots, metrics) = slots();
        let start = Instant::now();
        let (_, problem) = send(&take(&slots, 1).unwrap(), 1, Duration::from_secs(3), 100).await.unwrap_err();
        assert_eq!(problem.status().as_u16(), 408);
        assert!(problem.detail().contains("1000 bytes per second"), "{}", problem.detail());
        let took = start.elapsed();
        assert!(took >= DEMANDS.stall && took < DEMANDS.stall + Duration::from_secs(1), "{took:?}");
        assert_eq!(metrics.limits().refusals(Limit::UploadRate), 1);
        assert_eq!(slots.usage().uploads, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn silent_and_long_uploads_are_ended_with_the_reason() {
        let (slots, metrics) = slots();
        let (n, problem) = send(&take(&slots, 1).unwrap(), 1, Duration::from_secs(30), 1).await.unwrap_err();
        assert!(
            n == 0 && problem.detail().contains("nothing of the body arrived for 10000 ms"),
            "{}",
            problem.detail()
        );
        let (n, problem) = send(&take(&slots, 1).unwrap(), 5_000, Duration::from_secs(5), 100).await.unwrap_err();
        assert!(n == 12 && problem.detail().contains("within 60000 ms"), "{n} {}", problem.detail());
        assert_eq!(metrics.limits().refusals(Limit::UploadTime), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_at_the_lowest_rate_and_one_that_pauses_complete() {
        let (slots, _) = slots();
        send(&take(&slots, 1).unwrap(), 2_000, Duration::from_secs(2), 25).await.unwrap();
        let slot = take(&slots, 1).unwrap();
        send(&slot, 100_000, Duration::from_secs(9), 3).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn time_of_the_object_store_costs_an_upload_no_credit() {
        let (slots, _) = slots();
        let slot = take(&slots, 1).unwrap();
        for _ in 0..3 {
            slot.piece(async { 10 }, |bytes| Some(*bytes)).await.unwrap();
            // The object store is slow.
            tokio::time::sleep(Duration::from_secs(15)).await;
        }
        assert!(slot.piece(async {}, |()| None).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_slowest_upload_yields_its_slot_and_fast_ones_do_not() {
        let (slots, metrics) = slots();
        let (first, second) = (take(&slots, 1).unwrap(), take(&slots, 1).unwrap());
        assert_eq!(take(&slots, 1).err().unwrap().status().as_u16(), 503, "both have just begun");
        let slow = send(&first, 1, Duration::from_secs(2), 100);
        let fast = send(&second, 50_000, Duration::from_millis(100), 50);
        let third = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let third = take(&slots, 1).expect("the slow upload yields its slot");
            assert_eq!(take(&slots, 1).err().map(|problem| problem.status().as_u16()), Some(503), "no other is behind");
            send(&third, 50_000, Duration::from_millis(100), 3).await
        };
        let (slow, fast, third) = tokio::join!(slow, fast, third);
        let (_, problem) = slow.unwrap_err();
        assert_eq!((problem.status().as_u16(), fast.is_ok(), third.is_ok()), (408, true, true));
        assert_eq!(metrics.limits().refusals(Limit::UploadRate), 1);
        assert_eq!(metrics.limits().refusals(Limit::Uploads), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn uploads_that_have_sent_nothing_occupy_no_slot() {
        let (slots, _) = slots();
        let first: Vec<UploadSlot> = (1..WAITING_MAX).map(|_| begin(&slots, 1)).collect();
        let _others = (take(&slots, 1).unwrap(), take(&slots, 1).unwrap());
        assert_eq!(slots.usage().uploads, 2);
        let waiting: Vec<UploadSlot> = first.into_iter().chain([begin(&slots, 1)]).collect();
        assert_eq!(slots.state.lock().count(false), WAITING_MAX);
        // The first one falls behind the others while it waits for its client.
        assert!(
            tokio::time::timeout(Duration::from_secs(1), waiting[0].piece(std::future::pending::<()>(), |()| None))
                .await
                .is_err()
        );
        let _one_more = begin(&slots, 1);
        assert_eq!(slots.state.lock().count(false), WAITING_MAX, "one was ended for it");
        let why = waiting[0].piece(async {}, |()| None).await.unwrap_err();
        assert_eq!(why.status().as_u16(), 408);
        assert_eq!(waiting[0].take().unwrap_err().status().as_u16(), 408);
        assert!(waiting[1].piece(async { 7 }, |bytes| Some(*bytes)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_gets_its_share_of_the_slots() {
        let (slots, metrics) = slots();
        let (first, second) = (take(&slots, 1).unwrap(), take(&slots, 1).unwrap());
        let other = take(&slots, 2).expect("the first owner has two more slots than the second");
        let why = second.piece(std::future::pending::<()>(), |()| None).await.unwrap_err();
        assert!(why.status().as_u16() == 503 && why.detail().contains("another client"), "{}", why.detail());
        assert_eq!(metrics.limits().refusals(Limit::Uploads), 1);
        for peer in [1, 2, 3] {
            assert_eq!(take(&slots, peer).err().unwrap().status().as_u16(), 503, "each has one slot: {peer}");
        }
        for slot in [first, other] {
            assert!(slot.piece(async { 1 }, |bytes| Some(*bytes)).await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_complete_upload_yields_its_slot_to_no_other_owner() {
        let (slots, _) = slots();
        let uploads = [take(&slots, 1).unwrap(), take(&slots, 1).unwrap()];
        for upload in &uploads {
            send(upload, 1, Duration::ZERO, 1).await.unwrap();
        }
        assert_eq!(take(&slots, 2).err().unwrap().status().as_u16(), 503);
    }

    #[tokio::test(start_paused = true)]
    async fn a_complete_upload_keeps_its_slot_while_it_is_stored() {
        let (slots, _) = slots();
        let (first, _second) = (take(&slots, 1).unwrap(), take(&slots, 1).unwrap());
        send(&first, 1, Duration::from_secs(4), 1).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(take(&slots, 1).is_err(), "the gateway waits for neither client");
        assert_eq!(slots.usage().uploads, 2);
    }
}
