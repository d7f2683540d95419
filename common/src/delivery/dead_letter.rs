//! Reads a dead letter: its reason, its origin, and the message as it was before it failed.

use crate::{
    delivery::{
        envelope::{self, Header, Properties},
        outgoing::Outgoing,
    },
    fleet::{exchange, topology},
    reading::Reading,
    schema::described,
};
use base64::Engine;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer, de::IgnoredAny};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Number of hex digits of a dead letter's id.
const ID_DIGITS: usize = 12;
/// Headers that the broker adds, and changes at every delivery.
const BROKER_HEADERS: [&str; 2] = ["x-delivery-count", "x-acquired-count"];
/// Headers that our runtime adds to a message that failed.
const RUNTIME_HEADERS: [&str; 9] = [
    envelope::ATTEMPT,
    envelope::OUTAGES,
    envelope::HISTORY,
    envelope::REASON,
    envelope::WHY,
    envelope::DEAD_AT,
    envelope::ORIGINAL_EXCHANGE,
    envelope::ORIGINAL_ROUTING_KEY,
    envelope::ORIGINAL_EXPIRATION,
];
/// Reason of a message whose batch id is already claimed for other bytes.
pub const BATCH_ID_CONFLICT: &str = "batch_id_conflict";
/// The broker's reason for a message that reached the delivery limit.
const DELIVERY_LIMIT: &str = "delivery_limit";

/// The broker's reason for the oldest message of a full queue, removed to make room.
const MAXLEN: &str = "maxlen";
/// The broker's reason for a message whose time to live ended.
const EXPIRED: &str = "expired";

described! { Letter = written "dead-letter.v1", }

/// A dead letter without its body. [`whole`] adds properties and body.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Letter {
    /// Identifies the dead letter: derived from its queue, properties and body, so every read gives the same id.
    pub id: String,
    /// Work queue in which the message failed.
    pub queue: String,
    /// `message_id` of the message.
    pub message_id: Option<String>,
    /// `type` of the message: `name.vN`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Stable code of the reason, in snake case.
    pub reason: String,
    /// The reason in words.
    pub why: String,
    /// Time at which the message was given up; RFC 3339 in JSON.
    #[serde(serialize_with = "as_text")]
    pub dead_at: Option<Timestamp>,
    /// Id of the batch that the message belongs to, if its body names one.
    pub batch_id: Option<String>,
    /// SHA-256 of the bytes of that batch, 64 hex digits, if the body states it or consists of these bytes. Another
    /// publisher may have used the same batch id for other bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Number of attempts made, at least 1.
    pub attempts: u32,
    /// Size of the body in bytes.
    pub body_bytes: usize,
    /// Whether the properties contained bytes that are not UTF-8. U+FFFD replaces these bytes here and in every copy.
    pub lossy: bool,
    /// Exchange to which a replay publishes the message.
    pub exchange: &'static str,
    /// Routing key with which a replay publishes the message.
    pub routing_key: String,
}

fn as_text<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(|at| at.to_string()).serialize(serializer)
}

impl Letter {
    /// Reads a message of `<queue>.dead`; `queue` is the name without the namespace.
    pub fn read(queue: &str, namespace: &str, properties: &Properties, body: &[u8]) -> Self {
        let deaths = deaths(properties);
        let last = deaths.first();
        let text = |name: &str| properties.text(name).map(str::to_owned);
        let reason = text(envelope::REASON)
            .or_else(|| last.map(|death| death.reason.clone()))
            .or_else(|| text("x-first-death-reason"))
            .unwrap_or_else(|| "unknown".to_owned());
        let why = text(envelope::WHY).unwrap_or_else(|| match reason.as_str() {
            DELIVERY_LIMIT => format!(
                "delivered {} times without an acknowledgement: each time the worker died or lost its connection",
                topology::DELIVERY_LIMIT + 1
            ),
            MAXLEN => {
                "the queue was full, so the broker removed its oldest message: a policy sets max-length or overflow on \
                       this queue (see the line `policies` of `wildrydes doctor`)"
                    .to_owned()
            }
            EXPIRED => {
                "it stayed in its queue longer than allowed: a policy sets message-ttl on this queue (see the line \
                        `policies` of `wildrydes doctor`)"
                    .to_owned()
            }
            other => format!("dead-lettered by the broker: {other}"),
        });
        let dead_at = properties.text(envelope::DEAD_AT).and_then(|at| at.parse().ok());
        let (exchange, routing_key) = origin(queue, namespace, properties, &deaths);
        let (batch_id, sha256) = batch(queue, body);
        Self {
            id: id(queue, properties, body),
            queue: queue.to_owned(),
            message_id: properties.message_id.clone(),
            kind: properties.kind.clone(),
            dead_at: dead_at.or_else(|| Timestamp::from_second(last?.time).ok()),
            batch_id,
            sha256,
            attempts: properties.attempt(),
            body_bytes: body.len(),
            lossy: properties_json(properties).to_string().contains(char::REPLACEMENT_CHARACTER),
            reason,
            why,
            exchange,
            routing_key,
        }
    }
}

