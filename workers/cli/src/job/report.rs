//! The report on the outcome of a job.

mod readings;
mod ready;
mod rejects;
mod weather;

pub(crate) use weather::warning_in_words;

use super::outcome::{BatchOutcome, ModelOutcome, Outcome, Submission};
use crate::{
    generate::Truth,
    model::cautions,
    output::{legible, print_json},
    session::{Failed, Session},
};
use common::{
    document::WeatherWarnings,
    features::Feature,
    message::{ModelPromoted, ModelRejected},
    model::{Coefficient, Metrics, Model},
    ride::Counts,
};
use indicatif::HumanCount;
use ready::{ReadyBatch, unusable};
use records::{Store, datasets, layout, store};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// The results of a job, with everything that is read from the store to report them.
struct Results<'a> {
    outcome: &'a Outcome,
    /// The location of the store.
    location: String,
    ready: Vec<ReadyBatch<'a>>,
    /// Why batches have no dataset, for a person.
    refused: Vec<String>,
    model: Option<Model>,
    weather: Vec<WeatherWarnings>,
    /// Batches of which most rides were rejected.
    rejected: Vec<(&'a Submission, rejects::RejectSummary)>,
    /// Files with the bytes of an earlier file of the command; the earlier file comes second.
    duplicates: Vec<(&'a Submission, &'a Submission)>,
    /// Other readings of the same bytes that the model is also trained on.
    readings: Vec<readings::OtherReading<'a>>,
}

/// Prints the report. The error determines the exit code.
pub(crate) async fn print(
    session: &Session,
    store: &Store,
    outcome: &Outcome,
    truth: Option<&Truth>,
) -> Result<(), Failed> {
    let results = Results::read(session, store, outcome).await?;
    match session.shared.json {
        true => print_json(&results.as_json())?,
        false => print!("{}", results.text(truth)?),
    }
    let Results { ready, mut refused, model, .. } = results;
    refused.extend(unusable(&ready));
    match (refused.is_empty(), &outcome.model) {
        (false, _) => Err(Failed::Refused(refused.join("\n"))),
        (true, Some(ModelOutcome::Rejected(_) | ModelOutcome::Failed { .. })) if model.is_none() => {
            Err(Failed::NoModel)
        }
        (true, _) => Ok(()),
    }
}

