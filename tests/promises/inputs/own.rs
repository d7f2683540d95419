//! Inputs of every kind, as data, each with its expected outcome.

use super::{Job, Outcome, gzip, ride, rides};

/// The expected outcome of a document of three rides, or of the rest of it.
enum Becomes {
    /// So many accepted, none rejected.
    Accepted(u64),
    /// So many accepted, one rejected for this reason.
    Rejected(u64, &'static str),
    /// Refused as a whole with this code and these parts in its words.
    Refused(&'static str, &'static [&'static str]),
}
use Becomes::{Accepted, Refused, Rejected};

fn check(name: &str, outcome: &Outcome, becomes: &Becomes) {
    match becomes {
        Accepted(count) => {
            assert_eq!(outcome.rides(), (*count, *count, 0), "{name}: {outcome:?}");
            outcome.check_account(name);
        }
        Rejected(accepted, reason) => {
            assert_eq!(outcome.rides(), (accepted + 1, *accepted, 1), "{name}: {outcome:?}");
            assert_eq!(outcome.rejected_by(reason), 1, "{name}: {outcome:?}");
            outcome.check_account(name);
        }
        Refused(code, parts) => {
            let why = outcome.refusal();
            assert!(outcome.is_refused() && outcome.code == 3, "{name}: {outcome:?}");
            for part in parts.iter().chain([code]) {
                assert!(why.to_lowercase().contains(&part.to_lowercase()), "{name}: {part} is missing: {why}");
            }
        }
    }
}

fn run_all(cases: Vec<(&str, Vec<u8>, Becomes)>) {
    let job = Job::new();
    for (name, document, becomes) in cases {
        // The name must not matter: each document runs under two names that promise different forms.
        for file in ["rides.json", "rides.jsonl"] {
            check(&format!("{name} as {file}"), &job.run(file, &document), &becomes);
        }
    }
}

/// Several objects on a line, one over several lines, arrays among lines: each object is a ride.
#[test]
fn every_object_is_a_ride_however_they_are_laid_out() {
    let [a, b, c] = [ride(0), ride(1), ride(2)];
    let pretty = a.replace(",\"", ",\n  \"");
    run_all(vec![
        ("one line, no separator", format!("{a}{b}{c}").into(), Accepted(3)),
        ("one line, blanks", format!("{a} {b}\t{c}\n").into(), Accepted(3)),
        ("two on the first line", format!("{a}{b}\n{c}\n").into(), Accepted(3)),
        ("one on the first line", format!("{a}\n{b}{c}").into(), Accepted(3)),
        ("commas between lines", format!("{a},\n{b},\n{c}\n").into(), Accepted(3)),
        ("pretty-printed after lines", format!("{b}\n{c}\n{pretty}\n").into(), Accepted(3)),
        ("pretty-printed first", format!("{pretty}\n{b}\n{c}").into(), Accepted(3)),
        ("carriage returns", format!("{a}\r\n{b}\r\n\r\n{c}\r\n").into(), Accepted(3)),
        ("an array a line", format!("[{a}]\n[{b},{c}]\n").into(), Accepted(3)),
        ("an array after lines", format!("{a}\n[{b},{c}]\n").into(), Accepted(3)),
        ("record separators", format!("\u{1e}{a}\n\u{1e}{b}\n\u{1e}{c}\n").into(), Accepted(3)),
        ("marks before each line", format!("\u{feff}{a}\n\u{feff}{b}\n\u{feff}{c}\n").into(), Accepted(3)),
        ("a broken line between", format!("{a}\n{{\"name\": \n{c}\n").into(), Rejected(2, "invalid_json")),
        ("a broken one beside a whole one", format!("{a}\n{{\"name\":,}}{b}\n").into(), Rejected(2, "invalid_json")),
    ]);
}

#[test]
fn rides_somewhere_else_are_not_one_ride() {
    let array = format!("[{}]", rides(3).join(","));
    let split = r#"{"columns":["statustime","latitude"],"index":[0,1],"data":[["2018-04-25 17:03:05",40.7],["x",1]]}"#;
    let columns = r#"{"statustime":{"0":"2018-04-25 17:03:05"},"latitude":{"0":40.7},"distance":{"0":3}}"#;
    let lists = r#"{"statustime":["2018-04-25 17:03:05"],"latitude":[40.7],"distance":[3]}"#;
    run_all(vec![
        (
            "records",
            format!(r#"{{"records":{array}}}"#).into(),
            Refused("not_a_batch", &["records", "--rides-at records"]),
        ),
        ("nested", format!(r#"{{"data":{{"rides":{array}}}}}"#).into(), Refused("not_a_batch", &["data.rides"])),
        (
            "after a count",
            format!(r#"{{"count":3,"next":null,"items":{array}}}"#).into(),
            Refused("not_a_batch", &["items", "3"]),
        ),
        ("Records", format!(r#"{{"Records":{array}}}"#).into(), Refused("not_a_batch", &["Records"])),
        ("a task envelope", format!(r#"[[{array}],{{}},{{"chain":null}}]"#).into(), Refused("not_a_batch", &[])),
        (
            "an array of batches",
            format!(r#"[{{"rides":{array}}},{{"rides":{array}}}]"#).into(),
            Refused("not_a_batch", &[]),
        ),
        (
            "an envelope a line",
            format!("{{\"data\":{array}}}\n{{\"data\":{array}}}\n").into(),
            Refused("not_a_batch", &[]),
        ),
        (
            "an envelope with a time",
            format!(r#"{{"statustime":"2018-05-01 00:00:00","data":{array}}}"#).into(),
            Refused("not_a_batch", &["data", "3", "--rides-at data"]),
        ),
        (
            "lines with a time around a ride",
            rides(3)
                .iter()
                .map(|ride| format!("{{\"statustime\":\"2018-05-01 00:00:00\",\"payload\":{ride}}}\n"))
                .collect::<String>()
                .into(),
            Refused("not_a_batch", &["payload"]),
        ),
        (
            "a ride around rides",
            ride(0).replacen('{', &format!("{{\"rides\":{array},"), 1).into(),
            Refused("not_a_batch", &["as an element of the array"]),
        ),
        (
            "a ride with rides in it",
            ride(0).replacen('{', &format!("{{\"legs\":{array},"), 1).into(),
            Refused("not_a_batch", &["legs", "del(.legs)"]),
        ),
        (
            "rides twenty arrays deep",
            format!("{}{array}{}", "[".repeat(20), "]".repeat(20)).into(),
            Refused("not_a_batch", &["element 0"]),
        ),
        ("rides by their ids", format!(r#"{{"rides":{{"a":{}}}}}"#, ride(0)).into(), Refused("not_a_batch", &["jq"])),
        ("an error", br#"{"error":"not found","status":404}"#.to_vec(), Refused("not_a_batch", &["error"])),
        ("a split frame", split.into(), Refused("not_a_batch", &["records"])),
        ("a frame by columns", columns.into(), Refused("not_a_batch", &["records"])),
        ("a frame as lists", lists.into(), Refused("not_a_batch", &["records"])),
    ]);
}

/// The options that the refusals suggest do read the rides.
#[test]
fn rides_are_read_where_and_as_the_options_say() {
    let array = format!("[{}]", rides(3).join(","));
    let nested = format!(r#"{{"data":{{"rides":{array}}}}}"#);
    check("nested", &Job::new().option("--rides-at data.rides").run("rides.json", nested), &Accepted(3));
    let features: Vec<String> =
        rides(3).iter().map(|ride| format!(r#"{{"type":"Feature","properties":{ride}}}"#)).collect();
    let features = format!(r#"{{"type":"FeatureCollection","features":[{}]}}"#, features.join(","));
    let job = Job::new().option("--rides-at features[].properties");
    check("features", &job.run("rides.json", features), &Accepted(3));
    let renamed: Vec<String> = rides(3)
        .iter()
        .map(|ride| {
            ride.replace("statustime", "status_time").replace("\"latitude\"", "\"lat\"").replace("distance", "km")
        })
        .collect();
    let renamed = renamed.join("\n");
    let unmapped = Job::new().run("rides.ndjson", &renamed);
    assert_eq!(unmapped.rides(), (3, 0, 3), "{unmapped:?}");
    let suggestions = unmapped.json["mostly_rejected"][0]["sample"]["suggestions"].to_string();
    assert!(suggestions.contains("statustime=status_time") && suggestions.contains("latitude=lat"), "{suggestions}");
    let job = Job::new().option("--map statustime=status_time --map latitude=lat --map distance=km*0.5");
    check("mapped", &job.run("rides.ndjson", &renamed), &Accepted(3));
    let missing = Job::new().option("--rides-at nowhere").run("rides.json", format!(r#"{{"data":{array}}}"#));
    check("a path that leads nowhere", &missing, &Refused("not_a_batch", &["nowhere"]));
}

#[test]
fn values_are_read_as_people_write_them() {
    let with = |from: &str, to: &str| {
        let all = [ride(0).replace(from, to), ride(1), ride(2)];
        format!("[{}]", all.join(",\n")).into_bytes()
    };
    let time = "\"2018-04-01 00:03:05\"";
    let (label, meter) = ("\"fieldservice\":0", "\"magicpoints\":290");
    run_all(vec![
        ("UTC", with(time, "\"2018-04-01 00:03:05 UTC\""), Accepted(3)),
        ("basic form", with(time, "\"20180401T000305Z\""), Accepted(3)),
        ("seconds", with(time, "1522540985"), Accepted(3)),
        ("milliseconds in a text", with(time, "\"1522540985000\""), Accepted(3)),
        ("American", with(time, "\"4/1/2018 00:03\""), Rejected(2, "invalid_statustime")),
        ("a date", with(time, "\"2018-04-01\""), Rejected(2, "invalid_statustime")),
        ("true", with(label, "\"fieldservice\":true"), Accepted(3)),
        ("FALSE", with(label, "\"fieldservice\":\"FALSE\""), Accepted(3)),
        ("no label", with(label, "\"fieldservice\":\"null\""), Accepted(3)),
        ("a NaN label", with(label, "\"fieldservice\":NaN"), Accepted(3)),
        ("an infinite label", with(label, "\"fieldservice\":Infinity"), Rejected(2, "invalid_fieldservice")),
        ("no id", with(meter, "\"ride_id\":\"NaN\",\"magicpoints\":290"), Accepted(3)),
        (
            "an id beyond exact floats",
            with(meter, "\"ride_id\":9007199254740993.0,\"magicpoints\":290"),
            Rejected(2, "invalid_ride_id"),
        ),
        ("yes", with(label, "\"fieldservice\":\"yes\""), Rejected(2, "invalid_fieldservice")),
        ("NaN", with(meter, "\"magicpoints\":NaN"), Rejected(2, "invalid_magicpoints")),
        ("-Infinity", with(meter, "\"magicpoints\":-Infinity"), Rejected(2, "invalid_magicpoints")),
        ("NA", with(meter, "\"magicpoints\":NA"), Rejected(2, "invalid_magicpoints")),
        ("a blank before", with(meter, "\"magicpoints\":\" 290\""), Accepted(3)),
        ("an exponent", with(meter, "\"magicpoints\":\"2.9e+02\""), Accepted(3)),
        ("a plus", with(meter, "\"magicpoints\":\"+290\""), Accepted(3)),
        ("a comma", with(meter, "\"magicpoints\":\"290,5\""), Rejected(2, "invalid_magicpoints")),
        ("a key with a mark", with("\"name\"", "\"\u{feff}Name \""), Accepted(3)),
        ("an id that is a float", with(meter, "\"ride_id\":7.0,\"magicpoints\":290"), Accepted(3)),
    ]);
}

fn utf16(text: &str) -> Vec<u8> {
    "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
}

#[test]
fn wrappings_are_opened_and_foreign_formats_named() {
    let lines = rides(3).join("\n");
    let packed = gzip(lines.as_bytes());
    let csv = "statustime;latitude;longitude;distance;healthpoints;magicpoints;fieldservice;name\n\
               2018-04-01 00:03:05;40.7;-73.9;29;290;290;0;\"Twilight; \"\"the\"\" unicorn\"\n\
               2018-04-02 00:03:05;40.7;-73.9;29;290;290;;\n\
               2018-04-03 00:03:05;40.7;-73.9;29;290;290;true;x\n";
    let tabs = csv.replace("Twilight; ", "Twilight ").replace(';', "\t");
    let open = csv.replace("unicorn\"\n", "unicorn\n");
    let short = csv.replace("2018-04-02 00:03:05;40.7;-73.9;", "2018-04-02 00:03:05;40.7;");
    let mut tar = vec![0; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    run_all(vec![
        ("gzip", packed.clone(), Accepted(3)),
        ("gzip and zeros", [packed.clone(), vec![0; 700]].concat(), Accepted(3)),
        ("gzip and a newline", [packed.clone(), b"\r\n".to_vec()].concat(), Accepted(3)),
        ("gzip and more", [packed.clone(), b"more".to_vec()].concat(), Refused("bad_compression", &["4 bytes"])),
        ("gzip in gzip", gzip(&packed), Refused("bad_compression", &["twice"])),
        ("UTF-16", utf16(&lines), Accepted(3)),
        ("UTF-16 without a mark", utf16(&lines)[2..].to_vec(), Refused("unsupported_format", &["UTF-16"])),
        ("semicolons", csv.into(), Accepted(3)),
        ("tabs, a mark, CRLF", format!("\u{feff}{}", tabs.replace('\n', "\r\n")).into(), Accepted(3)),
        ("gzip of CSV", gzip(csv.as_bytes()), Accepted(3)),
        ("commas at the ends of rows", csv.replace(";true;x\n", ";true;x;\n").into(), Accepted(3)),
        ("blanks around quotes", csv.replace(";\"", " ; \"").into(), Accepted(3)),
        ("comments before the header", format!("# rides of 2018\n{csv}").into(), Accepted(3)),
        ("the end-of-file mark of DOS", format!("{csv}\u{1a}").into(), Accepted(3)),
        ("a title before the header", format!("Rides of 2018\n\n{csv}").into(), Refused("not_a_batch", &["line 3"])),
        (
            "a column of placeholders",
            csv.replace(";name\n", ";ride_id\n").replace(";;\n", ";;NULL\n").replace(";true;x", ";true;NULL").into(),
            Accepted(3),
        ),
        ("a row with a cell too few", short.into(), Rejected(2, "not_an_object")),
        ("a quote that stays open", open.into(), Refused("invalid_csv", &["line 2"])),
        ("zip", b"PK\x03\x04\x14\0\0\0".to_vec(), Refused("unsupported_format", &["zip"])),
        ("tar", tar, Refused("unsupported_format", &["tar"])),
        ("bzip2", b"BZh91AY&SY\x8e\x13\0\x02".to_vec(), Refused("unsupported_format", &["bzip2"])),
        ("xz", b"\xFD7zXZ\0\0".to_vec(), Refused("unsupported_format", &["xz"])),
        ("Avro", b"Obj\x01\x04\x14".to_vec(), Refused("unsupported_format", &["Avro"])),
        ("HTML", b"<!DOCTYPE html><html></html>".to_vec(), Refused("unsupported_format", &["HTML"])),
        (
            "a Git LFS pointer",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n".to_vec(),
            Refused("unsupported_format", &["LFS"]),
        ),
    ]);
}
