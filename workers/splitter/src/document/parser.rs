//! The parser of a document: its window of bytes, and the steps that all forms share.

use super::{
    element::{Content, Element, FromObject, HEAD_BYTES, Header, LARGE_FACTOR, Options},
    envelope::may_nest,
    refusal::{Refusal, SNIPPET_BYTES, Snippet},
    skim::Until,
    state::{Around, Expect, Form, Large, Raw, Scan, Step, Walk},
};
use common::reading::Reading;
use memchr::{memchr_iter, memrchr};

/// The parser of one document.
#[derive(Debug)]
pub struct Document {
    pub(super) options: Options,
    pub(super) reading: Reading,
    /// Whether no field is mapped.
    pub(super) reads_plainly: bool,
    /// Whether the rides are nested in the elements of the array.
    pub(super) reads_within: bool,
    pub(super) form: Form,
    pub(super) window: Vec<u8>,
    /// Index of the cursor in the window.
    pub(super) at: usize,
    /// Start of the first object, until its kind is known.
    pub(super) hold: Option<usize>,
    /// Size that the window must reach before the next attempt.
    pub(super) wait_for: usize,
    pub(super) ended: bool,
    /// Offset of the window's first byte in the document.
    pub(super) offset: u64,
    pub(super) line: u64,
    pub(super) line_start: u64,
    pub(super) elements: u64,
    pub(super) header: Header,
    /// Refusal of an invalid member of the header.
    pub(super) invalid_member: Option<Refusal>,
    /// Refusal of a member `rides` that is not an array.
    pub(super) invalid_rides: Option<Refusal>,
    /// Refusal of a ride's field beside the member `rides`.
    pub(super) enclosing_ride: Option<Refusal>,
    /// Name of the member with the rides.
    pub(super) rides_key: String,
    /// Whether the first object has a `statustime`, so that it may be a ride.
    pub(super) has_time_member: bool,
    /// Refusal of an element with several rides. A mapping that follows the rides may make it one ride.
    pub(super) envelope: Option<Refusal>,
    /// Whether a broken value is one rejected ride instead of a refusal of the document.
    pub(super) is_resilient: bool,
    /// Number of bytes searched in vain for the end of broken values beyond their line.
    pub(super) wasted: u64,
    pub(super) walk: Walk,
    pub(super) large: Option<Large>,
    pub(super) head: Vec<u8>,
    /// Why the document is refused, or will be refused unless its second line is an object.
    pub(super) refusal: Option<Refusal>,
}

impl Document {
    /// Creates a parser without input.
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
            invalid_member: None,
            invalid_rides: None,
            enclosing_ride: None,
            rides_key: String::new(),
            has_time_member: false,
            envelope: None,
            is_resilient: options.lines || options.records,
            wasted: 0,
            walk: Walk::default(),
            large: None,
            head: Vec::new(),
            refusal: None,
        }
    }

    /// Sets where the rides are and how they are read.
    pub fn with_reading(self, reading: Reading) -> Self {
        let reads_within = reading.rides_at.as_ref().is_some_and(|at| !at.within.is_empty());
        Self { reads_plainly: reading.map.is_empty(), reads_within, reading, ..self }
    }

    /// Pushes the next bytes of the document. Before the next push, call [`Document::next_element`] until it returns `None`.
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

    /// Marks the end of the document.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Returns the number of elements so far.
    pub fn elements(&self) -> u64 {
        self.elements
    }

    /// Returns the header, which is complete at the end of the document.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the next element. `None` means that more bytes are needed, or, after [`Document::end`], that the document is
    /// complete.
    ///
    /// # Errors
    /// Fails if the document is not a batch.
    pub fn next_element<T: FromObject>(&mut self) -> Result<Option<Element<'_, T>>, Refusal> {
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
                Err(refusal) => match self.with_snippet(refusal) {
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
            Form::Undecided => self.decide_by_second_line(),
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
                let refusal = self.refuse("not_a_batch", self.at, expected_json(first));
                self.undecided_because(refusal)
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

    /// Handles the element from `start` to `end`, which is JSON.
    #[inline(always)]
    pub(super) fn ride<T: FromObject>(
        &mut self,
        start: usize,
        end: usize,
        read: Option<T>,
    ) -> Result<Step<T>, Refusal> {
        self.at = end;
        let is_too_large = end - start > self.options.ride_bytes_max;
        if self.reads_within && !is_too_large {
            return self.ride_within(start, end);
        }
        if may_nest(self.window.get(start..end).unwrap_or_default()) {
            self.check_element(start, end)?;
        }
        let content = read.map_or(Content::NotAnObject, Content::Object);
        Ok(self.element_at(start, end, content))
    }

    #[inline(always)]
    pub(super) fn element_at<T>(&self, start: usize, end: usize, content: Content<T>) -> Step<T> {
        if end - start > self.options.ride_bytes_max {
            Step::Found { raw: Raw::Window(start, end.min(start + HEAD_BYTES)), content: Content::TooLarge }
        } else {
            Step::Found { raw: Raw::Window(start, end), content }
        }
    }

    /// Skips blanks and byte order marks, and returns the next byte.
    pub(super) fn peek(&mut self) -> Option<u8> {
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

    /// Skips everything between the values of a sequence except commas, and returns the next byte: blanks, byte order marks,
    /// record separators (RFC 7464), and the end-of-file mark of DOS.
    pub(super) fn peek_value(&mut self) -> Option<u8> {
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

    /// Returns whether a byte order mark is at the cursor.
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

    pub(super) fn go<T>(&mut self, form: Form) -> Result<Step<T>, Refusal> {
        self.form = form;
        Ok(Step::Again)
    }

    /// Waits for more bytes of the value at `start`. The next attempt follows when its part of the window has doubled, which
    /// keeps the work linear.
    pub(super) fn more<T>(&mut self, start: usize) -> Result<Step<T>, Refusal> {
        self.at = start;
        self.wait_for = self.window.len() + (self.window.len() - start).max(1);
        Ok(Step::Wait)
    }

    pub(super) fn wait_or_cut_short<T>(&mut self, why: &str) -> Result<Step<T>, Refusal> {
        if self.ended {
            return Err(self.refuse("cut_short", self.window.len(), why));
        }
        Ok(Step::Wait)
    }

    pub(super) fn large(&self) -> usize {
        self.options.ride_bytes_max.saturating_mul(LARGE_FACTOR)
    }

    pub(super) fn refuse(&self, code: &'static str, at: usize, why: &str) -> Refusal {
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

    /// Completes a refusal with a snippet; `None` if its bytes have not arrived.
    fn with_snippet(&mut self, mut refusal: Refusal) -> Option<Refusal> {
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

/// Explains the refusal of a document that starts with neither an array nor an object.
fn expected_json(first: u8) -> &'static str {
    match first {
        b'"' => {
            "expected an array or an object, not a text: if the text holds the rides as JSON, hand in what `jq -r .` prints"
        }
        _ => "expected an array or an object of JSON, CSV with a header, or Parquet",
    }
}

pub(super) const BYTE_ORDER_MARK: &[u8; 3] = b"\xEF\xBB\xBF";

enum Mark {
    Whole,
    /// More bytes may complete it.
    Part,
    None,
}
