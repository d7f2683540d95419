//! Decompresses small bodies in memory, up to a maximum size: requests over HTTP and RPC. The splitter decompresses
//! batches of any size as a stream.

use async_compression::{
    tokio::bufread::{BrotliDecoder, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder},
    zstd::DParameter,
};
use common::coding::Coding;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, ReadBuf};

/// Size in bytes to which a body may always expand, whatever its compressed size.
const FREE_BYTES: usize = 2 << 20;
/// Maximum ratio of decompressed to compressed size beyond [`FREE_BYTES`]. The maximum of Deflate is 1,032.
const EXPANSION_MAX: usize = 1_000;
/// Maximum window of a zstd frame, as a power of two: 8 MiB, the limit of RFC 9659 for HTTP.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Number of bytes to decompress before yielding to other tasks.
const PIECE_BYTES: usize = 64 << 10;

/// Why a body cannot be decompressed.
#[derive(Debug, thiserror::Error)]
pub enum BadCompression {
    /// The body is not compressed as declared.
    #[error("declared as {coding}, but the body starts like {actual}")]
    Other {
        /// The declared compression.
        coding: Coding,
        /// Format that the first bytes suggest.
        actual: String,
    },
    /// The stream is incomplete, or a checksum is wrong.
    #[error("the {coding} stream is broken: {why}")]
    Broken {
        /// The declared compression.
        coding: Coding,
        /// The decoder's error.
        why: std::io::Error,
    },
    /// Bytes follow that are neither padding nor another member.
    #[error("{bytes} bytes follow after a complete {coding} stream")]
    Trailing {
        /// The declared compression.
        coding: Coding,
        /// Number of bytes after the stream.
        bytes: usize,
    },
    /// The decompressed body exceeds the limit.
    #[error("the body is larger than {bytes_max} bytes when decompressed")]
    TooLarge {
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// The body expands to an implausible size.
    #[error("the body expands to more than {EXPANSION_MAX} times its {bytes} compressed bytes")]
    Expands {
        /// Compressed size of the body in bytes.
        bytes: usize,
    },
}

/// Names the format that the first bytes of a body suggest.
pub fn starts_like(body: &[u8]) -> String {
    let text = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body).trim_ascii_start();
    match (Coding::of_body(body), text) {
        (Some(coding), _) => coding.to_string(),
        (None, []) => "an empty document".to_owned(),
        (None, [b'{' | b'[' | b'"', ..]) => "JSON".to_owned(),
        (None, _) => {
            let first: Vec<String> = body.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
            format!("an unknown format (first bytes {})", first.join(" "))
        }
    }
}

/// Decompresses a whole body with all its members or frames. Zeros and white space after the last one
/// are ignored as padding.
///
/// `bytes_max` limits the decompressed size. Before the buffer grows, the function calls `make_room` with the new size
/// of the buffer in bytes; an error from it ends the decompression.
///
/// # Errors
/// Fails if the body is invalid or too large, or if `make_room` refuses.
pub async fn decompress<E: From<BadCompression>>(
    body: &[u8],
    coding: Coding,
    bytes_max: usize,
    make_room: impl FnMut(usize) -> Result<(), E> + Send,
) -> Result<Vec<u8>, E> {
    let is_marked = matches!(coding, Coding::Gzip | Coding::Zstd);
    if is_marked && Coding::of_body(body) != Some(coding) {
        return Err(BadCompression::Other { coding, actual: starts_like(body) }.into());
    }
    let mut sink = Sink { bytes: Vec::new(), bytes_max, compressed: body.len(), make_room };
    let mut rest = body;
    loop {
        let read = match coding {
            Coding::Gzip => sink.fill(GzipDecoder::new(&mut rest)).await,
            Coding::Deflate if is_zlib(rest) => sink.fill(ZlibDecoder::new(&mut rest)).await,
            Coding::Deflate => sink.fill(DeflateDecoder::new(&mut rest)).await,
            Coding::Zstd => {
                let window = DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX);
                sink.fill(ZstdDecoder::with_params(&mut rest, &[window])).await
            }
            Coding::Brotli => sink.fill(BrotliDecoder::new(&mut rest)).await,
        };
        match read {
            Ok(()) => {}
            Err(Stopped::Refused(refused)) => return Err(refused),
            Err(Stopped::Broken(_)) if !is_marked && starts_like(body) == "JSON" => {
                return Err(BadCompression::Other { coding, actual: starts_like(body) }.into());
            }
            Err(Stopped::Broken(why)) => return Err(BadCompression::Broken { coding, why }.into()),
        }
        if rest.iter().all(|byte| *byte == 0 || byte.is_ascii_whitespace()) {
            return Ok(sink.bytes);
        }
        if !is_marked || Coding::of_body(rest) != Some(coding) {
            return Err(BadCompression::Trailing { coding, bytes: rest.len() }.into());
        }
    }
}

