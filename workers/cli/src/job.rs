//! The job: upload, publish, follow each batch to its dataset, and to the model.

use crate::{
    Failed, Session,
    arguments::{Ingest, Run, Until},
    fleet::Fleet,
    progress::{Step, Unit},
    report, serve,
};
use anyhow::Context;
use common::{
    contract::{
        dataset::Claim,
        envelope, layout,
        message::{BatchContent, BatchSplit, DatasetReady, Message, ModelPromoted, ModelRejected, RideBatch, decode},
        reading::Reading,
        topology,
    },
    runtime::{
        Broker, MemoryBroker, Shutdown, Store,
        broker::{BrokerError, ConnectionState, Delivery, deliveries},
        client::{Client, ClientError},
        store,
        trace::TraceContext,
    },
};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStoreExt, WriteMultipart, path::Path as ObjectPath};
use sha2::{Digest, Sha256};
use std::{
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::io::AsyncReadExt;

/// A file that was handed in.
pub(crate) struct Submitted {
    /// As on the command line.
    pub(crate) file: PathBuf,
    /// Known beforehand unless the document names another inside.
    pub(crate) batch_id: String,
    /// By which it is known in every log.
    pub(crate) trace_id: String,
}

/// What became of a batch.
pub(crate) enum BatchOutcome {
    /// Its dataset is ready.
    Ready(DatasetReady),
    /// It is a dead letter.
    Refused {
        /// The queue whose dead letters it is among.
        queue: String,
        /// Stable code.
        reason: String,
        /// In words.
        why: String,
    },
}

/// What became of the training.
pub(crate) enum ModelOutcome {
    /// There is a model.
    Promoted(ModelPromoted),
    /// There is none, and why.
    Rejected(ModelRejected),
    /// The training is a dead letter.
    Failed {
        /// Stable code.
        reason: String,
        /// In words.
        why: String,
    },
}

/// What became of all.
pub(crate) struct Outcome {
    /// In the order of the command line.
    pub(crate) batches: Vec<(Submitted, BatchOutcome)>,
    /// The last word of the trainer, when it was waited for.
    pub(crate) model: Option<ModelOutcome>,
}

/// `run`: everything in this process.
pub(crate) async fn run(session: &Session, options: &Run) -> Result<(), Failed> {
    let store = session.store()?;
    if options.serve.serve.is_some() {
        return serve::run(session, &store, &options.files, None).await;
    }
    let outcome = in_process(session, &store, &options.files).await?;
    report::print(session, &store, &outcome, None).await
}

/// Runs the whole job on the in-process broker.
pub(crate) async fn in_process(session: &Session, store: &Store, files: &[PathBuf]) -> Result<Outcome, Failed> {
    with_fleet(session, Arc::new(MemoryBroker::new()), store, files).await
}

/// Runs the whole job with the five workers in this process, on either broker.
pub(crate) async fn with_fleet(
    session: &Session,
    broker: Arc<dyn Broker>,
    store: &Store,
    files: &[PathBuf],
) -> Result<Outcome, Failed> {
    let shutdown = Shutdown::new();
    let mut fleet = Fleet::start(session, Arc::clone(&broker), store.clone(), shutdown, false)?;
    let client = Client::connect(broker.as_ref(), "wildrydes").await?;
    let followed = tokio::select! {
        followed = to_the_model(session, &client, store, files) => followed?,
        error = fleet.failure() => return Err(Failed::Broken(error)),
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            return Err(Failed::Broken(anyhow::anyhow!("interrupted; run the same command again to go on where it stopped")));
        }
    };
    client.close().await;
    fleet.stop().await?;
    Ok(followed)
}

/// Hands files in and follows them until the trainer has had its say.
pub(crate) async fn to_the_model(
    session: &Session,
    client: &Client,
    store: &Store,
    files: &[PathBuf],
) -> Result<Outcome, Failed> {
    let quiet = session.shared.json;
    let mut follower = Follower::start(client).await?;
    let mut submitted = Vec::new();
    for file in files {
        submitted.push(submit(client, store, file, None, quiet).await?);
    }
    follower.follow(client, store, submitted, Goal::Model, quiet).await
}

