//! The weather of one station in one year, which is the unit of caching, and its cache file.

use crate::formats::{
    left_out::{LeftOut, Reason},
    lines::{Line, Parsed, field},
    malformed::Malformed,
};
use common::weather::{self, Impossible};

/// A complete day: all three elements of GHCN-Daily.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayWeather {
    /// Lowest temperature, tenths of °C.
    pub tmin: i16,
    /// Highest temperature, tenths of °C.
    pub tmax: i16,
    /// Precipitation, tenths of mm.
    pub prcp: i16,
}

/// The elements the join needs, with NOAA's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::IntoStaticStr)]
#[strum(serialize_all = "UPPERCASE")]
pub enum Element {
    /// Lowest temperature of the day.
    Tmin,
    /// Highest temperature of the day.
    Tmax,
    /// Precipitation of the day.
    Prcp,
}

impl Element {
    /// In the order of the dataset's columns.
    pub const ALL: [Self; 3] = [Self::Tmin, Self::Tmax, Self::Prcp];

    /// Parses the name of an element, in any case; `None` if the join does not need it.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|element| <&str>::from(*element).as_bytes().eq_ignore_ascii_case(name))
    }
}

/// NOAA's mark of a missing value.
const MISSING: i16 = -9999;
/// Marks an element with contradictory values for a day. No value is parsed as this number.
const CONTRADICTORY: i16 = i16::MIN;
/// Number of days of a leap year: every year has a slot for 29 February.
const DAYS: usize = 366;
const HEADER: &str = "date,tmin,tmax,prcp";
const MONTH_STARTS: [u16; 12] = [0, 31, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335];
const MONTH_DAYS: [i8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// A calendar date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    /// Proleptic Gregorian.
    pub year: i16,
    /// 1 … 12.
    pub month: i8,
    /// 1 … 31.
    pub day: i8,
}

impl Date {
    /// Parses `YYYYMMDD` or `YYYY-MM-DD`; `None` if the text is not a date.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits = match *text {
            [a, b, c, d, b'-', e, f, b'-', g, h] | [a, b, c, d, e, f, g, h] => [a, b, c, d, e, f, g, h],
            _ => return None,
        };
        let number = digits
            .iter()
            .try_fold(0i32, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i32::from(byte - b'0')))?;
        let date = jiff::civil::Date::new(
            i16::try_from(number / 10_000).ok()?,
            i8::try_from(number / 100 % 100).ok()?,
            i8::try_from(number % 100).ok()?,
        )
        .ok()?;
        Some(Self { year: date.year(), month: date.month(), day: date.day() })
    }
}

fn slot(month: i8, day: i8) -> Option<usize> {
    let index = usize::try_from(month).ok()?.checked_sub(1)?;
    let (start, days) = (*MONTH_STARTS.get(index)?, *MONTH_DAYS.get(index)?);
    (1..=days).contains(&day).then(|| usize::from(start) + usize::from(day.unsigned_abs()) - 1)
}

/// The days of one station and year that have all three elements. A year without such a day takes no memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StationYear {
    days: Option<Box<[DayWeather; DAYS]>>,
}

const NO_DAY: DayWeather = DayWeather { tmin: MISSING, tmax: MISSING, prcp: MISSING };

impl StationYear {
    /// Returns whether no day has all three elements.
    pub fn is_empty(&self) -> bool {
        self.days.is_none()
    }

    /// Returns the weather of a day, if it is complete.
    pub fn day(&self, month: i8, day: i8) -> Option<DayWeather> {
        let weather = *self.days.as_ref()?.get(slot(month, day)?)?;
        (weather != NO_DAY).then_some(weather)
    }

    /// Returns month and day of the last complete day; `None` if there is none.
    pub fn last_day(&self) -> Option<(i8, i8)> {
        let all = (1..).zip(MONTH_DAYS).flat_map(|(month, days)| (1..=days).map(move |day| (month, day)));
        all.filter(|(month, day)| self.day(*month, *day).is_some()).last()
    }

