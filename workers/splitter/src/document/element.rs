//! The options, the elements and the header of a document.

use common::reading::{Mapping, Reading};
use serde::de::DeserializeOwned;

/// A type that objects in the place of a ride are read as.
pub trait FromObject: DeserializeOwned {
    /// Reads an object member by member: one that deserialisation cannot read, or whose fields are mapped. The object is valid
    /// JSON in UTF-8.
    fn from_members(object: &[u8], map: &Mapping) -> Self;
}

/// How a document is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Whether the publisher declared newline-delimited JSON. Then an unreadable first line is one broken ride. The content
    /// determines everything else.
    pub lines: bool,
    /// Whether this crate wrote the lines: each is one record, an object or an array of cells, and no form is guessed.
    pub records: bool,
    /// Maximum size of one ride, bytes; a larger one becomes [`Content::TooLarge`].
    pub ride_bytes_max: usize,
}

/// Maximum size of the window in search of the end of an element, as a multiple of `ride_bytes_max`.
pub const LARGE_FACTOR: usize = 16;
/// Number of bytes kept of an element that is too large.
pub const HEAD_BYTES: usize = 1024;

/// The members of an object document beside its rides, or instead of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Header {
    /// Batch id chosen by the publisher.
    pub batch_id: Option<String>,
    /// Origin of the batch, for people.
    pub source: Option<String>,
    /// Path of the object with the rides, if the document is a reference.
    pub object: Option<String>,
    /// SHA-256 of `object`.
    pub sha256: Option<String>,
    /// How the rides are read.
    pub reading: Reading,
    /// The member `refresh`, which counts in a reference only.
    pub refresh: Option<serde_json::Value>,
}

/// One element of a document.
#[derive(Debug, PartialEq)]
pub struct Element<'a, T> {
    /// Position in the document, from 0.
    pub index: u64,
    /// Its raw bytes; the first [`HEAD_BYTES`] of one that is too large.
    pub raw: &'a [u8],
    /// The kind of element.
    pub content: Content<T>,
}

/// The kind of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content<T> {
    /// An object, as read.
    Object(T),
    /// JSON, but not an object.
    NotAnObject,
    /// Not JSON, in a form in which the following elements can still be read.
    Broken,
    /// Larger than a ride may be.
    TooLarge,
}
