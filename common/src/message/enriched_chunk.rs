//! `enriched-chunk.v1`: a ride chunk joined with weather.

use crate::{
    message::{
        check::{check_batch_id, check_provenance},
        decode::Message,
        object,
        refresh::{self, Refresh},
        violation::Violation,
    },
    ride::{self, Label, Observation, Ride, StatusTime, Weather, WeatherMissing},
};
use compact_str::CompactString;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};

/// The rides of one chunk with their weather.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnrichedChunk {
    /// Batch id.
    pub batch_id: String,
    /// Position of the chunk in the batch, from 0.
    pub chunk: u32,
    /// Id of the splitting, as in the ride chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_id: Option<String>,
    /// Fingerprint of the bytes that the rides were read from, 32 hex digits, as in the ride chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The attempt to join the batch again that this message belongs to; `None` in the first join.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object::optional")]
    pub refresh: Option<Refresh>,
    /// The rides, in the order of the ride chunk.
    #[serde(deserialize_with = "object::list")]
    pub rides: Vec<EnrichedRide>,
}

/// A ride with either all five weather fields or the reason why it has none.
///
/// `Wire` repeats the fields of [`Ride`] instead of flattening them: serde buffers flattened content, which would
/// double the decoding time of this most frequent message of the fleet.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Wire")]
pub struct EnrichedRide {
    /// The ride.
    pub ride: Ride,
    /// Result of the weather join.
    pub weather: Weather,
}

#[derive(Deserialize)]
struct Wire {
    ride_id: CompactString,
    #[serde(default)]
    name: CompactString,
    breed: Option<CompactString>,
    statustime: StatusTime,
    #[serde(deserialize_with = "ride::latitude")]
    latitude: f64,
    #[serde(deserialize_with = "ride::longitude")]
    longitude: f64,
    #[serde(deserialize_with = "ride::distance")]
    distance: f64,
    #[serde(deserialize_with = "ride::points")]
    healthpoints: f64,
    #[serde(deserialize_with = "ride::points")]
    magicpoints: f64,
    fieldservice: Option<Label>,
    groundstation: Option<CompactString>,
    station_km: Option<ride::Kilometres>,
    tmin: Option<i32>,
    tmax: Option<i32>,
    prcp: Option<i32>,
    weather_missing: Option<Missing>,
    weather_expected: Option<bool>,
}

/// The reasons on the wire. [`WeatherMissing::NotYetPublished`] is `no_observation_on_date` with `weather_expected`, because
/// earlier versions refuse other reasons.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Missing {
    NoStationInReach,
    NoObservationOnDate,
}

impl TryFrom<Wire> for EnrichedRide {
    type Error = &'static str;

    fn try_from(wire: Wire) -> Result<Self, Self::Error> {
        let weather = match (wire.groundstation, wire.station_km, wire.tmin, wire.tmax, wire.prcp, wire.weather_missing)
        {
            (Some(groundstation), Some(ride::Kilometres(station_km)), Some(tmin), Some(tmax), Some(prcp), None) => {
                Weather::Observed(Observation { groundstation, station_km, tmin, tmax, prcp })
            }
            (None, None, None, None, None, Some(reason)) => Weather::Missing(match (reason, wire.weather_expected) {
                (Missing::NoStationInReach, _) => WeatherMissing::NoStationInReach,
                (Missing::NoObservationOnDate, Some(true)) => WeatherMissing::NotYetPublished,
                (Missing::NoObservationOnDate, _) => WeatherMissing::NoObservationOnDate,
            }),
            _ => {
                return Err(
                    "expected groundstation, station_km, tmin, tmax and prcp together, or weather_missing alone",
                );
            }
        };
        let ride = Ride {
            ride_id: wire.ride_id,
            name: wire.name,
            breed: wire.breed,
            statustime: wire.statustime,
            latitude: wire.latitude,
            longitude: wire.longitude,
            distance: wire.distance,
            healthpoints: wire.healthpoints,
            magicpoints: wire.magicpoints,
            fieldservice: wire.fieldservice,
        };
        Ok(Self { ride, weather })
    }
}

impl Serialize for EnrichedRide {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { ride, weather } = self;
        let mut wire = serializer.serialize_struct("EnrichedRide", 16)?;
        wire.serialize_field("ride_id", &ride.ride_id)?;
        wire.serialize_field("name", &ride.name)?;
        if let Some(breed) = &ride.breed {
            wire.serialize_field("breed", breed)?;
        }
        wire.serialize_field("statustime", &ride.statustime)?;
        wire.serialize_field("latitude", &ride.latitude)?;
        wire.serialize_field("longitude", &ride.longitude)?;
        wire.serialize_field("distance", &ride.distance)?;
        wire.serialize_field("healthpoints", &ride.healthpoints)?;
        wire.serialize_field("magicpoints", &ride.magicpoints)?;
        if let Some(label) = &ride.fieldservice {
            wire.serialize_field("fieldservice", label)?;
        }
        match weather {
            Weather::Observed(observation) => {
                wire.serialize_field("groundstation", &observation.groundstation)?;
                wire.serialize_field("station_km", &observation.station_km)?;
                wire.serialize_field("tmin", &observation.tmin)?;
                wire.serialize_field("tmax", &observation.tmax)?;
                wire.serialize_field("prcp", &observation.prcp)?;
            }
            Weather::Missing(reason) => {
                let on_wire = match reason {
                    WeatherMissing::NoStationInReach => Missing::NoStationInReach,
                    WeatherMissing::NoObservationOnDate | WeatherMissing::NotYetPublished => {
                        Missing::NoObservationOnDate
                    }
                };
                wire.serialize_field("weather_missing", &on_wire)?;
                if *reason == WeatherMissing::NotYetPublished {
                    wire.serialize_field("weather_expected", &true)?;
                }
            }
        }
        wire.end()
    }
}

impl Message for EnrichedChunk {
    fn message_id(&self) -> String {
        format!("{}/enriched-chunk/{}", refresh::prefix(&self.batch_id, self.refresh), self.chunk)
    }

    fn batch_id(&self) -> Option<&str> {
        Some(&self.batch_id)
    }

    fn check(&self) -> Result<(), Violation> {
        check_batch_id("batch_id", &self.batch_id)?;
        check_provenance(self.split_id.as_deref(), self.digest.as_deref())
    }
}
