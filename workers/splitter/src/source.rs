//! Reads the bytes of a batch, inline or from the store: computes their SHA-256 and returns them as JSON in UTF-8, piece by
//! piece. Depends on the contract and the object store; knows nothing of rides but their maximum size.
//!
//! ```text
//!  Source ──▶ input ──▶ compressed ──▶ decoded ──┬── JSON, unchanged ───────────────▶ pieces of JSON
//!             SHA-256   gzip, zstd,    UTF-16 to ├── csv      one object per row ───▶ lines of JSON
//!                       deflate, br    UTF-8     ├── parquet  one object per row ───▶ lines of JSON
//!                                                └── format   any other format ─────▶ refused by its name
//! ```

mod compressed;
mod csv;
mod decoded;
mod error;
mod format;
mod input;
mod limits;
mod parquet;
mod utf16;

use self::{compressed::CompressionHints, csv::Csv, decoded::Decoded, format::Format, input::Input, parquet::Parquet};
use bytes::Bytes;
use common::coding::Coding;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use object_store::{GetResult, GetResultPayload};
use records::{Store, store};
use std::io::{self, Read};

pub(crate) use self::{error::ReadError, limits::Limits, utf16::InvalidUtf16};

/// Where the bytes of a batch are. It can be opened any number of times.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// In the message. An undeclared compression is recognised by the first bytes.
    Inline { body: Bytes, coding: Option<Coding> },
    /// In the object store. With an etag, opening fails if the object has another one.
    Object { store: Store, path: String, etag: Option<String> },
}

impl Source {
    /// Returns the source of the object at `path`.
    pub fn object(store: &Store, path: &str, etag: Option<String>) -> Self {
        Self::Object { store: store.clone(), path: path.to_owned(), etag }
    }

    /// Opens the source at its first byte and recognises its format.
    pub async fn open(&self, limits: Limits) -> Result<BatchReader, ReadError> {
        let (pieces, hints, etag) = match self {
            Self::Inline { body, coding } => {
                let hints = CompressionHints { declared: *coding, by_name: None };
                (stream::iter([Ok(body.clone())]).boxed(), hints, None)
            }
            Self::Object { store, path, etag } => {
                let object = store::open_version(store, path, etag.clone()).await.map_err(|error| match error {
                    object_store::Error::NotFound { .. } => ReadError::Missing(path.clone()),
                    object_store::Error::Precondition { .. } => ReadError::Replaced(path.clone()),
                    other => ReadError::Store(other),
                })?;
                let etag = object.meta.e_tag.clone();
                let hints = CompressionHints { declared: None, by_name: Coding::of_name(path) };
                (stored_pieces(object, limits.piece_bytes), hints, etag)
            }
        };
        let input = Input::new(pieces, limits.piece_bytes);
        let mut decoded = Decoded::open(input, hints, limits).await?;
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
        Ok(BatchReader { decoded, form, etag, piece_bytes: limits.piece_bytes.max(1) })
    }
}

/// Chooses how a text is read: as CSV if its first lines have a header, or else as JSON.
fn text_form(head: &[u8]) -> Result<Form, ReadError> {
    if let Some(layout) = csv::sniff(head)? {
        return Ok(Form::Csv(Box::new(Csv::new(layout))));
    }
    match format::unknown_text(head) {
        Some(unsupported) => Err(ReadError::Unsupported(unsupported)),
        None => Ok(Form::Json),
    }
}

/// Returns the pieces of an object. A local file is read in large pieces, since each read runs on a blocking thread. A service is
/// read in blocks, of which none waits for the broker on an open connection (`records::store`).
fn stored_pieces(object: GetResult, piece_bytes: usize) -> BoxStream<'static, io::Result<Bytes>> {
    match object.payload {
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

/// A reader of an open source.
pub(crate) struct BatchReader {
    decoded: Decoded,
    form: Form,
    etag: Option<String>,
    piece_bytes: usize,
}

/// The format of the decoded bytes.
enum Form {
    Json,
    Csv(Box<Csv>),
    Parquet(Box<Parquet>),
}

/// The identity of the raw bytes.
pub(crate) struct Fingerprint {
    /// 64 hex digits.
    pub sha256: String,
    /// The etag of the object, if the store has one.
    pub etag: Option<String>,
}

impl BatchReader {
    /// Returns whether every line is one record that this module wrote: an object, or an array of cells.
    pub fn records(&self) -> bool {
        !matches!(self.form, Form::Json)
    }

    /// Returns the next piece of JSON in UTF-8; `None` at the end.
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

    /// Reads to the end and returns the fingerprint of the raw bytes.
    pub async fn finish(self) -> Result<Fingerprint, ReadError> {
        Ok(Fingerprint { sha256: self.decoded.finish().await?, etag: self.etag })
    }
}

#[cfg(test)]
mod tests;
