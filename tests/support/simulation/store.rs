//! The object store as seen by a process: slow, failing, and sometimes without an answer.

use super::{
    sabotage::{Held, Sabotage},
    world::{Fault, Point, Process},
};
use bytes::Bytes;
use common::topology::queue;
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart, path::Path,
};
use records::layout;
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// The store of one process.
#[derive(Debug, Clone)]
pub struct SimulatedStore {
    process: Arc<Process>,
    held_back: Arc<Mutex<Held>>,
}

impl SimulatedStore {
    pub fn new(process: &Arc<Process>) -> Self {
        Self { process: Arc::clone(process), held_back: Arc::default() }
    }

    fn inner(&self) -> &dyn ObjectStore {
        self.process.world.objects.as_ref()
    }

    fn sabotaged(&self, sabotage: Sabotage) -> bool {
        self.process.world.sabotage == Some(sabotage)
    }

    /// Claim and batch have the same name in an input whose batch is in the store.
    fn see_claim(&self, path: &Path, done: bool) {
        let is_claim = done && path.as_ref().starts_with(layout::BATCHES);
        self.process.see_claim(path.filename().filter(|_| is_claim));
    }

    fn failed(&self, fault: Fault, what: &str) -> Result<()> {
        if !self.process.happens(fault) {
            return Ok(());
        }
        self.process.tell(format_args!("✗ {fault} {what}"));
        Err(Error::Generic { store: "simulated", source: fault.to_string().into() })
    }

    async fn read<T>(&self, what: String, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.process.step(Point::BeforeRead, &what).await;
        self.process.latency().await;
        self.failed(Fault::StoreFails, &what)?;
        work.await
    }

    async fn write<T>(&self, what: String, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.process.step(Point::BeforeWrite, &what).await;
        self.process.latency().await;
        self.failed(Fault::StoreFails, &what)?;
        let done = work.await;
        if what.contains(" models/") {
            super::promises::look_at_champion(&self.process.world);
        }
        self.process.step(Point::AfterWrite, &what).await;
        self.process.latency().await;
        self.failed(Fault::WriteAnswerLost, &what)?;
        done
    }
}

impl fmt::Display for SimulatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulated store")
    }
}

