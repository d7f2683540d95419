//! `/v1/batches`: submit rides, read datasets.

use crate::{
    app::App,
    batches::{
        state::{self, Batch, Links},
        uploads::{self, AcceptedUpload},
    },
    http::{
        auth::Caller,
        encoding,
        extract::{BodyPieces, Path, Query},
        pace::Owner,
        problem::{Answer, FieldError, Problem, store_failed},
        request::PeerNetwork,
    },
};
use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use common::{
    dataset::Manifest,
    document::Upload,
    message::check_batch_id,
    outcome::Failure,
    reading::{InvalidExpression, Mapping, Reading, RidesAt},
};
use records::{
    Store,
    batch_log::{Cursor, InvalidCursor},
    datasets, layout, store,
    uploads::Request as UploadRequest,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use utoipa::{IntoParams, ToSchema};

/// Maximum length of an idempotency key, bytes.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Accepted media types of batches.
const TYPES: [&str; 22] = [
    "application/json",
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonlines",
    "application/octet-stream",
    "application/gzip",
    "application/x-gzip",
    "application/zstd",
    "application/x-zstd",
    "text/json",
    "text/plain",
    "text/csv",
    "application/csv",
    "text/x-csv",
    "application/vnd.ms-excel",
    "text/tab-separated-values",
    "text/tsv",
    "application/vnd.apache.parquet",
    "application/x-parquet",
    "application/parquet",
    "application/geo+json",
];

/// How to name and read a batch.
#[derive(Debug, Default, PartialEq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Naming {
    /// Id of the batch. By default it is derived from the bytes and, if present, from `rides_at` and `map`.
    #[param(required = false, nullable = false, pattern = "^[A-Za-z0-9_-]{1,64}$")]
    batch_id: Option<String>,
    /// Name for people, for instance that of the file.
    #[param(required = false, nullable = false, max_length = 200)]
    source: Option<String>,
    /// Where the rides are in the document: the path of member names to their array, as in `data`, `payload.items` or
    /// `features[].properties`.
    #[param(value_type = Option<String>, required = false, nullable = false, example = "data")]
    rides_at: Option<RidesAt>,
    /// Which key holds a field, as in `latitude=lat` or `distance=km*0.621371`; once per field.
    #[param(value_type = Vec<String>, required = false, style = Form, explode, example = json!(["latitude=lat"]))]
    map: Mapping,
}

impl Naming {
    /// Reads the query of a URL. An unknown parameter is refused: a misspelt `map` would change how the batch is read.
    fn read(pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        let mut naming = Self::default();
        for (name, value) in pairs {
            let slot = match name.as_str() {
                "batch_id" => &mut naming.batch_id,
                "source" => &mut naming.source,
                "map" => {
                    naming.map.add(&value).map_err(|why| invalid_reading("map", value, why))?;
                    continue;
                }
                "rides_at" if naming.rides_at.is_none() => {
                    let at = value.parse().map_err(|why| invalid_reading("rides_at", value, why))?;
                    naming.rides_at = Some(at);
                    continue;
                }
                "rides_at" => return Err(given_twice("rides_at")),
                other => {
                    let excerpt: String = other.chars().take(80).collect();
                    let detail =
                        format!("the query of the URL has {excerpt:?}: expected batch_id, source, rides_at or map");
                    return Err(Problem::unprocessable("invalid-query", detail));
                }
            };
            if slot.replace(value).is_some() {
                return Err(given_twice(&name));
            }
        }
        Ok(naming)
    }
}

fn invalid_reading(parameter: &str, value: String, why: InvalidExpression) -> Problem {
    let excerpt: String = value.chars().take(80).collect();
    Problem::unprocessable("invalid-reading", format!("{parameter}: {why}")).at(FieldError {
        field: parameter.to_owned(),
        value: Some(json!(excerpt)),
        expected: why.expected,
    })
}

fn given_twice(parameter: &str) -> Problem {
    Problem::unprocessable("invalid-query", format!("the query of the URL: {parameter} is given twice, expected once"))
}

/// The answer to an accepted batch.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Accepted {
    batch_id: String,
    /// SHA-256 of the body as received.
    sha256: String,
    /// Length of the body as received.
    bytes: u64,
    /// Id of the batch's trace, in the log of every worker.
    trace_id: String,
    /// Says that a damaged copy in the store was replaced; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    note: Option<&'static str>,
    links: Links,
}

