//! The effects of the features: service rates over their values, odds ratios, the formula.

use super::{
    Page, charts,
    figures::{FeatureWords, NONE, count, p_value, percent, ratio, setting, significant},
    parts::{Figure, section, table},
    plot::Ink,
};
use common::{
    model::{Coefficient, Model},
    text::excerpt,
};
use maud::{Markup, html};

/// Share of rides with a service request over the values of each feature.
pub(super) fn rates(page: &Page<'_>) -> Markup {
    let inside = html! {
        @if page.model.coefficients.is_empty() { p.absent { "The model uses no feature." } }
        div.columns { @for coefficient in &page.model.coefficients { (rate(coefficient)) } }
    };
    let lead = "Rides trained on, about a tenth of them in each point. The model's line is its mean probability for \
        the same rides, which depends on all their features, not on this one alone.";
    section("rates", "Service rate over each feature", lead, inside)
}

fn rate(coefficient: &Coefficient) -> Markup {
    let words = FeatureWords::of(coefficient);
    let bins = coefficient.histogram.as_ref().map(|histogram| charts::bins(histogram, &words)).unwrap_or_default();
    let rows: Vec<Vec<String>> = bins
        .iter()
        .map(|bin| {
            let [lower, value, upper] = charts::ends(&bin.observed).map(percent);
            vec![
                significant(bin.value, 3),
                count(bin.rides),
                value,
                format!("{lower} to {upper}"),
                percent(bin.predicted),
            ]
        })
        .collect();
    let mean = format!("Mean, {}", words.unit);
    let head = [mean.as_str(), "rides", "with a request", "95 % interval", "model"];
    let outside =
        bins.iter().filter(|bin| bin.predicted < bin.observed.lower || bin.predicted > bin.observed.upper).count();
    let caption = match (bins.len(), outside) {
        (1, _) => "All rides have the same value, or nearly.".to_owned(),
        (_, 0) => "The model is within every interval.".to_owned(),
        (all, outside) => format!(
            "The model is outside {outside} of {all} intervals{}.",
            if outside * 5 > all {
                ": a straight line in log-odds does not describe this feature fully"
            } else {
                "; chance explains one in twenty"
            }
        ),
    };
    let figure = Figure {
        title: format!("Service rate by {}", words.name.to_lowercase()),
        legend: &[(Ink::Accent, "observed, 95 % interval"), (Ink::Other, "model")],
        caption: html! { (caption) },
        numbers: Some(table("Service rate by value", &head, rows)),
    };
    figure.with(charts::rate(&bins, &words), "No histogram is recorded for this feature.")
}

/// Odds ratios per natural step of each feature.
pub(super) fn odds(page: &Page<'_>) -> Markup {
    let coefficients = &page.model.coefficients;
    let mut steps: Vec<String> =
        coefficients.iter().filter_map(|c| Some(excerpt(&c.inference.as_ref()?.step_name, 30))).collect();
    steps.dedup();
    let missing = coefficients.iter().filter(|coefficient| coefficient.inference.is_none()).count();
    let legend = [(Ink::Accent, "interval without 1"), (Ink::Faint, "interval with 1: no evidence")];
    let caption = html! {
        "Right of the dashed line: more requests; left: fewer; across it: either. Steps: " (steps.join(", ")) "."
        @if missing > 0 { " Without an interval, and not shown: " (missing) "." }
    };
    let figure = Figure::new("Odds ratio per step", &legend, caption);
    let absent = "No feature has an interval: its values are all the same, or the effects cannot be separated.";
    let inside = html! {
        div.columns {
            (figure.with(charts::forest(coefficients), absent))
            p.note { (penalty(page.model)) }
        }
        (coefficient_table(coefficients))
    };
    let lead = "The factor by which the odds of a service request change if one feature grows by a natural step and \
        the others stay the same.";
    section("odds", "Coefficients as odds ratios", lead, inside)
}

/// Sentence about what the intervals mean under the penalty.
fn penalty(model: &Model) -> String {
    if model.alpha.is_nan() || model.alpha <= 0.0 {
        return "There is no penalty: the intervals are Wald intervals.".to_owned();
    }
    let prior_mean = match model.prior_mean {
        Some(_) => "those of the global model",
        None => "0, the odds ratios towards 1,",
    };
    format!(
        "The penalty (alpha = {}) shrinks the weights towards {prior_mean}. The intervals are those of the penalised \
         likelihood: they measure the uncertainty of the shrunk weights, not the shrinkage. With many rides for the \
         penalty they hardly differ from unpenalised ones.",
        setting(model.alpha)
    )
}

fn coefficient_table(coefficients: &[Coefficient]) -> Markup {
    let row = |coefficient: &Coefficient| {
        let [ratio, step, standard_error, z, p] = match &coefficient.inference {
            Some(inference) => [
                format!("× {}", ratio(&inference.odds_ratio)),
                excerpt(&inference.step_name, 30),
                significant(inference.standard_error, 2),
                significant(inference.z, 3),
                p_value(inference.p_value),
            ],
            None => std::array::from_fn(|_| NONE.to_owned()),
        };
        let per_unit = significant(coefficient.per_unit, 4);
        let standardised = significant(coefficient.standardised, 3);
        let (name, unit) = (FeatureWords::of(coefficient).name, excerpt(&coefficient.unit, 30));
        vec![name, ratio, step, per_unit, standard_error, z, p, standardised, unit]
    };
    let head = [
        "Feature",
        "odds ratio (95 %)",
        "per",
        "log-odds per unit",
        "standard error",
        "z",
        "p",
        "per standard deviation",
        "unit",
    ];
    table("Coefficients", &head, coefficients.iter().map(row).collect::<Vec<_>>())
}

/// Formats a number so that a program reads the same number.
fn exact(value: f64) -> String {
    match value {
        value if !value.is_finite() => "0".to_owned(),
        value if value == 0.0 || (1e-5..1e15).contains(&value.abs()) => format!("{value}"),
        value => format!("{value:e}"),
    }
}

/// The model as a formula to copy into a program.
pub(super) fn formula(model: &Model) -> String {
    let width = model.coefficients.iter().map(|c| c.feature.chars().count().min(40)).max().unwrap_or(0);
    let mut text = format!("log_odds = ({}", exact(model.intercept));
    for coefficient in &model.coefficients {
        let name = excerpt(&coefficient.feature, 40);
        let sign = if coefficient.per_unit < 0.0 { '-' } else { '+' };
        let unit = excerpt(&coefficient.unit, 30);
        text.push_str(&format!("\n    {sign} {name:<width$} * {:<24} # {unit}", exact(coefficient.per_unit.abs())));
    }
    text.push_str("\n)\nprobability = 1 / (1 + exp(-log_odds))");
    text.push_str(&format!("\nservice = probability >= {}", exact(model.threshold)));
    text
}
