//! Errors as RFC 9457 problem details: what is wrong, where, and what would be right.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use common::outcome::Failure;
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;
use utoipa::ToSchema;

/// The accepted content codings, as a header lists them.
pub(crate) const CODINGS: &str = "gzip, deflate, zstd, br, identity";

/// A problem, `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Problem {
    /// Problem type, `urn:wildrydes:problem:<code>`: stable, for programs.
    #[serde(rename = "type")]
    #[schema(example = "urn:wildrydes:problem:missing-feature")]
    kind: String,
    /// Summary of the type.
    title: &'static str,
    /// HTTP status, as in the status line.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What went wrong in this request, and what to do.
    detail: String,
    /// The invalid fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
    /// Copy of `detail` for clients of the Open Inference Protocol; below `/v2` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    error: Option<Box<str>>,
    /// Seconds.
    #[serde(skip)]
    retry_after: Option<u32>,
    /// Whether the answer lists the accepted codings, because the body's coding is the problem (RFC 9110 §15.5.16).
    #[serde(skip)]
    names_codings: bool,
}

/// The JSON answer of a handler, or why there is none.
pub(crate) type Answer<T> = Result<Json<T>, Problem>;

/// An invalid field.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct FieldError {
    /// Its path, as in `tmin` or `[3].temperature.min`.
    pub field: String,
    /// The value in the request, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>, nullable = false)]
    pub value: Option<Value>,
    /// What would be right.
    pub expected: String,
}

impl Problem {
    fn new(status: StatusCode, code: &str, title: &'static str, detail: impl Into<String>) -> Self {
        let kind = format!("urn:wildrydes:problem:{code}");
        let (status, detail) = (status.as_u16(), detail.into());
        let (error, retry_after) = (None, None);
        Self { kind, title, status, detail, errors: Vec::new(), error, retry_after, names_codings: false }
    }

    /// 400: the request is malformed.
    pub fn unreadable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "unreadable-request", "The request cannot be read", detail)
    }

    /// 401: no key, or an unknown one.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "key-needed", "An API key is needed", detail)
    }

    /// 403: the key lacks the scope.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "scope-missing", "The API key lacks the scope", detail)
    }

    /// 403: a request from a page of another site.
    pub fn foreign(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "foreign-origin", "Cross-site request", detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let detail = "this path has other methods: see the header Allow, and /docs";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", detail)
    }

    /// 408: the client sent nothing of the body for too long.
    pub fn too_slow(stall: Duration) -> Self {
        let detail = format!("nothing of the body arrived for {} ms", stall.as_millis());
        Self::new(StatusCode::REQUEST_TIMEOUT, "body-too-slow", "The body arrived too slowly", detail)
    }

    /// 408: the body was not complete in time.
    pub fn too_late(deadline: Duration) -> Self {
        let detail = format!("the body was not complete within {} ms", deadline.as_millis());
        Self::new(StatusCode::REQUEST_TIMEOUT, "body-too-slow", "The body arrived too slowly", detail)
    }

    /// 408: the body arrives below the lowest rate.
    pub fn below_rate(bytes_per_second: u64) -> Self {
        let detail = format!(
            "the body arrives at less than {bytes_per_second} bytes per second, the minimum for uploads (gateway.upload_bytes_per_second_min)"
        );
        Self::new(StatusCode::REQUEST_TIMEOUT, "body-too-slow", "The body arrived too slowly", detail)
    }

    /// 409: the name already stands for something else.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "The name is already in use", detail)
    }

    /// 409: the batch is not in a state that allows the request.
    pub fn not_ready(code: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, "The batch is not ready for this", detail)
    }

    /// 413.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large", detail)
    }

    /// 415.
    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        let title = "Unsupported media type";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", title, detail)
    }

    /// 415: an unsupported compression; the header Accept-Encoding of the answer lists the supported ones.
    pub(crate) fn unsupported_coding(detail: impl Into<String>) -> Self {
        Self { names_codings: true, ..Self::unsupported_media_type(detail) }
    }

    /// 421: the gateway does not serve this host name.
    pub fn misdirected(detail: impl Into<String>) -> Self {
        let title = "This host name is not served";
        Self::new(StatusCode::MISDIRECTED_REQUEST, "unknown-host", title, detail)
    }

    /// 422: well-formed, but a field is invalid.
    pub fn invalid(code: &str, field: impl Into<String>, value: Option<Value>, expected: impl Into<String>) -> Self {
        let error = FieldError { field: field.into(), value, expected: expected.into() };
        let detail = match &error.value {
            Some(value) => format!("{} is {value}: expected {}", error.field, error.expected),
            None => format!("{}: expected {}", error.field, error.expected),
        };
        Self::unprocessable(code, detail).at(error)
    }

    /// 422 with a detail of its own.
    pub fn unprocessable(code: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, "The request cannot be processed", detail)
    }

    /// 429: the key exceeds its rate.
    pub fn too_many_requests(wait: Duration) -> Self {
        let detail = "this key makes too many requests per second; wait as Retry-After says";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate-limited", "Too many requests", detail).retry_after(wait)
    }

    /// 429: too many requests of this key are in progress.
    pub fn too_many_at_once(requests_max: usize) -> Self {
        let detail = format!(
            "{requests_max} requests with this key are in progress, the maximum (gateway.requests_per_key_max)"
        );
        let title = "Too many requests at once";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-at-once", title, detail).retry_after(Duration::from_secs(1))
    }

    /// 500: a fault of the gateway.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The gateway failed", detail)
    }

    /// 503: temporarily impossible.
    pub fn unavailable(code: &str, detail: impl Into<String>) -> Self {
        let title = "Temporarily unavailable";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, title, detail).retry_after(Duration::from_secs(1))
    }

    /// 504: another part of the fleet did not answer in time.
    pub fn no_answer(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "no-answer", "No answer in time", detail)
    }

    /// Adds an invalid field.
    pub fn at(mut self, error: FieldError) -> Self {
        self.errors.push(error);
        self
    }

    /// Adds the member `error` for clients of the Open Inference Protocol.
    pub(crate) fn in_protocol(self) -> Self {
        Self { error: Some(self.detail.as_str().into()), ..self }
    }

    fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait.as_secs_f64().ceil().max(1.0) as u32);
        self
    }

    /// Returns the HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Returns what went wrong, and what to do.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, retry_after, names_codings) = (self.status(), self.retry_after, self.names_codings);
        let mut response = (status, Json(&self)).into_response();
        response.extensions_mut().insert(self);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait));
        }
        if names_codings {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(CODINGS));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"wildrydes\""));
        }
        response
    }
}

/// 503 for a failure of the object store, as `records` reports it.
pub(crate) fn store_failed(failure: Failure) -> Problem {
    let advice = if matches!(failure, Failure::Outage { .. }) { "; nothing was lost, try again" } else { "" };
    Problem::unavailable("store-away", format!("{failure}{advice}"))
}

/// Returns an error's message and those of its causes.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let all = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    all.collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_of_the_store_says_that_nothing_was_lost() {
        let detail = |failure| store_failed(failure).detail;
        assert!(detail(Failure::outage("object store", "no route")).ends_with("no route; nothing was lost, try again"));
        assert_eq!(
            detail(Failure::permanent("broken_object", "models/m: no JSON")),
            "broken_object: models/m: no JSON"
        );
    }
}
