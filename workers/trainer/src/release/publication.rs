//! Writes, judges and promotes a trained release.
//!
//! A release is the global model and the breed models trained with it: all of them are promoted, or none. The verdict is on the global
//! model and on all breed models together; one breed alone has too few held-out rides.
//!
//! The global model is promoted first and the breed models follow ([`registry::promote_breed_models`]); scorers use no breed model of
//! another release. If a process dies in between, the global model scores rides of these breeds, until the next training, promotion or
//! roll-back completes the release ([`registry::complete_release`]).

use super::{
    breeds::BreedModels,
    decision::{self, Challenger},
    delayed_labels,
};
use crate::{
    artefact::GlobalModel,
    data::{Plan, TrainingData},
    fit::Cancel,
    report::Page,
};
use common::{
    dataset::FIRST_REVISION,
    document::{CHAMPION_ALREADY, Comparison, DataSummary, DelayedLabelMetrics, MetricsFile, Rule, Verdict},
    model::{Alias, AliasName, Model, TrainedOn},
    outcome::{Failure, Outgoing},
};
use futures::{StreamExt, TryStreamExt, stream};
use records::{
    layout,
    registry::{self, AT_ONCE, Change, Version, announcement, rejection},
    store::{self, Store, unreadable_as_missing},
};
use runtime::{
    host::{self, offload},
    metrics::metrics,
};
use std::{collections::HashMap, sync::Arc};

/// The models of a release, and the rides that they were trained on.
#[derive(Debug)]
pub(crate) struct TrainedRelease {
    pub(crate) global: GlobalModel,
    pub(crate) breeds: Option<BreedModels>,
    pub(crate) data: TrainingData,
}

/// The steps after a training.
pub(crate) struct Release<'a> {
    pub(crate) store: &'a Store,
    pub(crate) plan: &'a Plan,
    pub(crate) rule: Rule,
    pub(crate) cancel: &'a Cancel,
}

/// Who promotes if no person does.
pub(crate) const TRAINER: &str = concat!("trainer/", env!("CARGO_PKG_VERSION"));

