//! Charts of a model: from its metrics to marks on axes.

use super::{
    figures::{FeatureWords, significant},
    plot::{Axis, Ink, Mark, Plot, Side},
};
use common::model::{Candidate, Coefficient, Confusion, Histogram, Interval, Metrics, RocPoint};

/// Width and height of a chart in pixels: on a phone the width of the screen, elsewhere a column.
const SIZE: (u32, u32) = (380, 270);
const LINE: u32 = 20;
const THIN: u32 = 12;
/// Odds ratios beyond this, or below its inverse, are drawn at the edge.
const ODDS_MAX: f64 = 1e3;

/// Returns the 95 % score interval of a share (Wilson 1927).
pub(super) fn wilson(part: u64, whole: u64) -> Interval {
    const Z: f64 = 1.959_963_984_540_054;
    if whole == 0 {
        return Interval { value: 0.0, lower: 0.0, upper: 1.0 };
    }
    let (n, share) = (whole as f64, (part as f64 / whole as f64).min(1.0));
    let middle = share + Z * Z / (2.0 * n);
    let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    Interval { value: share, lower: ((middle - half) / scale).max(0.0), upper: ((middle + half) / scale).min(1.0) }
}

/// Marks a value and its interval, as a vertical line without caps.
fn upright(x: f64, interval: &Interval, ink: Ink, marks: &mut Vec<Mark>) {
    marks.push(Mark::Line(vec![(x, interval.lower), (x, interval.upper)], ink, LINE));
    marks.push(Mark::Dot((x, interval.value), ink, 38));
}

fn guide(points: [(f64, f64); 2]) -> Mark {
    Mark::Line(points.to_vec(), Ink::Guide, THIN)
}

/// A bin of a histogram that has rides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bin {
    /// Mean value in the unit of [`FeatureWords`].
    pub(super) value: f64,
    /// Number of rides.
    pub(super) rides: u64,
    /// Share of rides with a service request, with its interval.
    pub(super) observed: Interval,
    /// Mean probability of the model.
    pub(super) predicted: f64,
}

/// Returns the bins of a feature that have rides.
pub(super) fn bins(histogram: &Histogram, words: &FeatureWords) -> Vec<Bin> {
    let Histogram { rides, services, mean, mean_probability, .. } = histogram;
    let of = |((rides, services), (mean, predicted)): ((&u64, &u64), (&f64, &f64))| Bin {
        value: words.value(*mean),
        rides: *rides,
        observed: wilson(*services, *rides),
        predicted: *predicted,
    };
    let all = rides.iter().zip(services).zip(mean.iter().zip(mean_probability)).map(of);
    all.filter(|bin| bin.rides > 0 && bin.value.is_finite() && bin.predicted.is_finite()).collect()
}

/// Share of rides with a service request over the values of a feature, and the mean probability of the model.
pub(super) fn rate(bins: &[Bin], words: &FeatureWords) -> Option<Plot> {
    if bins.is_empty() {
        return None;
    }
    let largest = bins.iter().map(|bin| bin.observed.upper.max(bin.predicted)).fold(0.0, f64::max);
    let has_unit = words.name.to_lowercase().ends_with(&words.unit);
    let name = if has_unit { words.name.clone() } else { format!("{}, {}", words.name, words.unit) };
    let x = Axis::linear(name, bins.iter().map(|bin| bin.value), 5);
    let mut marks = vec![Mark::Line(bins.iter().map(|bin| (bin.value, bin.predicted)).collect(), Ink::Other, LINE)];
    for bin in bins {
        upright(bin.value, &bin.observed, Ink::Accent, &mut marks);
    }
    Some(Plot { size: SIZE, x, y: Axis::shares_to("Rides with a service request", largest), marks })
}

/// One row of a chart of intervals.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// Text left of the axis.
    pub(super) label: String,
    pub(super) interval: Interval,
    pub(super) ink: Ink,
}

/// Values with their intervals one below the other. `none` marks the value of no difference.
pub(super) fn intervals(rows: &[Row], x: Axis, none: Option<f64>) -> Option<Plot> {
    if rows.is_empty() {
        return None;
    }
    let height = 62 + 30 * rows.len().min(60) as u32;
    let mut marks: Vec<Mark> = none.map(|none| guide([(none, 0.0), (none, rows.len() as f64)])).into_iter().collect();
    for (row, Row { interval, ink, .. }) in rows.iter().enumerate() {
        let y = row as f64 + 0.5;
        marks.push(Mark::Line(vec![(interval.lower, y), (interval.upper, y)], *ink, LINE));
        marks.push(Mark::Dot((interval.value, y), *ink, 45));
    }
    Some(Plot { size: (SIZE.0, height), x, y: Axis::rows(rows.iter().map(|row| row.label.clone())), marks })
}

