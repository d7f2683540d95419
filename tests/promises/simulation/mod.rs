//! Tests of the simulated world: every promise holds under every fault, and every promise broken on purpose is detected.

use pipeline_tests::simulation::{Fault, Options, Sabotage, first_broken, simulate};
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// Crashes at every step; lost, duplicated, late and reordered messages; broken connections; a broker that disappears or
/// accepts nothing; a failing store; an unreliable weather service: the outputs are those of the undisturbed run.
#[test]
fn hundreds_of_seeds_keep_every_promise() {
    let happened: Mutex<BTreeSet<Fault>> = Mutex::default();
    let broken = first_broken(0..400, Options::default(), |outcome| {
        happened.lock().unwrap_or_else(PoisonError::into_inner).extend(outcome.faults.keys());
    });
    assert!(broken.is_none(), "{}", broken.map(|outcome| outcome.report(80).to_string()).unwrap_or_default());
    let happened = happened.into_inner().unwrap_or_else(PoisonError::into_inner);
    let never: Vec<_> = Fault::ALL.into_iter().filter(|fault| !happened.contains(fault)).collect();
    assert!(never.is_empty(), "these faults never happened: {never:?}");
}

/// The same seed is the same run, step by step, on any thread.
#[test]
fn a_seed_is_one_run() {
    let runs = || {
        let hashes = |seeds: std::ops::Range<u64>| seeds.map(|seed| simulate(seed, Options::default()).trace_hash);
        std::thread::spawn(move || hashes(40..60).collect::<Vec<_>>()).join().expect("the runs end")
    };
    let first = runs();
    assert_eq!(first, runs());
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), first.len(), "different seeds are different runs");
}

/// The simulation detects each mistake that breaks a promise within the seeds that pass without it.
#[test]
fn every_promise_broken_on_purpose_is_noticed() {
    for sabotage in Sabotage::ALL {
        let noticed = first_broken(0..400, Options { sabotage: Some(sabotage) }, |_| {});
        assert!(noticed.is_some(), "{sabotage} goes unnoticed");
    }
}
