//! Parses answers of the NCEI access service: JSON, one object for each day.

use crate::formats::{
    foreign::{advice, looks_like},
    left_out::{LeftOut, Reason},
    lines::{BadRow, Line, Parsed, Text, field},
    malformed::Malformed,
    station_year::{Date, Days, Element, StationYear},
};
use compact_str::CompactString;
use serde_json::{Map, Value};

/// Maximum length of an answer, bytes; a year has about 100,000.
const ACCESS_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Parses an answer of the NCEI access service: one station, one year, native units. The service writes every value as a
/// string padded with blanks, leaves out the key of an absent element, and writes attributes as `M,Q,S[,time]`. An empty
/// array means no data. The line in a warning is the number of the object in the array, from 1.
#[derive(Debug)]
pub struct AccessAnswer {
    station: CompactString,
    year: i16,
    text: Vec<u8>,
}

impl AccessAnswer {
    /// Expects one station and year; other days are left out.
    pub fn new(station: &str, year: i16) -> Self {
        Self { station: station.into(), year, text: Vec::new() }
    }

    /// Reads the elements of one day. Returns whether the object is usable.
    fn day(&self, number: u64, day: &Value, days: &mut Days, bad: &mut Vec<BadRow>) -> bool {
        let line = Line { number, text: b"", ended: true };
        let Value::Object(day) = day else {
            bad.push(line.bad(Reason::WrongFields, "", day.to_string().as_bytes(), "an object"));
            return false;
        };
        let station = text(day, "STATION");
        if !station.eq_ignore_ascii_case(&self.station) {
            let expected = format!("station {}", self.station);
            bad.push(line.bad(Reason::OtherStation, "STATION", station.as_bytes(), &expected));
            return false;
        }
        let written = text(day, "DATE");
        let Some(date) = Date::parse(written.as_bytes()).filter(|date| date.year == self.year) else {
            let expected = format!("a date of {} as YYYY-MM-DD", self.year);
            bad.push(line.bad(Reason::InvalidDate, "DATE", written.as_bytes(), &expected));
            return false;
        };
        let (before, mut usable) = (bad.len(), 0);
        for element in Element::ALL {
            let name: &str = element.into();
            let flags = text(day, &format!("{name}_ATTRIBUTES"));
            let value = text(day, name);
            if value.is_empty() || flags.split(',').nth(1).is_some_and(|flag| !flag.trim().is_empty()) {
                continue;
            }
            match field::tenths(&line, name, value.as_bytes()) {
                Err(row) => bad.push(row),
                Ok(number) => {
                    usable += 1;
                    if days.set(date, element, number).is_err() {
                        let expected = format!("only one {name} of {written}");
                        bad.push(line.bad(Reason::SecondValue, name, value.as_bytes(), &expected));
                    }
                }
            }
        }
        usable > 0 || bad.len() == before
    }
}

/// Returns the value of a key in upper or lower case, as trimmed text; empty if there is none.
fn text(day: &Map<String, Value>, key: &str) -> String {
    let value =
        day.get(key).or_else(|| day.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value));
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.trim().to_owned(),
        Some(other) => other.to_string(),
    }
}

impl Text for AccessAnswer {
    type Output = StationYear;
    const NAME: &'static str = "answer of the access service";
    const BYTES_MAX: u64 = ACCESS_BYTES_MAX;

    fn feed(&mut self, piece: &[u8]) -> Result<(), Malformed> {
        self.text.extend_from_slice(piece);
        Ok(())
    }

    fn finish(self) -> Result<Parsed<StationYear>, Malformed> {
        let json = self.text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.text);
        let objects: Vec<Value> = serde_json::from_slice(json).map_err(|error| not_an_array(json, &error))?;
        let (mut days, mut left_out) = (Days::default(), LeftOut::default());
        let (mut first_bad, mut usable) = (None, 0usize);
        for (number, object) in (1..).zip(&objects) {
            let mut bad = Vec::new();
            usable += usize::from(self.day(number, object, &mut days, &mut bad));
            bad.iter().for_each(|row| left_out.note(row.reason, &row.fault));
            first_bad = first_bad.or_else(|| bad.into_iter().next());
        }
        match first_bad {
            Some(first) if usable == 0 => Err(first.fault),
            _ => Ok(Parsed { value: days.finish(self.year, &mut left_out), left_out }),
        }
    }
}

