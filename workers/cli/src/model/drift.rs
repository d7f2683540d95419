//! `model drift`: is what the scorers are asked like what the model was trained on?

use super::versions::{resolve, store_of};
use crate::{
    arguments::Family,
    session::{Failed, Session},
};
use common::{
    features::FEATURES,
    model::{Metrics, Model},
    served::{BreedCache, Drift, Level, Shadow, Shift, Tally, drift as drift_of},
};
use indicatif::HumanCount;
use records::{
    layout,
    served::{self, since},
    store,
};
use runtime::host;
use serde_json::{Value, json};
use std::fmt::{self, Write};
use trainer::registry::Version;

/// What is shown of a version.
struct Seen {
    model: Model,
    since: String,
    tally: Tally,
    drift: Drift,
    /// Of the rides that came with a label after they were scored.
    realised: Option<Metrics>,
}

/// `model drift`
pub(super) async fn drift(session: &Session, version: &str, days: u32, family: &Family) -> Result<(), Failed> {
    let store = store_of(session)?;
    let (Version { model: family, model_id, .. }, model) = resolve(&store, family, version).await?;
    let since = since(i64::from(days), host::now());
    let tally = served::read(&store, &family, &model_id, Some(&since)).await?;
    let realised = store::read_json::<Value>(&store, &layout::realised(&family, &model_id)).await?;
    let realised = realised.and_then(|mut told| serde_json::from_value(told["metrics"].take()).ok());
    let drift = drift_of(&model, &tally);
    let seen = Seen { model, since, tally, drift, realised };
    match session.shared.json {
        true => println!("{}", serde_json::to_string_pretty(&as_json(&seen))?),
        false => print!("{}", as_text(&seen)?),
    }
    Ok(())
}

fn as_json(seen: &Seen) -> Value {
    let Seen { model, since, tally, drift, realised } = seen;
    let shift = |shift: &Shift| {
        let mut told = json!(shift);
        told["level"] = json!(shift.level());
        told
    };
    let shadows: Vec<Value> = tally
        .shadows
        .iter()
        .map(|shadow| {
            let mut told = json!(shadow);
            told["mean"] = json!(shadow.mean());
            told["mean_absolute"] = json!(shadow.mean_absolute());
            told
        })
        .collect();
    json!({
        "model": model.model, "model_id": model.model_id, "since": since, "rides": tally.rides, "service": tally.service,
        "features": drift.features.iter().map(shift).collect::<Vec<_>>(),
        "probability": drift.probability.as_ref().map(shift),
        "fallbacks": tally.fallbacks, "uncounted": tally.uncounted, "shadows": shadows, "breeds": tally.breeds,
        "realised": realised,
    })
}

/// Shares as a row of bars, the tallest of both rows as high as a line.
fn bars(counts: &[u64], tallest: f64) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let total: u64 = counts.iter().sum();
    let bar = |count: &u64| match *count {
        0 => ' ',
        count => {
            let share = count as f64 / total.max(1) as f64 / tallest;
            LEVELS[((share * LEVELS.len() as f64).ceil() as usize).clamp(1, LEVELS.len()) - 1]
        }
    };
    counts.iter().map(bar).collect()
}

fn tallest(shift: &Shift) -> f64 {
    let of = |counts: &[u64]| {
        let total: u64 = counts.iter().sum();
        counts.iter().max().map_or(0.0, |most| *most as f64 / total.max(1) as f64)
    };
    of(&shift.trained).max(of(&shift.served)).max(f64::MIN_POSITIVE)
}

fn words(shift: &Shift) -> String {
    let Some(psi) = shift.psi else { return String::new() };
    match shift.level() {
        Some(Level::Large) => "a large shift".to_owned(),
        Some(Level::Moderate) => "a moderate shift".to_owned(),
        _ if psi >= 0.1 => "no more than chance does with so few rides".to_owned(),
        _ => "no shift".to_owned(),
    }
}

fn as_text(seen: &Seen) -> Result<String, fmt::Error> {
    let Seen { model, since, tally, drift, realised } = seen;
    let mut text = String::new();
    let count = |count: u64| HumanCount(count).to_string();
    writeln!(text, "{} {}: {} rides scored since {since} (UTC)", model.model, model.model_id, count(tally.rides))?;
    if tally.rides == 0 {
        writeln!(
            text,
            "\nNothing is known of it in service. Scorers write what they served some seconds later (scorer.served_write_ms)."
        )?;
    } else {
        let share = 100.0 * tally.service as f64 / tally.rides as f64;
        let trained = 100.0 * model.counts.train_service as f64 / model.counts.train.max(1) as f64;
        writeln!(text, "service expected of {share:.1} %; {trained:.1} % of the rides trained on ended in it")?;
        writeln!(text, "\n{:<14}{:>8}   {:<46}  rides by value: training, service", "feature", "PSI", "that is")?;
        for shift in drift.features.iter().chain(&drift.probability) {
            line(&mut text, shift)?;
        }
        if drift.features.is_empty() {
            writeln!(text, "  the artefact does not say what values it was trained on: train it anew")?;
        }
    }
    for shadow in &tally.shadows {
        shadowed(&mut text, shadow)?;
    }
    if let Some(metrics) = realised {
        came_true(&mut text, metrics)?;
    }
    breeds(&mut text, tally)?;
    Ok(text)
}

