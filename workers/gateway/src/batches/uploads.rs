//! A batch from a request's body to the splitter's queue: streamed into the object store under a name of its own while it is
//! fingerprinted, put where its fingerprint says, then published as a reference.
//!
//! The record of an upload is written before the batch is published, so that of two batches with one id at the same moment
//! only one is published. It reserves the id for good only once the broker has confirmed the batch. It names the
//! batch's entry in the batch log, which the splitter copies into the claim.

use crate::{
    app::App,
    http::{
        extract::Pieces,
        problem::{Problem, reasons, store_away, store_failed},
    },
};
use common::{
    coding::Coding,
    dataset::Claim,
    message::{BatchContent, Message, RideBatch},
    outcome::Failure,
    reading::Reading,
};
use futures::TryStreamExt;
use jiff::Timestamp;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart, path::Path};
use records::{batch_log, layout, store};
use runtime::host;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// Bytes of one part of an upload.
const PART_BYTES: usize = 8 << 20;
/// Parts being written at the same time.
const PARTS_MAX: usize = 2;
/// Uploads that broke off are removed once they are this old.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// How much longer than the deadline of a request a record reserves an id without a confirm.
const UNCONFIRMED_MARGIN: Duration = Duration::from_secs(60);

/// What was handed in, kept as `uploads/<batch_id>.json`: the batch is known from its confirm on, before the splitter has
/// seen it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Upload {
    pub(crate) batch_id: String,
    pub(crate) sha256: String,
    pub(crate) bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
    /// Where its bytes are.
    pub(crate) object: String,
    /// RFC 3339.
    pub(crate) submitted_at: String,
    /// Whether the broker has confirmed it. Records of earlier versions, which do not say, count as confirmed.
    #[serde(default = "confirmed_before")]
    pub(crate) confirmed: bool,
    /// Number of its entry in the batch log. Absent in records of earlier versions, and if a splitter of an earlier
    /// version had claimed the batch before it was handed in here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) listed: Option<u64>,
    /// How its bytes are read.
    #[serde(flatten)]
    pub(crate) reading: Reading,
}

fn confirmed_before() -> bool {
    true
}

impl Upload {
    /// Whether nobody else may have the id: the broker has the batch, or may still be asked to take it.
    fn reserves(&self, deadline: Duration) -> bool {
        let within = deadline + UNCONFIRMED_MARGIN;
        let since = self.submitted_at.parse::<Timestamp>().map(|at| host::now().duration_since(at));
        self.confirmed || since.is_ok_and(|since| since.unsigned_abs() <= within)
    }
}

/// How a batch is to be known.
pub(crate) struct Named<'a> {
    pub(crate) batch_id: Option<String>,
    pub(crate) source: Option<String>,
    /// How its bytes are read.
    pub(crate) reading: Reading,
    /// Whether it says to be one ride a line.
    pub(crate) lines: bool,
    /// How the body is compressed, if it says so.
    pub(crate) coding: Option<Coding>,
    /// Of whoever hands it in, and the key.
    pub(crate) idempotency: Option<(&'a str, &'a str)>,
}

/// What was promised under an idempotency key.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Promised {
    batch_id: String,
    sha256: String,
    #[serde(flatten)]
    reading: Reading,
}

/// A batch that was taken in.
pub(crate) struct Taken {
    pub(crate) upload: Upload,
    pub(crate) trace_id: String,
    /// Whether the store had a damaged copy of these bytes, which was replaced.
    pub(crate) repaired: bool,
}

/// Takes a batch in. Returns once the broker has confirmed the reference.
///
/// # Errors
/// Too large, too slow, empty; another batch under that id or that idempotency key; broker or store away.
pub(crate) async fn take_in(app: &App, named: Named<'_>, body: &mut Pieces) -> Result<Taken, Problem> {
    // Before anything is read: nobody uploads gigabytes to be told that the broker is away.
    app.link.publisher()?;
    let incoming = Path::from(format!("{}/incoming/{:032x}", layout::RAW, host::random_range(0..=u128::MAX)));
    let (sha256, bytes) = stream(app, &incoming, body).await?;
    let settled = settle(app, &incoming, &named, sha256, bytes).await;
    if settled.is_err() {
        let _ = app.store.delete(&incoming).await;
    }
    let (mut upload, repaired) = settled?;
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
    Ok(Taken { upload, trace_id: published?, repaired })
}

