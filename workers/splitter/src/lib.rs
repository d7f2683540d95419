//! The first stage of the fleet: splits a batch of rides into chunks of validated rides, and publishes a summary of it.
//!
//! ```text
//!  ride-batch ──▶ source     bytes: inline or by reference, hashed, decompressed, converted to JSON, piece by piece
//!                   │
//!                document    elements: the rides in any form of document
//!                   │
//!                 ride       one ride: parsed, validated, normalised
//!                   │
//!                 split      chunks ──▶ ride-chunk …   rejects ──▶ rejected/<batch_id>.ndjson   summary ──▶ batch-split
//! ```
//!
//! A batch is read twice. The first pass checks the structure and computes the SHA-256, so that a document that is broken at
//! its end is refused before any of it is published. Then the batch id is claimed for these bytes. The second pass produces
//! the chunks, as fast as the broker accepts them. Each pass holds only a window of the document in memory.

pub mod document;
mod failure;
mod pass;
pub mod process;
pub mod ride;
mod source;
pub mod split;

use bytes::Bytes;
use common::{
    dataset::{Claim, Manifest},
    envelope::{Coding, Envelope, Properties, content_coding},
    message::{
        BatchSplit, Input, Kind, Message, Refresh, RideBatch, Undecodable, check_batch_id, check_object, check_sha256,
        new_split_id,
    },
    outcome::{Failure, Outputs},
    reading::Reading,
    topology::process::SPLITTER,
};
use document::{Document, Header, Options};
use failure::{read_failure, too_many_ride_ids};
use records::{
    Store,
    batch_log::BatchLog,
    batches::{self, Raw},
    layout,
    refreshes::{self, NO_DATASET},
    store,
};
use ride::RIDE_BYTES_MAX;
use runtime::{
    Worker,
    config::{
        Settings as Section,
        reference::{Entry, at_least, number},
    },
    host,
};
use serde::{Deserialize, Serialize};
use source::{Limits, Source};
use split::{GIVEN_IDS_MAX, Split, TooManyRideIds};

/// Maximum number of rides in one chunk. RabbitMQ 4 takes messages of up to 16 MiB (16,777,216 bytes). With weather a ride is at
/// most 1,250 bytes of JSON: an id of 256 (128, each escaped), name and breed of 256 each, nine numbers of up to 24, and
/// less than 270 of keys, time and station. 10,000 of them are 12.5 MB, whatever the publisher sends.
pub const CHUNK_SIZE_MAX: u32 = 10_000;

/// Section `[splitter]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Number of rides in one chunk, 1 to [`CHUNK_SIZE_MAX`]. A batch that is published again keeps the size of its first
    /// splitting.
    pub chunk_size: u32,
    /// Maximum size of a decompressed batch and of a Parquet file, bytes.
    pub decompressed_bytes_max: u64,
    /// Maximum ratio of decompressed to compressed size, checked above 16 MiB.
    pub expansion_max: u64,
    /// Number of bytes read and processed at a time.
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
    const SECTION: &'static str = SPLITTER.section;
    const REFERENCE: &'static [Entry] = &[
        number("chunk_size", "rides", 1..=CHUNK_SIZE_MAX as u64)
            .means("rides per chunk; a batch keeps the size it was first split with"),
        at_least("decompressed_bytes_max", "bytes", 1).means("maximum decompressed size of a batch"),
        number("expansion_max", "times", 1..=1_000_000)
            .means("maximum ratio of decompressed to compressed size of a batch, from 16 MiB on"),
        number("read_buffer_bytes", "bytes", 4_096..=8_388_608).means("bytes read and parsed at a time"),
    ];
}

/// The body of a batch message. It is decoded later, since it may have one of many formats and compressions.
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

/// The splitter as a worker.
#[derive(Debug, Clone)]
pub struct Splitter {
    settings: Settings,
    store: Store,
    log: BatchLog,
}

impl Splitter {
    /// Creates a splitter that reads referenced batches from `store` and writes claims and rejects there.
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

