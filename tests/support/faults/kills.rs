//! `kill -9` of workers at random moments.

use crate::{
    disturbed::{Observed, Plan},
    processes::{Fleet, Input, json_output, succeed, wildrydes},
    service::Service,
};
use common::topology::PROCESSES;
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};
use runtime::config::BrokerSettings;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Maximum pause between a kill's point of progress and the kill itself.
const PAUSE_MS_MAX: u64 = 30;

/// Number and distribution of kills.
#[derive(Debug, Clone)]
pub struct Kills {
    /// Number of kills.
    pub kills: usize,
    /// Batches that the rides of the plan are divided into. A batch is one message to the splitter, which the broker
    /// dead-letters after 20 failed deliveries.
    pub batches: usize,
    /// Seed that selects moments (by progress) and victims.
    pub seed: u64,
    /// Number of kills between two printed lines.
    pub print_every: usize,
}

/// Kills random workers at random moments, all before the last batch is complete, and restarts each at once.
pub async fn random(plan: &Plan, broker: BrokerSettings, kills: &Kills) -> Observed {
    let input = Input::of(1);
    let files = batch_files(&input, plan, kills);
    let undisturbed = {
        let store = tempfile::tempdir().expect("a temporary folder");
        let mut run = wildrydes();
        run.arg("run").args(&files).arg("--weather").arg(&input.weather).arg("--store").arg(store.path());
        json_output(&mut run)
    };
    let chunk_size = plan.chunk_size.to_string();
    let url = plan.service.map(Service::new_url).unwrap_or_default();
    let mut environment = plan.service.map(|service| service.of_fleet(&url)).unwrap_or_default();
    environment.push(("WILDRYDES__SPLITTER__CHUNK_SIZE", &chunk_size));
    let mut fleet = Fleet::start_on(broker, &PROCESSES, 1, &input.weather, &environment);
    fleet.patience = plan.patience;
    let started = Instant::now();
    let submitted = succeed(fleet.wildrydes().args(["ingest", "--detach", "--json"]).args(&files));
    let ids: Vec<String> = submitted
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["batch_id"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(ids.len(), kills.batches);
    let chunks = usize::try_from(plan.rides / kills.batches as u64 / u64::from(plan.chunk_size)).expect("a count");
    let victims = strike(&mut fleet, &ids, chunks, kills);
    for id in &ids {
        fleet.wait_for("the dataset", |_| fleet.is_ready(id));
    }
    let took = started.elapsed();
    let again = json_output(fleet.wildrydes().arg("ingest").args(&files));
    assert_eq!(datasets(&again), datasets(&undisturbed), "seed {}", kills.seed);
    assert_eq!(datasets(&again).len(), kills.batches);
    let expected = &undisturbed["model"]["model_id"];
    fleet.wait_for("the model of all datasets", |_| fleet.champion()["model_id"] == *expected);
    for id in &ids {
        fleet.wait_for("an empty staging area", |_| fleet.staged_chunks(id) == 0);
    }
    let redelivered = fleet.redelivered();
    fleet.finish().await;
    let times = victims.values().sum();
    let victims: Vec<String> = victims.iter().map(|(name, times)| format!("{name} {times}")).collect();
    let notes = format!("seed {}; {}", kills.seed, victims.join(", "));
    Observed { times, took, redelivered, notes }
}

/// The rides of the plan, in one file per batch.
fn batch_files(input: &Input, plan: &Plan, kills: &Kills) -> Vec<PathBuf> {
    let rides = (plan.rides / kills.batches as u64).to_string();
    let file = |batch: usize| {
        let (file, seed) = (input.folder().join(format!("batch-{batch}.json")), (batch + 1).to_string());
        succeed(wildrydes().args(["generate", "rides", "--rides", &rides, "--seed", &seed]).arg(&file));
        file
    };
    (0..kills.batches).map(file).collect()
}

/// Kills and restarts workers while the batches, each of so many chunks, are in progress. Returns the number of kills by worker.
fn strike(fleet: &mut Fleet, ids: &[String], chunks: usize, kills: &Kills) -> BTreeMap<&'static str, usize> {
    let started = Instant::now();
    // Two requests to a store that is a service, however many batches there are: kills must not lag behind.
    let progress = |fleet: &Fleet| -> usize {
        let (ready, staged) = (fleet.ready_batches(), fleet.all_staged_chunks());
        let of =
            |id: &String| if ready.contains(id) { chunks } else { staged.get(id).map_or(0, |some| chunks.min(*some)) };
        ids.iter().map(of).sum()
    };
    let mut random = Xoshiro256PlusPlus::seed_from_u64(kills.seed);
    // Not at the very end: the last dataset should not be complete before the last kill.
    let latest = (chunks * kills.batches * 9 / 10).max(1);
    let mut moments: Vec<usize> = (0..kills.kills).map(|_| random.random_range(0..latest)).collect();
    moments.sort_unstable();
    let mut victims: BTreeMap<&str, usize> = BTreeMap::new();
    for (kill, moment) in moments.into_iter().enumerate() {
        fleet.wait_for("progress", |_| progress(fleet) >= moment);
        // A random moment in the middle of some handling.
        std::thread::sleep(Duration::from_millis(random.random_range(0..=PAUSE_MS_MAX)));
        let ready = fleet.ready_batches();
        if ids.iter().all(|id| ready.contains(id)) {
            break;
        }
        let victim = PROCESSES[random.random_range(0..PROCESSES.len())];
        fleet.kill(victim, 0);
        fleet.launch(victim, 0);
        *victims.entry(victim).or_default() += 1;
        if (kill + 1) % kills.print_every == 0 {
            let (at, of) = (progress(fleet), chunks * kills.batches);
            eprintln!("{} kills, {at} of {of} chunks, {:.1} s", kill + 1, started.elapsed().as_secs_f64());
        }
    }
    let struck = victims.values().sum::<usize>();
    assert!(struck * 10 >= kills.kills * 9, "only {struck} of {} kills fell into the batches", kills.kills);
    victims
}

/// The datasets of a report: the digest of each manifest, and the manifest.
fn datasets(report: &Value) -> Vec<(Value, Value)> {
    let batches = report["batches"].as_array().expect("batches").iter();
    batches.map(|batch| (batch["manifest_sha256"].clone(), batch["manifest"].clone())).collect()
}
