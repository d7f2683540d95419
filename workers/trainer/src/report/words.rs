//! What may be said of a model, and no more: from its figures to sentences.

use super::{
    charts,
    figures::{Spoken, count, counted, p_is, percent, percent_of, ratio, significant, with_interval},
};
use crate::promote::EVIDENCE_P_MAX;
use common::{
    features::FeatureSet,
    model::{Coefficient, HeldOut, Interval, LikelihoodRatio, Metrics, Model, WarningCode},
};
use statrs::distribution::{ChiSquared, ContinuousCDF};

/// From here on chance is explanation enough.
const HINT_P_MAX: f64 = 0.05;
/// A log-loss smaller by less than this share of it is hardly a help.
const SLIGHT_MAX: f64 = 0.02;
/// Fewer rides say nothing about probabilities.
const CALIBRATION_RIDES_MIN: u64 = 100;
/// Off by less than this on average is near enough for most uses.
const CALIBRATION_ERROR_MAX: f64 = 0.05;
/// A bin with fewer rides expected of a class goes with its neighbour.
const EXPECTED_MIN: f64 = 5.0;

/// How an answer turned out, for a mark beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// As one hopes for.
    Good,
    /// With a grain of salt.
    Weak,
    /// Not so.
    Bad,
    /// Not known.
    Unknown,
}

/// A question about the model, and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// The question.
    pub(super) question: &'static str,
    /// How it turned out.
    pub(super) tone: Tone,
    /// In a word or two.
    pub(super) short: String,
    /// In sentences.
    pub(super) long: String,
}

impl Finding {
    fn new(question: &'static str, tone: Tone, short: &str, long: impl Into<String>) -> Self {
        Self { question, tone, short: short.to_owned(), long: long.into() }
    }
}

/// What a test on the rides trained on and a comparison on those held out say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Neither could be done.
    Untested,
    /// Chance is explanation enough.
    NoEvidence,
    /// More than chance is likely, not shown.
    Hint,
    /// One says so, the other does not.
    Contradiction,
    /// Beyond chance where it was trained; nothing was held out to confirm it.
    Unconfirmed,
    /// Beyond chance where it was trained, and not seen on the rides held out.
    NotSeen,
    /// Worse on the rides held out.
    Worse,
    /// Beyond chance, and hardly a help.
    Slight,
    /// Beyond chance, and a help.
    Clear,
}

/// Judges a gain: `p` is that of the test, `gain` how much smaller the log-loss is on held-out rides than `reference`.
pub(super) fn judge(p: Option<f64>, gain: Option<&Interval>, reference: f64) -> Judgement {
    let p = p.filter(|p| p.is_finite());
    let gain = gain.filter(|gain| charts::ends(gain).iter().all(|end| end.is_finite()));
    let helps = |gain: &Interval| {
        if gain.value < SLIGHT_MAX * reference { Judgement::Slight } else { Judgement::Clear }
    };
    match (p, gain) {
        (None, None) => Judgement::Untested,
        (None, Some(gain)) if gain.lower > 0.0 => helps(gain),
        (_, Some(gain)) if gain.upper < 0.0 => Judgement::Worse,
        (None, Some(_)) => Judgement::NoEvidence,
        (Some(p), Some(gain)) if p >= EVIDENCE_P_MAX && gain.lower > 0.0 => Judgement::Contradiction,
        (Some(p), _) if p >= HINT_P_MAX => Judgement::NoEvidence,
        // A hint that the held-out rides do not bear out is none.
        (Some(p), Some(gain)) if p >= EVIDENCE_P_MAX && gain.value <= 0.0 => Judgement::NoEvidence,
        (Some(p), _) if p >= EVIDENCE_P_MAX => Judgement::Hint,
        (Some(_), None) => Judgement::Unconfirmed,
        (Some(_), Some(gain)) if gain.lower > 0.0 => helps(gain),
        (Some(_), Some(_)) => Judgement::NotSeen,
    }
}

/// `likelihood-ratio test: χ² = 2707.2 with 3 degrees of freedom, p < 0.0001`.
pub(super) fn test_in_figures(test: &LikelihoodRatio) -> String {
    let freedom = test.degrees_of_freedom;
    format!(
        "likelihood-ratio test: χ² = {} with {freedom} degree{} of freedom, {}",
        significant(test.statistic, 4),
        if freedom == 1 { "" } else { "s" },
        p_is(test.p_value)
    )
}

fn on_trained(test: Option<&LikelihoodRatio>) -> String {
    test.map_or(String::new(), |test| format!(" On the rides trained on: {}.", test_in_figures(test)))
}

