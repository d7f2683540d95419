//! A batch document, taken apart while it comes in: bytes are pushed, rides are pulled.
//!
//! ```text
//!           ┌─ [ ────────────────────▶ Elements ──▶ Trailing
//!           │                             ▲ │
//!  Start ───┼─ { ──▶ Members ── rides: [ ─┘ └──────▶ Members ──▶ Trailing     one object around the rides
//!           │          ├── object ────────────────────────────▶ Trailing     a reference
//!           │          ├── a ride on a line of its own ───────▶ Lines        newline-delimited
//!           │          └── a ride ────────────────────────────▶ Concatenated one object after the other
//!           └─ told, or the second line is a whole object ────▶ Lines
//! ```
//!
//! Only a window of the document is held: what was pushed last, and the element that straddles its edge. In lines a broken
//! one is one broken ride, since the next line starts afresh. In every other form a break is the end of all certainty
//! about what follows, so the document is refused as a whole, with the place.

mod first;
mod scan;

use common::contract::reading::Reading;
use memchr::{memchr, memchr_iter, memrchr};
use scan::{Scan, is_cut_short, read_line};
use serde::de::DeserializeOwned;

/// What an object in the place of a ride is read as.
pub trait FromObject: DeserializeOwned {
    /// Reads an object, known to be JSON and UTF-8, that plain deserialisation gave up on.
    fn carefully(object: &[u8]) -> Self;
}

/// How a document is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Known to be newline-delimited; else the form is found out.
    pub lines: bool,
    /// Written by this crate: every line is one record, an object or an array of cells, and no form is guessed.
    pub records: bool,
    /// Bytes of one ride at most; a bigger one is set apart as [`Content::TooLarge`]. Outside of lines, one that is
    /// [`LARGE_FACTOR`] times as big refuses the document.
    pub ride_bytes_max: usize,
}

/// How many times `ride_bytes_max` the window may grow to, in search of the end of an element.
pub const LARGE_FACTOR: usize = 16;
/// Bytes kept of a line that is too large.
pub const HEAD_BYTES: usize = 1024;

/// Why a document is no batch, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}, at byte {offset} (line {line}, column {column})")]
pub struct Refusal {
    /// Stable: `empty`, `not_a_batch`, `invalid_json`, `cut_short`, `ride_too_large`.
    pub code: &'static str,
    /// What was expected there.
    pub why: String,
    /// From the start of the document, decompressed.
    pub offset: u64,
    /// From 1.
    pub line: u64,
    /// In bytes, from 1.
    pub column: u64,
}

/// What stands in an object document beside its rides, or instead of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Header {
    /// Name the publisher chose for the batch.
    pub batch_id: Option<String>,
    /// Where it came from, for people.
    pub source: Option<String>,
    /// Where the rides are, when they are not in here.
    pub object: Option<String>,
    /// SHA-256 of `object`.
    pub sha256: Option<String>,
    /// How the rides are to be read.
    pub reading: Reading,
}

/// One element of a document.
#[derive(Debug, PartialEq)]
pub struct Element<'a, T> {
    /// Position in the document, from 0.
    pub index: u64,
    /// Its bytes as they came; the first [`HEAD_BYTES`] of a line that is too large.
    pub raw: &'a [u8],
    /// What it is.
    pub content: Content<T>,
}

/// What an element is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content<T> {
    /// An object, read.
    Object(T),
    /// JSON, but no object.
    NotAnObject,
    /// A line that is no JSON.
    Broken,
    /// Longer than a ride may be.
    TooLarge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    ItemOrEnd,
    Item,
    CommaOrEnd,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    Start,
    Members(Expect),
    Elements { expect: Expect, in_object: bool },
    Concatenated,
    Lines { skipping: bool },
    Doubt(Refusal),
    Trailing,
}

enum Step<T> {
    Again,
    Wait,
    Found { raw: Raw, content: Content<T> },
}

enum Raw {
    Window(usize, usize),
    Head,
}

/// The parser of one document.
#[derive(Debug)]
pub struct Document {
    options: Options,
    form: Form,
    window: Vec<u8>,
    /// The next byte to look at.
    at: usize,
    /// Start of the first object, kept until it is known what it is.
    hold: Option<usize>,
    /// Not worth another look before the window is this long.
    wait_for: usize,
    ended: bool,
    /// Of the window's first byte.
    offset: u64,
    line: u64,
    line_start: u64,
    elements: u64,
    header: Header,
    /// A member of the header that cannot be used.
    odd_member: Option<Refusal>,
    /// The first object has a member `rides` that is no array.
    listless: Option<Refusal>,
    /// The first object has a time: it is a ride whatever else it has.
    timed: bool,
    head: Vec<u8>,
}