impl Release<'_> {
    /// Writes, judges and promotes the release; returns the messages about it. The verdict is written last and marks the release as
    /// complete: if this process dies before, the next one starts again.
    pub(crate) async fn run(
        &self,
        trained: TrainedRelease,
        delayed_labels: &[(String, DelayedLabelMetrics)],
    ) -> Result<Vec<Outgoing>, Failure> {
        let data = DataSummary::of(&self.plan.manifests, &trained.data.coverage);
        let version = self.write_model(&trained.global.model, &data).await?;
        self.write_breeds(&trained).await?;
        let trained = Arc::new(trained);
        // A page without a verdict, in case the process dies right after the promotion.
        self.write_report(&trained, &data, None, delayed_labels).await?;

        let (mut verdict, champion) = self.judge(&trained, &version).await?;
        if verdict.reason == CHAMPION_ALREADY
            && let before = registry::read::<Verdict>(self.store, &version.model, &version.model_id).await
            && let Some(before) = unreadable_as_missing(before)?
            && before.promoted
        {
            verdict = before;
        }
        verdict.rule = Some(self.rule);
        let mut messages = vec![match &champion {
            Some(champion) if verdict.promoted => Outgoing::message(&announcement(champion))?,
            _ => Outgoing::message(&rejection(&version.model, &version.model_id, verdict.clone()))?,
        }];
        if verdict.promoted {
            self.end_challenge(&version).await?;
            if let Some(champion) = champion {
                for champion in registry::promote_breed_models(self.store, champion, host::now()).await?.champions {
                    messages.push(Outgoing::message(&announcement(&champion))?);
                }
            }
        } else {
            registry::set_alias(self.store, AliasName::Challenger, &version, change(&verdict.why)).await?;
        }
        delayed_labels::write(self.store, delayed_labels).await?;
        self.write_report(&trained, &data, Some(&verdict), delayed_labels).await?;
        registry::write(self.store, &version.model, &version.model_id, &verdict).await?;
        metrics().verdict(if verdict.promoted { "promoted" } else { "rejected" });
        tracing::info!(
            model_id = %version.model_id, promoted = verdict.promoted, reason = %verdict.reason, why = %verdict.why, "judged"
        );
        Ok(messages)
    }

    /// Points the challenger's alias, if there is one, to the new champion, so that it names no rival.
    async fn end_challenge(&self, champion: &Version) -> Result<(), Failure> {
        if registry::current_alias(self.store, &champion.model, AliasName::Challenger).await?.is_some() {
            registry::set_alias(self.store, AliasName::Challenger, champion, change("it became champion")).await?;
        }
        Ok(())
    }

    /// Writes the metrics, then `model.json`: if that exists, all files are complete.
    async fn write_model(&self, model: &Model, data: &DataSummary) -> Result<Version, Failure> {
        if let Ok((version, _)) = registry::version(self.store, &model.model, &model.model_id).await? {
            return Ok(version);
        }
        let metrics = MetricsFile {
            model: model.model.clone(),
            model_id: model.model_id.clone(),
            threshold: model.threshold,
            counts: model.counts,
            data: data.clone(),
            train: model.train.clone(),
            test: model.test.clone(),
        };
        registry::write(self.store, &model.model, &model.model_id, &metrics).await?;
        let version = registry::write_artefact(self.store, model).await?;
        tracing::info!(
            model_id = %model.model_id, rides = model.counts.train, log_loss = model.train.log_loss, alpha = model.alpha,
            test_roc_auc = model.test.as_ref().and_then(|metrics| metrics.roc_auc), "trained"
        );
        Ok(version)
    }

    async fn write_breeds(&self, trained: &TrainedRelease) -> Result<(), Failure> {
        let Some(breeds) = &trained.breeds else { return Ok(()) };
        let writing = stream::iter(0..breeds.models.len())
            .map(|index| registry::write_artefact(self.store, &breeds.models[index]));
        writing.buffered(AT_ONCE).try_collect::<Vec<Version>>().await?;
        registry::write(self.store, &self.plan.model, &self.plan.model_id, &breeds.document).await?;
        let pooling_strength = breeds.document.pooling_strength;
        tracing::info!(breeds = breeds.models.len(), pooling_strength, "breed models trained");
        Ok(())
    }

    /// Judges the release and promotes its global model if the verdict says so; returns the verdict and the champion afterwards.
    async fn judge(
        &self,
        trained: &Arc<TrainedRelease>,
        version: &Version,
    ) -> Result<(Verdict, Option<Alias>), Failure> {
        loop {
            let current = registry::current_alias(self.store, &version.model, AliasName::Champion).await?;
            let verdict = self.verdict(trained, current.as_ref()).await?;
            if self.cancel.is_cancelled() {
                return Err(cancelled());
            }
            if !verdict.promoted {
                return Ok((verdict, current));
            }
            let champion = match current {
                Some(current) if current.model_id == version.model_id => {
                    Some(registry::publish_alias(self.store, current).await?)
                }
                current => {
                    let change = change(&verdict.why);
                    registry::set_alias_after(self.store, AliasName::Champion, current, version, change).await?
                }
            };
            if champion.is_some() {
                return Ok((verdict, champion));
            }
        }
    }

    async fn verdict(&self, trained: &Arc<TrainedRelease>, current: Option<&Alias>) -> Result<Verdict, Failure> {
        let champion = match current {
            Some(current) => registry::named_model(self.store, current).await?.ok(),
            None => None,
        };
        let outdated = match &champion {
            Some(champion) => is_outdated(self.store, &trained.global.model, champion).await?,
            None => false,
        };
        let champion = champion.map(Arc::new);
        let (alias, rival) = (current.cloned(), champion.clone());
        let (shared, rule, cancel) = (Arc::clone(trained), self.rule, self.cancel.clone());
        let verdict = offload(move || {
            let (model, test) = (&shared.global.model, &shared.data.test);
            let challenger = Challenger {
                model_id: &model.model_id,
                evidence: model.evidence.as_ref(),
                held_out: test.len() as u64,
                outdated,
                unrivalled: rival.is_none(),
            };
            decision::judge(&rule, challenger, alias.as_ref(), || {
                decision::compare(rule.metric, rival.as_ref()?, model, test, &cancel)
            })
        })
        .await?;
        let Some(champion) = champion.filter(|_| verdict.promoted && verdict.comparison.is_some()) else {
            return Ok(verdict);
        };
        let rivals = self.breed_rivals(&champion, trained).await?;
        let (shared, cancel) = (Arc::clone(trained), self.cancel.clone());
        let comparison = offload(move || compare_breeds(&shared, rule, &rivals, &cancel)).await?;
        Ok(match comparison {
            Some(comparison) => decision::judge_breeds(&rule, verdict, &comparison),
            None => verdict,
        })
    }

    /// Returns, for each breed model, the other breed model in service beside the champion; `None` if there is no other.
    async fn breed_rivals(&self, champion: &Model, trained: &TrainedRelease) -> Result<Vec<Option<Model>>, Failure> {
        let Some(breeds) = &trained.breeds else { return Ok(Vec::new()) };
        let reading = stream::iter(0..breeds.models.len()).map(|index| async move {
            let challenger = &breeds.models[index];
            let Some(current) = registry::current_alias(self.store, &challenger.model, AliasName::Champion).await?
            else {
                return Ok(None);
            };
            let rival = registry::named_model(self.store, &current).await?.ok();
            Ok::<_, Failure>(rival.filter(|rival| {
                rival.model_id != challenger.model_id && rival.prior_mean.as_ref() == Some(&champion.model_id)
            }))
        });
        reading.buffered(AT_ONCE).try_collect().await
    }

    async fn write_report(
        &self,
        trained: &Arc<TrainedRelease>,
        data: &DataSummary,
        verdict: Option<&Verdict>,
        delayed_labels: &[(String, DelayedLabelMetrics)],
    ) -> Result<(), Failure> {
        let model = &trained.global.model;
        let breeds = trained.breeds.as_ref().map(|breeds| &breeds.document);
        // Versions of the global model first, then those of breeds, the most rides first.
        let of_breeds = delayed_labels.iter().filter_map(|(family, labels)| {
            let (_, breed) = layout::of_breed(family).filter(|(global, _)| *global == model.model)?;
            let model_id = format!("{breed} {}", labels.model_id);
            Some(DelayedLabelMetrics { model_id, metrics: labels.metrics.clone() })
        });
        let mut of_breeds: Vec<DelayedLabelMetrics> = of_breeds.collect();
        of_breeds.sort_by_key(|labels| std::cmp::Reverse(labels.metrics.rides));
        let of_global = delayed_labels.iter().filter(|(family, _)| *family == model.model);
        let delayed_labels: Vec<DelayedLabelMetrics> =
            of_global.map(|(_, labels)| labels.clone()).chain(of_breeds).collect();
        let page = Page { model, data, breeds, verdict, delayed_labels: &delayed_labels }.html();
        registry::write_report(self.store, &model.model, &model.model_id, page).await
    }
}

