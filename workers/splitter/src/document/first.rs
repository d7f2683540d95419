//! The first object of a document: an envelope of the rides, a reference to them, or a ride.

use super::{
    element::{FromObject, Header},
    envelope::{Fields, Position, Survey},
    parser::{BYTE_ORDER_MARK, Document},
    refusal::Refusal,
    relaxed::word_length,
    scan::{SINGLE_QUOTES, is_scalar, object_length},
    skim::Until,
    state::{Around, Expect, Form, Scan, Step},
};
use common::{
    reading::RidesAt,
    text::{self, shorten},
};
use memchr::memchr;
use serde::de::DeserializeOwned;

/// What follows the complete first object.
enum Following {
    /// More bytes are needed.
    Unknown,
    Nothing,
    /// A value, on the same line or on a later one.
    Value {
        on_next_line: bool,
    },
    Junk,
}

impl Document {
    /// Reads one member of the first object.
    pub(super) fn member<T: FromObject>(&mut self, expect: Expect) -> Result<Step<T>, Refusal> {
        match (self.peek(), expect) {
            (None, _) => return self.incomplete_member(self.at),
            (Some(b'}'), Expect::ItemOrEnd | Expect::CommaOrEnd) => return self.object_end(self.at + 1),
            (Some(b','), Expect::CommaOrEnd) => {
                self.at += 1;
                return self.go(Form::Members(Expect::Item));
            }
            (Some(_), Expect::CommaOrEnd) => return self.broken_member(self.at, "expected `,` or `}`"),
            (Some(b'"'), _) => {}
            (Some(b'\''), _) => return self.broken_member(self.at, SINGLE_QUOTES),
            (Some(_), _) => return self.broken_member(self.at, "expected a key in double quotes"),
        }
        // The window advances past complete members only: an incomplete one is read again from its key.
        let key_start = self.at;
        let name = match self.key() {
            Scan::Done(_, name) => name,
            Scan::More => return self.incomplete_member(key_start),
            Scan::Broken(refusal) => return self.give_up(key_start, refusal),
        };
        let key = name.to_ascii_lowercase();
        let is_list = matches!(key.as_str(), "rides" | "travel_data");
        let (start, first) = match self.peek() {
            None => return self.incomplete_member(key_start),
            Some(b'[') if is_list => return self.enter_rides(key_start, &name),
            Some(first) => (self.at, first),
        };
        match self.value(start) {
            Scan::Done(end, instead) => {
                self.at = end;
                if is_list {
                    self.invalid_rides = Some(self.refuse("not_a_batch", start, &expected_array(&name, first)));
                }
                self.store_member(&key, start, if instead.is_some() { start } else { end });
                self.check_enclosing_ride(&key, key_start, first);
                let misfit = self.invalid_member.take_if(|_| self.hold.is_none());
                match misfit.or_else(|| self.enclosing_ride.take_if(|_| self.hold.is_none())) {
                    Some(refusal) => Err(refusal),
                    None => self.go(Form::Members(Expect::CommaOrEnd)),
                }
            }
            Scan::More if self.is_full(start) => self.object_is_large(start),
            Scan::More => self.more(key_start),
            Scan::Broken(refusal) => self.give_up(start, refusal),
        }
    }

    /// Reads the key at the cursor, trimmed, and moves the cursor past its colon.
    pub(super) fn key(&mut self) -> Scan<String> {
        let start = self.at;
        let key = match self.value(start) {
            Scan::Done(end, _) => {
                self.at = end;
                serde_json::from_slice::<String>(self.window.get(start..end).unwrap_or_default()).unwrap_or_default()
            }
            Scan::More => return Scan::More,
            Scan::Broken(refusal) => return Scan::Broken(refusal),
        };
        match self.peek() {
            None if self.ended => Scan::Broken(self.refuse("cut_short", self.at, "expected the rest of the object")),
            None => Scan::More,
            Some(b':') => {
                self.at += 1;
                Scan::Done(self.at, text::trimmed(&key).to_owned())
            }
            Some(_) => Scan::Broken(self.refuse("invalid_json", self.at, "expected `:`")),
        }
    }

