//! Station-years in a bounded amount of memory.

use crate::{formats::station_year::StationYear, stations::nearest::StationYearKey};
use jiff::Timestamp;
use quick_cache::{Weighter, unsync::Cache};
use std::sync::Arc;

/// Memory of an entry without days, and of its days, bytes.
const ENTRY_BYTES: usize = 64;
const DAYS_BYTES: usize = 366 * 6;

#[derive(Debug)]
struct Entry {
    weather: Arc<StationYear>,
    /// The entry has everything that was published before; `None` if that is unknown.
    as_of: Option<Timestamp>,
    /// When the entry expires; `None` if it never does.
    stale_at: Option<Timestamp>,
}

/// Weighs an entry, in bytes.
#[derive(Debug)]
struct Bytes;

impl Weighter<StationYearKey, Entry> for Bytes {
    fn weight(&self, _: &StationYearKey, entry: &Entry) -> u64 {
        (ENTRY_BYTES + if entry.weather.is_empty() { 0 } else { DAYS_BYTES }) as u64
    }
}

/// Station-years in memory. When it is full, those used only once are dropped first.
#[derive(Debug)]
pub struct Memory(Cache<StationYearKey, Entry, Bytes>);

impl Memory {
    /// `bytes_max`: approximate maximum memory, bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self(Cache::with_weighter(bytes_max / (ENTRY_BYTES + DAYS_BYTES), bytes_max as u64, Bytes))
    }

    /// Returns a station-year unless it has expired at `now`, or may lack what was published before `since`.
    pub fn get(&self, key: StationYearKey, now: Timestamp, since: Option<Timestamp>) -> Option<Arc<StationYear>> {
        let entry = self.0.get(&key)?;
        let is_recent = since.is_none() || entry.as_of >= since;
        let is_fresh = entry.stale_at.is_none_or(|stale_at| stale_at > now);
        (is_recent && is_fresh).then(|| Arc::clone(&entry.weather))
    }

    /// Keeps a station-year with everything that was published before `as_of`, until `stale_at`, if given.
    pub fn put(
        &mut self,
        key: StationYearKey,
        weather: Arc<StationYear>,
        as_of: Option<Timestamp>,
        stale_at: Option<Timestamp>,
    ) {
        self.0.insert(key, Entry { weather, as_of, stale_at });
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
        memory.put((0, 2018), one_day(), None, None);
        for station in 1..10_000 {
            memory.put((station, 2018), one_day(), None, None);
            assert!(memory.0.weight() <= bytes_max as u64);
            assert!(memory.get((0, 2018), now, None).is_some(), "dropped after {station}");
        }
        // Stations in use displace those that are not, once they are asked for again.
        for _ in 0..3 {
            for station in 20_000..20_040 {
                if memory.get((station, 2018), now, None).is_none() {
                    memory.put((station, 2018), one_day(), None, None);
                }
            }
        }
        assert!((20_000..20_040).all(|station| memory.get((station, 2018), now, None).is_some()));
        assert!(memory.get((1, 2018), now, None).is_none());
        assert!((50..=100).contains(&memory.0.len()));
        let before = memory.0.weight();
        memory.put((0, 2018), Arc::default(), None, None);
        assert_eq!(memory.0.weight(), before - DAYS_BYTES as u64);
    }

    #[test]
    fn an_entry_expires() {
        let mut memory = Memory::new(1 << 20);
        let at = |second| Timestamp::from_second(second).unwrap();
        memory.put((1, 2018), one_day(), None, Some(at(100)));
        assert!(memory.get((1, 2018), at(99), None).is_some());
        assert!(memory.get((1, 2018), at(100), None).is_none());
    }
    #[test]
    fn a_refresh_gets_no_entry_from_before_its_time() {
        let mut memory = Memory::new(1 << 20);
        let at = |second| Timestamp::from_second(second).unwrap();
        let has = |memory: &Memory, since| memory.get((1, 2018), at(1_000), Some(at(since))).is_some();
        memory.put((1, 2018), one_day(), None, None);
        assert!(!has(&memory, 0), "read from the object store: nobody knows when it was fetched");
        memory.put((1, 2018), one_day(), Some(at(100)), None);
        assert!(has(&memory, 100) && !has(&memory, 101));
    }
}
