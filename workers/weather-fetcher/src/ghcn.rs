//! The texts NOAA serves of GHCN-Daily, read strictly: what is not as documented is an error, never fewer days.
//!
//! Formats: <https://www.ncei.noaa.gov/pub/data/ghcn/daily/readme.txt> (station list, inventory, flags),
//! <https://noaa-ghcn-pds.s3.amazonaws.com/readme-by_station.txt> (CSV by station) and
//! <https://www.ncei.noaa.gov/support/access-data-service-api-user-documentation> (JSON).

use crate::{
    lines::{Line, Malformed, Rows, Text, field},
    station_year::{Date, Days, Element, StationYear},
};
use compact_str::CompactString;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

/// A station as `ghcnd-stations.txt` lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct Station {
    /// 11 characters.
    pub id: CompactString,
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
}

/// A line of a file of fixed columns must be whole: either its end was seen, or it has its full width.
fn check_width(line: &Line<'_>, columns: usize) -> Result<(), Malformed> {
    if line.ended || String::from_utf8_lossy(line.text).chars().count() >= columns {
        Ok(())
    } else {
        Err(line.malformed("", line.text, &format!("a whole line of {columns} columns")))
    }
}

/// Reads `ghcnd-stations.txt`: ID in columns 1–11, latitude 13–20, longitude 22–30; 85 columns in all.
#[derive(Debug, Default)]
pub struct StationList {
    stations: Vec<Station>,
    seen: HashSet<CompactString>,
}

impl Rows for StationList {
    type Output = Vec<Station>;
    /// NOAA's has 11 MB.
    const BYTES_MAX: u64 = 64 * 1024 * 1024;

    fn row(&mut self, line: Line<'_>) -> Result<(), Malformed> {
        check_width(&line, 85)?;
        let id = CompactString::from(field::station(&line, field::columns(&line, 1, 11))?);
        let latitude = field::degrees(&line, "LATITUDE", field::columns(&line, 13, 20), 90.0)?;
        let longitude = field::degrees(&line, "LONGITUDE", field::columns(&line, 22, 30), 180.0)?;
        if !self.seen.insert(id.clone()) {
            return Err(line.malformed("ID", id.as_bytes(), "a station not listed before"));
        }
        self.stations.push(Station { id, latitude, longitude });
        Ok(())
    }

    fn finish(self) -> Result<Vec<Station>, Malformed> {
        if self.stations.is_empty() { Err(Malformed::new(0, "", "no station in it")) } else { Ok(self.stations) }
    }
}

/// First and last year, both included.
pub type Years = (i16, i16);

/// Which stations ever measured all three elements, and in which years.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    years: HashMap<CompactString, [Option<Years>; 3]>,
}

impl Inventory {
    /// The years in which a station may have days with all three elements; `None` when there are none.
    pub fn complete_years(&self, station: &str) -> Option<Years> {
        let mut complete = (i16::MIN, i16::MAX);
        for years in self.years.get(station)? {
            let (first, last) = (*years)?;
            complete = (complete.0.max(first), complete.1.min(last));
        }
        (complete.0 <= complete.1).then_some(complete)
    }
}

/// Reads `ghcnd-inventory.txt`: ID in columns 1–11, element 32–35, first year 37–40, last year 42–45 of unflagged data.
#[derive(Debug, Default)]
pub struct InventoryList(Inventory);

impl Rows for InventoryList {
    type Output = Inventory;
    /// NOAA's has 35 MB.
    const BYTES_MAX: u64 = 128 * 1024 * 1024;

