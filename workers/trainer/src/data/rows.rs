//! Parses dataset files into rows: the rides that can be trained on, and which of them are held out.
//!
//! A file is parsed in blocks that end where a record ends ([`whole_records`]), so that several can be parsed at once.

use common::features::{FEATURE_COUNT, FEATURES, breed_name, is_test_ride, spread};
use csv::ByteRecord;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_128;

/// Breed number of a ride without a breed.
pub const NO_BREED: u32 = u32::MAX;

/// Rides to train or test on; every vector has one entry per ride, 54 bytes in total.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rides {
    /// Finite values in original units, in the order of [`FEATURES`].
    pub features: Vec<[f64; FEATURE_COUNT]>,
    /// Whether the ride ended in a service request.
    pub service: Vec<bool>,
    /// See [`spread`]; determines the fold in a cross-validation.
    pub spread: Vec<u8>,
    /// Index in [`TrainingData::breeds`](super::load::TrainingData::breeds), or [`NO_BREED`].
    pub breed: Vec<u32>,
}

impl Rides {
    /// Returns an empty set with capacity for this many rides.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            features: Vec::with_capacity(capacity),
            service: Vec::with_capacity(capacity),
            spread: Vec::with_capacity(capacity),
            breed: Vec::with_capacity(capacity),
        }
    }

    /// Number of rides.
    pub fn len(&self) -> usize {
        self.service.len()
    }

    /// Returns whether there are no rides.
    pub fn is_empty(&self) -> bool {
        self.service.is_empty()
    }

    /// Adds one ride.
    pub fn push(&mut self, features: [f64; FEATURE_COUNT], service: bool, spread: u8, breed: u32) {
        self.features.push(features);
        self.service.push(service);
        self.spread.push(spread);
        self.breed.push(breed);
    }

    /// Returns the rides with these indices, in this order.
    pub fn only(&self, indices: impl Iterator<Item = usize>) -> Self {
        let mut only = Self::with_capacity(indices.size_hint().0);
        for index in indices {
            only.push(self.features[index], self.service[index], self.spread[index], self.breed[index]);
        }
        only
    }

    /// Number of rides that ended in a service request.
    pub fn services(&self) -> usize {
        self.service.iter().filter(|service| **service).count()
    }
}

/// Why a dataset file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The header line has no such column.
    #[error("the header has no column {0}")]
    MissingColumn(&'static str),
    /// The file ends within its header line.
    #[error("the file has no header line")]
    MissingHeader,
    /// The file is not CSV, or a record has too few or too many fields.
    #[error("{0}")]
    Csv(String),
    /// A field has a value that its column does not allow.
    #[error("ride {ride_id:?}: {column} is {value:?}, expected {expected}")]
    Field {
        /// Invalid UTF-8 is replaced.
        ride_id: String,
        /// Name in the header line.
        column: &'static str,
        /// Value in the file.
        value: String,
        /// Allowed values.
        expected: &'static str,
    },
}

/// Positions of the columns that the trainer reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    count: usize,
    ride_id: usize,
    breed: usize,
    statustime: usize,
    groundstation: usize,
    fieldservice: usize,
    features: [usize; FEATURE_COUNT],
}

const LABEL: &str = "fieldservice";

impl Columns {
    /// Finds the columns in a file's header line.
    ///
    /// # Errors
    /// Fails if the line is not CSV or a column is missing.
    pub fn from_header(line: &[u8]) -> Result<Self, RowError> {
        let mut header = ByteRecord::new();
        let has_header =
            reader(line).read_byte_record(&mut header).map_err(|error| RowError::Csv(error.to_string()))?;
        if !has_header {
            return Err(RowError::MissingHeader);
        }
        let position = |name: &'static str| {
            header.iter().position(|field| field == name.as_bytes()).ok_or(RowError::MissingColumn(name))
        };
        let mut features = [0; FEATURE_COUNT];
        for (index, feature) in features.iter_mut().zip(FEATURES) {
            *index = position(feature.name)?;
        }
        Ok(Self {
            count: header.len(),
            ride_id: position("ride_id")?,
            breed: position("breed")?,
            statustime: position("statustime")?,
            groundstation: position("groundstation")?,
            fieldservice: position(LABEL)?,
            features,
        })
    }
}

