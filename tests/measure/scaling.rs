//! Measures rides per second of one stage with one, two and four processes, where a slow service or a slow store is the limit
//! and not the processor:
//!
//! ```sh
//! cargo run --release -p pipeline-tests --bin scaling
//! ```
//!
//! The weather-fetchers are processes, and their weather service answers after a delay. Splitters and mergers are worker loops in
//! this process, each with a store of its own that waits before every request. Needs Docker, or `--broker`.

use anyhow::ensure;
use axum::{Router, extract::State, http::Uri, response::IntoResponse};
use clap::Parser;
use common::topology::queue;
use merger::Merger;
use object_store::{
    chunked::ChunkedStore,
    throttle::{ThrottleConfig, ThrottledStore},
};
use pipeline_tests::{
    containers::Container,
    processes::{Fleet, succeed, wildrydes},
    rabbitmq::settings_at,
};
use records::{Store, StoreSettings, store};
use runtime::{
    AmqpBroker, Shutdown, Worker,
    worker::{RunOptions, run},
};
use serde_json::json;
use splitter::Splitter;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Rides per station, all in one message.
const RIDES_PER_STATION: usize = 5;
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Measures how one stage scales with its processes while something other than the processor is the limit.
#[derive(Parser)]
struct Arguments {
    /// A RabbitMQ to use, with its own virtual host [default: a container]
    #[arg(long)]
    broker: Option<String>,
    /// Delay of each answer of the weather service, in milliseconds
    #[arg(long, default_value_t = 100)]
    weather_ms: u64,
    /// Delay of each request to the store, in milliseconds
    #[arg(long, default_value_t = 50)]
    store_ms: u64,
    /// Rate at which the store answers each read, in KiB per second; 0: at once
    #[arg(long, default_value_t = 0)]
    store_kib_per_second: u64,
    /// Rides of each batch for splitters and mergers, a multiple of 100
    #[arg(long, default_value_t = 400)]
    batch_rides: u64,
    /// Weather stations, each requested once
    #[arg(long, default_value_t = 800)]
    stations: usize,
    /// Batches for splitters and mergers
    #[arg(long, default_value_t = 60)]
    batches: usize,
    /// Stages to measure
    #[arg(long, value_delimiter = ',', default_values = [queue::WEATHER_FETCHER, queue::SPLITTER, queue::MERGER])]
    stages: Vec<String>,
    /// Numbers of processes
    #[arg(long, value_delimiter = ',', default_value = "1,2,4")]
    processes: Vec<usize>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (_container, url) = Container::unless(arguments.broker.as_deref())?;
    println!("{:<18}{:>10}{:>12}{:>10}{:>10}", "stage", "processes", "rides/s", "seconds", "× one");
    for stage in arguments.stages.iter().map(String::as_str) {
        let mut one = None;
        for &processes in &arguments.processes {
            let (rides, took) = match stage {
                queue::WEATHER_FETCHER => weather(&url, &arguments, processes).await?,
                _ => throttled(&url, &arguments, stage, processes).await?,
            };
            let per_second = rides as f64 / took.as_secs_f64();
            let times = per_second / *one.get_or_insert(per_second);
            println!("{stage:<18}{processes:>10}{per_second:>12.0}{:>10.2}{times:>10.2}", took.as_secs_f64());
        }
    }
    Ok(())
}

/// A weather service in memory that answers after a delay.
#[derive(Clone)]
struct SlowService {
    files: Arc<BTreeMap<String, String>>,
    delay: Duration,
}