/// Publishes the reference; returns the trace id once the broker has confirmed it.
async fn publish(app: &App, named: Named<'_>, upload: &Upload) -> Result<String, Problem> {
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
        "the batch is stored, but the broker did not confirm it in time; hand it in again, which changes nothing else";
    published.map_err(|_| Problem::no_answer(detail))?.map_err(|error| {
        let detail = format!("the broker did not take the batch: {}; hand it in again", reasons(&error));
        Problem::unavailable("not-published", detail)
    })
}

/// Records that the broker has confirmed an upload. The batch is queued, even if this fails.
async fn confirm(app: &App, upload: &Upload) {
    if let Err(failure) = overwrite(app, upload).await {
        let record = layout::upload(&upload.batch_id);
        tracing::warn!(record, "the confirm of this upload could not be recorded: {failure}");
    }
}

/// Gives the id of an upload back that the broker did not confirm. If it took the batch all the same, the splitter's claim
/// makes it known.
async fn forget(app: &App, upload: &Upload) {
    let record = layout::upload(&upload.batch_id);
    let kept = store::read_json::<Upload>(&app.store, &record).await;
    // The same bytes may have been handed in a second time, and confirmed.
    if !kept.is_ok_and(|kept| kept.as_ref() == Some(upload)) {
        return;
    }
    // The record keeps the number of the entry in the batch log, so that the next attempt uses the same entry.
    let given_back = Upload { submitted_at: Timestamp::UNIX_EPOCH.to_string(), ..upload.clone() };
    if let Err(failure) = overwrite(app, &given_back).await {
        tracing::warn!(record, "the id of an unconfirmed upload could not be given back: {failure}");
    }
}

/// Writes the record of an upload over the existing one.
async fn overwrite(app: &App, upload: &Upload) -> Result<(), Failure> {
    let json = serde_json::to_vec_pretty(upload).map_err(|error| Failure::permanent("unencodable", error))?;
    store::write(&app.store, &layout::upload(&upload.batch_id), json).await
}

