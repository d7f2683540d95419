//! Tests of faults of workers.

use common::topology::PROCESSES;
use pipeline_tests::{
    disturbed::Plan,
    faults::kills::{Kills, random},
    processes::{Fleet, Input, succeed, wildrydes},
    rabbitmq::settings,
    s3::s3,
};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// The seed of this run, which is printed; `WILDRYDES_TEST_SEED` repeats it.
fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let seed = std::env::var("WILDRYDES_TEST_SEED").ok().map_or(now, |seed| seed.parse().unwrap());
    eprintln!("seed {seed}");
    seed
}

/// `kill -9` of random workers at random moments over three batches.
#[tokio::test(flavor = "multi_thread")]
async fn workers_killed_at_random_moments_change_no_byte() {
    let kills = Kills { kills: 25, batches: 3, seed: seed(), print_every: 25 };
    let plan = Plan { rides: 30_000, chunk_size: 50, ..Plan::short() };
    eprintln!("{:?}", random(&plan, settings(), &kills).await);
}

/// The same with the store in a service, where a killed writer may leave an unfinished upload, and a request outlives its sender.
#[tokio::test(flavor = "multi_thread")]
async fn workers_killed_on_a_service_change_no_byte() {
    let Some(service) = s3() else { return };
    let kills = Kills { kills: 10, batches: 2, seed: seed(), print_every: 10 };
    let plan = Plan { rides: 10_000, chunk_size: 50, service: Some(service), ..Plan::short() };
    eprintln!("{:?}", random(&plan, settings(), &kills).await);
}

/// `kill -9` of random workers while a batch is refreshed. The new revision is that of an undisturbed run with the same weather, the first
/// one stays as it is, and the fleet trains on the new one.
#[tokio::test(flavor = "multi_thread")]
async fn workers_killed_during_a_refresh_change_no_byte() {
    const KILLS: usize = 12;
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed());
    let input = Input::of(10_000);
    let expected = input.run(&[]);
    let stations = fs::read_dir(input.weather.join("csv/by_station")).unwrap().map(|file| file.unwrap().path());
    let published: Vec<_> = stations.map(|path| (fs::read(&path).unwrap(), path)).collect();
    for (_, path) in &published {
        let text = fs::read_to_string(path).unwrap();
        let kept: Vec<&str> = text.lines().take(text.lines().count() / 2).collect();
        fs::write(path, kept.join("\n") + "\n").unwrap();
    }
    let environment = [("WILDRYDES__SPLITTER__CHUNK_SIZE", "50")];
    let mut fleet = Fleet::start_on(settings(), &PROCESSES, 1, &input.weather, &environment);
    succeed(fleet.wildrydes().arg("ingest").arg(&input.rides));
    let id = expected["batches"][0]["batch_id"].as_str().unwrap();
    let first_revision = |fleet: &Fleet| {
        ["manifest.json", "part-00000.csv"].map(|name| fleet.object(&format!("dataset/{id}/{name}")).unwrap())
    };
    let (before, champion) = (first_revision(&fleet), fleet.champion());
    for (bytes, path) in &published {
        fs::write(path, bytes).unwrap();
    }
    succeed(fleet.wildrydes().args(["refresh", "--no-wait", id]));
    let manifest = format!("dataset/{id}/r2/manifest.json");
    for kill in 0..KILLS {
        let staged = 200 * kill / KILLS;
        fleet.wait_for("progress", |_| fleet.staged_chunks(id) >= staged || fleet.object(&manifest).is_some());
        let victim = PROCESSES[random.random_range(0..PROCESSES.len())];
        fleet.kill(victim, 0);
        fleet.launch(victim, 0);
    }
    fleet.wait_for("revision 2", |_| fleet.object(&manifest));
    let part = format!("dataset/{id}/r2/part-00000.csv");
    let store = tempfile::tempdir().unwrap();
    succeed(
        wildrydes().arg("run").arg(&input.rides).arg("--weather").arg(&input.weather).arg("--store").arg(store.path()),
    );
    let undisturbed = fs::read(store.path().join(format!("dataset/{id}/part-00000.csv"))).unwrap();
    assert!(fleet.object(&part) == Some(undisturbed), "the rows of revision 2 differ");
    assert_eq!(first_revision(&fleet), before);
    fleet.wait_for("the model of revision 2", |_| fleet.champion()["model_id"] != champion["model_id"]);
    fleet.wait_for("an empty staging area", |_| fleet.staged_chunks(id) == 0);
    fleet.finish().await;
}
