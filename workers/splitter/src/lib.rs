//! The first stage of the fleet: a batch of rides in, chunks of validated rides and an account of the batch out.
//!
//! ```text
//!  ride-batch ──▶ source     the bytes: inline or by reference, fingerprinted, decompressed, made JSON, piece by piece
//!                   │
//!                document    the rides in them, whatever form the document has
//!                   │
//!                 ride       one ride: read, validated, normalised
//!                   │
//!                 split      chunks ──▶ ride-chunk …   rejects ──▶ rejected/<batch_id>.ndjson   account ──▶ batch-split
//! ```
//!
//! A batch is read twice. The first time only its structure is looked at and its bytes are fingerprinted, so that a
//! document that is broken at its end is refused before anything of it went on; then the batch id is claimed for these
//! bytes. The second time the chunks are made, as fast as the broker takes them. Either way only a window of the
//! document is in memory.

pub mod document;
mod pass;
pub mod ride;
mod source;
pub mod split;

use bytes::Bytes;
use common::{
    dataset::{Claim, Manifest},
    dead_letter::BATCH_ID_CONFLICT,
    envelope::{Coding, Envelope, Properties, content_coding},
    message::{
        BatchSplit, Input, Kind, Message, RideBatch, Undecodable, check_batch_id, check_object, check_sha256,
        new_split_id,
    },
    outcome::{Failure, Outputs},
    reading::Reading,
    text::shorten,
    topology::queue,
};
use document::{Document, Header, Options, Refusal};
use object_store::path::Path;
use records::{Store, batch_log::BatchLog, layout, store};
use ride::RIDE_BYTES_MAX;
use runtime::{
    Worker,
    config::{Problem, Settings as Section},
    host,
};
use serde::{Deserialize, Serialize};
use source::{InvalidUtf16, Limits, ReadError, Source};
use split::{GIVEN_IDS_MAX, Split, TooManyRideIds};

/// Rides in one chunk at most. RabbitMQ 4 takes messages of up to 16 MiB (16,777,216 bytes). With weather a ride is at
/// most 1,250 bytes of JSON: an id of 256 (128, each escaped), name and breed of 256 each, nine numbers of up to 24, and
/// less than 270 of keys, moment and station. 10,000 of them are 12.5 MB, whatever the publisher puts in.
pub const CHUNK_SIZE_MAX: u32 = 10_000;
/// Bytes of an object's path at most, and of each part of it: what S3 and common file systems take, less what a store
/// may append to a name while it writes.
const OBJECT_PATH_BYTES_MAX: usize = 1024;
const OBJECT_PART_BYTES_MAX: usize = 240;

/// Settings of the splitter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Rides in one chunk, up to [`CHUNK_SIZE_MAX`]; 1 gives a message per ride. A batch keeps the size it was first
    /// cut with.
    pub chunk_size: u32,
    /// Bytes a compressed batch may expand to, and bytes of a Parquet file.
    pub decompressed_bytes_max: u64,
    /// Times its size a compressed batch may expand to, looked at from 16 MiB on.
    pub expansion_max: u64,
    /// Bytes read and worked on in one go.
    pub read_buffer_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            chunk_size: 1000,
            decompressed_bytes_max: 64 * 1024 * 1024 * 1024,
            expansion_max: 1000,
            read_buffer_bytes: 1024 * 1024,
        }
    }
}

impl Section for Settings {
    const SECTION: &'static str = "splitter";

    fn check(&self) -> Result<(), Problem> {
        fn within<N: PartialOrd + std::fmt::Display>(
            key: &'static str,
            value: N,
            min: N,
            max: N,
        ) -> Result<(), Problem> {
            if value >= min && value <= max { Ok(()) } else { Err(Problem::new(key, value, format!("{min} to {max}"))) }
        }
        within("chunk_size", self.chunk_size, 1, CHUNK_SIZE_MAX)?;
        within("decompressed_bytes_max", self.decompressed_bytes_max, 1, u64::MAX)?;
        within("expansion_max", self.expansion_max, 1, 1_000_000)?;
        within("read_buffer_bytes", self.read_buffer_bytes, 4096, 8 * 1024 * 1024)
    }
}

/// A batch as it came: it may be one of many documents, in many compressions, so nothing is decoded here.
#[derive(Debug, Clone)]
pub struct IncomingBatch(pub Bytes);

impl Input for IncomingBatch {
    const KINDS: &'static [Kind] = &[RideBatch::KIND];

