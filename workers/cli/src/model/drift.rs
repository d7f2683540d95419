//! `model drift`: compares the rides that scorers score with the training data.

use super::versions::resolve;
use crate::{
    arguments::Family,
    output::print_json,
    session::{Failed, Session},
};
use common::{
    document::DelayedLabelMetrics,
    features::FEATURES,
    model::{Metrics, Model},
    served::{BreedCache, Drift, Level, Shadow, Shift, Tally, drift as drift_of},
};
use indicatif::HumanCount;
use records::{
    registry::{self, Version},
    serving,
    store::unreadable_as_missing,
};
use runtime::host;
use serde_json::{Value, json};
use std::fmt::{self, Write};

/// The drift of a version, its serving statistics, and its metrics on delayed labels.
struct DriftReport {
    model: Model,
    since: String,
    tally: Tally,
    drift: Drift,
    /// Metrics on delayed labels.
    delayed_labels: Option<Metrics>,
}

/// `model drift`
pub(super) async fn drift(session: &Session, version: &str, days: u32, family: &Family) -> Result<(), Failed> {
    let store = session.existing_store()?;
    let (Version { model: family, model_id, .. }, model) = resolve(&store, family, version).await?;
    let since = serving::since(i64::from(days), host::now());
    let tally = serving::read(&store, &family, &model_id, Some(&since)).await?;
    let delayed_labels = registry::read::<DelayedLabelMetrics>(&store, &family, &model_id).await;
    let delayed_labels = unreadable_as_missing(delayed_labels)?.map(|labels| labels.metrics);
    let drift = drift_of(&model, &tally);
    let report = DriftReport { model, since, tally, drift, delayed_labels };
    match session.shared.json {
        true => print_json(&as_json(&report))?,
        false => print!("{}", as_text(&report)?),
    }
    Ok(())
}

fn as_json(report: &DriftReport) -> Value {
    let DriftReport { model, since, tally, drift, delayed_labels } = report;
    let shift = |shift: &Shift| {
        let mut document = json!(shift);
        document["level"] = json!(shift.level());
        document
    };
    let shadows: Vec<Value> = tally
        .shadows
        .iter()
        .map(|shadow| {
            let mut document = json!(shadow);
            document["mean"] = json!(shadow.mean());
            document["mean_absolute"] = json!(shadow.mean_absolute());
            document
        })
        .collect();
    json!({
        "model": model.model, "model_id": model.model_id, "since": since, "rides": tally.rides, "service": tally.service,
        "imputed": tally.imputed,
        "features": drift.features.iter().map(shift).collect::<Vec<_>>(),
        "probability": drift.probability.as_ref().map(shift),
        "fallbacks": tally.fallbacks, "uncounted": tally.uncounted, "shadows": shadows, "breeds": tally.breeds,
        "realised": delayed_labels,
    })
}

/// Draws shares as bars. A share of `tallest` is as high as the line.
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

fn level_text(shift: &Shift) -> String {
    let Some(psi) = shift.psi else { return String::new() };
    match shift.level() {
        Some(Level::Large) => "a large shift".to_owned(),
        Some(Level::Moderate) => "a moderate shift".to_owned(),
        _ if psi >= 0.1 => "within chance for so few rides".to_owned(),
        _ => "no shift".to_owned(),
    }
}

fn as_text(report: &DriftReport) -> Result<String, fmt::Error> {
    let DriftReport { model, since, tally, drift, delayed_labels } = report;
    let mut text = String::new();
    let count = |count: u64| HumanCount(count).to_string();
    writeln!(text, "{} {}: {} rides scored since {since} (UTC)", model.model, model.model_id, count(tally.rides))?;
    if tally.rides == 0 {
        writeln!(
            text,
            "\nThere are no serving statistics. Scorers write them after some seconds (scorer.served_write_ms)."
        )?;
    } else {
        let share = 100.0 * tally.service as f64 / tally.rides as f64;
        let trained = 100.0 * model.counts.train_service as f64 / model.counts.train.max(1) as f64;
        writeln!(text, "service predicted for {share:.1} %; {trained:.1} % of the training rides ended in service")?;
        if tally.imputed > 0 {
            let share = 100.0 * tally.imputed as f64 / tally.rides as f64;
            writeln!(
                text,
                "features were assumed for {share:.1} %; assumed values are in no histogram, the probabilities are"
            )?;
        }
        writeln!(text, "\n{:<14}{:>8}   {:<46}  histogram: training, service", "feature", "PSI", "meaning")?;
        for shift in drift.features.iter().chain(&drift.probability) {
            line(&mut text, shift)?;
        }
        if drift.features.is_empty() {
            writeln!(text, "  the artefact has no histograms of its training data: train it again")?;
        }
    }
    for shadow in &tally.shadows {
        shadow_scores(&mut text, shadow)?;
    }
    if let Some(metrics) = delayed_labels {
        label_metrics(&mut text, metrics)?;
    }
    breeds(&mut text, tally)?;
    Ok(text)
}

