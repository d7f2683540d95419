//! A plain reader of documents, and the expected outcome of each ride: JSON by `serde_json`, CSV by the `csv` crate,
//! each ride checked against the description of a ride only. Nothing here uses the code under test.

use super::document::Form;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::{collections::BTreeSet, fmt};

/// Maximum distance of a ride in miles, and maximum absolute value of points.
const DISTANCE_MAX: f64 = 1e6;
const POINTS_MAX: f64 = 1e9;

/// A value of JSON. An object keeps members that are given twice.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Object(Vec<(String, Node)>),
    Array(Vec<Node>),
    Text(String),
    Number(f64),
    Boolean(bool),
    Null,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Boolean(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value as f64))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value as f64))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Number(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }
    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Node, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = sequence.next_element()? {
            elements.push(element);
        }
        Ok(Node::Array(elements))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Node::Object(members))
    }
}

/// What a plain reader finds.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    /// Elements at the places of rides, up to the first break.
    pub(super) before: Vec<Node>,
    /// Elements on whole lines after the last line with a break.
    pub(super) after: Vec<Node>,
    /// Whether it read all of the document.
    pub(super) is_whole: bool,
}

impl Found {
    /// Objects at the places of rides.
    pub(super) fn objects(&self) -> u64 {
        let objects = self.before.iter().chain(&self.after).filter(|node| matches!(node, Node::Object(_)));
        objects.count() as u64
    }
}

/// Reads a document in that form.
pub(super) fn read(text: &[u8], form: Form) -> Found {
    if form == Form::Csv {
        return read_csv(text);
    }
    let (before, is_whole) = sequence(text);
    let mut after = Vec::new();
    if form == Form::Lines && !is_whole {
        for line in text.split(|byte| *byte == b'\n') {
            match sequence(line) {
                (elements, true) => after.extend(elements),
                (_, false) => after.clear(),
            }
        }
    }
    Found { before, after, is_whole }
}

/// Elements of values one after the other, and whether all could be read.
fn sequence(text: &[u8]) -> (Vec<Node>, bool) {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut elements = Vec::new();
    for value in serde_json::Deserializer::from_slice(text).into_iter::<Node>() {
        match value {
            Err(_) => return (elements, false),
            Ok(Node::Array(inner)) => elements.extend(inner),
            Ok(Node::Object(members)) => match rides_member(&members) {
                Some(inner) => elements.extend(inner.iter().cloned()),
                None => elements.push(Node::Object(members)),
            },
            Ok(other) => elements.push(other),
        }
    }
    (elements, true)
}

fn rides_member(members: &[(String, Node)]) -> Option<&[Node]> {
    let is_list = |key: &str| matches!(trimmed(key).to_ascii_lowercase().as_str(), "rides" | "travel_data");
    members.iter().find_map(|(key, value)| match value {
        Node::Array(inner) if is_list(key) => Some(inner.as_slice()),
        _ => None,
    })
}

/// The rows of a table as objects of texts, without empty cells; a row with another number of cells as an array.
fn read_csv(text: &[u8]) -> Found {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
    let mut rows = reader.byte_records();
    let Some(Ok(header)) = rows.next() else { return Found { is_whole: true, ..Found::default() } };
    let name = |cell: &[u8]| trimmed(&String::from_utf8_lossy(cell)).to_owned();
    let names: Vec<String> = header.iter().map(name).collect();
    let mut before = Vec::new();
    let mut is_whole = std::str::from_utf8(text).is_ok();
    for row in rows {
        let Ok(row) = row else {
            is_whole = false;
            break;
        };
        let mut cells: Vec<String> = row.iter().map(|cell| String::from_utf8_lossy(cell).into_owned()).collect();
        if cells.len() == 1 && trimmed(&cells[0]).is_empty() {
            continue;
        }
        // Blank cells beyond the header are ignored.
        while cells.len() > names.len() && cells.last().is_some_and(|cell| trimmed(cell).is_empty()) {
            cells.pop();
        }
        before.push(if cells.len() == names.len() {
            let members = names.iter().cloned().zip(cells).filter(|(_, cell)| !cell.is_empty());
            Node::Object(members.map(|(name, cell)| (name, Node::Text(cell))).collect())
        } else {
            Node::Array(cells.into_iter().map(Node::Text).collect())
        });
    }
    Found { before, after: Vec::new(), is_whole }
}

