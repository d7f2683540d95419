//! The part of Thrift's compact protocol that is needed to check the sizes that a Parquet file states, before a library
//! allocates them. <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>

/// Maximum nesting of structures.
const DEPTH_MAX: u32 = 32;

/// A cursor over the bytes of a structure, with the number of list elements still allowed.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    elements_left: usize,
}

/// The sizes in the header of a page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PageHeader {
    /// Size of the header itself, bytes.
    pub length: usize,
    /// Size of the decompressed page, bytes; the largest stated one.
    pub decompressed: u64,
    /// Size of the page in the file, bytes.
    pub compressed: u64,
    /// Number of values of a dictionary.
    pub dictionary_values: u64,
}

/// Returns the length of the structure at the beginning of `bytes`; `None` without a structure, or if it has more than
/// `elements_max` elements in lists, sets and maps.
pub(super) fn structure(bytes: &[u8], elements_max: usize) -> Option<usize> {
    let mut walk = Walk { bytes, at: 0, elements_left: elements_max };
    walk.fields(DEPTH_MAX, |walk, _, kind| walk.value(kind, DEPTH_MAX))?;
    Some(walk.at)
}

/// Parses the page header at the beginning of `bytes` (`PageHeader` in parquet.thrift).
pub(super) fn page_header(bytes: &[u8]) -> Option<PageHeader> {
    let mut walk = Walk { bytes, at: 0, elements_left: 64 };
    let mut header = PageHeader::default();
    walk.fields(DEPTH_MAX, |walk, id, kind| {
        match (id, kind) {
            (2, 5) => header.decompressed = header.decompressed.max(walk.size()?),
            (3, 5) => header.compressed = header.compressed.max(walk.size()?),
            (7, 12) => walk.fields(DEPTH_MAX, |walk, id, kind| {
                match (id, kind) {
                    (1, 5) => header.dictionary_values = header.dictionary_values.max(walk.size()?),
                    _ => walk.value(kind, DEPTH_MAX)?,
                }
                Some(())
            })?,
            _ => walk.value(kind, DEPTH_MAX)?,
        }
        Some(())
    })?;
    header.length = walk.at;
    Some(header)
}

impl Walk<'_> {
    /// Calls `field` for each field of a structure, with its id and the type of its value.
    fn fields(&mut self, depth: u32, mut field: impl FnMut(&mut Self, i64, u8) -> Option<()>) -> Option<()> {
        depth.checked_sub(1)?;
        let mut id = 0i64;
        loop {
            let byte = self.byte()?;
            if byte == 0 {
                return Some(());
            }
            id = match byte >> 4 {
                0 => self.signed()?,
                delta => id.checked_add(i64::from(delta))?,
            };
            field(self, id, byte & 0x0F)?;
        }
    }

    /// Skips a value.
    fn value(&mut self, kind: u8, depth: u32) -> Option<()> {
        let deeper = depth.checked_sub(1)?;
        match kind {
            // A boolean has no bytes: its type is its value.
            1 | 2 => Some(()),
            3 => self.pass(1),
            4..=6 => self.varint().map(drop),
            7 => self.pass(8),
            8 => {
                let length = self.varint()?;
                self.pass(usize::try_from(length).ok()?)
            }
            9 | 10 => {
                let byte = self.byte()?;
                let size = match byte >> 4 {
                    15 => self.varint()?,
                    size => u64::from(size),
                };
                self.elements(size, &[byte & 0x0F], deeper)
            }
            11 => match self.varint()? {
                0 => Some(()),
                size => {
                    let kinds = self.byte()?;
                    self.elements(size, &[kinds >> 4, kinds & 0x0F], deeper)
                }
            },
            12 => self.fields(deeper, |walk, _, kind| walk.value(kind, deeper)),
            13 => self.pass(16),
            _ => None,
        }
    }

    /// Skips the elements of a list or the pairs of a map.
    fn elements(&mut self, size: u64, kinds: &[u8], depth: u32) -> Option<()> {
        self.elements_left = self.elements_left.checked_sub(usize::try_from(size).ok()?)?;
        for _ in 0..size {
            for kind in kinds {
                match kind {
                    1 | 2 => self.pass(1)?,
                    kind => self.value(*kind, depth)?,
                }
            }
        }
        Some(())
    }

    /// Reads a non-negative size of 32 bits.
    fn size(&mut self) -> Option<u64> {
        let size = self.signed()?;
        u64::try_from(size).ok().filter(|size| *size <= i32::MAX as u64)
    }

    fn signed(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn pass(&mut self, length: usize) -> Option<()> {
        self.at = self.at.checked_add(length).filter(|at| *at <= self.bytes.len())?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_page_header_is_parsed() {
        // type = 2 (dictionary), 300 bytes decompressed, 150 compressed, dictionary header {3 values, encoding 0}.
        let bytes = [0x15, 0x04, 0x15, 0xD8, 0x04, 0x15, 0xAC, 0x02, 0x4C, 0x15, 0x06, 0x15, 0x00, 0x00, 0x00, 0xFF];
        let header = PageHeader { length: 15, decompressed: 300, compressed: 150, dictionary_values: 3 };
        assert_eq!(page_header(&bytes), Some(header));
        for length in 0..15 {
            assert_eq!(page_header(&bytes[..length]), None, "{length}");
        }
        // A negative size.
        assert_eq!(page_header(&[0x25, 0x01, 0x00]), None);
    }

    #[test]
    fn a_list_with_too_many_elements_is_refused() {
        // Field 1: a list of 5 structures without fields.
        let bytes = [0x19, 0x5C, 0, 0, 0, 0, 0, 0];
        assert_eq!(structure(&bytes, 5), Some(8));
        assert_eq!(structure(&bytes, 4), None);
        // Of 2,000,000,000.
        assert_eq!(structure(&[0x19, 0xFC, 0x80, 0xA8, 0xD6, 0xB9, 0x07, 0, 0], 100_000), None);
        // A text longer than the bytes.
        assert_eq!(structure(&[0x18, 0xFF, 0xFF, 0x7F, 0], 10), None);
        // Structures within structures.
        assert_eq!(structure(&[0x1C; 10_000], 10), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(length) = structure(&bytes, 50) {
                prop_assert!(length <= bytes.len());
            }
            let _ = page_header(&bytes);
        }
    }
}
