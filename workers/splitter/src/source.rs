//! The bytes of a batch, wherever they are: fingerprinted as they came, decompressed, a piece at a time.

use async_compression::{
    tokio::bufread::{GzipDecoder, ZstdDecoder},
    zstd::DParameter,
};
use bytes::{Bytes, BytesMut};
use common::runtime::Store;
use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use object_store::{GetOptions, GetResult, GetResultPayload, path::Path};
use sha2::{Digest, Sha256};
use std::{
    collections::VecDeque,
    io::{self, Read},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

/// Largest window of a zstd frame, as a power of two: 32 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;
/// Decompressed bytes from which on the ratio to the compressed ones is looked at.
const RATIO_GRACE_BYTES: u64 = 16 * 1024 * 1024;

/// Bounds of reading.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of one piece at most.
    pub piece_bytes: usize,
    /// Bytes a compressed batch may expand to.
    pub decompressed_bytes_max: u64,
    /// Times its size a compressed batch may expand to.
    pub expansion_max: u64,
}

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Gzip,
    Zstd,
}

impl Encoding {
    /// RFC 1952 §2.3.1 and RFC 8878 §3.1.1; neither can start a JSON document.
    fn of(first: &[u8]) -> Option<Self> {
        if first.starts_with(&[0x1F, 0x8B]) {
            Some(Self::Gzip)
        } else if first.starts_with(&[0x28, 0xB5, 0x2F, 0xFD]) {
            Some(Self::Zstd)
        } else {
            None
        }
    }
}

/// Where the bytes of a batch are; can be read any number of times.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// In the message. An encoding that was not told is found out.
    Inline { body: Bytes, encoding: Option<Encoding> },
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
}

impl Source {
    /// Starts from the first byte.
    pub async fn open(&self, limits: Limits) -> Result<Reading, ReadError> {
        let (mut pieces, told, etag) = match self {
            Self::Inline { body, encoding } => (stream::iter([Ok(body.clone())]).boxed(), *encoding, None),
            Self::Object { store, path, etag } => {
                let options = GetOptions { if_match: etag.clone(), ..GetOptions::default() };
                let found = store.get_opts(path, options).await.map_err(|error| match error {
                    object_store::Error::NotFound { .. } => ReadError::Missing(path.clone()),
                    object_store::Error::Precondition { .. } => ReadError::Replaced(path.clone()),
                    other => ReadError::Store(other),
                })?;
                let etag = found.meta.e_tag.clone();
                (stored(found, limits.piece_bytes), None, etag)
            }
        };
        let mut first = Vec::new();
        let mut pulled = VecDeque::new();
        while first.len() < 4
            && let Some(piece) = pieces.next().await
        {
            let piece = piece.map_err(|error| read_error(error, 0))?;
            first.extend(piece.iter().take(4));
            pulled.push_back(Ok(piece));
        }
        let came = Came {
            pieces: stream::iter(pulled).chain(pieces).boxed(),
            piece: Bytes::new(),
            piece_bytes: limits.piece_bytes.max(1),
            sha256: Sha256::new(),
            bytes: 0,
        };
        let input = match told.or_else(|| Encoding::of(&first)) {
            None => Input::Plain(came),
            Some(Encoding::Gzip) => {
                let mut decoder = GzipDecoder::new(StreamReader::new(came));
                decoder.multiple_members(true);
                Input::Gzip(Box::new(decoder))
            }
            Some(Encoding::Zstd) => {
                let window = DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX);
                let mut decoder = ZstdDecoder::with_params(StreamReader::new(came), &[window]);
                decoder.multiple_members(true);
                Input::Zstd(Box::new(decoder))
            }
        };
        Ok(Reading { input, etag, limits, buffer: BytesMut::new(), decompressed: 0 })
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
    input: Input,
    etag: Option<String>,
    limits: Limits,
    buffer: BytesMut,
    decompressed: u64,
}

enum Input {
    Plain(Came),
    Gzip(Box<GzipDecoder<StreamReader<Came, Bytes>>>),
    Zstd(Box<ZstdDecoder<StreamReader<Came, Bytes>>>),
}

/// What was read, as it came.
pub(crate) struct Fingerprint {
    /// 64 hex digits.
    pub sha256: String,
    /// The object's, where there is one.
    pub etag: Option<String>,
}

impl Reading {
    /// The next piece, decompressed; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        let buffer = &mut self.buffer;
        let limits = self.limits;
        let piece = match &mut self.input {
            Input::Plain(came) => {
                return came.next().await.transpose().map_err(|error| read_error(error, came.bytes));
            }
            Input::Gzip(decoder) => decompress(decoder.as_mut(), buffer, limits.piece_bytes).await,
            Input::Zstd(decoder) => decompress(decoder.as_mut(), buffer, limits.piece_bytes).await,
        };
        let came = self.came_bytes();
        let piece = piece.map_err(|error| read_error(error, came))?;
        self.decompressed = self.decompressed.saturating_add(piece.len() as u64);
        if self.decompressed > limits.decompressed_bytes_max {
            return Err(ReadError::Expands(format!("{} bytes", limits.decompressed_bytes_max)));
        }
        if self.decompressed > RATIO_GRACE_BYTES.max(came.saturating_mul(limits.expansion_max)) {
            return Err(ReadError::Expands(format!("{} times its size", limits.expansion_max)));
        }
        Ok(if piece.is_empty() { None } else { Some(piece) })
    }

    fn came_bytes(&self) -> u64 {
        match &self.input {
            Input::Plain(came) => came.bytes,
            Input::Gzip(decoder) => decoder.get_ref().get_ref().bytes,
            Input::Zstd(decoder) => decoder.get_ref().get_ref().bytes,
        }
    }

    /// The fingerprint of all bytes there are.
    pub async fn finish(self) -> Result<Fingerprint, ReadError> {
        let mut came = match self.input {
            Input::Plain(came) => came,
            Input::Gzip(decoder) => decoder.into_inner().into_inner(),
            Input::Zstd(decoder) => decoder.into_inner().into_inner(),
        };
        while let Some(piece) = came.next().await {
            piece.map_err(|error| read_error(error, came.bytes))?;
        }
        Ok(Fingerprint { sha256: hex::encode(came.sha256.finalize()), etag: self.etag })
    }
}

async fn decompress(
    decoder: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    piece_bytes: usize,
) -> io::Result<Bytes> {
    buffer.reserve(piece_bytes);
    decoder.take(piece_bytes as u64).read_buf(buffer).await?;
    Ok(buffer.split().freeze())
}

fn read_error(error: io::Error, at: u64) -> ReadError {
    match error.downcast::<object_store::Error>() {
        Ok(error) => ReadError::Store(error),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => ReadError::CutShort(at),
        Err(error) => ReadError::Corrupt { at, error },
    }
}

/// Bytes as they come, fingerprinted, in pieces of bounded size.
struct Came {
    pieces: BoxStream<'static, io::Result<Bytes>>,
    piece: Bytes,
    piece_bytes: usize,
    sha256: Sha256,
    bytes: u64,
}

impl Stream for Came {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while self.piece.is_empty() {
            match ready!(self.pieces.poll_next_unpin(context)) {
                Some(Ok(piece)) => self.piece = piece,
                other => return Poll::Ready(other),
            }
        }
        let length = self.piece.len().min(self.piece_bytes);
        let piece = self.piece.split_to(length);
        self.sha256.update(&piece);
        self.bytes += length as u64;
        Poll::Ready(Some(Ok(piece)))
    }
}
