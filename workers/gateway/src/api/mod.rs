//! Every path, and the OpenAPI document that comes out of them.

pub(crate) mod batches;
pub(crate) mod fleet;
pub(crate) mod health;
pub(crate) mod inference;
pub(crate) mod models;
pub(crate) mod score;
pub(crate) mod workshop;

use crate::{
    app::App,
    http::{auth::guard, problem::Problem},
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

/// The document's own words.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Wild Rydes",
        description = "How likely does a ride end in a service request? Scores, batches, models, and the fleet itself. Errors are \
            problem details (RFC 9457). Every request has a deadline; 503 says in Retry-After when to try again.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    security(("bearer" = []), ("key" = [])),
    tags(
        (name = "Scores", description = "Features in, a probability and its reasons out"),
        (name = "Batches", description = "Rides in, datasets out"),
        (name = "Models", description = "Artefacts and metrics"),
        (name = "Fleet", description = "Where everything is"),
        (name = "Open Inference Protocol", description = "For clients of model servers (KServe V2)"),
        (name = "Operation", description = "Health and counters"),
    ),
    components(schemas(Problem))
)]
struct Document;

/// What may be answered beside the answer: by status, in words.
const PROBLEMS: [(u16, &str); 14] = [
    (400, "Not even readable"),
    (401, "A key is needed"),
    (403, "The key does not open this"),
    (404, "There is no such thing"),
    (408, "The body did not come"),
    (409, "Something else is there under that name"),
    (413, "More than is taken at once"),
    (415, "Not in this form"),
    (421, "The header Host names no host that is answered"),
    (422, "A field cannot be"),
    (429, "Too many requests"),
    (500, "The gateway failed"),
    (503, "Not possible at the moment"),
    (504, "No answer in time"),
];

/// All paths, and the document that describes them.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let guarded = |scope| middleware::from_fn_with_state((Arc::clone(&app.doorkeeper), scope), guard);
    let read = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(score::score))
        .routes(routes!(workshop::workshop))
        .routes(routes!(batches::list))
        .routes(routes!(batches::one))
        .routes(routes!(batches::rejected))
        .routes(routes!(batches::dataset))
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
    let write = OpenApiRouter::new().routes(routes!(batches::hand_in)).route_layer(guarded(Scope::Write));
    let open = OpenApiRouter::new()
        .routes(routes!(inference::live))
        .routes(routes!(inference::ready))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics));
    let (router, mut document) = read.merge(write).merge(workshop).merge(open).split_for_parts();
    complete(&mut document);
    if app.settings.auth == Auth::Off {
        document.security = None;
    }
    let document = Json(document);
    router
        .route("/openapi.json", get(move || async move { document.clone() }))
        .route("/", get(page::index))
        .route("/docs", get(page::docs))
        .route("/page/{file}", get(page::file))
        .with_state(Arc::clone(app))
}

/// A name of its own for each operation, out of its path: that of `GET /v1/batches/{batch_id}` is `get_batches_by_batch_id`.
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

/// Adds what is the same everywhere: keys, and the problems.
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
        }
    }
}
