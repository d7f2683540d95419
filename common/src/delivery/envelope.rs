//! The properties that travel beside a message's body, in the field's standard terms (AMQP 0-9-1 §1.8, class basic).

pub use crate::coding::{Coding, UnknownCoding, content_coding};

use crate::text::shorten;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt};

/// Header: which attempt at the message this delivery is, counted from 1. Absent means 1.
pub const ATTEMPT: &str = "x-attempt";
/// Header: how often the message was set aside because something it depends on was away.
pub const OUTAGES: &str = "x-outages";
/// Header: one line per failed attempt, oldest first, at most [`HISTORY_LINES_MAX`].
pub const HISTORY: &str = "x-history";
/// Header of a dead letter: the stable code of the reason.
pub const REASON: &str = "x-reason";
/// Header of a dead letter: the reason in words.
pub const WHY: &str = "x-why";
/// Header of a dead letter: when it was given up, RFC 3339.
pub const DEAD_AT: &str = "x-dead-at";
/// Header: the exchange the message was first published to.
pub const ORIGINAL_EXCHANGE: &str = "x-original-exchange";
/// Header: the routing key the message was first published with.
pub const ORIGINAL_ROUTING_KEY: &str = "x-original-routing-key";
/// Header of a retry or a dead letter: the expiration the message was first published with, in milliseconds.
pub const ORIGINAL_EXPIRATION: &str = "x-original-expiration";
/// Header of a retry or a dead letter: which headers were too large to be taken along.
pub const LEFT_BEHIND: &str = "x-left-behind";
/// Header: W3C Trace Context, `00-<trace id>-<span id>-<flags>`.
pub const TRACEPARENT: &str = "traceparent";

/// Lines kept in [`HISTORY`]; the oldest are dropped first.
pub const HISTORY_LINES_MAX: usize = 20;
/// Bytes kept of each line in [`HISTORY`] and of [`WHY`].
pub const WHY_BYTES_MAX: usize = 500;

/// Bytes of headers that a retry or a dead letter takes along at most. All of a message's headers travel in one frame,
/// which RabbitMQ limits to 128 KiB unless told otherwise: a larger one ends the connection.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;

/// A header value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// UTF-8 text.
    Text(String),
    /// An integer of 64 bits.
    Integer(i64),
    /// A truth value.
    Boolean(bool),
    /// Anything else that AMQP knows: nobody here writes such, and what others wrote goes on as it came.
    Other(Other),
}

/// The rest of AMQP's types (AMQP 0-9-1 §4.2.5.5, as RabbitMQ reads them).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Other {
    /// 8 bits, signed.
    I8(i8),
    /// 8 bits.
    U8(u8),
    /// 16 bits, signed.
    I16(i16),
    /// 16 bits.
    U16(u16),
    /// 32 bits, signed.
    I32(i32),
    /// 32 bits.
    U32(u32),
    /// Seconds since the epoch.
    Time(u64),
    /// The bits of a fraction in 32 bits.
    Float(u32),
    /// The bits of a fraction in 64 bits.
    Double(u64),
    /// A whole number, divided by ten to the power of the scale.
    Decimal {
        /// The power.
        scale: u8,
        /// The number.
        value: u32,
    },
    /// Bytes.
    Bytes(Vec<u8>),
    /// Values in a row.
    Array(Vec<Header>),
    /// Values by name.
    Table(BTreeMap<String, Header>),
    /// Nothing.
    Void,
}

impl Header {
    /// As JSON: what a person, a copy of a letter, and whoever reads a broker's own headers is told.
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

    /// From JSON: the widest type that holds it.
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

    /// Its bytes on the wire, about: its type, the length where one stands before it, and itself.
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
    /// AMQP `type`: `name.vN`. Foreign publishers may leave it out.
    pub kind: Option<String>,
    /// Stable: derived from the inputs, so that a resend has the same id.
    pub message_id: Option<String>,
    /// What an answer refers to.
    pub correlation_id: Option<String>,
    /// Queue that an answer goes to.
    pub reply_to: Option<String>,
    /// `application/json` for everything the fleet writes.
    pub content_type: Option<String>,
    /// How the body is compressed, read with [`content_coding`]; absent where it is not.
    pub content_encoding: Option<String>,
    /// `<worker>/<version>` of who wrote it.
    pub app_id: Option<String>,
    /// Seconds since the epoch; informational, nothing is decided by it.
    pub timestamp: Option<u64>,
    /// Milliseconds the broker keeps the message; the deadline of an RPC.
    pub expiration_ms: Option<u64>,
    /// Which of a queue's messages come first, where its queue knows priorities; the fleet's do not.
    pub priority: Option<u8>,
    /// Whether the message survives a restart of the broker (`delivery_mode = 2`).
    pub persistent: bool,
    /// Everything else.
    pub headers: BTreeMap<String, Header>,
}

impl Properties {
    /// A text header.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.headers.get(name) {
            Some(Header::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A counter header, `otherwise` where absent or no sensible count.
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

    /// Leaves foreign headers behind, the largest first, until all that are left fit into [`HEADER_BYTES_MAX`]; says so in
    /// [`LEFT_BEHIND`].
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
        let mut left = Vec::new();
        while all > HEADER_BYTES_MAX
            && let Some((bytes, name)) = foreign.pop()
        {
            all -= bytes;
            self.headers.remove(&name);
            left.push(format!("{name} ({bytes} bytes)"));
        }
        let said = shorten(&left.join(", "), WHY_BYTES_MAX).into_owned();
        self.set_text(LEFT_BEHIND, said);
    }

    /// Which attempt this delivery is, from 1.
    pub fn attempt(&self) -> u32 {
        self.count(ATTEMPT, 1).max(1)
    }
}

/// A decoded message with the properties it came with.
#[derive(Debug, Clone)]
pub struct Envelope<T> {
    /// The message.
    pub payload: T,
    /// What travelled beside it.
    pub properties: Properties,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_foreign_headers_are_left_behind() {
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
        assert_eq!(properties, fits, "what fits is left alone");
    }

    #[test]
    fn a_large_table_counts_with_all_that_is_in_it() {
        let row = Header::Other(Other::Table([("name".to_owned(), Header::Text("x".repeat(100)))].into()));
        let mut properties = Properties::default();
        properties.headers.insert("rows".to_owned(), Header::Other(Other::Array(vec![row; 1_000])));
        properties.fit_headers();
        assert!(properties.text(LEFT_BEHIND).is_some_and(|left| left.starts_with("rows (1")), "{properties:?}");
    }

    #[test]
    fn a_copy_of_a_header_keeps_what_json_can_say() {
        let nested = json!({ "a": [1, true, null, "text", -0.5], "b": { "c": 9_000_000_000_000_000_000_u64 } });
        assert_eq!(Header::from_json(&nested).to_json(), nested);
    }

    #[test]
    fn a_crowd_of_small_headers_is_thinned_too() {
        let mut properties = Properties::default();
        for number in 0..10_000 {
            properties.headers.insert(format!("h{number}"), Header::Integer(number));
        }
        properties.fit_headers();
        assert!(properties.headers.len() < 5_000 && properties.text(LEFT_BEHIND).is_some());
    }
}
