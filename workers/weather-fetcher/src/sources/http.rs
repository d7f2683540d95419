//! HTTP to a weather service: through reqwest, or through a simulation.

use crate::{
    formats::gzip::{Input, gunzip},
    sources::{location::redacted_url, request_policy::RequestPolicy},
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

/// Maximum duration of a whole answer, as a multiple of the maximum silence.
const TOTAL_TIMEOUTS: u32 = 10;
const REDIRECTS_MAX: usize = 5;

/// The answer of a service, whose body is still to be read.
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Value of the header `Retry-After`.
    pub retry_after: Option<String>,
    /// The body in pieces. For a redirect that was not followed it is one error, which says why.
    pub body: BoxStream<'static, io::Result<Bytes>>,
}

/// An HTTP client.
pub trait Http: fmt::Debug + Send + Sync {
    /// Sends one request, without a retry. The error describes the failure.
    fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Answer, String>>;
}

/// The HTTP client of production.
#[derive(Debug)]
pub struct Reqwest(reqwest::Client);

impl Reqwest {
    /// Creates a client.
    ///
    /// # Errors
    /// Fails if the machine has no CA certificates.
    pub fn new(request_policy: &RequestPolicy) -> Result<Self, reqwest::Error> {
        records::tls::install_cryptography();
        let mut user_agent = format!("wildrydes-weather-fetcher/{}", env!("CARGO_PKG_VERSION"));
        if let Some(contact) = &request_policy.contact {
            user_agent.push_str(&format!(" (+{contact})"));
        }
        // Decompressed here, because reqwest treats padding after the data as damage.
        let encoding = (header::ACCEPT_ENCODING, header::HeaderValue::from_static("gzip"));
        let client = reqwest::Client::builder()
            .user_agent(user_agent)
            .default_headers([encoding].into_iter().collect())
            .no_gzip()
            .connect_timeout(request_policy.timeout)
            .read_timeout(request_policy.timeout)
            .timeout(request_policy.timeout * TOTAL_TIMEOUTS)
            .redirect(reqwest::redirect::Policy::custom(same_service))
            .build()?;
        Ok(Self(client))
    }

    /// Sends a HEAD request.
    ///
    /// # Errors
    /// Describes the failure of the request.
    pub async fn head(&self, url: &str) -> Result<Head, String> {
        let response = self.0.head(url).send().await.map_err(|error| chain(&error))?;
        let date = response.headers().get(header::DATE).and_then(|value| value.to_str().ok());
        let redirect = response.status().is_redirection().then(|| not_followed(url, &response));
        Ok(Head { status: response.status(), date: date.map(str::to_owned), redirect })
    }
}

/// The answer to a HEAD request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// HTTP status.
    pub status: StatusCode,
    /// Value of the header `Date`.
    pub date: Option<String>,
    /// Why a redirect was not followed; `None` if the answer is no redirect.
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
                // One layer of gzip: that of the transfer, or that of the file, which some services declare the same way.
                true => gunzip(Input::new(StreamReader::new(body))).boxed(),
                false => body,
            };
            Ok(Answer { status, retry_after, body })
        }
        .boxed()
    }
}

/// Explains why a redirect from `url` was not followed.
fn not_followed(url: &str, response: &Response) -> String {
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    reason_not_followed(url, response.url(), location)
}

/// Explains why the redirect from `last`, which was reached from `url`, to `location` is not followed.
fn reason_not_followed(url: &str, last: &Url, location: Option<&str>) -> String {
    let Some(to) = location.and_then(|location| last.join(location).ok()) else {
        return "a redirect that names no address".to_owned();
    };
    let first = Url::parse(url).ok();
    // A query may hold a signature.
    let redacted = |url: &Url| redacted_url(url.as_str().split(['?', '#']).next().unwrap_or_default());
    if !first.as_ref().is_some_and(|first| is_same_service(first, &to)) {
        return format!(
            "a redirect to {}, and one to another host or port, or away from https, is not followed",
            redacted(&to)
        );
    }
    if to == *last || first.as_ref() == Some(&to) {
        return format!("a redirect loop: {} redirects to {} again", redacted(last), redacted(&to));
    }
    format!(
        "a redirect loop, or more than {REDIRECTS_MAX} redirects, the last from {} to {}",
        redacted(last),
        redacted(&to)
    )
}

/// Follows redirects within a service only. Another port is another service, and a request over https is not repeated over
/// http.
fn same_service(attempt: reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action {
    let same = attempt.previous().first().is_some_and(|first| is_same_service(first, attempt.url()));
    let again = attempt.previous().contains(attempt.url());
    if same && !again && attempt.previous().len() <= REDIRECTS_MAX { attempt.follow() } else { attempt.stop() }
}

fn is_same_service(first: &Url, to: &Url) -> bool {
    let is_same_origin = first.scheme() == to.scheme() && first.port_or_known_default() == to.port_or_known_default();
    // Both on their default ports.
    let is_secured = (first.scheme(), to.scheme()) == ("http", "https") && first.port().or(to.port()).is_none();
    (is_same_origin || is_secured) && first.host_str().is_some() && first.host_str() == to.host_str()
}

/// Returns the text of an error and of its causes. The causes of HTTP errors hold the details.
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
    fn redirects_are_followed_within_the_service_only() {
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
