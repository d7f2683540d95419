//! Values over ISO 8601 intervals, as the National Weather Service writes them, and the amount and extremes of one UTC date.
//!
//! Pure.

use jiff::{SignedDuration, Span, Timestamp, civil::Date, tz::TimeZone};
use std::str::FromStr;

/// A period of time; its end does not belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    start: Timestamp,
    end: Timestamp,
}

/// A text that is not an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an ISO 8601 interval such as 2026-11-30T12:00:00+00:00/PT13H")]
pub struct InvalidInterval;

impl Interval {
    /// Returns the 24 hours of a UTC date; `None` at the end of the calendar.
    pub fn of_date(date: Date) -> Option<Self> {
        let at = |date: Date| Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp());
        Some(Self { start: at(date)?, end: at(date.tomorrow().ok()?)? })
    }

    fn duration(&self) -> SignedDuration {
        self.end.duration_since(self.start)
    }

    fn overlap(&self, other: &Self) -> SignedDuration {
        self.end.min(other.end).duration_since(self.start.max(other.start)).max(SignedDuration::ZERO)
    }
}

impl FromStr for Interval {
    type Err = InvalidInterval;

    /// Reads `<start>/<duration>` or `<start>/<end>`. A day of a duration has 24 hours.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (start, rest) = text.split_once('/').ok_or(InvalidInterval)?;
        let start: Timestamp = start.parse().map_err(|_| InvalidInterval)?;
        let end = match rest.parse::<Span>() {
            Ok(span) => start.to_zoned(TimeZone::UTC).checked_add(span).map_err(|_| InvalidInterval)?.timestamp(),
            Err(_) => rest.parse().map_err(|_| InvalidInterval)?,
        };
        if start < end { Ok(Self { start, end }) } else { Err(InvalidInterval) }
    }
}

/// A value that holds for an interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Valued {
    /// The interval.
    pub interval: Interval,
    /// The value.
    pub value: f64,
}

/// Returns whether the values cover the date to its end, from its start or the start of the first value, whichever is later: a
/// forecast of today no longer has the hours that are over. The last day of a forecast may end too early.
fn covers(values: &[Valued], day: &Interval) -> bool {
    let Some(first) = values.iter().map(|valued| valued.interval.start).min() else { return false };
    let needed = day.end.duration_since(first.max(day.start));
    let covered: SignedDuration = values.iter().map(|valued| valued.interval.overlap(day)).sum();
    needed > SignedDuration::ZERO && covered >= needed
}

/// Returns the amount that falls on the date. Each interval contributes in proportion to its overlap with the date; hours before the
/// first value contribute nothing. `None` if the values do not cover the date.
pub fn amount(values: &[Valued], date: Date) -> Option<f64> {
    let day = Interval::of_date(date)?;
    let share = |valued: &Valued| {
        valued.value * valued.interval.overlap(&day).as_secs_f64() / valued.interval.duration().as_secs_f64()
    };
    covers(values, &day).then(|| values.iter().map(share).sum())
}

/// Returns the value of the interval that overlaps the date most; of equal ones the first. `None` if none overlaps it for a
/// quarter of a day or longer.
pub fn of_largest_overlap(values: &[Valued], date: Date) -> Option<f64> {
    const OVERLAP_MIN: SignedDuration = SignedDuration::from_hours(6);
    let day = Interval::of_date(date)?;
    let overlapping = values.iter().map(|valued| (valued.interval.overlap(&day), valued.value));
    let most = overlapping.reduce(|most, next| if next.0 > most.0 { next } else { most })?;
    (most.0 >= OVERLAP_MIN).then_some(most.1)
}