/// One entry of the broker's `x-death`, the latest first.
#[derive(Debug, Deserialize)]
struct Death {
    queue: String,
    reason: String,
    #[serde(default)]
    exchange: String,
    #[serde(default, rename = "routing-keys")]
    routing_keys: Vec<String>,
    #[serde(default)]
    time: i64,
    #[serde(default, rename = "original-expiration")]
    original_expiration: Option<String>,
}

fn deaths(properties: &Properties) -> Vec<Death> {
    let deaths = match properties.headers.get("x-death") {
        // Copies of dead letters store the header as text.
        Some(Header::Text(text)) => serde_json::from_str(text).ok(),
        Some(other) => serde_json::from_value(other.to_json()).ok(),
        None => None,
    };
    deaths.unwrap_or_default()
}

/// Exchanges to which a message of the fleet can have been published.
const ORIGINS: [&str; 4] = [exchange::INGEST, exchange::WORK, exchange::EVENTS, exchange::RPC];

/// Returns the exchange and routing key of the first publish: as our runtime recorded them, else as the broker did. A
/// message of unknown origin returns directly to its work queue.
fn origin(queue: &str, namespace: &str, properties: &Properties, deaths: &[Death]) -> (&'static str, String) {
    let plain = |name: &str| name.strip_prefix(namespace).unwrap_or(name).to_owned();
    let recorded = properties
        .text(envelope::ORIGINAL_EXCHANGE)
        .zip(properties.text(envelope::ORIGINAL_ROUTING_KEY))
        .map(|(exchange, key)| (exchange.to_owned(), key.to_owned()));
    let died_here = || deaths.iter().find(|death| plain(&death.queue) == queue);
    let by_broker =
        || died_here().and_then(|death| Some((plain(&death.exchange), death.routing_keys.first()?.clone())));
    recorded
        .or_else(by_broker)
        .and_then(|(exchange, key)| Some((ORIGINS.into_iter().find(|known| *known == exchange)?, key)))
        .unwrap_or((exchange::RETRY, queue.to_owned()))
}

/// Returns the batch id and the SHA-256 of the batch's bytes that the body names. A batch without an id has the id that
/// the splitter would derive.
fn batch(queue: &str, body: &[u8]) -> (Option<String>, Option<String>) {
    #[derive(Default, Deserialize)]
    struct Identity {
        batch_id: Option<String>,
        object: Option<IgnoredAny>,
        sha256: Option<String>,
        #[serde(flatten)]
        reading: Reading,
    }
    let Identity { batch_id, object, sha256, reading } = serde_json::from_slice(body).unwrap_or_default();
    if queue != topology::queue::SPLITTER {
        return (batch_id, sha256);
    }
    let sha256 = if object.is_some() { sha256 } else { Some(hex::encode(Sha256::digest(body))) };
    let derived = || sha256.as_deref().filter(|sha256| sha256.len() >= 16 && sha256.is_ascii());
    let batch_id = batch_id.or_else(|| derived().map(|sha256| reading.batch_id(sha256)));
    (batch_id, sha256)
}

/// Returns whether a dead letter belongs to the batch that owns its batch id, rather than to another publisher's
/// message with the same id. `sha256` is [`Letter::sha256`]; `claimed` is the SHA-256 in the batch's claim (64 hex
/// digits).
pub fn is_about(reason: &str, sha256: Option<&str>, claimed: &str) -> bool {
    reason != BATCH_ID_CONFLICT && sha256.is_none_or(|sha256| sha256 == claimed)
}