fn not_an_array(json: &[u8], error: &serde_json::Error) -> Malformed {
    let format = looks_like(json.get(..64).unwrap_or(json)).filter(|format| *format != "JSON");
    let format = format.map(|format| format!("; the text looks like {format}{}", advice(format))).unwrap_or_default();
    Malformed::new(error.line() as u64, "", format!("not an array of station days: {error}{format}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::station_year::DayWeather;
    use proptest::prelude::*;

    fn of_year(year: i16, text: &[u8]) -> Result<Parsed<StationYear>, Malformed> {
        let mut answer = AccessAnswer::new("USW00094728", year);
        answer.feed(text)?;
        answer.finish()
    }

    fn read(text: impl AsRef<[u8]>) -> Result<Parsed<StationYear>, Malformed> {
        of_year(2018, text.as_ref())
    }

    const DAYS: &str = r#"[
        {"DATE":"2018-04-25","STATION":"USW00094728","TMAX":"  156","TMIN":"  111","PRCP":"  241",
         "TMAX_ATTRIBUTES":",,W,2400","TMIN_ATTRIBUTES":",,W,2400","PRCP_ATTRIBUTES":"T,,W,2400"},
        {"DATE":"2018-04-26","STATION":"USW00094728","TMAX":"  156","TMIN":"  111","PRCP":"  "},
        {"DATE":"2018-04-27","STATION":"USW00094728","TMAX":"156","TMIN":"111","PRCP":"0","TMIN_ATTRIBUTES":",X,W"}
    ]"#;
    const DAY: Option<DayWeather> = Some(DayWeather { tmin: 111, tmax: 156, prcp: 241 });

    #[test]
    fn reads_an_answer_of_the_access_service() {
        for text in [DAYS.to_owned(), format!("\u{feff}{DAYS}"), DAYS.to_lowercase()] {
            let Parsed { value, left_out } = read(&text).unwrap();
            assert!(left_out.is_empty(), "{left_out:?}");
            assert_eq!((value.day(4, 25), value.day(4, 26), value.day(4, 27)), (DAY, None, None), "{text}");
        }
        assert_eq!(read("[]"), Ok(Parsed::default()));
        for end in 0..DAYS.len() {
            assert!(read(&DAYS[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_bad_value_and_a_bad_object_are_left_out() {
        let more = |day: &str| DAYS.replace("\n    ]", &format!(", {day}]"));
        for (day, column, reason) in [
            (r#"{"DATE":"2018-04-25","STATION":"USW00094728","TMAX":"157"}"#, "TMAX", Reason::SecondValue),
            (r#"{"DATE":"2018-04-31","STATION":"USW00094728","TMAX":"157"}"#, "DATE", Reason::InvalidDate),
            (r#"{"DATE":"2017-04-25","STATION":"USW00094728","TMAX":"157"}"#, "DATE", Reason::InvalidDate),
            (r#"{"DATE":"2018-04-28","STATION":"USW00094789","TMAX":"157"}"#, "STATION", Reason::OtherStation),
            (r#"{"DATE":"2018-04-28","TMAX":"157"}"#, "STATION", Reason::OtherStation),
            (r#"{"DATE":"2018-04-28","STATION":"USW00094728","PRCP":"NaN"}"#, "PRCP", Reason::InvalidValue),
            (r#"{"DATE":"2018-04-28","STATION":"USW00094728","TMAX":15.6}"#, "TMAX", Reason::InvalidValue),
            (r#"{"DATE":"2018-04-28","STATION":"USW00094728","TMIN":[1]}"#, "TMIN", Reason::InvalidValue),
            ("17", "", Reason::WrongFields),
            ("null", "", Reason::WrongFields),
        ] {
            let Parsed { value, left_out } = read(more(day)).unwrap();
            assert_eq!(left_out.count(reason), 1, "{day}: {left_out}");
            let sample = &left_out.samples()[0];
            assert_eq!((sample.line, sample.column.as_str()), (4, column), "{day}");
            assert_eq!(value.day(4, 25), DAY.filter(|_| reason != Reason::SecondValue), "{day}");
        }
    }

    #[test]
    fn an_answer_without_a_usable_object_is_an_error() {
        assert!(of_year(2017, DAYS.as_bytes()).is_err(), "another year");
        assert!(read(DAYS.replace("USW00094728", "USW00094789")).is_err(), "another station");
        let metric = r#"[{"DATE":"2018-04-25","STATION":"USW00094728","TMAX":"  15.0","TMIN":"11.1"}]"#;
        assert_eq!(read(metric).unwrap_err().column, "TMIN", "not in tenths");
        let html = read("<html>We will be back soon</html>").unwrap_err();
        assert!(html.why.contains("looks like HTML") && html.line == 1, "{html}");
        assert!(!read(r#"{"errorCode": 500}"#).unwrap_err().why.contains("looks like"));
    }

    proptest! {
        #[test]
        fn no_text_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }
    }
}
