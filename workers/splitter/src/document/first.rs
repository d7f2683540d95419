//! The first object of a document: is it around the rides, a reference to them, or a ride itself?

use super::{
    Document, Expect, Form, FromObject, Header, Refusal, Step,
    scan::{Scan, is_object},
};
use memchr::memchr;

impl Document {
    /// One member of the object that is, or is around, the rides.
    pub(super) fn member<T: FromObject>(&mut self, expect: Expect) -> Result<Step<T>, Refusal> {
        let waiting = "expected the rest of the object";
        match (self.peek(), expect) {
            (None, _) => return self.wait_or_cut_short(waiting),
            (Some(b'}'), Expect::ItemOrEnd | Expect::CommaOrEnd) => {
                let end = self.at + 1;
                return match self.hold {
                    Some(start) => self.first_object(start, end),
                    None => {
                        self.at = end;
                        self.go(Form::Trailing)
                    }
                };
            }
            (Some(b','), Expect::CommaOrEnd) => {
                self.at += 1;
                return self.go(Form::Members(Expect::Item));
            }
            (Some(_), Expect::CommaOrEnd) => return self.broken_member(self.at, "expected `,` or `}`"),
            (Some(b'"'), _) => {}
            (Some(_), _) => return self.broken_member(self.at, "expected a key in double quotes"),
        }
        // The window moves on only past a whole member: until then it is read again from its key.
        let key_start = self.at;
        let key = match self.value(key_start) {
            Scan::Done(end, ()) => {
                self.at = end;
                serde_json::from_slice::<String>(self.window.get(key_start..end).unwrap_or_default())
                    .unwrap_or_default()
                    .to_ascii_lowercase()
            }
            Scan::More => return self.more(key_start, waiting),
            Scan::Broken(refusal) => return self.give_up(refusal),
        };
        match self.peek() {
            None => return self.more(key_start, waiting),
            Some(b':') => self.at += 1,
            Some(_) => return self.broken_member(self.at, "expected `:`"),
        }
        let is_list = matches!(key.as_str(), "rides" | "travel_data");
        match self.peek() {
            None => self.more(key_start, waiting),
            Some(b'[') if is_list => self.enter_rides(key_start),
            Some(_) => {
                let start = self.at;
                match self.value(start) {
                    Scan::Done(end, ()) => {
                        self.bounded(self.hold.unwrap_or(key_start), end)?;
                        self.at = end;
                        if is_list {
                            let why = format!("expected `{key}` to be an array");
                            self.listless = Some(self.refuse("not_a_batch", start, &why));
                        }
                        self.remember(&key, start, end);
                        match self.odd_member.take_if(|_| self.hold.is_none()) {
                            Some(refusal) => Err(refusal),
                            None => self.go(Form::Members(Expect::CommaOrEnd)),
                        }
                    }
                    Scan::More => self.more(key_start, waiting),
                    Scan::Broken(refusal) => self.give_up(refusal),
                }
            }
        }
    }

    fn enter_rides<T>(&mut self, key_start: usize) -> Result<Step<T>, Refusal> {
        self.bounded(self.hold.unwrap_or(key_start), self.at)?;
        if self.hold.take().is_none() {
            return Err(self.refuse("not_a_batch", key_start, "expected one array of rides, found another"));
        }
        if let Some(refusal) = self.odd_member.take().or_else(|| self.listless.take()) {
            return Err(refusal);
        }
        if self.header.object.is_some() {
            return Err(self.refuse("not_a_batch", key_start, "expected either rides or `object`, found both"));
        }
        self.at += 1;
        self.go(Form::Elements { expect: Expect::ItemOrEnd, in_object: true })
    }