/// Returns the id of a dead letter. Two dead letters with the same id are equal in every byte.
fn id(queue: &str, properties: &Properties, body: &[u8]) -> String {
    let mut hasher = Sha256::new();
    for part in [queue.as_bytes(), properties_json(properties).to_string().as_bytes(), body] {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hex::encode(hasher.finalize())[..ID_DIGITS].to_owned()
}

/// Returns the properties as they were before the failure: without the headers that record it, so that attempts count
/// from 1 again.
pub fn restored(properties: &Properties) -> Properties {
    let mut restored = properties.clone();
    restored.headers.retain(|name, _| {
        let name = name.as_str();
        let of_the_broker =
            name == "x-death" || name.starts_with("x-first-death-") || name.starts_with("x-last-death-");
        !of_the_broker && !BROKER_HEADERS.contains(&name) && !RUNTIME_HEADERS.contains(&name)
    });
    restored.persistent = true;
    // Our runtime records the expiration before a retry. The broker removes it when it dead-letters a message, and
    // records it in `x-death`.
    let recorded = properties.headers.get(envelope::ORIGINAL_EXPIRATION).map(Header::to_string);
    let by_broker = || deaths(properties).into_iter().rev().find_map(|death| death.original_expiration);
    let was_retried = properties.headers.contains_key(envelope::HISTORY);
    if restored.expiration_ms.is_none() {
        let original = recorded.or_else(|| if was_retried { None } else { by_broker() });
        restored.expiration_ms = original.and_then(|text| text.parse().ok());
    }
    restored
}

/// Returns the properties as JSON, without the headers that change at every delivery.
fn properties_json(properties: &Properties) -> Value {
    let stable = properties.headers.iter().filter(|(name, _)| !BROKER_HEADERS.contains(&name.as_str()));
    let headers: Map<String, Value> = stable.map(|(name, value)| (name.clone(), value.to_json())).collect();
    let mut all = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            all.insert(name.to_owned(), value);
        }
    };
    put("type", properties.kind.as_ref().map(|text| json!(text)));
    put("message_id", properties.message_id.as_ref().map(|text| json!(text)));
    put("correlation_id", properties.correlation_id.as_ref().map(|text| json!(text)));
    put("reply_to", properties.reply_to.as_ref().map(|text| json!(text)));
    put("content_type", properties.content_type.as_ref().map(|text| json!(text)));
    put("content_encoding", properties.content_encoding.as_ref().map(|text| json!(text)));
    put("app_id", properties.app_id.as_ref().map(|text| json!(text)));
    put("timestamp", properties.timestamp.map(|seconds| json!(seconds)));
    put("expiration_ms", properties.expiration_ms.map(|ms| json!(ms)));
    put("priority", properties.priority.map(|priority| json!(priority)));
    put("persistent", Some(json!(properties.persistent)));
    put("headers", (!headers.is_empty()).then_some(Value::Object(headers)));
    Value::Object(all)
}

/// Returns a copy of a dead letter as one JSON object: its summary, its properties, and its body as text or in base64.
pub fn whole(letter: &Letter, properties: &Properties, body: &[u8]) -> Value {
    let mut all = json!(letter);
    all["properties"] = properties_json(properties);
    match std::str::from_utf8(body) {
        Ok(text) => all["body"] = json!(text),
        Err(_) => all["body_base64"] = json!(base64::engine::general_purpose::STANDARD.encode(body)),
    }
    all
}

/// Member of a copy that states why the copy was made; absent if an operator dropped the dead letter.
const CAUSE: &str = "cause";
/// Value of [`CAUSE`]; see [`ended_with_process`].
const PROCESS_ENDED: &str = "process_ended";

/// Marks a copy as made because the in-process broker that held the dead letter ends with its process.
pub fn ended_with_process(mut copy: Value) -> Value {
    copy[CAUSE] = json!(PROCESS_ENDED);
    copy
}

/// The part of a stored dead letter (`dead/<queue>/<id>.json`) that concerns its batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// Batch id.
    pub batch_id: String,
    /// Work queue in which the message failed.
    pub queue: String,
    /// Stable code of the reason.
    pub reason: String,
    /// The reason in words.
    pub why: String,
    /// Time at which the message was given up.
    pub dead_at: Option<Timestamp>,
    /// Position of the chunk in the batch, from 0; `None` if the message was not a chunk.
    pub chunk: Option<u32>,
    /// Whether an operator dropped the dead letter; otherwise its broker ended with its process.
    pub dropped: bool,
}

