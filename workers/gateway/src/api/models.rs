//! `/v1/models`: artefacts, metrics, the champion.

use crate::{
    app::App,
    http::{
        extract::Path,
        problem::{Answer, Problem, store_failed},
    },
};
use axum::{
    Json,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use common::{
    model::{Alias, AliasName, Metrics, Model, Past},
    outcome::Failure,
};
use futures::{StreamExt, TryStreamExt, stream};
use records::{Store, layout, registry, store};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use utoipa::ToSchema;

/// Maximum number of former champions whose metrics are read.
const HISTORY_MAX: usize = 50;

/// The model families.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Models {
    models: Vec<Family>,
}

/// A model family.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Family {
    model: String,
    /// The served version.
    #[schema(required = true)]
    champion: Option<String>,
    /// Number of versions.
    versions: usize,
    /// Number of breed models beside it: the families `<model>--<breed>`.
    breeds: usize,
}

/// A model family with its champion.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FamilyInFull {
    model: String,
    /// The artefact, as `schemas/model.v1.json` describes it.
    #[schema(value_type = Option<Object>, required = true)]
    champion: Option<Model>,
    /// The version in shadow scoring: it scores the same requests, and its scores are recorded but never returned. Null if none.
    #[schema(required = true)]
    challenger: Option<NamedVersion>,
    /// Champions, newest first.
    history: Vec<NamedVersion>,
}

/// A version that an alias names or named.
#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NamedVersion {
    model_id: String,
    /// Who set the alias: a worker and its version, or a person.
    by: String,
    /// When the alias was set, RFC 3339 in UTC.
    at: String,
    /// Why the alias was set.
    why: String,
    /// Number of training rides; absent if the artefact is gone.
    #[schema(nullable = false)]
    rides: Option<u64>,
    /// Quality on the held-out split.
    #[schema(nullable = false)]
    test: Option<Quality>,
}

/// The quality of a model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Quality {
    rides: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    roc_auc: Option<f64>,
    log_loss: f64,
    brier: f64,
    accuracy: f64,
}

impl From<&Metrics> for Quality {
    fn from(metrics: &Metrics) -> Self {
        let Metrics { rides, roc_auc, log_loss, brier, accuracy, .. } = *metrics;
        Self { rides, roc_auc, log_loss, brier, accuracy }
    }
}

/// Versions of a model family.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Versions {
    model: String,
    versions: Vec<String>,
}

/// Lists the model families, without those of breeds.
#[utoipa::path(get, path = "/v1/models", tag = "Models", responses((status = 200, description = "The model families", body = Models)))]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Answer<Models> {
    let mut models = Vec::new();
    let families = registry::families(&app.store).await.map_err(store_failed)?;
    // There may be thousands of breed models: they are counted here, and each can be read by its name.
    let (of_breeds, families): (Vec<_>, Vec<_>) =
        families.into_iter().partition(|family| layout::of_breed(family).is_some());
    for model in families {
        let of_this = |family: &&String| layout::of_breed(family).is_some_and(|(all, _)| all == model);
        let breeds = of_breeds.iter().filter(of_this).count();
        let champion = named(&app.store, &model, AliasName::Champion).await?.map(|champion| champion.model_id);
        let versions = versions_of(&app.store, &model).await?.len();
        models.push(Family { model, champion, versions, breeds });
    }
    Ok(Json(Models { models }))
}

/// Returns a model family: its champion, challenger and former champions.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "Models", params(("model" = String, Path, description = "Model family")),
    responses((status = 200, description = "The family", body = FamilyInFull)))]
pub(crate) async fn family(State(app): State<Arc<App>>, Path(model): Path<String>) -> Answer<FamilyInFull> {
    known(&model, &model)?;
    let champion = named(&app.store, &model, AliasName::Champion).await?;
    if champion.is_none() && model != app.settings.model && versions_of(&app.store, &model).await?.is_empty() {
        return Err(Problem::not_found(format!("no model {model:?}: see /v1/models")));
    }
    // A challenger that is the champion does not count.
    let is_other = |alias: &Alias| champion.as_ref().is_none_or(|champion| alias.model_id != champion.model_id);
    let challenger = named(&app.store, &model, AliasName::Challenger).await?.filter(is_other).map(latest);
    let mut line = champion.as_ref().map(|champion| champion.history.clone()).unwrap_or_default();
    line.extend(champion.map(latest));
    let line = line.into_iter().rev().take(HISTORY_MAX);
    let reads = stream::iter(line.chain(challenger.clone())).map(|past| {
        let (store, model) = (Arc::clone(&app.store), model.clone());
        async move { read_version(&store, &model, past).await }
    });
    let mut versions: Vec<(NamedVersion, Option<Model>)> =
        reads.buffered(8).try_collect().await.map_err(store_failed)?;
    let challenger = challenger.and_then(|_| versions.pop()).map(|(challenger, _)| challenger);
    let champion = versions.first_mut().and_then(|(_, artefact)| artefact.take());
    let history = versions.into_iter().map(|(past, _)| past).collect();
    Ok(Json(FamilyInFull { model, champion, challenger, history }))
}

