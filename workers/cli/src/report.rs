//! What one shows a colleague.

pub(crate) mod odds;
mod rejects;
mod weather;

use crate::{
    Failed, Session,
    job::{BatchOutcome, ModelOutcome, Outcome, Submitted},
    output::legible,
};
use common::{
    contract::{
        dataset::Manifest,
        features::FEATURES,
        layout,
        message::{DatasetReady, ModelPromoted, ModelRejected},
        model::{Coefficient, Metrics, Model},
        ride::Counts,
    },
    runtime::{Store, store},
};
use indicatif::HumanCount;
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

/// Prints the outcome; the error tells the exit code.
pub(crate) async fn print(
    session: &Session,
    store: &Store,
    outcome: &Outcome,
    truth: Option<&KnownTruth>,
) -> Result<(), Failed> {
    let mut ready: Vec<(&Submitted, &DatasetReady, Manifest)> = Vec::new();
    let mut refused = Vec::new();
    for (submitted, became) in &outcome.batches {
        match became {
            BatchOutcome::Ready(dataset) => {
                let manifest = store::read_json(store, &dataset.manifest).await?;
                let manifest = manifest.ok_or_else(|| anyhow::anyhow!("{} has vanished", dataset.manifest))?;
                ready.push((submitted, dataset, manifest));
            }
            BatchOutcome::Refused { .. } => {
                let refusal = became.refusal(submitted, outcome.in_fleet);
                refused.extend(refusal.map(|text| legible(&text, false).into_owned()));
            }
        }
    }
    let model: Option<Model> = match &outcome.model {
        Some(ModelOutcome::Promoted(ModelPromoted { object, .. })) => store::read_json(store, object).await?,
        Some(ModelOutcome::Rejected(ModelRejected { object: Some(object), .. })) => {
            store::read_json(store, object).await?
        }
        _ => None,
    };
    let place = session.store_place()?;
    let serve: BTreeSet<&str> =
        ready.iter().flat_map(|(.., manifest)| manifest.stations.keys().map(String::as_str)).collect();
    let left_out = weather::warnings(store, &serve, session.started).await;
    let mut rejected = Vec::new();
    for (submitted, _, manifest) in &ready {
        if let Some(finding) = rejects::finding(store, manifest).await {
            rejected.push((*submitted, finding));
        }
    }
    let unusable = unusable(&ready);
    if session.shared.json {
        let mut told = as_json(&ready, &refused, outcome, model.as_ref());
        let findings: Vec<&rejects::Finding> = rejected.iter().map(|(_, finding)| finding).collect();
        told["mostly_rejected"] = serde_json::to_value(findings)?;
        told["weather_warnings"] = serde_json::to_value(&left_out)?;
        println!("{}", serde_json::to_string_pretty(&told)?);
    } else {
        let mut text = String::new();
        if !ready.is_empty() {
            rides(&mut text, &ready, model.as_ref())?;
            weather::print(&mut text, &left_out)?;
        }
        // What is wrong leads; before it, that the result is not new.
        let mut lead = String::new();
        for (submitted, ..) in &ready {
            if let Some(earlier) = &submitted.earlier {
                let said = earlier.text(&submitted.file.display().to_string(), &place);
                lead.push_str(&legible(&said, true));
            }
        }
        for (submitted, finding) in &rejected {
            rejects::print(&mut lead, &submitted.file.display().to_string(), &place, finding)?;
        }
        for (submitted, ..) in ready.iter().filter(|(.., manifest)| manifest.received == 0) {
            writeln!(lead, "\n{}: no ride in it: its dataset is empty", submitted.file.display())?;
        }
        text.insert_str(0, &lead);
        match (&outcome.model, &model) {
            (_, Some(model)) => {
                coefficients(&mut text, model, truth)?;
                test(&mut text, model)?;
                for why in cautions(model) {
                    writeln!(text, "\nBeware: {why}.")?;
                }
                if let Some(ModelOutcome::Rejected(rejected)) = &outcome.model {
                    writeln!(text, "\nNot promoted: {} ({}).", rejected.why, rejected.reason)?;
                    writeln!(
                        text,
                        "A champion there is stays. `wildrydes model list` shows both, `wildrydes model promote challenger` \
                         promotes this one."
                    )?;
                }
            }
            // That there is nothing to train on was said at the start, with its cause.
            (Some(ModelOutcome::Rejected(_)), None) if !unusable.is_empty() && unusable.len() == ready.len() => {}
            (Some(ModelOutcome::Rejected(rejected)), None) => {
                writeln!(text, "\nNo model: {} ({}).", rejected.why, rejected.reason)?;
            }
            (Some(ModelOutcome::Failed { reason, why }), None) => {
                writeln!(text, "\nNo model: the training failed: {why} ({reason}).")?;
            }
            _ => {}
        }
        if !ready.is_empty() {
            files(&mut text, &place, &ready, model.as_ref())?;
        }
        if let Some(model) = &model {
            next(&mut text, &place, model)?;
        }
        print!("{text}");
    }
    refused.extend(unusable);
    match (refused.is_empty(), &outcome.model) {
        (false, _) => Err(Failed::Refused(refused.join("\n"))),
        (true, Some(ModelOutcome::Rejected(_) | ModelOutcome::Failed { .. })) if model.is_none() => {
            Err(Failed::NoModel)
        }
        (true, _) => Ok(()),
    }
}

/// Batches of which no ride can be used, in words: their datasets are ready, and empty.
fn unusable(ready: &[(&Submitted, &DatasetReady, Manifest)]) -> Vec<String> {
    let empty = ready.iter().filter(|(.., manifest)| manifest.accepted == 0);
    let words = empty.map(|(submitted, _, manifest)| {
        let file = submitted.file.display();
        match manifest.received {
            0 => format!("{file} holds no ride: there is nothing to join and nothing to train on"),
            1 => format!("the only ride of {file} was rejected: there is nothing to train on"),
            received => format!("all {received} rides of {file} were rejected: there is nothing to train on"),
        }
    });
    words.collect()
}

