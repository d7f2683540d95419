//! The time at which a ride ended: its type, its canonical form, and the accepted forms.

use crate::text;
use jiff::civil::DateTime;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// A time in UTC with milliseconds, written `YYYY-MM-DD HH:MM:SS.fff`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusTime(DateTime);

/// A text or number that is not a [`StatusTime`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected YYYY-MM-DD HH:MM:SS[.fff] in UTC, or RFC 3339")]
pub struct InvalidStatusTime;

impl StatusTime {
    /// Returns the UTC date as `(year, month, day)`: the key of the weather join.
    pub fn date(self) -> (i16, i8, i8) {
        (self.0.year(), self.0.month(), self.0.day())
    }

    /// Returns the time as jiff's civil type, in UTC.
    pub fn datetime(self) -> DateTime {
        self.0
    }

    /// Returns the canonical form, 23 characters: `YYYY-MM-DD HH:MM:SS.fff`.
    pub fn canonical(self) -> [u8; 23] {
        fn put(out: &mut [u8], mut value: u32) {
            for digit in out.iter_mut().rev() {
                *digit = b'0' + (value % 10) as u8;
                value /= 10;
            }
        }
        let at = self.0;
        let mut out = *b"0000-00-00 00:00:00.000";
        put(&mut out[0..4], at.year().unsigned_abs().into());
        put(&mut out[5..7], at.month().unsigned_abs().into());
        put(&mut out[8..10], at.day().unsigned_abs().into());
        put(&mut out[11..13], at.hour().unsigned_abs().into());
        put(&mut out[14..16], at.minute().unsigned_abs().into());
        put(&mut out[17..19], at.second().unsigned_abs().into());
        put(&mut out[20..23], at.millisecond().unsigned_abs().into());
        out
    }
}

/// The accepted forms of a time, for error messages.
pub const TIME_FORMS: &str = "YYYY-MM-DD HH:MM:SS[.fff] in UTC, RFC 3339 with any offset, ISO 8601 basic form (20180425T170305Z), or epoch \
                              seconds or milliseconds";

impl StatusTime {
    /// Reads a time as people and other programs write it. Accepts the forms of [`FromStr`], and also: white space
    /// around the time and before the offset; `UTC` or `GMT` as the offset; offsets like `+0000` and `+00`; a comma
    /// before the fraction; no seconds; ISO 8601's basic form; lower case; a number as text, as in
    /// [`StatusTime::from_epoch`].
    ///
    /// # Errors
    /// Fails on every other form, for example a date alone, American and other local orders, and names of time zones.
    pub fn read(text: &str) -> Result<Self, InvalidStatusTime> {
        if let Ok(strict) = text.parse() {
            return Ok(strict);
        }
        let text = text::trimmed(text);
        match text::number(text) {
            // 14 digits are a date and a time without separators, not the year 2609.
            Some(_) if text.len() == 14 && text.starts_with(['1', '2']) && is_digits(text) => civil(text),
            Some(number) => Self::from_epoch(number),
            None => civil(text),
        }
    }

