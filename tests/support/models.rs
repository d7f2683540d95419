//! Models with given coefficients, and the registry that they are stored in.

use common::{
    features::FEATURES,
    model::{Alias, AliasName, Coefficient, Histogram, Metrics, Model, TrainingCounts, TrainingSettings},
    schema::Described,
};
use records::{
    layout,
    registry::{self, Change, Version},
    store::{self, Store},
};
use runtime::host;

/// A model with this log-odds at all features 0, and this slope per mile; the other coefficients are 0.
pub fn model(family: &str, model_id: &str, intercept: f64, per_mile: f64) -> Model {
    let metrics = Metrics::default();
    let coefficients = FEATURES.iter().map(|feature| {
        let edges: Vec<f64> = (1..10).map(|edge| f64::from(edge) * 10.0).collect();
        let bins = edges.len() + 1;
        Coefficient {
            feature: feature.name.to_owned(),
            unit: feature.unit.to_owned(),
            per_unit: if feature.name == "distance" { per_mile } else { 0.0 },
            standardised: 0.0,
            mean: 50.0,
            std_dev: 1.0,
            min: 0.0,
            max: 100.0,
            inference: None,
            histogram: Some(Histogram {
                edges,
                rides: vec![100; bins],
                services: vec![50; bins],
                mean: vec![0.0; bins],
                mean_probability: vec![0.5; bins],
            }),
        }
    });
    Model {
        schema: Model::SCHEMA.name.to_owned(),
        model: family.to_owned(),
        model_id: model_id.to_owned(),
        trainer: "test".to_owned(),
        settings: TrainingSettings::default(),
        datasets: Vec::new(),
        counts: TrainingCounts::default(),
        breed: None,
        prior_mean: None,
        alpha: 1.0,
        intercept,
        intercept_standard_error: None,
        intercept_standardised: intercept + 50.0 * per_mile,
        coefficients: coefficients.collect(),
        covariance: None,
        threshold: 0.5,
        gradient_norm: 0.0,
        selection: None,
        evidence: None,
        warnings: Vec::new(),
        predicted: vec![50; 20],
        train: metrics,
        test: None,
    }
}

/// Writes the artefact.
pub async fn write(store: &Store, model: &Model) -> Version {
    let body = serde_json::to_vec(model).expect("a model is JSON");
    store::write(store, &layout::model(&model.model, &model.model_id), body).await.expect("the store is there");
    let version = registry::version(store, &model.model, &model.model_id).await.expect("the store is there");
    version.expect("what was written is a version").0
}

/// Sets an alias to the version, as the trainer and an operator do.
pub async fn name(store: &Store, alias: AliasName, version: &Version) -> Alias {
    let change = Change { by: "test", at: host::now(), why: "test" };
    registry::set_alias(store, alias, version, change).await.expect("the store is there")
}
