//! The stations around a place, nearest first.
//!
//! Stations are points on the unit sphere in a k-d tree. The chord grows with the great-circle distance, so the tree's order
//! is right. Stations whose distances differ by less than a centimetre are ordered by their haversine distance, rounded to
//! the millimetre, and then by their id.

use crate::formats::ghcn::{Inventory, Station, YearRange};
use compact_str::CompactString;
use kiddo::{ImmutableKdTree, SquaredEuclidean};
use std::{collections::HashSet, num::NonZeroUsize, sync::Arc};

/// Mean radius of the Earth, kilometres (IUGG R₁ = (2a + b)/3 of WGS 84).
pub const EARTH_KM: f64 = 6371.0088;
/// Maximum search radius, kilometres: a quarter of the circumference, within which distances are exact to the millimetre.
pub const REACH_KM_MAX: f64 = 10_000.0;

/// Chords that differ by less than this, on the unit sphere, are ordered by haversine distance: a centimetre.
const TIE: f64 = 1e-5 / EARTH_KM;
/// Number of stations of the first query: the nearest and the one that proves it is the nearest. Each further query asks for
/// four times as many.
const FIRST_QUERY_STATIONS: usize = 2;

/// Coordinates in radians, with the cosine that the haversine formula needs.
#[derive(Debug, Clone, Copy)]
struct Coordinates {
    latitude: f64,
    longitude: f64,
    cos_latitude: f64,
}

impl Coordinates {
    fn new(latitude: f64, longitude: f64) -> Self {
        let (latitude, longitude) = (latitude.to_radians(), longitude.to_radians());
        Self { latitude, longitude, cos_latitude: latitude.cos() }
    }

    fn on_unit_sphere(&self) -> [f64; 3] {
        let (sin, cos) = self.longitude.sin_cos();
        [self.cos_latitude * cos, self.cos_latitude * sin, self.latitude.sin()]
    }

    /// Great-circle distance in kilometres, rounded to 6 decimals (millimetres).
    fn km_to(&self, other: &Self) -> f64 {
        let half_latitude = ((other.latitude - self.latitude) / 2.0).sin();
        let half_longitude = ((other.longitude - self.longitude) / 2.0).sin();
        let a =
            half_latitude * half_latitude + self.cos_latitude * other.cos_latitude * half_longitude * half_longitude;
        let km = 2.0 * EARTH_KM * a.sqrt().min(1.0).asin();
        (km * 1e6).round() / 1e6
    }
}

/// Great-circle (haversine) distance between two places given in degrees: kilometres, rounded to 6 decimals.
pub fn haversine_km(from: (f64, f64), to: (f64, f64)) -> f64 {
    Coordinates::new(from.0, from.1).km_to(&Coordinates::new(to.0, to.1))
}

#[derive(Debug)]
struct IndexedStation {
    id: CompactString,
    coordinates: Coordinates,
    years: YearRange,
}

/// A spatial index of stations.
///
/// An index made from another one ([`StationIndex::only`]) has the same station numbers.
#[derive(Debug, Clone)]
pub struct StationIndex {
    stations: Arc<[IndexedStation]>,
    numbers: Arc<[u32]>,
    tree: Option<Arc<ImmutableKdTree<f64, 3>>>,
}

impl StationIndex {
    /// Indexes all stations of the list; with an inventory, those that ever had all three elements.
    pub fn new(list: Vec<Station>, inventory: Option<&Inventory>) -> Self {
        let listed = list.into_iter().filter_map(|Station { id, latitude, longitude }| {
            let years = match inventory {
                Some(inventory) => inventory.complete_years(&id)?,
                None => (i16::MIN, i16::MAX),
            };
            Some(IndexedStation { id, coordinates: Coordinates::new(latitude, longitude), years })
        });
        let stations: Arc<[IndexedStation]> = listed.collect();
        Self::over(stations, |_, _| true)
    }

    /// Returns an index of the stations that may have data of `year`, except those in `without`.
    pub fn only(&self, year: i16, without: &HashSet<u32>) -> Self {
        Self::over(Arc::clone(&self.stations), |number, station| {
            (station.years.0..=station.years.1).contains(&year) && !without.contains(&number)
        })
    }

    fn over(stations: Arc<[IndexedStation]>, keep: impl Fn(u32, &IndexedStation) -> bool) -> Self {
        let selected = (0u32..).zip(stations.iter()).filter(|(number, station)| keep(*number, station));
        let (numbers, points): (Vec<u32>, Vec<[f64; 3]>) =
            selected.map(|(number, station)| (number, station.coordinates.on_unit_sphere())).unzip();
        let tree = if points.is_empty() { None } else { ImmutableKdTree::new_from_slice(&points).ok().map(Arc::new) };
        Self { stations, numbers: numbers.into(), tree }
    }