impl<'a> Results<'a> {
    async fn read(session: &Session, store: &Store, outcome: &'a Outcome) -> Result<Self, Failed> {
        let (mut ready, mut refused, mut duplicates) = (Vec::<ReadyBatch<'_>>::new(), Vec::new(), Vec::new());
        for (submission, batch) in &outcome.batches {
            if let BatchOutcome::Ready(dataset) = batch {
                if let Some(first) = ready.iter().find(|first| first.dataset.batch_id == dataset.batch_id) {
                    duplicates.push((submission, first.submission));
                    continue;
                }
                let stored = datasets::manifest(store, &dataset.batch_id).await?;
                let stored = stored.ok_or_else(|| anyhow::anyhow!("{} has vanished", dataset.manifest))?;
                ready.push(ReadyBatch { submission, dataset: stored.announcement(), manifest: stored.manifest });
            }
            let refusal = batch.refusal(submission, outcome.in_fleet);
            refused.extend(refusal.map(|text| legible(&text, false).into_owned()));
        }
        let model = match &outcome.model {
            Some(ModelOutcome::Promoted(ModelPromoted { object, .. })) => store::read_json(store, object).await?,
            Some(ModelOutcome::Rejected(ModelRejected { object: Some(object), .. })) => {
                store::read_json(store, object).await?
            }
            _ => None,
        };
        let stations: BTreeSet<&str> =
            ready.iter().flat_map(|ReadyBatch { manifest, .. }| manifest.stations.keys().map(String::as_str)).collect();
        let weather = weather::warnings(store, &stations, session.started).await;
        let mut rejected = Vec::new();
        for ReadyBatch { submission, manifest, .. } in &ready {
            rejected.extend(rejects::summary(store, manifest).await.map(|summary| (*submission, summary)));
        }
        let readings = readings::find(store, &ready, model.as_ref()).await?;
        let location = session.store_location()?;
        Ok(Self { outcome, location, ready, refused, model, weather, rejected, duplicates, readings })
    }

    fn text(&self, truth: Option<&Truth>) -> Result<String, std::fmt::Error> {
        let Self { location, ready, model, .. } = self;
        let mut text = String::new();
        self.lead(&mut text)?;
        if !ready.is_empty() {
            rides(&mut text, ready, model.as_ref())?;
        }
        weather::print(&mut text, &self.weather)?;
        self.training(&mut text, truth)?;
        if !ready.is_empty() {
            files(&mut text, location, ready, model.as_ref())?;
        }
        if let Some(model) = model {
            next(&mut text, location, model)?;
        }
        Ok(text)
    }

    /// The first lines: results that are not new, batches whose rides were mostly rejected, batches without rides.
    fn lead(&self, text: &mut String) -> std::fmt::Result {
        for ReadyBatch { submission, .. } in &self.ready {
            if let Some(earlier) = &submission.earlier {
                let earlier = earlier.text(&submission.file.display().to_string());
                text.push_str(&legible(&earlier, true));
            }
        }
        for (duplicate, first) in &self.duplicates {
            let (duplicate, first) = (duplicate.file.display(), first.file.display());
            writeln!(text, "\n{duplicate}: the same bytes as {first}; the rides are counted once")?;
        }
        for other in &self.readings {
            text.push_str(&legible(&other.text(&self.location), true));
        }
        for (submission, summary) in &self.rejected {
            rejects::print(text, &submission.file.display().to_string(), &self.location, summary)?;
        }
        for ReadyBatch { submission, .. } in self.ready.iter().filter(|ready| ready.manifest.received == 0) {
            writeln!(text, "\n{}: contains no ride; its dataset is empty", submission.file.display())?;
        }
        Ok(())
    }

    /// The result of the training.
    fn training(&self, text: &mut String, truth: Option<&Truth>) -> std::fmt::Result {
        let without_rides = !self.ready.is_empty() && unusable(&self.ready).len() == self.ready.len();
        match (&self.outcome.model, &self.model) {
            (_, Some(model)) => {
                coefficients(text, model, truth)?;
                test(text, model)?;
                for why in cautions(model) {
                    writeln!(text, "\nCaution: {why}.")?;
                }
                if let Some(ModelOutcome::Rejected(rejected)) = &self.outcome.model {
                    writeln!(text, "\nNot promoted: {} ({}).", rejected.why, rejected.reason)?;
                    writeln!(
                        text,
                        "The champion, if there is one, stays. `wildrydes model list` shows both versions, `wildrydes model promote \
                         challenger` promotes this one."
                    )?;
                }
                Ok(())
            }
            // The first lines name the cause.
            (Some(ModelOutcome::Rejected(_)), None) if without_rides => Ok(()),
            (Some(ModelOutcome::Rejected(rejected)), None) => {
                writeln!(text, "\nNo model: {} ({}).", rejected.why, rejected.reason)
            }
            (Some(ModelOutcome::Failed { reason, why }), None) => {
                writeln!(text, "\nNo model: the training failed: {why} ({reason}).")
            }
            (Some(ModelOutcome::Promoted(_)) | None, None) => Ok(()),
        }
    }

    fn as_json(&self) -> serde_json::Value {
        let Self { outcome, ready, refused, model, weather, rejected, duplicates, readings, .. } = self;
        let duplicate =
            |(file, first): &(&Submission, &Submission)| json!({ "file": file.file, "same_as": first.file });
        let batch = |ReadyBatch { submission, dataset, manifest }: &ReadyBatch<'_>| {
            let mut batch = json!({
                "file": submission.file, "batch_id": dataset.batch_id, "manifest": manifest,
                "manifest_sha256": dataset.manifest_sha256,
            });
            if let Some(earlier) = &submission.earlier {
                batch["earlier"] = json!(earlier);
            }
            batch
        };
        let refusal = |(submission, batch): &(Submission, BatchOutcome)| match batch {
            BatchOutcome::Ready(_) => None,
            BatchOutcome::Refused { queue, reason, why, letters } => Some(json!({
                "file": submission.file, "batch_id": submission.batch_id, "queue": queue, "reason": reason, "why": why,
                "dead_letters": letters,
            })),
        };
        let rejection = match &outcome.model {
            Some(ModelOutcome::Rejected(ModelRejected { reason, why, .. }) | ModelOutcome::Failed { reason, why }) => {
                Some(json!({ "reason": reason, "why": why }))
            }
            Some(ModelOutcome::Promoted(_)) | None => None,
        };
        let (no_model, not_promoted) = if model.is_some() { (None, rejection) } else { (rejection, None) };
        json!({
            "batches": ready.iter().map(batch).collect::<Vec<_>>(),
            "refused": refused,
            "refusals": outcome.batches.iter().filter_map(refusal).collect::<Vec<_>>(),
            "same_bytes": duplicates.iter().map(duplicate).collect::<Vec<_>>(),
            "other_readings": readings,
            "mostly_rejected": rejected.iter().map(|(_, summary)| summary).collect::<Vec<_>>(),
            "weather_warnings": weather,
            "model": model,
            "no_model": no_model,
            "not_promoted": not_promoted,
        })
    }
}

