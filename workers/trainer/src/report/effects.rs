//! What the features do: service rates over their values, odds, the formula.

use super::{
    Page, charts,
    figures::{Spoken, count, foreign, p_value, percent, ratio, setting, significant},
    parts::{Figure, section, table},
    plot::Ink,
};
use common::model::{Coefficient, Model};
use maud::{Markup, html};

/// How often service was asked for, by feature.
pub(super) fn rates(page: &Page<'_>) -> Markup {
    let inside = html! {
        @if page.model.coefficients.is_empty() { p.absent { "The model uses no feature." } }
        div.columns { @for coefficient in &page.model.coefficients { (rate(coefficient)) } }
    };
    let lead = "Rides trained on, about a tenth of them in each point. The model's line is its mean probability for \
        the same rides: all \
                their features have a say in it, not this one alone.";
    section("rates", "Service rate over each feature", lead, inside)
}

fn rate(coefficient: &Coefficient) -> Markup {
    let spoken = Spoken::of(coefficient);
    let bins = coefficient.histogram.as_ref().map(|histogram| charts::bins(histogram, &spoken)).unwrap_or_default();
    let rows: Vec<Vec<String>> = bins
        .iter()
        .map(|bin| {
            let [lower, value, upper] = charts::ends(&bin.observed).map(percent);
            vec![significant(bin.value, 3), count(bin.rides), value, format!("{lower} to {upper}"), percent(bin.said)]
        })
        .collect();
    let mean = format!("Mean, {}", spoken.unit);
    let head = [mean.as_str(), "rides", "with a request", "95 % interval", "model"];
    let outside = bins.iter().filter(|bin| bin.said < bin.observed.lower || bin.said > bin.observed.upper).count();
    let caption = match (bins.len(), outside) {
        (1, _) => "All rides have the same value, or nearly.".to_owned(),
        (_, 0) => "The model is within every interval.".to_owned(),
        (all, outside) => format!(
            "The model is outside {outside} of {all} intervals{}.",
            if outside * 5 > all {
                ": a straight line in log-odds does not tell all there is here"
            } else {
                "; one in twenty would be by chance"
            }
        ),
    };
    let figure = Figure {
        title: format!("Service rate by {}", spoken.name.to_lowercase()),
        legend: &[(Ink::Accent, "observed, 95 % interval"), (Ink::Other, "model")],
        caption: html! { (caption) },
        numbers: Some(table("Service rate by value", &head, rows)),
    };
    figure.with(charts::rate(&bins, &spoken), "No histogram is recorded for this feature.")
}

/// What a natural step multiplies the odds by.
pub(super) fn odds(page: &Page<'_>) -> Markup {
    let model = page.model;
    let row = |coefficient: &Coefficient| {
        let spoken = Spoken::of(coefficient);
        let mut row = vec![spoken.name.clone()];
        match &coefficient.inference {
            Some(inference) => row.extend([
                format!("× {}", ratio(&inference.odds_ratio)),
                foreign(&inference.step_name, 30),
                significant(coefficient.per_unit, 4),
                significant(inference.standard_error, 2),
                significant(inference.z, 3),
                p_value(inference.p_value),
                significant(coefficient.standardised, 3),
            ]),
            None => row.extend(
                ["–", "–"]
                    .map(str::to_owned)
                    .into_iter()
                    .chain([significant(coefficient.per_unit, 4)])
                    .chain(["–", "–", "–"].map(str::to_owned))
                    .chain([significant(coefficient.standardised, 3)]),
            ),
        }
        row.push(foreign(&coefficient.unit, 30));
        row
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
    let numbers = table("Coefficients", &head, model.coefficients.iter().map(row).collect::<Vec<_>>());
    let plot = charts::forest(&model.coefficients);
    let mut steps: Vec<String> =
        model.coefficients.iter().filter_map(|c| Some(foreign(&c.inference.as_ref()?.step_name, 30))).collect();
    steps.dedup();
    let missing = model.coefficients.iter().filter(|coefficient| coefficient.inference.is_none()).count();
    let penalty = if model.alpha > 0.0 {
        format!(
            "The weights are drawn towards {} by a penalty (alpha = {}). The intervals are those of the penalised \
                likelihood: they say how \
             sure the drawn weights are, not how far they were drawn; with many rides for the penalty both hardly differ from \
             unpenalised ones.",
            if model.centre.is_some() { "those of the model of all rides" } else { "0, the odds ratios towards 1," },
            setting(model.alpha)
        )
    } else {
        "Without a penalty: the intervals are the classical ones (Wald).".to_owned()
    };
    let figure = Figure {
        title: "Odds ratio per step".to_owned(),
        legend: &[(Ink::Accent, "interval without 1"), (Ink::Faint, "interval with 1: no evidence")],
        caption: html! {
                    "Right of the dashed line: more requests; left: fewer; across it: either. Steps: "
        (steps.join(", "))
                    "."
                    @if missing > 0 { " Without an interval, and not shown: " (missing) "." }
                },
        numbers: None,
    };
    let inside = html! {
        div.columns {
            (figure.with(plot, "No feature has an interval: its values are all the same, or the weights cannot be \
                told apart."))
            p.note { (penalty) }
        }
        (numbers)
    };
    let lead = "By what the odds of a service request are multiplied when one feature grows by a step one can \
        imagine and the others stay.";
    section("odds", "Coefficients as odds ratios", lead, inside)
}

/// A number that a program reads as the same number.
fn exact(value: f64) -> String {
    match value {
        value if !value.is_finite() => "0".to_owned(),
        value if value == 0.0 || (1e-5..1e15).contains(&value.abs()) => format!("{value}"),
        value => format!("{value:e}"),
    }
}

/// To be copied into a program.
pub(super) fn formula(model: &Model) -> String {
    let width = model.coefficients.iter().map(|c| c.feature.chars().count().min(40)).max().unwrap_or(0);
    let mut text = format!("log_odds = ({}", exact(model.intercept));
    for coefficient in &model.coefficients {
        let name = foreign(&coefficient.feature, 40);
        let sign = if coefficient.per_unit < 0.0 { '-' } else { '+' };
        let unit = foreign(&coefficient.unit, 30);
        text.push_str(&format!("\n    {sign} {name:<width$} * {:<24} # {unit}", exact(coefficient.per_unit.abs())));
    }
    text.push_str("\n)\nprobability = 1 / (1 + exp(-log_odds))");
    text.push_str(&format!("\nservice = probability >= {}", exact(model.threshold)));
    text
}
