//! Rides where the publisher says they are: along a path of members to an array, and on from each of its elements.

use super::{
    Around, Content, Document, Expect, Form, FromObject, Raw, Refusal, Step,
    envelope::{Place, Survey},
    members::{Lookup, Members},
    scan::Scan,
    skim::Until,
};
use common::contract::{outcome::shorten, reading::RidesAt, text};

/// Names of members that a refusal shows.
const NAMES_MAX: usize = 8;
const NAME_BYTES_MAX: usize = 32;

/// How far along its path the reader is.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Objects of the path that are open.
    depth: usize,
    /// The array was met in the outermost object that is open.
    has_met: bool,
    /// It was met in any.
    has_ever_met: bool,
    /// Members passed over in the innermost object.
    names: Vec<String>,
}

impl Document {
    fn rides_at(&self) -> RidesAt {
        self.reading.rides_at.clone().unwrap_or(RidesAt { array: Vec::new(), within: Vec::new() })
    }

    /// What comes next on the way to the rides.
    pub(super) fn path<T: FromObject>(&mut self, expect: Expect) -> Result<Step<T>, Refusal> {
        if self.walk.depth == 0 {
            return self.outermost();
        }
        match (self.peek(), expect) {
            (None, _) => return self.wait_or_cut_short("expected the rest of the object"),
            (Some(b'}'), Expect::ItemOrEnd | Expect::CommaOrEnd) if self.walk.has_met => {
                self.at += 1;
                self.walk.depth -= 1;
                return self.go(Form::Path(Expect::CommaOrEnd));
            }
            (Some(b'}'), Expect::ItemOrEnd | Expect::CommaOrEnd) => return Err(self.no_such_member()),
            (Some(b','), Expect::CommaOrEnd) => {
                self.at += 1;
                return self.go(Form::Path(Expect::Item));
            }
            (Some(_), Expect::CommaOrEnd) => return Err(self.refuse("invalid_json", self.at, "expected `,` or `}`")),
            (Some(b'"'), _) => {}
            (Some(_), _) => return Err(self.refuse("invalid_json", self.at, "expected a key in double quotes")),
        }
        let key_start = self.at;
        let key = match self.key() {
            Scan::Done(_, key) => key,
            Scan::More if self.window.len() - key_start > self.large() => {
                return Err(self.refuse("invalid_json", key_start, "expected a key of reasonable length"));
            }
            Scan::More => return self.more(key_start),
            Scan::Broken(refusal) => return Err(refusal),
        };
        let Some(first) = self.peek() else { return self.more_or_cut_short(key_start) };
        let at = self.rides_at();
        let is_on_path = at.array.get(self.walk.depth - 1).is_some_and(|name| is_same(name, &key));
        if !is_on_path {
            return self.pass_over_member(key_start, &key);
        }
        let is_last = self.walk.depth == at.array.len();
        match first {
            _ if self.walk.has_met => {
                let why = format!("expected one array of rides at `{at}`, not another");
                Err(self.refuse_in_words(key_start, why))
            }
            b'[' if is_last => {
                self.at += 1;
                self.walk.has_met = true;
                self.walk.has_ever_met = true;
                self.go(Form::Elements { expect: Expect::ItemOrEnd, around: Around::Path })
            }
            b'{' if !is_last => {
                self.at += 1;
                self.walk.depth += 1;
                self.walk.names.clear();
                self.go(Form::Path(Expect::ItemOrEnd))
            }
            _ => self.other_than_expected(key_start, is_last),
        }
    }

    /// Before, between and after the objects that hold an array of rides each.
    fn outermost<T>(&mut self) -> Result<Step<T>, Refusal> {
        match self.peek_value() {
            None if self.ended && !self.walk.has_ever_met => Err(self.refuse("empty", self.at, "expected rides")),
            None => Ok(Step::Wait),
            Some(b'{') => {
                self.at += 1;
                self.walk = Walk { depth: 1, has_ever_met: self.walk.has_ever_met, ..Walk::default() };
                self.go(Form::Path(Expect::ItemOrEnd))
            }
            Some(b',') if self.walk.has_ever_met => {
                self.at += 1;
                Ok(Step::Again)
            }
            Some(_) => {
                let at = self.rides_at();
                let why = format!(
                    "expected an object with an array of rides at `{at}`; leave rides_at out if they are below no member"
                );
                Err(self.refuse("not_a_batch", self.at, &why))
            }
        }
    }

