//! Reads the bytes of a batch, inline or from the store: fingerprints them as they came, and returns them as JSON in
//! UTF-8, piece by piece.
//!
//! ```text
//!  Source ──▶ input ──▶ compressed ──▶ decoded ──┬── JSON, as it is ────────────────▶ pieces of JSON
//!             SHA-256   gzip, zstd,    UTF-16 to ├── csv      one object per row ───▶ lines of JSON
//!                       deflate, br    UTF-8     ├── parquet  one object per row ───▶ lines of JSON
//!                                                └── format   anything else ────────▶ refused by its name
//! ```

mod compressed;
mod csv;
mod decoded;
mod format;
mod input;
mod parquet;
mod utf16;

use self::{compressed::Stated, csv::Csv, decoded::Decoded, format::Format, input::Input, parquet::Parquet};
use bytes::Bytes;
use common::coding::Coding;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use object_store::{GetOptions, GetResult, GetResultPayload, path::Path};
use records::Store;
use std::io::{self, Read};

pub(crate) use self::{csv::InvalidCsv, format::Unsupported, parquet::InvalidParquet, utf16::InvalidUtf16};

/// Bytes at the start of a document by which its format is recognised.
const HEAD_BYTES: usize = 64 * 1024;

/// Decompressed bytes from which on the ratio to the compressed ones is looked at.
const RATIO_GRACE_BYTES: u64 = 16 * 1024 * 1024;

/// Bounds of reading.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of one piece at most.
    pub piece_bytes: usize,
    /// Bytes a compressed batch may expand to, and bytes of a Parquet file.
    pub decompressed_bytes_max: u64,
    /// Times its size a compressed batch may expand to.
    pub expansion_max: u64,
}

/// Where the bytes of a batch are; can be read any number of times.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// In the message. A compression that is not declared is recognised.
    Inline { body: Bytes, coding: Option<Coding> },
    /// In the object store; with an etag, only what still has it.
    Object { store: Store, path: Path, etag: Option<String> },
}

/// Why bytes could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("there is no object {0}; upload it, then publish the batch again")]
    Missing(Path),
    #[error("{0} was replaced while it was being read")]
    Replaced(Path),
    #[error("{0}")]
    Store(object_store::Error),
    #[error("the compressed bytes end in the middle, after byte {0}")]
    CutShort(u64),
    #[error("the compressed bytes are broken before byte {at}: {error}")]
    Corrupt { at: u64, error: io::Error },
    #[error("expands to more than {0}")]
    Expands(String),
    #[error(
        "content_encoding declares {declared}, but the body starts like {found}: leave content_encoding out, or set it to what the \
         body is compressed with"
    )]
    NotAsDeclared { declared: Coding, found: String },
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

impl Source {
    /// Starts from the first byte.
    pub async fn open(&self, limits: Limits) -> Result<Reading, ReadError> {
        let (pieces, stated, etag) = match self {
            Self::Inline { body, coding } => {
                let stated = Stated { declared: *coding, named: None };
                (stream::iter([Ok(body.clone())]).boxed(), stated, None)
            }
            Self::Object { store, path, etag } => {
                let options = GetOptions { if_match: etag.clone(), ..GetOptions::default() };
                let found = store.get_opts(path, options).await.map_err(|error| match error {
                    object_store::Error::NotFound { .. } => ReadError::Missing(path.clone()),
                    object_store::Error::Precondition { .. } => ReadError::Replaced(path.clone()),
                    other => ReadError::Store(other),
                })?;
                let etag = found.meta.e_tag.clone();
                let stated = Stated { declared: None, named: Coding::of_name(path.as_ref()) };
                (stored(found, limits.piece_bytes), stated, etag)
            }
        };
        let input = Input::new(pieces, limits.piece_bytes);
        let mut decoded = Decoded::open(input, stated, limits).await?;
        let head = decoded.head().await?;
        let form = match format::recognise(&head) {
            Format::Parquet => Form::Parquet(Box::new(Parquet::spool(&mut decoded, limits).await?)),
            Format::Text => text_form(&head)?,
            Format::Utf16(endian) => {
                decoded.transcode(endian);
                text_form(&decoded.head().await?)?
            }
            Format::Compressed(inner) => {
                let outer = decoded.coding().unwrap_or(inner);
                return Err(ReadError::CompressedTwice { outer, inner });
            }
            Format::Unsupported(unsupported) => {
                return Err(ReadError::Unsupported(unsupported.within(decoded.coding())));
            }
        };
        Ok(Reading { decoded, form, etag, piece_bytes: limits.piece_bytes.max(1) })
    }
}

