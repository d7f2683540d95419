//! Datasets: the joined rides of a batch in CSV files, and the manifest that completes them. The only code that writes, reads
//! and checks them. A dataset has one or more revisions ([`refreshes`](crate::refreshes)); readers use the newest complete one,
//! which [`manifest`] returns for one batch and [`list`] for all.
//!
//! ```text
//! manifest    lists datasets; reads, checks and creates manifests
//! columns     type, unit and meaning of each column
//! encode      rides become rows                   record    records become typed values
//! write       rows become files of bounded size   read      files become blocks of whole records, checked against the manifest
//! ```

pub mod columns;
mod encode;
mod manifest;
mod read;
mod record;
#[cfg(test)]
mod tests;
mod write;

pub use columns::{COLUMNS, Column, Kind, column_names};
pub use encode::{header, push_row};
pub use manifest::{DatasetError, StoredManifest, create_manifest, list, manifest, newest_revision, revision};
pub use read::{BLOCK_BYTES, Offload, Reader, document};
pub use record::{Header, Record, Records, RowError};
pub use write::Writer;
