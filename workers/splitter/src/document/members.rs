//! The members of a valid JSON object, with their raw values.

use common::text;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// The members of one object, in order.
pub(crate) struct Members<'a>(Vec<(Cow<'a, [u8]>, &'a RawValue)>);

/// The result of a lookup of a key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lookup<'a> {
    Absent,
    Once(&'a RawValue),
    /// More than once, so that the value is ambiguous.
    Twice,
}

impl<'a> Members<'a> {
    /// Parses an object; `None` for any other value.
    pub fn of(object: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(object).ok()
    }

    /// Returns keys and values. A key may have an unpaired surrogate, so it is returned as bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &'a RawValue)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), *value))
    }

    /// Looks up `key`, in any case, with any white space and invisible characters around the keys.
    pub fn find(&self, key: &str) -> Lookup<'a> {
        let trimmed = text::trimmed(key);
        let is_it =
            |name: &[u8]| std::str::from_utf8(name).is_ok_and(|name| text::trimmed(name).eq_ignore_ascii_case(trimmed));
        let mut matching = self.iter().filter(|(name, _)| is_it(name));
        match (matching.next(), matching.next()) {
            (None, _) => Lookup::Absent,
            (Some((_, value)), None) => Lookup::Once(value),
            (Some(_), Some(_)) => Lookup::Twice,
        }
    }

    /// Looks up a path of keys. A number selects an element of an array, counted from 0.
    pub fn follow<'p>(&self, path: impl IntoIterator<Item = &'p str>) -> Lookup<'a> {
        let mut path = path.into_iter();
        let mut value = path.next().map_or(Lookup::Absent, |key| self.find(key));
        for step in path {
            let Lookup::Once(raw) = value else { return value };
            value = match raw.get().as_bytes().first() {
                Some(b'{') => Members::of(raw.get().as_bytes()).map_or(Lookup::Absent, |inner| inner.find(step)),
                Some(b'[') => nth(raw, step).map_or(Lookup::Absent, Lookup::Once),
                _ => Lookup::Absent,
            };
        }
        value
    }
}

fn nth<'a>(array: &'a RawValue, step: &str) -> Option<&'a RawValue> {
    let index: usize = step.parse().ok()?;
    let elements: Vec<&RawValue> = serde_json::from_str(array.get()).ok()?;
    elements.get(index).copied()
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(key) = map.next_key_seed(KeyBytes)? {
                    members.push((key, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

struct KeyBytes;

impl<'de> DeserializeSeed<'de> for KeyBytes {
    type Value = Cow<'de, [u8]>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<'de> Visitor<'de> for KeyBytes {
    type Value = Cow<'de, [u8]>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_borrowed_bytes<E: Error>(self, name: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }
    fn visit_bytes<E: Error>(self, name: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_vec()))
    }
}
