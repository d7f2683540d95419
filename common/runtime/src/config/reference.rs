//! The reference of a section: type, range, unit and meaning of each setting, for the check and for people.

use super::problem::Problem;
use serde_json::Value;
use std::ops::RangeInclusive;

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Key within the section.
    pub key: &'static str,
    /// Type and range of the values.
    pub kind: Kind,
    /// Unit of a number or form of a text.
    pub unit: &'static str,
    /// Its effect, in a few words.
    pub meaning: &'static str,
}

/// Type and range of a setting's values.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A text.
    Text,
    /// A truth value.
    Flag,
    /// A whole number: least and largest value.
    Integer(u64, Option<u64>),
    /// 0, or a whole number from a least value on.
    ZeroOrIntegerFrom(u64),
    /// A finite number from a least value on.
    NumberFrom(f64),
    /// A finite number above a value, and at most another.
    NumberAbove(f64, Option<f64>),
    /// Numbers, texts or tables.
    List,
    /// A number, or a text that names how it is chosen.
    NumberOrText,
}

impl Kind {
    /// Returns the name, as in JSON Schema.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Flag => "boolean",
            Self::Integer(..) | Self::ZeroOrIntegerFrom(_) => "integer",
            Self::NumberFrom(_) | Self::NumberAbove(..) => "number",
            Self::List => "array",
            Self::NumberOrText => "number or string",
        }
    }

    /// Returns the accepted values; `None` if they are not a range of numbers.
    pub fn range(self) -> Option<String> {
        Some(match self {
            Self::Text | Self::Flag | Self::List | Self::NumberOrText => return None,
            Self::Integer(min, Some(max)) => format!("{min} to {max}"),
            Self::Integer(min, None) => format!("{min} or more"),
            Self::ZeroOrIntegerFrom(min) => format!("0, or {min} or more"),
            Self::NumberFrom(min) => format!("{min} or more"),
            Self::NumberAbove(above, Some(max)) => format!("above {above}, at most {max}"),
            Self::NumberAbove(above, None) => format!("above {above}"),
        })
    }

    /// Returns whether a value is within the range. JSON has no number that is not finite: it is `null`, and outside.
    fn contains(self, value: &Value) -> bool {
        let (integer, number) = (value.as_u64(), value.as_f64());
        match self {
            Self::Text | Self::Flag | Self::List | Self::NumberOrText => true,
            Self::Integer(min, max) => integer.is_some_and(|value| (min..=max.unwrap_or(u64::MAX)).contains(&value)),
            Self::ZeroOrIntegerFrom(min) => integer.is_some_and(|value| value == 0 || value >= min),
            Self::NumberFrom(min) => number.is_some_and(|value| value >= min),
            Self::NumberAbove(above, max) => {
                number.is_some_and(|value| value > above && value <= max.unwrap_or(f64::MAX))
            }
        }
    }
}

impl Entry {
    /// Adds its effect, in a few words.
    #[must_use]
    pub const fn means(self, meaning: &'static str) -> Self {
        Self { meaning, ..self }
    }

    /// Checks the range of this setting among the values of its section.
    ///
    /// # Errors
    /// Fails with the value, the range and the unit.
    pub(super) fn check(&self, values: &Value) -> Result<(), Problem> {
        let Some(value) = values.get(self.key).filter(|value| !self.kind.contains(value)) else { return Ok(()) };
        let value = if value.is_null() { "not finite".to_owned() } else { value.to_string() };
        Err(Problem::new(self.key, value, format!("{} ({})", self.kind.range().unwrap_or_default(), self.unit)))
    }
}

/// A setting of any kind.
pub const fn entry(key: &'static str, kind: Kind, unit: &'static str) -> Entry {
    Entry { key, kind, unit, meaning: "" }
}

/// A text of the form `unit`.
pub const fn text(key: &'static str, unit: &'static str) -> Entry {
    entry(key, Kind::Text, unit)
}

/// A truth value.
pub const fn flag(key: &'static str) -> Entry {
    entry(key, Kind::Flag, "true | false")
}

/// A whole number within `range`.
pub const fn number(key: &'static str, unit: &'static str, range: RangeInclusive<u64>) -> Entry {
    entry(key, Kind::Integer(*range.start(), Some(*range.end())), unit)
}

/// A whole number from `min` on.
pub const fn at_least(key: &'static str, unit: &'static str, min: u64) -> Entry {
    entry(key, Kind::Integer(min, None), unit)
}

/// A number above 0, and at most `max`.
pub const fn above_0(key: &'static str, unit: &'static str, max: Option<f64>) -> Entry {
    entry(key, Kind::NumberAbove(0.0, max), unit)
}
