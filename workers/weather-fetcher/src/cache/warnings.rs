//! Warnings about weather files: logged once per file, and written to the object store. No result depends on them, so a
//! failure of the store is only logged.

use crate::formats::left_out::LeftOut;
use common::{document::WeatherWarnings, schema::Described};
use parking_lot::{Mutex, MutexGuard};
use records::{
    layout,
    store::{self, Store},
};
use std::collections::{BTreeMap, HashMap};

/// Maximum number of stations whose warnings are kept in memory. Beyond it all are dropped and may be logged once more.
const STATIONS_MAX: usize = 4096;

/// The known faults of the files of one station.
#[derive(Debug, Default)]
struct Station {
    /// By file; the access service has one file per year.
    left_out: BTreeMap<String, LeftOut>,
    /// Whether a warning was issued that no station near some place has a file.
    no_file: bool,
}

/// The warnings that this process has issued.
#[derive(Debug)]
pub struct Warnings {
    store: Store,
    stations: Mutex<HashMap<String, Station>>,
}

impl Warnings {
    /// Starts without warnings.
    pub fn new(store: Store) -> Self {
        Self { store, stations: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Station>> {
        let mut stations = self.stations.lock();
        if stations.len() > STATIONS_MAX {
            stations.clear();
        }
        stations
    }

    /// Reports what was left out of `file`. `whole`: the file holds all years of `station`. If nothing is left out any more,
    /// the warnings of an earlier reading are removed.
    pub async fn report(&self, station: &str, file: &str, left_out: &LeftOut, whole: bool) {
        let document = {
            let mut stations = self.lock();
            let earlier = stations.get(station).and_then(|station| station.left_out.get(file));
            if left_out.is_empty() {
                // The document of another process may be about other years.
                if earlier.is_none() && !whole {
                    return;
                }
                if let Some(station) = stations.get_mut(station) {
                    station.left_out.remove(file);
                    station.no_file = false;
                }
                let rest = stations.get(station).and_then(Station::left_out);
                if rest.is_none() {
                    stations.remove(station);
                }
                rest.map(|(file, left_out)| left_out.document(station, &file))
            } else {
                if earlier == Some(left_out) {
                    return;
                }
                let first = left_out.first();
                tracing::warn!(station, file, %left_out, first, "rows or days of a weather file were left out");
                let entry = stations.entry(station.to_owned()).or_default();
                entry.left_out.insert(file.to_owned(), left_out.clone());
                entry.left_out().map(|(file, left_out)| left_out.document(station, &file))
            }
        };
        match document {
            Some(document) => self.write(&document).await,
            None => self.remove(station).await,
        }
    }

    /// Reports that no station near some place has a file: `station` is the nearest, and `file` was tried first.
    pub async fn no_file(&self, station: &str, file: &str, why: &str) {
        if std::mem::replace(&mut self.lock().entry(station.to_owned()).or_default().no_file, true) {
            return;
        }
        tracing::warn!(station, why, "rides have no weather: no station nearby has a file");
        let document = WeatherWarnings {
            schema: WeatherWarnings::SCHEMA.name.to_owned(),
            station: station.to_owned(),
            file: file.to_owned(),
            why: Some(why.to_owned()),
            left_out: BTreeMap::new(),
            samples: Vec::new(),
        };
        self.write(&document).await;
    }

    async fn write(&self, document: &WeatherWarnings) {
        let path = layout::weather_warnings(&document.station);
        if let Err(why) = store::write_json(&self.store, &path, document).await {
            tracing::warn!(path, %why, "the warnings about a weather file cannot be written");
        }
    }

    async fn remove(&self, station: &str) {
        let path = layout::weather_warnings(station);
        if let Err(error) = store::remove(&self.store, &path).await {
            tracing::warn!(path, %error, "the warnings about a corrected weather file cannot be removed");
        }
    }
}

impl Station {
    /// Returns the first file with rows left out, and what was left out of all files.
    fn left_out(&self) -> Option<(String, LeftOut)> {
        let (first, _) = self.left_out.first_key_value()?;
        let mut all = LeftOut::default();
        self.left_out.values().for_each(|left_out| all.add(left_out));
        Some((first.clone(), all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{left_out::Reason, malformed::Malformed};
    use std::sync::Arc;

    fn left_out(line: u64) -> LeftOut {
        let mut left_out = LeftOut::default();
        left_out.note(Reason::InvalidDate, &Malformed::new(line, "DATE", "x"));
        left_out
    }

    async fn stored(store: &Store) -> Option<WeatherWarnings> {
        store::read_json(store, &layout::weather_warnings("S")).await.unwrap()
    }

    #[tokio::test]
    async fn warnings_are_kept_until_the_file_is_clean() {
        let store: Store = Arc::new(object_store::memory::InMemory::new());
        let warnings = Warnings::new(Arc::clone(&store));
        warnings.report("S", "s.csv", &LeftOut::default(), true).await;
        assert_eq!(stored(&store).await, None);
        warnings.report("S", "s.csv", &left_out(7), true).await;
        assert_eq!(stored(&store).await, Some(left_out(7).document("S", "s.csv")));
        warnings.report("S", "s.csv", &left_out(9), true).await;
        assert_eq!(stored(&store).await.unwrap().samples[0].line, 9);
        // Another process reads the file after it was corrected.
        Warnings::new(Arc::clone(&store)).report("S", "s.csv", &LeftOut::default(), true).await;
        assert_eq!(stored(&store).await, None);
    }

    #[tokio::test]
    async fn a_clean_year_does_not_end_the_warnings_about_another() {
        let store: Store = Arc::new(object_store::memory::InMemory::new());
        let warnings = Warnings::new(Arc::clone(&store));
        warnings.report("S", "2018", &left_out(1), false).await;
        warnings.report("S", "2019", &left_out(2), false).await;
        assert_eq!(stored(&store).await.unwrap().left_out["invalid_date"], 2);
        for other in ["2020", "2018"] {
            warnings.report("S", other, &LeftOut::default(), false).await;
        }
        assert_eq!(stored(&store).await, Some(left_out(2).document("S", "2019")));
        Warnings::new(Arc::clone(&store)).report("S", "2019", &LeftOut::default(), false).await;
        assert!(stored(&store).await.is_some());
        warnings.report("S", "2019", &LeftOut::default(), false).await;
        assert_eq!(stored(&store).await, None);
    }

    #[tokio::test]
    async fn a_missing_file_is_warned_of_until_it_exists() {
        let store: Store = Arc::new(object_store::memory::InMemory::new());
        let warnings = Warnings::new(Arc::clone(&store));
        warnings.no_file("S", "s.csv", "none of 3").await;
        let document = stored(&store).await.unwrap();
        assert_eq!((document.why.as_deref(), document.file.as_str()), (Some("none of 3"), "s.csv"));
        warnings.report("S", "s.csv", &LeftOut::default(), true).await;
        assert_eq!(stored(&store).await, None);
        warnings.no_file("S", "s.csv", "again").await;
        assert!(stored(&store).await.is_some());
    }
}
