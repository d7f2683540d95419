//! One HTTP service: how often it is asked, its pauses, and the meaning of its answers.

use crate::{
    formats::{
        json::Json,
        lines::{Parsed, Text},
    },
    sources::{
        body::parse_body,
        http::{Answer, Http},
        location::Location,
        unavailable::Unavailable,
    },
};
use futures::StreamExt;
use governor::DefaultDirectRateLimiter;
use jiff::Timestamp;
use parking_lot::Mutex;
use reqwest::StatusCode;
use runtime::{host, metrics::metrics};
use serde::de::DeserializeOwned;
use std::{num::NonZeroU32, sync::Arc, time::Duration};
use tokio::time::Instant;
use tokio_util::io::StreamReader;

/// Maximum pause that a service is granted.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A service that is asked at most so many times per second, and not while it has asked for a pause.
#[derive(Debug)]
pub struct Service {
    name: &'static str,
    http: Arc<dyn Http>,
    limiter: DefaultDirectRateLimiter,
    paused_until: Mutex<Option<Instant>>,
}

impl Service {
    /// Returns the service `name`, as metrics call it, reached through `http`.
    pub fn new(name: &'static str, http: Arc<dyn Http>, requests_per_second: NonZeroU32) -> Self {
        let limiter = DefaultDirectRateLimiter::direct(governor::Quota::per_second(requests_per_second));
        Self { name, http, limiter, paused_until: Mutex::new(None) }
    }

    /// Waits until the rate limit permits a request.
    ///
    /// # Errors
    /// Fails at once during a pause that the service asked for.
    pub async fn ready(&self) -> Result<(), Unavailable> {
        let until = *self.paused_until.lock();
        if let Some(left) = until.map(|until| until.saturating_duration_since(Instant::now()))
            && !left.is_zero()
        {
            return Err(Unavailable::Paused { retry_after: left });
        }
        self.limiter.until_ready().await;
        Ok(())
    }

    /// Sends no request until `pause` is over.
    pub fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause.min(RETRY_AFTER_MAX);
        let mut paused = self.paused_until.lock();
        *paused = Some(paused.map_or(until, |before| before.max(until)));
    }

    /// Returns whether the service answers 200 now, which it is asked in one request.
    pub async fn answers(&self, url: &str) -> bool {
        self.ready().await.is_ok() && self.http.get(url).await.is_ok_and(|answer| answer.status == StatusCode::OK)
    }

    /// Sends one request and parses the answer; `None` if nothing is there. `answered` is called if the status is 200.
    ///
    /// # Errors
    /// Fails with the reason if there is no answer or it is not the expected text.
    pub async fn request<T: Text>(
        &self,
        url: &str,
        text: T,
        answered: impl FnOnce(),
    ) -> Result<Option<Parsed<T::Output>>, Unavailable> {
        let broken = |why| Unavailable::Broken { location: url.to_owned(), why };
        let started = Instant::now();
        let answer = self.http.get(url).await;
        let outcome = match &answer {
            Ok(answer) if answer.status == StatusCode::OK => "ok",
            Ok(answer) if matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE) => "missing",
            Ok(_) => "refused",
            Err(_) => "failed",
        };
        metrics().weather_request(self.name, outcome, started.elapsed());
        let Answer { status, retry_after: header, mut body } = answer.map_err(broken)?;
        if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
            return Ok(None);
        }
        if status.is_redirection() {
            let reason = body.next().await.and_then(Result::err);
            let why = reason.map_or_else(|| "the redirect is not followed".to_owned(), |reason| reason.to_string());
            return Err(Unavailable::Redirected { location: url.to_owned(), status, why });
        }
        if status != StatusCode::OK {
            let retry_after = header.and_then(|value| retry_after(&value, host::now()));
            return Err(Unavailable::Status { location: url.to_owned(), status, retry_after });
        }
        answered();
        parse_body(&Location::Url(url.to_owned()), StreamReader::new(body), text).await.map(Some)
    }

    /// Reads a JSON document in one attempt; `None` if nothing is there. Grants a pause that the service asks for.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn read_json<T: DeserializeOwned + Send>(&self, url: &str) -> Result<Option<T>, Unavailable> {
        self.ready().await?;
        let answer = self.request(url, Json::default(), || {}).await;
        if let Some(pause) = answer.as_ref().err().and_then(Unavailable::retry_after) {
            self.pause(pause);
        }
        Ok(answer?.map(|parsed| parsed.value))
    }
}

/// Reads a `Retry-After` (RFC 9110 §10.2.3): seconds, or an HTTP date.
fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let pause = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
            Duration::try_from(at.duration_since(now)).unwrap_or_default()
        }
    };
    Some(pause.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_its_forms() {
        let now: Timestamp = "1994-11-06T08:49:00Z".parse().unwrap();
        for (value, seconds) in [
            ("120", Some(120)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(37)),
            ("Sun, 06 Nov 1994 08:40:00 GMT", Some(0)),
            ("99999999999", Some(24 * 60 * 60)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value}");
        }
    }
}
