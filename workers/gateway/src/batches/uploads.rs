//! Takes a batch from a request's body to the splitter's queue: streams it into the object store under a temporary name while
//! hashing it, moves it to the path that its SHA-256 gives, then publishes a reference.
//!
//! The record of an upload is written before the batch is published, so that only one of two simultaneous batches with one id is
//! published. It reserves the id for good only after the broker confirmed the batch. It names the batch's entry in the batch log,
//! which the splitter copies into the claim.

use crate::{
    app::App,
    http::{
        extract::BodyPieces,
        problem::{Problem, error_chain, store_away, store_failed},
    },
};
use common::{
    coding::Coding,
    dataset::Claim,
    document::{IdempotencyRecord, Upload},
    message::{BatchContent, Message, RideBatch},
    outcome::Failure,
    reading::Reading,
};
use futures::TryStreamExt;
use jiff::Timestamp;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart, path::Path};
use records::{batch_log, layout, store};
use runtime::host;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// Bytes of one part of an upload.
const PART_BYTES: usize = 8 << 20;
/// Parts being written at the same time.
const PARTS_MAX: usize = 2;
/// Age after which an abandoned upload is removed.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// How much longer than the deadline of a request an unconfirmed record reserves its id.
const UNCONFIRMED_MARGIN: Duration = Duration::from_secs(60);

/// Returns whether the record reserves the id: the broker has confirmed the batch, or may still confirm it.
fn reserves(upload: &Upload, deadline: Duration) -> bool {
    let within = deadline + UNCONFIRMED_MARGIN;
    let since = upload.submitted_at.parse::<Timestamp>().map(|at| host::now().duration_since(at));
    upload.confirmed || since.is_ok_and(|since| since.unsigned_abs() <= within)
}

/// What the request says about a batch.
pub(crate) struct BatchRequest<'a> {
    pub(crate) batch_id: Option<String>,
    pub(crate) source: Option<String>,
    /// How to read its bytes.
    pub(crate) reading: Reading,
    /// Whether the media type says one ride per line.
    pub(crate) lines: bool,
    /// The coding that the header names.
    pub(crate) coding: Option<Coding>,
    /// Name of the API key, and the idempotency key.
    pub(crate) idempotency: Option<(&'a str, &'a str)>,
}

/// A batch that was accepted.
pub(crate) struct AcceptedUpload {
    pub(crate) upload: Upload,
    pub(crate) trace_id: String,
    /// Whether a damaged copy of these bytes in the store was replaced.
    pub(crate) repaired: bool,
}

/// Accepts a batch. Returns after the broker has confirmed the reference.
///
/// # Errors
/// Fails if the body is too large, too slow or empty, if the id or the idempotency key stands for another batch, or if the
/// broker or the store fails.
pub(crate) async fn accept(
    app: &App,
    named: BatchRequest<'_>,
    body: &mut BodyPieces,
) -> Result<AcceptedUpload, Problem> {
    // Checked first: no client should upload gigabytes before it learns that the broker is down.
    app.link.publisher()?;
    let incoming = Path::from(format!("{}/incoming/{:032x}", layout::RAW, host::random_range(0..=u128::MAX)));
    let (sha256, bytes) = stream(app, &incoming, body).await?;
    let stored = store_upload(app, &incoming, &named, sha256, bytes).await;
    if stored.is_err() {
        let _ = app.store.delete(&incoming).await;
    }
    let (mut upload, repaired) = stored?;
    let published = publish(app, named, &upload).await;
    if !upload.confirmed {
        match &published {
            Ok(_) => {
                upload.confirmed = true;
                confirm(app, &upload).await;
            }
            Err(_) => forget(app, &upload).await,
        }
    }
    Ok(AcceptedUpload { upload, trace_id: published?, repaired })
}

/// Publishes the reference. Returns the trace id after the broker has confirmed it.
async fn publish(app: &App, named: BatchRequest<'_>, upload: &Upload) -> Result<String, Problem> {
    let batch = RideBatch {
        batch_id: named.batch_id,
        source: named.source,
        reading: upload.reading.clone(),
        content: BatchContent::Reference { object: upload.object.clone(), sha256: upload.sha256.clone() },
    };
    batch.check().map_err(|why| Problem::unprocessable("invalid-batch", why.to_string()))?;
    let client = app.link.publisher()?;
    let published = tokio::time::timeout(app.deadline(), client.publish(&batch)).await;
    let detail =
        "the batch is stored, but the broker did not confirm it in time; submit it again, which changes nothing else";
    published.map_err(|_| Problem::no_answer(detail))?.map_err(|error| {
        let detail = format!("the broker did not accept the batch: {}; submit it again", error_chain(&error));
        Problem::unavailable("not-published", detail)
    })
}

