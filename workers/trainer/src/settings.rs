//! The section `[trainer]` of the configuration.

mod numbers;
mod threshold;

pub use threshold::Threshold;

use common::{
    document::{Metric, Promotion, Rule},
    features::{FOLDS_MAX, FeatureSet},
    model::{Criterion, TrainingSettings},
    topology::process::TRAINER,
};
use runtime::config::{
    self, Problem,
    reference::{Entry, Kind, above_0, at_least, entry, flag, number, text},
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IntoDeserializer, value::StrDeserializer},
};

/// Maximum of `hold_ms_max`: less than the 20 minutes after which an attempt of a worker fails.
const HOLD_MS_MAX: u64 = 19 * 60 * 1000;

/// How models are trained, and which of them become champion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Features of the model: `all`, `mileage` or `weather`.
    #[serde(deserialize_with = "named")]
    pub features: FeatureSet,
    /// L2 penalty beside the sum of the losses, on standardised coefficients: a number, or several separated by commas, of which
    /// cross-validation chooses the best. See [`TrainingSettings::alphas`].
    #[serde(with = "numbers")]
    pub alpha: Vec<f64>,
    /// Folds of the cross-validation.
    pub folds: u32,
    /// Probability from which on a ride counts as a service request: a number, or the criterion to choose it by in the
    /// cross-validation: `accuracy`, `f1`, `fbeta`, `precision_at_recall`, `recall_at_precision`, `cost`.
    #[serde(with = "threshold")]
    pub threshold: Threshold,
    /// For `fbeta`: weight of recall relative to precision.
    pub beta: f64,
    /// For `precision_at_recall`: minimum recall.
    pub recall_min: f64,
    /// For `recall_at_precision`: minimum precision.
    pub precision_min: f64,
    /// For `cost`: cost of a false positive, a service prepared in vain.
    pub cost_false_positive: f64,
    /// For `cost`: cost of a false negative, a service that was not prepared.
    pub cost_false_negative: f64,
    /// Minimum number of rides with a label and weather; with fewer there is no model.
    pub rides_min: u64,
    /// Maximum number of rides with a label and weather; with more there is no model. Each takes 54 bytes of memory, up to 25 more
    /// while the model is judged, and 20 to 40 more while several datasets are loaded: 4,000,000 rides take 320 to 400 MB.
    pub rides_max: u64,
    /// Minimum number of rides to train on of a breed that gets a breed model; 0: there are no breed models.
    pub breed_rides_min: u64,
    /// Which new models become champion: those that pass the rule below (`by_rule`), all (`always`), or only those that a person promotes
    /// (`by_hand`).
    #[serde(deserialize_with = "named")]
    pub promotion: Promotion,
    /// Metric that the rule compares: `log_loss`, `brier` or `roc_auc`.
    #[serde(deserialize_with = "named")]
    pub promotion_metric: Metric,
    /// By how much a new model may be worse than the champion on the same held-out rides.
    pub promotion_margin: f64,
    /// Minimum number of held-out rides to compare on; with fewer the champion stays.
    pub promotion_rides_min: u64,
    /// Keeps the parsed rides of each dataset below `cache/trainer` in the store, so that a training reads only new datasets. Models are
    /// the same with and without. Takes some 30 MB of memory more.
    pub cache: bool,
    /// Maximum time for which a message is held unacknowledged. A longer training continues without it, and the message is delivered again.
    /// Keep it well below the broker's `consumer_timeout` (30 minutes by default).
    pub hold_ms_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let TrainingSettings { features, alphas, folds, rides_min, breed_rides_min, .. } = TrainingSettings::default();
        Self {
            features,
            alpha: alphas,
            folds,
            threshold: Threshold::Accuracy,
            beta: 2.0,
            recall_min: 0.8,
            precision_min: 0.8,
            cost_false_positive: 1.0,
            cost_false_negative: 5.0,
            rides_min,
            rides_max: 4_000_000,
            breed_rides_min: breed_rides_min.unwrap_or_default(),
            promotion: Promotion::ByRule,
            promotion_metric: Metric::LogLoss,
            promotion_margin: 0.001,
            promotion_rides_min: 500,
            cache: true,
            hold_ms_max: 10 * 60 * 1000,
        }
    }
}

impl Settings {
    /// Returns the settings that determine a model and its id.
    pub fn training(&self) -> TrainingSettings {
        TrainingSettings {
            features: self.features,
            alphas: self.alpha.clone(),
            folds: self.folds,
            threshold: match self.threshold {
                Threshold::Fixed(probability) => Criterion::Fixed { probability },
                Threshold::Accuracy => Criterion::Accuracy,
                Threshold::F1 => Criterion::F1,
                Threshold::Fbeta => Criterion::Fbeta { beta: self.beta },
                Threshold::PrecisionAtRecall => Criterion::PrecisionAtRecall { recall_min: self.recall_min },
                Threshold::RecallAtPrecision => Criterion::RecallAtPrecision { precision_min: self.precision_min },
                Threshold::Cost => Criterion::Cost {
                    false_positive: self.cost_false_positive,
                    false_negative: self.cost_false_negative,
                },
            },
            rides_min: self.rides_min,
            breed_rides_min: (self.breed_rides_min > 0).then_some(self.breed_rides_min),
        }
    }

    /// Returns the rule by which new models become champion.
    pub fn rule(&self) -> Rule {
        Rule {
            promotion: self.promotion,
            metric: self.promotion_metric,
            margin: self.promotion_margin,
            rides_min: self.promotion_rides_min,
        }
    }
}

