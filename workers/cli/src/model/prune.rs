//! `model prune`: what nobody will ask for any more leaves the store.
//!
//! What has a name stays, and so do the last that were champion, with the models of breeds that were trained beside each of
//! them: what a roll-back may need. Whoever is interrupted leaves folders without `model.json`, which are no versions any more;
//! the next prune removes the rest.

use super::versions::{Aliases, READS_AT_ONCE, store_of};
use crate::{
    arguments::Prune,
    output::{ask, can_ask},
    session::{Failed, Session},
};
use anyhow::anyhow;
use common::model::{Alias, AliasName};
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::{HumanBytes, HumanCount};
use jiff::{SignedDuration, Timestamp};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use records::{Store, layout, served::since, store};
use runtime::host;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};
use trainer::breeds::Breeds;

/// A version: its family and its id.
type VersionKey = (String, String);

/// The objects of one folder.
#[derive(Debug, Default)]
struct Folder {
    objects: Vec<Path>,
    bytes: u64,
    written: Timestamp,
}

impl Folder {
    fn add(&mut self, object: object_store::ObjectMeta) {
        let written = Timestamp::from_second(object.last_modified.timestamp()).unwrap_or(Timestamp::MAX);
        self.written = self.written.max(written);
        self.bytes += object.size;
        self.objects.push(object.location);
    }
}

/// What is to go.
#[derive(Debug, Default)]
struct Doomed {
    versions: BTreeMap<VersionKey, Folder>,
    /// Days of what was served and scored, by their folder.
    days: BTreeMap<String, Folder>,
}

impl Doomed {
    fn bytes(&self) -> u64 {
        self.versions.values().chain(self.days.values()).map(|folder| folder.bytes).sum()
    }

    fn in_words(&self) -> String {
        let count = |count: usize, one: &str| {
            format!("{} {one}{}", HumanCount(count as u64), if count == 1 { "" } else { "s" })
        };
        format!(
            "{} and {} of what was served and scored, {}",
            count(self.versions.len(), "version"),
            count(self.days.len(), "day"),
            HumanBytes(self.bytes())
        )
    }
}

/// `model prune`
pub(super) async fn prune(session: &Session, prune: &Prune) -> Result<(), Failed> {
    let store = store_of(session)?;
    let mut doomed = doomed(&store, prune).await?;
    let nothing = doomed.versions.is_empty() && doomed.days.is_empty();
    if !prune.dry_run && !nothing {
        if !prune.yes {
            can_ask(session, &format!("{} would be removed", doomed.in_words()))?;
            list(&doomed);
            if !ask(&format!("Remove {} from {}?", doomed.in_words(), session.store_location()?))? {
                println!("nothing was removed");
                return Ok(());
            }
            // While the question stood somebody may have given a name to one of these.
            let still = self::doomed(&store, prune).await?;
            doomed.versions.retain(|version, _| still.versions.contains_key(version));
        }
        remove(session, &store, &doomed).await?;
    }
    if session.shared.json {
        let versions: Vec<_> =
            doomed.versions.keys().map(|(model, model_id)| json!({ "model": model, "model_id": model_id })).collect();
        let days: Vec<_> = doomed.days.keys().collect();
        let told = json!({ "removed": !prune.dry_run, "versions": versions, "days": days, "bytes": doomed.bytes() });
        println!("{}", serde_json::to_string_pretty(&told)?);
        return Ok(());
    }
    match (nothing, prune.dry_run) {
        (true, _) => println!(
            "nothing is old enough to go: what has a name, the last {} champions of each family, and all of the last {} days stay",
            prune.keep, prune.days
        ),
        (false, true) => {
            list(&doomed);
            println!("{} would be removed", doomed.in_words());
        }
        (false, false) => println!("removed {}", doomed.in_words()),
    }
    Ok(())
}

fn list(doomed: &Doomed) {
    for ((model, model_id), folder) in &doomed.versions {
        println!("{model} {model_id}  of {}  {}", folder.written.strftime("%F"), HumanBytes(folder.bytes));
    }
    for (day, folder) in &doomed.days {
        println!("{day}  {}", HumanBytes(folder.bytes));
    }
}

