//! Follows batches to their datasets and models, and says what they wait for.

use super::{
    manner::{Goal, Manner},
    missed,
    outcome::{BatchOutcome, ModelOutcome, Outcome, Submitted},
    progress::Progress,
    recheck,
    waits::{Causes, Said},
};
use crate::session::Failed;
use common::{
    dead_letter::{Letter, ended_with_process, whole},
    exchange,
    message::{DatasetReady, Message, ModelPromoted, ModelRejected, decode},
    topology,
};
use futures::{StreamExt, stream};
use records::{Store, layout, store};
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

/// The batches that are followed.
struct Followed {
    /// Each with its outcome, and whether the trainer has answered for it.
    batches: Vec<(Submitted, Option<BatchOutcome>, bool)>,
    model: Option<ModelOutcome>,
    progress: Progress,
    /// As in [`Manner`].
    in_fleet: bool,
    /// The first dead letter of each batch, where the broker ends with this process: path and document.
    copies: Vec<(String, serde_json::Value)>,
}

/// The deliveries that report the progress of batches.
type Heard = stream::SelectAll<stream::BoxStream<'static, Result<Delivery, BrokerError>>>;

/// The connection that replaces a lost one.
struct Reconnected {
    client: Client,
    since: Instant,
    /// When the follower last checked what it missed.
    checked: Instant,
}

/// Listens to everything that reports the progress of a batch; after a lost connection, on another one.
pub(crate) struct Follower {
    broker: Arc<dyn Broker>,
    heard: Heard,
    /// `None` while the first connection lasts.
    reconnected: Option<Reconnected>,
    /// The recorded causes of waiting, as of the start.
    causes: Causes,
}

impl Follower {
    /// Starts listening; before anything is published, so that nothing is missed.
    pub(crate) async fn start(broker: &Arc<dyn Broker>, client: &Client, store: &Store) -> Result<Self, Failed> {
        let heard = subscribe(client).await?;
        Ok(Self { broker: Arc::clone(broker), heard, reconnected: None, causes: Causes::before(store).await })
    }

    /// Waits until every batch is ready or has failed, and, if the goal says so, until the trainer has answered for
    /// each.
    pub(crate) async fn follow(
        &mut self,
        client: &Client,
        store: &Store,
        submitted: Vec<Submitted>,
        manner: Manner,
    ) -> Result<Outcome, Failed> {
        let Manner { goal, quiet, in_fleet, .. } = manner;
        let mut followed = Followed {
            batches: submitted.into_iter().map(|submitted| (submitted, None, false)).collect(),
            model: None,
            progress: Progress::new(manner, std::mem::take(&mut self.causes)),
            in_fleet,
            copies: Vec::new(),
        };
        self.listen(&mut followed, client, store, goal == Goal::Model).await?;
        if goal == Goal::ModelIfTraining && followed.batches.iter().any(|(.., trained)| !trained) {
            self.wait_for_a_model(&mut followed, client, store, quiet).await?;
        }
        self.count_letters(&mut followed, store).await?;
        followed.progress.finish();
        // So that `wildrydes status` knows why there is no dataset.
        for (path, copy) in &followed.copies {
            store::write(store, path, serde_json::to_vec_pretty(copy)?).await?;
        }
        let mut batches = Vec::new();
        for (mut submitted, outcome, _) in followed.batches {
            let Some(outcome) = outcome else { continue };
            if let BatchOutcome::Ready(ready) = &outcome {
                submitted.earlier = recheck::look(self.client(client), store, &submitted, ready).await?;
            }
            batches.push((submitted, outcome));
        }
        Ok(Outcome { batches, model: followed.model, in_fleet })
    }

