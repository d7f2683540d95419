//! How to read the rides of a batch if the default does not fit its document: the path to the rides, and the mapping of
//! keys to fields.
//!
//! The reading is part of a batch's identity: the same bytes with another reading are another batch, with another id.

use crate::text::{self, shorten};
use serde::{Deserialize, Serialize};
use serde_with::{DeserializeFromStr, SerializeDisplay};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// The fields of a ride that a mapping may name.
pub const FIELDS: [&str; 10] = [
    "ride_id",
    "name",
    "breed",
    "statustime",
    "latitude",
    "longitude",
    "distance",
    "healthpoints",
    "magicpoints",
    "fieldservice",
];
/// The numeric fields of [`FIELDS`], which a mapping may scale.
pub const NUMERIC_FIELDS: [&str; 5] = ["latitude", "longitude", "distance", "healthpoints", "magicpoints"];
/// Maximum size of one expression in bytes.
const EXPRESSION_BYTES_MAX: usize = 256;

/// How to read a document. The default reads the rides from the standard place, with the field names as keys.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Reading {
    /// Path to the rides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub rides_at: Option<RidesAt>,
    /// Source of each field.
    #[serde(default, skip_serializing_if = "Mapping::is_empty", deserialize_with = "null_is_empty")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, String>"))]
    pub map: Mapping,
}

impl Reading {
    /// Returns whether this is the default reading.
    pub fn is_default(&self) -> bool {
        self.rides_at.is_none() && self.map.is_empty()
    }

    /// Returns the id of a batch without one: the first 16 hex digits of the SHA-256 of its bytes. A reading other than
    /// the default is hashed together with that SHA-256.
    ///
    /// `sha256` is the SHA-256 of the bytes, 64 hex digits.
    pub fn batch_id(&self, sha256: &str) -> String {
        let hash = if self.is_default() {
            sha256.to_owned()
        } else {
            let reading = serde_json::to_string(self).unwrap_or_default();
            hex::encode(Sha256::digest(format!("{sha256}\n{reading}")))
        };
        hash.chars().take(16).collect()
    }
}

impl fmt::Display for Reading {
    /// Writes command line options: `--rides-at data --map distance=km*0.621371`; nothing for the default.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.rides_at.iter().map(|at| format!("--rides-at {at}"));
        let map = self.map.iter().map(|(field, source)| format!("--map {field}={source}"));
        f.write_str(&at.chain(map).collect::<Vec<_>>().join(" "))
    }
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Mapping, D::Error> {
    Option::<Mapping>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// An invalid expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: expected {expected}")]
pub struct InvalidExpression {
    /// The expression, shortened.
    pub text: String,
    /// What was expected instead.
    pub expected: String,
}

impl InvalidExpression {
    fn new(text: &str, expected: impl Into<String>) -> Self {
        Self { text: shorten(text, 80).into_owned(), expected: expected.into() }
    }
}

/// Path to the rides in a document: member names joined by dots that lead to their array, for example `data` or
/// `payload.items`. `[]` after the array leads to the ride within each element: `features[].properties`.
#[derive(Debug, Clone, PartialEq, Eq, SerializeDisplay, DeserializeFromStr)]
pub struct RidesAt {
    /// Member names that lead to the array; not empty.
    pub array: Vec<String>,
    /// Member names that lead from an element of the array to the ride; may be empty.
    pub within: Vec<String>,
}

impl FromStr for RidesAt {
    type Err = InvalidExpression;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            let expected =
                "the path of member names to the array of rides, as in data, payload.items or features[].properties";
            InvalidExpression::new(text, expected)
        };
        let member = |name: &str| !name.is_empty() && !name.contains(['[', ']']) && !name.chars().any(char::is_control);
        let members =
            |path: &str| path.split('.').map(|name| member(name).then(|| name.to_owned())).collect::<Option<Vec<_>>>();
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(wrong());
        }
        let (array, within) = match text.split_once("[]") {
            None => (text, ""),
            Some((array, "")) => (array, ""),
            Some((array, rest)) => (array, rest.strip_prefix('.').filter(|rest| !rest.is_empty()).ok_or_else(wrong)?),
        };
        let within = if within.is_empty() { Vec::new() } else { members(within).ok_or_else(wrong)? };
        Ok(Self { array: members(array).ok_or_else(wrong)?, within })
    }
}