    /// Reads a Unix time in seconds or milliseconds, distinguished by magnitude: seconds from 100,000,000 (March 1973)
    /// up to but not including 10,000,000,000 (November 2286), and milliseconds for the same period, from
    /// 100,000,000,000 up to but not including 10,000,000,000,000. Any other number is refused, so that a date written
    /// as a number, such as 20180425, does not become a time in 1970.
    ///
    /// # Errors
    /// Fails on a number outside both ranges.
    pub fn from_epoch(number: f64) -> Result<Self, InvalidStatusTime> {
        let seconds = 1e8..1e10;
        let micros = if seconds.contains(&number) {
            number * 1e6
        } else if (1e11..1e13).contains(&number) {
            number * 1e3
        } else {
            return Err(InvalidStatusTime);
        };
        // Rounds to microseconds: a fraction of a second is not exact in binary.
        let at = jiff::Timestamp::from_microsecond(micros.round() as i64).map_err(|_| InvalidStatusTime)?;
        Ok(at.to_zoned(jiff::tz::TimeZone::UTC).datetime().into())
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Normalises a date and a time of day in any accepted form, and parses it with [`FromStr`].
fn civil(text: &str) -> Result<StatusTime, InvalidStatusTime> {
    let bad = InvalidStatusTime;
    if !text.is_ascii() {
        return Err(bad);
    }
    let upper = text.to_ascii_uppercase();
    let (date, rest) = match upper.as_bytes() {
        [_, _, _, _, b'-', _, _, b'-', _, _, ..] => {
            let (date, rest) = upper.split_at(10);
            (date.to_owned(), rest)
        }
        digits if digits.len() > 8 && is_digits(&upper[..8]) => {
            let (date, rest) = upper.split_at(8);
            (format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..]), rest)
        }
        _ => return Err(bad),
    };
    let rest = match rest.strip_prefix('T') {
        Some(rest) => rest,
        None if rest.starts_with(|c: char| c.is_ascii_digit()) && upper.len() == 14 => rest,
        None => rest.strip_prefix(|c: char| c.is_ascii_whitespace()).ok_or(bad)?.trim_start(),
    };
    // The time of day ends where an offset, a blank or a letter begins.
    let end = rest.find(|c: char| !c.is_ascii_digit() && !matches!(c, ':' | '.' | ',')).unwrap_or(rest.len());
    let (time, zone) = rest.split_at(end);
    let (time, fraction) = match time.split_once(['.', ',']) {
        Some((time, fraction)) if is_digits(fraction) => (time, format!(".{fraction}")),
        Some(_) => return Err(bad),
        None => (time, String::new()),
    };
    let parts: Vec<&str> = if time.contains(':') {
        time.split(':').collect()
    } else {
        (0..time.len()).step_by(2).map(|at| time.get(at..at + 2).unwrap_or_default()).collect()
    };
    if parts.iter().any(|part| part.len() != 2) {
        return Err(bad);
    }
    let time = match parts.as_slice() {
        [hours, minutes, seconds] => format!("{hours}:{minutes}:{seconds}{fraction}"),
        [hours, minutes] if fraction.is_empty() => format!("{hours}:{minutes}:00"),
        _ => return Err(bad),
    };
    format!("{date} {time}{}", offset(zone.trim())?).parse()
}

/// Returns an offset from UTC in the form of RFC 3339.
fn offset(zone: &str) -> Result<String, InvalidStatusTime> {
    let zone = match zone.strip_suffix("UTC").or_else(|| zone.strip_suffix("GMT")) {
        // `+0000 UTC`, for example, states the offset twice.
        Some(before) => match before.trim_end() {
            "" => "Z",
            zero @ ("+00:00" | "+0000" | "+00" | "-00:00" | "-0000" | "-00") => zero,
            _ => return Err(InvalidStatusTime),
        },
        None => zone,
    };
    match zone.as_bytes() {
        [] | [b'Z'] => Ok("Z".to_owned()),
        [b'+' | b'-', _, _] => Ok(format!("{zone}:00")),
        [b'+' | b'-', _, _, _, _] => Ok(format!("{}:{}", &zone[..3], &zone[3..])),
        [b'+' | b'-', _, _, b':', _, _] => Ok(zone.to_owned()),
        _ => Err(InvalidStatusTime),
    }
}

impl From<DateTime> for StatusTime {
    /// Truncates to milliseconds.
    fn from(at: DateTime) -> Self {
        let millis = at.subsec_nanosecond() / 1_000_000 * 1_000_000;
        Self(at.with().subsec_nanosecond(millis).build().unwrap_or(at))
    }
}

impl FromStr for StatusTime {
    type Err = InvalidStatusTime;

