//! Reads complete datasets of a store in the order of their batch ids, checks each file against its manifest, and needs
//! bounded memory.
//!
//! ```text
//! blocks of a file ──▶ hashed and parsed (own thread) ──▶ rows ──▶ consumed by a command (calling thread)
//! ```

mod rows;

pub(crate) use rows::{Rows, moment_of, parse};

use crate::{
    arguments::Selection,
    notebook::dictionary::field,
    output::progress::{Step, Unit},
    session::{Failed, Session},
};
use anyhow::{Context, anyhow, bail};
use bytes::{Buf, Bytes};
use common::{
    dataset::{DatasetFile, Manifest},
    schema::Described,
};
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
/// Number of blocks requested from the store ahead of their use; as many again wait for the parser.
const READ_AHEAD: usize = 2;
/// Maximum number of parsed pieces that wait for the command.
const PARSED_AHEAD: usize = 4;

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
        let Some(store) = session.store_if_there()? else {
            return Err(Failed::Broken(anyhow!(session.no_store()?)));
        };
        let location = session.store_location()?;
        let mut ids = selection.batches.clone();
        if ids.is_empty() {
            let listing = store.list_with_delimiter(Some(&Path::from(layout::DATASET))).await?;
            ids.extend(listing.common_prefixes.iter().filter_map(|prefix| prefix.filename().map(str::to_owned)));
        }
        ids.sort_unstable();
        ids.dedup();
        let mut manifests = Vec::new();
        for id in &ids {
            match manifest(&store, id).await.with_context(|| remedy(id))? {
                Some(manifest) => manifests.push(manifest),
                // A folder without a manifest is an unfinished dataset.
                None if selection.batches.is_empty() => {}
                None => return Err(Failed::Broken(missing(&store, id, &location).await?)),
            }
        }
        if manifests.is_empty() {
            return Err(Failed::Broken(anyhow!(
                "no complete dataset in {location}: `wildrydes run rides.json` creates one, `wildrydes status` shows the batches \
                 in progress"
            )));
        }
        Ok(Self { store, manifests, labelled: selection.labelled, unique: selection.unique })
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
            let mut file_rides = 0;
            for file in &manifest.files {
                let mut each = |rows: Rows| {
                    seen += rows.len() as u64;
                    step.at(seen);
                    each(&manifest.batch_id, &rows)
                };
                file_rides += read_file(&self.store, manifest, file, &mut each).await?;
            }
            if file_rides != manifest.accepted {
                let Manifest { batch_id, accepted, .. } = manifest;
                let path = layout::manifest(batch_id);
                bail!("{path} lists {accepted} rides, but its files contain {file_rides}\n{}", remedy(batch_id));
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
    xxh3_128(rows.field(row, field::RIDE_ID))
}

async fn manifest(store: &Store, batch_id: &str) -> anyhow::Result<Option<Manifest>> {
    let path = layout::manifest(batch_id);
    let Some(manifest) = store::read_json::<Manifest>(store, &path).await? else { return Ok(None) };
    if manifest.schema != Manifest::SCHEMA.name {
        bail!("{path} has the schema {}; this command reads {}", manifest.schema, Manifest::SCHEMA.name);
    }
    if manifest.batch_id != batch_id {
        bail!("{path} is the manifest of {}", manifest.batch_id);
    }
    let folder = layout::dataset(batch_id);
    if let Some(file) = manifest.files.iter().find(|file| !layout::is_below(&folder, &file.path)) {
        bail!("{path} names {:?}, which is not below {folder}/", file.path);
    }
    Ok(Some(manifest))
}

/// Returns why a named batch has no dataset, and what to do.
async fn missing(store: &Store, batch_id: &str, location: &str) -> anyhow::Result<anyhow::Error> {
    Ok(match store::exists(store, &layout::claim(batch_id)).await? {
        true => anyhow!("batch {batch_id} has no dataset yet: `wildrydes status {batch_id}` shows how far it is"),
        false => anyhow!("no batch {batch_id} in {location}: `wildrydes status` lists the batches there"),
    })
}

/// Returns what to do about a damaged dataset.
fn remedy(batch_id: &str) -> String {
    let folder = layout::dataset(batch_id);
    format!(
        "dataset {batch_id} is damaged: restore {folder} from a copy, or remove that folder and run `wildrydes replay {batch_id}`; \
         until then, other batches can be named"
    )
}

/// Reads one file; returns the number of its rides.
async fn read_file(
    store: &Store,
    manifest: &Manifest,
    file: &DatasetFile,
    each: &mut impl FnMut(Rows) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let damaged = |why: String| anyhow!("{}: {why}\n{}", file.path, remedy(&manifest.batch_id));
    let path = Path::from(file.path.as_str());
    let size = match store.head(&path).await {
        Ok(found) => found.size,
        Err(object_store::Error::NotFound { .. }) => return Err(damaged("the file is missing".to_owned())),
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
            // The parser has stopped because the consumer of the rows failed; its error is returned below.
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

    /// Reads the rest; returns the SHA-256 of all blocks, 64 hex digits.
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
