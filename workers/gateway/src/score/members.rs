//! Reads the members of JSON objects tolerantly: keys in any case and surrounded by blanks or invisible characters, numbers also as
//! text, null as absent. One pass without building a tree, as fast as a derived reader if the keys are spelled exactly.

use common::text;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Unexpected, Visitor},
};
use std::{fmt, marker::PhantomData};

/// A type that is read from an object.
pub(crate) trait Members: Default {
    /// The keys, in lower case; at most 32.
    const KEYS: &'static [&'static str];

    /// Whether unknown keys are compared with the known ones. That takes time, and only a request that lacks a member needs it.
    const NEAR: bool = false;

    /// Reads the value of the key at this position of [`Self::KEYS`].
    fn value<'de, A: MapAccess<'de>>(&mut self, position: usize, map: &mut A) -> Result<(), A::Error>;

    /// Returns the known key that an unknown one resembles.
    fn near(_key: &str) -> Option<&'static str> {
        None
    }

    /// Records a key in another spelling.
    fn note(&mut self, _spelling: Spelling) {}
}

/// A key in another spelling than the member's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spelling {
    /// The member that it names or resembles.
    pub(crate) field: &'static str,
    /// As written in the request.
    pub(crate) key: Box<str>,
    /// Whether it only resembles the member, so that its value was not read.
    pub(crate) is_near: bool,
}

/// Reads an object.
///
/// # Errors
/// Fails on anything but an object, on a value that cannot be read, and on a key that occurs twice, in any spelling.
pub(crate) fn read<'de, D: Deserializer<'de>, M: Members>(deserializer: D) -> Result<M, D::Error> {
    deserializer.deserialize_map(Object(PhantomData))
}

struct Object<M>(PhantomData<M>);

impl<'de, M: Members> Visitor<'de> for Object<M> {
    type Value = M;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<M, A::Error> {
        let mut members = M::default();
        let mut positions_read = 0u32;
        while let Some(key) = map.next_key_seed(KeySeed::<M>(PhantomData))? {
            let position = match key {
                Key::Known(position, None) => position,
                Key::Known(position, Some(key)) => {
                    members.note(Spelling { field: M::KEYS[position], key, is_near: false });
                    position
                }
                Key::Near(field, key) => {
                    members.note(Spelling { field, key, is_near: true });
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                Key::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if positions_read & (1 << position) != 0 {
                // Fails while the value is read, so that the path of the error names the key.
                map.next_value_seed(Twice(M::KEYS[position]))?;
            }
            positions_read |= 1 << position;
            members.value(position, &mut map)?;
        }
        Ok(members)
    }
}

/// Refuses the value of a key that occurs twice.
struct Twice(&'static str);

impl<'de> DeserializeSeed<'de> for Twice {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, _: D) -> Result<(), D::Error> {
        Err(D::Error::custom(format_args!("{} is given twice, expected one value", self.0)))
    }
}

enum Key {
    /// One of the keys, with its spelling if that differs.
    Known(usize, Option<Box<str>>),
    Near(&'static str, Box<str>),
    Unknown,
}

struct KeySeed<M>(PhantomData<M>);

impl<'de, M: Members> DeserializeSeed<'de> for KeySeed<M> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<M: Members> Visitor<'_> for KeySeed<M> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Key, E> {
        if let Some(position) = M::KEYS.iter().position(|known| *known == key) {
            return Ok(Key::Known(position, None));
        }
        let folded = text::trimmed(key);
        if let Some(position) = M::KEYS.iter().position(|known| known.eq_ignore_ascii_case(folded)) {
            return Ok(Key::Known(position, Some(key.into())));
        }
        let near = if M::NEAR { M::near(key) } else { None };
        Ok(near.map_or(Key::Unknown, |field| Key::Near(field, key.into())))
    }
}

/// First character of the texts with which [`quoted`] replaces a bare `NaN` or the like: NUL.
const MARK: char = '\0';

/// A number of JSON or in a text; `None` for null and a blank text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Number(pub(crate) Option<f64>);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;

        impl Visitor<'_> for Visit {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }
            fn visit_f64<E: Error>(self, number: f64) -> Result<Number, E> {
                Ok(Number(Some(number)))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Number, E> {
                Ok(Number(Some(number as f64)))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Number, E> {
                Ok(Number(Some(number as f64)))
            }
            fn visit_unit<E: Error>(self) -> Result<Number, E> {
                Ok(Number(None))
            }
            fn visit_str<E: Error>(self, given: &str) -> Result<Number, E> {
                refuse_marked(given)?;
                match text::number(given) {
                    Some(number) => Ok(Number(Some(number))),
                    None if text::trimmed(given).is_empty() => Ok(Number(None)),
                    None => Err(E::invalid_type(Unexpected::Str(given), &self)),
                }
            }
        }

        deserializer.deserialize_any(Visit)
    }
}

/// Refuses a text that [`quoted`] made of a bare `NaN` or the like.
pub(crate) fn refuse_marked<E: Error>(given: &str) -> Result<(), E> {
    match given.strip_prefix(MARK) {
        Some(word) => Err(E::custom(format_args!(
            "{word} is not JSON, expected a number, or null where the value is unknown: write null"
        ))),
        None => Ok(()),
    }
}

/// A name; `None` for null and for a bare `NaN`, which some programs write for a missing value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name(pub(crate) Option<String>);

/// A name that may also be a whole number, as many ids are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Id(pub(crate) Option<String>);

struct NameVisit {
    takes_numbers: bool,
}

