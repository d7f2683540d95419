//! Station-years in a bounded amount of memory.

use crate::{formats::station_year::StationYear, stations::nearest::StationYearKey};
use jiff::Timestamp;
use std::{collections::HashMap, sync::Arc};

/// Memory of an entry without days, and of its days, bytes.
const ENTRY_BYTES: usize = 64;
const DAYS_BYTES: usize = 366 * 6;

#[derive(Debug)]
struct Entry {
    weather: Arc<StationYear>,
    /// Count of lookups at its last use.
    used: u64,
    /// When the entry expires; `None` if it never does.
    stale_at: Option<Timestamp>,
}

/// Station-years in memory. When it is full, the least recently used half is dropped.
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
    /// `bytes_max`: approximate maximum memory, bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { entries: HashMap::new(), bytes: 0, bytes_max, uses: 0 }
    }

    /// Returns a station-year unless it has expired at `now`.
    pub fn get(&mut self, key: StationYearKey, now: Timestamp) -> Option<Arc<StationYear>> {
        self.uses += 1;
        let entry = self.entries.get_mut(&key)?;
        if entry.stale_at.is_some_and(|stale_at| stale_at <= now) {
            return None;
        }
        entry.used = self.uses;
        Some(Arc::clone(&entry.weather))
    }

    /// Keeps a station-year, until `stale_at` if given.
    pub fn put(&mut self, key: StationYearKey, weather: Arc<StationYear>, stale_at: Option<Timestamp>) {
        self.uses += 1;
        self.bytes += weight(&weather);
        let entry = Entry { weather, used: self.uses, stale_at };
        if let Some(replaced) = self.entries.insert(key, entry) {
            self.bytes -= weight(&replaced.weather);
        }
        if self.bytes > self.bytes_max {
            self.make_room();
        }
    }

    /// Drops the least recently used half, so that the cost of the selection is spread over many puts.
    fn make_room(&mut self) {
        let mut ages: Vec<u64> = self.entries.values().map(|entry| entry.used).collect();
        let middle = ages.len() / 2;
        let (_, median, _) = ages.select_nth_unstable(middle);
        let median = *median;
        self.entries.retain(|_, entry| entry.used >= median);
        self.bytes = self.entries.values().map(|entry| weight(&entry.weather)).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{
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
    fn memory_stays_within_its_bound_and_keeps_recent_entries() {
        let bytes_max = 100 * (ENTRY_BYTES + DAYS_BYTES);
        let mut memory = Memory::new(bytes_max);
        let now = Timestamp::UNIX_EPOCH;
        memory.put((0, 2018), one_day(), None);
        for station in 1..10_000 {
            memory.put((station, 2018), one_day(), None);
            assert!(memory.bytes <= bytes_max);
            assert!(memory.get((0, 2018), now).is_some(), "dropped after {station}");
        }
        assert!(memory.get((1, 2018), now).is_none());
        assert!(memory.entries.len() <= 100);
        memory.put((0, 2018), Arc::default(), None);
        assert_eq!(memory.bytes, memory.entries.values().map(|entry| weight(&entry.weather)).sum::<usize>());
    }

    #[test]
    fn an_entry_expires() {
        let mut memory = Memory::new(1 << 20);
        let at = |second| Timestamp::from_second(second).unwrap();
        memory.put((1, 2018), one_day(), Some(at(100)));
        assert!(memory.get((1, 2018), at(99)).is_some());
        assert!(memory.get((1, 2018), at(100)).is_none());
    }
}