    /// Returns whether an attempt to join a batch again has ended: this message was delivered too late, or twice.
    ///
    /// # Errors
    /// Fails permanently if the store has no record of the attempt.
    async fn has_ended(&self, batch_id: &str, refresh: Refresh) -> Result<bool, Failure> {
        let record = refreshes::attempt(&self.store, batch_id, refresh.attempt).await?;
        if record.is_none_or(|record| record.refresh != refresh) {
            let why = format!(
                "attempt {} to refresh batch {batch_id} is not recorded; begin one with `wildrydes refresh {batch_id}`",
                refresh.attempt
            );
            return Err(Failure::permanent("unknown_refresh", why));
        }
        Ok(refreshes::ended(&self.store, batch_id, refresh.attempt).await?.is_some())
    }

    /// Locates the bytes of a batch, inline or by reference, and runs the first pass over them.
    async fn locate(&self, body: Bytes, properties: &Properties) -> Result<Batch, Failure> {
        let coding = declared_coding(properties)?;
        let source = Source::Inline { body: body.clone(), coding };
        let lines = properties.content_type.as_deref().is_some_and(is_lines_type);
        let options = Self::options(lines);
        let survey = pass::survey(&source, options, self.limits(), &Reading::default()).await?;
        let Some(object) = survey.header.object.clone() else {
            let raw = Raw::Inline { object: layout::raw_inline(&survey.fingerprint.sha256, lines, coding), body };
            let header = Header { reading: survey.reading.clone(), refresh: None, ..survey.header.clone() };
            return Ok(Batch { source, options, header, survey, raw });
        };
        let reference = survey.header;
        check_reference(&object, &reference)?;
        let options = Self::options(is_lines_name(&object));
        let source = Source::object(&self.store, &object, None);
        let survey = pass::survey(&source, options, self.limits(), &reference.reading).await?;
        if reference.sha256.as_deref() != Some(&survey.fingerprint.sha256) {
            let actual = &survey.fingerprint.sha256;
            let expected = reference.sha256.as_deref().unwrap_or_default();
            let why = format!(
                "{object} has sha256 {actual}, the message says {expected}; upload it again, or publish it anew"
            );
            return Err(Failure::permanent("object_changed", why));
        }
        if survey.header.object.is_some() {
            return Err(Failure::permanent("bad_reference", format!("{object} is a reference itself")));
        }
        let header = Header {
            batch_id: reference.batch_id.or_else(|| survey.header.batch_id.clone()),
            source: reference.source.or_else(|| survey.header.source.clone()),
            reading: survey.reading.clone(),
            refresh: reference.refresh,
            ..Header::default()
        };
        let source = Source::object(&self.store, &object, survey.fingerprint.etag.clone());
        Ok(Batch { source, options, header, survey, raw: Raw::Object(object) })
    }
}

impl Worker for Splitter {
    const NAME: &'static str = SPLITTER.name;
    type In = IncomingBatch;
    /// The memory bound holds for one batch: one set of ids, one zstd window.
    const CONCURRENCY: u16 = 1;
    /// A batch may take long, and a waiting delivery would approach the broker's `consumer_timeout`.
    const PREFETCH: u16 = 1;