/// `ingest`: to a fleet.
pub(crate) async fn ingest(session: &Session, options: &Ingest) -> Result<(), Failed> {
    if options.batch_id.is_some() && options.files.len() > 1 {
        return Err(Failed::Misused(anyhow::anyhow!("--batch-id names one batch: give one file, or leave it out")));
    }
    let store = session.store()?;
    let client = Client::connect(session.broker()?.as_ref(), "wildrydes").await?;
    let quiet = session.shared.json;
    let follower = Follower::start(&client).await?;
    let mut submitted = Vec::new();
    for file in &options.files {
        submitted.push(submit(&client, &store, file, options.batch_id.as_deref(), quiet).await?);
    }
    if options.detach {
        tell_submitted(session, &submitted);
        return Ok(());
    }
    let goal = match options.until {
        Some(Until::Dataset) => Goal::Dataset,
        Some(Until::Model) => Goal::Model,
        None => Goal::ModelIfTraining,
    };
    match follow_to_the_end(session, &store, client, follower, submitted, goal).await {
        // The batches are in; that no model came of them was told, and was not asked for.
        Err(Failed::NoModel) if goal == Goal::ModelIfTraining => Ok(()),
        ended => ended,
    }
}

/// Names what was published, for who does not wait.
pub(crate) fn tell_submitted(session: &Session, submitted: &[Submitted]) {
    for batch in submitted {
        match session.shared.json {
            true => println!(
                "{}",
                serde_json::json!({ "file": batch.file, "batch_id": batch.batch_id, "trace_id": batch.trace_id })
            ),
            false => println!("{}: batch {} (trace {})", batch.file.display(), batch.batch_id, batch.trace_id),
        }
    }
}

/// Waits as far as the goal says, and reports.
pub(crate) async fn follow_to_the_end(
    session: &Session,
    store: &Store,
    client: Client,
    mut follower: Follower,
    submitted: Vec<Submitted>,
    goal: Goal,
) -> Result<(), Failed> {
    let quiet = session.shared.json;
    let outcome = tokio::select! {
        outcome = follower.follow(&client, store, submitted, goal, quiet) => outcome?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            return Err(Failed::Broken(anyhow::anyhow!(
                "no longer following; the fleet goes on. Look with `wildrydes status`, or run the same command again"
            )));
        }
    };
    client.close().await;
    report::print(session, store, &outcome, None).await
}

/// Uploads a file, unless it is there already, and publishes a reference to it.
async fn submit(
    client: &Client,
    store: &Store,
    file: &Path,
    batch_id: Option<&str>,
    quiet: bool,
) -> Result<Submitted, Failed> {
    let about = || file.display().to_string();
    let size = tokio::fs::metadata(file).await.with_context(about)?.len();
    let sha256 = fingerprint(file).await.with_context(about)?;
    let name = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let object = layout::raw_upload(&sha256, &name);
    let there = store.head(&ObjectPath::from(object.as_str())).await.is_ok_and(|found| found.size == size);
    if !there {
        upload(store, file, &object, size, quiet).await.with_context(|| format!("uploading {}", file.display()))?;
    }
    let batch = RideBatch {
        batch_id: batch_id.map(str::to_owned),
        source: Some(name.into_owned()),
        reading: Reading::default(),
        content: BatchContent::Reference { object, sha256: sha256.clone() },
    };
    batch.check().map_err(|violation| Failed::Misused(anyhow::anyhow!("{violation}")))?;
    let trace_id = published(client, &batch).await?;
    let batch_id = batch_id.map_or_else(|| sha256[..16].to_owned(), str::to_owned);
    Ok(Submitted { file: file.to_owned(), batch_id, trace_id })
}

