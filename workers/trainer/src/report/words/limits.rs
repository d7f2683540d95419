//! Warnings about a model, and its limits.

use crate::report::figures::{FeatureWords, count, counted, percent_of, significant};
use common::model::{Model, WarningCode};

/// Explains a warning.
pub(in crate::report) fn warning(code: WarningCode) -> &'static str {
    match code {
        WarningCode::ConstantFeature => "A feature has only one value, so it predicts nothing here.",
        WarningCode::Collinearity => {
            "Some features vary together, so the effect of each one alone is uncertain; the probabilities are not \
             affected."
        }
        WarningCode::Separation => {
            "The features separate the rides nearly perfectly. Do not rely on probabilities near 0 and 1, nor on the \
             intervals."
        }
        WarningCode::FewEvents => "There are few rides of one class, so all intervals and tests are rough.",
        WarningCode::LargestPenalty => {
            "The strongest penalty tried was the best: the features predict little or nothing."
        }
        WarningCode::StrongPenalty => {
            "The penalty outweighs the rides: it shrinks the weights far towards 0, and they have no intervals."
        }
        WarningCode::ThresholdUnreached => {
            "No threshold meets the constraint of the criterion; the nearest one was chosen."
        }
    }
}

/// Limits of the model.
pub(in crate::report) fn limits(model: &Model) -> Vec<String> {
    let mut limits = vec![
        "It finds associations, not causes: rides also differ in ways that the data does not contain, and nothing \
         here says what a change would bring about."
            .to_owned(),
    ];
    let ranges: Vec<String> = model
        .coefficients
        .iter()
        .filter(|coefficient| coefficient.min.is_finite() && coefficient.max.is_finite())
        .map(|coefficient| {
            let words = FeatureWords::of(coefficient);
            let end = |value: f64| significant(words.value(value), 3);
            format!("{} {} to {} {}", words.name.to_lowercase(), end(coefficient.min), end(coefficient.max), words.unit)
        })
        .collect();
    if !ranges.is_empty() {
        limits.push(format!(
            "It is valid only for rides like those it was trained on: {}. Beyond, it extrapolates.",
            ranges.join(", ")
        ));
    }
    let counts = &model.counts;
    let left_out = counts.unlabelled.saturating_add(counts.without_weather).saturating_add(counts.out_of_range);
    if left_out > 0 && counts.rides > 0 {
        limits.push(format!(
            "{} of {} ({}) had no label, no weather or an impossible value and were left out; if these rides differ \
             from the others, the model does not cover them.",
            count(left_out),
            counted(counts.rides, "ride"),
            percent_of(left_out, counts.rides)
        ));
    }
    limits
}
