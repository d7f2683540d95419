//! The section `[gateway]` of the configuration.

use common::{message::SCORE_RIDES_MAX, topology::process::GATEWAY};
use records::layout;
use runtime::config::{
    self, Problem, Settings as _,
    reference::{Entry, Kind, entry, number, text},
};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The gateway's addresses, keys and limits.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// IP address and port to listen on; port 0 takes a free one.
    pub bind: String,
    /// IP address and port of a second listener, which serves only `/healthz`, `/readyz` and `/metrics`. It uses no TLS, needs no
    /// key and accepts every host name.
    pub ops_bind: Option<String>,
    /// Host names and addresses that requests may name in the header Host; requests for others get 421. If empty: with
    /// [`Auth::Off`] `localhost`, loopback addresses and the address of `bind`; with [`Auth::Keys`] every host. In an environment
    /// variable the list is separated by commas.
    #[serde(deserialize_with = "config::list")]
    pub hosts: Vec<String>,
    /// Whether requests need a key.
    pub auth: Auth,
    /// The valid keys.
    pub keys: Vec<Key>,
    /// File with the certificate chain in PEM. If set, the gateway serves HTTPS instead of HTTP.
    pub tls_cert_file: Option<String>,
    /// File with the private key of the certificate in PEM.
    pub tls_key_file: Option<String>,
    /// Model family that `/v2/models/…` and the page show.
    pub model: String,
    /// How long a request other than an upload may take, milliseconds: 10 to 600,000.
    pub deadline_ms: u64,
    /// How long a client may pause while it sends a body, milliseconds: 100 to 600,000.
    pub stall_ms: u64,
    /// Maximum size of an upload, bytes: 1 to 2^40.
    pub upload_bytes_max: u64,
    /// Maximum number of uploads written at the same time: 1 to 1,000. An upload takes a slot as soon as 64 KiB or all of it has
    /// arrived. If no slot is free, the gateway ends another upload: the one that is furthest behind
    /// `upload_bytes_per_second_min`, or else one of a key or peer that has at least two slots more. If there is none, the new one
    /// gets 503.
    pub uploads_max: usize,
    /// Lowest rate of an upload, bytes per second: 1 to 2^30. The gateway ends an upload with 408 if it falls behind by `stall_ms`.
    pub upload_bytes_per_second_min: u64,
    /// How long an upload may take, milliseconds: 1,000 to 604,800,000.
    pub upload_ms_max: u64,
    /// Maximum size of any other body, as received and decompressed, bytes: 1,024 to 67,108,864.
    pub body_bytes_max: usize,
    /// Maximum number of requests in progress, 1 to 1,000,000; more are refused with 503.
    pub requests_max: usize,
    /// Maximum number of requests in progress per API key, including streams of events, 1 to 1,000,000; more are refused with 429.
    pub requests_per_key_max: usize,
    /// Maximum number of connections: 1 to 1,000,000, and no more than the limit on open files allows. At the limit, the
    /// gateway closes a connection for each new one: the oldest that has not sent a request, or else the one idle for longest.
    pub connections_max: usize,
    /// Maximum number of connections per peer address, for IPv6 per /64: 1 to 1,000,000.
    pub connections_per_peer_max: usize,
    /// How long a client may read nothing of its answer, milliseconds: 100 to 600,000.
    pub write_timeout_ms: u64,
    /// Maximum number of rides in one request, 1 to 100,000; no more than `scorer.rides_max`.
    pub rides_max: usize,
    /// Maximum number of rides in a message that several requests share: 1 to 100,000.
    pub coalesce_rides_max: usize,
    /// How long a request waits for others to share its message while another message is in progress, microseconds: 0 to
    /// 1,000,000.
    pub coalesce_wait_us: u64,
}

/// Whether requests need a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Every request needs a key, except those for the page and for health.
    Keys,
    /// Every client that can reach the port may do everything.
    Off,
}

/// A valid key, given by its SHA-256. Only the owner has the key itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Name of its owner, for logs.
    pub name: String,
    /// SHA-256 of the key, 64 hex digits; `wildrydes key` generates both.
    pub sha256: String,
    /// What the key permits.
    pub scopes: Vec<Scope>,
    /// Maximum number of requests per second, 1 or more; no limit if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
}

