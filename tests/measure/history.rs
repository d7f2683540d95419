//! Measures how a long history slows down listings: generates a store of many batches, then times the gateway's list of
//! the newest batches and `wildrydes status`.
//!
//! Every batch has a claim, a manifest and an entry in the batch log, as the fleet writes them, but no rides. Gateway
//! and `status` run in processes of their own; the gateway's process also runs the workers, and needs no keys.

use anyhow::{Context, anyhow, ensure};
use clap::Parser;
use common::{
    dataset::{Claim, FIRST_REVISION, Manifest},
    reading::Reading,
    schema::Described,
};
use futures::{StreamExt, TryStreamExt, stream};
use pipeline_tests::{
    processes::wildrydes,
    wait::{self, SOON},
};
use records::{datasets::column_names, layout};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Measures how long it takes to list the newest batches, in a store of 100 batches and in one of many.
#[derive(Parser)]
struct Arguments {
    /// Batches in the larger store
    #[arg(long, default_value_t = 1_000_000)]
    batches: u64,
    /// Omit the batch log, as in a store of an earlier version
    #[arg(long)]
    without_log: bool,
    /// Requests to the gateway
    #[arg(long, default_value_t = 4_000)]
    requests: usize,
    /// Concurrent requests
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
    /// Runs of `wildrydes status`
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// Maximum p99 of the answers in the larger store, in milliseconds
    #[arg(long, default_value_t = 50.0)]
    max_p99_ms: f64,
    /// Maximum time of `wildrydes status` in the larger store, in milliseconds
    #[arg(long, default_value_t = 1_000.0)]
    max_status_ms: f64,
    /// Measure this existing store, with at least 50 complete batches, instead of making one
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["batches", "without_log", "folder"])]
    store: Option<PathBuf>,
    /// Folder for the stores, removed at the end [default: the system's temporary folder]
    folder: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let folder = match &arguments.folder {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    ensure!(wildrydes().args(["generate", "weather"]).arg(folder.path().join("weather")).status()?.success());
    println!(
        "{:>9} {:>11} {:>8} {:>8} {:>8} {:>11} {:>11} {:>11}",
        "batches", "first ms", "p50 ms", "p99 ms", "max ms", "status ms", "median ms", "max ms"
    );
    if let Some(store) = &arguments.store {
        let measured = measure("-", folder.path(), store, &arguments).await?;
        return measured.check(&arguments);
    }
    let mut largest = None;
    for batches in [100, arguments.batches] {
        let store = folder.path().join(batches.to_string());
        let begun = Instant::now();
        fs::create_dir_all(store.join(layout::BATCH_LOG))?;
        fs::write(store.join(layout::batch_log_earlier()), "")?;
        fs::create_dir_all(store.join(layout::BATCHES))?;
        fs::create_dir_all(store.join(layout::DATASET))?;
        each(batches, |number| write(&store, number, !arguments.without_log))?;
        if arguments.without_log {
            fs::remove_dir_all(store.join(layout::BATCH_LOG))?;
        }
        eprintln!("{batches} batches made in {:.0} s", begun.elapsed().as_secs_f64());
        let measured = measure(&batches.to_string(), folder.path(), &store, &arguments).await;
        // In the order in which the objects were made; any other order takes a disk many times as long.
        let begun = Instant::now();
        each(batches, |number| remove(&store, number, !arguments.without_log))?;
        eprintln!("… and removed in {:.0} s", begun.elapsed().as_secs_f64());
        largest = Some(measured?);
    }
    folder.close()?;
    largest.map_or(Ok(()), |measured| measured.check(&arguments))
}

/// The bounded times, milliseconds.
struct Measured {
    p99: f64,
    status: f64,
}

impl Measured {
    fn check(&self, Arguments { max_p99_ms, max_status_ms, .. }: &Arguments) -> anyhow::Result<()> {
        let Self { p99, status } = self;
        ensure!(p99 <= max_p99_ms, "the p99 of the answers is {p99:.1} ms, more than {max_p99_ms} ms");
        ensure!(status <= max_status_ms, "`wildrydes status` took {status:.0} ms, more than {max_status_ms} ms");
        Ok(())
    }
}

/// Measures a store, and prints its row.
async fn measure(batches: &str, folder: &Path, store: &Path, arguments: &Arguments) -> anyhow::Result<Measured> {
    let statuses = statuses(store, arguments.runs)?;
    let mut answers = answers(folder, store, arguments).await?;
    let first = answers[0];
    answers.sort_unstable();
    let measured = Measured {
        p99: milliseconds(answers[answers.len() * 99 / 100]),
        status: milliseconds(sorted(&statuses)[statuses.len() - 1]),
    };
    println!(
        "{batches:>9} {:>11.2} {:>8.2} {:>8.2} {:>8.2} {:>11.0} {:>11.0} {:>11.0}",
        milliseconds(first),
        milliseconds(answers[answers.len() / 2]),
        measured.p99,
        milliseconds(answers[answers.len() - 1]),
        milliseconds(statuses[0]),
        milliseconds(sorted(&statuses)[statuses.len() / 2]),
        measured.status,
    );
    Ok(measured)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn sorted(times: &[Duration]) -> Vec<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted
}

