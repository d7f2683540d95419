//! Skips a value that is too large for the window.

use super::{
    element::{Content, HEAD_BYTES},
    envelope::Survey,
    parser::Document,
    refusal::{Refusal, Snippet},
    skim::{Skim, Stop, Until},
    state::{Form, Large, Raw, Step},
};
use memchr::memchr;

impl Document {
    /// Skips the value at `start`, which is larger than the maximum window. `until` ends the search for its end; `back` is the
    /// form to return to.
    pub(super) fn enter_large<T>(&mut self, start: usize, back: Form, until: Until) -> Result<Step<T>, Refusal> {
        let end = self.window.len().min(start + self.large());
        let prefix = self.window.get(start..end).unwrap_or_default();
        let is_word = !matches!(prefix.first(), Some(b'{' | b'[' | b'"'));
        let is_element = matches!(back, Form::Elements { .. } | Form::Sequence { .. });
        let has_measurement = is_element && Survey::of(prefix, &self.reading.map).has_measurement();
        let snippet = Snippet::at(prefix);
        let head = prefix.iter().copied().take(HEAD_BYTES).collect();
        if is_word && until != Until::LineEnd {
            let why = format!("expected a value of at most {} bytes", self.large());
            return Err(self.refuse("ride_too_large", start, &why));
        }
        if is_element {
            self.check_element(start, end)?;
        }
        self.head = head;
        let origin = Refusal { snippet, ..self.refuse("invalid_json", start, "") };
        self.large = Some(Large { skim: Skim::default(), until, back, origin, is_word, has_measurement });
        self.hold = None;
        self.at = start;
        self.go(Form::Large)
    }

    pub(super) fn pass_over_large<T>(&mut self) -> Result<Step<T>, Refusal> {
        let Some(mut large) = self.large.take() else { return Ok(Step::Again) };
        let rest = self.window.get(self.at..).unwrap_or_default();
        let stop = if large.is_word {
            let end = memchr(b'\n', rest);
            large.skim.find_seams(rest.get(..end.unwrap_or(rest.len())).unwrap_or_default());
            end.map_or(Stop::Open, Stop::LineEnd)
        } else {
            large.skim.feed(rest, large.until)
        };
        match stop {
            Stop::Balanced(length) => {
                self.at += length;
                self.leave_large(large)
            }
            Stop::LineEnd(length) => {
                self.at += length;
                self.leave_broken_line(large)
            }
            Stop::Misaligned(length) => {
                Err(self.refuse("invalid_json", self.at + length, "expected the string before to end elsewhere"))
            }
            Stop::Open => {
                self.at = self.window.len();
                match self.ended {
                    true if large.is_word => self.leave_broken_line(large),
                    true => Err(self.refuse("cut_short", self.at, "expected the rest of a value")),
                    false => {
                        self.large = Some(large);
                        Ok(Step::Wait)
                    }
                }
            }
        }
    }

    /// Handles a complete large value.
    fn leave_large<T>(&mut self, large: Large) -> Result<Step<T>, Refusal> {
        self.form = large.back;
        if matches!(large.back, Form::Members(_) | Form::Path(_)) {
            return Ok(Step::Again);
        }
        if large.skim.is_misaligned() && large.skim.has_seam() {
            return Err(several_on_a_line(large.origin));
        }
        let is_checked = !self.options.records && !self.reads_within;
        if is_checked && large.skim.has_array_of_objects() && !large.has_measurement {
            let why = format!(
                "expected rides, but element {} is larger than {} bytes and holds an array of objects before any of a \
                 ride's fields: hand in that array alone",
                self.elements,
                self.large(),
            );
            return Err(Refusal { code: "not_a_batch", why, snippet: Snippet::InWords, ..large.origin });
        }
        Ok(Step::Found { raw: Raw::Head, content: Content::TooLarge })
    }

    /// Handles a large value without an end on its line.
    fn leave_broken_line<T>(&mut self, large: Large) -> Result<Step<T>, Refusal> {
        self.form = large.back;
        if large.skim.has_seam() {
            return Err(several_on_a_line(large.origin));
        }
        Ok(Step::Found { raw: Raw::Head, content: Content::TooLarge })
    }
}

/// Returns the refusal of a broken value that other rides may follow on the same line.
pub(super) fn several_on_a_line(place: Refusal) -> Refusal {
    let why = "expected whole objects: the value that starts here is broken, and more rides seem to follow it on the same \
               line; put one object on each line";
    Refusal { code: "invalid_json", why: why.to_owned(), ..place }
}