/// What a key permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Scope {
    /// Requesting scores, and reading everything.
    Read,
    /// Submitting batches.
    Write,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bind: "127.0.0.1:8080".to_owned(),
            ops_bind: None,
            hosts: Vec::new(),
            auth: Auth::Keys,
            keys: Vec::new(),
            tls_cert_file: None,
            tls_key_file: None,
            model: layout::GLOBAL_MODEL.to_owned(),
            deadline_ms: 5_000,
            stall_ms: 10_000,
            upload_bytes_max: 4 << 30,
            uploads_max: 16,
            upload_bytes_per_second_min: 4 << 10,
            upload_ms_max: 4 * 60 * 60 * 1_000,
            body_bytes_max: 8 << 20,
            requests_max: 10_000,
            requests_per_key_max: 1_000,
            connections_max: 16_384,
            connections_per_peer_max: 4_096,
            write_timeout_ms: 30_000,
            rides_max: 10_000,
            coalesce_rides_max: 256,
            coalesce_wait_us: 1_000,
        }
    }
}

impl Settings {
    /// Returns the address to listen on.
    ///
    /// # Errors
    /// Fails if the setting is not an address with a port.
    pub fn address(&self) -> Result<SocketAddr, Problem> {
        let expected = "an address and a port, as in 127.0.0.1:8080 or [::]:8080";
        self.bind.parse().map_err(|_| Problem::new("bind", &self.bind, expected))
    }

    /// Returns the address to listen on for probes and Prometheus, if any.
    ///
    /// # Errors
    /// Fails if the setting is not an address with a port.
    pub fn ops_address(&self) -> Result<Option<SocketAddr>, Problem> {
        let Some(bind) = &self.ops_bind else { return Ok(None) };
        let expected = "an address and a port, as in 127.0.0.1:8081 or [::]:8081";
        bind.parse().map(Some).map_err(|_| Problem::new("ops_bind", bind, expected))
    }
}

