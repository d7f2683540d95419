//! Reads the version that has a name.

use crate::serve::artefact::{self, Servable, Unusable};
use common::{
    model::{Alias, AliasName},
    outcome::Failure,
};
use records::{
    alias, layout,
    store::{self, Store},
};

/// A checked version, and how it came by its name.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) model: Servable,
    sha256: String,
    /// Its place in the line of all that had the name.
    generation: u64,
    /// It and what it follows, as far as its alias remembers, by the first bytes of a hash: much shorter than the words.
    line: Box<[u64]>,
}

/// What the store says of a name.
pub(crate) enum Found {
    /// Nothing has it.
    Nothing,
    /// What is known already, or stood before that.
    Known,
    /// Another version.
    New(Named),
}

impl Named {
    /// Whether `alias` names this, or something that stood in the line before it: what a delayed writer or reader still sees.
    fn is_up_to(&self, alias: &Alias) -> bool {
        match self.generation.checked_sub(alias.generation) {
            None => false,
            Some(0) => self.model.model_id == alias.model_id && self.sha256 == alias.sha256,
            // Else it is of another line, of a store that began anew: nobody is later than a line remembers.
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

/// Reads which version of `family` has the name now, and that version unless it is `known`.
///
/// # Errors
/// An outage when the store is away; permanent when what has the name cannot be served.
pub(crate) async fn read(
    store: &Store,
    family: &str,
    name: AliasName,
    known: Option<&Named>,
) -> Result<Found, Failure> {
    let path = layout::alias(family, name);
    let Some(alias) = alias::served(store, family, name).await? else { return Ok(Found::Nothing) };
    if known.is_some_and(|known| known.is_up_to(&alias)) {
        return Ok(Found::Known);
    }
    let unusable = |why: String| Failure::permanent("unusable_model", why);
    if !layout::is_below(layout::MODELS, &alias.object) {
        let (object, models) = (&alias.object, layout::MODELS);
        return Err(unusable(format!("{path}: its object is {object:?}; expected a path below {models}/")));
    }
    if alias.model != family {
        return Err(unusable(format!("{path}: it is of {}; expected {family}", alias.model)));
    }
    let model = match store::read(store, &alias.object).await? {
        Some(bytes) => artefact::read(&bytes, &alias),
        None => Err(Unusable::Missing(alias.object.clone())),
    };
    match model {
        Ok(model) => {
            let line =
                alias.history.iter().map(|past| &past.model_id).chain([&alias.model_id]).map(|id| short(id)).collect();
            Ok(Found::New(Named { model, sha256: alias.sha256, generation: alias.generation, line }))
        }
        Err(why) => Err(unusable(format!("{}: {why}", alias.object))),
    }
}
