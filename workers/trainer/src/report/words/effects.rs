//! The effect of each feature.

use super::evidence::HINT_P_MAX;
use crate::{
    evaluate::inference::EVIDENCE_P_MAX,
    report::figures::{FeatureWords, ratio},
};
use common::model::{Coefficient, Model};

/// Evidence that a feature has an effect, given the other features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) enum Effect {
    /// Significant.
    Clear,
    /// Significant, but small.
    Slight,
    /// Chance alone would rarely give this estimate.
    Hint,
    /// Chance explains the estimate.
    NoEvidence,
    /// The feature has no interval.
    Unknown,
}

/// Maximum weight per standard deviation of a small effect: it changes a probability by 1.25 percentage points at most.
const SLIGHT_WEIGHT: f64 = 0.05;

/// Judges the effect of a feature.
pub(in crate::report) fn effect(coefficient: &Coefficient) -> Effect {
    let Some(inference) = coefficient.inference.as_ref().filter(|inference| inference.p_value.is_finite()) else {
        return Effect::Unknown;
    };
    match inference.p_value {
        p if p >= HINT_P_MAX => Effect::NoEvidence,
        p if p >= EVIDENCE_P_MAX => Effect::Hint,
        _ if coefficient.standardised.abs() < SLIGHT_WEIGHT => Effect::Slight,
        _ => Effect::Clear,
    }
}

/// Returns a caution for all effects, if there is one, and the effect of each feature in words, the largest first.
pub(in crate::report) fn effects(model: &Model) -> (Option<&'static str>, Vec<(Effect, String)>) {
    let any = model.evidence.as_ref().and_then(|evidence| evidence.any.as_ref());
    let caution = any
        .is_some_and(|test| test.p_value >= EVIDENCE_P_MAX)
        .then_some("Together the features predict nothing beyond chance: do not interpret any of them alone.");
    let mut order: Vec<&Coefficient> = model.coefficients.iter().collect();
    order.sort_by(|a, b| b.standardised.abs().total_cmp(&a.standardised.abs()));
    let in_words = |coefficient: &Coefficient| {
        let step = FeatureWords::of(coefficient).step;
        let effect = effect(coefficient);
        let Some(inference) = &coefficient.inference else {
            return (effect, format!("{step}: the weight has no interval"));
        };
        let significance = match effect {
            Effect::Clear => "",
            Effect::Slight => "; significant, but hardly any difference",
            Effect::Hint => "; a hint, no evidence",
            Effect::NoEvidence | Effect::Unknown => "; no evidence of a difference",
        };
        (effect, format!("{step} multiplies the odds by {}{significance}", ratio(&inference.odds_ratio)))
    };
    (caution, order.into_iter().map(in_words).collect())
}