/// How a text is read: as CSV with a header where its first lines are that, else as JSON.
fn text_form(head: &[u8]) -> Result<Form, ReadError> {
    if let Some(layout) = csv::sniff(head)? {
        return Ok(Form::Csv(Box::new(Csv::new(layout))));
    }
    match format::unknown_text(head) {
        Some(unsupported) => Err(ReadError::Unsupported(unsupported)),
        None => Ok(Form::Json),
    }
}

/// A local file is read in large pieces, since each costs a trip to a blocking thread.
fn stored(found: GetResult, piece_bytes: usize) -> BoxStream<'static, io::Result<Bytes>> {
    match found.payload {
        GetResultPayload::Stream(pieces) => pieces.map(|piece| piece.map_err(io::Error::other)).boxed(),
        GetResultPayload::File(file, _) => stream::try_unfold(file, move |file| async move {
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = Vec::with_capacity(piece_bytes);
                let outcome = (&file).take(piece_bytes as u64).read_to_end(&mut piece);
                outcome.map(|length| (length > 0).then(|| (Bytes::from(piece), file)))
            });
            let store_failed = |source: Box<dyn std::error::Error + Send + Sync>| {
                io::Error::other(object_store::Error::Generic { store: "LocalFileSystem", source })
            };
            match read.await {
                Ok(outcome) => outcome.map_err(|error| store_failed(error.into())),
                Err(error) => Err(store_failed(error.into())),
            }
        })
        .boxed(),
    }
}

/// An open source.
pub(crate) struct Reading {
    decoded: Decoded,
    form: Form,
    etag: Option<String>,
    piece_bytes: usize,
}

/// What the decoded bytes are.
enum Form {
    Json,
    Csv(Box<Csv>),
    Parquet(Box<Parquet>),
}

/// The batch as it was stored.
pub(crate) struct Fingerprint {
    /// 64 hex digits.
    pub sha256: String,
    /// The object's, where there is one.
    pub etag: Option<String>,
}

impl Reading {
    /// Whether every line of the pieces is one record that this crate wrote: an object, or an array of cells.
    pub fn records(&self) -> bool {
        !matches!(self.form, Form::Json)
    }

    /// The next piece of JSON in UTF-8; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        match &mut self.form {
            Form::Json => self.decoded.next().await,
            Form::Parquet(parquet) => parquet.next(self.piece_bytes).await,
            Form::Csv(csv) => loop {
                let lines = csv.lines(self.piece_bytes)?;
                if !lines.is_empty() {
                    return Ok(Some(lines));
                }
                match self.decoded.next().await? {
                    Some(piece) => csv.push(piece),
                    None if csv.end() => {}
                    None => return Ok(None),
                }
            },
        }
    }

    /// The fingerprint of all bytes as they came.
    pub async fn finish(self) -> Result<Fingerprint, ReadError> {
        Ok(Fingerprint { sha256: self.decoded.finish().await?, etag: self.etag })
    }
}

fn read_error(error: io::Error, at: u64) -> ReadError {
    match error.downcast::<object_store::Error>() {
        Ok(error) => ReadError::Store(error),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => ReadError::CutShort(at),
        Err(error) => ReadError::Corrupt { at, error },
    }
}

#[cfg(test)]
mod tests;
