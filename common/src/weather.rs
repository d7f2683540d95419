//! The check for possible weather, for training, scoring and lookups, and the warnings about weather files.

use crate::ride::Counts;
use serde::{Deserialize, Serialize};
use std::{fmt, ops::RangeInclusive};

/// Possible temperatures, tenths of °C. The extremes ever measured are −89.2 °C and 56.7 °C.
pub const TEMPERATURE_TENTHS: RangeInclusive<f64> = -1000.0..=700.0;
/// Possible precipitation of one day, tenths of mm. The most ever measured is 1,825 mm.
pub const PRECIPITATION_TENTHS: RangeInclusive<f64> = 0.0..=20_000.0;

/// Why the weather of a day is impossible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Impossible {
    /// The lowest temperature of the day is above the highest.
    TminAboveTmax,
    /// `tmin` is outside [`TEMPERATURE_TENTHS`].
    TminOutOfRange,
    /// `tmax` is outside [`TEMPERATURE_TENTHS`].
    TmaxOutOfRange,
    /// `prcp` is outside [`PRECIPITATION_TENTHS`].
    PrcpOutOfRange,
}

impl Impossible {
    /// Returns the stable code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TminAboveTmax => "tmin_above_tmax",
            Self::TminOutOfRange => "tmin_out_of_range",
            Self::TmaxOutOfRange => "tmax_out_of_range",
            Self::PrcpOutOfRange => "prcp_out_of_range",
        }
    }

    /// Returns the feature that is reported as invalid.
    pub fn feature(self) -> &'static str {
        match self {
            Self::TminAboveTmax | Self::TminOutOfRange => "tmin",
            Self::TmaxOutOfRange => "tmax",
            Self::PrcpOutOfRange => "prcp",
        }
    }

    /// Returns what was expected, in words.
    pub fn expected(self) -> &'static str {
        match self {
            Self::TminAboveTmax => "at most tmax",
            Self::TminOutOfRange | Self::TmaxOutOfRange => "a temperature from -100 °C to 70 °C",
            Self::PrcpOutOfRange => "precipitation from 0 to 2,000 mm a day",
        }
    }
}

impl fmt::Display for Impossible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Checks the known weather of a day, in tenths of °C and of mm. A `None` is not checked.
///
/// # Errors
/// Fails with the first reason why the weather is impossible. A non-finite value is out of range.
pub fn check(tmin: Option<f64>, tmax: Option<f64>, prcp: Option<f64>) -> Result<(), Impossible> {
    let within = |value: Option<f64>, range: &RangeInclusive<f64>| value.is_none_or(|value| range.contains(&value));
    if !within(tmin, &TEMPERATURE_TENTHS) {
        Err(Impossible::TminOutOfRange)
    } else if !within(tmax, &TEMPERATURE_TENTHS) {
        Err(Impossible::TmaxOutOfRange)
    } else if !within(prcp, &PRECIPITATION_TENTHS) {
        Err(Impossible::PrcpOutOfRange)
    } else if let (Some(tmin), Some(tmax)) = (tmin, tmax)
        && tmin > tmax
    {
        Err(Impossible::TminAboveTmax)
    } else {
        Ok(())
    }
}

/// Name of the schema of [`WeatherWarnings`].
pub const WARNINGS_SCHEMA: &str = "weather-warnings.v1";
/// Maximum number of [`WeatherWarnings::samples`].
pub const WARNING_SAMPLES_MAX: usize = 10;

/// Warnings about one station's weather file: rows and days left out, or a missing file. Stored as
/// `weather/warnings/<station>.json`. For people; no result depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeatherWarnings {
    /// [`WARNINGS_SCHEMA`].
    pub schema: String,
    /// GHCN-Daily id of the station, 11 characters; `ghcnd-stations` or `ghcnd-inventory` for these lists.
    pub station: String,
    /// Path or URL of the file.
    pub file: String,
    /// Warning about the file as a whole, in words: that it is missing, and which places are affected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Number of rows and days left out, by reason: `second_value`, `invalid_date`, `invalid_value`, `wrong_fields`,
    /// `other_station`, and the codes of [`Impossible`].
    pub left_out: Counts,
    /// The first of these rows and days, at most [`WARNING_SAMPLES_MAX`].
    pub samples: Vec<WeatherWarning>,
}

/// A row or day that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeatherWarning {
    /// Line of the file, from 1; 0 if the warning concerns a day.
    pub line: u64,
    /// Name of the column or element; empty if the warning concerns the whole line.
    pub column: String,
    /// The value in the file, and what was expected.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_weather_is_refused_with_its_reason() {
        use Impossible::{PrcpOutOfRange, TmaxOutOfRange, TminAboveTmax, TminOutOfRange};
        for (tmin, tmax, prcp, expected) in [
            (Some(97.0), Some(176.0), Some(48.0), Ok(())),
            (Some(97.0), Some(97.0), Some(0.0), Ok(())),
            (Some(-1000.0), Some(700.0), Some(20_000.0), Ok(())),
            (None, None, None, Ok(())),
            (Some(98.0), Some(97.0), None, Err(TminAboveTmax)),
            (Some(-1000.1), Some(0.0), None, Err(TminOutOfRange)),
            (Some(0.0), Some(9999.0), None, Err(TmaxOutOfRange)),
            (None, Some(f64::NAN), None, Err(TmaxOutOfRange)),
            (None, None, Some(-0.1), Err(PrcpOutOfRange)),
            (None, None, Some(20_001.0), Err(PrcpOutOfRange)),
            (Some(f64::INFINITY), None, None, Err(TminOutOfRange)),
        ] {
            assert_eq!(check(tmin, tmax, prcp), expected, "{tmin:?} {tmax:?} {prcp:?}");
        }
    }
}
