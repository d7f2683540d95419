//! What becomes of a trained model: written, judged, named.
//!
//! A release is the model of all rides together with those of the breeds trained beside it: all of them are promoted, or none. The
//! former is judged, and so are the breeds' models taken together; one breed alone has too few held-out rides to be judged by.
//!
//! The model of all rides gets its name first, the breeds' follow it ([`name_breeds`]), and scorers use none that belongs to another
//! release. Whoever dies in between leaves rides of those breeds to the model of all; the next training, promotion or roll-back
//! finishes it ([`finish`]).

use crate::{
    breeds::{BreedModels, BreedSummary, Breeds},
    build::Built,
    load::Loaded,
    newton::Cancel,
    plan::Plan,
    promote::{self, Challenger, Comparison, Rule, Verdict},
    realised,
    registry::{self, NoVersion, Version, readable},
    report::{self, DataSummary, Realised},
};
use common::{
    message::{ModelPromoted, ModelRejected},
    model::{Alias, AliasName, Metrics, Model, TrainedOn, TrainingCounts},
    outcome::{Failure, Outgoing},
};
use futures::{StreamExt, TryStreamExt, stream};
use records::{
    layout,
    store::{self, Store},
};
use runtime::host::offload;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{collections::HashSet, sync::Arc};

/// Models of breeds that are written, or whose champions are read, at once.
const BREEDS_AT_ONCE: usize = 16;
/// Breeds that are named before it is looked whether their release is still the one in service.
const BREEDS_BETWEEN_LOOKS: usize = 64;

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
        self.write_breeds(&trained).await?;
        let trained = Arc::new(trained);
        // A page without a verdict, for when nobody gets further than to give the name.
        self.write_report(&trained, &data, None, realised).await?;

        let (mut verdict, champion) = self.judge(&trained, &version).await?;
        if verdict.reason == promote::CHAMPION_ALREADY
            && let Some(before) = known_verdict(self.store, &version.model, &version.model_id).await?
            && before.promoted
        {
            verdict = before;
        }
        verdict.rule = Some(self.rule);
        let mut messages = vec![match &champion {
            Some(champion) if verdict.promoted => Outgoing::message(&announcement(champion))?,
            _ => Outgoing::message(&rejection(&version, &verdict))?,
        }];
        if verdict.promoted {
            self.end_challenge(&version).await?;
            if let Some(champion) = champion {
                for champion in name_breeds(self.store, champion).await?.champions {
                    messages.push(Outgoing::message(&announcement(&champion))?);
                }
            }
        } else {
            registry::name(self.store, AliasName::Challenger, &version, TRAINER, &verdict.why).await?;
        }
        realised::write(self.store, realised).await?;
        self.write_report(&trained, &data, Some(&verdict), realised).await?;
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
        store::write(self.store, &layout::metrics(&model.model, &model.model_id), pretty(&metrics)?).await?;
        let version = write_artefact(self.store, model).await?;
        tracing::info!(
            model_id = %model.model_id, rides = model.counts.train, log_loss = model.train.log_loss, alpha = model.alpha,
            test_roc_auc = model.test.as_ref().and_then(|metrics| metrics.roc_auc), "trained"
        );
        Ok(version)
    }

    async fn write_breeds(&self, trained: &Trained) -> Result<(), Failure> {
        let Some(breeds) = &trained.breeds else { return Ok(()) };
        let writing =
            stream::iter(0..breeds.models.len()).map(|index| write_artefact(self.store, &breeds.models[index]));
        writing.buffered(BREEDS_AT_ONCE).try_collect::<Vec<Version>>().await?;
        let path = layout::breeds(&self.plan.model, &self.plan.model_id);
        store::write(self.store, &path, pretty(&breeds.account)?).await?;
        tracing::info!(breeds = breeds.models.len(), pull = breeds.account.pull, "trained by breed");
        Ok(())
    }

    /// The verdict, and who is champion of all rides in the end; what the verdict says of that has been done.
    async fn judge(&self, trained: &Arc<Trained>, version: &Version) -> Result<(Verdict, Option<Alias>), Failure> {
        loop {
            let current = registry::current(self.store, &version.model, AliasName::Champion).await?;
            let champion = match &current {
                Some(current) => artefact_of(self.store, current).await?,
                None => None,
            };
            let outdated = match &champion {
                Some(champion) => is_outdated(self.store, &trained.built.model, champion).await?,
                None => false,
            };
            let champion = champion.map(Arc::new);
            let (judged, theirs) = (current.clone(), champion.clone());
            let (shared, rule) = (Arc::clone(trained), self.rule);
            let (threads, cancel) = (self.threads, self.cancel.clone());
            let mut verdict = offload(move || {
                let model = &shared.built.model;
                let test = &shared.loaded.test;
                let challenger = Challenger {
                    model_id: &model.model_id,
                    evidence: model.evidence.as_ref(),
                    held_out: test.len() as u64,
                    outdated,
                    unrivalled: theirs.is_none(),
                };
                promote::judge(&rule, challenger, judged.as_ref(), || {
                    promote::compare(rule.metric, theirs.as_ref()?, model, test, threads, &cancel)
                })
            })
            .await?;
            if let Some(champion) = champion
                && verdict.promoted
                && verdict.comparison.is_some()
            {
                let theirs = self.breeds_beside(&champion, trained).await?;
                let (shared, cancel) = (Arc::clone(trained), self.cancel.clone());
                let comparison = offload(move || compare_breeds(&shared, rule, &theirs, threads, &cancel)).await?;
                if let Some(comparison) = comparison {
                    verdict = promote::judge_breeds(&rule, verdict, &comparison);
                }
            }
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

    /// For each model of a breed the one that answers for that breed now, beside the champion of all rides.
    async fn breeds_beside(&self, champion: &Model, trained: &Trained) -> Result<Vec<Option<Model>>, Failure> {
        let Some(breeds) = &trained.breeds else { return Ok(Vec::new()) };
        let reading = stream::iter(0..breeds.models.len()).map(|index| async move {
            let ours = &breeds.models[index];
            let Some(current) = registry::current(self.store, &ours.model, AliasName::Champion).await? else {
                return Ok(None);
            };
            let theirs = artefact_of(self.store, &current).await?;
            Ok::<_, Failure>(theirs.filter(|theirs| {
                theirs.model_id != ours.model_id && theirs.centre.as_ref() == Some(&champion.model_id)
            }))
        });
        reading.buffered(BREEDS_AT_ONCE).try_collect().await
    }

    async fn write_report(
        &self,
        trained: &Arc<Trained>,
        data: &DataSummary,
        verdict: Option<&Verdict>,
        realised: &[(String, Realised)],
    ) -> Result<(), Failure> {
        let model = &trained.built.model;
        let breeds = trained.breeds.as_ref().map(|breeds| &breeds.account);
        // Of the model of all rides first, then of those of breeds that most rides came back of.
        let of_breeds = realised.iter().filter_map(|(family, realised)| {
            let (_, breed) = layout::of_breed(family).filter(|(all, _)| *all == model.model)?;
            let model_id = format!("{breed} {}", realised.model_id);
            Some(Realised { model_id, metrics: realised.metrics.clone() })
        });
        let mut of_breeds: Vec<Realised> = of_breeds.collect();
        of_breeds.sort_by_key(|realised| std::cmp::Reverse(realised.metrics.rides));
        let of_all = realised.iter().filter(|(family, _)| *family == model.model).map(|(_, realised)| realised.clone());
        let realised: Vec<Realised> = of_all.chain(of_breeds).collect();
        let page = report::Page { model, data, breeds, verdict, realised: &realised }.html();
        store::write(self.store, &layout::report(&model.model, &model.model_id), page.into_bytes()).await
    }
}

/// Which breeds have which champion now.
#[derive(Debug, Default)]
pub struct NamedBreeds {
    /// Those whose name was given, or was theirs already; of their history only the last.
    pub champions: Vec<Alias>,
    /// Breeds whose model cannot be used, and why.
    pub left_out: Vec<(String, NoVersion)>,
}

/// Has the models of breeds that were trained beside the champion follow it. Should another become champion meanwhile, those beside
/// that one follow: of several who name at once the last to end leaves the release whole.
///
/// # Errors
/// When the store is away.
pub async fn name_breeds(store: &Store, mut champion: Alias) -> Result<NamedBreeds, Failure> {
    'release: loop {
        let path = layout::breeds(&champion.model, &champion.model_id);
        let breeds: Option<Breeds> = readable(store::read_json(store, &path).await)?;
        let breeds = breeds.map(|breeds| breeds.breeds).unwrap_or_default();
        let why = format!("with the model of all rides, centre of its penalty ({})", champion.why);
        let mut named = NamedBreeds::default();
        let mut chunks = breeds.chunks(BREEDS_BETWEEN_LOOKS);
        loop {
            let chunk = chunks.next();
            match registry::current(store, &champion.model, AliasName::Champion).await? {
                Some(now) if now.model_id != champion.model_id => {
                    champion = now;
                    continue 'release;
                }
                _ => {}
            }
            let Some(chunk) = chunk else { return Ok(named) };
            let (champion, why) = (&champion, why.as_str());
            let naming = stream::iter(0..chunk.len()).map(|index| name_breed(store, champion, why, &chunk[index]));
            let done: Vec<Result<Alias, NoVersion>> = naming.buffered(BREEDS_AT_ONCE).try_collect().await?;
            for (BreedSummary { breed, .. }, done) in chunk.iter().zip(done) {
                match done {
                    Ok(alias) => named.champions.push(alias),
                    Err(why) => {
                        tracing::warn!(breed, %why, "a breed is left to the model of all rides");
                        named.left_out.push((breed.clone(), why));
                    }
                }
            }
        }
    }
}