    fn decode(_: Kind, body: &Bytes) -> Result<Self, Undecodable> {
        Ok(Self(body.clone()))
    }

    fn batch_id(&self) -> Option<&str> {
        None
    }
}

/// The worker.
#[derive(Debug, Clone)]
pub struct Splitter {
    settings: Settings,
    store: Store,
    log: BatchLog,
}

impl Splitter {
    /// A splitter that reads referenced batches from `store`, and keeps claims and rejects there.
    pub fn new(settings: Settings, store: Store) -> Self {
        Self { settings, log: BatchLog::new(store.clone()), store }
    }

    fn limits(&self) -> Limits {
        Limits {
            piece_bytes: self.settings.read_buffer_bytes,
            decompressed_bytes_max: self.settings.decompressed_bytes_max,
            expansion_max: self.settings.expansion_max,
        }
    }

    fn options(lines: bool) -> Options {
        Options { lines, records: false, ride_bytes_max: RIDE_BYTES_MAX }
    }

    /// Follows the batch to its bytes, however it came, and reads them once.
    async fn find(&self, body: Bytes, properties: &Properties) -> Result<Batch, Failure> {
        let coding = declared_coding(properties)?;
        let source = Source::Inline { body: body.clone(), coding };
        let lines = properties.content_type.as_deref().is_some_and(is_lines_type);
        let options = Self::options(lines);
        let survey = pass::survey(&source, options, self.limits(), &Reading::default()).await?;
        let Some(object) = survey.header.object.clone() else {
            let raw = Raw::Inline { object: layout::raw_inline(&survey.fingerprint.sha256, lines, coding), body };
            let header = Header { reading: survey.reading.clone(), ..survey.header.clone() };
            return Ok(Batch { source, options, header, survey, raw });
        };
        let reference = survey.header;
        let path = referenced_path(&object, &reference)?;
        let options = Self::options(is_lines_name(&object));
        let source = Source::Object { store: self.store.clone(), path: path.clone(), etag: None };
        let survey = pass::survey(&source, options, self.limits(), &reference.reading).await?;
        if reference.sha256.as_deref() != Some(&survey.fingerprint.sha256) {
            let found = &survey.fingerprint.sha256;
            let told = reference.sha256.as_deref().unwrap_or_default();
            let why =
                format!("{object} has sha256 {found}, the message says {told}; upload it again, or publish it anew");
            return Err(Failure::permanent("object_changed", why));
        }
        if survey.header.object.is_some() {
            return Err(Failure::permanent("bad_reference", format!("{object} is a reference itself")));
        }
        let header = Header {
            batch_id: reference.batch_id.or_else(|| survey.header.batch_id.clone()),
            source: reference.source.or_else(|| survey.header.source.clone()),
            reading: survey.reading.clone(),
            ..Header::default()
        };
        let source = Source::Object { store: self.store.clone(), path, etag: survey.fingerprint.etag.clone() };
        Ok(Batch { source, options, header, survey, raw: Raw::Object(object) })
    }

    /// Makes the batch id stand for these bytes, for ever; returns how they are cut. The bytes are kept before the claim
    /// that says where; those that are refused are not. The batch gets its entry in the batch log before the claim that
    /// names it, so that every claim has one.
    async fn claim(&self, mut wanted: Claim, raw: Raw) -> Result<Claim, Failure> {
        let path = layout::claim(&wanted.batch_id);
        let mut kept = store::read_json::<Claim>(&self.store, &path).await?;
        if kept.is_none() {
            wanted.object = Some(raw.kept(&self.store, &wanted.sha256).await?);
            wanted.listed = Some(self.log.enter(&wanted.batch_id).await?);
            let json = serde_json::to_vec(&wanted).map_err(|error| Failure::permanent("unencodable", error))?;
            if store::create(&self.store, &path, json).await? {
                return Ok(wanted);
            }
            kept = store::read_json(&self.store, &path).await?;
        }
        let Some(kept) = kept else {
            return Err(Failure::transient(format!("{path} was there and is gone")));
        };
        check_same_bytes(&wanted.batch_id, &wanted.sha256, &kept.sha256)?;
        check_same_reading(&wanted.batch_id, &wanted.reading, &kept.reading)?;
        Ok(Claim { chunk_size: kept.chunk_size.max(1), ..kept })
    }
}

impl Worker for Splitter {
    const NAME: &'static str = queue::SPLITTER;
    type In = IncomingBatch;
    /// Memory is bounded for one batch: one set of ids, one zstd window.
    const CONCURRENCY: u16 = 1;
    /// A batch may take long, and one that only waits would age towards the broker's `consumer_timeout`.
    const PREFETCH: u16 = 1;

