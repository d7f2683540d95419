//! The text of a refusal: the content in place of rides, and advice.

use super::survey::{Array, DEPTH_MAX, Survey};
use common::{
    reading::{FIELDS, RidesAt, near_miss},
    text::{is_printable, shorten_printable},
};

/// Maximum numbers of members and arrays that are named.
const MEMBERS_MAX: usize = 6;
const ARRAYS_MAX: usize = 2;
/// Maximum lengths of a name and of a path in a text, bytes.
const NAME_BYTES_MAX: usize = 32;
const PATH_BYTES_MAX: usize = 60;
/// Maximum length of a jq expression, bytes.
const JQ_BYTES_MAX: usize = 120;

/// The position of the value in its document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Position {
    /// The first value, which may be the only one.
    Alone,
    /// The element of a sequence with this index.
    InSequence(u64),
    /// An element of an array.
    InArray {
        index: u64,
        /// The jq expression for the elements of that array, such as `.rides[]`.
        elements: String,
    },
}

impl Survey {
    /// Explains why the value contains several rides; `None` if it is one ride, valid or not.
    ///
    /// A complete ride may contain anything but another complete ride. Any other object contains several rides if an object in
    /// it has more of a ride's fields than it has itself. An object with only identity and time contains several rides if it
    /// has any array of objects.
    pub fn several_rides(&self, position: &Position) -> Option<String> {
        if !self.is_array && self.fields.is_complete() && !self.is_spread() {
            let is_ambiguous = self.in_arrays.is_complete() || self.in_objects.is_complete();
            return is_ambiguous.then(|| self.rides_in_a_ride(position));
        }
        let in_objects = if self.fields.has_time() { self.in_timed_objects } else { self.in_objects };
        let is_several = if self.is_array || (!self.has_measurement() && self.has_array_of_objects) {
            self.has_array_of_objects
        } else {
            self.pandas().is_some() || self.in_arrays.count().max(in_objects.count()) > self.fields.count()
        };
        is_several.then(|| self.words(position))
    }

    /// Explains why a single object is not a batch of one ride; `None` if it has any of a ride's fields.
    pub fn no_ride(&self) -> Option<String> {
        (!self.has_fields()).then(|| self.words(&Position::Alone))
    }

    /// Lists the members of the object.
    pub fn members_in_words(&self) -> String {
        let named: Vec<_> = self.members.iter().take(MEMBERS_MAX).map(|name| in_backticks(name)).collect();
        let others = self.members_count.saturating_sub(named.len() as u64);
        let whole = if self.is_whole { "" } else { " and perhaps others" };
        match (named.as_slice(), others) {
            ([], _) => "no members".to_owned(),
            ([only], 0) => format!("the member {only}{whole}"),
            (_, 0) => format!("the members {}{whole}", named.join(", ")),
            (_, others) => format!("the members {} and {others} others", named.join(", ")),
        }
    }

    fn words(&self, position: &Position) -> String {
        let subject = position.in_words();
        if self.is_array {
            let elements = self.elements;
            return format!(
                "{subject} an array of {elements} with objects in it, which would be several rides taken for one: hand in \
                 that array alone"
            );
        }
        if let Some((orient, shape)) = self.pandas() {
            return format!(
                "{subject} what pandas writes with orient='{orient}' ({shape}): write it with orient='records'"
            );
        }
        let envelope = self.envelope().map(|name| format!("{name}, ")).unwrap_or_default();
        let (members, arrays) = (self.members_in_words(), self.arrays_in_words());
        format!("{subject} {envelope}an object with {members}{arrays}: {}", self.advice(position))
    }

    /// Explains the refusal of a complete ride that contains others.
    fn rides_in_a_ride(&self, position: &Position) -> String {
        let array = self.best_array().filter(|array| array.fields_max().is_complete());
        let inner = self.objects.iter().find(|inner| inner.fields.is_complete());
        let path = array.map_or_else(|| inner.map(|inner| inner.path.as_slice()), |array| array.path.as_deref());
        let before = match position {
            Position::InArray { elements, .. } => format!("{elements} | "),
            Position::Alone | Position::InSequence(_) => String::new(),
        };
        let jq = path.and_then(|path| Some(format!("{before}del({})", jq_path(path)?)));
        let (below, remedy) = match (path, jq.filter(|jq| jq.len() <= JQ_BYTES_MAX)) {
            (Some(path), Some(jq)) => {
                (format!("below `{}`", path_in_words(path)), format!(", as `jq -c {}` does", quoted(&jq)))
            }
            _ => ("in it".to_owned(), String::new()),
        };
        format!(
            "{} a ride with complete rides {below}, which may be one ride or several: if it is one, leave those out{remedy}; \
             if each is a ride, hand in all of them one beside the other",
            position.in_words()
        )
    }

