//! `/v1/batches`: rides in, datasets out.

use crate::{
    app::App,
    batches::{
        state::{self, Batch, Links},
        uploads::{self, Named, Taken, Upload},
    },
    http::{
        auth::Caller,
        encoding,
        extract::{Asked, Path, Pieces},
        pace::Owner,
        problem::{FieldError, Problem, store_away, store_failed},
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
    message::check_batch_id,
    reading::{InvalidExpression, Mapping, Reading, RidesAt},
};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStoreExt, path::Path as ObjectPath};
use records::{
    Store,
    batch_log::{Cursor, InvalidCursor},
    layout, store,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use utoipa::{IntoParams, ToSchema};

/// Bytes of an idempotency key at most.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Media types that batches come in.
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

/// How a batch is named and read.
#[derive(Debug, Default, PartialEq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Naming {
    /// Its id. When left out, it is derived from the bytes and, if given, from `rides_at` and `map`.
    #[param(required = false, nullable = false, pattern = "^[A-Za-z0-9_-]{1,64}$")]
    batch_id: Option<String>,
    /// What people call it, such as the file's name.
    #[param(required = false, nullable = false, max_length = 200)]
    source: Option<String>,
    /// Where in the document the rides are: the path of member names to their array, as in `data`, `payload.items` or
    /// `features[].properties`.
    #[param(value_type = Option<String>, required = false, nullable = false, example = "data")]
    rides_at: Option<RidesAt>,
    /// Which key stands for a field, as in `latitude=lat` or `distance=km*0.621371`; once for each field.
    #[param(value_type = Vec<String>, required = false, style = Form, explode, example = json!(["latitude=lat"]))]
    map: Mapping,
}

impl Naming {
    /// Reads the query of a URL. A parameter that is not known is refused: a misspelt `map` would change what is read.
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
                    let shown: String = other.chars().take(80).collect();
                    let detail =
                        format!("the query of the URL has {shown:?}: expected batch_id, source, rides_at or map");
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
    let shown: String = value.chars().take(80).collect();
    Problem::unprocessable("invalid-reading", format!("{parameter}: {why}")).at(FieldError {
        field: parameter.to_owned(),
        value: Some(json!(shown)),
        expected: why.expected,
    })
}

fn given_twice(parameter: &str) -> Problem {
    Problem::unprocessable("invalid-query", format!("the query of the URL: {parameter} is given twice, expected once"))
}

/// A batch was taken in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Accepted {
    batch_id: String,
    /// SHA-256 of its bytes as they came.
    sha256: String,
    /// As they came.
    bytes: u64,
    /// By which every worker's log knows it.
    trace_id: String,
    /// What else was done, in words: that a damaged copy in the store was replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    note: Option<&'static str>,
    links: Links,
}

/// Hands in a batch of rides.
///
/// The body is the file itself: a JSON array, `{"travel_data": […]}`, NDJSON or concatenated objects, CSV with a header, or Parquet;
/// plain, gzip or zstd. What it is, is found by its content. It is answered once the broker has confirmed that the batch is queued.
/// The same bytes, read in the same way, again change nothing.
#[utoipa::path(post, path = "/v1/batches", tag = "Batches", params(Naming,
    ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "The same key with another body is refused")),
    request_body(content((Vec<u8> = "application/octet-stream"), (Object = "application/json"), (String = "application/x-ndjson"),
        (String = "text/csv"), (Vec<u8> = "application/vnd.apache.parquet"))),
    responses((status = 202, description = "It is queued", body = Accepted, headers(("Location" = String, description = "The batch")))))]
pub(crate) async fn hand_in(
    State(app): State<Arc<App>>,
    Asked(pairs): Asked<Vec<(String, String)>>,
    request: Request,
) -> Result<Response, Problem> {
    let naming = Naming::read(pairs)?;
    let (head, body) = request.into_parts();
    let mut pieces = Pieces::of(body, app.stall());
    let answer = taken_in(&app, naming, &head, &mut pieces).await;
    if let Err(problem) = &answer {
        pieces.discard_after(problem, Duration::from_secs(2)).await;
    }
    answer
}

