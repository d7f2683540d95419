//! Decompresses gzip data with several members and with padding after them.

use async_compression::tokio::bufread::GzipDecoder;
use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, stream};
use runtime::compression::poll_read_buffered;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, ReadBuf};

/// Number of bytes read, and decompressed, at a time.
pub const READ_BYTES: usize = 64 * 1024;
/// Maximum number of members of a text. Programs that compress in blocks write one member for 64 KiB.
const MEMBERS_MAX: u32 = 16_384;
const MARK: &[u8] = &[0x1f, 0x8b];

/// Damaged gzip data. Any other error of [`gunzip`] comes from its input.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Damaged(String);

fn damaged(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Damaged(why))
}

/// Returns whether the compressed data is at fault, and not the connection or the file that it came from.
pub fn is_damage(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|source| source.is::<Damaged>())
}

/// A reader that can look ahead.
#[derive(Debug)]
pub struct Input<R> {
    body: R,
    buffer: BytesMut,
    /// Whether reading failed. Then the compressed data is not at fault.
    failed: bool,
}

impl<R: AsyncRead + Unpin> Input<R> {
    /// Reads `body` from its current position.
    pub fn new(body: R) -> Self {
        Self { body, buffer: BytesMut::new(), failed: false }
    }

    /// Returns whether the next bytes start a gzip member.
    ///
    /// # Errors
    /// Fails if the bytes cannot be read.
    pub async fn is_gzip(&mut self) -> io::Result<bool> {
        while self.buffer.len() < MARK.len() {
            self.buffer.reserve(READ_BYTES);
            if self.body.read_buf(&mut self.buffer).await? == 0 {
                break;
            }
        }
        Ok(self.buffer.starts_with(MARK))
    }

    /// Skips zeros, which archivers that write in blocks append, and white space. Returns whether bytes are left.
    async fn skip_padding(&mut self) -> io::Result<bool> {
        loop {
            let bytes = self.fill_buf().await?;
            let length = bytes.len();
            let padding = bytes.iter().take_while(|byte| is_padding(**byte)).count();
            self.consume(padding);
            if padding < length || length == 0 {
                return Ok(length > 0);
            }
        }
    }

    /// Reads the rest and returns its length in bytes.
    async fn drain(&mut self) -> io::Result<u64> {
        let mut count = 0;
        loop {
            let length = self.fill_buf().await?.len();
            if length == 0 {
                return Ok(count);
            }
            self.consume(length);
            count += length as u64;
        }
    }
}

/// Returns whether a byte is padding: a zero or white space.
pub fn is_padding(byte: u8) -> bool {
    byte == 0 || byte.is_ascii_whitespace()
}

impl<R: AsyncRead + Unpin> AsyncBufRead for Input<R> {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let input = self.get_mut();
        if input.buffer.is_empty() {
            input.buffer.reserve(READ_BYTES);
            let read = tokio_util::io::poll_read_buf(Pin::new(&mut input.body), context, &mut input.buffer);
            if let Err(error) = ready!(read) {
                input.failed = true;
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(&input.buffer))
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        self.buffer.advance(amount);
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Input<R> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, target: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        poll_read_buffered(self, context, target)
    }
}

/// Returns the decompressed bytes of all members of `input`. Zeros and white space after a member are padding.
///
/// If the data is damaged, cut short or followed by other bytes, an item is an error for which [`is_damage`] holds. Any other
/// error comes from `input`.
pub fn gunzip<R: AsyncRead + Unpin>(input: Input<R>) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((Some(GzipDecoder::new(input)), 1u32), |(mut decoder, mut members)| async move {
        loop {
            let Some(mut member) = decoder.take() else { return Ok(None) };
            let mut buffer = BytesMut::with_capacity(READ_BYTES);
            match member.read_buf(&mut buffer).await {
                Ok(0) => {}
                Ok(_) => return Ok(Some((buffer.freeze(), (Some(member), members)))),
                Err(error) if member.get_ref().failed => return Err(error),
                Err(error) => {
                    return Err(damaged(format!("the gzip data is damaged or cut short ({error})")));
                }
            }
            let mut input = member.into_inner();
            if !input.skip_padding().await? {
                return Ok(None);
            }
            if !input.is_gzip().await? {
                let bytes = input.drain().await?;
                let why = format!("{bytes} bytes that are not gzip data follow the gzip data: compress the text again");
                return Err(damaged(why));
            }
            members += 1;
            if members > MEMBERS_MAX {
                return Err(damaged(format!("the gzip data has more than {MEMBERS_MAX} members")));
            }
            decoder = Some(GzipDecoder::new(input));
            // Lets other tasks run even if the members are empty.
            tokio::task::yield_now().await;
        }
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use futures::{StreamExt, TryStreamExt};

    pub(crate) async fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        async_compression::tokio::bufread::GzipEncoder::new(plain).read_to_end(&mut packed).await.unwrap();
        packed
    }

    async fn unpacked(packed: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
        let pieces: Vec<Bytes> = std::pin::pin!(gunzip(Input::new(packed))).try_collect().await?;
        Ok(pieces.concat())
    }

    #[tokio::test]
    async fn padding_after_a_member_is_skipped_and_members_are_concatenated() {
        let (one, two) = (gzip(b"one\n").await, gzip(b"two\n").await);
        for padding in [&b""[..], b"\n", b"\r\n", b" \t\n", &[0; 512], &[0; 200_000]] {
            let packed = [&one, padding, &two, padding].concat();
            // Also byte by byte: the magic number of a member may arrive in two pieces.
            let bytes = tokio_util::io::StreamReader::new(stream::iter(packed.chunks(1).map(io::Result::Ok)));
            assert_eq!(unpacked(bytes).await.unwrap(), b"one\ntwo\n", "{} bytes", padding.len());
            assert_eq!(unpacked(packed.as_slice()).await.unwrap(), b"one\ntwo\n", "{} bytes", padding.len());
        }
    }

    #[tokio::test]
    async fn other_bytes_after_a_member_and_damage_are_reported() {
        let packed = gzip(&[b'x'; 5000]).await;
        for (tail, part) in [
            (&b"more"[..], "4 bytes that are not gzip data follow"),
            (b"\0\0\n\x1fmore", "5 bytes that"),
            (b"\x1f\x8bmore", "damaged or cut short"),
        ] {
            let error = unpacked([&packed, tail].concat().as_slice()).await.unwrap_err();
            assert!(is_damage(&error) && error.to_string().contains(part), "{error}");
        }
        for end in [1, 12, packed.len() - 5] {
            let error = unpacked(&packed[..end]).await.unwrap_err();
            assert!(is_damage(&error) && error.to_string().contains("cut short"), "{end}: {error}");
        }
        let endless = gzip(b"").await.repeat(MEMBERS_MAX as usize + 1);
        assert!(unpacked(endless.as_slice()).await.unwrap_err().to_string().contains("16384 members"));
    }

    #[tokio::test]
    async fn an_error_of_the_input_does_not_count_as_damage() {
        let packed = gzip(b"one\n").await;
        for end in [5, packed.len()] {
            let reset = Err(io::Error::from(io::ErrorKind::ConnectionReset));
            let pieces = stream::iter([Ok(Bytes::copy_from_slice(&packed[..end])), reset]).boxed();
            let error = unpacked(tokio_util::io::StreamReader::new(pieces)).await.unwrap_err();
            assert!(!is_damage(&error) && error.kind() == io::ErrorKind::ConnectionReset, "{error}");
        }
    }
}