/// Formats counts, as in `invalid_statustime 8, missing_latitude 1`: the most frequent first, on as many lines as needed.
fn by_reason(counts: &Counts) -> String {
    /// First column of the reasons, and maximum width of a line of them.
    const INDENT: usize = 29;
    const WIDTH: usize = 90;
    let mut largest_first: Vec<_> = counts.iter().collect();
    largest_first.sort_by_key(|(reason, count)| (std::cmp::Reverse(**count), reason.as_str()));
    let mut text = String::new();
    let mut column = 0;
    for (reason, count) in largest_first {
        let one = format!("{reason} {count}");
        if column + one.len() > WIDTH {
            text.push_str(&format!(",\n{:INDENT$}", ""));
            column = 0;
        } else if column > 0 {
            text.push_str(", ");
        }
        column += one.len() + 2;
        text.push_str(&one);
    }
    text
}

fn rides(text: &mut String, ready: &[ReadyBatch<'_>], model: Option<&Model>) -> std::fmt::Result {
    let mut rejected = Counts::new();
    let mut without_weather = Counts::new();
    let mut stations: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut received, mut accepted) = (0, 0);
    for ReadyBatch { manifest, .. } in ready {
        received += manifest.received;
        accepted += manifest.accepted;
        for (into, from) in
            [(&mut rejected, &manifest.rejected_by_reason), (&mut without_weather, &manifest.without_weather)]
        {
            for (reason, count) in from {
                *into.entry(reason.clone()).or_default() += count;
            }
        }
        for (station, count) in &manifest.stations {
            *stations.entry(station).or_default() += count;
        }
    }
    writeln!(text, "\nRides")?;
    let mut line = |name: &str, count: u64, more: &str| -> std::fmt::Result {
        let line = format!("  {name:<16}{:>12}   {more}", HumanCount(count).to_string());
        writeln!(text, "{}", line.trim_end())
    };
    line("received", received, "")?;
    line("rejected", rejected.values().sum(), &by_reason(&rejected))?;
    line("in the dataset", accepted, "")?;
    line("… no weather", without_weather.values().sum(), &by_reason(&without_weather))?;
    if let Some(model) = model {
        let counts = &model.counts;
        let share = |service: u64, of: u64| {
            format!("{:.1} % ended in a service request", 100.0 * service as f64 / of.max(1) as f64)
        };
        line("trained on", counts.train, &share(counts.train_service, counts.train))?;
        line("held out", counts.test, &share(counts.test_service, counts.test))?;
        if counts.unlabelled > 0 {
            line("… no label", counts.unlabelled, "not trained on")?;
        }
        if counts.out_of_range > 0 {
            line("… out of range", counts.out_of_range, "an impossible value, not trained on")?;
        }
        if counts.duplicates > 0 {
            line("… duplicates", counts.duplicates, "ride ids of an earlier batch, trained on once")?;
        }
    }
    let mut stations: Vec<_> = stations.into_iter().collect();
    stations.sort_by_key(|(station, count)| (std::cmp::Reverse(*count), *station));
    const STATIONS_MAX: usize = 8;
    writeln!(text, "\nWeather stations")?;
    for (station, count) in stations.iter().take(STATIONS_MAX) {
        writeln!(text, "  {station:<16}{:>12} rides", HumanCount(*count).to_string())?;
    }
    if stations.len() > STATIONS_MAX {
        let rest: u64 = stations[STATIONS_MAX..].iter().map(|(_, count)| count).sum();
        writeln!(
            text,
            "  {:<16}{:>12} rides",
            format!("{} others", stations.len() - STATIONS_MAX),
            HumanCount(rest).to_string()
        )?;
    }
    Ok(())
}

