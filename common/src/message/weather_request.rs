//! `weather-request.v1`: what was the weather at these places on these days?

use crate::{
    fleet::exchange,
    message::{decode::Message, kind::Kind, object, violation::Violation},
    ride::{self, StatusTime},
};
use serde::{Deserialize, Serialize};

/// Places in one request at most.
pub const WEATHER_PLACES_MAX: usize = 1_000;

/// Places and moments whose weather is asked for, looked up as it is for rides. The deadline is the AMQP `expiration`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeatherRequest {
    /// Chosen by the client; comes back as the message id's first part.
    pub request_id: String,
    /// At least one, at most [`WEATHER_PLACES_MAX`].
    #[serde(deserialize_with = "object::list_up_to::<_, _, WEATHER_PLACES_MAX>")]
    pub places: Vec<WeatherPlace>,
}

/// One place at one moment, as a ride tells it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WeatherPlace {
    /// Degrees north, −90 … 90.
    #[serde(deserialize_with = "ride::latitude")]
    pub latitude: f64,
    /// Degrees east, −180 … 180.
    #[serde(deserialize_with = "ride::longitude")]
    pub longitude: f64,
    /// UTC; its date is the day of the weather.
    pub statustime: StatusTime,
}

impl Message for WeatherRequest {
    const KIND: Kind = Kind { name: "weather-request", major: 1 };
    const EXCHANGE: &'static str = exchange::RPC;

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
