//! Says how likely rides are to end in a service request, by the champion model.
//!
//! ```text
//! score-request ──▶ the served model, one snapshot a request ──▶ score ──▶ score-response to reply_to
//! model-promoted ─▶ champion.json ─▶ artefact ─▶ check ─▶ swap
//!                                                  └─ not usable: the last good model stays
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`score`] | features to probabilities; pure |
//! | [`artefact`] | which models may be served; pure |
//!
//! An event is only the occasion to look: what is served is what `champion.json` says then, so that events may come late,
//! twice or in any order. Every request is answered, if only with a typed error.

pub mod artefact;
pub mod score;

use artefact::{Servable, Unusable};
use bytes::Bytes;
use common::{
    contract::{
        envelope::{Envelope, Properties},
        layout,
        message::{
            Input, Kind, Message, ModelPromoted, SCORE_RIDES_MAX, ScoreError, ScoreErrorCode, ScoreRequest,
            ScoreResponse, Undecodable,
        },
        model::Alias,
        outcome::{Failure, Outgoing, Outputs},
    },
    runtime::{
        Worker,
        broker::MESSAGE_TOO_LARGE,
        config::{self, Problem},
        store::{self, Store},
    },
};
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Mutex;

/// The section `[scorer]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Model family whose champion is served.
    pub model: String,
    /// Rides in one request at most.
    pub rides_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { model: layout::GLOBAL_MODEL.to_owned(), rides_max: 10_000 }
    }
}

impl config::Settings for Settings {
    const SECTION: &'static str = "scorer";

    fn check(&self) -> Result<(), Problem> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if self.model.is_empty() || !self.model.chars().all(is_name) {
            return Err(Problem::new("model", &self.model, "the name of a model family, e.g. service-request"));
        }
        if !(1..=SCORE_RIDES_MAX).contains(&self.rides_max) {
            return Err(Problem::new("rides_max", self.rides_max, format!("1 to {SCORE_RIDES_MAX}")));
        }
        Ok(())
    }
}

/// What the scorer reads.
#[derive(Debug, Clone, PartialEq)]
pub enum ScorerIn {
    /// A request to be answered.
    Score(ScoreRequest),
    /// The champion changed.
    Promoted(ModelPromoted),
}

impl Input for ScorerIn {
    const KINDS: &'static [Kind] = &[ScoreRequest::KIND, ModelPromoted::KIND];

    fn decode(kind: Kind, body: &Bytes) -> Result<Self, Undecodable> {
        if kind == ModelPromoted::KIND {
            return common::contract::message::decode(body).map(Self::Promoted);
        }
        common::contract::message::decode(body).map(Self::Score)
    }

    fn batch_id(&self) -> Option<&str> {
        None
    }
}

/// The worker: answers score requests.
pub struct Scorer {
    rides_max: usize,
    champion: Arc<Follower>,
}

impl Scorer {
    /// A scorer with checked settings on this store. It serves nothing before it is connected.
    pub fn new(settings: Settings, store: Store) -> Self {
        Self { rides_max: settings.rides_max, champion: Arc::new(Follower::new(settings.model, store)) }
    }

    /// Id of the model that answers at this moment.
    pub fn serves(&self) -> Option<String> {
        self.champion.served().map(|served| served.model.model_id.clone())
    }

    /// Answers within the request's `expiration`: after that nobody waits for the scores any more, only for the reason.
    async fn answer_in_time(&self, request: &ScoreRequest, properties: &Properties) -> Result<ScoreResponse, Failure> {
        let Some(expiration_ms) = properties.expiration_ms else { return self.answer(request).await };
        let in_time = tokio::time::timeout(Duration::from_millis(expiration_ms), self.answer(request)).await;
        in_time.unwrap_or_else(|_| {
            let message =
                format!("not answered within the {expiration_ms} ms of its expiration: the model is being read");
            let error = ScoreError { code: ScoreErrorCode::DeadlineExceeded, message, field: None };
            Ok(ScoreResponse::failed(&request.request_id, error))
        })
    }

    async fn answer(&self, request: &ScoreRequest) -> Result<ScoreResponse, Failure> {
        if request.rides.len() > self.rides_max {
            let message = format!("{} rides: expected at most {} in one request", request.rides.len(), self.rides_max);
            let error = ScoreError { code: ScoreErrorCode::MalformedRequest, message, field: Some("rides".to_owned()) };
            return Ok(ScoreResponse::failed(&request.request_id, error));
        }
        let served = match self.champion.served() {
            Some(served) => {
                Follower::catch_up(&self.champion);
                Some(served)
            }
            None => {
                self.champion.refresh().await?;
                self.champion.served()
            }
        };
        let Some(served) = served else {
            let error = ScoreError {
                code: ScoreErrorCode::NoModel,
                message: format!(
                    "there is no model {} to score with yet: one comes once enough labelled rides were ingested",
                    self.champion.model
                ),
                field: None,
            };
            return Ok(ScoreResponse::failed(&request.request_id, error));
        };
        Ok(score::score(&served.model, request))
    }
}

impl Worker for Scorer {
    const NAME: &'static str = "scorer";
    /// Enough to keep the broker busy (an answer takes microseconds); more would only hold more requests in memory.
    const CONCURRENCY: u16 = 16;
    /// As many again on their way.
    const PREFETCH: u16 = 32;
    type In = ScorerIn;