    async fn handle(&self, envelope: Envelope<IncomingBatch>) -> Result<Outputs, Failure> {
        let Batch { source, options, header, survey, raw } =
            self.locate(envelope.payload.0, &envelope.properties).await?;
        if survey.ride_ids.given > GIVEN_IDS_MAX as u64 {
            return Err(too_many_ride_ids(TooManyRideIds));
        }
        let sha256 = survey.fingerprint.sha256;
        let batch_id = match header.batch_id {
            Some(batch_id) => {
                let excerpt: String = batch_id.chars().take(100).collect();
                check_batch_id(&format!("{excerpt:?}"), &batch_id)
                    .map_err(|violation| Failure::permanent("invalid_batch_id", violation))?;
                batch_id
            }
            None => header.reading.batch_id(&sha256),
        };
        let refresh = header.refresh.map(requested_refresh).transpose()?;
        let proposed = Claim {
            batch_id: batch_id.clone(),
            sha256: sha256.clone(),
            chunk_size: self.settings.chunk_size.max(1),
            source: header.source,
            object: None,
            listed: None,
            reading: header.reading.clone(),
        };
        let (claim, manifest) = batches::claim(&self.store, &self.log, proposed, raw).await?;
        match (manifest, refresh) {
            (Some(manifest), None) => return Outputs::one(&repeated_summary(manifest, claim.chunk_size)?),
            (None, Some(_)) => return Err(no_dataset(&batch_id)),
            (Some(_), Some(refresh)) if self.has_ended(&batch_id, refresh).await? => return Ok(Outputs::none()),
            (Some(_), Some(_)) | (None, None) => {}
        }
        chunks_of(survey.rides, claim.chunk_size)?;
        let split_id = new_split_id(&sha256, refresh, host::random_range(0..=u64::MAX));
        let split = Split::new(&batch_id, split_id, refresh, claim.chunk_size, survey.ride_ids);
        let reader = source.open(self.limits()).await.map_err(read_failure)?;
        let rejects = layout::rejected(&batch_id);
        let options = Options { records: reader.records(), ..options };
        let document = Document::new(options).with_reading(header.reading);
        let splitting = pass::Splitting::new(reader, document, split, sha256, self.store.clone(), rejects);
        Ok(Outputs::streamed(splitting.into_stream()))
    }
}

/// A batch after the first pass.
struct Batch {
    source: Source,
    options: Options,
    header: Header,
    survey: pass::Survey,
    raw: Raw,
}

/// Returns the summary of a batch whose dataset is complete already, for a merger that has not received it yet.
fn repeated_summary(manifest: Manifest, chunk_size: u32) -> Result<BatchSplit, Failure> {
    Ok(BatchSplit {
        chunks: chunks_of(manifest.accepted, chunk_size)?,
        batch_id: manifest.batch_id,
        sha256: manifest.sha256,
        split_id: None,
        digest: None,
        refresh: None,
        received: manifest.received,
        accepted: manifest.accepted,
        rejected: manifest.rejected,
        rejected_by_reason: manifest.rejected_by_reason,
    })
}

/// Reads the member `refresh` of a reference.
fn requested_refresh(member: serde_json::Value) -> Result<Refresh, Failure> {
    serde_json::from_value(member).map_err(|error| Failure::permanent("bad_reference", format!("refresh: {error}")))
}

/// The dataset was removed after the attempt began.
fn no_dataset(batch_id: &str) -> Failure {
    let why = format!(
        "batch {batch_id} has no dataset that could be refreshed; publish it with `wildrydes replay {batch_id}`"
    );
    Failure::permanent(NO_DATASET, why)
}

fn chunks_of(rides: u64, chunk_size: u32) -> Result<u32, Failure> {
    u32::try_from(rides.div_ceil(chunk_size.max(1).into())).map_err(|_| {
        let why = format!("{rides} rides in chunks of {chunk_size} are too many chunks to number; raise chunk_size");
        Failure::permanent("too_many_chunks", why)
    })
}

fn check_reference(object: &str, reference: &Header) -> Result<(), Failure> {
    let excerpt: String = object.chars().take(200).collect();
    let sha256 = reference.sha256.as_deref().unwrap_or_default();
    check_object(&format!("object {excerpt:?}"), object)
        .and_then(|()| check_sha256(&format!("sha256 of {excerpt:?}"), sha256))
        .map_err(|violation| Failure::permanent("bad_reference", violation))?;
    store::check_path(object).map_err(|why| Failure::permanent("bad_reference", format!("object {excerpt:?}: {why}")))
}

/// Returns the compression that `content_encoding` declares.
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

#[cfg(test)]
mod tests;
