//! A model for each breed with enough rides, partially pooled: the penalty draws its coefficients, intercept included, to those of
//! the model of all rides, so that a rare breed stays near it and a frequent one goes its own way.
//!
//! One strength of the pull serves all breeds. It is chosen by cross-validation over the rides of all of them, each fold's models
//! being drawn to the model of all rides that was trained without that fold.

use crate::{
    bootstrap::{self, Ranked},
    build::{self, Built},
    histogram::histograms,
    inference,
    metrics::softplus,
    newton::{Cancel, Vector},
    plan::Plan,
    rows::Rides,
    select::best,
    train::{Centre, Fit, FitError, Recipe, fit},
};
use common::{
    features::{FEATURE_COUNT, fold},
    model::{Candidate, Interval, Model, TrainingCounts},
};
use records::layout;
use serde::{Deserialize, Serialize};
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

/// Strengths of the pull that are tried: the precision, in standardised units, of a prior around the model of all rides.
pub const PULLS: [f64; 7] = [1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0];
/// Rides of one breed that the cross-validation uses at most, evenly spread over all.
const SELECTION_RIDES_MAX: usize = 20_000;
/// Name of the schema of [`Breeds`].
pub const BREEDS_SCHEMA: &str = "breeds.v1";

/// Which breeds got a model, and what that brings: `models/<model>/<id>/breeds.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Breeds {
    /// [`BREEDS_SCHEMA`].
    pub schema: String,
    /// Strength of the pull to the model of all rides.
    pub pull: f64,
    /// Every strength that was tried, with the mean log-loss over the rides of all breeds.
    pub candidates: Vec<Candidate>,
    /// On the rides held out of all these breeds; absent without any.
    pub held_out: Option<BreedsHeldOut>,
    /// By name.
    pub breeds: Vec<BreedSummary>,
}

/// Models by breed against both extremes, on rides none of them has seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BreedsHeldOut {
    /// Rides.
    pub rides: u64,
    /// Mean log-loss of the partially pooled models.
    pub pooled: f64,
    /// … of the model of all rides.
    pub global: f64,
    /// … of models that know nothing of other breeds, with the penalty of the model of all rides; absent when one of them cannot
    /// be trained.
    pub separate: Option<f64>,
    /// How much smaller the log-loss is than that of the model of all rides: above 0 is better.
    pub over_global: Interval,
    /// … than that of separate models.
    pub over_separate: Option<Interval>,
}

/// One breed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BreedSummary {
    /// As [`common::features::breed_name`] has it.
    pub breed: String,
    /// Model family.
    pub model: String,
    /// Version.
    pub model_id: String,
    /// Rides trained on.
    pub train: u64,
    /// … of which ended in a service request.
    pub train_service: u64,
    /// Rides held out.
    pub test: u64,
    /// Mean log-loss of its model on those; absent without any.
    pub log_loss: Option<f64>,
    /// … of the model of all rides.
    pub global_log_loss: Option<f64>,
}

/// The models of all breeds.
#[derive(Debug, Clone)]
pub struct BreedModels {
    /// The account.
    pub account: Breeds,
    /// The artefacts, in the order of the account.
    pub models: Vec<Model>,
    /// For each ride held out of these breeds: which of them it is of, and its place among all rides held out.
    pub held_out: Vec<(usize, usize)>,
}