/// Records that the broker has confirmed an upload. The batch is queued even if this fails.
async fn confirm(app: &App, upload: &Upload) {
    if let Err(failure) = overwrite(app, upload).await {
        let record = layout::upload(&upload.batch_id);
        tracing::warn!(record, "cannot record the confirm of this upload: {failure}");
    }
}

/// Releases the id of an upload that the broker did not confirm. If the broker has the batch all the same, the splitter's claim
/// makes it known.
async fn forget(app: &App, upload: &Upload) {
    let record = layout::upload(&upload.batch_id);
    let kept = store::read_json::<Upload>(&app.store, &record).await;
    // The same bytes may have been submitted a second time, and confirmed.
    if !kept.is_ok_and(|kept| kept.as_ref() == Some(upload)) {
        return;
    }
    // The record keeps the number of its entry in the batch log: the next attempt uses the same entry.
    let released = Upload { submitted_at: Timestamp::UNIX_EPOCH.to_string(), ..upload.clone() };
    if let Err(failure) = overwrite(app, &released).await {
        tracing::warn!(record, "cannot release the id of an unconfirmed upload: {failure}");
    }
}

/// Replaces the record of an upload.
async fn overwrite(app: &App, upload: &Upload) -> Result<(), Failure> {
    let json = serde_json::to_vec_pretty(upload).map_err(|error| Failure::permanent("unencodable", error))?;
    store::write(&app.store, &layout::upload(&upload.batch_id), json).await
}

/// Writes the body to `incoming`. Returns its SHA-256 and length.
async fn stream(app: &App, incoming: &Path, body: &mut BodyPieces) -> Result<(String, u64), Problem> {
    let max = app.settings.upload_bytes_max;
    let away = |error: object_store::Error| store_away(&error);
    body.take_slot().await?;
    let upload = app.store.put_multipart(incoming).await.map_err(away)?;
    let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
    let mut hasher = Sha256::new();
    let mut bytes = 0u64;
    let all_read = loop {
        match body.next().await {
            Ok(Some(piece)) => {
                bytes += piece.len() as u64;
                if bytes > max {
                    break Err(Problem::too_large(format!(
                        "the batch is larger than {max} bytes, the maximum (gateway.upload_bytes_max)"
                    )));
                }
                app.metrics.uploaded(piece.len() as u64);
                hasher.update(&piece);
                if let Err(error) = writer.wait_for_capacity(PARTS_MAX).await {
                    break Err(store_away(&error));
                }
                writer.put(piece);
            }
            Ok(None) if bytes == 0 => {
                break Err(Problem::unprocessable("empty-batch", "the body is empty: expected rides"));
            }
            Ok(None) => break Ok(()),
            Err(problem) => break Err(problem),
        }
    };
    if let Err(problem) = all_read {
        let _ = writer.abort().await;
        return Err(problem);
    }
    writer.finish().await.map_err(away)?;
    Ok((hex::encode(hasher.finalize()), bytes))
}

/// Reserves the id of an upload and moves its bytes to the path that their SHA-256 gives. Returns the record, and whether a
/// damaged copy was replaced.
async fn store_upload(
    app: &App,
    incoming: &Path,
    named: &BatchRequest<'_>,
    sha256: String,
    bytes: u64,
) -> Result<(Upload, bool), Problem> {
    let reading = &named.reading;
    let batch_id = named.batch_id.clone().unwrap_or_else(|| reading.batch_id(&sha256));
    let claim = store::read_json::<Claim>(&app.store, &layout::claim(&batch_id)).await.map_err(store_failed)?;
    if let Some(claim) = &claim
        && (claim.sha256 != sha256 || claim.reading != *reading)
    {
        return Err(id_conflict("already exists", &batch_id, (&claim.sha256, &claim.reading), &sha256));
    }
    // Submitted, but not read by a splitter yet: there is no claim.
    let before = store::read_json::<Upload>(&app.store, &layout::upload(&batch_id)).await.map_err(store_failed)?;
    if let Some(before) = &before
        && reserves(before, app.deadline())
        && (before.sha256 != sha256 || before.reading != *reading)
    {
        return Err(id_conflict("was submitted", &batch_id, (&before.sha256, &before.reading), &sha256));
    }
    if let Some((who, key)) = named.idempotency {
        let path = layout::idempotency(&hex::encode(Sha256::digest(format!("{who}\n{key}"))));
        let record_of_key =
            IdempotencyRecord { batch_id: batch_id.clone(), sha256: sha256.clone(), reading: reading.clone() };
        let json = serde_json::to_vec(&record_of_key).map_err(|error| Problem::internal(error.to_string()))?;
        if !store::create(&app.store, &path, json).await.map_err(store_failed)?
            && store::read_json::<IdempotencyRecord>(&app.store, &path).await.map_err(store_failed)?
                != Some(record_of_key)
        {
            let detail = "this Idempotency-Key was used with another body, batch_id, rides_at or map; use a new one";
            return Err(Problem::unprocessable("idempotency-key-reused", detail));
        }
    }
    let mut name: String = named.source.as_deref().unwrap_or("upload").chars().take(100).collect();
    if named.lines && ![".ndjson", ".jsonl"].iter().any(|end| name.contains(end)) {
        name.push_str(".ndjson");
    }
    // Some codings cannot be recognised by the bytes: then the name of the object tells the splitter.
    name.push_str(named.coding.and_then(Coding::suffix).unwrap_or_default());
    let object = layout::raw_upload(&sha256, &name);
    let place = Path::from(object.as_str());
    let submitted_at = host::now().strftime("%FT%TZ").to_string();
    let (source, reading) = (named.source.clone(), reading.clone());
    let listed = entry(app, &batch_id, claim.as_ref(), before.as_ref()).await?;
    let confirmed = false;
    let mut upload = Upload { batch_id, sha256, bytes, source, object, submitted_at, confirmed, listed, reading };
    if let Some(first) = reserve(app, &upload).await? {
        (upload.confirmed, upload.listed) = (first.confirmed, first.listed.or(upload.listed));
    }
    let there = store::sha256(&app.store, &upload.object).await.map_err(store_failed)?;
    if there.as_ref() == Some(&upload.sha256) {
        app.store.delete(incoming).await.map_err(|error| store_away(&error))?;
        return Ok((upload, false));
    }
    if let Some(sha256) = &there {
        tracing::warn!(object = upload.object, sha256, "replacing a damaged copy of this upload");
    }
    app.store.rename(incoming, &place).await.map_err(|error| store_away(&error))?;
    Ok((upload, there.is_some()))
}

