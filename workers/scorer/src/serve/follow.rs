//! Follows one name: holds the version that has it in memory, and replaces it whole.

use crate::serve::version::{self, Found, Named};
use common::{model::AliasName, outcome::Failure};
use records::store::Store;
use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Mutex, Semaphore},
    time::Instant,
};

/// Not yet, among milliseconds since the start.
const NEVER: u64 = u64::MAX;

/// How long a request waits for the name to be read, where nobody has read it for so long that another version may have it by now.
const WAIT: Duration = Duration::from_millis(250);

/// Holds the version that has the name.
pub(crate) struct Follower {
    pub(crate) family: String,
    name: AliasName,
    store: Store,
    /// After which what was read is no longer taken to be so.
    valid: Duration,
    served: RwLock<Option<Arc<Named>>>,
    /// One reader at a time. Holds what came of the last reading.
    turn: Mutex<Result<(), Failure>>,
    /// Readings that have ended.
    readings: AtomicU64,
    /// The last reading failed: what is served may be outdated.
    behind: AtomicBool,
    started: Instant,
    /// When a look began last, milliseconds since it started.
    looked_ms: AtomicU64,
    /// When the last look that succeeded ended.
    known_ms: AtomicU64,
    /// When a request last waited for a look in vain: for a while none does.
    in_vain_ms: AtomicU64,
    /// Permits to wait for a look: whoever gets none goes on with what is known, so that some handlers are always free.
    waiting: Semaphore,
    /// Why the last one cannot be served, so that it is said once.
    complaint: std::sync::Mutex<Option<String>>,
}

impl Follower {
    pub(crate) fn new(family: &str, name: AliasName, store: &Store, valid: Duration, waiting_max: usize) -> Self {
        Self {
            family: family.to_owned(),
            name,
            store: Arc::clone(store),
            valid,
            served: RwLock::default(),
            turn: Mutex::new(Ok(())),
            readings: AtomicU64::new(0),
            behind: AtomicBool::new(false),
            started: Instant::now(),
            looked_ms: AtomicU64::new(0),
            known_ms: AtomicU64::new(0),
            in_vain_ms: AtomicU64::new(NEVER),
            waiting: Semaphore::new(waiting_max),
            complaint: std::sync::Mutex::default(),
        }
    }

    pub(crate) fn served(&self) -> Option<Arc<Named>> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the name now; where that fails, the next request is the occasion to try again.
    pub(crate) async fn follow(&self) {
        if let Err(why) = self.refresh().await {
            tracing::warn!(model = %self.family, alias = self.name.as_str(), %why, "the version with this name cannot be read now");
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// What has the name, as of a look that ended no longer ago than it is valid, unless the store cannot tell in time. Then it is what is known. Of the
    /// time `within` which there must be an answer at most half is spent on it.
    pub(crate) async fn current(follower: &Arc<Self>, within: Option<Duration>) -> Option<Arc<Named>> {
        let served = Self::caught_up(follower)?;
        let (now, valid) = (follower.now_ms(), follower.valid.as_millis() as u64);
        let in_vain = follower.in_vain_ms.load(Ordering::Relaxed);
        let tried = in_vain != NEVER && now.saturating_sub(in_vain) < valid;
        if tried || now.saturating_sub(follower.known_ms.load(Ordering::Relaxed)) < valid {
            return Some(served);
        }
        let Ok(_permit) = follower.waiting.try_acquire() else { return Some(served) };
        let wait = within.map_or(WAIT, |within| WAIT.min(within / 2));
        if !matches!(tokio::time::timeout(wait, follower.refresh()).await, Ok(Ok(()))) {
            follower.in_vain_ms.store(follower.now_ms(), Ordering::Relaxed);
        }
        follower.served()
    }

    /// What has the name as far as is known, and the occasion to look again: after a failed reading, and well before what is known is
    /// no longer valid. It is read in the background, while the present version goes on answering.
    pub(crate) fn caught_up(follower: &Arc<Self>) -> Option<Arc<Named>> {
        let now = follower.now_ms();
        let looked = follower.looked_ms.load(Ordering::Relaxed);
        let due = now.saturating_sub(looked) >= follower.valid.as_millis() as u64 / 2
            && follower.looked_ms.compare_exchange(looked, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if follower.behind.swap(false, Ordering::Relaxed) || due {
            let follower = Arc::clone(follower);
            tokio::spawn(async move { follower.follow().await });
        }
        follower.served()
    }

    /// Serves what has the name now. Of many callers at once two read, the second for all who came while the first did; all of
    /// those get what came of it.
    ///
    /// # Errors
    /// When the store is away. What was served still is.
    pub(crate) async fn refresh(&self) -> Result<(), Failure> {
        let ended = self.readings.load(Ordering::Acquire);
        let mut last = self.turn.lock().await;
        if self.readings.load(Ordering::Acquire) < ended + 2 {
            *last = self.read_and_serve().await;
            self.readings.fetch_add(1, Ordering::Release);
        }
        last.clone()
    }

    async fn read_and_serve(&self) -> Result<(), Failure> {
        let (alias, known) = (self.name.as_str(), self.served());
        match version::read(&self.store, &self.family, self.name, known.as_deref()).await {
            Ok(Found::New(named)) => {
                tracing::info!(model = %self.family, alias, model_id = %named.model.model_id, "serving");
                *self.served.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(named));
                self.complain(None);
            }
            Ok(Found::Known | Found::Nothing) => {}
            Err(failure @ Failure::Permanent { .. }) => {
                let why = failure.to_string();
                if self.complain(Some(&why)) {
                    tracing::error!(model = %self.family, alias, %why, "cannot be served; the last good one stays");
                }
            }
            Err(failure) => {
                self.behind.store(true, Ordering::Relaxed);
                return Err(failure);
            }
        }
        self.known_ms.store(self.now_ms(), Ordering::Relaxed);
        Ok(())
    }

    /// Whether this is something else than was said last.
    fn complain(&self, why: Option<&str>) -> bool {
        let mut last = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = last.as_deref() != why;
        *last = why.map(str::to_owned);
        is_new
    }
}