/// Publishes, and says so when that takes long because the broker is under an alarm.
async fn published(client: &Client, batch: &RideBatch) -> Result<String, ClientError> {
    let mut state = client.state();
    let mut publishing = pin!(client.publish(batch));
    loop {
        tokio::select! {
            biased;
            done = &mut publishing => return done,
            Ok(blocked) = state.wait_for(|now| matches!(now, ConnectionState::Blocked(_))) => {
                if let ConnectionState::Blocked(reason) = &*blocked {
                    eprintln!("the broker takes no publishes for now ({reason}); waiting until it does");
                }
            }
        }
        tokio::select! {
            biased;
            done = &mut publishing => return done,
            _ = state.wait_for(|now| !matches!(now, ConnectionState::Blocked(_))) => {}
        }
    }
}

/// SHA-256 of a file, 64 hex digits.
async fn fingerprint(file: &Path) -> anyhow::Result<String> {
    let file = file.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut hasher = Sha256::new();
        let mut reader = std::fs::File::open(file)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match std::io::Read::read(&mut reader, &mut buffer)? {
                0 => return Ok(hex::encode(hasher.finalize())),
                read => hasher.update(&buffer[..read]),
            }
        }
    })
    .await?
}

async fn upload(store: &Store, file: &Path, object: &str, size: u64, quiet: bool) -> anyhow::Result<()> {
    /// Parts being written at the same time.
    const PARTS_MAX: usize = 4;
    let step = Step::start(format!("uploading {}", shown(file)), Unit::Bytes, size, quiet);
    let mut reader = tokio::fs::File::open(file).await?;
    let mut writer = WriteMultipart::new(store.put_multipart(&ObjectPath::from(object)).await?);
    let mut sent = 0;
    loop {
        let mut buffer = bytes::BytesMut::with_capacity(1 << 20);
        if reader.read_buf(&mut buffer).await? == 0 {
            break;
        }
        sent += buffer.len() as u64;
        writer.wait_for_capacity(PARTS_MAX).await?;
        writer.put(buffer.freeze());
        step.at(sent);
    }
    writer.finish().await?;
    step.done(sent);
    Ok(())
}

fn shown(file: &Path) -> String {
    file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// How far batches are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// To their datasets.
    Dataset,
    /// To the model that comes of them.
    Model,
    /// To the model when a trainer is there to make one, and not for ever.
    ModelIfTraining,
}

/// Batches on their way.
struct Followed {
    /// Each with what became of it, and whether the trainer has had its say on it.
    batches: Vec<(Submitted, Option<BatchOutcome>, bool)>,
    model: Option<ModelOutcome>,
    progress: Progress,
}

/// Listens to everything that tells what becomes of a batch.
pub(crate) struct Follower {
    heard: stream::SelectAll<stream::BoxStream<'static, Result<Delivery, BrokerError>>>,
}

impl Follower {
    /// Starts listening; before anything is published, so that nothing is missed.
    pub(crate) async fn start(client: &Client) -> Result<Self, Failed> {
        let mut consumers = vec![client.listen(topology::EVENTS, "#").await?];
        for queue in topology::queue::ALL {
            consumers.push(client.listen(topology::DEAD, queue).await?);
        }
        let heard = stream::select_all(consumers.into_iter().map(|consumer| deliveries(consumer).boxed()));
        Ok(Self { heard })
    }

    /// Waits until every batch is ready or refused, and as the goal says for the trainer to have its say on each.
    async fn follow(
        &mut self,
        client: &Client,
        store: &Store,
        submitted: Vec<Submitted>,
        goal: Goal,
        quiet: bool,
    ) -> Result<Outcome, Failed> {
        /// How long a model is waited for that nobody asked for by name.
        const PATIENCE: Duration = Duration::from_secs(10 * 60);
        let mut followed = Followed {
            batches: submitted.into_iter().map(|submitted| (submitted, None, false)).collect(),
            model: None,
            progress: Progress::new(quiet),
        };
        self.hear_of(&mut followed, client, store, goal == Goal::Model).await?;
        if goal == Goal::ModelIfTraining && followed.batches.iter().any(|(.., trained)| !trained) {
            followed.progress.finish();
            let say = |text: &str| {
                if !quiet {
                    eprintln!("{text}")
                }
            };
            if client.depth(topology::queue::TRAINER).await?.consumers == 0 {
                say(
                    "no process reads the queue `trainer`: there will be a model of this once one does (`wildrydes status`)",
                );
            } else {
                say("waiting for the model, 10 minutes at most (--until dataset does not)");
                followed.progress.training = true;
                let hearing = self.hear_of(&mut followed, client, store, true);
                match tokio::time::timeout(PATIENCE, hearing).await {
                    Ok(heard) => heard?,
                    Err(_) => {
                        say("no word from the trainer yet; the fleet goes on. Its log tells, and `wildrydes status`")
                    }
                }
            }
        }
        followed.progress.finish();
        let batches = followed.batches.into_iter();
        let batches = batches.filter_map(|(submitted, outcome, _)| Some((submitted, outcome?))).collect();
        Ok(Outcome { batches, model: followed.model })
    }

