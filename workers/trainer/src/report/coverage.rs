//! Stations that the weather came from, month by month.

use super::{
    figures::count,
    plot::{Axis, Ink, Mark, Plot, Side},
};
use common::{document::Coverage, text::excerpt};
use std::collections::BTreeMap;

/// Maximum number of stations with a row of their own.
const STATIONS_MAX: usize = 8;
/// Maximum number of steps in time.
const STEPS_MAX: usize = 24;
/// Months per step; the smallest that fits is chosen.
const MONTHS: [i64; 6] = [1, 3, 12, 60, 120, 1200];

/// Rides by station and time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Map {
    /// Months per step.
    pub(super) months: i64,
    /// Name of each step: its first month or year.
    pub(super) steps: Vec<String>,
    /// Stations by falling number of rides, then the remaining stations together, then rides without weather.
    pub(super) rows: Vec<MapRow>,
}

/// Rides of one station.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct MapRow {
    /// Station id, or a description of several stations or none.
    pub(super) name: String,
    /// Whether these are the rides without weather.
    pub(super) is_none: bool,
    /// Number of rides in all steps.
    pub(super) rides: u64,
    /// Number of rides per step.
    pub(super) by_step: Vec<u64>,
}

/// Parses `YYYY-MM` into months since the year 0.
fn month(text: &str) -> Option<i64> {
    let (year, month) = text.split_once('-')?;
    let digits = |text: &str, length: usize| text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    let month: i64 = digits(month, 2).then(|| month.parse().ok())??;
    let year: i64 = digits(year, 4).then(|| year.parse().ok())??;
    (1..=12).contains(&month).then_some(year * 12 + month - 1)
}

impl Map {
    /// Counts the rides by station and step; `None` if no month can be parsed.
    pub(super) fn of(coverage: &[Coverage]) -> Option<Self> {
        let read: Vec<(i64, &Coverage)> =
            coverage.iter().filter_map(|ride| Some((month(&ride.month)?, ride))).collect();
        let (first, last) = (read.iter().map(|(m, _)| *m).min()?, read.iter().map(|(m, _)| *m).max()?);
        let steps_of = |months: i64| (last.div_euclid(months) - first.div_euclid(months) + 1) as usize;
        let months = MONTHS.into_iter().find(|months| steps_of(*months) <= STEPS_MAX).unwrap_or(1200);
        let steps = steps_of(months);
        let name = |step: usize| {
            let month = (first.div_euclid(months) + step as i64) * months;
            if months >= 12 { format!("{:04}", month / 12) } else { format!("{:04}-{:02}", month / 12, month % 12 + 1) }
        };
        let mut by_station: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (month, Coverage { station, rides, .. }) in read {
            let step = (month.div_euclid(months) - first.div_euclid(months)) as usize;
            if let Some(sum) = by_station.entry(station).or_insert_with(|| vec![0; steps]).get_mut(step) {
                *sum = sum.saturating_add(*rides);
            }
        }
        let sum = |by_step: &[u64]| by_step.iter().fold(0u64, |sum, rides| sum.saturating_add(*rides));
        let row =
            |name: String, is_none: bool, by_step: Vec<u64>| MapRow { name, is_none, rides: sum(&by_step), by_step };
        let none = by_station.remove("");
        let mut rows: Vec<MapRow> = by_station.into_iter().map(|(id, by)| row(excerpt(id, 14), false, by)).collect();
        rows.sort_by(|a, b| b.rides.cmp(&a.rides).then_with(|| a.name.cmp(&b.name)));
        if rows.len() > STATIONS_MAX + 1 {
            let others = rows.split_off(STATIONS_MAX);
            let together =
                (0..steps).map(|step| others.iter().fold(0u64, |sum, row| sum.saturating_add(row.by_step[step])));
            rows.push(row(format!("{} others", count(others.len() as u64)), false, together.collect()));
        }
        rows.extend(none.map(|by_step| row("no weather".to_owned(), true, by_step)));
        Some(Self { months, steps: (0..steps).map(name).collect(), rows })
    }