    async fn handle(&self, envelope: Envelope<IncomingBatch>) -> Result<Outputs, Failure> {
        let Batch { source, options, header, survey, raw } =
            self.find(envelope.payload.0, &envelope.properties).await?;
        if survey.ride_ids.given > GIVEN_IDS_MAX as u64 {
            return Err(too_many_ride_ids(TooManyRideIds));
        }
        let sha256 = survey.fingerprint.sha256;
        let batch_id = match header.batch_id {
            Some(batch_id) => {
                let shown: String = batch_id.chars().take(100).collect();
                check_batch_id(&format!("{shown:?}"), &batch_id)
                    .map_err(|violation| Failure::permanent("invalid_batch_id", violation))?;
                batch_id
            }
            None => header.reading.batch_id(&sha256),
        };
        let manifest = store::read_json::<Manifest>(&self.store, &layout::manifest(&batch_id)).await?;
        if let Some(manifest) = &manifest {
            check_same_bytes(&batch_id, &sha256, &manifest.sha256)?;
        }
        let wanted = Claim {
            batch_id: batch_id.clone(),
            sha256: sha256.clone(),
            chunk_size: self.settings.chunk_size.max(1),
            source: header.source,
            object: None,
            listed: None,
            reading: header.reading.clone(),
        };
        let claim = self.claim(wanted, raw).await?;
        if let Some(manifest) = manifest {
            return Outputs::one(&account_again(manifest, claim.chunk_size)?);
        }
        chunks_of(survey.rides, claim.chunk_size)?;
        let split_id = new_split_id(&sha256, host::random_range(0..=u64::MAX));
        let split = Split::new(&batch_id, split_id, claim.chunk_size, survey.ride_ids);
        let reading = source.open(self.limits()).await.map_err(read_failure)?;
        let rejects = Path::from(layout::rejected(&batch_id));
        let options = Options { records: reading.records(), ..options };
        let document = Document::new(options).with_reading(header.reading);
        let cutting = pass::Cutting::new(reading, document, split, sha256, self.store.clone(), rejects);
        Ok(Outputs::streamed(cutting.into_stream()))
    }
}

/// A batch that was found and is whole.
struct Batch {
    source: Source,
    options: Options,
    header: Header,
    survey: pass::Survey,
    raw: Raw,
}

/// Where the bytes of a batch are kept, to replay it from.
enum Raw {
    /// The publisher uploaded them.
    Object(String),
    /// They came inline and are to be written there.
    Inline { object: String, body: Bytes },
}

impl Raw {
    /// The object, there now with the bytes of this SHA-256; before the claim that names it.
    async fn kept(self, store: &Store, sha256: &str) -> Result<String, Failure> {
        match self {
            Self::Object(object) => Ok(object),
            Self::Inline { object, body } => {
                let is_there = !store::create(store, &object, body.clone()).await?;
                if is_there && store::sha256(store, &object).await?.as_deref() != Some(sha256) {
                    tracing::warn!(object, sha256, "the kept copy of this batch was damaged and is replaced");
                    store::write(store, &object, body).await?;
                }
                Ok(object)
            }
        }
    }
}

/// The dataset is complete already: only the account is said again, for whoever has not heard yet.
fn account_again(manifest: Manifest, chunk_size: u32) -> Result<BatchSplit, Failure> {
    Ok(BatchSplit {
        chunks: chunks_of(manifest.accepted, chunk_size)?,
        batch_id: manifest.batch_id,
        sha256: manifest.sha256,
        split_id: None,
        digest: None,
        received: manifest.received,
        accepted: manifest.accepted,
        rejected: manifest.rejected,
        rejected_by_reason: manifest.rejected_by_reason,
    })
}

fn chunks_of(rides: u64, chunk_size: u32) -> Result<u32, Failure> {
    u32::try_from(rides.div_ceil(chunk_size.max(1).into())).map_err(|_| {
        let why = format!("{rides} rides in chunks of {chunk_size} are too many chunks to number; raise chunk_size");
        Failure::permanent("too_many_chunks", why)
    })
}

fn check_same_bytes(batch_id: &str, sha256: &str, taken_by: &str) -> Result<(), Failure> {
    if sha256 == taken_by {
        return Ok(());
    }
    let why =
        format!("batch {batch_id} is taken by bytes with sha256 {taken_by}, these have {sha256}; choose another id");
    Err(Failure::permanent(BATCH_ID_CONFLICT, why))
}

