//! The errors of reading the bytes of a batch.

use super::{csv::InvalidCsv, format::Unsupported, parquet::InvalidParquet, utf16::InvalidUtf16};
use common::coding::Coding;
use std::io;

/// Why the bytes of a batch cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("there is no object {0}; upload it, then publish the batch again")]
    Missing(String),
    #[error("{0} was replaced while it was being read")]
    Replaced(String),
    #[error("{0}")]
    Store(object_store::Error),
    #[error("the compressed bytes end in the middle, after byte {0}")]
    CutShort(u64),
    #[error("the compressed bytes are broken before byte {at}: {error}")]
    Corrupt { at: u64, error: io::Error },
    #[error("expands to more than {0}")]
    Expands(String),
    #[error(
        "content_encoding declares {declared}, but the body starts like {actual}: leave content_encoding out, or set it to what the \
         body is compressed with"
    )]
    NotAsDeclared { declared: Coding, actual: String },
    #[error("compressed twice: {inner} within {outer}; decompress it once and hand it in again")]
    CompressedTwice { outer: Coding, inner: Coding },
    #[error(
        "{bytes} bytes follow after a complete {coding} stream, which ends at byte {at}; cut them off, or compress the file again"
    )]
    Trailing { coding: Coding, bytes: u64, at: u64 },
    #[error("{0}")]
    Unsupported(Unsupported),
    #[error("{0}")]
    Utf16(#[from] InvalidUtf16),
    #[error("{0}")]
    Csv(#[from] InvalidCsv),
    #[error("{0}")]
    Parquet(#[from] InvalidParquet),
    #[error("spooling the Parquet file to a temporary file: {0}")]
    Spool(io::Error),
}

/// The error of a decoder or of a store, after `at` compressed bytes.
pub(super) fn read_error(error: io::Error, at: u64) -> ReadError {
    match error.downcast::<object_store::Error>() {
        // A service returns an object in several answers, and refuses the next one if the object is another by then.
        Ok(object_store::Error::Precondition { path, .. }) => ReadError::Replaced(path),
        Ok(error) => ReadError::Store(error),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => ReadError::CutShort(at),
        Err(error) => ReadError::Corrupt { at, error },
    }
}
