//! Explains an object that is not a ride: where in it the rides may be, and which option reads them there.

mod survey;
mod words;

pub(super) use survey::Survey;
pub(super) use words::Place;

use super::{Around, Document, Form, Refusal, Snippet};
use memchr::memchr2;

impl Document {
    /// Refuses the document if the element from `start` to `end`, or the one that begins with these bytes, would be
    /// several rides counted as one.
    #[cold]
    pub(super) fn check_element(&mut self, start: usize, end: usize) -> Result<(), Refusal> {
        let text = self.window.get(start..end).unwrap_or_default();
        let holds_more = text.get(1..).is_some_and(|inner| memchr2(b'{', b'[', inner).is_some());
        if !holds_more || self.options.records || self.reads_within {
            return Ok(());
        }
        let place = match self.form {
            Form::Elements { .. } => Place::InArray(self.elements),
            _ => Place::InSequence(self.elements),
        };
        let Some(why) = Survey::of(text, &self.reading.map).several_rides(place) else { return Ok(()) };
        let refusal = self.refuse_in_words(start, why);
        if matches!(self.form, Form::Elements { around: Around::Members, .. }) {
            self.envelope.get_or_insert(refusal);
            return Ok(());
        }
        Err(refusal)
    }

    /// A refusal `not_a_batch` whose text already says what was found.
    pub(super) fn refuse_in_words(&self, at: usize, why: String) -> Refusal {
        Refusal { snippet: Snippet::InWords, ..self.refuse("not_a_batch", at, &why) }
    }
}