/// Returns the extreme of the values that overlap the date; `pick` returns the more extreme of two. `None` if the values do not cover
/// the date.
pub fn extreme(values: &[Valued], date: Date, pick: fn(f64, f64) -> f64) -> Option<f64> {
    let day = Interval::of_date(date)?;
    let overlapping = values.iter().filter(|valued| valued.interval.overlap(&day) > SignedDuration::ZERO);
    covers(values, &day).then(|| overlapping.map(|valued| valued.value).reduce(pick)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;
    use proptest::prelude::*;

    fn valued(text: &str, value: f64) -> Valued {
        Valued { interval: text.parse().unwrap(), value }
    }

    #[test]
    fn intervals_are_read_in_their_forms() {
        let hours = |text: &str| text.parse::<Interval>().map(|interval| interval.duration().as_hours());
        for (text, expected) in [
            ("2026-11-30T12:00:00+00:00/PT13H", Ok(13)),
            ("2026-11-30T12:00:00+00:00/P1DT6H", Ok(30)),
            ("2026-11-30T12:00:00Z/P7D", Ok(168)),
            ("2026-11-30T07:00:00-05:00/2026-11-30T18:00:00Z", Ok(6)),
            ("2026-02-28T18:00:00+00:00/PT12H", Ok(12)),
            ("2026-11-30T12:00:00+00:00", Err(InvalidInterval)),
            ("2026-11-30T12:00:00+00:00/PT0H", Err(InvalidInterval)),
            ("2026-11-30T12:00:00+00:00/-PT1H", Err(InvalidInterval)),
            ("2026-11-30T12:00:00/PT1H", Err(InvalidInterval)),
            ("2026-02-30T12:00:00+00:00/PT1H", Err(InvalidInterval)),
            ("NOW/PT1H", Err(InvalidInterval)),
            ("", Err(InvalidInterval)),
        ] {
            assert_eq!(hours(text), expected, "{text}");
        }
    }

    /// The maximum of an afternoon in New York ends after midnight UTC. That hour says nothing about the next date.
    #[test]
    fn a_maximum_belongs_to_the_date_that_it_overlaps_most() {
        let maxima = [valued("2026-11-30T12:00:00Z/PT13H", 9.0), valued("2026-12-01T12:00:00Z/PT13H", 4.0)];
        assert_eq!(of_largest_overlap(&maxima, date(2026, 11, 30)), Some(9.0));
        assert_eq!(of_largest_overlap(&maxima, date(2026, 12, 1)), Some(4.0));
        assert_eq!(of_largest_overlap(&maxima, date(2026, 12, 2)), None, "an hour is not enough");
        assert_eq!(of_largest_overlap(&maxima, date(2026, 11, 29)), None);
        assert_eq!(of_largest_overlap(&[], date(2026, 11, 29)), None);
    }

    #[test]
    fn an_amount_is_shared_between_dates_by_overlap() {
        let amounts = [valued("2026-11-30T18:00:00Z/PT12H", 6.0), valued("2026-12-01T06:00:00Z/PT18H", 1.0)];
        assert_eq!(amount(&amounts, date(2026, 11, 30)), Some(3.0), "from the first value on");
        assert_eq!(amount(&amounts, date(2026, 12, 1)), Some(4.0));
        assert_eq!(amount(&amounts, date(2026, 12, 2)), None);
        assert_eq!(amount(&amounts, date(2026, 11, 29)), None);
        assert_eq!(amount(&amounts[..1], date(2026, 12, 1)), None, "cut off after six hours");
    }

    #[test]
    fn an_extreme_needs_the_whole_rest_of_the_date() {
        let hourly = [valued("2026-11-30T20:00:00Z/PT2H", 5.0), valued("2026-11-30T22:00:00Z/PT4H", 2.0)];
        assert_eq!(extreme(&hourly, date(2026, 11, 30), f64::min), Some(2.0));
        assert_eq!(extreme(&hourly, date(2026, 11, 30), f64::max), Some(5.0));
        assert_eq!(extreme(&hourly, date(2026, 12, 1), f64::max), None);
        assert_eq!(extreme(&hourly[..1], date(2026, 11, 30), f64::max), None, "a gap");
    }

    proptest! {
        /// Whatever the lengths of the intervals, the amounts of the dates add up to the total, and each equals a sum by minutes.
        #[test]
        fn amounts_of_all_dates_add_up_to_the_total(
            lead in 0i64..2_880, pieces in proptest::collection::vec((1i64..2_000, 0.0f64..50.0), 1..12)
        ) {
            let midnight = date(2026, 2, 27).to_zoned(TimeZone::UTC).unwrap().timestamp();
            let at = |minutes: i64| midnight.saturating_add(SignedDuration::from_mins(minutes)).unwrap();
            let (mut begin, mut values) = (lead, Vec::new());
            for (minutes, value) in pieces {
                let interval = format!("{}/PT{minutes}M", at(begin)).parse().unwrap();
                values.push(Valued { interval, value });
                begin += minutes;
            }
            // Dry until the end of its last date.
            let rest = 1_440 - begin % 1_440;
            let interval = format!("{}/PT{rest}M", at(begin)).parse().unwrap();
            values.push(Valued { interval, value: 0.0 });
            let dates = date(2026, 2, 27).series(Span::new().days(1)).take(20);
            let amounts: Vec<f64> = dates.filter_map(|date| amount(&values, date)).collect();
            let total: f64 = values.iter().map(|valued| valued.value).sum();
            prop_assert!((amounts.iter().sum::<f64>() - total).abs() < 1e-9 * (1.0 + total));
            let mut by_minute = vec![0.0; 20];
            let mut minute = lead;
            for Valued { interval, value } in &values {
                let minutes = interval.duration().as_mins();
                for _ in 0..minutes {
                    by_minute[usize::try_from(minute / 1_440).unwrap()] += value / minutes as f64;
                    minute += 1;
                }
            }
            let first = usize::try_from(lead / 1_440).unwrap();
            for (amount, expected) in amounts.iter().zip(&by_minute[first..]) {
                prop_assert!((amount - expected).abs() < 1e-6, "{amounts:?} {by_minute:?}");
            }
        }
    }
}
