//! The versions of a model family, and their aliases.

use crate::{arguments::Family, session::Failed};
use anyhow::anyhow;
use common::model::{Alias, AliasName, Model};
use records::{
    Store, layout,
    registry::{self, Version},
};

/// The aliases of a model family.
pub(super) struct Aliases {
    pub(super) champion: Option<Alias>,
    /// `None` if it is the champion as well.
    pub(super) challenger: Option<Alias>,
}

impl Aliases {
    pub(super) async fn of(store: &Store, family: &str) -> Result<Self, Failed> {
        let champion = registry::current_alias(store, family, AliasName::Champion).await?;
        let challenger = registry::current_alias(store, family, AliasName::Challenger).await?;
        let is_other = |challenger: &Alias| champion.as_ref().is_none_or(|c| c.model_id != challenger.model_id);
        let challenger = challenger.filter(is_other);
        Ok(Self { champion, challenger })
    }

    pub(super) fn name_of(&self, model_id: &str) -> &'static str {
        let is = |alias: &Option<Alias>| alias.as_ref().is_some_and(|alias| alias.model_id == model_id);
        match (is(&self.champion), is(&self.challenger)) {
            (true, _) => "champion",
            (_, true) => "challenger",
            _ if self.champion.as_ref().is_some_and(|champion| champion.named(model_id)) => "was champion",
            _ => "",
        }
    }
}

pub(super) fn check_family(family: &str) -> Result<(), Failed> {
    match layout::is_model_name(family) {
        true => Ok(()),
        false => Err(Failed::Misused(anyhow!("--model {family:?}: expected a model family, e.g. service-request"))),
    }
}

/// Resolves `champion`, `challenger`, a model id or a prefix of one.
pub(super) async fn resolve(store: &Store, family: &Family, name: &str) -> Result<(Version, Model), Failed> {
    let family = family.model.as_str();
    check_family(family)?;
    let aliases = Aliases::of(store, family).await?;
    let missing =
        |name: &str| Failed::Broken(anyhow!("{family} has no {name}: `wildrydes model list` shows its versions"));
    let model_id = match name {
        "champion" => aliases.champion.ok_or_else(|| missing(name))?.model_id,
        "challenger" => aliases.challenger.ok_or_else(|| missing(name))?.model_id,
        prefix => {
            let versions = registry::versions(store, family).await?;
            let mut matching = versions.iter().filter(|id| id.starts_with(prefix));
            match (matching.next(), matching.next()) {
                (Some(only), None) => only.clone(),
                (Some(one), Some(other)) => {
                    let why = format!("{prefix:?} matches {one} and {other}: give more of the id");
                    return Err(Failed::Misused(anyhow!(why)));
                }
                (None, _) => return Err(missing(&format!("version {prefix:?}"))),
            }
        }
    };
    registry::version(store, family, &model_id).await?.map_err(|why| Failed::Broken(why.into()))
}
