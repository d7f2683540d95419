//! Decompresses every member of gzip and every frame of zstd; only padding may follow.

use super::{
    error::{ReadError, read_error},
    format::{self, Format},
    input::Input,
    limits::{Limits, RATIO_GRACE_BYTES},
};
use async_compression::{
    tokio::bufread::{BrotliDecoder, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder},
    zstd::DParameter,
};
use bytes::{Bytes, BytesMut};
use common::coding::Coding;
use futures::{StreamExt, stream};
use runtime::compression::is_zlib;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Largest window of a zstd frame, as a power of two: 32 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;
/// Number of bytes at the start by which the compression is recognised.
const START_BYTES: usize = 512;

/// What the message and the object's name indicate about the compression.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CompressionHints {
    /// Declared by the publisher.
    pub declared: Option<Coding>,
    /// Indicated by the object's name. It is used only if the bytes are neither text nor another known format.
    pub by_name: Option<Coding>,
}

/// The decompressed bytes of a batch.
pub(super) struct Decompressed {
    stream: Stream,
    coding: Option<Coding>,
    limits: Limits,
    buffer: BytesMut,
    /// Number of bytes decompressed so far.
    bytes: u64,
    /// What the bytes start like, if they may be uncompressed.
    starts_like: Option<String>,
}

/// The current decoder.
enum Stream {
    Plain(Input),
    Gzip(Box<GzipDecoder<Input>>),
    Zlib(Box<ZlibDecoder<Input>>),
    Deflate(Box<DeflateDecoder<Input>>),
    Zstd(Box<ZstdDecoder<Input>>),
    Brotli(Box<BrotliDecoder<Input>>),
}

impl Decompressed {
    /// Starts at the first byte, which decides on the compression if none is declared.
    pub async fn open(mut input: Input, hints: CompressionHints, limits: Limits) -> Result<Self, ReadError> {
        let start = input.peek(START_BYTES).await.map_err(|error| read_error(error, 0))?;
        let by_mark = Coding::of_body(start);
        let is_marked = |coding| matches!(coding, Coding::Gzip | Coding::Zstd);
        let is_text = format::is_text(start);
        let is_known = is_text || format::recognise(start) != Format::Text;
        let coding = match hints.declared {
            // An empty body is an empty document under any declared compression.
            Some(_) if start.is_empty() => None,
            Some(coding) if by_mark != Some(coding) && (is_marked(coding) || by_mark.is_some()) => {
                return Err(ReadError::NotAsDeclared { declared: coding, actual: format::starts_like(start) });
            }
            Some(coding) => Some(coding),
            None => by_mark.or(hints.by_name.filter(|_| !is_known)),
        };
        let may_be_plain = is_text && coding.is_some_and(|coding| !is_marked(coding));
        let starts_like = may_be_plain.then(|| format::starts_like(start));
        let stream = match coding {
            None => Stream::Plain(input),
            Some(coding) => Stream::decode(coding, input).await.map_err(|error| read_error(error, 0))?,
        };
        Ok(Self { stream, coding, limits, buffer: BytesMut::new(), bytes: 0, starts_like })
    }

    /// Returns the compression of the bytes.
    pub fn coding(&self) -> Option<Coding> {
        self.coding
    }

