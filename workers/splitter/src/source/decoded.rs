//! The decompressed bytes with look-ahead; UTF-16 becomes UTF-8.

use super::{
    compressed::{CompressionHints, Decompressed},
    error::ReadError,
    format::Endian,
    input::Input,
    limits::{HEAD_BYTES, Limits},
    utf16::Utf16,
};
use bytes::Bytes;
use common::coding::Coding;
use std::collections::VecDeque;

/// A reader of the bytes of a document.
pub(super) struct Decoded {
    source: Decompressed,
    /// Pieces of the look-ahead, before transcoding.
    ahead: VecDeque<Bytes>,
    utf16: Option<Utf16>,
    /// Pieces of the look-ahead, after transcoding.
    transcoded: VecDeque<Bytes>,
}

impl Decoded {
    pub async fn open(input: Input, hints: CompressionHints, limits: Limits) -> Result<Self, ReadError> {
        let source = Decompressed::open(input, hints, limits).await?;
        Ok(Self { source, ahead: VecDeque::new(), utf16: None, transcoded: VecDeque::new() })
    }

    /// Returns the compression of the bytes.
    pub fn coding(&self) -> Option<Coding> {
        self.source.coding()
    }

    /// Returns the first [`HEAD_BYTES`] of the document, or all of it; [`Decoded::next`] returns them again. Only valid before
    /// the first call of `next`.
    pub async fn head(&mut self) -> Result<Vec<u8>, ReadError> {
        let mut head = Vec::new();
        let mut pieces = VecDeque::new();
        while head.len() < HEAD_BYTES
            && let Some(piece) = self.next().await?
        {
            head.extend(piece.iter().take(HEAD_BYTES - head.len()));
            pieces.push_back(piece);
        }
        match self.utf16 {
            None => self.ahead = pieces,
            Some(_) => self.transcoded = pieces,
        }
        Ok(head)
    }

    /// Transcodes the document from UTF-16 to UTF-8, from its first byte on.
    pub fn transcode(&mut self, endian: Endian) {
        self.utf16 = Some(Utf16::new(endian));
    }

    /// Returns the next piece, which is never empty; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        loop {
            if let Some(piece) = self.transcoded.pop_front() {
                return Ok(Some(piece));
            }
            let piece = match self.ahead.pop_front() {
                Some(piece) => Some(piece),
                None => self.source.next().await?,
            };
            let Some(utf16) = &mut self.utf16 else { return Ok(piece) };
            match piece {
                None => return utf16.end().map(|()| None).map_err(ReadError::from),
                Some(piece) => {
                    let text = utf16.transcode(&piece)?;
                    if !text.is_empty() {
                        return Ok(Some(text));
                    }
                }
            }
        }
    }

    /// Reads to the end and returns the SHA-256 of the raw bytes, in hex.
    pub async fn finish(self) -> Result<String, ReadError> {
        self.source.finish().await
    }
}
