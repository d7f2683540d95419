//! Reads datasets in blocks of whole records, several at once, and checks each file against its manifest.

use super::{
    manifest::DatasetError,
    record::{Header, Records, RowError, record_ends},
};
use crate::{
    layout,
    store::{self, Store},
};
use bytes::Bytes;
use common::{
    dataset::{DatasetFile, Manifest},
    outcome::Failure,
};
use futures::{
    FutureExt, StreamExt, TryStreamExt,
    channel::oneshot,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use object_store::{GetOptions, path::Path};
use sha2::{Digest, Sha256};
use std::{collections::VecDeque, ops::Range, slice, sync::Arc};

/// Size in bytes of a block of a file; records that end in a later block belong to that one. Part of the format of the trainer's
/// cache: a change requires a new `cache::FORMAT`.
pub const BLOCK_BYTES: u64 = 4 * 1024 * 1024;
/// Number of blocks read ahead.
const READ_AHEAD: usize = 2;

/// Starts long work at once on another thread than those that serve requests, and returns when it has ended. Fails if the process
/// is shutting down.
pub type Offload = fn(Box<dyn FnOnce() + Send>) -> BoxFuture<'static, Result<(), Failure>>;

/// Starts work and returns its value.
fn start<T: Send + 'static>(
    offload: Offload,
    work: impl FnOnce() -> T + Send + 'static,
) -> BoxFuture<'static, Result<T, Failure>> {
    let (sender, receiver) = oneshot::channel();
    let running = offload(Box::new(move || drop(sender.send(work()))));
    async move {
        running.await?;
        receiver.await.map_err(Failure::transient)
    }
    .boxed()
}

/// Turns the records of a block into a value.
type Parse<T> = dyn Fn(&mut Records<'_>) -> Result<T, RowError> + Send + Sync;
/// A block of whole records, which may be empty, and the header of its file.
type Block = (Arc<Header>, Vec<u8>);
/// The number of records of a block, and its value.
type Parsing<T> = BoxFuture<'static, Result<Result<(u64, T), RowError>, Failure>>;

/// Reads a dataset block by block, in the order of its files. Hashes and parses on other threads.
pub struct Reader<'a, T> {
    store: &'a Store,
    manifest: &'a Manifest,
    files: slice::Iter<'a, DatasetFile>,
    file: Option<OpenFile<'a>>,
    /// The block to be parsed next.
    ready: Option<Block>,
    /// Oldest first.
    parsing: VecDeque<Parsing<T>>,
    parsers: usize,
    parse: Arc<Parse<T>>,
    offload: Offload,
    /// [`BLOCK_BYTES`], or less in tests.
    pub(super) block_bytes: u64,
    /// Number of rides in the files that were read.
    rides: u64,
}

