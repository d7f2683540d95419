//! `model prune`: removes old versions and old serving statistics.
//!
//! Versions with an alias stay, and so do the last champions with the breed models of their releases: a rollback may need
//! them. An interrupted prune leaves folders without `model.json`, which are not versions; the next prune removes them.

use super::versions::Aliases;
use crate::{
    arguments::Prune,
    output::{ask, can_ask, print_json},
    session::{Failed, Session},
};
use anyhow::anyhow;
use common::document::Breeds;
use common::model::{Alias, AliasName};
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::{HumanBytes, HumanCount};
use jiff::SignedDuration;
use records::{
    Store, layout,
    registry::{self, VersionKey},
    serving,
    store::{self, Folder},
};
use runtime::host;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// What prune removes.
#[derive(Debug, Default)]
struct Removal {
    versions: BTreeMap<VersionKey, Folder>,
    /// Days of serving statistics and scored ride ids, by their folder.
    days: BTreeMap<String, Folder>,
}

impl Removal {
    fn bytes(&self) -> u64 {
        self.versions.values().chain(self.days.values()).map(|folder| folder.bytes).sum()
    }

    fn text(&self) -> String {
        let count = |count: usize, one: &str| {
            format!("{} {one}{}", HumanCount(count as u64), if count == 1 { "" } else { "s" })
        };
        format!(
            "{} and {} of serving statistics, {}",
            count(self.versions.len(), "version"),
            count(self.days.len(), "day"),
            HumanBytes(self.bytes())
        )
    }
}

/// `model prune`
pub(super) async fn prune(session: &Session, prune: &Prune) -> Result<(), Failed> {
    let store = session.existing_store()?;
    let mut removal = plan(&store, prune).await?;
    let nothing = removal.versions.is_empty() && removal.days.is_empty();
    if !prune.dry_run && !nothing {
        if !prune.yes {
            can_ask(session, &format!("{} would be removed", removal.text()))?;
            list(&removal);
            if !ask(&format!("Remove {} from {}?", removal.text(), session.store_location()?))? {
                println!("nothing was removed");
                return Ok(());
            }
            // While the question was open, a version may have received an alias.
            let current = plan(&store, prune).await?;
            removal.versions.retain(|version, _| current.versions.contains_key(version));
        }
        remove(session, &store, &removal).await?;
    }
    if session.shared.json {
        let versions: Vec<_> =
            removal.versions.keys().map(|(model, model_id)| json!({ "model": model, "model_id": model_id })).collect();
        let days: Vec<_> = removal.days.keys().collect();
        let document =
            json!({ "removed": !prune.dry_run, "versions": versions, "days": days, "bytes": removal.bytes() });
        return print_json(&document);
    }
    match (nothing, prune.dry_run) {
        (true, _) => println!(
            "nothing to remove: versions with an alias, the last {} champions of each family, and everything of the last {} days stay",
            prune.keep, prune.days
        ),
        (false, true) => {
            list(&removal);
            println!("{} would be removed", removal.text());
        }
        (false, false) => println!("removed {}", removal.text()),
    }
    Ok(())
}

fn list(removal: &Removal) {
    for ((model, model_id), folder) in &removal.versions {
        println!("{model} {model_id}  of {}  {}", folder.written_at.strftime("%F"), HumanBytes(folder.bytes));
    }
    for (day, folder) in &removal.days {
        println!("{day}  {}", HumanBytes(folder.bytes));
    }
}

/// Lists everything that is old and not kept.
async fn plan(store: &Store, prune: &Prune) -> Result<Removal, Failed> {
    let before = host::now() - SignedDuration::from_hours(24 * i64::from(prune.days));
    let families = registry::families(store).await?;
    let mut versions = registry::version_folders(store).await?;
    let kept = kept(store, families, prune.keep.into()).await?;
    versions.retain(|version, folder| !kept.contains(version) && folder.written_at < before);

    let days = serving::days_before(store, &serving::since(i64::from(prune.days), host::now())).await?;
    Ok(Removal { versions, days })
}

/// Returns the versions with an alias, the last `keep` champions before, and the breed models of their releases.
async fn kept(store: &Store, families: Vec<String>, keep: usize) -> Result<BTreeSet<VersionKey>, Failed> {
    let keeping = stream::iter(families).map(|family| async move {
        let Aliases { champion, challenger } = Aliases::of(store, &family).await?;
        let generations = layout::alias_generations(&family, AliasName::Champion);
        if champion.is_none() && store::list(store, &generations).try_next().await?.is_some() {
            return Err(Failed::Broken(anyhow!(
                "{family} had a champion, but it cannot be read below {generations}/: nothing was removed"
            )));
        }
        let mut kept: Vec<String> = challenger.into_iter().map(|challenger| challenger.model_id).collect();
        if let Some(Alias { model_id, history, .. }) = champion {
            let mut line = vec![model_id];
            for past in history.into_iter().rev() {
                if line.len() <= keep && !line.contains(&past.model_id) {
                    line.push(past.model_id);
                }
            }
            kept.extend(line);
        }
        let mut versions = BTreeSet::new();
        for model_id in kept {
            if let Some(Breeds { breeds, .. }) = registry::read(store, &family, &model_id).await? {
                versions.extend(breeds.into_iter().map(|breed| (breed.model, breed.model_id)));
            }
            versions.insert((family.clone(), model_id));
        }
        Ok::<_, Failed>(versions)
    });
    let kept: Vec<BTreeSet<VersionKey>> = keeping.buffer_unordered(registry::AT_ONCE).try_collect().await?;
    Ok(kept.into_iter().flatten().collect())
}

/// Removes the objects and, in a local folder, the empty folders that remain.
async fn remove(session: &Session, store: &Store, removal: &Removal) -> Result<(), Failed> {
    registry::remove_versions(store, &removal.versions).await?;
    store::remove_each(store, removal.days.values().flat_map(|day| day.objects.iter().cloned())).await?;
    let versions: Vec<String> = removal.versions.keys().map(|(family, id)| layout::model_version(family, id)).collect();
    let folders = versions.iter().chain(removal.days.keys()).map(String::as_str);
    store::remove_empty_folders(&session.store_settings()?, folders);
    Ok(())
}