fn on_held_out(rides: u64, gain: &Interval, reference: f64, than: &str) -> String {
    let share = if reference > 0.0 && gain.value > 0.0 {
        format!(" or {}", percent(gain.value / reference))
    } else {
        String::new()
    };
    let (value, interval) = with_interval(gain);
    let below = if gain.lower < 0.0 { "; below 0 is worse" } else { "" };
    format!(
        " On {} held out its log-loss is better by {value}{share} than that of {than} (95 % interval \
            {interval}{below}).",
        counted(rides, "ride")
    )
}

/// Whether the features tell anything.
pub(super) fn signal(model: &Model) -> Finding {
    let finding = |tone, short: &str, long: String| Finding::new("Do the features tell anything?", tone, short, long);
    let Some(evidence) = &model.evidence else {
        return finding(Tone::Unknown, "Not tested.", "No test is recorded for this model.".to_owned());
    };
    let held_out = evidence.held_out.as_ref();
    let base = held_out.map_or(0.0, |held_out| held_out.base_rate_log_loss);
    let gain = held_out.map(|held_out| &held_out.over_base_rate.log_loss);
    let p = evidence.any.as_ref().map(|test| test.p_value);
    let figures = format!(
        "{}{}",
        on_trained(evidence.any.as_ref()),
        held_out.map_or(without_held_out(model), |held_out| {
            on_held_out(held_out.rides, &held_out.over_base_rate.log_loss, base, "always saying the share of service")
        })
    );
    let (tone, short, long) = match judge(p, gain, base) {
        Judgement::Untested => (
            Tone::Unknown,
            "Cannot be told.",
            "An unpenalised model, which the test needs, cannot be fitted, and nothing else speaks for the features.",
        ),
        Judgement::NoEvidence => (
            Tone::Bad,
            "No evidence.",
            "There is no evidence that the features tell anything about service requests: chance alone explains what \
                is seen. That is no proof that they do not.",
        ),
        Judgement::Hint => (
            Tone::Weak,
            "A hint at most.",
            "Chance alone would rarely look like this, but often enough that it is no evidence yet.",
        ),
        Judgement::Contradiction => (
            Tone::Weak,
            "Unclear.",
            "On the held-out rides the features help; the test on the rides trained on is not sure that they do.",
        ),
        Judgement::Unconfirmed => (
            Tone::Weak,
            "Yes, where it was trained.",
            "The features tell something about service requests among the rides trained on; whether they do for \
                others was not tried.",
        ),
        Judgement::NotSeen => (
            Tone::Weak,
            "Not for new rides, as far as seen.",
            "Among the rides trained on the features tell something beyond chance, but no gain from that shows on \
                the held-out rides.",
        ),
        Judgement::Worse => (
            Tone::Bad,
            "Not for new rides.",
            "On the held-out rides the model is worse than always saying the share of service.",
        ),
        Judgement::Slight => (
            Tone::Weak,
            "Yes, but very little.",
            "The features tell something beyond chance, and it is slight: with so many rides even small differences \
                are found. For a single ride it hardly matters.",
        ),
        Judgement::Clear => (
            Tone::Good,
            "Yes.",
            "The features tell something about service requests that chance does not explain, and it holds for rides \
                the model never saw.",
        ),
    };
    finding(tone, short, format!("{long}{figures}"))
}

/// Why nothing is said of held-out rides.
fn without_held_out(model: &Model) -> String {
    match &model.test {
        None => " No ride was held out.".to_owned(),
        Some(test) => {
            let services = test.confusion.true_positive + test.confusion.false_negative;
            match services {
                0 => format!(
                    " None of the {} held out ended in a service request: they tell nothing apart.",
                    counted(test.rides, "ride")
                ),
                some if some == test.rides => format!(
                    " All of the {} held out ended in a service request: they tell nothing apart.",
                    counted(test.rides, "ride")
                ),
                _ => " Nothing was compared on the held-out rides.".to_owned(),
            }
        }
    }
}

