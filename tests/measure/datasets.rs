//! Measures how long a training takes for one new batch among many datasets: the fit and everything else, with and
//! without the cache.
//!
//! A store in a local folder holds the datasets. Before each measurement a new dataset is written; each runs in a
//! process of its own, so that it starts with empty memory. The files are in the page cache of the operating system.

use anyhow::{Context, ensure};
use clap::Parser;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use pipeline_tests::datasets::{spread, write_rows};
use records::{Store, StoreSettings, layout, store};
use runtime::{
    config::{LogFormat, LogSettings},
    telemetry,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    fmt::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};
use trainer::{Settings, Trainer};

/// Measures how long a training takes for one new batch among many datasets.
#[derive(Parser)]
struct Arguments {
    /// Datasets in the store
    #[arg(long, default_value_t = 5_000)]
    datasets: u64,
    /// Rides in each dataset
    #[arg(long, default_value_t = 100)]
    rides: u64,
    /// Rides in the new batch
    #[arg(long, default_value_t = 100)]
    new_rides: u64,
    /// Model versions that scored rides; each has a file of 100 scores
    #[arg(long, default_value_t = 0)]
    scored: u64,
    /// Measurements of each kind, interleaved; the medians are shown
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Maximum time of everything but the fit with the cache, in seconds
    #[arg(long, default_value_t = 1.0)]
    max_beside: f64,
    /// Use this folder, and keep it [default: a temporary one]
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Measure one training on the store in the folder, with this value of trainer.cache, and print the result as JSON
    #[arg(long, hide = true)]
    measure: Option<bool>,
}

/// State of the cache.
enum Kind {
    /// The cache is turned off.
    Without,
    /// The cache is empty.
    Cold,
    /// The cache has every dataset but the new one.
    Warm,
}

const KINDS: [Kind; 3] = [Kind::Without, Kind::Cold, Kind::Warm];

/// Times in seconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Measured {
    scored: f64,
    load: f64,
    fit: f64,
    all: f64,
    /// All but the fit: plan, scored rides, rides, cache, verdict, artefacts, reports.
    beside: f64,
    /// Peak resident memory, MB.
    memory: f64,
}

fn open(folder: &Path) -> anyhow::Result<Store> {
    store::open(&StoreSettings { url: folder.display().to_string(), ..StoreSettings::default() })
}

/// Writes a dataset with rides like the generator's: distances with six decimals of a mile, whole points, two stations,
/// twelve months, eight breeds.
async fn add(store: &Store, batch: u64, rides: u64) -> anyhow::Result<()> {
    let batch_id = format!("{:016x}", (batch + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut rows = String::new();
    for ride in 0..rides {
        let draw = |salt: u64, range: f64| (spread(batch * 1_000_003 + ride, salt) * range).floor();
        let distance = 29.0 + draw(1, 2e6) / 1e6;
        let (tmin, tmax, prcp) = (draw(5, 250.0) - 50.0, 200.0 + draw(6, 150.0), draw(7, 200.0));
        let log_odds = 0.75 * (distance - 30.0) - 0.004 * (tmin - 75.0) + 0.007 * (prcp - 100.0);
        let service = u8::from(spread(batch * 1_000_003 + ride, 2) < 1.0 / (1.0 + f64::exp(-log_odds)));
        writeln!(
            rows,
            "{batch_id}-{ride},Twilight,breed{},2018-{:02}-25 17:03:05.722,40.690558,-74.044502,{distance},{},{},{service},\
             USW000947{},20.718281,{tmin},{tmax},{prcp}",
            draw(8, 8.0),
            1.0 + draw(9, 12.0),
            290.0 + draw(3, 80.0),
            290.0 + draw(4, 80.0),
            28.0 + draw(10, 2.0)
        )?;
    }
    write_rows(store, &batch_id, &rows, rides).await;
    Ok(())
}

/// Runs one training. The trainer's log on standard error has the times of its parts.
async fn measure(folder: &Path, cache: bool) -> anyhow::Result<Measured> {
    telemetry::start(&LogSettings { format: LogFormat::Json, ..LogSettings::default() })?;
    let (settings, store) = (Settings { cache, ..Settings::default() }, open(folder)?);
    let started = Instant::now();
    Trainer::new(settings, store).retrain().await?;
    let all = started.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let most =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).and_then(|line| line.split_whitespace().next());
    let memory = most.context("VmHWM")?.parse::<f64>()? / 1_000.0;
    Ok(Measured { all, memory, ..Measured::default() })
}

fn in_a_process(folder: &Path, cache: bool) -> anyhow::Result<Measured> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--folder").arg(folder).args(["--measure", if cache { "true" } else { "false" }]);
    let output = command.env_remove("RUST_LOG").output()?;
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{log}");
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let parts = events.into_iter().find(|event| event["fit_seconds"].is_number()).context("the trainer's own times")?;
    let seconds = |part: &str| parts[part].as_f64().context("seconds");
    let measured: Measured = serde_json::from_slice(&output.stdout)?;
    Ok(Measured {
        scored: seconds("scored_seconds")?,
        load: seconds("load_seconds")?,
        fit: seconds("fit_seconds")?,
        ..measured
    })
}

