//! Climatology of a station: the mean of the days around a day of the year, in earlier years.
//!
//! Pure.

use crate::formats::station_year::DayWeather;
use jiff::{ToSpan, civil::Date};
use std::{collections::BTreeSet, ops::RangeInclusive};

/// Number of days before and after the day of the year that are averaged with it.
pub const WINDOW_DAYS: i64 = 15;
/// Maximum number of earlier years.
const YEARS_MAX: i16 = 10;
/// Minimum number of years that have enough days.
pub const YEARS_MIN: u16 = 3;
/// Minimum number of averaged days with all three elements in a year: half of them. A year with fewer does not count.
const DAYS_MIN: u16 = 16;

/// The mean of the days around a day of the year.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mean {
    /// Number of years in the mean.
    pub years: u16,
    /// The mean of each element.
    pub weather: DayWeather,
}

/// Returns the years whose days around that of `date` are averaged: the ten before it, or before next year if `date` is later.
fn averaged_years(date: Date, today: Date) -> RangeInclusive<i16> {
    let last = date.year().min(today.year().saturating_add(1)).saturating_sub(1);
    last.saturating_sub(YEARS_MAX - 1)..=last
}

/// Returns the days around the day of the year of `date` in `year`. 29 February is 28 February in a common year.
fn window(date: Date, year: i16) -> Option<impl Iterator<Item = Date>> {
    let in_year = |day| Date::new(year, date.month(), day).ok();
    let middle = in_year(date.day()).or_else(|| in_year(28))?;
    let first = middle.checked_sub(WINDOW_DAYS.days()).ok()?;
    Some(first.series(1.day()).take(2 * WINDOW_DAYS.unsigned_abs() as usize + 1))
}

/// Returns the years of a station that [`mean`] needs.
pub fn years_needed(date: Date, today: Date) -> BTreeSet<i16> {
    let windows = averaged_years(date, today).filter_map(|year| window(date, year));
    windows.flatten().map(Date::year).filter(|year| *year <= today.year()).collect()
}

/// Returns the mean weather around the day of the year of `date`, from the days that `day` returns. `None` if fewer than
/// [`YEARS_MIN`] years have enough days.
pub fn mean(date: Date, today: Date, day: impl Fn(Date) -> Option<DayWeather>) -> Option<Mean> {
    let (mut years, mut days, mut sums) = (0u16, 0i32, [0i32; 3]);
    for window in averaged_years(date, today).filter_map(|year| window(date, year)) {
        let (mut days_of_year, mut sums_of_year) = (0u16, [0i32; 3]);
        for DayWeather { tmin, tmax, prcp } in window.filter_map(&day) {
            days_of_year += 1;
            for (sum, value) in sums_of_year.iter_mut().zip([tmin, tmax, prcp]) {
                *sum += i32::from(value);
            }
        }
        if days_of_year >= DAYS_MIN {
            years += 1;
            days += i32::from(days_of_year);
            for (sum, of_year) in sums.iter_mut().zip(sums_of_year) {
                *sum += of_year;
            }
        }
    }
    if years < YEARS_MIN {
        return None;
    }
    // The mean of 16-bit numbers is one.
    let [tmin, tmax, prcp] = sums.map(|sum| (f64::from(sum) / f64::from(days)).round() as i16);
    Some(Mean { years, weather: DayWeather { tmin, tmax, prcp } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;
    use proptest::prelude::*;

    const TODAY: Date = date(2026, 11, 30);

    fn weather(value: i16) -> DayWeather {
        DayWeather { tmin: value, tmax: value + 100, prcp: value.abs() }
    }

    #[test]
    fn the_ten_years_before_a_date_are_used() {
        assert_eq!(averaged_years(date(2026, 11, 30), TODAY), 2016..=2025);
        assert_eq!(averaged_years(date(1965, 3, 1), TODAY), 1955..=1964);
        assert_eq!(averaged_years(date(2031, 3, 1), TODAY), 2017..=2026, "years that are yet to come have no weather");
        let needed = |date| years_needed(date, TODAY).into_iter().collect::<Vec<_>>();
        assert_eq!(needed(date(2026, 11, 30)), (2016..=2025).collect::<Vec<_>>());
        assert_eq!(needed(date(2026, 1, 5)), (2015..=2025).collect::<Vec<_>>(), "the window begins in December");
        assert_eq!(needed(date(2026, 12, 25)), (2016..=2026).collect::<Vec<_>>(), "the window ends in January");
        assert_eq!(needed(date(9999, 12, 25)), (2017..=2026).collect::<Vec<_>>());
    }

    #[test]
    fn the_surroundings_wrap_over_the_new_year_and_the_leap_day() {
        let of = |date, year| window(date, year).unwrap().collect::<Vec<_>>();
        let new_year = of(date(2026, 1, 5), 2020);
        assert_eq!((new_year[0], new_year[30]), (date(2019, 12, 21), date(2020, 1, 20)));
        let leap_day = date(2024, 2, 29);
        assert_eq!((of(leap_day, 2023)[15], of(leap_day, 2020)[15]), (date(2023, 2, 28), date(2020, 2, 29)));
        assert_eq!((of(leap_day, 2023).len(), of(leap_day, 2023)[30]), (31, date(2023, 3, 15)));
    }

    #[test]
    fn three_years_with_half_of_the_days_are_needed() {
        let years = |count: i16, days: i8| {
            mean(TODAY, TODAY, |at| {
                ((2026 - count..2026).contains(&at.year()) && at.day() > 30 - days).then(|| weather(50))
            })
        };
        assert_eq!(years(2, 30), None);
        assert_eq!(years(3, 30), Some(Mean { years: 3, weather: weather(50) }));
        assert_eq!(years(30, 30), Some(Mean { years: 10, weather: weather(50) }));
        // 15 to 30 November, and 15 days of December.
        assert_eq!(mean(TODAY, TODAY, |at| (at.month() == 12).then(|| weather(1))), None, "15 of 31 days");
        assert!(mean(TODAY, TODAY, |at| (at.month() == 11).then(|| weather(1))).is_some(), "16 of 31 days");
    }

    proptest! {
        /// The mean lies between the smallest and the largest value within 15 days around the day of the year, counted on a
        /// circle, and no other day counts.
        #[test]
        fn only_days_within_the_window_count(day in 0i64..1_500, value in -300i16..300) {
            let at = date(2022, 1, 1).checked_add(day.days()).unwrap();
            let near = |other: Date| {
                (-1..=1).any(|year| {
                    let year = other.year() + year;
                    let middle = Date::new(year, at.month(), at.day()).or_else(|_| Date::new(year, at.month(), 28)).unwrap();
                    (other.since(middle).unwrap().get_days()).abs() <= 15
                })
            };
            let found = mean(at, TODAY, |other| Some(if near(other) { weather(value) } else { weather(9_999) }));
            prop_assert_eq!(found, Some(Mean { years: 10, weather: weather(value) }));
            let needed = years_needed(at, TODAY);
            mean(at, TODAY, |other| {
                assert!(other.year() > TODAY.year() || needed.contains(&other.year()), "{other}");
                None
            });
        }
    }
}
