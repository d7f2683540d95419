//! Which new model becomes champion: one pure decision that also returns its reason.

use crate::{
    data::rows::Rides,
    evaluate::{
        bootstrap::{self, Ranking},
        inference::without_evidence,
    },
    fit::{Cancel, Features, softplus},
};
use common::document::{BY_HAND_ONLY, CHAMPION_ALREADY, Comparison, Metric, Promotion, Rule, Verdict};
use common::model::{Alias, Evidence, Interval, Model, logistic};

/// What is known about a challenger before it is compared.
#[derive(Debug, Clone, Copy)]
pub struct Challenger<'a> {
    /// Version.
    pub model_id: &'a str,
    /// Evidence that its features predict service requests; absent for a breed model.
    pub evidence: Option<&'a Evidence>,
    /// Number of held-out rides.
    pub held_out: u64,
    /// Whether the champion was trained on all datasets of the challenger and on others that still exist.
    pub outdated: bool,
    /// Whether there is no champion, or its artefact cannot be used.
    pub unrivalled: bool,
}

/// Judges a challenger. Calls `compare` only if everything else allows a promotion.
pub fn judge(
    rule: &Rule,
    challenger: Challenger<'_>,
    champion: Option<&Alias>,
    compare: impl FnOnce() -> Option<Comparison>,
) -> Verdict {
    let Challenger { model_id, evidence, held_out, outdated, unrivalled } = challenger;
    let promote = |reason, why: String| Verdict::new(true, reason, why);
    let reject = |reason, why: String| Verdict::new(false, reason, why);
    let by_hand = || reject(BY_HAND_ONLY, "trainer.promotion is by_hand".to_owned());
    let Some(champion) = champion else {
        return match rule.promotion {
            Promotion::ByHand => by_hand(),
            Promotion::ByRule | Promotion::Always => promote("first", "the first model".to_owned()),
        };
    };
    if champion.model_id == model_id {
        return promote(CHAMPION_ALREADY, champion.why.clone());
    }
    if champion.named(model_id) {
        let why = format!("it was champion before and was replaced: {}", champion.why);
        return reject("replaced_before", why);
    }
    if outdated {
        let why = format!("champion {} was trained on all its datasets and on others", champion.model_id);
        return reject("outdated", why);
    }
    match rule.promotion {
        Promotion::ByHand => return by_hand(),
        Promotion::ByRule | Promotion::Always if unrivalled => {
            let why = format!("the artefact of champion {} cannot be used", champion.model_id);
            return promote("unrivalled", why);
        }
        Promotion::Always => return promote("always", "trainer.promotion is always".to_owned()),
        Promotion::ByRule => {}
    }
    if held_out < rule.rides_min {
        let why = format!(
            "{held_out} rides are held out: too few to compare it with the champion (at least {})",
            rule.rides_min
        );
        return reject("too_few_held_out", why);
    }
    if let Some(why) = evidence.and_then(without_evidence) {
        return reject("no_evidence", why);
    }
    let Some(comparison) = compare() else {
        return reject(
            "too_few_held_out",
            format!("the {held_out} held-out rides do not distinguish it from the champion"),
        );
    };
    let Comparison { metric, rides, champion: old, challenger: new, gain, champion_id } = &comparison;
    let worse = gain.value < -rule.margin;
    let why = format!(
        "{} {new:.5} against {old:.5} of champion {champion_id} on the same {rides} held-out rides ({})",
        metric.name(),
        in_words(gain, rule)
    );
    let verdict = if worse { reject("worse_than_champion", why) } else { promote("no_worse", why) };
    Verdict { comparison: Some(comparison), ..verdict }
}

fn in_words(gain: &Interval, rule: &Rule) -> String {
    let Interval { value, lower, upper } = gain;
    let allowed = format!("allowed to be worse by {}", rule.margin);
    format!("better by {value:.5}, 95 % interval {lower:.5} to {upper:.5}; {allowed}")
}

/// Returns the verdict on a release whose global model may be promoted: its breed models together must not be worse than those in
/// service either.
pub fn judge_breeds(rule: &Rule, verdict: Verdict, breeds: &Comparison) -> Verdict {
    let Comparison { metric, rides, champion, challenger, gain, .. } = breeds;
    if *rides < rule.rides_min || gain.value >= -rule.margin {
        return verdict;
    }
    let why = format!(
        "its breed models together are worse: {} {challenger:.5} against {champion:.5} of those in service on the same \
         {rides} held-out rides ({})",
        metric.name(),
        in_words(gain, rule)
    );
    Verdict { promoted: false, reason: "worse_than_champion".to_owned(), why, ..verdict }
}

/// Compares two models on rides that neither was trained on. `None` if the metric is undefined on these rides (for example
/// [`Metric::RocAuc`] with one class), or if cancelled.
pub fn compare(
    metric: Metric,
    champion: &Model,
    challenger: &Model,
    test: &Rides,
    cancel: &Cancel,
) -> Option<Comparison> {
    let log_odds = |model: &Model| -> Option<Vec<f64>> {
        let used = model.used()?;
        let of = |row: &Features| model.log_odds(&used.iter().map(|j| row[*j]).collect::<Vec<_>>());
        Some(test.features.iter().map(of).collect())
    };
    compare_predictions(metric, &champion.model_id, &log_odds(champion)?, &log_odds(challenger)?, &test.service, cancel)
}

/// Compares log-odds, one per ride, as [`compare`] does.
pub(crate) fn compare_predictions(
    metric: Metric,
    champion_id: &str,
    champion: &[f64],
    challenger: &[f64],
    service: &[bool],
    cancel: &Cancel,
) -> Option<Comparison> {
    if service.is_empty() {
        return None;
    }
    let loss = |wrong: f64| match metric {
        Metric::LogLoss | Metric::RocAuc => softplus(wrong),
        Metric::Brier => logistic(wrong).powi(2),
    };
    let champion_id = champion_id.to_owned();
    let (champion, challenger) =
        (Ranking::with_loss(champion, service, loss), Ranking::with_loss(challenger, service, loss));
    let figures = |weights: &[u32]| match metric {
        Metric::RocAuc => {
            let (old, new) = (champion.roc_auc(weights, service)?, challenger.roc_auc(weights, service)?);
            Some([old, new, new - old])
        }
        Metric::LogLoss | Metric::Brier => {
            let (old, new) = (champion.mean_loss(weights), challenger.mean_loss(weights));
            Some([old, new, old - new])
        }
    };
    let [old, new, gain] = bootstrap::intervals(service.len(), cancel, figures)?;
    Some(Comparison {
        champion_id,
        metric,
        rides: service.len() as u64,
        champion: old.value,
        challenger: new.value,
        gain,
    })
}
