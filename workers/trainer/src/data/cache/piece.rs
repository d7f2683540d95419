//! Encodes parsed rides and decodes them bit for bit: column by column, with `postcard`.
//!
//! A number takes 1, 2 or 4 bytes if its whole column consists of decimal numbers with few digits, as is usual for
//! rides; otherwise the 8 bytes of an `f64`. A ride usually takes 30 bytes, of which 16 are the hash of its id, and 67
//! at most.

use crate::data::rows::{NO_BREED, ParsedBlock, Row};
use common::features::FEATURE_COUNT;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};
use std::{borrow::Cow, fmt};

/// Divisors of decimal numbers, tried in this order. A column with more decimal places is stored as `f64`.
const DIVISORS: [f64; 7] = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6];
const RIDE_BYTES: usize = size_of::<u128>();

/// Why bytes cannot be decoded to rides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the rows cannot be decoded: {0}")]
pub(super) struct DecodeError(&'static str);

/// The fields of [`ParsedBlock`], column by column.
#[derive(Serialize, Deserialize)]
struct Columns<'a> {
    rides: u64,
    unlabelled: u64,
    without_weather: u64,
    out_of_range: u64,
    #[serde(borrow)]
    breeds: Vec<&'a str>,
    #[serde(borrow)]
    coverage: Vec<(&'a str, &'a str, u64)>,
    /// `xxh3_128` of each ride's id, little-endian; one per row.
    #[serde(borrow)]
    ride: Bytes<'a>,
    #[serde(borrow)]
    features: [Numbers<'a>; FEATURE_COUNT],
    /// One bit per row, lowest bit first.
    #[serde(borrow)]
    service: Bytes<'a>,
    /// As `service`.
    #[serde(borrow)]
    test: Bytes<'a>,
    #[serde(borrow)]
    spread: Bytes<'a>,
    /// Index in `breeds` plus 1, or 0 for none.
    #[serde(borrow)]
    breed: Integers<'a>,
}

/// A column of numbers.
#[derive(Serialize, Deserialize)]
enum Numbers<'a> {
    /// Whole numbers, to be divided by one of [`DIVISORS`]; `divisor` is its index.
    Decimals {
        divisor: u8,
        #[serde(borrow)]
        integers: Integers<'a>,
    },
    /// The bits of each `f64`, little-endian.
    #[serde(borrow)]
    Exact(Bytes<'a>),
}

/// A column of whole numbers, little-endian.
#[derive(Serialize, Deserialize)]
enum Integers<'a> {
    #[serde(borrow)]
    One(Bytes<'a>),
    #[serde(borrow)]
    Two(Bytes<'a>),
    #[serde(borrow)]
    Four(Bytes<'a>),
}

/// Bytes that are decoded without copying.
struct Bytes<'a>(Cow<'a, [u8]>);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Bytes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowed;
        impl<'de> Visitor<'de> for Borrowed {
            type Value = &'de [u8];

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("bytes")
            }

            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(bytes)
            }
        }
        deserializer.deserialize_bytes(Borrowed).map(|bytes| Self(Cow::Borrowed(bytes)))
    }
}

impl<'a> Bytes<'a> {
    /// Parts of `N` bytes each.
    fn of<const N: usize>(parts: impl ExactSizeIterator<Item = [u8; N]>) -> Self {
        let mut bytes = Vec::with_capacity(parts.len() * N);
        parts.for_each(|part| bytes.extend_from_slice(&part));
        Self(Cow::Owned(bytes))
    }

    /// Splits the bytes into parts of `N` bytes. Fails unless there are exactly `rows` parts.
    fn parts<const N: usize>(&self, rows: usize) -> Result<&[[u8; N]], DecodeError> {
        let (parts, rest) = self.0.as_chunks();
        if rest.is_empty() && parts.len() == rows { Ok(parts) } else { Err(DecodeError("a column has another length")) }
    }

    fn bits(bits: impl ExactSizeIterator<Item = bool>) -> Self {
        let mut bytes = vec![0; bits.len().div_ceil(8)];
        for (index, bit) in bits.enumerate() {
            bytes[index / 8] |= u8::from(bit) << (index % 8);
        }
        Self(Cow::Owned(bytes))
    }
}

fn is_set(bits: &[[u8; 1]], index: usize) -> bool {
    bits[index / 8][0] >> (index % 8) & 1 == 1
}

impl Integers<'_> {
    fn of(integers: &[i32]) -> Self {
        let (least, most) = integers.iter().fold((0, 0), |(least, most), &n| (n.min(least), n.max(most)));
        if let (Ok(_), Ok(_)) = (i8::try_from(least), i8::try_from(most)) {
            Self::One(Bytes::of(integers.iter().map(|n| [n.to_le_bytes()[0]])))
        } else if let (Ok(_), Ok(_)) = (i16::try_from(least), i16::try_from(most)) {
            Self::Two(Bytes::of(integers.iter().map(|n| [n.to_le_bytes()[0], n.to_le_bytes()[1]])))
        } else {
            Self::Four(Bytes::of(integers.iter().map(|n| n.to_le_bytes())))
        }
    }

    fn each(&self, rows: usize, mut take: impl FnMut(usize, i32)) -> Result<(), DecodeError> {
        match self {
            Self::One(bytes) => {
                let parts = bytes.parts(rows)?.iter().enumerate();
                parts.for_each(|(row, part)| take(row, i8::from_le_bytes(*part).into()));
            }
            Self::Two(bytes) => {
                let parts = bytes.parts(rows)?.iter().enumerate();
                parts.for_each(|(row, part)| take(row, i16::from_le_bytes(*part).into()));
            }
            Self::Four(bytes) => {
                let parts = bytes.parts(rows)?.iter().enumerate();
                parts.for_each(|(row, part)| take(row, i32::from_le_bytes(*part)));
            }
        }
        Ok(())
    }
}