const CACHE: &str = layout::TRAINER_CACHE;

async fn remove_cache(store: &Store) -> anyhow::Result<()> {
    let packs = store.list(Some(&CACHE.into())).map_ok(|pack| pack.location).boxed();
    store::remove_all(store, packs).await?;
    Ok(())
}

async fn size(store: &Store, prefix: &str) -> anyhow::Result<(usize, f64)> {
    let objects: Vec<_> = store.list(Some(&prefix.into())).try_collect().await?;
    Ok((objects.len(), objects.iter().map(|object| object.size as f64).sum::<f64>() / 1e6))
}

fn median(measured: &[Measured]) -> Measured {
    let of = |value: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = measured.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Measured {
        scored: of(|m| m.scored),
        load: of(|m| m.load),
        fit: of(|m| m.fit),
        all: of(|m| m.all),
        beside: of(|m| m.all - m.fit),
        memory: of(|m| m.memory),
    }
}

fn show(kind: &Kind, measured: &Measured) {
    let kind = match kind {
        Kind::Without => "without cache",
        Kind::Cold => "nothing cached",
        Kind::Warm => "one is new",
    };
    let Measured { scored, load, fit, all, beside, memory } = measured;
    println!("{kind:<16}{scored:>8.3}{load:>8.3}{fit:>8.3}{all:>8.3}{beside:>8.3}{memory:>8.0}");
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let (Some(cache), Some(folder)) = (arguments.measure, &arguments.folder) {
        println!("{}", serde_json::to_string(&measure(folder, cache).await?)?);
        return Ok(());
    }
    let temporary = tempfile::tempdir()?;
    let folder = arguments.folder.clone().unwrap_or_else(|| temporary.path().join("store"));
    let store = open(&folder)?;
    stream::iter(0..arguments.datasets)
        .map(|batch| add(&store, batch, arguments.rides))
        .buffer_unordered(16)
        .try_collect::<()>()
        .await?;
    for version in 0..arguments.scored {
        let rides: String = (0..100).map(|ride| format!("{version}-{ride},0.5\n")).collect();
        let path = layout::scored(layout::GLOBAL_MODEL, &format!("{version:016x}"), "2026-11-29", "scorer");
        store::write(&store, &path, format!("ride_id,probability\n{rides}")).await?;
    }
    println!("{} datasets of {} rides; medians of {}; seconds", arguments.datasets, arguments.rides, arguments.runs);
    println!("{:<16}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}", "", "scored", "load", "fit", "all", "beside", "MB");
    let mut batches = arguments.datasets..;
    let mut of_kind: [Vec<Measured>; 3] = Default::default();
    in_a_process(&folder, false)?;
    for _ in 0..arguments.runs {
        for (kind, measured) in KINDS.iter().zip(&mut of_kind) {
            if matches!(kind, Kind::Cold) {
                remove_cache(&store).await?;
            }
            add(&store, batches.next().context("a batch")?, arguments.new_rides).await?;
            measured.push(in_a_process(&folder, !matches!(kind, Kind::Without))?);
        }
    }
    for (kind, measured) in KINDS.iter().zip(&of_kind) {
        show(kind, &median(measured));
    }
    let ((packs, cached), (_, files)) = (size(&store, CACHE).await?, size(&store, layout::DATASET).await?);
    println!("{packs} packs, {cached:.1} MB; datasets with their manifests {files:.1} MB");
    let (beside, max) = (median(&of_kind[2]).beside, arguments.max_beside);
    ensure!(beside <= max, "with the cache all but the fit took {beside:.3} s, more than {max} s");
    Ok(())
}