    /// Writes the complete days as CSV, `date,tmin,tmax,prcp`, oldest first. A station-year without complete days is a header
    /// alone.
    pub fn to_csv(&self, year: i16) -> String {
        use std::fmt::Write;
        let mut text = format!("{HEADER}\n");
        for (month, days) in (1..).zip(MONTH_DAYS) {
            for day in 1..=days {
                if let Some(DayWeather { tmin, tmax, prcp }) = self.day(month, day) {
                    let _ = writeln!(text, "{year:04}-{month:02}-{day:02},{tmin},{tmax},{prcp}");
                }
            }
        }
        text
    }

    /// Reads the output of [`StationYear::to_csv`]. Days with impossible weather, which earlier versions wrote, are left out.
    ///
    /// # Errors
    /// Fails with the line at fault if the text is not such output or is truncated within a line.
    pub fn from_csv(year: i16, text: &[u8]) -> Result<Parsed<Self>, Malformed> {
        let mut days = Days::default();
        let Some(body) = text.strip_prefix(HEADER.as_bytes()).and_then(|rest| rest.strip_prefix(b"\n")) else {
            return Err(Malformed::new(1, "", format!("expected the header {HEADER}")));
        };
        if !text.ends_with(b"\n") {
            return Err(Malformed::new(0, "", "the last line has no end"));
        }
        for (number, text) in (2..).zip(body.split(|&byte| byte == b'\n')) {
            if text.is_empty() {
                continue;
            }
            let line = Line { number, text, ended: true };
            let fields: Vec<&[u8]> = text.split(|&byte| byte == b',').collect();
            let [date, values @ ..] = fields.as_slice() else { continue };
            let parsed = Date::parse(date).filter(|date| date.year == year);
            let date = parsed.ok_or_else(|| line.malformed("date", date, "a date of that year"))?;
            if values.len() != Element::ALL.len() {
                return Err(line.malformed("", text, "4 fields"));
            }
            for (element, value) in Element::ALL.into_iter().zip(values) {
                let number = field::tenths(&line, element.into(), value).map_err(|bad| bad.fault)?;
                let second = |_| line.malformed(element.into(), value, "one value for a day");
                days.set(date, element, number).map_err(second)?;
            }
        }
        let mut left_out = LeftOut::default();
        Ok(Parsed { value: days.finish(year, &mut left_out), left_out })
    }
}

/// Another value of the same element and day was set before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecondValue;

/// Builds a [`StationYear`] from elements in any order.
#[derive(Debug, Default)]
pub struct Days {
    days: Option<Box<[DayWeather; DAYS]>>,
}

impl Days {
    /// Sets one value. NOAA's −9999 and a repeated value have no effect.
    ///
    /// # Errors
    /// Fails if another value was set before. Neither can be trusted, so the day has no value of this element.
    pub fn set(&mut self, date: Date, element: Element, value: i16) -> Result<(), SecondValue> {
        let Some(slot) = slot(date.month, date.day).filter(|_| value != MISSING) else { return Ok(()) };
        let days = self.days.get_or_insert_with(|| Box::new([NO_DAY; DAYS]));
        let Some(day) = days.get_mut(slot) else { return Ok(()) };
        let cell = match element {
            Element::Tmin => &mut day.tmin,
            Element::Tmax => &mut day.tmax,
            Element::Prcp => &mut day.prcp,
        };
        if *cell != MISSING && *cell != value {
            *cell = CONTRADICTORY;
            return Err(SecondValue);
        }
        *cell = value;
        Ok(())
    }

