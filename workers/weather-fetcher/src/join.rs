//! Assigns a station to each ride of a chunk, or to each place of a request.
//!
//! The rule: the nearest station within reach that has all three elements on the ride's UTC date. Nothing is fetched here:
//! a [`Join`] returns the station-years it needs, receives them, and resumes each ride at the station where it stopped.

use crate::{
    dates::{date_of, is_recent},
    formats::station_year::StationYear,
    stations::nearest::{Neighbour, Neighbours, StationIndex, StationYearKey},
};
use common::{
    message::WeatherPlace,
    ride::{Observation, Weather, WeatherMissing},
};
use jiff::civil;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// The stations that rides may be joined with.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Every station that may have observations in any year.
    pub all: Arc<StationIndex>,
    /// For some years, the stations that may have observations in that year.
    pub by_year: HashMap<i16, Arc<StationIndex>>,
    /// Maximum distance of a station, kilometres.
    pub max_km: f64,
}

impl Reach {
    fn index(&self, year: i16) -> &StationIndex {
        self.by_year.get(&year).unwrap_or(&self.all)
    }
}

/// A ride that waits for the station-year of the station `at`.
#[derive(Debug)]
struct Waiting {
    ride: usize,
    at: Neighbour,
    nearby: Neighbours,
}

/// The join of one chunk. It runs in rounds, each of which needs more station-years.
#[derive(Debug)]
pub struct Join<'a> {
    reach: &'a Reach,
    rides: &'a [WeatherPlace],
    weather: Vec<Weather>,
    station_years: HashMap<StationYearKey, Arc<StationYear>>,
    waiting: Vec<Waiting>,
    started: bool,
    today: civil::Date,
}

impl<'a> Join<'a> {
    /// Starts the join of `rides` with the stations in `reach`, on the date `today` (UTC).
    pub fn new(reach: &'a Reach, rides: &'a [WeatherPlace], today: civil::Date) -> Self {
        let missing = Weather::Missing(WeatherMissing::NoStationInReach);
        let weather = vec![missing; rides.len()];
        Self { reach, rides, weather, station_years: HashMap::new(), waiting: Vec::new(), started: false, today }
    }

    /// Runs one round with the station-years that `lookup` returns; it is called once for each station and year. Returns
    /// the years needed for the next round, by station. If there are none, the join is complete.
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

    /// Returns the weather of each ride, in order. A ride that still waits counts as having no station in reach.
    pub fn finish(self) -> Vec<Weather> {
        self.weather
    }

