//! Parses the station list and the inventory, whose fields are separated by blanks.

use crate::formats::{
    left_out::{LeftOut, Reason},
    lines::{BadRow, Line, Rows, field},
    malformed::Malformed,
    station_year::Element,
};
use compact_str::CompactString;
use std::collections::{HashMap, HashSet};

/// A station as `ghcnd-stations.txt` lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct Station {
    /// 11 characters, in upper case.
    pub id: CompactString,
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
}

/// Returns the first `N` fields of a line, and whether there are more. NOAA separates fields by at least one blank, so the
/// fixed columns of its documentation are not used.
fn fields<const N: usize>(text: &[u8]) -> ([&[u8]; N], bool) {
    let mut rest = text.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    let fields = std::array::from_fn(|_| rest.next().unwrap_or_default());
    (fields, rest.next().is_some())
}

/// Parses `ghcnd-stations.txt`: id, latitude, longitude. Further fields are ignored.
#[derive(Debug, Default)]
pub struct StationList {
    stations: Vec<Station>,
    /// Index in `stations` and line number, by station id.
    listed: HashMap<CompactString, (usize, u64)>,
    moved: Vec<Malformed>,
}

impl Rows for StationList {
    type Output = Vec<Station>;
    const NAME: &'static str = "station list";
    /// The list of NOAA has 11 MB.
    const BYTES_MAX: u64 = 64 * 1024 * 1024;

    fn row(&mut self, line: Line<'_>) -> Result<(), BadRow> {
        let ([id, latitude, longitude], more) = fields(line.text);
        let id = field::station(&line, id)?;
        let (north, east) = (latitude, longitude);
        let latitude = field::degrees(&line, "LATITUDE", north, 90.0)?;
        let longitude = field::degrees(&line, "LONGITUDE", east, 180.0)?;
        // NOAA writes four decimals. Fewer at the very end of the text may be a truncated number.
        let decimals = east.rsplit(|&byte| byte == b'.').next().map_or(0, <[u8]>::len);
        if !line.ended && !more && decimals < 4 {
            return Err(line.bad(Reason::WrongFields, "LONGITUDE", line.text, "a whole line"));
        }
        let station = Station { id, latitude, longitude };
        let Some((number, at_line)) = self.listed.get_mut(&station.id) else {
            self.listed.insert(station.id.clone(), (self.stations.len(), line.number));
            self.stations.push(station);
            return Ok(());
        };
        if let Some(before) = self.stations.get_mut(*number)
            && *before != station
        {
            let position = format!("{} {}", before.latitude, before.longitude);
            let why = format!("{} was at {position} on line {at_line}: this later line counts", station.id);
            self.moved.push(Malformed::new(line.number, "ID", why));
            *before = station;
            *at_line = line.number;
        }
        Ok(())
    }

    fn finish(self, left_out: &mut LeftOut) -> Result<Vec<Station>, Malformed> {
        self.moved.iter().for_each(|fault| left_out.note(Reason::SecondValue, fault));
        Ok(self.stations)
    }
}

/// First and last year, inclusive.
pub type YearRange = (i16, i16);

/// The years in which stations measured the three elements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    years: HashMap<CompactString, [Option<YearRange>; 3]>,
    /// Stations with an unreadable row, whose years are unknown.
    doubtful: HashSet<CompactString>,
}

impl Inventory {
    /// Returns the years in which a station may have days with all three elements; `None` if there are none, and all years if
    /// a row of the station is unreadable.
    pub fn complete_years(&self, station: &str) -> Option<YearRange> {
        if self.doubtful.contains(station) {
            return Some((i16::MIN, i16::MAX));
        }
        let mut complete = (i16::MIN, i16::MAX);
        for years in self.years.get(station)? {
            let (first, last) = (*years)?;
            complete = (complete.0.max(first), complete.1.min(last));
        }
        (complete.0 <= complete.1).then_some(complete)
    }
}

/// Parses `ghcnd-inventory.txt`: id, latitude, longitude, element, first and last year of unflagged data.
#[derive(Debug, Default)]
pub struct InventoryList(Inventory);

impl Rows for InventoryList {
    type Output = Inventory;
    const NAME: &'static str = "inventory";
    /// The inventory of NOAA has 35 MB.
    const BYTES_MAX: u64 = 128 * 1024 * 1024;

