//! The properties that travel beside a message's body, in the field's standard terms (AMQP 0-9-1 §1.8, class basic).

use super::outcome::shorten;
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

/// A header value; AMQP types without a counterpart here are carried as their text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// UTF-8 text.
    Text(String),
    /// Any of AMQP's integers.
    Integer(i64),
    /// A truth value.
    Boolean(bool),
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(value) => value.fmt(f),
            Self::Boolean(value) => value.fmt(f),
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
    /// `gzip`, `zstd` or absent.
    pub content_encoding: Option<String>,
    /// `<worker>/<version>` of who wrote it.
    pub app_id: Option<String>,
    /// Seconds since the epoch; informational, nothing is decided by it.
    pub timestamp: Option<u64>,
    /// Milliseconds the broker keeps the message; the deadline of an RPC.
    pub expiration_ms: Option<u64>,
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
        const OURS: [&str; 10] = [
            ATTEMPT,
            OUTAGES,
            HISTORY,
            REASON,
            WHY,
            DEAD_AT,
            ORIGINAL_EXCHANGE,
            ORIGINAL_ROUTING_KEY,
            LEFT_BEHIND,
            TRACEPARENT,
        ];
        // The length of a name, the type, the length of a text.
        let bytes = |name: &str, value: &Header| {
            6 + name.len() + if let Header::Text(text) = value { text.len() } else { size_of::<i64>() }
        };
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
    fn a_crowd_of_small_headers_is_thinned_too() {
        let mut properties = Properties::default();
        for number in 0..10_000 {
            properties.headers.insert(format!("h{number}"), Header::Integer(number));
        }
        properties.fit_headers();
        assert!(properties.headers.len() < 5_000 && properties.text(LEFT_BEHIND).is_some());
    }
}
