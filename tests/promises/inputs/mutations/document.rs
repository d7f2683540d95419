//! Small valid documents in each form, and the expected outcome of a mutation.

use super::{
    super::{gzip, ride, zstd},
    draw::Draw,
};
use common::reading::Reading;
use serde_json::Value;

/// Rides of each document.
pub(super) const RIDES: usize = 8;

/// Keys of the rides, in the order of the columns of CSV.
pub(super) const KEYS: [&str; 8] =
    ["name", "statustime", "latitude", "longitude", "distance", "healthpoints", "magicpoints", "fieldservice"];

/// One mutation of a document.
pub(super) struct Mutation {
    /// Description of the mutation.
    pub(super) words: String,
    /// Name of the file, whose extension may promise another form.
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
    /// How it is read.
    pub(super) reading: Reading,
    pub(super) expected: Expected,
}

/// The expected outcome of a mutation.
pub(super) enum Expected {
    /// Every element in its place is accepted, or rejected for this reason.
    Read {
        /// By position in the document; `None` is accepted.
        elements: Vec<Option<&'static str>>,
        /// Cells of the dataset: position, column, value.
        cells: Vec<(usize, &'static str, String)>,
        /// Text that the report contains if all rides are rejected.
        words: Vec<String>,
    },
    /// The document is refused as a whole, with one of these codes and with all of these texts in the reason.
    Refused { codes: &'static [&'static str], words: Vec<String> },
    /// Either the document is read as if it were undamaged, or it is refused with one of these codes.
    ReadOrRefused { codes: &'static [&'static str] },
    /// Checked against a plain reader of the text.
    Damaged(Damaged),
}

/// A damaged text.
pub(super) struct Damaged {
    pub(super) text: Vec<u8>,
    /// Its first byte that differs.
    pub(super) at: usize,
    pub(super) form: Form,
}

/// How rides are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Array,
    TravelData,
    Rides,
    Lines,
    Concatenated,
    Csv,
}

pub(super) const FORMS: [Form; 6] =
    [Form::Array, Form::TravelData, Form::Rides, Form::Lines, Form::Concatenated, Form::Csv];
/// The forms of JSON.
pub(super) const JSON_FORMS: [Form; 5] = [Form::Array, Form::TravelData, Form::Rides, Form::Lines, Form::Concatenated];

impl Form {
    pub(super) fn write(self, rides: &[Ride]) -> String {
        let json: Vec<String> = rides.iter().map(Ride::json).collect();
        match self {
            Self::Array => format!("[{}]", json.join(",\n")),
            Self::TravelData => format!(r#"{{"travel_data": [{}]}}"#, json.join(", ")),
            Self::Rides => format!("{{\"source\": \"test\",\n\"rides\": [\n{}\n]}}\n", json.join(",\n")),
            Self::Lines => json.iter().map(|ride| format!("{ride}\n")).collect(),
            Self::Concatenated => json.concat(),
            Self::Csv => Dialect::default().write(rides),
        }
    }
}

/// How a table is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialect {
    pub(super) delimiter: char,
    pub(super) line_end: &'static str,
    pub(super) quotes_all: bool,
}

impl Default for Dialect {
    fn default() -> Self {
        Self { delimiter: ',', line_end: "\n", quotes_all: false }
    }
}

impl Dialect {
    /// A header with the keys of the first ride, and a row for each.
    pub(super) fn write(self, rides: &[Ride]) -> String {
        let keys: Vec<&str> = rides.first().into_iter().flat_map(|ride| &ride.0).map(|(key, _)| key.as_str()).collect();
        let mut text = self.row(keys.iter().map(ToString::to_string));
        for ride in rides {
            text.push_str(&self.row(keys.iter().map(|key| ride.cell(key))));
        }
        text
    }

    /// One row with its end.
    pub(super) fn row(self, cells: impl Iterator<Item = String>) -> String {
        let cells: Vec<String> = cells.map(|cell| self.cell(&cell)).collect();
        cells.join(&self.delimiter.to_string()) + self.line_end
    }

    fn cell(self, text: &str) -> String {
        if self.quotes_all || text.contains([self.delimiter, '"', '\n', '\r']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text.to_owned()
        }
    }
}

/// A ride as it is written: each key with its value in JSON, or in what Python and R write as JSON.
#[derive(Debug, Clone)]
pub(super) struct Ride(pub(super) Vec<(String, String)>);

impl Ride {
    fn nth(n: usize) -> Self {
        let value: Value = serde_json::from_str(&ride(n)).expect("a ride");
        Self(KEYS.map(|key| (key.to_owned(), value[key].to_string())).into())
    }