impl SlowService {
    /// Starts the service of so many stations on a grid. Returns its URL.
    async fn start(stations: usize, delay: Duration) -> anyhow::Result<String> {
        let (mut files, mut list) = (BTreeMap::new(), String::new());
        for station in 0..stations {
            let (id, (latitude, longitude)) = (format!("USW{station:08}"), place(station));
            writeln!(list, "{:<85}", format!("{id:<11} {latitude:>8.4} {longitude:>9.4} {:>6}", "-999.9"))?;
            let mut csv = "ID,DATE,ELEMENT,DATA_VALUE,M_FLAG,Q_FLAG,S_FLAG,OBS_TIME\n".to_owned();
            for (element, value) in [("PRCP", 0), ("TMAX", 250), ("TMIN", 150)] {
                writeln!(csv, "{id},20160708,{element},{value},,,W,2400")?;
            }
            files.insert(format!("/csv/by_station/{id}.csv"), csv);
        }
        files.insert("/ghcnd-stations.txt".to_owned(), list);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let service = Self { files: Arc::new(files), delay };
        tokio::spawn(
            async move { axum::serve(listener, Router::new().fallback(Self::answer).with_state(service)).await },
        );
        Ok(url)
    }

    async fn answer(State(service): State<Self>, uri: Uri) -> impl IntoResponse {
        tokio::time::sleep(service.delay).await;
        service.files.get(uri.path()).cloned().ok_or(axum::http::StatusCode::NOT_FOUND)
    }
}

/// Latitude and longitude of a station, half a degree from every other one.
fn place(station: usize) -> (f64, f64) {
    (20.0 + (station / 50) as f64 * 0.5, -120.0 + (station % 50) as f64 * 0.5)
}

/// Rides at every station, station by station.
fn rides(stations: usize) -> serde_json::Value {
    let ride = |index: usize| {
        let (latitude, longitude) = place(index / RIDES_PER_STATION);
        json!({
            "name": "Shadowfax", "statustime": "2016-07-08 12:00:00.000", "latitude": latitude, "longitude": longitude,
            "distance": 10 + index % 20, "healthpoints": 100, "magicpoints": 50, "fieldservice": index % 2,
        })
    };
    json!({ "travel_data": (0..stations * RIDES_PER_STATION).map(ride).collect::<Vec<_>>() })
}

/// Time in which so many weather-fetchers join the weather of every ride, once all chunks wait for them.
async fn weather(url: &str, arguments: &Arguments, processes: usize) -> anyhow::Result<(usize, Duration)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("rides.json");
    std::fs::write(&file, rides(arguments.stations).to_string())?;
    let service = SlowService::start(arguments.stations, Duration::from_millis(arguments.weather_ms)).await?;
    let size = RIDES_PER_STATION.to_string();
    let mut fleet = Fleet::start_on(
        settings_at(url),
        &[queue::SPLITTER],
        1,
        service,
        &[("WILDRYDES__SPLITTER__CHUNK_SIZE", size.as_str())],
    );
    fleet.patience = PATIENCE;
    fleet.wait_for_sessions(&[queue::SPLITTER], 1);
    succeed(fleet.wildrydes().args(["ingest", "--detach"]).arg(&file));
    let chunks = arguments.stations as u64;
    fleet.until_depth(queue::WEATHER_FETCHER, |messages| messages == chunks).await;
    let started = Instant::now();
    for copy in 0..processes {
        fleet.launch(queue::WEATHER_FETCHER, copy);
    }
    // One message more says that the batch is split.
    fleet.until_depth(queue::MERGER, |messages| messages > chunks).await;
    let took = started.elapsed();
    let left = fleet.depth("weather-fetcher.dead").await.messages;
    ensure!(left == 0, "{left} dead letters");
    Ok((arguments.stations * RIDES_PER_STATION, took))
}