impl fmt::Display for RidesAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.array.join("."))?;
        if self.within.is_empty() { Ok(()) } else { write!(f, "[].{}", self.within.join(".")) }
    }
}

/// Source of each mapped field of a ride.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Mapping(BTreeMap<&'static str, Source>);

impl Mapping {
    /// Returns whether no field is mapped.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns fields and sources, in the order of the field names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Source)> {
        self.0.iter().map(|(field, source)| (*field, source))
    }

    /// Returns the source of a field; `None` if it is not mapped.
    pub fn source(&self, field: &str) -> Option<&Source> {
        self.0.get(field)
    }

    /// Adds a command line argument `field=source`.
    ///
    /// # Errors
    /// Fails on an unknown or already mapped field, on an invalid source, and on a factor for a field that is not
    /// numeric.
    pub fn add(&mut self, text: &str) -> Result<(), InvalidExpression> {
        let Some((field, source)) = text.split_once('=') else {
            return Err(InvalidExpression::new(text, "FIELD=SOURCE, as in latitude=lat or distance=km*0.621371"));
        };
        self.insert(field, source)
    }

    fn insert(&mut self, field: &str, source: &str) -> Result<(), InvalidExpression> {
        let name = text::trimmed(field);
        let Some(known) = FIELDS.into_iter().find(|known| name.eq_ignore_ascii_case(known)) else {
            return Err(InvalidExpression::new(field, format!("a field of a ride: {}", FIELDS.join(", "))));
        };
        let parsed: Source = source.parse()?;
        if parsed.factor.is_some() && !NUMERIC_FIELDS.contains(&known) {
            return Err(InvalidExpression::new(
                source,
                format!("a key without a factor, since {known} is not numeric"),
            ));
        }
        match self.0.insert(known, parsed) {
            None => Ok(()),
            Some(_) => Err(InvalidExpression::new(field, "each field once")),
        }
    }
}

impl TryFrom<BTreeMap<String, String>> for Mapping {
    type Error = InvalidExpression;
    fn try_from(map: BTreeMap<String, String>) -> Result<Self, Self::Error> {
        let mut mapping = Self::default();
        for (field, source) in &map {
            mapping.insert(field, source)?;
        }
        Ok(mapping)
    }
}

impl From<Mapping> for BTreeMap<String, String> {
    fn from(mapping: Mapping) -> Self {
        mapping.iter().map(|(field, source)| (field.to_owned(), source.to_string())).collect()
    }
}

/// Source of a field's value: a key of the ride, or a path of keys joined by dots, optionally with a factor: `lat`,
/// `properties.km`, `km*0.621371`, `metres/1609.344`.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// The key or path. A member whose name equals the whole key, dots included, takes precedence over the path.
    pub key: String,
    /// Factor that scales the number.
    pub factor: Option<Factor>,
}

/// A factor, with its original text.
#[derive(Debug, Clone, PartialEq)]
pub struct Factor {
    /// `*0.621371` or `/1609.344`.
    text: String,
    divides: bool,
    number: f64,
}

impl Factor {
    /// Multiplies a value by the factor, or divides it.
    pub fn apply(&self, value: f64) -> f64 {
        if self.divides { value / self.number } else { value * self.number }
    }
}

impl Source {
    /// Returns the member names that lead to the value.
    pub fn path(&self) -> impl Iterator<Item = &str> {
        self.key.split('.')
    }
}

impl FromStr for Source {
    type Err = InvalidExpression;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let split = text.rfind(['*', '/']).and_then(|at| {
            let number = text::number(text.get(at + 1..)?)?;
            Some((text.get(..at)?, text.get(at..)?, number))
        });
        if let Some(expected) = unusable(text, split.map_or(text, |(key, ..)| key)) {
            return Err(InvalidExpression::new(text, expected));
        }
        let (key, factor) = match split {
            Some((key, factor, number)) => {
                if number == 0.0 {
                    return Err(InvalidExpression::new(text, "a factor other than 0"));
                }
                let expression: String = factor.chars().filter(|c| !c.is_whitespace()).collect();
                (key, Some(Factor { divides: expression.starts_with('/'), text: expression, number }))
            }
            None => (text, None),
        };
        let key = text::trimmed(key);
        if key.is_empty() || text.len() > EXPRESSION_BYTES_MAX || key.chars().any(char::is_control) {
            return Err(InvalidExpression::new(text, "a key of the ride, as in lat, properties.lat or km*0.621371"));
        }
        Ok(Self { key: key.to_owned(), factor })
    }
}

