//! Promises broken on purpose, by typical mistakes of such systems. The simulation must detect each.

use bytes::Bytes;
use common::{
    dataset::FIRST_REVISION,
    envelope::{Envelope, Properties},
    message::{BatchSplit, EnrichedChunk, RideChunk, ScoreResponse, Undecodable},
    outcome::{Failure, Outgoing, Outputs},
    topology::queue,
};
use futures::{StreamExt, TryStreamExt};
use merger::{MergerIn, join};
use object_store::{PutPayload, path::Path};
use records::{Store, datasets, layout, store};
use runtime::Worker;
use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
};

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Deliveries are acknowledged before they are handled.
    AcknowledgeFirst,
    /// A publish counts as done before its confirm.
    ConfirmNotAwaited,
    /// A redelivery is skipped as done.
    SkipRedelivered,
    /// Unreadable messages are logged and deleted.
    DeleteUnreadable,
    /// The merger counts the chunks that arrive instead of keeping the set of them.
    CountChunks,
    /// The merger writes the manifest before the files.
    ManifestFirst,
    /// The splitter writes its claim on a batch id unconditionally.
    ClaimWithoutCondition,
    /// An entry of the batch log is written even if it already exists.
    LogWithoutCondition,
    /// The trainer promotes a model before its artefact is written.
    ChampionFirst,
    /// An outage of the weather service spends the attempts of a message.
    OutageSpendsAttempts,
    /// A scorer names another model than the one it scored with.
    MixAnswers,
    /// Queues and retry queues have no limit.
    NoPushBack,
    /// The merger checks neither which splitting a chunk is from nor the fingerprint of the chunks.
    ProvenanceIgnored,
    /// The sweep also removes the staged chunks of batches in progress.
    SweepInProgress,
    /// A refresh gets the weather that is in the cache.
    OldWeather,
}

impl Sabotage {
    /// Every mistake.
    pub const ALL: [Self; 15] = [
        Self::AcknowledgeFirst,
        Self::ConfirmNotAwaited,
        Self::SkipRedelivered,
        Self::DeleteUnreadable,
        Self::CountChunks,
        Self::ManifestFirst,
        Self::ClaimWithoutCondition,
        Self::LogWithoutCondition,
        Self::ChampionFirst,
        Self::OutageSpendsAttempts,
        Self::MixAnswers,
        Self::NoPushBack,
        Self::ProvenanceIgnored,
        Self::SweepInProgress,
        Self::OldWeather,
    ];
}

impl fmt::Display for Sabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Writes that wait for another write.
pub type Held = Vec<(Path, PutPayload)>;

/// A naive merger, which counts chunks.
pub struct CountingMerger {
    store: Store,
    batches: Mutex<HashMap<String, (u32, Option<BatchSplit>)>>,
}

impl CountingMerger {
    pub fn new(store: Store) -> Self {
        Self { store, batches: Mutex::default() }
    }

    async fn join(&self, split: &BatchSplit) -> Result<Outputs, Failure> {
        let prefix = Path::from(layout::staging(&split.batch_id));
        let mut paths: Vec<String> = self
            .store
            .list(Some(&prefix))
            .map_ok(|found| found.location.to_string())
            .try_collect()
            .await
            .map_err(store::outage)?;
        paths.sort();
        let mut files = datasets::Writer::open(&self.store, &split.batch_id, FIRST_REVISION, u64::MAX, 1 << 20);
        let mut total = join::Statistics::default();
        for path in &paths {
            let Some(object) = store::read(&self.store, path).await? else { continue };
            let (join::Heading { statistics, .. }, start) = join::open_staged(0, &object)?;
            files.push(object.get(start..).unwrap_or_default(), statistics.rides).await?;
            total.add(&statistics);
        }
        let manifest = join::manifest(split, FIRST_REVISION, total, files.finish().await?);
        let bytes = store::pretty(&manifest)?;
        store::write(&self.store, &layout::manifest(&split.batch_id, FIRST_REVISION), bytes.clone()).await?;
        self.store
            .delete_stream(futures::stream::iter(paths.into_iter().map(|path| Ok(Path::from(path)))).boxed())
            .try_collect::<Vec<_>>()
            .await
            .map_err(store::outage)?;
        Outputs::one(&datasets::StoredManifest::decode(&split.batch_id, FIRST_REVISION, &bytes)?.announcement())
    }
}

impl Worker for CountingMerger {
    const NAME: &'static str = queue::MERGER;
    type In = MergerIn;

    async fn handle(&self, envelope: Envelope<MergerIn>) -> Result<Outputs, Failure> {
        if let MergerIn::Chunk(chunk) = &envelope.payload {
            let path = layout::staged_chunk(&chunk.batch_id, None, chunk.chunk);
            store::write(&self.store, &path, join::staged(chunk)?).await?;
        }
        let complete = {
            let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
            let batch_id = match &envelope.payload {
                MergerIn::Chunk(chunk) => chunk.batch_id.clone(),
                MergerIn::Split(split) => split.batch_id.clone(),
            };
            let (arrived, known) = batches.entry(batch_id).or_default();
            match envelope.payload {
                MergerIn::Chunk(_) => *arrived += 1,
                MergerIn::Split(split) => *known = Some(split),
            }
            known.clone().filter(|split| *arrived >= split.chunks)
        };
        match complete {
            Some(split) => self.join(&split).await,
            None => Ok(Outputs::none()),
        }
    }
}

