//! The versions of a model family, and their aliases.

use crate::{
    arguments::Family,
    session::{Failed, Session},
};
use anyhow::anyhow;
use common::model::{Alias, AliasName, Model};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use records::{Store, layout, store};
use trainer::registry::{self, Version};

/// Maximum number of artefacts read at the same time.
pub(super) const READS_AT_ONCE: usize = 16;

/// The store, which must be there.
pub(super) fn store_of(session: &Session) -> Result<Store, Failed> {
    match session.store_if_there()? {
        Some(store) => Ok(store),
        None => Err(Failed::Broken(anyhow!(session.no_store()?))),
    }
}

/// A family's names.
pub(super) struct Aliases {
    pub(super) champion: Option<Alias>,
    pub(super) challenger: Option<Alias>,
}

impl Aliases {
    pub(super) async fn of(store: &Store, family: &str) -> Result<Self, Failed> {
        let champion = registry::current(store, family, AliasName::Champion).await?;
        let challenger = registry::current(store, family, AliasName::Challenger).await?;
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

/// Ids of a family's versions: of those whose artefact is there.
pub(super) async fn versions(store: &Store, family: &str) -> Result<Vec<String>, Failed> {
    check_family(family)?;
    let prefix = Path::from(format!("{}/{family}", layout::MODELS));
    let listing = store.list_with_delimiter(Some(&prefix)).await?;
    let ids: Vec<String> =
        listing.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect();
    let whole = stream::iter(ids).map(|id| async move {
        Ok::<_, Failed>(store::exists(store, &layout::model(family, &id)).await?.then_some(id))
    });
    whole.buffered(READS_AT_ONCE).try_filter_map(async |id| Ok(id)).try_collect().await
}

pub(super) fn check_family(family: &str) -> Result<(), Failed> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    match !family.is_empty() && family.chars().all(plain) {
        true => Ok(()),
        false => Err(Failed::Misused(anyhow!("--model {family:?}: expected a model family, e.g. service-request"))),
    }
}

/// The version that is meant: a name, an id, or the beginning of one.
pub(super) async fn resolve(store: &Store, family: &Family, meant: &str) -> Result<(Version, Model), Failed> {
    let family = family.model.as_str();
    check_family(family)?;
    let names = Aliases::of(store, family).await?;
    let nobody =
        |name: &str| Failed::Broken(anyhow!("{family} has no {name}: `wildrydes model list` shows its versions"));
    let model_id = match meant {
        "champion" => names.champion.ok_or_else(|| nobody(meant))?.model_id,
        "challenger" => names.challenger.ok_or_else(|| nobody(meant))?.model_id,
        beginning => {
            let known = versions(store, family).await?;
            let mut fitting = known.iter().filter(|id| id.starts_with(beginning));
            match (fitting.next(), fitting.next()) {
                (Some(only), None) => only.clone(),
                (Some(one), Some(other)) => {
                    let why = format!("{beginning:?} may be {one} or {other}: give more of the id");
                    return Err(Failed::Misused(anyhow!(why)));
                }
                (None, _) => return Err(nobody(&format!("version {beginning:?}"))),
            }
        }
    };
    registry::version(store, family, &model_id).await?.map_err(|why| Failed::Broken(why.into()))
}
