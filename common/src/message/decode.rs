//! What makes a type a message, and how a body becomes one.

use crate::message::{kind::Kind, object::Object, violation::Violation};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

/// A type that is a message.
pub trait Message: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Its wire name.
    const KIND: Kind;
    /// The exchange it is published to; see [`crate::fleet::exchange`].
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
