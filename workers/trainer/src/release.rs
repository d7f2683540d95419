//! What becomes of a trained model: written, judged, named.
//!
//! A release is the model of all rides together with those of the breeds trained beside it. The verdict on the former is that on all,
//! unless the breeds' models, taken together, are worse than the champions of those breeds: then those stay. One breed alone has too
//! few held-out rides to be judged by.

use crate::{
    breeds::BreedModels,
    build::Built,
    load::Loaded,
    newton::Cancel,
    plan::Plan,
    promote::{self, Challenger, Comparison, Rule, Verdict},
    realised,
    registry::{self, Version, readable},
    report::{self, DataSummary, Realised},
};
use common::{
    contract::{
        layout,
        message::{ModelPromoted, ModelRejected},
        model::{Alias, AliasName, Metrics, Model, TrainedOn, TrainingCounts},
        outcome::{Failure, Outgoing},
    },
    runtime::{
        host::offload,
        store::{self, Store},
    },
};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Models of breeds that are written, or whose champions are read, at once.
const BREEDS_AT_ONCE: usize = 16;

/// `models/<model>/<id>/metrics.json`: the account of a model for tools that want no coefficients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricsFile {
    /// Model family.
    pub model: String,
    /// The model.
    pub model_id: String,
    /// Probability from which on the decision is service.
    pub threshold: f64,
    /// How many rides went where.
    pub counts: TrainingCounts,
    /// Where they came from.
    pub data: DataSummary,
    /// On the rides it was trained on.
    pub train: Metrics,
    /// On the rides held out; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Metrics>,
}

/// What was trained, and on what.
#[derive(Debug)]
pub(crate) struct Trained {
    pub(crate) built: Built,
    pub(crate) breeds: Option<BreedModels>,
    pub(crate) loaded: Loaded,
}

/// Writes, judges and names.
pub(crate) struct Release<'a> {
    pub(crate) store: &'a Store,
    pub(crate) plan: &'a Plan,
    pub(crate) rule: Rule,
    pub(crate) threads: usize,
    pub(crate) cancel: &'a Cancel,
}

/// Who promotes when nobody did by hand.
pub(crate) const TRAINER: &str = concat!("trainer/", env!("CARGO_PKG_VERSION"));

