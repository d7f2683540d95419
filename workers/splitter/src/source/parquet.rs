//! Converts Parquet to one line of JSON per row: an object of the flat columns that are not null. Depends on the library
//! `parquet` and on a temporary folder.
//!
//! The format is read from its end, so the file is spooled first: in memory if it is small, or else in a temporary file. The
//! library trusts the sizes that the file states, so [`thrift`] and [`pages`] check them before.

mod error;
mod file;
mod pages;
mod spool;
mod thrift;
mod value;

pub(crate) use error::InvalidParquet;

use super::{decoded::Decoded, error::ReadError, limits::Limits};
use bytes::Bytes;
use common::text::shorten;
use file::Rows;
use spool::Spool;
use std::{
    env,
    io::{self, ErrorKind},
    path::Path,
};
use tokio::task::spawn_blocking;

/// A reader of a spooled file.
pub(super) struct Parquet {
    /// `None` while a blocking thread reads, and after the last row.
    rows: Option<Box<Rows>>,
}

impl Parquet {
    /// Spools the whole document and reads its footer.
    pub async fn spool(decoded: &mut Decoded, limits: Limits) -> Result<Self, ReadError> {
        let mut spool = Spool::default();
        let mut bytes = 0u64;
        while let Some(piece) = decoded.next().await? {
            bytes = bytes.saturating_add(piece.len() as u64);
            if bytes > limits.decompressed_bytes_max {
                return Err(InvalidParquet::TooLarge(limits.decompressed_bytes_max).into());
            }
            let write = move || match spool.write(&piece) {
                Ok(()) => Ok(spool),
                Err(error) => Err(spool_error(error, bytes, &env::temp_dir())),
            };
            spool = blocking(write).await?;
        }
        let open = move || {
            let file = spool.finish().map_err(ReadError::Spool)?;
            Ok(Rows::open(file, limits)?)
        };
        let rows = blocking(open).await?;
        Ok(Self { rows: Some(Box::new(rows)) })
    }

    /// Returns the next lines, of about `bytes` in total; `None` after the last row.
    pub async fn next(&mut self, bytes: usize) -> Result<Option<Bytes>, ReadError> {
        let Some(mut rows) = self.rows.take() else { return Ok(None) };
        let (rows, lines) = blocking(move || {
            let lines = rows.lines(bytes)?;
            Ok((rows, lines))
        })
        .await?;
        if lines.is_empty() {
            return Ok(None);
        }
        self.rows = Some(rows);
        Ok(Some(lines))
    }
}

/// Maps an error of spooling after `bytes` bytes. A full file system is an outage, unless this file alone fills it: then
/// waiting does not help.
fn spool_error(error: io::Error, bytes: u64, folder: &Path) -> ReadError {
    match capacity(folder) {
        Some(capacity) if error.kind() == ErrorKind::StorageFull && bytes >= capacity / 10 * 9 => {
            InvalidParquet::LargerThanFolder { folder: folder.display().to_string(), capacity }.into()
        }
        _ => ReadError::Spool(error),
    }
}

/// Returns the size of the file system of a folder, bytes; `None` if it is unknown.
#[cfg(unix)]
fn capacity(folder: &Path) -> Option<u64> {
    rustix::fs::statvfs(folder).ok().map(|stat| stat.f_blocks.saturating_mul(stat.f_frsize))
}

#[cfg(not(unix))]
fn capacity(_: &Path) -> Option<u64> {
    None
}

/// Runs `work` on a blocking thread. A panic of the library becomes an error of the file.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    match spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => {
            let panic = error.try_into_panic().ok();
            let text = panic.as_ref().and_then(|panic| {
                panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied())
            });
            let why = shorten(text.unwrap_or("its reader stopped"), 200).into_owned();
            Err(InvalidParquet::Broken(why).into())
        }
    }
}

#[cfg(test)]
mod tests;