/// The same for one breed; within, when its model cannot be used.
async fn name_breed(
    store: &Store,
    champion: &Alias,
    why: &str,
    breed: &BreedSummary,
) -> Result<Result<Alias, NoVersion>, Failure> {
    let mut alias = match in_service(store, &champion.model_id, breed).await? {
        Some(alias) => registry::publish(store, alias).await?,
        None => match registry::version(store, &breed.model, &breed.model_id).await? {
            Ok((version, _)) => registry::name(store, AliasName::Champion, &version, &champion.by, why).await?,
            Err(no_version) => return Ok(Err(no_version)),
        },
    };
    // Of thousands the one before is all that anybody asks for.
    alias.history.drain(..alias.history.len().saturating_sub(1));
    Ok(Ok(alias))
}

/// The model that answers for a breed beside the champion of all rides: the one that was trained with that one, or another a person
/// chose among those drawn to it. `None` when its name has not followed that champion yet.
///
/// # Errors
/// When the store is away.
pub async fn in_service(store: &Store, champion_id: &str, breed: &BreedSummary) -> Result<Option<Alias>, Failure> {
    let Some(alias) = registry::current(store, &breed.model, AliasName::Champion).await? else { return Ok(None) };
    if alias.model_id == breed.model_id {
        return Ok(Some(alias));
    }
    let artefact = artefact_of(store, &alias).await?;
    Ok(artefact.filter(|artefact| artefact.centre.as_deref() == Some(champion_id)).map(|_| alias))
}

