//! Runs only the trainer's arithmetic, for `tests/reference`, which compares it with statsmodels and scikit-learn.
//!
//! ```text
//! reference fit FILE.csv ALPHA      up to six columns and, last, a label of 0 and 1: coefficients and standard errors as JSON
//! reference speed RIDES FILE        draws rides, writes them for others to read (rows of seven 64-bit floats, the label last),
//!                                   and prints how long which part of a training takes
//! ```

use common::{
    features::FEATURE_COUNT,
    model::{TrainingCounts, TrainingSettings, logistic},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::json;
use std::{
    io::{BufWriter, Write},
    time::Instant,
};
use trainer::{
    artefact::build,
    data::{
        Plan, TrainingData,
        rows::{NO_BREED, Rides},
    },
    evaluate::inference::{inference, standard_error},
    fit::{Cancel, Fit, Recipe, fit},
    select::cross_validate,
};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["fit", file, alpha] => fit_file(file, alpha.parse()?),
        ["speed", rides, file] => speed(rides.parse()?, file),
        _ => anyhow::bail!("usage: reference fit FILE.csv ALPHA | reference speed RIDES FILE"),
    }
}

fn recipe(alpha: f64, cancel: &Cancel) -> Recipe<'_> {
    Recipe { alpha, used: [true; FEATURE_COUNT], prior_mean: None, start: None, cancel }
}

/// The intercept, then the weights.
fn parameters(fit: &Fit, columns: usize) -> Vec<f64> {
    [&[fit.intercept][..], &fit.per_unit[..columns]].concat()
}

fn fit_file(file: &str, alpha: f64) -> anyhow::Result<()> {
    let mut rides = Rides::default();
    let mut reader = csv::Reader::from_path(file)?;
    let columns = reader.headers()?.len() - 1;
    anyhow::ensure!(columns <= FEATURE_COUNT, "{file} has {columns} columns beside the label: at most {FEATURE_COUNT}");
    for row in reader.deserialize() {
        let row: Vec<f64> = row?;
        let features = std::array::from_fn(|j| if j < columns { row[j] } else { 0.0 });
        rides.push(features, row[columns] == 1.0, 0, NO_BREED);
    }
    let cancel = Cancel::default();
    let fitted = fit(&rides, &recipe(alpha, &cancel))?;
    let inference = inference(&fitted);
    let errors: Vec<Option<f64>> =
        [FEATURE_COUNT].into_iter().chain(0..columns).map(|j| standard_error(&fitted, j)).collect();
    let report = json!({
        "coefficients": parameters(&fitted, columns),
        "standard_errors": errors,
        "p_values": inference[..columns].iter().map(|i| i.as_ref().map(|i| i.p_value)).collect::<Vec<_>>(),
        "log_likelihood": fitted.log_likelihood,
    });
    println!("{report}");
    Ok(())
}

fn speed(count: usize, file: &str) -> anyhow::Result<()> {
    let mut random = SmallRng::seed_from_u64(42);
    let mut rides = Rides::with_capacity(count);
    let mut out = BufWriter::new(std::fs::File::create(file)?);
    for _ in 0..count {
        let mut uniform = |from: f64, to: f64| random.random_range(from..to);
        let (distance, health, magic) = (uniform(29.0, 31.0), uniform(250.0, 350.0), uniform(250.0, 350.0));
        let tmin = uniform(-100.0, 200.0);
        let (tmax, rain) = (tmin + uniform(20.0, 120.0), uniform(0.0, 1.0).powi(3) * 300.0);
        let z = -19.2 + 0.75 * distance - 0.011 * magic - 0.004 * tmin - 0.003 * tmax + 0.007 * rain;
        let service = uniform(0.0, 1.0) < logistic(z);
        let features = [distance, health, magic, tmin, tmax, rain];
        for value in features.into_iter().chain([f64::from(u8::from(service))]) {
            out.write_all(&value.to_le_bytes())?;
        }
        let row = std::array::from_fn(|j| features.get(j).copied().unwrap_or(0.0));
        rides.push(row, service, random.random_range(0..=u8::MAX), NO_BREED);
    }
    out.flush()?;
    let cancel = Cancel::default();
    let began = Instant::now();
    let fitted = fit(&rides, &recipe(1.0, &cancel))?;
    let fit_seconds = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let alphas = TrainingSettings::default().alphas;
    let validated = cross_validate(&rides, &alphas, 5, [true; FEATURE_COUNT], &cancel)?;
    let validation_seconds = began.elapsed().as_secs_f64();
    anyhow::ensure!(validated.rides <= count, "more rides than there are");
    let settings = TrainingSettings::default();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let test = rides.only((0..count).step_by(10));
    let train = rides.only((0..count).filter(|ride| ride % 10 != 0));
    drop(rides);
    let counts = TrainingCounts {
        rides: count as u64,
        train: train.len() as u64,
        train_service: train.services() as u64,
        test: test.len() as u64,
        test_service: test.services() as u64,
        ..TrainingCounts::default()
    };
    let names = |name: &str| name.to_owned();
    let plan =
        Plan { model: names("speed"), model_id: names("0"), settings, manifests: Vec::new(), datasets: Vec::new() };
    let began = Instant::now();
    let built = build(&plan, &TrainingData { train, test, counts, ..TrainingData::default() }, &cancel)?;
    let training_seconds = began.elapsed().as_secs_f64();
    anyhow::ensure!(built.model.gradient_norm < 1e-9, "no optimum");
    println!(
        "{}",
        json!({
            "rides": count, "fit_seconds": fit_seconds, "cross_validation_seconds": validation_seconds,
            "training_seconds": training_seconds,
            "coefficients": parameters(&fitted, FEATURE_COUNT),
            "gradient_norm": fitted.gradient_norm, "threads": threads,
        })
    );
    Ok(())
}
