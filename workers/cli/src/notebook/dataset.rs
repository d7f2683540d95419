//! Reads complete datasets of a store in the order of their batch ids, and selects rides.

mod rows;

#[cfg(test)]
pub(crate) use rows::rows_of;
pub(crate) use rows::{FIELDS, Rows, moment_of};

use crate::{
    arguments::Selection,
    output::progress::{Step, Unit},
    session::{Failed, Session},
};
use anyhow::anyhow;
use common::dataset::Manifest;
use records::{
    Store,
    datasets::{self, DatasetError, columns::RIDE_ID},
    layout, store,
};
use runtime::host::offload;
use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU32,
};
use xxhash_rust::xxh3::xxh3_128;

/// Maximum number of blocks that are parsed at once, which bounds the memory.
const PARSERS: usize = 2;

/// Numbers of revisions by batch id.
pub(crate) type Revisions<'a> = BTreeMap<&'a str, NonZeroU32>;

/// The selected datasets.
pub(crate) struct Datasets {
    store: Store,
    /// Sorted by batch id.
    pub(crate) manifests: Vec<Manifest>,
    labelled: bool,
    unique: bool,
}

/// Counts of rides that the selection excludes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// Rides without a label, if only labelled ones are selected.
    pub(crate) unlabelled: u64,
    /// Rides whose id is kept from another batch, if each id is selected once.
    pub(crate) duplicates: u64,
}

impl Datasets {
    /// Reads the manifests of the selected datasets.
    ///
    /// # Errors
    /// Fails if there is no store, no dataset, or no dataset of a named batch; if a manifest is damaged.
    pub(crate) async fn select(session: &Session, selection: &Selection) -> Result<Self, Failed> {
        let store = session.existing_store()?;
        let location = session.store_location()?;
        let mut newest = BTreeMap::new();
        if selection.batches.is_empty() {
            newest = datasets::list(&store).await?;
        }
        for id in &selection.batches {
            match datasets::newest_revision(&store, id).await? {
                Some(revision) => drop(newest.insert(id.clone(), revision)),
                None => return Err(Failed::Broken(missing(&store, id, &location).await?)),
            }
        }
        let mut manifests = Vec::new();
        for (id, revision) in &newest {
            let stored = datasets::revision(&store, id, *revision).await.map_err(|error| damaged(error, id))?;
            manifests.extend(stored.map(|stored| stored.manifest));
        }
        if manifests.is_empty() {
            return Err(Failed::Broken(anyhow!(
                "no complete dataset in {location}: `wildrydes run rides.json` creates one, `wildrydes status` shows the batches \
                 in progress"
            )));
        }
        Ok(Self { store, manifests, labelled: selection.labelled, unique: selection.unique })
    }

    /// Returns the number of the revision of each dataset that has more than one, by batch id.
    pub(crate) fn revisions(&self) -> Revisions<'_> {
        let later = self.manifests.iter().filter_map(|manifest| Some((manifest.batch_id.as_str(), manifest.revision?)));
        later.collect()
    }

    /// Returns the number of rides in all datasets.
    pub(crate) fn rides(&self) -> u64 {
        self.manifests.iter().fold(0, |sum, manifest| sum.saturating_add(manifest.accepted))
    }

    /// Reads all rides and passes the selected ones to `each`: the batch id, a piece of the batch, and the selected rows of it.
    ///
    /// # Errors
    /// Fails if a file does not match its manifest, if the store fails, or if `each` fails.
    pub(crate) async fn read(
        &self,
        title: &str,
        quiet: bool,
        mut each: impl FnMut(&str, &Rows, &[usize]) -> anyhow::Result<()>,
    ) -> anyhow::Result<LeftOut> {
        let mut left_out = LeftOut::default();
        let mut once = None;
        // Ride ids are unique within a batch.
        if self.unique && self.manifests.len() > 1 {
            let mut ids = Once::default();
            if self.manifests.iter().any(|manifest| manifest.trainable < manifest.accepted) {
                self.pass("looking for duplicates", quiet, |_, rows| {
                    (0..rows.len()).filter(|&row| rows.is_trainable(row)).for_each(|row| ids.expect(rows, row));
                    Ok(())
                })
                .await?;
            }
            once = Some(ids);
        }
        let mut kept = Vec::new();
        self.pass(title, quiet, |batch_id, rows| {
            kept.clear();
            for row in 0..rows.len() {
                if self.labelled && rows.label(row).is_none() {
                    left_out.unlabelled += 1;
                } else if once.as_mut().is_some_and(|once| !once.keeps(rows, row)) {
                    left_out.duplicates += 1;
                } else {
                    kept.push(row);
                }
            }
            each(batch_id, rows, &kept)
        })
        .await?;
        Ok(left_out)
    }

    async fn pass(
        &self,
        title: &str,
        quiet: bool,
        mut each: impl FnMut(&str, &Rows) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let step = Step::start(title, Unit::Rides, self.rides(), quiet);
        let mut seen = 0;
        for manifest in &self.manifests {
            let batch_id = &manifest.batch_id;
            let mut blocks = datasets::Reader::new(&self.store, manifest, PARSERS, offload, Rows::parse);
            while let Some(rows) = blocks.next().await.map_err(|error| damaged(error, batch_id))? {
                seen += rows.len() as u64;
                step.at(seen);
                each(batch_id, &rows)?;
            }
        }
        step.done(seen);
        Ok(())
    }
}

