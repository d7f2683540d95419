//! Synthetic rides and weather with known coefficients, for a demonstration without a network. Depends on `session`,
//! `output` and `arguments`.
//!
//! Everything follows from the seed, on every machine and with every version of the libraries: the generator is a named
//! algorithm, only its raw bits are used, and the output is computed from them by basic arithmetic. (Sines and
//! exponentials, which differ in their last bit between machines, are only ever compared.) [`write_rides`] draws the labels
//! with the weather that [`write_weather`] writes for the same seed and year.

mod command;
mod draw;
mod rides;
mod weather;

pub(crate) use command::generate;
pub use rides::{RidesOptions, SyntheticRide, TRUTH, Truth, Value, rides, write_rides};
pub use weather::{WeatherOptions, write_weather};