/// A ride that can be trained or tested on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Finite values in original units, in the order of [`FEATURES`].
    pub features: [f64; FEATURE_COUNT],
    /// Whether the ride ended in a service request.
    pub service: bool,
    /// Whether it is held out; see [`is_test_ride`].
    pub test: bool,
    /// See [`spread`].
    pub spread: u8,
    /// Index in [`ParsedBlock::breeds`], or [`NO_BREED`].
    pub breed: u32,
    /// `xxh3_128` of the ride's id; identifies the ride.
    pub ride: u128,
}

/// Station and month of a ride's weather: the station id, empty if the ride has no weather, and `YYYY-MM`.
pub type Place = (String, String);

/// The content of a block of records.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ParsedBlock {
    /// Number of rides in the block.
    pub rides: u64,
    /// … of which have no label.
    pub unlabelled: u64,
    /// … of which have a label but no weather.
    pub without_weather: u64,
    /// … of which have a label and weather, but an impossible value.
    pub out_of_range: u64,
    /// All other rides, in the order of the file.
    pub rows: Vec<Row>,
    /// Distinct breeds of the rows, normalised by [`breed_name`].
    pub breeds: Vec<String>,
    /// Number of rides by station and month.
    pub coverage: BTreeMap<Place, u64>,
}

impl ParsedBlock {
    /// Returns the number of rides with a label and weather.
    pub fn trainable(&self) -> u64 {
        self.rows.len() as u64 + self.out_of_range
    }

    fn breed(&mut self, breed: &[u8], known: &mut BTreeMap<Vec<u8>, u32>) -> u32 {
        if let Some(number) = known.get(breed) {
            return *number;
        }
        let number = match breed_name(&String::from_utf8_lossy(breed)) {
            Some(name) => {
                let at = self.breeds.iter().position(|known| *known == name).unwrap_or_else(|| {
                    self.breeds.push(name);
                    self.breeds.len() - 1
                });
                u32::try_from(at).unwrap_or(NO_BREED)
            }
            None => NO_BREED,
        };
        known.insert(breed.to_vec(), number);
        number
    }
}

/// Returns the number of bytes at the start of `block` that are whole records. `block` starts where a record starts; a quoted field may
/// contain line ends.
pub fn whole_records(block: &[u8]) -> usize {
    let quotes = block.iter().filter(|byte| **byte == b'"').count();
    let mut within_quotes = quotes % 2 == 1;
    for (index, byte) in block.iter().enumerate().rev() {
        match byte {
            b'\n' if !within_quotes => return index + 1,
            b'"' => within_quotes = !within_quotes,
            _ => {}
        }
    }
    0
}

/// Returns the number of bytes of the first record of `block`, line end included; `None` if the record does not end in the block.
pub fn first_record(block: &[u8]) -> Option<usize> {
    let mut within_quotes = false;
    for (index, byte) in block.iter().enumerate() {
        match byte {
            b'\n' if !within_quotes => return Some(index + 1),
            b'"' => within_quotes = !within_quotes,
            _ => {}
        }
    }
    None
}

/// Parses the records of a block, which has no header line.
///
/// # Errors
/// Fails at a record that does not match the columns; the error names the ride and the field.
pub fn parse(columns: &Columns, block: &[u8]) -> Result<ParsedBlock, RowError> {
    let mut reader = reader(block);
    let mut record = ByteRecord::new();
    let mut parsed = ParsedBlock::default();
    let (mut breeds, mut places) = (BTreeMap::new(), BTreeMap::<(Vec<u8>, Vec<u8>), u64>::new());
    let (mut place, mut count) = ((Vec::new(), Vec::new()), 0);
    while reader.read_byte_record(&mut record).map_err(|error| RowError::Csv(error.to_string()))? {
        if record.len() != columns.count {
            let (fields, expected) = (record.len(), columns.count);
            return Err(RowError::Csv(format!("a record has {fields} fields, its header {expected}")));
        }
        parsed.rides += 1;
        let field = |index: usize| record.get(index).unwrap_or_default();
        let month = field(columns.statustime).get(..7).unwrap_or_default();
        // Consecutive rides often have the same place: count them before they enter the map.
        if (place.0.as_slice(), place.1.as_slice()) != (field(columns.groundstation), month) {
            *places.entry(std::mem::take(&mut place)).or_default() += std::mem::take(&mut count);
            place = (field(columns.groundstation).to_vec(), month.to_vec());
        }
        count += 1;
        match read(columns, &record)? {
            Ride::Unlabelled => parsed.unlabelled += 1,
            Ride::WithoutWeather => parsed.without_weather += 1,
            Ride::OutOfRange => parsed.out_of_range += 1,
            Ride::Trainable(mut row) => {
                row.breed = parsed.breed(field(columns.breed), &mut breeds);
                parsed.rows.push(row);
            }
        }
    }
    *places.entry(place).or_default() += count;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let counted = places.into_iter().filter(|(_, count)| *count > 0);
    for ((station, month), count) in counted {
        *parsed.coverage.entry((text(station), text(month))).or_default() += count;
    }
    Ok(parsed)
}

