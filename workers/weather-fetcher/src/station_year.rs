//! One station's weather in one year: the unit of fetching and caching.

use crate::lines::{Line, Malformed, field};

/// What a day must have to be of use: all three elements of NOAA's GHCN-Daily.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayWeather {
    /// Lowest temperature, tenths of °C.
    pub tmin: i16,
    /// Highest temperature, tenths of °C.
    pub tmax: i16,
    /// Precipitation, tenths of mm.
    pub prcp: i16,
}

/// The elements the join needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// Lowest temperature of the day.
    Tmin,
    /// Highest temperature of the day.
    Tmax,
    /// Precipitation of the day.
    Prcp,
}

impl Element {
    /// All of them, in the order of the dataset's columns.
    pub const ALL: [Self; 3] = [Self::Tmin, Self::Tmax, Self::Prcp];

    /// NOAA's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tmin => "TMIN",
            Self::Tmax => "TMAX",
            Self::Prcp => "PRCP",
        }
    }

    /// The element of that name, when it is one the join needs.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|element| element.name().as_bytes() == name)
    }
}

/// NOAA's mark of a missing value.
const MISSING: i16 = -9999;
/// Days of a leap year: every year has a slot for 29 February.
const DAYS: usize = 366;
const HEADER: &str = "date,tmin,tmax,prcp";
const MONTH_STARTS: [u16; 12] = [0, 31, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335];
const MONTH_DAYS: [i8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// A calendar date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    /// Year.
    pub year: i16,
    /// 1 … 12.
    pub month: i8,
    /// 1 … 31.
    pub day: i8,
}

impl Date {
    /// Reads eight digits, `YYYYMMDD`, or ten characters, `YYYY-MM-DD`; `None` for what is no date.
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
    /// Whether no day has all three elements.
    pub fn is_empty(&self) -> bool {
        self.days.is_none()
    }

    /// The weather of a day, where the station measured all of it.
    pub fn day(&self, month: i8, day: i8) -> Option<DayWeather> {
        let found = *self.days.as_ref()?.get(slot(month, day)?)?;
        (found != NO_DAY).then_some(found)
    }

    /// Writes the complete days as CSV, `date,tmin,tmax,prcp`, oldest first. Nothing but the header: the station has none.
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

    /// Reads what [`StationYear::to_csv`] wrote.
    ///
    /// # Errors
    /// The line at fault. A text that lost its end or is none of ours is never taken for fewer days.
    pub fn from_csv(year: i16, text: &[u8]) -> Result<Self, Malformed> {
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
            let found = Date::parse(date).filter(|date| date.year == year);
            let date = found.ok_or_else(|| line.malformed("date", date, "a date of that year"))?;
            if values.len() != Element::ALL.len() {
                return Err(line.malformed("", text, "4 fields"));
            }
            for (element, value) in Element::ALL.into_iter().zip(values) {
                days.set(date, element, field::integer(&line, element.name(), value)?, &line)?;
            }
        }
        Ok(days.finish())
    }
}

/// A [`StationYear`] in the making: elements come one by one and in any order.
#[derive(Debug, Default)]
pub struct Days {
    days: Option<Box<[DayWeather; DAYS]>>,
}

impl Days {
    /// Notes one value; NOAA's −9999 notes nothing.
    ///
    /// # Errors
    /// Two different values for the same day and element, or a value no thermometer and no rain gauge can show.
    pub fn set(&mut self, date: Date, element: Element, value: i32, line: &Line<'_>) -> Result<(), Malformed> {
        if value == i32::from(MISSING) {
            return Ok(());
        }
        let refuse = |expected| Err(line.malformed(element.name(), value.to_string().as_bytes(), expected));
        let (Ok(value), Some(slot)) = (i16::try_from(value), slot(date.month, date.day)) else {
            return refuse("tenths of °C or mm within a 16 bit integer");
        };
        let days = self.days.get_or_insert_with(|| Box::new([NO_DAY; DAYS]));
        let Some(day) = days.get_mut(slot) else { return Ok(()) };
        let place = match element {
            Element::Tmin => &mut day.tmin,
            Element::Tmax => &mut day.tmax,
            Element::Prcp => &mut day.prcp,
        };
        if *place != MISSING && *place != value {
            return refuse("one value for a day, not a second one");
        }
        *place = value;
        Ok(())
    }

