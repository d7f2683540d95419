//! How fast uploads must be, and which of them has a place.
//!
//! An upload may be slower than the lowest rate for as long as `gateway.stall_ms` in sum: each second that the gateway waits for
//! its client costs a second of this credit, and each byte gives back what it may take at the lowest rate. Time in which the gateway
//! waits for the object store costs nothing. If all places are taken, the upload that is behind the most is ended for a new one.

use crate::{limits::Limit, metrics::Metrics, problem::Problem};
use common::runtime::Shutdown;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// An upload that is less behind the lowest rate than this keeps its place: it may have just begun.
const BEHIND_MIN: Duration = Duration::from_millis(200);

/// What is asked of uploads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demands {
    /// Uploads at once.
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
    pace: Pace,
    ended: Shutdown,
}

struct State {
    next: u64,
    entries: HashMap<u64, Entry>,
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

    /// A place for an upload that begins. If there is none, the upload that is behind the lowest rate the most is ended.
    ///
    /// # Errors
    /// 503 if none of them is behind.
    pub(crate) fn take(self: &Arc<Self>) -> Result<Place, Problem> {
        let (now, demands) = (Instant::now(), &self.demands);
        let mut state = self.locked();
        if state.entries.len() >= demands.uploads_max {
            let behind = state.entries.iter().map(|(id, entry)| (entry.pace.behind(now, demands), *id));
            let Some((_, slowest)) = behind.max().filter(|(behind, _)| *behind >= BEHIND_MIN) else {
                drop(state);
                self.metrics.limits().refused(Limit::Uploads);
                let detail = format!("{} uploads are under way, no more are taken at once", demands.uploads_max);
                return Err(Problem::unavailable("too-many-uploads", detail));
            };
            if let Some(entry) = state.entries.remove(&slowest) {
                entry.ended.cancel();
            }
            self.metrics.limits().refused(Limit::UploadRate);
        }
        state.next += 1;
        let (id, ended) = (state.next, Shutdown::new());
        let pace = Pace::new(now, demands.stall);
        state.entries.insert(id, Entry { pace, ended: ended.clone() });
        Ok(Place { id, ended, places: Arc::clone(self) })
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
            uploads: state.entries.len(),
            longest: paces().map(|pace| now.saturating_duration_since(pace.started)).max(),
            bytes_per_second: paces().map(|pace| pace.bytes_per_second(now)).min_by(f64::total_cmp),
        }
    }
}

/// The place of an upload, until it is dropped.
pub(crate) struct Place {
    id: u64,
    ended: Shutdown,
    places: Arc<Places>,
}

impl Place {
    fn with<T>(&self, act: impl FnOnce(&mut Pace, &Demands) -> T) -> Option<T> {
        self.places.locked().entries.get_mut(&self.id).map(|entry| act(&mut entry.pace, &self.places.demands))
    }

    /// Waits for a piece of the body. `length`: the bytes of a piece, `None` of the end.
    ///
    /// # Errors
    /// 408 if the upload is silent or too slow, takes too long, or had to give its place to another one.
    pub(crate) async fn piece<T>(
        &self,
        piece: impl Future<Output = T>,
        length: impl FnOnce(&T) -> Option<u64>,
    ) -> Result<T, Problem> {
        let demands = &self.places.demands;
        let now = Instant::now();
        let patience = self.with(|pace, demands| {
            pace.waits_since = Some(now);
            pace.patience(now, demands)
        });
        let Some((patience, too_slow)) = patience else { return Err(self.displaced()) };
        tokio::select! {
            biased;
            () = self.ended.cancelled() => Err(self.displaced()),
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

    fn displaced(&self) -> Problem {
        Problem::below_rate(self.places.demands.rate_min)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.locked().entries.remove(&self.id);
    }
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
        let (_, problem) = send(&places.take().unwrap(), 1, Duration::from_secs(3), 100).await.unwrap_err();
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
        let (n, problem) = send(&places.take().unwrap(), 1, Duration::from_secs(30), 1).await.unwrap_err();
        assert!(n == 0 && problem.detail().contains("nothing of the body came for 10000 ms"), "{}", problem.detail());
        let (n, problem) = send(&places.take().unwrap(), 5_000, Duration::from_secs(5), 100).await.unwrap_err();
        assert!(n == 12 && problem.detail().contains("within 60000 ms"), "{n} {}", problem.detail());
        assert_eq!(metrics.limits().refusals(Limit::UploadTime), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_at_the_lowest_rate_and_one_that_pauses_come_to_their_end() {
        let (places, _) = places();
        send(&places.take().unwrap(), 2_000, Duration::from_secs(2), 25).await.unwrap();
        let place = places.take().unwrap();
        send(&place, 100_000, Duration::from_secs(9), 3).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_the_gateway_takes_costs_an_upload_nothing() {
        let (places, _) = places();
        let place = places.take().unwrap();
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
        let (first, second) = (places.take().unwrap(), places.take().unwrap());
        assert_eq!(places.take().err().unwrap().status().as_u16(), 503, "both have just begun");
        let trickling = send(&first, 1, Duration::from_secs(2), 100);
        let honest = send(&second, 50_000, Duration::from_millis(100), 50);
        let third = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let third = places.take().expect("the trickle gives its place");
            assert_eq!(places.take().err().map(|problem| problem.status().as_u16()), Some(503), "no other is behind");
            send(&third, 50_000, Duration::from_millis(100), 3).await
        };
        let (trickling, honest, third) = tokio::join!(trickling, honest, third);
        let (_, problem) = trickling.unwrap_err();
        assert_eq!((problem.status().as_u16(), honest.is_ok(), third.is_ok()), (408, true, true));
        assert_eq!(metrics.limits().refusals(Limit::UploadRate), 1);
        assert_eq!(metrics.limits().refusals(Limit::Uploads), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_complete_upload_keeps_its_place_while_it_is_stored() {
        let (places, _) = places();
        let (first, _second) = (places.take().unwrap(), places.take().unwrap());
        send(&first, 1, Duration::from_secs(4), 1).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(places.take().is_err(), "nobody waits for the client of either");
        assert_eq!(places.usage().uploads, 2);
    }
}
