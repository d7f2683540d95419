//! The weather of any place and day: the station list, what is known of the stations, and the means to know more.

use crate::{
    join::{Join, Reach},
    nearest::StationIndex,
    weather::{WeatherCache, outage},
};
use common::contract::{message::WeatherPlace, outcome::Failure, ride::Weather};
use std::{collections::HashMap, sync::Arc};
use tokio::{sync::OnceCell, time::Instant};

/// Places of one year in a chunk from which on an index of that year is worth its making.
const YEAR_INDEX_PLACES_MIN: usize = 32;

/// Shared by the workers of a process.
#[derive(Debug)]
pub struct Almanac {
    weather: WeatherCache,
    stations: OnceCell<Arc<StationIndex>>,
    max_station_km: f64,
}

impl Almanac {
    /// Knows nothing yet, not even the stations.
    pub fn new(weather: WeatherCache, max_station_km: f64) -> Self {
        Self { weather, stations: OnceCell::new(), max_station_km }
    }

    /// Farther stations are not asked, kilometres.
    pub fn max_station_km(&self) -> f64 {
        self.max_station_km
    }

    /// The weather of each place, in their order, from memory alone; `None` when something would have to be read.
    pub fn known(&self, places: &[WeatherPlace]) -> Option<Vec<Weather>> {
        let reach = self.reach(self.stations.get()?, places);
        let mut join = Join::new(&reach, places);
        join.advance(|key| self.weather.known(key)).is_empty().then(|| join.finish())
    }

    /// The weather of each place, in their order.
    ///
    /// # Errors
    /// An outage of the weather service or of the object store. What was read before stays known.
    pub async fn weather(&self, places: &[WeatherPlace]) -> Result<Vec<Weather>, Failure> {
        let stations = self.stations().await?;
        let reach = self.reach(stations, places);
        let mut join = Join::new(&reach, places);
        let mut fetched = HashMap::new();
        loop {
            let needed = join.advance(|key| fetched.get(&key).cloned().or_else(|| self.weather.known(key)));
            if needed.is_empty() {
                return Ok(join.finish());
            }
            fetched = self.weather.fetch(stations, needed).await?;
        }
    }

    async fn stations(&self) -> Result<&Arc<StationIndex>, Failure> {
        let load = || async {
            let started = Instant::now();
            let client = self.weather.client();
            let list = client.stations().await.map_err(|unavailable| outage(&unavailable))?;
            let inventory = client.inventory().await.map_err(|unavailable| outage(&unavailable))?;
            let listed = list.len();
            let index = StationIndex::new(list, inventory.as_ref());
            tracing::info!(
                listed,
                of_use = index.len(),
                inventory = inventory.is_some(),
                took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                "station list loaded"
            );
            Ok(Arc::new(index))
        };
        self.stations.get_or_try_init(load).await
    }

    fn reach(&self, all: &Arc<StationIndex>, places: &[WeatherPlace]) -> Reach {
        let mut by_year: HashMap<i16, usize> = HashMap::new();
        for place in places {
            *by_year.entry(place.statustime.date().0).or_default() += 1;
        }
        let many = by_year.into_iter().filter(|(_, places)| *places >= YEAR_INDEX_PLACES_MIN);
        let by_year = many.map(|(year, _)| (year, self.weather.index(year, all))).collect();
        Reach { all: Arc::clone(all), by_year, max_km: self.max_station_km }
    }
}