enum Ride {
    Unlabelled,
    WithoutWeather,
    OutOfRange,
    Trainable(Row),
}

fn read(columns: &Columns, record: &ByteRecord) -> Result<Ride, RowError> {
    let field = |index: usize| record.get(index).unwrap_or_default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let wrong = |column, value: &[u8], expected| {
        Err(RowError::Field { ride_id: text(field(columns.ride_id)), column, value: text(value), expected })
    };
    let service = match field(columns.fieldservice) {
        b"" => return Ok(Ride::Unlabelled),
        b"0" => false,
        b"1" => true,
        other => return wrong(LABEL, other, "0, 1 or nothing"),
    };
    let named = || FEATURES.iter().zip(columns.features).map(|(feature, index)| (feature, field(index)));
    if named().all(|(feature, value)| !feature.weather || value.is_empty()) {
        return Ok(Ride::WithoutWeather);
    }
    let mut features = [0.0; FEATURE_COUNT];
    for (slot, (feature, value)) in features.iter_mut().zip(named()) {
        *slot = match std::str::from_utf8(value).ok().and_then(|number| number.parse::<f64>().ok()) {
            Some(number) if number.is_finite() => number,
            _ if feature.weather => return wrong(feature.name, value, "a number, or no weather at all"),
            _ => return wrong(feature.name, value, "a number"),
        };
    }
    if FEATURES.iter().zip(features).any(|(feature, value)| value.abs() > feature.trained_max) {
        return Ok(Ride::OutOfRange);
    }
    let id = field(columns.ride_id);
    let Ok(ride_id) = std::str::from_utf8(id) else {
        return wrong("ride_id", id, "UTF-8");
    };
    Ok(Ride::Trainable(Row {
        features,
        service,
        test: is_test_ride(ride_id),
        spread: spread(id),
        breed: NO_BREED,
        ride: xxh3_128(id),
    }))
}

