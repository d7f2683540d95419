//! `/v1/fleet`: where everything is, once or as it happens.

use crate::{
    app::App,
    batches::dead_letters::{DeadLetter, LETTERS_MAX},
    fleet::observe::{Event, Snapshot},
    http::{extract::Asked, problem::Problem},
};
use axum::{
    Json,
    extract::State,
    response::sse::{self, KeepAlive, Sse},
};
use common::topology::{self, Topology, topic_matches};
use futures::{Stream, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use utoipa::{IntoParams, ToSchema};

/// Between one look and the next.
const EVERY: Duration = Duration::from_secs(1);

/// Queues, broker, gateway and champion at this moment.
#[utoipa::path(get, path = "/v1/fleet", tag = "Fleet", responses((status = 200, description = "The fleet", body = Snapshot)))]
pub(crate) async fn snapshot(State(app): State<Arc<App>>) -> Json<Snapshot> {
    Json((*app.observer.snapshot(app.draining.is_cancelled()).await).clone())
}

/// The same once a second, and events as they happen: `fleet`, `batch`, `model`, `dead`.
#[utoipa::path(get, path = "/v1/fleet/events", tag = "Fleet",
    responses((status = 200, description = "Server-sent events, without end", body = String, content_type = "text/event-stream")))]
pub(crate) async fn events(
    State(app): State<Arc<App>>,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>> + Send> {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let watched = (Arc::clone(&app), app.observer.events(), ticks, false);
    let stream = stream::unfold(watched, |(app, mut events, mut ticks, last)| async move {
        if last {
            return None;
        }
        let (event, last) = tokio::select! {
            biased;
            () = app.draining.cancelled() => (tick(&app).await, true),
            event = next(&mut events) => (event, false),
            _ = ticks.tick() => (tick(&app).await, false),
        };
        Some((Ok(event), (app, events, ticks, last)))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}

async fn tick(app: &App) -> sse::Event {
    let snapshot = app.observer.snapshot(app.draining.is_cancelled()).await;
    told("fleet", &*snapshot)
}

async fn next(events: &mut Receiver<Event>) -> sse::Event {
    loop {
        return match events.recv().await {
            Ok(Event::Batch { batch_id, state }) => told("batch", &json!({ "batch_id": batch_id, "state": state })),
            Ok(Event::Model { model, model_id }) => told("model", &json!({ "model": model, "model_id": model_id })),
            Ok(Event::Dead { queue }) => told("dead", &json!({ "queue": queue })),
            // Too slow for all of them: the page reads everything anew with the next.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => std::future::pending().await,
        };
    }
}

fn told(name: &str, data: &impl Serialize) -> sse::Event {
    let data = serde_json::to_string(data).unwrap_or_else(|error| json!({ "error": error.to_string() }).to_string());
    sse::Event::default().event(name).data(data)
}

/// Who sends what to whom.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Flow {
    flow: Vec<Edge>,
}

/// A message on its way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
pub(crate) struct Edge {
    /// A worker, or `publisher` or `client` outside.
    from: String,
    /// A queue.
    to: String,
    /// Name of the message.
    message: String,
}

/// The fleet as a graph: who sends what to whom.
#[utoipa::path(get, path = "/v1/topology", tag = "Fleet", responses((status = 200, description = "The graph", body = Flow)))]
pub(crate) async fn flow() -> Json<Flow> {
    let topology = Topology::of_fleet("");
    let mut edges = BTreeSet::new();
    for publication in &topology.publications {
        let outside = [topology::OPERATOR, topology::GATEWAY].contains(&publication.by.as_str());
        let routing_key = format!("{}.v1", publication.message);
        let mut to = Vec::new();
        for binding in &topology.bindings {
            if binding.exchange == publication.exchange && topic_matches(&binding.routing_key, &routing_key) {
                to.push(binding.queue.clone());
            }
        }
        for subscription in &topology.subscriptions {
            if subscription.exchange == publication.exchange && topic_matches(&subscription.routing_key, &routing_key) {
                to.push(subscription.worker.clone());
            }
        }
        for to in to.into_iter().filter(|_| !outside) {
            edges.insert(Edge { from: publication.by.clone(), to, message: publication.message.clone() });
        }
    }
    Json(Flow { flow: edges.into_iter().collect() })
}

/// How many dead letters to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Listing {
    /// At most.
    #[param(required = false, minimum = 1, maximum = 500, default = 100)]
    limit: usize,
}

impl Default for Listing {
    fn default() -> Self {
        Self { limit: 100 }
    }
}

/// Messages that were given up.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeadLetters {
    /// How many there are.
    total: u64,
    /// Of each queue the oldest first.
    letters: Vec<DeadLetter>,
}

/// The dead letters, with their reasons. `wildrydes dead` shows, replays and drops them.
#[utoipa::path(get, path = "/v1/dead-letters", tag = "Fleet", params(Listing),
    responses((status = 200, description = "The dead letters", body = DeadLetters)))]
pub(crate) async fn dead(
    State(app): State<Arc<App>>,
    Asked(listing): Asked<Listing>,
) -> Result<Json<DeadLetters>, Problem> {
    if !(1..=LETTERS_MAX).contains(&listing.limit) {
        return Err(Problem::invalid(
            "invalid-limit",
            "limit",
            Some(json!(listing.limit)),
            format!("1 to {LETTERS_MAX}"),
        ));
    }
    let dead = app.observer.dead().await;
    let letters = dead.letters.iter().take(listing.limit).cloned().collect();
    Ok(Json(DeadLetters { total: dead.total, letters }))
}