fn coefficients(text: &mut String, model: &Model, truth: Option<&Truth>) -> std::fmt::Result {
    let known = if truth.is_some() { "truth" } else { "" };
    let head =
        format!("What makes a service request likely {:>30} {:>12} {known:>9}", "odds multiplied by", "per unit");
    writeln!(text, "\n{}", head.trim_end())?;
    for Coefficient { feature, per_unit, .. } in &model.coefficients {
        let known = Feature::named(feature);
        let (words, step) = known.map_or(("each unit more", 1.0), |known| (known.step_meaning, known.step));
        let factor = (per_unit * step).exp();
        let truth = truth.map_or(String::new(), |truth| format!("{:+.4}", truth.of(feature)));
        let factor = format!("× {}", trainer::report::odds::factor(factor));
        let line = format!("  {words:<52}{factor:>12} {:>12} {truth:>9}", format!("{per_unit:+.6}"));
        writeln!(text, "{}", line.trim_end())?;
    }
    Ok(())
}

fn test(text: &mut String, model: &Model) -> std::fmt::Result {
    let Some(metrics) = &model.test else {
        return writeln!(text, "\nNo rides were held out for testing: there are too few.");
    };
    let Metrics { confusion, roc_auc, log_loss, brier, accuracy, precision, recall, f1, .. } = metrics;
    let percent = |share: Option<f64>| share.map_or("–".to_owned(), |share| format!("{:.1} %", share * 100.0));
    writeln!(text, "\nOn {} held-out rides", HumanCount(metrics.rides))?;
    let roc_auc = roc_auc.map_or("–".to_owned(), |auc| format!("{auc:.4}"));
    let [accuracy, precision, recall, f1] = [Some(*accuracy), *precision, *recall, *f1].map(percent);
    writeln!(
        text,
        "  ROC AUC {roc_auc}   log-loss {log_loss:.4}   Brier {brier:.4}   accuracy {accuracy}   precision {precision}   \
         recall {recall}   F1 {f1}"
    )?;
    let at = format!("at threshold {:.3}", model.threshold);
    writeln!(text, "\n  {at:<24}{:>20}{:>20}", "predicted: none", "predicted: service")?;
    writeln!(text, "  {:<24}{:>20}{:>20}", "actual: no service", confusion.true_negative, confusion.false_positive)?;
    writeln!(text, "  {:<24}{:>20}{:>20}", "actual: service", confusion.false_negative, confusion.true_positive)
}

