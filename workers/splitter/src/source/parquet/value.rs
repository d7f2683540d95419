//! Converts the values of a column to JSON.

use super::error::InvalidParquet;
use parquet::{
    basic::{ConvertedType, LogicalType, TimeUnit, Type},
    data_type::{ByteArray, FixedLenByteArray, Int96},
    schema::types::ColumnDescriptor,
};
use serde::Serialize;
use std::io::Write;

/// Maximum number of bytes kept of a text. A ride with a longer one is too large.
const TEXT_BYTES_MAX: usize = crate::ride::RIDE_BYTES_MAX + 1;
/// Maximum size of a value of fixed length, bytes: decimals, UUIDs and half-precision numbers have up to 16.
const FIXED_BYTES_MAX: i32 = 16;
const SECONDS_PER_DAY: i64 = 86_400;

/// The meaning of the values of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A number or a boolean, according to the physical type.
    Plain,
    /// An unsigned integer.
    Unsigned,
    /// Time since 1970 in UTC; the field is the number of units per second.
    Timestamp(i64),
    /// Days since 1970.
    Date,
    /// An integer with this many decimal places.
    Decimal(i32),
    /// UTF-8.
    Text,
    /// Text if it is UTF-8, or else left out, since no field of a ride has other bytes.
    PerhapsText,
    Uuid,
    /// A floating-point number of 16 bits.
    Half,
}

impl Kind {
    /// Returns the kind of a column; `None` if no field of a ride has such values.
    pub fn of(column: &ColumnDescriptor) -> Option<Self> {
        let physical = column.physical_type();
        if physical == Type::FIXED_LEN_BYTE_ARRAY && !(1..=FIXED_BYTES_MAX).contains(&column.type_length()) {
            return None;
        }
        let is_bytes = matches!(physical, Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY);
        match column.logical_type_ref() {
            Some(LogicalType::Timestamp(timestamp)) => return Some(Self::Timestamp(per_second(timestamp.unit))),
            Some(LogicalType::Date) => return Some(Self::Date),
            Some(LogicalType::Decimal(decimal)) => return Some(Self::Decimal(decimal.scale)),
            Some(LogicalType::Integer(integer)) if !integer.is_signed => return Some(Self::Unsigned),
            Some(LogicalType::String | LogicalType::Enum | LogicalType::Json) => return Some(Self::Text),
            Some(LogicalType::Uuid) => return Some(Self::Uuid),
            Some(LogicalType::Float16) => return Some(Self::Half),
            Some(LogicalType::Bson | LogicalType::Geometry(_) | LogicalType::Geography(_)) => return None,
            _ => {}
        }
        Some(match column.converted_type() {
            ConvertedType::TIMESTAMP_MILLIS => Self::Timestamp(1_000),
            ConvertedType::TIMESTAMP_MICROS => Self::Timestamp(1_000_000),
            ConvertedType::DATE => Self::Date,
            ConvertedType::DECIMAL => Self::Decimal(column.type_scale()),
            ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON => Self::Text,
            ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64 => {
                Self::Unsigned
            }
            ConvertedType::BSON | ConvertedType::INTERVAL => return None,
            _ if is_bytes => Self::PerhapsText,
            _ => Self::Plain,
        })
    }
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::MILLIS => 1_000,
        TimeUnit::MICROS => 1_000_000,
        TimeUnit::NANOS => 1_000_000_000,
    }
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Whole(i64),
    Unsigned(u64),
    Single(f32),
    Double(f64),
    Text(ByteArray),
    /// Serialised JSON.
    Json(String),
}

impl Value {
    pub fn of_i32(kind: Kind, value: i32) -> Self {
        match kind {
            // The sign bit is part of the number.
            Kind::Unsigned => Self::Unsigned(u64::from(value.cast_unsigned())),
            _ => Self::of_i64(kind, i64::from(value)),
        }
    }

    pub fn of_i64(kind: Kind, value: i64) -> Self {
        match kind {
            Kind::Unsigned => Self::Unsigned(value.cast_unsigned()),
            Kind::Timestamp(per_second) => {
                let nanos = value.rem_euclid(per_second) * (1_000_000_000 / per_second);
                timestamp(value.div_euclid(per_second), nanos, value)
            }
            Kind::Date => date(value),
            Kind::Decimal(scale) => decimal(i128::from(value), scale),
            _ => Self::Whole(value),
        }
    }

