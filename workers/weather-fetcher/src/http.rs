//! The way to a weather service: HTTP through reqwest, or whatever a simulation puts in its place.

use crate::client::Manners;
use bytes::Bytes;
use futures::{
    TryStreamExt,
    future::{BoxFuture, FutureExt},
    stream::{BoxStream, StreamExt},
};
use reqwest::{StatusCode, Url, header};
use std::{error::Error, fmt, io};

/// A whole answer may take as many times longer than the longest silence.
const TOTAL_TIMEOUTS: u32 = 10;
const REDIRECTS_MAX: usize = 5;

/// What a service answered, its body still to be read.
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// The header `Retry-After`, as it came.
    pub retry_after: Option<String>,
    /// The body, piece by piece.
    pub body: BoxStream<'static, io::Result<Bytes>>,
}

/// Asks a service for what is behind a URL.
pub trait Http: fmt::Debug + Send + Sync {
    /// Sends one request, without trying again; the error says in words what broke.
    fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Answer, String>>;
}

/// The real one.
#[derive(Debug)]
pub struct Reqwest(reqwest::Client);

impl Reqwest {
    /// # Errors
    /// When the machine has no certificates to check a service by.
    pub fn new(manners: &Manners) -> Result<Self, reqwest::Error> {
        // Several crates of a process may have installed the same provider: whoever came first is fine.
        rustls::crypto::ring::default_provider().install_default().ok();
        let mut user_agent = format!("wildrydes-weather-fetcher/{}", env!("CARGO_PKG_VERSION"));
        if let Some(contact) = &manners.contact {
            user_agent.push_str(&format!(" (+{contact})"));
        }
        let client = reqwest::Client::builder()
            .user_agent(user_agent)
            .connect_timeout(manners.timeout)
            .read_timeout(manners.timeout)
            .timeout(manners.timeout * TOTAL_TIMEOUTS)
            .redirect(reqwest::redirect::Policy::custom(same_host))
            .build()?;
        Ok(Self(client))
    }

    /// Asks whether something is there: the status, and the header `Date` as it came.
    ///
    /// # Errors
    /// In words, what broke.
    pub async fn head(&self, url: &str) -> Result<(StatusCode, Option<String>), String> {
        let response = self.0.head(url).send().await.map_err(|error| chain(&error))?;
        let date = response.headers().get(header::DATE).and_then(|value| value.to_str().ok());
        Ok((response.status(), date.map(str::to_owned)))
    }
}

impl Http for Reqwest {
    fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Answer, String>> {
        async move {
            let response = self.0.get(url).send().await.map_err(|error| chain(&error))?;
            let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
            Ok(Answer {
                status: response.status(),
                retry_after: retry_after.map(str::to_owned),
                body: response.bytes_stream().map_err(io::Error::other).boxed(),
            })
        }
        .boxed()
    }
}

/// A service may move a file about, but nobody else is asked in its place: another port is another service, and what is
/// asked for over https is not fetched in the clear.
fn same_host(attempt: reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action {
    let same = attempt.previous().first().is_some_and(|first| is_same_service(first, attempt.url()));
    if same && attempt.previous().len() <= REDIRECTS_MAX { attempt.follow() } else { attempt.stop() }
}

fn is_same_service(first: &Url, to: &Url) -> bool {
    let kept = first.scheme() == to.scheme() && first.port_or_known_default() == to.port_or_known_default();
    // Both at their usual ports.
    let secured = (first.scheme(), to.scheme()) == ("http", "https") && first.port().or(to.port()).is_none();
    (kept || secured) && first.host_str().is_some() && first.host_str() == to.host_str()
}

/// An error with what caused it: HTTP errors tell the interesting part only there.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_service_itself_is_followed() {
        for (first, to, followed) in [
            ("https://noaa.test/a", "https://noaa.test/b", true),
            ("https://noaa.test/a", "https://noaa.test:443/b", true),
            ("http://noaa.test/a", "https://noaa.test/a", true),
            ("http://noaa.test:8080/a", "http://noaa.test:8080/b", true),
            ("https://noaa.test/a", "http://noaa.test/a", false),
            ("https://noaa.test/a", "https://noaa.test:8443/a", false),
            ("http://noaa.test:8080/a", "http://noaa.test/a", false),
            ("http://noaa.test:8080/a", "https://noaa.test/a", false),
            ("http://noaa.test/a", "https://noaa.test:8443/a", false),
            ("https://noaa.test/a", "https://noaa.test.evil/a", false),
            ("https://noaa.test/a", "https://user@evil.test/noaa.test", false),
            ("https://noaa.test/a", "file:///etc/passwd", false),
        ] {
            let url = |text: &str| Url::parse(text).unwrap();
            assert_eq!(is_same_service(&url(first), &url(to)), followed, "{first} to {to}");
        }
    }
}