impl<'a, T: Send + 'static> Reader<'a, T> {
    /// Reads the dataset of this manifest. `parse` turns each block into a value; at most `parsers` blocks are parsed at once.
    pub fn new(
        store: &'a Store,
        manifest: &'a Manifest,
        parsers: usize,
        offload: Offload,
        parse: impl Fn(&mut Records<'_>) -> Result<T, RowError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            store,
            manifest,
            files: manifest.files.iter(),
            file: None,
            ready: None,
            parsing: VecDeque::new(),
            parsers: parsers.max(1),
            parse: Arc::new(parse),
            offload,
            block_bytes: BLOCK_BYTES,
            rides: 0,
        }
    }

    /// Returns the value of the next block; `None` once the whole dataset was read and is as its manifest says. The values before
    /// that may come from a damaged file. After an error, or if the future is dropped, the reader is of no further use.
    ///
    /// # Errors
    /// Fails with [`DatasetError::Changed`] if a file is missing or has another size or SHA-256, otherwise with
    /// [`DatasetError::Broken`] if it cannot be parsed or has another number of rides.
    pub async fn next(&mut self) -> Result<Option<T>, DatasetError> {
        loop {
            let Some(file) = &mut self.file else {
                let Some(file) = self.files.next() else { return self.check_rides().map(|()| None) };
                self.file = Some(OpenFile::open(self.store, file, self.block_bytes).await?);
                continue;
            };
            let ready = match self.ready.take() {
                None => file.records(self.offload).await?,
                ready => ready,
            };
            match ready {
                Some((header, block)) if self.parsing.len() < self.parsers => {
                    let parse = Arc::clone(&self.parse);
                    self.parsing.push_back(start(self.offload, move || {
                        let mut records = Records::new(&header, &block);
                        let value = parse(&mut records)?;
                        Ok((records.count(), value))
                    }));
                    continue;
                }
                ready => self.ready = ready,
            }
            let Some(oldest) = self.parsing.pop_front() else {
                self.rides += file.finish()?;
                self.file = None;
                continue;
            };
            match oldest.await? {
                Ok((rides, value)) => {
                    file.rides += rides;
                    return Ok(Some(value));
                }
                Err(error) => return Err(file.broken(error, self.offload).await),
            }
        }
    }

    fn check_rides(&self) -> Result<(), DatasetError> {
        let Manifest { batch_id, accepted, .. } = self.manifest;
        if self.rides == *accepted {
            return Ok(());
        }
        let why = format!("it lists {accepted} rides, but its files contain {}", self.rides);
        Err(DatasetError::Broken { path: layout::manifest(batch_id, self.manifest.revision()), why })
    }
}

/// The file that is being read.
struct OpenFile<'a> {
    file: &'a DatasetFile,
    /// `None` instead of a block: the file was removed.
    blocks: BoxStream<'a, Result<Option<Bytes>, Failure>>,
    cutter: Cutter,
    header: Option<Arc<Header>>,
    /// Number of rides in the blocks that were returned.
    rides: u64,
}

impl<'a> OpenFile<'a> {
    async fn open(store: &'a Store, file: &'a DatasetFile, block_bytes: u64) -> Result<Self, DatasetError> {
        let found = store::head(store, &file.path).await?.ok_or_else(|| missing(file))?;
        if found.size != file.bytes {
            return Err(changed(file, format!("{} bytes; its manifest says {}", found.size, file.bytes)));
        }
        let ranges = stream::iter(block_ranges(file.bytes, block_bytes));
        let blocks = ranges.map(|range| store::read_range(store, &file.path, range)).buffered(READ_AHEAD).boxed();
        Ok(Self { file, blocks, cutter: Cutter::default(), header: None, rides: 0 })
    }

    /// Returns the next block; `None` at the end of the file.
    async fn records(&mut self, offload: Offload) -> Result<Option<Block>, DatasetError> {
        while let Some(mut records) = self.cut(offload).await? {
            if let Some(header) = &self.header {
                return Ok(Some((Arc::clone(header), records)));
            }
            let Some(end) = record_ends(&records).next() else { continue };
            let line: Vec<u8> = records.drain(..end).collect();
            match Header::parse(&line) {
                Ok(header) => return Ok(Some((Arc::clone(self.header.insert(Arc::new(header))), records))),
                Err(error) => return Err(self.broken(error, offload).await),
            }
        }
        Ok(None)
    }

    async fn cut(&mut self, offload: Offload) -> Result<Option<Vec<u8>>, DatasetError> {
        let Some(block) = self.blocks.try_next().await? else { return Ok(None) };
        let block = block.ok_or_else(|| missing(self.file))?;
        let mut cutter = std::mem::take(&mut self.cutter);
        let (cutter, records) = start(offload, move || {
            let records = cutter.cut(&block);
            (cutter, records)
        })
        .await?;
        self.cutter = cutter;
        Ok(Some(records))
    }