    /// Converts a timestamp of Impala and old Spark: nanoseconds of a Julian day.
    pub fn of_int96(value: &Int96) -> Self {
        const JULIAN_DAY_OF_1970: i64 = 2_440_588;
        let (low, high, day) = match value.data() {
            [low, high, day] => (*low, *high, *day),
            _ => return Self::Null,
        };
        let nanos = i64::from(high) << 32 | i64::from(low);
        let seconds = (i64::from(day) - JULIAN_DAY_OF_1970) * SECONDS_PER_DAY + nanos.div_euclid(1_000_000_000);
        timestamp(seconds, nanos.rem_euclid(1_000_000_000), seconds)
    }

    /// Converts a value of variable length.
    ///
    /// # Errors
    /// Fails on a text that is not UTF-8.
    pub fn of_bytes(kind: Kind, value: &ByteArray, column: &str) -> Result<Self, InvalidParquet> {
        let bytes = value.data();
        let is_text = std::str::from_utf8(bytes).is_ok();
        match kind {
            Kind::Decimal(scale) => Ok(unscaled(bytes).map_or(Self::Null, |number| decimal(number, scale))),
            _ if is_text => Ok(Self::Text(value.clone())),
            Kind::Text => Err(InvalidParquet::Broken(format!("column {column:?} has a text that is not UTF-8"))),
            _ => Ok(Self::Null),
        }
    }

    /// Converts a value of fixed length.
    ///
    /// # Errors
    /// Fails on a text that is not UTF-8.
    pub fn of_fixed(kind: Kind, value: &FixedLenByteArray, column: &str) -> Result<Self, InvalidParquet> {
        let bytes = value.data();
        match (kind, bytes) {
            (Kind::Half, [low, high]) => Ok(Self::Single(half(u16::from_le_bytes([*low, *high])))),
            (Kind::Uuid, [..]) if bytes.len() == 16 => {
                let hex = hex::encode(bytes);
                let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
                let parts = [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)];
                Ok(Self::Json(format!("\"{}\"", parts.join("-"))))
            }
            _ => Self::of_bytes(kind, value, column),
        }
    }

    pub fn is_null(&self) -> bool {
        *self == Self::Null
    }

    /// Writes the value as JSON. A non-finite number becomes its name as a string.
    pub fn write(&self, into: &mut Vec<u8>) {
        match self {
            Self::Null => into.extend_from_slice(b"null"),
            Self::Bool(value) => write_json(into, value),
            Self::Whole(value) => write_json(into, value),
            Self::Unsigned(value) => write_json(into, value),
            Self::Single(value) if value.is_finite() => write_json(into, value),
            Self::Double(value) if value.is_finite() => write_json(into, value),
            Self::Single(value) => write_json(into, not_finite(f64::from(*value))),
            Self::Double(value) => write_json(into, not_finite(*value)),
            Self::Text(text) => {
                let text = std::str::from_utf8(text.data()).unwrap_or_default();
                write_json(into, text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or_default());
            }
            Self::Json(json) => into.extend_from_slice(json.as_bytes()),
        }
    }
}

/// Writes a value whose serialisation cannot fail.
pub(super) fn write_json(into: &mut Vec<u8>, value: impl Serialize) {
    let start = into.len();
    if serde_json::to_writer(&mut *into, &value).is_err() {
        into.truncate(start);
        let _ = into.write_all(b"null");
    }
}