/// Submits a batch of rides.
///
/// The body is the file itself: a JSON array, `{"travel_data": […]}`, NDJSON or concatenated objects, CSV with a header, or Parquet;
/// plain, gzip or zstd. The format is recognised by its content. The answer comes after the broker has confirmed that the batch is
/// queued. Submitting the same bytes again, read in the same way, changes nothing.
#[utoipa::path(post, path = "/v1/batches", tag = "Batches", params(Naming,
    ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "The same key with another body is refused")),
    request_body(content((Vec<u8> = "application/octet-stream"), (Object = "application/json"), (String = "application/x-ndjson"),
        (String = "text/csv"), (Vec<u8> = "application/vnd.apache.parquet"))),
    responses((status = 202, description = "The batch is queued", body = Accepted, headers(("Location" = String, description = "The batch")))))]
pub(crate) async fn submit(
    State(app): State<Arc<App>>,
    Query(pairs): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Response, Problem> {
    let naming = Naming::read(pairs)?;
    let (head, body) = request.into_parts();
    let mut pieces = BodyPieces::of(body, app.stall());
    let answer = accept(&app, naming, &head, &mut pieces).await;
    if let Err(problem) = &answer {
        pieces.discard_after(problem, Duration::from_secs(2)).await;
    }
    answer
}

async fn accept(app: &App, naming: Naming, head: &Parts, pieces: &mut BodyPieces) -> Result<Response, Problem> {
    let headers = &head.headers;
    let coding = encoding::coding_of_batch(headers)?;
    let lines = is_one_ride_per_line(headers)?;
    let key_name = head.extensions.get::<Caller>().map(|caller| caller.0.clone()).unwrap_or_default();
    if let Some(id) = &naming.batch_id {
        check_batch_id("batch_id", id).map_err(|_| {
            Problem::invalid("invalid-batch-id", "batch_id", Some(json!(id)), "1 to 64 of A-Z a-z 0-9 _ -")
        })?;
    }
    let max = 200;
    if naming.source.as_ref().is_some_and(|source| source.len() > max) {
        return Err(Problem::invalid("invalid-source", "source", None, format!("at most {max} bytes")));
    }
    let key = match headers.get("idempotency-key") {
        None => None,
        Some(key) => Some(
            key.to_str()
                .ok()
                .filter(|key| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()))
                .ok_or_else(|| {
                    let expected = format!("1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters");
                    Problem::invalid("invalid-idempotency-key", "Idempotency-Key", None, expected)
                })?
                .to_owned(),
        ),
    };
    let content_length =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if content_length.is_some_and(|bytes| bytes > app.settings.upload_bytes_max) {
        let max = app.settings.upload_bytes_max;
        return Err(Problem::too_large(format!(
            "the batch is larger than {max} bytes, the maximum (gateway.upload_bytes_max)"
        )));
    }
    pieces.keep_pace(app.uploads.begin(owner(head, &key_name)));
    let idempotency = key.as_deref().map(|key| (key_name.as_str(), key));
    let reading = Reading { rides_at: naming.rides_at, map: naming.map };
    let upload_request =
        UploadRequest { batch_id: naming.batch_id, source: naming.source, reading, lines, coding, idempotency };
    let AcceptedUpload { upload, trace_id, repaired } = uploads::accept(app, upload_request, pieces).await?;
    let Upload { batch_id, sha256, bytes, .. } = upload;
    tracing::info!(batch_id, trace_id, bytes, who = key_name, "a batch was submitted");
    app.observer.changed(&batch_id);
    let links = Links::of(&batch_id);
    let location = HeaderValue::from_str(&format!("/v1/batches/{batch_id}"));
    let location = location.map_err(|error| Problem::internal(error.to_string()))?;
    let note = repaired.then_some("a damaged copy of these bytes in the store was replaced");
    let accepted = Accepted { batch_id, sha256, bytes, trace_id, note, links };
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(accepted)).into_response())
}

/// Returns the owner of an upload: its key, or without keys its peer.
fn owner(head: &Parts, key_name: &str) -> Owner {
    match key_name {
        "" => Owner::Peer(head.extensions.get::<PeerNetwork>().map(|peer| peer.0)),
        name => Owner::Key(name.to_owned()),
    }
}

