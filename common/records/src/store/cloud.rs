//! A bucket of a service as the object store: S3 and compatible services, Google Cloud Storage, Azure Blob Storage.
//!
//! ```text
//! builders     credentials, endpoint, retries        blocks      long reads, in requests that each end soon
//! legible      errors without secrets, in one line   unfinished  uploads that killed writers left
//! ```

mod blocks;
mod builders;
mod legible;
mod unfinished;

pub use unfinished::{LifecycleRule, Unfinished, UnfinishedUpload};

use super::{
    Store,
    location::{Bucket, Service, StoreSettings},
};
use async_trait::async_trait;
use builders::Connected;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use legible::legible;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart, buffered::BufWriter,
    path::Path, prefix::PrefixStore,
};
use std::{fmt, ops::Range, sync::Arc};
use tokio::io::AsyncWriteExt;

/// Returns the variables of this process's environment that concern a service.
pub(super) fn environment() -> Vec<(String, String)> {
    let texts =
        std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    texts.filter(|(key, value)| builders::is_known(key) && !value.is_empty()).collect()
}

/// Returns a store in a bucket. Requests nothing.
///
/// # Errors
/// Fails if a setting or a variable of the environment is invalid.
pub(super) fn connect(
    bucket: &Bucket,
    settings: &StoreSettings,
    environment: &[(String, String)],
) -> anyhow::Result<Cloud> {
    let Connected { store, copying } = builders::connect(bucket, settings, environment)?;
    let below_prefix = |store: Store| match bucket.prefix.as_ref() {
        "" => store,
        _ => Arc::new(PrefixStore::new(store, bucket.prefix.clone())),
    };
    Ok(Cloud {
        name: bucket.to_string(),
        store: below_prefix(store),
        copying: below_prefix(copying),
        copy_bytes_max: match bucket.service {
            Service::S3 | Service::GoogleCloud => COPY_BYTES_MAX,
            // Azure may answer before the bytes are copied, and the client does not wait: a rename could remove them.
            Service::Azure => 0,
        },
    })
}

/// Returns access to the unfinished uploads of an S3 bucket; `None` for other services: Azure removes them after a week, Google
/// by a rule of the bucket.
///
/// # Errors
/// As for [`connect`].
pub(super) fn unfinished(
    bucket: &Bucket,
    settings: &StoreSettings,
    environment: &[(String, String)],
) -> anyhow::Result<Option<Unfinished>> {
    let s3 = builders::s3(bucket, settings, environment)?;
    s3.map(|client| Unfinished::new(bucket, client)).transpose()
}

/// A store in a bucket. What this type adds to the client of the service:
///
/// * A read holds no connection open while its reader is busy: see [`blocks`].
/// * A range that begins beyond the end of an object is an error, also if several ranges are read at once.
/// * Errors have one line and no secrets: see [`legible`].
/// * Printing it, also for debugging, shows its address alone.
pub(super) struct Cloud {
    name: String,
    store: Store,
    /// The same objects. Its requests may take minutes: the service answers a copy once all bytes are copied.
    copying: Store,
    /// Size from which an object is not copied by the service, bytes.
    copy_bytes_max: u64,
}

/// The limit of S3, bytes.
const COPY_BYTES_MAX: u64 = 5 << 30;
/// Size of one part of a copy through this process, bytes, and maximum number of parts written at the same time.
const PART_BYTES: usize = 8 << 20;
const PARTS_MAX: usize = 2;

impl Cloud {
    /// Returns a store around another one, for tests.
    #[cfg(test)]
    pub(super) fn around(store: Store) -> Self {
        Self { name: "test".to_owned(), copying: Arc::clone(&store), store, copy_bytes_max: COPY_BYTES_MAX }
    }

    /// Copies an object that is too large for the service: reads and writes it.
    async fn copy_through(&self, from: &Path, to: &Path) -> Result<()> {
        let mut pieces = self.get(from).await?.into_stream();
        let writer = BufWriter::with_capacity(Store::clone(&self.store), to.clone(), PART_BYTES);
        let mut writer = writer.with_max_concurrency(PARTS_MAX);
        let copying = async {
            while let Some(piece) = pieces.try_next().await? {
                writer.put(piece).await.map_err(legible)?;
            }
            Ok(())
        };
        if let Err(error) = copying.await {
            // The sweep of unfinished uploads removes it if this fails.
            let _ = writer.abort().await;
            return Err(error);
        }
        let failed = |error: std::io::Error| legible(Error::Generic { store: "cloud", source: error.into() });
        writer.shutdown().await.map_err(failed)
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cloud").field(&self.name).finish()
    }
}

#[async_trait]
impl ObjectStore for Cloud {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.store.put_opts(location, payload, options).await.map_err(legible)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.store.put_multipart_opts(location, options).await.map_err(legible)?;
        Ok(Box::new(Upload(upload)))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match options.head {
            true => self.store.get_opts(location, options).await.map_err(legible),
            false => blocks::open(&self.store, location, options).await,
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let mut read = Vec::with_capacity(ranges.len());
        for range in ranges {
            read.push(self.get_range(location, range.clone()).await?);
        }
        Ok(read)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations).map_err(legible).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix).map_err(legible).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list_with_offset(prefix, offset).map_err(legible).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await.map_err(legible)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        if options.mode == CopyMode::Overwrite && self.head(from).await?.size >= self.copy_bytes_max {
            return self.copy_through(from, to).await;
        }
        self.copying.copy_opts(from, to, options).await.map_err(legible)
    }
}

/// An upload in parts, with legible errors.
#[derive(Debug)]
struct Upload(Box<dyn MultipartUpload>);

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let writing = self.0.put_part(data);
        Box::pin(async move { writing.await.map_err(legible) })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.0.complete().await.map_err(legible)
    }

    async fn abort(&mut self) -> Result<()> {
        self.0.abort().await.map_err(legible)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    /// A copy within the service and a copy through this process have the same result.
    #[tokio::test]
    async fn an_object_that_is_too_large_for_the_service_is_copied_through_this_process() {
        let content: Vec<u8> = (0..20_000_000).map(|at: u32| (at / 7) as u8).collect();
        for copy_bytes_max in [COPY_BYTES_MAX, 1_000] {
            let store = Cloud { copy_bytes_max, ..Cloud::around(Arc::new(InMemory::new())) };
            let (from, to) = (Path::from("raw/incoming/1"), Path::from("raw/1"));
            store.put(&from, content.clone().into()).await.unwrap();
            store.rename(&from, &to).await.unwrap();
            assert!(store.get(&to).await.unwrap().bytes().await.unwrap() == content);
            assert!(matches!(store.head(&from).await, Err(Error::NotFound { .. })));
        }
    }
}
