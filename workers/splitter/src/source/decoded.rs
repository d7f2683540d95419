//! The decompressed bytes with a look ahead, as UTF-8 where they were UTF-16.

use super::{
    HEAD_BYTES, Limits, ReadError,
    compressed::{Decompressed, Stated},
    format::Endian,
    input::Input,
    utf16::Utf16,
};
use bytes::Bytes;
use common::coding::Coding;
use std::collections::VecDeque;

/// The bytes of a document.
pub(super) struct Decoded {
    source: Decompressed,
    /// Pieces that were looked at, before transcoding.
    ahead: VecDeque<Bytes>,
    utf16: Option<Utf16>,
    /// Pieces that were looked at, after transcoding.
    transcoded: VecDeque<Bytes>,
}

impl Decoded {
    pub async fn open(input: Input, stated: Stated, limits: Limits) -> Result<Self, ReadError> {
        let source = Decompressed::open(input, stated, limits).await?;
        Ok(Self { source, ahead: VecDeque::new(), utf16: None, transcoded: VecDeque::new() })
    }

    /// How the bytes were compressed.
    pub fn coding(&self) -> Option<Coding> {
        self.source.coding()
    }

    /// The first [`HEAD_BYTES`] of the document, or all of it, however it comes; they will come again. Before the first
    /// [`Decoded::next`].
    pub async fn head(&mut self) -> Result<Vec<u8>, ReadError> {
        let mut head = Vec::new();
        let mut seen = VecDeque::new();
        while head.len() < HEAD_BYTES
            && let Some(piece) = self.next().await?
        {
            head.extend(piece.iter().take(HEAD_BYTES - head.len()));
            seen.push_back(piece);
        }
        match self.utf16 {
            None => self.ahead = seen,
            Some(_) => self.transcoded = seen,
        }
        Ok(head)
    }

    /// The document is UTF-16: from its first byte on it is given as UTF-8.
    pub fn transcode(&mut self, endian: Endian) {
        self.utf16 = Some(Utf16::new(endian));
    }

    /// The next piece, not empty; `None` at the end.
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

    /// Pulls what is left; returns the SHA-256 of the bytes as they came, in hex.
    pub async fn finish(self) -> Result<String, ReadError> {
        self.source.finish().await
    }
}