/// Time in which so many loops of a worker handle batches that wait for them, each loop with a store that waits.
async fn throttled(
    url: &str,
    arguments: &Arguments,
    stage: &str,
    processes: usize,
) -> anyhow::Result<(usize, Duration)> {
    let before: &[&str] = if stage == queue::MERGER { &[queue::SPLITTER, queue::WEATHER_FETCHER] } else { &[] };
    let folder = tempfile::tempdir()?;
    succeed(wildrydes().args(["generate", "weather"]).arg(folder.path().join("weather")));
    let environment = [("WILDRYDES__SPLITTER__CHUNK_SIZE", "100")];
    let mut fleet = Fleet::start_on(settings_at(url), before, 1, folder.path().join("weather"), &environment);
    fleet.patience = PATIENCE;
    fleet.wait_for_sessions(before, 1);
    submit(&fleet, &folder, arguments);
    let chunks = arguments.batches as u64 * arguments.batch_rides.div_ceil(100);
    let (waits, done) = match stage {
        // Its chunks, and one message for each batch.
        queue::MERGER => (chunks + arguments.batches as u64, arguments.batches as u64),
        _ => (arguments.batches as u64, chunks),
    };
    fleet.until_depth(stage, |messages| messages == waits).await;
    let started = Instant::now();
    let (shutdown, mut loops) = (Shutdown::new(), Vec::new());
    for _ in 0..processes {
        let store = slow(&fleet.store(), arguments)?;
        loops.push(match stage {
            queue::MERGER => looped(Merger::new(merger::Settings::default(), store), &fleet, &shutdown),
            _ => {
                let settings = splitter::Settings { chunk_size: 100, ..splitter::Settings::default() };
                looped(Splitter::new(settings, store), &fleet, &shutdown)
            }
        });
    }
    let next = if stage == queue::MERGER { queue::TRAINER } else { queue::WEATHER_FETCHER };
    fleet.until_depth(next, |messages| messages == done).await;
    let took = started.elapsed();
    shutdown.cancel();
    for ended in loops {
        ended.await??;
    }
    Ok((arguments.batches * usize::try_from(arguments.batch_rides)?, took))
}

fn submit(fleet: &Fleet, folder: &TempDir, arguments: &Arguments) {
    for seed in 0..arguments.batches {
        let file = folder.path().join(format!("{seed}.json"));
        let counts = ["--rides", &arguments.batch_rides.to_string(), "--seed", &seed.to_string(), "--bad-share", "0"]
            .map(str::to_owned);
        succeed(wildrydes().args(["generate", "rides"]).args(counts).arg(&file));
        succeed(fleet.wildrydes().args(["ingest", "--detach"]).arg(&file));
    }
}

/// The store in that folder, which waits before every request, and sends the bytes of each read at a limited rate.
fn slow(folder: &Path, arguments: &Arguments) -> anyhow::Result<Store> {
    let delay = Duration::from_millis(arguments.store_ms);
    let wait_get_per_byte = match arguments.store_kib_per_second {
        0 => Duration::ZERO,
        rate => Duration::from_secs(1) / u32::try_from(rate * 1024)?,
    };
    let settings = StoreSettings { url: folder.display().to_string(), ..StoreSettings::default() };
    let config = ThrottleConfig {
        wait_delete_per_call: delay,
        wait_get_per_call: delay,
        wait_get_per_byte,
        wait_list_per_call: delay,
        wait_list_with_delimiter_per_call: delay,
        wait_put_per_call: delay,
        ..ThrottleConfig::default()
    };
    // `ThrottledStore` takes streams only, and a folder answers with open files.
    let streamed = ChunkedStore::new(store::open(&settings)?, 1 << 14);
    Ok(Arc::new(ThrottledStore::new(streamed, config)))
}

/// Runs a worker in this process until the shutdown.
fn looped<W: Worker>(
    worker: W,
    fleet: &Fleet,
    shutdown: &Shutdown,
) -> tokio::task::JoinHandle<Result<(), runtime::worker::RunError>> {
    let broker = Arc::new(AmqpBroker::new(fleet.broker.clone()));
    let (concurrency, prefetch) = (W::CONCURRENCY.into(), W::PREFETCH);
    let options = RunOptions { concurrency, prefetch, ..RunOptions::default() };
    tokio::spawn(run(Arc::new(worker), broker, options, shutdown.clone()))
}
