//! Recognises the keys of a ride's members.

use common::text;
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, Visitor},
};
use std::fmt;

/// The keys that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Statustime,
    Latitude,
    Longitude,
    Distance,
    Healthpoints,
    Magicpoints,
    Fieldservice,
    Name,
    Breed,
    RideId,
    Unknown,
}

impl Key {
    /// Parses a key in any case, without surrounding characters.
    #[inline]
    pub(super) fn of(name: &[u8]) -> Self {
        match name.len() {
            4 if is(name, b"name") => Self::Name,
            5 if is(name, b"breed") => Self::Breed,
            // `is` ignores one bit, so it would take DEL for the underscore.
            7 if is(name, b"ride_id") && name.get(4) == Some(&b'_') => Self::RideId,
            8 if is(name, b"latitude") => Self::Latitude,
            8 if is(name, b"distance") => Self::Distance,
            9 if is(name, b"longitude") => Self::Longitude,
            10 if is(name, b"statustime") => Self::Statustime,
            11 if is(name, b"magicpoints") => Self::Magicpoints,
            12 if is(name, b"healthpoints") => Self::Healthpoints,
            12 if is(name, b"fieldservice") => Self::Fieldservice,
            _ => Self::Unknown,
        }
    }

    /// Parses a key in any case, with or without surrounding blanks and invisible characters.
    #[inline]
    pub(super) fn read(name: &[u8]) -> Self {
        match Self::of(name) {
            Self::Unknown => Self::surrounded(name),
            key => key,
        }
    }

    /// Parses a key with at least one surrounding blank or invisible character.
    #[inline]
    fn surrounded(name: &[u8]) -> Self {
        let is_graphic = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_graphic);
        if is_graphic(name.first()) && is_graphic(name.last()) {
            return Self::Unknown;
        }
        std::str::from_utf8(name).map_or(Self::Unknown, |name| Self::of(text::trimmed(name).as_bytes()))
    }
}

/// Returns whether `name` is `letters` in any case. A fixed length lets the compiler compare whole machine words.
#[inline]
fn is<const LENGTH: usize>(name: &[u8], letters: &[u8; LENGTH]) -> bool {
    const LOWER_CASE: u8 = 0x20;
    <&[u8; LENGTH]>::try_from(name).is_ok_and(|name| {
        let differing = name.iter().zip(letters).fold(0, |bits, (a, b)| bits | ((a | LOWER_CASE) ^ (b | LOWER_CASE)));
        differing == 0
    })
}

/// Reads a [`Key`] without a UTF-8 check. Fails on a key that it could misread: serde_json accepts control characters when it
/// reads bytes, and an escaped key may be a known one.
pub(super) struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Key;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<'de> Visitor<'de> for KeySeed {
    type Value = Key;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    #[inline]
    fn visit_borrowed_bytes<E: Error>(self, name: &'de [u8]) -> Result<Key, E> {
        match Key::of(name) {
            // Control characters around a known key would be trimmed, but are invalid JSON there, too.
            Key::Unknown if name.iter().any(|byte| *byte < 0x20) => Err(E::custom("control character")),
            Key::Unknown => Ok(Key::surrounded(name)),
            key => Ok(key),
        }
    }
    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<Key, E> {
        Err(E::custom("escaped key"))
    }
}