/// Returns what is expected instead of a source that looks like a formula or a path in another notation; `None` if it
/// can be a key. `key` is the source without its factor.
fn unusable(source: &str, key: &str) -> Option<&'static str> {
    const ONE_FACTOR: &str =
        "a key and at most one factor, a number with a point, as in km*0.621371 or metres/1609.344";
    const PATH: &str = "keys joined by dots, as in properties.lat";
    let key = text::trimmed(key);
    let number_after = |sign: char| key.rsplit_once(sign).is_some_and(|(_, rest)| text::number(rest).is_some());
    let is_infinite = |(_, rest): (&str, &str)| rest.trim().parse::<f64>().is_ok_and(f64::is_infinite);
    let index = |(_, rest): (&str, &str)| {
        rest.split_once(']')
            .is_some_and(|(index, _)| index.is_empty() || index.bytes().all(|byte| byte.is_ascii_digit()))
    };
    if key.contains(['*', '×', '÷']) || number_after('+') || source.rsplit_once('/').is_some_and(is_infinite) {
        return Some(ONE_FACTOR);
    }
    if key.starts_with("$.") || key.starts_with(['/', '.']) || key.contains("..") {
        return Some(PATH);
    }
    if key.split_once('[').is_some_and(index) {
        return Some("keys joined by dots, and a position from 0 for an element of an array, as in coordinates.1");
    }
    let is_quoted = |quote: char| key.len() > 1 && key.starts_with(quote) && key.ends_with(quote);
    (is_quoted('"') || is_quoted('\'')).then_some("the key without quotes")
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        self.factor.as_ref().map_or(Ok(()), |factor| f.write_str(&factor.text))
    }
}