    /// Reads `YYYY-MM-DD HH:MM:SS[.fff]` (blank or `T` between date and time), optionally followed by `Z` or `±HH:MM`.
    /// Without an offset the time is UTC. Fractions of any length are truncated to milliseconds.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.as_bytes();
        let digits = |from: usize, len: usize| -> Result<i32, InvalidStatusTime> {
            let mut value = 0;
            for &byte in bytes.get(from..from + len).ok_or(InvalidStatusTime)? {
                if !byte.is_ascii_digit() {
                    return Err(InvalidStatusTime);
                }
                value = value * 10 + i32::from(byte - b'0');
            }
            Ok(value)
        };
        let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
        if bytes.len() < 19
            || separators.iter().any(|&(at, expected)| bytes[at] != expected)
            || !matches!(bytes[10], b' ' | b'T' | b't')
        {
            return Err(InvalidStatusTime);
        }
        let mut end = 19;
        let mut millis = 0;
        if bytes.get(end) == Some(&b'.') {
            let fraction = bytes[20..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            if fraction == 0 {
                return Err(InvalidStatusTime);
            }
            let digit_count = fraction.min(3);
            millis = digits(20, digit_count)? * [100, 10, 1][digit_count - 1];
            end = 20 + fraction;
        }
        let offset_minutes = match &bytes[end..] {
            [] | [b'Z' | b'z'] => 0,
            [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
                let (hours, minutes) = (digits(end + 1, 2)?, digits(end + 4, 2)?);
                if hours > 23 || minutes > 59 {
                    return Err(InvalidStatusTime);
                }
                let total = hours * 60 + minutes;
                if *sign == b'+' { total } else { -total }
            }
            _ => return Err(InvalidStatusTime),
        };
        let civil = DateTime::new(
            digits(0, 4)? as i16,
            digits(5, 2)? as i8,
            digits(8, 2)? as i8,
            digits(11, 2)? as i8,
            digits(14, 2)? as i8,
            digits(17, 2)? as i8,
            millis * 1_000_000,
        )
        .map_err(|_| InvalidStatusTime)?;
        let utc = if offset_minutes == 0 {
            civil
        } else {
            let offset = jiff::SignedDuration::from_mins(offset_minutes.into());
            civil.checked_sub(offset).map_err(|_| InvalidStatusTime)?
        };
        if utc.year() < 0 {
            return Err(InvalidStatusTime);
        }
        Ok(Self(utc))
    }
}

