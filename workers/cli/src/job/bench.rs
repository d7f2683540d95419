//! `bench`: measures rides per second from file to model, and the broker's share of the time.
//!
//! The same job, from file to promoted model, runs on the in-process broker and, with `--broker`, on RabbitMQ (quorum
//! queues, every publish confirmed). The runs alternate, so that a change in the machine's speed affects both alike. The
//! broker's share is the time that the run on RabbitMQ needs beyond the in-process run. If RabbitMQ runs on this machine,
//! its processor time is read as well.
//!
//! The object store of these runs is a temporary folder. With `--store`, the job also runs in process with that store, below a
//! prefix of its own that is removed afterwards.

use super::{
    in_process::{Files, with_fleet},
    outcome::ModelOutcome,
};
use crate::{
    arguments::{Bench, Form},
    generate::{self, RidesOptions, WeatherOptions},
    session::{Failed, Session},
};
use anyhow::Context;
use common::reading::Reading;
use futures::TryStreamExt;
use records::store;
use runtime::{AmqpBroker, Broker, MemoryBroker, config::BrokerSettings};
use serde::Serialize;
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// Figures of one run.
#[derive(Clone, Copy, Serialize)]
struct Figures {
    seconds: f64,
    rides_per_second: f64,
    /// Processor seconds of this process: all five workers.
    fleet_cpu_seconds: f64,
    /// Processor seconds of RabbitMQ, if it runs on this machine.
    broker_cpu_seconds: f64,
}

