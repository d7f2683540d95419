//! Reports each operation of a store with its result and duration, for metrics.

use super::Store;
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart, path::Path,
};
use std::{
    fmt,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

/// Receives the name of an operation, its outcome (`ok`, `missing`, `exists`, `changed`, `failed`, or `cancelled` if nobody waited for
/// its end) and its duration.
pub type Observer = fn(operation: &'static str, outcome: &'static str, took: Duration);

/// Returns a store that reports each operation to `observer`. The duration of a read ends when its first bytes are available. Of
/// a recursive listing and of removals only failures are reported, because their duration depends on the caller.
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
        reported(self.observer, operation, done).await
    }

    /// Reports the failures of a stream, each with the time since its start.
    fn failures<T: 'static>(
        &self,
        operation: &'static str,
        items: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        let (observer, started) = (self.observer, Instant::now());
        let report = move |error: &Error| {
            if outcome(error) == "failed" {
                observer(operation, "failed", started.elapsed());
            }
        };
        items.inspect_err(report).boxed()
    }
}

async fn reported<T>(observer: Observer, operation: &'static str, done: impl Future<Output = Result<T>>) -> Result<T> {
    let mut running = Running { observer, operation, outcome: "cancelled", started: Instant::now() };
    let done = done.await;
    running.outcome = done.as_ref().map_or_else(outcome, |_| "ok");
    done
}

fn outcome(error: &Error) -> &'static str {
    match error {
        Error::NotFound { .. } => "missing",
        Error::AlreadyExists { .. } => "exists",
        Error::Precondition { .. } | Error::NotModified { .. } => "changed",
        _ => "failed",
    }
}

/// Reports an operation when it ends, also if its future is dropped.
struct Running {
    observer: Observer,
    operation: &'static str,
    outcome: &'static str,
    started: Instant,
}

impl Drop for Running {
    fn drop(&mut self) {
        (self.observer)(self.operation, self.outcome, self.started.elapsed());
    }
}

/// An upload in parts, each of which is reported.
#[derive(Debug)]
struct Upload {
    upload: Box<dyn MultipartUpload>,
    observer: Observer,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        Box::pin(reported(self.observer, "part", self.upload.put_part(data)))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        reported(self.observer, "complete", self.upload.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
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
        let upload = self.report("upload", self.store.put_multipart_opts(location, options)).await?;
        Ok(Box::new(Upload { upload, observer: self.observer }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head { "head" } else { "get" };
        self.report(operation, self.store.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.report("get", self.store.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.failures("delete", self.store.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.failures("list", self.store.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.failures("list", self.store.list_with_offset(prefix, offset))
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
    use crate::store::{
        self, Writer,
        stub::{Fault, Stub},
    };
    use object_store::{
        memory::InMemory,
        throttle::{ThrottleConfig, ThrottledStore},
    };
    use std::sync::Mutex;

    type Reports = Mutex<Vec<(&'static str, &'static str)>>;

    static REPORTED: Reports = Mutex::new(Vec::new());
    static DISTURBED: Reports = Mutex::new(Vec::new());

    /// What fails, and what nobody waits for, is reported as well.
    #[tokio::test(start_paused = true)]
    async fn failures_and_cancelled_operations_are_reported() {
        let observer: Observer = |operation, outcome, _| DISTURBED.lock().unwrap().push((operation, outcome));
        let slow = ThrottleConfig { wait_get_per_call: Duration::from_secs(60), ..ThrottleConfig::default() };
        let slow = observed(Arc::new(ThrottledStore::new(InMemory::new(), slow)), observer);
        let read = store::read(&slow, "models/a");
        assert!(tokio::time::timeout(Duration::from_secs(1), read).await.is_err());
        let down = observed(Stub::store(Fault::Down), observer);
        assert!(store::create(&down, "models/a", "1").await.is_err());
        let large = observed(Arc::new(InMemory::new()), observer);
        let mut writer = Writer::new(&large, "raw/a");
        writer.put(vec![0; 20 << 20].into()).await.unwrap();
        writer.finish().await.unwrap();
        let reported = DISTURBED.lock().unwrap().clone();
        let parts = [("upload", "ok"), ("part", "ok"), ("part", "ok"), ("part", "ok"), ("complete", "ok")];
        assert_eq!(reported, [&[("get", "cancelled"), ("put", "failed")], &parts[..]].concat());
    }

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
