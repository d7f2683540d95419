//! What may be said of choices: of decisions by the threshold, of the threshold itself, and of who became champion.

use super::{Finding, Tone, judged};
use crate::{
    promote::Verdict,
    report::figures::{count, counted, foreign, percent, percent_of, setting, significant},
};
use common::model::{Confusion, Criterion, Model};

/// Whether deciding by the threshold is any better than always deciding the same.
pub(in crate::report) fn decisions(model: &Model) -> Finding {
    let finding = |tone, short: &str, long: String| Finding::new("Are its decisions of use?", tone, short, long);
    let (metrics, whose) = judged(model);
    let Confusion { true_negative, false_positive, false_negative, true_positive } = metrics.confusion;
    let (called, positives) = (true_positive + false_positive, true_positive + false_negative);
    let (all, negatives) = (metrics.rides, true_negative + false_positive);
    let on = format!("On {} {whose}, deciding from {} on", counted(all, "ride"), percent(model.threshold));
    if called == 0 || called == all {
        let what = if called == 0 { "no ride" } else { "every ride" };
        return finding(Tone::Bad, "It always says the same.", format!("{on}, it calls {what}: nothing is decided."));
    }
    if positives == 0 || negatives == 0 {
        let what = if positives == 0 { "none" } else { "all" };
        let long = format!("{on}, it calls {}; {what} of the rides ended in a service request.", count(called));
        return finding(Tone::Unknown, "Cannot be told.", long);
    }
    let found = format!(
        "{on}, it calls {}: {} of them ended in a service request. Of the {} that did, it finds {}.",
        count(called),
        percent_of(true_positive, called),
        count(positives),
        percent_of(true_positive, positives)
    );
    if let Criterion::Cost { false_positive: in_vain, false_negative: missed } = model.settings.threshold {
        let n = all.max(1) as f64;
        let ours = (false_positive as f64 * in_vain + false_negative as f64 * missed) / n;
        let same = (negatives as f64 * in_vain / n).min(positives as f64 * missed / n);
        let long = format!(
            "{found} A ride costs {} on average; always deciding the same, {}.",
            significant(ours, 3),
            significant(same, 3)
        );
        return match ours < same {
            true => finding(Tone::Good, "They save something.", long),
            false => finding(Tone::Bad, "They save nothing.", long),
        };
    }
    let always = positives.max(negatives);
    let right = format!(
        "{found} {} of its decisions are right; always saying {} would be right for {}.",
        percent_of(true_positive + true_negative, all),
        if positives > negatives { "“service”" } else { "“no service”" },
        percent_of(always, all)
    );
    // Only the rides on which it decides other than always the same make the difference: right there, or wrong.
    let (better, worse) = match positives > negatives {
        true => (true_negative as f64, false_negative as f64),
        false => (true_positive as f64, false_positive as f64),
    };
    match better - worse {
        gain if gain > 1.96 * (better + worse).sqrt() => {
            finding(Tone::Good, "More often right than always the same.", right)
        }
        gain if gain < -1.96 * (better + worse).sqrt() => finding(
            Tone::Weak,
            "Less often right than always the same.",
            format!(
                "{right} That is what the threshold's criterion asks for: it gives up right decisions to find more."
            ),
        ),
        _ => finding(Tone::Weak, "Hardly more often right than always the same.", right),
    }
}

/// Whether it became champion, and why.
pub(in crate::report) fn verdict(verdict: Option<&Verdict>) -> Finding {
    let finding = |tone, short: &str, long: String| Finding::new("Did it become champion?", tone, short, long);
    let Some(Verdict { promoted, reason, why, .. }) = verdict else {
        return finding(Tone::Unknown, "Not judged.", "No verdict is recorded beside this model.".to_owned());
    };
    let why = foreign(why, 1000);
    let long = match reason.as_str() {
        "first" => "It is the first model of its family: it was compared with none, whatever it is worth.".to_owned(),
        "no_worse" => format!("It is no worse than the champion before it: {why}."),
        "always" => "Every new model is promoted here, without being compared.".to_owned(),
        "champion_already" => format!("It was champion already: {why}."),
        "by_hand_only" => "Models are promoted by hand here.".to_owned(),
        "worse_than_champion" => format!("It is worse than the champion: {why}."),
        _ => format!("{}.", sentence(&why)),
    };
    match promoted {
        true if matches!(reason.as_str(), "first" | "always") => finding(Tone::Weak, "Yes, uncompared.", long),
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
        Criterion::Fixed { .. } => "it was given in the settings".to_owned(),
        Criterion::Accuracy => "the most right decisions".to_owned(),
        Criterion::F1 => "the largest F1, the harmonic mean of precision and recall".to_owned(),
        Criterion::Fbeta { beta } => {
            format!("the largest F-measure, recall counting {} times as much as precision", setting(beta))
        }
        Criterion::PrecisionAtRecall { recall_min } => {
            format!("the largest precision with a recall of at least {}", percent(recall_min))
        }
        Criterion::RecallAtPrecision { precision_min } => {
            format!("the largest recall with a precision of at least {}", percent(precision_min))
        }
        Criterion::Cost { false_positive, false_negative } => format!(
            "the least cost, a service made ready in vain costing {} and a missed one {}",
            setting(false_positive),
            setting(false_negative)
        ),
    };
    let at = percent(model.threshold);
    match (&model.selection, model.settings.threshold) {
        (_, Criterion::Fixed { .. }) => format!("From {at} on a ride is called; {by}."),
        (None, _) => format!("From {at} on a ride is called. How that was chosen is not recorded."),
        (Some(selection), criterion) => {
            let written = match criterion {
                Criterion::Cost { .. } => |value: f64| significant(value, 3),
                _ => percent,
            };
            let value = selection
                .threshold
                .value
                .filter(|value| value.is_finite())
                .map_or(String::new(), |value| format!(", which comes to {} there", written(value)));
            let reached =
                if selection.threshold.reached { "" } else { " No threshold gives that; this one comes nearest." };
            format!(
                "From {at} on a ride is called. Chosen for {by}{value}, by cross-validation in {} parts among the \
                    rides trained on; the held-out rides had no say.{reached}",
                selection.folds
            )
        }
    }
}
