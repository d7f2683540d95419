//! The decisions by the threshold, the threshold itself, and the verdict.

use super::finding::{Finding, Tone, evaluation};
use crate::report::figures::{counted, percent, percent_of, setting, significant};
use common::{
    document::Verdict,
    model::{Confusion, Criterion, Model},
    text::excerpt,
};

/// Whether decisions by the threshold are better than always deciding the same.
pub(in crate::report) fn decisions(model: &Model) -> Finding {
    let finding = |tone, short: &str, long: String| Finding::new("Are its decisions useful?", tone, short, long);
    let (metrics, whose) = evaluation(model);
    let Confusion { true_negative, false_positive, false_negative, true_positive } = metrics.confusion;
    let (called, positives) = (true_positive + false_positive, true_positive + false_negative);
    let (all, negatives) = (metrics.rides, true_negative + false_positive);
    let on = format!("On {} {whose}, with a threshold of {}", counted(all, "ride"), percent(model.threshold));
    if called == 0 || called == all {
        let what = if called == 0 { "no ride" } else { "every ride" };
        return finding(
            Tone::Bad,
            "It always decides the same.",
            format!("{on}, it predicts a service request for {what}."),
        );
    }
    if positives == 0 || negatives == 0 {
        let what = if positives == 0 { "none" } else { "all" };
        let long = format!(
            "{on}, it predicts {}; {what} of the rides ended in a service request.",
            counted(called, "service request")
        );
        return finding(Tone::Unknown, "Cannot be determined.", long);
    }
    let precision_and_recall = format!(
        "{on}, it predicts {}: {} of these rides had one. Of the {} with a service request, it finds {}.",
        counted(called, "service request"),
        percent_of(true_positive, called),
        counted(positives, "ride"),
        percent_of(true_positive, positives)
    );
    let (tone, short, long) = match model.settings.threshold {
        Criterion::Cost { false_positive, false_negative } => {
            by_cost(metrics.confusion, false_positive, false_negative)
        }
        _ => by_accuracy(metrics.confusion),
    };
    finding(tone, short, format!("{precision_and_recall} {long}"))
}

/// Compares the cost of the decisions with that of a constant decision.
fn by_cost(confusion: Confusion, in_vain: f64, missed: f64) -> (Tone, &'static str, String) {
    let Confusion { true_negative, false_positive, false_negative, true_positive } = confusion;
    let (positives, negatives) = (true_positive + false_negative, true_negative + false_positive);
    let rides = (positives + negatives).max(1) as f64;
    let by_model = (false_positive as f64 * in_vain + false_negative as f64 * missed) / rides;
    let constant = (negatives as f64 * in_vain / rides).min(positives as f64 * missed / rides);
    let long = format!(
        "A ride costs {} on average; with always the same decision, {}.",
        significant(by_model, 3),
        significant(constant, 3)
    );
    match by_model < constant {
        true => (Tone::Good, "They save costs.", long),
        false => (Tone::Bad, "They save no costs.", long),
    }
}

/// Compares the share of right decisions with that of a constant decision.
fn by_accuracy(confusion: Confusion) -> (Tone, &'static str, String) {
    let Confusion { true_negative, false_positive, false_negative, true_positive } = confusion;
    let (positives, negatives) = (true_positive + false_negative, true_negative + false_positive);
    let rides = positives + negatives;
    let long = format!(
        "{} of its decisions are right; always deciding {} would be right for {}.",
        percent_of(true_positive + true_negative, rides),
        if positives > negatives { "“service”" } else { "“no service”" },
        percent_of(positives.max(negatives), rides)
    );
    // Only rides where it departs from the constant decision make a difference: it is right there, or wrong.
    let (better, worse) = match positives > negatives {
        true => (true_negative as f64, false_negative as f64),
        false => (true_positive as f64, false_positive as f64),
    };
    match better - worse {
        gain if gain > 1.96 * (better + worse).sqrt() => {
            (Tone::Good, "More often right than a constant decision.", long)
        }
        gain if gain < -1.96 * (better + worse).sqrt() => {
            let why = "The criterion of the threshold asks for that: it gives up right decisions to find more service \
                requests.";
            (Tone::Weak, "Less often right than a constant decision.", format!("{long} {why}"))
        }
        _ => (Tone::Weak, "Hardly more often right than a constant decision.", long),
    }
}