/// Implements [`AsyncRead::poll_read`] for a buffered reader: copies the bytes of its buffer.
pub fn poll_read_buffered<R: AsyncBufRead>(
    mut reader: Pin<&mut R>,
    context: &mut Context<'_>,
    target: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let buffer = ready!(reader.as_mut().poll_fill_buf(context))?;
    let length = buffer.len().min(target.remaining());
    target.put_slice(buffer.get(..length).unwrap_or_default());
    reader.consume(length);
    Poll::Ready(Ok(()))
}

/// Returns whether a stream begins with a zlib header (RFC 1950).
pub fn is_zlib(body: &[u8]) -> bool {
    match body {
        [method, flags, ..] => method & 0x0F == 8 && u16::from_be_bytes([*method, *flags]) % 31 == 0,
        _ => false,
    }
}

/// Why decompression stopped early.
enum Stopped<E> {
    Refused(E),
    Broken(std::io::Error),
}

/// The decompressed bytes so far, and their limits.
struct Sink<R> {
    bytes: Vec<u8>,
    bytes_max: usize,
    /// Size of the compressed body in bytes.
    compressed: usize,
    make_room: R,
}

impl<E: From<BadCompression>, R: FnMut(usize) -> Result<(), E>> Sink<R> {
    async fn fill(&mut self, mut decoder: impl AsyncRead + Unpin) -> Result<(), Stopped<E>> {
        loop {
            if self.bytes.len() == self.bytes.capacity() {
                // One byte beyond the limit, to distinguish a body that is too large from one that just fits.
                let capacity = (self.bytes.capacity() * 2).max(8 << 10).min(self.bytes_max.saturating_add(1));
                (self.make_room)(capacity).map_err(Stopped::Refused)?;
                self.bytes.reserve_exact(capacity - self.bytes.len());
            }
            let room = (self.bytes.capacity() - self.bytes.len()).min(PIECE_BYTES);
            let read = (&mut decoder).take(room as u64).read_buf(&mut self.bytes).await.map_err(Stopped::Broken)?;
            if read == 0 {
                return Ok(());
            }
            let bytes = self.bytes.len();
            if bytes > self.bytes_max {
                return Err(Stopped::Refused(BadCompression::TooLarge { bytes_max: self.bytes_max }.into()));
            }
            if bytes > FREE_BYTES && bytes / EXPANSION_MAX >= self.compressed {
                return Err(Stopped::Refused(BadCompression::Expands { bytes: self.compressed }.into()));
            }
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_compression::tokio::bufread::{BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
    use proptest::prelude::*;

    async fn all_of(mut reader: impl AsyncRead + Unpin) -> Vec<u8> {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).await.unwrap();
        bytes
    }

    async fn compressed(text: &[u8], coding: Coding) -> Vec<u8> {
        match coding {
            Coding::Gzip => all_of(GzipEncoder::new(text)).await,
            Coding::Deflate => all_of(ZlibEncoder::new(text)).await,
            Coding::Zstd => all_of(ZstdEncoder::new(text)).await,
            Coding::Brotli => all_of(BrotliEncoder::new(text)).await,
        }
    }

    async fn read(body: &[u8], coding: Coding, bytes_max: usize) -> Result<Vec<u8>, BadCompression> {
        decompress(body, coding, bytes_max, |_| Ok::<_, BadCompression>(())).await
    }

    const ALL: [Coding; 4] = [Coding::Gzip, Coding::Deflate, Coding::Zstd, Coding::Brotli];

    #[tokio::test]
    async fn raw_deflate_and_padding_are_accepted() {
        let text = br#"{"distance": 30}"#;
        assert_eq!(read(&all_of(DeflateEncoder::new(&text[..])).await, Coding::Deflate, 100).await.unwrap(), text);
        for coding in ALL {
            for padding in [&b"\n"[..], b"\r\n", &[0; 512]] {
                let body = [&compressed(text, coding).await[..], padding].concat();
                assert_eq!(read(&body, coding, 100).await.unwrap(), text, "{coding} {padding:?}");
            }
            let body = [&compressed(text, coding).await[..], b"more"].concat();
            let why = read(&body, coding, 100).await.unwrap_err().to_string();
            assert!(why.contains("4 bytes follow"), "{coding}: {why}");
        }
        for coding in [Coding::Gzip, Coding::Zstd] {
            let two = [compressed(b"{\"distance\":", coding).await, compressed(b" 30}", coding).await].concat();
            assert_eq!(read(&two, coding, 100).await.unwrap(), text, "{coding}: members follow each other");
        }
    }

    #[tokio::test]
    async fn a_body_not_compressed_as_declared_is_refused_with_its_format() {
        for coding in ALL {
            for (body, format) in [(&br#"{"distance": 30}"#[..], "JSON"), (b" [1]", "JSON")] {
                let why = read(body, coding, 100).await.unwrap_err().to_string();
                assert!(why.contains(&format!("starts like {format}")), "{coding}: {why}");
            }
        }
        let why = read(&compressed(b"{}", Coding::Zstd).await, Coding::Gzip, 100).await.unwrap_err().to_string();
        assert_eq!(why, "declared as gzip, but the body starts like zstd");
        for coding in ALL {
            let text: Vec<u8> = (0..2_000u32).flat_map(|number| number.to_string().into_bytes()).collect();
            let body = compressed(&text, coding).await;
            let why = read(&body[..body.len() / 2], coding, 1 << 20).await.unwrap_err();
            assert!(matches!(why, BadCompression::Broken { .. }), "{coding}: {why}");
        }
    }

    /// A body may have exactly the maximum size. A body that expands too much is refused early. A refusal of
    /// `make_room` is returned.
    #[tokio::test]
    async fn a_body_stays_within_its_bounds() {
        for coding in ALL {
            let noise: Vec<u8> =
                (0..20_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            let body = compressed(&noise, coding).await;
            assert_eq!(read(&body, coding, noise.len()).await.unwrap(), noise);
            let why = read(&body, coding, noise.len() - 1).await.unwrap_err();
            assert!(matches!(why, BadCompression::TooLarge { bytes_max: 19_999 }), "{coding}: {why}");
            let mut requested = 0;
            let refused = decompress(&body, coding, 1 << 20, |bytes| {
                requested = bytes;
                if bytes > 10_000 { Err(BadCompression::Expands { bytes: 7 }) } else { Ok(()) }
            });
            assert!(matches!(refused.await, Err(BadCompression::Expands { bytes: 7 })), "{coding}");
            assert!(requested > 10_000);
        }
        let zeros = vec![0; 64 << 20];
        for coding in [Coding::Zstd, Coding::Brotli] {
            let why = read(&compressed(&zeros, coding).await, coding, 64 << 20).await.unwrap_err();
            assert!(matches!(why, BadCompression::Expands { .. }), "{coding}: {why}");
        }
    }

    proptest! {
        #[test]
        fn compressed_bytes_read_back_and_no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..3_000)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for coding in ALL {
                let back = runtime.block_on(async { read(&compressed(&bytes, coding).await, coding, 3_000).await });
                prop_assert_eq!(back.unwrap(), bytes.clone());
                let _ = runtime.block_on(read(&bytes, coding, 3_000));
            }
        }
    }
}