/// Returns whether the media type of the body says one ride per line.
///
/// # Errors
/// 415 for other media types than those of batches.
fn is_one_ride_per_line(headers: &HeaderMap) -> Result<bool, Problem> {
    let Some(content_type) = headers.get(header::CONTENT_TYPE) else { return Ok(false) };
    let content_type = content_type.to_str().unwrap_or("?");
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !TYPES.contains(&essence.as_str()) {
        let detail = format!(
            "Content-Type is {content_type:?}: expected application/json, application/x-ndjson, text/csv, text/tab-separated-values, \
             application/vnd.apache.parquet, application/gzip, application/zstd or application/octet-stream, and the file itself as the body (curl --data-binary @rides.json -H 'Content-Type: application/json')"
        );
        return Err(Problem::unsupported_media_type(detail));
    }
    Ok(essence.contains("ndjson") || essence.contains("jsonl"))
}

/// Page of batches to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Listing {
    /// Maximum number of batches.
    #[param(required = false, minimum = 1, maximum = 500, default = 50)]
    limit: usize,
    /// Start of the page: the `next` of the previous page, unchanged.
    #[param(required = false, nullable = false, pattern = "^(log|earlier)\\.[0-9]{1,20}$")]
    after: Option<String>,
}

impl Default for Listing {
    fn default() -> Self {
        Self { limit: 50, after: None }
    }
}

/// A page of batches, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Batches {
    batches: Vec<Batch>,
    /// Start of the next page; absent on the last page. A page may have fewer batches than `limit`, or none, even if more pages
    /// follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next: Option<String>,
}

/// Lists all batches in order of arrival, newest first.
#[utoipa::path(get, path = "/v1/batches", tag = "Batches", params(Listing),
    responses((status = 200, description = "A page of batches", body = Batches)))]
pub(crate) async fn list(State(app): State<Arc<App>>, Query(listing): Query<Listing>) -> Answer<Batches> {
    if !(1..=500).contains(&listing.limit) {
        return Err(Problem::invalid("invalid-limit", "limit", Some(json!(listing.limit)), "1 to 500"));
    }
    let after = listing.after.map(|after| cursor(&after)).transpose()?;
    let dead = app.observer.dead().await;
    let page = state::page(&app.batch_log, &app.store, &dead, after, listing.limit).await.map_err(store_failed)?;
    Ok(Json(Batches { batches: page.batches, next: page.next.map(|next| next.to_string()) }))
}

fn cursor(after: &str) -> Result<Cursor, Problem> {
    after.parse().map_err(|InvalidCursor| {
        let excerpt: String = after.chars().take(80).collect();
        Problem::invalid("invalid-cursor", "after", Some(json!(excerpt)), "the `next` of the previous page")
    })
}

/// Returns one batch.
#[utoipa::path(get, path = "/v1/batches/{batch_id}", tag = "Batches", params(("batch_id" = String, Path, description = "Batch")),
    responses((status = 200, description = "The batch", body = Batch)))]
pub(crate) async fn one(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer<Batch> {
    known(&id)?;
    let dead = app.observer.dead().await;
    let batch = state::look(&app.store, &id, &dead).await.map_err(store_failed)?;
    batch.map(|seen| Json(seen.batch)).ok_or_else(|| no_batch(&id))
}

fn no_batch(id: &str) -> Problem {
    Problem::not_found(format!("the batch {id:?} is unknown: was it published just now, or to another fleet?"))
}

/// Refuses a name that cannot be a batch id before the store is read.
pub(crate) fn known(id: &str) -> Result<(), Problem> {
    check_batch_id("batch_id", id).map_err(|_| no_batch(id))
}

/// Returns the rejected rides of a batch, one JSON object per line.
#[utoipa::path(get, path = "/v1/batches/{batch_id}/rejected", tag = "Batches", params(("batch_id" = String, Path, description = "Batch")),
    responses((status = 200, description = "Index, field, reason and the ride as received", body = String, content_type = "application/x-ndjson")))]
pub(crate) async fn rejected(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Problem> {
    known(&id)?;
    let manifest = manifest(&app.store, &id).await?;
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))];
    if manifest.rejected == 0 {
        return Ok((headers, Body::empty()).into_response());
    }
    let path = layout::rejected(&id);
    let pieces = store::pieces(&app.store, &path).await.map_err(store_failed)?;
    let pieces = pieces.ok_or_else(|| store_failed(Failure::transient(format!("{path} is missing"))))?;
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// Returns the dataset of a batch as one CSV document.
///
/// Text values, such as names and breeds, are unchanged: a spreadsheet reads a value that starts with `=`, `+`, `-` or `@` as a
/// formula unless the column is imported as text.
#[utoipa::path(get, path = "/v1/batches/{batch_id}/dataset", tag = "Batches", params(("batch_id" = String, Path, description = "Batch")),
    responses((status = 200, description = "The rides with their weather", body = String, content_type = "text/csv")))]
