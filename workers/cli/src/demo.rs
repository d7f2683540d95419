//! `demo` and `generate`: the whole job on made-up rides with a known truth.

use crate::{
    Failed, Session,
    arguments::{Demo, Form, Generate, Shared},
    generate::{self, DocumentForm, RidesOptions, WeatherOptions},
    job::{self, Files},
    output::refuse_to_replace,
    report::{self, KnownTruth},
    serve,
};
use anyhow::Context;
use common::reading::Reading;
use runtime::config::Configuration;

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
        overrides.extend(serve::decided(&session.section()?, address));
    }
    let shared = Shared { overrides: overrides.clone(), ..session.shared.clone() };
    let configuration =
        Configuration::load(shared.config.as_deref(), &overrides).map_err(|error| Failed::Misused(error.into()))?;
    let session = Session { configuration, shared, started: session.started };
    let store = session.store()?;
    let truth = KnownTruth { coefficients: generate::TRUTH.coefficients() };
    let (paths, reading) = ([rides], Reading::default());
    let files = Files { paths: &paths, reading: &reading };
    if options.serve.serve.is_some() {
        return serve::run(&session, &store, files, Some(&truth)).await;
    }
    let outcome = job::in_process(&session, &store, files).await?;
    report::print(&session, &store, &outcome, Some(&truth)).await
}

/// `generate`
pub(crate) fn generate(options: &Generate) -> Result<(), Failed> {
    match options {
        Generate::Rides { file, rides, seed, form, bad_share, unlabelled, force } => {
            refuse_to_replace(file, *force)?;
            let form = match form {
                Form::TravelData => DocumentForm::TravelData,
                Form::Array => DocumentForm::Array,
                Form::Ndjson => DocumentForm::Ndjson,
                Form::Concatenated => DocumentForm::Concatenated,
            };
            let options = RidesOptions {
                rides: *rides,
                seed: *seed,
                bad_share: *bad_share,
                labelled: !unlabelled,
                ..RidesOptions::default()
            };
            generate::write_rides(file, form, &options).with_context(|| format!("writing {}", file.display()))?;
        }
        Generate::Weather { dir, seed, force } => {
            refuse_to_replace(&dir.join("ghcnd-stations.txt"), *force)?;
            let options = WeatherOptions { seed: *seed, ..WeatherOptions::default() };
            generate::write_weather(dir, &options).with_context(|| format!("writing {}", dir.display()))?;
        }
    }
    Ok(())
}
