//! Scores rides: the probability that each ends in a service request, by the champion or by the model of the unicorn's breed.
//!
//! ```text
//! score-request ───▶ champion and breed models, one snapshot per request ─▶ score ─┬▶ score-response to reply_to
//!                                                                                  └▶ counts, shadow scoring ─▶ store
//!        │  ▲
//!        ▼  └────── with tmin, tmax, prcp
//! weather-fetcher, if rides have a place instead of weather
//!
//! model-promoted ──┬▶ champion.json ─▶ artefact ─▶ check ─▶ swap
//! follow_ms passed ┘                                 └─ unusable: the last good model stays
//! ```
//!
//! | room | content |
//! |---|---|
//! | [`score`] | features to probabilities; pure |
//! | `serve` | the served models: [`artefact`] checks them, `follow` keeps champion and challenger up to date, `breeds` loads breed models |
//! | `stats` | serving statistics and shadow scoring |
//!
//! An event only triggers a read: the scorer serves what `champion.json` names then, so that events may arrive late, twice, in any
//! order or not at all. Every request gets an answer, possibly a typed error.

pub mod process;
pub mod score;
mod serve;
mod stats;

pub use serve::artefact;

use bytes::Bytes;
use common::{
    envelope::{Envelope, Properties},
    message::{
        FOR_WEATHER, Input, Kind, Message, ModelPromoted, SCORE_RIDES_MAX, ScoreError, ScoreErrorCode, ScoreOutcome,
        ScoreRequest, ScoreResponse, Undecodable, WEATHER_PLACES_MAX,
    },
    model::AliasName,
    outcome::{Failure, Outgoing, Outputs},
    topology::process::SCORER,
};
use records::{
    layout,
    store::{self, Store},
};
use runtime::{
    Worker,
    broker::MESSAGE_TOO_LARGE,
    config::{
        self, Problem,
        reference::{Entry, flag, number, text},
    },
    metrics::metrics,
};
use serde::{Deserialize, Serialize};
use serve::{breeds::Breeds, follow::Follower};
use stats::counts::ServingStats;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Maximum number of requests that wait for a breed model, or for a read of the champion, at the same time: some handlers stay free
/// for other requests.
const WAITING_MAX: usize = (Scorer::CONCURRENCY - 4) as usize;

/// The section `[scorer]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Model family whose champion scores.
    pub model: String,
    /// Maximum number of rides in one request.
    pub rides_max: usize,
    /// Maximum number of breed models in memory. Breeds that are known to have no model count too.
    pub breed_models_max: usize,
    /// How long a request waits for a breed model that is not in memory, milliseconds; then the global model scores.
    pub breed_wait_ms: u64,
    /// Maximum delay until a new champion is served without an event, milliseconds; the default depends on the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow_ms: Option<u64>,
    /// Whether the challenger is scored in shadow: evaluated on live requests, never returned.
    pub shadow: bool,
    /// Interval at which serving statistics are written to the store, milliseconds; 0: none are collected. The default depends on
    /// the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served_write_ms: Option<u64>,
    /// Maximum number of rides per day written with their id and probability, to join them with delayed labels; 0: none.
    pub scored_rides_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: layout::GLOBAL_MODEL.to_owned(),
            rides_max: 10_000,
            breed_models_max: 1_000,
            breed_wait_ms: 250,
            follow_ms: None,
            shadow: true,
            served_write_ms: None,
            scored_rides_max: 100_000,
        }
    }
}

impl config::Settings for Settings {
    const SECTION: &'static str = SCORER.section;
    const REFERENCE: &'static [Entry] = &[
        text("model", "name").means("model family whose champion is served"),
        number("rides_max", "rides", 1..=SCORE_RIDES_MAX as u64).means("maximum number of rides in one request"),
        number("breed_models_max", "models", 1..=1_000_000).means("maximum number of breed models in memory"),
        number("breed_wait_ms", "milliseconds", 0..=60_000)
            .means("how long a request waits for a breed model that is not in memory; then the global model scores"),
        number("follow_ms", "milliseconds", 10..=3_600_000)
            .means("time within which scorers follow a new champion without an event; 1000, with s3://, gs:// and az:// 5000"),
        flag("shadow").means("whether a challenger scores in shadow: evaluated on live requests, never returned"),
        number("served_write_ms", "milliseconds", 0..=3_600_000)
            .means("time between two writes of serving statistics; 0: none are kept or written; 5000, with s3://, gs:// and az:// 30000"),
        number("scored_rides_max", "rides", 0..=10_000_000)
            .means("maximum number of rides per day whose id and probability are written, for delayed labels; 0: none"),
    ];

    fn check_rules(&self) -> Result<(), Problem> {
        if !layout::is_model_name(&self.model) {
            return Err(Problem::new("model", &self.model, "the name of a model family, e.g. service-request"));
        }
        Ok(())
    }
}