fn line(text: &mut String, shift: &Shift) -> fmt::Result {
    let psi = shift.psi.map_or("–".to_owned(), |psi| format!("{psi:.3}"));
    let tallest = tallest(shift);
    let (trained, served) = (bars(&shift.trained, tallest), bars(&shift.served, tallest));
    writeln!(text, "{:<14}{psi:>8}   {:<46}  ▕{trained}▏ ▕{served}▏", shift.of, words(shift))?;
    let unit = FEATURES.iter().find(|known| known.name == shift.of).map(|known| known.unit);
    if let (Some(unit), Some(first), Some(last)) = (unit, shift.edges.first(), shift.edges.last())
        && shift.level().is_some_and(|level| level > Level::Stable)
    {
        writeln!(text, "{:<25}bins from below {first} to {last} and more, {unit}", "")?;
    }
    Ok(())
}

fn shadowed(text: &mut String, shadow: &Shadow) -> fmt::Result {
    let Shadow { model_id, rides, unscored, largest, decisions, .. } = shadow;
    writeln!(text, "\nThe challenger {model_id} scored {} of these rides unheard", HumanCount(*rides))?;
    if let (Some(mean), Some(absolute)) = (shadow.mean(), shadow.mean_absolute()) {
        let (mean, absolute, largest) = (100.0 * mean, 100.0 * absolute, 100.0 * largest);
        writeln!(
            text,
            "  {mean:+.2} percentage points on average, {absolute:.2} without the sign, {largest:.2} at most"
        )?;
        let share = 100.0 * *decisions as f64 / *rides as f64;
        writeln!(text, "  it would have decided otherwise for {} of them, {share:.2} %", HumanCount(*decisions))?;
    }
    if *unscored > 0 {
        writeln!(text, "  {} more have not the features it needs", HumanCount(*unscored))?;
    }
    Ok(())
}

fn came_true(text: &mut String, metrics: &Metrics) -> fmt::Result {
    writeln!(
        text,
        "\nWhat became of {} rides that came with a label after they were scored",
        HumanCount(metrics.rides)
    )?;
    let error = metrics.calibration_error.map_or(String::new(), |error| format!("   calibration error {error:.4}"));
    writeln!(text, "  log-loss {:.4}   Brier {:.4}{error}", metrics.log_loss, metrics.brier)?;
    if !metrics.calibration.is_empty() {
        writeln!(text, "  {:<20}{:>10}{:>12}{:>12}", "probability", "rides", "said", "was")?;
    }
    for bin in &metrics.calibration {
        writeln!(
            text,
            "  {:<20}{:>10}{:>11.1}%{:>11.1}%",
            format!("{:.0} to {:.0} %", 100.0 * bin.from, 100.0 * bin.to),
            HumanCount(bin.rides).to_string(),
            100.0 * bin.mean_probability,
            100.0 * bin.service_share
        )?;
    }
    Ok(())
}

fn breeds(text: &mut String, tally: &Tally) -> fmt::Result {
    let Some(cache) = &tally.breeds else { return Ok(()) };
    let BreedCache { hits, misses, loads, evictions, load_ms_sum, load_ms_max, .. } = cache;
    let rate = cache.hit_rate().map_or(String::new(), |rate| format!(" ({:.1} %)", 100.0 * rate));
    writeln!(text, "\nModels of breeds: {} lookups, {} in memory{rate}", HumanCount(hits + misses), HumanCount(*hits))?;
    if *loads > 0 {
        let mean = load_ms_sum / *loads as f64;
        let (loads, evictions) = (HumanCount(*loads), HumanCount(*evictions));
        writeln!(
            text,
            "  {loads} readings, {mean:.1} ms on average, {load_ms_max:.1} ms at most; {evictions} gave their place"
        )?;
    }
    let fell_back = tally.fallbacks;
    let (none, loading, away) = (fell_back.no_breed_model, fell_back.loading, fell_back.unavailable);
    if none + loading + away > 0 {
        let [none, loading, away] = [none, loading, away].map(HumanCount);
        writeln!(
            text,
            "  rides the model of all rides scored instead: {none} no model of the breed, {loading} still being read, {away} unavailable"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bars are as high as their share, of both rows by the same measure; no ride is no bar, and one of very many still one.
    #[test]
    fn bars_are_as_high_as_their_share() {
        assert_eq!(bars(&[0, 1, 2, 4, 8], 8.0 / 15.0), " ▁▂▄█");
        assert_eq!(bars(&[1_000_000, 1], 1.0), "█▁");
        assert_eq!(bars(&[], 1.0), "");
    }
}
