//! What is shown while batches are followed: how far they are, and why they make no progress.

use super::{
    manner::Manner,
    outcome::Submitted,
    waits::{Causes, Said},
};
use crate::output::{
    legible,
    progress::{Step, Unit},
};
use common::{message::WorkerControl, topology::queue};
use records::{
    Store, control,
    staging::{self, Staged},
};
use runtime::client::Client;
use std::time::{Duration, Instant};

/// How long a batch makes no progress until the queues of its workers are inspected, and the time between two
/// inspections.
const QUEUES_EVERY: Duration = Duration::from_secs(2);
/// How often the store is read where no progress is shown: there it only matters whether the batch advances.
const STORE_EVERY: Duration = Duration::from_secs(2);
/// Time between two readings of what the workers wait for.
const CAUSES_EVERY: Duration = Duration::from_secs(1);
/// The workers between a batch and its dataset, in the order of the flow.
const JOINING: [&str; 3] = [queue::SPLITTER, queue::WEATHER_FETCHER, queue::MERGER];

/// How far the batches are, as a person sees it.
pub(super) struct Progress {
    manner: Manner,
    /// The batch whose rides are joined, by its id.
    step: Option<(String, Step)>,
    training: bool,
    rides: u64,
    /// When any batch last made progress.
    moved: Instant,
    /// The position of the batch that is inspected.
    position: Option<(String, Option<Staged>)>,
    /// When the store was read last, and the queues.
    store_seen: Option<Instant>,
    queues_seen: Option<Instant>,
    /// When the records of waiting were read last.
    causes_seen: Option<Instant>,
    causes: Causes,
    /// Obstacles found in the queues; reported together with the causes.
    obstacles: Vec<String>,
    /// What waits in the queues, in words; `None` where a queue waits for a process to read it.
    queued: Option<String>,
    said: Said,
    /// Queues already reported as read by no process.
    unread: Vec<&'static str>,
}

impl Progress {
    pub(super) fn new(manner: Manner, causes: Causes) -> Self {
        Self {
            manner,
            step: None,
            training: false,
            rides: 0,
            moved: Instant::now(),
            position: None,
            store_seen: None,
            queues_seen: None,
            causes_seen: None,
            causes,
            obstacles: Vec::new(),
            queued: Some(String::new()),
            said: Said::default(),
            unread: Vec::new(),
        }
    }

    /// Something happened to one of the batches.
    pub(super) fn moved(&mut self) {
        self.moved = Instant::now();
    }

    /// A dataset of so many rides is ready.
    pub(super) fn ready(&mut self, rides: u64) {
        self.rides = rides;
        self.moved();
    }

    /// The trainer reported that it is at work.
    pub(super) fn trains(&mut self) {
        self.training = true;
        self.moved();
    }

