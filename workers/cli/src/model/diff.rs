//! `model diff`: how two versions of a model family differ.

use super::versions::{check_family, resolve};
use crate::{
    arguments::Family,
    output::print_json,
    session::{Failed, Session},
};
use common::document::{Comparison, Verdict};
use common::model::{Interval, Metrics, Model};
use indicatif::HumanCount;
use records::registry;
use serde_json::json;

/// Two versions, and what the trainer knows of both.
struct Difference {
    from: Model,
    to: Model,
    /// Names and both values of the settings that differ.
    settings: Vec<(String, [String; 2])>,
    /// The comparison on the same held-out rides, where `from` was the champion when `to` was trained.
    comparison: Option<Comparison>,
}

/// `diff`
pub(super) async fn diff(session: &Session, from: &str, to: &str, family: &Family) -> Result<(), Failed> {
    let store = session.existing_store()?;
    check_family(&family.model)?;
    let ((_, from), (_, to)) = (resolve(&store, family, from).await?, resolve(&store, family, to).await?);
    let settings = changed_settings(&from, &to)?;
    let verdict = registry::read::<Verdict>(&store, &to.model, &to.model_id).await?;
    let comparison = verdict.and_then(|verdict| verdict.comparison).filter(|c| c.champion_id == from.model_id);
    let difference = Difference { from, to, settings, comparison };
    match session.shared.json {
        true => print_json(&difference.as_json())?,
        false => difference.print(),
    }
    Ok(())
}

fn changed_settings(from: &Model, to: &Model) -> serde_json::Result<Vec<(String, [String; 2])>> {
    let [from, to] = [serde_json::to_value(&from.settings)?, serde_json::to_value(&to.settings)?];
    let all = from.as_object().into_iter().flatten();
    let pairs = all.map(|(key, value)| (key.clone(), [value.to_string(), to[key].to_string()]));
    Ok(pairs.filter(|(_, [from, to])| from != to).collect())
}

/// Ids of the batches that `one` was trained on and `other` was not.
fn only_in(one: &Model, other: &Model) -> Vec<String> {
    let datasets = one.datasets.iter().filter(|dataset| !other.datasets.contains(dataset));
    datasets.map(|dataset| dataset.batch_id.clone()).collect()
}

impl Difference {
    fn as_json(&self) -> serde_json::Value {
        let Self { from, to, comparison, .. } = self;
        json!({
            "from": from, "to": to, "datasets": { "removed": only_in(from, to), "added": only_in(to, from) },
            "same_held_out_rides": comparison,
        })
    }

    fn print(&self) {
        self.print_parameters();
        self.print_metrics();
        self.print_provenance();
    }

    fn print_parameters(&self) {
        let Self { from, to, .. } = self;
        println!("{:<24}{:>20}{:>20}{:>16}", "", from.model_id, to.model_id, "difference");
        row("intercept", Some(from.intercept), Some(to.intercept));
        let coefficient =
            |model: &Model, name: &str| model.coefficients.iter().find(|c| c.feature == name).map(|c| c.per_unit);
        for feature in common::features::FEATURES {
            let (one, other) = (coefficient(from, feature.name), coefficient(to, feature.name));
            if one.is_some() || other.is_some() {
                row(feature.name, one, other);
            }
        }
        row("penalty", Some(from.alpha), Some(to.alpha));
        row("threshold", Some(from.threshold), Some(to.threshold));
    }

    fn print_metrics(&self) {
        type Figure = fn(&Metrics) -> Option<f64>;
        const FIGURES: [(&str, Figure); 6] = [
            ("rides", |m| Some(m.rides as f64)),
            ("log-loss", |m| Some(m.log_loss)),
            ("Brier score", |m| Some(m.brier)),
            ("ROC AUC", |m| m.roc_auc),
            ("accuracy", |m| Some(m.accuracy)),
            ("calibration error", |m| m.calibration_error),
        ];
        println!("\neach on its own held-out rides");
        let of = |model: &Model, figure: Figure| model.test.as_ref().and_then(figure);
        for (name, figure) in FIGURES {
            row(name, of(&self.from, figure), of(&self.to, figure));
        }
        if let Some(Comparison { rides, metric, champion, challenger, gain, .. }) = &self.comparison {
            let (rides, metric, Interval { value, lower, upper }) = (HumanCount(*rides), metric.name(), gain);
            println!(
                "\non the same {rides} held-out rides: {metric} {champion:.5} and {challenger:.5}, better by {value:.5} \
                 ({lower:.5} to {upper:.5})"
            );
        }
    }

    fn print_provenance(&self) {
        let Self { from, to, settings, .. } = self;
        let list = |ids: Vec<String>| match ids.len() {
            0..=5 => ids.join(", "),
            many => format!("{}, … {many} in all", ids[..5].join(", ")),
        };
        for (which, ids) in [("first", only_in(from, to)), ("second", only_in(to, from))] {
            if !ids.is_empty() {
                println!("only the {which} version is trained on batch {}", list(ids));
            }
        }
        for (key, [one, other]) in settings {
            println!("setting {key}: {one} → {other}");
        }
    }
}

/// Prints one figure of both versions; `–` where a version does not have it.
fn row(name: &str, from: Option<f64>, to: Option<f64>) {
    let text = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.6}"));
    let difference = from.zip(to).map_or(String::new(), |(from, to)| format!("{:+.6}", to - from));
    println!("{name:<24}{:>20}{:>20}{difference:>16}", text(from), text(to));
}
