//! The simulated world of a run: its random numbers, its trace, and the faults at each step.

use super::{plan::Plan, sabotage::Sabotage};
use common::{outcome::Outgoing, topology::queue};
use object_store::{ObjectStore, PutOptions, PutPayload, memory::InMemory, path::Path};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use runtime::MemoryBroker;
use std::{
    collections::BTreeMap,
    fmt,
    hash::Hasher,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use xxhash_rust::xxh3::Xxh3;

/// A step in the work of a process at which it may die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Point {
    BeforeHandle,
    AfterHandle,
    BeforePublish,
    /// The broker has the message, and the confirm is in flight.
    Published,
    Confirmed,
    BeforeAck,
    AfterAck,
    BeforeWrite,
    AfterWrite,
    BeforeRead,
}

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process dies at a step.
    Crash,
    /// A handler panics.
    Panic,
    /// The connection breaks before a message reaches the broker.
    PublishLost,
    /// The connection breaks after the broker took a message, before the confirm arrives.
    ConfirmLost,
    /// The connection breaks before an acknowledgement arrives.
    AckLost,
    /// The broker refuses a message: its queue is full.
    Refused,
    /// A message arrives twice.
    Duplicate,
    /// A message arrives once more hours later.
    LateDuplicate,
    /// A delivery is overtaken by the next.
    Reorder,
    /// What a dead process held comes back only hours later: its connection was half open.
    HalfOpen,
    /// The broker goes away for some time, with every connection and every unconfirmed message.
    BrokerRestart,
    /// The broker accepts no publishes for some time.
    Blocked,
    /// A store operation fails without effect.
    StoreFails,
    /// A write takes effect, but its answer is lost.
    WriteAnswerLost,
    /// A conditional write meets itself: the first try took effect, the second is refused.
    OwnConflict,
    /// A read breaks off in the middle.
    TornRead,
    /// A process is abandoned during one of its writes: suspended past its heartbeat, or partitioned. The write takes effect
    /// hours later.
    LateWrite,
    /// An object is changed in place, with the same number of bytes, while the splitter reads it for the second time;
    /// then it is restored.
    SourceChanged,
    /// A process is shut down (SIGTERM), as in a rolling update.
    Rollout,
    /// The weather service misbehaves for some time: see `weather.rs`.
    Weather,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 20] = [
        Self::Crash,
        Self::Panic,
        Self::PublishLost,
        Self::ConfirmLost,
        Self::AckLost,
        Self::Refused,
        Self::Duplicate,
        Self::LateDuplicate,
        Self::Reorder,
        Self::HalfOpen,
        Self::BrokerRestart,
        Self::Blocked,
        Self::StoreFails,
        Self::WriteAnswerLost,
        Self::OwnConflict,
        Self::TornRead,
        Self::LateWrite,
        Self::SourceChanged,
        Self::Rollout,
        Self::Weather,
    ];

    /// Probability at one occasion, in a usual run.
    pub fn likely(self) -> f64 {
        match self {
            Self::Crash | Self::LateWrite => 0.004,
            Self::Panic => 0.01,
            Self::PublishLost | Self::ConfirmLost | Self::AckLost => 0.01,
            Self::Refused | Self::StoreFails | Self::WriteAnswerLost | Self::OwnConflict | Self::TornRead => 0.02,
            Self::Duplicate | Self::Reorder => 0.1,
            Self::LateDuplicate => 0.02,
            Self::HalfOpen | Self::SourceChanged => 0.3,
            Self::BrokerRestart | Self::Blocked => 0.02,
            Self::Rollout => 0.3,
            Self::Weather => 0.15,
        }
    }

    /// Maximum number of occurrences in one run, for each kind of worker: a message that meets more crashes and broken
    /// connections than the delivery limit, or more failures than it has attempts, becomes a dead letter by design.
    fn most(self) -> u64 {
        match self {
            Self::Crash => 4,
            Self::LateWrite => 2,
            Self::SourceChanged => 1,
            Self::PublishLost | Self::ConfirmLost | Self::AckLost => 2,
            Self::BrokerRestart => 3,
            Self::Panic | Self::Rollout => 3,
            // Enough occurrences everywhere, and a limit: retries that are duplicated again and again would fill any broker.
            Self::Blocked | Self::LateDuplicate | Self::HalfOpen => 20,
            Self::Refused | Self::Duplicate | Self::OwnConflict | Self::WriteAnswerLost | Self::Weather => 60,
            Self::TornRead | Self::StoreFails | Self::Reorder => 120,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// The state of the broker as every connection sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerIs {
    /// Accepts everything.
    Up,
    /// Accepts no publishes.
    Blocked,
    /// Gone.
    Down,
}

/// Maximum number of steps of a run; usual runs take some thousands.
const STEPS_MAX: usize = 300_000;

/// Everything of one run.
pub struct World {
    pub plan: Plan,
    pub sabotage: Option<Sabotage>,
    /// The broker's messages.
    pub core: MemoryBroker,
    /// The store's objects.
    pub objects: Arc<InMemory>,
    pub broker: watch::Sender<BrokerIs>,
    /// Whether the faults have ended and the fleet comes to rest.
    calm: AtomicBool,
    overrun: AtomicBool,
    started: Instant,
    /// Messages that will be published once more.
    pub late: AtomicU64,
    /// Edition of the weather, from 0: `weather.rs` adds, changes and removes observations with each.
    pub edition: AtomicU64,
    /// The largest message so far.
    pub largest: AtomicUsize,
    state: Mutex<State>,
    wires: Mutex<Vec<Weak<super::broker::Wire>>>,
}

struct State {
    random: SmallRng,
    trace: Vec<String>,
    hash: Xxh3,
    faults: BTreeMap<Fault, u64>,
    by_worker: BTreeMap<(Fault, &'static str), u64>,
    broken: Vec<String>,
}

impl World {
    pub fn new(plan: Plan, sabotage: Option<Sabotage>) -> Arc<Self> {
        let state = State {
            random: SmallRng::seed_from_u64(plan.seed),
            trace: Vec::new(),
            hash: Xxh3::new(),
            faults: BTreeMap::new(),
            by_worker: BTreeMap::new(),
            broken: Vec::new(),
        };
        Arc::new(Self {
            core: MemoryBroker::with_queue_bytes_max(match sabotage {
                Some(Sabotage::NoPushBack) => usize::MAX,
                _ => plan.queue_bytes_max,
            }),
            objects: Arc::new(InMemory::new()),
            broker: watch::Sender::new(BrokerIs::Up),
            calm: AtomicBool::new(false),
            overrun: AtomicBool::new(false),
            started: Instant::now(),
            late: AtomicU64::new(0),
            edition: AtomicU64::new(0),
            largest: AtomicUsize::new(0),
            state: Mutex::new(state),
            wires: Mutex::default(),
            plan,
            sabotage,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line to the trace.
    pub fn tell(&self, who: &str, what: impl fmt::Display) {
        let line = format!("{:>12.3} {who:<22} {what}", self.started.elapsed().as_secs_f64());
        let mut state = self.state();
        state.hash.write(line.as_bytes());
        state.trace.push(line);
        if state.trace.len() > STEPS_MAX {
            self.overrun.store(true, SeqCst);
        }
    }

    /// Returns whether the limit of steps is exceeded: some process loops, and the run ends.
    pub fn is_overrun(&self) -> bool {
        self.overrun.load(SeqCst)
    }

    /// Records a broken promise during the run.
    pub fn break_promise(&self, what: String) {
        self.tell("PROMISE", &what);
        self.state().broken.push(what);
    }

    /// Returns whether this fault happens now, to a process of this kind.
    pub fn happens(&self, fault: Fault, kind: &'static str) -> bool {
        let Some(rate) = self.plan.rates.get(&fault).copied().filter(|_| !self.is_calm()) else { return false };
        let mut state = self.state();
        if !state.random.random_bool(rate.min(1.0)) {
            return false;
        }
        let so_far = state.by_worker.entry((fault, kind)).or_default();
        if *so_far >= fault.most() {
            return false;
        }
        *so_far += 1;
        *state.faults.entry(fault).or_default() += 1;
        true
    }

    /// A number from the world's random number generator.
    pub fn below(&self, bound: u64) -> u64 {
        self.state().random.random_range(0..bound.max(1))
    }

    /// A random duration up to `max`.
    pub fn moment(&self, max: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(max.as_micros()).unwrap_or(u64::MAX)))
    }

    /// Waits for a random latency.
    pub async fn latency(&self) {
        tokio::time::sleep(self.moment(self.plan.latency_max)).await;
    }

    pub fn is_calm(&self) -> bool {
        self.calm.load(SeqCst)
    }

    /// Ends all faults.
    pub fn calm_down(&self) {
        self.tell("world", "no more faults");
        self.calm.store(true, SeqCst);
        self.set_broker(BrokerIs::Up);
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn add_wire(&self, wire: &Arc<super::broker::Wire>) {
        let mut wires = self.wires.lock().unwrap_or_else(PoisonError::into_inner);
        wires.retain(|wire| wire.strong_count() > 0);
        wires.push(Arc::downgrade(wire));
    }

    pub fn set_broker(&self, is: BrokerIs) {
        self.tell("broker", format_args!("{is:?}"));
        self.broker.send_replace(is);
        let wires: Vec<_> =
            self.wires.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
        for wire in wires {
            wire.broker_is(is);
        }
    }

    /// Publishes a copy of a message some hours later.
    pub fn publish_later(self: &Arc<Self>, message: Outgoing) {
        let world = Arc::clone(self);
        world.late.fetch_add(1, SeqCst);
        let after = Duration::from_secs(600 + world.below(6 * 3_600));
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            world.tell("late", format_args!("{} once more", super::broker::named(&message)));
            super::broker::straight(&world.core, message).await;
            world.late.fetch_sub(1, SeqCst);
        });
    }

    /// Carries out a write some hours later, under the condition that it had.
    pub fn write_later(self: &Arc<Self>, path: &Path, payload: PutPayload, options: PutOptions) {
        let (world, path) = (Arc::clone(self), path.clone());
        world.late.fetch_add(1, SeqCst);
        let after = Duration::from_secs(600 + world.below(6 * 3_600));
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let written = world.objects.put_opts(&path, payload, options).await;
            world.tell("late", format_args!("write of {path}, taken: {}", written.is_ok()));
            world.late.fetch_sub(1, SeqCst);
        });
    }

    /// The trace and the counts.
    pub fn conclude(&self) -> (u64, Vec<String>, Vec<String>, BTreeMap<Fault, u64>) {
        let mut state = self.state();
        let hash = state.hash.finish();
        (hash, std::mem::take(&mut state.trace), std::mem::take(&mut state.broken), std::mem::take(&mut state.faults))
    }
}

