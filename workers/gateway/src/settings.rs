//! The section `[gateway]` of the configuration.

use common::{
    contract::{layout, message::SCORE_RIDES_MAX},
    runtime::config::{self, Problem},
};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The section `[gateway]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address and port to listen on.
    pub bind: String,
    /// Whether a key is asked for. Off only by explicit choice.
    pub auth: Auth,
    /// The keys that are taken.
    pub keys: Vec<Key>,
    /// Certificate chain in PEM: HTTPS instead of HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert_file: Option<String>,
    /// Its private key in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key_file: Option<String>,
    /// Model family that `/v2/models/…` and the page show.
    pub model: String,
    /// How long a request may take, an upload left aside, milliseconds.
    pub deadline_ms: u64,
    /// How long an upload or a request's body may be silent, milliseconds.
    pub stall_ms: u64,
    /// Bytes of an upload at most.
    pub upload_bytes_max: u64,
    /// Uploads at the same time.
    pub uploads_max: usize,
    /// Bytes of any other request's body at most.
    pub body_bytes_max: usize,
    /// Requests that are worked on at the same time; more are turned away with 503.
    pub requests_max: usize,
    /// Rides in one request at most; no more than `scorer.rides_max`.
    pub rides_max: usize,
    /// Rides of several requests that travel in one message at most.
    pub coalesce_rides_max: usize,
    /// How long a request waits for others to travel with while another message is under way, microseconds.
    pub coalesce_wait_us: u64,
}

/// Whether a key is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Every request but those for the page and for health names a key.
    Keys,
    /// Whoever reaches the port may do everything.
    Off,
}

/// A key that is taken: not the key itself, which only its bearer has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Who bears it, for logs.
    pub name: String,
    /// SHA-256 of the key, 64 hex digits (`wildrydes key` makes both).
    pub sha256: String,
    /// What it opens.
    pub scopes: Vec<Scope>,
    /// Requests per second it may make; no limit when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
}

/// What a key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Scores, and everything one looks at.
    Read,
    /// Handing in batches.
    Write,
}

impl Scope {
    /// As the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bind: "127.0.0.1:8080".to_owned(),
            auth: Auth::Keys,
            keys: Vec::new(),
            tls_cert_file: None,
            tls_key_file: None,
            model: layout::GLOBAL_MODEL.to_owned(),
            deadline_ms: 5_000,
            stall_ms: 10_000,
            upload_bytes_max: 4 << 30,
            uploads_max: 16,
            body_bytes_max: 8 << 20,
            requests_max: 10_000,
            rides_max: 10_000,
            coalesce_rides_max: 256,
            coalesce_wait_us: 1_000,
        }
    }
}

impl Settings {
    /// Where to listen.
    ///
    /// # Errors
    /// When it is no address with a port.
    pub fn address(&self) -> Result<SocketAddr, Problem> {
        let expected = "an address and a port, as in 127.0.0.1:8080 or [::]:8080";
        self.bind.parse().map_err(|_| Problem::new("bind", &self.bind, expected))
    }
}

impl config::Settings for Settings {
    const SECTION: &'static str = "gateway";

    fn check(&self) -> Result<(), Problem> {
        self.address()?;
        if self.auth == Auth::Keys && self.keys.is_empty() {
            return Err(Problem::new(
                "keys",
                "[]",
                "at least one key (`wildrydes key NAME` makes one), or auth = \"off\" where whoever reaches the port may do everything",
            ));
        }
        for key in &self.keys {
            let hex = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !hex(&key.sha256) {
                return Err(Problem::new("keys", &key.name, "sha256: 64 hex digits, as `wildrydes key` prints them"));
            }
            if key.scopes.is_empty() {
                return Err(Problem::new("keys", &key.name, "scopes: \"read\", \"write\" or both"));
            }
            if key.requests_per_second == Some(0) {
                return Err(Problem::new("keys", &key.name, "requests_per_second: 1 or more"));
            }
        }
        if self.tls_cert_file.is_some() != self.tls_key_file.is_some() {
            return Err(Problem::new("tls_key_file", "only one of two", "tls_cert_file and tls_key_file, or neither"));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if self.model.is_empty() || !self.model.chars().all(is_name) {
            return Err(Problem::new("model", &self.model, "the name of a model family, e.g. service-request"));
        }
        Problem::unless_within("deadline_ms", self.deadline_ms, 10..=600_000)?;
        Problem::unless_within("stall_ms", self.stall_ms, 100..=600_000)?;
        Problem::unless_within("upload_bytes_max", self.upload_bytes_max, 1..=1 << 40)?;
        Problem::unless_within("uploads_max", self.uploads_max, 1..=1_000)?;
        Problem::unless_within("body_bytes_max", self.body_bytes_max, 1_024..=64 << 20)?;
        Problem::unless_within("requests_max", self.requests_max, 1..=1_000_000)?;
        Problem::unless_within("rides_max", self.rides_max, 1..=SCORE_RIDES_MAX)?;
        Problem::unless_within("coalesce_rides_max", self.coalesce_rides_max, 1..=SCORE_RIDES_MAX)?;
        Problem::unless_within("coalesce_wait_us", self.coalesce_wait_us, 0..=1_000_000)
    }
}