pub(crate) async fn dataset(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Problem> {
    known(&id)?;
    let manifest = manifest(&app.store, &id).await?;
    let (bytes, content) = datasets::document(&app.store, &manifest);
    let disposition = format!("attachment; filename=\"{id}.csv\"");
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8")),
        (header::CONTENT_LENGTH, HeaderValue::from(bytes)),
        (
            header::CONTENT_DISPOSITION,
            HeaderValue::from_str(&disposition).map_err(|error| Problem::internal(error.to_string()))?,
        ),
    ];
    Ok((headers, Body::from_stream(content)).into_response())
}

/// Reads the manifest of a dataset that is ready.
async fn manifest(store: &Store, id: &str) -> Result<Manifest, Problem> {
    match datasets::manifest(store, id).await.map_err(|error| store_failed(error.into()))? {
        Some(stored) => Ok(stored.manifest),
        None => Err(Problem::not_found(format!("batch {id:?} has no dataset (yet): see /v1/batches/{id}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Naming, Problem> {
        Naming::read(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_page_starts_at_the_next_of_another_page_only() {
        for cursor_text in ["log.7", "earlier.123456"] {
            assert_eq!(cursor(cursor_text).unwrap().to_string(), cursor_text);
        }
        for other in ["", "450c7f9391a7a29b", "log", "log.", "log.-1", "log.+1", "line.1", "log.99999999999999999999"] {
            let problem = serde_json::to_value(cursor(other).unwrap_err()).unwrap();
            assert_eq!(problem["type"], "urn:wildrydes:problem:invalid-cursor", "{problem}");
            assert!(problem["detail"].as_str().unwrap().contains("next"), "{problem}");
        }
    }

    #[test]
    fn rides_at_and_map_are_read_from_the_query() {
        let pairs = [
            ("source", "rides.json"),
            ("map", "latitude=lat"),
            ("rides_at", "features[].properties"),
            ("map", "distance=km*0.621371"),
        ];
        let naming = read(&pairs).unwrap();
        assert_eq!((naming.batch_id, naming.source.as_deref()), (None, Some("rides.json")));
        let reading = Reading { rides_at: naming.rides_at, map: naming.map };
        let expected = "--rides-at features[].properties --map distance=km*0.621371 --map latitude=lat";
        assert_eq!(reading.to_string(), expected);
    }

    #[test]
    fn an_invalid_parameter_is_named() {
        for (pairs, code, words) in [
            (vec![("map", "altitude=alt")], "invalid-reading", "a field of a ride"),
            (vec![("map", "latitude")], "invalid-reading", "FIELD=SOURCE"),
            (vec![("map", "latitude=a"), ("map", "Latitude=b")], "invalid-reading", "each field once"),
            (vec![("rides_at", "a..b")], "invalid-reading", "the path of member names"),
            (vec![("rides_at", "a"), ("rides_at", "b")], "invalid-query", "rides_at is given twice"),
            (vec![("batch_id", "a"), ("batch_id", "b")], "invalid-query", "batch_id is given twice"),
            (vec![("mapp", "latitude=lat")], "invalid-query", "\"mapp\": expected batch_id, source, rides_at or map"),
        ] {
            let problem = serde_json::to_value(read(&pairs).unwrap_err()).unwrap();
            assert_eq!(problem["type"], format!("urn:wildrydes:problem:{code}"), "{problem}");
            assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
        }
    }

    #[test]
    fn media_types_of_tables_and_json_are_accepted_and_others_are_not() {
        let of = |media_type: &str| {
            is_one_ride_per_line(
                &[(header::CONTENT_TYPE, HeaderValue::from_str(media_type).unwrap())].into_iter().collect(),
            )
        };
        for accepted in
            ["text/csv", "text/csv; charset=utf-8; header=present", "TEXT/TAB-SEPARATED-VALUES", "application/csv"]
        {
            assert_eq!(of(accepted), Ok(false), "{accepted}");
        }
        assert_eq!(of("application/vnd.apache.parquet"), Ok(false));
        assert_eq!(of("application/x-ndjson"), Ok(true));
        for other in ["text/html", "application/xml", "multipart/form-data", "image/png"] {
            assert!(of(other).is_err(), "{other}");
        }
    }
}
