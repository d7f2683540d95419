//! The champions of breeds follow the champion of all rides: breed models are in service only beside the global model of
//! their release.

use super::{
    alias::{Change, current_alias, publish_alias, set_alias},
    documents,
    version::{AT_ONCE, VersionError, named_model, version},
};
use crate::{
    layout,
    store::{Store, unreadable_as_missing},
};
use common::{
    document::{BreedSummary, Breeds, Verdict},
    message::{ModelPromoted, ModelRejected},
    model::{Alias, AliasName},
    outcome::Failure,
};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

/// Number of breeds to promote before checking that their release is still in service.
const BREEDS_BETWEEN_CHECKS: usize = 64;

/// The result of promoting the breed models of a release.
#[derive(Debug, Default)]
pub struct BreedPromotion {
    /// The champions of breeds, each with only the last entry of its history.
    pub champions: Vec<Alias>,
    /// Breeds whose model cannot be used, and why.
    pub unusable: Vec<(String, VersionError)>,
}

/// Returns the message that announces a champion.
pub fn announcement(champion: &Alias) -> ModelPromoted {
    ModelPromoted {
        model: champion.model.clone(),
        model_id: champion.model_id.clone(),
        object: champion.object.clone(),
        previous_model_id: champion.history.last().map(|past| past.model_id.clone()),
        why: Some(champion.why.clone()),
    }
}

/// Returns the message that announces that a version was not promoted.
pub fn rejection(model: &str, model_id: &str, verdict: Verdict) -> ModelRejected {
    let Verdict { reason, why, .. } = verdict;
    let object = Some(layout::model(model, model_id));
    ModelRejected { model: model.to_owned(), model_id: model_id.to_owned(), reason, why, object }
}

/// Promotes, at the time `at`, the breed models that were trained with the champion. If another version becomes champion
/// meanwhile, promotes the breed models of that one: of several callers at once, the last to end leaves the release
/// complete.
///
/// # Errors
/// Fails if the store cannot be reached.
pub async fn promote_breed_models(
    store: &Store,
    mut champion: Alias,
    at: Timestamp,
) -> Result<BreedPromotion, Failure> {
    'release: loop {
        let breeds = documents::read::<Breeds>(store, &champion.model, &champion.model_id).await;
        let breeds = unreadable_as_missing(breeds)?.map(|breeds| breeds.breeds).unwrap_or_default();
        let why = format!("with its global model ({})", champion.why);
        let mut promotion = BreedPromotion::default();
        let mut chunks = breeds.chunks(BREEDS_BETWEEN_CHECKS);
        loop {
            let chunk = chunks.next();
            match current_alias(store, &champion.model, AliasName::Champion).await? {
                Some(now) if now.model_id != champion.model_id => {
                    champion = now;
                    continue 'release;
                }
                _ => {}
            }
            let Some(chunk) = chunk else { return Ok(promotion) };
            let (champion_id, change) = (&champion.model_id, Change { by: &champion.by, at, why: &why });
            let promoting =
                stream::iter(0..chunk.len()).map(|index| promote(store, champion_id, change, &chunk[index]));
            let results: Vec<Result<Alias, VersionError>> = promoting.buffered(AT_ONCE).try_collect().await?;
            for (BreedSummary { breed, .. }, result) in chunk.iter().zip(results) {
                match result {
                    Ok(alias) => promotion.champions.push(alias),
                    Err(why) => {
                        tracing::warn!(breed, %why, "a breed model cannot be used; the global model scores this breed");
                        promotion.unusable.push((breed.clone(), why));
                    }
                }
            }
        }
    }
}

/// Promotes the model of one breed; the inner error says why it cannot be used.
async fn promote(
    store: &Store,
    champion_id: &str,
    change: Change<'_>,
    breed: &BreedSummary,
) -> Result<Result<Alias, VersionError>, Failure> {
    let mut alias = match in_service(store, champion_id, breed).await? {
        Some(alias) => publish_alias(store, alias).await?,
        None => match version(store, &breed.model, &breed.model_id).await? {
            Ok((version, _)) => set_alias(store, AliasName::Champion, &version, change).await?,
            Err(error) => return Ok(Err(error)),
        },
    };
    // There may be thousands of breeds, and callers need only the last entry.
    alias.history.drain(..alias.history.len().saturating_sub(1));
    Ok(Ok(alias))
}

/// Returns the breed champion that scores beside this global champion: the model that was trained with it, or another
/// one with the same prior mean that a person chose. `None` if the breed's alias has not followed that champion yet.
///
/// # Errors
/// Fails if the store cannot be reached.
pub async fn in_service(store: &Store, champion_id: &str, breed: &BreedSummary) -> Result<Option<Alias>, Failure> {
    let Some(alias) = current_alias(store, &breed.model, AliasName::Champion).await? else { return Ok(None) };
    if alias.model_id == breed.model_id {
        return Ok(Some(alias));
    }
    let artefact = named_model(store, &alias).await?.ok();
    Ok(artefact.filter(|artefact| artefact.prior_mean.as_deref() == Some(champion_id)).map(|_| alias))
}

/// Completes, at the time `at`, a release that was interrupted after its global model became champion, and repairs the
/// copy of its alias.
///
/// # Errors
/// Fails if the store cannot be reached.
pub async fn complete_release(store: &Store, model: &str, at: Timestamp) -> Result<(), Failure> {
    if let Some(champion) = current_alias(store, model, AliasName::Champion).await? {
        promote_breed_models(store, publish_alias(store, champion).await?, at).await?;
    }
    Ok(())
}