    /// Returns the next piece; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        loop {
            let piece = match self.piece().await {
                Ok(piece) => piece,
                Err(error) => return Err(self.decoder_error(error)),
            };
            let Some(coding) = self.stream.coding() else {
                return Ok((!piece.is_empty()).then_some(piece));
            };
            if !piece.is_empty() {
                self.bytes = self.bytes.saturating_add(piece.len() as u64);
                return self.check_size().map(|()| Some(piece));
            }
            self.after_member(coding).await?;
            // Lets other tasks run even if the members are empty.
            tokio::task::yield_now().await;
        }
    }

    /// Reads the compressed bytes to their end and returns their SHA-256 in hex.
    pub async fn finish(self) -> Result<String, ReadError> {
        let input = self.stream.into_input();
        let at = input.taken();
        input.finish().await.map_err(|error| read_error(error, at))
    }

    async fn piece(&mut self) -> io::Result<Bytes> {
        let (buffer, piece_bytes) = (&mut self.buffer, self.limits.piece_bytes);
        match &mut self.stream {
            Stream::Plain(input) => Ok(input.next().await?.unwrap_or_default()),
            Stream::Gzip(decoder) => decompress(decoder.as_mut(), buffer, piece_bytes).await,
            Stream::Zlib(decoder) => decompress(decoder.as_mut(), buffer, piece_bytes).await,
            Stream::Deflate(decoder) => decompress(decoder.as_mut(), buffer, piece_bytes).await,
            Stream::Zstd(decoder) => decompress(decoder.as_mut(), buffer, piece_bytes).await,
            Stream::Brotli(decoder) => decompress(decoder.as_mut(), buffer, piece_bytes).await,
        }
    }

    /// Continues after a complete member with the next one, or ends after padding.
    async fn after_member(&mut self, coding: Coding) -> Result<(), ReadError> {
        let nothing = Input::new(stream::empty().boxed(), 1);
        let mut input = std::mem::replace(&mut self.stream, Stream::Plain(nothing)).into_input();
        let at = input.consumed();
        let is_member = next_is_member(&mut input, coding).await.map_err(|error| read_error(error, at))?;
        self.stream = match is_member {
            None => Stream::Plain(input),
            Some(true) => Stream::decode(coding, input).await.map_err(|error| read_error(error, at))?,
            Some(false) => {
                while input.next().await.map_err(|error| read_error(error, at))?.is_some() {}
                return Err(ReadError::Trailing { coding, bytes: input.consumed() - at, at });
            }
        };
        Ok(())
    }

    fn check_size(&self) -> Result<(), ReadError> {
        let limits = self.limits;
        if self.bytes > limits.decompressed_bytes_max {
            return Err(ReadError::Expands(format!("{} bytes", limits.decompressed_bytes_max)));
        }
        let taken = self.stream.input().taken();
        if self.bytes > RATIO_GRACE_BYTES.max(taken.saturating_mul(limits.expansion_max)) {
            return Err(ReadError::Expands(format!("{} times its size", limits.expansion_max)));
        }
        Ok(())
    }

    /// Maps a failure of the decoder.
    fn decoder_error(&mut self, error: io::Error) -> ReadError {
        let at = self.stream.input().taken();
        // flate2 reports truncated deflate data as `ErrorKind::Other`.
        let is_cut = self.stream.coding() == Some(Coding::Deflate) && error.kind() == io::ErrorKind::Other;
        let error = match read_error(error, at) {
            ReadError::Corrupt { at, .. } if is_cut => ReadError::CutShort(at),
            other => other,
        };
        match error {
            ReadError::CutShort(_) | ReadError::Corrupt { .. }
                if let Some(declared) = self.coding
                    && let Some(actual) = self.starts_like.take() =>
            {
                ReadError::NotAsDeclared { declared, actual }
            }
            other => other,
        }
    }
}

/// Returns whether another member follows, or `None` at the end. Zeros, which archivers that write in blocks append, and line
/// ends, which editors append, are padding.
async fn next_is_member(input: &mut Input, coding: Coding) -> io::Result<Option<bool>> {
    input.skip(|byte| byte == 0 || byte.is_ascii_whitespace()).await?;
    let next = input.peek(4).await?;
    Ok((!next.is_empty()).then(|| Coding::of_body(next) == Some(coding)))
}

impl Stream {
    async fn decode(coding: Coding, mut input: Input) -> io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => Self::Gzip(Box::new(GzipDecoder::new(input))),
            Coding::Zstd => {
                let window = DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX);
                Self::Zstd(Box::new(ZstdDecoder::with_params(input, &[window])))
            }
            Coding::Brotli => Self::Brotli(Box::new(BrotliDecoder::new(input))),
            Coding::Deflate if is_zlib(input.peek(2).await?) => Self::Zlib(Box::new(ZlibDecoder::new(input))),
            Coding::Deflate => Self::Deflate(Box::new(DeflateDecoder::new(input))),
        })
    }

    fn coding(&self) -> Option<Coding> {
        match self {
            Self::Plain(_) => None,
            Self::Gzip(_) => Some(Coding::Gzip),
            Self::Zlib(_) | Self::Deflate(_) => Some(Coding::Deflate),
            Self::Zstd(_) => Some(Coding::Zstd),
            Self::Brotli(_) => Some(Coding::Brotli),
        }
    }

    fn input(&self) -> &Input {
        match self {
            Self::Plain(input) => input,
            Self::Gzip(decoder) => decoder.get_ref(),
            Self::Zlib(decoder) => decoder.get_ref(),
            Self::Deflate(decoder) => decoder.get_ref(),
            Self::Zstd(decoder) => decoder.get_ref(),
            Self::Brotli(decoder) => decoder.get_ref(),
        }
    }

    fn into_input(self) -> Input {
        match self {
            Self::Plain(input) => input,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zlib(decoder) => decoder.into_inner(),
            Self::Deflate(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.into_inner(),
            Self::Brotli(decoder) => decoder.into_inner(),
        }
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
