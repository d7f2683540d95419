//! The span of each request.

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue},
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
pub(crate) async fn traced<F>(route: &str, request: Request, handle: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    if is_probe(route) {
        return handle(request).await;
    }
    let parent = request.headers().get(TRACEPARENT).and_then(|header| TraceContext::parse(header.to_str().ok()?));
    let mut span = Span::start(Kind::Server, "request", parent, &[]);
    span.set("http.request.method", request.method().as_str());
    span.set("http.route", route);
    let mut response = trace::within(vec![span.context()], handle(request)).await;
    span.set("http.response.status_code", response.status().as_str());
    if response.status().is_server_error() {
        span.fail("http", response.status().as_str());
    }
    if let Ok(id) = HeaderValue::try_from(span.context().trace_id()) {
        response.headers_mut().insert(TRACE_ID, id);
    }
    response
}
