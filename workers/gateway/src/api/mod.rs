//! Every path: handlers, one file per subject, and the OpenAPI document that is generated from them.
//!
//! Depends on all other rooms.

pub(crate) mod batches;
pub(crate) mod fleet;
pub(crate) mod health;
pub(crate) mod inference;
pub(crate) mod models;
pub(crate) mod refreshes;
pub(crate) mod score;
pub(crate) mod workshop;

use crate::{
    app::App,
    http::{
        auth::guard,
        problem::Problem,
        traced::{TRACE_ID, is_probe},
    },
    page,
    settings::{Auth, Scope},
};
use axum::{
    Json, Router, middleware,
    routing::{get, post},
};
use std::sync::Arc;
use utoipa::{
    OpenApi,
    openapi::{
        self, ContentBuilder, HttpMethod, Ref, RefOr, ResponseBuilder,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

/// The document without its paths.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Wild Rydes",
        description = "The probability that a ride ends in a service request: scores, batches, models, and the fleet itself. Errors are \
            problem details (RFC 9457). Every request has a deadline. With 503, the header Retry-After says when to retry. A request with \
            a traceparent (W3C Trace Context) is handled in its trace.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    security(("bearer" = []), ("key" = [])),
    tags(
        (name = "Scores", description = "Features in, a probability and its explanation out"),
        (name = "Batches", description = "Rides in, datasets out"),
        (name = "Models", description = "Artefacts and metrics"),
        (name = "Fleet", description = "Queues, events and dead letters"),
        (name = "Open Inference Protocol", description = "For clients of model servers (KServe V2)"),
        (name = "Operation", description = "Health and metrics"),
    ),
    components(schemas(Problem))
)]
struct Document;

/// Problems that every operation may answer with: status and description.
const PROBLEMS: [(u16, &str); 14] = [
    (400, "The request is malformed"),
    (401, "An API key is needed"),
    (403, "The API key lacks the scope"),
    (404, "Not found"),
    (408, "The body arrived too slowly"),
    (409, "The name is already in use, or the batch is not ready"),
    (413, "The request is too large"),
    (415, "Unsupported media type"),
    (421, "The header Host names a host that is not served"),
    (422, "A field is invalid"),
    (429, "Too many requests"),
    (500, "The gateway failed"),
    (503, "Temporarily unavailable"),
    (504, "No answer in time"),
];

/// Builds the router of all paths, with the document that describes them.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let guarded = |scope| middleware::from_fn_with_state((Arc::clone(&app.api_keys), scope), guard);
    let read = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(score::score))
        .routes(routes!(workshop::workshop))
        .routes(routes!(batches::list))
        .routes(routes!(batches::one))
        .routes(routes!(batches::rejected))
        .routes(routes!(batches::dataset))
        .routes(routes!(refreshes::latest))
        .routes(routes!(models::list))
        .routes(routes!(models::family))
        .routes(routes!(models::versions))
        .routes(routes!(models::version))
        .routes(routes!(models::report))
        .routes(routes!(fleet::snapshot))
        .routes(routes!(fleet::events))
        .routes(routes!(fleet::flow))
        .routes(routes!(fleet::dead))
        .routes(routes!(inference::server))
        .routes(routes!(inference::model))
        .routes(routes!(inference::model_version))
        .routes(routes!(inference::model_ready))
        .routes(routes!(inference::model_version_ready))
        .routes(routes!(inference::infer))
        .routes(routes!(inference::infer_version))
        .route_layer(guarded(Scope::Read));
    let workshop = OpenApiRouter::new().route("/", post(workshop::workshop)).route_layer(guarded(Scope::Read));
    let write = OpenApiRouter::new()
        .routes(routes!(batches::submit))
        .routes(routes!(refreshes::submit))
        .route_layer(guarded(Scope::Write));
    let open = OpenApiRouter::new()
        .routes(routes!(inference::live))
        .routes(routes!(inference::ready))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics));
    let (router, mut document) = read.merge(write).merge(workshop).merge(open).split_for_parts();
    complete(&mut document);
    workshop::describe_headers(&mut document);
    if app.settings.auth == Auth::Off {
        document.security = None;
    }
    let document = Json(document);
    router
        .route("/livez", get(health::alive))
        .route("/openapi.json", get(move || async move { document.clone() }))
        .route("/", get(page::index))
        .route("/docs", get(page::docs))
        .route("/page/{file}", get(page::file))
        .with_state(Arc::clone(app))
}

/// Returns a unique operation id, derived from the path: that of `GET /v1/batches/{batch_id}` is `get_batches_by_batch_id`.
fn name_of(method: &HttpMethod, path: &str) -> String {
    let mut name = if matches!(method, HttpMethod::Get) { "get" } else { "post" }.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != "v1") {
        match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(part) => name.extend(["_by_", part]),
            None => name.extend(["_", part]),
        }
    }
    name.replace(['.', '-'], "_")
}

/// Adds the header that names the trace to all responses.
fn name_trace(responses: &mut openapi::Responses) {
    let id = openapi::ObjectBuilder::new().schema_type(openapi::Type::String).pattern(Some("^[0-9a-f]{32}$")).build();
    let header =
        openapi::HeaderBuilder::new().schema(Some(id)).description(Some("Id of the trace of this request")).build();
    for response in responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            response.headers.insert(TRACE_ID.to_string(), RefOr::T(header.clone()));
        }
    }
}

/// Adds to all operations what they share: keys and problems.
fn complete(document: &mut openapi::OpenApi) {
    let components = document.components.get_or_insert_default();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API key")).build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    components.add_security_scheme("key", SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-Api-Key"))));
    for (path, item) in &mut document.paths.paths {
        for method in [HttpMethod::Get, HttpMethod::Post] {
            let operation = match method {
                HttpMethod::Get => &mut item.get,
                _ => &mut item.post,
            };
            let Some(operation) = operation else { continue };
            operation.operation_id = Some(name_of(&method, path));
            for (status, description) in PROBLEMS {
                let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
                let response =
                    ResponseBuilder::new().description(description).content("application/problem+json", content);
                let responses = &mut operation.responses.responses;
                responses.entry(status.to_string()).or_insert_with(|| RefOr::T(response.build()));
            }
            if !is_probe(path) {
                name_trace(&mut operation.responses);
            }
        }
    }
}
