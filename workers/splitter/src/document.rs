//! A batch document, taken apart while it comes in: bytes are pushed, rides are pulled.
//!
//! ```text
//!           ┌─ [ ──────────────▶ Elements ──────────────▶ Sequence
//!           │                      ▲ │
//!  Start ───┼─ { ──▶ Members ─ rides: [ ┘ ──▶ Members ──▶ Trailing      one object around the rides
//!           │          ├── object ────────────────────▶ Trailing      a reference
//!           │          └── a ride ────────────────────▶ Sequence ⇄ Elements
//!           ├─ rides_at ──▶ Path ⇄ Elements                            rides where the publisher says they are
//!           └─ the second line is a whole object ─────▶ Sequence
//! ```
//!
//! A sequence is any number of values with any separators: each object is a ride, and so is each element of an array of
//! objects. Where each value is on a line of its own, a broken value is one broken ride, and reading goes on with the
//! next line. In every other form nothing after the break can be read reliably, so the document is refused as a whole,
//! with the place of the break. A document in which several rides would be counted as one is refused, too.
//!
//! Only a window of the document is in memory: the bytes pushed last, and the element that crosses the window's edge.

mod envelope;
mod first;
mod large;
mod lines;
mod members;
mod path;
mod refusal;
mod relaxed;
mod scan;
mod sequence;
mod skim;

pub(crate) use members::{Lookup, Members};
pub use refusal::{Refusal, Snippet};
pub(crate) use relaxed::{INFINITE, NAN};

use common::reading::{Mapping, Reading};
use envelope::holds_more;
use large::Large;
use memchr::{memchr_iter, memrchr};
use path::Walk;
use refusal::SNIPPET_BYTES;
use scan::Scan;
use serde::de::DeserializeOwned;
use skim::Until;

/// What an object in the place of a ride is read as.
pub trait FromObject: DeserializeOwned {
    /// Reads an object, known to be JSON and UTF-8, that plain deserialisation could not read or whose fields are
    /// mapped.
    fn carefully(object: &[u8], map: &Mapping) -> Self;
}

/// How a document is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The publisher declared newline-delimited JSON: a first line that cannot be read is one broken ride. The content
    /// decides everything else.
    pub lines: bool,
    /// The lines were written by this crate: each is one record, an object or an array of cells, and no form is
    /// guessed.
    pub records: bool,
    /// Bytes of one ride at most; a larger one becomes [`Content::TooLarge`].
    pub ride_bytes_max: usize,
}

/// How many times `ride_bytes_max` the window may grow to, in search of the end of an element.
pub const LARGE_FACTOR: usize = 16;
/// Bytes kept of an element that is too large.
pub const HEAD_BYTES: usize = 1024;

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
    /// Its bytes as they came; the first [`HEAD_BYTES`] of one that is too large.
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
    /// Not JSON; it is on a line of its own, or other rides follow on its line.
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

/// What surrounds an array of rides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Around {
    /// The document itself, or a sequence.
    Sequence,
    /// The object around the rides.
    Members,
    /// Objects on the path to the rides.
    Path,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Start,
    Members(Expect),
    Elements {
        expect: Expect,
        around: Around,
    },
    Sequence {
        /// Whether a comma may follow.
        comma: bool,
    },
    Path(Expect),
    /// Passing over an element or a member that is too large for the window.
    Large,
    /// The first value cannot be read; the second line may still show that the document is a sequence of lines.
    Doubt,
    Trailing,
    Refused,
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
    reading: Reading,
    /// Every field is read by its own key.
    reads_plainly: bool,
    /// The rides are nested in the elements of the array.
    reads_within: bool,
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
    /// The first object has a ride's field beside its member `rides`, before or after it.
    ride_around: Option<Refusal>,
    /// The member that holds the rides.
    list: String,
    /// The first object has a time: it may be a ride whatever else it has.
    timed: bool,
    /// Refusal of an element that would be several rides; kept, since a mapping that follows the rides may make it one.
    envelope: Option<Refusal>,
    /// A broken value rejects one ride instead of refusing the document.
    is_resilient: bool,
    /// Bytes searched without success for the end of broken values that go on after their line.
    wasted: u64,
    walk: Walk,
    large: Option<Large>,
    head: Vec<u8>,
    /// Why the document is refused, or will be refused unless its second line is a whole object.
    refusal: Option<Refusal>,
}

