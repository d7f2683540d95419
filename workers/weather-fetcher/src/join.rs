//! Which station's weather each ride of a chunk gets.
//!
//! The rule: the nearest station that has all three elements on the ride's UTC date, within reach. Nothing is fetched
//! here: a [`Join`] says which station-years it would have to know to go on, is told, and goes on from where each ride
//! stood.

use crate::{
    nearest::{Near, Nearby, StationIndex},
    station_year::StationYear,
};
use common::contract::ride::{Observation, Ride, Weather, WeatherMissing};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// The weather of one station (by its number in the index) in one year.
pub type StationYearKey = (u32, i16);

/// Where rides look for stations.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Every station that may be of use in some year.
    pub all: Arc<StationIndex>,
    /// For some years, the stations that may be of use in that year.
    pub by_year: HashMap<i16, Arc<StationIndex>>,
    /// Farther stations are of no use, kilometres.
    pub max_km: f64,
}

impl Reach {
    fn index(&self, year: i16) -> &StationIndex {
        self.by_year.get(&year).unwrap_or(&self.all)
    }
}

/// A ride that stands at a station whose weather is not known yet.
#[derive(Debug)]
struct Waiting {
    ride: usize,
    at: Near,
    nearby: Nearby,
}

/// The join of one chunk, in rounds.
#[derive(Debug)]
pub struct Join<'a> {
    reach: &'a Reach,
    rides: &'a [Ride],
    weather: Vec<Weather>,
    known: HashMap<StationYearKey, Arc<StationYear>>,
    waiting: Vec<Waiting>,
    started: bool,
}

impl<'a> Join<'a> {
    /// The join of `rides` with the stations in `reach`.
    pub fn new(reach: &'a Reach, rides: &'a [Ride]) -> Self {
        let missing = Weather::Missing(WeatherMissing::NoStationInReach);
        let weather = vec![missing; rides.len()];
        Self { reach, rides, weather, known: HashMap::new(), waiting: Vec::new(), started: false }
    }

    /// Goes on with what `lookup` knows; it is asked once for each station and year. Returns what has to be known for
    /// the next round: per station, the years. Nothing: the join is complete.
    pub fn advance(
        &mut self,
        mut lookup: impl FnMut(StationYearKey) -> Option<Arc<StationYear>>,
    ) -> BTreeMap<u32, BTreeSet<i16>> {
        let mut needed = BTreeMap::new();
        let mut waiting = Vec::new();
        if self.started {
            for Waiting { ride, at, nearby } in std::mem::take(&mut self.waiting) {
                waiting.extend(self.walk(ride, Some(at), nearby, &mut lookup, &mut needed));
            }
        } else {
            self.started = true;
            for (number, ride) in self.rides.iter().enumerate() {
                let (year, ..) = ride.statustime.date();
                let nearby = self.reach.index(year).near(ride.latitude, ride.longitude, self.reach.max_km);
                waiting.extend(self.walk(number, None, nearby, &mut lookup, &mut needed));
            }
        }
        self.waiting = waiting;
        needed
    }

    /// The weather of each ride, in their order. Rides that still wait have none.
    pub fn finish(self) -> Vec<Weather> {
        self.weather
    }

    fn walk(
        &mut self,
        number: usize,
        mut at: Option<Near>,
        mut nearby: Nearby,
        lookup: &mut impl FnMut(StationYearKey) -> Option<Arc<StationYear>>,
        needed: &mut BTreeMap<u32, BTreeSet<i16>>,
    ) -> Option<Waiting> {
        let ride = self.rides.get(number)?;
        let (year, month, day) = ride.statustime.date();
        let index = self.reach.index(year);
        let weather = loop {
            let Some(near) = at.take().or_else(|| nearby.next(index)) else {
                break Weather::Missing(self.why_missing(ride));
            };
            if !index.covers(near.station, year) {
                continue;
            }
            let key = (near.station, year);
            let found = match self.known.get(&key) {
                Some(found) => found,
                None => match lookup(key) {
                    Some(found) => self.known.entry(key).or_insert(found),
                    None => {
                        needed.entry(near.station).or_default().insert(year);
                        return Some(Waiting { ride: number, at: near, nearby });
                    }
                },
            };
            if let Some(weather) = found.day(month, day) {
                break Weather::Observed(Observation {
                    groundstation: index.id(near.station),
                    station_km: near.km,
                    tmin: weather.tmin.into(),
                    tmax: weather.tmax.into(),
                    prcp: weather.prcp.into(),
                });
            }
        };
        if let Some(place) = self.weather.get_mut(number) {
            *place = weather;
        }
        None
    }

    fn why_missing(&self, ride: &Ride) -> WeatherMissing {
        let all = &self.reach.all;
        match all.near(ride.latitude, ride.longitude, self.reach.max_km).next(all) {
            Some(_) => WeatherMissing::NoObservationOnDate,
            None => WeatherMissing::NoStationInReach,
        }
    }
}
