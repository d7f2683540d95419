//! Complete datasets of a store, read for export and description: in the order of their ids, each file held against its
//! manifest, in bounded memory. Of each file
//!
//! ```text
//! blocks ──▶ hashed, parsed (a thread) ──▶ rows ──▶ what a command makes of them (the thread that asked)
//! ```

mod rows;

pub(crate) use rows::{Rows, moment_of, parse};

use crate::{
    arguments::Chosen,
    notebook::dictionary::field,
    output::progress::{Step, Unit},
    session::{Failed, Session},
};
use anyhow::{Context, anyhow, bail};
use bytes::{Buf, Bytes};
use common::dataset::{DatasetFile, MANIFEST_SCHEMA, Manifest};
use futures::{StreamExt, stream};
use object_store::{ObjectStoreExt, path::Path};
use records::{
    Store, layout,
    store::{self, outage},
};
use runtime::host::offload;
use sha2::{Digest, Sha256};
use std::{collections::HashMap, io, io::Read, ops::Range};
use tokio::sync::mpsc;
use xxhash_rust::xxh3::xxh3_128;

const BLOCK_BYTES: u64 = 4 * 1024 * 1024;
/// Blocks asked of the store ahead of their use, and as many again on their way to the parser.
const READ_AHEAD: usize = 2;
/// Pieces of rows that are ready before they are taken.
const PARSED_AHEAD: usize = 4;

/// The datasets a command is about.
pub(crate) struct Datasets {
    store: Store,
    /// By rising batch id.
    pub(crate) manifests: Vec<Manifest>,
    labelled: bool,
    unique: bool,
}

/// Rides that were not asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// Without a label, where only labelled ones were asked for.
    pub(crate) unlabelled: u64,
    /// Of a ride id that is kept in another batch, where each was asked for once.
    pub(crate) duplicates: u64,
}

impl Datasets {
    /// Finds what was chosen.
    ///
    /// # Errors
    /// When there is no store, no dataset, or none of a batch that was named; when a manifest is damaged.
    pub(crate) async fn choose(session: &Session, chosen: &Chosen) -> Result<Self, Failed> {
        let Some(store) = session.store_if_there()? else {
            return Err(Failed::Broken(anyhow!(session.no_store()?)));
        };
        let place = session.store_location()?;
        let mut ids = chosen.batches.clone();
        if ids.is_empty() {
            let listing = store.list_with_delimiter(Some(&Path::from(layout::DATASET))).await?;
            ids.extend(listing.common_prefixes.iter().filter_map(|prefix| prefix.filename().map(str::to_owned)));
        }
        ids.sort_unstable();
        ids.dedup();
        let mut manifests = Vec::new();
        for id in &ids {
            match manifest(&store, id).await.with_context(|| mend(id))? {
                Some(manifest) => manifests.push(manifest),
                // A folder without a manifest is a dataset on its way.
                None if chosen.batches.is_empty() => {}
                None => return Err(Failed::Broken(absent(&store, id, &place).await?)),
            }
        }
        if manifests.is_empty() {
            return Err(Failed::Broken(anyhow!(
                "no complete dataset in {place}: `wildrydes run rides.json` makes one, `wildrydes status` shows what is in \
                 progress"
            )));
        }
        Ok(Self { store, manifests, labelled: chosen.labelled, unique: chosen.unique })
    }

    /// Rides in all of them.
    pub(crate) fn rides(&self) -> u64 {
        self.manifests.iter().fold(0, |sum, manifest| sum.saturating_add(manifest.accepted))
    }