    async fn handle(&self, envelope: Envelope<ScorerIn>) -> Result<Outputs, Failure> {
        let Envelope { payload, properties } = envelope;
        match payload {
            ScorerIn::Promoted(promoted) => {
                if promoted.model == self.champion.model {
                    self.champion.follow().await;
                }
                Ok(Outputs::none())
            }
            ScorerIn::Score(request) => {
                if properties.reply_to.is_none() {
                    let why = "a score request names no queue to answer to (reply_to)";
                    return Err(Failure::permanent("no_reply_to", why));
                }
                let reply = Outgoing::reply(&self.answer_in_time(&request, &properties).await?, &properties)?;
                Ok(Outputs::all(reply.into_iter().collect()))
            }
        }
    }

    /// Reads the champion. Without one, or without the store, there still are requests to be answered with an error.
    async fn connected(&self) -> Result<(), Failure> {
        self.champion.follow().await;
        Ok(())
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
            // The request, or the answer to it.
            Failure::Permanent { reason: MESSAGE_TOO_LARGE, why } => (ScoreErrorCode::MalformedRequest, why.clone()),
            _ => (ScoreErrorCode::Internal, format!("the scorer failed, trying again may help: {failure}")),
        };
        error_reply(properties, ScoreError { code, message, field: None })
    }
}

fn error_reply(request: &Properties, error: ScoreError) -> Option<Outgoing> {
    let named = request.correlation_id.as_deref().or(request.message_id.as_deref()).unwrap_or_default();
    let request_id = named.strip_suffix("/score-request").unwrap_or(named);
    Outgoing::reply(&ScoreResponse::failed(request_id, error), request).ok().flatten()
}

/// A model that was checked, and what made it champion.
#[derive(Debug)]
struct Served {
    alias: Alias,
    model: Servable,
}

/// Holds the champion's artefact in memory and replaces it whole.
struct Follower {
    model: String,
    store: Store,
    served: RwLock<Option<Arc<Served>>>,
    /// One reader at a time. Holds what came of the last reading.
    turn: Mutex<Result<(), Failure>>,
    /// Readings that have ended.
    readings: AtomicU64,
    /// The last reading failed: what is served may be outdated.
    behind: AtomicBool,
}

impl Follower {
    fn new(model: String, store: Store) -> Self {
        Self {
            model,
            store,
            served: RwLock::default(),
            turn: Mutex::new(Ok(())),
            readings: AtomicU64::new(0),
            behind: AtomicBool::new(false),
        }
    }

    fn served(&self) -> Option<Arc<Served>> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the champion now; where that fails, the next request is the occasion to try again.
    async fn follow(&self) {
        if let Err(why) = self.refresh().await {
            tracing::warn!(model = %self.model, %why, "the champion cannot be read now");
        }
    }

    /// After a failed reading: reads again in the background, while the present model goes on answering.
    fn catch_up(follower: &Arc<Self>) {
        if follower.behind.swap(false, Ordering::Relaxed) {
            let follower = Arc::clone(follower);
            tokio::spawn(async move { follower.follow().await });
        }
    }

    /// Serves what `champion.json` says now. Of many callers at once two read, the second for all who came while the
    /// first did; all of those get what came of it.
    ///
    /// # Errors
    /// When the store is away. What was served still is.
    async fn refresh(&self) -> Result<(), Failure> {
        let ended = self.readings.load(Ordering::Acquire);
        let mut last = self.turn.lock().await;
        if self.readings.load(Ordering::Acquire) < ended + 2 {
            *last = self.read_and_serve().await;
            self.readings.fetch_add(1, Ordering::Release);
        }
        last.clone()
    }

    async fn read_and_serve(&self) -> Result<(), Failure> {
        match self.read().await {
            Ok(Some(served)) => {
                tracing::info!(model = %self.model, model_id = %served.model.model_id, "serving");
                *self.served.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(served));
            }
            Ok(None) => {}
            Err(failure @ Failure::Permanent { .. }) => {
                tracing::error!(model = %self.model, why = %failure, "the champion cannot be served; the last good one stays");
            }
            Err(failure) => {
                self.behind.store(true, Ordering::Relaxed);
                return Err(failure);
            }
        }
        Ok(())
    }

    /// The champion, when it is another than the served one.
    async fn read(&self) -> Result<Option<Served>, Failure> {
        let path = layout::champion(&self.model);
        let Some(alias) = store::read_json::<Alias>(&self.store, &path).await? else { return Ok(None) };
        if let Some(served) = self.served()
            && (served.alias == alias || alias.is_before(&served.alias))
        {
            return Ok(None);
        }
        if !layout::is_below(layout::MODELS, &alias.object) {
            let why = format!("{path}: its object is {:?}; expected a path below {}/", alias.object, layout::MODELS);
            return Err(Failure::permanent("unusable_model", why));
        }
        let usable = match store::read(&self.store, &alias.object).await? {
            Some(bytes) => artefact::read(&bytes, &alias),
            None => Err(Unusable::Missing(alias.object.clone())),
        };
        match usable {
            Ok(model) => Ok(Some(Served { alias, model })),
            Err(why) => Err(Failure::permanent("unusable_model", format!("{}: {why}", alias.object))),
        }
    }
}

#[cfg(test)]
mod tests;
