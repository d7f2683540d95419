//! Warnings of values far outside the range of the training rides, as text.

use crate::serve::artefact::Weight;
use common::features::FEATURE_COUNT;

/// Returns a warning for each value that is more than a standard deviation below the smallest or above the largest value of the training
/// rides: there the model extrapolates. Features without an effect on the score are left out. `is_assumed` tells whether the value at
/// this place among the weights was assumed.
pub(super) fn warnings(
    weights: &[Weight],
    features: &[f64; FEATURE_COUNT],
    is_assumed: impl Fn(usize) -> bool,
) -> Vec<String> {
    let values = weights.iter().zip(features).enumerate();
    let far = values.filter(|(_, (weight, value))| is_far(weight, **value));
    far.map(|(place, (weight, value))| warning(weight, *value, is_assumed(place))).collect()
}

fn is_far(weight: &Weight, value: f64) -> bool {
    weight.per_unit != 0.0 && (value < weight.min - weight.std_dev || value > weight.max + weight.std_dev)
}

fn warning(weight: &Weight, value: f64, is_assumed: bool) -> String {
    let feature = weight.feature();
    let (unit, scale) = feature.display_unit;
    let [value, min, max] = [value, weight.min, weight.max].map(|value| legible(value / scale));
    let is = if is_assumed { "is assumed to be" } else { "is" };
    format!(
        "{} {is} {value} {unit}, far outside the training rides' range of {min} to {max} {unit}: the model extrapolates",
        feature.name
    )
}

/// Returns a number with at most one decimal, or in scientific notation if it is very large.
fn legible(value: f64) -> String {
    /// Larger numbers have too many digits.
    const PLAIN_MAX: f64 = 1e9;
    if value.abs() > PLAIN_MAX { format!("{value:.1e}") } else { ((value * 10.0).round() / 10.0).to_string() }
}
