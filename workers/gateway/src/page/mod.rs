//! The page of the fleet: static files built into the program.
//!
//! Depends on `http`.

use crate::http::{extract::Path, problem::Problem};
use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use common::features::{FEATURES, Feature};
use serde_json::json;
use std::sync::LazyLock;

/// Content-Security-Policy: nothing from other origins, nothing inline.
const POLICY: &str =
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// The features of a model, as the page words them: name, step in the unit of the column, and meaning of a step.
static FEATURES_SCRIPT: LazyLock<String> = LazyLock::new(|| {
    let feature = |feature: &Feature| {
        (feature.name, json!({ "name": feature.title, "step": feature.step, "meaning": feature.step_meaning }))
    };
    let features: std::collections::BTreeMap<_, _> = FEATURES.iter().map(feature).collect();
    format!("export const FEATURES = {};\n", json!(features))
});

const FILES: [(&str, &str, &str); 13] = [
    ("api.js", SCRIPT, include_str!("api.js")),
    ("batches.js", SCRIPT, include_str!("batches.js")),
    ("charts.js", SCRIPT, include_str!("charts.js")),
    ("dead.js", SCRIPT, include_str!("dead.js")),
    ("docs.css", CSS, include_str!("docs.css")),
    ("docs.js", SCRIPT, include_str!("docs.js")),
    ("dom.js", SCRIPT, include_str!("dom.js")),
    ("fleet.js", SCRIPT, include_str!("fleet.js")),
    ("icon.svg", SVG, include_str!("icon.svg")),
    ("model.js", SCRIPT, include_str!("model.js")),
    ("page.css", CSS, include_str!("page.css")),
    ("page.js", SCRIPT, include_str!("page.js")),
    ("score.js", SCRIPT, include_str!("score.js")),
];

/// The page.
pub(crate) async fn index() -> Response {
    served(HTML, include_str!("index.html"))
}

/// The documentation of the API.
pub(crate) async fn docs() -> Response {
    served(HTML, include_str!("docs.html"))
}

/// A file that these pages refer to.
pub(crate) async fn file(Path(name): Path<String>) -> Result<Response, Problem> {
    if name == "features.js" {
        return Ok(served(SCRIPT, &FEATURES_SCRIPT));
    }
    let entry = FILES.iter().find(|(known, ..)| *known == name);
    let (_, kind, text) = entry.ok_or_else(|| Problem::not_found(format!("the page has no file {name:?}")))?;
    Ok(served(kind, text))
}

fn served(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        // The files keep their names when the program changes.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, text).into_response()
}