/// All that is old and not kept.
async fn doomed(store: &Store, prune: &Prune) -> Result<Doomed, Failed> {
    let before = host::now() - SignedDuration::from_hours(24 * i64::from(prune.days));
    let mut versions: BTreeMap<VersionKey, Folder> = BTreeMap::new();
    let mut families = BTreeSet::new();
    let mut listing = store.list(Some(&Path::from(layout::MODELS)));
    while let Some(object) = listing.try_next().await? {
        let parts: Vec<String> = object.location.parts().map(|part| part.as_ref().to_owned()).collect();
        let [_, family, rest @ ..] = parts.as_slice() else { continue };
        families.insert(family.clone());
        match rest {
            [id, _, ..] if !["champion", "challenger"].contains(&id.as_str()) => {
                versions.entry((family.clone(), id.clone())).or_default().add(object);
            }
            _ => {}
        }
    }
    let kept = kept(store, families, prune.keep.into()).await?;
    versions.retain(|version, folder| !kept.contains(version) && folder.written < before);

    let mut days: BTreeMap<String, Folder> = BTreeMap::new();
    let first = since(i64::from(prune.days), host::now());
    for prefix in [layout::SERVED, layout::SCORED] {
        let mut listing = store.list(Some(&Path::from(prefix)));
        while let Some(object) = listing.try_next().await? {
            let parts: Vec<String> = object.location.parts().map(|part| part.as_ref().to_owned()).collect();
            if let [_, _, _, date, _] = parts.as_slice()
                && *date < first
            {
                days.entry(parts[..4].join("/")).or_default().add(object);
            }
        }
    }
    Ok(Doomed { versions, days })
}

/// What has a name now, the last `keep` champions before, and the models of breeds beside any of them.
async fn kept(store: &Store, families: BTreeSet<String>, keep: usize) -> Result<BTreeSet<VersionKey>, Failed> {
    let keeping = stream::iter(families).map(|family| async move {
        let Aliases { champion, challenger } = Aliases::of(store, &family).await?;
        let first = Path::from(format!("{}/{family}/{}", layout::MODELS, AliasName::Champion.as_str()));
        if champion.is_none() && store.list(Some(&first)).try_next().await?.is_some() {
            return Err(Failed::Broken(anyhow!(
                "{family} had a champion, and which one it is cannot be read below {first}/: nothing was removed"
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
            if let Some(Breeds { breeds, .. }) = store::read_json(store, &layout::breeds(&family, &model_id)).await? {
                versions.extend(breeds.into_iter().map(|breed| (breed.model, breed.model_id)));
            }
            versions.insert((family.clone(), model_id));
        }
        Ok::<_, Failed>(versions)
    });
    let kept: Vec<BTreeSet<VersionKey>> = keeping.buffer_unordered(READS_AT_ONCE).try_collect().await?;
    Ok(kept.into_iter().flatten().collect())
}

/// Artefact first: without it the rest of a folder is no version.
async fn remove(session: &Session, store: &Store, doomed: &Doomed) -> Result<(), Failed> {
    let artefact = |(family, id): &VersionKey| Path::from(layout::model(family, id));
    let artefacts: Vec<Path> = doomed.versions.keys().map(artefact).collect();
    let of_versions = doomed.versions.iter().flat_map(|(version, folder)| {
        let artefact = artefact(version);
        folder.objects.iter().filter(move |object| **object != artefact)
    });
    let rest = of_versions.chain(doomed.days.values().flat_map(|folder| &folder.objects)).cloned().collect();
    for objects in [artefacts, rest] {
        let removing = stream::iter(objects).map(|object| async move {
            match store.delete(&object).await {
                Err(error) if !matches!(error, object_store::Error::NotFound { .. }) => Err(error),
                _ => Ok(()),
            }
        });
        removing.buffer_unordered(READS_AT_ONCE).try_collect::<Vec<()>>().await?;
    }
    // Where the store is a folder, what is empty now goes, too; others have no folders.
    let place = session.store_location()?;
    let place = PathBuf::from(place.strip_prefix("file://").unwrap_or(&place));
    let folders = doomed.versions.keys().map(|(family, id)| format!("{}/{family}/{id}", layout::MODELS));
    for folder in folders.chain(doomed.days.keys().cloned()) {
        let _ = std::fs::remove_dir(place.join(folder));
    }
    Ok(())
}