async fn artefact_of(store: &Store, alias: &Alias) -> Result<Option<Model>, Failure> {
    if !layout::is_below(layout::MODELS, &alias.object) {
        return Ok(None);
    }
    readable(store::read_json::<Model>(store, &alias.object).await)
}

/// Finishes what somebody left undone who died, or was interrupted, after the champion of all rides had its name.
pub(crate) async fn finish(store: &Store, model: &str) -> Result<(), Failure> {
    if let Some(champion) = registry::current(store, model, AliasName::Champion).await? {
        name_breeds(store, registry::publish(store, champion).await?).await?;
    }
    Ok(())
}

/// The new models by breed against those that answer for these breeds now, on the held-out rides of all of them.
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
        let Some(Some(champion)) = champions.get(*breed) else { continue };
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
    let key = |TrainedOn { batch_id, manifest_sha256 }: &TrainedOn| (batch_id.clone(), manifest_sha256.clone());
    let of = |model: &Model| model.datasets.iter().map(key).collect::<HashSet<_>>();
    let (ours, theirs) = (of(model), of(champion));
    if !ours.is_subset(&theirs) {
        return Ok(false);
    }
    for dataset in champion.datasets.iter().filter(|dataset| !ours.contains(&key(dataset))) {
        if store::exists(store, &layout::manifest(&dataset.batch_id)).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What was decided about a model before, told once more: who is champion now, or why it is none. `None` when nothing was.
/// A refusal under another rule is none, unless a person promoted it since: then it is to be judged again.
pub(crate) async fn decided(
    store: &Store,
    model: &str,
    model_id: &str,
    rule: Rule,
) -> Result<Option<Vec<Outgoing>>, Failure> {
    let verdict = known_verdict(store, model, model_id).await?;
    let champion = registry::current(store, model, AliasName::Champion).await?;
    let is_champion = champion.as_ref().is_some_and(|champion| champion.model_id == model_id);
    let verdict = verdict.filter(|verdict| verdict.promoted || is_champion || verdict.rule == Some(rule));
    let (Some(verdict), Ok((version, _))) = (verdict, registry::version(store, model, model_id).await?) else {
        return Ok(None);
    };
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
