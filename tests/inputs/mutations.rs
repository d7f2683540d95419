//! Seeded damages to small valid inputs: each ends, accounts for every object a JSON reader finds, and names its cause.

use super::{Job, Outcome, STATION, ride, rides, station_file, write};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Mutex};

/// Inputs of one run of the generator, a third of them damaged weather.
const MUTATIONS: u64 = 300;
/// Rides of each document.
const RIDES: usize = 8;
/// Codes that a refusal of a damaged document may have.
const REFUSALS: [&str; 9] = [
    "empty",
    "not_a_batch",
    "invalid_json",
    "cut_short",
    "bad_compression",
    "unsupported_format",
    "invalid_csv",
    "invalid_batch_id",
    "bad_reference",
];

/// A generator of numbers from a seed (PCG's multiplier on 64 bits, the high half of the state).
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit.max(1)
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

const FORMS: [&str; 5] = ["array", "travel_data", "lines", "concatenated", "csv"];

fn document(form: &str) -> String {
    let rides = rides(RIDES);
    match form {
        "array" => format!("[{}]", rides.join(",\n")),
        "travel_data" => format!(r#"{{"travel_data": [{}]}}"#, rides.join(", ")),
        "lines" => rides.iter().map(|ride| format!("{ride}\n")).collect(),
        "concatenated" => rides.concat(),
        _ => {
            let rows = rides.iter().map(|ride| {
                let ride: Value = serde_json::from_str(ride).expect("a ride");
                let cell = |name: &str| ride[name].as_str().map_or_else(|| ride[name].to_string(), str::to_owned);
                COLUMNS.map(cell).join(",") + "\n"
            });
            format!("{}\n{}", COLUMNS.join(","), rows.collect::<String>())
        }
    }
}

const COLUMNS: [&str; 8] =
    ["name", "statustime", "latitude", "longitude", "distance", "healthpoints", "magicpoints", "fieldservice"];

/// What was done to a document, in words, and the document.
fn damaged(draw: &mut Draw, form: &str) -> (String, Vec<u8>) {
    let mut bytes = document(form).into_bytes();
    let at = draw.below(bytes.len());
    let words = match draw.below(8) {
        0 => {
            bytes.truncate(at);
            format!("cut at byte {at}")
        }
        kind @ 1..=3 => {
            let class: &[u8] = draw.one_of(&[
                b"\0\x01\x1f".as_slice(),
                b"\x80\xc3\xff",
                b"\"'\\",
                b"{}[]",
                b",:\n\r\t ",
                b"\xef\xbb\xbf",
            ]);
            let byte = class[draw.below(class.len())];
            match kind {
                1 => bytes.insert(at, byte),
                2 => bytes[at] = byte,
                _ => drop(bytes.splice(at..at, [byte; 3])),
            }
            format!("byte {byte:#04x} at {at}, kind {kind}")
        }
        4 => {
            let end = (at + 1 + draw.below(20)).min(bytes.len());
            bytes.drain(at..end);
            format!("bytes {at} to {end} left out")
        }
        5 => {
            let text = String::from_utf8(bytes).expect("text");
            let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
            let (one, other) = (draw.below(lines.len()), draw.below(lines.len()));
            lines.swap(one, other);
            let doubled = lines[draw.below(lines.len())];
            lines.insert(other, doubled);
            bytes = lines.concat().into_bytes();
            format!("lines {one} and {other} swapped, one doubled")
        }
        _ => {
            let (from, to) = draw.one_of(&[
                ("\"magicpoints\":", "\"magicpoints\":NaN,\"was\":"),
                ("\"distance\":", "\"Distance \":"),
                ("2018-04-0", "4/"),
                ("\"fieldservice\":1", "\"fieldservice\":true"),
                ("\"fieldservice\":0", "\"fieldservice\":\"maybe\""),
                ("\"latitude\"", "\"lat\""),
                ("\"name\":", "\"name\":{\"first\":[1,{}]},\"other\":"),
                ("}", "} "),
                ("\n", ""),
                ("travel_data", "data"),
                (",", ";"),
            ]);
            bytes = String::from_utf8(bytes).expect("text").replace(from, to).into_bytes();
            format!("{from:?} became {to:?}")
        }
    };
    (format!("{form}, {words}"), bytes)
}

/// Complete objects at the places where rides may be, as a plain sequential JSON reader finds them before its first error; line by
/// line where that finds more.
fn objects(bytes: &[u8]) -> u64 {
    fn sequence(bytes: &[u8]) -> u64 {
        let mut count = 0;
        for value in serde_json::Deserializer::from_slice(bytes).into_iter::<Value>() {
            let Ok(value) = value else { break };
            let array =
                value.as_array().or_else(|| value["travel_data"].as_array()).or_else(|| value["rides"].as_array());
            count += array.map_or(u64::from(value.is_object()), |array| {
                array.iter().filter(|one| one.is_object()).count() as u64
            });
        }
        count
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let by_line = bytes.split(|byte| *byte == b'\n').map(sequence).sum::<u64>();
    // Within a document over several lines, a line alone is no sign of a ride.
    let is_one_value = serde_json::from_slice::<Value>(bytes).is_ok();
    if is_one_value {
        sequence(bytes)
    } else {
        sequence(bytes).max(if bytes.starts_with(b"{\"name") { by_line } else { 0 })
    }
}

/// Rows below the heading, as the csv crate counts them.
fn rows(bytes: &[u8]) -> u64 {
    let reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    reader.into_byte_records().filter(|record| record.as_ref().is_ok_and(|record| record.len() > 1)).count() as u64
}

fn check_document(about: &str, form: &str, bytes: &[u8], outcome: &Outcome) -> String {
    if outcome.is_refused() {
        let why = outcome.refusal();
        let code = REFUSALS.iter().find(|code| why.contains(&format!("{code}: ")));
        assert!(code.is_some() && outcome.code == 3, "{about}: {why}\n{outcome:?}");
        return code.map(ToString::to_string).unwrap_or_default();
    }
    let found = if form == "csv" { rows(bytes) } else { objects(bytes) };
    assert!(outcome.count("received") >= found, "{about}: a reader finds {found}: {outcome:?}");
    outcome.check_account(about);
    for reject in &outcome.rejects {
        assert!(reject["reason"].is_string() && !reject["ride"].is_null(), "{about}: {reject}");
    }
    if outcome.count("rejected") == 0 { "read".to_owned() } else { "read, some rejected".to_owned() }
}

/// Damaged weather: a row costs a row at most, or the file is named.
fn check_weather(about: &str, outcome: &Outcome) -> String {
    if outcome.code == 3 {
        let why = outcome.refusal();
        assert!(
            why.contains("weather_unusable") && (why.contains(STATION) || why.contains("ghcnd-stations")),
            "{about}: {why}"
        );
        return "weather_unusable".to_owned();
    }
    assert_eq!(outcome.rides(), (RIDES as u64, RIDES as u64, 0), "{about}: {outcome:?}");
    let lost = RIDES as u64 - outcome.with_weather();
    let without = outcome.manifest()["without_weather"].as_object().expect("reasons").values();
    assert_eq!(without.filter_map(Value::as_u64).sum::<u64>(), lost, "{about}: {outcome:?}");
    if lost == 0 { "weather read".to_owned() } else { "weather of some days missing".to_owned() }
}

fn run(seed: u64) -> String {
    let mut draw = Draw(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let job = Job::new();
    if seed % 3 == 2 {
        let mut text = station_file().into_bytes();
        let at = draw.below(text.len());
        match draw.below(4) {
            0 => text.truncate(at),
            1 => text[at] = draw.one_of(b"\0\x80\xff\",;x9-\n"),
            2 => text.insert(at, draw.one_of(b"\0\x80\xff\",;x9-\n")),
            _ => drop(text.drain(at..(at + 30).min(text.len()))),
        }
        let file = job.weather.join("csv/by_station").join(format!("{STATION}.csv"));
        write(&file, "");
        std::fs::write(&file, text).expect("written");
        return check_weather(&format!("seed {seed}, weather"), &job.run("rides.json", document("lines")));
    }
    let form = draw.one_of(&FORMS);
    let (words, bytes) = damaged(&mut draw, form);
    let name = draw.one_of(&["rides.json", "rides.ndjson", "rides.csv", "rides"]);
    let outcome = job.run(name, &bytes);
    check_document(&format!("seed {seed}, {words}, as {name}"), form, &bytes, &outcome)
}

#[test]
fn hundreds_of_damaged_inputs_end_well() {
    let next = Mutex::new(0..MUTATIONS);
    let table = Mutex::new(BTreeMap::<String, u64>::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(seed) = { next.lock().expect("seeds").next() } {
                    let became = run(seed);
                    *table.lock().expect("a table").entry(became).or_default() += 1;
                }
            });
        }
    });
    let table = table.into_inner().expect("a table");
    println!("{table:#?}");
    assert_eq!(table.values().sum::<u64>(), MUTATIONS);
    assert!(table.len() >= 5, "the generator reaches every kind of end: {table:?}");
}

#[test]
fn the_oracle_counts_what_is_there() {
    for (text, count) in [
        (document("array"), 8),
        (document("travel_data"), 8),
        (document("lines"), 8),
        (document("concatenated"), 8),
        (format!("{}{}\n{}", ride(0), ride(1), ride(2)), 3),
        (String::new(), 0),
    ] {
        assert_eq!(objects(text.as_bytes()), count, "{text}");
    }
    assert_eq!(rows(document("csv").as_bytes()), 8);
}