    /// Name of the length of a step.
    pub(super) fn step(&self) -> &'static str {
        match self.months {
            1 => "month",
            3 => "quarter",
            12 => "year",
            60 => "five years",
            120 => "decade",
            _ => "century",
        }
    }

    /// Draws a field per station and step, darker for more rides, with the sum at the right.
    pub(super) fn plot(&self) -> Plot {
        let steps = self.steps.len();
        let most = self.rows.iter().flat_map(|row| &row.by_step).copied().max().unwrap_or(1).max(1) as f64;
        // Room for the sums.
        let room = (steps as f64 * 0.24).max(0.3);
        let mut marks = Vec::new();
        for (at, row) in self.rows.iter().enumerate() {
            let y = at as f64;
            for (step, rides) in row.by_step.iter().enumerate() {
                let x = step as f64;
                let (ink, opaque) = match (*rides, row.is_none) {
                    (0, _) => (Ink::Grid, 0.35),
                    (rides, true) => (Ink::Bad, 0.25 + 0.75 * (rides as f64 / most).sqrt()),
                    (rides, false) => (Ink::Accent, 0.15 + 0.85 * (rides as f64 / most).sqrt()),
                };
                marks.push(Mark::Bar((x + 0.05, y + 0.08), (x + 0.95, y + 0.92), ink, opaque));
            }
            let place = (steps as f64 + room * 0.98, y + 0.5);
            marks.push(Mark::Text(place, count(row.rides), Ink::Text, Side::Left));
        }
        let every = steps.div_ceil(4).max(1);
        let named = self.steps.iter().enumerate().filter(|(step, _)| step % every == 0 && step + every / 2 < steps);
        let ticks = named.map(|(step, name)| (step as f64 + 0.5, name.clone())).collect();
        let mut x = Axis::steps("", steps, ticks);
        x = x.widened(room);
        let height = 34 + 24 * self.rows.len() as u32;
        Plot { size: (380, height), x, y: Axis::rows(self.rows.iter().map(|row| row.name.clone())), marks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ride(station: &str, month: &str, rides: u64) -> Coverage {
        Coverage { station: station.to_owned(), month: month.to_owned(), rides }
    }

    /// Months without rides have a step too; rides without a month are left out; long spans have longer steps.
    #[test]
    fn rides_are_counted_by_station_and_time() {
        let map =
            Map::of(&[ride("b", "2018-11", 3), ride("", "2018-12", 1), ride("a", "2019-02", 5), ride("a", "x", 9)]);
        let map = map.unwrap();
        assert_eq!(
            (map.months, &map.steps[..]),
            (1, &["2018-11", "2018-12", "2019-01", "2019-02"].map(String::from)[..])
        );
        let rows: Vec<_> = map.rows.iter().map(|row| (row.name.as_str(), row.rides, row.by_step.clone())).collect();
        assert_eq!(rows, [("a", 5, vec![0, 0, 0, 5]), ("b", 3, vec![3, 0, 0, 0]), ("no weather", 1, vec![0, 1, 0, 0])]);
        for (last, step) in
            [("2019-12", "month"), ("2020-01", "quarter"), ("2030-01", "year"), ("2099-12", "five years")]
        {
            assert_eq!(Map::of(&[ride("a", "2018-01", 1), ride("a", last, 1)]).unwrap().step(), step, "{last}");
        }
        assert!(Map::of(&[ride("a", "0000-01", u64::MAX), ride("b", "9999-12", u64::MAX)]).unwrap().steps.len() > 20);
        assert_eq!(Map::of(&[ride("a", "2018-13", 1), ride("a", "18-01", 1)]), None);
    }

    #[test]
    fn rare_stations_share_a_row() {
        let stations = |n: u64| (0..n).map(|i| ride(&format!("s{i:02}"), "2018-01", 100 - i)).collect::<Vec<_>>();
        let names = |n: u64| Map::of(&stations(n)).unwrap().rows.into_iter().map(|row| row.name).collect::<Vec<_>>();
        assert_eq!(names(9).len(), 9);
        assert_eq!(names(30)[7..], ["s07", "22 others"]);
    }
}