    /// Returns the number of stations.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Returns whether there are no stations.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Returns the id of a station; empty if the number is unknown.
    pub fn id(&self, station: u32) -> CompactString {
        usize::try_from(station)
            .ok()
            .and_then(|at| self.stations.get(at))
            .map_or_else(CompactString::default, |s| s.id.clone())
    }

    /// Returns whether a station may have days of `year` with all three elements, according to the inventory.
    pub fn covers(&self, station: u32, year: i16) -> bool {
        let listed = usize::try_from(station).ok().and_then(|at| self.stations.get(at));
        listed.is_some_and(|listed| (listed.years.0..=listed.years.1).contains(&year))
    }

    /// Returns a cursor over the stations within `max_km` of a place, nearest first. Coordinates in degrees.
    pub fn near(&self, latitude: f64, longitude: f64, max_km: f64) -> Neighbours {
        let place = Coordinates::new(latitude, longitude);
        let half_angle = (max_km.clamp(0.0, REACH_KM_MAX) / EARTH_KM / 2.0).sin();
        // Slightly farther than `max_km`, so that rounding loses no station; the haversine distance decides.
        let reach = 2.0 * half_angle + 2.0 * TIE;
        Neighbours {
            place,
            point: place.on_unit_sphere(),
            max_km,
            reach_squared: reach * reach,
            fetched: Vec::new(),
            next: 0,
            passed: f64::NEG_INFINITY,
            query_stations: FIRST_QUERY_STATIONS,
            all_fetched: false,
            group: Vec::new(),
        }
    }
}

/// A station, by its number in the index, and a year.
pub type StationYearKey = (u32, i16);

/// A station near a place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Its number in the index.
    pub station: u32,
    /// Haversine distance in kilometres, rounded to 6 decimals.
    pub km: f64,
}

/// A cursor over the stations around a place. It queries the tree on demand and borrows nothing, so that it can be kept while
/// weather is fetched.
#[derive(Debug, Clone)]
pub struct Neighbours {
    place: Coordinates,
    point: [f64; 3],
    max_km: f64,
    reach_squared: f64,
    /// Results of the last query: chord and station number, nearest first. Those before `next` have been returned.
    fetched: Vec<(f64, u32)>,
    next: usize,
    /// Chord of the farthest station that has been returned.
    passed: f64,
    query_stations: usize,
    all_fetched: bool,
    /// Stations with equal chords, ordered by haversine distance and id, farthest first.
    group: Vec<Neighbour>,
}

impl Neighbours {
    /// Returns the next station: farther than all before it, or equally far with a larger id. `index` created this cursor.
    pub fn next(&mut self, index: &StationIndex) -> Option<Neighbour> {
        loop {
            if let Some(near) = self.group.pop() {
                return Some(near);
            }
            let end = self.tie_end(index);
            let tied = self.fetched.get(self.next..end).unwrap_or_default();
            if tied.is_empty() {
                return None;
            }
            for &(_, station) in tied {
                let listed = usize::try_from(station).ok().and_then(|at| index.stations.get(at));
                let km = listed.map_or(f64::INFINITY, |listed| self.place.km_to(&listed.coordinates));
                if km <= self.max_km {
                    self.group.push(Neighbour { station, km });
                }
            }
            self.passed = tied.last().map_or(self.passed, |&(distance, _)| distance);
            self.next = end;
            if self.group.len() > 1 {
                self.group
                    .sort_by(|a, b| b.km.total_cmp(&a.km).then_with(|| index.id(b.station).cmp(&index.id(a.station))));
            }
        }
    }

    /// Returns the end of the stations that are as far as the next one. Queries the tree until the end is certain.
    fn tie_end(&mut self, index: &StationIndex) -> usize {
        loop {
            let tied = self.fetched.get(self.next..).unwrap_or_default();
            let mut farthest = tied.first().map_or(f64::INFINITY, |&(distance, _)| distance);
            for (at, &(distance, _)) in (self.next..).zip(tied) {
                if distance > farthest + TIE {
                    return at;
                }
                farthest = distance;
            }
            if self.all_fetched {
                return self.fetched.len();
            }
            self.fetch(index);
        }
    }