    fn row(&mut self, line: Line<'_>) -> Result<(), BadRow> {
        let ([id, _, _, element, first, last], _) = fields(line.text);
        let station = field::station(&line, id)?;
        let read = || {
            if element.len() != 4 {
                return Err(line.bad(Reason::WrongFields, "ELEMENT", element, "an element of 4 characters"));
            }
            let (begin, end) = (field::year(&line, "FIRSTYEAR", first)?, field::year(&line, "LASTYEAR", last)?);
            if begin > end {
                let expected = format!("a year from FIRSTYEAR on, which is {begin},");
                return Err(line.bad(Reason::InvalidDate, "LASTYEAR", last, &expected));
            }
            Ok((begin, end))
        };
        let (first, last) = match read() {
            Ok(years) => years,
            Err(bad) => {
                self.0.doubtful.insert(station);
                return Err(bad);
            }
        };
        let Some(element) = Element::from_name(element) else { return Ok(()) };
        let elements = self.0.years.entry(station).or_default();
        for (slot, of) in elements.iter_mut().zip(Element::ALL) {
            if of == element {
                *slot = Some(slot.map_or((first, last), |(f, l)| (f.min(first), l.max(last))));
            }
        }
        Ok(())
    }

    fn finish(self, _: &mut LeftOut) -> Result<Inventory, Malformed> {
        if self.0.years.is_empty() {
            return Err(Malformed::new(0, "", "no station with a temperature or precipitation in it"));
        }
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::lines::{Lines, Parsed, Text};
    use proptest::prelude::*;

    fn read<R: Rows>(rows: R, text: impl AsRef<[u8]>) -> Result<Parsed<R::Output>, Malformed> {
        let mut lines = Lines::new(rows);
        lines.feed(text.as_ref())?;
        lines.finish()
    }

    fn stations(text: impl AsRef<[u8]>) -> Result<Parsed<Vec<Station>>, Malformed> {
        read(StationList::default(), text)
    }

    fn padded(line: &str) -> String {
        format!("{line:<85}\n")
    }

    const PARK: &str = "USW00094728  40.7789  -73.9692   42.7 NY NEW YORK CNTRL PK TWR          HCN 72506";
    const NAME_BEYOND_ASCII: &str = "US1NMRA0022  36.0456 -106.1517 1955.0 NM ESPAñOLA 5.4 WNW";

    fn park() -> Station {
        Station { id: "USW00094728".into(), latitude: 40.7789, longitude: -73.9692 }
    }

    #[test]
    fn the_station_list_may_have_any_width() {
        for text in [
            padded(PARK) + &padded(NAME_BEYOND_ASCII),
            format!("\u{feff}{PARK}\r\n\r\n   \r\n{NAME_BEYOND_ASCII}\r\n"),
            format!("{}\n{}", &PARK[..30], &NAME_BEYOND_ASCII[..30]),
            "USW00094728 40.7789 -73.9692\nUS1NMRA0022\t36.0456\t-106.1517\t1955.0\n".to_owned(),
        ] {
            let Parsed { value, left_out } = stations(&text).unwrap();
            assert!(left_out.is_empty(), "{text:?}: {left_out:?}");
            assert_eq!(value[0], park(), "{text:?}");
            assert_eq!((value[1].id.as_str(), value[1].longitude), ("US1NMRA0022", -106.1517), "{text:?}");
        }
    }

    #[test]
    fn a_bad_line_of_the_station_list_is_left_out() {
        for (line, column, reason) in [
            ("USW00094789  90.6386  -73.7622", "LATITUDE", Reason::InvalidValue),
            ("USW00094789  40.6386      NaN", "LONGITUDE", Reason::InvalidValue),
            ("USW00094789  40.6386", "LONGITUDE", Reason::InvalidValue),
            ("USW0009478   40.6386  -73.7622", "ID", Reason::WrongFields),
            ("<p>", "ID", Reason::WrongFields),
        ] {
            let Parsed { value, left_out } = stations(format!("{line}\n{PARK}\n")).unwrap();
            assert_eq!(value, [park()], "{line}");
            assert_eq!((left_out.samples()[0].line, left_out.samples()[0].column.as_str()), (1, column), "{line}");
            assert_eq!(left_out.count(reason), 1, "{line}");
        }
        let invalid_utf8 = [padded(PARK).as_bytes(), b"USC0030\xff000  1.0  2.0\n"].concat();
        assert_eq!(stations(invalid_utf8).unwrap().left_out.count(Reason::WrongFields), 1);
    }

    #[test]
    fn the_later_line_of_a_station_listed_twice_counts() {
        let same = stations(padded(PARK) + PARK).unwrap();
        assert_eq!((same.value, same.left_out.is_empty()), (vec![park()], true));
        let moved = PARK.replace("40.7789", "40.7000");
        let twice = stations(padded(PARK) + &padded(NAME_BEYOND_ASCII) + &moved).unwrap();
        assert_eq!((twice.value.len(), twice.value[0].latitude), (2, 40.7));
        let expected = "USW00094728 was at 40.7789 -73.9692 on line 1: this later line counts";
        assert_eq!((twice.left_out.samples()[0].line, twice.left_out.samples()[0].why.as_str()), (3, expected));
    }

    #[test]
    fn a_text_that_is_no_station_list_is_an_error_with_line_and_column() {
        assert!(stations("").unwrap_err().why.starts_with("empty"));
        let error = stations("<html><body>We will be back soon</body></html>\n").unwrap_err();
        assert_eq!((error.line, error.column), (1, "ID"));
        assert!(error.why.ends_with("the text looks like HTML"), "{error}");
    }

    const INVENTORY: &str = "\
USC00305816  40.7000  -74.0167 PRCP 1871 1960
USC00305816  40.7000  -74.0167 SNOW 1884 1960
USC00305816  40.7000  -74.0167 TMAX 1872 1960
USC00305816  40.7000  -74.0167 TMIN 1871 1959
US1NYNY0074  40.7969  -73.9330 PRCP 2015 2021
";

    #[test]
    fn complete_years_have_all_three_elements() {
        let Parsed { value, left_out } = read(InventoryList::default(), INVENTORY).unwrap();
        assert!(left_out.is_empty());
        assert_eq!(value.complete_years("USC00305816"), Some((1872, 1959)));
        assert_eq!(value.complete_years("US1NYNY0074"), None);
        assert_eq!(value.complete_years("USW00094728"), None);
        assert!(read(InventoryList::default(), "").is_err());
        assert!(read(InventoryList::default(), "USC00305816  40.7000  -74.0167 SNOW 1884 1960\n").is_err());
    }

    #[test]
    fn station_ids_become_upper_case() {
        let read_list = stations(PARK.to_lowercase()).unwrap();
        assert_eq!((read_list.value, read_list.left_out.is_empty()), (vec![park()], true));
        let twice = stations(padded(PARK) + &PARK.to_lowercase()).unwrap();
        assert_eq!((twice.value, twice.left_out.is_empty()), (vec![park()], true));
        let expected = read(InventoryList::default(), INVENTORY).unwrap();
        assert_eq!(read(InventoryList::default(), INVENTORY.to_lowercase()), Ok(expected));
    }

    #[test]
    fn years_in_the_wrong_order_make_a_bad_row() {
        let swapped = INVENTORY.replace("PRCP 2015 2021", "PRCP 2021 2015");
        let Parsed { value, left_out } = read(InventoryList::default(), swapped).unwrap();
        assert_eq!(value.complete_years("US1NYNY0074"), Some((i16::MIN, i16::MAX)));
        let sample = &left_out.samples()[0];
        assert_eq!((left_out.count(Reason::InvalidDate), sample.line, sample.column.as_str()), (1, 5, "LASTYEAR"));
        assert_eq!(sample.why, "\"2015\" where a year from FIRSTYEAR on, which is 2021, was expected");
    }

    #[test]
    fn a_bad_row_of_the_inventory_excludes_no_station() {
        for (from, to) in [
            ("TMAX 1872", "TMAX 187x"),
            ("TMAX 1872", "TMAX"),
            ("TMAX 1872", "TMAXI 1872"),
            ("TMAX 1872 1960", "TMAX 1960 1872"),
        ] {
            let Parsed { value, left_out } = read(InventoryList::default(), INVENTORY.replace(from, to)).unwrap();
            assert_eq!(value.complete_years("USC00305816"), Some((i16::MIN, i16::MAX)), "{to}");
            assert_eq!(value.complete_years("US1NYNY0074"), None);
            assert_eq!(left_out.samples()[0].line, 3, "{to}");
        }
        let cut = read(InventoryList::default(), &INVENTORY[..INVENTORY.len() - 3]).unwrap();
        assert_eq!(cut.value.complete_years("US1NYNY0074"), Some((i16::MIN, i16::MAX)));
    }

    proptest! {
        #[test]
        fn broken_lines_do_not_affect_other_lines(
            broken in proptest::collection::vec("[^\n]{0,60}", 0..4), before in any::<bool>()
        ) {
            let broken: String = broken.iter().map(|line| format!("?{line}\n")).collect();
            let text = if before { broken.clone() + &padded(PARK) } else { padded(PARK) + &broken };
            let read = stations(&text).unwrap();
            prop_assert_eq!(read.value, [park()]);
            prop_assert_eq!(read.left_out.count(Reason::WrongFields), broken.lines().count() as u64);
        }

        #[test]
        fn no_text_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = stations(&bytes);
            let _ = read(InventoryList::default(), &bytes);
        }
    }
}
