//! How fast uploads must be, and which of them has a place.
//!
//! *Pace.* An upload may be slower than the lowest rate for as long as `gateway.stall_ms` in sum: each second that the gateway
//! waits for its client costs a second of this credit, and each byte gives back what it may take at the lowest rate. Time in which
//! the gateway waits for the object store costs nothing.
//!
//! *Places.* An upload needs a place to be written to the store. It takes one once its first [`READ_AHEAD`] bytes, or all of its
//! bytes, are in memory: uploads that send nothing keep no place from the others. If all `gateway.uploads_max` places are taken,
//! one upload is ended for the new one: the one that is behind the lowest rate the most, or, if none is behind, the one that began
//! last among those of the owner with the most places, if that owner has at least two more than the owner of the new one.

use super::problem::Problem;
use crate::{limits::Limit, metrics::Metrics};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// An upload that is less behind the lowest rate than this keeps its place: it may have just begun.
const BEHIND_MIN: Duration = Duration::from_millis(200);

/// Bytes of an upload that are read before it takes a place.
pub(crate) const READ_AHEAD: usize = 64 << 10;

/// Maximum number of uploads without a place: they hold at most 64 MiB in memory.
const WAITING_MAX: usize = 1_024;

/// Whose upload it is. Places are shared between owners.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// The name of an API key.
    Key(String),
    /// The address of a client without a key, of IPv6 its /64; `None` if it is unknown.
    Peer(Option<IpAddr>),
}

/// What is asked of uploads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demands {
    /// Places.
    pub(crate) uploads_max: usize,
    /// Lowest rate, bytes per second; not 0.
    pub(crate) rate_min: u64,
    /// How long an upload may be silent, and in sum slower than the lowest rate.
    pub(crate) stall: Duration,
    /// How long an upload may take.
    pub(crate) time_max: Duration,
}

/// How an upload comes along.
#[derive(Debug)]
struct Pace {
    started: Instant,
    bytes: u64,
    /// How much longer it may be too slow.
    credit: Duration,
    /// While the gateway waits for its client.
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

    /// Bytes came, or none more will.
    fn came(&mut self, now: Instant, bytes: Option<u64>, demands: &Demands) {
        let earned =
            bytes.map_or(demands.stall, |bytes| Duration::from_secs_f64(bytes as f64 / demands.rate_min as f64));
        self.credit = (self.credit(now) + earned).min(demands.stall);
        self.waits_since = None;
        self.bytes += bytes.unwrap_or_default();
        self.is_complete |= bytes.is_none();
    }

    /// How far it is behind the lowest rate.
    fn behind(&self, now: Instant, demands: &Demands) -> Duration {
        if self.is_complete { Duration::ZERO } else { demands.stall.saturating_sub(self.credit(now)) }
    }

    /// How long its client has to send more, and what ends the upload then.
    fn patience(&self, now: Instant, demands: &Demands) -> (Duration, TooSlow) {
        let left = demands.time_max.saturating_sub(now.saturating_duration_since(self.started));
        let silent = (demands.stall, TooSlow::Silent);
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
    has_place: bool,
    pace: Pace,
    /// Tells the upload why it is ended.
    ended: watch::Sender<Option<Problem>>,
}

struct State {
    next: u64,
    entries: HashMap<u64, Entry>,
}

impl State {
    fn count(&self, has_place: bool) -> usize {
        self.entries.values().filter(|entry| entry.has_place == has_place).count()
    }

    /// The upload that is behind the lowest rate the most, and how far, among those with a place or those without one.
    fn slowest(&self, has_place: bool, now: Instant, demands: &Demands) -> Option<(Duration, u64)> {
        let these = self.entries.iter().filter(|(_, entry)| entry.has_place == has_place);
        these.map(|(id, entry)| (entry.pace.behind(now, demands), *id)).max()
    }

    /// The upload whose place an upload of `owner` gets as its share, if `owner` has fewer places than others.
    fn beyond_its_share(&self, owner: &Owner) -> Option<u64> {
        let mut held: HashMap<&Owner, (usize, Option<u64>)> = HashMap::new();
        for (id, entry) in self.entries.iter().filter(|(_, entry)| entry.has_place) {
            let (places, newest) = held.entry(&entry.owner).or_default();
            *places += 1;
            // One that is complete is about to leave its place.
            *newest = (*newest).max(Some(*id).filter(|_| !entry.pace.is_complete));
        }
        let own = held.get(owner).map_or(0, |(places, _)| *places);
        held.into_values().max().filter(|(places, _)| *places >= own + 2)?.1
    }

