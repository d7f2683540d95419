//! `weather-request.v1`: places and times to look the weather up for.

use crate::{
    message::{decode::Message, object, violation::Violation},
    ride::{self, StatusTime},
};
use serde::{Deserialize, Serialize};

/// Maximum number of places in one request.
pub const WEATHER_PLACES_MAX: usize = 1_000;

/// Places and times to look the weather up for, in the same way as for rides. Where there is no observation, the answer is a
/// forecast or a climatology, unless the request wants observed weather only. The deadline is the AMQP property `expiration`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeatherRequest {
    /// Id chosen by the client, repeated in the answer.
    pub request_id: String,
    /// The places, 1 to [`WEATHER_PLACES_MAX`].
    #[serde(deserialize_with = "object::list_up_to::<_, _, WEATHER_PLACES_MAX>")]
    pub places: Vec<WeatherPlace>,
    /// Whether only observed weather is wanted, as a dataset has it; false if absent or null.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", deserialize_with = "object::null_is_default")]
    pub observed_only: bool,
}

/// One place and time, with the same fields as in a ride.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WeatherPlace {
    /// Latitude in degrees north, −90 to 90.
    #[serde(deserialize_with = "ride::latitude")]
    pub latitude: f64,
    /// Longitude in degrees east, −180 to 180.
    #[serde(deserialize_with = "ride::longitude")]
    pub longitude: f64,
    /// Time in UTC; its date is the day of the weather.
    pub statustime: StatusTime,
}

impl Message for WeatherRequest {
    fn message_id(&self) -> String {
        format!("{}/weather-request", self.request_id)
    }

    fn check(&self) -> Result<(), Violation> {
        if self.places.is_empty() {
            return Err(Violation::new("places", "expected at least one place"));
        }
        Ok(())
    }
}