    /// Describes the arrays that most likely contain the rides.
    fn arrays_in_words(&self) -> String {
        let mut arrays: Vec<_> = self.arrays.iter().collect();
        arrays.sort_by_key(|array| std::cmp::Reverse((array.fields_max().rank(), array.objects > 0)));
        let arrays: Vec<_> = arrays.into_iter().filter_map(Array::in_words).take(ARRAYS_MAX).collect();
        if arrays.is_empty() { String::new() } else { format!("; {}", arrays.join(", ")) }
    }

    /// Returns whether every field has an array or an object of the values of all rides.
    fn is_spread(&self) -> bool {
        self.field_scalars == 0 && self.field_arrays + self.field_objects > 1
    }

    /// Returns the layout in which pandas wrote a data frame, and how it is recognised.
    fn pandas(&self) -> Option<(&'static str, &'static str)> {
        if self.array("columns").is_some() && self.array("data").is_some() {
            Some(("split", "`columns`, `index`, `data`"))
        } else if self.has("schema") && self.array("data").is_some() {
            Some(("table", "`schema`, `data`"))
        } else if self.is_spread() && self.field_objects > 1 {
            Some(("columns", "each field is an object of all its values"))
        } else if self.is_spread() && self.field_arrays > 1 {
            Some(("list", "each field is an array of all its values"))
        } else if self.rides_as_members > 1 && self.rides_as_members == self.members_count {
            Some(("index", "each member is a ride"))
        } else if self.rides_as_members == 1
            && matches!(self.members.as_slice(), [only] if only.bytes().all(|byte| byte.is_ascii_digit()))
        {
            Some(("index", "the member is a ride"))
        } else {
            None
        }
    }

    /// Returns the name of a known envelope.
    fn envelope(&self) -> Option<&'static str> {
        let is_type = |text: &str| self.type_text.as_deref() == Some(text);
        if is_type("FeatureCollection") {
            Some("a GeoJSON FeatureCollection")
        } else if is_type("Feature") {
            Some("a GeoJSON Feature")
        } else if self.has("specversion") {
            Some("a CloudEvents envelope")
        } else if self.array("Records").is_some() {
            Some("an AWS event with `Records`")
        } else if self.has("TopicArn") && self.has("Message") {
            Some("an SNS notification")
        } else {
            None
        }
    }

    fn advice(&self, position: &Position) -> String {
        let is_aws = self.array("Records").is_some_and(|array| array.fields_max().count() == 0);
        if is_aws {
            return "hand in the text of each record's `body` (SQS), `Sns.Message`, or decoded `kinesis.data`, one a line, \
                    as `jq -r '.Records[].body'` does"
                .to_owned();
        }
        if self.has("TopicArn") && self.has("Message") {
            return "hand in the text of its `Message`, as `jq -r .Message` does".to_owned();
        }
        let best_object = self.objects.iter().max_by_key(|inner| inner.fields.rank());
        let in_object = best_object.map(|inner| inner.fields).unwrap_or_default();
        let best_array = self.best_array().filter(|array| array.fields_max().rank() >= in_object.rank());
        let in_array = best_array.map(Array::fields_max).unwrap_or_default();
        if self.too_deep.rank() > in_object.rank().max(in_array.rank()) {
            return format!("rides seem to be more than {DEPTH_MAX} levels deep in it: hand in their array alone");
        }
        if let Some(array) = best_array {
            return array.advice(position);
        }
        if let Some(inner) = best_object {
            return self.advice_for_object(&inner.path);
        }
        let hints: Vec<_> = self.members.iter().filter_map(|name| Some((name, near_miss(name)?))).take(3).collect();
        if hints.is_empty() {
            return format!(
                "none of them is a field of a ride ({}, …)",
                FIELDS.get(3..7).unwrap_or_default().join(", ")
            );
        }
        let hints: Vec<_> =
            hints.iter().map(|(name, field)| format!("--map {field}={}", printable_name(name))).collect();
        format!("if it is a ride, say which key is which field, as in `{}`", hints.join(" "))
    }

    fn advice_for_object(&self, path: &[String]) -> String {
        let around = path.split_last().map_or(path, |(_, around)| around);
        let is_sibling = |other: &[String]| other.split_last().is_some_and(|(_, other)| other == around);
        let siblings = self.objects.iter().filter(|inner| inner.fields.has_time() && is_sibling(&inner.path)).count();
        if siblings > 1
            && let Some(jq) = jq_path(around).filter(|jq| jq.len() <= JQ_BYTES_MAX)
        {
            let from = if around.is_empty() { ".[] | objects".to_owned() } else { format!("{jq}[]") };
            return format!(
                "several of its members seem to be rides: hand them in, as `jq -c {}` prints them",
                quoted(&from)
            );
        }
        let path = path_in_words(path);
        format!(
            "the ride seems to be in `{path}`: hand in that alone, or map each field, as in `--map \
             statustime={path}.statustime`"
        )
    }

    /// Returns the array that most likely contains the rides.
    fn best_array(&self) -> Option<&Array> {
        let likely = |array: &&Array| (array.fields_max().rank(), array.path.is_some(), array.elements);
        self.arrays.iter().filter(|array| array.objects > 0).max_by_key(likely)
    }
}