fn line(text: &mut String, shift: &Shift) -> fmt::Result {
    let psi = shift.psi.map_or("–".to_owned(), |psi| format!("{psi:.3}"));
    let tallest = tallest(shift);
    let (trained, served) = (bars(&shift.trained, tallest), bars(&shift.served, tallest));
    writeln!(text, "{:<14}{psi:>8}   {:<46}  ▕{trained}▏ ▕{served}▏", shift.of, level_text(shift))?;
    let unit = FEATURES.iter().find(|known| known.name == shift.of).map(|known| known.unit);
    if let (Some(unit), Some(first), Some(last)) = (unit, shift.edges.first(), shift.edges.last())
        && shift.level().is_some_and(|level| level > Level::Stable)
    {
        writeln!(text, "{:<25}bins from below {first} to {last} and more, {unit}", "")?;
    }
    Ok(())
}

fn shadow_scores(text: &mut String, shadow: &Shadow) -> fmt::Result {
    let Shadow { model_id, rides, unscored, largest, decisions, .. } = shadow;
    writeln!(text, "\nThe challenger {model_id} scored {} of these rides in shadow", HumanCount(*rides))?;
    if let (Some(mean), Some(absolute)) = (shadow.mean(), shadow.mean_absolute()) {
        let (mean, absolute, largest) = (100.0 * mean, 100.0 * absolute, 100.0 * largest);
        writeln!(
            text,
            "  difference in percentage points: {mean:+.2} on average, {absolute:.2} in absolute value, {largest:.2} at most"
        )?;
        let share = 100.0 * *decisions as f64 / *rides as f64;
        writeln!(text, "  another decision for {} rides, {share:.2} %", HumanCount(*decisions))?;
    }
    if *unscored > 0 {
        writeln!(text, "  {} more rides lack the features it needs", HumanCount(*unscored))?;
    }
    Ok(())
}

fn label_metrics(text: &mut String, metrics: &Metrics) -> fmt::Result {
    writeln!(text, "\nDelayed labels of {} rides", HumanCount(metrics.rides))?;
    let error = metrics.calibration_error.map_or(String::new(), |error| format!("   calibration error {error:.4}"));
    writeln!(text, "  log-loss {:.4}   Brier {:.4}{error}", metrics.log_loss, metrics.brier)?;
    if !metrics.calibration.is_empty() {
        writeln!(text, "  {:<20}{:>10}{:>12}{:>12}", "probability", "rides", "predicted", "actual")?;
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
    writeln!(text, "\nBreed models: {} lookups, {} in memory{rate}", HumanCount(hits + misses), HumanCount(*hits))?;
    if *loads > 0 {
        let mean = load_ms_sum / *loads as f64;
        let (loads, evictions) = (HumanCount(*loads), HumanCount(*evictions));
        writeln!(text, "  {loads} loads, {mean:.1} ms on average, {load_ms_max:.1} ms at most; {evictions} evictions")?;
    }
    let fallbacks = tally.fallbacks;
    let (missing, loading, unavailable) = (fallbacks.no_breed_model, fallbacks.loading, fallbacks.unavailable);
    if missing + loading + unavailable > 0 {
        let [missing, loading, unavailable] = [missing, loading, unavailable].map(HumanCount);
        writeln!(
            text,
            "  rides scored by the global model instead: {missing} without a breed model, {loading} while loading, {unavailable} \
             unavailable"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_high_as_their_share_and_only_an_empty_bin_has_none() {
        assert_eq!(bars(&[0, 1, 2, 4, 8], 8.0 / 15.0), " ▁▂▄█");
        assert_eq!(bars(&[1_000_000, 1], 1.0), "█▁");
        assert_eq!(bars(&[], 1.0), "");
    }
}