/// Everything to be wary of in a model, each as a sentence without its full stop.
pub(crate) fn cautions(model: &Model) -> Vec<String> {
    let without_evidence = model.evidence.as_ref().and_then(trainer::promote::without_evidence);
    let warnings = model.warnings.iter().map(|warning| legible(&warning.why, false).into_owned());
    warnings.chain(without_evidence).collect()
}

fn as_json(
    ready: &[(&Submitted, &DatasetReady, Manifest)],
    refused: &[String],
    outcome: &Outcome,
    model: Option<&Model>,
) -> serde_json::Value {
    let batches: Vec<_> = ready
        .iter()
        .map(|(submitted, dataset, manifest)| {
            let mut batch = json!({
                "file": submitted.file, "batch_id": dataset.batch_id, "manifest": manifest,
                "manifest_sha256": dataset.manifest_sha256,
            });
            if let Some(earlier) = &submitted.earlier {
                batch["earlier"] = json!(earlier);
            }
            batch
        })
        .collect();
    let no_model = match &outcome.model {
        Some(ModelOutcome::Rejected(rejected)) if model.is_none() => {
            Some(json!({ "reason": rejected.reason, "why": rejected.why }))
        }
        Some(ModelOutcome::Failed { reason, why }) => Some(json!({ "reason": reason, "why": why })),
        _ => None,
    };
    let not_promoted = match &outcome.model {
        Some(ModelOutcome::Rejected(rejected)) if model.is_some() => {
            Some(json!({ "reason": rejected.reason, "why": rejected.why }))
        }
        _ => None,
    };
    let refusals: Vec<_> = outcome
        .batches
        .iter()
        .filter_map(|(submitted, became)| match became {
            BatchOutcome::Ready(_) => None,
            BatchOutcome::Refused { queue, reason, why, letters } => Some(json!({
                "file": submitted.file, "batch_id": submitted.batch_id, "queue": queue, "reason": reason, "why": why,
                "dead_letters": letters,
            })),
        })
        .collect();
    json!({
        "batches": batches, "refused": refused, "refusals": refusals, "model": model, "no_model": no_model, "not_promoted": not_promoted,
    })
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

fn rides(
    text: &mut String,
    ready: &[(&Submitted, &DatasetReady, Manifest)],
    model: Option<&Model>,
) -> std::fmt::Result {
    let mut rejected = Counts::new();
    let mut without_weather = Counts::new();
    let mut stations: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut received, mut accepted) = (0, 0);
    for (_, _, manifest) in ready {
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
    text.insert_str(0, "\nRides\n");
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
    writeln!(text, "\nWhat makes a service request likely {:>30} {:>12} {known:>9}", "odds multiplied by", "per unit")?;
    for Coefficient { feature, per_unit, .. } in &model.coefficients {
        let (words, units) = step_of(feature);
        let factor = (per_unit * units).exp();
        let place = FEATURES.iter().position(|known| known.name == feature);
        let truth = truth.zip(place).and_then(|(truth, place)| truth.coefficients.get(place));
        let truth = truth.map_or(String::new(), |b| format!("{b:+.4}"));
        writeln!(
            text,
            "  {words:<52}{:>12} {:>12} {truth:>9}",
            format!("× {}", odds::factor(factor)),
            format!("{per_unit:+.6}")
        )?;
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

fn files(
    text: &mut String,
    place: &str,
    ready: &[(&Submitted, &DatasetReady, Manifest)],
    model: Option<&Model>,
) -> std::fmt::Result {
    writeln!(text, "\nFiles, below {place}")?;
    for (_, dataset, manifest) in ready {
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

/// A ride that has something to explain, by feature: each a standard deviation off the training mean, towards service, within what
/// was trained on, and with a night that is no warmer than its day.
fn telling_ride(coefficients: &[Coefficient]) -> Vec<(&str, f64)> {
    let value = |c: &Coefficient| {
        (c.mean + c.std_dev.copysign(c.per_unit)).round().clamp(c.min.ceil(), c.max.floor().max(c.min.ceil()))
    };
    let mut ride: Vec<(&str, f64)> = coefficients.iter().map(|c| (c.feature.as_str(), value(c))).collect();
    let tmax = ride.iter().find(|(feature, _)| *feature == "tmax").map(|(_, value)| *value);
    for (_, tmin) in ride.iter_mut().filter(|(feature, _)| *feature == "tmin") {
        *tmin = tmax.map_or(*tmin, |tmax| tmin.min(tmax));
    }
    ride
}

/// How to go on: with a ride to score.
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

    /// A ride at the mean would have nothing to explain: every contribution is 0 there.
    #[test]
    fn the_suggested_ride_speaks_for_service_within_what_was_trained_on() {
        let coefficients = [
            coefficient("distance", 0.75, 30.0, 0.6, (29.0, 31.0)),
            coefficient("magicpoints", -0.01, 300.0, 100.0, (250.0, 900.0)),
            coefficient("tmin", 0.004, 97.0, 90.0, (-100.0, 250.0)),
            coefficient("tmax", -0.003, 176.0, 100.0, (-50.0, 350.0)),
            coefficient("prcp", 0.0, 48.0, 0.0, (48.0, 48.0)),
        ];
        let expected = [("distance", 31.0), ("magicpoints", 250.0), ("tmin", 76.0), ("tmax", 76.0), ("prcp", 48.0)];
        assert_eq!(telling_ride(&coefficients), expected);
    }
}
