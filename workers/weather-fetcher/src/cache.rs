//! What is known of the weather, in a bounded amount of memory.

use crate::{join::StationYearKey, nearest::StationIndex, station_year::StationYear};
use jiff::Timestamp;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// What an entry weighs without and with days, bytes.
const ENTRY_BYTES: usize = 64;
const DAYS_BYTES: usize = 366 * 6;

#[derive(Debug)]
struct Entry {
    weather: Arc<StationYear>,
    /// When it was last of use, on the cache's own count.
    used: u64,
    /// From when on it is no longer believed; a year that is over is believed for ever.
    stale_at: Option<Timestamp>,
}

/// Station-years in memory. When it is full, those that were of no use for longest make room.
#[derive(Debug)]
pub struct Memory {
    entries: HashMap<StationYearKey, Entry>,
    bytes: usize,
    bytes_max: usize,
    uses: u64,
}

fn weight(weather: &StationYear) -> usize {
    ENTRY_BYTES + if weather.is_empty() { 0 } else { DAYS_BYTES }
}

impl Memory {
    /// Holds about `bytes_max` bytes at most.
    pub fn new(bytes_max: usize) -> Self {
        Self { entries: HashMap::new(), bytes: 0, bytes_max, uses: 0 }
    }

    /// What is known of a station-year, unless it is stale `now`.
    pub fn get(&mut self, key: StationYearKey, now: Timestamp) -> Option<Arc<StationYear>> {
        self.uses += 1;
        let entry = self.entries.get_mut(&key)?;
        if entry.stale_at.is_some_and(|stale_at| stale_at <= now) {
            return None;
        }
        entry.used = self.uses;
        Some(Arc::clone(&entry.weather))
    }

    /// Remembers a station-year, until `stale_at` when given.
    pub fn put(&mut self, key: StationYearKey, weather: Arc<StationYear>, stale_at: Option<Timestamp>) {
        self.uses += 1;
        self.bytes += weight(&weather);
        let entry = Entry { weather, used: self.uses, stale_at };
        if let Some(before) = self.entries.insert(key, entry) {
            self.bytes -= weight(&before.weather);
        }
        if self.bytes > self.bytes_max {
            self.make_room();
        }
    }

    /// Forgets the older half, so that the cost of choosing is spread over many puts.
    fn make_room(&mut self) {
        let mut ages: Vec<u64> = self.entries.values().map(|entry| entry.used).collect();
        let middle = ages.len() / 2;
        let (_, median, _) = ages.select_nth_unstable(middle);
        let median = *median;
        self.entries.retain(|_, entry| entry.used >= median);
        self.bytes = self.entries.values().map(|entry| weight(&entry.weather)).sum();
    }
}

/// Years whose own index is kept.
const YEARS_MAX: usize = 4;
/// Stations newly found useless from which on an index is made again without them, besides an eighth of those found
/// before: so that it is not made again and again.
const USELESS_MIN: usize = 32;
/// Times an index is of use before it is made again without even a single useless station.
const USES_MIN: u32 = 64;

#[derive(Debug)]
struct Year {
    index: Arc<StationIndex>,
    /// Stations that turned out to have no complete day in the year.
    useless: HashSet<u32>,
    /// How many of them the index is already without.
    left_out: usize,
    /// How often it was of use since it was made.
    uses: u32,
    used: u64,
}

impl Year {
    fn is_worth_remaking(&self) -> bool {
        let found = self.useless.len() - self.left_out;
        found >= USELESS_MIN + self.left_out / 8 || (found > 0 && self.uses >= USES_MIN)
    }
}

/// For the years in use, an index of only the stations that may be of use in them: most stations of the list closed long
/// ago or only ever measured rain, and every ride nearby would pass over them again. Which station a ride gets does not
/// depend on it.
#[derive(Debug, Default)]
pub struct Years {
    years: HashMap<i16, Year>,
    uses: u64,
}