    /// Ends an upload for another one.
    fn end(&mut self, id: u64, why: Problem) {
        if let Some(entry) = self.entries.remove(&id) {
            entry.ended.send_replace(Some(why));
        }
    }
}

/// The uploads under way.
pub(crate) struct Places {
    demands: Demands,
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

/// How much of the limits is used.
#[derive(Debug, PartialEq)]
pub(crate) struct Use {
    /// Uploads that have a place.
    pub(crate) uploads: usize,
    /// Of the upload that takes the longest.
    pub(crate) longest: Option<Duration>,
    /// Of the slowest upload.
    pub(crate) bytes_per_second: Option<f64>,
}

impl Places {
    pub(crate) fn new(demands: Demands, metrics: &Arc<Metrics>) -> Arc<Self> {
        let state = Mutex::new(State { next: 0, entries: HashMap::new() });
        Arc::new(Self { demands, state, metrics: Arc::clone(metrics) })
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers an upload that begins. It has no place yet. If too many wait, the one that is behind the most is ended.
    pub(crate) fn begin(self: &Arc<Self>, owner: Owner) -> Place {
        let (now, demands) = (Instant::now(), &self.demands);
        let mut state = self.locked();
        if state.count(false) >= WAITING_MAX
            && let Some((_, slowest)) = state.slowest(false, now, demands)
        {
            state.end(slowest, Problem::below_rate(demands.rate_min));
            self.metrics.limits().refused(Limit::UploadRate);
        }
        state.next += 1;
        let (id, (ended, why_ended)) = (state.next, watch::channel(None));
        let pace = Pace::new(now, demands.stall);
        state.entries.insert(id, Entry { owner, has_place: false, pace, ended });
        Place { id, why_ended, places: Arc::clone(self) }
    }

    /// What is asked of uploads.
    pub(crate) fn demands(&self) -> &Demands {
        &self.demands
    }

    /// How much of the limits is used.
    pub(crate) fn usage(&self) -> Use {
        let (now, state) = (Instant::now(), self.locked());
        let paces = || state.entries.values().map(|entry| &entry.pace);
        Use {
            uploads: state.count(true),
            longest: paces().map(|pace| now.saturating_duration_since(pace.started)).max(),
            bytes_per_second: paces().map(|pace| pace.bytes_per_second(now)).min_by(f64::total_cmp),
        }
    }
}

/// An upload that is known to [`Places`], and its place once it has one, until it is dropped.
pub(crate) struct Place {
    id: u64,
    why_ended: watch::Receiver<Option<Problem>>,
    places: Arc<Places>,
}

impl Place {
    fn with<T>(&self, act: impl FnOnce(&mut Pace, &Demands) -> T) -> Option<T> {
        self.places.locked().entries.get_mut(&self.id).map(|entry| act(&mut entry.pace, &self.places.demands))
    }

    /// Takes a place. If there is none, another upload is ended for this one.
    ///
    /// # Errors
    /// 503 if none is behind the lowest rate and no owner has more than its share; 408 if this upload was ended for another.
    pub(crate) fn take(&self) -> Result<(), Problem> {
        let (now, Places { demands, metrics, .. }) = (Instant::now(), &*self.places);
        let mut state = self.places.locked();
        let Some(owner) = state.entries.get(&self.id).map(|entry| entry.owner.clone()) else {
            return Err(self.displaced());
        };
        if state.count(true) >= demands.uploads_max {
            let slowest = state.slowest(true, now, demands).filter(|(behind, _)| *behind >= BEHIND_MIN);
            if let Some((_, slowest)) = slowest {
                metrics.limits().refused(Limit::UploadRate);
                state.end(slowest, Problem::below_rate(demands.rate_min));
            } else {
                metrics.limits().refused(Limit::Uploads);
                let full = too_many(demands, "no more are taken at once");
                let Some(ended) = state.beyond_its_share(&owner) else { return Err(full) };
                state.end(ended, too_many(demands, "and another client has its share of them"));
            }
        }
        if let Some(entry) = state.entries.get_mut(&self.id) {
            entry.has_place = true;
        }
        Ok(())
    }

