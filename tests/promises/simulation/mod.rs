//! Seeds of the simulated world: every promise kept under every fault, and every broken promise noticed.

use pipeline_tests::simulation::{Fault, Options, Sabotage, first_broken, simulate};
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// Crashes at every step, lost, doubled, late and reordered messages, broken connections, a broker that goes away or takes
/// nothing, a store that fails and lies, a moody weather service: what the fleet puts out is what it puts out undisturbed.
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

/// The same seed is the same run, step by step, on whatever thread.
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

/// The simulator bites: each mistake that breaks a promise is noticed within the seeds that pass without it.
#[test]
fn every_promise_broken_on_purpose_is_noticed() {
    for sabotage in Sabotage::ALL {
        let noticed = first_broken(0..400, Options { sabotage: Some(sabotage) }, |_| {});
        assert!(noticed.is_some(), "{sabotage} goes unnoticed");
    }
}