impl Document {
    /// A parser that has seen nothing yet.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            reading: Reading::default(),
            reads_plainly: true,
            reads_within: false,
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
            ride_around: None,
            list: String::new(),
            timed: false,
            envelope: None,
            is_resilient: options.lines || options.records,
            wasted: 0,
            walk: Walk::default(),
            large: None,
            head: Vec::new(),
            refusal: None,
        }
    }

    /// Reads the rides where and as `reading` says.
    pub fn with_reading(self, reading: Reading) -> Self {
        let reads_within = reading.rides_at.as_ref().is_some_and(|at| !at.within.is_empty());
        Self { reads_plainly: reading.map.is_empty(), reads_within, reading, ..self }
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
            match self.step() {
                Ok(Step::Again) => {}
                Ok(Step::Wait) => return Ok(None),
                Ok(Step::Found { raw, content }) => {
                    let index = self.elements;
                    self.elements += 1;
                    let raw = match raw {
                        Raw::Window(from, to) => self.window.get(from..to).unwrap_or_default(),
                        Raw::Head => &self.head,
                    };
                    return Ok(Some(Element { index, raw, content }));
                }
                Err(refusal) => match self.explained(refusal) {
                    Some(refusal) => return Err(refusal),
                    None => return Ok(None),
                },
            }
        }
    }

    #[inline(always)]
    fn step<T: FromObject>(&mut self) -> Result<Step<T>, Refusal> {
        match self.form {
            Form::Elements { expect, around } => self.element(expect, around),
            Form::Sequence { comma } => self.sequence(comma),
            Form::Members(expect) => self.member(expect),
            Form::Path(expect) => self.path(expect),
            Form::Large => self.pass_over_large(),
            Form::Start => self.start(),
            Form::Doubt => self.doubt(),
            Form::Trailing => match self.peek_value() {
                None => Ok(Step::Wait),
                Some(_) => {
                    let why = "expected nothing more after the object, which is a batch by itself; hand in each batch on its own";
                    Err(self.refuse("invalid_json", self.at, why))
                }
            },
            Form::Refused => self.refusal.take().map_or(Ok(Step::Wait), Err),
        }
    }

    fn start<T>(&mut self) -> Result<Step<T>, Refusal> {
        match self.peek_value() {
            None if self.ended && self.options.records => Ok(Step::Wait),
            None if self.ended => Err(self.refuse("empty", self.at, "expected rides")),
            None => Ok(Step::Wait),
            Some(_) if self.options.records && self.reading.rides_at.is_some() => {
                let why =
                    "expected JSON, since rides_at says where in it the rides are; leave it out: each row is a ride";
                Err(self.refuse("not_a_batch", self.at, why))
            }
            Some(_) if self.options.records => self.go(Form::Sequence { comma: false }),
            Some(_) if self.reading.rides_at.is_some() => self.go(Form::Path(Expect::ItemOrEnd)),
            Some(b'[') if !self.options.lines => {
                self.at += 1;
                self.go(Form::Elements { expect: Expect::ItemOrEnd, around: Around::Sequence })
            }
            Some(b'{') => {
                self.hold = Some(self.at);
                self.at += 1;
                self.go(Form::Members(Expect::ItemOrEnd))
            }
            Some(_) if self.options.lines => self.go(Form::Sequence { comma: false }),
            Some(first) => {
                self.hold = Some(self.at);
                let refusal = self.refuse("not_a_batch", self.at, no_json(first));
                self.doubt_because(refusal)
            }
        }
    }

    #[inline(always)]
    fn element<T: FromObject>(&mut self, expect: Expect, around: Around) -> Result<Step<T>, Refusal> {
        match (self.peek(), expect) {
            (None, _) => self.wait_or_cut_short("expected the rest of the array of rides"),
            (Some(b']'), Expect::ItemOrEnd | Expect::CommaOrEnd) => {
                self.at += 1;
                self.go(match around {
                    Around::Sequence => Form::Sequence { comma: true },
                    Around::Members => Form::Members(Expect::CommaOrEnd),
                    Around::Path => Form::Path(Expect::CommaOrEnd),
                })
            }
            (Some(b','), Expect::CommaOrEnd) => {
                self.at += 1;
                self.go(Form::Elements { expect: Expect::Item, around })
            }
            (Some(_), Expect::CommaOrEnd) => Err(self.refuse("invalid_json", self.at, "expected `,` or `]`")),
            (Some(_), _) => {
                let start = self.at;
                match self.object(start) {
                    Scan::Done(end, read) => {
                        self.form = Form::Elements { expect: Expect::CommaOrEnd, around };
                        self.ride(start, end, read)
                    }
                    Scan::More if self.is_full(start) => {
                        let back = Form::Elements { expect: Expect::CommaOrEnd, around };
                        self.enter_large(start, back, Until::Misaligned)
                    }
                    Scan::More => self.more(start),
                    Scan::Broken(refusal) => Err(refusal),
                }
            }
        }
    }

    /// The element from `start` to `end`, which is JSON.
    #[inline(always)]
    fn ride<T: FromObject>(&mut self, start: usize, end: usize, read: Option<T>) -> Result<Step<T>, Refusal> {
        self.at = end;
        let is_too_large = end - start > self.options.ride_bytes_max;
        if self.reads_within && !is_too_large {
            return self.ride_within(start, end);
        }
        if holds_more(self.window.get(start..end).unwrap_or_default()) {
            self.check_element(start, end)?;
        }
        let content = read.map_or(Content::NotAnObject, Content::Object);
        Ok(self.element_at(start, end, content))
    }

    #[inline(always)]
    fn element_at<T>(&self, start: usize, end: usize, content: Content<T>) -> Step<T> {
        if end - start > self.options.ride_bytes_max {
            Step::Found { raw: Raw::Window(start, end.min(start + HEAD_BYTES)), content: Content::TooLarge }
        } else {
            Step::Found { raw: Raw::Window(start, end), content }
        }
    }

    /// Passes over blanks and byte order marks.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.window.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(&first) if first == BYTE_ORDER_MARK[0] => match self.mark() {
                    Mark::Whole => self.at += BYTE_ORDER_MARK.len(),
                    Mark::Part => return None,
                    Mark::None => return Some(first),
                },
                other => return other.copied(),
            }
        }
    }

    /// Passes over whatever may stand between the values of a sequence, commas excepted: blanks of all kinds, byte order
    /// marks, record separators (RFC 7464), and the mark of DOS for the end of a file.
    fn peek_value(&mut self) -> Option<u8> {
        const RECORD_SEPARATOR: u8 = 0x1E;
        const END_OF_FILE: u8 = 0x1A;
        loop {
            match self.peek() {
                Some(RECORD_SEPARATOR | END_OF_FILE) => self.at += 1,
                Some(byte) if byte.is_ascii_whitespace() => self.at += 1,
                other => return other,
            }
        }
    }

    /// Whether there is a byte order mark at the cursor.
    fn mark(&self) -> Mark {
        let rest = self.window.get(self.at..).unwrap_or_default();
        if rest.starts_with(BYTE_ORDER_MARK) {
            Mark::Whole
        } else if BYTE_ORDER_MARK.starts_with(rest) && !self.ended {
            Mark::Part
        } else {
            Mark::None
        }
    }

    fn go<T>(&mut self, form: Form) -> Result<Step<T>, Refusal> {
        self.form = form;
        Ok(Step::Again)
    }

    /// What starts at `start` has no end yet. Looking again only after the window has doubled keeps the work linear.
    fn more<T>(&mut self, start: usize) -> Result<Step<T>, Refusal> {
        self.at = start;
        self.wait_for = self.window.len() + (self.window.len() - start).max(1);
        Ok(Step::Wait)
    }

    fn wait_or_cut_short<T>(&mut self, why: &str) -> Result<Step<T>, Refusal> {
        if self.ended {
            return Err(self.refuse("cut_short", self.window.len(), why));
        }
        Ok(Step::Wait)
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
            snippet: Snippet::Unread,
            offset,
            line: self.line + memchr_iter(b'\n', passed).count() as u64,
            column: offset - line_start + 1,
        }
    }

    /// Completes a refusal with what was found; `None` while those bytes still have to come.
    fn explained(&mut self, mut refusal: Refusal) -> Option<Refusal> {
        if refusal.snippet == Snippet::Unread {
            let place = refusal.offset.checked_sub(self.offset).and_then(|place| usize::try_from(place).ok());
            refusal.snippet = match place {
                None => Snippet::InWords,
                Some(place) => {
                    let end = place + SNIPPET_BYTES;
                    if self.window.len() < end && !self.ended {
                        self.hold = None;
                        self.at = place;
                        self.wait_for = end;
                        self.form = Form::Refused;
                        self.refusal = Some(refusal);
                        return None;
                    }
                    Snippet::at(self.window.get(place..end.min(self.window.len())).unwrap_or_default())
                }
            };
        }
        self.form = Form::Refused;
        self.refusal = Some(refusal.clone());
        Some(refusal)
    }
}

/// What to do about a document that starts with a byte that no array and no object starts with.
fn no_json(first: u8) -> &'static str {
    match first {
        b'"' => {
            "expected an array or an object, not a text: if the text holds the rides as JSON, hand in what `jq -r .` prints"
        }
        _ => "expected an array or an object of JSON, CSV with a header, or Parquet",
    }
}

const BYTE_ORDER_MARK: &[u8; 3] = b"\xEF\xBB\xBF";

enum Mark {
    Whole,
    /// More bytes may complete it.
    Part,
    None,
}

#[cfg(test)]
mod tests;
