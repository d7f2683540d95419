//! Spools a file: in memory if it is small, or else in an unnamed temporary file.

use bytes::Bytes;
use parquet::{
    errors::{ParquetError, Result},
    file::reader::{ChunkReader, Length},
};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
};
use tempfile::{SpooledData, SpooledTempFile};

/// Maximum size of a file in memory, bytes.
const MEMORY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A file that is being written.
pub(super) struct Spool(SpooledTempFile);

impl Default for Spool {
    fn default() -> Self {
        Self(tempfile::spooled_tempfile(MEMORY_BYTES_MAX))
    }
}

impl Spool {
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.0.write_all(piece)
    }

    pub fn finish(mut self) -> io::Result<Spooled> {
        self.0.flush()?;
        Ok(match self.0.into_inner() {
            SpooledData::InMemory(bytes) => Spooled::Memory(Bytes::from(bytes.into_inner())),
            SpooledData::OnDisk(file) => {
                let length = file.metadata()?.len();
                Spooled::Disk { file, length }
            }
        })
    }
}

/// A complete spooled file.
pub(super) enum Spooled {
    Memory(Bytes),
    Disk { file: File, length: u64 },
}

impl Spooled {
    /// Reads `length` bytes from `start`, fewer at the end of the file.
    pub fn read(&self, start: u64, length: usize) -> io::Result<Bytes> {
        let available = self.len().saturating_sub(start).min(length as u64) as usize;
        match self {
            Self::Memory(bytes) => {
                let start = start.min(self.len()) as usize;
                Ok(bytes.slice(start..start + available))
            }
            Self::Disk { file, .. } => {
                let mut file = file;
                let mut bytes = vec![0; available];
                file.seek(SeekFrom::Start(start))?;
                file.read_exact(&mut bytes)?;
                Ok(Bytes::from(bytes))
            }
        }
    }
}

impl Length for Spooled {
    fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Disk { length, .. } => *length,
        }
    }
}

impl ChunkReader for Spooled {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(match self {
            Self::Memory(bytes) => Box::new(bytes.get_read(start)?),
            Self::Disk { file, .. } => Box::new(file.get_read(start)?),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        // Checked first, because the buffer is allocated before a read notices the end of the file.
        let end = start.checked_add(length as u64).filter(|end| *end <= self.len());
        end.ok_or_else(|| ParquetError::EOF(format!("expected {length} bytes at byte {start}")))?;
        Ok(self.read(start, length)?)
    }
}
