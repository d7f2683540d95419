//! The heading of a by-station file, which gives the order of its columns.

/// The columns of a by-station file, in NOAA's order; its first line may name them.
const COLUMNS: [&str; 8] = ["ID", "DATE", "ELEMENT", "DATA_VALUE", "M_FLAG", "Q_FLAG", "S_FLAG", "OBS_TIME"];
/// The columns that are read, by their index in [`COLUMNS`].
const NEEDED: [usize; NEEDED_COUNT] = [0, 1, 2, 3, 5];
const NEEDED_COUNT: usize = 5;
/// For each column of NOAA's order its index in [`NEEDED`].
const BY_POSITION: [Option<usize>; COLUMNS.len()] = [Some(0), Some(1), Some(2), Some(3), None, Some(4), None, None];
/// Minimum number of column names in a heading.
const NAMES_MIN: usize = 2;

/// A row that does not fit the columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The column at fault; empty if the number of fields is wrong.
    pub column: &'static str,
    /// What is expected.
    pub expected: String,
}

/// The order of the columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// For each field of a row its index in [`NEEDED`]; `None` if it is not read.
    slots: Vec<Option<usize>>,
    /// The needed column that the heading does not name exactly once.
    fault: Option<&'static str>,
    /// The first of NOAA's columns that the heading does not name.
    absent: Option<&'static str>,
    /// Whether a row of eight fields may be read in NOAA's order, as below a damaged heading.
    fits_by_position: bool,
}

impl Default for Columns {
    /// The columns in NOAA's order.
    fn default() -> Self {
        Self::of((0..COLUMNS.len()).map(Some).collect())
    }
}

/// Returns a field without quotes and surrounding blanks.
fn bare(field: &[u8]) -> &[u8] {
    let field = field.trim_ascii();
    field.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(field).trim_ascii()
}

/// Returns whether a field names a column, in any case and with `-` or a blank for `_`.
fn is_name(field: &[u8], name: &str) -> bool {
    let plain = |byte: &u8| if matches!(byte, b'-' | b' ') { b'_' } else { byte.to_ascii_uppercase() };
    field.len() == name.len() && field.iter().map(plain).eq(name.bytes())
}

impl Columns {
    /// Parses a heading; `None` if the line is not one.
    pub fn of_heading(text: &[u8]) -> Option<Self> {
        let fields = || text.split(|&byte| byte == b',').map(bare);
        // The second field of a row is a date.
        if fields().any(|field| field.first().is_some_and(|byte| !byte.is_ascii_alphabetic())) {
            return None;
        }
        let names: Vec<Option<usize>> =
            fields().map(|field| COLUMNS.iter().position(|name| is_name(field, name))).collect();
        // The files of NOAA's access service begin with STATION and DATE.
        let others = fields().filter(|field| is_name(field, "STATION")).count();
        (names.iter().flatten().count() + others >= NAMES_MIN).then(|| Self::of(names))
    }

    fn of(names: Vec<Option<usize>>) -> Self {
        let times = |column: usize| names.iter().filter(|name| **name == Some(column)).count();
        let fault = NEEDED.into_iter().find(|column| times(*column) != 1);
        let fits_by_position = if names.len() == COLUMNS.len() {
            (0..).zip(&names).all(|(position, name)| name.is_none_or(|name| name == position))
        } else {
            let in_file = names.iter().flatten().filter(|name| NEEDED.contains(name));
            fault.is_some() || in_file.is_sorted()
        };
        let absent = (0..COLUMNS.len()).find(|column| times(*column) == 0);
        let name = |column: Option<usize>| column.and_then(|column| COLUMNS.get(column).copied());
        let slot = |column: &Option<usize>| NEEDED.iter().position(|needed| Some(*needed) == *column);
        Self { slots: names.iter().map(slot).collect(), fault: name(fault), absent: name(absent), fits_by_position }
    }

    /// Returns a column that the heading lacks or names twice. `ended`: whether the heading has a line end; without one it may
    /// be truncated and must have all columns.
    pub fn fault(&self, ended: bool) -> Option<&'static str> {
        self.fault.or(self.absent.filter(|_| !ended))
    }

    /// Returns the fields that are read: station, date, element, value and quality flag.
    ///
    /// # Errors
    /// Fails if the row has more or fewer fields than there are columns, or if the order of the columns is unknown.
    pub fn fields<'a>(&self, text: &'a [u8]) -> Result<[&'a [u8]; NEEDED_COUNT], Misfit> {
        let by_name = if self.fault.is_none() { pick(text, &self.slots) } else { None };
        let by_position = || if self.fits_by_position { pick(text, &BY_POSITION) } else { None };
        by_name.or_else(by_position).ok_or_else(|| self.misfit(text.split(|&byte| byte == b',').count()))
    }

    fn misfit(&self, count: usize) -> Misfit {
        let columns = if self.fault.is_some() { COLUMNS.len() } else { self.slots.len() };
        match self.fault {
            Some(column) if count == self.slots.len() => {
                Misfit { column, expected: format!("a row below a heading with one column {column}") }
            }
            _ => Misfit { column: "", expected: format!("a row of {columns} fields (not {count})") },
        }
    }
}

