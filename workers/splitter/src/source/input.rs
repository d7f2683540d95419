//! The raw bytes of a batch, hashed, in pieces of bounded size.

use bytes::{Buf, Bytes, BytesMut};
use futures::{StreamExt, stream::BoxStream};
use runtime::compression::poll_read_buffered;
use sha2::{Digest, Sha256};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, ReadBuf};

/// A reader of the raw bytes of a batch.
pub(super) struct Input {
    pieces: BoxStream<'static, io::Result<Bytes>>,
    /// Received from the stream and not taken yet.
    stock: Bytes,
    /// Taken and not consumed yet.
    buffer: Bytes,
    piece_bytes: usize,
    sha256: Sha256,
    taken: u64,
}

impl Input {
    pub fn new(pieces: BoxStream<'static, io::Result<Bytes>>, piece_bytes: usize) -> Self {
        let (stock, buffer) = (Bytes::new(), Bytes::new());
        Self {
            pieces: pieces.fuse().boxed(),
            stock,
            buffer,
            piece_bytes: piece_bytes.max(1),
            sha256: Sha256::new(),
            taken: 0,
        }
    }

    /// Returns the number of bytes taken so far.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Returns the number of bytes consumed so far.
    pub fn consumed(&self) -> u64 {
        self.taken - self.buffer.len() as u64
    }

    /// Returns the next piece, which is never empty; `None` at the end.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        self.fill_buf().await?;
        let piece = std::mem::take(&mut self.buffer);
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// Returns the next `length` bytes without consuming them; fewer at the end.
    pub async fn peek(&mut self, length: usize) -> io::Result<&[u8]> {
        if self.buffer.len() < length {
            let mut start = BytesMut::from(&*std::mem::take(&mut self.buffer));
            while start.len() < length
                && let Some(piece) = self.next().await?
            {
                start.extend_from_slice(&piece);
            }
            self.buffer = start.freeze();
        }
        Ok(self.buffer.get(..length).unwrap_or(&self.buffer))
    }

    /// Skips bytes for which `is_padding` holds, and returns their number.
    pub async fn skip(&mut self, is_padding: impl Fn(u8) -> bool) -> io::Result<u64> {
        let mut skipped = 0;
        loop {
            let buffer = self.fill_buf().await?;
            let padding = buffer.iter().take_while(|byte| is_padding(**byte)).count();
            let is_over = padding < buffer.len() || buffer.is_empty();
            skipped += padding as u64;
            self.buffer.advance(padding);
            if is_over {
                return Ok(skipped);
            }
        }
    }

    /// Reads to the end and returns the SHA-256 of all bytes, in hex.
    pub async fn finish(mut self) -> io::Result<String> {
        while self.next().await?.is_some() {}
        Ok(hex::encode(self.sha256.finalize()))
    }
}

impl AsyncBufRead for Input {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let input = self.get_mut();
        while input.buffer.is_empty() {
            if input.stock.is_empty() {
                match ready!(input.pieces.poll_next_unpin(context)) {
                    Some(piece) => input.stock = piece?,
                    None => break,
                }
            }
            let length = input.stock.len().min(input.piece_bytes);
            input.buffer = input.stock.split_to(length);
            input.sha256.update(&input.buffer);
            input.taken += length as u64;
        }
        Poll::Ready(Ok(&input.buffer))
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        self.buffer.advance(amount);
    }
}

impl AsyncRead for Input {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, target: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        poll_read_buffered(self, context, target)
    }
}
