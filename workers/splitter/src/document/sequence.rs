//! A sequence of values with any separators.

use super::{
    element::{Content, FromObject},
    parser::{BYTE_ORDER_MARK, Document},
    refusal::Refusal,
    skim::{Skim, Stop, Until},
    state::{Around, Expect, Form, Scan, Step},
};
use memchr::memchr;

impl Document {
    #[inline(always)]
    pub(super) fn sequence<T: FromObject>(&mut self, comma: bool) -> Result<Step<T>, Refusal> {
        match self.peek_value() {
            None => Ok(Step::Wait),
            Some(b'{') => {
                let start = self.at;
                match self.object(start) {
                    Scan::Done(end, read) => {
                        self.form = Form::Sequence { comma: true };
                        self.ride(start, end, read)
                    }
                    Scan::More => self.incomplete_value(start),
                    Scan::Broken(refusal) => self.broken_value(start, refusal),
                }
            }
            Some(b',') if comma => {
                self.at += 1;
                self.go(Form::Sequence { comma: false })
            }
            Some(b'[') if !self.options.records => self.array_in_sequence(),
            Some(_) => self.other_value(),
        }
    }

    /// Reads an array: the elements of an array of objects are rides; any other array is one element that is not a ride.
    fn array_in_sequence<T: FromObject>(&mut self) -> Result<Step<T>, Refusal> {
        let start = self.at;
        let inner = self.window.get(start + 1..).unwrap_or_default();
        match inner.iter().find(|byte| !byte.is_ascii_whitespace() && !BYTE_ORDER_MARK.contains(byte)) {
            Some(b'{' | b']') => return self.enter_array(start),
            None if self.is_full(start) => return self.enter_array(start),
            None if !self.ended => return self.more(start),
            _ => {}
        }
        match self.value(start) {
            Scan::Done(end, _) if contains_object(self.window.get(start..end).unwrap_or_default()) => {
                self.enter_array(start)
            }
            Scan::Done(end, _) => self.other_element(start, end),
            Scan::More if self.is_full(start) => self.enter_array(start),
            Scan::More => self.more(start),
            Scan::Broken(refusal) => self.broken_value(start, refusal),
        }
    }

    fn enter_array<T>(&mut self, start: usize) -> Result<Step<T>, Refusal> {
        self.at = start + 1;
        self.go(Form::Elements { expect: Expect::ItemOrEnd, around: Around::Sequence })
    }

    /// Reads a string, a number, a word, or an array of cells: one element that is not a ride.
    fn other_value<T: FromObject>(&mut self) -> Result<Step<T>, Refusal> {
        let start = self.at;
        match self.value(start) {
            Scan::Done(end, _) => match self.window.get(end) {
                None if !self.ended => self.more(start),
                None | Some(b',' | b'{' | b'[' | 0x1A | 0x1E | 0xEF) => self.other_element(start, end),
                Some(byte) if byte.is_ascii_whitespace() => self.other_element(start, end),
                Some(_) => {
                    let refusal = self.refuse("invalid_json", end, "expected a comma, white space or a new line");
                    self.broken_value(start, refusal)
                }
            },
            Scan::More => self.incomplete_value(start),
            Scan::Broken(refusal) => self.broken_value(start, refusal),
        }
    }

    fn other_element<T>(&mut self, start: usize, end: usize) -> Result<Step<T>, Refusal> {
        self.at = end;
        self.form = Form::Sequence { comma: true };
        Ok(self.element_at(start, end, Content::NotAnObject))
    }

    fn incomplete_value<T>(&mut self, start: usize) -> Result<Step<T>, Refusal> {
        if self.is_full(start) { self.large_value(start) } else { self.more(start) }
    }

    /// Handles a value that exceeds the maximum window. If other values start on lines within it, only its own line is broken.
    pub(super) fn large_value<T>(&mut self, start: usize) -> Result<Step<T>, Refusal> {
        let end = self.window.len().min(start + self.large());
        let within = self.window.get(start..end).unwrap_or_default();
        let until = match memchr(b'\n', within) {
            _ if !self.is_resilient => Until::Misaligned,
            None => Until::LineEnd,
            Some(line_end) => {
                let other_lines = within.get(line_end..).unwrap_or_default();
                if self.has_separate_object(start, other_lines) {
                    let refusal = self.refuse("invalid_json", end, "expected the end of a ride");
                    return self.broken_value(start, refusal);
                }
                Until::Misaligned
            }
        };
        self.enter_large(start, Form::Sequence { comma: true }, until)
    }
}

/// Returns whether a complete array contains an object at any depth.
fn contains_object(array: &[u8]) -> bool {
    let mut rest = array;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'{')) {
        let value = rest.get(at..).unwrap_or_default();
        match (value.first(), Skim::default().feed(value, Until::Balanced)) {
            (Some(b'"'), Stop::Balanced(end)) => rest = value.get(end..).unwrap_or_default(),
            (Some(b'"'), _) => return false,
            _ => return true,
        }
    }
    false
}
