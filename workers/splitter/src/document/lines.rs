//! Broken values in a sequence of lines: each rejects itself or the rest of its line, and never another ride.

use super::{
    element::{Content, HEAD_BYTES},
    envelope::Survey,
    large::several_on_a_line,
    parser::Document,
    refusal::Refusal,
    scan::object_length,
    skim::{Skim, Stop, Until},
    state::{Form, Step},
};
use memchr::{memchr, memchr_iter};

/// Number of bytes that may always be searched in vain.
const WASTE_FREE_BYTES: u64 = 1024 * 1024;
/// Above it, the limit of bytes searched in vain, as a multiple of the bytes read so far.
const WASTE_FACTOR: u64 = 4;
/// Limit of bytes searched for a ride in a broken line, as a multiple of its length.
const LINE_SEARCHES_MAX: usize = 16;

impl Document {
    /// Returns whether the limit of vain searches is reached, so that the end of a value is searched only on its own line. This
    /// keeps the work linear in the size of the document.
    pub(super) fn is_exhausted(&self, start: usize) -> bool {
        self.wasted > WASTE_FREE_BYTES
            && self.is_resilient
            && matches!(self.form, Form::Sequence { .. })
            && self.wasted > WASTE_FACTOR * (self.offset + start as u64)
    }

    /// Handles an unreadable value of a sequence at `start`; `refusal` is the reason.
    pub(super) fn broken_value<T>(&mut self, start: usize, refusal: Refusal) -> Result<Step<T>, Refusal> {
        if !self.is_resilient {
            return Err(refusal);
        }
        let rest = self.window.get(start..).unwrap_or_default();
        let mut skim = Skim::default();
        let stop = match rest.first() {
            Some(b'{' | b'[') => skim.feed(rest, Until::LineEnd),
            _ => memchr(b'\n', rest).map_or(Stop::Open, Stop::LineEnd),
        };
        match stop {
            Stop::Balanced(length) if length <= self.large() => {
                if skim.is_misaligned() && skim.has_seam() && hides_ride(self, start, start + length) {
                    return Err(several_on_a_line(self.refuse("invalid_json", start, "")));
                }
                self.broken_element(start, start + length)
            }
            Stop::LineEnd(length) if length <= self.large() => {
                let reached = usize::try_from(refusal.offset - self.offset).unwrap_or(usize::MAX);
                self.wasted += reached.saturating_sub(start + length) as u64;
                self.unbalanced_line(start, start + length)
            }
            Stop::Open | Stop::Misaligned(_) if rest.len() <= self.large() => {
                if !self.ended {
                    return self.more(start);
                }
                if refusal.code == "cut_short" {
                    return Err(refusal);
                }
                self.rest_of_line(start, self.window.len())
            }
            _ => self.enter_large(start, Form::Sequence { comma: true }, Until::LineEnd),
        }
    }

    /// Handles a value at `start` that does not end on its line. It may still be one value that spans several lines.
    fn unbalanced_line<T>(&mut self, start: usize, line_end: usize) -> Result<Step<T>, Refusal> {
        let starts_value = matches!(self.window.get(start), Some(b'{' | b'['));
        if !starts_value || self.is_exhausted(start) || self.options.records {
            return self.rest_of_line(start, line_end);
        }
        let rest = self.window.get(start..).unwrap_or_default();
        let limit = self.options.ride_bytes_max.max(line_end - start);
        let within = rest.get(..limit).unwrap_or(rest);
        let stop = Skim::default().feed(within, Until::Balanced);
        let end = match stop {
            Stop::Balanced(length) => start + length,
            _ if within.len() < limit && !self.ended => return self.more(start),
            _ => start + within.len(),
        };
        let other_lines = self.window.get(line_end..end).unwrap_or_default();
        let is_one_value = !self.has_separate_object(start, other_lines);
        match stop {
            Stop::Balanced(_) if is_one_value => self.broken_element(start, end),
            _ if is_one_value && within.len() < limit && !other_lines.trim_ascii().is_empty() => {
                Err(self.refuse("cut_short", self.window.len(), "expected the rest of a ride"))
            }
            _ => {
                self.wasted += (end - line_end) as u64;
                self.rest_of_line(start, line_end)
            }
        }
    }

    /// Returns whether one of the lines is an object that is indented no deeper than `start`, and so is a separate value.
    pub(super) fn has_separate_object(&self, start: usize, lines: &[u8]) -> bool {
        let indentation = usize::try_from(self.refuse("invalid_json", start, "").column - 1).unwrap_or(usize::MAX);
        lines.split(|byte| *byte == b'\n').any(|line| {
            let text = line.trim_ascii_start();
            line.len() - text.len() <= indentation && object_length(text).is_some()
        })
    }

    /// Treats the rest of the line as one broken ride, unless it contains a ride.
    fn rest_of_line<T>(&mut self, start: usize, line_end: usize) -> Result<Step<T>, Refusal> {
        if hides_ride(self, start, line_end) {
            return Err(several_on_a_line(self.refuse("invalid_json", start, "")));
        }
        self.broken_element(start, line_end)
    }

    fn broken_element<T>(&mut self, start: usize, end: usize) -> Result<Step<T>, Refusal> {
        self.at = end;
        self.form = Form::Sequence { comma: true };
        Ok(self.element_at(start, end, Content::Broken))
    }
}

/// Returns whether an object with a ride's field follows after `start`, or the search limit is reached.
fn hides_ride(document: &Document, start: usize, end: usize) -> bool {
    let line = document.window.get(start..end).unwrap_or_default();
    let mut budget = (line.len() + HEAD_BYTES).saturating_mul(LINE_SEARCHES_MAX);
    for brace in memchr_iter(b'{', line).filter(|brace| *brace > 0) {
        let text = line.get(brace..).unwrap_or_default();
        // A brace without a key starts no object with members. Any other brace costs the rest of the line.
        let is_key_next = text.get(1..).is_some_and(|inner| matches!(inner.trim_ascii_start().first(), Some(b'"')));
        if !is_key_next {
            continue;
        }
        budget = match budget.checked_sub(text.len()) {
            None => return true,
            Some(left) => left,
        };
        if let Some(length) = object_length(text)
            && Survey::of(text.get(..length).unwrap_or_default(), &document.reading.map).has_fields()
        {
            return true;
        }
    }
    false
}
