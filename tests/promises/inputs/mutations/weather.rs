//! Mutations of a weather folder: which days are lost, and which line the warning names.

use super::{
    super::{Job, Outcome, STATION, STATION_HEADING, STATION_LIST, gzip, rides, station_file, write},
    draw::Draw,
};
use serde_json::Value;
use std::{collections::BTreeSet, time::Duration};

/// Rides, one on each of the first days of April.
const RIDES: usize = 8;

/// The expected weather of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Day {
    /// The weather is that of the undamaged file.
    Same,
    /// The day has no weather.
    Lost,
    /// The day's weather may be damaged, or lost.
    Doubtful,
}

/// The expected outcome of the rides.
enum Expected {
    Joined {
        days: [Day; RIDES],
        /// Reason, line and column of the only row or day that is left out; no line for a day.
        left_out: Option<(&'static str, u64, &'static str)>,
        /// What the warning is about.
        about: &'static str,
    },
    /// Checked by the lines that differ.
    Damaged {
        days: [Day; RIDES],
        /// Lines that a warning may name.
        lines: BTreeSet<u64>,
    },
    /// The job ends at once; the error names this file and has these words.
    Unusable { file: &'static str, words: &'static str },
}

const STATION_CSV: &str = "csv/by_station/USW00094728.csv";

/// Files of a weather folder, used instead of those of [`Job::new`].
struct Mutation {
    words: String,
    /// Files by their path in the folder; `None` is removed.
    files: Vec<(&'static str, Option<Vec<u8>>)>,
    expected: Expected,
}

impl Mutation {
    fn of_station(words: impl Into<String>, bytes: impl Into<Vec<u8>>, expected: Expected) -> Self {
        Self { words: words.into(), files: vec![(STATION_CSV, Some(bytes.into()))], expected }
    }