    /// Waits for a model that was not asked for by name: while a trainer runs, and for a limited time.
    async fn wait_for_a_model(
        &mut self,
        followed: &mut Followed,
        client: &Client,
        store: &Store,
        quiet: bool,
    ) -> Result<(), Failed> {
        const WAIT_MAX: Duration = Duration::from_secs(10 * 60);
        followed.progress.finish();
        let say = |text: &str| {
            if !quiet {
                eprintln!("{text}")
            }
        };
        // If the broker does not answer, the trainer may be running: wait for it.
        let trainer = self.client(client).depth(topology::queue::TRAINER).await;
        if trainer.is_ok_and(|trainer| trainer.consumers == 0) {
            say(
                "no process reads the queue `trainer`: a model is trained once a process does (see `wildrydes status`)",
            );
            return Ok(());
        }
        say("waiting for the model, 10 minutes at most (--until dataset does not)");
        followed.progress.trains();
        match tokio::time::timeout(WAIT_MAX, self.listen(followed, client, store, true)).await {
            Ok(ended) => ended,
            Err(_) => {
                say("no answer from the trainer yet; the fleet goes on. See its log and `wildrydes status`");
                Ok(())
            }
        }
    }

    /// Listens until every batch is ready or has failed, and, with `to_the_model`, until the trainer has answered for
    /// each.
    async fn listen(
        &mut self,
        followed: &mut Followed,
        client: &Client,
        store: &Store,
        to_the_model: bool,
    ) -> Result<(), Failed> {
        const LOOK_EVERY: Duration = Duration::from_millis(500);
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let Followed { batches, progress, .. } = &mut *followed;
            let on_its_way = |(_, outcome, trained): &&(Submitted, Option<BatchOutcome>, bool)| {
                outcome.is_none() || (to_the_model && !trained)
            };
            let waiting = batches.iter().filter(on_its_way);
            let Some((_, outcome, _)) = waiting.clone().next() else { return Ok(()) };
            let on_their_way = waiting.map(|(submitted, ..)| submitted);
            tokio::select! {
                heard = self.heard.next() => match heard {
                    Some(Ok(delivery)) => followed.take(delivery, store).await?,
                    lost => self.reconnect(lost, followed, store).await?,
                },
                _ = tick.tick() => {
                    progress.look(self.client(client), store, on_their_way, outcome.is_some()).await;
                    let is_joined = outcome.is_some();
                    self.check_missed(followed, store).await;
                    if is_joined && self.may_have_missed_the_model() {
                        followed.progress.say(
                            "the trainer has not answered since the connection was lost: its answer may have been missed; see \
                             `wildrydes model list`",
                        );
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The first dead letter of a batch may be followed by those of its other chunks: counts them until none came for a
    /// moment.
    async fn count_letters(&mut self, followed: &mut Followed, store: &Store) -> Result<(), Failed> {
        const QUIET: Duration = Duration::from_millis(500);
        const LETTERS_MAX: usize = 1_000;
        let failed_later = |outcome: &Option<BatchOutcome>| matches!(outcome, Some(BatchOutcome::Refused { queue, .. }) if queue != topology::queue::SPLITTER);
        if !followed.batches.iter().any(|(_, outcome, _)| failed_later(outcome)) {
            return Ok(());
        }
        for _ in 0..LETTERS_MAX {
            match tokio::time::timeout(QUIET, self.heard.next()).await {
                Ok(Some(Ok(delivery))) => followed.take(delivery, store).await?,
                // Once the connection is lost, the count stays as it is.
                Ok(_) | Err(_) => break,
            }
        }
        Ok(())
    }

    /// Reconnects, however long it takes, and processes what was missed meanwhile.
    async fn reconnect(
        &mut self,
        lost: Option<Result<Delivery, BrokerError>>,
        followed: &mut Followed,
        store: &Store,
    ) -> Result<(), Failed> {
        /// Pause between two attempts.
        const PAUSE: Duration = Duration::from_secs(1);
        let why = match lost {
            Some(Err(BrokerError::Lost(why))) => why,
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(_)) | None => "closed by the broker".to_owned(),
        };
        followed
            .progress
            .say(&format!("the connection to the broker is lost ({why}); the fleet continues to work; reconnecting"));
        let mut said = Said::default();
        loop {
            let connected = async {
                let client = Client::connect(self.broker.as_ref(), "wildrydes").await?;
                let heard = subscribe(&client).await?;
                let letters = missed::letters(&client).await?;
                Ok::<_, ClientError>((client, heard, letters))
            };
            match connected.await {
                Ok((client, heard, letters)) => {
                    let now = Instant::now();
                    (self.heard, self.reconnected) = (heard, Some(Reconnected { client, since: now, checked: now }));
                    followed.progress.say("connected to the broker again");
                    followed.catch_up(&letters, store).await;
                    return Ok(());
                }
                Err(error @ ClientError::Broker(BrokerError::Refused(_) | BrokerError::Mismatch { .. })) => {
                    return Err(error.into());
                }
                Err(error) => {
                    let text = format!("no connection to the broker yet: {:#}", anyhow::Error::from(error));
                    if said.is_due(&text) {
                        followed.progress.say(&text);
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The connection in use; `first` is the one that the command made.
    fn client<'a>(&'a self, first: &'a Client) -> &'a Client {
        self.reconnected.as_ref().map_or(first, |reconnected| &reconnected.client)
    }

    /// After a reconnect, checks every 15 s what was missed. One check is not enough: another client may hold the dead
    /// letter, or the store may be unavailable.
    async fn check_missed(&mut self, followed: &mut Followed, store: &Store) {
        const EVERY: Duration = Duration::from_secs(15);
        let Some(reconnected) = &mut self.reconnected else { return };
        if reconnected.checked.elapsed() < EVERY {
            return;
        }
        reconnected.checked = Instant::now();
        if let Ok(letters) = missed::letters(&reconnected.client).await {
            followed.catch_up(&letters, store).await;
        }
    }

    /// Returns whether the reconnect was so long ago that the trainer's answer must have come before it.
    fn may_have_missed_the_model(&self) -> bool {
        const ANSWER_MAX: Duration = Duration::from_secs(10 * 60);
        self.reconnected.as_ref().is_some_and(|reconnected| reconnected.since.elapsed() >= ANSWER_MAX)
    }
}

/// Subscribes to events and dead letters from now on.
async fn subscribe(client: &Client) -> Result<Heard, ClientError> {
    let mut consumers = vec![client.listen(exchange::EVENTS, "#").await?];
    for queue in topology::queue::ALL {
        consumers.push(client.listen(exchange::DEAD, queue).await?);
    }
    Ok(stream::select_all(consumers.into_iter().map(|consumer| deliveries(consumer).boxed())))
}

impl Followed {
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

    /// Records what happened while there was no connection. What cannot be read now is left for the next check.
    async fn catch_up(&mut self, letters: &[(String, Letter)], store: &Store) {
        let mut ready = Vec::new();
        for (submitted, outcome, _) in self.batches.iter_mut().filter(|(_, outcome, _)| outcome.is_none()) {
            if let Ok(Some(found)) = missed::dataset(store, submitted).await {
                submitted.batch_id.clone_from(&found.batch_id);
                ready.push(found.rides);
                *outcome = Some(BatchOutcome::Ready(found));
            }
        }
        ready.into_iter().for_each(|rides| self.progress.ready(rides));
        for (trace_id, letter) in letters {
            let is_new = |(submitted, outcome, trained): &(Submitted, Option<BatchOutcome>, bool)| {
                submitted.trace_id == *trace_id && !trained && !matches!(outcome, Some(BatchOutcome::Refused { .. }))
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
        for (_, outcome, trained) in self.batches.iter_mut().filter(|(submitted, ..)| submitted.trace_id == trace_id) {
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
            for (submitted, outcome, _) in &mut self.batches {
                // With another trace id it may be the same batch, or another publisher's batch with the same id.
                let is_same = submitted.trace_id == trace_id
                    || (submitted.batch_id == ready.batch_id && matches!(submitted.claim(store).await, Ok(Some(_))));
                if is_same {
                    submitted.batch_id.clone_from(&ready.batch_id);
                    outcome.get_or_insert(BatchOutcome::Ready(ready.clone()));
                    self.progress.ready(ready.rides);
                }
            }
        } else if let Some((family, said)) = said(kind, body)? {
            // The breed models of a release follow its global model.
            let about = |submitted: &Submitted| family == layout::GLOBAL_MODEL && submitted.trace_id == trace_id;
            let mut concerned = self.batches.iter_mut().filter(|(submitted, ..)| about(submitted)).peekable();
            if concerned.peek().is_some() {
                self.model = Some(said);
                self.progress.moved();
            }
            concerned.for_each(|(_, _, trained)| *trained = true);
        }
        Ok(())
    }
}

/// The outcome of a training that an event reports, and the model family.
fn said(kind: &str, body: &[u8]) -> Result<Option<(String, ModelOutcome)>, Failed> {
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
