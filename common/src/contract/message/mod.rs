//! Every message of the fleet: one type, one file, one JSON Schema (`schemas/<name>.v<N>.json`).
//!
//! A message is JSON. The AMQP `type` property carries its [`Kind`], `name.vN`; a reader ignores fields it does not
//! know and parks a major version it does not know, with the reason. A released schema is frozen: a change that an old
//! reader could not live with is a new major version beside the old one.

mod batch_split;
mod dataset_ready;
mod enriched_chunk;
mod model_promoted;
mod model_rejected;
mod object;
mod ride_batch;
mod ride_chunk;
mod score_request;
mod score_response;
mod weather_request;
mod weather_response;
mod worker_control;

pub use batch_split::{BatchSplit, SplitDigest, new_split_id};
pub use dataset_ready::DatasetReady;
pub use enriched_chunk::{EnrichedChunk, EnrichedRide};
pub use model_promoted::ModelPromoted;
pub use model_rejected::ModelRejected;
pub use ride_batch::{BatchContent, RideBatch, check_batch_id, check_below, check_object, check_sha256};
pub use ride_chunk::RideChunk;
pub use score_request::{PrecipitationUnit, SCORE_RIDES_MAX, ScoreRequest, ScoreRide, TemperatureUnit, Units};
pub use score_response::{
    Contribution, Fallback, Score, ScoreError, ScoreErrorCode, ScoreOutcome, ScoreResponse, ScoredBy,
};
pub use weather_request::{WEATHER_PLACES_MAX, WeatherPlace, WeatherRequest};
pub use weather_response::{PlaceWeather, WeatherError, WeatherErrorCode, WeatherResponse};
pub use worker_control::WorkerControl;

use super::outcome::shorten;
use bytes::Bytes;
use object::Object;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;

/// Name and major version of a message, written `name.vN`: its wire name, routing key and schema name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind {
    /// In kebab case.
    pub name: &'static str,
    /// Major version.
    pub major: u16,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.v{}", self.name, self.major)
    }
}

impl Kind {
    /// Whether it is a request, which a worker answers.
    pub fn is_request(self) -> bool {
        [ScoreRequest::KIND.name, WeatherRequest::KIND.name].contains(&self.name)
    }
}

/// Every kind there is, in the order of the flow.
pub const KINDS: [Kind; 12] = [
    RideBatch::KIND,
    RideChunk::KIND,
    BatchSplit::KIND,
    EnrichedChunk::KIND,
    DatasetReady::KIND,
    ModelPromoted::KIND,
    ModelRejected::KIND,
    WorkerControl::KIND,
    ScoreRequest::KIND,
    ScoreResponse::KIND,
    WeatherRequest::KIND,
    WeatherResponse::KIND,
];

/// A type that is a message.
pub trait Message: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Its wire name.
    const KIND: Kind;
    /// The exchange it is published to; see [`super::topology`].
    const EXCHANGE: &'static str;
    /// Whether a publish that no queue takes is a failure.
    const MANDATORY: bool = true;

    /// Stable: the same inputs give the same id, so that a resend is recognised.
    fn message_id(&self) -> String;

    /// The batch it belongs to, for logs and filters.
    fn batch_id(&self) -> Option<&str> {
        None
    }

    /// What the types of the fields alone cannot say. Runs after decoding.
    ///
    /// # Errors
    /// The path of the offending field and what is wrong with it.
    fn check(&self) -> Result<(), Violation> {
        Ok(())
    }
}

/// A field that breaks the contract of its message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{why}", at(path))]
pub struct Violation {
    /// As in `rides[3].latitude`; empty where there are no fields, because it is no JSON.
    pub path: String,
    /// In words.
    pub why: String,
}

fn at(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("at {path}: ") }
}

impl Violation {
    /// A violation at `path`. Both may quote what came, which may be of any length and hold anything: of either only so
    /// much is kept as a person reads.
    pub fn new(path: impl Into<String>, why: impl fmt::Display) -> Self {
        let legible = |text: &str, bytes_max| shorten(text, bytes_max).replace(char::is_control, "\u{FFFD}");
        Self {
            path: legible(&path.into(), VIOLATION_BYTES_MAX / 3),
            why: legible(&why.to_string(), VIOLATION_BYTES_MAX),
        }
    }
}

/// Bytes kept of [`Violation::why`], and of its path a third of that.
const VIOLATION_BYTES_MAX: usize = 300;

/// Why a body is not the message it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// The name is known here, its major version is not: parked until a worker that knows it runs.
    #[error("{kind} is a version this worker does not know; it reads {known}")]
    UnknownVersion {
        /// As it came.
        kind: String,
        /// What would have been read.
        known: String,
    },
    /// A message this worker does not read at all.
    #[error("{kind} is no message this worker reads; it reads {known}")]
    UnknownKind {
        /// As it came.
        kind: String,
        /// What would have been read.
        known: String,
    },
    /// Not JSON, or JSON of another shape.
    #[error("{kind} {violation}")]
    Malformed {
        /// What it should have been.
        kind: Kind,
        /// Where and why.
        violation: Violation,
    },
}

