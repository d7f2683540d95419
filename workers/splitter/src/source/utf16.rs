//! Transcodes UTF-16 to UTF-8, piece by piece.

use super::format::Endian;
use bytes::Bytes;

/// Why a document is invalid UTF-16, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidUtf16 {
    /// Half of a surrogate pair without the other half.
    #[error(
        "the document is UTF-16 by its byte order mark, but has half a surrogate pair at byte {at} (line {line}); write it again, \
         preferably as UTF-8"
    )]
    Unpaired {
        /// Offset in the decompressed document, bytes.
        at: u64,
        /// Line number from 1.
        line: u64,
    },
    /// An odd number of bytes.
    #[error(
        "the document is UTF-16 by its byte order mark, but ends in the middle of a character, after byte {0}; it was cut short"
    )]
    CutShort(u64),
}

/// A transcoder of a document that arrives in pieces. The byte order mark becomes one in UTF-8.
#[derive(Debug)]
pub(super) struct Utf16 {
    endian: Endian,
    /// The first byte of a unit whose second byte has not arrived.
    half: Option<u8>,
    /// The first half of a surrogate pair.
    high: Option<u16>,
    /// Number of bytes transcoded.
    at: u64,
    line: u64,
}

impl Utf16 {
    pub fn new(endian: Endian) -> Self {
        Self { endian, half: None, high: None, at: 0, line: 1 }
    }

    /// Returns the piece as UTF-8, at most one and a half times as long.
    pub fn transcode(&mut self, piece: &[u8]) -> Result<Bytes, InvalidUtf16> {
        let mut text = String::with_capacity(piece.len() / 2 + 4);
        for byte in piece {
            let Some(first) = self.half.take() else {
                self.half = Some(*byte);
                continue;
            };
            let unit = match self.endian {
                Endian::Little => u16::from_le_bytes([first, *byte]),
                Endian::Big => u16::from_be_bytes([first, *byte]),
            };
            let pair = self.high.take();
            if let Some(c) = self.character(pair, unit)? {
                self.line += u64::from(c == '\n');
                text.push(c);
            }
            self.at += 2;
        }
        Ok(Bytes::from(text))
    }

    fn character(&mut self, high: Option<u16>, unit: u16) -> Result<Option<char>, InvalidUtf16> {
        let unpaired = |at| InvalidUtf16::Unpaired { at, line: self.line };
        match (high, unit) {
            (None, 0xD800..=0xDBFF) => {
                self.high = Some(unit);
                Ok(None)
            }
            (None, _) => char::from_u32(u32::from(unit)).map(Some).ok_or_else(|| unpaired(self.at)),
            (Some(high), _) => {
                let whole = char::decode_utf16([high, unit]).next();
                whole.and_then(Result::ok).map(Some).ok_or_else(|| unpaired(self.at.saturating_sub(2)))
            }
        }
    }

    /// Checks that nothing is left over at the end of the document.
    pub fn end(&self) -> Result<(), InvalidUtf16> {
        match (self.half, self.high) {
            (None, None) => Ok(()),
            (None, Some(_)) => Err(InvalidUtf16::Unpaired { at: self.at.saturating_sub(2), line: self.line }),
            (Some(_), _) => Err(InvalidUtf16::CutShort(self.at + 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(units: impl IntoIterator<Item = u16>, endian: Endian) -> Vec<u8> {
        let two = |unit: u16| match endian {
            Endian::Little => unit.to_le_bytes(),
            Endian::Big => unit.to_be_bytes(),
        };
        units.into_iter().flat_map(two).collect()
    }

    fn read(bytes: &[u8], endian: Endian, piece: usize) -> Result<Vec<u8>, InvalidUtf16> {
        let mut utf16 = Utf16::new(endian);
        let mut text = Vec::new();
        for piece in bytes.chunks(piece) {
            text.extend(utf16.transcode(piece)?);
        }
        utf16.end().map(|()| text)
    }

    #[test]
    fn an_unpaired_surrogate_is_refused_with_its_position() {
        let (line, high, low) = (u16::from(b'\n'), 0xD83E, 0xDD84);
        for (units, at) in [
            (&[line, high][..], 2),
            (&[line, low], 2),
            (&[line, high, u16::from(b'a')], 2),
            (&[line, high, high, low], 2),
            (&[line, high, low, low], 6),
        ] {
            for endian in [Endian::Little, Endian::Big] {
                for piece in 1..9 {
                    let result = read(&bytes(units.iter().copied(), endian), endian, piece);
                    assert_eq!(result, Err(InvalidUtf16::Unpaired { at, line: 2 }), "{units:x?}");
                }
            }
        }
        assert_eq!(read(b"a\0b", Endian::Little, 2), Err(InvalidUtf16::CutShort(3)));
    }

    proptest! {
        #[test]
        fn every_text_round_trips_in_any_pieces(text in any::<String>(), piece in 1..9usize) {
            for endian in [Endian::Little, Endian::Big] {
                let read = read(&bytes(text.encode_utf16(), endian), endian, piece);
                prop_assert_eq!(read.as_deref(), Ok(text.as_bytes()));
            }
        }

        #[test]
        fn no_bytes_panic_and_pieces_do_not_matter(bytes in prop::collection::vec(any::<u8>(), 0..40), piece in 1..9usize) {
            let whole = read(&bytes, Endian::Little, usize::MAX);
            prop_assert_eq!(read(&bytes, Endian::Little, piece), whole.clone());
            if let Ok(text) = whole {
                prop_assert!(std::str::from_utf8(&text).is_ok());
            }
        }
    }
}