    fn walk(
        &mut self,
        number: usize,
        mut at: Option<Neighbour>,
        mut nearby: Neighbours,
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
            let station_year = match self.station_years.get(&key) {
                Some(station_year) => station_year,
                None => match lookup(key) {
                    Some(station_year) => self.station_years.entry(key).or_insert(station_year),
                    None => {
                        needed.entry(near.station).or_default().insert(year);
                        return Some(Waiting { ride: number, at: near, nearby });
                    }
                },
            };
            if let Some(weather) = station_year.day(month, day) {
                break Weather::Observed(Observation {
                    groundstation: index.id(near.station),
                    station_km: near.km,
                    tmin: weather.tmin.into(),
                    tmax: weather.tmax.into(),
                    prcp: weather.prcp.into(),
                });
            }
        };
        if let Some(slot) = self.weather.get_mut(number) {
            *slot = weather;
        }
        None
    }

    fn why_missing(&self, ride: &WeatherPlace) -> WeatherMissing {
        let all = &self.reach.all;
        let near = || all.near(ride.latitude, ride.longitude, self.reach.max_km);
        if near().next(all).is_none() {
            return WeatherMissing::NoStationInReach;
        }
        let date = date_of(ride);
        let is_expected = date > self.today || (is_recent(date, self.today) && !self.is_reported_later(near(), date));
        if is_expected { WeatherMissing::NotYetPublished } else { WeatherMissing::NoObservationOnDate }
    }

    /// Returns whether a station has published an observation of a later day of the year: then that of this date is missing for
    /// good.
    fn is_reported_later(&self, mut near: Neighbours, date: civil::Date) -> bool {
        let all = &self.reach.all;
        while let Some(Neighbour { station, .. }) = near.next(all) {
            if let Some(station_year) = self.station_years.get(&(station, date.year()))
                && station_year.last_day() > Some((date.month(), date.day()))
            {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dates::RECENT_DAYS;
    use crate::{
        formats::{
            ghcn::Station,
            left_out::LeftOut,
            station_year::{Date, DayWeather, Days, Element},
        },
        stations::nearest::haversine_km,
    };
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn ride((latitude, longitude): (f64, f64), (year, day): (i16, i8)) -> WeatherPlace {
        WeatherPlace { latitude, longitude, statustime: jiff::civil::date(year, 7, day).at(12, 0, 0, 0).into() }
    }

    /// A station-year whose days of July are complete where `days` has a bit.
    fn july(station: usize, year: i16, days: u8) -> StationYear {
        let mut july = Days::default();
        for day in (1..=8).filter(|day| days >> (day - 1) & 1 == 1) {
            for element in Element::ALL {
                july.set(Date { year, month: 7, day }, element, station as i16).unwrap();
            }
        }
        july.finish(year, &mut LeftOut::default())
    }

    fn expected_by_scan(list: &[Station], years: &[Vec<StationYear>], ride: &WeatherPlace, max_km: f64) -> Weather {
        let km = |s: &Station| haversine_km((ride.latitude, ride.longitude), (s.latitude, s.longitude));
        let mut near: Vec<_> = (0..list.len()).map(|at| (km(&list[at]), at)).filter(|(km, _)| *km <= max_km).collect();
        near.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| list[a.1].id.cmp(&list[b.1].id)));
        let (year, month, day) = ride.statustime.date();
        let weather = |at: usize| years[at][usize::from(year == 2019)].day(month, day);
        let nearest = near.iter().find_map(|(km, at)| weather(*at).map(|weather| (*km, *at, weather)));
        match nearest {
            Some((station_km, at, DayWeather { tmin, tmax, prcp })) => Weather::Observed(Observation {
                groundstation: list[at].id.clone(),
                station_km,
                tmin: tmin.into(),
                tmax: tmax.into(),
                prcp: prcp.into(),
            }),
            None if near.is_empty() => Weather::Missing(WeatherMissing::NoStationInReach),
            None => Weather::Missing(WeatherMissing::NoObservationOnDate),
        }
    }

    fn why_missing(stations: &[u8], day: i8, today: civil::Date) -> Weather {
        let list: Vec<Station> = (0..stations.len())
            .map(|at| Station { id: format!("XX{at:09}").into(), latitude: 0.0, longitude: 0.0 })
            .collect();
        let all = Arc::new(StationIndex::new(list, None));
        let reach = Reach { all, by_year: HashMap::new(), max_km: 10.0 };
        let rides = [ride((0.0, 0.0), (2019, day))];
        let mut join = Join::new(&reach, &rides, today);
        let year = |station: u32| Arc::new(july(0, 2019, stations[station as usize]));
        assert!(join.advance(|(station, _)| Some(year(station))).is_empty());
        join.finish().remove(0)
    }

    /// Recent weather is expected until a station reports a later day; older weather is not.
    #[test]
    fn weather_is_expected_while_it_is_recent_and_no_station_is_past_it() {
        use WeatherMissing::{NoObservationOnDate, NotYetPublished};
        let july = |day| civil::date(2019, 7, day);
        let up_to_day_3 = 0b111;
        let all_but_day_5 = 0b1110_1111;
        let nothing = 0;
        for (stations, day, today, expected) in [
            (&[up_to_day_3][..], 5, july(6), NotYetPublished),
            (&[up_to_day_3, nothing], 5, july(6), NotYetPublished),
            (&[nothing], 5, july(6), NotYetPublished),
            (&[all_but_day_5], 5, july(9), NoObservationOnDate),
            (&[up_to_day_3, all_but_day_5], 5, july(9), NoObservationOnDate),
            (&[up_to_day_3], 5, july(5) + jiff::Span::new().days(RECENT_DAYS), NotYetPublished),
            (&[up_to_day_3], 5, july(6) + jiff::Span::new().days(RECENT_DAYS), NoObservationOnDate),
            // The future, whatever a station reports.
            (&[all_but_day_5], 5, july(4), NotYetPublished),
        ] {
            assert_eq!(why_missing(stations, day, today), Weather::Missing(expected), "{stations:?} {day} {today}");
        }
    }

    proptest! {
        #[test]
        fn every_ride_gets_the_station_that_a_scan_finds_and_each_station_year_is_looked_up_once(
            stations in proptest::collection::vec(((-20i32..20, -20i32..20), any::<u8>(), any::<u8>()), 0..40),
            rides in proptest::collection::vec(((-25i32..25, -25i32..25), (2018i16..=2019, 1i8..=8)), 1..30),
            max_km in 1.0f64..400.0,
            has_year_index in any::<bool>(),
        ) {
            let place = |(lat, lon): (i32, i32)| (f64::from(lat) / 10.0, f64::from(lon) / 10.0);
            let list: Vec<Station> = stations.iter().enumerate().map(|(at, (at_place, ..))| {
                let (latitude, longitude) = place(*at_place);
                Station { id: format!("XX{:09}", 99 - at).into(), latitude, longitude }
            }).collect();
            let years: Vec<Vec<StationYear>> = stations.iter().enumerate()
                .map(|(at, (_, a, b))| vec![july(at, 2018, *a), july(at, 2019, *b)]).collect();
            let rides: Vec<WeatherPlace> = rides.into_iter().map(|(at, date)| ride(place(at), date)).collect();
            let all = Arc::new(StationIndex::new(list.clone(), None));
            let mut by_year = HashMap::new();
            if has_year_index {
                let empty: HashSet<u32> =
                    (0..list.len()).filter(|at| years[*at][0].is_empty()).map(|at| at as u32).collect();
                by_year.insert(2018, Arc::new(all.only(2018, &empty)));
            }
            let reach = Reach { all, by_year, max_km };
            let mut join = Join::new(&reach, &rides, civil::date(2030, 1, 1));
            let mut answers: HashMap<StationYearKey, Arc<StationYear>> = HashMap::new();
            loop {
                let needed = join.advance(|key| answers.remove(&key));
                if needed.is_empty() {
                    break;
                }
                prop_assert!(answers.is_empty(), "requested but not looked up");
                for (station, of) in needed {
                    for year in of {
                        answers.insert((station, year), Arc::new(years[station as usize][usize::from(year == 2019)].clone()));
                    }
                }
            }
            let looked_up: HashSet<StationYearKey> = join.station_years.keys().copied().collect();
            let weather = join.finish();
            for (ride, weather) in rides.iter().zip(&weather) {
                prop_assert_eq!(weather, &expected_by_scan(&list, &years, ride, max_km));
            }
            // Every station-year that was looked up lies on the way of some ride.
            for (station, year) in looked_up {
                let at = &list[station as usize];
                let passed = rides.iter().zip(&weather).any(|(ride, weather)| {
                    let km = haversine_km((ride.latitude, ride.longitude), (at.latitude, at.longitude));
                    ride.statustime.date().0 == year && match weather {
                        Weather::Observed(observation) => km <= observation.station_km,
                        Weather::Missing(_) => km <= max_km,
                    }
                });
                prop_assert!(passed, "{} in {year}", at.id);
            }
        }
    }
}
