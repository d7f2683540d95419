//! One ride as it comes, read and validated in a single pass over its bytes.
//!
//! This is the hottest code of the fleet: nothing is allocated for a ride whose texts fit into a [`CompactString`], and
//! no tree is built. What the pass cannot read although it is JSON (a number beyond `f64`, half a surrogate pair) is
//! rare and read again, value by value, by [`FromObject::carefully`].

use crate::document::FromObject;
use common::contract::ride::{DISTANCE_MAX, Label, POINTS_MAX, RejectReason, Ride, StatusTime};
use compact_str::{CompactString, ToCompactString};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{fmt, marker::PhantomData};

/// Bytes of a given `ride_id` at most.
pub const RIDE_ID_BYTES_MAX: usize = 128;
/// Bytes of a `name` or `breed` at most, written as JSON: with it, a chunk of rides is bounded in bytes, too.
pub const TEXT_BYTES_MAX: usize = 256;
/// Bytes of one ride at most; a bigger one is rejected as `ride_too_large`. No setting, since a batch has to be cut the
/// same way whenever it is published again.
pub const RIDE_BYTES_MAX: usize = 64 * 1024;

/// What became of one object that should be a ride.
#[derive(Debug, Clone, PartialEq)]
pub enum Judged {
    /// Valid. Its `ride_id` is empty when none was given.
    Accepted(Ride),
    /// Not valid.
    Rejected {
        /// The first reason in the order of the fields: statustime, latitude, longitude, distance, healthpoints,
        /// magicpoints, fieldservice, name, breed, ride_id. A field given twice comes before all of them.
        reason: RejectReason,
        /// As given, empty when none was (or no valid one).
        ride_id: CompactString,
    },
}

impl<'de> Deserialize<'de> for Judged {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Object::<Fields, false>(PhantomData)).map(Fields::judge)
    }
}

impl FromObject for Judged {
    fn carefully(object: &[u8]) -> Self {
        match serde_json::Deserializer::from_slice(object).deserialize_map(Object::<Fields, true>(PhantomData)) {
            Ok(fields) => fields.judge(),
            Err(_) => Self::Rejected { reason: RejectReason::InvalidJson, ride_id: CompactString::default() },
        }
    }
}

/// The least one needs to know of a ride before any is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outline {
    /// Whether it brings a `ride_id`, valid or not.
    pub has_ride_id: bool,
}

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Object::<Self, false>(PhantomData))
    }
}

impl FromObject for Outline {
    fn carefully(object: &[u8]) -> Self {
        serde_json::Deserializer::from_slice(object)
            .deserialize_map(Object::<Self, true>(PhantomData))
            .unwrap_or_default()
    }
}