    fn fetch(&mut self, index: &StationIndex) {
        let count = self.query_stations.min(index.len() + 1);
        let (Some(tree), Some(at_most)) = (&index.tree, NonZeroUsize::new(count)) else {
            self.all_fetched = true;
            return;
        };
        let results =
            tree.query(&self.point).nearest_n::<SquaredEuclidean<f64>>(at_most).within(self.reach_squared).execute();
        self.all_fetched = results.len() < count;
        self.query_stations = self.query_stations.saturating_mul(4);
        // More than TIE separates the returned stations from the rest; the cut is in the middle of that gap.
        let passed = self.passed + TIE / 2.0;
        self.next = 0;
        self.fetched.clear();
        self.fetched.extend(results.iter().filter_map(|item| {
            let number = index.numbers.get(usize::try_from(item.item).ok()?)?;
            let distance = item.distance.sqrt();
            (distance > passed).then_some((distance, *number))
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{
        ghcn::InventoryList,
        lines::{Lines, Text},
    };
    use proptest::prelude::*;

    fn station(id: u32, latitude: f64, longitude: f64) -> Station {
        Station { id: format!("XX{id:09}").into(), latitude, longitude }
    }

    fn scan(list: &[Station], place: (f64, f64), max_km: f64) -> Vec<(CompactString, f64)> {
        let km = |station: &Station| haversine_km(place, (station.latitude, station.longitude));
        let mut stations: Vec<_> = list.iter().map(|s| (s.id.clone(), km(s))).filter(|(_, km)| *km <= max_km).collect();
        stations.sort_by(|a, b| a.1.total_cmp(&b.1).then_with(|| a.0.cmp(&b.0)));
        stations
    }

    fn all(index: &StationIndex, place: (f64, f64), max_km: f64) -> Vec<(CompactString, f64)> {
        let mut near = index.near(place.0, place.1, max_km);
        std::iter::from_fn(|| near.next(index)).map(|near| (index.id(near.station), near.km)).collect()
    }

    #[test]
    fn haversine_matches_reference_distances() {
        assert_eq!(haversine_km((40.626722, -74.110954), (40.7789, -73.9692)), 20.71533);
        assert_eq!(haversine_km((0.0, 179.5), (0.0, -179.5)), 111.195080);
        assert_eq!(haversine_km((90.0, 0.0), (90.0, 120.0)), 0.0);
    }

    #[test]
    fn equally_far_stations_are_ordered_by_id() {
        let list: Vec<Station> = (0..300).rev().map(|id| station(id, 51.5, -0.1)).collect();
        let stations = all(&StationIndex::new(list.clone(), None), (51.6, -0.1), 50.0);
        assert_eq!(stations.len(), 300);
        assert_eq!(stations, scan(&list, (51.6, -0.1), 50.0));
    }

    #[test]
    fn an_empty_list_has_no_nearest_station() {
        assert_eq!(all(&StationIndex::new(Vec::new(), None), (0.0, 0.0), 10_000.0), []);
    }

    #[test]
    fn the_inventory_and_the_year_restrict_the_index() {
        let mut lines = Lines::new(InventoryList::default());
        for (id, element, years) in [
            (1, "TMIN", "1900 1950"),
            (1, "TMAX", "1900 1950"),
            (1, "PRCP", "1890 1949"),
            (2, "PRCP", "2000 2020"),
            (3, "TMIN", "2000 2020"),
            (3, "TMAX", "2000 2020"),
            (3, "PRCP", "2000 2020"),
        ] {
            lines.feed(format!("XX{id:09}   0.0000    0.0000 {element} {years}\n").as_bytes()).unwrap();
        }
        let inventory = lines.finish().unwrap().value;
        let list = (0..5).map(|id| station(id, f64::from(id), 0.0)).collect();
        let index = StationIndex::new(list, Some(&inventory));
        let names = |index: &StationIndex| -> Vec<u8> {
            all(index, (0.0, 0.0), 1_000.0).iter().map(|(id, _)| id.as_bytes()[10] - b'0').collect()
        };
        assert_eq!(names(&index), [1, 3]);
        assert_eq!(names(&index.only(1949, &HashSet::new())), [1]);
        assert_eq!(names(&index.only(1950, &HashSet::new())), [0u8; 0]);
        assert_eq!(names(&index.only(2020, &HashSet::new())), [3]);
        assert_eq!(names(&index.only(2020, &HashSet::from([1]))), [0u8; 0]);
        assert!(index.covers(0, 1949) && !index.covers(0, 1950) && !index.covers(9, 1949));
    }

    /// Coordinates on a coarse grid, which causes ties and poles, and on a fine one.
    fn degrees(limit: i32) -> impl Strategy<Value = f64> {
        prop_oneof![
            (-limit..=limit).prop_map(|tens| f64::from(tens / 10 * 10)),
            (-limit * 10_000..=limit * 10_000).prop_map(|fine| f64::from(fine) / 10_000.0),
            (-20..=20i32).prop_map(|fine| f64::from(fine) / 10_000.0),
        ]
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_a_scan(
            places in proptest::collection::vec((degrees(90), degrees(180)), 0..120),
            place in (degrees(90), degrees(180)),
            max_km in prop_oneof![0.001f64..1.0, 1.0f64..500.0, 500.0f64..10_000.0],
        ) {
            let list: Vec<Station> =
                (0u32..).zip(places).map(|(id, (latitude, longitude))| station(id, latitude, longitude)).collect();
            let index = StationIndex::new(list.clone(), None);
            prop_assert_eq!(all(&index, place, max_km), scan(&list, place, max_km));
        }
    }
}