    /// Reads all rides and gives those that were chosen to `each`: the batch, a piece of it, and which of its rows.
    ///
    /// # Errors
    /// When a file is not what its manifest says, or the store fails, or `each` does.
    pub(crate) async fn read(
        &self,
        title: &str,
        quiet: bool,
        mut each: impl FnMut(&str, &Rows, &[usize]) -> anyhow::Result<()>,
    ) -> anyhow::Result<LeftOut> {
        let mut left_out = LeftOut::default();
        let mut once = None;
        // Within a batch ride ids are unique.
        if self.unique && self.manifests.len() > 1 {
            let mut ids = Once::default();
            if self.manifests.iter().any(|manifest| manifest.trainable < manifest.accepted) {
                self.pass("looking for doubles", quiet, |_, rows| {
                    (0..rows.len()).filter(|&row| rows.is_trainable(row)).for_each(|row| ids.awaits(rows, row));
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
                } else if once.as_mut().is_some_and(|once| !once.takes(rows, row)) {
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
            let mut of_files = 0;
            for file in &manifest.files {
                let mut each = |rows: Rows| {
                    seen += rows.len() as u64;
                    step.at(seen);
                    each(&manifest.batch_id, &rows)
                };
                of_files += read_file(&self.store, manifest, file, &mut each).await?;
            }
            if of_files != manifest.accepted {
                let Manifest { batch_id, accepted, .. } = manifest;
                let path = layout::manifest(batch_id);
                bail!("{path} says {accepted} rides, its files hold {of_files}\n{}", mend(batch_id));
            }
        }
        step.done(seen);
        Ok(())
    }
}

/// Each ride once, as training counts it: of the rides with one id the first that has a label and weather, else the first.
/// By the ids' 128-bit fingerprints, about 40 bytes a ride.
#[derive(Default)]
struct Once {
    /// Whether the ride was taken already; not yet while one with label and weather is still to come.
    taken: HashMap<u128, bool>,
}

impl Once {
    /// A ride with label and weather will come.
    fn awaits(&mut self, rows: &Rows, row: usize) {
        self.taken.entry(fingerprint(rows, row)).or_insert(false);
    }

    fn takes(&mut self, rows: &Rows, row: usize) -> bool {
        match self.taken.get_mut(&fingerprint(rows, row)) {
            Some(taken) => rows.is_trainable(row) && !std::mem::replace(taken, true),
            None => self.taken.insert(fingerprint(rows, row), true).is_none(),
        }
    }
}

fn fingerprint(rows: &Rows, row: usize) -> u128 {
    xxh3_128(rows.field(row, field::RIDE_ID))
}

async fn manifest(store: &Store, batch_id: &str) -> anyhow::Result<Option<Manifest>> {
    let path = layout::manifest(batch_id);
    let Some(manifest) = store::read_json::<Manifest>(store, &path).await? else { return Ok(None) };
    if manifest.schema != MANIFEST_SCHEMA {
        bail!("{path}: its schema is {}; this command reads {MANIFEST_SCHEMA}", manifest.schema);
    }
    if manifest.batch_id != batch_id {
        bail!("{path}: it is the manifest of {}", manifest.batch_id);
    }
    let own = layout::dataset(batch_id);
    if let Some(file) = manifest.files.iter().find(|file| !layout::is_below(&own, &file.path)) {
        bail!("{path}: it names {:?}, which is not below {own}/", file.path);
    }
    Ok(Some(manifest))
}

/// Why a batch that was named has no dataset, and what to do.
async fn absent(store: &Store, batch_id: &str, place: &str) -> anyhow::Result<anyhow::Error> {
    Ok(match store::exists(store, &layout::claim(batch_id)).await? {
        true => anyhow!("batch {batch_id} has no dataset yet: `wildrydes status {batch_id}` shows how far it is"),
        false => anyhow!("no batch {batch_id} in {place}: `wildrydes status` lists those that are there"),
    })
}

/// What to do about a damaged dataset.
fn mend(batch_id: &str) -> String {
    let folder = layout::dataset(batch_id);
    format!(
        "dataset {batch_id} is damaged: put a copy of {folder} back, or remove that folder and `wildrydes replay {batch_id}`; \
         other batches can be named meanwhile"
    )
}

/// Reads one file; the number of its rides.
async fn read_file(
    store: &Store,
    manifest: &Manifest,
    file: &DatasetFile,
    each: &mut impl FnMut(Rows) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let damaged = |why: String| anyhow!("{}: {why}\n{}", file.path, mend(&manifest.batch_id));
    let path = Path::from(file.path.as_str());
    let size = match store.head(&path).await {
        Ok(found) => found.size,
        Err(object_store::Error::NotFound { .. }) => return Err(damaged("the file is gone".to_owned())),
        Err(error) => return Err(outage(error).into()),
    };
    if size != file.bytes {
        return Err(damaged(format!("{size} bytes; its manifest says {}", file.bytes)));
    }
    let (blocks, incoming) = mpsc::channel(READ_AHEAD);
    let (outgoing, mut parsed) = mpsc::channel(PARSED_AHEAD);
    let parsing = offload(move || {
        let mut incoming = Incoming { blocks: incoming, block: Bytes::new(), sha256: Sha256::new() };
        let rides = parse(&mut incoming, |rows| outgoing.blocking_send(rows).is_ok());
        (rides, incoming.sha256_of_all())
    });
    let feeding = async move {
        let mut read = stream::iter(block_ranges(size)).map(|range| store.get_range(&path, range)).buffered(READ_AHEAD);
        while let Some(block) = read.next().await {
            // Nobody parses any more: whoever takes the rows has failed, and says why.
            if blocks.send(block?).await.is_err() {
                break;
            }
        }
        Ok::<_, object_store::Error>(())
    };
    let taking = async move {
        while let Some(rows) = parsed.recv().await {
            each(rows)?;
        }
        Ok::<_, anyhow::Error>(())
    };
    let (fed, taken, parsed) = futures::join!(feeding, taking, parsing);
    taken?;
    fed.map_err(outage)?;
    let (rides, sha256) = parsed?;
    if sha256 != file.sha256 {
        return Err(damaged(format!("its SHA-256 is {sha256}; its manifest says {}", file.sha256)));
    }
    let rides = rides.map_err(|error| damaged(error.to_string()))?;
    if rides != file.rows {
        return Err(damaged(format!("{rides} rides; its manifest says {}", file.rows)));
    }
    Ok(rides)
}

fn block_ranges(size: u64) -> impl Iterator<Item = Range<u64>> {
    (0..size.div_ceil(BLOCK_BYTES)).map(move |index| index * BLOCK_BYTES..((index + 1) * BLOCK_BYTES).min(size))
}

/// The blocks of a file as one stream, hashed on the way.
struct Incoming {
    blocks: mpsc::Receiver<Bytes>,
    block: Bytes,
    sha256: Sha256,
}

impl Incoming {
    fn next(&mut self) -> bool {
        let Some(block) = self.blocks.blocking_recv() else { return false };
        self.sha256.update(&block);
        self.block = block;
        true
    }

    /// In hexadecimal, of what was read and of what is left.
    fn sha256_of_all(mut self) -> String {
        while self.next() {}
        hex::encode(self.sha256.finalize())
    }
}

impl Read for Incoming {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.block.is_empty() {
            if !self.next() {
                return Ok(0);
            }
        }
        let length = into.len().min(self.block.len());
        self.block.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::dataset::COLUMNS;

    fn rows(records: &[(&str, bool, bool)]) -> Rows {
        let mut file = COLUMNS.join(",");
        for (id, labelled, weather) in records {
            let label = if *labelled { "1" } else { "" };
            let weather = if *weather { "S,1.000000,1,2,3" } else { ",,,," };
            file.push_str(&format!("\n{id},,,2018-04-25 17:03:05.722,40.6,-74.1,29.5,291,292,{label},{weather}"));
        }
        file.push('\n');
        let mut read = Vec::new();
        parse(file.as_bytes(), |rows| {
            read.push(rows);
            true
        })
        .unwrap();
        read.pop().unwrap()
    }

    #[test]
    fn of_each_ride_the_one_training_keeps_is_taken_wherever_it_stands() {
        let first = rows(&[("a", false, true), ("b", true, false), ("c", true, true), ("d", false, false)]);
        let second = rows(&[("a", true, true), ("b", false, true), ("c", true, true), ("d", true, true)]);
        let third = rows(&[("a", true, true), ("d", true, true)]);
        let batches = [&first, &second, &third];
        let mut once = Once::default();
        for rows in batches {
            (0..rows.len()).filter(|&row| rows.is_trainable(row)).for_each(|row| once.awaits(rows, row));
        }
        let taken = batches.map(|rows| (0..rows.len()).map(|row| once.takes(rows, row)).collect::<Vec<_>>());
        assert_eq!(taken[0], [false, true, true, false], "b has label and weather nowhere: its first");
        assert_eq!(taken[1], [true, false, false, true]);
        assert_eq!(taken[2], [false, false]);
    }

    #[test]
    fn where_all_rides_have_label_and_weather_the_first_is_taken_without_looking_ahead() {
        let all = rows(&[("a", true, true), ("b", true, true)]);
        let mut once = Once::default();
        let mut taken = || (0..all.len()).map(|row| once.takes(&all, row)).collect::<Vec<_>>();
        assert_eq!((taken(), taken()), (vec![true, true], vec![false, false]));
    }
}