/// Returns the version that an alias names, as an entry of its history.
fn latest(alias: Alias) -> Past {
    let Alias { model_id, sha256, by, at, why, .. } = alias;
    Past { model_id, sha256, by, at, why }
}

/// Reads a version's quality and artefact.
async fn read_version(store: &Store, model: &str, past: Past) -> Result<(NamedVersion, Option<Model>), Failure> {
    // An artefact that cannot be used counts as gone.
    let artefact = registry::version(store, model, &past.model_id).await?.ok().map(|(_, artefact)| artefact);
    let Past { model_id, by, at, why, .. } = past;
    let rides = artefact.as_ref().map(|model| model.counts.train);
    let test = artefact.as_ref().and_then(|model| model.test.as_ref()).map(Quality::from);
    Ok((NamedVersion { model_id, by, at, why, rides, test }, artefact))
}

/// Lists the versions of a model family.
#[utoipa::path(get, path = "/v1/models/{model}/versions", tag = "Models", params(("model" = String, Path, description = "Model family")),
    responses((status = 200, description = "The ids of the versions", body = Versions)))]
pub(crate) async fn versions(State(app): State<Arc<App>>, Path(model): Path<String>) -> Answer<Versions> {
    known(&model, &model)?;
    let versions = versions_of(&app.store, &model).await?;
    if versions.is_empty() && model != app.settings.model {
        return Err(Problem::not_found(format!("no model {model:?}: see /v1/models")));
    }
    Ok(Json(Versions { model, versions }))
}

/// Returns the artefact of a version, as the trainer wrote it.
#[utoipa::path(get, path = "/v1/models/{model}/versions/{version}", tag = "Models",
    params(("model" = String, Path, description = "Model family"), ("version" = String, Path, description = "Model id")),
    responses((status = 200, description = "The artefact, as `schemas/model.v1.json` describes it", body = Object)))]
pub(crate) async fn version(
    State(app): State<Arc<App>>,
    Path((model, version)): Path<(String, String)>,
) -> Answer<Value> {
    known(&model, &version)?;
    let artefact =
        store::read_json::<Value>(&app.store, &layout::model(&model, &version)).await.map_err(store_failed)?;
    let missing = || Problem::not_found(format!("no model {model}/{version}: see /v1/models/{model}/versions"));
    artefact.map(Json).ok_or_else(missing)
}

/// Content-Security-Policy of a report: inline styles and images only. The sandbox separates it from the gateway's origin.
const REPORT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; sandbox";

/// Returns the report on a version as an HTML page.
#[utoipa::path(get, path = "/v1/models/{model}/versions/{version}/report", tag = "Models",
    params(("model" = String, Path, description = "Model family"), ("version" = String, Path, description = "Model id")),
    responses((status = 200, description = "A self-contained page", body = String, content_type = "text/html")))]
pub(crate) async fn report(
    State(app): State<Arc<App>>,
    Path((model, version)): Path<(String, String)>,
) -> Result<Response, Problem> {
    known(&model, &version)?;
    let page = store::read(&app.store, &layout::report(&model, &version)).await.map_err(store_failed)?;
    let page = page.ok_or_else(|| {
        Problem::not_found(format!(
            "no report on {model}/{version}: breed models have none, see /v1/models/{model}/versions"
        ))
    })?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(REPORT_POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    Ok((headers, page).into_response())
}

/// Refuses names that cannot be a model's before the store is read.
fn known(model: &str, version: &str) -> Result<(), Problem> {
    let plain = |name: &str| name.len() <= 100 && layout::is_model_name(name);
    match plain(model) && plain(version) {
        true => Ok(()),
        false => Err(Problem::not_found(format!("no model {model:?}: see /v1/models"))),
    }
}

async fn named(store: &Store, model: &str, name: AliasName) -> Result<Option<Alias>, Problem> {
    registry::read_alias(store, model, name).await.map_err(store_failed)
}

async fn versions_of(store: &Store, model: &str) -> Result<Vec<String>, Problem> {
    registry::versions(store, model).await.map_err(store_failed)
}