impl Numbers<'_> {
    fn of(rows: &[Row], feature: usize, integers: &mut Vec<i32>) -> Self {
        for (divisor, by) in (0..).zip(DIVISORS) {
            integers.clear();
            integers.extend(rows.iter().map_while(|row| decimal(row.features[feature], by)));
            if integers.len() == rows.len() {
                return Self::Decimals { divisor, integers: Integers::of(integers) };
            }
        }
        Self::Exact(Bytes::of(rows.iter().map(|row| row.features[feature].to_bits().to_le_bytes())))
    }

    fn each(&self, rows: usize, mut take: impl FnMut(usize, f64)) -> Result<(), DecodeError> {
        match self {
            Self::Decimals { divisor, integers } => {
                let divisor = DIVISORS.get(usize::from(*divisor)).ok_or(DecodeError("an unknown divisor"))?;
                integers.each(rows, |row, integer| take(row, f64::from(integer) / divisor))
            }
            Self::Exact(bytes) => {
                let parts = bytes.parts(rows)?.iter().enumerate();
                parts.for_each(|(row, part)| take(row, f64::from_bits(u64::from_le_bytes(*part))));
                Ok(())
            }
        }
    }
}

/// Returns the whole number that, divided by `divisor`, gives `number` to the last bit; `None` if there is none.
fn decimal(number: f64, divisor: f64) -> Option<i32> {
    // Rounded half away from zero; a cast of what an i32 cannot hold gives another number.
    let integer = (number * divisor + f64::copysign(0.5, number)) as i32;
    (f64::from(integer) / divisor).to_bits().eq(&number.to_bits()).then_some(integer)
}

/// Encodes a block of rides.
pub(super) fn encode(parsed: &ParsedBlock) -> Vec<u8> {
    let ParsedBlock { rides, unlabelled, without_weather, out_of_range, rows, breeds, coverage } = parsed;
    let mut integers = Vec::with_capacity(rows.len());
    let features = std::array::from_fn(|feature| Numbers::of(rows, feature, &mut integers));
    integers.clear();
    integers.extend(rows.iter().map(|row| row.breed.wrapping_add(1).cast_signed()));
    let columns = Columns {
        rides: *rides,
        unlabelled: *unlabelled,
        without_weather: *without_weather,
        out_of_range: *out_of_range,
        breeds: breeds.iter().map(String::as_str).collect(),
        coverage: coverage.iter().map(|((station, month), rides)| (station.as_str(), month.as_str(), *rides)).collect(),
        ride: Bytes::of(rows.iter().map(|row| row.ride.to_le_bytes())),
        features,
        service: Bytes::bits(rows.iter().map(|row| row.service)),
        test: Bytes::bits(rows.iter().map(|row| row.test)),
        spread: Bytes::of(rows.iter().map(|row| [row.spread])),
        breed: Integers::of(&integers),
    };
    postcard::to_allocvec(&columns).expect("encoding to memory does not fail")
}

/// Decodes rides from bytes that [`encode`] returned.
///
/// # Errors
/// Fails if the bytes are anything else. The memory used is proportional to their number at most.
pub(super) fn decode(bytes: &[u8]) -> Result<ParsedBlock, DecodeError> {
    let decoded: Result<(Columns<'_>, &[u8]), _> = postcard::take_from_bytes(bytes);
    let (columns, rest) = decoded.map_err(|_| DecodeError("no columns"))?;
    if !rest.is_empty() {
        return Err(DecodeError("bytes are left over"));
    }
    let count = columns.ride.0.len() / RIDE_BYTES;
    let rides = columns.ride.parts::<RIDE_BYTES>(count)?;
    let bits = count.div_ceil(8);
    let (service, test) = (columns.service.parts::<1>(bits)?, columns.test.parts::<1>(bits)?);
    let spread = columns.spread.parts::<1>(count)?;
    let row = |(index, ride): (usize, &[u8; RIDE_BYTES])| Row {
        features: [0.0; FEATURE_COUNT],
        service: is_set(service, index),
        test: is_set(test, index),
        spread: spread[index][0],
        breed: NO_BREED,
        ride: u128::from_le_bytes(*ride),
    };
    let mut rows: Vec<Row> = rides.iter().enumerate().map(row).collect();
    for (feature, numbers) in columns.features.iter().enumerate() {
        numbers.each(count, |row, number| rows[row].features[feature] = number)?;
    }
    let breeds = columns.breeds.len();
    let mut is_known = true;
    columns.breed.each(count, |row, number| {
        rows[row].breed = number.cast_unsigned().wrapping_sub(1);
        is_known &= usize::try_from(number).is_ok_and(|number| number <= breeds);
    })?;
    if !is_known || rows.iter().any(|row| row.features.iter().any(|number| !number.is_finite())) {
        return Err(DecodeError("a value that no ride can have"));
    }
    let coverage = columns.coverage.into_iter();
    Ok(ParsedBlock {
        rides: columns.rides,
        unlabelled: columns.unlabelled,
        without_weather: columns.without_weather,
        out_of_range: columns.out_of_range,
        rows,
        breeds: columns.breeds.into_iter().map(str::to_owned).collect(),
        coverage: coverage.map(|(station, month, rides)| ((station.to_owned(), month.to_owned()), rides)).collect(),
    })
}
