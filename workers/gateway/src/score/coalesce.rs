//! Combines requests that arrive together into one message to a scorer.
//!
//! ```text
//! HTTP request ─┐                       ┌─▶ answer
//! HTTP request ─┼─▶ one score-request ──┼─▶ answer
//! HTTP request ─┘   (one RPC)           └─▶ answer
//! ```
//!
//! If no message is in progress, a request is sent at once: an idle gateway adds no delay. While a message is in progress, requests
//! wait until it is answered, until they fill a message, or until the first of them has waited for `gateway.coalesce_wait_us`. All
//! rides of one request are in one message, so that one model scores them. Requests with other options, and those with rides that name
//! a breed, have lanes of their own: a message has one set of options, and rides that name a breed may have to wait for its model.

use crate::{
    http::problem::Problem,
    link::{Link, request_failed},
    metrics::Metrics,
};
use common::{
    message::{Score, ScoreError, ScoreRequest, ScoreRide, Units},
    topology::queue,
};
use runtime::{
    host,
    trace::{self, TraceContext},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};

/// Maximum number of requests that wait in one lane; further ones wait for a place in it.
const WAITING_MAX: usize = 4_096;

/// The scorer's answer to one request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scored {
    pub(crate) model: String,
    pub(crate) model_id: String,
    pub(crate) threshold: f64,
    /// With explanations only.
    pub(crate) baseline_log_odds: Option<f64>,
    /// In the order of the request.
    pub(crate) scores: Vec<Score>,
}

/// Why there is no score for a request.
#[derive(Debug, Clone)]
pub(crate) enum ScoreFailure {
    /// The scorer refused the request.
    Scorer(ScoreError),
    /// The scorer could not be reached, or did not answer.
    Unanswered(Problem),
}

type Answer = oneshot::Sender<Result<Scored, ScoreFailure>>;

struct Job {
    rides: Vec<ScoreRide>,
    /// The spans of the request.
    spans: Vec<TraceContext>,
    deadline: Instant,
    answer: Answer,
}

/// Limits of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Maximum number of rides of several requests in one message.
    pub(crate) rides_max: usize,
    /// How long a request waits for others.
    pub(crate) wait: Duration,
}

/// The options that the requests of one message share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SharedOptions {
    /// Whether the answer contains the contribution of each feature.
    pub(crate) explain: bool,
    /// Whether missing features are imputed.
    pub(crate) impute: bool,
}

/// Sends each request to its lane.
pub(crate) struct Coalescer {
    /// By `explain`, `impute`, and whether rides name a breed.
    lanes: [[[mpsc::Sender<Job>; 2]; 2]; 2],
}

impl Coalescer {
    /// Starts the lanes.
    pub(crate) fn start(link: &Arc<Link>, metrics: &Arc<Metrics>, limits: Limits) -> Self {
        let lane = |explain, impute| {
            let (jobs, waiting) = mpsc::channel(WAITING_MAX);
            let options = SharedOptions { explain, impute };
            let lane = Lane { link: Arc::clone(link), metrics: Arc::clone(metrics), options };
            tokio::spawn(lane.run(waiting, limits));
            jobs
        };
        let both = |explain| [false, true].map(|impute| [lane(explain, impute), lane(explain, impute)]);
        Self { lanes: [false, true].map(both) }
    }

    /// Scores rides, all by one model except those that name a breed; weather in NOAA's units.
    ///
    /// # Errors
    /// Fails if no scorer can be reached, none answers before `deadline`, or the scorer refuses the request.
    pub(crate) async fn score(
        &self,
        options: SharedOptions,
        rides: Vec<ScoreRide>,
        deadline: Instant,
    ) -> Result<Scored, ScoreFailure> {
        let (answer, answered) = oneshot::channel();
        let gone = || ScoreFailure::Unanswered(Problem::unavailable("shutting-down", "the gateway is shutting down"));
        let asking = async {
            let names_a_breed = rides.iter().any(|ride| ride.breed.is_some());
            let job = Job { rides, spans: trace::current(), deadline, answer };
            let SharedOptions { explain, impute } = options;
            let lane = &self.lanes[usize::from(explain)][usize::from(impute)][usize::from(names_a_breed)];
            lane.send(job).await.map_err(|_| gone())?;
            answered.await.map_err(|_| gone())?
        };
        match tokio::time::timeout_at(deadline, asking).await {
            Ok(answer) => answer,
            Err(_) => {
                Err(ScoreFailure::Unanswered(Problem::no_answer("waited for a scorer until the request's deadline")))
            }
        }
    }
}

