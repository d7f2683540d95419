//! Reads the corpus: `corpus.json` is a list of hostile messages, each with its expected end.
//!
//! A body is a text, or `{"hex": …}`, `{"utf16": …}`, `{"repeat": [body, times]}`, `{"gzip": body}`, `{"zstd": body}`, a list
//! of bodies that are concatenated, or a valid message with changes: `{"ride": {field: text}}` (a text that starts with `@` is
//! written without quotes), `{"ask": {…}}` (a score request for such a ride), `{"refer": [object, body]}` (a reference with the
//! sha256 of that body), `{"split": [batch_id, chunks, accepted]}`.

use async_compression::tokio::bufread::{GzipEncoder, ZstdEncoder};
use common::{
    envelope::{Header, Properties},
    exchange,
    outcome::Outgoing,
    topology::queue,
};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use tokio::io::AsyncReadExt;

/// The expected end of a hostile message.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// A dead letter with one of these reasons.
    Dead(Vec<String>),
    /// A dataset of the batch, with these numbers of rejects by reason.
    Dataset { batch_id: String, rejects: BTreeMap<String, u64> },
    /// An answer with this error, of the request or of its first ride; `scored` if there is no error.
    Answer(String),
    /// Nothing: the message is acknowledged.
    Gone,
}

/// One hostile message for one worker.
#[derive(Debug, Clone)]
pub struct Poison {
    pub name: String,
    /// Kind of the message, such as `ride-chunk`.
    pub kind: String,
    pub queue: &'static str,
    pub outgoing: Outgoing,
    pub objects: Vec<(String, Vec<u8>)>,
    pub end: End,
    /// Texts that the explanation of the reason must contain.
    pub why: Vec<String>,
    /// Expected header that names the removed headers.
    pub left_behind: Option<String>,
    /// First major version of RabbitMQ that survives this message.
    pub since: u32,
    /// Whether it is published after the workers have started, because it is large or needs them to listen.
    pub later: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    to: String,
    body: Value,
    r#type: Option<String>,
    #[serde(default = "first")]
    version: String,
    content_type: Option<String>,
    content_encoding: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Value>,
    #[serde(default)]
    objects: BTreeMap<String, Value>,
    #[serde(default)]
    reply: String,
    #[serde(default)]
    bare: bool,
    #[serde(default)]
    large: bool,
    dead: Option<String>,
    #[serde(default)]
    why: Vec<String>,
    left_behind: Option<String>,
    rejects: Option<BTreeMap<String, u64>>,
    answer: Option<String>,
    #[serde(default)]
    gone: bool,
    #[serde(default)]
    since: u32,
}

fn first() -> String {
    "1".to_owned()
}

/// Header that identifies a hostile message.
pub const MARK: &str = "poison";

/// The whole corpus; `reply_to` is the queue for answers.
pub async fn poisons(reply_to: &str) -> Vec<Poison> {
    let entries: Vec<Entry> =
        serde_json::from_str(include_str!("corpus.json")).expect("the corpus is what it should be");
    let mut poisons = Vec::new();
    for entry in &entries {
        let kinds: &[&str] = match entry.to.as_str() {
            "every" => &["ride-chunk", "enriched-chunk", "batch-split", "dataset-ready", "score-request"],
            "work" => &["ride-chunk", "enriched-chunk", "batch-split", "dataset-ready"],
            kind => &[kind],
        };
        for kind in kinds {
            poisons.push(poison(entry, kind, reply_to).await);
        }
    }
    poisons
}

async fn poison(entry: &Entry, kind: &str, reply_to: &str) -> Poison {
    let (exchange, queue) = match kind {
        "ride-batch" => (exchange::INGEST, queue::SPLITTER),
        "ride-chunk" => (exchange::WORK, queue::WEATHER_FETCHER),
        "enriched-chunk" | "batch-split" => (exchange::WORK, queue::MERGER),
        "dataset-ready" => (exchange::EVENTS, queue::TRAINER),
        "model-promoted" => (exchange::EVENTS, queue::SCORER),
        "score-request" => (exchange::RPC, queue::SCORER),
        other => panic!("{}: no message is called {other}", entry.name),
    };
    let body = bytes_of(&entry.body).await;
    let routing_key = format!("{kind}.v{}", entry.version);
    let properties = properties_of(entry, kind, &routing_key, reply_to).await;
    let end = end_of(entry, kind, &body).await;
    let mut objects = Vec::new();
    for (path, content) in &entry.objects {
        objects.push((path.clone(), bytes_of(content).await));
    }
    Poison {
        name: entry.name.clone(),
        kind: kind.to_owned(),
        queue,
        outgoing: Outgoing { exchange, routing_key, properties, body: body.into(), mandatory: true },
        objects,
        end,
        why: entry.why.clone(),
        left_behind: entry.left_behind.clone(),
        since: entry.since,
        later: entry.large || kind == "model-promoted",
    }
}