    pub(super) fn json(&self) -> String {
        let members: Vec<String> =
            self.0.iter().map(|(key, value)| format!("{}:{value}", serde_json::json!(key))).collect();
        format!("{{{}}}", members.join(","))
    }

    /// The text of a cell; empty if there is no such key.
    fn cell(&self, key: &str) -> String {
        let value = self.0.iter().find(|(name, _)| name == key).map_or("null", |(_, value)| value);
        match serde_json::from_str::<Value>(value) {
            Ok(Value::String(text)) => text,
            Ok(Value::Null) => String::new(),
            _ => value.to_owned(),
        }
    }

    pub(super) fn set(&mut self, key: &str, value: &str) {
        let member = self.0.iter_mut().find(|(name, _)| name == key).expect("a key of the ride");
        member.1 = value.to_owned();
    }

    pub(super) fn rename(&mut self, key: &str, name: &str) {
        let member = self.0.iter_mut().find(|(known, _)| known == key).expect("a key of the ride");
        member.0 = name.to_owned();
    }

    pub(super) fn number(&self, key: &str) -> f64 {
        self.cell(key).parse().expect("a number")
    }
}

pub(super) fn rides() -> Vec<Ride> {
    (0..RIDES).map(Ride::nth).collect()
}

/// How the text of a document is wrapped.
#[derive(Debug, Clone, Copy)]
enum Wrapping {
    None,
    Mark,
    Gzip,
    Zstd,
    Utf16Le,
    Utf16Be,
    GzipOfUtf16,
}

impl Wrapping {
    fn around(self, text: &str) -> Vec<u8> {
        match self {
            Self::None => text.into(),
            Self::Mark => format!("\u{feff}{text}").into(),
            Self::Gzip => gzip(text.as_bytes()),
            Self::Zstd => zstd(text.as_bytes()),
            Self::Utf16Le => utf16(text, u16::to_le_bytes),
            Self::Utf16Be => utf16(text, u16::to_be_bytes),
            Self::GzipOfUtf16 => gzip(&utf16(text, u16::to_le_bytes)),
        }
    }
}

/// UTF-16 with its mark.
pub(super) fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    std::iter::once(0xFEFF).chain(text.encode_utf16()).flat_map(unit).collect()
}

const NAMES: [&str; 6] = ["rides.json", "rides.ndjson", "rides.jsonl", "rides.csv", "rides.txt", "rides"];

impl Mutation {
    /// Rides in a random form and wrapping, with these expectations by position.
    pub(super) fn of_rides(
        draw: &mut Draw,
        words: impl Into<String>,
        form: Form,
        rides: &[Ride],
        elements: Vec<Option<&'static str>>,
    ) -> Self {
        let expected = Expected::Read { elements, cells: Vec::new(), words: Vec::new() };
        Self::of_text(draw, format!("{form:?}: {}", words.into()), &form.write(rides), expected)
    }

    /// Wraps a text in a random way.
    pub(super) fn of_text(draw: &mut Draw, words: impl Into<String>, text: &str, expected: Expected) -> Self {
        use Wrapping::{Gzip, GzipOfUtf16, Mark, None, Utf16Be, Utf16Le, Zstd};
        let wrapping = draw.one_of(&[None, None, None, None, Mark, Gzip, Zstd, Utf16Le, Utf16Be, GzipOfUtf16]);
        let words = format!("{}, wrapping {wrapping:?}", words.into());
        Self::of_bytes(draw, words, wrapping.around(text), expected)
    }

    /// Exactly these bytes.
    pub(super) fn of_bytes(draw: &mut Draw, words: impl Into<String>, bytes: Vec<u8>, expected: Expected) -> Self {
        let name = draw.one_of(&NAMES);
        Self { words: words.into(), name, bytes, reading: Reading::default(), expected }
    }

    /// With a cell of the dataset that must have this value.
    pub(super) fn with_cell(mut self, position: usize, column: &'static str, value: impl ToString) -> Self {
        if let Expected::Read { cells, .. } = &mut self.expected {
            cells.push((position, column, value.to_string()));
        }
        self
    }

    /// Adds a text that the report must contain if all rides are rejected.
    pub(super) fn with_words(mut self, part: impl Into<String>) -> Self {
        if let Expected::Read { words, .. } = &mut self.expected {
            words.push(part.into());
        }
        self
    }
}

/// All rides accepted.
pub(super) fn all_accepted() -> Vec<Option<&'static str>> {
    vec![None; RIDES]
}

/// All accepted but the one at this position.
pub(super) fn all_but(position: usize, reason: &'static str) -> Vec<Option<&'static str>> {
    let mut elements = all_accepted();
    elements[position] = Some(reason);
    elements
}
