//! Parses `csv/by_station/<ID>.csv`, which has every day of one station.

use super::heading::{Columns, Misfit};
use crate::formats::{
    left_out::{LeftOut, Reason},
    lines::{BadRow, Line, Rows, field},
    malformed::Malformed,
    station_year::{Date, Days, Element, StationYear},
};
use compact_str::CompactString;
use std::collections::{BTreeMap, BTreeSet};

/// First year of GHCN-Daily: its `by_year` files begin with 1750.
pub const FIRST_YEAR: i16 = 1750;

/// Parses `csv/by_station/<ID>.csv` and keeps the requested years. A heading gives the order of the columns; the default is
/// NOAA's order. Every year is checked, so that what is left out does not depend on the requested years.
#[derive(Debug)]
pub struct ByStation {
    station: CompactString,
    requested: BTreeSet<i16>,
    columns: Columns,
    /// Whether a valid heading was read.
    is_headed: bool,
    years: BTreeMap<i16, Days>,
}

impl ByStation {
    /// Expects one station and keeps these years.
    pub fn new(station: &str, years: impl IntoIterator<Item = i16>) -> Self {
        Self {
            station: CompactString::from(station.to_ascii_uppercase()),
            requested: years.into_iter().collect(),
            columns: Columns::default(),
            is_headed: false,
            years: BTreeMap::new(),
        }
    }
}

impl Rows for ByStation {
    type Output = BTreeMap<i16, StationYear>;
    const NAME: &'static str = "station file";
    /// NOAA's largest file has about 100 MB.
    const BYTES_MAX: u64 = 256 * 1024 * 1024;

    fn heading(&mut self, line: &Line<'_>) -> Result<bool, BadRow> {
        let Some(columns) = Columns::of_heading(line.text) else { return Ok(false) };
        let fault = columns.fault(line.ended);
        // A damaged heading among the rows does not change the order of the columns.
        if fault.is_none() || !self.is_headed {
            self.columns = columns;
            self.is_headed = fault.is_none();
        }
        match fault {
            Some(column) => {
                let expected = format!("a heading with one column {column}");
                Err(line.bad(Reason::WrongFields, column, line.text, &expected))
            }
            None => Ok(true),
        }
    }

    fn row(&mut self, line: Line<'_>) -> Result<(), BadRow> {
        let misfit = |Misfit { column, expected }: Misfit| line.bad(Reason::WrongFields, column, line.text, &expected);
        let [station, date, element, value, q_flag] = self.columns.fields(line.text).map_err(misfit)?;
        if field::station(&line, station)? != self.station {
            let expected = format!("station {}", self.station);
            return Err(line.bad(Reason::OtherStation, "ID", station, &expected));
        }
        let expected = "a date of the calendar as YYYYMMDD, from 1750 on";
        let day = Date::parse(date).filter(|day| day.year >= FIRST_YEAR);
        let day = day.ok_or_else(|| line.bad(Reason::InvalidDate, "DATE", date, expected))?;
        if element.len() != 4 {
            return Err(line.bad(Reason::WrongFields, "ELEMENT", element, "an element of 4 characters"));
        }
        let (Some(element), true) = (Element::from_name(element), q_flag.is_empty()) else {
            return Ok(());
        };
        let number = field::tenths(&line, "DATA_VALUE", value)?;
        let second = |_| {
            let expected = format!("only one {element} of {}", String::from_utf8_lossy(date));
            line.bad(Reason::SecondValue, "DATA_VALUE", value, &expected)
        };
        self.years.entry(day.year).or_default().set(day, element, number).map_err(second)
    }

