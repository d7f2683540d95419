//! Errors as RFC 9457 problem details: what was wrong, where, and what would be right.

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

/// Names of the accepted codings, as a header lists them.
pub(crate) const CODINGS: &str = "gzip, deflate, zstd, br, identity";

/// A problem, `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Problem {
    /// Kind of problem, `urn:wildrydes:problem:<code>`: stable, for programs.
    #[serde(rename = "type")]
    #[schema(example = "urn:wildrydes:problem:missing-feature")]
    kind: String,
    /// The kind in words.
    title: &'static str,
    /// The HTTP status again.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// This very problem in words, with the way out.
    detail: String,
    /// The fields at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
    /// `detail` again, where clients of the Open Inference Protocol look for it: below `/v2` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    error: Option<Box<str>>,
    /// Seconds.
    #[serde(skip)]
    retry_after: Option<u32>,
    /// Whether the answer lists the accepted codings, since that of the body is the problem (RFC 9110 §15.5.16).
    #[serde(skip)]
    names_codings: bool,
}

/// A field at fault.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct FieldError {
    /// Its path, as in `tmin` or `[3].temperature.min`.
    pub field: String,
    /// As it came, where it is known.
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

    /// 400: not even readable.
    pub fn unreadable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "unreadable-request", "The request cannot be read", detail)
    }

    /// 401: no key, or one that is not known.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "key-needed", "An API key is needed", detail)
    }

    /// 403: a key that does not open this.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "scope-missing", "The API key does not open this", detail)
    }

    /// 403: not from there.
    pub fn foreign(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "foreign-origin", "Not from there", detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is no such thing", detail)
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let detail = "this path knows other methods: see the header Allow, and /docs";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Not with this method", detail)
    }

    /// 408: the body did not come.
    pub fn too_slow(stall: Duration) -> Self {
        let detail = format!("nothing of the body came for {} ms", stall.as_millis());
        Self::new(StatusCode::REQUEST_TIMEOUT, "body-too-slow", "The body did not come", detail)
    }

    /// 408: it did not come to its end.
    pub fn too_late(deadline: Duration) -> Self {
        let detail = format!("the body did not come to its end within {} ms", deadline.as_millis());
        Self::new(StatusCode::REQUEST_TIMEOUT, "body-too-slow", "The body did not come", detail)
    }

    /// 408: it comes too slowly.
    pub fn below_rate(bytes_per_second: u64) -> Self {
        let detail = format!(
            "the body comes at less than {bytes_per_second} bytes per second, which gateway.upload_bytes_per_second_min asks of uploads"
        );
        Self::new(StatusCode::REQUEST_TIMEOUT, "body-too-slow", "The body did not come", detail)
    }

    /// 409: something else is there under that name.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "Something else is there under that name", detail)
    }

    /// 413.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "More than is taken at once", detail)
    }

    /// 415.
    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        let title = "Not in this form";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", title, detail)
    }

    /// 415: compressed in a way that is not accepted; the header Accept-Encoding of the answer lists what is.
    pub(crate) fn unsupported_coding(detail: impl Into<String>) -> Self {
        Self { names_codings: true, ..Self::unsupported_media_type(detail) }
    }

    /// 421: a host that is not answered.
    pub fn misdirected(detail: impl Into<String>) -> Self {
        let title = "This host name is not answered";
        Self::new(StatusCode::MISDIRECTED_REQUEST, "unknown-host", title, detail)
    }

    /// 422: readable, but a field cannot be.
    pub fn invalid(code: &str, field: impl Into<String>, value: Option<Value>, expected: impl Into<String>) -> Self {
        let error = FieldError { field: field.into(), value, expected: expected.into() };
        let detail = match &error.value {
            Some(value) => format!("{} is {value}: expected {}", error.field, error.expected),
            None => format!("{}: expected {}", error.field, error.expected),
        };
        Self::unprocessable(code, detail).at(error)
    }

    /// 422 in words.
    pub fn unprocessable(code: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, "The request cannot be processed", detail)
    }

    /// 429: this key asks too often.
    pub fn too_many_requests(wait: Duration) -> Self {
        let detail = "this key makes more requests per second than it may; wait as Retry-After says";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate-limited", "Too many requests", detail).retry_after(wait)
    }

    /// 429: too many requests of this key are under way.
    pub fn too_many_at_once(requests_max: usize) -> Self {
        let detail = format!(
            "{requests_max} requests with this key are under way, no more are taken at once (gateway.requests_per_key_max)"
        );
        let title = "Too many requests at once";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-at-once", title, detail).retry_after(Duration::from_secs(1))
    }

    /// 500: our fault.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The gateway failed", detail)
    }

    /// 503: not now.
    pub fn unavailable(code: &str, detail: impl Into<String>) -> Self {
        let title = "Not possible at the moment";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, title, detail).retry_after(Duration::from_secs(1))
    }

    /// 504: whoever was asked did not answer.
    pub fn no_answer(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "no-answer", "No answer in time", detail)
    }

    /// Names a field at fault.
    pub fn at(mut self, error: FieldError) -> Self {
        self.errors.push(error);
        self
    }

    /// As clients of the Open Inference Protocol read it.
    pub(crate) fn in_protocol(self) -> Self {
        Self { error: Some(self.detail.as_str().into()), ..self }
    }

    fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait.as_secs_f64().ceil().max(1.0) as u32);
        self
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// In words.
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

/// 503 for a store that fails, as the shared readers and writers tell it.
pub(crate) fn store_failed(failure: Failure) -> Problem {
    Problem::unavailable("store-away", failure.to_string())
}

/// 503 for a store that fails.
pub(crate) fn store_away(error: &dyn std::error::Error) -> Problem {
    Problem::unavailable(
        "store-away",
        format!("the object store fails: {}; nothing was lost, try again", reasons(error)),
    )
}

/// An error with its causes.
pub(crate) fn reasons(error: &dyn std::error::Error) -> String {
    let all = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    all.collect::<Vec<_>>().join(": ")
}