impl Settings {
    /// Returns the intervals; those that are not set have the default for the kind of store.
    fn intervals(&self, is_remote: bool) -> Intervals {
        let default = if is_remote { REMOTE_INTERVALS } else { FOLDER_INTERVALS };
        Intervals {
            follow_ms: self.follow_ms.unwrap_or(default.follow_ms),
            served_write_ms: self.served_write_ms.unwrap_or(default.served_write_ms),
        }
    }
}

/// Intervals of requests to the store, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Intervals {
    follow_ms: u64,
    served_write_ms: u64,
}

const FOLDER_INTERVALS: Intervals = Intervals { follow_ms: 1_000, served_write_ms: 5_000 };
/// Longer: a service bills every request.
const REMOTE_INTERVALS: Intervals = Intervals { follow_ms: 5_000, served_write_ms: 30_000 };

/// A message to the scorer.
#[derive(Debug, Clone, PartialEq)]
pub enum ScorerIn {
    /// A request for scores.
    Score(ScoreRequest),
    /// A model was promoted.
    Promoted(ModelPromoted),
}

impl Input for ScorerIn {
    const KINDS: &'static [Kind] = &[ScoreRequest::KIND, ModelPromoted::KIND];

    fn decode(kind: Kind, body: &Bytes) -> Result<Self, Undecodable> {
        if kind == ModelPromoted::KIND {
            return common::message::decode(body).map(Self::Promoted);
        }
        common::message::decode(body).map(Self::Score)
    }

    fn batch_id(&self) -> Option<&str> {
        None
    }
}

/// The worker: answers score requests.
pub struct Scorer {
    rides_max: usize,
    champion: Arc<Follower>,
    challenger: Option<Arc<Follower>>,
    breeds: Arc<Breeds>,
    stats: Option<Arc<ServingStats>>,
}

impl Scorer {
    /// Creates a scorer with checked settings on this store. It serves nothing before it is connected.
    pub fn new(settings: Settings, store: Store) -> Self {
        let Intervals { follow_ms, served_write_ms } = settings.intervals(store::is_remote(&store));
        let Settings { model, rides_max, breed_models_max, scored_rides_max, .. } = settings;
        let every = Duration::from_millis(follow_ms);
        let wait = Duration::from_millis(settings.breed_wait_ms);
        let follower = |name| Arc::new(Follower::new(&model, name, &store, every, WAITING_MAX));
        let write_after = Duration::from_millis(served_write_ms);
        let stats = || Arc::new(ServingStats::new(&store, breed_models_max, write_after, scored_rides_max));
        let stats = (!write_after.is_zero()).then(stats);
        Self {
            rides_max,
            champion: follower(AliasName::Champion),
            challenger: (settings.shadow && stats.is_some()).then(|| follower(AliasName::Challenger)),
            breeds: Arc::new(Breeds::new(&model, &store, breed_models_max, wait, every, WAITING_MAX)),
            stats,
        }
    }

    /// Disables serving statistics and shadow scoring: nothing is written to the store.
    pub fn without_statistics(self) -> Self {
        Self { stats: None, challenger: None, ..self }
    }

    /// Returns the id of the version that scores now.
    pub fn serves(&self) -> Option<String> {
        self.champion.served().map(|named| named.model.model_id.clone())
    }

    /// Answers within the request's `expiration`; with an error if the scores come too late.
    async fn answer_in_time(&self, request: &ScoreRequest, properties: &Properties) -> Result<ScoreResponse, Failure> {
        let Some(expiration_ms) = properties.expiration_ms else { return self.answer(request, None).await };
        let expiration = Duration::from_millis(expiration_ms);
        let in_time = tokio::time::timeout(expiration, self.answer(request, Some(expiration))).await;
        in_time.unwrap_or_else(|_| {
            let message =
                format!("not scored within the {expiration_ms} ms of its expiration: the model is being read");
            let error = ScoreError { code: ScoreErrorCode::DeadlineExceeded, message, field: None };
            Ok(ScoreResponse::failed(&request.request_id, error))
        })
    }

