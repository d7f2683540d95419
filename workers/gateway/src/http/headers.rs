//! Headers that every answer carries.

use axum::http::{HeaderMap, HeaderValue, header};

/// How long a browser uses HTTPS only, once it has seen this gateway over TLS: a year.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Adds them. `route`: the path as the router knows it. `is_tls`: whether the connection is encrypted by the gateway itself.
pub(crate) fn complete(headers: &mut HeaderMap, route: &str, is_tls: bool) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let is_page = matches!(route, "/" | "/docs" | "/page/{file}");
    // The page says how its files are cached; answers of the API, errors among them, are kept by nobody.
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
            // POST of the workshop's client, and files that do not exist.
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
    fn only_over_tls_browsers_are_told_to_use_tls() {
        assert!(!completed(None, "/", false).contains_key(header::STRICT_TRANSPORT_SECURITY));
        assert_eq!(completed(None, "/", true)[header::STRICT_TRANSPORT_SECURITY], HSTS);
    }
}