    /// Keeps the members of the header that mean something.
    fn remember(&mut self, key: &str, from: usize, to: usize) {
        let is_new = match key {
            "batch_id" => self.header.batch_id.is_none(),
            "source" => self.header.source.is_none(),
            "object" => self.header.object.is_none() && (self.hold.is_some()),
            "sha256" => self.header.sha256.is_none(),
            "statustime" => {
                self.timed = true;
                return;
            }
            _ => return,
        };
        let value = serde_json::from_slice::<Option<String>>(self.window.get(from..to).unwrap_or_default());
        match value {
            Ok(None) => {}
            Ok(Some(text)) if is_new => match key {
                "batch_id" => self.header.batch_id = Some(text),
                "source" => self.header.source = Some(text),
                "object" => self.header.object = Some(text),
                _ => self.header.sha256 = Some(text),
            },
            _ if key == "source" => {}
            _ => {
                let why = match (key, self.hold) {
                    ("object", None) => "expected either rides or `object`, found both".to_owned(),
                    _ => format!("expected `{key}` once, as a string"),
                };
                self.odd_member = Some(self.refuse("not_a_batch", from, &why));
            }
        }
    }

    /// The first object ended without an array of rides in it: a reference, or the first of many rides.
    fn first_object<T>(&mut self, start: usize, end: usize) -> Result<Step<T>, Refusal> {
        self.bounded(start, end)?;
        if !self.timed {
            let odd = self.odd_member.take().filter(|_| self.header.object.is_some());
            if let Some(refusal) = odd.or_else(|| self.listless.take()) {
                return Err(refusal);
            }
            if self.header.object.is_some() {
                self.hold = None;
                self.at = end;
                return self.go(Form::Trailing);
            }
        }
        let rest = self.window.get(end..).unwrap_or_default();
        let follows = rest.iter().take(self.large()).find(|byte| !matches!(byte, b' ' | b'\t' | b'\r'));
        let form = match follows {
            None if !self.ended && rest.len() < self.large() => {
                self.wait_for = self.window.len() + 1;
                return Ok(Step::Wait);
            }
            Some(b'\n') if memchr(b'\n', self.window.get(start..end).unwrap_or_default()).is_none() => {
                Form::Lines { skipping: false }
            }
            None | Some(b'\n' | b'{') => Form::Concatenated,
            Some(_) => {
                let refusal = self.refuse("invalid_json", end, "expected another ride or a new line");
                return self.go(Form::Doubt(refusal));
            }
        };
        self.read_from(start, form)
    }

    fn read_from<T>(&mut self, start: usize, form: Form) -> Result<Step<T>, Refusal> {
        self.header = Header::default();
        self.odd_member = None;
        self.hold = None;
        self.at = start;
        self.go(form)
    }

    /// The first line makes no sense. If the second is a whole object, the first is one broken ride among many.
    pub(super) fn doubt<T>(&mut self) -> Result<Step<T>, Refusal> {
        let Form::Doubt(refusal) = self.form.clone() else { return Ok(Step::Again) };
        let start = self.hold.unwrap_or(self.at);
        let end = self.window.len().min(start + self.large());
        let held = self.window.get(start..end).unwrap_or_default();
        let mut lines = held.split_inclusive(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        match (lines.next(), lines.next()) {
            (Some(_), Some(second)) if second.ends_with(b"\n") => {
                if is_object(second) {
                    self.read_from(start, Form::Lines { skipping: false })
                } else {
                    Err(refusal)
                }
            }
            _ if self.ended || held.len() == self.large() => Err(refusal),
            _ => {
                self.wait_for = self.window.len() + held.len();
                Ok(Step::Wait)
            }
        }
    }

    fn broken_member<T>(&mut self, at: usize, why: &str) -> Result<Step<T>, Refusal> {
        self.give_up(self.refuse("invalid_json", at, why))
    }

    /// While it is open what the first object is, there may still be lines to save.
    fn give_up<T>(&mut self, refusal: Refusal) -> Result<Step<T>, Refusal> {
        let Some(start) = self.hold else { return Err(refusal) };
        self.bounded(start, self.at)?;
        if refusal.code == "cut_short" {
            return Err(refusal);
        }
        self.go(Form::Doubt(refusal))
    }
}
