//! Uploads: the bytes of batches below `raw/`, the records of batches that were submitted over HTTP, and the idempotency keys.
//!
//! The bytes of an HTTP upload arrive under a temporary name, because their SHA-256 is part of the final one. The record is
//! written before the batch is published, so that only one of two simultaneous batches with one id is published. It reserves
//! the id for good only after the broker confirmed the batch. It names the batch's entry in the batch log, which the splitter
//! copies into the claim.

use crate::{
    Store, batch_log,
    batch_log::BatchLog,
    batches, layout,
    store::{self, Written},
};
use common::{
    coding::Coding,
    dataset::Claim,
    dead_letter::BATCH_ID_CONFLICT,
    document::{IdempotencyRecord, Upload},
    outcome::Failure,
    reading::Reading,
};
use futures::TryStreamExt;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// Age in seconds after which an abandoned upload is removed.
const ABANDONED_AFTER_S: i64 = 24 * 60 * 60;
/// How much longer than the deadline of a request an unconfirmed record reserves its id.
const UNCONFIRMED_MARGIN: Duration = Duration::from_secs(60);

/// Code of an idempotency key that was used for another batch.
pub const KEY_REUSED: &str = "idempotency_key_reused";

/// What a publisher says about the batch that it uploads.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Id of the batch; `None` derives it from its bytes and its reading.
    pub batch_id: Option<String>,
    /// Name for people.
    pub source: Option<String>,
    /// How to read its bytes.
    pub reading: Reading,
    /// Whether it has one ride per line.
    pub lines: bool,
    /// How its bytes are compressed, if the publisher says so.
    pub coding: Option<Coding>,
    /// Name of the publisher, and its idempotency key.
    pub idempotency: Option<(&'a str, &'a str)>,
}

/// Reserves the id of an upload at the time `now`, and moves its bytes to the path that their SHA-256 gives. Returns the record,
/// and whether a damaged copy of the bytes was replaced. Removes the bytes of an upload that is refused. The broker confirms a
/// batch before `deadline` has passed, or never does.
///
/// # Errors
/// Fails permanently if the id (`batch_id_conflict`) or the idempotency key ([`KEY_REUSED`]) stands for another batch; with an
/// outage if the store cannot be read or written.
pub async fn keep(
    store: &Store,
    log: &BatchLog,
    incoming: &Written,
    request: &Request<'_>,
    now: Timestamp,
    deadline: Duration,
) -> Result<(Upload, bool), Failure> {
    let Written { path, sha256, bytes } = incoming;
    let upload = Upload {
        batch_id: request.batch_id.clone().unwrap_or_else(|| request.reading.batch_id(sha256)),
        sha256: sha256.clone(),
        bytes: *bytes,
        source: request.source.clone(),
        object: layout::raw_upload(sha256, &object_name(request)),
        submitted_at: now.strftime("%FT%TZ").to_string(),
        confirmed: false,
        listed: None,
        reading: request.reading.clone(),
    };
    let reserves = |before: &Upload| {
        let since = before.submitted_at.parse::<Timestamp>().map(|at| now.duration_since(at));
        before.confirmed || since.is_ok_and(|since| since.unsigned_abs() <= deadline + UNCONFIRMED_MARGIN)
    };
    let kept = async {
        let upload = reserve(store, log, upload, request.idempotency, reserves).await?;
        let repaired = move_bytes(store, incoming, &upload.object).await?;
        Ok((upload, repaired))
    };
    let kept = kept.await;
    if kept.is_err() {
        let _ = store::remove(store, path).await;
    }
    kept
}

/// Reserves the id of an upload. Returns its record with the number of its entry in the batch log. `reserves` tells whether an
/// existing record reserves its id: the broker has confirmed the batch, or may still confirm it.
async fn reserve(
    store: &Store,
    log: &BatchLog,
    mut upload: Upload,
    idempotency: Option<(&str, &str)>,
    reserves: impl Fn(&Upload) -> bool,
) -> Result<Upload, Failure> {
    let claim = batches::read_claim(store, &upload.batch_id).await?;
    if let Some(claim) = &claim {
        check_same_batch(&upload, "already exists", &claim.sha256, &claim.reading)?;
    }
    // Submitted, but not read by a splitter yet: there is no claim.
    let before = read(store, &upload.batch_id).await?;
    if let Some(before) = before.as_ref().filter(|before| reserves(before)) {
        check_same_batch(&upload, "was submitted", &before.sha256, &before.reading)?;
    }
    if let Some((who, key)) = idempotency {
        remember_key(store, who, key, &upload).await?;
    }
    upload.listed = entry(log, &upload.batch_id, claim.as_ref(), before.as_ref()).await?;
    // The first of several simultaneous uploads gets the id.
    if store::create(store, &layout::upload(&upload.batch_id), store::indented(&upload)?).await? {
        return Ok(upload);
    }
    match read(store, &upload.batch_id).await?.filter(reserves) {
        Some(first) => {
            check_same_batch(&upload, "was submitted", &first.sha256, &first.reading)?;
            (upload.confirmed, upload.listed) = (first.confirmed, first.listed.or(upload.listed));
        }
        // The process that wrote it ended before the broker confirmed the batch, or has just released the id.
        None => write(store, &upload).await?,
    }
    Ok(upload)
}