/// A merger that joins any chunk with the right number.
pub struct Trusting(pub merger::Merger);

impl Worker for Trusting {
    const NAME: &'static str = queue::MERGER;
    type In = MergerIn;

    async fn handle(&self, mut envelope: Envelope<MergerIn>) -> Result<Outputs, Failure> {
        let (split_id, digest) = match &mut envelope.payload {
            MergerIn::Chunk(chunk) => (&mut chunk.split_id, &mut chunk.digest),
            MergerIn::Split(split) => (&mut split.split_id, &mut split.digest),
        };
        (*split_id, *digest) = (None, None);
        self.0.handle(envelope).await
    }

    async fn tend(&self) -> Result<(), Failure> {
        self.0.tend().await
    }
}

/// A merger whose sweep does not check whether the dataset is complete.
pub struct Sweeping {
    pub inner: merger::Merger,
    pub store: Store,
}

impl Worker for Sweeping {
    const NAME: &'static str = queue::MERGER;
    type In = MergerIn;

    async fn handle(&self, envelope: Envelope<MergerIn>) -> Result<Outputs, Failure> {
        self.inner.handle(envelope).await
    }

    async fn tend(&self) -> Result<(), Failure> {
        let staged = self.store.list(Some(&Path::from(layout::STAGING))).map_ok(|found| found.location).boxed();
        self.store.delete_stream(staged).try_collect::<Vec<_>>().await.map(drop).map_err(store::outage)
    }
}

/// A weather-fetcher that treats an outage as a failure of the message.
pub struct Impatient<W>(pub W);

impl<W: Worker> Worker for Impatient<W> {
    const NAME: &'static str = W::NAME;
    type In = W::In;

    async fn handle(&self, envelope: Envelope<Self::In>) -> Result<Outputs, Failure> {
        self.0.handle(envelope).await.map_err(|failure| match failure {
            Failure::Outage { why, .. } => Failure::transient(why),
            other => other,
        })
    }
}

/// A weather-fetcher that does not know when a refresh was requested.
pub struct Forgetful<W>(pub W);

impl<W: Worker<In = RideChunk>> Worker for Forgetful<W> {
    const NAME: &'static str = W::NAME;
    type In = RideChunk;

    async fn handle(&self, mut envelope: Envelope<RideChunk>) -> Result<Outputs, Failure> {
        let refresh = envelope.payload.refresh.take();
        let mut outgoing: Vec<Outgoing> = self.0.handle(envelope).await?.into_stream().try_collect().await?;
        for enriched in &mut outgoing {
            let mut chunk: EnrichedChunk = serde_json::from_slice(&enriched.body).expect("an enriched chunk");
            chunk.refresh = refresh;
            *enriched = Outgoing::message(&chunk)?;
        }
        Ok(Outputs::all(outgoing))
    }
}

/// A scorer that remembers the model of its previous answer, and names that.
pub struct Mislabelling<W> {
    inner: W,
    before: Mutex<Option<String>>,
}

impl<W> Mislabelling<W> {
    pub fn new(inner: W) -> Self {
        Self { inner, before: Mutex::default() }
    }

    fn mislabelled(&self, mut outgoing: Outgoing) -> Outgoing {
        if let Ok(mut response) = serde_json::from_slice::<ScoreResponse>(&outgoing.body)
            && response.model_id.is_some()
        {
            let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
            let text = before.clone().or_else(|| response.model_id.clone());
            *before = std::mem::replace(&mut response.model_id, text);
            outgoing.body = Bytes::from(serde_json::to_vec(&response).expect("JSON is written as JSON"));
        }
        outgoing
    }
}

impl<W: Worker> Worker for Mislabelling<W> {
    const NAME: &'static str = W::NAME;
    type In = W::In;

    async fn handle(&self, envelope: Envelope<Self::In>) -> Result<Outputs, Failure> {
        let outgoing: Vec<Outgoing> = self.inner.handle(envelope).await?.into_stream().try_collect().await?;
        Ok(Outputs::all(outgoing.into_iter().map(|outgoing| self.mislabelled(outgoing)).collect()))
    }

    async fn connected(&self) -> Result<(), Failure> {
        self.inner.connected().await
    }

    async fn tend(&self) -> Result<(), Failure> {
        self.inner.tend().await
    }

    fn answer_undecodable(&self, properties: &Properties, why: &Undecodable) -> Option<Outgoing> {
        self.inner.answer_undecodable(properties, why)
    }

    fn answer_failure(&self, properties: &Properties, failure: &Failure) -> Option<Outgoing> {
        self.inner.answer_failure(properties, failure)
    }
}