async fn properties_of(entry: &Entry, kind: &str, routing_key: &str, reply_to: &str) -> Properties {
    let mut properties = Properties { persistent: true, ..Properties::default() };
    if !entry.bare {
        let mark = format!("{} ({kind})", entry.name);
        properties.kind = Some(entry.r#type.clone().unwrap_or_else(|| routing_key.to_owned()));
        properties.content_type.clone_from(&entry.content_type);
        properties.content_encoding.clone_from(&entry.content_encoding);
        properties.message_id = Some(mark.clone());
        properties.set_text(MARK, mark);
    }
    for (name, value) in &entry.headers {
        let header = match value {
            Value::Number(number) => Header::Integer(number.as_i64().expect("a whole number")),
            text => Header::Text(String::from_utf8(bytes_of(text).await).expect("UTF-8")),
        };
        properties.headers.insert(name.clone(), header);
    }
    if kind == "score-request" {
        properties.reply_to = match entry.reply.as_str() {
            "" => Some(reply_to.to_owned()),
            "none" => None,
            other => Some(other.to_owned()),
        };
    }
    properties
}

async fn end_of(entry: &Entry, kind: &str, body: &[u8]) -> End {
    use End::*;
    let answered = kind == "score-request" && entry.reply.is_empty();
    let reasons: Option<Vec<String>> =
        entry.dead.as_ref().map(|dead| dead.trim_start_matches("either ").split(" or ").map(str::to_owned).collect());
    match (&entry.rejects, reasons, &entry.answer) {
        (Some(rejects), None, None) => {
            let batch = match entry.body.get("refer") {
                Some(refer) => bytes_of(&refer[1]).await,
                None => body.to_owned(),
            };
            Dataset { batch_id: sha256(&batch)[..16].to_owned(), rejects: rejects.clone() }
        }
        (None, Some(reasons), None) if answered => match reasons[0].as_str() {
            "unknown_version" => Answer("unknown_version".to_owned()),
            _ => Answer("malformed_request".to_owned()),
        },
        (None, Some(reasons), None) => Dead(reasons),
        (None, None, Some(code)) => Answer(code.clone()),
        (None, None, None) if entry.gone => Gone,
        _ => panic!("{}: exactly one end must be given", entry.name),
    }
}

/// SHA-256 in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The bytes that a body describes.
async fn bytes_of(body: &Value) -> Vec<u8> {
    let Value::Object(one) = body else {
        return match body {
            Value::String(text) => text.clone().into_bytes(),
            Value::Array(parts) => {
                let mut all = Vec::new();
                for part in parts {
                    all.append(&mut Box::pin(bytes_of(part)).await);
                }
                all
            }
            other => panic!("no body: {other}"),
        };
    };
    let (how, of) = one.iter().next().expect("a way of making it");
    let mut packed = Vec::new();
    match how.as_str() {
        "hex" => packed = hex::decode(of.as_str().expect("a text")).expect("hexadecimal digits"),
        "utf16" => {
            packed = [0xFF, 0xFE]
                .into_iter()
                .chain(of.as_str().expect("a text").encode_utf16().flat_map(u16::to_le_bytes))
                .collect();
        }
        "repeat" => {
            packed =
                Box::pin(bytes_of(&of[0])).await.repeat(usize::try_from(of[1].as_u64().expect("times")).expect("times"))
        }
        "gzip" => {
            let plain = Box::pin(bytes_of(of)).await;
            GzipEncoder::new(plain.as_slice()).read_to_end(&mut packed).await.map(drop).expect("it can be packed");
        }
        "zstd" => {
            let plain = Box::pin(bytes_of(of)).await;
            ZstdEncoder::new(plain.as_slice()).read_to_end(&mut packed).await.map(drop).expect("it can be packed");
        }
        "ride" => packed = ride(&RIDE, of).await,
        "ask" => {
            packed = b"{\"request_id\": \"a\", \"rides\": [".to_vec();
            packed.append(&mut ride(&FEATURES, of).await);
            packed.extend_from_slice(b"]}");
        }
        "refer" => {
            let sha256 = sha256(&Box::pin(bytes_of(&of[1])).await);
            packed = serde_json::json!({ "object": of[0], "sha256": sha256 }).to_string().into_bytes();
        }
        "split" => {
            let split = serde_json::json!({
                "batch_id": of[0], "sha256": "0".repeat(64), "chunks": of[1], "received": of[2], "accepted": of[2], "rejected": 0,
            });
            packed = split.to_string().into_bytes();
        }
        other => panic!("no body is made by {other}"),
    }
    packed
}

const RIDE: [(&str, &str); 6] = [
    ("statustime", "2018-04-25 17:03:05"),
    ("latitude", "@40.7"),
    ("longitude", "@-74"),
    ("distance", "@29.5"),
    ("healthpoints", "@291"),
    ("magicpoints", "@292"),
];
const FEATURES: [(&str, &str); 6] = [
    ("distance", "@29.5"),
    ("healthpoints", "@291"),
    ("magicpoints", "@292"),
    ("tmin", "@100"),
    ("tmax", "@200"),
    ("prcp", "@0"),
];

/// A JSON object of these members, some of them replaced or added.
async fn ride(members: &[(&str, &str)], others: &Value) -> Vec<u8> {
    let mut all: BTreeMap<String, Vec<u8>> =
        members.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    for (name, value) in others.as_object().expect("members") {
        all.insert(name.clone(), Box::pin(bytes_of(value)).await);
    }
    let mut json = b"{".to_vec();
    for (nth, (name, value)) in all.into_iter().enumerate() {
        json.extend_from_slice(format!("{}\"{name}\": ", if nth == 0 { "" } else { ", " }).as_bytes());
        match value.strip_prefix(b"@") {
            Some(raw) => json.extend_from_slice(raw),
            None => {
                json.extend_from_slice(Value::from(String::from_utf8(value).expect("UTF-8")).to_string().as_bytes())
            }
        }
    }
    json.push(b'}');
    json
}
