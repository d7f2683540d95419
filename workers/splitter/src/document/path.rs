//! Reads rides at the path `rides_at`: along members to an array, and from there into each of its elements.

use super::{
    element::{Content, FromObject},
    envelope::{Position, Survey},
    members::{Lookup, Members},
    parser::Document,
    refusal::Refusal,
    skim::Until,
    state::{Around, Expect, Form, Raw, Scan, Step, Walk},
};
use common::{
    reading::RidesAt,
    text::{self, shorten, shorten_printable},
};

/// Maximum number of member names in a refusal.
const NAMES_MAX: usize = 8;
/// Maximum lengths of a name and of a path in a refusal, bytes.
const NAME_BYTES_MAX: usize = 32;
const PATH_BYTES_MAX: usize = 80;

impl Document {
    fn rides_at(&self) -> RidesAt {
        self.reading.rides_at.clone().unwrap_or(RidesAt { array: Vec::new(), within: Vec::new() })
    }

    /// Returns the path and its part up to the member at this depth, for messages.
    fn path_in_words(&self, depth: usize) -> (String, String) {
        let at = self.rides_at();
        let part = at.array.get(..depth).unwrap_or_default().join(".");
        (shorten(&at.to_string(), PATH_BYTES_MAX).into_owned(), shorten(&part, PATH_BYTES_MAX).into_owned())
    }

