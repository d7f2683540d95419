//! `score`: scores one ride by the fleet, by a gateway, or by a scorer in this process.

use crate::{
    arguments::{Score, UnitSystem},
    ask::{remote::Remote, weather},
    session::{Failed, Session},
};
use common::{
    features::{FEATURES, Feature},
    message::{
        Assumed, Contribution, Fallback, PlaceWeather, PrecipitationUnit, ProbabilityInterval, ScoreErrorCode,
        ScoreOutcome, ScoreRequest, ScoreResponse, ScoreRide, TemperatureUnit, Units, WeatherPlace,
    },
};
use records::Store;
use runtime::{Broker, MemoryBroker, Shutdown, client::Client, process::run_options, worker::run};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use weather_fetcher::WeatherLookup;

/// Deadline of a score, milliseconds.
const TIMEOUT_MS: u64 = 5_000;
/// Deadline of a score whose weather is looked up, milliseconds: the station list may have to be read first.
const WEATHER_TIMEOUT_MS: u64 = 30_000;

/// Prints what each feature adds to the log-odds of an average ride.
fn print_contributions(explanation: &[Contribution], assumed: &[Assumed]) {
    if !explanation.is_empty() {
        println!("\n{:<14}{:>10}  {:<12}{:>10}", "contribution", "", "", "log-odds");
    }
    for Contribution { feature, value, log_odds, outside_training } in explanation {
        let unit = FEATURES.iter().find(|known| known.name == feature).map_or("", |known| known.unit);
        let outside = if *outside_training { "   outside the range of the training data" } else { "" };
        let is_assumed = assumed.iter().any(|assumed| assumed.feature == *feature);
        // An expectation has more digits than it is worth.
        let (value, note) = if is_assumed { ((value * 10.0).round() / 10.0, "   assumed") } else { (*value, "") };
        println!("{feature:<14}{value:>10}  {unit:<12}{log_odds:>+10.3}{note}{outside}");
    }
}

/// A score, and the weather that was looked up for it.
type Answered = (ScoreResponse, Option<PlaceWeather>);

/// `score`
pub(crate) async fn score(session: &Session, options: &Score) -> Result<(), Failed> {
    let place = options.place.weather_place();
    let system = options.units.unwrap_or(UnitSystem::Noaa);
    if let Some(weather) = assumed_units(&options.features.0)
        && options.units.is_none()
        && !session.shared.json
    {
        eprintln!("{weather}");
    }
    let (temperature, precipitation) = match system {
        UnitSystem::Noaa => (TemperatureUnit::CelsiusTenths, PrecipitationUnit::MillimetreTenths),
        UnitSystem::Celsius => (TemperatureUnit::Celsius, PrecipitationUnit::Millimetre),
        UnitSystem::Fahrenheit => (TemperatureUnit::Fahrenheit, PrecipitationUnit::Inch),
    };
    let ride = ScoreRide { breed: options.breed.clone(), ..options.features.0.clone() };
    let request_id = format!("{:032x}", rand::random::<u128>());
    let units = Units { temperature, precipitation };
    let impute = !options.no_impute;
    let request = ScoreRequest { request_id, units, explain: true, impute, rides: vec![ride] };
    let timeout_ms = options.timeout_ms.unwrap_or(if place.is_some() { WEATHER_TIMEOUT_MS } else { TIMEOUT_MS });
    let deadline = Duration::from_millis(timeout_ms);
    if let Some(remote) = Remote::of(&options.remote)? {
        let answer = remote.score(&request, place.as_ref(), deadline).await?;
        return print_response(session, &answer, true);
    }
    let answer = match options.fleet || session.shared.broker.is_some() {
        true => ask(session.broker()?.as_ref(), &request, place, deadline).await?,
        false => match session.store_if_there()? {
            Some(store) => ask_here(session, store, &request, place, deadline).await?,
            None => {
                let why = format!("no model to score with: {}", session.no_store()?);
                match session.shared.json {
                    true => println!("{}", serde_json::json!({ "error": why, "exit_code": 4 })),
                    false => eprintln!("error: {why}"),
                }
                return Err(Failed::NoModel);
            }
        },
    };
    print_response(session, &answer, options.fleet || session.shared.broker.is_some())
}

/// Returns the units in which the weather was read, for a command without `--units`: a score of temperatures ten times too high
/// looks normal. `None` without weather.
fn assumed_units(ride: &ScoreRide) -> Option<String> {
    let tenths = |value: f64, unit: &str| format!("{} {unit}", value / 10.0);
    let temperature = match (ride.tmin, ride.tmax) {
        (Some(tmin), Some(tmax)) => Some(format!("{} to {}", tmin / 10.0, tenths(tmax, "°C"))),
        (Some(tmin), None) => Some(format!("at least {}", tenths(tmin, "°C"))),
        (None, Some(tmax)) => Some(format!("at most {}", tenths(tmax, "°C"))),
        (None, None) => None,
    };
    let mean = ride.tavg.map(|tavg| format!("{} on average", tenths(tavg, "°C")));
    let known: Vec<String> =
        [temperature, mean, ride.prcp.map(|prcp| tenths(prcp, "mm"))].into_iter().flatten().collect();
    let units = || {
        let known = known.join(", ");
        format!("weather in NOAA's tenths: {known} (--units celsius or fahrenheit for other units)")
    };
    (!known.is_empty()).then(units)
}

