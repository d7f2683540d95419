//! A store with the faults of services that the tests need.

use super::Store;
use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

/// How the store treats a conditional write.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// It ignores the condition: every writer wins.
    IgnoresConditions,
    /// It answers that it does not support conditions.
    Unsupported,
    /// It says that the object exists, and writes nothing.
    ConflictWithoutObject { times: u32 },
    /// It writes, its answer is lost, and the client repeats the request.
    RepeatsAfterWriting,
    /// It writes, and fails.
    FailsAfterWriting { times: u32 },
    /// It is down.
    Down,
}

/// A store in memory with a fault.
#[derive(Debug)]
pub(super) struct Stub {
    inner: InMemory,
    fault: Fault,
    left: AtomicU32,
}

impl Stub {
    pub(super) fn store(fault: Fault) -> Store {
        let left = match fault {
            Fault::ConflictWithoutObject { times } | Fault::FailsAfterWriting { times } => times,
            _ => 0,
        };
        Arc::new(Self { inner: InMemory::new(), fault, left: left.into() })
    }

    /// Returns whether the fault occurs once more.
    fn is_faulty(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

impl fmt::Display for Stub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.fault)
    }
}

fn failed(why: &str) -> Error {
    Error::Generic { store: "stub", source: why.into() }
}

#[async_trait]
impl ObjectStore for Stub {
    async fn put_opts(&self, location: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        let is_create = options.mode == PutMode::Create;
        match self.fault {
            Fault::Down => return Err(failed("503")),
            _ if !is_create => {}
            Fault::IgnoresConditions => options.mode = PutMode::Overwrite,
            Fault::Unsupported => {
                return Err(Error::NotImplemented { operation: "put".into(), implementer: "stub".into() });
            }
            Fault::ConflictWithoutObject { .. } if self.is_faulty() => {
                return Err(Error::AlreadyExists { path: location.to_string(), source: "409".into() });
            }
            Fault::RepeatsAfterWriting => drop(self.inner.put_opts(location, payload.clone(), options.clone()).await?),
            Fault::FailsAfterWriting { .. } if self.is_faulty() => {
                self.inner.put_opts(location, payload, options).await?;
                return Err(failed("500"));
            }
            Fault::ConflictWithoutObject { .. } | Fault::FailsAfterWriting { .. } => {}
        }
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match self.fault {
            Fault::Down => Err(failed("503")),
            _ => self.inner.get_opts(location, options).await,
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
