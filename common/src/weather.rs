//! The check for possible weather, for training, scoring and lookups.

use std::ops::RangeInclusive;

/// Possible temperatures, tenths of °C. The extremes ever measured are −89.2 °C and 56.7 °C.
pub const TEMPERATURE_TENTHS: RangeInclusive<f64> = -1000.0..=700.0;
/// Possible precipitation of one day, tenths of mm. The most ever measured is 1,825 mm.
pub const PRECIPITATION_TENTHS: RangeInclusive<f64> = 0.0..=20_000.0;

/// Why the weather of a day is impossible. Its text is the stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::Display)]
#[strum(serialize_all = "snake_case")]
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