    fn row(&mut self, line: Line<'_>) -> Result<(), Malformed> {
        check_width(&line, 45)?;
        let station = field::station(&line, field::columns(&line, 1, 11))?;
        let year = |column, from, to| {
            let text = field::columns(&line, from, to);
            let year = i16::try_from(field::integer(&line, column, text)?);
            year.map_err(|_| line.malformed(column, text, "a year"))
        };
        let (first, last) = (year("FIRSTYEAR", 37, 40)?, year("LASTYEAR", 42, 45)?);
        let element = field::columns(&line, 32, 35);
        if element.len() != 4 {
            return Err(line.malformed("ELEMENT", element, "an element of 4 characters"));
        }
        let Some(element) = Element::from_name(element) else { return Ok(()) };
        let elements = match self.0.years.get_mut(station) {
            Some(elements) => elements,
            None => self.0.years.entry(CompactString::from(station)).or_default(),
        };
        for (slot, of) in elements.iter_mut().zip(Element::ALL) {
            if of == element {
                *slot = Some(slot.map_or((first, last), |(f, l)| (f.min(first), l.max(last))));
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Inventory, Malformed> {
        if self.0.years.is_empty() {
            return Err(Malformed::new(0, "", "no station with a temperature or precipitation in it"));
        }
        Ok(self.0)
    }
}

/// The columns of a by-station file, in this order; its first line may say so.
const CSV_COLUMNS: [&str; 8] = ["ID", "DATE", "ELEMENT", "DATA_VALUE", "M_FLAG", "Q_FLAG", "S_FLAG", "OBS_TIME"];

/// Reads `csv/by_station/<ID>.csv`, with or without a header, and keeps the wanted years. Every row is checked, also those
/// of other years.
#[derive(Debug)]
pub struct ByStation {
    station: CompactString,
    years: BTreeMap<i16, Days>,
    any: bool,
}

impl ByStation {
    /// For one station and these years.
    pub fn new(station: &str, years: impl IntoIterator<Item = i16>) -> Self {
        let years = years.into_iter().map(|year| (year, Days::default())).collect();
        Self { station: station.into(), years, any: false }
    }
}

fn unquoted(field: &[u8]) -> &[u8] {
    field.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(field)
}

impl Rows for ByStation {
    type Output = BTreeMap<i16, StationYear>;
    /// NOAA's has up to 100 MB.
    const BYTES_MAX: u64 = 256 * 1024 * 1024;

    fn row(&mut self, line: Line<'_>) -> Result<(), Malformed> {
        let mut fields = [&[][..]; CSV_COLUMNS.len()];
        let mut count = 0;
        for text in line.text.split(|&byte| byte == b',') {
            if let Some(field) = fields.get_mut(count) {
                *field = unquoted(text);
            }
            count += 1;
        }
        if count != CSV_COLUMNS.len() {
            return Err(line.malformed("", line.text, "8 fields"));
        }
        let first = !std::mem::replace(&mut self.any, true);
        let [station, date, element, value, _, q_flag, _, _] = fields;
        if first && fields.iter().zip(CSV_COLUMNS).all(|(field, name)| *field == name.as_bytes()) {
            return Ok(());
        }
        if field::station(&line, station)? != self.station.as_str() {
            return Err(line.malformed("ID", station, &format!("station {}", self.station)));
        }
        let date = Date::parse(date).ok_or_else(|| line.malformed("DATE", date, "a date as YYYYMMDD"))?;
        if element.len() != 4 {
            return Err(line.malformed("ELEMENT", element, "an element of 4 characters"));
        }
        let value = field::integer(&line, "DATA_VALUE", value)?;
        let (Some(element), true) = (Element::from_name(element), q_flag.trim_ascii().is_empty()) else {
            return Ok(());
        };
        match self.years.get_mut(&date.year) {
            Some(days) => days.set(date, element, value, &line),
            None => Ok(()),
        }
    }

    fn finish(self) -> Result<Self::Output, Malformed> {
        if !self.any {
            return Err(Malformed::new(0, "", "empty: not even a header"));
        }
        Ok(self.years.into_iter().map(|(year, days)| (year, days.finish())).collect())
    }
}

/// One station and day as the NCEI access service writes it: every value a string padded with blanks, an absent element
/// an absent key; attributes are `M,Q,S[,time]`.
#[derive(Deserialize)]
struct AccessRow {
    #[serde(rename = "STATION")]
    station: String,
    #[serde(rename = "DATE")]
    date: String,
    #[serde(rename = "TMIN")]
    tmin: Option<Value>,
    #[serde(rename = "TMIN_ATTRIBUTES")]
    tmin_attributes: Option<String>,
    #[serde(rename = "TMAX")]
    tmax: Option<Value>,
    #[serde(rename = "TMAX_ATTRIBUTES")]
    tmax_attributes: Option<String>,
    #[serde(rename = "PRCP")]
    prcp: Option<Value>,
    #[serde(rename = "PRCP_ATTRIBUTES")]
    prcp_attributes: Option<String>,
}

/// Bytes of a year at most; a real one has some 100,000.
const ACCESS_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Reads an answer of the NCEI access service: one station, one year, native units. An empty array means no data; in an
/// error, the line is the row of the array.
#[derive(Debug)]
pub struct AccessAnswer {
    station: CompactString,
    year: i16,
    text: Vec<u8>,
}

impl AccessAnswer {
    /// For one station and year: an answer about another one is an error.
    pub fn new(station: &str, year: i16) -> Self {
        Self { station: station.into(), year, text: Vec::new() }
    }
}

impl Text for AccessAnswer {
    type Output = StationYear;
    const BYTES_MAX: u64 = ACCESS_BYTES_MAX;

    fn feed(&mut self, piece: &[u8]) -> Result<(), Malformed> {
        self.text.extend_from_slice(piece);
        Ok(())
    }

    fn finish(self) -> Result<StationYear, Malformed> {
        access_json(&self.station, self.year, &self.text)
    }
}

fn access_json(station: &str, year: i16, text: &[u8]) -> Result<StationYear, Malformed> {
    let rows: Vec<AccessRow> = serde_json::from_slice(text)
        .map_err(|error| Malformed::new(0, "", format!("no array of station days: {error}")))?;
    let mut days = Days::default();
    for (number, row) in (1..).zip(rows) {
        let line = Line { number, text: b"", ended: true };
        if row.station.trim() != station {
            return Err(line.malformed("STATION", row.station.as_bytes(), &format!("station {station}")));
        }
        let date = Date::parse(row.date.trim().as_bytes())
            .filter(|date| date.year == year)
            .ok_or_else(|| line.malformed("DATE", row.date.as_bytes(), &format!("a date of {year} as YYYY-MM-DD")))?;
        for (element, value, attributes) in [
            (Element::Tmin, row.tmin, row.tmin_attributes),
            (Element::Tmax, row.tmax, row.tmax_attributes),
            (Element::Prcp, row.prcp, row.prcp_attributes),
        ] {
            let text = match value {
                None | Some(Value::Null) => continue,
                Some(Value::String(text)) => text,
                Some(other) => other.to_string(),
            };
            if text.trim().is_empty() {
                continue;
            }
            let value = field::integer(&line, element.name(), text.as_bytes())?;
            let q_flag = attributes.as_deref().and_then(|attributes| attributes.split(',').nth(1));
            if q_flag.is_none_or(|flag| flag.trim().is_empty()) {
                days.set(date, element, value, &line)?;
            }
        }
    }
    Ok(days.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{lines::Lines, station_year::DayWeather};
    use proptest::prelude::*;

    fn read<R: Rows>(rows: R, text: &str) -> Result<R::Output, Malformed> {
        let mut lines = Lines::new(rows);
        lines.feed(text.as_bytes())?;
        lines.finish()
    }

    fn by_station(text: &str) -> Result<BTreeMap<i16, StationYear>, Malformed> {
        read(ByStation::new("USW00094728", [2018]), text)
    }

    fn padded(line: &str) -> String {
        format!("{line:<85}\n")
    }

    const PARK: &str = "USW00094728  40.7789  -73.9692   42.7 NY NEW YORK CNTRL PK TWR          HCN 72506";
    const NAME_BEYOND_ASCII: &str = "US1NMRA0022  36.0456 -106.1517 1955.0 NM ESPAñOLA 5.4 WNW";

    #[test]
    fn reads_the_station_list() {
        let stations = read(StationList::default(), &(padded(PARK) + &padded(NAME_BEYOND_ASCII))).unwrap();
        let park = Station { id: "USW00094728".into(), latitude: 40.7789, longitude: -73.9692 };
        assert_eq!(stations[0], park);
        assert_eq!((stations[1].id.as_str(), stations[1].longitude), ("US1NMRA0022", -106.1517));
    }

    #[test]
    fn a_station_list_that_was_cut_or_is_none_is_an_error() {
        let text = padded(PARK);
        assert!(read(StationList::default(), &text[..60]).is_err(), "cut within a line");
        assert!(read(StationList::default(), text.trim_end_matches('\n')).is_ok(), "only the last line end is missing");
        assert!(read(StationList::default(), "").is_err());
        assert!(read(StationList::default(), &(text.clone() + &text)).is_err(), "listed twice");
        let error = read(StationList::default(), "<html><body>We will be back soon</body></html>\n").unwrap_err();
        assert_eq!((error.line, error.column), (1, "ID"));
        let error = read(StationList::default(), &(padded(PARK) + "USW00094789  90.6386  -73.7622\n")).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"line 2, column LATITUDE: "90.6386" where degrees from -90 to 90 was expected"#
        );
    }

    #[test]
    fn the_inventory_tells_the_years_with_all_three_elements() {
        let text = "\
USC00305816  40.7000  -74.0167 PRCP 1871 1960
USC00305816  40.7000  -74.0167 SNOW 1884 1960
USC00305816  40.7000  -74.0167 TMAX 1872 1960
USC00305816  40.7000  -74.0167 TMIN 1871 1959
US1NYNY0074  40.7969  -73.9330 PRCP 2015 2021
";
        let inventory = read(InventoryList::default(), text).unwrap();
        assert_eq!(inventory.complete_years("USC00305816"), Some((1872, 1959)));
        assert_eq!(inventory.complete_years("US1NYNY0074"), None);
        assert_eq!(inventory.complete_years("USW00094728"), None);
        let error = read(InventoryList::default(), &text[..text.len() - 3]).unwrap_err();
        assert_eq!(error.line, 5);
        assert!(read(InventoryList::default(), "").is_err());
    }

    const DAY: &str = "\
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
USW00094728,20190427,PRCP,241,,,W,2400
";

    #[test]
    fn reads_a_by_station_file_with_and_without_header() {
        for header in ["", "ID,DATE,ELEMENT,DATA_VALUE,M_FLAG,Q_FLAG,S_FLAG,OBS_TIME\n"] {
            let years = by_station(&format!("{header}{DAY}")).unwrap();
            assert_eq!(years.len(), 1);
            let year = &years[&2018];
            assert_eq!(year.day(4, 25), Some(DayWeather { tmin: 111, tmax: 156, prcp: 241 }));
            assert_eq!(year.day(4, 26), None, "-9999 is missing");
            assert_eq!(year.day(4, 27), None, "a flagged value is ignored");
        }
        let only_a_header = CSV_COLUMNS.join(",");
        assert!(by_station(&only_a_header).unwrap()[&2018].is_empty());
    }

    #[test]
    fn a_by_station_file_that_babbles_is_an_error() {
        for (text, column) in [
            ("", ""),
            ("<?xml version=\"1.0\"?><Error><Code>SlowDown</Code></Error>", ""),
            ("USW00094789,20180425,TMIN,111,,,W,2400\n", "ID"),
            ("USW00094728,20180431,TMIN,111,,,W,2400\n", "DATE"),
            ("USW00094728,20180425,TMINX,111,,,W,2400\n", "ELEMENT"),
            ("USW00094728,19990425,SNOW,11.1,,,W,2400\n", "DATA_VALUE"),
            ("USW00094728,20180425,TMIN,99999,,,W,2400\n", "TMIN"),
            ("USW00094728,20180425,TMIN,111,,,W\n", ""),
            ("ID,DATE,ELEMENT,VALUE,M_FLAG,Q_FLAG,S_FLAG,OBS_TIME\n", "ID"),
        ] {
            assert_eq!(by_station(text).unwrap_err().column, column, "{text}");
        }
        let twice = DAY.replace("20180425,TMAX,156", "20180425,TMIN,112");
        assert_eq!(by_station(&twice).unwrap_err().line, 2);
    }

    #[test]
    fn reads_an_answer_of_the_access_service() {
        let text = br#"[
            {"DATE":"2018-04-25","STATION":"USW00094728","TMAX":"  156","TMIN":"  111","PRCP":"  241",
             "TMAX_ATTRIBUTES":",,W,2400","TMIN_ATTRIBUTES":",,W,2400","PRCP_ATTRIBUTES":"T,,W,2400"},
            {"DATE":"2018-04-26","STATION":"USW00094728","TMAX":"  156","TMIN":"  111"},
            {"DATE":"2018-04-27","STATION":"USW00094728","TMAX":"156","TMIN":"111","PRCP":"0","TMIN_ATTRIBUTES":",X,W"}
        ]"#;
        let year = access_json("USW00094728", 2018, text).unwrap();
        assert_eq!(year.day(4, 25), Some(DayWeather { tmin: 111, tmax: 156, prcp: 241 }));
        assert_eq!((year.day(4, 26), year.day(4, 27)), (None, None));
        assert!(access_json("USW00094728", 2018, b"[]").unwrap().is_empty());
        assert!(access_json("USW00094728", 2017, text).is_err(), "another year");
        assert!(access_json("USW00094789", 2018, text).is_err(), "another station");
        for end in 0..text.len() {
            assert!(access_json("USW00094728", 2018, &text[..end]).is_err(), "cut at {end}");
        }
        let metric = br#"[{"DATE":"2018-04-25","STATION":"USW00094728","TMAX":"  15.6"}]"#;
        assert_eq!(access_json("USW00094728", 2018, metric).unwrap_err().column, "TMAX");
    }

    proptest! {
        #[test]
        fn a_cut_within_a_row_is_an_error_or_costs_nothing(end in 0usize..DAY.len()) {
            let whole = by_station(DAY).unwrap();
            let rows = DAY[..end].lines().count();
            match by_station(&DAY[..end]) {
                Err(error) => prop_assert!(end == 0 || error.line == rows as u64),
                Ok(years) => {
                    let kept: String = DAY.lines().take(rows).map(|row| format!("{row}\n")).collect();
                    prop_assert_eq!(&years, &by_station(&kept).unwrap());
                    prop_assert!(rows < 3 || years == whole);
                }
            }
        }

        #[test]
        fn no_text_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let text = String::from_utf8_lossy(&bytes);
            let _ = read(StationList::default(), &text);
            let _ = read(InventoryList::default(), &text);
            let _ = by_station(&text);
            let _ = access_json("USW00094728", 2018, &bytes);
        }
    }
}