impl Release<'_> {
    /// Everything after the training. What is written last says that it was done: a process that dies before leaves it to the next.
    pub(crate) async fn run(
        &self,
        trained: Trained,
        realised: &[(String, Realised)],
    ) -> Result<Vec<Outgoing>, Failure> {
        let data = DataSummary::of(&self.plan.manifests, &trained.loaded.coverage);
        let version = self.write_model(&trained.built.model, &data).await?;
        let breed_versions = self.write_breeds(&trained).await?;
        let trained = Arc::new(trained);

        let (mut verdict, champion) = self.judge_global(&trained, &version).await?;
        if verdict.reason == promote::CHAMPION_ALREADY
            && let Some(before) = known_verdict(self.store, &version.model, &version.model_id).await?
        {
            verdict = before;
        }
        let mut messages = vec![match &champion {
            Some(champion) if verdict.promoted => Outgoing::message(&announcement(champion))?,
            _ => Outgoing::message(&rejection(&version, &verdict))?,
        }];
        if verdict.promoted {
            self.end_challenge(&version).await?;
            for champion in self.promote_breeds(&trained, &breed_versions, &verdict).await? {
                messages.push(Outgoing::message(&announcement(&champion))?);
            }
        } else {
            registry::name(self.store, AliasName::Challenger, &version, TRAINER, &verdict.why).await?;
        }
        realised::write(self.store, realised).await?;
        self.write_report(&trained, &data, &verdict, realised).await?;
        let path = layout::verdict(&version.model, &version.model_id);
        store::write(self.store, &path, pretty(&verdict)?).await?;
        tracing::info!(
            model_id = %version.model_id, promoted = verdict.promoted, reason = %verdict.reason, why = %verdict.why, "judged"
        );
        Ok(messages)
    }

    /// A challenger that a new champion has passed challenges nobody any more: the name goes to the champion, and stands for nothing.
    async fn end_challenge(&self, champion: &Version) -> Result<(), Failure> {
        if registry::current(self.store, &champion.model, AliasName::Challenger).await?.is_some() {
            let why = "it became champion";
            registry::name(self.store, AliasName::Challenger, champion, TRAINER, why).await?;
        }
        Ok(())
    }

    /// `model.json` is written last: where it is, the artefact is whole.
    async fn write_model(&self, model: &Model, data: &DataSummary) -> Result<Version, Failure> {
        let metrics = MetricsFile {
            model: model.model.clone(),
            model_id: model.model_id.clone(),
            threshold: model.threshold,
            counts: model.counts,
            data: data.clone(),
            train: model.train.clone(),
            test: model.test.clone(),
        };
        store::write(self.store, &layout::metrics(&model.model, &model.model_id), pretty(&metrics)?).await?;
        let version = write_artefact(self.store, model).await?;
        tracing::info!(
            model_id = %model.model_id, rides = model.counts.train, log_loss = model.train.log_loss, alpha = model.alpha,
            test_roc_auc = model.test.as_ref().and_then(|metrics| metrics.roc_auc), "trained"
        );
        Ok(version)
    }

    async fn write_breeds(&self, trained: &Trained) -> Result<Vec<Version>, Failure> {
        let Some(breeds) = &trained.breeds else { return Ok(Vec::new()) };
        let writing =
            stream::iter(0..breeds.models.len()).map(|index| write_artefact(self.store, &breeds.models[index]));
        let versions = writing.buffered(BREEDS_AT_ONCE).try_collect().await?;
        let path = layout::breeds(&self.plan.model, &self.plan.model_id);
        store::write(self.store, &path, pretty(&breeds.account)?).await?;
        tracing::info!(breeds = breeds.models.len(), pull = breeds.account.pull, "trained by breed");
        Ok(versions)
    }

    /// The verdict on the model of all rides, and who is champion in the end; what the verdict says has been done.
    async fn judge_global(
        &self,
        trained: &Arc<Trained>,
        version: &Version,
    ) -> Result<(Verdict, Option<Alias>), Failure> {
        loop {
            let current = registry::current(self.store, &version.model, AliasName::Champion).await?;
            let champion = match &current {
                Some(current) => self.artefact_of(current).await?,
                None => None,
            };
            let outdated = match &champion {
                Some(champion) => is_outdated(self.store, &trained.built.model, champion).await?,
                None => false,
            };
            let judged = current.clone();
            let (trained, rule) = (Arc::clone(trained), self.rule);
            let (threads, cancel) = (self.threads, self.cancel.clone());
            let verdict = offload(move || {
                let model = &trained.built.model;
                let test = &trained.loaded.test;
                let challenger = Challenger {
                    model_id: &model.model_id,
                    evidence: model.evidence.as_ref(),
                    held_out: test.len() as u64,
                    outdated,
                    unrivalled: champion.is_none(),
                };
                promote::judge(&rule, challenger, judged.as_ref(), || {
                    promote::compare(rule.metric, champion.as_ref()?, model, test, threads, &cancel)
                })
            })
            .await?;
            if self.cancel.is_cancelled() {
                return Err(cancelled());
            }
            if !verdict.promoted {
                return Ok((verdict, current));
            }
            let named = match current {
                Some(current) if current.model_id == version.model_id => {
                    Some(registry::publish(self.store, current).await?)
                }
                current => {
                    registry::succeed(self.store, AliasName::Champion, current, version, TRAINER, &verdict.why).await?
                }
            };
            if let Some(named) = named {
                return Ok((verdict, Some(named)));
            }
        }
    }

    /// Gives each breed its new champion, unless together they are worse than the present ones. Those that belong to another model of
    /// all rides than the champion answer nobody: then rides of the breeds are answered by the model of all.
    async fn promote_breeds(
        &self,
        trained: &Arc<Trained>,
        versions: &[Version],
        verdict: &Verdict,
    ) -> Result<Vec<Alias>, Failure> {
        let reading = stream::iter(0..versions.len()).map(|index| async move {
            let version = &versions[index];
            match registry::current(self.store, &version.model, AliasName::Champion).await? {
                Some(current) if current.model_id != version.model_id => self.artefact_of(&current).await,
                _ => Ok(None),
            }
        });
        let artefacts: Vec<Option<Model>> = reading.buffered(BREEDS_AT_ONCE).try_collect().await?;
        let (shared, rule) = (Arc::clone(trained), self.rule);
        let (threads, cancel) = (self.threads, self.cancel.clone());
        let comparison = offload(move || compare_breeds(&shared, rule, &artefacts, threads, &cancel)).await?;
        if let Some(Comparison { rides, gain, .. }) = &comparison
            && *rides >= self.rule.rides_min
            && gain.value < -self.rule.margin
        {
            tracing::warn!(rides, gain = gain.value, "the models by breed are worse than the present ones, which stay");
            return Ok(Vec::new());
        }
        let why = format!("with the model of all rides, centre of its penalty ({})", verdict.why);
        let why = why.as_str();
        let naming = stream::iter(0..versions.len())
            .map(|index| registry::name(self.store, AliasName::Champion, &versions[index], TRAINER, why));
        naming.buffered(BREEDS_AT_ONCE).try_collect().await
    }

    async fn artefact_of(&self, alias: &Alias) -> Result<Option<Model>, Failure> {
        if !layout::is_below(layout::MODELS, &alias.object) {
            return Ok(None);
        }
        readable(store::read_json::<Model>(self.store, &alias.object).await)
    }

    async fn write_report(
        &self,
        trained: &Arc<Trained>,
        data: &DataSummary,
        verdict: &Verdict,
        realised: &[(String, Realised)],
    ) -> Result<(), Failure> {
        let model = &trained.built.model;
        let breeds = trained.breeds.as_ref().map(|breeds| &breeds.account);
        let of_family = realised.iter().filter(|(family, _)| *family == model.model);
        let realised: Vec<Realised> = of_family.map(|(_, realised)| realised.clone()).collect();
        let page = report::Page { model, data, breeds, verdict: Some(verdict), realised: &realised }.html();
        store::write(self.store, &layout::report(&model.model, &model.model_id), page.into_bytes()).await
    }
}