    /// Keeps the complete days with possible weather. Days with impossible weather are added to `left_out`.
    pub fn finish(self, year: i16, left_out: &mut LeftOut) -> StationYear {
        let Some(mut days) = self.days else { return StationYear::default() };
        let mut any = false;
        for (month, length) in (1..).zip(MONTH_DAYS) {
            for date in (1..=length).map(|day| Date { year, month, day }) {
                let Some(day) = slot(month, date.day).and_then(|slot| days.get_mut(slot)) else { continue };
                if [day.tmin, day.tmax, day.prcp].iter().any(|value| matches!(*value, MISSING | CONTRADICTORY)) {
                    *day = NO_DAY;
                } else if let Err(why) = day.check() {
                    left_out.note(Reason::Impossible(why), &day.impossible(date, why));
                    *day = NO_DAY;
                } else {
                    any = true;
                }
            }
        }
        StationYear { days: any.then_some(days) }
    }
}

impl DayWeather {
    fn check(&self) -> Result<(), Impossible> {
        let [tmin, tmax, prcp] = [self.tmin, self.tmax, self.prcp].map(|tenths| Some(f64::from(tenths)));
        weather::check(tmin, tmax, prcp)
    }

    /// Describes why the weather of a day is impossible.
    fn impossible(&self, Date { year, month, day }: Date, why: Impossible) -> Malformed {
        let (element, value) = match why {
            Impossible::TminAboveTmax | Impossible::TminOutOfRange => (Element::Tmin, self.tmin),
            Impossible::TmaxOutOfRange => (Element::Tmax, self.tmax),
            Impossible::PrcpOutOfRange => (Element::Prcp, self.prcp),
        };
        let tmax = if why == Impossible::TminAboveTmax { format!(" ({} tenths)", self.tmax) } else { String::new() };
        let expected = why.expected();
        let text = format!("{year:04}-{month:02}-{day:02}: {value} tenths where {expected}{tmax} was expected");
        Malformed::new(0, element.into(), text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn date(month: i8, day: i8) -> Date {
        Date { year: 2020, month, day }
    }

    fn whole(days: &mut Days, month: i8, day: i8, values: (i16, i16, i16)) {
        for (element, value) in Element::ALL.into_iter().zip([values.0, values.1, values.2]) {
            days.set(date(month, day), element, value).unwrap();
        }
    }

    #[test]
    fn only_days_with_all_three_elements_count() {
        let mut days = Days::default();
        days.set(date(1, 1), Element::Tmin, -5).unwrap();
        days.set(date(1, 1), Element::Tmax, 9).unwrap();
        days.set(date(1, 1), Element::Prcp, -9999).unwrap();
        whole(&mut days, 2, 29, (0, 0, 0));
        let year = finish(days);
        assert_eq!(year.day(1, 1), None);
        assert_eq!(year.day(2, 29), Some(DayWeather { tmin: 0, tmax: 0, prcp: 0 }));
        assert_eq!(year.day(3, 1), None);
        for (month, day) in [(0, 1), (13, 1), (2, 30), (4, 31), (1, 0), (1, -1), (-1, 1)] {
            assert_eq!(year.day(month, day), None);
        }
    }

    fn finish(days: Days) -> StationYear {
        let mut left_out = LeftOut::default();
        let year = days.finish(2020, &mut left_out);
        assert!(left_out.is_empty(), "{left_out:?}");
        year
    }

    #[test]
    fn contradictory_values_make_the_element_missing() {
        for (values, is_kept) in
            [(&[9, 9, -9999, 9][..], true), (&[9, 10][..], false), (&[10, 9][..], false), (&[9, 10, 9, 9][..], false)]
        {
            let mut days = Days::default();
            whole(&mut days, 1, 2, (1, 2, 3));
            days.set(date(1, 1), Element::Tmin, 5).unwrap();
            days.set(date(1, 1), Element::Prcp, 5).unwrap();
            let all: Result<Vec<()>, SecondValue> =
                values.iter().map(|value| days.set(date(1, 1), Element::Tmax, *value)).collect();
            assert_eq!(all.is_ok(), is_kept, "{values:?}");
            let year = finish(days);
            assert_eq!(year.day(1, 1).is_some(), is_kept, "{values:?}");
            assert!(year.day(1, 2).is_some(), "only that day is lost");
        }
    }

    #[test]
    fn impossible_weather_is_left_out_and_counted() {
        let mut days = Days::default();
        whole(&mut days, 1, 1, (200, 100, 0));
        whole(&mut days, 1, 2, (100, 9999, 0));
        whole(&mut days, 1, 3, (100, 200, -1));
        whole(&mut days, 1, 4, (100, 200, 20_001));
        whole(&mut days, 1, 5, (-1001, 200, 0));
        whole(&mut days, 1, 6, (-1000, 700, 20_000));
        days.set(date(1, 7), Element::Tmin, 9999).unwrap();
        let mut left_out = LeftOut::default();
        let year = days.finish(2020, &mut left_out);
        let observed: Vec<i8> = (1..=7).filter(|day| year.day(1, *day).is_some()).collect();
        assert_eq!(observed, [6]);
        for (why, count) in [
            (Impossible::TminAboveTmax, 1),
            (Impossible::TmaxOutOfRange, 1),
            (Impossible::PrcpOutOfRange, 2),
            (Impossible::TminOutOfRange, 1),
        ] {
            assert_eq!(left_out.count(Reason::Impossible(why)), count, "{why}");
        }
        let first = &left_out.samples()[0];
        assert_eq!((first.line, first.column.as_str()), (0, "TMIN"));
        assert_eq!(first.why, "2020-01-01: 200 tenths where at most tmax (100 tenths) was expected");
    }

    #[test]
    fn impossible_weather_in_a_cache_file_is_left_out() {
        let text = b"date,tmin,tmax,prcp\n2020-01-01,200,100,0\n2020-01-02,100,200,0\n";
        let Parsed { value, left_out } = StationYear::from_csv(2020, text).unwrap();
        assert_eq!((value.day(1, 1), value.day(1, 2).is_some()), (None, true));
        assert_eq!(left_out.count(Reason::Impossible(Impossible::TminAboveTmax)), 1);
    }

    #[test]
    fn a_truncated_cache_file_is_an_error() {
        let mut days = Days::default();
        whole(&mut days, 6, 1, (100, 200, 30));
        whole(&mut days, 12, 31, (10, 20, 0));
        let text = finish(days).to_csv(2020);
        assert_eq!(text, "date,tmin,tmax,prcp\n2020-06-01,100,200,30\n2020-12-31,10,20,0\n");
        for end in 0..text.len() {
            let line_end = text[..end].ends_with('\n');
            assert_eq!(StationYear::from_csv(2020, &text.as_bytes()[..end]).is_ok(), line_end, "cut at {end}");
        }
        assert!(StationYear::from_csv(2019, text.as_bytes()).is_err(), "another year");
        assert_eq!(StationYear::from_csv(2019, b"date,tmin,tmax,prcp\n").unwrap(), Parsed::default());
    }

    proptest! {
        #[test]
        fn the_cache_file_round_trips(
            values in proptest::collection::vec((1i8..=12, 1i8..=28, -900i16..600, -900i16..600, 0i16..20_000), 0..80)
        ) {
            let mut days = Days::default();
            let mut dates = std::collections::HashSet::new();
            for (month, day, tmin, tmax, prcp) in values {
                if dates.insert((month, day)) {
                    whole(&mut days, month, day, (tmin.min(tmax), tmax.max(tmin), prcp));
                }
            }
            let year = finish(days);
            let read = StationYear::from_csv(2020, year.to_csv(2020).as_bytes()).unwrap();
            prop_assert_eq!((read.value, read.left_out.is_empty()), (year, true));
        }

        #[test]
        fn no_date_panics(text in proptest::collection::vec(any::<u8>(), 0..12)) {
            let _ = Date::parse(&text);
        }
    }
}