fn reader(block: &[u8]) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().has_headers(false).buffer_capacity(1 << 16).from_reader(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::dataset::COLUMNS;
    use proptest::prelude::*;

    fn columns() -> Columns {
        Columns::from_header(COLUMNS.join(",").as_bytes()).unwrap()
    }

    const TRAINABLE: &str =
        "a-0,Twilight,Qilin,2018-04-25 17:03:05.722,40.6,-74.1,29.5,291,292,1,USW00094728,20.7,111,156,241\n";

    #[test]
    fn every_ride_is_trainable_or_counted_by_reason() {
        let block = format!(
            "{TRAINABLE}a-1,\"Line\nend \"\"quoted\"\"\",,2018-04-25 17:03:05.722,40.6,-74.1,29.5,291,292,,USW00094728,20.7,1,2,3\n\
             a-2,,,2018-04-25 17:03:05.722,40.6,-74.1,29.5,291,292,0,,,,,\n\
             a-3,,,2018-04-25 17:03:05.722,40.6,-74.1,29.5,291,292.25,0,USW00094728,20.7,-5,2,0\n"
        );
        let parsed = parse(&columns(), block.as_bytes()).unwrap();
        assert_eq!((parsed.rides, parsed.unlabelled, parsed.without_weather), (4, 1, 1));
        let features: Vec<_> = parsed.rows.iter().map(|row| (row.features, row.service)).collect();
        assert_eq!(
            features,
            [([29.5, 291.0, 292.0, 111.0, 156.0, 241.0], true), ([29.5, 291.0, 292.25, -5.0, 2.0, 0.0], false)]
        );
        assert!(parsed.rows.iter().zip(["a-0", "a-3"]).all(|(row, id)| row.test == is_test_ride(id)));
    }

    /// Breeds are numbered in the order of the file, whatever their case and blanks; coverage counts every ride.
    #[test]
    fn breeds_are_numbered_and_places_counted() {
        let of = |id: &str, breed: &str, at: &str, station: &str| {
            let line = TRAINABLE.replace("a-0", id).replace("Qilin", breed).replace("2018-04-25", at);
            line.replace("USW00094728", station)
        };
        let lines = [
            of("a", "Qilin", "2018-04-25", "S1"),
            of("b", " qilin ", "2018-04-01", "S1"),
            of("c", "", "2018-05-01", "S1"),
            of("d", "Alicorn", "2018-04-30", "S2"),
            of("e", "QILIN", "2018-04-30", "S1"),
        ];
        let parsed = parse(&columns(), lines.concat().as_bytes()).unwrap();
        assert_eq!(parsed.breeds, ["qilin", "alicorn"]);
        assert_eq!(parsed.rows.iter().map(|row| row.breed).collect::<Vec<_>>(), [0, 0, NO_BREED, 1, 0]);
        let places: Vec<_> =
            parsed.coverage.iter().map(|((station, month), n)| (station.as_str(), month.as_str(), *n)).collect();
        assert_eq!(places, [("S1", "2018-04", 3), ("S1", "2018-05", 1), ("S2", "2018-04", 1)]);
    }

    #[test]
    fn a_ride_with_an_impossible_value_is_counted_and_left_out() {
        let absurd = |from, to| TRAINABLE.replace(from, to);
        let block = [absurd(",29.5,", ",1e308,"), absurd(",291,", ",-1000000001,"), absurd(",292,", ",1e9,")].concat();
        let parsed = parse(&columns(), block.as_bytes()).unwrap();
        assert_eq!((parsed.rides, parsed.out_of_range, parsed.rows.len()), (3, 2, 1));
    }

    #[test]
    fn columns_are_found_by_name_in_any_order() {
        let columns = Columns::from_header(
            b"prcp,tmin,x,tmax,fieldservice,magicpoints,distance,healthpoints,breed,groundstation,statustime,ride_id\n",
        );
        let parsed = parse(&columns.unwrap(), b"6,4,?,5,1,3,1,2,b,s,2018-04-25,id\n").unwrap();
        assert_eq!(parsed.rows[0].features, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(Columns::from_header(b"ride_id,distance\n"), Err(RowError::MissingColumn("healthpoints")));
        assert_eq!(Columns::from_header(b""), Err(RowError::MissingHeader));
    }

    #[test]
    fn a_broken_field_names_its_ride_and_column() {
        for (from, to, expected) in [
            (",1,USW", ",2,USW", r#"ride "a-0": fieldservice is "2", expected 0, 1 or nothing"#),
            (",111,", ",,", r#"ride "a-0": tmin is "", expected a number, or no weather at all"#),
            (",29.5,", ",inf,", r#"ride "a-0": distance is "inf", expected a number"#),
            (",29.5,", ",", "a record has 14 fields, its header 15"),
        ] {
            let error = parse(&columns(), TRAINABLE.replace(from, to).as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn rows_are_independent_of_the_cuts_between_blocks(
            names in proptest::collection::vec("[a\"\n,]{0,6}", 1..20), size in 1usize..400
        ) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            for (index, name) in names.iter().enumerate() {
                let id = format!("{name}{index}");
                let n = index.to_string();
                let row = [&id, name, "", "", "", "", &n, "1", "2", "1", "", "", "3", "4", "5"];
                writer.write_record(row).unwrap();
            }
            let file = writer.into_inner().unwrap();
            let whole = parse(&columns(), &file).unwrap();
            prop_assert_eq!(whole.rows.len(), names.len());
            prop_assert_eq!(whole_records(&file), file.len());

            let (mut pieces, mut carry) = (ParsedBlock::default(), Vec::new());
            for block in file.chunks(size) {
                carry.extend_from_slice(block);
                let cut = whole_records(&carry);
                let rest = carry.split_off(cut);
                let piece = parse(&columns(), &carry).unwrap();
                pieces.rides += piece.rides;
                pieces.rows.extend(piece.rows);
                for (place, count) in piece.coverage {
                    *pieces.coverage.entry(place).or_default() += count;
                }
                carry = rest;
            }
            prop_assert!(carry.is_empty());
            prop_assert_eq!(pieces, whole);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Columns::from_header(&bytes);
            let _ = parse(&columns(), &bytes);
            prop_assert!(whole_records(&bytes) <= bytes.len());
            prop_assert!(first_record(&bytes).is_none_or(|end| end <= bytes.len()));
        }
    }
}
