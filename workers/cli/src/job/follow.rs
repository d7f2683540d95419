//! Follows batches to their datasets and models, and says what they wait for.

use super::{BatchOutcome, ModelOutcome, Outcome, Submitted, earlier, progress::Progress, waits::Causes};
use crate::Failed;
use anyhow::Context;
use common::{
    contract::{
        dead_letter::{Letter, ended_with_process, whole},
        envelope, layout,
        message::{DatasetReady, Message, ModelPromoted, ModelRejected, decode},
        topology,
    },
    runtime::{
        Store,
        broker::{BrokerError, Delivery, deliveries},
        client::Client,
        store,
        trace::TraceContext,
    },
};
use futures::{StreamExt, stream};
use std::time::Duration;

/// When a batch counts as finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// To their datasets.
    Dataset,
    /// To the model that is trained on them.
    Model,
    /// To the model, if a trainer is running, and for a limited time.
    ModelIfTraining,
}

/// How a command follows its batches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// How far.
    pub(crate) goal: Goal,
    /// No progress on standard error; causes of waits are shown all the same.
    pub(crate) quiet: bool,
    /// How long a batch may make no progress until the cause is named.
    pub(crate) patience: Duration,
    /// Whether the workers are those of a fleet, not of this process: a fleet's workers can be paused or absent, and
    /// its broker keeps dead letters.
    pub(crate) in_fleet: bool,
}

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

/// Listens to everything that reports the progress of a batch.
pub(crate) struct Follower {
    heard: stream::SelectAll<stream::BoxStream<'static, Result<Delivery, BrokerError>>>,
    /// The recorded causes of waiting, as of the start.
    causes: Causes,
}

impl Follower {
    /// Starts listening; before anything is published, so that nothing is missed.
    pub(crate) async fn start(client: &Client, store: &Store) -> Result<Self, Failed> {
        let mut consumers = vec![client.listen(topology::EVENTS, "#").await?];
        for queue in topology::queue::ALL {
            consumers.push(client.listen(topology::DEAD, queue).await?);
        }
        let heard = stream::select_all(consumers.into_iter().map(|consumer| deliveries(consumer).boxed()));
        Ok(Self { heard, causes: Causes::before(store).await })
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
        self.count_letters(&mut followed).await?;
        followed.progress.finish();
        // So that `wildrydes status` knows why there is no dataset.
        for (path, copy) in &followed.copies {
            store::write(store, path, serde_json::to_vec_pretty(copy)?).await?;
        }
        let mut batches = Vec::new();
        for (mut submitted, outcome, _) in followed.batches {
            let Some(outcome) = outcome else { continue };
            if let BatchOutcome::Ready(ready) = &outcome {
                submitted.earlier = earlier::look(client, store, &submitted, ready).await?;
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
        if client.depth(topology::queue::TRAINER).await?.consumers == 0 {
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
                heard = self.heard.next() => {
                    let delivery = heard.context("the broker closed the connection")??;
                    followed.take(delivery).await?;
                }
                _ = tick.tick() => progress.look(client, store, on_their_way, outcome.is_some()).await,
            }
        }
    }

    /// The first dead letter of a batch may be followed by those of its other chunks: counts them until none came for a
    /// moment.
    async fn count_letters(&mut self, followed: &mut Followed) -> Result<(), Failed> {
        const QUIET: Duration = Duration::from_millis(500);
        const LETTERS_MAX: usize = 1_000;
        let failed_later = |outcome: &Option<BatchOutcome>| matches!(outcome, Some(BatchOutcome::Refused { queue, .. }) if queue != topology::queue::SPLITTER);
        if !followed.batches.iter().any(|(_, outcome, _)| failed_later(outcome)) {
            return Ok(());
        }
        for _ in 0..LETTERS_MAX {
            match tokio::time::timeout(QUIET, self.heard.next()).await {
                Ok(heard) => followed.take(heard.context("the broker closed the connection")??).await?,
                Err(_) => break,
            }
        }
        Ok(())
    }
}

impl Followed {
    /// Handles one delivery.
    async fn take(&mut self, delivery: Delivery) -> Result<(), Failed> {
        let Delivery { properties, body, exchange, routing_key, settle, .. } = delivery;
        let trace_id = TraceContext::of(&properties).map(TraceContext::trace_id).unwrap_or_default();
        match exchange.as_str() {
            topology::DEAD => {
                // The broker itself dead-letters a message that was delivered too often, with a header of its own.
                let text = |name: &str| properties.text(name);
                let reason = text(envelope::REASON).or(text("x-first-death-reason")).unwrap_or("unknown");
                let why = text(envelope::WHY).unwrap_or("it was delivered too often without an answer");
                let is_first = self.dead_letter(&trace_id, &routing_key, reason, why);
                if is_first && !self.in_fleet {
                    let letter = Letter::read(&routing_key, "", &properties, &body);
                    let path = layout::dropped(&letter.queue, &letter.id);
                    self.copies.push((path, ended_with_process(whole(&letter, &properties, &body))));
                }
            }
            _ => self.event(&trace_id, properties.kind.as_deref().unwrap_or_default(), &body)?,
        }
        settle.ack().await?;
        Ok(())
    }

    /// Whether it is the first dead letter of a batch that has no dataset.
    fn dead_letter(&mut self, trace_id: &str, queue: &str, reason: &str, why: &str) -> bool {
        let mut is_first = false;
        for (_, outcome, trained) in self.batches.iter_mut().filter(|(submitted, ..)| submitted.trace_id == trace_id) {
            let (reason, why) = (reason.to_owned(), why.to_owned());
            match outcome {
                Some(BatchOutcome::Ready(_)) => self.model = Some(ModelOutcome::Failed { reason, why }),
                Some(BatchOutcome::Refused { letters, .. }) => *letters += 1,
                None => {
                    is_first = true;
                    *outcome = Some(BatchOutcome::Refused { queue: queue.to_owned(), reason, why, letters: 1 });
                }
            }
            *trained = true;
            self.progress.moved();
        }
        is_first
    }

    fn event(&mut self, trace_id: &str, kind: &str, body: &[u8]) -> Result<(), Failed> {
        let mine = |submitted: &Submitted, batch_id: Option<&str>| {
            submitted.trace_id == trace_id || batch_id == Some(submitted.batch_id.as_str())
        };
        if kind == DatasetReady::KIND.to_string() {
            let ready: DatasetReady = decode(body)?;
            for (submitted, outcome, _) in self.batches.iter_mut().filter(|(s, ..)| mine(s, Some(&ready.batch_id))) {
                submitted.batch_id.clone_from(&ready.batch_id);
                outcome.get_or_insert(BatchOutcome::Ready(ready.clone()));
                self.progress.ready(ready.rides);
            }
        } else if let Some((family, said)) = said(kind, body)? {
            // The breed models of a release follow its global model.
            let about = |submitted: &Submitted| family == layout::GLOBAL_MODEL && mine(submitted, None);
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
