//! The properties of a message (AMQP 0-9-1 §1.8, class basic), and the headers that the runtime adds.

pub use crate::coding::{Coding, UnknownCoding, content_coding};

use crate::text::shorten;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt};

/// Header: number of this attempt, from 1. Absent means 1.
pub const ATTEMPT: &str = "x-attempt";
/// Header: number of times the message waited in a retry queue because of an outage.
pub const OUTAGES: &str = "x-outages";
/// Header: one line per failed attempt, oldest first, at most [`HISTORY_LINES_MAX`].
pub const HISTORY: &str = "x-history";
/// Header of a dead letter: the stable code of the reason.
pub const REASON: &str = "x-reason";
/// Header of a dead letter: the reason in words.
pub const WHY: &str = "x-why";
/// Header of a dead letter: time at which the message was given up, RFC 3339.
pub const DEAD_AT: &str = "x-dead-at";
/// Header: the exchange the message was first published to.
pub const ORIGINAL_EXCHANGE: &str = "x-original-exchange";
/// Header: the routing key the message was first published with.
pub const ORIGINAL_ROUTING_KEY: &str = "x-original-routing-key";
/// Header of a retry or a dead letter: the expiration the message was first published with, in milliseconds.
pub const ORIGINAL_EXPIRATION: &str = "x-original-expiration";
/// Header of a retry or a dead letter: names of the headers that were dropped because they were too large.
pub const LEFT_BEHIND: &str = "x-left-behind";
/// Header: W3C Trace Context, `00-<trace id>-<span id>-<flags>`.
pub const TRACEPARENT: &str = "traceparent";

/// Lines kept in [`HISTORY`]; the oldest are dropped first.
pub const HISTORY_LINES_MAX: usize = 20;
/// Bytes kept of each line in [`HISTORY`] and of [`WHY`].
pub const WHY_BYTES_MAX: usize = 500;

/// Maximum size in bytes of the headers of a retry or a dead letter. All headers of a message travel in one frame.
/// RabbitMQ limits a frame to 128 KiB by default and closes the connection on a larger one.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;

/// A header value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// UTF-8 text.
    Text(String),
    /// A signed 64-bit integer.
    Integer(i64),
    /// A truth value.
    Boolean(bool),
    /// Any other AMQP type. The fleet writes none; it forwards foreign values unchanged.
    Other(Other),
}

/// The other AMQP field types (AMQP 0-9-1 §4.2.5.5, as RabbitMQ interprets them).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Other {
    /// Signed, 8 bits.
    I8(i8),
    /// Unsigned, 8 bits.
    U8(u8),
    /// Signed, 16 bits.
    I16(i16),
    /// Unsigned, 16 bits.
    U16(u16),
    /// Signed, 32 bits.
    I32(i32),
    /// Unsigned, 32 bits.
    U32(u32),
    /// Seconds since the Unix epoch.
    Time(u64),
    /// Bit pattern of an `f32`.
    Float(u32),
    /// Bit pattern of an `f64`.
    Double(u64),
    /// `value / 10^scale`.
    Decimal {
        /// Number of decimal places.
        scale: u8,
        /// The digits as an integer.
        value: u32,
    },
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list of values.
    Array(Vec<Header>),
    /// Values by name.
    Table(BTreeMap<String, Header>),
    /// Nothing.
    Void,
}

