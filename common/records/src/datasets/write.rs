//! Writes the files of a dataset.

use super::{encode::header, record::record_ends};
use crate::{
    layout,
    store::{self, Store},
};
use bytes::BytesMut;
use common::{dataset::DatasetFile, outcome::Failure};
use object_store::{buffered::BufWriter, path::Path};
use sha2::{Digest, Sha256};
use std::num::NonZeroU32;
use tokio::io::AsyncWriteExt;

/// Number of bytes of rows that are buffered before they are passed to the upload.
const BUFFER_BYTES: usize = 256 * 1024;
/// Maximum number of concurrent requests of one upload.
const UPLOADS_MAX: usize = 2;

/// Writes rows to the files of a dataset. A file ends before the row that would exceed the maximum size, but has at least one
/// row. So the files depend on the rows and not on the pieces in which they arrive. A file becomes visible when it is complete.
pub struct Writer {
    store: Store,
    batch_id: String,
    revision: NonZeroU32,
    part_bytes_max: u64,
    upload_bytes: usize,
    open: Part,
    complete: Vec<DatasetFile>,
}

/// The file that is being written.
struct Part {
    upload: BufWriter,
    buffer: BytesMut,
    sha256: Sha256,
    /// Its size and number of rows so far.
    file: DatasetFile,
}

impl Writer {
    /// Starts a revision of the dataset of a batch. `part_bytes_max` is the maximum size of a file, `upload_bytes` that of one request; both
    /// in bytes.
    pub fn open(store: &Store, batch_id: &str, revision: NonZeroU32, part_bytes_max: u64, upload_bytes: usize) -> Self {
        let open = Part::open(store, layout::dataset_part(batch_id, revision, 0), upload_bytes);
        let (store, batch_id) = (Store::clone(store), batch_id.to_owned());
        Self { store, batch_id, revision, part_bytes_max, upload_bytes, open, complete: Vec::new() }
    }

    /// Writes rows, as [`push_row`](super::push_row) encodes them; `count` is their number.
    ///
    /// # Errors
    /// Fails with an outage if the store cannot be used.
    pub async fn push(&mut self, mut rows: &[u8], mut count: u64) -> Result<(), Failure> {
        while !rows.is_empty() {
            let room = self.part_bytes_max.saturating_sub(self.open.file.bytes);
            let (fit, fit_count) = if rows.len() as u64 <= room {
                (rows.len(), count)
            } else {
                whole_rows(rows, usize::try_from(room).unwrap_or(usize::MAX), self.open.file.rows == 0)
            };
            let (written, rest) = rows.split_at(fit);
            self.open.write(written, fit_count).await?;
            (rows, count) = (rest, count.saturating_sub(fit_count));
            if !rows.is_empty() {
                let number = u32::try_from(self.complete.len() + 1).unwrap_or(u32::MAX);
                let path = layout::dataset_part(&self.batch_id, self.revision, number);
                let next = Part::open(&self.store, path, self.upload_bytes);
                self.complete.push(std::mem::replace(&mut self.open, next).finish().await?);
            }
        }
        Ok(())
    }

    /// Completes the last file; returns all files. Without rides there is one, of a header line.
    ///
    /// # Errors
    /// Fails with an outage if the store cannot be used.
    pub async fn finish(mut self) -> Result<Vec<DatasetFile>, Failure> {
        self.complete.push(self.open.finish().await?);
        Ok(self.complete)
    }

    /// Aborts the upload of the open file. If that fails, the store's own rule removes it.
    pub async fn abort(self) {
        self.open.abort().await;
    }
}

impl Part {
    fn open(store: &Store, path: String, upload_bytes: usize) -> Self {
        let upload = BufWriter::with_capacity(Store::clone(store), Path::from(path.as_str()), upload_bytes)
            .with_max_concurrency(UPLOADS_MAX);
        let header = header();
        let sha256 = Sha256::new_with_prefix(&header);
        let file = DatasetFile { path, bytes: header.len() as u64, rows: 0, sha256: String::new() };
        Self { upload, buffer: BytesMut::from(header.as_slice()), sha256, file }
    }

    async fn write(&mut self, rows: &[u8], count: u64) -> Result<(), Failure> {
        self.sha256.update(rows);
        self.file.bytes += rows.len() as u64;
        self.file.rows += count;
        self.buffer.extend_from_slice(rows);
        if self.buffer.len() >= BUFFER_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        let rows = self.buffer.split().freeze();
        self.upload.put(rows).await.map_err(store::outage)
    }

    async fn finish(mut self) -> Result<DatasetFile, Failure> {
        if let Err(failure) = self.flush().await {
            self.abort().await;
            return Err(failure);
        }
        self.upload.shutdown().await.map_err(|error| Failure::outage("object store", error))?;
        self.file.sha256 = hex::encode(self.sha256.finalize());
        Ok(self.file)
    }

    async fn abort(mut self) {
        if let Err(error) = self.upload.abort().await {
            tracing::debug!(path = self.file.path, %error, "an unfinished upload was not removed");
        }
    }
}

/// Returns the size and the number of the rows that fit into `room`; with `at_least_one` the first row always counts.
fn whole_rows(rows: &[u8], room: usize, at_least_one: bool) -> (usize, u64) {
    let mut fit = (0, 0);
    for end in record_ends(rows) {
        if end > room && (fit.1 > 0 || !at_least_one) {
            break;
        }
        fit = (end, fit.1 + 1);
    }
    // Rows without a line end, which no encoder writes: they are not cut.
    if fit.1 == 0 && at_least_one { (rows.len(), 1) } else { fit }
}