    fn of_list(words: impl Into<String>, bytes: impl Into<Vec<u8>>, expected: Expected) -> Self {
        Self { words: words.into(), files: vec![("ghcnd-stations.txt", Some(bytes.into()))], expected }
    }
}

fn same() -> Expected {
    Expected::Joined { days: [Day::Same; RIDES], left_out: None, about: STATION }
}

fn without(day: Option<usize>, left_out: Option<(&'static str, u64, &'static str)>) -> Expected {
    let mut days = [Day::Same; RIDES];
    day.into_iter().for_each(|day| days[day - 1] = Day::Lost);
    Expected::Joined { days, left_out, about: STATION }
}

/// TMIN, TMAX and PRCP of a day, as [`station_file`] has them.
fn values(day: usize) -> [i64; 3] {
    let day = day as i64;
    [50 + day, 150 + day, 3 * (day % 4)]
}

/// The line of an element of a day, from 1: line 1 is the heading.
fn line_of(day: usize, element: usize) -> usize {
    2 + 3 * (day - 1) + element
}

const ELEMENTS: [&str; 3] = ["TMIN", "TMAX", "PRCP"];

fn file_lines() -> Vec<String> {
    station_file().lines().map(str::to_owned).collect()
}

fn text_of(lines: &[String]) -> String {
    lines.join("\n") + "\n"
}

/// An added row, which is bad or repeats a value.
fn bad_row(draw: &mut Draw) -> Mutation {
    let (day, element) = (1 + draw.below(RIDES), draw.below(3));
    let mut lines = file_lines();
    let index = 1 + draw.below(lines.len());
    let line = index as u64 + 1;
    let (date, name) = (format!("201804{day:02}"), ELEMENTS[element]);
    // Of two values, the later is the second one.
    let original = line_of(day, element) as u64;
    let second = if line <= original { original + 1 } else { line };
    let row = |date: &str, value: &str| format!("{STATION},{date},{name},{value},,,W,");
    let (row, expected) = match draw.below(12) {
        0 => (row(&date, "777"), without(Some(day), Some(("second_value", second, "DATA_VALUE")))),
        1 => (lines[original as usize - 1].clone(), same()),
        2 => (row("20180230", "9"), without(None, Some(("invalid_date", line, "DATE")))),
        3 => {
            // A date of ISO 8601 is that date.
            let fifth = line_of(5, element) as u64;
            let second = if line <= fifth { fifth + 1 } else { line };
            (row("2018-04-05", "9"), without(Some(5), Some(("second_value", second, "DATA_VALUE"))))
        }
        4 => (row(&date, ""), without(None, Some(("invalid_value", line, "DATA_VALUE")))),
        5 => (row(&date, "NaN"), without(None, Some(("invalid_value", line, "DATA_VALUE")))),
        6 => (row(&date, "15.6"), without(None, Some(("invalid_value", line, "DATA_VALUE")))),
        7 => (row(&date, "warm"), without(None, Some(("invalid_value", line, "DATA_VALUE")))),
        8 => (row(&date, "70000"), without(None, Some(("invalid_value", line, "DATA_VALUE")))),
        9 => (format!("{STATION},{date},{name},9,,W,"), without(None, Some(("wrong_fields", line, "")))),
        10 => (format!("{STATION},{date},{name},9,,,W,,"), without(None, Some(("wrong_fields", line, "")))),
        _ => (format!("USW00014732,{date},{name},9,,,W,"), without(None, Some(("other_station", line, "ID")))),
    };
    lines.insert(index, row.clone());
    Mutation::of_station(format!("line {line} is {row}"), text_of(&lines), expected)
}

/// A good row replaced: its day is lost, with a warning where the row is bad.
fn bad_value(draw: &mut Draw) -> Mutation {
    let (day, element) = (1 + draw.below(RIDES), draw.below(3));
    let mut lines = file_lines();
    let line = line_of(day, element) as u64;
    let (date, name) = (format!("201804{day:02}"), ELEMENTS[element]);
    let row = |value: &str, flag: &str| format!("{STATION},{date},{name},{value},,{flag},W,");
    let (row, left_out) = match draw.below(9) {
        // Missing values and values of doubtful quality are part of NOAA's format.
        0 => (row("-9999", ""), None),
        1 => (row("9", "I"), None),
        2 => (row("", ""), Some(("invalid_value", line, "DATA_VALUE"))),
        3 => (row("nan", ""), Some(("invalid_value", line, "DATA_VALUE"))),
        4 => (row("1.5e1", ""), Some(("invalid_value", line, "DATA_VALUE"))),
        5 => (row("99999", ""), Some(("invalid_value", line, "DATA_VALUE"))),
        6 => (format!("{STATION},{date},{name},9"), Some(("wrong_fields", line, ""))),
        7 => (format!("{STATION},2018043{day},{name},9,,,W,"), Some(("invalid_date", line, "DATE"))),
        _ => (format!("USW00014732,{date},{name},9,,,W,"), Some(("other_station", line, "ID"))),
    };
    lines[line as usize - 1] = row.clone();
    Mutation::of_station(format!("line {line} became {row}"), text_of(&lines), without(Some(day), left_out))
}

/// Impossible weather counts as no weather, and is counted by its reason.
fn impossible(draw: &mut Draw) -> Mutation {
    let day = 1 + draw.below(RIDES);
    let (element, value, reason) = draw.one_of(&[
        (0, "300", "tmin_above_tmax"),
        (1, "-300", "tmin_above_tmax"),
        (0, "-1200", "tmin_out_of_range"),
        (1, "9999", "tmax_out_of_range"),
        (1, "701", "tmax_out_of_range"),
        (2, "-30", "prcp_out_of_range"),
        (2, "20001", "prcp_out_of_range"),
    ]);
    let mut lines = file_lines();
    let row = format!("{STATION},201804{day:02},{},{value},,,W,", ELEMENTS[element]);
    lines[line_of(day, element) - 1] = row.clone();
    Mutation::of_station(row, text_of(&lines), without(Some(day), Some((reason, 0, ""))))
}

/// The same rows written in another way.
fn writing(draw: &mut Draw) -> Mutation {
    let good = station_file();
    let rows = good.replace(STATION_HEADING, "");
    let blank = format!("\n{}\n", " ".repeat(draw.below(3)));
    let (words, bytes): (_, Vec<u8>) = match draw.below(10) {
        0 => ("a lower-case heading", good.replace(STATION_HEADING, &STATION_HEADING.to_lowercase()).into()),
        1 => ("a mark", format!("\u{feff}{good}").into()),
        2 => ("CRLF", good.replace('\n', "\r\n").into()),
        3 => ("blank lines", good.replace('\n', &blank).into()),
        4 => ("no heading", rows.into()),
        5 => ("two headings", format!("{STATION_HEADING}{good}").into()),
        6 => ("no line end", good.trim_end().into()),
        7 => ("lower case", good.to_lowercase().into()),
        8 => {
            let quoted = good.lines().map(|line| format!("\"{}\"\n", line.replace(',', "\",\"")));
            ("quotes", quoted.collect::<String>().into())
        }
        _ => {
            let packed = Some(gzip(good.as_bytes()));
            let files = vec![(STATION_CSV, None), ("csv/by_station/USW00094728.csv.gz", packed)];
            return Mutation { words: "gzip".to_owned(), files, expected: same() };
        }
    };
    Mutation::of_station(words, bytes, same())
}

/// A file that is not weather ends the job at once.
fn not_weather(draw: &mut Draw) -> Mutation {
    let formats: [(&str, &[u8]); 8] = [
        ("empty", b""),
        ("HTML", b"<html><body>503 Service Unavailable</body></html>\n"),
        ("XML", b"<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code></Error>\n"),
        ("JSON", b"{\"status\": 404,\n \"error\": \"not found\"}\n"),
        ("UTF-16", b"\xff\xfeI\0D\0,\0D\0"),
        ("zip", b"PK\x03\x04\x14\0\0\0"),
        ("LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"),
        ("binary", b"\0\x01\x02\x03\0\0\0\0"),
    ];
    let (words, bytes) = draw.one_of(&formats);
    if draw.once_in(3) {
        let expected = Expected::Unusable { file: "ghcnd-stations.txt", words };
        return Mutation::of_list(format!("the list is {words}"), bytes, expected);
    }
    Mutation::of_station(format!("the file is {words}"), bytes, Expected::Unusable { file: "USW00094728.csv", words })
}

/// The station list: a station twice, byte order marks, bad lines, another station without data.
fn list(draw: &mut Draw) -> Mutation {
    let park = STATION_LIST;
    let other = "USW00014732  40.7794  -73.8803    3.4 NY LAGUARDIA AP\n";
    let about_list =
        |left_out| Expected::Joined { days: [Day::Same; RIDES], left_out: Some(left_out), about: "ghcnd-stations" };
    match draw.below(9) {
        0 => Mutation::of_list("twice", park.repeat(2), same()),
        1 => {
            let moved = format!("{}{park}", park.replace("40.7789", "10.0000"));
            Mutation::of_list("moved", moved, about_list(("second_value", 2, "ID")))
        }
        2 => Mutation::of_list("a mark", format!("\u{feff}{park}"), same()),
        3 => Mutation::of_list("blank lines and CRLF", format!("\r\n  \r\n{}\r\n\r\n", park.trim_end()), same()),
        4 => {
            let bad = format!("{}{park}", other.replace("40.7794", "95.7794"));
            Mutation::of_list("a latitude of 95", bad, about_list(("invalid_value", 1, "LATITUDE")))
        }
        5 => {
            let bad = format!("{park}{}", other.replace("-73.8803", "     NaN"));
            Mutation::of_list("a longitude NaN", bad, about_list(("invalid_value", 2, "LONGITUDE")))
        }
        6 => Mutation::of_list("text around it", format!("{park}<p>\n"), about_list(("wrong_fields", 2, "ID"))),
        7 => {
            let packed = Some(gzip(park.as_bytes()));
            let files = vec![("ghcnd-stations.txt", None), ("ghcnd-stations.txt.gz", packed)];
            Mutation { words: "a list in gzip".to_owned(), files, expected: same() }
        }
        _ => {
            // The added station is nearer, and has no file.
            let nearer = other.replace("40.7794", "40.7100").replace("-73.8803", "-73.9100");
            Mutation::of_list("a nearer station without a file", format!("{park}{nearer}"), same())
        }
    }
}

/// Truncated at any byte: the days before the cut are unchanged.
fn cut(draw: &mut Draw) -> Mutation {
    let good = station_file();
    let within = draw.below(good.len().min(1_200));
    let text = &good[..within];
    if text.len() < STATION_HEADING.len() - 1 {
        let words = if text.is_empty() { "empty" } else { "expected" };
        return Mutation::of_station(
            format!("cut at byte {within}"),
            text,
            Expected::Unusable { file: "USW00094728.csv", words },
        );
    }
    let whole = |line: &str| line.matches(',').count() == 7;
    let rows = text.lines().filter(|line| whole(line)).count() - 1;
    let broken = text.lines().position(|line| !whole(line));
    if rows == 0 && broken.is_some() {
        let expected = Expected::Unusable { file: "USW00094728.csv", words: "8 fields" };
        return Mutation::of_station(format!("cut at byte {within}"), text, expected);
    }
    let mut days = [Day::Lost; RIDES];
    days.iter_mut().take(rows / 3).for_each(|day| *day = Day::Same);
    let left_out = broken.map(|nth| ("wrong_fields", nth as u64 + 1, ""));
    Mutation::of_station(format!("cut at byte {within}"), text, Expected::Joined { days, left_out, about: STATION })
}

/// Any bytes changed, inserted or removed: days on other lines are unchanged.
fn damage(draw: &mut Draw) -> Mutation {
    let good = station_file().into_bytes();
    let mut text = good.clone();
    let at = draw.below(text.len().min(1_200));
    let byte = draw.one_of(b"\0\x01\x80\xC3\xFF\"',;{}x9-. \t\n");
    let words = match draw.below(4) {
        0 => {
            text[at] = byte;
            format!("byte {at} became {byte:#04x}")
        }
        1 => {
            text.insert(at, byte);
            format!("{byte:#04x} inserted at byte {at}")
        }
        2 => {
            let end = (at + 1 + draw.below(60)).min(text.len());
            text.drain(at..end);
            format!("bytes {at} to {end} left out")
        }
        _ => {
            let end = (at + 1 + draw.below(60)).min(text.len());
            let again = text[at..end].to_vec();
            text.splice(at..at, again);
            format!("bytes {at} to {end} twice")
        }
    };
    let (before, after): (Vec<&[u8]>, Vec<&[u8]>) =
        (good.split(|byte| *byte == b'\n').collect(), text.split(|byte| *byte == b'\n').collect());
    let start = before.iter().zip(&after).take_while(|(one, other)| one == other).count();
    let rest = before.len().min(after.len()) - start;
    let end = before.iter().rev().zip(after.iter().rev()).take(rest).take_while(|(one, other)| one == other).count();
    let date_of = |line: &[u8]| {
        let text = String::from_utf8_lossy(line);
        text.split(',').nth(1).unwrap_or_default().trim_matches(['"', ' ']).to_owned()
    };
    let touched = before[start..before.len() - end].iter().chain(&after[start..after.len() - end]);
    let dates: BTreeSet<String> = touched.map(|line| date_of(line)).collect();
    let mut days = [Day::Same; RIDES];
    for (nth, day) in days.iter_mut().enumerate() {
        if dates.contains(&format!("201804{:02}", nth + 1)) {
            *day = Day::Doubtful;
        }
    }
    // Of two values of a day, the later is named, wherever the damage is.
    let of_dates =
        after.iter().enumerate().filter(|(_, line)| dates.contains(&date_of(line))).map(|(nth, _)| nth as u64 + 1);
    let lines = (start as u64 + 1..=(after.len() - end) as u64).chain(of_dates).collect();
    Mutation::of_station(words, text, Expected::Damaged { days, lines })
}

/// A kind of mutation of weather.
type Kind = (&'static str, fn(&mut Draw) -> Mutation);

const KINDS: [Kind; 8] = [
    ("bad row", bad_row),
    ("bad value", bad_value),
    ("impossible", impossible),
    ("writing", writing),
    ("not weather", not_weather),
    ("station list", list),
    ("cut file", cut),
    ("damaged file", damage),
];

/// Runs the mutation of weather with that seed. Returns its kind, its outcome, and its duration.
pub(super) fn run(seed: u64) -> (&'static str, String, Duration) {
    let (kind, make) = KINDS[(seed % KINDS.len() as u64) as usize];
    let mutation = make(&mut Draw::of_seed(seed));
    let about = format!("weather seed {seed}, {kind}: {}", mutation.words);
    let job = Job::new();
    for (path, bytes) in &mutation.files {
        let file = job.weather.join(path);
        match bytes {
            Some(bytes) => write(&file, bytes),
            None => std::fs::remove_file(file).expect("removed"),
        }
    }
    let outcome = job.run("rides.ndjson", rides(RIDES).join("\n"));
    let came_of_it = check(&about, &mutation.expected, &outcome);
    (kind, came_of_it, outcome.took)
}

fn check(about: &str, expected: &Expected, outcome: &Outcome) -> String {
    let days = match expected {
        Expected::Unusable { file, words } => {
            let why = outcome.refusal();
            assert_eq!(outcome.code, 3, "{about}: {outcome:?}");
            for part in ["weather_unusable", *file, *words] {
                assert!(why.to_lowercase().contains(&part.to_lowercase()), "{about}: {part} is missing: {why}");
            }
            return "weather_unusable".to_owned();
        }
        Expected::Joined { days, .. } | Expected::Damaged { days, .. } => days,
    };
    assert_eq!(outcome.rides(), (RIDES as u64, RIDES as u64, 0), "{about}: {outcome:?}");
    outcome.check_account(about);
    let mut lost = 0;
    for (nth, day) in days.iter().enumerate() {
        let row = outcome.row(nth).unwrap_or_else(|| panic!("{about}: no row {nth}: {outcome:?}"));
        let elements = ["tmin", "tmax", "prcp"].map(|column| row[column].parse::<i64>().ok());
        match day {
            Day::Same => assert_eq!(elements, values(nth + 1).map(Some), "{about}: day {}: {outcome:?}", nth + 1),
            Day::Lost => assert_eq!(elements, [None; 3], "{about}: day {}: {outcome:?}", nth + 1),
            Day::Doubtful => assert!(elements == [None; 3] || !elements.contains(&None), "{about}: {outcome:?}"),
        }
        lost += u64::from(elements == [None; 3]);
    }
    let without = outcome.manifest()["without_weather"].as_object().expect("reasons").values();
    assert_eq!(without.filter_map(Value::as_u64).sum::<u64>(), lost, "{about}: {outcome:?}");
    check_warnings(about, expected, outcome);
    match lost {
        0 => "every ride has weather".to_owned(),
        8 => "no ride has weather".to_owned(),
        _ => "some rides have no weather".to_owned(),
    }
}

/// Each row or day left out is named with its file, line and column, and nothing else is.
fn check_warnings(about: &str, expected: &Expected, outcome: &Outcome) {
    let warnings = outcome.json["weather_warnings"].as_array().expect("warnings");
    match expected {
        Expected::Joined { left_out: None, .. } => assert!(warnings.is_empty(), "{about}: {warnings:?}"),
        Expected::Joined { left_out: Some((reason, line, column)), about: station, .. } => {
            let [warning] = warnings.as_slice() else { panic!("{about}: {warnings:?}") };
            assert_eq!(warning["station"], *station, "{about}: {warning}");
            assert!(warning["file"].as_str().is_some_and(|file| file.contains(station)), "{about}: {warning}");
            assert_eq!(warning["left_out"], serde_json::json!({ *reason: 1 }), "{about}: {warning}");
            let sample = &warning["samples"][0];
            assert_eq!(sample["line"], *line, "{about}: {warning}");
            assert!(*line == 0 || sample["column"] == *column, "{about}: {warning}");
        }
        Expected::Damaged { lines, .. } => {
            let samples = warnings.iter().flat_map(|warning| warning["samples"].as_array().expect("samples"));
            for line in samples.filter_map(|sample| sample["line"].as_u64()) {
                assert!(line == 0 || lines.contains(&line), "{about}: {lines:?}: {warnings:?}");
            }
        }
        Expected::Unusable { .. } => {}
    }
}
