//! The traits of messages, and the decoding of message bodies.

use crate::{
    message::{kind::Kind, object::Object, route::Routed, violation::Violation},
    schema::Described,
    text::excerpt,
};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

/// A message of the fleet.
pub trait Message: Routed + Described + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Name and major version.
    const KIND: Kind = Self::ROUTE.kind;
    /// Exchange to which the message is published.
    const EXCHANGE: &'static str = Self::ROUTE.exchange;
    /// Whether the publish fails if no queue takes the message. False if only temporary queues receive it.
    const MANDATORY: bool = !Self::ROUTE.readers.is_empty();

    /// Returns a stable id: the same inputs give the same id, so that a repeated publish is recognised.
    fn message_id(&self) -> String;

    /// Returns the id of the batch that the message belongs to, for logs and filters.
    fn batch_id(&self) -> Option<&str> {
        None
    }

    /// Checks the rules that the types of the fields do not express. Runs after decoding.
    ///
    /// # Errors
    /// Fails with the path of the invalid field and what was expected.
    fn check(&self) -> Result<(), Violation> {
        Ok(())
    }
}

/// Why a body cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// The worker knows the name but not the major version. The message is dead-lettered until a worker that knows it
    /// runs.
    #[error("{kind} is a version this worker does not know; it reads {known}")]
    UnknownVersion {
        /// Kind of the message, shortened.
        kind: String,
        /// Kinds that the worker reads.
        known: String,
    },
    /// The worker does not read messages of this name.
    #[error("{kind} is no message this worker reads; it reads {known}")]
    UnknownKind {
        /// Kind of the message, shortened.
        kind: String,
        /// Kinds that the worker reads.
        known: String,
    },
    /// The body is not JSON, or does not have the form of the message.
    #[error("{kind} {violation}")]
    Malformed {
        /// The kind that was expected.
        kind: Kind,
        /// Field and reason.
        violation: Violation,
    },
}

impl Undecodable {
    /// Returns the stable code of the dead letter.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownVersion { .. } => "unknown_version",
            Self::UnknownKind { .. } => "unknown_kind",
            Self::Malformed { .. } => "malformed",
        }
    }
}

/// The input of a worker: one message, or an enum of several.
pub trait Input: Sized + Send + 'static {
    /// The kinds that the worker reads.
    const KINDS: &'static [Kind];

    /// Decodes a body of `kind`, which is one of [`Input::KINDS`].
    ///
    /// # Errors
    /// Fails if the body breaks the contract of the message.
    fn decode(kind: Kind, body: &Bytes) -> Result<Self, Undecodable>;

    /// Returns the id of the batch that the message belongs to, for logs.
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

/// Returns the one of `known` that the wire name `kind` denotes. A message without a wire name is taken for the only
/// known kind, if there is exactly one.
///
/// # Errors
/// Fails on an unknown kind or version; such a message is dead-lettered, never dropped.
pub fn recognise(kind: Option<&str>, known: &'static [Kind]) -> Result<Kind, Undecodable> {
    let names = || known.iter().map(Kind::to_string).collect::<Vec<_>>().join(", ");
    let Some(wire) = kind.filter(|wire| !wire.is_empty()) else {
        return match known {
            [only] => Ok(*only),
            _ => Err(Undecodable::UnknownKind { kind: "a message without a type".to_owned(), known: names() }),
        };
    };
    let (name, major) = wire.rsplit_once(".v").unwrap_or((wire, ""));
    if let Some(kind) = known.iter().find(|k| k.name == name && k.major.to_string() == major) {
        return Ok(*kind);
    }
    let kind = excerpt(wire, 100);
    if known.iter().any(|k| k.name == name) {
        Err(Undecodable::UnknownVersion { kind, known: names() })
    } else {
        Err(Undecodable::UnknownKind { kind, known: names() })
    }
}

/// Decodes and checks a message.
///
/// # Errors
/// Fails with [`Undecodable::Malformed`], which names the path of the invalid field.
pub fn decode<M: Message>(body: &[u8]) -> Result<M, Undecodable> {
    let malformed = |violation| Undecodable::Malformed { kind: M::KIND, violation };
    // One UTF-8 check of the whole body is faster than one per string.
    let text = std::str::from_utf8(body).map_err(|error| {
        let why = not_json(body).unwrap_or_else(|| format!("expected UTF-8, byte {} is not", error.valid_up_to()));
        malformed(Violation::new(".", why))
    })?;
    match serde_json::from_str(text) {
        Ok(Object::<M>(message)) => message.check().map(|()| message).map_err(malformed),
        // The fast path does not track the path of a field: decode again to find it.
        Err(first) => {
            let mut json = serde_json::Deserializer::from_str(text);
            let read = serde_path_to_error::deserialize::<_, Object<M>>(&mut json);
            let violation = match (not_json(body), read) {
                (Some(why), _) => Violation::new(".", why),
                (None, Err(error)) if is_not_json(&error) => {
                    Violation::new("", format!("is not JSON: {}", error.inner()))
                }
                (None, Err(error)) => Violation::new(error.path().to_string(), error.inner()),
                (None, Ok(_)) => Violation::new(".", first),
            };
            Err(malformed(violation))
        }
    }
}

/// Returns whether the body as a whole is not JSON; an error within a field is reported with its path.
fn is_not_json(error: &serde_path_to_error::Error<serde_json::Error>) -> bool {
    (error.inner().is_syntax() || error.inner().is_eof()) && error.path().iter().next().is_none()
}

/// Recognises a body that is not JSON by its first bytes, for a clearer message than the parser's "expected value".
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