/// Writes the body to `incoming`; tells its SHA-256 and length.
async fn stream(app: &App, incoming: &Path, body: &mut Pieces) -> Result<(String, u64), Problem> {
    let max = app.settings.upload_bytes_max;
    let away = |error: object_store::Error| store_away(&error);
    body.take_place().await?;
    let upload = app.store.put_multipart(incoming).await.map_err(away)?;
    let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
    let mut hasher = Sha256::new();
    let mut bytes = 0u64;
    let all_read = loop {
        match body.next().await {
            Ok(Some(piece)) => {
                bytes += piece.len() as u64;
                if bytes > max {
                    break Err(Problem::too_large(format!("more than the {max} bytes that a batch may have here")));
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

/// Puts an upload where its fingerprint says, unless it must not be there; returns its record and whether it replaced a
/// damaged copy.
async fn settle(
    app: &App,
    incoming: &Path,
    named: &Named<'_>,
    sha256: String,
    bytes: u64,
) -> Result<(Upload, bool), Problem> {
    let reading = &named.reading;
    let batch_id = named.batch_id.clone().unwrap_or_else(|| reading.batch_id(&sha256));
    let claim = store::read_json::<Claim>(&app.store, &layout::claim(&batch_id)).await.map_err(store_failed)?;
    if let Some(claim) = &claim
        && (claim.sha256 != sha256 || claim.reading != *reading)
    {
        return Err(taken("is there already", &batch_id, (&claim.sha256, &claim.reading), &sha256));
    }
    // Handed in, and not yet seen by a splitter: the claim is still to come.
    let before = store::read_json::<Upload>(&app.store, &layout::upload(&batch_id)).await.map_err(store_failed)?;
    if let Some(before) = &before
        && before.reserves(app.deadline())
        && (before.sha256 != sha256 || before.reading != *reading)
    {
        return Err(taken("was handed in", &batch_id, (&before.sha256, &before.reading), &sha256));
    }
    if let Some((who, key)) = named.idempotency {
        let path = layout::idempotency(&hex::encode(Sha256::digest(format!("{who}\n{key}"))));
        let promised = Promised { batch_id: batch_id.clone(), sha256: sha256.clone(), reading: reading.clone() };
        let json = serde_json::to_vec(&promised).map_err(|error| Problem::internal(error.to_string()))?;
        if !store::create(&app.store, &path, json).await.map_err(store_failed)?
            && store::read_json::<Promised>(&app.store, &path).await.map_err(store_failed)? != Some(promised)
        {
            let detail = "this Idempotency-Key was used with another body, batch_id, rides_at or map; use a new one";
            return Err(Problem::unprocessable("idempotency-key-reused", detail));
        }
    }
    let mut name: String = named.source.as_deref().unwrap_or("upload").chars().take(100).collect();
    if named.lines && ![".ndjson", ".jsonl"].iter().any(|end| name.contains(end)) {
        name.push_str(".ndjson");
    }
    // Some compressions do not show in the bytes: then the name of the object tells the splitter.
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
        tracing::warn!(object = upload.object, sha256, "a damaged copy of this upload is replaced");
    }
    app.store.rename(incoming, &place).await.map_err(|error| store_away(&error))?;
    Ok((upload, there.is_some()))
}

/// Returns the number of an upload's entry in the batch log: the one it has, or else a new one. A batch that is older
/// than the log gets none.
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

/// Writes the record of an upload; returns the existing record if it is of the same batch. Of several uploads at the
/// same moment, the first gets the id, before its bytes are in their place.
async fn reserve(app: &App, upload: &Upload) -> Result<Option<Upload>, Problem> {
    let json = serde_json::to_vec_pretty(upload).map_err(|error| Problem::internal(error.to_string()))?;
    let record = layout::upload(&upload.batch_id);
    if store::create(&app.store, &record, json.clone()).await.map_err(store_failed)? {
        return Ok(None);
    }
    let first = store::read_json::<Upload>(&app.store, &record).await.map_err(store_failed)?;
    match first {
        Some(first)
            if first.sha256 == upload.sha256 && first.reading == upload.reading && first.reserves(app.deadline()) =>
        {
            Ok(Some(first))
        }
        Some(first) if first.reserves(app.deadline()) => {
            let before = (first.sha256.as_str(), &first.reading);
            Err(taken("was handed in", &upload.batch_id, before, &upload.sha256))
        }
        // The process that wrote it ended before the broker confirmed the batch, or gave it back just now.
        _ => store::write(&app.store, &record, json).await.map_err(store_failed).map(|()| None),
    }
}

/// 409 for an id that already stands for other bytes, or for the same bytes read in another way.
fn taken(how: &str, batch_id: &str, before: (&str, &Reading), sha256: &str) -> Problem {
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

/// Removes uploads that broke off long ago.
pub(crate) async fn sweep(store: &dyn ObjectStore) -> Result<usize, object_store::Error> {
    let incoming = Path::from(format!("{}/incoming", layout::RAW));
    let long_ago = host::now().as_second() - i64::try_from(ABANDONED_AFTER.as_secs()).unwrap_or(i64::MAX);
    let found: Vec<_> = store.list(Some(&incoming)).try_collect().await?;
    let mut removed = 0;
    for upload in found.into_iter().filter(|upload| upload.last_modified.timestamp() < long_ago) {
        store.delete(&upload.location).await?;
        removed += 1;
    }
    Ok(removed)
}
