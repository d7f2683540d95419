//! Decides whether an object is a ride or an envelope of rides, and explains where in an envelope the rides may be and which
//! option reads them there.
//!
//! An object with every required field is a ride, unless it contains another complete ride: then it is ambiguous, and the
//! document is refused. Any other object is refused as an envelope if an object in it has more of a ride's fields than it has
//! itself; an object with only a time or only identity is also refused if it contains an array of objects. Objects beyond the
//! depth or the number that the survey records by name count as well. Every remaining object is one ride, which may lack
//! fields.

mod survey;
mod words;

pub(super) use survey::{Fields, Survey, may_nest};
pub(super) use words::{Position, jq_path};

use super::{
    parser::Document,
    refusal::{Refusal, Snippet},
    state::{Around, Form},
};

impl Document {
    /// Refuses the document if the element from `start` to `end`, or the one that begins with these bytes, contains several
    /// rides.
    #[cold]
    pub(super) fn check_element(&mut self, start: usize, end: usize) -> Result<(), Refusal> {
        let text = self.window.get(start..end).unwrap_or_default();
        if !may_nest(text) || self.options.records || self.reads_within {
            return Ok(());
        }
        let position = match self.form {
            Form::Elements { around, .. } => {
                Position::InArray { index: self.elements, elements: self.elements_for_jq(around) }
            }
            _ => Position::InSequence(self.elements),
        };
        let Some(why) = Survey::of(text, &self.reading.map).several_rides(&position) else { return Ok(()) };
        let refusal = self.refuse_in_words(start, why);
        if matches!(self.form, Form::Elements { around: Around::Members, .. }) {
            self.envelope.get_or_insert(refusal);
            return Ok(());
        }
        Err(refusal)
    }

    /// Returns the jq expression for the elements of the current array.
    pub(super) fn elements_for_jq(&self, around: Around) -> String {
        let path = match around {
            Around::Sequence => Some(".".to_owned()),
            Around::Members => jq_path(std::slice::from_ref(&self.rides_key)),
            Around::Path => self.reading.rides_at.as_ref().and_then(|at| jq_path(&at.array)),
        };
        format!("{}[]", path.unwrap_or_else(|| ".".to_owned()))
    }

    /// Returns a refusal `not_a_batch` whose text already describes the content.
    pub(super) fn refuse_in_words(&self, at: usize, why: String) -> Refusal {
        Refusal { snippet: Snippet::InWords, ..self.refuse("not_a_batch", at, &why) }
    }
}