    /// Keeps the days that have all three elements.
    pub fn finish(self) -> StationYear {
        let Some(mut days) = self.days else { return StationYear::default() };
        let mut any = false;
        for day in days.iter_mut() {
            if day.tmin == MISSING || day.tmax == MISSING || day.prcp == MISSING {
                *day = NO_DAY;
            } else {
                any = true;
            }
        }
        StationYear { days: any.then_some(days) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINE: Line<'static> = Line { number: 1, text: b"", ended: true };

    fn date(month: i8, day: i8) -> Date {
        Date { year: 2020, month, day }
    }

    fn whole(days: &mut Days, month: i8, day: i8, values: (i16, i16, i16)) {
        for (element, value) in Element::ALL.into_iter().zip([values.0, values.1, values.2]) {
            days.set(date(month, day), element, value.into(), &LINE).unwrap();
        }
    }

    #[test]
    fn a_day_counts_only_with_all_three_elements() {
        let mut days = Days::default();
        days.set(date(1, 1), Element::Tmin, -5, &LINE).unwrap();
        days.set(date(1, 1), Element::Tmax, 9, &LINE).unwrap();
        days.set(date(1, 1), Element::Prcp, -9999, &LINE).unwrap();
        whole(&mut days, 2, 29, (0, 0, 0));
        let year = days.finish();
        assert_eq!(year.day(1, 1), None);
        assert_eq!(year.day(2, 29), Some(DayWeather { tmin: 0, tmax: 0, prcp: 0 }));
        assert_eq!(year.day(3, 1), None);
        for (month, day) in [(0, 1), (13, 1), (2, 30), (4, 31), (1, 0), (1, -1), (-1, 1)] {
            assert_eq!(year.day(month, day), None);
        }
    }

    #[test]
    fn a_second_value_is_refused_unless_it_is_the_same() {
        let mut days = Days::default();
        days.set(date(1, 1), Element::Tmax, 9, &LINE).unwrap();
        days.set(date(1, 1), Element::Tmax, 9, &LINE).unwrap();
        assert!(days.set(date(1, 1), Element::Tmax, 10, &LINE).is_err());
        assert!(days.set(date(1, 1), Element::Tmin, 40_000, &LINE).is_err());
    }

    #[test]
    fn a_broken_cache_file_is_an_error_never_fewer_days() {
        let mut days = Days::default();
        whole(&mut days, 6, 1, (100, 200, 30));
        whole(&mut days, 12, 31, (10, 20, 0));
        let text = days.finish().to_csv(2020);
        assert_eq!(text, "date,tmin,tmax,prcp\n2020-06-01,100,200,30\n2020-12-31,10,20,0\n");
        for end in 0..text.len() {
            let line_end = text[..end].ends_with('\n');
            assert_eq!(StationYear::from_csv(2020, &text.as_bytes()[..end]).is_ok(), line_end, "cut at {end}");
        }
        assert!(StationYear::from_csv(2019, text.as_bytes()).is_err(), "another year");
        assert_eq!(StationYear::from_csv(2019, b"date,tmin,tmax,prcp\n").unwrap(), StationYear::default());
    }

    proptest! {
        #[test]
        fn the_cache_file_reads_back_as_written(
            values in proptest::collection::vec((1i8..=12, 1i8..=28, -900i16..600, -900i16..600, 0i16..20_000), 0..80)
        ) {
            let mut days = Days::default();
            let mut seen = std::collections::HashSet::new();
            for (month, day, tmin, tmax, prcp) in values {
                if seen.insert((month, day)) {
                    whole(&mut days, month, day, (tmin, tmax, prcp));
                }
            }
            let year = days.finish();
            prop_assert_eq!(StationYear::from_csv(2020, year.to_csv(2020).as_bytes()).unwrap(), year);
        }

        #[test]
        fn no_date_panics(text in proptest::collection::vec(any::<u8>(), 0..12)) {
            let _ = Date::parse(&text);
        }
    }
}
