//! The way to a weather service: HTTP through reqwest, or whatever a simulation puts in its place.

use crate::{
    client::Manners,
    gunzip::{Input, gunzip},
    source::told,
};
use bytes::Bytes;
use futures::{
    TryStreamExt,
    future::{BoxFuture, FutureExt},
    stream::{self, BoxStream, StreamExt},
};
use reqwest::{Response, StatusCode, Url, header};
use std::{error::Error, fmt, io};
use tokio_util::io::StreamReader;

/// A whole answer may take as many times longer than the longest silence.
const TOTAL_TIMEOUTS: u32 = 10;
const REDIRECTS_MAX: usize = 5;

/// What a service answered, its body still to be read.
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// The header `Retry-After`, as it came.
    pub retry_after: Option<String>,
    /// The body, piece by piece. Of a redirect that was not followed: one error, which says why.
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
        // Decompressed here: with padding after the data, which reqwest takes for damage.
        let encoding = (header::ACCEPT_ENCODING, header::HeaderValue::from_static("gzip"));
        let client = reqwest::Client::builder()
            .user_agent(user_agent)
            .default_headers([encoding].into_iter().collect())
            .no_gzip()
            .connect_timeout(manners.timeout)
            .read_timeout(manners.timeout)
            .timeout(manners.timeout * TOTAL_TIMEOUTS)
            .redirect(reqwest::redirect::Policy::custom(same_service))
            .build()?;
        Ok(Self(client))
    }

    /// Asks whether something is there.
    ///
    /// # Errors
    /// In words, what broke.
    pub async fn head(&self, url: &str) -> Result<Head, String> {
        let response = self.0.head(url).send().await.map_err(|error| chain(&error))?;
        let date = response.headers().get(header::DATE).and_then(|value| value.to_str().ok());
        let redirect = response.status().is_redirection().then(|| not_followed(url, &response));
        Ok(Head { status: response.status(), date: date.map(str::to_owned), redirect })
    }
}

/// What a service answered when asked whether something is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// HTTP status.
    pub status: StatusCode,
    /// The header `Date`, as it came.
    pub date: Option<String>,
    /// Of a redirect: why it was not followed.
    pub redirect: Option<String>,
}

impl Http for Reqwest {
    fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Answer, String>> {
        async move {
            let response = self.0.get(url).send().await.map_err(|error| chain(&error))?;
            let status = response.status();
            let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
            let retry_after = text(header::RETRY_AFTER).map(str::to_owned);
            let is_compressed = text(header::CONTENT_ENCODING)
                .is_some_and(|name| matches!(name.trim().to_ascii_lowercase().as_str(), "gzip" | "x-gzip"));
            if status.is_redirection() {
                let reason = io::Error::other(not_followed(url, &response));
                return Ok(Answer { status, retry_after, body: stream::iter([Err(reason)]).boxed() });
            }
            let body = response.bytes_stream().map_err(io::Error::other).boxed();
            let body = match is_compressed {
                // One layer of gzip: that of the transfer, or that of the file, which some services declare so, too.
                true => gunzip(Input::new(StreamReader::new(body))).boxed(),
                false => body,
            };
            Ok(Answer { status, retry_after, body })
        }
        .boxed()
    }
}

/// Why a redirect from `url` was not followed.
fn not_followed(url: &str, response: &Response) -> String {
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    reason_not_followed(url, response.url(), location)
}

/// Why the redirect from `last`, which was reached from `url`, to `location` is not followed.
fn reason_not_followed(url: &str, last: &Url, location: Option<&str>) -> String {
    let Some(to) = location.and_then(|location| last.join(location).ok()) else {
        return "a redirect that names no address".to_owned();
    };
    let first = Url::parse(url).ok();
    // A query may hold a signature.
    let shown = |url: &Url| told(url.as_str().split(['?', '#']).next().unwrap_or_default());
    if !first.as_ref().is_some_and(|first| is_same_service(first, &to)) {
        return format!(
            "a redirect to {}, and one to another host or port, or away from https, is not followed",
            shown(&to)
        );
    }
    if to == *last || first.as_ref() == Some(&to) {
        return format!("a redirect loop: {} redirects to {} again", shown(last), shown(&to));
    }
    format!("a redirect loop, or more than {REDIRECTS_MAX} redirects, the last from {} to {}", shown(last), shown(&to))
}

/// A service may move a file about, but nobody else is asked in its place: another port is another service, and what is
/// asked for over https is not fetched in the clear.
fn same_service(attempt: reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action {
    let same = attempt.previous().first().is_some_and(|first| is_same_service(first, attempt.url()));
    let again = attempt.previous().contains(attempt.url());
    if same && !again && attempt.previous().len() <= REDIRECTS_MAX { attempt.follow() } else { attempt.stop() }
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

    #[test]
    fn a_redirect_that_is_not_followed_says_why() {
        for (from, last, location, words) in [
            ("https://h/a", "https://h/a", Some("/a"), "a redirect loop: https://h/a redirects to https://h/a again"),
            ("https://h/a", "https://h/b", Some("a"), "a redirect loop: https://h/b redirects to https://h/a again"),
            (
                "https://h/a",
                "https://h/e",
                Some("/f?key=1"),
                "more than 5 redirects, the last from https://h/e to https://h/f",
            ),
            (
                "https://h/a",
                "https://h/a",
                Some("http://h/a"),
                "a redirect to http://h/a, and one to another host or port",
            ),
            ("https://h/a", "https://h/a", Some("https://u:p@x/a?key=1"), "a redirect to https://…@x/a, and one"),
            ("https://h/a", "https://h/a", None, "names no address"),
        ] {
            let why = reason_not_followed(from, &Url::parse(last).unwrap(), location);
            assert!(why.contains(words) && !why.contains("key"), "{from} {location:?}: {why}");
        }
    }
}