fn not_finite(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

/// Returns RFC 3339 in UTC; for a time beyond the calendar the number as a string, which is rejected as no time.
fn timestamp(seconds: i64, nanos: i64, number: i64) -> Value {
    let at = i32::try_from(nanos).ok().and_then(|nanos| jiff::Timestamp::new(seconds, nanos).ok());
    Value::Json(at.map_or_else(|| format!("\"{number}\""), |at| format!("\"{at}\"")))
}

fn date(days: i64) -> Value {
    let at = days.checked_mul(SECONDS_PER_DAY).and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    let date = at.map(|at| at.to_zoned(jiff::tz::TimeZone::UTC).date());
    Value::Json(date.map_or_else(|| format!("\"{days}\""), |date| format!("\"{date}\"")))
}

/// Parses the two's complement of a decimal, big-endian.
fn unscaled(bytes: &[u8]) -> Option<i128> {
    let fill = if bytes.first()? & 0x80 == 0 { 0 } else { 0xFF };
    let mut whole = [fill; 16];
    let start = 16usize.checked_sub(bytes.len())?;
    whole.get_mut(start..)?.copy_from_slice(bytes);
    Some(i128::from_be_bytes(whole))
}

/// Converts a decimal to a JSON number.
fn decimal(unscaled: i128, scale: i32) -> Value {
    let places = usize::try_from(scale.clamp(0, 38)).unwrap_or_default();
    if places == 0 {
        return Value::Json(unscaled.to_string());
    }
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    let sign = if unscaled < 0 { "-" } else { "" };
    Value::Json(format!("{sign}{whole}.{fraction}"))
}

/// Converts IEEE 754 binary16.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(bits >> 10 & 0x1F);
    let fraction = f32::from(bits & 0x3FF);
    match exponent {
        0 => sign * fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(value: &Value) -> String {
        let mut json = Vec::new();
        value.write(&mut json);
        String::from_utf8(json).unwrap()
    }

    #[test]
    fn timestamps_are_rfc_3339_in_utc() {
        for (per_second, number) in [(1_000, 1_524_675_785_722), (1_000_000, 1_524_675_785_722_000)] {
            let value = Value::of_i64(Kind::Timestamp(per_second), number);
            assert_eq!(written(&value), "\"2018-04-25T17:03:05.722Z\"");
        }
        let nanos = Value::of_i64(Kind::Timestamp(1_000_000_000), 1_524_675_785_722_000_001);
        assert_eq!(written(&nanos), "\"2018-04-25T17:03:05.722000001Z\"");
        assert_eq!(written(&Value::of_i64(Kind::Timestamp(1_000), -1)), "\"1969-12-31T23:59:59.999Z\"");
        assert_eq!(written(&Value::of_i64(Kind::Timestamp(1_000), i64::MAX)), "\"9223372036854775807\"");
        let mut spark = Int96::new();
        let nanos: i64 = 61_385_722_000_000;
        spark.set_data(nanos as u32, (nanos >> 32) as u32, 2_458_234);
        assert_eq!(written(&Value::of_int96(&spark)), "\"2018-04-25T17:03:05.722Z\"");
        assert_eq!(written(&Value::of_i32(Kind::Date, 17_646)), "\"2018-04-25\"");
    }

    #[test]
    fn numbers_keep_their_value() {
        for (value, json) in [
            (decimal(-1234, 2), "-12.34"),
            (decimal(5, 3), "0.005"),
            (decimal(-5, 0), "-5"),
            (Value::of_i32(Kind::Unsigned, -1), "4294967295"),
            (Value::of_i64(Kind::Unsigned, -1), "18446744073709551615"),
            (Value::Single(40.6), "40.6"),
            (Value::Double(f64::NAN), "\"NaN\""),
            (Value::Single(f32::NEG_INFINITY), "\"-Infinity\""),
            (Value::Single(half(0x3C00)), "1.0"),
            (Value::Single(half(0xC000)), "-2.0"),
            (Value::Single(half(0x7C00)), "\"Infinity\""),
            (Value::Single(half(0x0001)), "5.9604645e-8"),
        ] {
            assert_eq!(written(&value), json);
        }
        assert_eq!(unscaled(&[0xFF, 0x85]), Some(-123));
        assert_eq!(unscaled(&[0; 17]), None);
    }

    proptest! {
        #[test]
        fn every_value_is_json(number: i64, scale in -2..60i32, bits: u16, text in any::<String>()) {
            let values = [
                Value::of_i64(Kind::Timestamp(1_000), number),
                Value::of_i64(Kind::Date, number),
                Value::of_i64(Kind::Decimal(scale), number),
                Value::Single(half(bits)),
                Value::Text(ByteArray::from(text.as_str())),
            ];
            for value in values {
                let json = written(&value);
                prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{}", json);
            }
        }
    }
}
