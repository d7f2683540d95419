//! The span of each request.

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use common::envelope::TRACEPARENT;
use runtime::trace::{self, Kind, Span, TraceContext};

/// Header of an answer: the id of its trace, 32 hex digits.
pub(crate) const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");

/// Returns whether a path is for probes: answered in every state of the gateway, and a part of no trace.
pub(crate) fn is_probe(route: &str) -> bool {
    matches!(route, "/healthz" | "/livez" | "/readyz" | "/metrics" | "/v2/health/live" | "/v2/health/ready")
}

/// Handles a request as a span, in the trace of its `traceparent` if it has one, and names the trace in the answer.
pub(crate) async fn traced(path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let route = path.as_ref().map_or("(none)", MatchedPath::as_str);
    if is_probe(route) {
        return next.run(request).await;
    }
    let parent = request.headers().get(TRACEPARENT).and_then(|header| TraceContext::parse(header.to_str().ok()?));
    let mut span = Span::start(Kind::Server, "request", parent, &[]);
    span.set("http.request.method", request.method().as_str());
    span.set("http.route", route);
    let mut response = trace::within(vec![span.context()], next.run(request)).await;
    span.set("http.response.status_code", response.status().as_str());
    if response.status().is_server_error() {
        span.fail("http", response.status().as_str());
    }
    if let Ok(id) = HeaderValue::from_str(&span.context().trace_id()) {
        response.headers_mut().insert(TRACE_ID, id);
    }
    response
}
