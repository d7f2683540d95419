//! The text of a refusal: what was found in place of rides, and what to do about it.

use super::{
    super::refusal::printable,
    survey::{Array, Survey},
};
use common::contract::{
    outcome::shorten,
    reading::{FIELDS, RidesAt, near_miss},
};

/// Members and arrays that are named at most.
const MEMBERS_MAX: usize = 6;
const ARRAYS_MAX: usize = 2;
/// Bytes of a name and of a path that are shown at most.
const NAME_BYTES_MAX: usize = 32;
const PATH_BYTES_MAX: usize = 60;

/// Where the value stands in its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Place {
    /// It is the first, and may be the only one.
    Alone,
    /// It is this element of a sequence.
    InSequence(u64),
    /// It is this element of an array.
    InArray(u64),
}

impl Survey {
    /// Why the value would be several rides counted as one; `None` if it is one ride, valid or not.
    pub fn several_rides(&self, place: Place) -> Option<String> {
        let most_in_arrays = self.arrays.iter().map(Array::fields_max).max().unwrap_or(0);
        let most = self.objects.iter().map(|inner| inner.fields).chain([most_in_arrays]).max().unwrap_or(0);
        let has_array_of_objects = self.arrays.iter().any(|array| array.objects > 0);
        let is_several = if self.is_array {
            has_array_of_objects
        } else if self.has_time {
            false
        } else if self.pandas().is_some() {
            true
        } else if self.fields() == 0 {
            has_array_of_objects || most > 0
        } else {
            most > self.fields()
        };
        is_several.then(|| self.words(place))
    }

    /// Why an object that stands alone is no batch of one ride; `None` if it has any of a ride's fields.
    pub fn no_ride(&self) -> Option<String> {
        (!self.has_fields()).then(|| self.words(Place::Alone))
    }

    /// The members of the object, for people.
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

    fn words(&self, place: Place) -> String {
        let subject = match place {
            Place::Alone => "expected rides, found".to_owned(),
            Place::InSequence(index) | Place::InArray(index) => {
                format!("expected a ride, but element {index} (counted from 0) is")
            }
        };
        if self.is_array {
            let elements = self.arrays.first().map_or(0, |array| array.elements);
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
        let arrays: Vec<_> = self.arrays.iter().filter_map(Array::in_words).take(ARRAYS_MAX).collect();
        let arrays = if arrays.is_empty() { String::new() } else { format!("; {}", arrays.join(", ")) };
        let members = self.members_in_words();
        format!("{subject} {envelope}an object with {members}{arrays}: {}", self.way_out(place))
    }

    /// The layout in which pandas wrote a data frame, and how it is recognised.
    fn pandas(&self) -> Option<(&'static str, &'static str)> {
        let is_spread = self.field_scalars == 0;
        if self.array("columns").is_some() && self.array("data").is_some() {
            Some(("split", "`columns`, `index`, `data`"))
        } else if self.has("schema") && self.array("data").is_some() {
            Some(("table", "`schema`, `data`"))
        } else if is_spread && self.field_objects > 1 {
            Some(("columns", "each field is an object of all its values"))
        } else if is_spread && self.field_arrays > 1 {
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

    /// The envelope of a known framework.
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

    fn way_out(&self, place: Place) -> String {
        let is_aws = self.array("Records").is_some_and(|array| array.fields_max() == 0);
        if is_aws {
            return "hand in the text of each record's `body` (SQS), `Sns.Message`, or decoded `kinesis.data`, one a line, \
                    as `jq -r '.Records[].body'` does"
                .to_owned();
        }
        if self.has("TopicArn") && self.has("Message") {
            return "hand in the text of its `Message`, as `jq -r .Message` does".to_owned();
        }
        let best_object = self.objects.iter().max_by_key(|inner| inner.fields);
        let fields_in_object = best_object.map_or(0, |inner| inner.fields);
        if let Some(array) = self.best_array().filter(|array| array.fields_max() >= fields_in_object) {
            return array.way_out(place);
        }
        if let Some(inner) = best_object {
            let path = path_in_words(&inner.path);
            return format!(
                "the ride seems to be in `{path}`: hand in that alone, or map each field, as in `--map \
                 statustime={path}.statustime`"
            );
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

    /// The array that is most likely to hold the rides.
    fn best_array(&self) -> Option<&Array> {
        let likely = |array: &&Array| (array.fields_max(), array.path.is_some(), array.elements);
        self.arrays.iter().filter(|array| array.objects > 0).max_by_key(likely)
    }
}

impl Array {
    fn fields_max(&self) -> u32 {
        self.within.as_ref().map_or(0, |within| within.fields).max(self.fields)
    }

    fn in_words(&self) -> Option<String> {
        let path = path_in_words(self.path.as_deref()?);
        let at_least = if self.is_whole { "" } else { "at least " };
        Some(format!("`{path}` is an array of {at_least}{}", self.elements))
    }

    /// The path to the rides, where names alone can say it.
    fn rides_at(&self) -> Option<RidesAt> {
        let array = self.path.clone()?;
        let inner = self.within.as_ref().filter(|within| within.fields > self.fields);
        let at = RidesAt { array, within: inner.map(|within| within.path.clone()).unwrap_or_default() };
        let text = at.to_string();
        text.parse::<RidesAt>().ok().filter(|parsed| *parsed == at && text.len() <= PATH_BYTES_MAX)
    }

    fn way_out(&self, place: Place) -> String {
        match (self.rides_at(), place) {
            (Some(at), Place::Alone | Place::InSequence(_)) => {
                let option = if at.within.is_empty() { at.to_string() } else { format!("'{at}'") };
                format!("`--rides-at {option}`, or `rides_at` in ride-batch.v1, reads the rides there")
            }
            (Some(at), Place::InArray(_)) => {
                let within: String = at.within.iter().map(|name| format!(".{name}")).collect();
                let path = at.array.join(".");
                format!("take the rides out first, as `jq -c '.[].{path}[]{within}'` does")
            }
            (None, _) => "hand in the array of rides alone".to_owned(),
        }
    }
}

fn path_in_words(path: &[String]) -> String {
    let path: String = path.join(".").chars().map(printable).collect();
    shorten(&path, PATH_BYTES_MAX).into_owned()
}

fn in_backticks(name: &str) -> String {
    format!("`{}`", printable_name(name))
}

/// A name with its unprintable characters replaced.
fn printable_name(name: &str) -> String {
    let text: String = name.chars().map(printable).collect();
    shorten(&text, NAME_BYTES_MAX).into_owned()
}