#[async_trait::async_trait]
impl ObjectStore for SimulatedStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        let creates = matches!(options.mode, PutMode::Create);
        if (self.sabotaged(Sabotage::ClaimWithoutCondition) && path.as_ref().starts_with("batches/"))
            || (self.sabotaged(Sabotage::LogWithoutCondition) && path.as_ref().starts_with("batch-log/"))
        {
            options.mode = PutMode::Overwrite;
        }
        let is_part = path.as_ref().starts_with("dataset/") && !path.as_ref().ends_with("manifest.json");
        let early = (self.sabotaged(Sabotage::ChampionFirst) && path.as_ref().ends_with("/model.json"))
            || (self.sabotaged(Sabotage::ManifestFirst) && is_part);
        if early {
            self.held_back.lock().unwrap_or_else(PoisonError::into_inner).push((path.clone(), payload));
            return Ok(PutResult { e_tag: None, version: None, extensions: Default::default() });
        }
        let what = format!("{} {path}", if creates { "create" } else { "put" });
        let may_be_late = queue::ALL.contains(&self.process.kind);
        if may_be_late && self.process.happens(Fault::LateWrite) {
            self.process.tell(format_args!("✗ LateWrite {what}"));
            self.process.world.write_later(path, payload, options);
            self.process.die().await;
            unreachable!("nothing of a dead process goes on");
        }
        let written = self.write(what, self.inner().put_opts(path, payload, options)).await;
        if (self.sabotaged(Sabotage::ManifestFirst) && path.as_ref().ends_with("manifest.json"))
            || (self.sabotaged(Sabotage::ChampionFirst) && path.as_ref().ends_with("champion.json"))
        {
            let held = std::mem::take(&mut *self.held_back.lock().unwrap_or_else(PoisonError::into_inner));
            for (path, payload) in held {
                let put = self.inner().put_opts(&path, payload, PutOptions::default());
                self.write(format!("put {path}"), put).await?;
            }
        }
        if creates && written.is_ok() && self.process.happens(Fault::OwnConflict) {
            self.process.tell(format_args!("✗ OwnConflict {path}"));
            let source = "simulated: the first try took effect".into();
            return Err(Error::AlreadyExists { path: path.to_string(), source });
        }
        self.see_claim(path, written.is_ok());
        written
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let begun = self.inner().put_multipart_opts(path, options);
        let upload = self.write(format!("begin {path}"), begun).await?;
        Ok(Box::new(SimulatedUpload { upload, path: path.clone(), store: self.clone(), parts: Vec::new() }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let what = format!("{} {path}", if options.head { "head" } else { "get" });
        let head = options.head;
        let claim = self.process.take_claim();
        let mut result = self.read(what, self.inner().get_opts(path, options)).await?;
        if !head && self.process.happens(Fault::TornRead) {
            self.process.tell(format_args!("✗ TornRead {path}"));
            let payload = std::mem::replace(&mut result.payload, GetResultPayload::Stream(stream::empty().boxed()));
            result.payload = GetResultPayload::Stream(torn(payload));
        } else if !head
            && claim.is_some_and(|claim| path.filename() == Some(&claim))
            && self.process.kind == queue::SPLITTER
            && path.as_ref().starts_with(layout::RAW)
            && self.process.happens(Fault::SourceChanged)
        {
            self.process.tell(format_args!("✗ SourceChanged {path}"));
            let payload = std::mem::replace(&mut result.payload, GetResultPayload::Stream(stream::empty().boxed()));
            result.payload = GetResultPayload::Stream(changed(payload));
        } else {
            self.see_claim(path, true);
        }
        Ok(result)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |path: Result<Path>| {
            let store = store.clone();
            async move {
                let path = path?;
                let mut deleted = store.inner().delete_stream(stream::iter([Ok(path.clone())]).boxed());
                let one = async { deleted.next().await.expect("an answer to each path") };
                store.write(format!("delete {path}"), one).await
            }
        };
        paths.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let what = format!("list {}", prefix.map(Path::as_ref).unwrap_or_default());
        let (store, prefix) = (self.clone(), prefix.cloned());
        stream::once(async move {
            let listing: Vec<_> = store.read(what, store.inner().list(prefix.as_ref()).try_collect()).await?;
            Ok::<_, Error>(stream::iter(listing.into_iter().map(Ok)))
        })
        .try_flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let what = format!("list {}", prefix.map(Path::as_ref).unwrap_or_default());
        self.read(what, self.inner().list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.write(format!("copy {from} {to}"), self.inner().copy_opts(from, to, options)).await
    }
}

/// The first half, then an error.
fn torn(payload: GetResultPayload) -> BoxStream<'static, Result<Bytes>> {
    let GetResultPayload::Stream(pieces) = payload else { return stream::empty().boxed() };
    let half = pieces.map_ok(|piece| piece.slice(..piece.len() / 2)).take(1);
    let source = "simulated: the connection broke off".into();
    half.chain(stream::iter([Err(Error::Generic { store: "simulated", source })])).boxed()
}

/// The same number of bytes, but the rides are ten miles longer.
fn changed(payload: GetResultPayload) -> BoxStream<'static, Result<Bytes>> {
    let GetResultPayload::Stream(pieces) = payload else { return stream::empty().boxed() };
    let longer = |piece: Bytes| {
        let text = String::from_utf8_lossy(&piece).replace("\"distance\":2", "\"distance\":3");
        Bytes::from(text)
    };
    pieces.map_ok(longer).boxed()
}

/// Parts arrive one by one; the object is visible once it is complete, or not at all.
#[derive(Debug)]
struct SimulatedUpload {
    upload: Box<dyn MultipartUpload>,
    path: Path,
    store: SimulatedStore,
    parts: Vec<Bytes>,
}

#[async_trait::async_trait]
impl MultipartUpload for SimulatedUpload {
    fn put_part(&mut self, payload: PutPayload) -> UploadPart {
        let (store, what) = (self.store.clone(), format!("part of {}", self.path));
        self.parts.push(Bytes::from(payload.clone()));
        let part: BoxFuture<'static, Result<()>> = self.upload.put_part(payload);
        async move { store.write(what, part).await }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let store = self.store.clone();
        if store.sabotaged(Sabotage::ManifestFirst) && self.path.as_ref().starts_with("dataset/") {
            let payload = PutPayload::from_iter(std::mem::take(&mut self.parts));
            store.held_back.lock().unwrap_or_else(PoisonError::into_inner).push((self.path.clone(), payload));
            return Ok(PutResult { e_tag: None, version: None, extensions: Default::default() });
        }
        store.write(format!("complete {}", self.path), self.upload.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        let store = self.store.clone();
        store.write(format!("abort {}", self.path), self.upload.abort()).await
    }
}
