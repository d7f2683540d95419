//! Checks the pages of a column before the library reads them, because it allocates the size that a header states.

use super::{
    error::InvalidParquet,
    spool::Spooled,
    thrift::{self, PageHeader},
};
use parquet::{
    basic::Encoding,
    column::page::{Page, PageMetadata, PageReader},
    errors::{ParquetError, Result},
    file::{metadata::ColumnChunkMetaData, reader::Length},
};

/// Size that most page headers fit into, bytes.
const HEADER_BYTES: usize = 1024;
/// Maximum size of a page header, bytes.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Memory of a dictionary value in addition to its text, bytes.
const DICTIONARY_VALUE_BYTES: u64 = 48;

/// Returns the maximum memory for reading a column, bytes: twice its largest page, and its dictionary.
pub(super) fn bytes_in_memory(file: &Spooled, chunk: &ColumnChunkMetaData) -> Result<u64, InvalidParquet> {
    let column = chunk.column_path().string();
    let broken = |why: &str| InvalidParquet::Broken(format!("column {column:?} {why}"));
    let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
    let (Ok(start), Ok(length)) = (u64::try_from(start), u64::try_from(chunk.compressed_size())) else {
        return Err(broken("is at a negative place"));
    };
    let end = start.checked_add(length).filter(|end| *end <= file.len());
    let end = end.ok_or_else(|| broken("ends beyond the file"))?;
    let (mut at, mut largest, mut dictionary) = (start, 0, 0);
    while at < end {
        let header = header(file, at).ok_or_else(|| broken(&format!("has no page header at byte {at}")))?;
        let PageHeader { length, decompressed, compressed, dictionary_values } = header;
        largest = largest.max(compressed + decompressed);
        if dictionary_values > 0 {
            dictionary = dictionary.max(decompressed + dictionary_values * DICTIONARY_VALUE_BYTES);
        }
        at += length as u64 + compressed;
    }
    Ok(largest + dictionary)
}

/// Reads the header at byte `at`, which is nearly always short.
fn header(file: &Spooled, at: u64) -> Option<PageHeader> {
    let within = |length| thrift::page_header(&file.read(at, length).ok()?);
    within(HEADER_BYTES).or_else(|| within(HEADER_BYTES_MAX))
}

/// The pages of a column. Fails on encodings that state sizes of their own, which nothing bounds.
pub(super) struct CheckedPages(pub Box<dyn PageReader>);

impl CheckedPages {
    fn check(page: Page) -> Result<Page> {
        match page.encoding() {
            Encoding::DELTA_BYTE_ARRAY | Encoding::DELTA_LENGTH_BYTE_ARRAY => {
                Err(ParquetError::NYI(format!("{}", page.encoding())))
            }
            _ => Ok(page),
        }
    }
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.0.get_next_page()?.map(Self::check).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.0.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.0.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.0.at_record_boundary()
    }
}

impl Iterator for CheckedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}
