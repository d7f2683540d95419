//! Checks artefacts, and keeps the part of them that serving needs.

use common::{
    features::{FEATURES, Feature},
    imputation::{Distribution, UnusableCovariance},
    model::{Model, logistic},
    schema::Described,
    served::PROBABILITY_BINS,
};

/// Why an artefact is not served. The last good one stays in service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Its schema is of another version.
    #[error("its schema is {0}; this scorer reads {name}", name = Model::SCHEMA.name)]
    Schema(String),
    /// Its features are not a selection of those of a score request.
    #[error("its features are {actual}; this scorer knows {expected}, in this order")]
    Features {
        /// Of the artefact, with units.
        actual: String,
        /// Of this scorer, with units.
        expected: String,
    },
    /// A non-finite number, or a threshold outside 0 to 1.
    #[error("{0} is not a usable number")]
    Number(String),
    /// See [`UnusableCovariance`].
    #[error(transparent)]
    Covariance(#[from] UnusableCovariance),
}

/// The part of an artefact that serving needs: without its curves and training data.
#[derive(Debug, Clone, PartialEq)]
pub struct Servable {
    /// Model family.
    pub model: String,
    /// Version.
    pub model_id: String,
    /// Of a breed model: id of the global model of its release; absent if it belongs to no release.
    pub global_model_id: Option<String>,
    /// Probability from which the decision is service.
    pub threshold: f64,
    /// Log-odds of service if all features are 0.
    pub intercept: f64,
    /// Log-odds at the training mean.
    pub intercept_standardised: f64,
    /// One weight per feature that the model uses, in the order of [`FEATURES`].
    pub weights: Box<[Weight]>,
    /// Number of bins in which its probabilities are counted.
    pub parts: usize,
    /// Distribution of the features over the training rides, by which missing features are imputed.
    pub distribution: Box<Distribution>,
}

/// The coefficient of a feature, and the distribution of its training values.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    /// Index in [`FEATURES`].
    pub place: usize,
    /// Log-odds per unit.
    pub per_unit: f64,
    /// Mean over the training rides.
    pub mean: f64,
    /// Standard deviation over the training rides.
    pub std_dev: f64,
    /// Smallest training value.
    pub min: f64,
    /// Largest training value.
    pub max: f64,
    /// Edges between the bins in which the values of the feature are counted; absent if they are not counted.
    pub edges: Option<Box<[f64]>>,
}

impl Weight {
    /// Returns the feature.
    pub fn feature(&self) -> &'static Feature {
        &FEATURES[self.place]
    }
}

impl Servable {
    /// Returns the log-odds of service, given the features that the model uses in the order of its weights.
    pub fn log_odds(&self, features: &[f64]) -> f64 {
        self.intercept + self.weights.iter().zip(features).map(|(w, x)| w.per_unit * x).sum::<f64>()
    }

    /// Returns the probability of service, given the features as for [`Self::log_odds`]. Equals [`Model::probability`] to the last
    /// bit.
    pub fn probability(&self, features: &[f64]) -> f64 {
        logistic(self.log_odds(features))
    }
}

/// Checks that an artefact can score, and returns the part of it that serving needs.
///
/// # Errors
/// Returns the first defect.
pub fn servable(model: &Model) -> Result<Servable, Unusable> {
    if model.schema != Model::SCHEMA.name {
        return Err(Unusable::Schema(model.schema.clone()));
    }
    let used = model.used().ok_or_else(|| Unusable::Features {
        actual: list(model.coefficients.iter().map(|c| (c.feature.as_str(), c.unit.as_str()))),
        expected: list(FEATURES.iter().map(|feature| (feature.name, feature.unit))),
    })?;
    if let Some(coefficient) = model.coefficients.iter().find(|coefficient| !coefficient.per_unit.is_finite()) {
        return Err(Unusable::Number(format!("the coefficient of {}", coefficient.feature)));
    }
    if !model.intercept.is_finite() {
        return Err(Unusable::Number("intercept".to_owned()));
    }
    if !(0.0..=1.0).contains(&model.threshold) {
        return Err(Unusable::Number("threshold".to_owned()));
    }
    let weight = |(place, c): (usize, &common::model::Coefficient)| Weight {
        place,
        per_unit: c.per_unit,
        mean: c.mean,
        std_dev: c.std_dev,
        min: c.min,
        max: c.max,
        edges: c.histogram.as_ref().map(|histogram| histogram.edges.as_slice().into()),
    };
    let distribution = Box::new(Distribution::of(model, &used)?);
    let parts = if model.predicted.is_empty() { PROBABILITY_BINS } else { model.predicted.len() };
    Ok(Servable {
        model: model.model.clone(),
        model_id: model.model_id.clone(),
        global_model_id: model.prior_mean.clone(),
        threshold: model.threshold,
        intercept: model.intercept,
        intercept_standardised: model.intercept_standardised,
        weights: used.into_iter().zip(&model.coefficients).map(weight).collect(),
        parts,
        distribution,
    })
}