/// `bench`
pub(crate) async fn bench(session: &Session, options: &Bench) -> Result<(), Failed> {
    let parent = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    let folder = parent.join(format!("wildrydes-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("creating the folder {}", folder.display()))?;
    let measured = measure(session, options, &folder).await;
    std::fs::remove_dir_all(&folder).with_context(|| format!("removing the folder {}", folder.display()))?;
    measured
}

async fn measure(session: &Session, options: &Bench, folder: &Path) -> Result<(), Failed> {
    let (weather, rides) = (folder.join("weather"), folder.join("rides.json"));
    generate::write_weather(&weather, &WeatherOptions::default())?;
    generate::write_rides(&rides, Form::TravelData, &RidesOptions { rides: options.rides, ..RidesOptions::default() })?;
    let bytes = std::fs::metadata(&rides).context("reading the size of the generated rides")?.len();
    if !session.shared.json {
        let Bench { rides, chunk_size, runs, .. } = options;
        println!("{rides} rides, {} MB, chunks of {chunk_size}; {runs} runs each", bytes / 1_000_000);
    }
    let mut overrides = session.shared.overrides.clone();
    overrides.push(("weather.source".to_owned(), weather.display().to_string()));
    overrides.push(("splitter.chunk_size".to_owned(), options.chunk_size.to_string()));
    let with_broker = session.shared.broker.is_some();
    let (mut in_process, mut on_rabbitmq, mut in_store) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..options.runs {
        let location = folder.join(format!("memory-{run}")).display().to_string();
        in_process.push(once(session, options, &overrides, &location, &rides, Arc::new(MemoryBroker::new())).await?);
        if with_broker {
            let namespace = format!("bench-{}-{run}.", std::process::id());
            let broker = AmqpBroker::new(BrokerSettings { namespace, ..session.section()? });
            let location = folder.join(format!("rabbitmq-{run}")).display().to_string();
            let figures = once(session, options, &overrides, &location, &rides, Arc::new(broker.clone())).await;
            broker.remove_topology().await?;
            on_rabbitmq.push(figures?);
        }
        if let Some(store) = &session.shared.store {
            let location = format!("{}/bench-{}-{run}", store.trim_end_matches('/'), std::process::id());
            let figures = once(session, options, &overrides, &location, &rides, Arc::new(MemoryBroker::new())).await;
            remove(session, &location).await?;
            in_store.push(figures?);
        }
    }
    let (memory, rabbitmq, stored) = (median(in_process).context("no run")?, median(on_rabbitmq), median(in_store));
    if session.shared.json {
        println!(
            "{}",
            serde_json::json!({
                "rides": options.rides,
                "chunk_size": options.chunk_size,
                "in_process": memory,
                "rabbitmq": rabbitmq,
                "store": stored,
            })
        );
        return Ok(());
    }
    print("in process", &memory);
    if let Some(rabbitmq) = &rabbitmq {
        print("on RabbitMQ", rabbitmq);
        println!(
            "share of the broker: {:.0} % of the time (beyond the in-process run), {:.0} % of the processor time",
            100.0 * (1.0 - memory.seconds / rabbitmq.seconds).max(0.0),
            100.0 * rabbitmq.broker_cpu_seconds / (rabbitmq.broker_cpu_seconds + rabbitmq.fleet_cpu_seconds),
        );
    }
    if let Some(stored) = &stored {
        print("with --store", stored);
        println!(
            "throughput with --store: {:.0} % of that with a folder",
            100.0 * stored.rides_per_second / memory.rides_per_second
        );
    }
    Ok(())
}

/// Removes a store.
async fn remove(session: &Session, location: &str) -> Result<(), Failed> {
    let settings = session.store_settings()?.at(location);
    if !settings.is_remote() {
        let folder = location.strip_prefix("file://").unwrap_or(location);
        return Ok(std::fs::remove_dir_all(folder).with_context(|| format!("removing the folder {folder}"))?);
    }
    let store = store::open(&settings).map_err(Failed::Misused)?;
    let objects: Vec<String> = store::list(&store, "").map_ok(|object| object.path).try_collect().await?;
    store::remove_each(&store, objects.into_iter()).await?;
    Ok(())
}

/// Runs the job once, with its store at `location`.
async fn once(
    session: &Session,
    options: &Bench,
    overrides: &[(String, String)],
    location: &str,
    rides: &Path,
    broker: Arc<dyn Broker>,
) -> Result<Figures, Failed> {
    let mut session = session.with_own_store(location.to_owned(), overrides.to_vec())?;
    // Without progress on standard error.
    session.shared.json = true;
    let store = session.store()?;
    session.prove(&store).await?;
    let (paths, reading) = ([rides.to_owned()], Reading::default());
    let files = Files { paths: &paths, reading: &reading, refresh: false };
    let (fleet_cpu, broker_cpu, started) = (own_cpu(), broker_cpu(), Instant::now());
    let outcome = with_fleet(&session, broker, &store, files).await?;
    let seconds = started.elapsed().as_secs_f64();
    match outcome.model {
        Some(ModelOutcome::Promoted(_)) => {}
        _ => {
            return Err(Failed::Broken(anyhow::anyhow!(
                "the run ended without a model, so its figures are not comparable"
            )));
        }
    }
    let figures = Figures {
        seconds,
        rides_per_second: options.rides as f64 / seconds,
        fleet_cpu_seconds: own_cpu().saturating_sub(fleet_cpu).as_secs_f64(),
        // A node that ended meanwhile takes its time with it.
        broker_cpu_seconds: self::broker_cpu().saturating_sub(broker_cpu).as_secs_f64(),
    };
    Ok(figures)
}

/// Returns the figures of the run in the middle; `None` without a run.
fn median(mut runs: Vec<Figures>) -> Option<Figures> {
    runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    runs.get(runs.len() / 2).copied()
}

fn print(name: &str, figures: &Figures) {
    println!(
        "{name:<12} {:>9.0} rides/s   {:.2} s, processor: workers {:.2} s, broker {:.2} s",
        figures.rides_per_second, figures.seconds, figures.fleet_cpu_seconds, figures.broker_cpu_seconds
    );
}

/// Returns the processor time of this process so far.
fn own_cpu() -> Duration {
    cpu_of(Path::new("/proc/self"))
}

/// Returns the processor time of all RabbitMQ nodes on this machine so far; zero without /proc.
fn broker_cpu() -> Duration {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Duration::ZERO };
    processes
        .flatten()
        .map(|process| process.path())
        .filter(|path| std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "beam.smp"))
        .map(|path| cpu_of(&path))
        .sum()
}

/// Returns the user and system time of a process: fields 14 and 15 of proc(5) stat, in the kernel's ticks of 10 ms.
fn cpu_of(process: &Path) -> Duration {
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    // The second field, the name, may contain blanks and brackets: count after it.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u32 = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    TICK * ticks
}