impl Document {
    /// A parser that has seen nothing yet.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            form: Form::Start,
            window: Vec::new(),
            at: 0,
            hold: None,
            wait_for: 0,
            ended: false,
            offset: 0,
            line: 1,
            line_start: 0,
            elements: 0,
            header: Header::default(),
            odd_member: None,
            listless: None,
            timed: false,
            head: Vec::new(),
        }
    }

    /// The next bytes of the document. Pull with [`Document::pull`] until it has no more before pushing again.
    pub fn push(&mut self, bytes: &[u8]) {
        let gone = self.hold.unwrap_or(self.at).min(self.at);
        if let Some(passed) = self.window.get(..gone) {
            self.line += memchr_iter(b'\n', passed).count() as u64;
            if let Some(last) = memrchr(b'\n', passed) {
                self.line_start = self.offset + last as u64 + 1;
            }
        }
        self.window.drain(..gone);
        self.offset += gone as u64;
        self.at -= gone;
        self.hold = self.hold.map(|hold| hold - gone);
        self.wait_for = self.wait_for.saturating_sub(gone);
        self.window.extend_from_slice(bytes);
    }

    /// There are no more bytes.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Elements found so far.
    pub fn elements(&self) -> u64 {
        self.elements
    }

    /// What stood beside the rides; complete when the document is.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next element, or `None`: until [`Document::end`] it means that more bytes are needed, afterwards that the
    /// document is complete.
    ///
    /// # Errors
    /// When the document cannot be a batch.
    pub fn pull<T: FromObject>(&mut self) -> Result<Option<Element<'_, T>>, Refusal> {
        loop {
            if self.window.len() < self.wait_for && !self.ended {
                return Ok(None);
            }
            match self.step()? {
                Step::Again => {}
                Step::Wait => return Ok(None),
                Step::Found { raw, content } => {
                    let index = self.elements;
                    self.elements += 1;
                    let raw = match raw {
                        Raw::Window(from, to) => self.window.get(from..to).unwrap_or_default(),
                        Raw::Head => &self.head,
                    };
                    return Ok(Some(Element { index, raw, content }));
                }
            }
        }
    }

    #[inline(always)]
    fn step<T: FromObject>(&mut self) -> Result<Step<T>, Refusal> {
        match self.form {
            Form::Elements { expect, in_object } => self.element(expect, in_object),
            Form::Lines { skipping: false } => self.line(),
            Form::Lines { skipping: true } => Ok(self.skip_line()),
            Form::Concatenated => self.concatenated(),
            Form::Members(expect) => self.member(expect),
            Form::Start => self.start(),
            Form::Trailing => match self.peek() {
                None => Ok(Step::Wait),
                Some(_) => {
                    Err(self.refuse("invalid_json", self.at, "expected nothing more after the end of the document"))
                }
            },
            Form::Doubt(_) => self.doubt(),
        }
    }

    fn start<T>(&mut self) -> Result<Step<T>, Refusal> {
        const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
        if self.offset == 0 && self.at == 0 {
            if self.window.starts_with(BYTE_ORDER_MARK) {
                self.at = BYTE_ORDER_MARK.len();
            } else if BYTE_ORDER_MARK.starts_with(&self.window) && !self.ended {
                return Ok(Step::Wait);
            }
        }
        match self.peek() {
            None if self.ended && self.options.records => Ok(Step::Wait),
            None if self.ended => Err(self.refuse("empty", self.at, "expected rides, found nothing")),
            None => Ok(Step::Wait),
            Some(_) if self.options.lines || self.options.records => self.go(Form::Lines { skipping: false }),
            Some(b'[') => {
                self.at += 1;
                self.go(Form::Elements { expect: Expect::ItemOrEnd, in_object: false })
            }
            Some(b'{') => {
                self.hold = Some(self.at);
                self.at += 1;
                self.go(Form::Members(Expect::ItemOrEnd))
            }
            Some(_) => {
                self.hold = Some(self.at);
                let refusal = self.refuse("not_a_batch", self.at, "expected an array or an object");
                self.go(Form::Doubt(refusal))
            }
        }
    }

    #[inline(always)]
    fn element<T: FromObject>(&mut self, expect: Expect, in_object: bool) -> Result<Step<T>, Refusal> {
        match (self.peek(), expect) {
            (None, _) => self.wait_or_cut_short("expected the rest of the array of rides"),
            (Some(b']'), Expect::ItemOrEnd | Expect::CommaOrEnd) => {
                self.at += 1;
                self.go(if in_object { Form::Members(Expect::CommaOrEnd) } else { Form::Trailing })
            }
            (Some(b','), Expect::CommaOrEnd) => {
                self.at += 1;
                self.go(Form::Elements { expect: Expect::Item, in_object })
            }
            (Some(_), Expect::CommaOrEnd) => Err(self.refuse("invalid_json", self.at, "expected `,` or `]`")),
            (Some(_), _) => {
                let found = self.ride()?;
                if let Step::Found { .. } = found {
                    self.form = Form::Elements { expect: Expect::CommaOrEnd, in_object };
                }
                Ok(found)
            }
        }
    }

    fn concatenated<T: FromObject>(&mut self) -> Result<Step<T>, Refusal> {
        match self.peek() {
            None => Ok(Step::Wait),
            Some(b'{') => self.ride(),
            Some(_) => Err(self.refuse("invalid_json", self.at, "expected another ride, which starts with `{`")),
        }
    }

    fn line<T: FromObject>(&mut self) -> Result<Step<T>, Refusal> {
        // Blanks belong to no ride, however many there are and in whatever pieces they come.
        while self.window.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        let from = self.at;
        let rest = self.window.get(from..).unwrap_or_default();
        let newline = memchr(b'\n', rest);
        let end = newline.map_or(self.window.len(), |length| from + length);
        let line = self.window.get(from..end).unwrap_or_default();
        if newline.is_none() && !self.ended {
            if line.len() <= self.options.ride_bytes_max {
                self.wait_for = self.window.len() + 1;
                return Ok(Step::Wait);
            }
            self.head = line.iter().copied().take(HEAD_BYTES).collect();
            self.at = end;
            return self.go(Form::Lines { skipping: true });
        }
        let content = if line.is_empty() {
            return Ok(Step::Wait);
        } else if line.len() > self.options.ride_bytes_max {
            Content::TooLarge
        } else {
            match read_line(line) {
                Ok(content) => content,
                Err(error) if newline.is_none() && is_cut_short(line, &error) => {
                    return Err(self.refuse("cut_short", end, "expected the rest of the last line"));
                }
                Err(_) => Content::Broken,
            }
        };
        self.at = end + usize::from(newline.is_some());
        let kept = if matches!(content, Content::TooLarge) { end.min(from + HEAD_BYTES) } else { end };
        Ok(Step::Found { raw: Raw::Window(from, kept), content })
    }

    fn skip_line<T>(&mut self) -> Step<T> {
        let rest = self.window.get(self.at..).unwrap_or_default();
        let newline = memchr(b'\n', rest);
        let length = newline.unwrap_or(rest.len());
        self.head.extend(rest.iter().take(length.min(HEAD_BYTES - self.head.len().min(HEAD_BYTES))));
        self.at += length + usize::from(newline.is_some());
        if newline.is_none() && !self.ended {
            return Step::Wait;
        }
        self.form = Form::Lines { skipping: false };
        Step::Found { raw: Raw::Head, content: Content::TooLarge }
    }

    /// The ride at the cursor.
    #[inline(always)]
    fn ride<T: FromObject>(&mut self) -> Result<Step<T>, Refusal> {
        let start = self.at;
        let (end, read) = match self.object(start) {
            Scan::Done(end, read) => (end, read),
            Scan::More => return self.more(start, "expected the rest of a ride"),
            Scan::Broken(refusal) => return Err(refusal),
        };
        self.bounded(start, end)?;
        self.at = end;
        let content = match read {
            _ if end - start > self.options.ride_bytes_max => Content::TooLarge,
            Some(read) => Content::Object(read),
            None => Content::NotAnObject,
        };
        Ok(Step::Found { raw: Raw::Window(start, end), content })
    }

    /// Passes over blanks.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.window.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    fn go<T>(&mut self, form: Form) -> Result<Step<T>, Refusal> {
        self.form = form;
        Ok(Step::Again)
    }

    /// What starts at `start` has no end yet. Looking again only after the window has doubled keeps the work linear.
    fn more<T>(&mut self, start: usize, why: &str) -> Result<Step<T>, Refusal> {
        self.at = start;
        self.wait_for = self.window.len() + (self.window.len() - start).max(1);
        self.wait_or_cut_short(why)
    }

    fn wait_or_cut_short<T>(&mut self, why: &str) -> Result<Step<T>, Refusal> {
        if self.ended {
            return Err(self.refuse("cut_short", self.window.len(), why));
        }
        self.bounded(self.hold.unwrap_or(self.at), self.window.len())?;
        Ok(Step::Wait)
    }

    /// Refuses by size alone, so that it does not matter in which pieces the document came.
    fn bounded(&self, from: usize, to: usize) -> Result<(), Refusal> {
        if to - from <= self.large() {
            return Ok(());
        }
        Err(self.refuse("ride_too_large", from, &format!("expected an end within {} bytes", self.large())))
    }

    fn large(&self) -> usize {
        self.options.ride_bytes_max.saturating_mul(LARGE_FACTOR)
    }

    fn refuse(&self, code: &'static str, at: usize, why: &str) -> Refusal {
        let passed = self.window.get(..at).unwrap_or(&self.window);
        let offset = self.offset + passed.len() as u64;
        let line_start = memrchr(b'\n', passed).map_or(self.line_start, |last| self.offset + last as u64 + 1);
        Refusal {
            code,
            why: why.to_owned(),
            offset,
            line: self.line + memchr_iter(b'\n', passed).count() as u64,
            column: offset - line_start + 1,
        }
    }
}

#[cfg(test)]
mod tests;
