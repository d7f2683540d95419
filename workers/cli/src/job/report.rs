//! What one shows a colleague.

mod readings;
mod ready;
mod rejects;
mod weather;

use super::outcome::{BatchOutcome, ModelOutcome, Outcome, Submitted};
use crate::{
    model::cautions,
    output::legible,
    session::{Failed, Session},
};
use common::{
    features::FEATURES,
    message::{ModelPromoted, ModelRejected},
    model::{Coefficient, Metrics, Model},
    ride::Counts,
    weather::WeatherWarnings,
};
use indicatif::HumanCount;
use ready::{Ready, unusable};
use records::{Store, layout, store};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// The coefficients that made-up rides were labelled with, log-odds per original unit, in the order of the features.
pub(crate) struct KnownTruth {
    /// One per feature.
    pub(crate) coefficients: [f64; 6],
}

/// The results of a job, with everything that is read from the store to report them.
struct Results<'a> {
    outcome: &'a Outcome,
    place: String,
    ready: Vec<Ready<'a>>,
    /// Why batches have no dataset, in words.
    refused: Vec<String>,
    model: Option<Model>,
    weather: Vec<WeatherWarnings>,
    /// Batches of which most rides were rejected.
    rejected: Vec<(&'a Submitted, rejects::Finding)>,
    /// Files with the bytes of an earlier file of the command, which comes second.
    doubles: Vec<(&'a Submitted, &'a Submitted)>,
    /// Other readings of the same bytes that the model is trained on as well.
    readings: Vec<readings::OtherReading<'a>>,
}

