//! Writes an object whose size is not known in advance.

use super::{Store, outage};
use bytes::Bytes;
use common::outcome::Failure;
use object_store::{buffered::BufWriter, path::Path};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

/// Size of one part, bytes; S3 requires at least 5 MiB.
const PART_BYTES: usize = 8 << 20;
/// Maximum number of parts written at the same time.
const PARTS_MAX: usize = 2;

/// Writes an object piece by piece and hashes it. The object becomes visible as a whole once [`Self::finish`] returns.
#[derive(Debug)]
pub struct Writer {
    path: String,
    writer: BufWriter,
    hasher: Sha256,
    bytes: u64,
}

/// A complete object.
#[derive(Debug)]
pub struct Written {
    /// Path of the object.
    pub path: String,
    /// SHA-256 of its bytes, 64 hex digits.
    pub sha256: String,
    /// Size in bytes.
    pub bytes: u64,
}

impl Writer {
    /// Returns a writer of the object at `path`. An existing object stays until [`Self::finish`] replaces it.
    pub fn new(store: &Store, path: &str) -> Self {
        Self { path: path.to_owned(), ..Self::at(store, Path::from(path)) }
    }

    /// Returns a writer of the object at a path of the store.
    pub(super) fn at(store: &Store, path: Path) -> Self {
        let writer = BufWriter::with_capacity(store.clone(), path.clone(), PART_BYTES);
        let writer = writer.with_max_concurrency(PARTS_MAX);
        Self { path: path.into(), writer, hasher: Sha256::new(), bytes: 0 }
    }

    /// Returns the number of bytes appended so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the SHA-256 of the bytes appended so far, 64 hex digits.
    pub fn sha256(&self) -> String {
        hex::encode(self.hasher.clone().finalize())
    }

    /// Appends bytes. Waits while the maximum number of parts is being written.
    ///
    /// # Errors
    /// Fails with an outage if the store cannot be used.
    pub async fn put(&mut self, bytes: Bytes) -> Result<(), Failure> {
        self.bytes += bytes.len() as u64;
        self.hasher.update(&bytes);
        self.writer.put(bytes).await.map_err(outage)
    }

    /// Writes the remaining bytes and makes the object visible.
    ///
    /// # Errors
    /// Fails with an outage if the store cannot be used.
    pub async fn finish(mut self) -> Result<Written, Failure> {
        self.writer.shutdown().await.map_err(|error| match error.downcast::<object_store::Error>() {
            Ok(error) => outage(error),
            Err(error) => Failure::outage("object store", error),
        })?;
        Ok(Written { sha256: self.sha256(), path: self.path, bytes: self.bytes })
    }

    /// Discards the bytes written so far. If that fails, the store's sweep of unfinished writes removes them later.
    pub async fn abort(mut self) {
        let _ = self.writer.abort().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store;
    use object_store::memory::InMemory;
    use std::sync::Arc;

    /// An object of one part and an object of several parts become visible once they are complete, or never.
    #[tokio::test]
    async fn an_object_is_visible_as_a_whole() {
        let store: Store = Arc::new(InMemory::new());
        for bytes in [3, 2 * PART_BYTES + 3] {
            for is_finished in [false, true] {
                let mut writer = Writer::new(&store, "raw/a");
                for piece in vec![b'x'; bytes].chunks(PART_BYTES / 3) {
                    writer.put(Bytes::copy_from_slice(piece)).await.unwrap();
                }
                let sha256 = hex::encode(Sha256::digest(vec![b'x'; bytes]));
                assert_eq!((writer.bytes(), writer.sha256()), (bytes as u64, sha256));
                assert_eq!(store::read(&store, "raw/a").await.unwrap(), None);
                match is_finished {
                    true => drop(writer.finish().await.unwrap()),
                    false => writer.abort().await,
                }
                let stored = store::read(&store, "raw/a").await.unwrap();
                assert_eq!(stored.map(|stored| stored.len()), is_finished.then_some(bytes));
            }
            store::remove(&store, "raw/a").await.unwrap();
        }
    }
}
