//! The fleet in a simulated world: the five workers on the in-process broker, with a simulated store, clock and weather
//! service, in one thread and in virtual time, so that hours pass in milliseconds and the same seed gives the same run.
//!
//! ```text
//!  publisher ─┐                                            ┌─ asker (scores)
//!             ▼                                            ▼
//!  the real workers, in the real loop around them (runtime::worker::run), each a process that can die
//!             │ broker.rs           │ store.rs           │ weather.rs
//!             ▼                     ▼                    ▼
//!        MemoryBroker            InMemory           three stations
//!             └───── at every step [`World::step`] may crash the process; every answer may come late, twice or never
//! ```
//!
//! * [`plan`]: the parameters of a run, drawn from the seed: processes, settings, probability of each fault;
//! * [`world`]: steps, faults, the trace;
//! * [`input`]: the batches; [`clients`]: the publisher, and the client that requests scores;
//! * [`fleet`]: processes and their restarts;
//! * [`promises`]: judges whether the promises hold, from the outputs alone;
//! * [`sabotage`]: promises broken on purpose, to check that they are detected.

mod broker;
mod clients;
mod fleet;
mod input;
mod plan;
mod promises;
mod sabotage;
mod store;
mod weather;
mod world;

pub use plan::Plan;
pub use sabotage::Sabotage;
pub use world::{Fault, Point};

use input::Input;
use promises::Ended;
use runtime::host;
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    ops::Range,
    panic,
    sync::{
        Arc, LazyLock, Mutex, Once, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};
use world::World;

/// The result of one run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Digest of the trace: equal for equal runs.
    pub trace_hash: u64,
    /// Every step of every process and every fault, in order.
    pub trace: Vec<String>,
    /// Broken promises; empty if all hold.
    pub broken: Vec<String>,
    /// Number of occurrences of each fault.
    pub faults: BTreeMap<Fault, u64>,
    /// Virtual duration of the run.
    pub took: Duration,
}

impl Outcome {
    /// The broken promises, and the last `lines` lines of the trace.
    pub fn report(&self, lines: usize) -> impl fmt::Display {
        let trace = &self.trace[self.trace.len().saturating_sub(lines)..];
        format!(
            "seed {} broke promises:\n  {}\nthe end of its trace of {} lines (all of it: simulate --from {} --seeds 1 --trace):\n  {}",
            self.seed,
            self.broken.join("\n  "),
            self.trace.len(),
            self.seed,
            trace.join("\n  ")
        )
    }
}

/// Changes to the plan of a seed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// A promise broken on purpose.
    pub sabotage: Option<Sabotage>,
}

/// Runs one seed until it comes to rest, and judges the result.
pub fn simulate(seed: u64, options: Options) -> Outcome {
    let plan = Plan::of_seed(seed);
    let input = Input::of_plan(&plan);
    let mut ended = run(&plan, &input, options.sabotage);
    let mut broken = std::mem::take(&mut ended.broken);
    let expected = undisturbed(&input, ended.winner(&input));
    broken.extend(promises::check(&input, &ended, &expected));
    Outcome { seed, trace_hash: ended.trace_hash, trace: ended.trace, broken, faults: ended.faults, took: ended.took }
}

/// Runs seeds on every core until one breaks a promise. Returns the lowest that did. `each` is called with every outcome.
pub fn first_broken(seeds: Range<u64>, options: Options, each: impl Fn(&Outcome) + Sync) -> Option<Outcome> {
    let next = AtomicU64::new(seeds.start);
    let worst: Mutex<Option<Outcome>> = Mutex::default();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, SeqCst);
                    if seed >= seeds.end {
                        return;
                    }
                    let outcome = simulate(seed, options);
                    each(&outcome);
                    if !outcome.broken.is_empty() {
                        // No further seeds are started; a lower one may still be running.
                        next.store(seeds.end, SeqCst);
                        let mut worst = worst.lock().unwrap_or_else(PoisonError::into_inner);
                        if worst.as_ref().is_none_or(|worst| seed < worst.seed) {
                            *worst = Some(outcome);
                        }
                    }
                }
            });
        }
    });
    worst.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the same input without faults, with one process of each worker. Cached, since many seeds share their input.
fn undisturbed(input: &Input, winner: usize) -> Arc<Ended> {
    type Known = HashMap<(u64, usize), Arc<Ended>>;
    static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
    let key = (input.number, winner);
    if let Some(known) = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Arc::clone(known);
    }
    let ended = Arc::new(run(&Plan::undisturbed(input.number), &input.won_by(winner), None));
    assert!(ended.broken.is_empty(), "without a fault, input {}: {:?}", input.number, ended.broken);
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&ended));
    ended
}

fn run(plan: &Plan, input: &Input, sabotage: Option<Sabotage>) -> Ended {
    silence_simulated_panics();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime of one thread");
    runtime.block_on(async {
        let epoch = "2020-06-01T00:00:00Z".parse().expect("a date");
        let _host = host::Simulation::begin(plan.seed, epoch);
        let world = World::new(plan.clone(), sabotage);
        let shutdown = fleet::start(&world);
        let clients = clients::start(&world, input);
        let settled = clients::until_quiet(&world, clients).await;
        let ended = Ended::look(&world, settled).await;
        shutdown.cancel();
        ended
    })
}

/// Marks a panic that is part of the simulation.
const SIMULATED_PANIC: &str = "simulated:";

/// Simulated panics are not printed.
fn silence_simulated_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let simulated =
                info.payload().downcast_ref::<String>().is_some_and(|text| text.starts_with(SIMULATED_PANIC));
            if !simulated {
                before(info);
            }
        }));
    });
}
