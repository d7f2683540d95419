//! Shows how far the followed batches are, and why they make no progress.

use super::{
    options::FollowOptions,
    outcome::Submission,
    waits::{Causes, Throttle},
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

/// Time without progress after which the queues are inspected, and time between two inspections.
const QUEUES_EVERY: Duration = Duration::from_secs(2);
/// Time between two readings of the store if progress is not shown: then it only matters whether the batch advances.
const STORE_EVERY: Duration = Duration::from_secs(2);
/// Time between two readings of what the workers wait for.
const CAUSES_EVERY: Duration = Duration::from_secs(1);
/// The workers between a batch and its dataset, in the order of the flow.
const JOINING: [&str; 3] = [queue::SPLITTER, queue::WEATHER_FETCHER, queue::MERGER];

/// How far the batches are, as a person sees it.
pub(super) struct Progress {
    follow_options: FollowOptions,
    /// The batch whose rides are joined, by its id.
    step: Option<(String, Step)>,
    training: bool,
    rides: u64,
    /// When any batch last made progress.
    moved: Instant,
    /// The position of the batch that is inspected.
    position: Option<(String, Option<Staged>)>,
    /// When the store was last read.
    store_read: Option<Instant>,
    /// When the queues were last inspected.
    queues_inspected: Option<Instant>,
    /// When the records of waiting were last read.
    causes_read: Option<Instant>,
    causes: Causes,
    /// Paused workers whose queues hold messages; reported together with the causes.
    stalls: Vec<String>,
    /// The messages in the queues, for a person; `None` if a queue has no reader.
    queued: Option<String>,
    throttle: Throttle,
    /// Queues already reported to have no reader.
    unread: Vec<&'static str>,
}

impl Progress {
    pub(super) fn new(follow_options: FollowOptions, causes: Causes) -> Self {
        Self {
            follow_options,
            step: None,
            training: false,
            rides: 0,
            moved: Instant::now(),
            position: None,
            store_read: None,
            queues_inspected: None,
            causes_read: None,
            causes,
            stalls: Vec::new(),
            queued: Some(String::new()),
            throttle: Throttle::default(),
            unread: Vec::new(),
        }
    }

    /// Records that a batch made progress.
    pub(super) fn moved(&mut self) {
        self.moved = Instant::now();
    }

    /// Records that a dataset of `rides` rides is ready.
    pub(super) fn ready(&mut self, rides: u64) {
        self.rides = rides;
        self.moved();
    }

    /// Records that the training has begun.
    pub(super) fn trains(&mut self) {
        self.training = true;
        self.moved();
    }

    /// Updates how far the first batch of `unfinished` is, and what the batches wait for.
    pub(super) async fn look<'a>(
        &mut self,
        client: &Client,
        store: &Store,
        unfinished: impl Iterator<Item = &'a Submission> + Clone,
        dataset_ready: bool,
    ) {
        let Some(batch) = unfinished.clone().next() else { return };
        if dataset_ready {
            self.finish();
            if !std::mem::replace(&mut self.training, true) {
                self.moved();
                if !self.follow_options.quiet {
                    eprintln!("training");
                }
            }
        } else {
            self.read_store(store, batch).await;
        }
        let stalled = self.moved.elapsed();
        if stalled >= QUEUES_EVERY && self.queues_inspected.is_none_or(|last| last.elapsed() >= QUEUES_EVERY) {
            self.queues_inspected = Some(Instant::now());
            self.inspect_queues(client, store, if dataset_ready { &[queue::TRAINER] } else { &JOINING }).await;
        }
        if stalled >= self.follow_options.patience && self.causes_read.is_none_or(|last| last.elapsed() >= CAUSES_EVERY)
        {
            self.causes_read = Some(Instant::now());
            self.causes.read(store).await;
        }
        self.report(unfinished);
    }

    async fn read_store(&mut self, store: &Store, batch: &Submission) {
        let quiet = self.follow_options.quiet;
        if quiet && self.store_read.is_some_and(|last| last.elapsed() < STORE_EVERY) {
            return;
        }
        self.store_read = Some(Instant::now());
        // Progress is only informative: what cannot be read now is shown later.
        let staged = match batch.claim(store).await {
            Ok(Some(claim)) => staging::look(store, &claim).await.ok(),
            Ok(None) | Err(_) => None,
        };
        let position = Some((batch.batch_id.clone(), staged));
        if position != self.position {
            self.position = position;
            self.moved();
        }
        // If the dataset was complete before, nothing is joined.
        let Some(staged) = staged.filter(|_| !quiet && !batch.was_there) else { return };
        if self.step.as_ref().is_none_or(|(batch_id, _)| *batch_id != batch.batch_id) {
            self.finish();
            let name = batch.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let step = Step::start(format!("joining {name}"), Unit::Rides, 0, quiet);
            self.step = Some((batch.batch_id.clone(), step));
        }
        if let Some((_, step)) = &mut self.step {
            if let Some(total) = staged.total {
                step.set_length(total);
            }
            self.rides = staged.rides;
            step.at(staged.rides);
        }
    }

    /// Checks whether a process reads the queues that hold messages, and whether their workers are paused.
    async fn inspect_queues(&mut self, client: &Client, store: &Store, workers: &[&'static str]) {
        self.stalls.clear();
        let mut queued = Vec::new();
        let mut unread = false;
        for &worker in workers {
            let Ok(depth) = client.depth(worker).await else { continue };
            if depth.messages == 0 {
                continue;
            }
            queued.push(format!("{} in `{worker}`", depth.messages));
            if !self.follow_options.in_fleet || depth.consumers > 0 {
                continue;
            }
            match control::read(store, worker).await {
                Ok(Some(control)) if control.paused => self.stalls.push(paused_text(&control)),
                _ => {
                    unread = true;
                    self.report_unread(worker);
                }
            }
        }
        let text = if queued.is_empty() { String::new() } else { format!("; messages wait: {}", queued.join(", ")) };
        self.queued = (!unread).then_some(text);
    }

    /// Reports once that a queue has no reader yet: it may be starting.
    fn report_unread(&mut self, worker: &'static str) {
        if self.unread.contains(&worker) {
            return;
        }
        self.unread.push(worker);
        self.say(&format!(
            "no process reads the queue `{worker}` yet; the batch waits there until one does (scaled from zero, or \
             `wildrydes up`)"
        ));
    }

    /// Reports what the batches wait for, once the patience is over.
    fn report<'a>(&mut self, unfinished: impl Iterator<Item = &'a Submission> + Clone) {
        let stalled = self.moved.elapsed();
        if stalled < self.follow_options.patience {
            return;
        }
        let mut texts = self.causes.texts(unfinished);
        texts.extend(self.stalls.iter().cloned());
        if texts.is_empty() {
            self.report_unexplained(stalled);
        }
        for text in texts {
            let text = legible(&text, false).into_owned();
            if self.throttle.is_due(&text) {
                self.say(&text);
            }
        }
    }

    /// Reports a wait without a known cause: presumably the workers are busy.
    fn report_unexplained(&mut self, stalled: Duration) {
        let Some(queued) = self.queued.as_ref().filter(|_| !self.follow_options.quiet) else { return };
        let seconds = stalled.as_secs();
        if seconds == 0 || !self.throttle.is_due("at work") {
            return;
        }
        let what = if self.training { "training" } else { "joining" };
        let logs =
            if self.follow_options.in_fleet { "see the logs of the workers" } else { "`-v` shows what the workers do" };
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

fn paused_text(WorkerControl { worker, by, at, why, .. }: &WorkerControl) -> String {
    let why = why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
    format!("{worker} is paused since {at} by {by}{why}; `wildrydes resume {worker}` lets it continue")
}
