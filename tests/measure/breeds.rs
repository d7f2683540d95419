//! Measures scores by the models of thousands of breeds, few of which are in memory: the scorer's memory, and the time of a
//! score whose model must be loaded.
//!
//! Broker, scorer and this program run on one machine. A store in a local folder holds a global model and one model for each
//! breed; the scorer may have `models-max` of them in memory. Requests of one ride are sent at a constant rate: first each
//! breed once, in random order (cold: no model is in memory); then a few breeds repeatedly (warm); then mostly popular breeds,
//! as rides come (mixed).

use anyhow::{Context, bail, ensure};
use clap::Parser;
use common::{
    message::{Fallback, ScoreOutcome, ScoreRequest, ScoreRide, Units},
    model::{AliasName, Model},
    served::BreedCache,
};
use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};
use pipeline_tests::{
    containers::Container,
    models::{model, name, write},
    processes::worker,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use records::{Store, StoreSettings, layout, serving, store};
use runtime::{
    AmqpBroker,
    client::Client,
    config::{AmqpUrl, BrokerSettings},
};
use serde_json::{Value, json};
use std::{
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

/// Measures memory and time of scores by the models of thousands of breeds.
#[derive(Parser)]
struct Arguments {
    /// A RabbitMQ to use, with its own virtual host [default: a container]
    #[arg(long)]
    broker: Option<String>,
    /// Breeds
    #[arg(long, default_value_t = 10_000)]
    breeds: usize,
    /// Maximum number of models in memory (scorer.breed_models_max)
    #[arg(long, default_value_t = 500)]
    models_max: usize,
    /// Requests per second
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Requests in each of the last two parts
    #[arg(long, default_value_t = 10_000)]
    requests: usize,
    /// Seed of the order
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// A process that is killed on drop.
struct Running(Child);

impl Running {
    /// Resident memory, KiB (proc(5)): now, and the peak.
    fn memory_kib(&self) -> Option<(u64, u64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).ok()?;
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some((of("VmRSS:")?, of("VmHWM:")?))
    }

    /// Sends SIGTERM and waits, so that the process has written its statistics.
    fn end(&mut self) -> anyhow::Result<()> {
        let sent = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status()?;
        ensure!(sent.success() && self.0.wait()?.success(), "the scorer does not end cleanly");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One part of the measurement.
struct Part {
    name: &'static str,
    requests: usize,
    late: usize,
    p50: Duration,
    p99: Duration,
    longest: Duration,
    memory_kib: Option<(u64, u64)>,
}

fn breed(index: usize) -> String {
    format!("breed{index}")
}

fn of_breed(index: usize) -> anyhow::Result<Model> {
    let family = layout::breed_model(layout::GLOBAL_MODEL, &breed(index)).context("a family")?;
    let share = index as f64 / 10_000.0;
    Ok(Model { breed: Some(breed(index)), ..model(&family, &format!("{index:016x}"), share, 0.01 * share) })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (_container, url) = Container::unless(arguments.broker.as_deref())?;
    let folder = tempfile::tempdir()?;
    let place = folder.path().join("store").display().to_string();
    let store = store::open(&StoreSettings { url: place.clone(), ..StoreSettings::default() })?;
    let wrote = Instant::now();
    let all = model(layout::GLOBAL_MODEL, "all", -1.0, 0.02);
    name(&store, AliasName::Champion, &write(&store, &all).await).await;
    let writing = stream::iter(0..arguments.breeds).map(|index| {
        let store = Arc::clone(&store);
        async move {
            name(&store, AliasName::Champion, &write(&store, &of_breed(index)?).await).await;
            anyhow::Ok(())
        }
    });
    writing.buffer_unordered(16).try_collect::<()>().await?;
    let wrote = wrote.elapsed();

    let mut command = worker("scorer");
    command.env("WILDRYDES__BROKER__URL", &url).env("WILDRYDES__STORE__URL", &place);
    command.env("WILDRYDES__SCORER__BREED_MODELS_MAX", arguments.models_max.to_string());
    command.env("WILDRYDES__LOG__LEVEL", "warn").stdout(Stdio::null()).stderr(Stdio::inherit());
    let mut scorer = Running(command.spawn()?);
    let broker = AmqpBroker::new(BrokerSettings { url: AmqpUrl::new(&url), ..BrokerSettings::default() });
    let client = Arc::new(Client::connect(&broker, "breeds").await?);
    let asking = |name, breeds: Vec<Option<usize>>| part(name, &client, breeds, arguments.rate, &scorer);

    let mut random = SmallRng::seed_from_u64(arguments.seed);
    let mut order: Vec<usize> = (0..arguments.breeds).collect();
    order.shuffle(&mut random);
    let few = (arguments.models_max / 5).clamp(1, arguments.breeds);
    let mut parts = Vec::new();
    parts.push(asking("no breed", vec![None; arguments.requests.min(2_000)]).await?);
    parts.push(asking("cold", order.iter().copied().map(Some).collect()).await?);
    asking("once", (0..few).map(Some).collect()).await?;
    let warm = (0..arguments.requests).map(|_| Some(random.random_range(0..few)));
    parts.push(asking("warm", warm.collect()).await?);
    // Nine of ten rides are of a tenth of somewhat more breeds than fit into memory, one is of any breed.
    let popular = (arguments.models_max * 4 / 5).clamp(1, arguments.breeds);
    let mixed = (0..arguments.requests).map(|_| match random.random_range(0..10) {
        0 => random.random_range(0..arguments.breeds),
        _ => order[random.random_range(0..popular)],
    });
    parts.push(asking("mixed", mixed.map(Some).collect()).await?);
    Arc::into_inner(client).context("one client")?.close().await;
    scorer.end()?;
    let cache = cache(&store).await?;
    tell(&arguments, wrote, &parts, &cache)
}

/// Requests scores of these breeds at this rate, and checks that every answer is that of the breed model.
async fn part(
    name: &'static str,
    client: &Arc<Client>,
    breeds: Vec<Option<usize>>,
    rate: u32,
    scorer: &Running,
) -> anyhow::Result<Part> {
    /// Maximum number of concurrent requests.
    const UNDER_WAY_MAX: usize = 64;
    let (requests, started) = (breeds.len(), tokio::time::Instant::now());
    let under_way = Arc::new(tokio::sync::Semaphore::new(UNDER_WAY_MAX));
    let mut asked = Vec::with_capacity(requests);
    for (nth, breed) in breeds.into_iter().enumerate() {
        // Requests are sent at a constant rate, whatever the answers take.
        tokio::time::sleep_until(started + Duration::from_secs_f64(nth as f64 / f64::from(rate))).await;
        let (client, permit) = (Arc::clone(client), Arc::clone(&under_way).acquire_owned().await?);
        asked.push(tokio::spawn(async move {
            let answered = one(&client, nth, breed).await;
            drop(permit);
            answered
        }));
    }
    let answers = try_join_all(asked).await?.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let late = answers.iter().filter(|(_, late)| *late).count();
    let mut took: Vec<Duration> = answers.into_iter().map(|(took, _)| took).collect();
    took.sort_unstable();
    let at = |share: f64| took.get((took.len() as f64 * share) as usize).copied().unwrap_or_default();
    let (p50, p99, longest) = (at(0.5), at(0.99), took.last().copied().unwrap_or_default());
    Ok(Part { name, requests, late, p50, p99, longest, memory_kib: scorer.memory_kib() })
}

/// Requests one score. Returns its duration, and whether the global model answered because the breed model was late.
async fn one(client: &Client, nth: usize, of: Option<usize>) -> anyhow::Result<(Duration, bool)> {
    let ride = ScoreRide {
        breed: of.map(breed),
        distance: Some(30.0),
        healthpoints: Some(300.0),
        magicpoints: Some(300.0),
        tmin: Some(50.0),
        tmax: Some(60.0),
        prcp: Some(0.0),
        ..ScoreRide::default()
    };
    let request = ScoreRequest {
        request_id: nth.to_string(),
        units: Units::default(),
        explain: false,
        impute: true,
        rides: vec![ride],
    };
    let asked = Instant::now();
    let response = client.score(&request, Duration::from_secs(10)).await?;
    let took = asked.elapsed();
    match (response.scores.first().map(|score| &score.outcome), of) {
        (Some(ScoreOutcome::Scored { by: None, fallback: None, .. }), None) => Ok((took, false)),
        (Some(ScoreOutcome::Scored { fallback: Some(Fallback::Loading), .. }), Some(_)) => Ok((took, true)),
        (Some(ScoreOutcome::Scored { probability, by: Some(by), .. }), Some(index)) => {
            let model = of_breed(index)?;
            let expected = model.probability(&[30.0, 300.0, 300.0, 50.0, 60.0, 0.0]);
            ensure!(
                by.model_id == model.model_id && *probability == expected,
                "not by {}: {response:?}",
                model.model_id
            );
            Ok((took, false))
        }
        _ => bail!("not the answer that was expected: {response:?}"),
    }
}

/// The scorer's statistics of its cache.
async fn cache(store: &Store) -> anyhow::Result<BreedCache> {
    let tally = serving::read(store, layout::GLOBAL_MODEL, "all", None).await?;
    tally.breeds.context("the scorer counted no breeds")
}

fn tell(arguments: &Arguments, wrote: Duration, parts: &[Part], cache: &BreedCache) -> anyhow::Result<()> {
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    let mb = |kib: u64| kib as f64 / 1_000.0 * 1.024;
    let load_ms = cache.load_ms_sum / cache.loads.max(1) as f64;
    if arguments.json {
        let parts: Vec<Value> = parts
            .iter()
            .map(|part| {
                json!({ "part": part.name, "requests": part.requests, "late": part.late, "p50_ms": ms(part.p50),
                    "p99_ms": ms(part.p99), "longest_ms": ms(part.longest), "memory_kib": part.memory_kib })
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "parts": parts, "cache": cache }))?);
        return Ok(());
    }
    println!(
        "{} models written in {:.1} s; {} of them in memory at most, {} requests/s\n",
        arguments.breeds,
        wrote.as_secs_f64(),
        arguments.models_max,
        arguments.rate
    );
    println!(
        "{:<10}{:>10}{:>8}{:>10}{:>10}{:>10}{:>10}{:>12}",
        "", "requests", "late", "p50 ms", "p99 ms", "max ms", "RSS MB", "at most MB"
    );
    for Part { name, requests, late, p50, p99, longest, memory_kib } in parts {
        let (now, most) = memory_kib.map_or((f64::NAN, f64::NAN), |(now, most)| (mb(now), mb(most)));
        println!(
            "{name:<10}{requests:>10}{late:>8}{:>10.2}{:>10.2}{:>10.2}{now:>10.1}{most:>12.1}",
            ms(*p50),
            ms(*p99),
            ms(*longest)
        );
    }
    println!(
        "\n{} lookups, {:.1} % in memory; {} readings, {load_ms:.2} ms on average, {:.2} ms at most; {} gave their place",
        cache.hits + cache.misses,
        100.0 * cache.hit_rate().unwrap_or_default(),
        cache.loads,
        cache.load_ms_max,
        cache.evictions
    );
    Ok(())
}