    /// Listens until every batch is ready or refused, and, `to_the_model`, until the trainer has had its say on each.
    async fn hear_of(
        &mut self,
        followed: &mut Followed,
        client: &Client,
        store: &Store,
        to_the_model: bool,
    ) -> Result<(), Failed> {
        let Followed { batches, model, progress } = followed;
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        while let Some(waiting) =
            batches.iter().find(|(_, outcome, trained)| outcome.is_none() || (to_the_model && !trained))
        {
            let delivery = tokio::select! {
                heard = self.heard.next() => heard.context("the broker closed the connection")??,
                _ = tick.tick() => {
                    progress.look(client, store, &waiting.0, waiting.1.is_some()).await;
                    continue;
                }
            };
            let trace_id = TraceContext::of(&delivery.properties).map(TraceContext::trace_id).unwrap_or_default();
            let kind = delivery.properties.kind.clone().unwrap_or_default();
            let told = delivery.body.clone();
            let mine = |submitted: &Submitted, batch_id: Option<&str>| {
                submitted.trace_id == trace_id || batch_id == Some(submitted.batch_id.as_str())
            };
            if delivery.exchange == topology::DEAD {
                // The broker itself parks what is delivered too often, with a header of its own.
                let text = |name: &str| delivery.properties.text(name);
                let reason = text(envelope::REASON).or(text("x-first-death-reason")).unwrap_or("unknown").to_owned();
                let why = text(envelope::WHY).unwrap_or("it was delivered too often without an answer").to_owned();
                for (_, outcome, trained) in batches.iter_mut().filter(|(submitted, ..)| mine(submitted, None)) {
                    let (queue, reason, why) = (delivery.routing_key.clone(), reason.clone(), why.clone());
                    if outcome.is_some() {
                        *model = Some(ModelOutcome::Failed { reason, why });
                    } else {
                        *outcome = Some(BatchOutcome::Refused { queue, reason, why });
                    }
                    *trained = true;
                }
            } else if kind == DatasetReady::KIND.to_string() {
                let ready: DatasetReady = decode(&told)?;
                progress.rides = ready.rides;
                for (submitted, outcome, _) in batches.iter_mut().filter(|(s, ..)| mine(s, Some(&ready.batch_id))) {
                    submitted.batch_id.clone_from(&ready.batch_id);
                    outcome.get_or_insert(BatchOutcome::Ready(ready.clone()));
                }
            } else if let Some((family, said)) = said(&kind, &told)? {
                // The models of breeds come after that of all rides, with it.
                let about = |submitted: &Submitted| family == layout::GLOBAL_MODEL && mine(submitted, None);
                let mut concerned = batches.iter_mut().filter(|(submitted, ..)| about(submitted)).peekable();
                if concerned.peek().is_some() {
                    *model = Some(said);
                }
                concerned.for_each(|(_, _, trained)| *trained = true);
            }
            delivery.settle.ack().await?;
        }
        Ok(())
    }
}

/// What an event says about a model, and which family's.
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

/// How far a batch is, read off the store: staged chunks of all chunks.
struct Progress {
    step: Option<(String, Step)>,
    training: bool,
    rides: u64,
    quiet: bool,
    started: Instant,
    asked: bool,
    /// When a message was last seen to wait for another attempt and told of.
    told_of_retries: Option<Instant>,
}