impl Years {
    /// The index of a year, made from `all` when there is none that is good enough.
    pub fn index(&mut self, year: i16, all: &StationIndex) -> Arc<StationIndex> {
        self.uses += 1;
        let uses = self.uses;
        if let Some(known) = self.years.get_mut(&year) {
            known.used = uses;
            if known.is_worth_remaking() {
                known.index = Arc::new(all.only(year, &known.useless));
                known.left_out = known.useless.len();
                known.uses = 0;
            }
            known.uses = known.uses.saturating_add(1);
            return Arc::clone(&known.index);
        }
        if self.years.len() >= YEARS_MAX {
            let oldest = self.years.iter().min_by_key(|(_, known)| known.used).map(|(year, _)| *year);
            oldest.and_then(|year| self.years.remove(&year));
        }
        let useless = HashSet::new();
        let index = Arc::new(all.only(year, &useless));
        self.years.insert(year, Year { index: Arc::clone(&index), useless, left_out: 0, uses: 1, used: uses });
        index
    }

    /// Notes that a station has no complete day in a year that is over.
    pub fn note_useless(&mut self, (station, year): StationYearKey) {
        if let Some(known) = self.years.get_mut(&year) {
            known.useless.insert(station);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ghcn::Station,
        left_out::LeftOut,
        station_year::{Date, Days, Element},
    };

    fn one_day() -> Arc<StationYear> {
        let mut days = Days::default();
        for element in Element::ALL {
            days.set(Date { year: 2018, month: 1, day: 1 }, element, 7).unwrap();
        }
        Arc::new(days.finish(2018, &mut LeftOut::default()))
    }

    #[test]
    fn memory_stays_within_its_bounds_and_keeps_what_is_in_use() {
        let bytes_max = 100 * (ENTRY_BYTES + DAYS_BYTES);
        let mut memory = Memory::new(bytes_max);
        let now = Timestamp::UNIX_EPOCH;
        memory.put((0, 2018), one_day(), None);
        for station in 1..10_000 {
            memory.put((station, 2018), one_day(), None);
            assert!(memory.bytes <= bytes_max);
            assert!(memory.get((0, 2018), now).is_some(), "forgotten after {station}");
        }
        assert!(memory.get((1, 2018), now).is_none());
        assert!(memory.entries.len() <= 100);
        memory.put((0, 2018), Arc::default(), None);
        assert_eq!(memory.bytes, memory.entries.values().map(|entry| weight(&entry.weather)).sum::<usize>());
    }

    #[test]
    fn a_year_that_is_not_over_is_believed_for_a_while_only() {
        let mut memory = Memory::new(1 << 20);
        let at = |second| Timestamp::from_second(second).unwrap();
        memory.put((1, 2018), one_day(), Some(at(100)));
        assert!(memory.get((1, 2018), at(99)).is_some());
        assert!(memory.get((1, 2018), at(100)).is_none());
    }

    #[test]
    fn useless_stations_are_left_out_once_there_are_many() {
        let list = (0..100u32)
            .map(|id| Station { id: format!("XX{id:09}").into(), latitude: f64::from(id) / 100.0, longitude: 0.0 })
            .collect();
        let all = StationIndex::new(list, None);
        let mut years = Years::default();
        assert_eq!(years.index(2018, &all).len(), 100);
        for station in 0..40 {
            years.note_useless((station, 2018));
            years.note_useless((station, 1999));
        }
        assert_eq!(years.index(2018, &all).len(), 60);
        years.note_useless((40, 2018));
        assert_eq!(years.index(2018, &all).len(), 60, "not for a single one");
        (0..USES_MIN).for_each(|_| drop(years.index(2018, &all)));
        assert_eq!(years.index(2018, &all).len(), 59, "unless it stays in use");
        assert_eq!(years.index(1999, &all).len(), 100, "what is not in use is not remembered");
        for year in 2000..2010 {
            years.index(year, &all);
        }
        assert_eq!(years.years.len(), YEARS_MAX);
    }
}
