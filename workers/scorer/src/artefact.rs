//! Which artefacts may be served.

use common::contract::{
    features::{FEATURE_COUNT, FEATURES},
    model::{Champion, MODEL_SCHEMA, Model},
};

/// Why an artefact is not served. The last good one stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It is not there.
    #[error("there is nothing at {0}")]
    Missing(String),
    /// Of another version.
    #[error("its schema is {0}; this scorer reads {MODEL_SCHEMA}")]
    Schema(String),
    /// Not the one that was promoted.
    #[error("it is {found}; {expected} was promoted")]
    Other {
        /// `<model>/<model id>` of the artefact.
        found: String,
        /// The same of the champion.
        expected: String,
    },
    /// Its features are not those of a score request.
    #[error("its features are {found}; this scorer knows {expected}")]
    Features {
        /// Of the artefact, with units.
        found: String,
        /// Of this scorer, with units.
        expected: String,
    },
    /// A number that is none, or a threshold that is no probability.
    #[error("{0} is not a usable number")]
    Number(String),
}

/// Checks that an artefact is whole, is the one `champion` names, and can score.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(model: &Model, champion: &Champion) -> Result<(), Unusable> {
    if model.schema != MODEL_SCHEMA {
        return Err(Unusable::Schema(model.schema.clone()));
    }
    if (&model.model, &model.model_id) != (&champion.model, &champion.model_id) {
        let found = format!("{}/{}", model.model, model.model_id);
        return Err(Unusable::Other { found, expected: format!("{}/{}", champion.model, champion.model_id) });
    }
    let found = model.coefficients.iter().map(|coefficient| (coefficient.feature.as_str(), coefficient.unit.as_str()));
    let expected = FEATURES.iter().map(|feature| (feature.name, feature.unit));
    if model.coefficients.len() != FEATURE_COUNT || !found.clone().eq(expected.clone()) {
        return Err(Unusable::Features { found: list(found), expected: list(expected) });
    }
    if let Some(coefficient) = model.coefficients.iter().find(|coefficient| !coefficient.per_unit.is_finite()) {
        return Err(Unusable::Number(format!("the coefficient of {}", coefficient.feature)));
    }
    if !model.intercept.is_finite() {
        return Err(Unusable::Number("intercept".to_owned()));
    }
    if !(0.0..=1.0).contains(&model.threshold) {
        return Err(Unusable::Number("threshold".to_owned()));
    }
    Ok(())
}

/// Whether `fresh` was champion some time before `served` was: what a delayed writer or reader may still see.
pub fn is_before(fresh: &Champion, served: &Champion) -> bool {
    served.history.get(fresh.history.len()) == Some(&fresh.model_id)
}

fn list<'a>(features: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    features.map(|(name, unit)| format!("{name} [{unit}]")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use common::contract::{
        layout,
        model::{CHAMPION_SCHEMA, Coefficient, Confusion, Metrics, TrainingCounts, TrainingSettings},
    };

    pub(crate) fn model(model_id: &str) -> Model {
        let metrics = Metrics {
            rides: 0,
            confusion: Confusion::default(),
            accuracy: 0.0,
            precision: None,
            recall: None,
            f1: None,
            roc_auc: None,
            log_loss: 0.0,
            brier: 0.0,
            roc: Vec::new(),
            calibration: Vec::new(),
        };
        let coefficient = |(feature, per_unit): (&common::contract::features::Feature, f64)| Coefficient {
            feature: feature.name.to_owned(),
            unit: feature.unit.to_owned(),
            per_unit,
            standardised: per_unit,
            mean: 0.0,
            std_dev: 1.0,
            min: 0.0,
            max: 1.0,
        };
        Model {
            schema: MODEL_SCHEMA.to_owned(),
            model: layout::GLOBAL_MODEL.to_owned(),
            model_id: model_id.to_owned(),
            trainer: "0".to_owned(),
            settings: TrainingSettings::default(),
            datasets: Vec::new(),
            counts: TrainingCounts::default(),
            intercept: -19.2,
            intercept_standardised: -19.2,
            coefficients: FEATURES.iter().zip([0.75, 0.0, -0.011, -0.004, -0.003, 0.007]).map(coefficient).collect(),
            threshold: 0.5,
            gradient_norm: 0.0,
            train: metrics,
            test: None,
        }
    }

    pub(crate) fn champion(line: &[&str]) -> Champion {
        let (model_id, history) = line.split_last().unwrap();
        Champion {
            schema: CHAMPION_SCHEMA.to_owned(),
            model: layout::GLOBAL_MODEL.to_owned(),
            model_id: (*model_id).to_owned(),
            object: layout::model(layout::GLOBAL_MODEL, model_id),
            history: history.iter().map(|id| (*id).to_owned()).collect(),
        }
    }

    #[test]
    fn only_the_promoted_whole_artefact_is_usable() {
        let champion = champion(&["m"]);
        assert_eq!(check(&model("m"), &champion), Ok(()));
        let broken = |change: fn(&mut Model)| {
            let mut model = model("m");
            change(&mut model);
            check(&model, &champion).unwrap_err().to_string()
        };
        assert_eq!(broken(|m| m.schema = "model.v2".into()), "its schema is model.v2; this scorer reads model.v1");
        assert_eq!(broken(|m| m.model_id = "n".into()), "it is service-request/n; service-request/m was promoted");
        assert!(broken(|m| drop(m.coefficients.pop())).starts_with("its features are distance [mile], "));
        assert!(broken(|m| m.coefficients.swap(0, 1)).starts_with("its features are healthpoints [point], distance"));
        assert!(broken(|m| m.coefficients[3].unit = "°C".into()).contains("tmin [°C]"));
        assert_eq!(broken(|m| m.coefficients[5].per_unit = f64::NAN), "the coefficient of prcp is not a usable number");
        assert_eq!(broken(|m| m.intercept = f64::INFINITY), "intercept is not a usable number");
        assert_eq!(broken(|m| m.threshold = 1.5), "threshold is not a usable number");
    }

    #[test]
    fn a_champion_is_before_another_only_in_its_own_line() {
        let served = champion(&["a", "b", "a", "c"]);
        for (line, before) in [
            (&["a"][..], true),
            (&["a", "b"], true),
            (&["a", "b", "a"], true),
            (&["a", "b", "a", "c"], false),
            (&["a", "b", "a", "c", "b"], false),
            (&["x"], false),
        ] {
            assert_eq!(is_before(&champion(line), &served), before, "{line:?}");
        }
    }
}