/// Trains a model for every breed with at least `rides_min` rides to train on, several at once; `None` when there is none.
///
/// # Errors
/// When cancelled.
pub fn train(
    plan: &Plan,
    built: &Built,
    (rides, test): (&Rides, &Rides),
    names: &[String],
    threads: usize,
    cancel: &Cancel,
) -> Result<Option<BreedModels>, FitError> {
    let Some(rides_min) = plan.settings.breed_rides_min else { return Ok(None) };
    let (in_train, in_test) = (by_breed(rides, names.len()), by_breed(test, names.len()));
    let mut breeds: Vec<usize> = (0..names.len()).filter(|breed| in_train[*breed].len() as u64 >= rides_min).collect();
    breeds.sort_by(|a, b| names[*a].cmp(&names[*b]));
    if breeds.is_empty() {
        return Ok(None);
    }
    let training = Training { plan, built, used: plan.settings.features.used(), cancel };
    let losses = in_parallel(&breeds, threads, cancel, |breed| training.losses(rides, &in_train[*breed]))?;
    let used_rides: usize = losses.iter().map(|(_, rides)| rides).sum();
    let candidates: Vec<Candidate> = PULLS
        .iter()
        .enumerate()
        .map(|(index, pull)| {
            let sum: f64 = losses.iter().map(|(losses, _)| losses[index]).sum();
            let mean = sum / used_rides.max(1) as f64;
            Candidate { alpha: *pull, log_loss: Some(mean).filter(|mean| mean.is_finite() && used_rides > 0) }
        })
        .collect();
    let pull = best(&candidates).map_or(PULLS[PULLS.len() / 2], |index| PULLS[index]);
    let fitted = in_parallel(&breeds, threads, cancel, |breed| {
        training.fit_breed(
            pull,
            &names[*breed],
            &rides.only(in_train[*breed].iter().map(|i| *i as usize)),
            test,
            &in_test[*breed],
        )
    })?;
    let mut trained = BreedModels {
        account: Breeds { schema: BREEDS_SCHEMA.to_owned(), pull, candidates, held_out: None, breeds: Vec::new() },
        models: Vec::new(),
        held_out: Vec::new(),
    };
    let (mut pooled, mut global, mut separate, mut service) = (Vec::new(), Vec::new(), Some(Vec::new()), Vec::new());
    for (index, (breed, result)) in breeds.iter().zip(fitted).enumerate() {
        let OfBreed { model, fit, separate: own } = result?;
        let of_test =
            |fit: &Fit| in_test[*breed].iter().map(|i| fit.log_odds(&test.features[*i as usize])).collect::<Vec<f64>>();
        let (here, there) = (of_test(&fit), of_test(&built.fit));
        let labels: Vec<bool> = in_test[*breed].iter().map(|i| test.service[*i as usize]).collect();
        let mean_loss = |log_odds: &[f64]| {
            let loss = log_odds.iter().zip(&labels).map(|(z, y)| softplus(if *y { -z } else { *z })).sum::<f64>();
            (!labels.is_empty()).then(|| loss / labels.len() as f64)
        };
        trained.account.breeds.push(BreedSummary {
            breed: names[*breed].clone(),
            model: model.model.clone(),
            model_id: model.model_id.clone(),
            train: model.counts.train,
            train_service: model.counts.train_service,
            test: labels.len() as u64,
            log_loss: mean_loss(&here),
            global_log_loss: mean_loss(&there),
        });
        trained.models.push(model);
        trained.held_out.extend(in_test[*breed].iter().map(|i| (index, *i as usize)));
        separate = separate.zip(own).map(|(mut all, own)| {
            all.extend(of_test(&own));
            all
        });
        pooled.extend(here);
        global.extend(there);
        service.extend(labels);
    }
    trained.account.held_out = against_extremes(&pooled, &global, separate.as_deref(), &service, threads, cancel);
    if cancel.is_cancelled() {
        return Err(FitError::Cancelled);
    }
    Ok(Some(trained))
}

/// The rides of each breed, by its number.
fn by_breed(rides: &Rides, breeds: usize) -> Vec<Vec<u32>> {
    let mut by_breed: Vec<Vec<u32>> = vec![Vec::new(); breeds];
    for (index, breed) in (0u32..).zip(&rides.breed) {
        if let Some(of_breed) = usize::try_from(*breed).ok().and_then(|breed| by_breed.get_mut(breed)) {
            of_breed.push(index);
        }
    }
    by_breed
}

/// What `work` makes of each item, in their order.
fn in_parallel<I: Sync, T: Send>(
    items: &[I],
    threads: usize,
    cancel: &Cancel,
    work: impl Fn(&I) -> T + Sync,
) -> Result<Vec<T>, FitError> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<T>>> = Mutex::new(items.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                while let index = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(item) = items.get(index)
                    && !cancel.is_cancelled()
                {
                    let result = work(item);
                    done.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(result);
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.into_iter().collect::<Option<Vec<T>>>().ok_or(FitError::Cancelled)
}

struct Training<'a> {
    plan: &'a Plan,
    built: &'a Built,
    used: [bool; FEATURE_COUNT],
    cancel: &'a Cancel,
}

struct OfBreed {
    model: Model,
    fit: Fit,
    /// Without any pull; `None` when that cannot be trained.
    separate: Option<Fit>,
}