    /// Returns the error of a file that cannot be parsed. Reads its rest: if its SHA-256 differs, that is the error.
    async fn broken(&mut self, error: RowError, offload: Offload) -> DatasetError {
        loop {
            match self.cut(offload).await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => return error,
            }
        }
        let broken = DatasetError::Broken { path: self.file.path.clone(), why: error.to_string() };
        self.check_sha256().err().unwrap_or(broken)
    }

    /// Checks the file after its last block; returns the number of its rides.
    fn finish(&mut self) -> Result<u64, DatasetError> {
        self.check_sha256()?;
        let broken = |why: String| Err(DatasetError::Broken { path: self.file.path.clone(), why });
        if !self.cutter.carry.is_empty() || self.header.is_none() {
            return broken("the last record has no line end".to_owned());
        }
        if self.rides != self.file.rows {
            return broken(format!("{} rides; its manifest says {}", self.rides, self.file.rows));
        }
        Ok(self.rides)
    }

    fn check_sha256(&self) -> Result<(), DatasetError> {
        let sha256 = hex::encode(self.cutter.sha256.clone().finalize());
        if sha256 == self.file.sha256 {
            return Ok(());
        }
        Err(changed(self.file, format!("its SHA-256 is {sha256}; its manifest says {}", self.file.sha256)))
    }
}

fn missing(file: &DatasetFile) -> DatasetError {
    changed(file, "the file is missing".to_owned())
}

fn changed(file: &DatasetFile, why: String) -> DatasetError {
    DatasetError::Changed { path: file.path.clone(), why }
}

/// Cuts blocks where records end, and hashes them.
#[derive(Default)]
struct Cutter {
    /// The start of a record that ends in a later block.
    carry: Vec<u8>,
    sha256: Sha256,
}

impl Cutter {
    /// Returns the records that end in this block.
    fn cut(&mut self, block: &[u8]) -> Vec<u8> {
        self.sha256.update(block);
        let mut records = std::mem::take(&mut self.carry);
        records.extend_from_slice(block);
        let end = whole_records(&records);
        self.carry = records.get(end..).unwrap_or_default().to_vec();
        records.truncate(end);
        records
    }
}

fn block_ranges(size: u64, block_bytes: u64) -> impl Iterator<Item = Range<u64>> {
    (0..size.div_ceil(block_bytes)).map(move |index| index * block_bytes..((index + 1) * block_bytes).min(size))
}

/// Returns the number of bytes at the start of `block` that are whole records. `block` starts where a record starts; a quoted field may
/// contain line ends.
pub(super) fn whole_records(block: &[u8]) -> usize {
    let quotes = block.iter().filter(|byte| **byte == b'"').count();
    let mut within_quotes = quotes % 2 == 1;
    for (index, byte) in block.iter().enumerate().rev() {
        match byte {
            b'\n' if !within_quotes => return index + 1,
            b'"' => within_quotes = !within_quotes,
            _ => {}
        }
    }
    0
}

/// Returns a dataset as one CSV document with one header line: its size in bytes and its content, unchecked.
pub fn document(store: &Store, manifest: &Manifest) -> (u64, BoxStream<'static, object_store::Result<Bytes>>) {
    let header_bytes = manifest.columns.join(",").len() as u64 + 1;
    let mut bytes = 0;
    let mut files = Vec::new();
    for (index, file) in manifest.files.iter().enumerate() {
        let skipped = if index == 0 { 0 } else { header_bytes };
        bytes += file.bytes.saturating_sub(skipped);
        files.push((Path::from(file.path.as_str()), skipped..file.bytes));
    }
    let store = Store::clone(store);
    let pieces = stream::iter(files).then(move |(path, range)| {
        let store = Store::clone(&store);
        async move {
            let options = GetOptions { range: Some(range.into()), ..GetOptions::default() };
            Ok::<_, object_store::Error>(store.get_opts(&path, options).await?.into_stream())
        }
    });
    (bytes, pieces.try_flatten().boxed())
}
