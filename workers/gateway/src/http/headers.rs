//! Headers of every answer.

use axum::http::{HeaderMap, HeaderValue, header};

/// How long a browser uses HTTPS only after it reached this gateway over TLS: one year.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Adds the headers. `route` is the path as the router knows it; `is_tls` says whether the gateway itself terminates TLS.
pub(crate) fn complete(headers: &mut HeaderMap, route: &str, is_tls: bool) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let is_page = matches!(route, "/" | "/docs" | "/page/{file}");
    // The page sets the caching of its files; answers of the API, including errors, are never stored.
    if !is_page || !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if is_tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(cache_control: Option<&'static str>, route: &str, is_tls: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(value) = cache_control {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(value));
        }
        complete(&mut headers, route, is_tls);
        headers
    }

    #[test]
    fn answers_of_the_api_are_not_stored_and_files_of_the_page_keep_their_caching() {
        for (cache_control, route, expected) in [
            (None, "/v1/batches", "no-store"),
            (Some("no-cache"), "/v1/fleet/events", "no-store"),
            (None, "(none)", "no-store"),
            // A POST of the workshop's client, and a file that does not exist.
            (None, "/", "no-store"),
            (None, "/page/{file}", "no-store"),
            (Some("no-cache"), "/", "no-cache"),
            (Some("no-cache"), "/page/{file}", "no-cache"),
        ] {
            let headers = completed(cache_control, route, false);
            assert_eq!(headers[header::CACHE_CONTROL], expected, "{route}");
            assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{route}");
        }
    }

    #[test]
    fn strict_transport_security_is_sent_over_tls_only() {
        assert!(!completed(None, "/", false).contains_key(header::STRICT_TRANSPORT_SECURITY));
        assert_eq!(completed(None, "/", true)[header::STRICT_TRANSPORT_SECURITY], HSTS);
    }
}
