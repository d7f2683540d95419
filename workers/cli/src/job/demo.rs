//! `demo`: the whole job on synthetic rides with known coefficients.

use super::{
    in_process::{Files, in_process},
    report::{self, KnownTruth},
    serve,
};
use crate::{
    arguments::Demo,
    generate::{self, DocumentForm, RidesOptions, WeatherOptions},
    session::{Failed, Session, decided_serve_overrides},
};
use anyhow::Context;
use common::reading::Reading;

/// `demo`
pub(crate) async fn demo(session: &Session, options: &Demo) -> Result<(), Failed> {
    let input = options.dir.join("input");
    let weather = input.join("weather");
    let rides = input.join(format!("rides-{}-seed-{}.json", options.rides, options.seed));
    std::fs::create_dir_all(&weather).with_context(|| format!("making the folder {}", weather.display()))?;
    let weather_options = WeatherOptions { seed: options.seed, ..WeatherOptions::default() };
    let rides_options = RidesOptions { rides: options.rides, seed: options.seed, ..RidesOptions::default() };
    generate::write_weather(&weather, &weather_options)?;
    generate::write_rides(&rides, DocumentForm::TravelData, &rides_options)?;
    if !session.shared.json {
        eprintln!("made up {} rides and a year of weather in {}", options.rides, input.display());
    }
    // Rides of another seed would be trained on as well: each demo has a store of its own.
    let place = options.dir.join(format!("store-{}-seed-{}", options.rides, options.seed));
    let place = session.shared.store.clone().unwrap_or_else(|| place.display().to_string());
    let mut overrides =
        vec![("store.url".to_owned(), place), ("weather.source".to_owned(), weather.display().to_string())];
    overrides.extend(session.shared.overrides.clone());
    if let Some(address) = options.serve.serve {
        // As it was decided for this command.
        overrides.extend(decided_serve_overrides(&session.section()?, address));
    }
    let session = session.with_overrides(overrides)?;
    let store = session.store()?;
    let truth = KnownTruth { coefficients: generate::TRUTH.coefficients() };
    let (paths, reading) = ([rides], Reading::default());
    let files = Files { paths: &paths, reading: &reading };
    if options.serve.serve.is_some() {
        return serve::run(&session, &store, files, Some(&truth)).await;
    }
    let outcome = in_process(&session, &store, files).await?;
    report::print(&session, &store, &outcome, Some(&truth)).await
}