    /// Handles the member at `key_start`, whose value is incomplete.
    fn incomplete_member<T>(&mut self, key_start: usize) -> Result<Step<T>, Refusal> {
        if self.is_full(key_start) {
            return match self.hold {
                Some(_) => self.object_is_large(key_start),
                None => Err(self.refuse("invalid_json", key_start, "expected a key of reasonable length")),
            };
        }
        if self.ended {
            return Err(self.refuse("cut_short", self.window.len(), "expected the rest of the object"));
        }
        self.more(key_start)
    }

    /// Skips a large value beside the rides. If the kind of the first object is unknown, its beginning determines it.
    fn object_is_large<T>(&mut self, value_start: usize) -> Result<Step<T>, Refusal> {
        let Some(start) = self.hold else {
            return self.enter_large(value_start, Form::Members(Expect::CommaOrEnd), Until::Misaligned);
        };
        if !self.is_reference() {
            self.forget_header();
            self.hold = None;
            self.form = Form::Sequence { comma: false };
            return self.large_value(start);
        }
        Err(self.refuse("not_a_batch", start, &format!("expected a reference of at most {} bytes", self.large())))
    }

    fn object_end<T>(&mut self, end: usize) -> Result<Step<T>, Refusal> {
        if let Some(start) = self.hold {
            return if self.is_beyond(start, end) {
                self.object_is_large(start)
            } else {
                self.first_object(start, end)
            };
        }
        self.at = end;
        match self.envelope.take().filter(|_| self.header.reading.map.is_empty()) {
            Some(refusal) => Err(refusal),
            None => self.go(Form::Trailing),
        }
    }

    /// Records a field of a ride beside the rides: the enclosing object would then be a ride that is lost.
    fn check_enclosing_ride(&mut self, key: &str, key_start: usize, first: u8) {
        let is_empty = matches!(first, b'{' | b'[' | b'n');
        if self.enclosing_ride.is_none() && !is_empty && Fields::of(key, &self.reading.map).has_measurement() {
            let why = format!(
                "expected rides in an array alone, but the object around the array has `{}` of a ride as well: hand in that \
                 ride as an element of the array, or leave its fields out",
                shorten(key, NAME_BYTES_MAX)
            );
            self.enclosing_ride = Some(self.refuse_in_words(key_start, why));
        }
    }

    fn enter_rides<T>(&mut self, key_start: usize, name: &str) -> Result<Step<T>, Refusal> {
        if self.is_beyond(key_start, self.at) {
            return self.object_is_large(key_start);
        }
        if self.hold.take().is_none() {
            return Err(self.refuse("not_a_batch", key_start, "expected one array of rides, not another"));
        }
        let misfit = self.invalid_member.take().or_else(|| self.invalid_rides.take());
        if let Some(refusal) = misfit.or_else(|| self.enclosing_ride.take()) {
            return Err(refusal);
        }
        if self.header.object.is_some() {
            return Err(self.refuse("not_a_batch", key_start, "expected either rides or `object`, not both"));
        }
        if self.header.reading.rides_at.is_some() {
            return Err(self.refuse("not_a_batch", key_start, RIDES_AT_INLINE));
        }
        self.at += 1;
        name.clone_into(&mut self.rides_key);
        self.go(Form::Elements { expect: Expect::ItemOrEnd, around: Around::Members })
    }