/// Whether the weather helps.
pub(super) fn weather(model: &Model) -> Finding {
    let finding = |tone, short: &str, long: String| Finding::new("Does the weather help?", tone, short, long);
    match model.settings.features {
        FeatureSet::All => {}
        FeatureSet::Mileage => {
            return finding(Tone::Unknown, "Not asked.", "This model is made of mileage alone.".to_owned());
        }
        FeatureSet::Weather => {
            return finding(
                Tone::Unknown,
                "Not asked.",
                "This model is made of the weather alone: there is no mileage to compare it with.".to_owned(),
            );
        }
    }
    let Some(evidence) = &model.evidence else {
        return finding(Tone::Unknown, "Not tested.", "No test is recorded for this model.".to_owned());
    };
    let compared: Option<(&HeldOut, &Interval, f64)> = evidence.held_out.as_ref().and_then(|held_out| {
        Some((held_out, &held_out.over_mileage.as_ref()?.log_loss, held_out.mileage.as_ref()?.log_loss.value))
    });
    let reference = compared.map_or(0.0, |(_, _, reference)| reference);
    let p = evidence.weather.as_ref().map(|test| test.p_value);
    let figures = format!(
        "{}{}",
        on_trained(evidence.weather.as_ref()),
        compared.map_or(without_held_out(model), |(held_out, gain, reference)| {
            on_held_out(held_out.rides, gain, reference, "a model of mileage alone")
        })
    );
    let (tone, short, long) = match judge(p, compared.map(|(_, gain, _)| gain), reference) {
        Judgement::Untested => {
            (Tone::Unknown, "Cannot be told.", "The unpenalised models that the test compares cannot be fitted.")
        }
        Judgement::NoEvidence => (
            Tone::Bad,
            "No evidence that it does.",
            "There is no evidence that temperature and precipitation tell more about service requests than mileage \
                does. That is no proof that they do not.",
        ),
        Judgement::Hint => (
            Tone::Weak,
            "A hint at most.",
            "That the weather tells more than mileage does is not shown: chance alone gives as much now and \
                then.",
        ),
        Judgement::Contradiction => (
            Tone::Weak,
            "Unclear.",
            "On the held-out rides the weather helps; the test on the rides trained on is not sure that it does.",
        ),
        Judgement::Unconfirmed => (
            Tone::Weak,
            "Yes, where it was trained.",
            "Among the rides trained on the weather tells more than mileage does; whether that helps with others was \
                not tried.",
        ),
        Judgement::NotSeen => (
            Tone::Weak,
            "Not for new rides, as far as seen.",
            "Among the rides trained on the weather tells more than mileage does, but no gain from that shows on the \
                held-out rides.",
        ),
        Judgement::Worse => {
            (Tone::Bad, "Not for new rides.", "On the held-out rides the model is worse with the weather than without.")
        }
        Judgement::Slight => (
            Tone::Weak,
            "It helps a little.",
            "The weather tells more than mileage does, beyond chance, yet it makes the predictions only a little \
                better.",
        ),
        Judgement::Clear => (
            Tone::Good,
            "It helps clearly.",
            "The weather tells more than mileage does, also for rides the model never saw.",
        ),
    };
    finding(tone, short, format!("{long}{figures}"))
}

/// Rides to judge by, and how they are called.
pub(super) fn judged(model: &Model) -> (&Metrics, &'static str) {
    match &model.test {
        Some(test) => (test, "held out"),
        None => (&model.train, "trained on, which flatters"),
    }
}

/// How well rides with and without service are told apart.
pub(super) fn ranking(model: &Model) -> Finding {
    let finding =
        |tone, short: &str, long: String| Finding::new("How well does it tell rides apart?", tone, short, long);
    let (metrics, whose) = judged(model);
    let held_out = model.evidence.as_ref().and_then(|evidence| evidence.held_out.as_ref());
    let area = held_out.map(|held_out| held_out.model.roc_auc);
    let area = area.or(metrics.roc_auc.map(|value| Interval { value, lower: value, upper: value }));
    let Some(area) = area.filter(|area| charts::ends(area).iter().all(|end| (0.0..=1.0).contains(end))) else {
        let long = format!(
            "The {} {whose} are all with a service request, or all without: there is nothing to tell apart.",
            counted(metrics.rides, "ride")
        );
        return finding(Tone::Unknown, "Cannot be told.", long);
    };
    let of_hundred = |share: f64| format!("{:.0}", share * 100.0);
    let within = match held_out {
        Some(_) => format!(" (95 % interval {} to {})", of_hundred(area.lower), of_hundred(area.upper)),
        None => String::new(),
    };
    let (tone, short) = match area {
        area if area.lower <= 0.5 && held_out.is_some() => (Tone::Bad, "Not better than guessing, as far as seen."),
        area if area.value < 0.6 => (Tone::Bad, "Barely."),
        area if area.value < 0.7 => (Tone::Weak, "Poorly."),
        area if area.value < 0.8 => (Tone::Good, "Fairly well."),
        area if area.value < 0.9 => (Tone::Good, "Well."),
        _ => (Tone::Good, "Very well."),
    };
    let long = format!(
        "Of a ride that ended in a service request and one that did not, it gives the former the higher probability \
            in {} of \
         100 cases{within}; guessing gives 50. That is the area under the ROC curve, on {} {whose}.",
        of_hundred(area.value),
        counted(metrics.rides, "ride")
    );
    finding(tone, short, long)
}

