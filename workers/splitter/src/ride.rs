//! Parses and validates one ride in a single pass over its bytes. Depends on the contract and on [`FromObject`]; pure.
//!
//! This is the hottest code of the fleet: it allocates nothing for a ride whose texts fit into a [`CompactString`], and
//! builds no tree. Rare JSON that the pass cannot read (a number beyond `f64`, half a surrogate pair) is read again, value
//! by value, by [`FromObject::from_members`], as is every ride of a batch with a mapping.

mod key;
mod value;

use crate::document::{FromObject, Lookup, Members};
use common::{
    reading::{Factor, Mapping},
    ride::{DISTANCE_MAX, Label, POINTS_MAX, RejectReason, Ride, StatusTime},
};
use compact_str::CompactString;
use key::{Key, KeySeed};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{fmt, marker::PhantomData};
use value::{Category, Field, Kind, Moment, Number, Of, RideId, Service, Text, read};
pub use value::{RIDE_ID_BYTES_MAX, TEXT_BYTES_MAX};

/// Maximum size of one ride, bytes; a larger one is rejected as `ride_too_large`. It is no setting, so that a batch gives the
/// same rides whenever it is published again.
pub const RIDE_BYTES_MAX: usize = 64 * 1024;

/// The result of validating one object.
#[derive(Debug, Clone, PartialEq)]
pub enum Validation {
    /// A valid ride. Its `ride_id` is empty if none was given.
    Accepted(Ride),
    /// An invalid ride.
    Rejected {
        /// The first reason in the order of the fields: statustime, latitude, longitude, distance, healthpoints,
        /// magicpoints, fieldservice, name, breed, ride_id. A repeated field precedes all of them.
        reason: RejectReason,
        /// The given id; empty if there was none or an invalid one.
        ride_id: CompactString,
    },
}

impl<'de> Deserialize<'de> for Validation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Object::<Fields>(PhantomData)).map(Fields::validate)
    }
}

impl FromObject for Validation {
    fn from_members(object: &[u8], map: &Mapping) -> Self {
        match gather::<Fields>(object, map) {
            Some(fields) => fields.validate(),
            None => Self::Rejected { reason: RejectReason::InvalidJson, ride_id: CompactString::default() },
        }
    }
}

/// What the first pass reads of a ride.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outline {
    /// Whether the ride has a `ride_id`, valid or not.
    pub has_ride_id: bool,
}

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Object::<Self>(PhantomData))
    }
}

impl FromObject for Outline {
    fn from_members(object: &[u8], map: &Mapping) -> Self {
        gather(object, map).unwrap_or_default()
    }
}

/// Collects values from the members of one object.
trait Gather: Default {
    /// Reads the value that follows the key just read.
    fn member<'de, A: MapAccess<'de>>(&mut self, key: Key, map: &mut A) -> Result<(), A::Error>;
    /// Reads the value of a member from its raw text.
    fn raw_member(&mut self, key: Key, raw: &RawValue, factor: Option<&Factor>);
    /// Records that the member occurs twice.
    fn repeated_member(&mut self, key: Key);
}

struct Object<G>(PhantomData<G>);

impl<'de, G: Gather> Visitor<'de> for Object<G> {
    type Value = G;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a ride")
    }
    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<G, A::Error> {
        let mut gathered = G::default();
        while let Some(key) = map.next_key_seed(KeySeed)? {
            gathered.member(key, &mut map)?;
        }
        Ok(gathered)
    }
}

/// Reads an object value by value: each field from its mapped source, or else under its own key.
fn gather<G: Gather>(object: &[u8], map: &Mapping) -> Option<G> {
    let members = Members::of(object)?;
    let mut gathered = G::default();
    for (field, source) in map.iter() {
        let key = Key::of(field.as_bytes());
        let value = match members.find(&source.key) {
            Lookup::Absent => members.follow(source.path()),
            value => value,
        };
        match value {
            Lookup::Absent => {}
            Lookup::Once(raw) => gathered.raw_member(key, raw, source.factor.as_ref()),
            Lookup::Twice => gathered.repeated_member(key),
        }
    }
    let is_mapped = |key: Key| map.iter().any(|(field, _)| Key::of(field.as_bytes()) == key);
    for (name, raw) in members.iter() {
        let key = Key::read(name);
        if key != Key::Unknown && !is_mapped(key) {
            gathered.raw_member(key, raw, None);
        }
    }
    Some(gathered)
}

