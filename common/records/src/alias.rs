//! Reads which version of a model an alias, such as `champion`, points to. Only the trainer changes aliases.
//!
//! The object `models/<model>/<name>.json` is overwritten at every change, so it can be out of date: a late write, for
//! example by a process that was suspended for minutes and given up, can replace a newer one. The generations below
//! `models/<model>/<name>/` are created once and never change. A reader therefore starts at the generation that the
//! object names, and follows the later generations to the last.

use super::store::{self, Store};
use crate::layout;
use common::{
    model::{Alias, AliasName},
    outcome::Failure,
};

/// Returns what the alias `name` of `model` points to: its highest generation, even where the object of the alias is
/// out of date. `None` if the alias does not exist.
///
/// # Errors
/// Fails with an outage if the store cannot be reached; permanently (`broken_object`) if neither the object of the
/// alias nor any generation can be decoded.
pub async fn current(store: &Store, model: &str, name: AliasName) -> Result<Option<Alias>, Failure> {
    match store::read_json(store, &layout::alias(model, name)).await {
        Err(broken @ Failure::Permanent { .. }) => match newest(store, model, name, None).await? {
            None => Err(broken),
            newest => Ok(newest),
        },
        known => newest(store, model, name, known?).await,
    }
}

/// Like [`current`], but returns `None` without reading generations if the object of the alias is missing. Scorers use it:
/// they often ask for a breed that has no model, and one read then suffices.
///
/// # Errors
/// Fails with an outage if the store cannot be reached; permanently (`broken_object`) if the object of the alias cannot be
/// decoded.
pub async fn served(store: &Store, model: &str, name: AliasName) -> Result<Option<Alias>, Failure> {
    let Some(known) = store::read_json::<Alias>(store, &layout::alias(model, name)).await? else { return Ok(None) };
    newest(store, model, name, Some(known)).await
}

/// Returns the highest generation from `known` on; `known` itself if none follows it.
///
/// A generation that cannot be decoded is skipped with a warning; its number stays taken.
///
/// # Errors
/// Fails with an outage if the store cannot be reached.
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
