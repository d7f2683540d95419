//! A store that counts its operations and can fail from any of them on, before or after the operation takes effect.

use futures::{StreamExt, future::BoxFuture, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart, path::Path,
};
use records::Store;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

/// The operation, from 1, at which the process that uses the store dies.
#[derive(Debug, Clone, Copy)]
pub enum Dies {
    Never,
    Before(u64),
    After(u64),
}

#[derive(Debug, Clone)]
pub struct Faulty {
    inner: Store,
    dies: Dies,
    operations: Arc<AtomicU64>,
}

impl Faulty {
    pub fn new(inner: Store, dies: Dies) -> Self {
        Self { inner, dies, operations: Arc::default() }
    }

    pub fn operations(&self) -> u64 {
        self.operations.load(SeqCst)
    }

    async fn operate<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let now = self.operations.fetch_add(1, SeqCst) + 1;
        match self.dies {
            Dies::Before(at) if now >= at => Err(dead()),
            Dies::After(at) if now > at => Err(dead()),
            Dies::After(at) if now == at => work.await.and(Err(dead())),
            _ => work.await,
        }
    }
}

fn dead() -> Error {
    Error::Generic { store: "faulty", source: "the process is dead".into() }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.operate(self.inner.put_opts(path, payload, options)).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.operate(self.inner.put_multipart_opts(path, options)).await?;
        Ok(Box::new(FaultyUpload { upload, store: self.clone() }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.operate(self.inner.get_opts(path, options)).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |path| {
            let store = store.clone();
            async move {
                let path = path?;
                let mut deleted = store.inner.delete_stream(futures::stream::iter([Ok(path)]).boxed());
                store.operate(async { deleted.next().await.unwrap() }).await
            }
        };
        paths.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, objects) = (self.clone(), self.inner.list(prefix));
        futures::stream::once(async move { store.operate(async { Ok(objects) }).await })
            .flat_map(|objects| objects.unwrap_or_else(|error| futures::stream::iter([Err(error)]).boxed()))
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.operate(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.operate(self.inner.copy_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    upload: Box<dyn MultipartUpload>,
    store: Faulty,
}

#[async_trait::async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, payload: PutPayload) -> UploadPart {
        let (store, part): (Faulty, BoxFuture<'static, Result<()>>) =
            (self.store.clone(), self.upload.put_part(payload));
        Box::pin(async move { store.operate(part).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.store.operate(self.upload.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.store.operate(self.upload.abort()).await
    }
}
