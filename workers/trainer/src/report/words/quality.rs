//! How well the model ranks rides, and whether its probabilities are calibrated.

use super::{
    evidence::HINT_P_MAX,
    finding::{Finding, Tone, evaluation},
};
use crate::{
    evaluate::inference::EVIDENCE_P_MAX,
    report::{
        charts,
        figures::{counted, p_is, significant},
    },
};
use common::model::{Interval, Metrics, Model};
use statrs::distribution::{ChiSquared, ContinuousCDF};

/// Minimum number of rides to compare probabilities with labels.
const CALIBRATION_RIDES_MIN: u64 = 100;
/// Calibration error below which probabilities are close enough for most uses.
const CALIBRATION_ERROR_MAX: f64 = 0.05;
/// Minimum number of rides of each class that a bin of the test is expected to have.
const EXPECTED_MIN: f64 = 5.0;

/// How well the model ranks rides with a service request above rides without.
pub(in crate::report) fn ranking(model: &Model) -> Finding {
    let finding =
        |tone, short: &str, long: String| Finding::new("How well does it distinguish rides?", tone, short, long);
    let (metrics, whose) = evaluation(model);
    let held_out = model.evidence.as_ref().and_then(|evidence| evidence.held_out.as_ref());
    let area = held_out.map(|held_out| held_out.model.roc_auc);
    let area = area.or(metrics.roc_auc.map(|value| Interval { value, lower: value, upper: value }));
    let Some(area) = area.filter(|area| charts::ends(area).iter().all(|end| (0.0..=1.0).contains(end))) else {
        let long = format!(
            "The {} {whose} are all with a service request, or all without: there is nothing to distinguish.",
            counted(metrics.rides, "ride")
        );
        return finding(Tone::Unknown, "Cannot be determined.", long);
    };
    let of_hundred = |share: f64| format!("{:.0}", share * 100.0);
    let within = match held_out {
        Some(_) => format!(" (95 % interval {} to {})", of_hundred(area.lower), of_hundred(area.upper)),
        None => String::new(),
    };
    let (tone, short) = match area {
        area if area.lower <= 0.5 && held_out.is_some() => (Tone::Bad, "Not visibly better than guessing."),
        area if area.value < 0.6 => (Tone::Bad, "Barely."),
        area if area.value < 0.7 => (Tone::Weak, "Poorly."),
        area if area.value < 0.8 => (Tone::Good, "Fairly well."),
        area if area.value < 0.9 => (Tone::Good, "Well."),
        _ => (Tone::Good, "Very well."),
    };
    let long = format!(
        "Of a ride that ended in a service request and one that did not, it gives the former the higher probability \
         in {} of 100 cases{within}; guessing gives 50. This is the area under the ROC curve, on {} {whose}.",
        of_hundred(area.value),
        counted(metrics.rides, "ride")
    );
    finding(tone, short, long)
}

/// Whether probabilities agree with the labels.
pub(in crate::report) fn calibration(model: &Model) -> Finding {
    let finding =
        |tone, short: &str, long: String| Finding::new("Are its probabilities calibrated?", tone, short, long);
    let (metrics, whose) = evaluation(model);
    let rides = counted(metrics.rides, "ride");
    let Some(error) = metrics.calibration_error.filter(|error| error.is_finite()) else {
        return finding(Tone::Unknown, "Not measured.", "Calibration is not recorded for this model.".to_owned());
    };
    if metrics.rides < CALIBRATION_RIDES_MIN {
        let long = format!("{rides} {whose} are too few to compare probabilities with labels.");
        return finding(Tone::Unknown, "Too few rides.", long);
    }
    let p = chance_of_gaps(metrics);
    let points = significant(error * 100.0, 2);
    let gaps = format!(
        "The probability and the share of rides that ended in a service request differ by {points} percentage points \
         on average ({rides} {whose})"
    );
    let is_narrow = metrics.calibration.len() <= 2;
    let narrow = if is_narrow { " It gives nearly all rides the same probability, so this says little." } else { "" };
    match p {
        Some(p) if (EVIDENCE_P_MAX..HINT_P_MAX).contains(&p) => {
            let long = format!("{gaps}: chance alone rarely gives a difference this large ({}).{narrow}", p_is(p));
            finding(Tone::Weak, "They may be slightly off.", long)
        }
        Some(p) if p >= HINT_P_MAX => {
            let long = format!(
                "No evidence that they are off. {gaps}: chance explains a difference this large ({}).{narrow}",
                p_is(p)
            );
            match is_narrow {
                true => finding(Tone::Weak, "Yes, but they hardly differ.", long),
                false => finding(Tone::Good, "Yes, by the evidence there is.", long),
            }
        }
        p if error < CALIBRATION_ERROR_MAX => {
            let chance = p.map_or(String::new(), |p| format!(", more than chance explains ({})", p_is(p)));
            finding(Tone::Weak, "Nearly.", format!("{gaps}{chance}; near enough for most uses.{narrow}"))
        }
        p => {
            let chance = p.map_or(String::new(), |p| format!(", more than chance explains ({})", p_is(p)));
            finding(Tone::Bad, "No.", format!("{gaps}{chance}. Use them to rank rides, not as probabilities.{narrow}"))
        }
    }
}

/// Returns the probability of gaps at least as large between probabilities and labels if the model is calibrated: Pearson's chi-square
/// test over the bins of the calibration curve, where small bins are merged with their neighbour. `None` if no bin is large enough.
pub(in crate::report) fn chance_of_gaps(metrics: &Metrics) -> Option<f64> {
    let (mut statistic, mut bins) = (0.0, 0u32);
    let (mut rides, mut expected, mut observed) = (0.0, 0.0, 0.0);
    let mut add_bin = |rides: f64, expected: f64, observed: f64| {
        statistic += (observed - expected).powi(2) / (expected * (rides - expected) / rides);
        bins += 1;
    };
    let is_large = |rides: f64, expected: f64| expected >= EXPECTED_MIN && rides - expected >= EXPECTED_MIN;
    for bin in &metrics.calibration {
        rides += bin.rides as f64;
        expected += bin.rides as f64 * bin.mean_probability;
        observed += bin.rides as f64 * bin.service_share;
        if is_large(rides, expected) {
            add_bin(rides, expected, observed);
            (rides, expected, observed) = (0.0, 0.0, 0.0);
        }
    }
    let chi_square = ChiSquared::new(f64::from(bins)).ok()?;
    statistic.is_finite().then(|| chi_square.sf(statistic.max(0.0))).filter(|p| p.is_finite())
}