async fn taken_in(app: &App, naming: Naming, head: &Parts, pieces: &mut Pieces) -> Result<Response, Problem> {
    let headers = &head.headers;
    let coding = encoding::coding_of_batch(headers)?;
    let lines = media_type_of(headers)?;
    let who = head.extensions.get::<Caller>().map(|caller| caller.0.clone()).unwrap_or_default();
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
    let told = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|bytes| bytes > app.settings.upload_bytes_max) {
        let max = app.settings.upload_bytes_max;
        return Err(Problem::too_large(format!("more than the {max} bytes that a batch may have here")));
    }
    pieces.keep_pace(app.uploads.begin(owner(head, &who)));
    let idempotency = key.as_deref().map(|key| (who.as_str(), key));
    let reading = Reading { rides_at: naming.rides_at, map: naming.map };
    let named = Named { batch_id: naming.batch_id, source: naming.source, reading, lines, coding, idempotency };
    let Taken { upload, trace_id, repaired } = uploads::take_in(app, named, pieces).await?;
    let Upload { batch_id, sha256, bytes, .. } = upload;
    tracing::info!(batch_id, trace_id, bytes, who, "a batch was handed in");
    app.observer.changed(&batch_id);
    let links = Links::of(&batch_id);
    let location = HeaderValue::from_str(&format!("/v1/batches/{batch_id}"));
    let location = location.map_err(|error| Problem::internal(error.to_string()))?;
    let note = repaired.then_some("the store had a damaged copy of these bytes; it was replaced by this one");
    let accepted = Accepted { batch_id, sha256, bytes, trace_id, note, links };
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(accepted)).into_response())
}

/// Whose upload it is: of a key, without keys of a peer.
fn owner(head: &Parts, who: &str) -> Owner {
    match who {
        "" => Owner::Peer(head.extensions.get::<PeerNetwork>().map(|peer| peer.0)),
        name => Owner::Key(name.to_owned()),
    }
}

/// Whether the body says to be one ride a line.
fn media_type_of(headers: &HeaderMap) -> Result<bool, Problem> {
    let Some(told) = headers.get(header::CONTENT_TYPE) else { return Ok(false) };
    let told = told.to_str().unwrap_or("?");
    let essence = told.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !TYPES.contains(&essence.as_str()) {
        let detail = format!(
            "Content-Type is {told:?}: expected application/json, application/x-ndjson, text/csv, text/tab-separated-values, \
             application/vnd.apache.parquet, application/gzip, application/zstd or application/octet-stream, and the file itself as the body (curl --data-binary @rides.json -H 'Content-Type: application/json')"
        );
        return Err(Problem::unsupported_media_type(detail));
    }
    Ok(essence.contains("ndjson") || essence.contains("jsonl"))
}

/// Which batches to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Listing {
    /// How many at most.
    #[param(required = false, minimum = 1, maximum = 500, default = 50)]
    limit: usize,
    /// Where the page begins: the `next` of the previous page, unchanged.
    #[param(required = false, nullable = false, pattern = "^(log|earlier)\\.[0-9]{1,20}$")]
    after: Option<String>,
}

impl Default for Listing {
    fn default() -> Self {
        Self { limit: 50, after: None }
    }
}

/// Batches, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Batches {
    batches: Vec<Batch>,
    /// Where the next page begins; absent on the last page. A page may have fewer batches than `limit`, or none,
    /// although more pages follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next: Option<String>,
}

/// All batches in order of arrival, newest first.
#[utoipa::path(get, path = "/v1/batches", tag = "Batches", params(Listing),
    responses((status = 200, description = "A page of them", body = Batches)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Asked(listing): Asked<Listing>,
) -> Result<Json<Batches>, Problem> {
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
        let shown: String = after.chars().take(80).collect();
        Problem::invalid("invalid-cursor", "after", Some(json!(shown)), "the `next` of the previous page")
    })
}

/// One batch.
#[utoipa::path(get, path = "/v1/batches/{batch_id}", tag = "Batches", params(("batch_id" = String, Path, description = "Batch")),
    responses((status = 200, description = "The batch", body = Batch)))]
pub(crate) async fn one(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Batch>, Problem> {
    known(&id)?;
    let dead = app.observer.dead().await;
    let batch = state::look(&app.store, &id, &dead).await;
    let batch = batch.map_err(store_failed)?;
    batch.map(|seen| Json(seen.batch)).ok_or_else(|| no_batch(&id))
}

fn no_batch(id: &str) -> Problem {
    Problem::not_found(format!("no batch {id:?} is known: was it published just now, or to another fleet?"))
}

/// A name that could be a batch id; no other is looked for.
fn known(id: &str) -> Result<(), Problem> {
    check_batch_id("batch_id", id).map_err(|_| no_batch(id))
}

/// Its rejected rides, one JSON object a line.
#[utoipa::path(get, path = "/v1/batches/{batch_id}/rejected", tag = "Batches", params(("batch_id" = String, Path, description = "Batch")),
    responses((status = 200, description = "Index, field, reason and the ride as it came", body = String, content_type = "application/x-ndjson")))]
pub(crate) async fn rejected(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Problem> {
    known(&id)?;
    let manifest = manifest(&app.store, &id).await?;
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))];
    if manifest.rejected == 0 {
        return Ok((headers, Body::empty()).into_response());
    }
    let found = app.store.get(&ObjectPath::from(layout::rejected(&id))).await.map_err(|error| store_away(&error))?;
    Ok((headers, Body::from_stream(found.into_stream())).into_response())
}