/// Selects each ride id once, as training does: its first ride with label and weather, else its first ride. Remembers 128-bit
/// fingerprints of the ids: about 40 bytes per ride.
#[derive(Default)]
struct Once {
    /// Whether the ride was kept. `false` while its ride with label and weather is still expected.
    kept: HashMap<u128, bool>,
}

impl Once {
    /// Records that a ride with label and weather follows.
    fn expect(&mut self, rows: &Rows, row: usize) {
        self.kept.entry(fingerprint(rows, row)).or_insert(false);
    }

    /// Returns whether this ride is the one to keep of its id.
    fn keeps(&mut self, rows: &Rows, row: usize) -> bool {
        match self.kept.get_mut(&fingerprint(rows, row)) {
            Some(kept) => rows.is_trainable(row) && !std::mem::replace(kept, true),
            None => self.kept.insert(fingerprint(rows, row), true).is_none(),
        }
    }
}

fn fingerprint(rows: &Rows, row: usize) -> u128 {
    xxh3_128(rows.field(row, RIDE_ID))
}

/// Returns why a named batch has no dataset, and what to do.
async fn missing(store: &Store, batch_id: &str, location: &str) -> anyhow::Result<anyhow::Error> {
    Ok(match store::exists(store, &layout::claim(batch_id)).await? {
        true => anyhow!("batch {batch_id} has no dataset yet: `wildrydes status {batch_id}` shows how far it is"),
        false => anyhow!("no batch {batch_id} in {location}: `wildrydes status` lists the batches there"),
    })
}

/// Returns what is wrong with a dataset, and what to do if it is damaged.
fn damaged(error: DatasetError, batch_id: &str) -> anyhow::Error {
    let damage = match error {
        DatasetError::Unavailable(failure) => return failure.into(),
        damage @ (DatasetError::Broken { .. } | DatasetError::Changed { .. }) => damage,
    };
    let folder = layout::dataset(batch_id);
    anyhow!(
        "{damage}\ndataset {batch_id} is damaged: restore {folder} from a copy, or remove that folder and run \
         `wildrydes replay {batch_id}`; until then, other batches can be named"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(records: &[(&str, bool, bool)]) -> Rows {
        let record = |(id, labelled, weather): &(&str, bool, bool)| {
            let label = if *labelled { "1" } else { "" };
            let weather = if *weather { "S,1.000000,1,2,3" } else { ",,,," };
            format!("{id},,,2018-04-25 17:03:05.722,40.6,-74.1,29.5,291,292,{label},{weather}\n")
        };
        rows_of(&records.iter().map(record).collect::<String>())
    }

    #[test]
    fn first_ride_with_label_and_weather_is_kept_of_each_id() {
        let first = rows(&[("a", false, true), ("b", true, false), ("c", true, true), ("d", false, false)]);
        let second = rows(&[("a", true, true), ("b", false, true), ("c", true, true), ("d", true, true)]);
        let third = rows(&[("a", true, true), ("d", true, true)]);
        let batches = [&first, &second, &third];
        let mut once = Once::default();
        for rows in batches {
            (0..rows.len()).filter(|&row| rows.is_trainable(row)).for_each(|row| once.expect(rows, row));
        }
        let kept = batches.map(|rows| (0..rows.len()).map(|row| once.keeps(rows, row)).collect::<Vec<_>>());
        assert_eq!(kept[0], [false, true, true, false], "b never has both label and weather: its first ride");
        assert_eq!(kept[1], [true, false, false, true]);
        assert_eq!(kept[2], [false, false]);
    }

    #[test]
    fn first_ride_is_kept_if_all_have_label_and_weather() {
        let all = rows(&[("a", true, true), ("b", true, true)]);
        let mut once = Once::default();
        let mut kept = || (0..all.len()).map(|row| once.keeps(&all, row)).collect::<Vec<_>>();
        assert_eq!((kept(), kept()), (vec![true, true], vec![false, false]));
    }
}
