//! `demo`: the whole job on synthetic rides with known coefficients.

use super::{
    in_process::{Files, in_process},
    report, serve,
};
use crate::{
    arguments::{Demo, Form},
    generate::{self, RidesOptions, TRUTH, WeatherOptions},
    session::{Failed, Session, decided_serve_overrides},
};
use anyhow::Context;
use common::reading::Reading;

/// `demo`
pub(crate) async fn demo(session: &Session, options: &Demo) -> Result<(), Failed> {
    let input = options.dir.join("input");
    let weather = input.join("weather");
    let rides = input.join(format!("rides-{}-seed-{}.json", options.rides, options.seed));
    std::fs::create_dir_all(&weather).with_context(|| format!("creating the folder {}", weather.display()))?;
    let weather_options = WeatherOptions { seed: options.seed, ..WeatherOptions::default() };
    let rides_options = RidesOptions { rides: options.rides, seed: options.seed, ..RidesOptions::default() };
    generate::write_weather(&weather, &weather_options)?;
    generate::write_rides(&rides, Form::TravelData, &rides_options)?;
    if !session.shared.json {
        eprintln!("generated {} rides and a year of weather in {}", options.rides, input.display());
    }
    // One store per demo: the model would also be trained on the rides of another seed.
    let location = options.dir.join(format!("store-{}-seed-{}", options.rides, options.seed));
    let set = session.shared.overrides.iter().rfind(|(key, _)| key == "store.url").map(|(_, url)| url);
    let chosen = session.shared.store.as_ref().or(set).cloned();
    let location = chosen.unwrap_or_else(|| location.display().to_string());
    let mut overrides = vec![("weather.source".to_owned(), weather.display().to_string())];
    overrides.extend(session.shared.overrides.clone());
    if let Some(address) = options.serve.serve {
        // The decision whether a key is required does not change with the store.
        overrides.extend(decided_serve_overrides(&session.section()?, address));
    }
    let session = session.with_own_store(location, overrides)?;
    let store = session.store()?;
    let (paths, reading) = ([rides], Reading::default());
    let files = Files { paths: &paths, reading: &reading, refresh: false };
    if options.serve.serve.is_some() {
        return serve::run(&session, &store, files, Some(&TRUTH)).await;
    }
    let outcome = in_process(&session, &store, files).await?;
    report::print(&session, &store, &outcome, Some(&TRUTH)).await
}