impl Progress {
    fn new(quiet: bool) -> Self {
        let (started, asked, told_of_retries) = (Instant::now(), false, None);
        Self { step: None, training: false, rides: 0, quiet, started, asked, told_of_retries }
    }

    /// Says, now and then, that something is tried again: else one waits without knowing what for.
    async fn tell_of_retries(&mut self, client: &Client) {
        /// Between one word about it and the next.
        const AGAIN_AFTER: Duration = Duration::from_secs(30);
        if self.told_of_retries.is_some_and(|told| told.elapsed() < AGAIN_AFTER) {
            return;
        }
        for worker in topology::queue::ALL {
            let mut waiting = 0;
            for rung in 0..topology::rungs_of(worker).len() {
                waiting += client.depth(&topology::rung_queue(worker, rung)).await.map_or(0, |depth| depth.messages);
            }
            if waiting > 0 {
                self.told_of_retries = Some(Instant::now());
                let why = match worker {
                    topology::queue::WEATHER_FETCHER => {
                        "the weather service may be away (`--weather DIR` takes a folder instead)"
                    }
                    _ => "something it needs may be away",
                };
                eprintln!(
                    "{waiting} messages wait to be tried again by the {worker}: {why}; its log, or -v, tells why"
                );
            }
        }
    }

    async fn look(&mut self, client: &Client, store: &Store, batch: &Submitted, dataset_ready: bool) {
        /// How long a batch may lie untouched before one asks whether anybody reads it.
        const PATIENCE: Duration = Duration::from_secs(5);
        if self.quiet {
            return;
        }
        if dataset_ready {
            self.finish();
            if !std::mem::replace(&mut self.training, true) {
                eprintln!("training");
            }
            return;
        }
        self.tell_of_retries(client).await;
        // Progress is a courtesy: what cannot be read now is shown later.
        let Some(position) = staged(store, &batch.batch_id).await else {
            if self.started.elapsed() > PATIENCE && !self.asked {
                self.asked = true;
                let splitter = client.depth(topology::queue::SPLITTER).await;
                if splitter.is_ok_and(|depth| depth.consumers == 0) {
                    eprintln!(
                        "nobody reads the queue `splitter` yet: start the workers (`wildrydes up`); the batch waits for them"
                    );
                }
            }
            return;
        };
        if self.step.as_ref().is_none_or(|(batch_id, _)| *batch_id != batch.batch_id) {
            self.finish();
            let title = format!("joining {}", shown(&batch.file));
            self.step = Some((batch.batch_id.clone(), Step::start(title, Unit::Rides, 0, self.quiet)));
        }
        if let Some((_, step)) = &mut self.step {
            if let Some(total) = position.total {
                step.set_length(total);
            }
            self.rides = position.rides;
            step.at(position.rides);
        }
    }

    fn finish(&mut self) {
        if let Some((_, step)) = self.step.take() {
            step.done(self.rides);
        }
    }
}

/// How much of a batch is staged.
pub(crate) struct Staged {
    /// Rides in staged chunks (the last chunk counts as a full one).
    pub(crate) rides: u64,
    /// Accepted rides, once the splitter has counted them.
    pub(crate) total: Option<u64>,
}

/// Reads how far a batch is; `None` when nothing of it is in progress.
pub(crate) async fn staged(store: &Store, batch_id: &str) -> Option<Staged> {
    let claim: Claim = store::read_json(store, &layout::claim(batch_id)).await.ok()??;
    let split: Option<BatchSplit> = store::read_json(store, &layout::staged_split(batch_id)).await.ok()?;
    let prefix = ObjectPath::from(layout::staging(batch_id));
    let chunks = store.list(Some(&prefix)).try_fold(0u64, |count, found| async move {
        Ok(count + u64::from(found.location.filename().is_some_and(|name| name.starts_with("chunk-"))))
    });
    let total = split.map(|split| split.accepted);
    let rides = chunks.await.ok()? * u64::from(claim.chunk_size);
    Some(Staged { rides: total.map_or(rides, |total| rides.min(total)), total })
}