    /// Reads the next step of the path to the rides.
    pub(super) fn path<T: FromObject>(&mut self, expect: Expect) -> Result<Step<T>, Refusal> {
        if self.walk.depth == 0 {
            return self.outermost();
        }
        match (self.peek(), expect) {
            (None, _) => return self.wait_or_cut_short("expected the rest of the object"),
            (Some(b'}'), Expect::ItemOrEnd | Expect::CommaOrEnd) if self.walk.has_array => {
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
            Scan::More if self.is_full(key_start) => {
                return Err(self.refuse("invalid_json", key_start, "expected a key of reasonable length"));
            }
            Scan::More => return self.more(key_start),
            Scan::Broken(refusal) => return Err(refusal),
        };
        let Some(first) = self.peek() else { return self.more_or_cut_short(key_start) };
        let at = self.rides_at();
        let is_on_path = at.array.get(self.walk.depth - 1).is_some_and(|name| is_same(name, &key));
        if !is_on_path {
            return self.skip_member(key_start, &key);
        }
        let is_last = self.walk.depth == at.array.len();
        match first {
            _ if self.walk.has_array => {
                let (path, _) = self.path_in_words(0);
                Err(self.refuse_in_words(key_start, format!("expected one array of rides at `{path}`, not another")))
            }
            b'[' if is_last => {
                self.at += 1;
                self.walk.has_array = true;
                self.walk.has_any_array = true;
                self.go(Form::Elements { expect: Expect::ItemOrEnd, around: Around::Path })
            }
            b'{' if !is_last => {
                self.at += 1;
                self.walk.depth += 1;
                self.walk.names.clear();
                self.go(Form::Path(Expect::ItemOrEnd))
            }
            _ => self.unexpected_member(key_start, is_last),
        }
    }

    /// Reads the separators around the outermost objects, each of which has one array of rides.
    fn outermost<T>(&mut self) -> Result<Step<T>, Refusal> {
        match self.peek_value() {
            None if self.ended && !self.walk.has_any_array => Err(self.refuse("empty", self.at, "expected rides")),
            None => Ok(Step::Wait),
            Some(b'{') => {
                self.at += 1;
                self.walk = Walk { depth: 1, has_any_array: self.walk.has_any_array, ..Walk::default() };
                self.go(Form::Path(Expect::ItemOrEnd))
            }
            Some(b',') if self.walk.has_any_array => {
                self.at += 1;
                Ok(Step::Again)
            }
            Some(_) => {
                let (path, _) = self.path_in_words(0);
                let why = format!(
                    "expected an object with an array of rides at `{path}`; leave rides_at out if they are below no member"
                );
                Err(self.refuse("not_a_batch", self.at, &why))
            }
        }
    }

    /// Skips a member that is not on the path.
    fn skip_member<T>(&mut self, key_start: usize, key: &str) -> Result<Step<T>, Refusal> {
        let start = self.at;
        match self.value(start) {
            Scan::Done(end, _) => self.at = end,
            Scan::More if !self.is_full(start) => return self.more(key_start),
            Scan::Broken(refusal) => return Err(refusal),
            Scan::More => {
                self.record_name(key);
                return self.enter_large(start, Form::Path(Expect::CommaOrEnd), Until::Misaligned);
            }
        }
        self.record_name(key);
        self.go(Form::Path(Expect::CommaOrEnd))
    }

    fn record_name(&mut self, key: &str) {
        if self.walk.names.len() < NAMES_MAX {
            self.walk.names.push(format!("`{}`", shorten_printable(key, NAME_BYTES_MAX)));
        }
    }

    fn more_or_cut_short<T>(&mut self, start: usize) -> Result<Step<T>, Refusal> {
        if self.is_full(start) {
            return Err(self.refuse("invalid_json", start, "expected a value not so far from its key"));
        }
        if self.ended {
            return Err(self.refuse("cut_short", self.window.len(), "expected the rest of the object"));
        }
        self.more(start)
    }

    fn no_such_member(&self) -> Refusal {
        let at = self.rides_at();
        let name = at.array.get(self.walk.depth - 1).map_or("", String::as_str);
        let names = if self.walk.names.is_empty() { "no members".to_owned() } else { self.walk.names.join(", ") };
        let (path, before) = self.path_in_words(self.walk.depth - 1);
        let object = if before.is_empty() { "the object".to_owned() } else { format!("`{before}`") };
        let name = shorten(name, NAME_BYTES_MAX);
        self.refuse_in_words(
            self.at,
            format!("expected `{name}` in {object}, as rides_at `{path}` says, found {names}"),
        )
    }

    /// Refuses a member on the path that is neither the array nor an object on the way to it.
    fn unexpected_member<T>(&mut self, key_start: usize, is_last: bool) -> Result<Step<T>, Refusal> {
        let start = self.at;
        let end = match self.value(start) {
            Scan::More if !self.is_full(start) => return self.more(key_start),
            Scan::Done(end, _) => end,
            Scan::More => self.window.len().min(start + self.large()),
            Scan::Broken(refusal) => return Err(refusal),
        };
        let text = self.window.get(start..end).unwrap_or_default();
        let actual = match text.first() {
            Some(b'{') => format!("an object with {}", Survey::of(text, &self.reading.map).members_in_words()),
            Some(b'[') => "an array".to_owned(),
            Some(b'"') => "a text".to_owned(),
            _ => format!("`{}`", shorten_printable(&String::from_utf8_lossy(text), NAME_BYTES_MAX)),
        };
        let (path, here) = self.path_in_words(self.walk.depth);
        let expected = if is_last { "an array of rides" } else { "an object" };
        let why = format!("expected {expected} at `{here}`, as rides_at `{path}` says, found {actual}");
        Err(self.refuse_in_words(start, why))
    }

    /// Handles the ride within the element from `start` to `end`, which is JSON. Without such a member the element counts as not
    /// an object.
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
        let refusal_of = |json: &[u8]| {
            let survey = matches!(json.first(), Some(b'{' | b'[')).then(|| Survey::of(json, &self.reading.map))?;
            let position = Position::InArray { index: self.elements, elements: self.elements_for_jq(Around::Path) };
            let why = survey.several_rides(&position)?;
            Some(self.refuse_in_words(start, why))
        };
        if text.first() == Some(&b'[') {
            return refusal_of(text).map_or(Ok(other), Err);
        }
        let value =
            Members::of(text).map_or(Lookup::Absent, |members| members.follow(within.iter().map(String::as_str)));
        let Lookup::Once(inner) = value else { return Ok(other) };
        let json = inner.get().as_bytes();
        if let Some(refusal) = refusal_of(json) {
            return Err(refusal);
        }
        if json.first() != Some(&b'{') {
            return Ok(other);
        }
        let read = T::from_members(json, &self.reading.map);
        // If a replacement was read, the whole element counts as the raw bytes of the ride.
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