    /// Waits for a piece of the body. `length`: the bytes of a piece, `None` of the end.
    ///
    /// # Errors
    /// 408 if the upload is silent, too slow, or takes too long; 408 or 503 if it was ended for another one.
    pub(crate) async fn piece<T>(
        &self,
        piece: impl Future<Output = T>,
        length: impl FnOnce(&T) -> Option<u64>,
    ) -> Result<T, Problem> {
        let demands = &self.places.demands;
        let mut why_ended = self.why_ended.clone();
        let now = Instant::now();
        let patience = self.with(|pace, demands| {
            pace.waits_since = Some(now);
            pace.patience(now, demands)
        });
        let Some((patience, too_slow)) = patience else { return Err(self.displaced()) };
        tokio::select! {
            biased;
            _ = why_ended.wait_for(Option::is_some) => Err(self.displaced()),
            read = tokio::time::timeout(patience, piece) => match read {
                Ok(piece) => {
                    let bytes = length(&piece);
                    self.with(|pace, demands| pace.came(Instant::now(), bytes, demands));
                    Ok(piece)
                }
                Err(_) => {
                    let (limit, problem) = match too_slow {
                        TooSlow::Silent => (Limit::UploadRate, Problem::too_slow(demands.stall)),
                        TooSlow::Rate => (Limit::UploadRate, Problem::below_rate(demands.rate_min)),
                        TooSlow::Time => (Limit::UploadTime, Problem::too_late(demands.time_max)),
                    };
                    self.places.metrics.limits().refused(limit);
                    Err(problem)
                }
            }
        }
    }

