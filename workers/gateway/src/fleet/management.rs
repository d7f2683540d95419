//! RabbitMQ's management API: rates, messages in flight and other facts that AMQP does not offer.

use jiff::Timestamp;
use reqwest::{Certificate, Client, RequestBuilder, StatusCode, Url, header::DATE};
use runtime::config::BrokerSettings;
use serde_json::Value;
use std::time::Duration;

/// Port of the management API, without and with TLS.
const PORTS: [u16; 2] = [15672, 15671];
const TIMEOUT: Duration = Duration::from_secs(10);

/// A client of the management API.
pub struct Management {
    client: Client,
    base: Url,
    user: String,
    password: Option<String>,
    /// The virtual host of the fleet.
    pub vhost: String,
}

/// An answer of the management API.
pub struct Answer {
    /// JSON.
    pub body: Value,
    /// Time of the answer, by the broker's clock.
    pub date: Option<Timestamp>,
}

impl Management {
    /// Creates a client of the API that the configuration names, or else of the default port on the broker's host.
    ///
    /// # Errors
    /// Fails if an address, a certificate or the password file is invalid.
    pub fn new(settings: &BrokerSettings) -> anyhow::Result<Self> {
        let misused = |why: String| anyhow::anyhow!("{why}");
        let amqp = Url::parse(settings.url.reveal()).map_err(|error| misused(format!("broker.url: {error}")))?;
        let mut base = match &settings.management_url {
            Some(url) => {
                Url::parse(url.reveal()).map_err(|error| misused(format!("broker.management_url: {error}")))?
            }
            None => {
                let tls = amqp.scheme() == "amqps";
                let (scheme, host) = (if tls { "https" } else { "http" }, amqp.host_str().unwrap_or("localhost"));
                let port = PORTS[usize::from(tls)];
                Url::parse(&format!("{scheme}://{host}:{port}"))
                    .map_err(|error| misused(format!("broker.url: {error}")))?
            }
        };
        let named = if base.username().is_empty() { &amqp } else { &base };
        let user = decoded(named.username());
        let user = if user.is_empty() { "guest".to_owned() } else { user };
        let in_file = |file: &String| match std::fs::read_to_string(file) {
            Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => Err(misused(format!("broker.password_file = {file}: {error}"))),
        };
        let password = match (named.password(), &settings.password_file) {
            (Some(password), _) => Some(decoded(password)),
            (None, Some(file)) => Some(in_file(file)?),
            (None, None) => (user == "guest").then(|| "guest".to_owned()),
        };
        // The URL is printed in errors: it must not contain credentials.
        let (_, _) = (base.set_username(""), base.set_password(None));
        let vhost = match amqp.path() {
            "" => "/".to_owned(),
            path => decoded(&path[1..]),
        };
        records::tls::install_cryptography();
        let mut client = Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
        if let Some(file) = &settings.ca_file {
            let wrong = |why: String| misused(format!("broker.ca_file = {file}: {why}"));
            let pem = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
            let authorities = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(error.to_string()))?;
            client = client.tls_certs_only(authorities);
        }
        let client = client.build().map_err(|error| misused(format!("an HTTP client: {error}")))?;
        Ok(Self { client, base, user, password, vhost })
    }

    /// Returns the name of the user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Requests `api/<parts>`.
    ///
    /// # Errors
    /// Returns why there is no answer.
    pub async fn get(&self, parts: &[&str]) -> Result<Answer, String> {
        self.ask(parts, &[]).await
    }

    /// Requests `api/<parts>` with a query.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn ask(&self, parts: &[&str], query: &[(&str, &str)]) -> Result<Answer, String> {
        let mut url = self.url(parts);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.answered(parts, self.client.get(url)).await
    }

    /// Imports users and permissions: `POST api/definitions`. Needs the tag `administrator`.
    ///
    /// # Errors
    /// Returns why they are not imported.
    pub async fn import(&self, definitions: &Value) -> Result<(), String> {
        let parts = ["definitions"];
        let request = self.client.post(self.url(&parts)).json(definitions);
        self.answered(&parts, request).await.map(drop)
    }

    fn url(&self, parts: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("api").extend(parts);
        }
        url
    }

    async fn answered(&self, parts: &[&str], request: RequestBuilder) -> Result<Answer, String> {
        let request = request.basic_auth(&self.user, self.password.as_deref());
        let away = |error: reqwest::Error| format!("no management API at {}: {}", self.base, cause(&error));
        let response = request.send().await.map_err(away)?;
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok()).and_then(http_date);
        match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let body = response.bytes().await.unwrap_or_default();
                let refused: Value = serde_json::from_slice(&body).unwrap_or_default();
                return Err(refusal(&self.user, refused["reason"].as_str().unwrap_or_default()));
            }
            StatusCode::NO_CONTENT => return Ok(Answer { body: Value::Null, date }),
            // A failed health check is answered with 503.
            StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => {}
            other => return Err(format!("the management API answered {} with {other}", parts.join("/"))),
        }
        let body = response.bytes().await.map_err(away)?;
        let body = serde_json::from_slice(&body)
            .map_err(|error| format!("the answer of the management API is not JSON: {error}"))?;
        Ok(Answer { body, date })
    }

    /// Returns every queue of the virtual host: name, ready and unacknowledged messages, consumers, arguments, policies.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn queues(&self) -> Result<Vec<Value>, String> {
        let answer = self.get(&["queues", &self.vhost]).await?;
        match answer.body {
            Value::Array(queues) => Ok(queues),
            _ => Err("the management API did not answer with a list of queues".to_owned()),
        }
    }
}

/// Returns the message of a refusal. RabbitMQ answers 401 both to an unknown user and to one without permission; only its text
/// differs. The message does not name the path, so that the same refusal of many requests is recognised as one.
fn refusal(user: &str, reason: &str) -> String {
    match reason.strip_prefix("Not ").and_then(|rest| rest.strip_suffix(" user")) {
        Some(needed) => {
            let tag = if needed == "monitor" { "monitoring" } else { needed };
            format!("the user {user} lacks the tag {tag}, which the management API requires")
        }
        None if reason.contains("virtual host") => format!("the user {user} may not use this virtual host ({reason})"),
        None => format!("the management API refuses the user {user}: wrong user or password ({reason})"),
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match hex.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns the innermost cause of an error: the outer ones repeat the URL.
pub fn cause(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).last().map(ToString::to_string).unwrap_or_default()
}

/// Reads an HTTP date such as `Tue, 24 Nov 2026 03:12:40 GMT`.
pub fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.replace("GMT", "+0000")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tag_is_not_reported_as_a_wrong_password() {
        // The texts of RabbitMQ 3.10 and 4.0.
        for (reason, part) in [
            ("Not administrator user", "lacks the tag administrator"),
            ("Not monitor user", "lacks the tag monitoring"),
            ("Not management user", "lacks the tag management"),
            ("User not authorised to access virtual host", "may not use this virtual host"),
            ("Not_Authorized", "wrong user or password"),
            ("Login failed", "wrong user or password"),
            ("User can only log in via localhost", "only log in via localhost"),
        ] {
            let message = refusal("ada", reason);
            assert!(message.contains(part) && message.contains("ada"), "{message}");
        }
    }

    #[test]
    fn percent_encoding_and_http_dates_are_read() {
        assert_eq!((decoded("%2f"), decoded("a%40b%"), decoded("plain")), ("/".into(), "a@b%".into(), "plain".into()));
        let date = http_date("Tue, 24 Nov 2026 03:12:40 GMT").map(|date| date.to_string());
        assert_eq!(date.as_deref(), Some("2026-11-24T03:12:40Z"));
    }
}