/// The new models by breed against the present champions of those breeds that have one, on the held-out rides of all of them.
fn compare_breeds(
    trained: &Trained,
    rule: Rule,
    champions: &[Option<Model>],
    threads: usize,
    cancel: &Cancel,
) -> Option<Comparison> {
    let breeds = trained.breeds.as_ref()?;
    let test = &trained.loaded.test;
    let (mut theirs, mut ours, mut service) = (Vec::new(), Vec::new(), Vec::new());
    for (breed, ride) in &breeds.held_out {
        let Some(champion) = &champions[*breed] else { continue };
        let log_odds = |model: &Model| {
            let features: Vec<f64> = model.used()?.into_iter().map(|j| test.features[*ride][j]).collect();
            Some(model.log_odds(&features))
        };
        let Some((there, here)) = log_odds(champion).zip(log_odds(&breeds.models[*breed])) else { continue };
        theirs.push(there);
        ours.push(here);
        service.push(test.service[*ride]);
    }
    promote::compare_predictions(rule.metric, "of each breed", &theirs, &ours, &service, threads, cancel)
}

/// Writes an artefact unless it is there: what has been named by its SHA-256 must not change, not even by what a newer trainer would
/// write in its place. One that cannot be read was never named, and is replaced.
async fn write_artefact(store: &Store, model: &Model) -> Result<Version, Failure> {
    let path = layout::model(&model.model, &model.model_id);
    loop {
        if let Ok((version, _)) = registry::version(store, &model.model, &model.model_id).await? {
            return Ok(version);
        }
        let bytes = pretty(model)?;
        let sha256 = hex::encode(Sha256::digest(&bytes));
        if store::create(store, &path, bytes.clone()).await? {
            return Ok(Version { model: model.model.clone(), model_id: model.model_id.clone(), sha256 });
        }
        if registry::version(store, &model.model, &model.model_id).await?.is_err() {
            store::write(store, &path, bytes).await?;
        }
    }
}

/// A dataset that was removed since is no reason to keep a champion that knew it.
async fn is_outdated(store: &Store, model: &Model, champion: &Model) -> Result<bool, Failure> {
    if !model.datasets.iter().all(|dataset| champion.datasets.contains(dataset)) {
        return Ok(false);
    }
    let unknown_to_us = |dataset: &&TrainedOn| !model.datasets.contains(dataset);
    for dataset in champion.datasets.iter().filter(unknown_to_us) {
        if store::exists(store, &layout::manifest(&dataset.batch_id)).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What was decided about a model before, told once more: who is champion now, or why it is none. `None` when nothing was.
pub(crate) async fn decided(store: &Store, model: &str, model_id: &str) -> Result<Option<Vec<Outgoing>>, Failure> {
    let verdict = known_verdict(store, model, model_id).await?;
    let (Some(verdict), Ok((version, _))) = (verdict, registry::version(store, model, model_id).await?) else {
        return Ok(None);
    };
    let champion = registry::current(store, model, AliasName::Champion).await?;
    Ok(match champion {
        Some(champion) if verdict.promoted || champion.model_id == model_id => {
            let champion = registry::publish(store, champion).await?;
            Some(vec![Outgoing::message(&announcement(&champion))?])
        }
        Some(_) => Some(vec![Outgoing::message(&rejection(&version, &verdict))?]),
        None if verdict.reason == promote::BY_HAND_ONLY => {
            Some(vec![Outgoing::message(&rejection(&version, &verdict))?])
        }
        // The names are gone: it is to be judged again.
        None => None,
    })
}

async fn known_verdict(store: &Store, model: &str, model_id: &str) -> Result<Option<Verdict>, Failure> {
    readable(store::read_json(store, &layout::verdict(model, model_id)).await)
}

/// The event that says who is champion.
pub fn announcement(champion: &Alias) -> ModelPromoted {
    ModelPromoted {
        model: champion.model.clone(),
        model_id: champion.model_id.clone(),
        object: champion.object.clone(),
        previous_model_id: champion.history.last().map(|past| past.model_id.clone()),
        why: Some(champion.why.clone()),
    }
}

fn rejection(version: &Version, verdict: &Verdict) -> ModelRejected {
    ModelRejected {
        model: version.model.clone(),
        model_id: version.model_id.clone(),
        reason: verdict.reason.clone(),
        why: verdict.why.clone(),
        object: Some(layout::model(&version.model, &version.model_id)),
    }
}

/// A training that a shutdown ended: another process takes it up.
pub(crate) fn cancelled() -> Failure {
    Failure::outage("training", "it was ended by a shutdown and begins anew")
}

pub(crate) fn pretty<T: Serialize>(value: &T) -> Result<Vec<u8>, Failure> {
    let mut json = serde_json::to_vec_pretty(value).map_err(|error| Failure::permanent("unencodable", error))?;
    json.push(b'\n');
    Ok(json)
}