/// Returns the field that a key resembles: for example `latitude` for `lat`, `statustime` for `status_time`. `None` for
/// the name of a field itself and for a key that resembles none.
pub fn near_miss(key: &str) -> Option<&'static str> {
    let letters: String = key.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
    let by_synonym = match letters.as_str() {
        "lat" | "latitudedeg" | "startlatitude" | "endlatitude" => "latitude",
        "lng" | "lon" | "long" | "longitudedeg" | "startlongitude" | "endlongitude" => "longitude",
        "time" | "timestamp" | "ts" | "datetime" | "date" | "when" | "endtime" | "endedat" | "dropoffdatetime" => {
            "statustime"
        }
        "km" | "kilometres" | "kilometers" | "miles" | "mileage" | "dist" | "tripdistance" | "distancemiles"
        | "distancekm" => "distance",
        "hp" | "health" | "healthpts" => "healthpoints",
        "mp" | "magic" | "magicpts" => "magicpoints",
        "service" | "label" | "target" | "servicerequest" | "servicerequested" | "needsservice" => "fieldservice",
        "id" | "rideuuid" | "uuid" | "tripid" => "ride_id",
        "unicorn" | "unicornname" => "name",
        _ => "",
    };
    let same_letters = |field: &&str| field.replace('_', "") == letters;
    let field = FIELDS.into_iter().find(|field| *field == by_synonym || same_letters(field))?;
    (!text::trimmed(key).eq_ignore_ascii_case(field)).then_some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(entries: &[&str]) -> Mapping {
        let mut mapping = Mapping::default();
        entries.iter().for_each(|entry| mapping.add(entry).unwrap());
        mapping
    }

    #[test]
    fn a_path_to_the_rides_reads_back() {
        for (text, array, within) in [
            ("data", vec!["data"], vec![]),
            ("payload.items", vec!["payload", "items"], vec![]),
            ("features[].properties", vec!["features"], vec!["properties"]),
            ("a.b[].c.d", vec!["a", "b"], vec!["c", "d"]),
        ] {
            let at: RidesAt = text.parse().unwrap();
            assert_eq!(
                (at.array.clone(), at.within.clone()),
                (array.iter().map(ToString::to_string).collect(), within.iter().map(ToString::to_string).collect()),
                "{text}"
            );
            assert_eq!(at.to_string(), text);
        }
        assert_eq!("data[]".parse::<RidesAt>().unwrap().to_string(), "data");
        for text in ["", ".", "a.", ".a", "a..b", "[]", "a[]b", "a[].", "a[0]", "a[].b[].c", "a\nb", &"a".repeat(257)] {
            assert!(text.parse::<RidesAt>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_source_is_a_key_with_an_optional_factor() {
        let source = |text: &str| text.parse::<Source>();
        assert_eq!(source("lat").unwrap(), Source { key: "lat".to_owned(), factor: None });
        let miles = source("km * 0.621371").unwrap();
        assert_eq!((miles.key.as_str(), miles.factor.as_ref().unwrap().apply(1.0)), ("km", 0.621371));
        assert_eq!(miles.to_string(), "km*0.621371");
        assert_eq!(source("metres/1609.344").unwrap().factor.unwrap().apply(1609.344), 1.0);
        let speed = source("km/h").unwrap();
        assert_eq!((speed.key.as_str(), speed.factor), ("km/h", None));
        for text in ["", " ", "*2", "km*0", "km/0", "a\nb"] {
            assert!(source(text).is_err(), "{text:?}");
        }
        for key in ["distance[km]", "km/h", "ride no.", "sensor-1", "C++", "it's", "a b"] {
            assert_eq!(source(key).unwrap(), Source { key: key.to_owned(), factor: None });
        }
    }

    #[test]
    fn a_formula_or_another_notation_is_refused_with_the_expected_form() {
        for (text, expected) in [
            ("km+1", "at most one factor"),
            ("2*km", "at most one factor"),
            ("km*2*3", "at most one factor"),
            ("km*", "at most one factor"),
            ("km*1,5", "a number with a point"),
            ("km*inf", "at most one factor"),
            ("km*1e400", "at most one factor"),
            ("km/inf", "at most one factor"),
            ("km×0.62", "at most one factor"),
            ("a..b", "joined by dots"),
            (".km", "joined by dots"),
            ("$.km", "joined by dots"),
            ("/km", "joined by dots"),
            ("a[0].b", "an element of an array"),
            ("a[]", "an element of an array"),
            ("\"km\"", "without quotes"),
            ("'km'*2", "without quotes"),
        ] {
            let error = text.parse::<Source>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_mapping_names_each_field_once_and_scales_numeric_fields_only() {
        let mapping = mapping(&["Latitude=lat", "distance=km*0.621371"]);
        let entries: Vec<String> = mapping.iter().map(|(field, source)| format!("{field}={source}")).collect();
        assert_eq!(entries, ["distance=km*0.621371", "latitude=lat"]);
        for (text, expected) in [
            ("lat", "FIELD=SOURCE"),
            ("altitude=alt", "a field of a ride"),
            ("statustime=ts*1000", "a key without a factor"),
            ("latitude=", "a key of the ride"),
        ] {
            let error = Mapping::default().add(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let error = mapping.clone().add("latitude=other").unwrap_err().to_string();
        assert!(error.contains("each field once"), "{error}");
    }

    #[test]
    fn a_batch_id_depends_on_a_reading_other_than_the_default() {
        let sha256 = "450c7f9391a7a29b".repeat(4);
        assert_eq!(Reading::default().batch_id(&sha256), "450c7f9391a7a29b");
        let mapped = Reading { map: mapping(&["latitude=lat"]), rides_at: None };
        let placed = Reading { map: Mapping::default(), rides_at: Some("data".parse().unwrap()) };
        let ids = [Reading::default().batch_id(&sha256), mapped.batch_id(&sha256), placed.batch_id(&sha256)];
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "{ids:?}");
        assert!(ids.iter().all(|id| id.len() == 16));
        assert_eq!(placed.to_string(), "--rides-at data");
        for reading in [Reading::default(), mapped, placed] {
            let json = serde_json::to_string(&reading).unwrap();
            assert_eq!(serde_json::from_str::<Reading>(&json).unwrap(), reading, "{json}");
        }
        assert_eq!(serde_json::from_str::<Reading>(r#"{"rides_at":null,"map":null}"#).unwrap(), Reading::default());
    }

    #[test]
    fn only_keys_that_resemble_a_field_are_near_misses() {
        for (key, field) in [
            ("lat", Some("latitude")),
            ("LNG", Some("longitude")),
            ("status_time", Some("statustime")),
            ("statusTime ", None),
            ("Health Points", Some("healthpoints")),
            ("rideId", Some("ride_id")),
            ("latitude", None),
            ("LATITUDE", None),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(near_miss(key), field, "{key:?}");
        }
    }
}