/// Its dataset as one CSV document.
///
/// Text values, such as names and breeds, are unchanged: a spreadsheet reads one that starts with `=`, `+`, `-` or `@`
/// as a formula unless the column is imported as text.
#[utoipa::path(get, path = "/v1/batches/{batch_id}/dataset", tag = "Batches", params(("batch_id" = String, Path, description = "Batch")),
    responses((status = 200, description = "The rides with their weather", body = String, content_type = "text/csv")))]
pub(crate) async fn dataset(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Problem> {
    known(&id)?;
    let manifest = manifest(&app.store, &id).await?;
    let store = Arc::clone(&app.store);
    let mut bytes = 0;
    let mut files = Vec::new();
    let header_bytes = manifest.columns.join(",").len() as u64 + 1;
    for (index, file) in manifest.files.into_iter().enumerate() {
        // Every file has the header; the document has it once.
        let skipped = if index == 0 { 0 } else { header_bytes };
        bytes += file.bytes.saturating_sub(skipped);
        files.push((file.path, skipped..file.bytes));
    }
    let pieces = stream::iter(files).then(move |(path, range)| {
        let store = Arc::clone(&store);
        async move {
            let options = object_store::GetOptions { range: Some(range.into()), ..Default::default() };
            Ok::<_, object_store::Error>(store.get_opts(&ObjectPath::from(path), options).await?.into_stream())
        }
    });
    let disposition = format!("attachment; filename=\"{id}.csv\"");
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8")),
        (header::CONTENT_LENGTH, HeaderValue::from(bytes)),
        (
            header::CONTENT_DISPOSITION,
            HeaderValue::from_str(&disposition).map_err(|error| Problem::internal(error.to_string()))?,
        ),
    ];
    Ok((headers, Body::from_stream(pieces.try_flatten())).into_response())
}

/// The manifest of a dataset that is ready.
async fn manifest(store: &Store, id: &str) -> Result<Manifest, Problem> {
    match store::read_json(store, &layout::manifest(id)).await.map_err(store_failed)? {
        Some(manifest) => Ok(manifest),
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
    fn a_page_begins_only_where_the_page_before_says() {
        for cursor_text in ["log.7", "earlier.123456"] {
            assert_eq!(cursor(cursor_text).unwrap().to_string(), cursor_text);
        }
        for other in ["", "450c7f9391a7a29b", "log", "log.", "log.-1", "log.+1", "line.1", "log.99999999999999999999"] {
            let told = serde_json::to_value(cursor(other).unwrap_err()).unwrap();
            assert_eq!(told["type"], "urn:wildrydes:problem:invalid-cursor", "{told}");
            assert!(told["detail"].as_str().unwrap().contains("next"), "{told}");
        }
    }

    #[test]
    fn a_query_says_how_a_batch_is_read() {
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
    fn what_cannot_be_read_is_named_with_its_parameter() {
        for (pairs, code, words) in [
            (vec![("map", "altitude=alt")], "invalid-reading", "a field of a ride"),
            (vec![("map", "latitude")], "invalid-reading", "FIELD=SOURCE"),
            (vec![("map", "latitude=a"), ("map", "Latitude=b")], "invalid-reading", "each field once"),
            (vec![("rides_at", "a..b")], "invalid-reading", "the path of member names"),
            (vec![("rides_at", "a"), ("rides_at", "b")], "invalid-query", "rides_at is given twice"),
            (vec![("batch_id", "a"), ("batch_id", "b")], "invalid-query", "batch_id is given twice"),
            (vec![("mapp", "latitude=lat")], "invalid-query", "\"mapp\": expected batch_id, source, rides_at or map"),
        ] {
            let told = serde_json::to_value(read(&pairs).unwrap_err()).unwrap();
            assert_eq!(told["type"], format!("urn:wildrydes:problem:{code}"), "{told}");
            assert!(told["detail"].as_str().unwrap().contains(words), "{told}");
        }
    }

    #[test]
    fn every_type_of_a_table_or_of_json_is_taken_and_others_are_not() {
        let of = |media_type: &str| {
            media_type_of(&[(header::CONTENT_TYPE, HeaderValue::from_str(media_type).unwrap())].into_iter().collect())
        };
        for taken in
            ["text/csv", "text/csv; charset=utf-8; header=present", "TEXT/TAB-SEPARATED-VALUES", "application/csv"]
        {
            assert_eq!(of(taken), Ok(false), "{taken}");
        }
        assert_eq!(of("application/vnd.apache.parquet"), Ok(false));
        assert_eq!(of("application/x-ndjson"), Ok(true));
        for other in ["text/html", "application/xml", "multipart/form-data", "image/png"] {
            assert!(of(other).is_err(), "{other}");
        }
    }
}
