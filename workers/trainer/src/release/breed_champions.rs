//! The champions of breeds follow the champion of all rides: breed models are in service only beside the global model of their release.

use super::registry::{self, VersionError};
use common::{
    document::{BreedSummary, Breeds},
    model::{Alias, AliasName, Model},
    outcome::Failure,
};
use futures::{StreamExt, TryStreamExt, stream};
use records::store::unreadable_as_missing;
use records::{
    layout,
    store::{self, Store},
};

/// Maximum number of breeds whose objects are read or written at once.
pub(super) const BREEDS_AT_ONCE: usize = 16;
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

/// Promotes the breed models that were trained with the champion. If another version becomes champion meanwhile, promotes the breed
/// models of that one: of several callers at once, the last to end leaves the release complete.
///
/// # Errors
/// Fails if the store cannot be reached.
pub async fn promote_breed_models(store: &Store, mut champion: Alias) -> Result<BreedPromotion, Failure> {
    'release: loop {
        let path = layout::breeds(&champion.model, &champion.model_id);
        let breeds: Option<Breeds> = unreadable_as_missing(store::read_json(store, &path).await)?;
        let breeds = breeds.map(|breeds| breeds.breeds).unwrap_or_default();
        let why = format!("with its global model ({})", champion.why);
        let mut promotion = BreedPromotion::default();
        let mut chunks = breeds.chunks(BREEDS_BETWEEN_CHECKS);
        loop {
            let chunk = chunks.next();
            match registry::current(store, &champion.model, AliasName::Champion).await? {
                Some(now) if now.model_id != champion.model_id => {
                    champion = now;
                    continue 'release;
                }
                _ => {}
            }
            let Some(chunk) = chunk else { return Ok(promotion) };
            let (champion, why) = (&champion, why.as_str());
            let promoting = stream::iter(0..chunk.len()).map(|index| promote(store, champion, why, &chunk[index]));
            let results: Vec<Result<Alias, VersionError>> = promoting.buffered(BREEDS_AT_ONCE).try_collect().await?;
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
    champion: &Alias,
    why: &str,
    breed: &BreedSummary,
) -> Result<Result<Alias, VersionError>, Failure> {
    let mut alias = match in_service(store, &champion.model_id, breed).await? {
        Some(alias) => registry::publish(store, alias).await?,
        None => match registry::version(store, &breed.model, &breed.model_id).await? {
            Ok((version, _)) => registry::set_alias(store, AliasName::Champion, &version, &champion.by, why).await?,
            Err(error) => return Ok(Err(error)),
        },
    };
    // There may be thousands of breeds, and callers need only the last entry.
    alias.history.drain(..alias.history.len().saturating_sub(1));
    Ok(Ok(alias))
}

/// Returns the breed champion that scores beside this global champion: the model that was trained with it, or another one with the same
/// prior mean that a person chose. `None` if the breed's alias has not followed that champion yet.
///
/// # Errors
/// Fails if the store cannot be reached.
pub async fn in_service(store: &Store, champion_id: &str, breed: &BreedSummary) -> Result<Option<Alias>, Failure> {
    let Some(alias) = registry::current(store, &breed.model, AliasName::Champion).await? else { return Ok(None) };
    if alias.model_id == breed.model_id {
        return Ok(Some(alias));
    }
    let artefact = artefact_of(store, &alias).await?;
    Ok(artefact.filter(|artefact| artefact.centre.as_deref() == Some(champion_id)).map(|_| alias))
}

/// Reads the artefact of an alias; `None` if it is missing or cannot be decoded.
pub(super) async fn artefact_of(store: &Store, alias: &Alias) -> Result<Option<Model>, Failure> {
    if !layout::is_below(layout::MODELS, &alias.object) {
        return Ok(None);
    }
    unreadable_as_missing(store::read_json::<Model>(store, &alias.object).await)
}

/// Completes a release that was interrupted after its global model became champion.
pub(crate) async fn complete_release(store: &Store, model: &str) -> Result<(), Failure> {
    if let Some(champion) = registry::current(store, model, AliasName::Champion).await? {
        promote_breed_models(store, registry::publish(store, champion).await?).await?;
    }
    Ok(())
}