/// Calls a function for each batch, on every core.
fn each(batches: u64, work: impl Fn(u64) -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
    let threads = thread::available_parallelism().map_or(1, usize::from) as u64;
    thread::scope(|scope| {
        let working: Vec<_> = (1..=threads)
            .map(|first| {
                let (mut numbers, work) = ((first..=batches).step_by(threads as usize), &work);
                scope.spawn(move || numbers.try_for_each(work))
            })
            .collect();
        working.into_iter().try_for_each(|worker| worker.join().expect("it does not panic"))
    })
}

fn sha256(number: u64) -> String {
    hex::encode(Sha256::digest(number.to_string()))
}

/// Removes the objects of one batch.
fn remove(store: &Path, number: u64, with_log: bool) -> anyhow::Result<()> {
    let batch_id = &sha256(number)[..16];
    if with_log {
        fs::remove_file(store.join(layout::batch_log_entry(number)))?;
    }
    fs::remove_file(store.join(layout::claim(batch_id)))?;
    fs::remove_file(store.join(layout::manifest(batch_id, FIRST_REVISION)))?;
    Ok(fs::remove_dir(store.join(layout::dataset(batch_id)))?)
}

/// Writes the objects of one batch.
fn write(store: &Path, number: u64, with_log: bool) -> anyhow::Result<()> {
    let sha256 = sha256(number);
    let batch_id = sha256[..16].to_owned();
    if with_log {
        fs::write(store.join(layout::batch_log_entry(number)), &batch_id)?;
    }
    let claim = Claim {
        batch_id: batch_id.clone(),
        sha256: sha256.clone(),
        chunk_size: 1_000,
        source: Some(format!("rides-{number}.json")),
        object: Some(format!("raw/{batch_id}-rides-{number}.json")),
        listed: with_log.then_some(number),
        reading: Reading::default(),
    };
    fs::write(store.join(layout::claim(&batch_id)), serde_json::to_vec(&claim)?)?;
    let manifest = Manifest {
        schema: Manifest::SCHEMA.name.to_owned(),
        batch_id: batch_id.clone(),
        revision: None,
        sha256,
        columns: column_names().map(str::to_owned).to_vec(),
        received: 100,
        accepted: 98,
        rejected: 2,
        rejected_by_reason: BTreeMap::from([("missing_latitude".into(), 2)]),
        without_weather: BTreeMap::new(),
        labelled: 98,
        trainable: 98,
        stations: BTreeMap::from([("USW00094728".to_owned(), 60), ("USW00094789".to_owned(), 38)]),
        files: Vec::new(),
    };
    fs::create_dir(store.join(layout::dataset(&batch_id)))?;
    fs::write(store.join(layout::manifest(&batch_id, FIRST_REVISION)), serde_json::to_vec_pretty(&manifest)?)?;
    Ok(())
}

/// Measures `wildrydes status`, each run in a process of its own.
fn statuses(store: &Path, runs: usize) -> anyhow::Result<Vec<Duration>> {
    let run = || {
        let begun = Instant::now();
        let output = wildrydes().arg("status").arg("--store").arg(store).output()?;
        let took = begun.elapsed();
        let table = String::from_utf8_lossy(&output.stdout);
        let rows = table.lines().filter(|line| line.contains(" ready ")).count();
        ensure!(
            output.status.success() && rows == 50,
            "{rows} rows\n{table}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        Ok(took)
    };
    (0..runs).map(|_| run()).collect()
}

/// A gateway process; killed on drop.
struct Gateway {
    child: Child,
    url: String,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Gateway {
    async fn start(folder: &Path, store: &Path) -> anyhow::Result<Self> {
        let log = folder.join("log");
        let mut command: Command = wildrydes();
        command.args(["run", "--serve=127.0.0.1:0", "--weather"]).arg(folder.join("weather")).arg("--store").arg(store);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let mut gateway = Self { child: command.spawn()?, url: String::new() };
        let text = || fs::read_to_string(&log).unwrap_or_default();
        let url = wait::within(SOON, "the gateway's address", async || {
            let text = text();
            let line = text.split("page and API: ").nth(1).and_then(|rest| rest.split_once(char::is_whitespace));
            match line {
                Some((url, _)) => Some(Ok(url.to_owned())),
                None => (!matches!(gateway.child.try_wait(), Ok(None))).then(|| Err("the gateway ended".to_owned())),
            }
        });
        gateway.url = url.await.flatten().map_err(|why| anyhow!("{why}\n{}", text()))?;
        Ok(gateway)
    }
}

/// Measures requests for the newest 20 batches; the first runs alone.
async fn answers(folder: &Path, store: &Path, arguments: &Arguments) -> anyhow::Result<Vec<Duration>> {
    let gateway = Gateway::start(folder, store).await?;
    records::tls::install_cryptography();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("{}/v1/batches?limit=20", gateway.url);
    let ask = || async {
        let begun = Instant::now();
        let answer = client.get(&url).send().await?.error_for_status()?.bytes().await?;
        let took = begun.elapsed();
        let answer: serde_json::Value = serde_json::from_slice(&answer)?;
        let count = answer["batches"].as_array().context("no batches")?.len();
        ensure!(count == 20 && answer["next"].is_string(), "{count} batches");
        Ok(took)
    };
    let mut answers = vec![ask().await?];
    let asking = stream::iter(0..arguments.requests).map(|_| ask()).buffer_unordered(arguments.concurrency);
    answers.extend(asking.try_collect::<Vec<_>>().await?);
    Ok(answers)
}