impl Training<'_> {
    /// Sum of the losses of this breed's rides with each pull, each ride predicted without its fold; and how many rides that are.
    fn losses(&self, rides: &Rides, of_breed: &[u32]) -> ([f64; PULLS.len()], usize) {
        let folds = u32::try_from(self.built.without_fold.len()).unwrap_or(0);
        let stride = of_breed.len().div_ceil(SELECTION_RIDES_MAX).max(1);
        let sample: Vec<usize> = of_breed.iter().step_by(stride).map(|index| *index as usize).collect();
        let scale = sample.len() as f64 / of_breed.len().max(1) as f64;
        let mut losses = [0.0; PULLS.len()];
        for (number, without) in (0..folds).zip(&self.built.without_fold) {
            let (held_out, training): (Vec<usize>, Vec<usize>) =
                sample.iter().partition(|index| fold(rides.spread[**index], folds) == number);
            if training.is_empty() {
                continue;
            }
            let training = rides.only(training.into_iter());
            let centre = without.centre();
            let mut start: Option<Vector> = None;
            for (pull, sum) in PULLS.iter().zip(&mut losses).rev() {
                match self.pooled(&training, &centre, pull * scale, start) {
                    Ok(fitted) => {
                        start = Some(fitted.parameters);
                        for index in &held_out {
                            let z = fitted.log_odds(&rides.features[*index]);
                            *sum += softplus(if rides.service[*index] { -z } else { z });
                        }
                    }
                    Err(_) => *sum = f64::INFINITY,
                }
            }
        }
        (losses, if folds == 0 { 0 } else { sample.len() })
    }

    fn pooled(&self, rides: &Rides, centre: &Centre, pull: f64, start: Option<Vector>) -> Result<Fit, FitError> {
        let recipe =
            Recipe { alpha: pull, used: self.used, centre: Some(centre), start, threads: 1, cancel: self.cancel };
        fit(rides, &recipe)
    }

    fn fit_breed(
        &self,
        pull: f64,
        breed: &str,
        rides: &Rides,
        test: &Rides,
        in_test: &[u32],
    ) -> Result<OfBreed, FitError> {
        let global = &self.built.model;
        let fitted = self.pooled(rides, &self.built.fit.centre(), pull, None)?;
        let alone =
            Recipe { alpha: global.alpha, used: self.used, centre: None, start: None, threads: 1, cancel: self.cancel };
        let separate = fit(rides, &alone).ok();
        let test = test.only(in_test.iter().map(|index| *index as usize));
        let own = inference::own_scaler(rides, &fitted.scaler);
        let (histograms, predicted) = histograms(rides, &fitted, 1);
        let metrics = |rides: &Rides| {
            build::quality(&fitted, rides, global.threshold).map(|mut metrics| {
                // Ten thousand breeds need no ten thousand curves.
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
        let shift: f64 = fitted.per_unit.iter().zip(own.mean).map(|(weight, mean)| weight * mean).sum();
        let Some(of_train) = metrics(rides) else {
            return Err(FitError::OneClassOnly { rides: rides.len(), services: 0 });
        };
        let model = Model {
            model: name,
            model_id,
            counts,
            breed: Some(breed.to_owned()),
            centre: Some(global.model_id.clone()),
            alpha: pull,
            intercept: fitted.intercept,
            // The curvature at the optimum is for the most part that of the pull: it says nothing of how sure the weights are.
            intercept_standard_error: None,
            intercept_standardised: fitted.intercept + shift,
            coefficients: build::coefficients(&fitted, &own, self.used, &histograms, false),
            gradient_norm: fitted.gradient_norm,
            selection: None,
            evidence: None,
            warnings: Vec::new(),
            predicted,
            train: of_train,
            test: metrics(&test),
            ..global.clone()
        };
        Ok(OfBreed { model, fit: fitted, separate })
    }
}

fn against_extremes(
    pooled: &[f64],
    global: &[f64],
    separate: Option<&[f64]>,
    service: &[bool],
    threads: usize,
    cancel: &Cancel,
) -> Option<BreedsHeldOut> {
    if service.is_empty() {
        return None;
    }
    let ranked = |log_odds: &[f64]| Ranked::new(log_odds, service);
    let (pooled, global, separate) = (ranked(pooled), ranked(global), separate.map(ranked));
    let figures = |weights: &[u32]| {
        let (ours, all) = (pooled.mean_loss(weights), global.mean_loss(weights));
        let alone = separate.as_ref().map_or(ours, |separate| separate.mean_loss(weights));
        Some([ours, all, alone, all - ours, alone - ours])
    };
    let [pooled, global, alone, over_global, over_separate] =
        bootstrap::intervals(service.len(), threads, cancel, figures)?;
    Some(BreedsHeldOut {
        rides: service.len() as u64,
        pooled: pooled.value,
        global: global.value,
        separate: separate.as_ref().map(|_| alone.value),
        over_global,
        over_separate: separate.as_ref().map(|_| over_separate),
    })
}

#[cfg(test)]
mod tests;
