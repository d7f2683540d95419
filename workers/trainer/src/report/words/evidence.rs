//! Whether the features, and the weather among them, predict service requests.

use super::finding::{Finding, Tone};
use crate::{
    evaluate::inference::EVIDENCE_P_MAX,
    report::{
        charts,
        figures::{counted, p_is, percent, significant, with_interval},
    },
};
use common::{
    features::FeatureSet,
    model::{HeldOut, Interval, LikelihoodRatio, Model},
};

/// p-value from which on chance explains a result.
pub(super) const HINT_P_MAX: f64 = 0.05;
/// Minimum gain, relative to the log-loss it improves, that counts as a clear help.
const SLIGHT_MAX: f64 = 0.02;

/// Combined result of a test on the rides trained on and a comparison on held-out rides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) enum Judgement {
    /// Neither exists.
    Untested,
    /// Chance explains the result.
    NoEvidence,
    /// Chance alone would rarely give this result.
    Hint,
    /// The comparison shows a gain that the test does not confirm.
    Contradiction,
    /// The test is significant; there is no comparison.
    Unconfirmed,
    /// The test is significant; held-out rides show no gain.
    Unseen,
    /// Held-out rides show a loss.
    Worse,
    /// Significant, but a small gain.
    Slight,
    /// Significant, and a clear gain.
    Clear,
}

/// Judges a gain by the p-value of the test and by how much smaller the log-loss on held-out rides is than `reference`.
pub(in crate::report) fn judge(p: Option<f64>, gain: Option<&Interval>, reference: f64) -> Judgement {
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
        // Held-out rides contradict the hint.
        (Some(p), Some(gain)) if p >= EVIDENCE_P_MAX && gain.value <= 0.0 => Judgement::NoEvidence,
        (Some(p), _) if p >= EVIDENCE_P_MAX => Judgement::Hint,
        (Some(_), None) => Judgement::Unconfirmed,
        (Some(_), Some(gain)) if gain.lower > 0.0 => helps(gain),
        (Some(_), Some(_)) => Judgement::Unseen,
    }
}

/// `likelihood-ratio test: χ² = 2707.2 with 3 degrees of freedom, p < 0.0001`.
pub(in crate::report) fn test_in_figures(test: &LikelihoodRatio) -> String {
    let freedom = test.degrees_of_freedom;
    format!(
        "likelihood-ratio test: χ² = {} with {freedom} degree{} of freedom, {}",
        significant(test.statistic, 4),
        if freedom == 1 { "" } else { "s" },
        p_is(test.p_value)
    )
}

/// Sentence about the test on the rides trained on.
fn on_trained(test: Option<&LikelihoodRatio>) -> String {
    test.map_or(String::new(), |test| format!(" On the rides trained on: {}.", test_in_figures(test)))
}

/// Sentence about the gain over `than` on held-out rides.
fn on_held_out(rides: u64, gain: &Interval, reference: f64, than: &str) -> String {
    let share = if reference > 0.0 && gain.value > 0.0 {
        format!(" or {}", percent(gain.value / reference))
    } else {
        String::new()
    };
    let (value, interval) = with_interval(gain);
    let below = if gain.lower < 0.0 { "; below 0 is worse" } else { "" };
    format!(
        " On {} held out, its log-loss is better by {value}{share} than that of {than} (95 % interval {interval}{below}).",
        counted(rides, "ride")
    )
}

/// Whether the features predict service requests.
pub(in crate::report) fn signal(model: &Model) -> Finding {
    let finding =
        |tone, short: &str, long: String| Finding::new("Do the features predict service requests?", tone, short, long);
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
            let gain = &held_out.over_base_rate.log_loss;
            on_held_out(held_out.rides, gain, base, "always predicting the share of service requests")
        })
    );
    let (tone, short, long) = of_signal(judge(p, gain, base));
    finding(tone, short, format!("{long}{figures}"))
}

