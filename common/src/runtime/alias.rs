//! Reads which version of a model has a name. The trainer owns the names and changes them; everybody else reads them here.
//!
//! The alias `models/<model>/<name>.json` is overwritten whenever the name moves, so it may be behind: a write of a
//! process that was given up, suspended for minutes say, can land after later ones. The generations below
//! `models/<model>/<name>/` are created once and never change. So a reader takes the alias as the place to start from, and
//! follows the generations after it to the last.

use super::store::{self, Store};
use crate::contract::{
    layout,
    model::{Alias, AliasName},
    outcome::Failure,
};

/// Which version of `model` has the name now: the highest generation, wherever the alias points.
///
/// # Errors
/// An outage when the store is away; permanently (`broken_object`) when the alias cannot be read and no generation can.
pub async fn current(store: &Store, model: &str, name: AliasName) -> Result<Option<Alias>, Failure> {
    match store::read_json(store, &layout::alias(model, name)).await {
        Err(broken @ Failure::Permanent { .. }) => match newest(store, model, name, None).await? {
            None => Err(broken),
            found => Ok(found),
        },
        known => newest(store, model, name, known?).await,
    }
}

/// As [`current`], for those who serve models: without an alias there is none, and no generation is read. Breeds without a model
/// of their own are asked for all the time.
///
/// # Errors
/// As for [`current`].
pub async fn served(store: &Store, model: &str, name: AliasName) -> Result<Option<Alias>, Failure> {
    let Some(known) = store::read_json::<Alias>(store, &layout::alias(model, name)).await? else { return Ok(None) };
    newest(store, model, name, Some(known)).await
}

/// The highest generation from `known` on; `known` itself if none follows it.
///
/// A generation that cannot be read keeps its place and is passed over.
///
/// # Errors
/// An outage when the store is away.
pub async fn newest(
    store: &Store,
    model: &str,
    name: AliasName,
    mut known: Option<Alias>,
) -> Result<Option<Alias>, Failure> {
    let mut next = known.as_ref().map_or(0, |alias: &Alias| alias.generation) + 1;
    loop {
        match store::read_json(store, &layout::alias_generation(model, name, next)).await {
            Ok(None) => return Ok(known),
            Err(Failure::Permanent { why, .. }) => tracing::warn!(%why, "a generation of an alias cannot be read"),
            read => known = read?,
        }
        next += 1;
    }
}
