//! A model for each breed with enough rides, partially pooled: the penalty shrinks its coefficients, intercept included, towards those
//! of the global model. A rare breed stays near the global model; a frequent one departs from it as far as its rides support.
//!
//! One pooling strength serves all breeds. It is chosen by cross-validation over the rides of all of them; in each fold, the prior mean
//! is the global model that was trained without that fold.

use crate::{
    artefact::{self, GlobalModel},
    data::{Plan, TrainingData, rows::Rides},
    evaluate::{
        bootstrap::{self, Ranking},
        histogram::histograms,
        inference,
    },
    fit::{Cancel, Fit, FitError, PriorMean, Recipe, Vector, fit, log_loss},
    select::best,
};
use common::{
    document::{BreedSummary, Breeds, BreedsHeldOut},
    features::{FEATURE_COUNT, fold},
    model::{Candidate, Model, TrainingCounts},
    schema::Described,
};
use rayon::prelude::*;
use records::layout;

/// Pooling strengths that are tried: the precision, in standardised units, of a prior around the global model.
pub const POOLING_STRENGTHS: [f64; 7] = [1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0];
/// Maximum number of rides of one breed in the cross-validation, evenly spread over all.
const SELECTION_RIDES_MAX: usize = 20_000;

/// The models of all breeds.
#[derive(Debug, Clone)]
pub struct BreedModels {
    /// The document that describes them.
    pub document: Breeds,
    /// The artefacts, in the order of the document.
    pub models: Vec<Model>,
    /// For each held-out ride of these breeds: index of its breed in the document, and index of the ride among all held-out rides.
    pub held_out: Vec<(usize, usize)>,
}

/// Trains a model for every breed with at least `breed_rides_min` rides to train on; `None` if there is no such breed.
///
/// # Errors
/// Fails only if cancelled.
pub fn train(
    plan: &Plan,
    global: &GlobalModel,
    data: &TrainingData,
    cancel: &Cancel,
) -> Result<Option<BreedModels>, FitError> {
    let Some(rides_min) = plan.settings.breed_rides_min else { return Ok(None) };
    let count = data.breeds.len();
    let (in_train, in_test) = (by_breed(&data.train, count), by_breed(&data.test, count));
    let mut breeds: Vec<usize> = (0..count).filter(|breed| in_train[*breed].len() as u64 >= rides_min).collect();
    breeds.sort_by(|a, b| data.breeds[*a].cmp(&data.breeds[*b]));
    if breeds.is_empty() {
        return Ok(None);
    }
    let training = Training { plan, global, data, used: plan.settings.features.used(), cancel };
    let candidates = training.candidates(&breeds, &in_train);
    let strength = POOLING_STRENGTHS[best(&candidates).unwrap_or(POOLING_STRENGTHS.len() / 2)];
    let models: Vec<Result<BreedModel, FitError>> = breeds
        .par_iter()
        .map(|breed| training.model(strength, &data.breeds[*breed], &in_train[*breed], &in_test[*breed]))
        .collect();
    let document = Breeds {
        schema: Breeds::SCHEMA.name.to_owned(),
        pooling_strength: strength,
        candidates,
        held_out: None,
        breeds: Vec::new(),
    };
    let mut trained = BreedModels { document, models: Vec::new(), held_out: Vec::new() };
    let mut predictions = Predictions { separate: Some(Vec::new()), ..Predictions::default() };
    for (index, (breed, model)) in breeds.iter().zip(models).enumerate() {
        let BreedModel { model, fit, separate } = model?;
        let of_breed = Predictions::of(&data.test, &in_test[*breed], &fit, &global.fit, separate.as_ref());
        trained.document.breeds.push(BreedSummary {
            breed: data.breeds[*breed].clone(),
            model: model.model.clone(),
            model_id: model.model_id.clone(),
            train: model.counts.train,
            train_service: model.counts.train_service,
            test: of_breed.service.len() as u64,
            log_loss: of_breed.mean_loss(&of_breed.pooled),
            global_log_loss: of_breed.mean_loss(&of_breed.global),
        });
        trained.models.push(model);
        trained.held_out.extend(in_test[*breed].iter().map(|ride| (index, *ride as usize)));
        predictions.extend(of_breed);
    }
    trained.document.held_out = predictions.compare(cancel);
    if cancel.is_cancelled() {
        return Err(FitError::Cancelled);
    }
    Ok(Some(trained))
}