fn files(text: &mut String, location: &str, ready: &[ReadyBatch<'_>], model: Option<&Model>) -> std::fmt::Result {
    writeln!(text, "\nFiles, below {location}")?;
    for ReadyBatch { dataset, manifest, .. } in ready {
        for file in &manifest.files {
            writeln!(text, "  {:<52} {} rides, sha256 {}", file.path, HumanCount(file.rows), file.sha256)?;
        }
        writeln!(text, "  {:<52} sha256 {}", dataset.manifest, dataset.manifest_sha256)?;
        if manifest.rejected > 0 {
            writeln!(text, "  {:<52} every rejected ride with its reason", layout::rejected(&dataset.batch_id))?;
        }
    }
    if let Some(model) = model {
        writeln!(text, "  {:<52} coefficients, metrics, training data", layout::model(&model.model, &model.model_id))?;
        writeln!(text, "  {:<52} the report, for a browser", layout::report(&model.model, &model.model_id))?;
    }
    Ok(())
}

/// Returns a ride whose score has visible contributions, by feature: each value is one standard deviation from the training
/// mean towards service and within the range of the training data, and `tmin` is not above `tmax`.
fn example_ride(coefficients: &[Coefficient]) -> Vec<(&str, f64)> {
    let mut ride: Vec<(&str, f64)> = coefficients.iter().map(|c| (c.feature.as_str(), towards_service(c))).collect();
    let tmax = ride.iter().find(|(feature, _)| *feature == "tmax").map(|(_, value)| *value);
    for (_, tmin) in ride.iter_mut().filter(|(feature, _)| *feature == "tmin") {
        *tmin = tmax.map_or(*tmin, |tmax| tmin.min(tmax));
    }
    ride
}

/// Returns the value of one feature, rounded to a whole number, or to more decimals if the standard deviation is small.
fn towards_service(Coefficient { per_unit, mean, std_dev, min, max, .. }: &Coefficient) -> f64 {
    let value = (mean + std_dev.copysign(*per_unit)).clamp(*min, max.max(*min));
    let decimals = if *std_dev > 0.0 { (-std_dev.log10().floor()).clamp(0.0, 6.0) } else { 0.0 };
    let scale = 10f64.powf(decimals);
    let rounded = (value * scale).round() / scale;
    if rounded < *min || rounded > *max { value } else { rounded }
}

/// Prints the next step: a command that scores a ride.
fn next(text: &mut String, location: &str, model: &Model) -> std::fmt::Result {
    let ride = example_ride(&model.coefficients);
    let flags: Vec<String> = ride.iter().map(|(feature, value)| format!("--{feature} {value}")).collect();
    let store = if location == "wildrydes-data" { String::new() } else { format!(" --store '{location}'") };
    // The name by which this command was called, so that the line can be copied.
    let this = match std::env::var_os("CARGO") {
        Some(_) => "cargo run --release --".to_owned(),
        None => std::env::args().next().unwrap_or_else(|| "wildrydes".to_owned()),
    };
    writeln!(text, "\nNext, score a ride\n  {this} score{store} {}", flags.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coefficient(feature: &str, per_unit: f64, mean: f64, std_dev: f64, range: (f64, f64)) -> Coefficient {
        let unit = String::new();
        let feature = feature.to_owned();
        let (min, max) = range;
        Coefficient {
            feature,
            unit,
            per_unit,
            standardised: 0.0,
            mean,
            std_dev,
            min,
            max,
            inference: None,
            histogram: None,
        }
    }

    #[test]
    fn example_ride_is_off_the_mean_towards_service_and_within_the_training_range() {
        let coefficients = [
            coefficient("distance", 0.75, 30.0, 0.64, (29.0, 31.0)),
            coefficient("magicpoints", -0.01, 300.0, 100.0, (250.0, 900.0)),
            coefficient("tmin", 0.004, 97.0, 90.0, (-100.0, 250.0)),
            coefficient("tmax", -0.003, 176.0, 100.0, (-50.0, 350.0)),
            coefficient("prcp", 0.0, 48.0, 0.0, (48.0, 48.0)),
        ];
        let expected = [("distance", 30.6), ("magicpoints", 250.0), ("tmin", 76.0), ("tmax", 76.0), ("prcp", 48.0)];
        assert_eq!(example_ride(&coefficients), expected);
    }
}