/// The members of an object that mean something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
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
    #[inline]
    fn of(name: &[u8]) -> Self {
        match name.len() {
            4 if is(name, b"name") => Self::Name,
            5 if is(name, b"breed") => Self::Breed,
            // Of all characters here only the underscore is no letter, and shares its place with DEL.
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
}

/// Whether `name` is `letters` in any case. A fixed length lets the compiler compare whole words.
#[inline]
fn is<const LENGTH: usize>(name: &[u8], letters: &[u8; LENGTH]) -> bool {
    const LOWER_CASE: u8 = 0x20;
    <&[u8; LENGTH]>::try_from(name).is_ok_and(|name| {
        let differing = name.iter().zip(letters).fold(0, |bits, (a, b)| bits | ((a | LOWER_CASE) ^ (b | LOWER_CASE)));
        differing == 0
    })
}

/// Reads a [`Key`] without checking it for UTF-8. In a hurry it gives up on a key it could misjudge: serde_json lets
/// control characters pass when it is asked for bytes, and an escaped key may be a known one.
struct KeySeed<const CAREFUL: bool>;

impl<'de, const CAREFUL: bool> DeserializeSeed<'de> for KeySeed<CAREFUL> {
    type Value = Key;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<'de, const CAREFUL: bool> Visitor<'de> for KeySeed<CAREFUL> {
    type Value = Key;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    #[inline]
    fn visit_borrowed_bytes<E: Error>(self, name: &'de [u8]) -> Result<Key, E> {
        match Key::of(name) {
            Key::Unknown if !CAREFUL && name.iter().any(|byte| *byte < 0x20) => Err(E::custom("control character")),
            key => Ok(key),
        }
    }
    fn visit_bytes<E: Error>(self, name: &[u8]) -> Result<Key, E> {
        if CAREFUL { Ok(Key::of(name)) } else { Err(E::custom("escaped key")) }
    }
}

/// What is gathered from the members of one object.
trait Gather: Default {
    fn member<'de, A: MapAccess<'de>, const CAREFUL: bool>(&mut self, key: Key, map: &mut A) -> Result<(), A::Error>;
}

struct Object<G, const CAREFUL: bool>(PhantomData<G>);

impl<'de, G: Gather, const CAREFUL: bool> Visitor<'de> for Object<G, CAREFUL> {
    type Value = G;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a ride")
    }
    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<G, A::Error> {
        let mut gathered = G::default();
        while let Some(key) = map.next_key_seed(KeySeed::<CAREFUL>)? {
            gathered.member::<A, CAREFUL>(key, &mut map)?;
        }
        Ok(gathered)
    }
}

#[inline]
fn value<'de, A: MapAccess<'de>, K: Kind, const CAREFUL: bool>(map: &mut A) -> Result<Field<K::Value>, A::Error> {
    if !CAREFUL {
        return map.next_value_seed(Of::<K>(PhantomData));
    }
    let raw: &RawValue = map.next_value()?;
    let mut json = serde_json::Deserializer::from_str(raw.get());
    Ok(Of::<K>(PhantomData).deserialize(&mut json).unwrap_or(Field::Invalid))
}

impl Gather for Outline {
    #[inline]
    fn member<'de, A: MapAccess<'de>, const CAREFUL: bool>(&mut self, key: Key, map: &mut A) -> Result<(), A::Error> {
        if key == Key::RideId {
            self.has_ride_id |= !matches!(value::<A, RideId, CAREFUL>(map)?, Field::Absent);
            Ok(())
        } else {
            map.next_value::<IgnoredAny>().map(drop)
        }
    }
}

/// The value of one field.
#[derive(Debug, Clone, Default, PartialEq)]
enum Field<T> {
    /// Not there, or null.
    #[default]
    Absent,
    /// There, but not what it should be.
    Invalid,
    Given(T),
}

impl<T> Field<T> {
    fn required(self, missing: RejectReason, invalid: RejectReason) -> Result<T, RejectReason> {
        match self {
            Self::Given(value) => Ok(value),
            Self::Absent => Err(missing),
            Self::Invalid => Err(invalid),
        }
    }

    fn optional(self, invalid: RejectReason) -> Result<Option<T>, RejectReason> {
        match self {
            Self::Given(value) => Ok(Some(value)),
            Self::Absent => Ok(None),
            Self::Invalid => Err(invalid),
        }
    }
}

/// How a kind of field reads the JSON values it takes; whatever it does not name is invalid.
trait Kind {
    type Value;
    fn text(text: &str) -> Field<Self::Value>;
    fn number(_: f64) -> Field<Self::Value> {
        Field::Invalid
    }
    fn unsigned(value: u64) -> Field<Self::Value> {
        Self::number(value as f64)
    }
    fn signed(value: i64) -> Field<Self::Value> {
        Self::number(value as f64)
    }
}

struct Of<K>(PhantomData<K>);

impl<'de, K: Kind> DeserializeSeed<'de> for Of<K> {
    type Value = Field<K::Value>;
    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, K: Kind> Visitor<'de> for Of<K> {
    type Value = Field<K::Value>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    #[inline]
    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(K::text(text))
    }
    #[inline]
    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(K::number(value))
    }
    #[inline]
    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(K::unsigned(value))
    }
    #[inline]
    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(K::signed(value))
    }
    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Field::Absent)
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Field::Invalid)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Invalid)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        // Keys as bytes: halves of surrogate pairs in there are nobody's business.
        while map.next_key_seed(KeySeed::<true>)?.is_some() {
            map.next_value::<IgnoredAny>()?;
        }
        Ok(Field::Invalid)
    }
}

struct Number;
struct Service;
struct Moment;
struct Text;
struct RideId;

impl Kind for Number {
    type Value = f64;
    #[inline]
    fn text(text: &str) -> Field<f64> {
        plain_decimal(text).map_or(Field::Invalid, Self::number)
    }
    #[inline]
    fn number(value: f64) -> Field<f64> {
        // Adding 0 turns -0 into 0 and nothing else into anything else.
        if value.is_finite() { Field::Given(value + 0.0) } else { Field::Invalid }
    }
}

impl Kind for Service {
    type Value = Label;
    fn text(text: &str) -> Field<Label> {
        if text.is_empty() { Field::Absent } else { plain_decimal(text).map_or(Field::Invalid, Self::number) }
    }
    fn number(value: f64) -> Field<Label> {
        if value == 0.0 {
            Field::Given(Label(false))
        } else if value == 1.0 {
            Field::Given(Label(true))
        } else {
            Field::Invalid
        }
    }
}

impl Kind for Moment {
    type Value = StatusTime;
    fn text(text: &str) -> Field<StatusTime> {
        text.parse().map_or(Field::Invalid, Field::Given)
    }
}

impl Kind for Text {
    type Value = CompactString;
    fn text(text: &str) -> Field<CompactString> {
        // Few texts are so long that it matters how they are written.
        let fits = text.len() <= TEXT_BYTES_MAX / 6 || json_bytes(text) <= TEXT_BYTES_MAX;
        if fits { Field::Given(CompactString::from(text)) } else { Field::Invalid }
    }
}

/// Bytes of a text within the quotes of JSON (RFC 8259 §7), each at most six.
fn json_bytes(text: &str) -> usize {
    let written = |byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0C => 2,
        0..=0x1F => 6,
        _ => 1,
    };
    text.bytes().map(written).sum()
}