/// Prints the outcome; the error tells the exit code.
pub(crate) async fn print(
    session: &Session,
    store: &Store,
    outcome: &Outcome,
    truth: Option<&KnownTruth>,
) -> Result<(), Failed> {
    let results = Results::read(session, store, outcome).await?;
    match session.shared.json {
        true => println!("{}", serde_json::to_string_pretty(&results.as_json())?),
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
        let (mut ready, mut refused, mut doubles) = (Vec::<Ready<'_>>::new(), Vec::new(), Vec::new());
        for (submitted, became) in &outcome.batches {
            if let BatchOutcome::Ready(dataset) = became {
                if let Some(first) = ready.iter().find(|first| first.dataset.batch_id == dataset.batch_id) {
                    doubles.push((submitted, first.submitted));
                    continue;
                }
                let manifest = store::read_json(store, &dataset.manifest).await?;
                let manifest = manifest.ok_or_else(|| anyhow::anyhow!("{} has vanished", dataset.manifest))?;
                ready.push(Ready { submitted, dataset, manifest });
            }
            let refusal = became.refusal(submitted, outcome.in_fleet);
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
            ready.iter().flat_map(|Ready { manifest, .. }| manifest.stations.keys().map(String::as_str)).collect();
        let weather = weather::warnings(store, &stations, session.started).await;
        let mut rejected = Vec::new();
        for Ready { submitted, manifest, .. } in &ready {
            rejected.extend(rejects::finding(store, manifest).await.map(|finding| (*submitted, finding)));
        }
        let readings = readings::find(store, &ready, model.as_ref()).await?;
        let place = session.store_location()?;
        Ok(Self { outcome, place, ready, refused, model, weather, rejected, doubles, readings })
    }

    fn text(&self, truth: Option<&KnownTruth>) -> Result<String, std::fmt::Error> {
        let Self { place, ready, model, .. } = self;
        let mut text = String::new();
        self.lead(&mut text)?;
        if !ready.is_empty() {
            rides(&mut text, ready, model.as_ref())?;
        }
        weather::print(&mut text, &self.weather)?;
        self.training(&mut text, truth)?;
        if !ready.is_empty() {
            files(&mut text, place, ready, model.as_ref())?;
        }
        if let Some(model) = model {
            next(&mut text, place, model)?;
        }
        Ok(text)
    }

    /// The first lines: that a result is not new, that most rides were rejected, that there are none.
    fn lead(&self, text: &mut String) -> std::fmt::Result {
        for Ready { submitted, .. } in &self.ready {
            if let Some(earlier) = &submitted.earlier {
                let of_earlier = earlier.text(&submitted.file.display().to_string(), &self.place);
                text.push_str(&legible(&of_earlier, true));
            }
        }
        for (double, first) in &self.doubles {
            let (double, first) = (double.file.display(), first.file.display());
            writeln!(text, "\n{double}: the same bytes as {first}, whose rides are counted once")?;
        }
        for other in &self.readings {
            text.push_str(&legible(&other.text(&self.place), true));
        }
        for (submitted, finding) in &self.rejected {
            rejects::print(text, &submitted.file.display().to_string(), &self.place, finding)?;
        }
        for Ready { submitted, .. } in self.ready.iter().filter(|ready| ready.manifest.received == 0) {
            writeln!(text, "\n{}: no ride in it: its dataset is empty", submitted.file.display())?;
        }
        Ok(())
    }

    /// The result of the training.
    fn training(&self, text: &mut String, truth: Option<&KnownTruth>) -> std::fmt::Result {
        let without_rides = !self.ready.is_empty() && unusable(&self.ready).len() == self.ready.len();
        match (&self.outcome.model, &self.model) {
            (_, Some(model)) => {
                coefficients(text, model, truth)?;
                test(text, model)?;
                for why in cautions(model) {
                    writeln!(text, "\nBeware: {why}.")?;
                }
                if let Some(ModelOutcome::Rejected(rejected)) = &self.outcome.model {
                    writeln!(text, "\nNot promoted: {} ({}).", rejected.why, rejected.reason)?;
                    writeln!(
                        text,
                        "A champion there is stays. `wildrydes model list` shows both, `wildrydes model promote challenger` \
                         promotes this one."
                    )?;
                }
                Ok(())
            }
            // The report begins with the cause.
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
        let Self { outcome, ready, refused, model, weather, rejected, doubles, readings, .. } = self;
        let double = |(double, first): &(&Submitted, &Submitted)| json!({ "file": double.file, "same_as": first.file });
        let batch = |Ready { submitted, dataset, manifest }: &Ready<'_>| {
            let mut batch = json!({
                "file": submitted.file, "batch_id": dataset.batch_id, "manifest": manifest,
                "manifest_sha256": dataset.manifest_sha256,
            });
            if let Some(earlier) = &submitted.earlier {
                batch["earlier"] = json!(earlier);
            }
            batch
        };
        let refusal = |(submitted, became): &(Submitted, BatchOutcome)| match became {
            BatchOutcome::Ready(_) => None,
            BatchOutcome::Refused { queue, reason, why, letters } => Some(json!({
                "file": submitted.file, "batch_id": submitted.batch_id, "queue": queue, "reason": reason, "why": why,
                "dead_letters": letters,
            })),
        };
        let words = match &outcome.model {
            Some(ModelOutcome::Rejected(ModelRejected { reason, why, .. }) | ModelOutcome::Failed { reason, why }) => {
                Some(json!({ "reason": reason, "why": why }))
            }
            Some(ModelOutcome::Promoted(_)) | None => None,
        };
        let (no_model, not_promoted) = if model.is_some() { (None, words) } else { (words, None) };
        json!({
            "batches": ready.iter().map(batch).collect::<Vec<_>>(),
            "refused": refused,
            "refusals": outcome.batches.iter().filter_map(refusal).collect::<Vec<_>>(),
            "same_bytes": doubles.iter().map(double).collect::<Vec<_>>(),
            "other_readings": readings,
            "mostly_rejected": rejected.iter().map(|(_, finding)| finding).collect::<Vec<_>>(),
            "weather_warnings": weather,
            "model": model,
            "no_model": no_model,
            "not_promoted": not_promoted,
        })
    }
}

/// `invalid_statustime 8, missing_latitude 1`, the most frequent first, on as many lines as it takes.
fn by_reason(counts: &Counts) -> String {
    /// Where the reasons begin, and how wide they may run.
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

fn rides(text: &mut String, ready: &[Ready<'_>], model: Option<&Model>) -> std::fmt::Result {
    let mut rejected = Counts::new();
    let mut without_weather = Counts::new();
    let mut stations: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut received, mut accepted) = (0, 0);
    for Ready { manifest, .. } in ready {
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
        line("kept for testing", counts.test, &share(counts.test_service, counts.test))?;
        if counts.unlabelled > 0 {
            line("… no label", counts.unlabelled, "not trained on")?;
        }
        if counts.out_of_range > 0 {
            line("… absurd", counts.out_of_range, "a value no ride can have, not trained on")?;
        }
        if counts.duplicates > 0 {
            line("… doubles", counts.duplicates, "ride ids that stand in an earlier batch, trained on once")?;
        }
    }
    let mut served: Vec<_> = stations.into_iter().collect();
    served.sort_by_key(|(station, count)| (std::cmp::Reverse(*count), *station));
    let shown = 8;
    writeln!(text, "\nWeather stations")?;
    for (station, count) in served.iter().take(shown) {
        writeln!(text, "  {station:<16}{:>12} rides", HumanCount(*count).to_string())?;
    }
    if served.len() > shown {
        let rest: u64 = served[shown..].iter().map(|(_, count)| count).sum();
        writeln!(
            text,
            "  {:<16}{:>12} rides",
            format!("{} others", served.len() - shown),
            HumanCount(rest).to_string()
        )?;
    }
    Ok(())
}

/// How a feature is spoken of: words, and how many of its units make a step one can imagine.
fn step_of(feature: &str) -> (&'static str, f64) {
    match feature {
        "distance" => ("each mile farther", 1.0),
        "healthpoints" => ("each 10 health points more", 10.0),
        "magicpoints" => ("each 10 magic points burnt", 10.0),
        "tmin" => ("each 10 °C warmer at night (tmin)", 100.0),
        "tmax" => ("each 10 °C warmer by day (tmax)", 100.0),
        "prcp" => ("each 10 mm more rain (prcp)", 100.0),
        _ => ("each unit more", 1.0),
    }
}

fn coefficients(text: &mut String, model: &Model, truth: Option<&KnownTruth>) -> std::fmt::Result {
    let known = if truth.is_some() { "truth" } else { "" };
    let head =
        format!("What makes a service request likely {:>30} {:>12} {known:>9}", "odds multiplied by", "per unit");
    writeln!(text, "\n{}", head.trim_end())?;
    for Coefficient { feature, per_unit, .. } in &model.coefficients {
        let (words, units) = step_of(feature);
        let factor = (per_unit * units).exp();
        let place = FEATURES.iter().position(|known| known.name == feature);
        let truth = truth.zip(place).and_then(|(truth, place)| truth.coefficients.get(place));
        let truth = truth.map_or(String::new(), |b| format!("{b:+.4}"));
        let factor = format!("× {}", trainer::odds::factor(factor));
        let line = format!("  {words:<52}{factor:>12} {:>12} {truth:>9}", format!("{per_unit:+.6}"));
        writeln!(text, "{}", line.trim_end())?;
    }
    Ok(())
}

fn test(text: &mut String, model: &Model) -> std::fmt::Result {
    let Some(metrics) = &model.test else {
        return writeln!(text, "\nNo ride was kept for testing: too few.");
    };
    let Metrics { confusion, .. } = metrics;
    let percent = |share: Option<f64>| share.map_or("–".to_owned(), |share| format!("{:.1} %", share * 100.0));
    writeln!(text, "\nOn the {} rides the model never saw", HumanCount(metrics.rides))?;
    writeln!(
        text,
        "  ROC AUC {}   log-loss {:.4}   Brier {:.4}   accuracy {}   precision {}   recall {}   F1 {}",
        metrics.roc_auc.map_or("–".to_owned(), |auc| format!("{auc:.4}")),
        metrics.log_loss,
        metrics.brier,
        percent(Some(metrics.accuracy)),
        percent(metrics.precision),
        percent(metrics.recall),
        percent(metrics.f1),
    )?;
    writeln!(
        text,
        "\n  {:<24}{:>16}{:>16}",
        format!("at threshold {:.3}", model.threshold),
        "said: no",
        "said: service"
    )?;
    writeln!(text, "  {:<24}{:>16}{:>16}", "was: no service", confusion.true_negative, confusion.false_positive)?;
    writeln!(text, "  {:<24}{:>16}{:>16}", "was: service", confusion.false_negative, confusion.true_positive)
}

fn files(text: &mut String, place: &str, ready: &[Ready<'_>], model: Option<&Model>) -> std::fmt::Result {
    writeln!(text, "\nFiles, below {place}")?;
    for Ready { dataset, manifest, .. } in ready {
        for file in &manifest.files {
            writeln!(text, "  {:<52} {} rides, sha256 {}", file.path, HumanCount(file.rows), file.sha256)?;
        }
        writeln!(text, "  {:<52} sha256 {}", dataset.manifest, dataset.manifest_sha256)?;
        if manifest.rejected > 0 {
            writeln!(text, "  {:<52} every rejected ride with its reason", layout::rejected(&dataset.batch_id))?;
        }
    }
    if let Some(model) = model {
        writeln!(
            text,
            "  {:<52} coefficients, metrics, what it was trained on",
            layout::model(&model.model, &model.model_id)
        )?;
        writeln!(text, "  {:<52} all of it to look at, in a browser", layout::report(&model.model, &model.model_id))?;
    }
    Ok(())
}

/// A ride whose score has contributions to show, by feature: each value is one standard deviation from the training
/// mean towards service, lies within the training data, and `tmin` is not above `tmax`.
fn telling_ride(coefficients: &[Coefficient]) -> Vec<(&str, f64)> {
    let mut ride: Vec<(&str, f64)> = coefficients.iter().map(|c| (c.feature.as_str(), towards_service(c))).collect();
    let tmax = ride.iter().find(|(feature, _)| *feature == "tmax").map(|(_, value)| *value);
    for (_, tmin) in ride.iter_mut().filter(|(feature, _)| *feature == "tmin") {
        *tmin = tmax.map_or(*tmin, |tmax| tmin.min(tmax));
    }
    ride
}

/// Rounded to a whole number, or finer where the values lie closer together.
fn towards_service(Coefficient { per_unit, mean, std_dev, min, max, .. }: &Coefficient) -> f64 {
    let value = (mean + std_dev.copysign(*per_unit)).clamp(*min, max.max(*min));
    let decimals = if *std_dev > 0.0 { (-std_dev.log10().floor()).clamp(0.0, 6.0) } else { 0.0 };
    let scale = 10f64.powf(decimals);
    let rounded = (value * scale).round() / scale;
    if rounded < *min || rounded > *max { value } else { rounded }
}

/// What to do next: score a ride.
fn next(text: &mut String, place: &str, model: &Model) -> std::fmt::Result {
    let ride = telling_ride(&model.coefficients);
    let flags: Vec<String> = ride.iter().map(|(feature, value)| format!("--{feature} {value}")).collect();
    let store = if place == "wildrydes-data" { String::new() } else { format!(" --store '{place}'") };
    // As this command was called, so that the line can be copied.
    let this = match std::env::var_os("CARGO") {
        Some(_) => "cargo run --release --".to_owned(),
        None => std::env::args().next().unwrap_or_else(|| "wildrydes".to_owned()),
    };
    writeln!(text, "\nScore a ride next\n  {this} score{store} {}", flags.join(" "))
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

    /// The contributions of a ride at the mean would all be 0.
    #[test]
    fn the_suggested_ride_speaks_for_service_within_what_was_trained_on() {
        let coefficients = [
            coefficient("distance", 0.75, 30.0, 0.64, (29.0, 31.0)),
            coefficient("magicpoints", -0.01, 300.0, 100.0, (250.0, 900.0)),
            coefficient("tmin", 0.004, 97.0, 90.0, (-100.0, 250.0)),
            coefficient("tmax", -0.003, 176.0, 100.0, (-50.0, 350.0)),
            coefficient("prcp", 0.0, 48.0, 0.0, (48.0, 48.0)),
        ];
        let expected = [("distance", 30.6), ("magicpoints", 250.0), ("tmin", 76.0), ("tmax", 76.0), ("prcp", 48.0)];
        assert_eq!(telling_ride(&coefficients), expected);
    }
}