/// Returns the number of an upload's entry in the batch log: the existing one, or a new one. A batch that is older than the log
/// gets none.
async fn entry(
    app: &App,
    batch_id: &str,
    claim: Option<&Claim>,
    before: Option<&Upload>,
) -> Result<Option<u64>, Problem> {
    let known = batch_log::place(claim, before.and_then(|before| before.listed));
    if known.is_some() || claim.is_some() || before.is_some_and(|before| before.confirmed) {
        return Ok(known);
    }
    app.batch_log.append(batch_id).await.map(Some).map_err(store_failed)
}

/// Writes the record of an upload, before its bytes are moved. Returns the existing record if it is of the same batch. The first
/// of several simultaneous uploads gets the id.
async fn reserve(app: &App, upload: &Upload) -> Result<Option<Upload>, Problem> {
    let json = serde_json::to_vec_pretty(upload).map_err(|error| Problem::internal(error.to_string()))?;
    let record = layout::upload(&upload.batch_id);
    if store::create(&app.store, &record, json.clone()).await.map_err(store_failed)? {
        return Ok(None);
    }
    let first = store::read_json::<Upload>(&app.store, &record).await.map_err(store_failed)?;
    match first {
        Some(first)
            if first.sha256 == upload.sha256 && first.reading == upload.reading && reserves(&first, app.deadline()) =>
        {
            Ok(Some(first))
        }
        Some(first) if reserves(&first, app.deadline()) => {
            let before = (first.sha256.as_str(), &first.reading);
            Err(id_conflict("was submitted", &upload.batch_id, before, &upload.sha256))
        }
        // The process that wrote it ended before the broker confirmed the batch, or has just released the id.
        _ => store::write(&app.store, &record, json).await.map_err(store_failed).map(|()| None),
    }
}

/// 409: the id already stands for other bytes, or for the same bytes read in another way.
fn id_conflict(how: &str, batch_id: &str, before: (&str, &Reading), sha256: &str) -> Problem {
    let (before_sha256, before_reading) = before;
    let difference = if before_sha256 != sha256 {
        format!("with other bytes (sha256 {before_sha256})")
    } else if before_reading.is_default() {
        "and is read without rides_at and map".to_owned()
    } else {
        format!("and is read in another way ({before_reading})")
    };
    Problem::conflict(format!("batch {batch_id} {how} {difference}; choose another batch_id"))
}

/// Removes abandoned uploads. Returns their number.
pub(crate) async fn sweep(store: &dyn ObjectStore) -> Result<usize, object_store::Error> {
    let incoming = Path::from(format!("{}/incoming", layout::RAW));
    let long_ago = host::now().as_second() - i64::try_from(ABANDONED_AFTER.as_secs()).unwrap_or(i64::MAX);
    let uploads: Vec<_> = store.list(Some(&incoming)).try_collect().await?;
    let mut removed = 0;
    for upload in uploads.into_iter().filter(|upload| upload.last_modified.timestamp() < long_ago) {
        store.delete(&upload.location).await?;
        removed += 1;
    }
    Ok(removed)
}