/// Returns the indices of the rides of each breed, by the number of the breed.
fn by_breed(rides: &Rides, breeds: usize) -> Vec<Vec<u32>> {
    let mut by_breed: Vec<Vec<u32>> = vec![Vec::new(); breeds];
    for (index, breed) in (0u32..).zip(&rides.breed) {
        if let Some(of_breed) = usize::try_from(*breed).ok().and_then(|breed| by_breed.get_mut(breed)) {
            of_breed.push(index);
        }
    }
    by_breed
}

struct Training<'a> {
    plan: &'a Plan,
    global: &'a GlobalModel,
    data: &'a TrainingData,
    used: [bool; FEATURE_COUNT],
    cancel: &'a Cancel,
}

struct BreedModel {
    model: Model,
    fit: Fit,
    /// The model without pooling; `None` if it cannot be trained.
    separate: Option<Fit>,
}

impl Training<'_> {
    /// Evaluates every pooling strength by cross-validation over the rides of these breeds.
    fn candidates(&self, breeds: &[usize], in_train: &[Vec<u32>]) -> Vec<Candidate> {
        let losses: Vec<_> = breeds.par_iter().map(|breed| self.losses(&in_train[*breed])).collect();
        let rides: usize = losses.iter().map(|(_, rides)| rides).sum();
        let candidate = |(index, strength): (usize, &f64)| {
            let sum: f64 = losses.iter().map(|(losses, _)| losses[index]).sum();
            let mean = sum / rides.max(1) as f64;
            Candidate { alpha: *strength, log_loss: Some(mean).filter(|mean| mean.is_finite() && rides > 0) }
        };
        POOLING_STRENGTHS.iter().enumerate().map(candidate).collect()
    }

    /// Returns the sum of the losses of a breed's rides with each pooling strength, each ride predicted by a model without its fold, and
    /// the number of these rides.
    fn losses(&self, of_breed: &[u32]) -> ([f64; POOLING_STRENGTHS.len()], usize) {
        let rides = &self.data.train;
        let folds = u32::try_from(self.global.without_fold.len()).unwrap_or(0);
        let stride = of_breed.len().div_ceil(SELECTION_RIDES_MAX).max(1);
        let sample: Vec<usize> = of_breed.iter().step_by(stride).map(|index| *index as usize).collect();
        let scale = sample.len() as f64 / of_breed.len().max(1) as f64;
        let mut losses = [0.0; POOLING_STRENGTHS.len()];
        for (number, without) in (0..folds).zip(&self.global.without_fold) {
            let (held_out, training): (Vec<usize>, Vec<usize>) =
                sample.iter().partition(|index| fold(rides.spread[**index], folds) == number);
            if training.is_empty() {
                continue;
            }
            let training = rides.only(training.into_iter());
            let prior_mean = without.prior_mean();
            let mut start: Option<Vector> = None;
            for (strength, sum) in POOLING_STRENGTHS.iter().zip(&mut losses).rev() {
                match self.pooled(&training, &prior_mean, strength * scale, start) {
                    Ok(model) => {
                        start = Some(model.parameters);
                        for index in &held_out {
                            *sum += log_loss(model.log_odds(&rides.features[*index]), rides.service[*index]);
                        }
                    }
                    Err(_) => *sum = f64::INFINITY,
                }
            }
        }
        (losses, if folds == 0 { 0 } else { sample.len() })
    }

    fn pooled(
        &self,
        rides: &Rides,
        prior_mean: &PriorMean,
        strength: f64,
        start: Option<Vector>,
    ) -> Result<Fit, FitError> {
        let recipe =
            Recipe { alpha: strength, used: self.used, prior_mean: Some(prior_mean), start, cancel: self.cancel };
        fit(rides, &recipe)
    }

    fn model(&self, strength: f64, breed: &str, in_train: &[u32], in_test: &[u32]) -> Result<BreedModel, FitError> {
        let only = |rides: &Rides, indices: &[u32]| rides.only(indices.iter().map(|index| *index as usize));
        let (rides, test) = (only(&self.data.train, in_train), only(&self.data.test, in_test));
        let global = &self.global.model;
        let pooled = self.pooled(&rides, &self.global.fit.prior_mean(), strength, None)?;
        let unpooled =
            Recipe { alpha: global.alpha, used: self.used, prior_mean: None, start: None, cancel: self.cancel };
        let separate = fit(&rides, &unpooled).ok();
        let scaler = inference::scaler_of(&rides, &pooled.scaler);
        let (histograms, predicted) = histograms(&rides, &pooled);
        let metrics = |rides: &Rides| {
            artefact::quality(&pooled, rides, global.threshold).map(|mut metrics| {
                // Curves of thousands of breeds would take much space, and nobody looks at them.
                metrics.roc = Vec::new();
                metrics
            })
        };
        let name = layout::breed_model(&self.plan.model, breed).unwrap_or_else(|| self.plan.model.clone());
        let model_id = self.plan.breed_model_id(&name).unwrap_or_else(|_| global.model_id.clone());
        let counts = TrainingCounts {
            rides: (rides.len() + test.len()) as u64,
            train: rides.len() as u64,
            train_service: rides.services() as u64,
            test: test.len() as u64,
            test_service: test.services() as u64,
            ..TrainingCounts::default()
        };
        let shift: f64 = pooled.per_unit.iter().zip(scaler.mean).map(|(weight, mean)| weight * mean).sum();
        let Some(of_train) = metrics(&rides) else {
            return Err(FitError::OneClassOnly { rides: rides.len(), services: 0 });
        };
        let model = Model {
            model: name,
            model_id,
            counts,
            breed: Some(breed.to_owned()),
            prior_mean: Some(global.model_id.clone()),
            alpha: strength,
            intercept: pooled.intercept,
            // Most of the curvature at the optimum is that of the prior: it gives no standard errors.
            intercept_standard_error: None,
            intercept_standardised: pooled.intercept + shift,
            coefficients: artefact::coefficients(&pooled, &scaler, self.used, &histograms, false),
            covariance: Some(artefact::covariance(&rides, &scaler, self.used)),
            gradient_norm: pooled.gradient_norm,
            selection: None,
            evidence: None,
            warnings: Vec::new(),
            predicted,
            train: of_train,
            test: metrics(&test),
            ..global.clone()
        };
        Ok(BreedModel { model, fit: pooled, separate })
    }
}

