//! The section `[trainer]` of the configuration.

use crate::promote::{Metric, Promotion, Rule};
use common::{
    features::{FOLDS_MAX, FeatureSet},
    model::{Criterion, TrainingSettings},
};
use runtime::config::{self, Problem};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IntoDeserializer, value::StrDeserializer},
};

/// Longest that a message may be held: below the 20 minutes after which a worker's attempt counts as failed.
const HOLD_MS_MAX: u64 = 19 * 60 * 1000;

/// How models are trained, and which of them become champion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Which features a model is made of: `all`, `mileage` or `weather`.
    #[serde(deserialize_with = "named")]
    pub features: FeatureSet,
    /// L2 penalty beside the sum of the losses, on standardised coefficients: a number, or several parted by commas, of which
    /// cross-validation takes the best. See [`TrainingSettings::alphas`].
    #[serde(with = "numbers")]
    pub alpha: Vec<f64>,
    /// Parts of the cross-validation.
    pub folds: u32,
    /// Probability from which on the decision is service: a number, or the criterion it is chosen by on rides held out in the
    /// cross-validation: `accuracy`, `f1`, `fbeta`, `precision_at_recall`, `recall_at_precision`, `cost`.
    #[serde(with = "threshold")]
    pub threshold: Threshold,
    /// For `fbeta`: how many times as much recall counts as precision.
    pub beta: f64,
    /// For `precision_at_recall`.
    pub recall_min: f64,
    /// For `recall_at_precision`.
    pub precision_min: f64,
    /// For `cost`: of a service made ready in vain.
    pub cost_false_positive: f64,
    /// For `cost`: of a service that was not made ready.
    pub cost_false_negative: f64,
    /// Fewer rides with a label and weather than this are refused.
    pub rides_min: u64,
    /// More rides with a label and weather than this are refused. Each takes 54 bytes of memory, and up to 25 more while
    /// the model is judged; where there is more than one dataset, 20 to 40 more while they are loaded. So 4,000,000 take
    /// 320 to 400 MB.
    pub rides_max: u64,
    /// A breed with at least so many rides to train on gets a model of its own; 0: none does.
    pub breed_rides_min: u64,
    /// Which new models become champion: those that pass the rule below (`by_rule`), all (`always`), none but by hand (`by_hand`).
    #[serde(deserialize_with = "named")]
    pub promotion: Promotion,
    /// What the rule compares: `log_loss`, `brier` or `roc_auc`.
    #[serde(deserialize_with = "named")]
    pub promotion_metric: Metric,
    /// By how much a new model may be worse than the champion on the same held-out rides.
    pub promotion_margin: f64,
    /// On fewer held-out rides than this they are not compared, and the champion stays.
    pub promotion_rides_min: u64,
    /// Keep the rides of each dataset, as they were parsed, below `cache/trainer` in the store, so that a training reads only what is
    /// new. Models are the same with and without. Takes some 30 MB of memory more.
    pub cache: bool,
    /// A message is held unacknowledged for at most so long; a longer training goes on without it, and it comes again. To be well
    /// below the broker's `consumer_timeout` (30 minutes unless told otherwise).
    pub hold_ms_max: u64,
}

/// See [`Settings::threshold`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // See Criterion.
pub enum Threshold {
    #[serde(skip)]
    Fixed(f64),
    Accuracy,
    F1,
    Fbeta,
    PrecisionAtRecall,
    RecallAtPrecision,
    Cost,
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
    /// What a model's id follows from.
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

    /// Which new models become champion.
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
    const SECTION: &'static str = "trainer";

    fn check(&self) -> Result<(), Problem> {
        let told: Vec<String> = self.alpha.iter().map(f64::to_string).collect();
        let rising = self.alpha.is_sorted_by(|a, b| a < b);
        if self.alpha.is_empty() || !rising || self.alpha.iter().any(|alpha| !alpha.is_finite() || *alpha < 0.0) {
            let expected = "a number not below 0, e.g. 1, or several of them, rising, parted by commas, e.g. 0.1,1,10";
            return Err(Problem::new("alpha", told.join(","), expected));
        }
        if !(2..=FOLDS_MAX).contains(&self.folds) {
            return Err(Problem::new("folds", self.folds, format!("2 to {FOLDS_MAX}, e.g. 5")));
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
        for (key, share) in [("recall_min", self.recall_min), ("precision_min", self.precision_min)] {
            if !(share > 0.0 && share <= 1.0) {
                return Err(Problem::new(key, share, "a share above 0, at most 1, e.g. 0.8"));
            }
        }
        let (fp, fne) = ("cost_false_positive", "cost_false_negative");
        for (key, value) in [("beta", self.beta), (fp, self.cost_false_positive), (fne, self.cost_false_negative)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Problem::new(key, value, "a number above 0, e.g. 1"));
            }
        }
        if !(self.promotion_margin.is_finite() && self.promotion_margin >= 0.0) {
            return Err(Problem::new("promotion_margin", self.promotion_margin, "a number not below 0, e.g. 0.001"));
        }
        if self.rides_min < 10 {
            return Err(Problem::new("rides_min", self.rides_min, "at least 10 rides, e.g. 100"));
        }
        if self.rides_max < self.rides_min {
            return Err(Problem::new("rides_max", self.rides_max, "at least rides_min, e.g. 4000000"));
        }
        if (1..10).contains(&self.breed_rides_min) {
            return Err(Problem::new(
                "breed_rides_min",
                self.breed_rides_min,
                "at least 10 rides, e.g. 200, or 0 for none",
            ));
        }
        if !(100..=HOLD_MS_MAX).contains(&self.hold_ms_max) {
            let right =
                format!("100 to {HOLD_MS_MAX} ms: less than the broker's consumer_timeout and run.handle_timeout_ms");
            return Err(Problem::new("hold_ms_max", self.hold_ms_max, right));
        }
        Ok(())
    }
}

