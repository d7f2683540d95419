//! Follows one alias: keeps the version that it names in memory, and replaces it atomically.

use crate::serve::version::{self, AliasRead, NamedVersion};
use common::{model::AliasName, outcome::Failure};
use parking_lot::RwLock;
use records::store::Store;
use runtime::metrics::metrics;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Mutex, Semaphore},
    time::Instant,
};

/// Stands for "never" among milliseconds since the start.
const NEVER: u64 = u64::MAX;

/// How long a request waits for a read of the alias, if the last read is too old.
const WAIT: Duration = Duration::from_millis(250);

/// Keeps the version that an alias names in memory.
pub(crate) struct Follower {
    pub(crate) family: String,
    name: AliasName,
    store: Store,
    /// Maximum age of a read.
    valid: Duration,
    served: RwLock<Option<Arc<NamedVersion>>>,
    /// One reader at a time. Holds the outcome of the last read.
    turn: Mutex<Result<(), Failure>>,
    /// Number of completed reads.
    readings: AtomicU64,
    /// Whether the last read failed, so that the served version may be outdated.
    behind: AtomicBool,
    started: Instant,
    /// When the last background read began, milliseconds since the start.
    read_began_ms: AtomicU64,
    /// When the last successful read ended.
    known_ms: AtomicU64,
    /// When a request last waited for a read in vain: for a while no other request waits.
    in_vain_ms: AtomicU64,
    /// Permits to wait for a read. A request without a permit uses the known version, so that some handlers stay free.
    waiting: Semaphore,
    /// Why the named version cannot be served; logged once.
    complaint: parking_lot::Mutex<Option<String>>,
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
            read_began_ms: AtomicU64::new(0),
            known_ms: AtomicU64::new(0),
            in_vain_ms: AtomicU64::new(NEVER),
            waiting: Semaphore::new(waiting_max),
            complaint: parking_lot::Mutex::default(),
        }
    }

    pub(crate) fn served(&self) -> Option<Arc<NamedVersion>> {
        self.served.read().clone()
    }

    /// Reads the alias now. If that fails, the next request triggers another read.
    pub(crate) async fn follow(&self) {
        if let Err(why) = self.refresh().await {
            tracing::warn!(model = %self.family, alias = self.name.as_str(), %why, "cannot read the version that this alias names");
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Returns the version that the alias names, from a read within its maximum age; the known version if the store is too slow. Spends
    /// at most half of `within`, the time for the whole answer.
    pub(crate) async fn current(follower: &Arc<Self>, within: Option<Duration>) -> Option<Arc<NamedVersion>> {
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

    /// Returns the known version. Triggers a read in the background after a failed one, and well before the last one is too old.
    pub(crate) fn caught_up(follower: &Arc<Self>) -> Option<Arc<NamedVersion>> {
        let now = follower.now_ms();
        let began = follower.read_began_ms.load(Ordering::Relaxed);
        let due = now.saturating_sub(began) >= follower.valid.as_millis() as u64 / 2
            && follower.read_began_ms.compare_exchange(began, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if follower.behind.swap(false, Ordering::Relaxed) || due {
            let follower = Arc::clone(follower);
            tokio::spawn(async move { follower.follow().await });
        }
        follower.served()
    }

    /// Reads the alias and serves its version. Of many concurrent callers two read, the second one for all that came during the first
    /// read; they all get its outcome.
    ///
    /// # Errors
    /// Fails if the store cannot be reached. The served version stays.
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
            Ok(AliasRead::New(named)) => {
                tracing::info!(model = %self.family, alias, model_id = %named.model.model_id, "serving");
                if self.name == AliasName::Champion
                    && let Some(promoted_at) = named.promoted_at
                {
                    metrics().serves_since(promoted_at.as_second() as f64);
                }
                *self.served.write() = Some(Arc::new(named));
                self.is_new_complaint(None);
            }
            Ok(AliasRead::Unchanged | AliasRead::NoVersion) => {}
            Err(failure @ Failure::Permanent { .. }) => {
                let why = failure.to_string();
                if self.is_new_complaint(Some(&why)) {
                    tracing::error!(model = %self.family, alias, %why, "cannot serve the named version; the last good one stays");
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

    /// Records why the version cannot be served. Returns whether the reason is new.
    fn is_new_complaint(&self, why: Option<&str>) -> bool {
        let mut last = self.complaint.lock();
        let is_new = last.as_deref() != why;
        *last = why.map(str::to_owned);
        is_new
    }
}
