//! Which new model becomes champion: one pure decision that also says why.

use crate::{
    bootstrap::{self, Ranked},
    metrics::softplus,
    newton::Cancel,
    rows::Rides,
};
use common::model::{Alias, Evidence, Interval, Model, logistic};
use serde::{Deserialize, Serialize};

/// By how much chance alone must be unlikely for the features to count as telling something.
pub const EVIDENCE_P_MAX: f64 = 0.001;

/// The reason of a verdict on the present champion.
pub const CHAMPION_ALREADY: &str = "champion_already";

/// The reason of a verdict where only a person promotes.
pub const BY_HAND_ONLY: &str = "by_hand_only";

/// Who promotes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Promotion {
    /// The trainer, those models that pass the rule.
    #[default]
    ByRule,
    /// The trainer, every model.
    Always,
    /// A person.
    ByHand,
}

/// What is compared on held-out rides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Mean negative log-likelihood: smaller is better.
    #[default]
    LogLoss,
    /// Mean squared error of the probability: smaller is better.
    Brier,
    /// Area under the ROC curve: larger is better.
    RocAuc,
}

impl Metric {
    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::LogLoss => "log-loss",
            Self::Brier => "Brier score",
            Self::RocAuc => "ROC AUC",
        }
    }
}

/// When a new model takes the champion's place.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Who promotes.
    pub promotion: Promotion,
    /// What is compared.
    pub metric: Metric,
    /// By how much the new model may be worse.
    pub margin: f64,
    /// On fewer held-out rides nothing is compared.
    pub rides_min: u64,
}

/// Champion and challenger on the same held-out rides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Id of the champion.
    pub champion_id: String,
    /// What is compared.
    pub metric: Metric,
    /// Rides neither has seen.
    pub rides: u64,
    /// The champion's.
    pub champion: f64,
    /// The challenger's.
    pub challenger: f64,
    /// By how much the challenger is better (below 0: worse), with its bootstrap interval.
    pub gain: Interval,
}

/// Whether a model became champion when it was trained, and why: `models/<model>/<id>/verdict.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether it did.
    pub promoted: bool,
    /// Stable code: `first`, `no_worse`, `always`, `unrivalled`, `champion_already`, or one of those of
    /// [`common::message::ModelRejected::reason`].
    pub reason: String,
    /// In words, with the numbers.
    pub why: String,
    /// With the champion, where there was one to compare with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// By which rule; after another one was configured a model that was refused is judged again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
}

impl Verdict {
    fn new(promoted: bool, reason: &str, why: String) -> Self {
        Self { promoted, reason: reason.to_owned(), why, comparison: None, rule: None }
    }
}

/// What is known about a challenger before it is compared.
#[derive(Debug, Clone, Copy)]
pub struct Challenger<'a> {
    /// Its id.
    pub model_id: &'a str,
    /// What speaks for its features; a model of one breed has none of its own.
    pub evidence: Option<&'a Evidence>,
    /// Rides held out from it.
    pub held_out: u64,
    /// Whether the champion was trained on all its datasets and on others that are still there.
    pub outdated: bool,
    /// Whether there is no champion whose artefact can be used, or none at all.
    pub unrivalled: bool,
}

/// Judges a challenger. `compare` is asked only when all else allows a promotion.
pub fn judge(
    rule: &Rule,
    challenger: Challenger<'_>,
    champion: Option<&Alias>,
    compare: impl FnOnce() -> Option<Comparison>,
) -> Verdict {
    let Challenger { model_id, evidence, held_out, outdated, unrivalled } = challenger;
    let yes = |reason, why: String| Verdict::new(true, reason, why);
    let no = |reason, why: String| Verdict::new(false, reason, why);
    let by_hand = || no(BY_HAND_ONLY, "trainer.promotion is by_hand".to_owned());
    let Some(champion) = champion else {
        return match rule.promotion {
            Promotion::ByHand => by_hand(),
            Promotion::ByRule | Promotion::Always => yes("first", "the first model".to_owned()),
        };
    };
    if champion.model_id == model_id {
        return yes(CHAMPION_ALREADY, champion.why.clone());
    }
    if champion.named(model_id) {
        let why = format!("it was champion before and was replaced: {}", champion.why);
        return no("replaced_before", why);
    }
    if outdated {
        let why = format!("champion {} was trained on all its datasets and on others", champion.model_id);
        return no("outdated", why);
    }
    match rule.promotion {
        Promotion::ByHand => return by_hand(),
        Promotion::ByRule | Promotion::Always if unrivalled => {
            let why = format!("the artefact of champion {} cannot be used", champion.model_id);
            return yes("unrivalled", why);
        }
        Promotion::Always => return yes("always", "trainer.promotion is always".to_owned()),
        Promotion::ByRule => {}
    }
    if held_out < rule.rides_min {
        let why = format!(
            "{held_out} rides are held out: too few to compare it with the champion (at least {})",
            rule.rides_min
        );
        return no("too_few_held_out", why);
    }
    if let Some(why) = evidence.and_then(without_evidence) {
        return no("no_evidence", why);
    }
    let Some(comparison) = compare() else {
        return no("too_few_held_out", format!("the {held_out} held-out rides cannot tell it from the champion"));
    };
    let Comparison { metric, rides, champion: theirs, challenger: ours, gain, champion_id } = &comparison;
    let worse = gain.value < -rule.margin;
    let why = format!(
        "{} {ours:.5} against {theirs:.5} of champion {champion_id} on the same {rides} held-out rides (better by {:.5}, 95 % \
         interval {:.5} to {:.5}; allowed to be worse by {})",
        metric.name(),
        gain.value,
        gain.lower,
        gain.upper,
        rule.margin
    );
    let verdict = if worse { no("worse_than_champion", why) } else { yes("no_worse", why) };
    Verdict { comparison: Some(comparison), ..verdict }
}