fn list<'a>(features: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    features.map(|(name, unit)| format!("{name} [{unit}]")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use common::model::{Alias, AliasName, Coefficient, Histogram, Metrics, Past, TrainingCounts, TrainingSettings};
    use proptest::prelude::*;
    use records::layout;
    use sha2::{Digest, Sha256};

    pub(crate) fn model(model_id: &str) -> Model {
        let metrics = Metrics::default();
        let coefficient = |(feature, per_unit): (&Feature, f64)| Coefficient {
            feature: feature.name.to_owned(),
            unit: feature.unit.to_owned(),
            per_unit,
            standardised: per_unit,
            mean: 0.0,
            std_dev: 1.0,
            min: 0.0,
            max: 1.0,
            inference: None,
            histogram: Some(Histogram {
                edges: vec![10.0, 100.0],
                rides: vec![50, 30, 20],
                services: vec![0; 3],
                mean: vec![0.0; 3],
                mean_probability: vec![0.0; 3],
            }),
        };
        Model {
            schema: Model::SCHEMA.name.to_owned(),
            model: layout::GLOBAL_MODEL.to_owned(),
            model_id: model_id.to_owned(),
            trainer: "0".to_owned(),
            settings: TrainingSettings::default(),
            datasets: Vec::new(),
            counts: TrainingCounts::default(),
            breed: None,
            prior_mean: None,
            alpha: 1.0,
            intercept: -19.2,
            intercept_standard_error: None,
            intercept_standardised: -19.2,
            coefficients: FEATURES.iter().zip([0.75, 0.0, -0.011, -0.004, -0.003, 0.007]).map(coefficient).collect(),
            covariance: None,
            threshold: 0.5,
            gradient_norm: 0.0,
            selection: None,
            evidence: None,
            warnings: Vec::new(),
            predicted: vec![5; 20],
            train: metrics,
            test: None,
        }
    }

    pub(crate) fn encoded(model: &Model) -> Vec<u8> {
        serde_json::to_vec(model).unwrap()
    }

    /// An alias with this history; it names the last version.
    pub(crate) fn alias(alias: AliasName, line: &[&Model]) -> Alias {
        let sha256 = |model: &Model| hex::encode(Sha256::digest(encoded(model)));
        let (named, history) = line.split_last().unwrap();
        let (by, at, why) = ("test".to_owned(), "2018-04-26T03:00:00Z".to_owned(), String::new());
        let past = |model: &&Model| Past {
            model_id: model.model_id.clone(),
            sha256: sha256(model),
            by: by.clone(),
            at: at.clone(),
            why: why.clone(),
        };
        Alias {
            schema: Alias::SCHEMA.name.to_owned(),
            alias,
            model: named.model.clone(),
            model_id: named.model_id.clone(),
            object: layout::model(&named.model, &named.model_id),
            sha256: sha256(named),
            generation: line.len() as u64,
            history: history.iter().map(past).collect(),
            by,
            at,
            why,
        }
    }

    /// The model as served.
    pub(crate) fn served(model: &Model) -> Servable {
        servable(model).unwrap()
    }

    #[test]
    fn only_an_artefact_that_can_score_is_usable() {
        let good = servable(&model("m")).unwrap();
        assert_eq!((good.model_id.as_str(), good.weights.len()), ("m", 6));
        let broken = |change: fn(&mut Model)| {
            let mut model = model("m");
            change(&mut model);
            servable(&model).unwrap_err().to_string()
        };
        assert_eq!(broken(|m| m.schema = "model.v2".into()), "its schema is model.v2; this scorer reads model.v1");
        assert!(broken(|m| m.coefficients.swap(0, 1)).starts_with("its features are healthpoints [point], distance"));
        assert!(broken(|m| m.coefficients[3].unit = "°C".into()).contains("tmin [°C]"));
        assert_eq!(broken(|m| m.coefficients[5].per_unit = f64::NAN), "the coefficient of prcp is not a usable number");
        assert_eq!(broken(|m| m.intercept = f64::INFINITY), "intercept is not a usable number");
        let covariance = "the covariance is not a finite matrix with a row and a column for each coefficient";
        assert_eq!(broken(|m| m.covariance = Some(vec![vec![1.0; 6]; 5])), covariance);
        assert_eq!(broken(|m| m.covariance = Some(vec![vec![1.0; 5]; 6])), covariance);
        assert_eq!(broken(|m| m.covariance = Some(vec![vec![f64::NAN; 6]; 6])), covariance);
        assert_eq!(broken(|m| m.threshold = 1.5), "threshold is not a usable number");
    }

    proptest! {
        /// The served part gives the same probability as the artefact, whichever features it uses.
        #[test]
        fn the_served_part_scores_like_the_artefact(
            features in prop::array::uniform6(-500.0..500.0), used in prop::array::uniform6(any::<bool>()),
        ) {
            let mut model = model("m");
            let mut used_by = used.iter();
            model.coefficients.retain(|_| *used_by.next().unwrap());
            let features: Vec<f64> = features.iter().zip(used).filter(|(_, used)| *used).map(|(x, _)| *x).collect();
            let servable = served(&model);
            prop_assert_eq!(servable.probability(&features).to_bits(), model.probability(&features).to_bits());
            prop_assert!(servable.weights.iter().zip(&model.coefficients).all(|(w, c)| w.feature().name == c.feature));
        }
    }
}