    /// Answers a request, or sends it through a weather-fetcher if rides have a place instead of weather.
    async fn answer_or_forward(&self, request: &ScoreRequest, properties: &Properties) -> Result<Outgoing, Failure> {
        let too_many = |found: String, max: usize| {
            let message = format!("{found}: expected at most {max} in one request");
            let error = ScoreError { code: ScoreErrorCode::MalformedRequest, message, field: Some("rides".to_owned()) };
            ScoreResponse::failed(&request.request_id, error)
        };
        let rides = request.rides.len();
        // Counts the places only of a request that is not too large.
        let answer = if rides > self.rides_max {
            too_many(format!("{rides} rides"), self.rides_max)
        } else {
            match request.places().len() {
                0 => self.answer_in_time(request, properties).await?,
                places if places > WEATHER_PLACES_MAX => {
                    too_many(format!("{places} rides whose weather is to be looked up"), WEATHER_PLACES_MAX)
                }
                // A scorer that waited for the weather would hold a slot for seconds.
                _ => return Outgoing::forward(request, properties, &FOR_WEATHER, properties.expiration_ms),
            }
        };
        let scored = answer.scores.iter().filter(|score| matches!(score.outcome, ScoreOutcome::Scored { .. })).count();
        metrics().rides(Self::NAME, "scored", scored as u64);
        metrics().rides(Self::NAME, "refused", rides.saturating_sub(scored) as u64);
        Outgoing::reply(&answer, properties)
    }

    async fn answer(&self, request: &ScoreRequest, within: Option<Duration>) -> Result<ScoreResponse, Failure> {
        let began = Instant::now();
        let global = match Follower::current(&self.champion, within).await {
            Some(global) => Some(global),
            None => {
                self.champion.refresh().await?;
                self.champion.served()
            }
        };
        let Some(global) = global else {
            let error = ScoreError {
                code: ScoreErrorCode::NoModel,
                message: format!(
                    "there is no model {} yet: the fleet trains one after enough labelled rides are ingested",
                    self.champion.family
                ),
                field: None,
            };
            return Ok(ScoreResponse::failed(&request.request_id, error));
        };
        let left = within.map(|within| within.saturating_sub(began.elapsed()));
        let models = Breeds::choose(&self.breeds, global, request, left).await;
        let (response, evaluations) = score::score_by(&models, request);
        if let Some(stats) = &self.stats {
            let challenger = self.challenger.as_ref().and_then(Follower::caught_up);
            let challenger = challenger.filter(|named| named.model.model_id != models.global.model.model_id);
            ServingStats::note(stats, request, &models, &evaluations, challenger.as_deref(), self.breeds.take_counts());
        }
        Ok(response)
    }
}

impl Worker for Scorer {
    const NAME: &'static str = SCORER.name;
    /// Enough to saturate the broker, because an answer takes microseconds; more would only hold more requests in memory.
    const CONCURRENCY: u16 = 16;
    /// As many again in transit.
    const PREFETCH: u16 = 32;
    type In = ScorerIn;

    async fn handle(&self, envelope: Envelope<ScorerIn>) -> Result<Outputs, Failure> {
        let Envelope { payload, properties } = envelope;
        match payload {
            ScorerIn::Promoted(promoted) => {
                if promoted.model == self.champion.family {
                    self.champion.follow().await;
                }
                Breeds::promoted(&self.breeds, &promoted.model);
                Ok(Outputs::none())
            }
            ScorerIn::Score(request) => Ok(Outputs::all(vec![self.answer_or_forward(&request, &properties).await?])),
        }
    }

    /// Reads the champion and the challenger. Without a champion, or without the store, requests are answered with an error.
    async fn connected(&self) -> Result<(), Failure> {
        self.champion.follow().await;
        if let Some(challenger) = &self.challenger {
            challenger.follow().await;
        }
        Ok(())
    }

    async fn ended(&self) {
        if let Some(stats) = &self.stats {
            stats.write().await;
        }
    }

    fn answer_undecodable(&self, properties: &Properties, why: &Undecodable) -> Option<Outgoing> {
        let (code, field) = match why {
            Undecodable::UnknownVersion { .. } => (ScoreErrorCode::UnknownVersion, None),
            Undecodable::UnknownKind { .. } => (ScoreErrorCode::MalformedRequest, None),
            Undecodable::Malformed { violation, .. } => {
                (ScoreErrorCode::MalformedRequest, Some(violation.path.clone()))
            }
        };
        error_reply(properties, ScoreError { code, message: why.to_string(), field })
    }

    fn answer_failure(&self, properties: &Properties, failure: &Failure) -> Option<Outgoing> {
        let (code, message) = match failure {
            // The request or its answer is too large.
            Failure::Permanent { reason: MESSAGE_TOO_LARGE, why } => (ScoreErrorCode::MalformedRequest, why.clone()),
            _ => (ScoreErrorCode::Internal, format!("the scorer failed, a retry may help: {failure}")),
        };
        error_reply(properties, ScoreError { code, message, field: None })
    }
}

fn error_reply(request: &Properties, error: ScoreError) -> Option<Outgoing> {
    Outgoing::refusal::<ScoreRequest, _>(request, |request_id| ScoreResponse::failed(request_id, error))
}

#[cfg(test)]
mod tests;