impl Kind for RideId {
    type Value = CompactString;
    fn text(text: &str) -> Field<CompactString> {
        if text.is_empty() {
            Field::Absent
        } else if text.len() > RIDE_ID_BYTES_MAX || text.chars().any(char::is_control) {
            Field::Invalid
        } else {
            Field::Given(CompactString::from(text))
        }
    }
    fn unsigned(value: u64) -> Field<CompactString> {
        Field::Given(value.to_compact_string())
    }
    fn signed(value: i64) -> Field<CompactString> {
        Field::Given(value.to_compact_string())
    }
}

/// A number in a text: an optional sign, digits, optionally a point and digits. Nothing else: no exponent, no blanks,
/// no `nan`.
fn plain_decimal(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if digits(whole) && digits(fraction) { text.parse().ok() } else { None }
}

/// The fields of a ride as they were found.
#[derive(Default)]
struct Fields {
    seen: u16,
    twice: bool,
    statustime: Field<StatusTime>,
    latitude: Field<f64>,
    longitude: Field<f64>,
    distance: Field<f64>,
    healthpoints: Field<f64>,
    magicpoints: Field<f64>,
    fieldservice: Field<Label>,
    name: Field<CompactString>,
    breed: Field<CompactString>,
    ride_id: Field<CompactString>,
}

impl Gather for Fields {
    #[inline]
    fn member<'de, A: MapAccess<'de>, const CAREFUL: bool>(&mut self, key: Key, map: &mut A) -> Result<(), A::Error> {
        let bit = match key {
            Key::Unknown => 0,
            known => 1 << known as u16,
        };
        self.twice |= self.seen & bit != 0;
        self.seen |= bit;
        match key {
            Key::Statustime => self.statustime = value::<A, Moment, CAREFUL>(map)?,
            Key::Latitude => self.latitude = value::<A, Number, CAREFUL>(map)?,
            Key::Longitude => self.longitude = value::<A, Number, CAREFUL>(map)?,
            Key::Distance => self.distance = value::<A, Number, CAREFUL>(map)?,
            Key::Healthpoints => self.healthpoints = value::<A, Number, CAREFUL>(map)?,
            Key::Magicpoints => self.magicpoints = value::<A, Number, CAREFUL>(map)?,
            Key::Fieldservice => self.fieldservice = value::<A, Service, CAREFUL>(map)?,
            Key::Name => self.name = value::<A, Text, CAREFUL>(map)?,
            Key::Breed => self.breed = value::<A, Text, CAREFUL>(map)?,
            Key::RideId => self.ride_id = value::<A, RideId, CAREFUL>(map)?,
            Key::Unknown => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

impl Fields {
    fn judge(mut self) -> Judged {
        let ride_id = std::mem::take(&mut self.ride_id);
        if self.twice {
            return Judged::Rejected { reason: RejectReason::DuplicateField, ride_id: CompactString::default() };
        }
        match (self.ride(), ride_id) {
            (Err(reason), Field::Given(ride_id)) => Judged::Rejected { reason, ride_id },
            (Err(reason), _) => Judged::Rejected { reason, ride_id: CompactString::default() },
            (Ok(_), Field::Invalid) => {
                Judged::Rejected { reason: RejectReason::InvalidRideId, ride_id: CompactString::default() }
            }
            (Ok(ride), Field::Absent) => Judged::Accepted(ride),
            (Ok(ride), Field::Given(ride_id)) => Judged::Accepted(Ride { ride_id, ..ride }),
        }
    }

    fn ride(self) -> Result<Ride, RejectReason> {
        use RejectReason as Why;
        let statustime = self.statustime.required(Why::MissingStatustime, Why::InvalidStatustime)?;
        let latitude = self.latitude.required(Why::MissingLatitude, Why::InvalidLatitude)?;
        if !(-90.0..=90.0).contains(&latitude) {
            return Err(Why::LatitudeOutOfRange);
        }
        let longitude = self.longitude.required(Why::MissingLongitude, Why::InvalidLongitude)?;
        if !(-180.0..=180.0).contains(&longitude) {
            return Err(Why::LongitudeOutOfRange);
        }
        let distance = self.distance.required(Why::MissingDistance, Why::InvalidDistance)?;
        if distance < 0.0 {
            return Err(Why::NegativeDistance);
        }
        if distance > DISTANCE_MAX {
            return Err(Why::DistanceOutOfRange);
        }
        let points = -POINTS_MAX..=POINTS_MAX;
        let healthpoints = self.healthpoints.required(Why::MissingHealthpoints, Why::InvalidHealthpoints)?;
        if !points.contains(&healthpoints) {
            return Err(Why::HealthpointsOutOfRange);
        }
        let magicpoints = self.magicpoints.required(Why::MissingMagicpoints, Why::InvalidMagicpoints)?;
        if !points.contains(&magicpoints) {
            return Err(Why::MagicpointsOutOfRange);
        }
        Ok(Ride {
            ride_id: CompactString::default(),
            statustime,
            latitude,
            longitude,
            distance,
            healthpoints,
            magicpoints,
            fieldservice: self.fieldservice.optional(Why::InvalidFieldservice)?,
            name: self.name.optional(Why::InvalidName)?.unwrap_or_default(),
            breed: self.breed.optional(Why::InvalidBreed)?.filter(|breed| !breed.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests;
