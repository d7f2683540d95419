//! Reads the version that an alias names.

use crate::serve::artefact::{self, Servable};
use common::{
    model::{Alias, AliasName},
    outcome::Failure,
};
use jiff::Timestamp;
use records::{registry, store::Store};
use std::fmt::Display;

/// A checked version that an alias names, with the alias's history.
#[derive(Debug)]
pub(crate) struct NamedVersion {
    pub(crate) model: Servable,
    sha256: String,
    /// Generation of the alias.
    generation: u64,
    /// Hashes of the ids of the versions in the alias's history, and of this one: much shorter than the ids.
    line: Box<[u64]>,
    /// When the alias was moved to it.
    pub(crate) promoted_at: Option<Timestamp>,
}

/// The outcome of reading an alias.
pub(crate) enum AliasRead {
    /// The alias names no version.
    NoVersion,
    /// The alias names the known version, or an earlier one.
    Unchanged,
    /// The alias names a newer version.
    New(NamedVersion),
}

impl NamedVersion {
    /// Returns whether `alias` names this version, or one before it in its history: a delayed write or read shows those.
    fn is_up_to(&self, alias: &Alias) -> bool {
        match self.generation.checked_sub(alias.generation) {
            None => false,
            Some(0) => self.model.model_id == alias.model_id && self.sha256 == alias.sha256,
            // An alias beyond the history belongs to another history, that of a store that was emptied: no delay is that long.
            Some(back) => {
                let back = usize::try_from(back).ok().and_then(|back| back.checked_add(1));
                let then = back.and_then(|back| self.line.len().checked_sub(back)).and_then(|at| self.line.get(at));
                then.is_some_and(|then| *then == short(&alias.model_id))
            }
        }
    }
}

fn short(model_id: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(model_id.as_bytes())
}

/// Reads the version of `family` that the alias `name` names, unless it is `known`.
///
/// # Errors
/// An outage if the store cannot be reached; permanent if the version cannot be served.
pub(crate) async fn read(
    store: &Store,
    family: &str,
    name: AliasName,
    known: Option<&NamedVersion>,
) -> Result<AliasRead, Failure> {
    let Some(alias) = registry::served_alias(store, family, name).await? else { return Ok(AliasRead::NoVersion) };
    if known.is_some_and(|known| known.is_up_to(&alias)) {
        return Ok(AliasRead::Unchanged);
    }
    if alias.model != family {
        let why = format!("the alias {} of {family} names a version of {}", name.as_str(), alias.model);
        return Err(unusable(why));
    }
    let model = registry::named_model(store, &alias).await?.map_err(unusable)?;
    let model = artefact::servable(&model).map_err(|why| unusable(format!("{}: {why}", alias.object)))?;
    let line = alias.history.iter().map(|past| &past.model_id).chain([&alias.model_id]).map(|id| short(id)).collect();
    let promoted_at = alias.at.parse().ok();
    Ok(AliasRead::New(NamedVersion { model, sha256: alias.sha256, generation: alias.generation, line, promoted_at }))
}

fn unusable(why: impl Display) -> Failure {
    Failure::permanent("unusable_model", why)
}
