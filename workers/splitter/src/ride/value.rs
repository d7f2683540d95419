//! Parses the value of each kind of field.

use crate::document::{INFINITE, NAN};
use common::{
    reading::Factor,
    ride::{Label, RejectReason, StatusTime},
    text::{self, LabelText},
};
use compact_str::{CompactString, ToCompactString};
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{fmt, marker::PhantomData};

/// Maximum length of a given `ride_id`, bytes.
pub const RIDE_ID_BYTES_MAX: usize = 128;
/// Maximum length of a `name` or `breed` as JSON, bytes. It bounds the size of a chunk.
pub const TEXT_BYTES_MAX: usize = 256;
/// Largest integer that differs from both its neighbours as an `f64`: 2^53 - 1.
const EXACT_INTEGER_MAX: f64 = 9_007_199_254_740_991.0;
/// Placeholders of a missing text, in any case, in addition to those of [`text::is_missing`].
const PLACEHOLDERS: [&str; 6] = ["none", "undefined", "n/a", "#n/a", "<na>", "\\n"];

/// The value of one field.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Field<T> {
    /// Missing, null, blank, or a placeholder of an optional field.
    #[default]
    Absent,
    /// Present, but not a value of this kind.
    Invalid,
    Given(T),
}

impl<T> Field<T> {
    pub(super) fn required(self, missing: RejectReason, invalid: RejectReason) -> Result<T, RejectReason> {
        match self {
            Self::Given(value) => Ok(value),
            Self::Absent => Err(missing),
            Self::Invalid => Err(invalid),
        }
    }

    pub(super) fn optional(self, invalid: RejectReason) -> Result<Option<T>, RejectReason> {
        match self {
            Self::Given(value) => Ok(Some(value)),
            Self::Absent => Ok(None),
            Self::Invalid => Err(invalid),
        }
    }
}

impl Field<f64> {
    /// Multiplies the number by a factor.
    pub(super) fn scaled(self, factor: &Factor) -> Self {
        match self {
            Self::Given(value) => Number::number(factor.apply(value)),
            other => other,
        }
    }
}

/// Conversions from JSON values to one kind of field. Types of JSON without a conversion are invalid.
pub(super) trait Kind {
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
    fn boolean(_: bool) -> Field<Self::Value> {
        Field::Invalid
    }
    /// The value for NaN and other words for a missing number.
    fn nan() -> Field<Self::Value> {
        Field::Absent
    }
}

/// Reads a value from its raw text. An unreadable value is invalid.
pub(super) fn read<K: Kind>(raw: &RawValue) -> Field<K::Value> {
    match raw.get() {
        NAN => return K::nan(),
        INFINITE => return Field::Invalid,
        _ => {}
    }
    let mut json = serde_json::Deserializer::from_str(raw.get());
    Of::<K>(PhantomData).deserialize(&mut json).unwrap_or(Field::Invalid)
}

/// Reads a value of this kind within its object.
pub(super) struct Of<K>(pub(super) PhantomData<K>);

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
    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(K::boolean(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Invalid)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        // Half a surrogate pair in a key fails here. The object is then read value by value, which finds the field invalid,
        // too.
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Invalid)
    }
}

pub(super) struct Number;
pub(super) struct Service;
pub(super) struct Moment;
/// Free text, kept unchanged.
pub(super) struct Text;
/// A category, for which a placeholder means absent.
pub(super) struct Category;
pub(super) struct RideId;

fn is_blank(text: &str) -> bool {
    text::trimmed(text).is_empty()
}

/// Returns whether a text is blank or a placeholder of a missing value, such as `NaN`, `NULL` and `N/A`.
fn is_placeholder(text: &str) -> bool {
    let text = text::trimmed(text);
    // No placeholder is longer.
    text.len() <= 9
        && (text.is_empty()
            || text::is_missing(text)
            || PLACEHOLDERS.iter().any(|placeholder| text.eq_ignore_ascii_case(placeholder)))
}

impl Kind for Number {
    type Value = f64;
    #[inline]
    fn text(text: &str) -> Field<f64> {
        match text::number(text) {
            Some(value) => Self::number(value),
            None if is_blank(text) => Field::Absent,
            None => Field::Invalid,
        }
    }
    #[inline]
    fn number(value: f64) -> Field<f64> {
        // Adding 0 turns -0 into 0 and changes no other number.
        if value.is_finite() { Field::Given(value + 0.0) } else { Field::Invalid }
    }
    fn nan() -> Field<f64> {
        Field::Invalid
    }
}

impl Kind for Service {
    type Value = Label;
    fn text(text: &str) -> Field<Label> {
        match text::label(text) {
            LabelText::Unlabelled => Field::Absent,
            LabelText::Label(label) => Field::Given(Label(label)),
            LabelText::Invalid => Field::Invalid,
        }
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
    fn boolean(value: bool) -> Field<Label> {
        Field::Given(Label(value))
    }
}

impl Kind for Moment {
    type Value = StatusTime;
    fn text(text: &str) -> Field<StatusTime> {
        match StatusTime::read(text) {
            Ok(moment) => Field::Given(moment),
            Err(_) if is_blank(text) => Field::Absent,
            Err(_) => Field::Invalid,
        }
    }
    fn number(value: f64) -> Field<StatusTime> {
        StatusTime::from_epoch(value).map_or(Field::Invalid, Field::Given)
    }
    fn nan() -> Field<StatusTime> {
        Field::Invalid
    }
}

impl Kind for Text {
    type Value = CompactString;
    fn text(text: &str) -> Field<CompactString> {
        // An escaped byte takes at most six bytes, so a short text always fits.
        let fits = text.len() <= TEXT_BYTES_MAX / 6 || json_bytes(text) <= TEXT_BYTES_MAX;
        if fits { Field::Given(CompactString::from(text)) } else { Field::Invalid }
    }
}

impl Kind for Category {
    type Value = CompactString;
    fn text(text: &str) -> Field<CompactString> {
        if is_placeholder(text) { Field::Absent } else { Text::text(text) }
    }
}

/// Returns the length of a text as JSON without the quotes (RFC 8259 §7), bytes.
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
        if is_placeholder(text) {
            Field::Absent
        } else if text.len() > RIDE_ID_BYTES_MAX || text.chars().any(char::is_control) {
            Field::Invalid
        } else {
            Field::Given(CompactString::from(text))
        }
    }
    fn number(value: f64) -> Field<CompactString> {
        // Data frames write integers of a column with missing values as `7.0`.
        if value.fract() == 0.0 && value.abs() <= EXACT_INTEGER_MAX {
            Field::Given((value as i64).to_compact_string())
        } else {
            Field::Invalid
        }
    }
    fn unsigned(value: u64) -> Field<CompactString> {
        Field::Given(value.to_compact_string())
    }
    fn signed(value: i64) -> Field<CompactString> {
        Field::Given(value.to_compact_string())
    }
}
