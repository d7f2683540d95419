//! Soak test: runs two processes of each worker and a gateway under mixed load. Every few seconds one process is killed
//! (SIGKILL) and restarted, or suspended (SIGSTOP) for longer than its connection survives. At the end every dataset
//! must equal that of an undisturbed run, and nothing may be left behind.
//!
//! ```sh
//! tests/soak --minutes 15
//! ```

use clap::Parser;
use common::topology::{PROCESSES, dead_queue, queue};
use pipeline_tests::{
    gateway::{Api, ride},
    processes::{Fleet, Input, json_output, succeed, wildrydes},
    rabbitmq,
    wait::{self, SOON},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// Processes of each worker.
const COPIES: usize = 2;
/// Maximum open files of a process at the end.
const FILES_MAX: usize = 256;
/// Maximum resident memory of a process, MB, whenever it is checked.
const MEGABYTES_MAX: u64 = 400;
/// Maximum time for which a process is suspended: much longer than its connection survives without a heartbeat.
const SUSPENDED_SECONDS_MAX: u64 = 30;

/// Puts a fleet under load, kills and suspends its processes, and checks the results.
#[derive(Parser)]
struct Arguments {
    /// Duration, in minutes
    #[arg(long, default_value_t = 15.0)]
    minutes: f64,
    /// Time between two kills or suspensions, in seconds
    #[arg(long, default_value_t = 5.0)]
    every: f64,
    /// Time between two batches, in seconds
    #[arg(long, default_value_t = 3.0)]
    batch_every: f64,
    /// Rides in a batch
    #[arg(long, default_value_t = 1_000)]
    rides: u64,
    /// Seed that selects the processes to kill or suspend
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Counts of the requests over HTTP.
#[derive(Default)]
struct Asked {
    ended: AtomicBool,
    scored: AtomicU64,
    listed: AtomicU64,
    /// Answers that ask to try again, and connections refused by a gateway that is starting.
    put_off: AtomicU64,
    wrong: AtomicU64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let complaints = runtime.block_on(soak(&arguments));
    for complaint in &complaints {
        println!("WRONG: {complaint}");
    }
    if complaints.is_empty() {
        println!("nothing is lost, duplicated or left behind");
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

async fn soak(arguments: &Arguments) -> Vec<String> {
    let input = Input::of(arguments.rides);
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let bind = format!("127.0.0.1:{port}");
    let environment = [
        ("WILDRYDES__GATEWAY__BIND", bind.as_str()),
        ("WILDRYDES__GATEWAY__AUTH", "off"),
        ("WILDRYDES__LOG__LEVEL", "info"),
    ];
    let mut fleet = Fleet::start_on(rabbitmq::settings(), &PROCESSES, COPIES, &input.weather, &environment);
    fleet.patience = Duration::from_secs(300);
    fleet.launch("gateway", 0);
    let (api, asked) = (Api::at(&format!("http://{bind}")), Arc::<Asked>::default());
    let askers = [
        tokio::spawn(score(api.clone(), Arc::clone(&asked))),
        tokio::spawn(score(api.clone(), Arc::clone(&asked))),
        tokio::spawn(list(api.clone(), Arc::clone(&asked))),
    ];
    let mut faults = Faults::new(arguments);
    let submissions = disturb(arguments, &mut fleet, &mut faults, &input, &api).await;
    faults.end(&mut fleet);
    let settled = Instant::now();
    let mut batches = Vec::new();
    for submission in submissions {
        let submitted = tokio::time::timeout(fleet.patience, submission).await;
        batches.push(submitted.expect("a batch is accepted in the end").expect("a batch is submitted"));
    }
    for (_, id) in &batches {
        fleet.manifest(id);
    }
    fleet.champion();
    let settled = settled.elapsed().as_secs();
    asked.ended.store(true, SeqCst);
    for asker in askers {
        asker.await.expect("an asker ends");
    }
    let [scored, listed, put_off] = [&asked.scored, &asked.listed, &asked.put_off].map(|count| count.load(SeqCst));
    let Faults { kills, suspensions, largest, .. } = faults;
    println!(
        "{} batches of {} rides, {kills} kills, {suspensions} suspensions; complete {settled} s after the last\n\
         {scored} scores, {listed} listings, {put_off} answers to try again",
        batches.len(),
        arguments.rides
    );
    let mut complaints = Vec::new();
    let counts = [batches.len() as u64, kills.into(), suspensions.into(), scored, listed];
    if counts.contains(&0) {
        complaints.push("nothing was submitted, killed, suspended, scored or listed".to_owned());
    }
    let wrong = asked.wrong.load(SeqCst);
    if wrong > 0 {
        complaints.push(format!("{wrong} answers over HTTP are neither right nor ask to try again"));
    }
    processes(&fleet, &largest, &mut complaints);
    compare(&fleet, &input, &batches, &mut complaints);
    left_behind(&mut fleet, &mut complaints).await;
    fleet.finish().await;
    complaints
}

/// A batch that is being submitted: its file and its id.
type Submission = tokio::task::JoinHandle<(PathBuf, String)>;

/// Submits batches and strikes processes for the duration of the soak.
async fn disturb(
    arguments: &Arguments,
    fleet: &mut Fleet,
    faults: &mut Faults,
    input: &Input,
    api: &Api,
) -> Vec<Submission> {
    let mut submissions = Vec::new();
    let mut next_batch = Instant::now();
    let end = next_batch + Duration::from_secs_f64(arguments.minutes * 60.0);
    while Instant::now() < end {
        faults.strike(fleet);
        if Instant::now() >= next_batch {
            next_batch += Duration::from_secs_f64(arguments.batch_every);
            let file = input.folder().join(format!("batch-{}.json", submissions.len()));
            let batch = submit(fleet.wildrydes(), api.clone(), file, arguments.rides, submissions.len());
            submissions.push(tokio::spawn(batch));
        }
        // The resolution of the schedule of faults and batches.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    submissions
}

/// Generates a file of rides and submits it, by command and over HTTP in turn. Returns the file and the id of its batch.
async fn submit(mut ingest: Command, api: Api, file: PathBuf, rides: u64, number: usize) -> (PathBuf, String) {
    let (count, seed) = (rides.to_string(), (number + 1).to_string());
    let made = file.clone();
    let by_command = number.is_multiple_of(2);
    let output_text = tokio::task::spawn_blocking(move || {
        succeed(wildrydes().args(["generate", "rides", "--rides", &count, "--seed", &seed]).arg(&made));
        by_command.then(|| succeed(ingest.args(["ingest", "--detach", "--json"]).arg(&made)))
    });
    if let Some(stdout) = output_text.await.expect("the commands succeed") {
        let report: Value = serde_json::from_str(stdout.trim()).expect("JSON");
        return (file, report["batch_id"].as_str().expect("an id").to_owned());
    }
    let body = std::fs::read(&file).expect("the file");
    let deadline = Instant::now() + SOON;
    loop {
        // The gateway may have just been killed; sending the same bytes again is safe.
        let request = api.request(Method::POST, "/v1/batches").header("content-type", "application/json");
        let answer = request.body(body.clone()).timeout(Duration::from_secs(5)).send().await;
        if let Ok(answer) = answer {
            let (status, text) = (answer.status(), answer.text().await.unwrap_or_default());
            if status == 202 {
                let accepted: Value = serde_json::from_str(&text).expect("JSON");
                return (file, accepted["batch_id"].as_str().expect("an id").to_owned());
            }
            assert!(matches!(status.as_u16(), 503 | 504), "{status}: {text}");
        }
        assert!(Instant::now() < deadline, "the gateway does not accept {}", file.display());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn score(api: Api, asked: Arc<Asked>) {
    while !asked.ended.load(SeqCst) {
        let request = api.request(Method::POST, "/v1/score").json(&ride()).timeout(Duration::from_secs(10));
        match request.send().await {
            Ok(answer) if answer.status() == 200 => {
                let score: Value = answer.json().await.unwrap_or_default();
                let probability = score["probability"].as_f64();
                let is_right = probability.is_some_and(|p| p > 0.0 && p < 1.0) && score["model_id"].is_string();
                let count = if is_right { &asked.scored } else { &asked.wrong };
                count.fetch_add(1, SeqCst);
            }
            other => put_off(other, &asked),
        }
        // The interval of the requests; the loop ends with the soak.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn list(api: Api, asked: Arc<Asked>) {
    while !asked.ended.load(SeqCst) {
        let request = api.request(Method::GET, "/v1/batches?limit=20").timeout(Duration::from_secs(10));
        match request.send().await {
            Ok(answer) if answer.status() == 200 => drop(asked.listed.fetch_add(1, SeqCst)),
            other => put_off(other, &asked),
        }
        // The interval of the requests; the loop ends with the soak.
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Counts a failed request: 503, 504 and a gateway that is starting mean to try again; anything else is wrong.
fn put_off(answer: reqwest::Result<reqwest::Response>, asked: &Asked) {
    let is_put_off = answer.as_ref().map_or(true, |answer| matches!(answer.status().as_u16(), 503 | 504));
    if let (Ok(answer), false) = (&answer, is_put_off) {
        eprintln!("unexpected status: {}", answer.status());
    }
    let count = if is_put_off { &asked.put_off } else { &asked.wrong };
    count.fetch_add(1, SeqCst);
}

/// Kills and suspends processes.
struct Faults {
    random: StdRng,
    every: Duration,
    next: Instant,
    suspended: BTreeMap<(String, usize), Instant>,
    kills: u32,
    suspensions: u32,
    /// Peak resident memory by process name, bytes.
    largest: BTreeMap<String, u64>,
}

impl Faults {
    fn new(arguments: &Arguments) -> Self {
        let every = Duration::from_secs_f64(arguments.every);
        Self {
            random: StdRng::seed_from_u64(arguments.seed),
            every,
            next: Instant::now() + every,
            suspended: BTreeMap::new(),
            kills: 0,
            suspensions: 0,
            largest: BTreeMap::new(),
        }
    }

    /// All processes, by name and copy.
    fn everyone() -> Vec<(String, usize)> {
        let workers = PROCESSES.iter().flat_map(|name| (0..COPIES).map(|copy| ((*name).to_owned(), copy)));
        workers.chain([("gateway".to_owned(), 0)]).collect()
    }

    /// Resumes processes whose suspension is over; kills or suspends another one if it is time.
    fn strike(&mut self, fleet: &mut Fleet) {
        let now = Instant::now();
        let over: Vec<_> =
            self.suspended.iter().filter(|(_, until)| **until <= now).map(|(who, _)| who.clone()).collect();
        for (name, copy) in over {
            self.suspended.remove(&(name.clone(), copy));
            fleet.go_on(&name, copy);
        }
        if now < self.next {
            return;
        }
        self.next += self.every;
        for (name, copy) in Self::everyone() {
            let most = self.largest.entry(name.clone()).or_default();
            *most = fleet.resident(&name, copy).max(*most);
        }
        let free: Vec<_> = Self::everyone().into_iter().filter(|who| !self.suspended.contains_key(who)).collect();
        let (name, copy) = free[self.random.random_range(0..free.len())].clone();
        if self.random.random_bool(0.5) {
            self.kills += 1;
            fleet.kill(&name, copy);
            fleet.launch(&name, copy);
        } else {
            self.suspensions += 1;
            fleet.pause(&name, copy);
            let seconds = self.random.random_range(1..=SUSPENDED_SECONDS_MAX);
            self.suspended.insert((name, copy), now + Duration::from_secs(seconds));
        }
    }

    fn end(&mut self, fleet: &mut Fleet) {
        for (name, copy) in std::mem::take(&mut self.suspended).into_keys() {
            fleet.go_on(&name, copy);
        }
    }
}

/// Checks resident memory and open files.
fn processes(fleet: &Fleet, largest: &BTreeMap<String, u64>, complaints: &mut Vec<String>) {
    println!("{:<18}{:>14}{:>12}", "process", "MB at most", "open files");
    let mut files: BTreeMap<String, usize> = BTreeMap::new();
    for (name, copy) in Faults::everyone() {
        let open = std::fs::read_dir(format!("/proc/{}/fd", fleet.id(&name, copy))).map_or(0, Iterator::count);
        let most = files.entry(name).or_default();
        *most = open.max(*most);
    }
    for (name, open) in files {
        let megabytes = largest.get(&name).copied().unwrap_or_default() / 1_000_000;
        println!("{name:<18}{megabytes:>14}{open:>12}");
        if open > FILES_MAX {
            complaints.push(format!("{name} holds {open} open files; the limit is {FILES_MAX}"));
        }
        if megabytes > MEGABYTES_MAX {
            complaints.push(format!("{name} had {megabytes} MB resident; the limit is {MEGABYTES_MAX}"));
        }
    }
}

/// Compares every dataset with that of an undisturbed run of the same files in one process.
fn compare(fleet: &Fleet, input: &Input, batches: &[(PathBuf, String)], complaints: &mut Vec<String>) {
    let store = tempfile::tempdir().expect("a temporary folder");
    for some in batches.chunks(50) {
        let mut run = wildrydes();
        run.arg("run").args(some.iter().map(|(file, _)| file));
        run.arg("--weather").arg(&input.weather).arg("--store").arg(store.path());
        let undisturbed = json_output(&mut run);
        let undisturbed = undisturbed["batches"].as_array().expect("batches");
        let ids = undisturbed.iter().map(|batch| batch["batch_id"].as_str().expect("an id"));
        assert!(ids.clone().eq(some.iter().map(|(_, id)| id.as_str())), "the same batches");
        for id in ids {
            let path = format!("dataset/{id}/manifest.json");
            let (actual, expected) =
                (std::fs::read(fleet.store().join(&path)), std::fs::read(store.path().join(&path)));
            let expected = expected.expect("the undisturbed run made it");
            if actual.ok().as_ref() != Some(&expected) {
                complaints.push(format!("the manifest of {id} differs from the run without faults"));
            }
            let manifest: Value = serde_json::from_slice(&expected).expect("JSON");
            for file in manifest["files"].as_array().expect("files") {
                let path = file["path"].as_str().expect("a path");
                if std::fs::read(fleet.store().join(path)).ok() != std::fs::read(store.path().join(path)).ok() {
                    complaints.push(format!("{path} differs from the run without faults"));
                }
            }
        }
    }
}

/// Finds the temporary files, `<name>#<number>`, that interrupted writes leave in the store.
fn temporary(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            files.extend(temporary(&path));
        } else if name.rsplit_once('#').is_some_and(|(_, number)| number.bytes().all(|byte| byte.is_ascii_digit())) {
            files.push(path);
        }
    }
    files
}

fn files_below(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 }).sum()
}

/// Checks for dead letters, staged chunks and temporary files. Temporary files are swept once they are a day old, so
/// their modification time is set back and the mergers, which sweep at their start, are restarted.
async fn left_behind(fleet: &mut Fleet, complaints: &mut Vec<String>) {
    for name in queue::ALL {
        let letters = fleet.depth(&dead_queue(name)).await.messages;
        if letters > 0 {
            complaints.push(format!("{letters} dead letters in the queue of {name}"));
        }
    }
    let (staging, left) = (fleet.store().join("staging"), temporary(&fleet.store()));
    println!("{} staged objects and {} temporary files before the sweep", files_below(&staging), left.len());
    let two_days_ago = std::time::SystemTime::now() - Duration::from_secs(2 * 24 * 60 * 60);
    for path in &left {
        let file = std::fs::File::options().write(true).open(path);
        file.and_then(|file| file.set_modified(two_days_ago)).expect("a temporary file can be aged");
    }
    for copy in 0..COPIES {
        fleet.kill("merger", copy);
        fleet.launch("merger", copy);
    }
    let swept = wait::within(SOON, "empty staging without temporary files", async || {
        let left = (files_below(&staging), temporary(&fleet.store()).len());
        (left == (0, 0), left)
    });
    complaints.extend(swept.await.err());
}
