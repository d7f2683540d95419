//! Follows batches to their datasets and models, and reports what they wait for.

use super::{
    missed,
    options::{FollowOptions, Goal},
    outcome::{BatchOutcome, ModelOutcome, Outcome, Submission},
    progress::Progress,
    recheck,
    waits::{Causes, Throttle},
};
use crate::session::Failed;
use common::{
    dead_letter::{Letter, ended_with_process, whole},
    exchange,
    message::{DatasetReady, Message, ModelPromoted, ModelRejected, decode},
    topology,
};
use futures::{StreamExt, stream};
use records::{Store, datasets, layout, refreshes, store};
use runtime::{
    Broker,
    broker::{BrokerError, Delivery, deliveries},
    client::{Client, ClientError},
    trace::TraceContext,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// What is known of the batches that a command follows.
struct FollowState {
    /// Each batch with its outcome, and whether the trainer has decided on its dataset.
    batches: Vec<(Submission, Option<BatchOutcome>, bool)>,
    model: Option<ModelOutcome>,
    progress: Progress,
    /// As in [`FollowOptions`].
    in_fleet: bool,
    /// The first dead letter of each batch, if the broker ends with this process: path and document.
    copies: Vec<(String, serde_json::Value)>,
}

/// The deliveries that report the progress of batches.
type Deliveries = stream::SelectAll<stream::BoxStream<'static, Result<Delivery, BrokerError>>>;

/// The connection that replaces a lost one.
struct Reconnection {
    client: Client,
    since: Instant,
    /// When the follower last checked what it missed.
    checked: Instant,
}

/// Listens to everything that reports the progress of a batch. Replaces a lost connection.
pub(crate) struct Follower {
    broker: Arc<dyn Broker>,
    deliveries: Deliveries,
    /// `None` while the first connection lasts.
    reconnection: Option<Reconnection>,
    /// The recorded causes of waiting, as of the start.
    causes: Causes,
}

impl Follower {
    /// Starts listening. Call it before anything is published, so that no event is missed.
    pub(crate) async fn start(broker: &Arc<dyn Broker>, client: &Client, store: &Store) -> Result<Self, Failed> {
        let deliveries = subscribe(client).await?;
        Ok(Self { broker: Arc::clone(broker), deliveries, reconnection: None, causes: Causes::before(store).await })
    }

    /// Waits until every batch is ready or has failed, and, if the goal requires it, until the trainer has decided on each
    /// dataset.
    pub(crate) async fn follow(
        &mut self,
        client: &Client,
        store: &Store,
        submissions: Vec<Submission>,
        follow_options: FollowOptions,
    ) -> Result<Outcome, Failed> {
        let FollowOptions { goal, quiet, in_fleet, .. } = follow_options;
        let mut state = FollowState {
            batches: submissions.into_iter().map(|submission| (submission, None, false)).collect(),
            model: None,
            progress: Progress::new(follow_options, std::mem::take(&mut self.causes)),
            in_fleet,
            copies: Vec::new(),
        };
        self.listen(&mut state, client, store, goal == Goal::Model).await?;
        if goal == Goal::ModelIfTraining && state.batches.iter().any(|(.., trained)| !trained) {
            self.wait_for_a_model(&mut state, client, store, quiet).await?;
        }
        self.count_letters(&mut state, store).await?;
        state.progress.finish();
        // The copies tell `wildrydes status` why there is no dataset.
        for (path, copy) in &state.copies {
            store::write(store, path, serde_json::to_vec_pretty(copy)?).await?;
        }
        let mut batches = Vec::new();
        for (mut submission, outcome, _) in state.batches {
            let Some(outcome) = outcome else { continue };
            if let (BatchOutcome::Ready(ready), None) = (&outcome, submission.refresh) {
                submission.earlier = recheck::look(self.client(client), store, &submission, ready).await?;
            }
            batches.push((submission, outcome));
        }
        Ok(Outcome { batches, model: state.model, in_fleet })
    }

    /// Waits for a model that the command does not require: while a trainer runs, and for a limited time.
    async fn wait_for_a_model(
        &mut self,
        state: &mut FollowState,
        client: &Client,
        store: &Store,
        quiet: bool,
    ) -> Result<(), Failed> {
        const WAIT_MAX: Duration = Duration::from_secs(10 * 60);
        state.progress.finish();
        let print = |text: &str| {
            if !quiet {
                eprintln!("{text}")
            }
        };
        // If the broker does not answer, the trainer may be running: wait for it.
        let trainer = self.client(client).depth(topology::queue::TRAINER).await;
        if trainer.is_ok_and(|trainer| trainer.consumers == 0) {
            print(
                "no process reads the queue `trainer`: a model is trained once a process does (see `wildrydes status`)",
            );
            return Ok(());
        }
        print("waiting for the model, 10 minutes at most (--until dataset does not wait)");
        state.progress.trains();
        match tokio::time::timeout(WAIT_MAX, self.listen(state, client, store, true)).await {
            Ok(ended) => ended,
            Err(_) => {
                print("no answer from the trainer yet; the fleet continues. See its log and `wildrydes status`");
                Ok(())
            }
        }
    }

    /// Listens until every batch is ready or has failed, and, with `to_the_model`, until the trainer has decided on each
    /// dataset.
    async fn listen(
        &mut self,
        state: &mut FollowState,
        client: &Client,
        store: &Store,
        to_the_model: bool,
    ) -> Result<(), Failed> {
        const LOOK_EVERY: Duration = Duration::from_millis(500);
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let FollowState { batches, progress, .. } = &mut *state;
            let is_unfinished = |(_, outcome, trained): &&(Submission, Option<BatchOutcome>, bool)| {
                outcome.is_none() || (to_the_model && !trained)
            };
            let unfinished = batches.iter().filter(is_unfinished);
            let Some((_, outcome, _)) = unfinished.clone().next() else { return Ok(()) };
            let unfinished = unfinished.map(|(submission, ..)| submission);
            tokio::select! {
                next = self.deliveries.next() => match next {
                    Some(Ok(delivery)) => state.take(delivery, store).await?,
                    lost => self.reconnect(lost, state, store).await?,
                },
                _ = tick.tick() => {
                    progress.look(self.client(client), store, unfinished, outcome.is_some()).await;
                    let is_joined = outcome.is_some();
                    state.check_refreshes(store).await?;
                    self.check_missed(state, store).await;
                    if is_joined && self.may_have_missed_the_model() {
                        state.progress.say(
                            "the trainer has not answered since the connection was lost: its answer may have been missed; see \
                             `wildrydes model list`",
                        );
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Counts the dead letters that follow the first one of a batch, from its other chunks, until none arrives for a
    /// moment.
    async fn count_letters(&mut self, state: &mut FollowState, store: &Store) -> Result<(), Failed> {
        const QUIET: Duration = Duration::from_millis(500);
        const LETTERS_MAX: usize = 1_000;
        let failed_after_split = |outcome: &Option<BatchOutcome>| matches!(outcome, Some(BatchOutcome::Refused { queue, .. }) if queue != topology::queue::SPLITTER);
        if !state.batches.iter().any(|(_, outcome, _)| failed_after_split(outcome)) {
            return Ok(());
        }
        for _ in 0..LETTERS_MAX {
            match tokio::time::timeout(QUIET, self.deliveries.next()).await {
                Ok(Some(Ok(delivery))) => state.take(delivery, store).await?,
                // Once the connection is lost, the count stays as it is.
                Ok(_) | Err(_) => break,
            }
        }
        Ok(())
    }

    /// Reconnects, however long it takes, and catches up on what was missed.
    async fn reconnect(
        &mut self,
        lost: Option<Result<Delivery, BrokerError>>,
        state: &mut FollowState,
        store: &Store,
    ) -> Result<(), Failed> {
        /// Time between two attempts.
        const PAUSE: Duration = Duration::from_secs(1);
        let why = match lost {
            Some(Err(BrokerError::Lost(why))) => why,
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(_)) | None => "closed by the broker".to_owned(),
        };
        state
            .progress
            .say(&format!("the connection to the broker is lost ({why}); the fleet continues to work; reconnecting"));
        let mut throttle = Throttle::default();
        loop {
            let connected = async {
                let client = Client::connect(self.broker.as_ref(), "wildrydes").await?;
                let deliveries = subscribe(&client).await?;
                let letters = missed::letters(&client).await?;
                Ok::<_, ClientError>((client, deliveries, letters))
            };
            match connected.await {
                Ok((client, deliveries, letters)) => {
                    let now = Instant::now();
                    (self.deliveries, self.reconnection) =
                        (deliveries, Some(Reconnection { client, since: now, checked: now }));
                    state.progress.say("connected to the broker again");
                    state.catch_up(&letters, store).await;
                    return Ok(());
                }
                Err(error @ ClientError::Broker(BrokerError::Refused(_) | BrokerError::Mismatch { .. })) => {
                    return Err(error.into());
                }
                Err(error) => {
                    let text = format!("no connection to the broker yet: {:#}", anyhow::Error::from(error));
                    if throttle.is_due(&text) {
                        state.progress.say(&text);
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The connection in use; `first` is the one that the command opened.
    fn client<'a>(&'a self, first: &'a Client) -> &'a Client {
        self.reconnection.as_ref().map_or(first, |reconnection| &reconnection.client)
    }

    /// After a reconnect, checks every 15 s what was missed. One check is not enough: another client may hold the dead
    /// letter, or the store may be unavailable.
    async fn check_missed(&mut self, state: &mut FollowState, store: &Store) {
        const EVERY: Duration = Duration::from_secs(15);
        let Some(reconnection) = &mut self.reconnection else { return };
        if reconnection.checked.elapsed() < EVERY {
            return;
        }
        reconnection.checked = Instant::now();
        if let Ok(letters) = missed::letters(&reconnection.client).await {
            state.catch_up(&letters, store).await;
        }
    }

    /// Returns whether the reconnect was so long ago that the trainer's answer must have come before it.
    fn may_have_missed_the_model(&self) -> bool {
        const ANSWER_MAX: Duration = Duration::from_secs(10 * 60);
        self.reconnection.as_ref().is_some_and(|reconnection| reconnection.since.elapsed() >= ANSWER_MAX)
    }
}

/// Subscribes to events and dead letters from now on.
async fn subscribe(client: &Client) -> Result<Deliveries, ClientError> {
    let mut consumers = vec![client.listen(exchange::EVENTS, "#").await?];
    for queue in topology::queue::ALL {
        consumers.push(client.listen(exchange::DEAD, queue).await?);
    }
    Ok(stream::select_all(consumers.into_iter().map(deliveries)))
}

impl FollowState {
    /// Handles one delivery.
    async fn take(&mut self, delivery: Delivery, store: &Store) -> Result<(), Failed> {
        let Delivery { properties, body, exchange, routing_key, settle, .. } = delivery;
        let trace_id = TraceContext::of(&properties).map(TraceContext::trace_id).unwrap_or_default();
        match exchange.as_str() {
            exchange::DEAD => {
                let letter = Letter::read(&routing_key, "", &properties, &body);
                if self.dead_letter(&trace_id, &letter) && !self.in_fleet {
                    let path = layout::dropped(&letter.queue, &letter.id);
                    self.copies.push((path, ended_with_process(whole(&letter, &properties, &body))));
                }
            }
            _ => self.event(&trace_id, properties.kind.as_deref().unwrap_or_default(), &body, store).await?,
        }
        match settle.ack().await {
            // The next delivery reports the lost connection.
            Ok(()) | Err(BrokerError::Lost(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Records the refreshes that have ended. One that changed nothing is not announced, and no training follows.
    async fn check_refreshes(&mut self, store: &Store) -> Result<(), Failed> {
        for (submission, outcome, trained) in self.batches.iter_mut().filter(|(_, outcome, _)| outcome.is_none()) {
            let Some(refresh) = submission.refresh else { continue };
            let Some(ended) = refreshes::ended(store, &submission.batch_id, refresh.attempt).await? else { continue };
            let stored = datasets::revision(store, &submission.batch_id, ended.revision).await?;
            let Some(ready) = stored.map(|stored| stored.announcement()) else { continue };
            self.progress.ready(ready.rides);
            *trained |= !ended.is_changed();
            *outcome = Some(BatchOutcome::Ready(ready));
        }
        Ok(())
    }

    /// Records what happened while there was no connection. What cannot be read now is left for the next check.
    async fn catch_up(&mut self, letters: &[(String, Letter)], store: &Store) {
        let mut ready = Vec::new();
        let is_open = |(submission, outcome, _): &&mut (Submission, Option<BatchOutcome>, bool)| {
            outcome.is_none() && submission.refresh.is_none()
        };
        for (submission, outcome, _) in self.batches.iter_mut().filter(is_open) {
            if let Ok(Some(found)) = missed::dataset(store, submission).await {
                submission.batch_id.clone_from(&found.batch_id);
                ready.push(found.rides);
                *outcome = Some(BatchOutcome::Ready(found));
            }
        }
        ready.into_iter().for_each(|rides| self.progress.ready(rides));
        for (trace_id, letter) in letters {
            let is_new = |(submission, outcome, trained): &(Submission, Option<BatchOutcome>, bool)| {
                submission.trace_id == *trace_id && !trained && !matches!(outcome, Some(BatchOutcome::Refused { .. }))
            };
            if self.batches.iter().any(is_new) {
                self.dead_letter(trace_id, letter);
            }
        }
        for (_, outcome, trained) in &mut self.batches {
            if let (Some(BatchOutcome::Ready(ready)), false) = (&*outcome, *trained)
                && let Ok(Some(model)) = missed::model(store, ready).await
            {
                (self.model, *trained) = (Some(model), true);
            }
        }
    }

    /// Records a dead letter; returns whether it is the first of a batch that has no dataset.
    fn dead_letter(&mut self, trace_id: &str, letter: &Letter) -> bool {
        let Letter { queue, reason, why, .. } = letter;
        let mut is_first = false;
        for (_, outcome, trained) in self.batches.iter_mut().filter(|(submission, ..)| submission.trace_id == trace_id)
        {
            let (reason, why) = (reason.clone(), why.clone());
            match outcome {
                Some(BatchOutcome::Ready(_)) => self.model = Some(ModelOutcome::Failed { reason, why }),
                Some(BatchOutcome::Refused { letters, .. }) => *letters += 1,
                None => {
                    is_first = true;
                    *outcome = Some(BatchOutcome::Refused { queue: queue.clone(), reason, why, letters: 1 });
                }
            }
            *trained = true;
            self.progress.moved();
        }
        is_first
    }

    async fn event(&mut self, trace_id: &str, kind: &str, body: &[u8], store: &Store) -> Result<(), Failed> {
        if kind == DatasetReady::KIND.to_string() {
            let ready: DatasetReady = decode(body)?;
            for (submission, outcome, _) in &mut self.batches {
                // An announcement may be about an earlier revision; the record of the attempt tells how it ended.
                if submission.refresh.is_some() {
                    continue;
                }
                // With another trace id it may be the same batch, or another publisher's batch with the same id.
                let is_same = submission.trace_id == trace_id
                    || (submission.batch_id == ready.batch_id && matches!(submission.claim(store).await, Ok(Some(_))));
                if is_same {
                    submission.batch_id.clone_from(&ready.batch_id);
                    outcome.get_or_insert(BatchOutcome::Ready(ready.clone()));
                    self.progress.ready(ready.rides);
                }
            }
        } else if let Some((family, outcome)) = training_outcome(kind, body)? {
            // The breed models of a release follow its global model.
            let about = |submission: &Submission| family == layout::GLOBAL_MODEL && submission.trace_id == trace_id;
            let mut concerned = self.batches.iter_mut().filter(|(submission, ..)| about(submission)).peekable();
            if concerned.peek().is_some() {
                self.model = Some(outcome);
                self.progress.moved();
            }
            concerned.for_each(|(_, _, trained)| *trained = true);
        }
        Ok(())
    }
}

/// Returns the model family and the outcome of a training, if an event reports one.
fn training_outcome(kind: &str, body: &[u8]) -> Result<Option<(String, ModelOutcome)>, Failed> {
    Ok(if kind == ModelPromoted::KIND.to_string() {
        let promoted: ModelPromoted = decode(body)?;
        Some((promoted.model.clone(), ModelOutcome::Promoted(promoted)))
    } else if kind == ModelRejected::KIND.to_string() {
        let rejected: ModelRejected = decode(body)?;
        Some((rejected.model.clone(), ModelOutcome::Rejected(rejected)))
    } else {
        None
    })
}