impl Header {
    /// Converts to JSON, for people, for copies of dead letters, and to parse the broker's own headers. Bytes become
    /// hex digits.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Integer(value) => json!(value),
            Self::Boolean(value) => json!(value),
            Self::Other(other) => match other {
                Other::I8(value) => json!(value),
                Other::U8(value) => json!(value),
                Other::I16(value) => json!(value),
                Other::U16(value) => json!(value),
                Other::I32(value) => json!(value),
                Other::U32(value) => json!(value),
                Other::Time(value) => json!(value),
                Other::Float(bits) => json!(f32::from_bits(*bits)),
                Other::Double(bits) => json!(f64::from_bits(*bits)),
                Other::Decimal { scale, value } => json!(f64::from(*value) / 10f64.powi((*scale).into())),
                Other::Bytes(bytes) => json!(hex::encode(bytes)),
                Other::Array(values) => values.iter().map(Self::to_json).collect(),
                Other::Table(values) => values.iter().map(|(name, value)| (name.clone(), value.to_json())).collect(),
                Other::Void => Value::Null,
            },
        }
    }

    /// Converts from JSON to the widest type that holds the value.
    pub fn from_json(json: &Value) -> Self {
        match json {
            Value::String(text) => Self::Text(text.clone()),
            Value::Bool(value) => Self::Boolean(*value),
            Value::Number(number) => match number.as_i64() {
                Some(value) => Self::Integer(value),
                None => Self::Other(Other::Double(number.as_f64().unwrap_or(f64::NAN).to_bits())),
            },
            Value::Array(values) => Self::Other(Other::Array(values.iter().map(Self::from_json).collect())),
            Value::Object(values) => Self::Other(Other::Table(
                values.iter().map(|(name, value)| (name.clone(), Self::from_json(value))).collect(),
            )),
            Value::Null => Self::Other(Other::Void),
        }
    }

    /// Approximate size on the wire in bytes: type, length prefix and value.
    fn bytes(&self) -> usize {
        const TYPE_AND_LENGTH: usize = 5;
        TYPE_AND_LENGTH
            + match self {
                Self::Text(text) => text.len(),
                Self::Other(Other::Bytes(bytes)) => bytes.len(),
                Self::Other(Other::Array(values)) => values.iter().map(Self::bytes).sum(),
                Self::Other(Other::Table(values)) => {
                    values.iter().map(|(name, value)| 1 + name.len() + value.bytes()).sum()
                }
                _ => size_of::<i64>(),
            }
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            other => other.to_json().fmt(f),
        }
    }
}

/// The properties of one message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// AMQP `type`: `name.vN`. Foreign publishers may omit it.
    pub kind: Option<String>,
    /// Stable id: derived from the inputs, so that a repeated publish has the same id.
    pub message_id: Option<String>,
    /// Id of the request that an answer belongs to.
    pub correlation_id: Option<String>,
    /// Queue to which the answer is sent.
    pub reply_to: Option<String>,
    /// `application/json` for everything the fleet writes.
    pub content_type: Option<String>,
    /// Compression of the body, parsed with [`content_coding`]; absent if the body is not compressed.
    pub content_encoding: Option<String>,
    /// `<worker>/<version>` of the publisher.
    pub app_id: Option<String>,
    /// Seconds since the Unix epoch; informational, no decision depends on it.
    pub timestamp: Option<u64>,
    /// Time to live in milliseconds; the deadline of a request.
    pub expiration_ms: Option<u64>,
    /// Priority, 0 to 255, for queues that support priorities; the fleet's do not.
    pub priority: Option<u8>,
    /// Whether the message survives a restart of the broker (`delivery_mode = 2`).
    pub persistent: bool,
    /// Application headers by name.
    pub headers: BTreeMap<String, Header>,
}