impl Undecodable {
    /// The stable code under which it is parked.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownVersion { .. } => "unknown_version",
            Self::UnknownKind { .. } => "unknown_kind",
            Self::Malformed { .. } => "malformed",
        }
    }
}

/// What a worker reads: one message, or an enum over several.
pub trait Input: Sized + Send + 'static {
    /// The kinds it reads.
    const KINDS: &'static [Kind];

    /// Decodes a body of the given kind, one of [`Input::KINDS`].
    ///
    /// # Errors
    /// When the body breaks the message's contract.
    fn decode(kind: Kind, body: &Bytes) -> Result<Self, Undecodable>;

    /// The batch it belongs to, for logs.
    fn batch_id(&self) -> Option<&str>;
}

impl<M: Message> Input for M {
    const KINDS: &'static [Kind] = &[M::KIND];

    fn decode(_: Kind, body: &Bytes) -> Result<Self, Undecodable> {
        decode(body)
    }

    fn batch_id(&self) -> Option<&str> {
        Message::batch_id(self)
    }
}

/// Finds which of `known` the wire name `kind` is. Without a wire name, a worker that reads one kind takes it as that.
///
/// # Errors
/// An unknown kind or version, which is parked, never dropped.
pub fn recognise(kind: Option<&str>, known: &'static [Kind]) -> Result<Kind, Undecodable> {
    let names = || known.iter().map(Kind::to_string).collect::<Vec<_>>().join(", ");
    let Some(wire) = kind.filter(|wire| !wire.is_empty()) else {
        return match known {
            [only] => Ok(*only),
            _ => Err(Undecodable::UnknownKind { kind: "a message without a type".to_owned(), known: names() }),
        };
    };
    let (name, major) = wire.rsplit_once(".v").unwrap_or((wire, ""));
    if let Some(found) = known.iter().find(|k| k.name == name && k.major.to_string() == major) {
        return Ok(*found);
    }
    let kind = wire.chars().take(100).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    if known.iter().any(|k| k.name == name) {
        Err(Undecodable::UnknownVersion { kind, known: names() })
    } else {
        Err(Undecodable::UnknownKind { kind, known: names() })
    }
}

/// Decodes and checks a message; the error names the path of the offending field.
///
/// # Errors
/// [`Undecodable::Malformed`].
pub fn decode<M: Message>(body: &[u8]) -> Result<M, Undecodable> {
    let malformed = |violation| Undecodable::Malformed { kind: M::KIND, violation };
    // Checked as UTF-8 once, which is faster than string by string.
    let text = std::str::from_utf8(body).map_err(|error| {
        let why = not_json(body).unwrap_or_else(|| format!("expected UTF-8, byte {} is none", error.valid_up_to()));
        malformed(Violation::new(".", why))
    })?;
    match serde_json::from_str(text) {
        Ok(Object::<M>(message)) => message.check().map(|()| message).map_err(malformed),
        // The fast path knows no paths: read again, slowly, to say where.
        Err(first) => {
            let mut json = serde_json::Deserializer::from_str(text);
            let read = serde_path_to_error::deserialize::<_, Object<M>>(&mut json);
            let violation = match (not_json(body), read) {
                (Some(why), _) => Violation::new(".", why),
                (None, Err(error)) if is_no_json(&error) => {
                    Violation::new("", format!("is no JSON: {}", error.inner()))
                }
                (None, Err(error)) => Violation::new(error.path().to_string(), error.inner()),
                (None, Ok(_)) => Violation::new(".", first),
            };
            Err(malformed(violation))
        }
    }
}

/// Whether a body is no JSON at all; what ends within a field is told with its path.
fn is_no_json(error: &serde_path_to_error::Error<serde_json::Error>) -> bool {
    (error.inner().is_syntax() || error.inner().is_eof()) && error.path().iter().next().is_none()
}

/// What a body is that is no JSON from its first byte on, where a parser would only say that it expected a value.
fn not_json(body: &[u8]) -> Option<String> {
    let compressed = |how| format!("expected JSON, found {how}");
    match body {
        [] => Some("expected an object, found an empty body".to_owned()),
        [0x1F, 0x8B, ..] => Some(compressed("gzip")),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => Some(compressed("zstd")),
        [0xEF, 0xBB, 0xBF, ..] => Some("expected JSON, found a byte order mark before it".to_owned()),
        [0xFE, 0xFF, ..] | [0xFF, 0xFE, ..] => Some("expected JSON in UTF-8, found UTF-16".to_owned()),
        _ => None,
    }
}
