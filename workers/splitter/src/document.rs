//! Parses a batch document while it arrives: bytes are pushed, elements are read. Depends on the contract; pure.
//!
//! ```text
//!           ┌─ [ ──────────────▶ Elements ──────────────▶ Sequence
//!           │                      ▲ │
//!  Start ───┼─ { ──▶ Members ─ rides: [ ┘ ──▶ Members ──▶ Trailing      an object with the rides
//!           │          ├── object ────────────────────▶ Trailing      a reference
//!           │          └── a ride ────────────────────▶ Sequence ⇄ Elements
//!           ├─ rides_at ──▶ Path ⇄ Elements                            rides at the path of the publisher
//!           └─ Undecided: the second line is an object ▶ Sequence
//! ```
//!
//! A sequence is any number of values with any separators: each object is a ride, and so is each element of an array of
//! objects. If each value is on its own line, a broken value is one broken ride, and reading continues with the next line. In
//! every other form nothing after a syntax error can be read reliably, so the whole document is refused, with the position of
//! the error. A document that would count several rides as one is refused as well.
//!
//! Only a window of the document is in memory: the bytes pushed last, and the element that crosses the edge of the window.

mod element;
mod envelope;
mod first;
mod large;
mod lines;
mod members;
mod parser;
mod path;
mod refusal;
mod relaxed;
mod scan;
mod sequence;
mod skim;
mod state;

pub use element::{Content, Element, FromObject, HEAD_BYTES, Header, LARGE_FACTOR, Options};
pub(crate) use members::{Lookup, Members};
pub use parser::Document;
pub use refusal::{Refusal, Snippet};
pub(crate) use relaxed::{INFINITE, NAN};

#[cfg(test)]
mod tests;
