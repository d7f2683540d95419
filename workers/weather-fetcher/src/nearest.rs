//! The stations around a place, nearest first.
//!
//! Stations are points on the unit sphere in a k-d tree; the straight line through the Earth grows with the way on its
//! surface, so the tree's order is right. Only where two stations are within a centimetre of equally far does the
//! haversine distance, rounded to the millimetre, decide, and then the station id.

use crate::ghcn::{Inventory, Station, Years};
use compact_str::CompactString;
use kiddo::{ImmutableKdTree, SquaredEuclidean};
use std::{collections::HashSet, num::NonZeroUsize, sync::Arc};

/// Mean radius of the Earth, kilometres (IUGG R₁ = (2a + b)/3 of WGS 84).
pub const EARTH_KM: f64 = 6371.0088;
/// How far one may look: a quarter of the way around, below which distances are good to the millimetre.
pub const REACH_KM_MAX: f64 = 10_000.0;

/// Distances closer than this, on the unit sphere, are told apart by haversine: a centimetre.
const TIE: f64 = 1e-5 / EARTH_KM;
/// Stations asked of the tree at first, the nearest and the one that shows it is the nearest; four times as many each time
/// that was not enough.
const FIRST_HANDFUL: usize = 2;

/// A place on Earth with what its haversine needs computed once.
#[derive(Debug, Clone, Copy)]
struct Place {
    latitude: f64,
    longitude: f64,
    cos_latitude: f64,
}

impl Place {
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
    Place::new(from.0, from.1).km_to(&Place::new(to.0, to.1))
}

#[derive(Debug)]
struct Listed {
    id: CompactString,
    place: Place,
    years: Years,
}

/// Stations one may ask for the nearest of.
///
/// Every index made from another ([`StationIndex::only`]) knows the stations by the same numbers.
#[derive(Debug, Clone)]
pub struct StationIndex {
    stations: Arc<[Listed]>,
    numbers: Arc<[u32]>,
    tree: Option<Arc<ImmutableKdTree<f64, 3>>>,
}

impl StationIndex {
    /// All stations of the list; with an inventory, those that ever had all three elements.
    pub fn new(list: Vec<Station>, inventory: Option<&Inventory>) -> Self {
        let listed = list.into_iter().filter_map(|Station { id, latitude, longitude }| {
            let years = match inventory {
                Some(inventory) => inventory.complete_years(&id)?,
                None => (i16::MIN, i16::MAX),
            };
            Some(Listed { id, place: Place::new(latitude, longitude), years })
        });
        let stations: Arc<[Listed]> = listed.collect();
        Self::over(stations, |_, _| true)
    }

    /// The stations that may have data of `year`, without those in `without`.
    pub fn only(&self, year: i16, without: &HashSet<u32>) -> Self {
        Self::over(Arc::clone(&self.stations), |number, station| {
            (station.years.0..=station.years.1).contains(&year) && !without.contains(&number)
        })
    }

    fn over(stations: Arc<[Listed]>, keep: impl Fn(u32, &Listed) -> bool) -> Self {
        let kept = (0u32..).zip(stations.iter()).filter(|(number, station)| keep(*number, station));
        let (numbers, points): (Vec<u32>, Vec<[f64; 3]>) =
            kept.map(|(number, station)| (number, station.place.on_unit_sphere())).unzip();
        let tree = if points.is_empty() { None } else { ImmutableKdTree::new_from_slice(&points).ok().map(Arc::new) };
        Self { stations, numbers: numbers.into(), tree }
    }

    /// How many stations it holds.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The id of a station; empty for a number that is none.
    pub fn id(&self, station: u32) -> CompactString {
        usize::try_from(station)
            .ok()
            .and_then(|at| self.stations.get(at))
            .map_or_else(CompactString::default, |s| s.id.clone())
    }

    /// Whether a station may have days of `year` with all three elements, as far as the inventory tells.
    pub fn covers(&self, station: u32, year: i16) -> bool {
        let listed = usize::try_from(station).ok().and_then(|at| self.stations.get(at));
        listed.is_some_and(|listed| (listed.years.0..=listed.years.1).contains(&year))
    }

    /// The stations within `max_km` of a place given in degrees, nearest first.
    pub fn near(&self, latitude: f64, longitude: f64, max_km: f64) -> Nearby {
        let place = Place::new(latitude, longitude);
        let half_angle = (max_km.clamp(0.0, REACH_KM_MAX) / EARTH_KM / 2.0).sin();
        // A little farther than asked, so that rounding cannot lose a station; the haversine distance decides.
        let reach = 2.0 * half_angle + 2.0 * TIE;
        Nearby {
            place,
            point: place.on_unit_sphere(),
            max_km,
            reach_squared: reach * reach,
            fetched: Vec::new(),
            next: 0,
            passed: f64::NEG_INFINITY,
            handful: FIRST_HANDFUL,
            all_fetched: false,
            group: Vec::new(),
        }
    }
}

