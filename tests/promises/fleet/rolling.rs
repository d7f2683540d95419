//! A rolling restart: what an upgrade of the Deployments does, one process after the other.

use common::topology::process;
use pipeline_tests::{
    gateway::{self, Answer, Api, OPEN},
    print_uncaptured,
    processes::{Fleet, Input, dataset_sha256, json_output, wildrydes},
};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Instant,
};

/// Concurrent clients, and rides of each of their requests.
const ASKERS: usize = 4;
const RIDES: usize = 20;
/// Attempts of a client at one request, at alternating gateways, as behind a load balancer.
const ATTEMPTS: usize = 5;
/// Processes of each kind.
const COPIES: usize = 2;

/// State that the clients share.
struct Load {
    gateways: Mutex<Vec<Api>>,
    ended: AtomicBool,
    scores: AtomicUsize,
    retries: AtomicUsize,
}

impl Load {
    /// Requests scores until the end. Every request must succeed within its attempts.
    async fn ask(&self, asker: usize) {
        let mut nth = 0;
        while !self.ended.load(SeqCst) {
            nth += 1;
            let mut failures = Vec::new();
            while let Err(failure) = self.score(asker + nth + failures.len(), nth).await {
                failures.push(failure);
                assert!(failures.len() < ATTEMPTS, "{failures:#?}");
            }
            self.retries.fetch_add(failures.len(), SeqCst);
            self.scores.fetch_add(RIDES, SeqCst);
        }
    }

    async fn score(&self, turn: usize, nth: usize) -> Result<(), String> {
        let api = {
            let gateways = self.gateways.lock().expect("no client has panicked");
            gateways[turn % gateways.len()].clone()
        };
        let rides: Vec<Value> =
            (0..RIDES).map(|ride| json!({ "distance": (nth * 7 + ride) % 100, "healthpoints": 300, "magicpoints": 300, "tmin": 50, "tmax": 60, "prcp": 0 })).collect();
        let request = api.request(Method::POST, "/v1/score").json(&json!({ "rides": rides }));
        let response = request.send().await.map_err(|error| format!("{}: {error:?}", api.url))?;
        let answer = Answer::of(response).await.with_status(200)?.json();
        let scored = answer["scores"]
            .as_array()
            .map_or(0, |scores| scores.iter().filter(|of| of["probability"].is_number()).count());
        if scored == RIDES { Ok(()) } else { Err(answer.to_string()) }
    }
}

/// A file of rides, the id of their batch, and the SHA-256 of their manifest from an undisturbed run.
struct Batch {
    file: PathBuf,
    id: String,
    expected: String,
}

fn batches(input: &Input, count: usize) -> Vec<Batch> {
    let batch = |seed: usize| {
        let file = input.folder().join(format!("{seed}.json"));
        let mut generate = wildrydes();
        generate.args(["generate", "rides", "--rides", "2000", "--seed", &seed.to_string()]).arg(&file);
        pipeline_tests::processes::succeed(&mut generate);
        let store = tempfile::tempdir().expect("a folder");
        let mut run = wildrydes();
        run.arg("run").arg(&file).arg("--weather").arg(&input.weather).arg("--store").arg(store.path());
        let report = json_output(&mut run);
        let id = report["batches"][0]["batch_id"].as_str().expect("an id").to_owned();
        Batch { file, id, expected: dataset_sha256(&report) }
    };
    (1..=count).map(batch).collect()
}

/// Each of two processes of every kind is stopped by SIGTERM and replaced, a batch in work each time, while clients request
/// scores: no request fails within its attempts, and every dataset has the bytes of an undisturbed run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_no_score_and_changes_no_byte() {
    let input = Input::of(4_000);
    let batches = batches(&input, process::ALL.len() * COPIES);
    let mut environment = OPEN.to_vec();
    environment.push(("WILDRYDES__SPLITTER__CHUNK_SIZE", "50"));
    let mut fleet = Fleet::start_with(COPIES, &input.weather, &environment);
    let gateways: Vec<Api> = (0..COPIES).map(|copy| gateway::launch(&mut fleet, copy)).collect();
    json_output(fleet.wildrydes().args(["ingest", "--until", "model"]).arg(&input.rides));
    for api in &gateways {
        api.until_a_model_answers().await;
    }
    let load = Arc::new(Load {
        gateways: Mutex::new(gateways),
        ended: AtomicBool::new(false),
        scores: AtomicUsize::new(0),
        retries: AtomicUsize::new(0),
    });
    let started = Instant::now();
    let ask = |asker| {
        let load = Arc::clone(&load);
        tokio::spawn(async move { load.ask(asker).await })
    };
    let askers: Vec<_> = (0..ASKERS).map(ask).collect();

    let mut rest = batches.iter();
    for name in process::ALL.map(|process| process.name) {
        for copy in 0..COPIES {
            let batch = rest.next().expect("one for each process");
            json_output(fleet.wildrydes().args(["ingest", "--detach"]).arg(&batch.file));
            let before = sessions(&fleet, name);
            fleet.ask_to_end(name, copy);
            fleet.wait_for_end(name, copy).await;
            if name == process::GATEWAY.name {
                let api = gateway::launch(&mut fleet, copy);
                api.until_ready_is(200).await;
                load.gateways.lock().expect("no client has panicked")[copy] = api;
            } else {
                fleet.launch(name, copy);
                fleet
                    .until(&format!("{name} {copy} to consume"), async || (sessions(&fleet, name) > before, before))
                    .await;
            }
            assert!(askers.iter().all(|asker| !asker.is_finished()), "a score failed while {name} {copy} was replaced");
        }
    }
    for Batch { id, expected, .. } in &batches {
        fleet.manifest(id);
        let manifest = std::fs::read(fleet.store().join(format!("dataset/{id}/manifest.json"))).expect("a manifest");
        assert_eq!(hex::encode(Sha256::digest(manifest)), *expected, "{id}");
    }
    load.ended.store(true, SeqCst);
    for asker in askers {
        asker.await.expect("every request succeeded");
    }
    let (scores, retries) = (load.scores.load(SeqCst), load.retries.load(SeqCst));
    let per_second = scores as f64 / started.elapsed().as_secs_f64();
    print_uncaptured(format_args!(
        "12 processes replaced under {per_second:.0} scores/s, {scores} in all, {retries} requests retried"
    ));
    fleet.finish().await;
}

/// How often processes of a worker have begun to consume.
fn sessions(fleet: &Fleet, name: &str) -> usize {
    let begun = |line: &&Value| line["worker"] == name && line["message"] == "consuming";
    fleet.logs().iter().filter(begun).count()
}