impl Visitor<'_> for NameVisit {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_str<E: Error>(self, name: &str) -> Result<Option<String>, E> {
        Ok((!name.starts_with(MARK)).then(|| name.to_owned()))
    }
    fn visit_string<E: Error>(self, name: String) -> Result<Option<String>, E> {
        Ok((!name.starts_with(MARK)).then_some(name))
    }
    fn visit_unit<E: Error>(self) -> Result<Option<String>, E> {
        Ok(None)
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<Option<String>, E> {
        match self.takes_numbers {
            true => Ok(Some(number.to_string())),
            false => Err(E::invalid_type(Unexpected::Unsigned(number), &self)),
        }
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<Option<String>, E> {
        match self.takes_numbers {
            true => Ok(Some(number.to_string())),
            false => Err(E::invalid_type(Unexpected::Signed(number), &self)),
        }
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<Option<String>, E> {
        // Every integer up to this one is exact.
        const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
        match self.takes_numbers && number.fract() == 0.0 && number.abs() <= EXACT_MAX {
            true => Ok(Some((number as i64).to_string())),
            false => Err(E::invalid_type(Unexpected::Float(number), &self)),
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NameVisit { takes_numbers: false }).map(Self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NameVisit { takes_numbers: true }).map(Self)
    }
}

/// Replaces the bare words that Python, JavaScript and R write for missing values and non-finite numbers with NUL-prefixed texts.
/// Returns `None` if there are no such words. Strings and other errors stay unchanged.
pub(crate) fn quoted(document: &[u8]) -> Option<Vec<u8>> {
    const WORDS: [&[u8]; 8] = [b"NaN", b"nan", b"Infinity", b"Inf", b"inf", b"NA", b"None", b"undefined"];
    let is_word = |token: &[u8]| {
        let unsigned = token.strip_prefix(b"-").or(token.strip_prefix(b"+")).unwrap_or(token);
        WORDS.contains(&unsigned)
    };
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_');
    let mut out = Vec::new();
    let (mut copied, mut at) = (0, 0);
    while let Some(&byte) = document.get(at) {
        let start = at;
        if byte == b'"' {
            at += 1;
            while let Some(&within) = document.get(at) {
                at += if within == b'\\' { 2 } else { 1 };
                if within == b'"' {
                    break;
                }
            }
        } else if is_part(byte) {
            at += document[at..].iter().take_while(|byte| is_part(**byte)).count();
            if is_word(&document[start..at]) {
                out.extend_from_slice(&document[copied..start]);
                out.extend_from_slice(b"\"\\u0000");
                out.extend_from_slice(&document[start..at]);
                out.push(b'"');
                copied = at;
            }
        } else {
            at += 1;
        }
    }
    if out.is_empty() {
        return None;
    }
    out.extend_from_slice(&document[copied.min(document.len())..]);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted_text(document: &str) -> String {
        quoted(document.as_bytes()).map_or_else(|| "unchanged".to_owned(), |bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn bare_words_are_quoted_outside_strings_only() {
        for (document, expected) in [
            (r#"{"a": NaN, "b": -Infinity}"#, r#"{"a": "\u0000NaN", "b": "\u0000-Infinity"}"#),
            ("[NA,None,undefined,+Inf]", r#"["\u0000NA","\u0000None","\u0000undefined","\u0000+Inf"]"#),
            (r#"{"NaN": "NaN", "x": "a \" NaN"}"#, "unchanged"),
            (r#"{"a": 1e5, "b": true, "c": null, "d": -1.5}"#, "unchanged"),
            ("{\"a\": NaNs}", "unchanged"),
            ("\"open NaN", "unchanged"),
            ("\"\\", "unchanged"),
            ("", "unchanged"),
        ] {
            assert_eq!(quoted_text(document), expected, "{document}");
        }
    }

    #[test]
    fn numbers_are_read_in_every_form() {
        for (json, number) in [
            ("29.5", Some(29.5)),
            ("30", Some(30.0)),
            ("-3", Some(-3.0)),
            ("\" 29.5 \"", Some(29.5)),
            ("\"+1e2\"", Some(100.0)),
            ("null", None),
            ("\" \"", None),
        ] {
            assert_eq!(serde_json::from_str::<Number>(json).unwrap(), Number(number), "{json}");
        }
        for json in ["\"far\"", "true", "[]", "{}", "\"NaN\"", "\"1,5\""] {
            let why = serde_json::from_str::<Number>(json).unwrap_err().to_string();
            assert!(why.contains("expected a number"), "{json}: {why}");
        }
        let why = serde_json::from_str::<Number>("\"\\u0000-Infinity\"").unwrap_err().to_string();
        assert!(why.starts_with("-Infinity is not JSON") && why.contains("write null"), "{why}");
    }

    #[test]
    fn ids_may_be_whole_numbers_and_names_may_not() {
        for (json, id) in
            [("\"a\"", Some("a")), ("7", Some("7")), ("7.0", Some("7")), ("-1", Some("-1")), ("null", None)]
        {
            assert_eq!(serde_json::from_str::<Id>(json).unwrap(), Id(id.map(str::to_owned)), "{json}");
        }
        assert!(serde_json::from_str::<Id>("7.5").is_err() && serde_json::from_str::<Id>("true").is_err());
        assert!(serde_json::from_str::<Name>("7").is_err());
        assert_eq!(serde_json::from_str::<Name>("\"\\u0000NaN\"").unwrap(), Name(None));
    }

    proptest::proptest! {
        #[test]
        fn quoting_leaves_valid_json_unchanged(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = quoted(&bytes);
            let json = serde_json::to_vec(&String::from_utf8_lossy(&bytes)).unwrap();
            proptest::prop_assert_eq!(quoted(&json), None);
        }
    }
}