impl GivenUp {
    /// Reads a copy that [`whole`] made; `None` if it names no batch.
    pub fn read(copy: &Value) -> Option<Self> {
        #[derive(Deserialize)]
        struct Chunk {
            chunk: u32,
        }
        let text = |name: &str| copy[name].as_str().map(str::to_owned);
        let chunk = copy["body"].as_str().and_then(|body| serde_json::from_str::<Chunk>(body).ok());
        Some(Self {
            batch_id: text("batch_id")?,
            queue: text("queue")?,
            reason: text("reason")?,
            why: text("why")?,
            dead_at: text("dead_at").and_then(|at| at.parse().ok()),
            chunk: chunk.map(|body| body.chunk),
            dropped: copy[CAUSE] != PROCESS_ENDED,
        })
    }
}

/// A JSON object that is not a copy of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoCopy(String);

/// Reads a copy that [`whole`] made. Returns the dead letter's id, its work queue, and the message to publish again.
///
/// # Errors
/// Fails if a member is missing or invalid; the error names the member.
pub fn from_copy(copy: &Value) -> Result<(String, String, Outgoing), NoCopy> {
    let text = |of: &Value, name: &str| of[name].as_str().map(str::to_owned);
    let needed = |name: &str| {
        text(copy, name).ok_or_else(|| NoCopy(format!("{name} is missing: expected a copy of a dead letter")))
    };
    let (id, queue, exchange) = (needed("id")?, needed("queue")?, needed("exchange")?);
    let exchange = ORIGINS.into_iter().chain([exchange::RETRY]).find(|known| *known == exchange);
    let exchange = exchange
        .ok_or_else(|| NoCopy(format!("exchange is {}: expected an exchange of the fleet", copy["exchange"])))?;
    let body = match (copy["body"].as_str(), copy["body_base64"].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(encoded)) => {
            let decoded = base64::engine::general_purpose::STANDARD.decode(encoded);
            decoded.map_err(|error| NoCopy(format!("body_base64 is not base64: {error}")))?
        }
        (None, None) => return Err(NoCopy("body and body_base64 are missing: expected one of them".to_owned())),
    };
    let members = &copy["properties"];
    let number = |name: &str| members[name].as_u64();
    let headers = members["headers"].as_object().into_iter().flatten();
    let headers = headers.map(|(name, value)| (name.clone(), Header::from_json(value))).collect();
    let properties = Properties {
        kind: text(members, "type"),
        message_id: text(members, "message_id"),
        correlation_id: text(members, "correlation_id"),
        reply_to: text(members, "reply_to"),
        content_type: text(members, "content_type"),
        content_encoding: text(members, "content_encoding"),
        app_id: text(members, "app_id"),
        timestamp: number("timestamp"),
        expiration_ms: number("expiration_ms"),
        priority: number("priority").and_then(|priority| u8::try_from(priority).ok()),
        persistent: true,
        headers,
    };
    let (properties, routing_key) = (restored(&properties), needed("routing_key")?);
    Ok((id, queue, Outgoing { exchange, routing_key, properties, body: body.into(), mandatory: true }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_has_the_sha256_that_its_body_names() {
        let sha256 = "ab".repeat(32);
        let of = |queue: &str, body: &str| {
            let letter = Letter::read(queue, "", &Properties::default(), body.as_bytes());
            (letter.batch_id, letter.sha256)
        };
        let (id, bytes) = (Some("mine".to_owned()), Some(sha256.clone()));
        let reference = json!({ "batch_id": "mine", "object": "raw/a", "sha256": sha256 }).to_string();
        assert_eq!(of("splitter", &reference), (id.clone(), bytes.clone()));
        let split = json!({ "batch_id": "mine", "sha256": sha256 }).to_string();
        assert_eq!(of("merger", &split), (id.clone(), bytes));
        assert_eq!(of("merger", r#"{"batch_id":"mine","chunk":3}"#), (id, None));
        let inline = hex::encode(Sha256::digest("[{}]"));
        assert_eq!(of("splitter", "[{}]"), (Some(inline[..16].to_owned()), Some(inline)));
    }

    #[test]
    fn a_dead_letter_with_another_sha256_belongs_to_another_batch() {
        let (claimed, other) = ("ab".repeat(32), "cd".repeat(32));
        for (reason, sha256, expected) in [
            ("cut_short", Some(claimed.as_str()), true),
            ("cut_short", Some(other.as_str()), false),
            ("attempts_exhausted", None, true),
            (BATCH_ID_CONFLICT, Some(claimed.as_str()), false),
            (BATCH_ID_CONFLICT, None, false),
        ] {
            assert_eq!(is_about(reason, sha256, &claimed), expected, "{reason} {sha256:?}");
        }
    }
}