impl Properties {
    /// Returns a text header; `None` if it is absent or not a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.headers.get(name) {
            Some(Header::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Returns a counter header; `otherwise` if it is absent or not a `u32`.
    pub fn count(&self, name: &str, otherwise: u32) -> u32 {
        match self.headers.get(name) {
            Some(Header::Integer(value)) => u32::try_from(*value).unwrap_or(otherwise),
            Some(Header::Text(text)) => text.parse().unwrap_or(otherwise),
            Some(other @ Header::Other(_)) => {
                other.to_json().as_u64().and_then(|value| u32::try_from(value).ok()).unwrap_or(otherwise)
            }
            _ => otherwise,
        }
    }

    /// Sets a text header.
    pub fn set_text(&mut self, name: &str, value: impl Into<String>) {
        self.headers.insert(name.to_owned(), Header::Text(value.into()));
    }

    /// Sets a counter header.
    pub fn set_count(&mut self, name: &str, value: u32) {
        self.headers.insert(name.to_owned(), Header::Integer(value.into()));
    }

    /// Drops foreign headers, the largest first, until the rest fits into [`HEADER_BYTES_MAX`]. Lists the dropped
    /// headers in [`LEFT_BEHIND`].
    pub fn fit_headers(&mut self) {
        const OURS: [&str; 11] = [
            ATTEMPT,
            OUTAGES,
            HISTORY,
            REASON,
            WHY,
            DEAD_AT,
            ORIGINAL_EXCHANGE,
            ORIGINAL_ROUTING_KEY,
            ORIGINAL_EXPIRATION,
            LEFT_BEHIND,
            TRACEPARENT,
        ];
        let bytes = |name: &str, value: &Header| 1 + name.len() + value.bytes();
        let mut all: usize = self.headers.iter().map(|(name, value)| bytes(name, value)).sum();
        if all <= HEADER_BYTES_MAX {
            return;
        }
        let foreign = self.headers.iter().filter(|(name, _)| !OURS.contains(&name.as_str()));
        let mut foreign: Vec<(usize, String)> =
            foreign.map(|(name, value)| (bytes(name, value), name.clone())).collect();
        foreign.sort_unstable();
        let mut dropped = Vec::new();
        while all > HEADER_BYTES_MAX
            && let Some((bytes, name)) = foreign.pop()
        {
            all -= bytes;
            self.headers.remove(&name);
            dropped.push(format!("{name} ({bytes} bytes)"));
        }
        let list = shorten(&dropped.join(", "), WHY_BYTES_MAX).into_owned();
        self.set_text(LEFT_BEHIND, list);
    }

    /// Returns the number of this attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.count(ATTEMPT, 1).max(1)
    }
}

/// A decoded message with its properties.
#[derive(Debug, Clone)]
pub struct Envelope<T> {
    /// The message.
    pub payload: T,
    /// The properties of the message.
    pub properties: Properties,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_foreign_headers_are_dropped() {
        let mut properties = Properties::default();
        properties.set_text(HISTORY, "h".repeat(10_000));
        properties.set_text("small", "s");
        for name in ["large", "larger"] {
            properties.set_text(name, name.repeat(8_000));
        }
        let before = properties.clone();
        properties.fit_headers();
        assert_eq!(properties.text(LEFT_BEHIND), Some("larger (48012 bytes)"));
        assert!(properties.text("large").is_some() && properties.text("larger").is_none());
        assert_eq!(properties.text(HISTORY), before.text(HISTORY));
        let fits = properties.clone();
        properties.fit_headers();
        assert_eq!(properties, fits, "headers that fit stay unchanged");
    }

    #[test]
    fn the_size_of_a_table_includes_its_values() {
        let row = Header::Other(Other::Table([("name".to_owned(), Header::Text("x".repeat(100)))].into()));
        let mut properties = Properties::default();
        properties.headers.insert("rows".to_owned(), Header::Other(Other::Array(vec![row; 1_000])));
        properties.fit_headers();
        assert!(properties.text(LEFT_BEHIND).is_some_and(|left| left.starts_with("rows (1")), "{properties:?}");
    }

    #[test]
    fn a_json_header_reads_back_unchanged() {
        let nested = json!({ "a": [1, true, null, "text", -0.5], "b": { "c": 9_000_000_000_000_000_000_u64 } });
        assert_eq!(Header::from_json(&nested).to_json(), nested);
    }

    #[test]
    fn many_small_headers_are_dropped_until_the_rest_fits() {
        let mut properties = Properties::default();
        for number in 0..10_000 {
            properties.headers.insert(format!("h{number}"), Header::Integer(number));
        }
        properties.fit_headers();
        assert!(properties.headers.len() < 5_000 && properties.text(LEFT_BEHIND).is_some());
    }
}