/// Whether probabilities agree with what happened.
pub(super) fn calibration(model: &Model) -> Finding {
    let finding = |tone, short: &str, long: String| {
        Finding::new("Can its probabilities be taken at their word?", tone, short, long)
    };
    let (metrics, whose) = judged(model);
    let rides = counted(metrics.rides, "ride");
    let Some(error) = metrics.calibration_error.filter(|error| error.is_finite()) else {
        return finding(Tone::Unknown, "Not measured.", "Calibration is not recorded for this model.".to_owned());
    };
    if metrics.rides < CALIBRATION_RIDES_MIN {
        let long = format!("{rides} {whose} are too few to compare probabilities with what happened.");
        return finding(Tone::Unknown, "Too few rides to tell.", long);
    }
    let p = chance_of_gaps(metrics);
    let points = significant(error * 100.0, 2);
    let gaps = format!(
        "What it said and the share of rides that ended in a service request differ by {points} percentage points on \
            average ({rides} {whose})"
    );
    let is_narrow = metrics.calibration.len() <= 2;
    let narrow =
        if is_narrow { " It says nearly the same of every ride, so there is little to be wrong about." } else { "" };
    match p {
        Some(p) if (EVIDENCE_P_MAX..HINT_P_MAX).contains(&p) => {
            let long = format!("{gaps}: chance alone rarely gives as much ({}).{narrow}", p_is(p));
            finding(Tone::Weak, "They may be a little off.", long)
        }
        Some(p) if p >= HINT_P_MAX => {
            let long =
                format!("No evidence that they are off. {gaps}: as much comes about by chance ({}).{narrow}", p_is(p));
            match is_narrow {
                true => finding(Tone::Weak, "Yes, but they hardly differ.", long),
                false => finding(Tone::Good, "Yes, as far as can be told.", long),
            }
        }
        p if error < CALIBRATION_ERROR_MAX => {
            let chance = p.map_or(String::new(), |p| format!(", more than chance explains ({})", p_is(p)));
            finding(Tone::Weak, "Nearly.", format!("{gaps}{chance}; near enough for most uses.{narrow}"))
        }
        p => {
            let chance = p.map_or(String::new(), |p| format!(", more than chance explains ({})", p_is(p)));
            finding(Tone::Bad, "No.", format!("{gaps}{chance}. Order rides by them rather than believe them.{narrow}"))
        }
    }
}

/// How likely gaps between what was said and what was are by chance, had the probabilities been right: Pearson's chi-square over
/// the bins of the calibration curve, small ones joined with their neighbour. `None` without a bin that is large enough.
pub(super) fn chance_of_gaps(metrics: &Metrics) -> Option<f64> {
    let (mut statistic, mut bins) = (0.0, 0u32);
    let (mut rides, mut said, mut was) = (0.0, 0.0, 0.0);
    let mut take = |rides: f64, said: f64, was: f64| {
        statistic += (was - said).powi(2) / (said * (rides - said) / rides);
        bins += 1;
    };
    let large = |rides: f64, said: f64| said >= EXPECTED_MIN && rides - said >= EXPECTED_MIN;
    for bin in &metrics.calibration {
        rides += bin.rides as f64;
        said += bin.rides as f64 * bin.mean_probability;
        was += bin.rides as f64 * bin.service_share;
        if large(rides, said) {
            take(rides, said, was);
            (rides, said, was) = (0.0, 0.0, 0.0);
        }
    }
    let chi_square = ChiSquared::new(f64::from(bins)).ok()?;
    statistic.is_finite().then(|| chi_square.sf(statistic.max(0.0))).filter(|p| p.is_finite())
}

/// How sure it is that a feature matters, given the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matters {
    /// Beyond chance.
    Clearly,
    /// Beyond chance, and hardly.
    Slightly,
    /// Perhaps.
    Perhaps,
    /// Chance is explanation enough.
    NoEvidence,
    /// There is no interval.
    Unknown,
}

/// A standard deviation's weight below this hardly moves a probability: by 1.25 percentage points at most.
const SLIGHT_WEIGHT: f64 = 0.05;

