//! Parquet: each row becomes one line of JSON, an object of its flat columns without those that are null.
//!
//! The format is read from its end, so the file is spooled first: in memory while it is small, else in a temporary file. The library
//! that reads it trusts what the file says about its own sizes, so these are checked before: see [`thrift`] and [`pages`].

mod file;
mod pages;
mod spool;
mod thrift;
mod value;

use super::{Limits, ReadError, decoded::Decoded};
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

/// Why a Parquet file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidParquet {
    /// The footer at the end of the file, which says where everything is, is missing.
    #[error("the Parquet file has no footer at its end: it was cut short on its way, after {0} bytes; copy it again")]
    CutShort(u64),
    /// It contradicts itself, or the format.
    #[error("the Parquet file is broken: {0}; write it again")]
    Broken(String),
    /// It uses a part of the format that is not read.
    #[error("the Parquet file has {what}, which is not read: {way_out}")]
    Unsupported {
        /// With its article.
        what: String,
        /// What to do instead, as an imperative.
        way_out: &'static str,
    },
    /// More bytes than are spooled.
    #[error(
        "the Parquet file is larger than splitter.decompressed_bytes_max ({0} bytes); split it, or raise the setting"
    )]
    TooLarge(u64),
    /// The file system of the temporary folder is smaller than the file.
    #[error(
        "the Parquet file is larger than the temporary folder {folder} can hold ({capacity} bytes); split it, or give the splitter a larger one (TMPDIR)"
    )]
    LargerThanFolder {
        /// Where the file is spooled.
        folder: String,
        /// Size of its file system, bytes.
        capacity: u64,
    },
}

impl InvalidParquet {
    /// The stable code of the refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::CutShort(_) => "cut_short",
            Self::Broken(_) => "invalid_parquet",
            Self::Unsupported { .. } => "unsupported_format",
            Self::TooLarge(_) | Self::LargerThanFolder { .. } => "expands_too_much",
        }
    }
}

/// A spooled file that is being read.
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
                Err(error) => Err(unspooled(error, bytes, &env::temp_dir())),
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

    /// The next lines of about `bytes` in all; `None` after the last row.
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

/// Why a file could not be spooled after `bytes` bytes. A full file system is an outage, unless this file alone fills it: then
/// waiting does not help.
fn unspooled(error: io::Error, bytes: u64, folder: &Path) -> ReadError {
    match capacity(folder) {
        Some(capacity) if error.kind() == ErrorKind::StorageFull && bytes >= capacity / 10 * 9 => {
            InvalidParquet::LargerThanFolder { folder: folder.display().to_string(), capacity }.into()
        }
        _ => ReadError::Spool(error),
    }
}

/// Size of the file system of a folder, bytes; `None` if it is unknown.
#[cfg(unix)]
fn capacity(folder: &Path) -> Option<u64> {
    rustix::fs::statvfs(folder).ok().map(|found| found.f_blocks.saturating_mul(found.f_frsize))
}

#[cfg(not(unix))]
fn capacity(_: &Path) -> Option<u64> {
    None
}

/// Runs on a blocking thread. A panic of the library becomes an error about the file that caused it.
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