/// Prints the assumed values in the units that people use.
fn print_assumed(assumed: &[Assumed], interval: Option<ProbabilityInterval>) {
    let words = assumed.iter().filter_map(|Assumed { feature, value }| {
        let (unit, scale) = Feature::named(feature)?.display_unit;
        Some(format!("{feature} {:.1} {unit}", value / scale))
    });
    let words: Vec<String> = words.collect();
    if !words.is_empty() {
        println!("assumed, because not given: {}", words.join(", "));
    }
    if let Some(ProbabilityInterval { low, high }) = interval {
        println!("90 % interval with all features: {:.1} % to {:.1} %", low * 100.0, high * 100.0);
    }
}

/// Looks up the weather of `place`, if there is one, and scores.
async fn ask(
    broker: &dyn Broker,
    request: &ScoreRequest,
    place: Option<WeatherPlace>,
    deadline: Duration,
) -> Result<Answered, Failed> {
    let client = Client::connect(broker, "wildrydes").await?;
    let answer = async {
        let begin = Instant::now();
        let Some(place) = place else { return Ok((client.score(request, deadline).await?, None)) };
        let weather = weather::look_up(&client, place, deadline).await?;
        let mut request = request.clone();
        for ride in &mut request.rides {
            ride.add_weather(weather.clone(), request.units);
        }
        let response = client.score(&request, deadline.saturating_sub(begin.elapsed())).await?;
        Ok((response, weather.kind().is_some().then_some(weather)))
    }
    .await;
    client.close().await;
    answer
}

/// Scores by a scorer behind its queue in this process; the weather is looked up in this process, too.
async fn ask_here(
    session: &Session,
    store: Store,
    request: &ScoreRequest,
    place: Option<WeatherPlace>,
    deadline: Duration,
) -> Result<Answered, Failed> {
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new());
    let (shutdown, mut running) = (Shutdown::new(), JoinSet::new());
    if place.is_some() {
        let fetcher =
            weather_fetcher::WeatherFetcher::new(session.section()?, store.clone()).map_err(Failed::Misused)?;
        let options = run_options::<WeatherLookup>(&session.section()?, &session.section()?, &store);
        running.spawn(run(Arc::new(fetcher.lookup()), Arc::clone(&broker), options, shutdown.clone()));
    }
    // A single request also waits until the breed model is loaded.
    let settings = scorer::Settings { breed_wait_ms: deadline.as_millis() as u64, ..session.section()? };
    let options = run_options::<scorer::Scorer>(&session.section()?, &session.section()?, &store);
    let scorer = scorer::Scorer::new(settings, store).without_statistics();
    running.spawn(run(Arc::new(scorer), Arc::clone(&broker), options, shutdown.clone()));
    let answer = ask(broker.as_ref(), request, place, deadline).await;
    shutdown.cancel();
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    answer
}

/// Returns what to do about an error, in parentheses.
fn remedy(code: ScoreErrorCode, of_fleet: bool) -> &'static str {
    match code {
        ScoreErrorCode::NoModel if of_fleet => {
            " (the trainer trains one on the datasets: `wildrydes ingest` waits for it and reports why there is none, \
             `wildrydes status` shows whether a trainer reads its queue)"
        }
        ScoreErrorCode::NoModel => {
            " (`wildrydes demo` and `wildrydes run` train one; --store names the store that has one)"
        }
        _ => "",
    }
}

fn print_response(session: &Session, (response, weather): &Answered, of_fleet: bool) -> Result<(), Failed> {
    if session.shared.json {
        let mut answer = serde_json::to_value(response)?;
        if let Some(weather) = weather {
            answer["weather"] = serde_json::to_value(weather)?;
        }
        println!("{answer}");
    }
    let outcome = response.scores.first().map(|score| &score.outcome);
    match (&response.error, outcome) {
        (Some(error), _) | (None, Some(ScoreOutcome::Failed { error })) => {
            if !session.shared.json {
                eprintln!("error: {}{}", error.message, remedy(error.code, of_fleet));
            }
            match error.code {
                ScoreErrorCode::NoModel => Err(Failed::NoModel),
                _ => Err(Failed::Reported),
            }
        }
        (
            None,
            Some(ScoreOutcome::Scored {
                probability,
                service,
                explanation,
                by,
                fallback,
                assumed,
                interval,
                warnings,
                ..
            }),
        ) => {
            if !session.shared.json {
                let (model, model_id, threshold) = match by {
                    Some(by) => (Some(by.model.as_str()), Some(by.model_id.as_str()), Some(by.threshold)),
                    None => (response.model.as_deref(), response.model_id.as_deref(), response.threshold),
                };
                let threshold = threshold.unwrap_or_default();
                let decision = if *service { "service is likely" } else { "no service expected" };
                println!(
                    "{:.1} % likely to end in a service request: {decision} (threshold {:.0} %)",
                    probability * 100.0,
                    threshold * 100.0
                );
                let why = match fallback {
                    None => "",
                    Some(Fallback::NoBreedModel) => ", the global model: the release has no model of the breed",
                    Some(Fallback::Loading) => ", the global model: the breed model is still loading",
                    Some(Fallback::Unavailable) => ", the global model: the breed model cannot be read now",
                };
                println!("model {} {}{why}", model.unwrap_or_default(), model_id.unwrap_or_default());
                if let Some(weather) = weather {
                    println!("weather {}", weather::in_words(weather));
                }
                print_assumed(assumed, *interval);
                warnings.iter().for_each(|warning| println!("warning: {warning}"));
                print_contributions(explanation, assumed);
            }
            Ok(())
        }
        (None, None) => Err(Failed::Broken(anyhow::anyhow!("the answer contains neither a score nor an error"))),
    }
}