/// One process: from its start to its death, which may come at any step.
pub struct Process {
    pub world: Arc<World>,
    /// `merger`
    pub kind: &'static str,
    /// `merger.1#3`: the second of its kind, in its third life.
    pub name: String,
    /// Whether it is of a newer version than the others.
    pub newer: bool,
    /// Name of the claim that this message's handler read or wrote last, if it has done nothing else since: then a splitter
    /// reads that batch for the second time.
    claim: Mutex<Option<String>>,
    dead: watch::Sender<bool>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Process {
    pub fn new(world: &Arc<World>, kind: &'static str, name: String, newer: bool) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            kind,
            name,
            newer,
            claim: Mutex::default(),
            dead: watch::Sender::new(false),
        })
    }

    pub fn see_claim(&self, name: Option<&str>) {
        *self.claim.lock().unwrap_or_else(PoisonError::into_inner) = name.map(str::to_owned);
    }

    pub fn take_claim(&self) -> Option<String> {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub fn is_dead(&self) -> bool {
        *self.dead.borrow()
    }

    /// Resolves when it has died.
    pub async fn died(&self) {
        // The sender lives as long as this process.
        let _ = self.dead.subscribe().wait_for(|dead| *dead).await;
    }

    /// A dead process does nothing.
    pub async fn alive(&self) {
        if self.is_dead() || self.world.is_overrun() {
            std::future::pending::<()>().await;
        }
    }

    pub fn tell(&self, what: impl fmt::Display) {
        self.world.tell(&self.name, what);
    }

    pub fn happens(&self, fault: Fault) -> bool {
        self.world.happens(fault, self.kind)
    }

    /// A step of its work, at which it may die.
    pub async fn step(&self, point: Point, what: &str) {
        self.alive().await;
        self.tell(format_args!("{point:?} {what}"));
        if queue::ALL.contains(&self.kind) && self.happens(Fault::Crash) {
            self.tell(format_args!("† {point:?} {what}"));
            self.die().await;
        }
    }

    /// The process dies, or is abandoned: nothing of it continues.
    pub async fn die(&self) {
        self.dead.send_replace(true);
        self.alive().await;
    }

    /// Time passes; the process may have died meanwhile.
    pub async fn latency(&self) {
        self.world.latency().await;
        self.alive().await;
    }
}