#[inline]
fn value<'de, A: MapAccess<'de>, K: Kind>(map: &mut A) -> Result<Field<K::Value>, A::Error> {
    map.next_value_seed(Of::<K>(PhantomData))
}

impl Gather for Outline {
    #[inline]
    fn member<'de, A: MapAccess<'de>>(&mut self, key: Key, map: &mut A) -> Result<(), A::Error> {
        match key {
            Key::RideId => self.has_ride_id |= !matches!(value::<A, RideId>(map)?, Field::Absent),
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }

    fn raw_member(&mut self, key: Key, raw: &RawValue, _: Option<&Factor>) {
        if key == Key::RideId {
            self.has_ride_id |= !matches!(read::<RideId>(raw), Field::Absent);
        }
    }

    fn repeated_member(&mut self, key: Key) {
        self.has_ride_id |= key == Key::RideId;
    }
}

/// The fields of a ride before validation.
#[derive(Default)]
struct Fields {
    /// One bit for each key that was read.
    keys: u16,
    has_repeated_key: bool,
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

impl Fields {
    #[inline]
    fn record_key(&mut self, key: Key) {
        let bit = match key {
            Key::Unknown => 0,
            key => 1 << key as u16,
        };
        self.has_repeated_key |= self.keys & bit != 0;
        self.keys |= bit;
    }
}

impl Gather for Fields {
    #[inline]
    fn member<'de, A: MapAccess<'de>>(&mut self, key: Key, map: &mut A) -> Result<(), A::Error> {
        self.record_key(key);
        match key {
            Key::Statustime => self.statustime = value::<A, Moment>(map)?,
            Key::Latitude => self.latitude = value::<A, Number>(map)?,
            Key::Longitude => self.longitude = value::<A, Number>(map)?,
            Key::Distance => self.distance = value::<A, Number>(map)?,
            Key::Healthpoints => self.healthpoints = value::<A, Number>(map)?,
            Key::Magicpoints => self.magicpoints = value::<A, Number>(map)?,
            Key::Fieldservice => self.fieldservice = value::<A, Service>(map)?,
            Key::Name => self.name = value::<A, Text>(map)?,
            Key::Breed => self.breed = value::<A, Category>(map)?,
            Key::RideId => self.ride_id = value::<A, RideId>(map)?,
            Key::Unknown => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }

    fn raw_member(&mut self, key: Key, raw: &RawValue, factor: Option<&Factor>) {
        self.record_key(key);
        let number = || match factor {
            Some(factor) => read::<Number>(raw).scaled(factor),
            None => read::<Number>(raw),
        };
        match key {
            Key::Statustime => self.statustime = read::<Moment>(raw),
            Key::Latitude => self.latitude = number(),
            Key::Longitude => self.longitude = number(),
            Key::Distance => self.distance = number(),
            Key::Healthpoints => self.healthpoints = number(),
            Key::Magicpoints => self.magicpoints = number(),
            Key::Fieldservice => self.fieldservice = read::<Service>(raw),
            Key::Name => self.name = read::<Text>(raw),
            Key::Breed => self.breed = read::<Category>(raw),
            Key::RideId => self.ride_id = read::<RideId>(raw),
            Key::Unknown => {}
        }
    }

    fn repeated_member(&mut self, _: Key) {
        self.has_repeated_key = true;
    }
}

impl Fields {
    fn validate(mut self) -> Validation {
        let ride_id = std::mem::take(&mut self.ride_id);
        if self.has_repeated_key {
            return Validation::Rejected { reason: RejectReason::DuplicateField, ride_id: CompactString::default() };
        }
        match (self.ride(), ride_id) {
            (Err(reason), Field::Given(ride_id)) => Validation::Rejected { reason, ride_id },
            (Err(reason), _) => Validation::Rejected { reason, ride_id: CompactString::default() },
            (Ok(_), Field::Invalid) => {
                Validation::Rejected { reason: RejectReason::InvalidRideId, ride_id: CompactString::default() }
            }
            (Ok(ride), Field::Absent) => Validation::Accepted(ride),
            (Ok(ride), Field::Given(ride_id)) => Validation::Accepted(Ride { ride_id, ..ride }),
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
            breed: self.breed.optional(Why::InvalidBreed)?,
        })
    }
}

#[cfg(test)]
mod tests;