/// One of some names; an error says which there are.
fn named<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    let name: StrDeserializer<'_, D::Error> = text.as_str().into_deserializer();
    T::deserialize(name)
}

/// A number, a list of them, or a text of numbers parted by commas, as environment variables have it.
mod numbers {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Told {
        One(f64),
        Many(Vec<f64>),
        Text(String),
    }

    pub(super) fn serialize<S: Serializer>(numbers: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        numbers.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        Ok(match Told::deserialize(deserializer)? {
            Told::One(number) => vec![number],
            Told::Many(numbers) => numbers,
            Told::Text(text) => {
                let number =
                    |part: &str| part.trim().parse().map_err(|_| D::Error::custom(format!("{part:?} is no number")));
                text.trim_matches(['[', ']']).split(',').map(number).collect::<Result<_, _>>()?
            }
        })
    }
}

/// A number, the same as a text, or the name of a criterion.
mod threshold {
    use super::Threshold;
    use serde::{
        Deserialize, Deserializer, Serialize, Serializer,
        de::{Error, IntoDeserializer, value::StrDeserializer},
    };

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Told {
        Number(f64),
        Text(String),
    }

    pub(super) fn serialize<S: Serializer>(threshold: &Threshold, serializer: S) -> Result<S::Ok, S::Error> {
        match threshold {
            Threshold::Fixed(probability) => probability.serialize(serializer),
            criterion => criterion.serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Threshold, D::Error> {
        let text = match Told::deserialize(deserializer)? {
            Told::Number(probability) => return Ok(Threshold::Fixed(probability)),
            Told::Text(text) => text,
        };
        if let Ok(probability) = text.parse() {
            return Ok(Threshold::Fixed(probability));
        }
        let criterion: StrDeserializer<'_, D::Error> = text.as_str().into_deserializer();
        Threshold::deserialize(criterion).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::config::{Configuration, Settings as _};

    fn told(overrides: &[(&str, &str)]) -> Result<Settings, String> {
        let overrides: Vec<_> = overrides.iter().map(|(k, v)| (format!("trainer.{k}"), (*v).to_owned())).collect();
        let configuration = Configuration::load(None, &overrides).map_err(|error| error.to_string())?;
        configuration.section().map_err(|error| error.to_string())
    }

    /// Penalties and threshold are read however they are written.
    #[test]
    fn penalties_and_criteria_are_read() {
        assert_eq!(told(&[]), Ok(Settings::default()));
        assert_eq!(told(&[("alpha", "0.5")]).unwrap().alpha, [0.5]);
        assert_eq!(told(&[("alpha", "0, 1,10")]).unwrap().alpha, [0.0, 1.0, 10.0]);
        let training = told(&[("threshold", "cost"), ("cost_false_negative", "7")]).unwrap().training();
        assert_eq!(training.threshold, Criterion::Cost { false_positive: 1.0, false_negative: 7.0 });
        assert_eq!(told(&[("threshold", "0.4")]).unwrap().threshold, Threshold::Fixed(0.4));
        assert_eq!(told(&[("breed_rides_min", "0")]).unwrap().training().breed_rides_min, None);
    }

    #[test]
    fn what_is_wrong_is_told_with_what_would_be_right() {
        for (key, value, expected) in [
            ("alpha", "1,0.5", "alpha"),
            ("alpha", "-1", "alpha"),
            ("alpha", "a", "is no number"),
            ("folds", "1", "2 to 20"),
            ("threshold", "1.5", "0.5, or a criterion"),
            ("threshold", "best", "accuracy"),
            ("features", "none", "mileage"),
            ("promotion_margin", "-1", "0.001"),
            ("promotion_metric", "auc", "roc_auc"),
            ("cost_false_positive", "0", "above 0"),
            ("breed_rides_min", "3", "0 for none"),
        ] {
            let error = told(&[(key, value)]).unwrap_err();
            assert!(
                error.contains(expected) && error.contains(key.split('_').next().unwrap()),
                "{key}={value}: {error}"
            );
        }
        assert_eq!(Settings::default().check(), Ok(()));
    }
}