/// Checks that the batch id of an upload stands for the same bytes (`sha256`), read in the same way.
fn check_same_batch(upload: &Upload, how: &str, sha256: &str, reading: &Reading) -> Result<(), Failure> {
    let difference = if upload.sha256 != sha256 {
        format!("with other bytes (sha256 {sha256})")
    } else if upload.reading == *reading {
        return Ok(());
    } else if reading.is_default() {
        "and is read without rides_at and map".to_owned()
    } else {
        format!("and is read in another way ({reading})")
    };
    let why = format!("batch {} {how} {difference}; choose another batch_id", upload.batch_id);
    Err(Failure::permanent(BATCH_ID_CONFLICT, why))
}

/// Moves the bytes of an upload to `object`, unless they are there already. Returns whether a damaged copy was replaced.
async fn move_bytes(store: &Store, incoming: &Written, object: &str) -> Result<bool, Failure> {
    let present = store::sha256(store, object).await?;
    if present.as_ref() == Some(&incoming.sha256) {
        store::remove(store, &incoming.path).await?;
        return Ok(false);
    }
    if let Some(sha256) = &present {
        tracing::warn!(object, sha256, "replacing a damaged copy of this upload");
    }
    store::rename(store, &incoming.path, object).await?;
    Ok(present.is_some())
}

/// Returns the name of the object, whose suffixes tell the splitter how to read it: some codings cannot be recognised by the
/// bytes.
fn object_name(request: &Request<'_>) -> String {
    let mut name: String = request.source.as_deref().unwrap_or("upload").chars().take(100).collect();
    if request.lines && ![".ndjson", ".jsonl"].iter().any(|end| name.contains(end)) {
        name.push_str(".ndjson");
    }
    name.push_str(request.coding.and_then(Coding::suffix).unwrap_or_default());
    name
}

/// Records what an idempotency key stands for.
async fn remember_key(store: &Store, who: &str, key: &str, upload: &Upload) -> Result<(), Failure> {
    let Upload { batch_id, sha256, reading, .. } = upload.clone();
    let record = IdempotencyRecord { batch_id, sha256, reading };
    let path = layout::idempotency(&hex::encode(Sha256::digest(format!("{who}\n{key}"))));
    let json = serde_json::to_vec(&record).map_err(|error| Failure::permanent("unencodable", error))?;
    if store::create(store, &path, json).await? || store::read_json(store, &path).await? == Some(record) {
        return Ok(());
    }
    let why = "this Idempotency-Key was used with another body, batch_id, rides_at or map; use a new one";
    Err(Failure::permanent(KEY_REUSED, why))
}

/// Returns the number of an upload's entry in the batch log: the existing one, or a new one. A batch that is older than the log
/// gets none.
async fn entry(
    log: &BatchLog,
    batch_id: &str,
    claim: Option<&Claim>,
    before: Option<&Upload>,
) -> Result<Option<u64>, Failure> {
    let known = batch_log::place(claim, before.and_then(|before| before.listed));
    if known.is_some() || claim.is_some() || before.is_some_and(|before| before.confirmed) {
        return Ok(known);
    }
    log.append(batch_id).await.map(Some)
}

async fn read(store: &Store, batch_id: &str) -> Result<Option<Upload>, Failure> {
    store::read_json(store, &layout::upload(batch_id)).await
}

async fn write(store: &Store, upload: &Upload) -> Result<(), Failure> {
    store::write_json(store, &layout::upload(&upload.batch_id), upload).await
}

/// Records that the broker has confirmed an upload.
///
/// # Errors
/// Fails with an outage if the store cannot be written.
pub async fn confirm(store: &Store, upload: &mut Upload) -> Result<(), Failure> {
    upload.confirmed = true;
    write(store, upload).await
}

/// Releases the id of an upload that the broker did not confirm. If the broker has the batch all the same, the splitter's claim
/// makes it known.
///
/// # Errors
/// Fails with an outage if the store cannot be written.
pub async fn release(store: &Store, upload: &Upload) -> Result<(), Failure> {
    // The same bytes may have been submitted a second time, and confirmed.
    if !read(store, &upload.batch_id).await.is_ok_and(|kept| kept.as_ref() == Some(upload)) {
        return Ok(());
    }
    // The record keeps the number of its entry in the batch log: the next attempt uses the same entry.
    write(store, &Upload { submitted_at: Timestamp::UNIX_EPOCH.to_string(), ..upload.clone() }).await
}

/// Removes uploads that were abandoned a day ago or earlier. Returns their number.
///
/// # Errors
/// Fails with an outage if the store cannot be read or written.
pub async fn sweep(store: &Store, now: Timestamp) -> Result<usize, Failure> {
    let uploads: Vec<_> = store::list(store, layout::INCOMING).try_collect().await?;
    let abandoned_before = now.as_second() - ABANDONED_AFTER_S;
    let mut removed = 0;
    for upload in uploads.iter().filter(|upload| upload.written_at.as_second() < abandoned_before) {
        store::remove(store, &upload.path).await?;
        removed += 1;
    }
    Ok(removed)
}

/// Returns the paths of the uploads whose bytes have this SHA-256, by their names.
///
/// # Errors
/// Fails with an outage if the store cannot be read.
pub async fn named_after(store: &Store, sha256: &str) -> Result<Vec<String>, Failure> {
    let start = layout::raw_upload_prefix(sha256);
    let (uploads, _) = store::list_folder(store, layout::RAW).await?;
    Ok(uploads.into_iter().map(|upload| upload.path).filter(|path| path.starts_with(&start)).collect())
}

#[cfg(test)]
mod tests;