/// Judges a feature.
pub(super) fn matters(coefficient: &Coefficient) -> Matters {
    let Some(inference) = coefficient.inference.as_ref().filter(|inference| inference.p_value.is_finite()) else {
        return Matters::Unknown;
    };
    match inference.p_value {
        p if p >= HINT_P_MAX => Matters::NoEvidence,
        p if p >= EVIDENCE_P_MAX => Matters::Perhaps,
        _ if coefficient.standardised.abs() < SLIGHT_WEIGHT => Matters::Slightly,
        _ => Matters::Clearly,
    }
}

/// What each feature does, those that do most first; and what is said before it.
pub(super) fn effects(model: &Model) -> (Option<&'static str>, Vec<(Matters, String)>) {
    let any = model.evidence.as_ref().and_then(|evidence| evidence.any.as_ref());
    let doubtful = any
        .is_some_and(|test| test.p_value >= EVIDENCE_P_MAX)
        .then_some("Together the features tell nothing beyond chance: none of these is to be read for itself.");
    let mut order: Vec<&Coefficient> = model.coefficients.iter().collect();
    order.sort_by(|a, b| b.standardised.abs().total_cmp(&a.standardised.abs()));
    let told = |coefficient: &Coefficient| {
        let step = Spoken::of(coefficient).step;
        let verdict = matters(coefficient);
        let Some(inference) = &coefficient.inference else {
            return (verdict, format!("{step}: no weight can be told"));
        };
        let sure = match verdict {
            Matters::Clearly => "",
            Matters::Slightly => "; beyond chance, yet hardly any difference",
            Matters::Perhaps => "; a hint, no evidence",
            Matters::NoEvidence | Matters::Unknown => "; no evidence of a difference",
        };
        (verdict, format!("{step} multiplies the odds by {}{sure}", ratio(&inference.odds_ratio)))
    };
    (doubtful, order.into_iter().map(told).collect())
}

/// A warning in plain words.
pub(super) fn warning(code: WarningCode) -> &'static str {
    match code {
        WarningCode::ConstantFeature => "A feature has one value only, so it tells nothing here.",
        WarningCode::Collinearity => {
            "Some features move together, so that how much each of them matters for itself is uncertain; the \
                probabilities are none the worse for it."
        }
        WarningCode::Separation => {
            "The features separate the rides nearly perfectly. Its probabilities near 0 and 1, and the intervals, \
                are not to be relied on."
        }
        WarningCode::FewEvents => "There are few rides of one kind, so that every interval and test is rough.",
        WarningCode::LargestPenalty => {
            "The strongest penalty tried was the best: the features tell little, or nothing."
        }
        WarningCode::StrongPenalty => {
            "The penalty outweighs the rides: weights are drawn far to 0, and no intervals are given for them."
        }
        WarningCode::ThresholdUnreached => "No threshold gives what was asked of it; the nearest one was taken.",
    }
}

/// What a model like this cannot say.
pub(super) fn limits(model: &Model) -> Vec<String> {
    let mut limits = vec![
        "It finds what goes together, not what causes what: rides also differ in much that is not in the data, and \
            nothing here says \
         what would happen if something were changed."
            .to_owned(),
    ];
    let ranges: Vec<String> = model
        .coefficients
        .iter()
        .filter(|coefficient| coefficient.min.is_finite() && coefficient.max.is_finite())
        .map(|coefficient| {
            let spoken = Spoken::of(coefficient);
            let end = |value: f64| significant(spoken.value(value), 3);
            format!(
                "{} {} to {} {}",
                spoken.name.to_lowercase(),
                end(coefficient.min),
                end(coefficient.max),
                spoken.unit
            )
        })
        .collect();
    if !ranges.is_empty() {
        limits.push(format!(
            "It knows only rides like those it was trained on: {}. Beyond, it guesses.",
            ranges.join(", ")
        ));
    }
    let counts = &model.counts;
    let left_out = counts.unlabelled.saturating_add(counts.without_weather).saturating_add(counts.out_of_range);
    if left_out > 0 && counts.rides > 0 {
        limits.push(format!(
            "{} of {} ({}) had no label, no weather or an impossible value and were left out; if those are of \
                another kind, it \
             does not know them.",
            count(left_out),
            counted(counts.rides, "ride"),
            percent_of(left_out, counts.rides)
        ));
    }
    limits
}

mod choices;
#[cfg(test)]
mod tests;

pub(super) use choices::{decisions, threshold, verdict};