impl Position {
    fn in_words(&self) -> String {
        match self {
            Self::Alone => "expected rides, found".to_owned(),
            Self::InSequence(index) | Self::InArray { index, .. } => {
                format!("expected a ride, but element {index} (counted from 0) is")
            }
        }
    }
}

impl Array {
    fn in_words(&self) -> Option<String> {
        let path = path_in_words(self.path.as_deref()?);
        let at_least = if self.is_whole { "" } else { "at least " };
        Some(format!("`{path}` is an array of {at_least}{}", self.elements))
    }

    /// Returns the names of the members that lead from an element to the ride.
    fn within(&self) -> &[String] {
        let inner = self.within.as_ref().filter(|within| within.fields.rank() > self.fields.rank());
        inner.map(|within| within.path.as_slice()).unwrap_or_default()
    }

    /// Returns the path to the rides, if names can express it.
    fn rides_at(&self) -> Option<RidesAt> {
        let at = RidesAt { array: self.path.clone()?, within: self.within().to_vec() };
        let text = at.to_string();
        text.parse::<RidesAt>().ok().filter(|parsed| *parsed == at && text.len() <= PATH_BYTES_MAX)
    }

    /// Returns the jq expression that prints the rides as a sequence.
    fn jq(&self, position: &Position) -> Option<String> {
        let within = if self.within().is_empty() { String::new() } else { jq_path(self.within())? };
        let rides = format!("{}[]{within}", jq_path(self.path.as_deref()?)?);
        let jq = match position {
            Position::Alone | Position::InSequence(0) => rides,
            // Other elements pass unchanged.
            Position::InSequence(_) => format!("({rides})? // ."),
            Position::InArray { elements, .. } => format!("{elements} | ({rides})? // ."),
        };
        (jq.len() <= JQ_BYTES_MAX).then(|| quoted(&jq))
    }

    fn advice(&self, position: &Position) -> String {
        let is_first = matches!(position, Position::Alone | Position::InSequence(0));
        if let Some(at) = self.rides_at().filter(|_| is_first) {
            let option = at.to_string();
            let is_plain = option.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
            let option = if is_plain { option } else { quoted(&option) };
            return format!("`--rides-at {option}`, or `rides_at` in ride-batch.v1, reads the rides there");
        }
        match self.jq(position) {
            Some(jq) => format!("take the rides out first, as `jq -c {jq}` does"),
            None => "hand in the array of rides alone".to_owned(),
        }
    }
}

/// Returns a path of members in jq syntax; `None` if it has unprintable characters.
pub(in super::super) fn jq_path(path: &[String]) -> Option<String> {
    let is_word = |name: &str| {
        !name.starts_with(|c: char| c.is_ascii_digit()) && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
    };
    let step = |name: &String| match name.as_str() {
        name if !name.is_empty() && is_word(name) => Some(format!(".{name}")),
        name if !name.chars().all(is_printable) => None,
        name => Some(format!(".{}", serde_json::to_string(name).ok()?)),
    };
    path.iter().map(step).collect()
}

/// Quotes a text for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn path_in_words(path: &[String]) -> String {
    shorten_printable(&path.join("."), PATH_BYTES_MAX)
}

fn in_backticks(name: &str) -> String {
    format!("`{}`", printable_name(name))
}

/// Returns a name with unprintable characters replaced, shortened.
fn printable_name(name: &str) -> String {
    shorten_printable(name, NAME_BYTES_MAX)
}