impl config::Settings for Settings {
    const SECTION: &'static str = GATEWAY.section;
    const REFERENCE: &'static [Entry] = &[
        text("bind", "address:port").means("where to listen; port 0 takes a free one"),
        text("ops_bind", "address:port")
            .means("where to serve only /healthz, /readyz and /metrics, for probes and Prometheus"),
        entry("hosts", Kind::List, "host names").means(
            "hosts that requests may name, others get 421; if empty, with auth = \"off\": localhost, loopback \
            addresses and that of bind; with keys: all",
        ),
        text("auth", "keys | off")
            .means("whether requests need a key; off: every client that can reach the port may do everything"),
        entry("keys", Kind::List, "tables")
            .means("[[gateway.keys]] with name, sha256, scopes, requests_per_second: `wildrydes key NAME` prints one"),
        text("tls_cert_file", "path")
            .means("certificate chain in PEM: HTTPS instead of HTTP; together with tls_key_file"),
        text("tls_key_file", "path").means("private key of the certificate in PEM; together with tls_cert_file"),
        text("model", "name").means("model family that /v2/models and the page show"),
        number("deadline_ms", "milliseconds", 10..=600_000).means("how long a request may take, except uploads"),
        number("stall_ms", "milliseconds", 100..=600_000).means("how long a client may pause while it sends a body"),
        number("upload_bytes_max", "bytes", 1..=1 << 40).means("maximum size of an upload"),
        number("uploads_max", "uploads", 1..=1_000).means(
            "maximum written at the same time, shared between keys or peers; a new one replaces a slow one, or \
            gets 503",
        ),
        number("upload_bytes_per_second_min", "bytes per second", 1..=1 << 30)
            .means("lowest rate of an upload; one that falls behind it by stall_ms is ended with 408"),
        number("upload_ms_max", "milliseconds", 1_000..=604_800_000).means("how long an upload may take"),
        number("body_bytes_max", "bytes", 1_024..=64 << 20)
            .means("maximum size of any other body, as received and decompressed"),
        number("requests_max", "requests", 1..=1_000_000).means("maximum in progress at the same time; more get 503"),
        number("requests_per_key_max", "requests", 1..=1_000_000)
            .means("maximum in progress with one key at the same time; more get 429"),
        number("connections_max", "connections", 1..=1_000_000)
            .means("maximum open at the same time; at the limit, a new one replaces one without a request"),
        number("connections_per_peer_max", "connections", 1..=1_000_000)
            .means("maximum per peer address, for IPv6 per /64"),
        number("write_timeout_ms", "milliseconds", 100..=600_000)
            .means("how long a client may read nothing of its answer"),
        number("rides_max", "rides", 1..=SCORE_RIDES_MAX as u64)
            .means("maximum in one request; no more than scorer.rides_max"),
        number("coalesce_rides_max", "rides", 1..=SCORE_RIDES_MAX as u64)
            .means("maximum in a message of several requests"),
        number("coalesce_wait_us", "microseconds", 0..=1_000_000)
            .means("how long a request waits for others to share its message"),
    ];

    fn check_rules(&self) -> Result<(), Problem> {
        self.address()?;
        self.ops_address()?;
        if let Some(host) = self.hosts.iter().find(|host| normalized_host(host).is_none()) {
            let expected =
                "host names and addresses without scheme and port, as in rides.example.org, 192.0.2.7 or [::1]";
            return Err(Problem::new("hosts", host, expected));
        }
        if self.auth == Auth::Keys && self.keys.is_empty() {
            return Err(Problem::new(
                "keys",
                "[]",
                "at least one key (`wildrydes key NAME` makes one), or auth = \"off\" to let every client that can reach the port do everything",
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
        if !layout::is_model_name(&self.model) {
            return Err(Problem::new("model", &self.model, "the name of a model family, e.g. service-request"));
        }
        Ok(())
    }
}

/// Normalises a host name or address for comparison: lower case, without a trailing dot, IPv6 in brackets. Returns `None` if it
/// is neither.
pub(crate) fn normalized_host(host: &str) -> Option<String> {
    let bare = match host.strip_prefix('[') {
        Some(rest) => {
            return rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(|address| format!("[{address}]"));
        }
        None => host.strip_suffix('.').unwrap_or(host),
    };
    match bare.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => Some(format!("[{address}]")),
        Ok(IpAddr::V4(address)) => Some(address.to_string()),
        Err(_) => {
            let is_label = |label: &str| {
                !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            };
            let is_name = bare.len() <= 253 && bare.split('.').all(is_label);
            is_name.then(|| bare.to_ascii_lowercase())
        }
    }
}

/// Returns the section as `--help` prints it: key, unit, range, default and meaning of every setting.
pub fn reference() -> String {
    let defaults = serde_json::to_value(Settings::default()).unwrap_or_default();
    let mut lines = vec!["The section [gateway]:".to_owned()];
    for Entry { key, kind, unit, meaning } in Settings::REFERENCE {
        let range = kind.range().map_or_else(String::new, |range| format!(", {range}"));
        let default = match &defaults[key] {
            serde_json::Value::Null => "none".to_owned(),
            default => default.to_string(),
        };
        lines.push(format!("  {key}\n      {meaning} ({unit}{range}; default {default})"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Settings {
        Settings { auth: Auth::Off, ..Settings::default() }
    }

    fn with(key: &str, value: serde_json::Value) -> Settings {
        let mut json = serde_json::to_value(open()).unwrap();
        json[key] = value;
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn every_setting_is_in_the_reference_and_nothing_else() {
        let text = || Some(String::new());
        let all = Settings { ops_bind: text(), tls_cert_file: text(), tls_key_file: text(), ..open() };
        let json = serde_json::to_value(all).unwrap();
        let mut keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let mut listed: Vec<&str> = Settings::REFERENCE.iter().map(|entry| entry.key).collect();
        keys.sort_unstable();
        listed.sort_unstable();
        assert_eq!(listed, keys);
        for entry in Settings::REFERENCE {
            assert_eq!(entry.kind.range().is_some(), json[entry.key].is_u64(), "{}: numbers have a range", entry.key);
        }
    }

    #[test]
    fn the_check_uses_the_ranges_of_the_reference() {
        assert_eq!(open().check(), Ok(()));
        for Entry { key, kind, .. } in Settings::REFERENCE {
            let Kind::Integer(min, Some(max)) = *kind else { continue };
            for good in [min, max] {
                assert_eq!(with(key, good.into()).check(), Ok(()), "{key} = {good}");
            }
            for bad in min.checked_sub(1).into_iter().chain([max + 1]) {
                assert_eq!(with(key, bad.into()).check().unwrap_err().key, *key, "{key} = {bad}");
            }
        }
    }

    #[test]
    fn hosts_are_a_list_or_a_text_separated_by_commas() {
        let expected = ["localhost", "[::1]", "rides.example.org"].map(str::to_owned).to_vec();
        for given in [serde_json::json!(expected), "localhost, [::1],rides.example.org,".into()] {
            let settings = with("hosts", given);
            assert_eq!(settings.hosts, expected);
            assert_eq!(settings.check(), Ok(()));
        }
        assert_eq!(with("hosts", "".into()).hosts, Vec::<String>::new());
        for bad in ["localhost:8080", "http://localhost", "*", "*.example.org", "[::1", "a..b", "a b"] {
            assert_eq!(with("hosts", bad.into()).check().unwrap_err().key, "hosts", "{bad}");
        }
        assert_eq!(with("ops_bind", "8081".into()).check().unwrap_err().key, "ops_bind");
    }

    #[test]
    fn the_help_has_key_unit_range_and_default_of_every_setting() {
        let help = reference();
        assert!(help.contains("deadline_ms\n      how long a request may take"), "{help}");
        assert!(help.contains("(milliseconds, 10 to 600000; default 5000)"), "{help}");
        assert!(help.contains("(path; default none)") && help.contains("default \"127.0.0.1:8080\""), "{help}");
    }
}