/// Log-odds of held-out rides by the models to compare, and their labels.
#[derive(Default)]
struct Predictions {
    pooled: Vec<f64>,
    global: Vec<f64>,
    /// `None` if a separate model cannot be trained.
    separate: Option<Vec<f64>>,
    service: Vec<bool>,
}

impl Predictions {
    fn of(test: &Rides, in_test: &[u32], pooled: &Fit, global: &Fit, separate: Option<&Fit>) -> Self {
        let log_odds =
            |fit: &Fit| in_test.iter().map(|ride| fit.log_odds(&test.features[*ride as usize])).collect::<Vec<f64>>();
        Self {
            pooled: log_odds(pooled),
            global: log_odds(global),
            separate: separate.map(log_odds),
            service: in_test.iter().map(|ride| test.service[*ride as usize]).collect(),
        }
    }

    fn extend(&mut self, more: Self) {
        self.pooled.extend(more.pooled);
        self.global.extend(more.global);
        self.separate = self.separate.take().zip(more.separate).map(|(mut separate, more)| {
            separate.extend(more);
            separate
        });
        self.service.extend(more.service);
    }

    fn mean_loss(&self, log_odds: &[f64]) -> Option<f64> {
        let loss: f64 = log_odds.iter().zip(&self.service).map(|(z, service)| log_loss(*z, *service)).sum();
        (!self.service.is_empty()).then(|| loss / self.service.len() as f64)
    }

    /// Compares the pooled models with both extremes; `None` if there are no rides.
    fn compare(&self, cancel: &Cancel) -> Option<BreedsHeldOut> {
        if self.service.is_empty() {
            return None;
        }
        let ranking = |log_odds: &[f64]| Ranking::new(log_odds, &self.service);
        let (pooled, global) = (ranking(&self.pooled), ranking(&self.global));
        let separate = self.separate.as_deref().map(ranking);
        let figures = |weights: &[u32]| {
            let loss = pooled.mean_loss(weights);
            let of_global = global.mean_loss(weights);
            let of_separate = separate.as_ref().map_or(loss, |separate| separate.mean_loss(weights));
            Some([loss, of_global, of_separate, of_global - loss, of_separate - loss])
        };
        let [pooled, global, of_separate, over_global, over_separate] =
            bootstrap::intervals(self.service.len(), cancel, figures)?;
        Some(BreedsHeldOut {
            rides: self.service.len() as u64,
            pooled: pooled.value,
            global: global.value,
            separate: separate.as_ref().map(|_| of_separate.value),
            over_global,
            over_separate: separate.as_ref().map(|_| over_separate),
        })
    }
}

#[cfg(test)]
mod tests;