fn of_signal(judgement: Judgement) -> (Tone, &'static str, &'static str) {
    match judgement {
        Judgement::Untested => (
            Tone::Unknown,
            "Cannot be determined.",
            "The test needs an unpenalised model, which cannot be fitted, and there is no other evidence for the \
             features.",
        ),
        Judgement::NoEvidence => (
            Tone::Bad,
            "No evidence.",
            "There is no evidence that the features predict service requests: chance alone explains the result. That \
             does not prove that they do not.",
        ),
        Judgement::Hint => (
            Tone::Weak,
            "A hint at most.",
            "Chance alone would rarely give this result, but often enough that it is no evidence yet.",
        ),
        Judgement::Contradiction => (
            Tone::Weak,
            "Unclear.",
            "On the held-out rides the features help; the test on the rides trained on does not confirm that.",
        ),
        Judgement::Unconfirmed => (
            Tone::Weak,
            "Yes, for the rides trained on.",
            "The features predict service requests among the rides trained on; whether they do for other rides was \
             not tested.",
        ),
        Judgement::Unseen => (
            Tone::Weak,
            "Not visibly for new rides.",
            "Among the rides trained on the features predict service requests beyond chance, but the held-out rides \
             show no gain.",
        ),
        Judgement::Worse => (
            Tone::Bad,
            "Not for new rides.",
            "On the held-out rides the model is worse than always predicting the share of service requests.",
        ),
        Judgement::Slight => (
            Tone::Weak,
            "Yes, but very little.",
            "The features predict service requests beyond chance, but the gain is small: with so many rides even \
             small differences are significant. For a single ride it hardly matters.",
        ),
        Judgement::Clear => (
            Tone::Good,
            "Yes.",
            "The features predict service requests in a way that chance does not explain, also for rides the model \
             never saw.",
        ),
    }
}

/// Sentence that says why there is no comparison on held-out rides.
fn without_held_out(model: &Model) -> String {
    match &model.test {
        None => " No ride was held out.".to_owned(),
        Some(test) => {
            let services = test.confusion.true_positive + test.confusion.false_negative;
            match services {
                0 => format!(
                    " None of the {} held out ended in a service request: there is nothing to distinguish.",
                    counted(test.rides, "ride")
                ),
                some if some == test.rides => format!(
                    " All of the {} held out ended in a service request: there is nothing to distinguish.",
                    counted(test.rides, "ride")
                ),
                _ => " Nothing was compared on the held-out rides.".to_owned(),
            }
        }
    }
}

/// Whether the weather helps.
pub(in crate::report) fn weather(model: &Model) -> Finding {
    let finding = |tone, short: &str, long: String| Finding::new("Does the weather help?", tone, short, long);
    let not_asked = |why: &str| finding(Tone::Unknown, "Not tested.", why.to_owned());
    match model.settings.features {
        FeatureSet::All => {}
        FeatureSet::Mileage => return not_asked("This model uses mileage only."),
        FeatureSet::Weather => {
            return not_asked("This model uses the weather only: there is no mileage to compare it with.");
        }
    }
    let Some(evidence) = &model.evidence else { return not_asked("No test is recorded for this model.") };
    let compared: Option<(&HeldOut, &Interval, f64)> = evidence.held_out.as_ref().and_then(|held_out| {
        Some((held_out, &held_out.over_mileage.as_ref()?.log_loss, held_out.mileage.as_ref()?.log_loss.value))
    });
    let reference = compared.map_or(0.0, |(_, _, reference)| reference);
    let p = evidence.weather.as_ref().map(|test| test.p_value);
    let figures = format!(
        "{}{}",
        on_trained(evidence.weather.as_ref()),
        compared.map_or(without_held_out(model), |(held_out, gain, reference)| {
            on_held_out(held_out.rides, gain, reference, "a model of mileage only")
        })
    );
    let (tone, short, long) = of_weather(judge(p, compared.map(|(_, gain, _)| gain), reference));
    finding(tone, short, format!("{long}{figures}"))
}

fn of_weather(judgement: Judgement) -> (Tone, &'static str, &'static str) {
    match judgement {
        Judgement::Untested => {
            (Tone::Unknown, "Cannot be determined.", "The unpenalised models that the test compares cannot be fitted.")
        }
        Judgement::NoEvidence => (
            Tone::Bad,
            "No evidence that it does.",
            "There is no evidence that temperature and precipitation predict service requests better than mileage \
             alone does. That does not prove that they do not.",
        ),
        Judgement::Hint => (
            Tone::Weak,
            "A hint at most.",
            "Whether the weather adds to mileage is not certain: chance alone gives such a result now and then.",
        ),
        Judgement::Contradiction => (
            Tone::Weak,
            "Unclear.",
            "On the held-out rides the weather helps; the test on the rides trained on does not confirm that.",
        ),
        Judgement::Unconfirmed => (
            Tone::Weak,
            "Yes, for the rides trained on.",
            "Among the rides trained on the weather adds to mileage; whether it does for other rides was not tested.",
        ),
        Judgement::Unseen => (
            Tone::Weak,
            "Not visibly for new rides.",
            "Among the rides trained on the weather adds to mileage, but the held-out rides show no gain.",
        ),
        Judgement::Worse => {
            (Tone::Bad, "Not for new rides.", "On the held-out rides the model is worse with the weather than without.")
        }
        Judgement::Slight => (
            Tone::Weak,
            "It helps a little.",
            "The weather adds to mileage beyond chance, but it makes the predictions only a little better.",
        ),
        Judgement::Clear => {
            (Tone::Good, "It helps clearly.", "The weather adds to mileage, also for rides the model never saw.")
        }
    }
}