/// An axis for differences; it always contains 0.
pub(super) fn differences(name: &str, rows: &[Row]) -> Axis {
    Axis::linear(name, rows.iter().flat_map(|row| ends(&row.interval)).chain([0.0]), 4)
}

/// Returns lower end, value and upper end.
pub(super) fn ends(interval: &Interval) -> [f64; 3] {
    [interval.lower, interval.value, interval.upper]
}

/// Odds ratios per step of each feature.
pub(super) fn forest(coefficients: &[Coefficient]) -> Option<Plot> {
    let within = |interval: &Interval| {
        let [lower, value, upper] = ends(interval).map(|end| end.clamp(1.0 / ODDS_MAX, ODDS_MAX));
        Interval { value, lower, upper }
    };
    let row = |coefficient: &Coefficient| {
        let inference = coefficient.inference.as_ref()?;
        let interval = Some(within(&inference.odds_ratio)).filter(|i| ends(i).iter().all(|end| end.is_finite()))?;
        let is_significant = interval.lower > 1.0 || interval.upper < 1.0;
        let label = FeatureWords::of(coefficient).name;
        Some(Row { label, interval, ink: if is_significant { Ink::Accent } else { Ink::Faint } })
    };
    let rows: Vec<Row> = coefficients.iter().filter_map(row).collect();
    let x = Axis::log("Odds multiplied by", rows.iter().flat_map(|row| ends(&row.interval)).chain([0.9, 1.1]));
    intervals(&rows, x, Some(1.0))
}

/// ROC curves; an empty one is left out.
pub(super) fn roc(train: &[RocPoint], test: &[RocPoint]) -> Option<Plot> {
    if train.is_empty() && test.is_empty() {
        return None;
    }
    let curve = |points: &[RocPoint], ink: Ink, width: u32| {
        let points = points.iter().map(|point| (point.false_positive_rate, point.true_positive_rate)).collect();
        Mark::Line(points, ink, width)
    };
    let marks = vec![guide([(0.0, 0.0), (1.0, 1.0)]), curve(train, Ink::Other, THIN), curve(test, Ink::Accent, LINE)];
    let x = Axis::shares("False positive rate");
    Some(Plot { size: (SIZE.0, 330), x, y: Axis::shares("True positive rate (recall)"), marks })
}

/// Returns the numbers of rides with and without a service request.
fn classes(confusion: &Confusion) -> (f64, f64) {
    let Confusion { true_negative, false_positive, false_negative, true_positive } = *confusion;
    (true_positive as f64 + false_negative as f64, true_negative as f64 + false_positive as f64)
}

/// Share of rides with a service request.
pub(super) fn service_share(metrics: &Metrics) -> f64 {
    let (positives, negatives) = classes(&metrics.confusion);
    if positives + negatives > 0.0 { positives / (positives + negatives) } else { 0.0 }
}

/// Recall and precision at each point of a ROC curve with a positive prediction.
pub(super) fn precision_recall_points(metrics: &Metrics) -> Vec<(f64, f64)> {
    let (positives, negatives) = classes(&metrics.confusion);
    let point = |point: &RocPoint| {
        let (correct, wrong) = (point.true_positive_rate * positives, point.false_positive_rate * negatives);
        (correct + wrong > 0.0).then(|| (point.true_positive_rate, correct / (correct + wrong)))
    };
    metrics.roc.iter().filter_map(point).filter(|(_, precision)| precision.is_finite()).collect()
}

/// Precision over recall.
pub(super) fn precision_recall(train: &Metrics, test: Option<&Metrics>) -> Option<Plot> {
    let (of_train, of_test) = (precision_recall_points(train), test.map(precision_recall_points).unwrap_or_default());
    if of_train.is_empty() && of_test.is_empty() {
        return None;
    }
    let share = service_share(test.filter(|_| !of_test.is_empty()).unwrap_or(train));
    let marks = vec![
        guide([(0.0, share), (1.0, share)]),
        Mark::Line(of_train, Ink::Other, THIN),
        Mark::Line(of_test, Ink::Accent, LINE),
    ];
    let x = Axis::shares("Recall: share of the service requests that are found");
    Some(Plot { size: (SIZE.0, 330), x, y: Axis::shares("Precision: share of the predictions that are right"), marks })
}