/// The expected outcome of an element.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Judgement {
    /// Reasons, one of which the reject must give; empty for a ride that must be accepted.
    pub(super) must: BTreeSet<&'static str>,
    /// Reasons that are also allowed.
    pub(super) may: BTreeSet<&'static str>,
}

impl Judgement {
    /// Returns whether an element may be accepted, or rejected for that reason.
    pub(super) fn allows(&self, reason: Option<&str>) -> bool {
        match reason {
            None => self.must.is_empty(),
            Some(reason) => self.must.contains(reason) || self.may.contains(reason),
        }
    }
}

/// Checks an element against the description of a ride.
pub(super) fn judge(node: &Node) -> Judgement {
    let mut judgement = Judgement::default();
    let Node::Object(members) = node else {
        judgement.must.insert("not_an_object");
        return judgement;
    };
    let field = |name: &str| {
        let mut values = members.iter().filter(|(key, _)| trimmed(key).to_lowercase() == name).map(|(_, value)| value);
        (values.next(), values.next().is_some())
    };
    for (name, missing, invalid, range, outside) in NUMBERS {
        match field(name) {
            (_, true) => drop(judgement.must.insert("duplicate_field")),
            (value, false) => judgement.must.extend(number_at_fault(value, missing, invalid, range, outside)),
        }
    }
    match field("statustime") {
        (_, true) => drop(judgement.must.insert("duplicate_field")),
        (value, false) => judge_time(value, &mut judgement),
    }
    match field("fieldservice") {
        (_, true) => drop(judgement.must.insert("duplicate_field")),
        (Some(value), false) if !is_label(value) => drop(judgement.must.insert("invalid_fieldservice")),
        _ => {}
    }
    for (name, invalid) in [("name", "invalid_name"), ("breed", "invalid_breed")] {
        match field(name) {
            (_, true) => drop(judgement.must.insert("duplicate_field")),
            (Some(Node::Text(_) | Node::Null) | None, false) => {}
            _ => drop(judgement.must.insert(invalid)),
        }
    }
    judgement
}

/// Name, reasons for a missing value and for one that is not a number, range, reasons below and above it.
type NumberField = (&'static str, &'static str, &'static str, [f64; 2], [&'static str; 2]);

const NUMBERS: [NumberField; 5] = [
    ("latitude", "missing_latitude", "invalid_latitude", [-90.0, 90.0], ["latitude_out_of_range"; 2]),
    ("longitude", "missing_longitude", "invalid_longitude", [-180.0, 180.0], ["longitude_out_of_range"; 2]),
    (
        "distance",
        "missing_distance",
        "invalid_distance",
        [0.0, DISTANCE_MAX],
        ["negative_distance", "distance_out_of_range"],
    ),
    (
        "healthpoints",
        "missing_healthpoints",
        "invalid_healthpoints",
        [-POINTS_MAX, POINTS_MAX],
        ["healthpoints_out_of_range"; 2],
    ),
    (
        "magicpoints",
        "missing_magicpoints",
        "invalid_magicpoints",
        [-POINTS_MAX, POINTS_MAX],
        ["magicpoints_out_of_range"; 2],
    ),
];

fn number_at_fault(
    value: Option<&Node>,
    missing: &'static str,
    invalid: &'static str,
    [least, most]: [f64; 2],
    [below, above]: [&'static str; 2],
) -> Option<&'static str> {
    let number = match value {
        None | Some(Node::Null) => return Some(missing),
        Some(Node::Text(text)) if trimmed(text).is_empty() => return Some(missing),
        Some(Node::Text(text)) => number(text),
        Some(Node::Number(number)) => Some(*number),
        Some(_) => None,
    };
    match number {
        None => Some(invalid),
        Some(number) if number < least => Some(below),
        Some(number) if number > most => Some(above),
        Some(_) => None,
    }
}

