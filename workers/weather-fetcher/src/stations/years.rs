//! Indexes of the stations that may have observations in a year.

use crate::stations::nearest::{StationIndex, StationYearKey};
use quick_cache::unsync::Cache;
use std::{collections::HashSet, sync::Arc};

/// Maximum number of years whose index is kept.
const YEARS_MAX: usize = 4;
/// Minimum number of newly excluded stations for which an index is rebuilt, in addition to an eighth of those it leaves out
/// already. This bounds the number of rebuilds.
const EXCLUDED_MIN: usize = 32;
/// Number of uses after which an index is rebuilt even for a single excluded station.
const USES_MIN: u32 = 64;

#[derive(Debug)]
struct YearIndex {
    index: Arc<StationIndex>,
    /// Stations without a complete day in the year.
    excluded: HashSet<u32>,
    /// Number of excluded stations that the index leaves out already.
    left_out: usize,
    /// Number of uses since the index was built.
    uses: u32,
    /// Whether the index leaves out a station that it should not.
    is_outdated: bool,
}

impl YearIndex {
    fn is_rebuild_due(&self) -> bool {
        let new = self.excluded.len() - self.left_out;
        self.is_outdated || new >= EXCLUDED_MIN + self.left_out / 8 || (new > 0 && self.uses >= USES_MIN)
    }
}

/// The indexes of the years in use. Most listed stations closed long ago or measured only rain, and every join would pass
/// over them again. Which station a ride gets does not depend on these indexes.
#[derive(Debug)]
pub struct YearIndexes(Cache<i16, YearIndex>);

impl Default for YearIndexes {
    fn default() -> Self {
        Self(Cache::new(YEARS_MAX))
    }
}

impl YearIndexes {
    /// Returns the index of a year, built from `all` if there is none or a rebuild is due.
    pub fn index(&mut self, year: i16, all: &StationIndex) -> Arc<StationIndex> {
        if let Some(mut entry) = self.0.get_mut(&year) {
            if entry.is_rebuild_due() {
                entry.index = Arc::new(all.only(year, &entry.excluded));
                entry.left_out = entry.excluded.len();
                entry.uses = 0;
                entry.is_outdated = false;
            }
            entry.uses = entry.uses.saturating_add(1);
            return Arc::clone(&entry.index);
        }
        let excluded = HashSet::new();
        let index = Arc::new(all.only(year, &excluded));
        self.0
            .insert(year, YearIndex { index: Arc::clone(&index), excluded, left_out: 0, uses: 1, is_outdated: false });
        index
    }

    /// Includes a station again whose year was corrected: it has a complete day now.
    pub fn include(&mut self, (station, year): StationYearKey) {
        if let Some(mut entry) = self.0.get_mut(&year)
            && entry.excluded.remove(&station)
        {
            // The index is built anew at its next use, from all stations.
            entry.left_out = entry.left_out.min(entry.excluded.len());
            entry.is_outdated = true;
        }
    }

    /// Excludes a station that has no complete day in a settled year.
    pub fn exclude(&mut self, (station, year): StationYearKey) {
        if let Some(mut entry) = self.0.get_mut(&year) {
            entry.excluded.insert(station);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::ghcn::Station;

    #[test]
    fn an_index_is_rebuilt_once_many_stations_are_excluded() {
        let list = (0..100u32)
            .map(|id| Station { id: format!("XX{id:09}").into(), latitude: f64::from(id) / 100.0, longitude: 0.0 })
            .collect();
        let all = StationIndex::new(list, None);
        let mut years = YearIndexes::default();
        assert_eq!(years.index(2018, &all).len(), 100);
        for station in 0..40 {
            years.exclude((station, 2018));
            years.exclude((station, 1999));
        }
        assert_eq!(years.index(2018, &all).len(), 60);
        years.include((7, 2018));
        assert_eq!(years.index(2018, &all).len(), 61, "a corrected station is found again at once");
        years.exclude((7, 2018));
        years.exclude((40, 2018));
        assert_eq!(years.index(2018, &all).len(), 61, "no rebuild for a few");
        (0..USES_MIN).for_each(|_| drop(years.index(2018, &all)));
        assert_eq!(years.index(2018, &all).len(), 59, "a rebuild after many uses");
        assert_eq!(years.index(1999, &all).len(), 100, "a year without an index records no exclusions");
        for year in 2000..2010 {
            years.index(year, &all);
        }
        assert_eq!(years.0.len(), YEARS_MAX);
    }
}
