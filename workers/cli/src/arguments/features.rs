//! The features of a ride on the command line: one option for each.

use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches, ValueEnum, error::ErrorKind};
use common::{features::FEATURES, message::ScoreRide};

/// Option of the mean temperature of the day.
const MEAN_TEMPERATURE: &str = "temperature";

/// The features of one ride that are known, in the units of the command.
#[derive(Debug, Clone, Default)]
pub struct RideFeatures(pub ScoreRide);

impl Args for RideFeatures {
    fn augment_args(command: Command) -> Command {
        let option = |name: &'static str, about: &'static str| {
            let option = Arg::new(name).long(name).help(about).value_name("NUMBER");
            option.allow_negative_numbers(true).value_parser(finite)
        };
        let command = command.args(FEATURES.iter().map(|feature| option(feature.name, feature.about)));
        command.arg(option(MEAN_TEMPERATURE, "Mean temperature of the day, instead of --tmin, of --tmax, or of both"))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for RideFeatures {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut features = Self::default();
        features.update_from_arg_matches(matches)?;
        Ok(features)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for feature in FEATURES {
            (feature.set)(&mut self.0, matches.get_one(feature.name).copied());
        }
        self.0.tavg = matches.get_one(MEAN_TEMPERATURE).copied();
        if self.0.tavg.is_some() && self.0.tmin.is_some() && self.0.tmax.is_some() {
            let why = "--temperature is the mean of --tmin and --tmax: give at most two of the three";
            return Err(Error::raw(ErrorKind::ArgumentConflict, why));
        }
        Ok(())
    }
}

/// Units of the weather on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UnitSystem {
    /// Tenths of °C, tenths of mm
    Noaa,
    /// °C, mm
    Celsius,
    /// °F, inches
    Fahrenheit,
}

/// Parses a finite number.
fn finite(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "expected a number, as in 29.5".to_owned())?;
    if number.is_finite() { Ok(number) } else { Err("expected a finite number, as in 29.5".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::finite;

    #[test]
    fn only_finite_numbers_are_accepted() {
        assert_eq!(finite("-2.5e1"), Ok(-25.0));
        for text in ["nan", "inf", "-Infinity", "1e400", "", "29,5"] {
            assert!(finite(text).is_err_and(|why| why.contains("expected a")), "{text:?}");
        }
    }
}