fn check_same_reading(batch_id: &str, reading: &Reading, taken_by: &Reading) -> Result<(), Failure> {
    if reading == taken_by {
        return Ok(());
    }
    let named = |reading: &Reading| match reading.to_string() {
        text if text.is_empty() => "the default reading".to_owned(),
        text => format!("`{}`", shorten(&text, 200)),
    };
    let why = format!(
        "batch {batch_id} is taken by the same bytes read with {}, this time it is {}; choose another id",
        named(taken_by),
        named(reading)
    );
    Err(Failure::permanent(BATCH_ID_CONFLICT, why))
}

fn referenced_path(object: &str, reference: &Header) -> Result<Path, Failure> {
    let shown: String = object.chars().take(200).collect();
    let sha256 = reference.sha256.as_deref().unwrap_or_default();
    check_object(&format!("object {shown:?}"), object)
        .and_then(|()| check_sha256(&format!("sha256 of {shown:?}"), sha256))
        .map_err(|violation| Failure::permanent("bad_reference", violation))?;
    let path = Path::from(object);
    // As the store writes it, where some characters take three bytes.
    let name: &str = path.as_ref();
    if name.len() > OBJECT_PATH_BYTES_MAX || name.split('/').any(|part| part.len() > OBJECT_PART_BYTES_MAX) {
        let why = format!(
            "object {shown:?}: expected a path of at most {OBJECT_PATH_BYTES_MAX} bytes, each part of at most \
             {OBJECT_PART_BYTES_MAX}"
        );
        return Err(Failure::permanent("bad_reference", why));
    }
    Ok(path)
}

/// The compression that `content_encoding` declares.
fn declared_coding(properties: &Properties) -> Result<Option<Coding>, Failure> {
    let declared = properties.content_encoding.as_deref().unwrap_or_default();
    content_coding(declared).map_err(|unknown| Failure::permanent("bad_compression", unknown))
}

fn is_lines_type(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    [
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/x-jsonl",
    ]
    .iter()
    .any(|lines| essence.eq_ignore_ascii_case(lines))
}

fn is_lines_name(object: &str) -> bool {
    let name = object.to_ascii_lowercase();
    let compressed = [".gz", ".zst", ".zstd", ".br", ".deflate"];
    let plain = compressed.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    plain.ends_with(".ndjson") || plain.ends_with(".jsonl")
}

fn refused(refusal: Refusal) -> Failure {
    Failure::permanent(refusal.code, refusal)
}

fn too_many_ride_ids(error: TooManyRideIds) -> Failure {
    Failure::permanent("too_many_ride_ids", error)
}

fn read_failure(error: ReadError) -> Failure {
    match error {
        ReadError::Missing(_) => Failure::permanent("object_missing", error),
        // Read again from its start: if it is still what the message says, all is well.
        ReadError::Replaced(_) => Failure::transient(error),
        ReadError::Store(error) if can_never_be_read(&error) => Failure::permanent("bad_reference", error),
        ReadError::Store(error) => store::outage(error),
        ReadError::CutShort(_) => Failure::permanent("cut_short", error),
        ReadError::Corrupt { .. }
        | ReadError::NotAsDeclared { .. }
        | ReadError::CompressedTwice { .. }
        | ReadError::Trailing { .. } => Failure::permanent("bad_compression", error),
        ReadError::Expands(_) => Failure::permanent("expands_too_much", error),
        ReadError::Unsupported(_) => Failure::permanent("unsupported_format", error),
        ReadError::Utf16(InvalidUtf16::CutShort(_)) => Failure::permanent("cut_short", error),
        ReadError::Utf16(InvalidUtf16::Unpaired { .. }) => Failure::permanent("invalid_text", error),
        ReadError::Csv(invalid) => Failure::permanent(invalid.code(), invalid),
        ReadError::Parquet(invalid) => Failure::permanent(invalid.code(), invalid),
        ReadError::Spool(error) => Failure::outage("temporary folder", error),
    }
}

/// Whether it is the name that is wrong, not the store: waiting would help nobody.
fn can_never_be_read(error: &object_store::Error) -> bool {
    use std::io::ErrorKind::{InvalidFilename, IsADirectory, NotADirectory};
    if matches!(error, object_store::Error::InvalidPath { .. }) {
        return true;
    }
    std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| matches!(error.kind(), InvalidFilename | IsADirectory | NotADirectory))
}

#[cfg(test)]
mod tests;