/// Returns the fields of a row by their slots; `None` if there are more or fewer fields than slots.
fn pick<'a>(text: &'a [u8], slots: &[Option<usize>]) -> Option<[&'a [u8]; NEEDED_COUNT]> {
    let mut fields = text.split(|&byte| byte == b',');
    let mut picked = [&[][..]; NEEDED_COUNT];
    for slot in slots {
        let field = fields.next()?;
        if let Some(cell) = slot.and_then(|slot| picked.get_mut(slot)) {
            *cell = bare(field);
        }
    }
    fields.next().is_none().then_some(picked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(heading: &str) -> Columns {
        Columns::of_heading(heading.as_bytes()).unwrap_or_else(|| panic!("no heading: {heading}"))
    }

    #[test]
    fn a_heading_is_read_in_any_order_and_spelling() {
        let row = b"S,D,E,V,M,Q,X,T";
        let expected = ["S", "D", "E", "V", "Q"].map(str::as_bytes);
        assert_eq!(Columns::default().fields(row), Ok(expected));
        for (heading, row) in [
            ("ID,DATE,ELEMENT,DATA_VALUE,M_FLAG,Q_FLAG,S_FLAG,OBS_TIME", "S,D,E,V,M,Q,X,T"),
            ("\"id\", \"date\",\"Element\",Data Value,m-flag,Q-Flag,s_flag,obs_time", "\"S\",D,E, V ,M,Q,X,T"),
            ("ID,DATE,ELEMENT,M_FLAG,DATA_VALUE,Q_FLAG,S_FLAG,OBS_TIME", "S,D,E,M,V,Q,X,T"),
            ("ID,DATE,ELEMENT,DATA_VALUE,Q_FLAG,M_FLAG,S_FLAG,OBS_TIME", "S,D,E,V,Q,M,X,T"),
            ("Q_FLAG,DATA_VALUE,ELEMENT,DATE,ID", "Q,V,E,D,S"),
            (",ID,NAME,DATE,ELEMENT,DATA_VALUE,M_FLAG,Q_FLAG,S_FLAG", "0,S,park,D,E,V,M,Q,X"),
        ] {
            let columns = columns(heading);
            assert_eq!((columns.fault(true), columns.fields(row.as_bytes())), (None, Ok(expected)), "{heading}");
        }
        for line in
            ["ID", "USW00094728,20180425,TMAX,176,,,W,2400", "<html>,DATE,ELEMENT", "", "?ID,DATE,ELEMENT", "a,b"]
        {
            assert_eq!(Columns::of_heading(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn a_missing_or_repeated_column_is_reported() {
        for (heading, column) in [
            ("ID,DATE,ELEMENT,DATA_VALUE,M_FLAG,S_FLAG,OBS_TIME", "Q_FLAG"),
            ("ID,DATE,ELEMENT,VALUE,M_FLAG,Q_FLAG,S_FLAG,OBS_TIME", "DATA_VALUE"),
            ("ID,DATE,ELEMENT,DATA_VALUE,DATA_VALUE,Q_FLAG,S_FLAG,OBS_TIME", "DATA_VALUE"),
            ("STATION,DATE,LATITUDE,LONGITUDE,PRCP,TMAX,TMIN", "ID"),
        ] {
            assert_eq!(columns(heading).fault(true), Some(column), "{heading}");
        }
        let cut = columns("ID,DATE,ELEMENT,DATA_VALUE,M_FLAG,Q_FLAG,S_FLAG,OBS_TIM");
        assert_eq!((cut.fault(true), cut.fault(false)), (None, Some("OBS_TIME")));
    }

    /// Below a damaged heading a row is read by position, unless one column could be mistaken for another.
    #[test]
    fn rows_below_a_damaged_heading_are_read_in_the_order_of_noaa() {
        let row = b"S,D,E,V,M,Q,X,T";
        for (heading, is_read) in [
            ("ID,DATE,ELEMENT,DATx_VALUE,M_FLAG,Q_FLAG,S_FLAG,OBS_TIME", true),
            ("ID,DATE,ELEMENT,DATA_VALUE,M_FLQ_FLAG,S_FLAG,OBS_TIME", true),
            ("ID,DATE,ELEMENT,DATA_VALUE,M_FLAG,M_FLAG,Q_FLAG,S_FLAG,OBS_TIME", true),
            ("ID,DATE,ELEMENT,DATx_VALUE,Q_FLAG,M_FLAG,S_FLAG,OBS_TIME", false),
            ("DATE,ID,ELEMENT,DATA_VALUE,M_FLAG,Q_FLAG,S_FLAG,OBS_TIME,NAME", false),
        ] {
            assert_eq!(columns(heading).fields(row).is_ok(), is_read, "{heading}");
        }
        let misfit = columns("ID,DATE,ELEMENT,M_FLAG,VALUE,Q_FLAG,S_FLAG,OBS_TIME").fields(row).unwrap_err();
        assert_eq!(misfit.column, "DATA_VALUE");
        let misfit = columns("ID,DATE,ELEMENT,DATA_VALUE,Q_FLAG").fields(b"S,D,E").unwrap_err();
        assert_eq!((misfit.column, misfit.expected.as_str()), ("", "a row of 5 fields (not 3)"));
    }
}
