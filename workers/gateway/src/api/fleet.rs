//! `/v1/fleet`: the state of the fleet, once or as a stream; its topology and dead letters.

use crate::{
    app::App,
    batches::dead_letters::{DeadLetter, LETTERS_MAX},
    fleet::observe::{Event, Snapshot},
    http::{
        extract::Query,
        problem::{Answer, Problem},
    },
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

/// Interval between two snapshots of a stream.
const EVERY: Duration = Duration::from_secs(1);

/// Returns the current state of queues, broker, gateway and champion.
#[utoipa::path(get, path = "/v1/fleet", tag = "Fleet", responses((status = 200, description = "The fleet", body = Snapshot)))]
pub(crate) async fn snapshot(State(app): State<Arc<App>>) -> Json<Snapshot> {
    Json((*app.observer.snapshot(app.draining.is_cancelled()).await).clone())
}

/// Streams the state once a second as `fleet`, and events as they happen: `batch`, `model`, `dead`.
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
    sse_event("fleet", &*snapshot)
}

async fn next(events: &mut Receiver<Event>) -> sse::Event {
    loop {
        return match events.recv().await {
            Ok(Event::Batch { batch_id, state }) => {
                sse_event("batch", &json!({ "batch_id": batch_id, "state": state }))
            }
            Ok(Event::Model { model, model_id }) => {
                sse_event("model", &json!({ "model": model, "model_id": model_id }))
            }
            Ok(Event::Dead { queue }) => sse_event("dead", &json!({ "queue": queue })),
            // The client missed events: the page reloads everything with the next one.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => std::future::pending().await,
        };
    }
}

fn sse_event(name: &str, data: &impl Serialize) -> sse::Event {
    let data = serde_json::to_string(data).unwrap_or_else(|error| json!({ "error": error.to_string() }).to_string());
    sse::Event::default().event(name).data(data)
}

/// The messages between workers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Flow {
    flow: Vec<Edge>,
}

/// A message from a sender to a queue.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
pub(crate) struct Edge {
    /// A worker; `publisher` or `client` outside the fleet.
    from: String,
    /// A queue.
    to: String,
    /// Name of the message.
    message: String,
}

/// Returns the fleet as a graph: which worker sends which message to which queue.
#[utoipa::path(get, path = "/v1/topology", tag = "Fleet", responses((status = 200, description = "The graph", body = Flow)))]
pub(crate) async fn flow() -> Json<Flow> {
    let topology = Topology::of_fleet("");
    let mut edges = BTreeSet::new();
    for publication in &topology.publications {
        let outside = [topology::OPERATOR, topology::process::GATEWAY.name].contains(&publication.by.as_str());
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

/// Page of dead letters to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Listing {
    /// Maximum number of dead letters.
    #[param(required = false, minimum = 1, maximum = 500, default = 100)]
    limit: usize,
}

impl Default for Listing {
    fn default() -> Self {
        Self { limit: 100 }
    }
}

/// Messages that workers gave up.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeadLetters {
    /// Number of all dead letters.
    total: u64,
    /// By queue, the oldest first.
    letters: Vec<DeadLetter>,
}

/// Lists dead letters with their reasons. `wildrydes dead` shows, replays and drops them.
#[utoipa::path(get, path = "/v1/dead-letters", tag = "Fleet", params(Listing),
    responses((status = 200, description = "The dead letters", body = DeadLetters)))]
pub(crate) async fn dead(State(app): State<Arc<App>>, Query(Listing { limit }): Query<Listing>) -> Answer<DeadLetters> {
    if !(1..=LETTERS_MAX).contains(&limit) {
        let expected = format!("1 to {LETTERS_MAX}");
        return Err(Problem::invalid("invalid-limit", "limit", Some(json!(limit)), expected));
    }
    let dead = app.observer.dead().await;
    let letters = dead.letters.iter().take(limit).cloned().collect();
    Ok(Json(DeadLetters { total: dead.total, letters }))
}
