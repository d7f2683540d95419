//! Decompression: every member of a gzip file, every frame of zstd, and nothing after them but padding.

use super::{
    Limits, RATIO_GRACE_BYTES, ReadError,
    format::{self, Format},
    input::Input,
    read_error,
};
use async_compression::{
    tokio::bufread::{BrotliDecoder, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder},
    zstd::DParameter,
};
use bytes::{Bytes, BytesMut};
use common::coding::Coding;
use futures::{StreamExt, stream};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Largest window of a zstd frame, as a power of two: 32 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;
/// Bytes at the start by which the compression is recognised.
const START_BYTES: usize = 512;

/// What the message and the object's name say about the compression.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stated {
    /// What the publisher declares.
    pub declared: Option<Coding>,
    /// What the object's name says; it counts only where the bytes are neither text nor another known format.
    pub named: Option<Coding>,
}

/// The decompressed bytes of a batch.
pub(super) struct Decompressed {
    stream: Stream,
    coding: Option<Coding>,
    limits: Limits,
    buffer: BytesMut,
    /// Bytes decompressed so far.
    bytes: u64,
    /// What the bytes start like, if they may not be compressed at all.
    starts_like: Option<String>,
}

/// Where the bytes come from next.
enum Stream {
    Plain(Input),
    Gzip(Box<GzipDecoder<Input>>),
    Zlib(Box<ZlibDecoder<Input>>),
    Deflate(Box<DeflateDecoder<Input>>),
    Zstd(Box<ZstdDecoder<Input>>),
    Brotli(Box<BrotliDecoder<Input>>),
}

impl Decompressed {
    /// Starts at the first byte. If no compression is declared, the first bytes decide.
    pub async fn open(mut input: Input, stated: Stated, limits: Limits) -> Result<Self, ReadError> {
        let start = input.peek(START_BYTES).await.map_err(|error| read_error(error, 0))?;
        let by_mark = Coding::of_body(start);
        let is_marked = |coding| matches!(coding, Coding::Gzip | Coding::Zstd);
        let is_text = format::is_text(start);
        let is_known = is_text || format::recognise(start) != Format::Text;
        let coding = match stated.declared {
            // An empty body is an empty document, whatever compression was declared.
            Some(_) if start.is_empty() => None,
            Some(coding) if by_mark != Some(coding) && (is_marked(coding) || by_mark.is_some()) => {
                return Err(ReadError::NotAsDeclared { declared: coding, found: format::starts_like(start) });
            }
            Some(coding) => Some(coding),
            None => by_mark.or(stated.named.filter(|_| !is_known)),
        };
        let may_be_plain = is_text && coding.is_some_and(|coding| !is_marked(coding));
        let starts_like = may_be_plain.then(|| format::starts_like(start));
        let stream = match coding {
            None => Stream::Plain(input),
            Some(coding) => Stream::decode(coding, input).await.map_err(|error| read_error(error, 0))?,
        };
        Ok(Self { stream, coding, limits, buffer: BytesMut::new(), bytes: 0, starts_like })
    }

    /// How the bytes are compressed.
    pub fn coding(&self) -> Option<Coding> {
        self.coding
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        loop {
            let piece = match self.piece().await {
                Ok(piece) => piece,
                Err(error) => return Err(self.failed(error)),
            };
            let Some(coding) = self.stream.coding() else {
                return Ok((!piece.is_empty()).then_some(piece));
            };
            if !piece.is_empty() {
                self.bytes = self.bytes.saturating_add(piece.len() as u64);
                return self.bounded().map(|()| Some(piece));
            }
            self.after_member(coding).await?;
            // Lets other tasks run, however little each member holds.
            tokio::task::yield_now().await;
        }
    }

    /// Pulls what is left of the compressed bytes; returns their SHA-256 in hex.
    pub async fn finish(self) -> Result<String, ReadError> {
        let input = self.stream.into_input();
        let at = input.pulled();
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

    /// Goes on after a complete member: with another one, or, after padding, with the end.
    async fn after_member(&mut self, coding: Coding) -> Result<(), ReadError> {
        let nothing = Input::new(stream::empty().boxed(), 1);
        let mut input = std::mem::replace(&mut self.stream, Stream::Plain(nothing)).into_input();
        let at = input.consumed();
        let is_member = follows(&mut input, coding).await.map_err(|error| read_error(error, at))?;
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

    fn bounded(&self) -> Result<(), ReadError> {
        let limits = self.limits;
        if self.bytes > limits.decompressed_bytes_max {
            return Err(ReadError::Expands(format!("{} bytes", limits.decompressed_bytes_max)));
        }
        let pulled = self.stream.input().pulled();
        if self.bytes > RATIO_GRACE_BYTES.max(pulled.saturating_mul(limits.expansion_max)) {
            return Err(ReadError::Expands(format!("{} times its size", limits.expansion_max)));
        }
        Ok(())
    }

    /// What a failure of the decoder means.
    fn failed(&mut self, error: io::Error) -> ReadError {
        let at = self.stream.input().pulled();
        // For deflate, flate2 reports bytes that end too early as `ErrorKind::Other`.
        let is_cut = self.stream.coding() == Some(Coding::Deflate) && error.kind() == io::ErrorKind::Other;
        let error = match read_error(error, at) {
            ReadError::Corrupt { at, .. } if is_cut => ReadError::CutShort(at),
            other => other,
        };
        match error {
            ReadError::CutShort(_) | ReadError::Corrupt { .. }
                if let Some(declared) = self.coding
                    && let Some(found) = self.starts_like.take() =>
            {
                ReadError::NotAsDeclared { declared, found }
            }
            other => other,
        }
    }
}

/// Whether another member follows, or `None` at the end. Zeros, as archivers that write in blocks leave them, and line ends, as
/// editors leave them, are padding.
async fn follows(input: &mut Input, coding: Coding) -> io::Result<Option<bool>> {
    input.skip(|byte| byte == 0 || byte.is_ascii_whitespace()).await?;
    let following = input.peek(4).await?;
    Ok((!following.is_empty()).then(|| Coding::of_body(following) == Some(coding)))
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

/// Whether a stream begins with a header of RFC 1950.
fn is_zlib(start: &[u8]) -> bool {
    match start {
        [method, flags, ..] => method & 0x0F == 8 && u16::from_be_bytes([*method, *flags]) % 31 == 0,
        _ => false,
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