/// Observed shares over predicted probabilities; below, the number of rides in each bin.
pub(super) fn calibration(metrics: &Metrics) -> Option<Plot> {
    let bins = &metrics.calibration;
    if bins.is_empty() {
        return None;
    }
    let most = bins.iter().map(|bin| bin.rides).max().unwrap_or(1).max(1) as f64;
    let bar = |from: f64, to: f64, rides: u64| {
        let inset = (to - from) * 0.08;
        Mark::Bar((from + inset, 0.0), (to - inset, rides as f64 / most * 0.2), Ink::Guide, 0.45)
    };
    let mut marks: Vec<Mark> = bins.iter().map(|bin| bar(bin.from, bin.to, bin.rides)).collect();
    marks.push(guide([(0.0, 0.0), (1.0, 1.0)]));
    for bin in bins {
        let services = (bin.service_share.clamp(0.0, 1.0) * bin.rides as f64).round() as u64;
        upright(bin.mean_probability, &wilson(services, bin.rides), Ink::Accent, &mut marks);
    }
    let x = Axis::shares("Probability the model gave, mean of the bin");
    Some(Plot { size: (SIZE.0, 330), x, y: Axis::shares("Rides that ended in a service request"), marks })
}

/// Costs of wrong decisions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Costs {
    /// Cost of a service prepared in vain.
    pub(super) false_positive: f64,
    /// Cost of a service that was not prepared.
    pub(super) false_negative: f64,
}

impl Costs {
    /// Mean cost per ride at each threshold, in rising order of the threshold.
    pub(super) fn curve(self, metrics: &Metrics) -> Vec<(f64, f64)> {
        let share = service_share(metrics);
        let cost = |point: &RocPoint| {
            let in_vain = point.false_positive_rate * (1.0 - share) * self.false_positive;
            let missed = (1.0 - point.true_positive_rate) * share * self.false_negative;
            (point.threshold, in_vain + missed)
        };
        let mut curve: Vec<(f64, f64)> =
            metrics.roc.iter().rev().map(cost).filter(|(_, cost)| cost.is_finite()).collect();
        // Below the smallest threshold all rides are predicted positive; above the second largest, none is.
        if let Some((_, first)) = curve.first().copied() {
            curve.insert(0, (0.0, first));
        }
        if let [.., (before, _), (_, last)] = curve[..] {
            let at = curve.len() - 1;
            curve.insert(at, (before, last));
        }
        curve
    }
}

/// Cost over the threshold; the chosen threshold is marked.
pub(super) fn cost(
    train: &[(f64, f64)],
    test: &[(f64, f64)],
    threshold: f64,
    name: &str,
    in_percent: bool,
) -> Option<Plot> {
    if train.len() < 2 && test.len() < 2 {
        return None;
    }
    let values = || train.iter().chain(test).map(|(_, cost)| *cost);
    let y = match in_percent {
        true => Axis::shares_to(name, values().fold(0.0, f64::max)),
        false => Axis::from_zero(name, values(), 0.0),
    };
    let top = values().fold(0.0, f64::max) * 1.2;
    let marks = vec![
        Mark::Line(vec![(threshold, 0.0), (threshold, top)], Ink::Mark, LINE),
        Mark::Line(train.to_vec(), Ink::Other, THIN),
        Mark::Line(test.to_vec(), Ink::Accent, LINE),
    ];
    Some(Plot { size: SIZE, x: Axis::shares("Threshold: minimum probability of a service request"), y, marks })
}

/// Distribution of the predicted probabilities.
pub(super) fn predicted(counts: &[u64], threshold: f64) -> Option<Plot> {
    let all: f64 = counts.iter().map(|count| *count as f64).sum();
    if counts.is_empty() || all <= 0.0 {
        return None;
    }
    let width = 1.0 / counts.len() as f64;
    let bar = |(at, count): (usize, &u64)| {
        let from = at as f64 * width;
        Mark::Bar((from + width * 0.08, 0.0), (from + width * 0.92, *count as f64 / all), Ink::Accent, 0.75)
    };
    let mut marks: Vec<Mark> = counts.iter().enumerate().map(bar).collect();
    marks.push(Mark::Line(vec![(threshold, 0.0), (threshold, 1.0)], Ink::Mark, LINE));
    let largest = counts.iter().map(|count| *count as f64 / all).fold(0.0, f64::max);
    let y = Axis::shares_to("Share of the rides trained on", largest);
    Some(Plot { size: SIZE, x: Axis::shares("Probability the model gives"), y, marks })
}

