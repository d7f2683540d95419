//! Decides whether an object is a ride or stands around rides, and explains where in it the rides may be and which option
//! reads them there.
//!
//! An object with every required field is a ride, whatever else it holds, unless it holds another complete ride: then it may
//! be one ride or several, and the document is refused. Any other object is refused as an envelope if an object in it has
//! more of a ride's fields than it has itself; an object with a time alone, or with identity alone, also if it holds an array
//! of objects. What lies deeper than the survey walks, or beyond what it notes by name, counts all the same. What is left is
//! one ride, which may lack fields.

mod survey;
mod words;

pub(super) use survey::{Fields, Survey};
pub(super) use words::{Place, jq_path};

use super::{Around, Document, Form, Refusal, Snippet};
use memchr::memchr2;

impl Document {
    /// Refuses the document if the element from `start` to `end`, or the one that begins with these bytes, would be
    /// several rides counted as one.
    #[cold]
    pub(super) fn check_element(&mut self, start: usize, end: usize) -> Result<(), Refusal> {
        let text = self.window.get(start..end).unwrap_or_default();
        if !holds_more(text) || self.options.records || self.reads_within {
            return Ok(());
        }
        let place = match self.form {
            Form::Elements { around, .. } => {
                Place::InArray { index: self.elements, elements: self.elements_for_jq(around) }
            }
            _ => Place::InSequence(self.elements),
        };
        let Some(why) = Survey::of(text, &self.reading.map).several_rides(&place) else { return Ok(()) };
        let refusal = self.refuse_in_words(start, why);
        if matches!(self.form, Form::Elements { around: Around::Members, .. }) {
            self.envelope.get_or_insert(refusal);
            return Ok(());
        }
        Err(refusal)
    }

    /// The elements of the array that is being read, as jq names them.
    pub(super) fn elements_for_jq(&self, around: Around) -> String {
        let path = match around {
            Around::Sequence => Some(".".to_owned()),
            Around::Members => jq_path(std::slice::from_ref(&self.list)),
            Around::Path => self.reading.rides_at.as_ref().and_then(|at| jq_path(&at.array)),
        };
        format!("{}[]", path.unwrap_or_else(|| ".".to_owned()))
    }

    /// A refusal `not_a_batch` whose text already says what was found.
    pub(super) fn refuse_in_words(&self, at: usize, why: String) -> Refusal {
        Refusal { snippet: Snippet::InWords, ..self.refuse("not_a_batch", at, &why) }
    }
}

/// Whether a value may hold another object or array.
#[inline]
pub(super) fn holds_more(value: &[u8]) -> bool {
    value.get(1..).is_some_and(|inner| memchr2(b'{', b'[', inner).is_some())
}