    /// Stores a member of the header; an empty value counts as null.
    fn store_member(&mut self, key: &str, from: usize, to: usize) {
        let text = self.window.get(from..to).filter(|text| !text.is_empty()).unwrap_or(b"null");
        let result = match key {
            "batch_id" => once(&mut self.header.batch_id, text),
            "source" => {
                // The source is only for people, so an invalid one is ignored.
                let _ = once(&mut self.header.source, text);
                Ok(())
            }
            "refresh" => {
                // Without a reference it has no meaning, so anything is allowed there.
                let _ = once(&mut self.header.refresh, text);
                Ok(())
            }
            "object" if self.hold.is_none() => match parse::<Option<String>>(text) {
                Ok(None) => Ok(()),
                _ => Err("expected either rides or `object`, not both".to_owned()),
            },
            "object" => once(&mut self.header.object, text),
            "sha256" => once(&mut self.header.sha256, text),
            "rides_at" if self.hold.is_none() => match parse::<Option<RidesAt>>(text) {
                Ok(None) => Ok(()),
                _ => Err(RIDES_AT_INLINE.to_owned()),
            },
            "rides_at" => once(&mut self.header.reading.rides_at, text),
            "map" => {
                let mut map = Some(std::mem::take(&mut self.header.reading.map)).filter(|map| !map.is_empty());
                let result = once(&mut map, text);
                self.header.reading.map = map.unwrap_or_default();
                result
            }
            "statustime" => {
                self.has_time_member = true;
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(why) =
            result.map_err(|why| if why.starts_with("expected") { why } else { format!("`{key}`: {why}") })
        {
            self.invalid_member = Some(self.refuse("not_a_batch", from, &why));
        }
    }

    /// Returns whether the first object is a reference. A ride may have a member `object`, too.
    fn is_reference(&self) -> bool {
        let is_ride = self.has_time_member && (self.header.sha256.is_none() || self.enclosing_ride.is_some());
        self.header.object.is_some() && !is_ride
    }

    /// Handles the end of a first object without an array of rides: a reference, a ride, or neither.
    fn first_object<T>(&mut self, start: usize, end: usize) -> Result<Step<T>, Refusal> {
        if !self.has_time_member {
            let invalid = self.invalid_member.take().filter(|_| self.header.object.is_some());
            if let Some(refusal) = invalid.or_else(|| self.invalid_rides.take()) {
                return Err(refusal);
            }
        }
        if self.is_reference() {
            self.hold = None;
            self.at = end;
            return self.go(Form::Trailing);
        }
        let text = self.window.get(start..end).unwrap_or_default();
        let survey = Survey::of(text, &self.reading.map);
        let is_on_one_line = memchr(b'\n', text).is_none();
        if let Some(why) = survey.several_rides(&Position::Alone) {
            return Err(self.refuse_in_words(start, why));
        }
        let why_no_ride = survey.no_ride();
        match self.following(end) {
            Following::Unknown => {
                self.wait_for = self.window.len() + 1;
                Ok(Step::Wait)
            }
            Following::Nothing => match why_no_ride {
                Some(why) => Err(self.refuse_in_words(start, why)),
                None => self.read_sequence_from(start),
            },
            Following::Value { on_next_line } => {
                self.is_resilient |= on_next_line && is_on_one_line;
                self.read_sequence_from(start)
            }
            Following::Junk => {
                let refusal = self.refuse("invalid_json", end, "expected another ride or a new line");
                self.undecided_because(refusal)
            }
        }
    }

    /// Classifies what follows the first object, up to the maximum window.
    fn following(&self, end: usize) -> Following {
        let rest = self.window.get(end..).unwrap_or_default();
        let is_all = self.ended || rest.len() > self.large();
        let rest = rest.get(..self.large()).unwrap_or(rest);
        let mut on_next_line = false;
        for (at, byte) in rest.iter().enumerate() {
            match byte {
                b'\n' => on_next_line = true,
                b' ' | b'\t' | b'\r' | 0x0B | 0x0C | 0x1A | 0x1E => {}
                b'{' | b'[' | b',' | b'"' => return Following::Value { on_next_line },
                0xEF if rest.len() - at < BYTE_ORDER_MARK.len() && !is_all => return Following::Unknown,
                0xEF => return Following::Value { on_next_line },
                _ if on_next_line => return Following::Value { on_next_line },
                _ => {
                    let word = rest.get(at..).unwrap_or_default();
                    let length = word_length(word);
                    return match word.get(..length).is_some_and(is_scalar) {
                        _ if length == word.len() && !is_all => Following::Unknown,
                        true => Following::Value { on_next_line },
                        false => Following::Junk,
                    };
                }
            }
        }
        if is_all { Following::Nothing } else { Following::Unknown }
    }

    fn read_sequence_from<T>(&mut self, start: usize) -> Result<Step<T>, Refusal> {
        self.forget_header();
        self.hold = None;
        self.at = start;
        self.go(Form::Sequence { comma: false })
    }

    fn forget_header(&mut self) {
        self.header = Header::default();
        self.invalid_member = None;
        self.invalid_rides = None;
        self.enclosing_ride = None;
    }

    /// Decides about an invalid first line. If the second line is an object, the first one is a broken ride.
    pub(super) fn decide_by_second_line<T>(&mut self) -> Result<Step<T>, Refusal> {
        let start = self.hold.unwrap_or(self.at);
        let end = self.window.len().min(start + self.large());
        let held = self.window.get(start..end).unwrap_or_default();
        let mut lines = held.split_inclusive(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        let second_is_object = match (lines.next(), lines.next()) {
            (Some(_), Some(second)) if second.ends_with(b"\n") => {
                let line = second.trim_ascii();
                object_length(line) == Some(line.len())
            }
            _ if self.ended || held.len() == self.large() => false,
            _ => {
                self.wait_for = self.window.len() + held.len();
                return Ok(Step::Wait);
            }
        };
        match self.refusal.take() {
            Some(refusal) if !second_is_object => Err(refusal),
            _ => {
                self.is_resilient = true;
                self.read_sequence_from(start)
            }
        }
    }

    pub(super) fn undecided_because<T>(&mut self, refusal: Refusal) -> Result<Step<T>, Refusal> {
        self.refusal = Some(refusal);
        self.go(Form::Undecided)
    }

    fn broken_member<T>(&mut self, at: usize, why: &str) -> Result<Step<T>, Refusal> {
        self.give_up(at, self.refuse("invalid_json", at, why))
    }

    /// Handles the broken value at `start`. While the kind of the first object is unknown, the following lines may still be
    /// read.
    fn give_up<T>(&mut self, start: usize, refusal: Refusal) -> Result<Step<T>, Refusal> {
        let from = self.hold.unwrap_or(start);
        if self.hold.is_none() || (refusal.code == "cut_short" && !self.is_resilient) {
            return Err(refusal);
        }
        if self.is_resilient {
            return self.read_sequence_from(from);
        }
        self.undecided_because(refusal)
    }
}

/// Maximum length of the reason why a member is invalid, bytes.
const WORDS_BYTES_MAX: usize = 200;
/// Maximum length of a name in a refusal, bytes.
const NAME_BYTES_MAX: usize = 32;
const RIDES_AT_INLINE: &str = "expected `rides_at` beside `object` alone: here the rides are at `rides`";

/// Explains the refusal of a member `rides` that is no array and starts with this byte.
fn expected_array(name: &str, first: u8) -> String {
    let actual = match first {
        b'{' => format!("an object: if its members are rides, `jq '{{{name}: [.{name}[]]}}'` makes an array of them"),
        b'"' => format!("a text: if it holds them as JSON, `jq '.{name} |= fromjson'` reads it"),
        b'n' => format!("null: leave it out, or write `{{\"{name}\":[]}}` for a batch without rides"),
        _ => "another value: hand in the rides as an array".to_owned(),
    };
    format!("expected `{name}` to be an array, not {actual}")
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, String> {
    serde_json::from_slice(json).map_err(|error| {
        let text = error.to_string();
        shorten(text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what), WORDS_BYTES_MAX).into_owned()
    })
}

/// Stores a member that may occur once; null counts as absent.
fn once<T: DeserializeOwned>(slot: &mut Option<T>, json: &[u8]) -> Result<(), String> {
    match parse::<Option<T>>(json)? {
        None => Ok(()),
        Some(_) if slot.is_some() => Err("given twice, expected it once".to_owned()),
        Some(value) => {
            *slot = Some(value);
            Ok(())
        }
    }
}
