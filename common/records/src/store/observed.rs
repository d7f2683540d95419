//! Reports each operation of a store with its result and duration, for metrics.

use super::Store;
use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, path::Path,
};
use std::{
    fmt,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

/// Receives the name of an operation, its outcome (`ok`, `missing`, `exists`, `changed` or `failed`) and its duration.
pub type Observer = fn(operation: &'static str, outcome: &'static str, took: Duration);

/// Returns a store that reports each operation to `observer`. The duration of a read ends when its first bytes are available; a
/// listing and an upload in parts are not reported, because their duration depends on the caller.
pub fn observed(store: Store, observer: Observer) -> Store {
    Arc::new(Observed { store, observer })
}

#[derive(Debug)]
struct Observed {
    store: Store,
    observer: Observer,
}

impl Observed {
    async fn report<T>(&self, operation: &'static str, done: impl Future<Output = Result<T>>) -> Result<T> {
        let started = Instant::now();
        let done = done.await;
        let outcome = match &done {
            Ok(_) => "ok",
            Err(Error::NotFound { .. }) => "missing",
            Err(Error::AlreadyExists { .. }) => "exists",
            Err(Error::Precondition { .. } | Error::NotModified { .. }) => "changed",
            Err(_) => "failed",
        };
        (self.observer)(operation, outcome, started.elapsed());
        done
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Observed {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.report("put", self.store.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head { "head" } else { "get" };
        self.report(operation, self.store.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.report("get", self.store.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.report("list", self.store.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.report("copy", self.store.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.report("rename", self.store.rename_opts(from, to, options)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store;
    use object_store::memory::InMemory;
    use std::sync::Mutex;

    static REPORTED: Mutex<Vec<(&str, &str)>> = Mutex::new(Vec::new());

    #[tokio::test]
    async fn every_operation_is_reported_with_its_outcome() {
        let observer = |operation, outcome, _| REPORTED.lock().unwrap().push((operation, outcome));
        let store = observed(Arc::new(InMemory::new()), observer);
        assert_eq!(store::read(&store, "models/a").await.unwrap(), None);
        assert!(store::create(&store, "models/a", "1").await.unwrap());
        assert!(!store::create(&store, "models/a", "2").await.unwrap());
        assert_eq!(store::read(&store, "models/a").await.unwrap().unwrap(), "1");
        store::rename(&store, "models/a", "models/b").await.unwrap();
        let reported = REPORTED.lock().unwrap().clone();
        // After `exists`, the bytes are compared.
        let creation = [("put", "ok"), ("put", "exists"), ("get", "ok")];
        assert_eq!(reported, [&[("get", "missing")], &creation[..], &[("get", "ok"), ("rename", "ok")]].concat());
    }
}
