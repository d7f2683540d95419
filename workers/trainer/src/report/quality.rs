//! Quality of the model, cost of its decisions, and choice of its penalty.

use super::{
    Page,
    charts::{self, Costs},
    figures::{NONE, count, counted, decimals, percent, percent_of, setting, significant},
    parts::{Figure, section, table},
    plot::{Axis, Ink},
    words,
};
use common::model::{BrierDecomposition, Confusion, Criterion, Metrics, Model};
use maud::{Markup, html};

const BOTH: [(Ink, &str); 2] = [(Ink::Accent, "held out"), (Ink::Other, "trained on")];

/// Formats a score with four decimals, enough to compare models.
fn score(value: Option<f64>) -> String {
    value.map_or(NONE.to_owned(), |value| decimals(value, 4))
}

fn part(metrics: &Metrics, part: fn(&BrierDecomposition) -> f64) -> String {
    score(metrics.brier_decomposition.as_ref().map(part))
}

/// Name of a measure, with what a large value means; and its value as text.
type Measure = (&'static str, fn(&Metrics) -> String);

pub(super) const MEASURES: [Measure; 15] = [
    ("Rides", |of| count(of.rides)),
    ("With a service request", |of| percent(charts::service_share(of))),
    ("Log-loss (less is better)", |of| score(Some(of.log_loss))),
    ("Area under the ROC curve (0.5 is guessing)", |of| score(of.roc_auc)),
    ("Average precision (the share with a request is guessing)", |of| score(of.average_precision)),
    ("Brier score (less is better)", |of| score(Some(of.brier))),
    ("= reliability (0 is best)", |of| part(of, |parts| parts.reliability)),
    ("− resolution (more is better)", |of| part(of, |parts| parts.resolution)),
    ("+ uncertainty (of the rides, not the model)", |of| part(of, |parts| parts.uncertainty)),
    ("+ within bins", |of| part(of, |parts| parts.within_bins)),
    ("Expected calibration error (0 is best)", |of| score(of.calibration_error)),
    ("Accuracy, at the threshold", |of| percent(of.accuracy)),
    ("Precision, at the threshold", |of| of.precision.map_or(NONE.to_owned(), percent)),
    ("Recall, at the threshold", |of| of.recall.map_or(NONE.to_owned(), percent)),
    ("F1, at the threshold", |of| score(of.f1)),
];

/// Legend of a calibration chart.
pub(super) const CALIBRATION: [(Ink, &str); 2] =
    [(Ink::Accent, "observed share, 95 % interval"), (Ink::Guide, "rides in the bin")];

/// Ranking and calibration.
pub(super) fn quality(page: &Page<'_>) -> Markup {
    let model = page.model;
    let (train, test) = (&model.train, model.test.as_ref());
    let (metrics, whose) = words::evaluation(model);
    let rows = MEASURES.map(|(name, value)| vec![name.to_owned(), test.map_or(NONE.to_owned(), value), value(train)]);
    let caption = html! {
        "One point per threshold: the further up and to the left, the better; the dashed line is guessing."
        @if test.is_some() { " If the curve of the rides trained on is clearly above the other, the model is \
            overfitted." }
    };
    let roc = Figure::new("ROC curve", &BOTH, caption);
    let test_roc = test.map(|test| test.roc.as_slice()).unwrap_or_default();
    let caption = "One point per threshold: precision over recall. Dashed: guessing.";
    let precision = Figure::new("Precision and recall", &BOTH, caption);
    let calibration = Figure {
        title: "Calibration".to_owned(),
        legend: &CALIBRATION,
        caption: html! {
            "On " (counted(metrics.rides, "ride")) " " (whose) ". On the dashed line the probability equals the \
                observed share; below it the probability is too high. Expected calibration error " (score(metrics.calibration_error)) "."
        },
        numbers: Some(calibration_table(metrics)),
    };
    let one_class = "All these rides are with a service request, or all without: there is no curve.";
    let inside = html! {
        div.columns {
            (roc.with(charts::roc(&train.roc, test_roc), one_class))
            (precision.with(charts::precision_recall(train, test), one_class))
            (calibration.with(charts::calibration(metrics), "Calibration is not recorded for this model."))
        }
        (table("Measures", &["Measure", "held out", "trained on"], rows))
    };
    let lead = if test.is_some() {
        "Judge by the held-out rides: the model never saw them."
    } else {
        "No ride was held out: all figures are on the rides trained on, which favours the model."
    };
    section("quality", "Quality", lead, inside)
}

fn calibration_table(metrics: &Metrics) -> Markup {
    let rows = metrics.calibration.iter().map(|bin| {
        vec![
            format!("{} to {}", percent(bin.from), percent(bin.to)),
            count(bin.rides),
            percent(bin.mean_probability),
            percent(bin.service_share),
        ]
    });
    table("Calibration by bin", &["Probability", "rides", "mean probability", "observed"], rows.collect::<Vec<_>>())
}

/// Returns the costs of wrong decisions, and whether the settings give them.
fn costs(model: &Model) -> (Costs, bool) {
    match model.settings.threshold {
        Criterion::Cost { false_positive, false_negative } => (Costs { false_positive, false_negative }, true),
        _ => (Costs { false_positive: 1.0, false_negative: 1.0 }, false),
    }
}

/// Confusion and cost.
pub(super) fn decisions(page: &Page<'_>) -> Markup {
    let model = page.model;
    let (metrics, whose) = words::evaluation(model);
    let (costs, given) = costs(model);
    let curve = |of: &Metrics| costs.curve(of);
    let (of_train, of_test) = (curve(&model.train), model.test.as_ref().map(curve).unwrap_or_default());
    let (title, axis) = if given {
        ("Cost over the threshold", "Cost per ride")
    } else {
        ("Wrong decisions over the threshold", "Rides decided wrongly")
    };
    let in_train = of_train.iter().min_by(|a, b| a.1.total_cmp(&b.1)).map(|(threshold, _)| *threshold);
    let legend = [(Ink::Accent, "held out"), (Ink::Other, "trained on"), (Ink::Mark, "threshold")];
    let caption = html! {
        @if given {
            "A service prepared in vain costs " (setting(costs.false_positive)) ", a missed one " (setting(costs.false_negative)) "."
        } @else {
            "The settings give no costs: both kinds of wrong decision count the same. If their costs \
                differ, another threshold is better (trainer.threshold)."
        }
        @if let Some(threshold) = in_train { " Least on the rides trained on: near " (percent(threshold)) "." }
    };
    let figure = Figure::new(title, &legend, caption);
    let legend = [(Ink::Accent, "rides trained on"), (Ink::Mark, "threshold")];
    let caption = "A weak model gives all rides nearly the same probability; a strong one spreads them to both ends.";
    let predicted = Figure::new("Distribution of probabilities", &legend, caption);
    let inside = html! {
        p { (words::threshold(model)) }
        div.columns {
            figure {
                h3 { "Decisions and labels, " (counted(metrics.rides, "ride")) " " (whose) }
                (confusion(metrics))
                figcaption { "Decisions at the threshold against labels. In brackets: the share of all rides." }
            }
            (figure.with(
                charts::cost(&of_train, &of_test, model.threshold, axis, !given),
                "All rides are with a service request, or all without, or the costs are too large to draw: there is \
                    no curve.",
            ))
            (predicted.with(
                charts::predicted(&model.predicted, model.threshold),
                "The distribution of probabilities is not recorded for this model.",
            ))
        }
    };
    section("decisions", "Decisions", "", inside)
}

fn confusion(metrics: &Metrics) -> Markup {
    let Confusion { true_negative, false_positive, false_negative, true_positive } = metrics.confusion;
    let cell = |rides: u64, class: &str, words: &str| {
        html! { td class=(class) { strong { (count(rides)) } " (" (percent_of(rides, metrics.rides)) ")" br; small { (words) } } }
    };
    html! {
        table.confusion {
            thead { tr { td {} th scope="col" { "decided: no service" } th scope="col" { "decided: service" } } }
            tbody {
                tr {
                    th scope="row" { "label: no service" }
                    (cell(true_negative, "right", "true negative"))
                    (cell(false_positive, "wrong", "false positive"))
                }
                tr {
                    th scope="row" { "label: service" }
                    (cell(false_negative, "wrong", "false negative"))
                    (cell(true_positive, "right", "true positive"))
                }
            }
        }
    }
}

/// Choice of the penalty.
pub(super) fn selection(page: &Page<'_>) -> Markup {
    let model = page.model;
    let Some(selection) = &model.selection else {
        let words = format!(
            "There was nothing to choose: the settings give one penalty (alpha = {}) and a threshold.",
            setting(model.alpha)
        );
        return section("selection", "Selection", "", html! { p.absent { (words) } });
    };
    let rows = selection.candidates.iter().map(|candidate| {
        let loss = candidate.log_loss.map_or("could not be trained".to_owned(), |loss| significant(loss, 6));
        let chosen = if candidate.alpha == model.alpha { "chosen" } else { "" };
        vec![setting(candidate.alpha), loss, chosen.to_owned()]
    });
    let numbers = table("Penalties tried", &["alpha", "log-loss", ""], rows.collect::<Vec<_>>());
    let losses: Vec<f64> = selection
        .candidates
        .iter()
        .filter_map(|candidate| candidate.log_loss)
        .filter(|loss| loss.is_finite())
        .collect();
    let (least, most) =
        (losses.iter().copied().fold(f64::INFINITY, f64::min), losses.iter().copied().fold(0.0, f64::max));
    let caption = if most - least < 0.001 * least {
        "The choice hardly matters: all are within a thousandth of each other."
    } else {
        "Further left, the model follows the rides more closely; further right, the features have less weight."
    };
    let figure = Figure::new("Cross-validated log-loss", &[], caption);
    let lead = format!(
        "How strongly the weights are shrunk towards 0, chosen by cross-validation with {} folds on {} trained on.",
        selection.folds,
        counted(selection.rides, "ride")
    );
    let plot = charts::candidates(&selection.candidates, model.alpha, "Penalty alpha");
    let inside = match plot {
        Some(plot) => html! { div.columns { (figure.with(Some(plot), "")) (numbers) } },
        None => html! { p.absent { "Fewer than two penalties could be evaluated: there is no curve." } (numbers) },
    };
    section("selection", "Selection", &lead, inside)
}

/// An axis that contains the intervals of these rows.
pub(super) fn axis_of(name: &str, rows: &[charts::Row]) -> Axis {
    Axis::linear(name, rows.iter().flat_map(|row| charts::ends(&row.interval)), 4)
}