fn judge_time(value: Option<&Node>, judgement: &mut Judgement) {
    match value {
        None | Some(Node::Null) => drop(judgement.must.insert("missing_statustime")),
        Some(Node::Text(text)) if trimmed(text).is_empty() => drop(judgement.must.insert("missing_statustime")),
        // Which damaged times still name one moment is left to the unit tests of times.
        Some(Node::Text(text)) if !is_plain_time(text) => drop(judgement.may.insert("invalid_statustime")),
        Some(Node::Text(_)) => {}
        Some(Node::Number(number)) if (1e8..1e10).contains(number) || (1e11..1e13).contains(number) => {}
        Some(_) => drop(judgement.must.insert("invalid_statustime")),
    }
}

/// `YYYY-MM-DD HH:MM:SS` on a day and at a time that every month and day has.
fn is_plain_time(text: &str) -> bool {
    let pattern = b"dddd-dd-dd dd:dd:dd";
    let fits = |(byte, pattern): (u8, &u8)| if *pattern == b'd' { byte.is_ascii_digit() } else { byte == *pattern };
    let within = |from: usize, least: u32, most: u32| {
        text.get(from..from + 2)
            .and_then(|digits| digits.parse::<u32>().ok())
            .is_some_and(|n| (least..=most).contains(&n))
    };
    text.len() == pattern.len()
        && text.bytes().zip(pattern).all(fits)
        && within(5, 1, 12)
        && within(8, 1, 28)
        && within(11, 0, 23)
        && within(14, 0, 59)
        && within(17, 0, 59)
        && !text.starts_with("000")
}

fn is_label(value: &Node) -> bool {
    match value {
        Node::Null | Node::Boolean(_) => true,
        Node::Number(number) => *number == 0.0 || *number == 1.0,
        Node::Text(text) => {
            let text = trimmed(text).to_lowercase();
            let is_word = ["", "null", "nan", "-nan", "+nan", "na", "true", "false"].contains(&text.as_str());
            is_word || number(&text).is_some_and(|number| number == 0.0 || number == 1.0)
        }
        Node::Object(_) | Node::Array(_) => false,
    }
}

fn number(text: &str) -> Option<f64> {
    let text = trimmed(text);
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    text.parse().ok().filter(|number: &f64| is_decimal && number.is_finite())
}

/// Without blanks and characters that take no room, at both ends.
fn trimmed(text: &str) -> &str {
    let takes_no_room = |c: char| {
        c.is_whitespace()
            || c.is_ascii_control()
            || ['\u{feff}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{2060}'].contains(&c)
    };
    text.trim_matches(takes_no_room)
}

#[cfg(test)]
mod tests {
    use super::{super::document, *};

    #[test]
    fn a_plain_reader_counts_what_is_there() {
        for form in document::FORMS {
            let reading = read(form.write(&document::rides()).as_bytes(), form);
            assert_eq!((reading.objects(), reading.is_whole), (document::RIDES as u64, true), "{form:?}");
            for element in &reading.before {
                assert_eq!(judge(element), Judgement::default(), "{form:?}: {element:?}");
            }
        }
        let lines = read(b"{\"a\":1}{\"a\":2}\n{\"a\":\n[{\"a\":3}]\n{\"a\":4}", Form::Lines);
        assert_eq!((lines.before.len(), lines.after.len(), lines.is_whole), (2, 2, false));
        assert_eq!(read(b"a,b\n1,2\n\n3\n", Form::Csv).before.len(), 2);
    }

    #[test]
    fn a_ride_is_judged_by_its_description() {
        let ride = document::rides()[0].json();
        for (from, to, must) in [
            ("\"latitude\"", "\"Latitude \"", &[][..]),
            ("\"latitude\"", "\"lat\"", &["missing_latitude"]),
            (":29,", ":\"29,0\",", &["invalid_distance"]),
            (":29,", ":-29,", &["negative_distance"]),
            ("\"magicpoints\"", "\"healthpoints\"", &["duplicate_field", "missing_magicpoints"]),
            ("\"2018-04-01 00:03:05\"", "null", &["missing_statustime"]),
            ("\"fieldservice\":0", "\"fieldservice\":2", &["invalid_fieldservice"]),
        ] {
            assert!(ride.contains(from), "{from}: {ride}");
            let node = serde_json::from_str(&ride.replacen(from, to, 1)).expect("JSON");
            assert_eq!(judge(&node).must, must.iter().copied().collect(), "{to}");
        }
    }
}