/// Compares the new breed models with those in service, on the held-out rides of these breeds.
fn compare_breeds(
    trained: &TrainedRelease,
    rule: Rule,
    rivals: &[Option<Model>],
    cancel: &Cancel,
) -> Option<Comparison> {
    let breeds = trained.breeds.as_ref()?;
    let test = &trained.data.test;
    let (mut old, mut new, mut service) = (Vec::new(), Vec::new(), Vec::new());
    for (breed, ride) in &breeds.held_out {
        let Some(Some(rival)) = rivals.get(*breed) else { continue };
        let log_odds = |model: &Model| {
            let features: Vec<f64> = model.used()?.into_iter().map(|j| test.features[*ride][j]).collect();
            Some(model.log_odds(&features))
        };
        let Some((of_rival, of_challenger)) = log_odds(rival).zip(log_odds(&breeds.models[*breed])) else { continue };
        old.push(of_rival);
        new.push(of_challenger);
        service.push(test.service[*ride]);
    }
    decision::compare_predictions(rule.metric, "of each breed", &old, &new, &service, cancel)
}

/// A change of an alias by the trainer, now.
fn change(why: &str) -> Change<'_> {
    Change { by: TRAINER, at: host::now(), why }
}

/// Returns whether the champion was trained on all datasets of the model, and on others or on newer revisions. A removed dataset
/// does not count.
async fn is_outdated(store: &Store, model: &Model, champion: &Model) -> Result<bool, Failure> {
    let of_batch = |model: &Model| -> HashMap<String, TrainedOn> {
        model.datasets.iter().map(|dataset| (dataset.batch_id.clone(), dataset.clone())).collect()
    };
    let (own, of_champion) = (of_batch(model), of_batch(champion));
    let is_newer = |new: &TrainedOn, old: &TrainedOn| new.revision > old.revision;
    let is_covered = |dataset: &TrainedOn| {
        of_champion.get(&dataset.batch_id).is_some_and(|other| other == dataset || is_newer(other, dataset))
    };
    if !own.values().all(is_covered) {
        return Ok(false);
    }
    let is_more = |dataset: &&TrainedOn| own.get(&dataset.batch_id).is_none_or(|known| is_newer(dataset, known));
    for dataset in champion.datasets.iter().filter(is_more) {
        let revision = dataset.revision.unwrap_or(FIRST_REVISION);
        if store::exists(store, &layout::manifest(&dataset.batch_id, revision)).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Failure of a training that a shutdown ended; another process starts it again.
pub(crate) fn cancelled() -> Failure {
    Failure::outage("training", "a shutdown ended it; it starts again")
}