    /// Why this upload was ended for another one.
    fn displaced(&self) -> Problem {
        let why = self.why_ended.borrow().clone();
        why.unwrap_or_else(|| Problem::below_rate(self.places.demands.rate_min))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.locked().entries.remove(&self.id);
    }
}

fn too_many(demands: &Demands, why: &str) -> Problem {
    let detail = format!("{} uploads are under way, {why}; hand the batch in again", demands.uploads_max);
    Problem::unavailable("too-many-uploads", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMANDS: Demands =
        Demands { uploads_max: 2, rate_min: 1_000, stall: Duration::from_secs(10), time_max: Duration::from_secs(60) };

    fn places() -> (Arc<Places>, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new());
        (Places::new(DEMANDS, &metrics), metrics)
    }

    fn begin(places: &Arc<Places>, peer: u8) -> Place {
        places.begin(Owner::Peer(Some(IpAddr::from([10, 0, 0, peer]))))
    }

    fn take(places: &Arc<Places>, peer: u8) -> Result<Place, Problem> {
        let place = begin(places, peer);
        place.take().map(|()| place)
    }

    /// An upload that sends so many bytes each time after a pause: how many pieces came, and why it was ended.
    async fn send(place: &Place, bytes: u64, pause: Duration, pieces: usize) -> Result<(), (usize, Problem)> {
        for n in 0..pieces {
            let piece = async {
                tokio::time::sleep(pause).await;
                bytes
            };
            place.piece(piece, |bytes| Some(*bytes)).await.map_err(|problem| (n, problem))?;
        }
        place.piece(async {}, |()| None).await.map_err(|problem| (pieces, problem))
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_ended_once_its_credit_is_spent() {
        let (places, metrics) = places();
        let start = Instant::now();
        let (_, problem) = send(&take(&places, 1).unwrap(), 1, Duration::from_secs(3), 100).await.unwrap_err();
        assert_eq!(problem.status().as_u16(), 408);
        assert!(problem.detail().contains("1000 bytes per second"), "{}", problem.detail());
        let took = start.elapsed();
        assert!(took >= DEMANDS.stall && took < DEMANDS.stall + Duration::from_secs(1), "{took:?}");
        assert_eq!(metrics.limits().refusals(Limit::UploadRate), 1);
        assert_eq!(places.usage().uploads, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_length_are_ended_and_named() {
        let (places, metrics) = places();
        let (n, problem) = send(&take(&places, 1).unwrap(), 1, Duration::from_secs(30), 1).await.unwrap_err();
        assert!(n == 0 && problem.detail().contains("nothing of the body came for 10000 ms"), "{}", problem.detail());
        let (n, problem) = send(&take(&places, 1).unwrap(), 5_000, Duration::from_secs(5), 100).await.unwrap_err();
        assert!(n == 12 && problem.detail().contains("within 60000 ms"), "{n} {}", problem.detail());
        assert_eq!(metrics.limits().refusals(Limit::UploadTime), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_at_the_lowest_rate_and_one_that_pauses_come_to_their_end() {
        let (places, _) = places();
        send(&take(&places, 1).unwrap(), 2_000, Duration::from_secs(2), 25).await.unwrap();
        let place = take(&places, 1).unwrap();
        send(&place, 100_000, Duration::from_secs(9), 3).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_the_gateway_takes_costs_an_upload_nothing() {
        let (places, _) = places();
        let place = take(&places, 1).unwrap();
        for _ in 0..3 {
            place.piece(async { 10 }, |bytes| Some(*bytes)).await.unwrap();
            // The object store is slow.
            tokio::time::sleep(Duration::from_secs(15)).await;
        }
        assert!(place.piece(async {}, |()| None).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_slowest_gives_its_place_to_a_new_upload_and_honest_ones_do_not() {
        let (places, metrics) = places();
        let (first, second) = (take(&places, 1).unwrap(), take(&places, 1).unwrap());
        assert_eq!(take(&places, 1).err().unwrap().status().as_u16(), 503, "both have just begun");
        let trickling = send(&first, 1, Duration::from_secs(2), 100);
        let honest = send(&second, 50_000, Duration::from_millis(100), 50);
        let third = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let third = take(&places, 1).expect("the trickle gives its place");
            assert_eq!(
                take(&places, 1).err().map(|problem| problem.status().as_u16()),
                Some(503),
                "no other is behind"
            );
            send(&third, 50_000, Duration::from_millis(100), 3).await
        };
        let (trickling, honest, third) = tokio::join!(trickling, honest, third);
        let (_, problem) = trickling.unwrap_err();
        assert_eq!((problem.status().as_u16(), honest.is_ok(), third.is_ok()), (408, true, true));
        assert_eq!(metrics.limits().refusals(Limit::UploadRate), 1);
        assert_eq!(metrics.limits().refusals(Limit::Uploads), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn uploads_that_have_sent_nothing_keep_no_place_from_others() {
        let (places, _) = places();
        let first: Vec<Place> = (1..WAITING_MAX).map(|_| begin(&places, 1)).collect();
        let _others = (take(&places, 1).unwrap(), take(&places, 1).unwrap());
        assert_eq!(places.usage().uploads, 2);
        let waiting: Vec<Place> = first.into_iter().chain([begin(&places, 1)]).collect();
        assert_eq!(places.locked().count(false), WAITING_MAX);
        // The first one falls behind the others while it waits for its client.
        assert!(
            tokio::time::timeout(Duration::from_secs(1), waiting[0].piece(std::future::pending::<()>(), |()| None))
                .await
                .is_err()
        );
        let _one_more = begin(&places, 1);
        assert_eq!(places.locked().count(false), WAITING_MAX, "one was ended for it");
        let why = waiting[0].piece(async {}, |()| None).await.unwrap_err();
        assert_eq!(why.status().as_u16(), 408);
        assert_eq!(waiting[0].take().unwrap_err().status().as_u16(), 408);
        assert!(waiting[1].piece(async { 7 }, |bytes| Some(*bytes)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_gets_its_share_of_the_places() {
        let (places, metrics) = places();
        let (first, second) = (take(&places, 1).unwrap(), take(&places, 1).unwrap());
        let other = take(&places, 2).expect("the first owner has two more places than the second");
        let why = second.piece(std::future::pending::<()>(), |()| None).await.unwrap_err();
        assert!(why.status().as_u16() == 503 && why.detail().contains("its share"), "{}", why.detail());
        assert_eq!(metrics.limits().refusals(Limit::Uploads), 1);
        for peer in [1, 2, 3] {
            assert_eq!(take(&places, peer).err().unwrap().status().as_u16(), 503, "each has one place: {peer}");
        }
        for place in [first, other] {
            assert!(place.piece(async { 1 }, |bytes| Some(*bytes)).await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_complete_upload_gives_its_place_to_no_other_owner() {
        let (places, _) = places();
        let uploads = [take(&places, 1).unwrap(), take(&places, 1).unwrap()];
        for upload in &uploads {
            send(upload, 1, Duration::ZERO, 1).await.unwrap();
        }
        assert_eq!(take(&places, 2).err().unwrap().status().as_u16(), 503);
    }

    #[tokio::test(start_paused = true)]
    async fn a_complete_upload_keeps_its_place_while_it_is_stored() {
        let (places, _) = places();
        let (first, _second) = (take(&places, 1).unwrap(), take(&places, 1).unwrap());
        send(&first, 1, Duration::from_secs(4), 1).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(take(&places, 1).is_err(), "nobody waits for the client of either");
        assert_eq!(places.usage().uploads, 2);
    }
}