    /// A member that the path does not lead through.
    fn pass_over_member<T>(&mut self, key_start: usize, key: &str) -> Result<Step<T>, Refusal> {
        let start = self.at;
        let is_beyond = |end: usize| end - start > self.large();
        match self.value(start) {
            Scan::Done(end, _) if !is_beyond(end) => self.at = end,
            Scan::More if !is_beyond(self.window.len()) => return self.more(key_start),
            Scan::Broken(refusal) if refusal.offset <= self.offset + (start + self.large()) as u64 => {
                return Err(refusal);
            }
            _ => {
                self.note(key);
                return self.enter_large(start, Form::Path(Expect::CommaOrEnd), Until::Misaligned);
            }
        }
        self.note(key);
        self.go(Form::Path(Expect::CommaOrEnd))
    }

    fn note(&mut self, key: &str) {
        if self.walk.names.len() < NAMES_MAX {
            self.walk.names.push(format!("`{}`", shorten(key, NAME_BYTES_MAX)));
        }
    }

    fn more_or_cut_short<T>(&mut self, start: usize) -> Result<Step<T>, Refusal> {
        if self.ended {
            return Err(self.refuse("cut_short", self.window.len(), "expected the rest of the object"));
        }
        self.more(start)
    }

    fn no_such_member(&self) -> Refusal {
        let at = self.rides_at();
        let name = at.array.get(self.walk.depth - 1).map_or("", String::as_str);
        let names = if self.walk.names.is_empty() { "no members".to_owned() } else { self.walk.names.join(", ") };
        let object = match at.array.get(..self.walk.depth - 1) {
            None | Some([]) => "the object".to_owned(),
            Some(before) => format!("`{}`", before.join(".")),
        };
        self.refuse_in_words(self.at, format!("expected `{name}` in {object}, as rides_at `{at}` says, found {names}"))
    }

    /// The member on the path is neither the array nor an object on the way to it.
    fn other_than_expected<T>(&mut self, key_start: usize, is_last: bool) -> Result<Step<T>, Refusal> {
        let start = self.at;
        let end = match self.value(start) {
            Scan::More if self.window.len() - start <= self.large() => return self.more(key_start),
            Scan::Done(end, _) => end.min(start + self.large()),
            Scan::More | Scan::Broken(_) => self.window.len().min(start + self.large()),
        };
        let text = self.window.get(start..end).unwrap_or_default();
        let found = match text.first() {
            Some(b'{') => format!("an object with {}", Survey::of(text, &self.reading.map).members_in_words()),
            Some(b'[') => "an array".to_owned(),
            Some(b'"') => "a text".to_owned(),
            _ => format!("`{}`", shorten(&String::from_utf8_lossy(text), NAME_BYTES_MAX)),
        };
        let at = self.rides_at();
        let here = at.array.get(..self.walk.depth).unwrap_or_default().join(".");
        let expected = if is_last { "an array of rides" } else { "an object" };
        let why = format!("expected {expected} at `{here}`, as rides_at `{at}` says, found {found}");
        Err(self.refuse_in_words(start, why))
    }

    /// The ride within the element from `start` to `end`, which is JSON; or the element itself where rides_at names no
    /// member of it.
    #[cold]
    pub(super) fn ride_within<T: FromObject>(&mut self, start: usize, end: usize) -> Result<Step<T>, Refusal> {
        let other = Step::Found { raw: Raw::Window(start, end), content: Content::NotAnObject };
        let instead = match self.value(start) {
            Scan::Done(_, instead) => instead,
            Scan::More | Scan::Broken(_) => None,
        };
        let raw = self.window.get(start..end).unwrap_or_default();
        let text = instead.as_deref().unwrap_or(raw);
        let within = self.rides_at().within;
        let refused = |json: &[u8]| {
            let survey = matches!(json.first(), Some(b'{' | b'[')).then(|| Survey::of(json, &self.reading.map))?;
            let why = survey.several_rides(Place::InArray(self.elements))?;
            Some(self.refuse_in_words(start, why))
        };
        if text.first() == Some(&b'[') {
            return refused(text).map_or(Ok(other), Err);
        }
        let found =
            Members::of(text).map_or(Lookup::Absent, |members| members.follow(within.iter().map(String::as_str)));
        let Lookup::Once(inner) = found else { return Ok(other) };
        let json = inner.get().as_bytes();
        if let Some(refusal) = refused(json) {
            return Err(refusal);
        }
        if json.first() != Some(&b'{') {
            return Ok(other);
        }
        let read = T::carefully(json, &self.reading.map);
        // Where something was read in its place, the element is shown whole.
        let from = match &instead {
            None => start + (json.as_ptr() as usize).saturating_sub(raw.as_ptr() as usize),
            Some(_) => start,
        };
        let to = if instead.is_none() { from + json.len() } else { end };
        Ok(Step::Found { raw: Raw::Window(from, to), content: Content::Object(read) })
    }
}

fn is_same(name: &str, key: &str) -> bool {
    text::trimmed(name).eq_ignore_ascii_case(key)
}