    /// Updates how far the first batch of `on_their_way` is, and what the batches wait for.
    pub(super) async fn look<'a>(
        &mut self,
        client: &Client,
        store: &Store,
        on_their_way: impl Iterator<Item = &'a Submitted> + Clone,
        dataset_ready: bool,
    ) {
        let Some(batch) = on_their_way.clone().next() else { return };
        if dataset_ready {
            self.finish();
            if !std::mem::replace(&mut self.training, true) {
                self.moved();
                if !self.manner.quiet {
                    eprintln!("training");
                }
            }
        } else {
            self.look_at_store(store, batch).await;
        }
        let still = self.moved.elapsed();
        if still >= QUEUES_EVERY && self.queues_seen.is_none_or(|seen| seen.elapsed() >= QUEUES_EVERY) {
            self.queues_seen = Some(Instant::now());
            self.look_at_queues(client, store, if dataset_ready { &[queue::TRAINER] } else { &JOINING }).await;
        }
        if still >= self.manner.patience && self.causes_seen.is_none_or(|seen| seen.elapsed() >= CAUSES_EVERY) {
            self.causes_seen = Some(Instant::now());
            self.causes.look(store).await;
        }
        self.tell(on_their_way);
    }

    async fn look_at_store(&mut self, store: &Store, batch: &Submitted) {
        let quiet = self.manner.quiet;
        if quiet && self.store_seen.is_some_and(|seen| seen.elapsed() < STORE_EVERY) {
            return;
        }
        self.store_seen = Some(Instant::now());
        // Progress is only informative: what cannot be read now is shown later.
        let found = match batch.claim(store).await {
            Ok(Some(claim)) => staging::look(store, &claim).await.ok(),
            Ok(None) | Err(_) => None,
        };
        let position = Some((batch.batch_id.clone(), found));
        if position != self.position {
            self.position = position;
            self.moved();
        }
        // The dataset was complete already: its rides pass through and nothing is joined.
        let Some(found) = found.filter(|_| !quiet && !batch.was_there) else { return };
        if self.step.as_ref().is_none_or(|(batch_id, _)| *batch_id != batch.batch_id) {
            self.finish();
            let name = batch.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let step = Step::start(format!("joining {name}"), Unit::Rides, 0, quiet);
            self.step = Some((batch.batch_id.clone(), step));
        }
        if let Some((_, step)) = &mut self.step {
            if let Some(total) = found.total {
                step.set_length(total);
            }
            self.rides = found.rides;
            step.at(found.rides);
        }
    }

    /// Checks whether a process reads the queues that hold messages, and whether their workers are paused.
    async fn look_at_queues(&mut self, client: &Client, store: &Store, workers: &[&'static str]) {
        self.obstacles.clear();
        let mut queued = Vec::new();
        let mut unread = false;
        for &worker in workers {
            let Ok(depth) = client.depth(worker).await else { continue };
            if depth.messages == 0 {
                continue;
            }
            queued.push(format!("{} in `{worker}`", depth.messages));
            if !self.manner.in_fleet || depth.consumers > 0 {
                continue;
            }
            match control::read(store, worker).await {
                Ok(Some(control)) if control.paused => self.obstacles.push(paused(&control)),
                _ => {
                    unread = true;
                    self.unread(worker);
                }
            }
        }
        let words = if queued.is_empty() { String::new() } else { format!("; messages wait: {}", queued.join(", ")) };
        self.queued = (!unread).then_some(words);
    }

    /// Says once that a queue has no reader yet: its reader may be starting.
    fn unread(&mut self, worker: &'static str) {
        if self.unread.contains(&worker) {
            return;
        }
        self.unread.push(worker);
        self.say(&format!(
            "no process reads the queue `{worker}` yet; the batch waits there and goes on as soon as one does (scaled from zero, \
             or `wildrydes up`)"
        ));
    }

    /// Names what the batches wait for, once the patience is over.
    fn tell<'a>(&mut self, on_their_way: impl Iterator<Item = &'a Submitted> + Clone) {
        let still = self.moved.elapsed();
        if still < self.manner.patience {
            return;
        }
        let mut texts = self.causes.texts(on_their_way);
        texts.extend(self.obstacles.iter().cloned());
        if texts.is_empty() {
            self.tell_of_nothing(still);
        }
        for text in texts {
            let text = legible(&text, false).into_owned();
            if self.said.is_due(&text) {
                self.say(&text);
            }
        }
    }

    /// No message was set aside: as far as is known, the workers are working.
    fn tell_of_nothing(&mut self, still: Duration) {
        let Some(queued) = self.queued.as_ref().filter(|_| !self.manner.quiet) else { return };
        let seconds = still.as_secs();
        if seconds == 0 || !self.said.is_due("at work") {
            return;
        }
        let what = if self.training { "training" } else { "joining" };
        let logs =
            if self.manner.in_fleet { "the logs of the workers say more" } else { "`-v` shows what the workers do" };
        self.say(&format!("still {what}, without progress for {seconds} s{queued}; {logs}"));
    }

    /// Prints a message without disturbing the progress line.
    pub(super) fn say(&self, text: &str) {
        match &self.step {
            Some((_, step)) => step.say(text),
            None => eprintln!("{text}"),
        }
    }

    pub(super) fn finish(&mut self) {
        if let Some((_, step)) = self.step.take() {
            step.done(self.rides);
        }
    }
}

fn paused(WorkerControl { worker, by, at, why, .. }: &WorkerControl) -> String {
    let why = why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
    format!("{worker} is paused since {at} by {by}{why}; `wildrydes resume {worker}` lets it go on")
}