/// A station near a place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Near {
    /// Its number in the index.
    pub station: u32,
    /// Haversine distance in kilometres, rounded to 6 decimals.
    pub km: f64,
}

/// A cursor over the stations around a place. It asks the tree for more only when it is asked for more, and borrows
/// nothing, so that it can wait while weather is fetched.
#[derive(Debug, Clone)]
pub struct Nearby {
    place: Place,
    point: [f64; 3],
    max_km: f64,
    reach_squared: f64,
    /// What the tree gave: straight-line distance and station number, nearest first; handed out up to `next`.
    fetched: Vec<(f64, u32)>,
    next: usize,
    /// Straight-line distance of the farthest station handed out.
    passed: f64,
    handful: usize,
    all_fetched: bool,
    /// Stations told apart by haversine and id, farthest first.
    group: Vec<Near>,
}

impl Nearby {
    /// The next station: farther than all before it, or as far and with a larger id. `index` is the one it came from.
    pub fn next(&mut self, index: &StationIndex) -> Option<Near> {
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
                let km = listed.map_or(f64::INFINITY, |listed| self.place.km_to(&listed.place));
                if km <= self.max_km {
                    self.group.push(Near { station, km });
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

    /// Where the stations that are as far as the next one end; fetches until that is certain.
    fn tie_end(&mut self, index: &StationIndex) -> usize {
        loop {
            let tied = self.fetched.get(self.next..).unwrap_or_default();
            let mut farthest = match tied.first() {
                Some(&(distance, _)) => distance,
                None => f64::INFINITY,
            };
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
        let wanted = self.handful.min(index.len() + 1);
        let (Some(tree), Some(at_most)) = (&index.tree, NonZeroUsize::new(wanted)) else {
            self.all_fetched = true;
            return;
        };
        let found =
            tree.query(&self.point).nearest_n::<SquaredEuclidean<f64>>(at_most).within(self.reach_squared).execute();
        self.all_fetched = found.len() < wanted;
        self.handful = self.handful.saturating_mul(4);
        // What was handed out ends with a gap of more than TIE: the rest begins in its middle.
        let passed = self.passed + TIE / 2.0;
        self.next = 0;
        self.fetched.clear();
        self.fetched.extend(found.iter().filter_map(|item| {
            let number = index.numbers.get(usize::try_from(item.item).ok()?)?;
            let distance = item.distance.sqrt();
            (distance > passed).then_some((distance, *number))
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ghcn::InventoryList,
        lines::{Lines, Text},
    };
    use proptest::prelude::*;

    fn station(id: u32, latitude: f64, longitude: f64) -> Station {
        Station { id: format!("XX{id:09}").into(), latitude, longitude }
    }

    fn scan(list: &[Station], place: (f64, f64), max_km: f64) -> Vec<(CompactString, f64)> {
        let km = |station: &Station| haversine_km(place, (station.latitude, station.longitude));
        let mut found: Vec<_> = list.iter().map(|s| (s.id.clone(), km(s))).filter(|(_, km)| *km <= max_km).collect();
        found.sort_by(|a, b| a.1.total_cmp(&b.1).then_with(|| a.0.cmp(&b.0)));
        found
    }

    fn all(index: &StationIndex, place: (f64, f64), max_km: f64) -> Vec<(CompactString, f64)> {
        let mut near = index.near(place.0, place.1, max_km);
        std::iter::from_fn(|| near.next(index)).map(|near| (index.id(near.station), near.km)).collect()
    }

    #[test]
    fn known_distances() {
        assert_eq!(haversine_km((40.626722, -74.110954), (40.7789, -73.9692)), 20.71533);
        assert_eq!(haversine_km((0.0, 179.5), (0.0, -179.5)), 111.195080);
        assert_eq!(haversine_km((90.0, 0.0), (90.0, 120.0)), 0.0);
    }

    #[test]
    fn equally_far_stations_come_by_id_however_many_there_are() {
        let list: Vec<Station> = (0..300).rev().map(|id| station(id, 51.5, -0.1)).collect();
        let found = all(&StationIndex::new(list.clone(), None), (51.6, -0.1), 50.0);
        assert_eq!(found.len(), 300);
        assert_eq!(found, scan(&list, (51.6, -0.1), 50.0));
    }

    #[test]
    fn an_empty_list_has_no_nearest_station() {
        assert_eq!(all(&StationIndex::new(Vec::new(), None), (0.0, 0.0), 10_000.0), []);
    }

    #[test]
    fn the_inventory_prunes_and_a_year_prunes_further() {
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

    /// Coordinates on a coarse grid make ties and poles, on a fine one they do not.
    fn degrees(limit: i32) -> impl Strategy<Value = f64> {
        prop_oneof![
            (-limit..=limit).prop_map(|tens| f64::from(tens / 10 * 10)),
            (-limit * 10_000..=limit * 10_000).prop_map(|fine| f64::from(fine) / 10_000.0),
            (-20..=20i32).prop_map(|fine| f64::from(fine) / 10_000.0),
        ]
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_scan_finds_in_the_same_order(
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