/// Cross-validated log-loss over the candidates; the chosen one is marked. A candidate of 0 is drawn one decade below the smallest.
pub(super) fn candidates(candidates: &[Candidate], chosen: f64, name: &str) -> Option<Plot> {
    let losses: Vec<(f64, f64)> = candidates
        .iter()
        .filter(|candidate| candidate.alpha.is_finite() && candidate.alpha >= 0.0)
        .filter_map(|candidate| Some((candidate.alpha, candidate.log_loss.filter(|loss| loss.is_finite())?)))
        .collect();
    if losses.len() < 2 {
        return None;
    }
    let positive = losses.iter().map(|(alpha, _)| *alpha).filter(|alpha| *alpha > 0.0);
    let zero_at = positive.clone().fold(f64::INFINITY, f64::min) / 10.0;
    let zero_at = if zero_at.is_normal() { zero_at } else { 1e-3 };
    let place = |alpha: f64| if alpha > 0.0 { alpha } else { zero_at };
    let mut x = Axis::log(name, losses.iter().map(|(alpha, _)| place(*alpha)));
    if losses.iter().any(|(alpha, _)| *alpha == 0.0) {
        let labels = losses.iter().map(|(alpha, _)| (place(*alpha), significant(*alpha, 1)));
        x = x.with_ticks(labels.take(8).collect());
    }
    let y = Axis::linear("Log-loss (less is better)", losses.iter().map(|(_, loss)| *loss), 4);
    let mut marks =
        vec![Mark::Line(losses.iter().map(|(alpha, loss)| (place(*alpha), *loss)).collect(), Ink::Accent, THIN)];
    marks.extend(losses.iter().map(|(alpha, loss)| Mark::Dot((place(*alpha), *loss), Ink::Accent, 30)));
    if let Some((alpha, loss)) = losses.iter().find(|(alpha, _)| *alpha == chosen) {
        marks.push(Mark::Dot((place(*alpha), *loss), Ink::Mark, 62));
        marks.push(Mark::Text((place(*alpha), *loss), "chosen".to_owned(), Ink::Text, Side::Above));
    }
    Some(Plot { size: SIZE, x, y, marks })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: Newcombe 1998, table I, method 3.
    #[test]
    fn score_intervals_agree_with_the_literature() {
        for (part, whole, lower, upper) in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)]
        {
            let interval = wilson(part, whole);
            assert!((interval.lower - lower).abs() < 1e-4 && (interval.upper - upper).abs() < 1e-4, "{interval:?}");
        }
        assert_eq!(wilson(0, 0), Interval { value: 0.0, lower: 0.0, upper: 1.0 });
    }

    fn metrics() -> Metrics {
        let log_odds = |p: f64| (p / (1.0 - p)).ln();
        let predictions =
            [(0.9, true), (0.8, false), (0.8, true), (0.4, true), (0.2, false)].map(|(p, y)| (log_odds(p), y));
        crate::evaluate::metrics::evaluate(predictions, 0.5).unwrap()
    }

    /// Precision, recall and wrong decisions at each threshold, computed by hand from five rides.
    #[test]
    fn curves_follow_from_the_roc_points() {
        let metrics = metrics();
        assert_eq!(
            precision_recall_points(&metrics),
            [(1.0 / 3.0, 1.0), (2.0 / 3.0, 2.0 / 3.0), (1.0, 0.75), (1.0, 0.6)]
        );
        let near = |curve: Vec<(f64, f64)>, expected: &[(f64, f64)]| {
            let close = |(a, b): (&(f64, f64), &(f64, f64))| (a.0 - b.0).abs() < 1e-12 && (a.1 - b.1).abs() < 1e-12;
            assert!(curve.len() == expected.len() && curve.iter().zip(expected).all(close), "{curve:?}");
        };
        let wrong = [(0.0, 0.4), (0.2, 0.4), (0.4, 0.2), (0.8, 0.4), (0.9, 0.4), (0.9, 0.6), (1.0, 0.6)];
        near(Costs { false_positive: 1.0, false_negative: 1.0 }.curve(&metrics), &wrong);
        let dear = [(0.0, 0.4), (0.2, 0.4), (0.4, 0.2), (0.8, 2.2), (0.9, 4.0), (0.9, 6.0), (1.0, 6.0)];
        near(Costs { false_positive: 1.0, false_negative: 10.0 }.curve(&metrics), &dear);
        let absurd = Costs { false_positive: f64::MAX, false_negative: f64::MAX * 2.0 }.curve(&metrics);
        assert!(absurd.iter().all(|(_, cost)| cost.is_finite()));
    }
}