#[derive(Clone)]
struct Lane {
    link: Arc<Link>,
    metrics: Arc<Metrics>,
    options: SharedOptions,
}

impl Lane {
    async fn run(self, mut jobs: mpsc::Receiver<Job>, limits: Limits) {
        let mut in_progress = JoinSet::new();
        let mut carried: Option<Job> = None;
        loop {
            let first = match carried.take() {
                Some(job) => job,
                None => match jobs.recv().await {
                    Some(job) => job,
                    None => break,
                },
            };
            let latest = Instant::now() + limits.wait;
            let mut rides = first.rides.len();
            let mut together = vec![first];
            while rides < limits.rides_max {
                while let Some(_answered) = in_progress.try_join_next() {}
                let next = match jobs.try_recv() {
                    Ok(next) => next,
                    Err(_) if in_progress.is_empty() => break,
                    Err(_) => tokio::select! {
                        biased;
                        next = jobs.recv() => match next {
                            Some(next) => next,
                            None => break,
                        },
                        Some(_answered) = in_progress.join_next() => continue,
                        () = tokio::time::sleep_until(latest) => break,
                    },
                };
                if rides + next.rides.len() > limits.rides_max {
                    // Too many rides together: this request is the first of the next message.
                    carried = Some(next);
                    break;
                }
                rides += next.rides.len();
                together.push(next);
            }
            in_progress.spawn(self.clone().ask(together));
        }
        while in_progress.join_next().await.is_some() {}
    }

    async fn ask(self, mut together: Vec<Job>) {
        let now = Instant::now();
        // Requests whose client has given up are not sent.
        together.retain(|job| !job.answer.is_closed() && job.deadline > now);
        let Some(deadline) = together.iter().map(|job| job.deadline).max() else { return };
        let mut lengths = Vec::with_capacity(together.len());
        let mut rides = Vec::with_capacity(together.iter().map(|job| job.rides.len()).sum());
        for job in &mut together {
            lengths.push(job.rides.len());
            rides.append(&mut job.rides);
        }
        self.metrics.sent(rides.len());
        let spans = together.iter().flat_map(|job| job.spans.iter().copied()).collect();
        let answered = trace::within(spans, self.call(rides, deadline.duration_since(now))).await;
        let mut answered = answered.map(|mut scored| {
            let scores = std::mem::take(&mut scored.scores).into_iter();
            (scored, scores)
        });
        for (job, length) in together.into_iter().zip(lengths) {
            let answer = match &mut answered {
                Ok((head, scores)) => Ok(Scored { scores: scores.by_ref().take(length).collect(), ..head.clone() }),
                Err(why) => Err(why.clone()),
            };
            // The client may have given up by now.
            let _ = job.answer.send(answer);
        }
    }

    async fn call(&self, rides: Vec<ScoreRide>, deadline: Duration) -> Result<Scored, ScoreFailure> {
        let client = self.link.requester(queue::SCORER).map_err(ScoreFailure::Unanswered)?;
        let request_id = format!("{:016x}", host::random_range(0..=u64::MAX));
        let rides_sent = rides.len();
        let SharedOptions { explain, impute } = self.options;
        let request = ScoreRequest { request_id, units: Units::default(), explain, impute, rides };
        let answer = client.score(&request, deadline).await;
        let answer = answer.map_err(|error| ScoreFailure::Unanswered(request_failed(&error, "a scorer")))?;
        if let Some(error) = answer.error {
            return Err(ScoreFailure::Scorer(error));
        }
        let (Some(model), Some(model_id), Some(threshold)) = (answer.model, answer.model_id, answer.threshold) else {
            return Err(ScoreFailure::Unanswered(Problem::internal("the scorer's answer names no model")));
        };
        if answer.scores.len() != rides_sent {
            let detail = format!("the scorer answered {} rides of {rides_sent}", answer.scores.len());
            return Err(ScoreFailure::Unanswered(Problem::internal(detail)));
        }
        Ok(Scored { model, model_id, threshold, baseline_log_odds: answer.baseline_log_odds, scores: answer.scores })
    }
}