impl fmt::Display for StatusTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.canonical();
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for StatusTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.canonical();
        serializer.serialize_str(std::str::from_utf8(&text).map_err(serde::ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for StatusTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = StatusTime;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time as YYYY-MM-DD HH:MM:SS[.fff] in UTC, or RFC 3339")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<StatusTime, E> {
                text.parse().map_err(|_| de::Error::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_accepted_form_of_a_time() {
        for (text, canonical) in [
            ("2018-04-25 17:03:05.722", "2018-04-25 17:03:05.722"),
            ("2018-04-25 17:03:05", "2018-04-25 17:03:05.000"),
            ("2018-04-25T17:03:05Z", "2018-04-25 17:03:05.000"),
            ("2018-04-25T17:03:05.7229", "2018-04-25 17:03:05.722"),
            ("2018-04-25T17:03:05.1z", "2018-04-25 17:03:05.100"),
            ("2018-12-31T23:30:00-01:00", "2019-01-01 00:30:00.000"),
            ("2020-02-29 00:00:00+05:30", "2020-02-28 18:30:00.000"),
        ] {
            assert_eq!(text.parse::<StatusTime>().unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn refuses_an_invalid_time() {
        for text in [
            "",
            "2018-04-25",
            "2018-13-01 00:00:00",
            "2019-02-29 00:00:00",
            "2018-04-25 24:00:00",
            "2018-04-25 23:59:60",
            "2018-04-25 17:03:05.",
            "2018-04-25 17:03:05 Z",
            "20180425 170305",
            "2018-04-25 17:03:05+0100",
            "2018-04-25 17:03:05é",
            "+018-04-25 17:03:05",
            "0000-01-01T00:00:00+23:59",
        ] {
            assert_eq!(text.parse::<StatusTime>(), Err(InvalidStatusTime), "{text}");
        }
    }

    #[test]
    fn reads_every_notation_of_utc() {
        for (text, canonical) in [
            ("2018-04-25 17:03:05.722", "2018-04-25 17:03:05.722"),
            ("2018-04-25 17:03:05 UTC", "2018-04-25 17:03:05.000"),
            ("2018-04-25 17:03:05.722 UTC", "2018-04-25 17:03:05.722"),
            ("2018-04-25 17:03:05utc", "2018-04-25 17:03:05.000"),
            ("2018-04-25 17:03:05 GMT", "2018-04-25 17:03:05.000"),
            ("2018-04-25T17:03:05+0000", "2018-04-25 17:03:05.000"),
            ("2018-04-25T17:03:05+00", "2018-04-25 17:03:05.000"),
            ("2018-04-25 17:03:05 +00:00", "2018-04-25 17:03:05.000"),
            ("2018-04-25 17:03:05 +0000 UTC", "2018-04-25 17:03:05.000"),
            ("2018-04-25T17:03:05-0130", "2018-04-25 18:33:05.000"),
            ("2018-04-25 17:03:05 Z", "2018-04-25 17:03:05.000"),
            (" 2018-04-25 17:03:05\t", "2018-04-25 17:03:05.000"),
            ("\u{FEFF}2018-04-25 17:03:05", "2018-04-25 17:03:05.000"),
            ("2018-04-25  17:03:05", "2018-04-25 17:03:05.000"),
            ("2018-04-25T17:03:05,722Z", "2018-04-25 17:03:05.722"),
            ("2018-04-25 17:03", "2018-04-25 17:03:00.000"),
            ("2018-04-25t17:03z", "2018-04-25 17:03:00.000"),
            ("20180425T170305Z", "2018-04-25 17:03:05.000"),
            ("20180425T170305.5+0200", "2018-04-25 15:03:05.500"),
            ("20180425T1703", "2018-04-25 17:03:00.000"),
            ("20180425 170305", "2018-04-25 17:03:05.000"),
            ("20180425170305", "2018-04-25 17:03:05.000"),
            ("1524675785", "2018-04-25 17:03:05.000"),
            ("1524675785.722", "2018-04-25 17:03:05.722"),
            ("1524675785722", "2018-04-25 17:03:05.722"),
        ] {
            assert_eq!(StatusTime::read(text).map(|at| at.to_string()), Ok(canonical.to_owned()), "{text}");
        }
    }

    #[test]
    fn refuses_an_ambiguous_time() {
        for text in [
            "",
            "4/25/2018 17:03",
            "04/25/2018 17:03:05",
            "25.04.2018 17:03:05",
            "2018-04-25",
            "20180425",
            "2018-04-25 5:03 PM",
            "2018-04-25 17:03:05 EST",
            "2018-04-25 17:03:05 +02:00 UTC",
            "2018-04-25 24:00:00 UTC",
            "2018-02-30 17:03:05 UTC",
            "2018-04-25 17:03:60 UTC",
            "2018-04-25 17",
            "2018-04-25 17:03.5",
            "2018-04-25T17:3:05Z",
            "2018-04-25 17:03:05 UTC garbage",
            "2018-04-25 17:03:05,",
            "17:03:05",
            "NaN",
            "1e400",
            "15246757",
            "-1524675785",
            "99991231235960",
            "2018-04-25 17:03:05 +é",
        ] {
            assert_eq!(StatusTime::read(text), Err(InvalidStatusTime), "{text}");
        }
    }

    #[test]
    fn a_unix_time_is_seconds_or_milliseconds_by_its_magnitude() {
        for (number, canonical) in [
            (1e8, Some("1973-03-03 09:46:40.000")),
            (9_999_999_999.0, Some("2286-11-20 17:46:39.000")),
            (1e11, Some("1973-03-03 09:46:40.000")),
            (1_524_675_785_722.0, Some("2018-04-25 17:03:05.722")),
            (1_524_675_785.722, Some("2018-04-25 17:03:05.722")),
            (9_999_999_999_999.0, Some("2286-11-20 17:46:39.999")),
            (0.0, None),
            (20_180_425.0, None),
            (1e10, None),
            (1e13, None),
            (1_524_675_785_722_000.0, None),
            (f64::NAN, None),
            (f64::INFINITY, None),
        ] {
            let read = StatusTime::from_epoch(number).ok().map(|at| at.to_string());
            assert_eq!(read.as_deref(), canonical, "{number}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_canonical_time_reads_back_as_itself(
            y in 1i16..=9999, mo in 1i8..=12, d in 1i8..=28, h in 0i8..24, mi in 0i8..60, s in 0i8..60, ms in 0i32..1000
        ) {
            let at = StatusTime(DateTime::new(y, mo, d, h, mi, s, ms * 1_000_000).unwrap());
            proptest::prop_assert_eq!(at.to_string().parse::<StatusTime>(), Ok(at));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<StatusTime>();
            let _ = StatusTime::read(&text);
        }
    }
}
