//! Parses the records of datasets into rows: the rides that can be trained on, and which of them are held out.

use common::features::{FEATURE_COUNT, FEATURES, breed_name, is_test_ride, spread};
use records::datasets::{
    Record, Records, RowError,
    columns::{BREED, FEATURE_COLUMNS, FIELDSERVICE, GROUNDSTATION, RIDE_ID, STATUSTIME, WEATHER},
};
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

/// Parses the records of a block.
///
/// # Errors
/// Fails at a record that does not match the columns; the error names the ride and the field.
pub fn parse(records: &mut Records<'_>) -> Result<ParsedBlock, RowError> {
    let mut parsed = ParsedBlock::default();
    let (mut breeds, mut places) = (BTreeMap::new(), BTreeMap::<(Vec<u8>, Vec<u8>), u64>::new());
    let (mut place, mut count) = ((Vec::new(), Vec::new()), 0);
    while let Some(record) = records.read()? {
        parsed.rides += 1;
        let station = record.field(GROUNDSTATION);
        let month = record.field(STATUSTIME).get(..7).unwrap_or_default();
        // Consecutive rides often have the same place: count them before they enter the map.
        if (place.0.as_slice(), place.1.as_slice()) != (station, month) {
            *places.entry(std::mem::take(&mut place)).or_default() += std::mem::take(&mut count);
            place = (station.to_vec(), month.to_vec());
        }
        count += 1;
        match read(record)? {
            Ride::Unlabelled => parsed.unlabelled += 1,
            Ride::WithoutWeather => parsed.without_weather += 1,
            Ride::OutOfRange => parsed.out_of_range += 1,
            Ride::Trainable(mut row) => {
                row.breed = parsed.breed(record.field(BREED), &mut breeds);
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

fn read(record: Record<'_>) -> Result<Ride, RowError> {
    let Some(label) = record.number(FIELDSERVICE)? else { return Ok(Ride::Unlabelled) };
    if WEATHER.iter().all(|column| record.field(*column).is_empty()) {
        return Ok(Ride::WithoutWeather);
    }
    let mut features = [0.0; FEATURE_COUNT];
    for (feature, column) in features.iter_mut().zip(*FEATURE_COLUMNS) {
        let number = record.number(column)?;
        *feature = number.ok_or_else(|| record.invalid(column, "a number, or no weather at all"))?;
    }
    if FEATURES.iter().zip(features).any(|(feature, value)| value.abs() > feature.trained_max) {
        return Ok(Ride::OutOfRange);
    }
    let ride_id = record.text(RIDE_ID)?;
    Ok(Ride::Trainable(Row {
        features,
        service: label != 0.0,
        test: is_test_ride(ride_id),
        spread: spread(ride_id.as_bytes()),
        breed: NO_BREED,
        ride: xxh3_128(ride_id.as_bytes()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use records::datasets::Header;

    fn parse_block(block: &str) -> Result<ParsedBlock, RowError> {
        parse(&mut Records::new(&Header::default(), block.as_bytes()))
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
        let parsed = parse_block(&block).unwrap();
        assert_eq!((parsed.rides, parsed.unlabelled, parsed.without_weather), (4, 1, 1));
        let features: Vec<_> = parsed.rows.iter().map(|row| (&row.features[..6], row.service)).collect();
        let expected = [[29.5, 291.0, 292.0, 111.0, 156.0, 241.0], [29.5, 291.0, 292.25, -5.0, 2.0, 0.0]];
        assert_eq!(features, [(&expected[0][..], true), (&expected[1][..], false)]);
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
        let parsed = parse_block(&lines.concat()).unwrap();
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
        let parsed = parse_block(&block).unwrap();
        assert_eq!((parsed.rides, parsed.out_of_range, parsed.rows.len()), (3, 2, 1));
    }

    #[test]
    fn a_broken_field_names_its_ride_and_column() {
        for (from, to, expected) in [
            (",1,USW", ",2,USW", r#"ride "a-0": fieldservice is "2", expected 0 or 1"#),
            (",111,", ",,", r#"ride "a-0": tmin is "", expected a number, or no weather at all"#),
            (",29.5,", ",inf,", r#"ride "a-0": distance is "inf", expected number"#),
            (",29.5,", ",", "a record has 14 fields, its header 15"),
        ] {
            let error = parse_block(&TRAINABLE.replace(from, to)).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}