/// The verdict on a release whose model of all rides may be promoted: its models by breed, taken together, must not be worse than
/// those that answer now, either.
pub fn judge_breeds(rule: &Rule, verdict: Verdict, breeds: &Comparison) -> Verdict {
    let Comparison { metric, rides, champion, challenger, gain, .. } = breeds;
    if *rides < rule.rides_min || gain.value >= -rule.margin {
        return verdict;
    }
    let why = format!(
        "its models by breed, taken together, are worse: {} {challenger:.5} against {champion:.5} of those in service on the same \
         {rides} held-out rides (better by {:.5}, 95 % interval {:.5} to {:.5}; allowed to be worse by {})",
        metric.name(),
        gain.value,
        gain.lower,
        gain.upper,
        rule.margin
    );
    Verdict { promoted: false, reason: "worse_than_champion".to_owned(), why, ..verdict }
}

/// Why the features of a model do not count as telling anything; `None` when they do.
pub fn without_evidence(evidence: &Evidence) -> Option<String> {
    if let Some(test) = &evidence.any
        && test.p_value >= EVIDENCE_P_MAX
    {
        return Some(format!(
            "no evidence that the features tell anything: the likelihood-ratio test has p = {:.3} (below {EVIDENCE_P_MAX} would be)",
            test.p_value
        ));
    }
    let gain = evidence.held_out.as_ref()?.over_base_rate.log_loss;
    (gain.value <= 0.0).then(|| {
        format!(
            "on held-out rides it is no better than always saying the share of service (log-loss worse by {:.5})",
            -gain.value
        )
    })
}

/// Compares two models on rides neither was trained on. `None` when they cannot be told apart there at all, as with one class only
/// and [`Metric::RocAuc`], or when cancelled.
pub fn compare(
    metric: Metric,
    champion: &Model,
    challenger: &Model,
    test: &Rides,
    threads: usize,
    cancel: &Cancel,
) -> Option<Comparison> {
    let log_odds = |model: &Model| -> Option<Vec<f64>> {
        let used = model.used()?;
        let of = |row: &[f64; 6]| model.log_odds(&used.iter().map(|j| row[*j]).collect::<Vec<_>>());
        Some(test.features.iter().map(of).collect())
    };
    compare_predictions(
        metric,
        &champion.model_id,
        &log_odds(champion)?,
        &log_odds(challenger)?,
        &test.service,
        threads,
        cancel,
    )
}

/// The same of log-odds, ride by ride.
pub(crate) fn compare_predictions(
    metric: Metric,
    champion_id: &str,
    champion: &[f64],
    challenger: &[f64],
    service: &[bool],
    threads: usize,
    cancel: &Cancel,
) -> Option<Comparison> {
    if service.is_empty() {
        return None;
    }
    let loss = |wrong: f64| match metric {
        Metric::LogLoss | Metric::RocAuc => softplus(wrong),
        Metric::Brier => logistic(wrong).powi(2),
    };
    let (theirs, ours) = (Ranked::with_loss(champion, service, loss), Ranked::with_loss(challenger, service, loss));
    let figures = |weights: &[u32]| match metric {
        Metric::RocAuc => {
            let (theirs, ours) = (theirs.roc_auc(weights, service)?, ours.roc_auc(weights, service)?);
            Some([theirs, ours, ours - theirs])
        }
        Metric::LogLoss | Metric::Brier => {
            let (theirs, ours) = (theirs.mean_loss(weights), ours.mean_loss(weights));
            Some([theirs, ours, theirs - ours])
        }
    };
    let [theirs, ours, gain] = bootstrap::intervals(service.len(), threads, cancel, figures)?;
    let champion_id = champion_id.to_owned();
    Some(Comparison {
        champion_id,
        metric,
        rides: service.len() as u64,
        champion: theirs.value,
        challenger: ours.value,
        gain,
    })
}