    fn finish(self, left_out: &mut LeftOut) -> Result<Self::Output, Malformed> {
        let Self { requested, years, .. } = self;
        let mut station_years: Self::Output = requested.iter().map(|year| (*year, StationYear::default())).collect();
        for (year, days) in years {
            let days = days.finish(year, left_out);
            if requested.contains(&year) {
                station_years.insert(year, days);
            }
        }
        Ok(station_years)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{
        lines::{Lines, Parsed, Text},
        station_year::DayWeather,
    };
    use common::weather::Impossible;
    use proptest::prelude::*;

    type Read = Result<Parsed<BTreeMap<i16, StationYear>>, Malformed>;

    fn read(text: impl AsRef<[u8]>) -> Read {
        let mut lines = Lines::new(ByStation::new("USW00094728", [2018]));
        lines.feed(text.as_ref())?;
        lines.finish()
    }

    const HEADING: &str = "ID,DATE,ELEMENT,DATA_VALUE,M_FLAG,Q_FLAG,S_FLAG,OBS_TIME";
    const DAYS: &str = "\
USW00094728,20180425,TMIN,111,,,W,2400
USW00094728,20180425,TMAX,156,,,W,2400
USW00094728,20180425,PRCP,241,,,W,2400
USW00094728,20180425,FMTM,0615,,,X,
USW00094728,20180426,TMIN,-9999,,,W,2400
USW00094728,20180426,TMAX,156,,,W,2400
USW00094728,20180426,PRCP,0,T,,W,2400
USW00094728,20180427,TMIN,111,,,W,2400
USW00094728,20180427,TMAX,156,,,W,2400
USW00094728,20180427,PRCP,241,,X,W,2400
USW00094728,20180428,TMIN,100,,,W,2400
USW00094728,20180428,TMAX,150,,,W,2400
USW00094728,20180428,PRCP,0,,,W,2400
USW00094728,20190427,PRCP,241,,,W,2400
";

    #[test]
    fn reads_a_station_file_with_every_heading() {
        let crlf = DAYS.replace('\n', "\r\n\r\n");
        let quoted: String = DAYS.lines().map(|row| format!("\"{}\"\n", row.replace(',', "\", \""))).collect();
        for text in [
            DAYS.to_owned(),
            format!("{HEADING}\n{DAYS}"),
            format!("{}\n{DAYS}", HEADING.to_lowercase()),
            format!("\u{feff}{HEADING}\r\n{crlf}"),
            format!("\u{feff}{DAYS}"),
            format!("\n  \n{HEADING}\n{HEADING}\n{quoted}"),
            DAYS.to_lowercase(),
        ] {
            let Parsed { value, left_out } = read(&text).unwrap();
            assert!(left_out.is_empty(), "{text}: {left_out:?}");
            assert_eq!(value.len(), 1);
            let year = &value[&2018];
            assert_eq!(year.day(4, 25), Some(DayWeather { tmin: 111, tmax: 156, prcp: 241 }), "{text}");
            assert_eq!(year.day(4, 26), None, "-9999 is missing");
            assert_eq!(year.day(4, 27), None, "a flagged value is ignored");
        }
        assert!(read(HEADING).unwrap().value[&2018].is_empty());
    }

    #[test]
    fn columns_are_read_by_their_names_in_the_heading() {
        let reordered = |order: &[usize]| -> String {
            let row = |row: &str| {
                let fields: Vec<&str> = row.split(',').collect();
                order.iter().map(|field| fields[*field]).collect::<Vec<_>>().join(",") + "\n"
            };
            format!("{HEADING}\n{DAYS}").lines().map(row).collect()
        };
        let expected = read(DAYS).unwrap();
        for order in [
            &[0, 1, 2, 4, 3, 5, 6, 7][..],
            &[0, 1, 2, 3, 5, 4, 6, 7],
            &[7, 6, 5, 4, 3, 2, 1, 0],
            &[0, 1, 2, 3, 5],
            &[0, 0, 1, 2, 3, 5, 6, 7][1..],
        ] {
            let text = reordered(order);
            assert_eq!(read(&text).as_ref(), Ok(&expected), "{text}");
            assert_eq!(read(text.replace('\n', "\r\n") + " \r\n").as_ref(), Ok(&expected), "{text}");
        }
        // A later heading applies to the rows below it; a damaged one has no effect.
        let (one, other) = (reordered(&[0, 1, 2, 4, 3, 5, 6, 7]), reordered(&[5, 3, 2, 1, 0]));
        assert_eq!(read(format!("{one}{other}")).unwrap().value, expected.value);
        let damaged = read(format!("{one}ID,DATE,\n{}", one.split_once('\n').unwrap().1)).unwrap();
        assert_eq!((&damaged.value, damaged.left_out.count(Reason::WrongFields)), (&expected.value, 1));
        assert_eq!(
            (damaged.left_out.samples()[0].line, damaged.left_out.samples()[0].column.as_str()),
            (16, "ELEMENT")
        );
    }

    #[test]
    fn a_damaged_heading_is_left_out() {
        for (heading, column) in
            [(HEADING.replace("DATA_VALUE", "VALUE"), "DATA_VALUE"), (HEADING.replace("DATE", "DATA"), "DATE")]
        {
            let Parsed { value, left_out } = read(format!("{heading}\n{DAYS}")).unwrap();
            assert_eq!(value, read(DAYS).unwrap().value, "{heading}");
            assert_eq!((left_out.count(Reason::WrongFields), left_out.samples()[0].column.as_str()), (1, column));
        }
    }

    #[test]
    fn the_station_id_is_compared_without_case() {
        let mut lines = Lines::new(ByStation::new("usw00094728", [2018]));
        lines.feed(DAYS.to_lowercase().as_bytes()).unwrap();
        assert_eq!(lines.finish(), read(DAYS));
    }

    #[test]
    fn a_bad_row_is_left_out_and_reported() {
        for (row, column, reason) in [
            ("USW00094728,20180425,TMAX,157,,,W,2400", "DATA_VALUE", Reason::SecondValue),
            ("USW00094728,20180230,TMAX,157,,,W,2400", "DATE", Reason::InvalidDate),
            ("USW00094728,2018-4-25,TMAX,157,,,W,2400", "DATE", Reason::InvalidDate),
            ("USW00094728,00180425,TMAX,157,,,W,2400", "DATE", Reason::InvalidDate),
            ("USW00094728,,TMAX,157,,,W,2400", "DATE", Reason::InvalidDate),
            ("USW00094728,20180429,TMAX,,,,W,2400", "DATA_VALUE", Reason::InvalidValue),
            ("USW00094728,20180429,TMAX,NaN,,,W,2400", "DATA_VALUE", Reason::InvalidValue),
            ("USW00094728,20180429,TMAX,15.6,,,W,2400", "DATA_VALUE", Reason::InvalidValue),
            ("USW00094728,20180429,TMAX,15.0,,,W,2400", "DATA_VALUE", Reason::InvalidValue),
            ("USW00094728,20180429,TMAX,warm,,,W,2400", "DATA_VALUE", Reason::InvalidValue),
            ("USW00094728,20180429,TMAX,99999,,,W,2400", "DATA_VALUE", Reason::InvalidValue),
            ("USW00094728,20180429,TMAX,-32768,,,W,2400", "DATA_VALUE", Reason::InvalidValue),
            ("USW00094728,20180429,TMAX,99999999999999999999,,,W,2400", "DATA_VALUE", Reason::InvalidValue),
            ("USW00094728,20180429,TMAX,157,,,W", "", Reason::WrongFields),
            ("USW00094728,20180429,TMAX,157,,,W,2400,", "", Reason::WrongFields),
            ("USW00094728,20180429,TMAXI,157,,,W,2400", "ELEMENT", Reason::WrongFields),
            ("USW00094789,20180429,TMAX,157,,,W,2400", "ID", Reason::OtherStation),
            ("USW0009472?,20180429,TMAX,157,,,W,2400", "ID", Reason::WrongFields),
            ("<!-- nothing -->", "", Reason::WrongFields),
        ] {
            for (text, line) in [(format!("{DAYS}{row}\n"), 15), (format!("{HEADING}\n{row}\n{DAYS}"), 2)] {
                let Parsed { value, left_out } = read(&text).unwrap();
                assert_eq!(left_out.count(reason), 1, "{row}: {left_out}");
                let sample = &left_out.samples()[0];
                assert_eq!(sample.column, column, "{row}");
                // Of two values, the later is the second one.
                let line = if reason == Reason::SecondValue && line == 2 { 4 } else { line };
                assert_eq!(sample.line, line, "{row}");
                let lost = reason == Reason::SecondValue;
                assert_eq!(value[&2018].day(4, 25).is_none(), lost, "{row}");
                assert!(value[&2018].day(4, 28).is_some(), "{row}");
            }
        }
        let invalid_utf8 = [DAYS.as_bytes(), b"USW00094728,2018\xff425,TMAX,157,,,W,2400\n"].concat();
        assert_eq!(read(invalid_utf8).unwrap().left_out.count(Reason::InvalidDate), 1);
        let overlong = format!("{DAYS}USW00094728,20180429,TMAX,{},,,W,2400\n", "1".repeat(2000));
        assert_eq!(read(overlong).unwrap().left_out.count(Reason::WrongFields), 1);
    }

    #[test]
    fn a_repeated_value_is_accepted() {
        let Parsed { value, left_out } = read(DAYS.repeat(2)).unwrap();
        assert!(left_out.is_empty());
        assert_eq!(value, read(DAYS).unwrap().value);
    }

    #[test]
    fn years_that_are_not_requested_are_checked_as_well() {
        let later = "\
USW00094728,20200101,TMIN,200,,,W,2400
USW00094728,20200101,TMAX,100,,,W,2400
USW00094728,20200101,PRCP,0,,,W,2400
USW00094728,20200102,PRCP,0,,,W,2400
USW00094728,20200102,PRCP,1,,,W,2400
";
        let Parsed { value, left_out } = read(format!("{DAYS}{later}")).unwrap();
        assert_eq!(value.keys().copied().collect::<Vec<_>>(), [2018]);
        assert_eq!(left_out.count(Reason::SecondValue), 1);
        assert_eq!(left_out.count(Reason::Impossible(Impossible::TminAboveTmax)), 1);
    }

    #[test]
    fn a_text_that_is_no_station_file_is_an_error_with_line_and_column() {
        for (text, column, part) in [
            ("", "", "empty"),
            ("\u{feff}\r\n\r\n", "", "empty"),
            ("<?xml version=\"1.0\"?><Error><Code>SlowDown</Code></Error>", "", "looks like XML"),
            ("<!doctype html>\n<p>Be back soon</p>\n", "", "looks like HTML"),
            ("{\"error\": \"no such station\"}\n", "", "looks like JSON"),
            ("\u{0}\u{1}\u{2}\u{3}", "", "looks like binary data"),
            ("PK\u{3}\u{4}", "", "looks like a zip archive"),
            ("USW00094789,20180425,TMIN,111,,,W,2400\n", "ID", "station USW00094728"),
            ("USW00094728,20180425,TMIN,11.1,,,W,2400\n", "DATA_VALUE", "an integer"),
            (
                "ID,DATE,ELEMENT,VALUE,M_FLAG,Q_FLAG,S_FLAG,OBS_TIME\n",
                "DATA_VALUE",
                "a heading with one column DATA_VALUE",
            ),
            (
                "ID,DATE,ELEMENT,DATA_VALUE\nUSW00094728,20180425,TMIN,111\n",
                "Q_FLAG",
                "a heading with one column Q_FLAG",
            ),
            (
                "ID,DATE,ELEMENT,VALUE,Q_FLAG,M_FLAG,S_FLAG,OBS_TIME\nUSW00094728,20180425,TMIN,111,,,W,\n",
                "DATA_VALUE",
                "a heading with one column DATA_VALUE",
            ),
            ("STATION,DATE,PRCP,TMAX,TMIN\nUSW00094728,2018-04-25,241,156,111\n", "ID", "a heading with one column ID"),
            ("\u{28}\u{b5}", "", "a row of 8 fields (not 1)"),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!((error.line, error.column), (u64::from(part != "empty"), column), "{text}: {error}");
            assert!(error.why.contains(part), "{text}: {error}");
        }
        let only_bad = format!("{HEADING}\nUSW00094728,20180230,TMIN,111,,,W,2400\n");
        assert_eq!(read(only_bad).unwrap_err().line, 2, "a heading does not count as a row");
    }

    /// An unreadable row.
    fn broken_row() -> impl Strategy<Value = Vec<u8>> {
        let bytes = proptest::collection::vec(any::<u8>().prop_filter("one line", |byte| *byte != b'\n'), 0..60);
        prop_oneof![
            // A leading `?` is no station id, and no blank line either.
            bytes.prop_map(|bytes| [b"?".as_slice(), &bytes].concat()),
            "USW00094728,2018(0230|0431|1301|04|),TMAX,157,,,W,2400".prop_map(String::into_bytes),
            "USW00094728,20180425,TM(IN|AX),(|NaN|1[.]5|40000|x),,,W,2400".prop_map(String::into_bytes),
            "USW00094728(,[0-9A-Z]{0,4}){0,6}".prop_map(String::into_bytes),
            "USC0030[0-9]{4},20180425,TMAX,[0-9]{1,4},,,W,2400".prop_map(String::into_bytes),
        ]
    }

    proptest! {
        #[test]
        fn broken_rows_do_not_change_the_days_of_clean_rows(
            broken in proptest::collection::vec((0usize..=14, broken_row()), 1..8)
        ) {
            let mut rows: Vec<Vec<u8>> = DAYS.lines().map(|row| row.as_bytes().to_vec()).collect();
            let count = broken.len() as u64;
            for (at, row) in broken {
                rows.insert(at, row);
            }
            let read = read(rows.join(&b'\n')).unwrap();
            prop_assert_eq!(&read.value, &super::tests::read(DAYS).unwrap().value);
            let reasons = [Reason::WrongFields, Reason::InvalidDate, Reason::InvalidValue, Reason::OtherStation];
            prop_assert_eq!(reasons.map(|reason| read.left_out.count(reason)).iter().sum::<u64>(), count);
        }

        #[test]
        fn a_truncated_text_loses_at_most_its_last_row(end in 1usize..DAYS.len()) {
            let rows = DAYS[..end].lines().count();
            let whole = |rows: usize| DAYS.lines().take(rows).map(|row| format!("{row}\n")).collect::<String>();
            match read(&DAYS[..end]) {
                Err(error) => prop_assert!(rows == 1 && error.line == 1),
                Ok(Parsed { value, left_out }) => {
                    let usable = rows - left_out.samples().len();
                    prop_assert!(usable + 1 >= rows);
                    prop_assert_eq!(&value, &read(whole(usable)).unwrap().value);
                }
            }
        }

        #[test]
        fn the_order_of_rows_does_not_matter(rows in proptest::sample::subsequence((0..28).collect::<Vec<usize>>(), 1..28).prop_shuffle()) {
            // Every row of DAYS, and the same again with another value.
            let changed = DAYS.replace(",W,2400", ",W,2300").replace(",156,", ",157,");
            let all: Vec<&str> = DAYS.lines().chain(changed.lines()).collect();
            let text = |rows: &[usize]| rows.iter().map(|row| format!("{}\n", all[*row])).collect::<String>();
            let mut sorted = rows.clone();
            sorted.sort_unstable();
            prop_assert_eq!(read(text(&rows)).map(|read| read.value), read(text(&sorted)).map(|read| read.value));
        }

        #[test]
        fn no_text_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }
    }
}