/// Whether the model became champion, and why.
pub(in crate::report) fn verdict(verdict: Option<&Verdict>) -> Finding {
    let finding = |tone, short: &str, long: String| Finding::new("Did it become champion?", tone, short, long);
    let Some(Verdict { promoted, reason, why, .. }) = verdict else {
        return finding(Tone::Unknown, "Not judged.", "No verdict is recorded beside this model.".to_owned());
    };
    let why = excerpt(why, 1000);
    let long = match reason.as_str() {
        "first" => {
            "It is the first model of its family: it was compared with none, so this says nothing about its quality."
                .to_owned()
        }
        "no_worse" => format!("It is no worse than the champion before it: {why}."),
        "always" => "The settings promote every new model without a comparison.".to_owned(),
        "champion_already" => format!("It was champion already: {why}."),
        "by_hand_only" => "By the settings, only a person promotes models.".to_owned(),
        "worse_than_champion" => format!("It is worse than the champion: {why}."),
        _ => format!("{}.", sentence(&why)),
    };
    match promoted {
        true if matches!(reason.as_str(), "first" | "always") => {
            finding(Tone::Weak, "Yes, without a comparison.", long)
        }
        true => finding(Tone::Good, "Yes, when it was trained.", long),
        false => finding(Tone::Weak, "No: the champion stays.", long),
    }
}

fn sentence(text: &str) -> String {
    let text = text.trim_end_matches('.');
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

/// How the threshold was chosen.
pub(in crate::report) fn threshold(model: &Model) -> String {
    let by = match model.settings.threshold {
        Criterion::Fixed { .. } => "the settings give it".to_owned(),
        Criterion::Accuracy => "the most right decisions".to_owned(),
        Criterion::F1 => "the largest F1, the harmonic mean of precision and recall".to_owned(),
        Criterion::Fbeta { beta } => {
            format!("the largest F-measure, with recall weighted {} times as much as precision", setting(beta))
        }
        Criterion::PrecisionAtRecall { recall_min } => {
            format!("the largest precision with a recall of at least {}", percent(recall_min))
        }
        Criterion::RecallAtPrecision { precision_min } => {
            format!("the largest recall with a precision of at least {}", percent(precision_min))
        }
        Criterion::Cost { false_positive, false_negative } => format!(
            "the least cost, where a service prepared in vain costs {} and a missed one {}",
            setting(false_positive),
            setting(false_negative)
        ),
    };
    let at = percent(model.threshold);
    match (&model.selection, model.settings.threshold) {
        (_, Criterion::Fixed { .. }) => format!("A probability of {at} or more counts as a service request; {by}."),
        (None, _) => format!(
            "A probability of {at} or more counts as a service request. How the threshold was chosen is not recorded."
        ),
        (Some(selection), criterion) => {
            let written = match criterion {
                Criterion::Cost { .. } => |value: f64| significant(value, 3),
                _ => percent,
            };
            let value = selection
                .threshold
                .value
                .filter(|value| value.is_finite())
                .map_or(String::new(), |value| format!(", which is {}", written(value)));
            let reached = if selection.threshold.reached {
                ""
            } else {
                " No threshold meets this constraint; this one comes nearest."
            };
            format!(
                "A probability of {at} or more counts as a service request. Cross-validation with {} folds among the rides \
                 trained on chose this threshold for {by}{value}; it used no held-out rides.{reached}",
                selection.folds
            )
        }
    }
}