impl config::Settings for Settings {
    const SECTION: &'static str = TRAINER.section;
    const REFERENCE: &'static [Entry] = &[
        text("features", "all | mileage | weather").means("the features of a model"),
        entry("alpha", Kind::List, "numbers, rising, 0 or more")
            .means("L2 penalty on standardised coefficients; of several, cross-validation selects one"),
        number("folds", "folds", 2..=FOLDS_MAX as u64).means("number of folds of the cross-validation"),
        entry("threshold", Kind::NumberOrText, "probability or criterion").means(
            "probability from which on service is predicted: a number, accuracy, f1, fbeta, precision_at_recall, \
            recall_at_precision or cost",
        ),
        above_0("beta", "times", None).means("for fbeta: weight of recall relative to precision"),
        above_0("recall_min", "share", Some(1.0)).means("for precision_at_recall: minimum recall"),
        above_0("precision_min", "share", Some(1.0)).means("for recall_at_precision: minimum precision"),
        above_0("cost_false_positive", "any one unit", None).means("for cost: cost of a service prepared in vain"),
        above_0("cost_false_negative", "any one unit", None).means("for cost: cost of a service that was not prepared"),
        at_least("rides_min", "rides", 10)
            .means("minimum number of labelled rides with weather to train on; at most rides_max"),
        at_least("rides_max", "rides", 10).means(
            "maximum number of labelled rides with weather to train on, at least rides_min; each takes up to 100 \
            bytes of memory",
        ),
        entry("breed_rides_min", Kind::ZeroOrIntegerFrom(10), "rides")
            .means("minimum number of rides to train a breed model on; 0: no breed models"),
        text("promotion", "by_rule | always | by_hand").means("which new models become champion"),
        text("promotion_metric", "log_loss | brier | roc_auc").means("the metric that the rule compares"),
        entry("promotion_margin", Kind::NumberFrom(0.0), "of the metric")
            .means("by how much a new model may be worse than the champion on the same held-out rides"),
        at_least("promotion_rides_min", "rides", 0)
            .means("minimum number of held-out rides to compare models; with fewer, the champion stays"),
        flag("cache").means(
            "whether parsed datasets are cached, so that a training reads only new ones; does not change the models",
        ),
        number("hold_ms_max", "milliseconds", 100..=HOLD_MS_MAX).means(
            "maximum time to hold a message; a longer training continues without it, and the message is \
            delivered again",
        ),
    ];

    fn check_rules(&self) -> Result<(), Problem> {
        let alphas: Vec<String> = self.alpha.iter().map(f64::to_string).collect();
        let rising = self.alpha.is_sorted_by(|a, b| a < b);
        if self.alpha.is_empty() || !rising || self.alpha.iter().any(|alpha| !alpha.is_finite() || *alpha < 0.0) {
            let expected =
                "a number not below 0, e.g. 1, or several in rising order, separated by commas, e.g. 0.1,1,10";
            return Err(Problem::new("alpha", alphas.join(","), expected));
        }
        if let Threshold::Fixed(threshold) = self.threshold
            && !(threshold > 0.0 && threshold < 1.0)
        {
            return Err(Problem::new(
                "threshold",
                threshold,
                "a probability between 0 and 1, e.g. 0.5, or a criterion",
            ));
        }
        if self.rides_max < self.rides_min {
            return Err(Problem::new("rides_max", self.rides_max, "at least rides_min, e.g. 4000000"));
        }
        Ok(())
    }
}

/// Reads one of several names; the error lists them.
fn named<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    let name: StrDeserializer<'_, D::Error> = text.as_str().into_deserializer();
    T::deserialize(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::config::{Configuration, Settings as _};

    fn read(overrides: &[(&str, &str)]) -> Result<Settings, String> {
        let overrides: Vec<_> = overrides.iter().map(|(k, v)| (format!("trainer.{k}"), (*v).to_owned())).collect();
        let configuration = Configuration::load(None, &overrides).map_err(|error| error.to_string())?;
        configuration.section().map_err(|error| error.to_string())
    }

    #[test]
    fn penalties_and_thresholds_are_read_in_every_notation() {
        assert_eq!(read(&[]), Ok(Settings::default()));
        assert_eq!(read(&[("alpha", "0.5")]).unwrap().alpha, [0.5]);
        assert_eq!(read(&[("alpha", "0, 1,10")]).unwrap().alpha, [0.0, 1.0, 10.0]);
        let training = read(&[("threshold", "cost"), ("cost_false_negative", "7")]).unwrap().training();
        assert_eq!(training.threshold, Criterion::Cost { false_positive: 1.0, false_negative: 7.0 });
        assert_eq!(read(&[("threshold", "0.4")]).unwrap().threshold, Threshold::Fixed(0.4));
        assert_eq!(read(&[("breed_rides_min", "0")]).unwrap().training().breed_rides_min, None);
    }

    #[test]
    fn an_error_says_what_is_allowed() {
        for (key, value, expected) in [
            ("alpha", "1,0.5", "alpha"),
            ("alpha", "-1", "alpha"),
            ("alpha", "a", "is not a number"),
            ("folds", "1", "2 to 20"),
            ("threshold", "1.5", "0.5, or a criterion"),
            ("threshold", "best", "accuracy"),
            ("features", "none", "mileage"),
            ("promotion_margin", "-1", "0 or more (of the metric)"),
            ("promotion_metric", "auc", "roc_auc"),
            ("cost_false_positive", "0", "above 0"),
            ("breed_rides_min", "3", "0, or 10 or more (rides)"),
        ] {
            let error = read(&[(key, value)]).unwrap_err();
            assert!(
                error.contains(expected) && error.contains(key.split('_').next().unwrap()),
                "{key}={value}: {error}"
            );
        }
        assert_eq!(Settings::default().check(), Ok(()));
    }
}
