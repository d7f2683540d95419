//! `enriched-chunk.v1`: a ride chunk whose rides know their weather.

use super::{Kind, Message, Violation, ride_batch::check_batch_id};
use crate::contract::{
    ride::{Label, Observation, Ride, StatusTime, Weather, WeatherMissing},
    topology,
};
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

/// The rides of one chunk, joined with weather.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnrichedChunk {
    /// The batch.
    pub batch_id: String,
    /// Position of this chunk in the batch, from 0.
    pub chunk: u32,
    /// The rides, in the order of the ride chunk.
    pub rides: Vec<EnrichedRide>,
}

/// A ride with either all five weather fields or the reason why not.
///
/// The fields of [`Ride`] stand here again instead of being flattened in: serde buffers flattened content, which would
/// double the time this, the hottest message of the fleet, takes to read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct EnrichedRide {
    /// The ride.
    pub ride: Ride,
    /// What the join found.
    pub weather: Weather,
}

#[derive(Clone, Serialize, Deserialize)]
struct Wire {
    ride_id: CompactString,
    #[serde(default)]
    name: CompactString,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    breed: Option<CompactString>,
    statustime: StatusTime,
    latitude: f64,
    longitude: f64,
    distance: f64,
    healthpoints: f64,
    magicpoints: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fieldservice: Option<Label>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    groundstation: Option<CompactString>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    station_km: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tmin: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tmax: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prcp: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weather_missing: Option<WeatherMissing>,
}

impl TryFrom<Wire> for EnrichedRide {
    type Error = &'static str;

    fn try_from(wire: Wire) -> Result<Self, Self::Error> {
        if !(-90.0..=90.0).contains(&wire.latitude) {
            return Err("latitude: expected degrees from -90 to 90");
        }
        if !(-180.0..=180.0).contains(&wire.longitude) {
            return Err("longitude: expected degrees from -180 to 180");
        }
        if wire.distance.is_nan() || wire.distance < 0.0 {
            return Err("distance: expected a number not below 0");
        }
        let weather = match (wire.groundstation, wire.station_km, wire.tmin, wire.tmax, wire.prcp, wire.weather_missing)
        {
            (Some(groundstation), Some(station_km), Some(tmin), Some(tmax), Some(prcp), None) => {
                if station_km.is_nan() || station_km < 0.0 {
                    return Err("station_km: expected a number not below 0");
                }
                Weather::Observed(Observation { groundstation, station_km, tmin, tmax, prcp })
            }
            (None, None, None, None, None, Some(reason)) => Weather::Missing(reason),
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

impl From<EnrichedRide> for Wire {
    fn from(EnrichedRide { ride, weather }: EnrichedRide) -> Self {
        let (observed, weather_missing) = match weather {
            Weather::Observed(observation) => (Some(observation), None),
            Weather::Missing(reason) => (None, Some(reason)),
        };
        let (groundstation, station_km, tmin, tmax, prcp) = match observed {
            Some(o) => (Some(o.groundstation), Some(o.station_km), Some(o.tmin), Some(o.tmax), Some(o.prcp)),
            None => (None, None, None, None, None),
        };
        Self {
            ride_id: ride.ride_id,
            name: ride.name,
            breed: ride.breed,
            statustime: ride.statustime,
            latitude: ride.latitude,
            longitude: ride.longitude,
            distance: ride.distance,
            healthpoints: ride.healthpoints,
            magicpoints: ride.magicpoints,
            fieldservice: ride.fieldservice,
            groundstation,
            station_km,
            tmin,
            tmax,
            prcp,
            weather_missing,
        }
    }
}

impl Message for EnrichedChunk {
    const KIND: Kind = Kind { name: "enriched-chunk", major: 1 };
    const EXCHANGE: &'static str = topology::WORK;

    fn message_id(&self) -> String {
        format!("{}/enriched-chunk/{}", self.batch_id, self.chunk)
    }

    fn batch_id(&self) -> Option<&str> {
        Some(&self.batch_id)
    }

    fn check(&self) -> Result<(), Violation> {
        check_batch_id("batch_id", &self.batch_id)
    }
}
