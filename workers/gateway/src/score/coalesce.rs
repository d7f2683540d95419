//! Requests that arrive together travel together.
//!
//! ```text
//! HTTP request ─┐                       ┌─▶ its answer
//! HTTP request ─┼─▶ one score-request ──┼─▶ its answer
//! HTTP request ─┘   (one RPC)           └─▶ its answer
//! ```
//!
//! A request that finds nothing under way leaves at once: an idle gateway adds no waiting time. While a message is under
//! way, others gather until it is answered, until they are many, or until the first of them has waited for as long as the
//! settings say. All rides of one request travel in one message, so that one model answers them all. Rides that name a breed may
//! have to wait for its model: requests with such travel with their like.

use crate::{
    http::problem::Problem,
    link::{Link, unanswered},
    metrics::Metrics,
};
use common::{
    message::{Score, ScoreError, ScoreRequest, ScoreRide, Units},
    topology::queue,
};
use runtime::host;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};

/// Requests that wait for their turn in one lane at most; whoever comes then waits before it.
const WAITING_MAX: usize = 4_096;

/// What the scorer said of the rides of one request.
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
pub(crate) enum Unscored {
    /// The scorer's own word.
    Scorer(ScoreError),
    /// It could not be asked, or did not answer.
    Unanswered(Problem),
}

type Answer = oneshot::Sender<Result<Scored, Unscored>>;

struct Job {
    rides: Vec<ScoreRide>,
    deadline: Instant,
    answer: Answer,
}

/// How messages are filled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Rides of several requests in one message at most.
    pub(crate) rides_max: usize,
    /// How long a request waits for company.
    pub(crate) wait: Duration,
}

/// Hands requests to the lane of their kind.
pub(crate) struct Coalescer {
    /// By whether they want explanations, and whether they name a breed.
    lanes: [[mpsc::Sender<Job>; 2]; 2],
}

impl Coalescer {
    /// Starts the lanes.
    pub(crate) fn start(link: &Arc<Link>, metrics: &Arc<Metrics>, limits: Limits) -> Self {
        let lane = |explain| {
            let (jobs, waiting) = mpsc::channel(WAITING_MAX);
            let lane = Lane { link: Arc::clone(link), metrics: Arc::clone(metrics), explain };
            tokio::spawn(lane.run(waiting, limits));
            jobs
        };
        Self { lanes: [false, true].map(|explain| [lane(explain), lane(explain)]) }
    }

    /// Scores rides, all by one model, those left aside that name a breed; weather in NOAA's units.
    ///
    /// # Errors
    /// When the fleet cannot be asked, does not answer before `deadline`, or the scorer has a reason.
    pub(crate) async fn score(
        &self,
        explain: bool,
        rides: Vec<ScoreRide>,
        deadline: Instant,
    ) -> Result<Scored, Unscored> {
        let (answer, answered) = oneshot::channel();
        let gone = || Unscored::Unanswered(Problem::unavailable("shutting-down", "the gateway is shutting down"));
        let asking = async {
            let names_a_breed = rides.iter().any(|ride| ride.breed.is_some());
            let job = Job { rides, deadline, answer };
            let lane = &self.lanes[usize::from(explain)][usize::from(names_a_breed)];
            lane.send(job).await.map_err(|_| gone())?;
            answered.await.map_err(|_| gone())?
        };
        match tokio::time::timeout_at(deadline, asking).await {
            Ok(answer) => answer,
            Err(_) => Err(Unscored::Unanswered(Problem::no_answer("waited for a scorer until the request's deadline"))),
        }
    }
}

#[derive(Clone)]
struct Lane {
    link: Arc<Link>,
    metrics: Arc<Metrics>,
    explain: bool,
}

impl Lane {
    async fn run(self, mut jobs: mpsc::Receiver<Job>, limits: Limits) {
        let mut under_way = JoinSet::new();
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
                while let Some(_answered) = under_way.try_join_next() {}
                let next = match jobs.try_recv() {
                    Ok(next) => next,
                    Err(_) if under_way.is_empty() => break,
                    Err(_) => tokio::select! {
                        biased;
                        next = jobs.recv() => match next {
                            Some(next) => next,
                            None => break,
                        },
                        Some(_answered) = under_way.join_next() => continue,
                        () = tokio::time::sleep_until(latest) => break,
                    },
                };
                if rides + next.rides.len() > limits.rides_max {
                    // Too many together: it is the first of the next message. No request suffers from the size of another.
                    carried = Some(next);
                    break;
                }
                rides += next.rides.len();
                together.push(next);
            }
            under_way.spawn(self.clone().ask(together));
        }
        while under_way.join_next().await.is_some() {}
    }

    async fn ask(self, mut together: Vec<Job>) {
        let now = Instant::now();
        // Whoever has given up meanwhile travels no more.
        together.retain(|job| !job.answer.is_closed() && job.deadline > now);
        let Some(deadline) = together.iter().map(|job| job.deadline).max() else { return };
        let mut lengths = Vec::with_capacity(together.len());
        let mut rides = Vec::with_capacity(together.iter().map(|job| job.rides.len()).sum());
        for job in &mut together {
            lengths.push(job.rides.len());
            rides.append(&mut job.rides);
        }
        self.metrics.sent(rides.len());
        let answered = self.call(rides, deadline.duration_since(now)).await;
        let mut answered = answered.map(|mut scored| {
            let scores = std::mem::take(&mut scored.scores).into_iter();
            (scored, scores)
        });
        for (job, length) in together.into_iter().zip(lengths) {
            let answer = match &mut answered {
                Ok((head, scores)) => Ok(Scored { scores: scores.by_ref().take(length).collect(), ..head.clone() }),
                Err(why) => Err(why.clone()),
            };
            // Whoever asked may have given up by now.
            let _ = job.answer.send(answer);
        }
    }

    async fn call(&self, rides: Vec<ScoreRide>, deadline: Duration) -> Result<Scored, Unscored> {
        let client = self.link.asker(queue::SCORER).map_err(Unscored::Unanswered)?;
        let request_id = format!("{:016x}", host::random_range(0..=u64::MAX));
        let asked = rides.len();
        let request = ScoreRequest { request_id, units: Units::default(), explain: self.explain, rides };
        let answer = client.score(&request, deadline).await;
        let answer = answer.map_err(|error| Unscored::Unanswered(unanswered(&error, "a scorer")))?;
        if let Some(error) = answer.error {
            return Err(Unscored::Scorer(error));
        }
        let (Some(model), Some(model_id), Some(threshold)) = (answer.model, answer.model_id, answer.threshold) else {
            return Err(Unscored::Unanswered(Problem::internal("the scorer's answer names no model")));
        };
        if answer.scores.len() != asked {
            let detail = format!("the scorer answered {} rides of {asked}", answer.scores.len());
            return Err(Unscored::Unanswered(Problem::internal(detail)));
        }
        Ok(Scored { model, model_id, threshold, baseline_log_odds: answer.baseline_log_odds, scores: answer.scores })
    }
}
