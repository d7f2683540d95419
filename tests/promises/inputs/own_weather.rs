//! Tests of bad rows, bad files and impossible days of weather.

use super::{Job, STATION, STATION_HEADING, STATION_LIST, gzip, rides, station_file, write, zstd};
use std::fs;

/// A bad row of weather is left out and named with its line; the other rows are read.
#[test]
fn a_bad_row_of_weather_costs_that_row() {
    let lines = rides(28).join("\n");
    let good = station_file();
    for (name, row) in [
        ("a second value", "USW00094728,20180405,TMAX,999,,,W,"),
        ("30 February", "USW00094728,20180230,TMAX,99,,,W,"),
        ("a blank", "USW00094728,20180405,TMAX,,,,W,"),
        ("NaN", "USW00094728,20180405,TMAX,NaN,,,W,"),
        ("a fraction", "USW00094728,20180405,TMAX,15.57,,,W,"),
        ("17 bits", "USW00094728,20180405,TMAX,70000,,,W,"),
        ("7 fields", "USW00094728,20180405,TMAX,99,,W,"),
        ("9 fields", "USW00094728,20180405,TMAX,99,,,W,,"),
        ("another station", "USW00094789,20180405,TMAX,99,,,W,"),
    ] {
        let job = Job::new();
        write(&job.station_file(), format!("{good}{row}\n"));
        let outcome = job.run("rides.json", &lines);
        assert_eq!(outcome.rides(), (28, 28, 0), "{name}: {outcome:?}");
        let days_lost = u64::from(name == "a second value");
        assert_eq!(outcome.with_weather(), 28 - days_lost, "{name}: {outcome:?}");
        let warnings = outcome.json["weather_warnings"].to_string();
        assert!(warnings.contains("USW00094728.csv") && warnings.contains("\"line\":185"), "{name}: {warnings}");
    }
}

#[test]
fn weather_files_are_read_in_every_form_or_named() {
    let lines = rides(28).join("\n");
    let good = station_file();
    let file = |job: &Job| job.station_file();
    for (name, text) in [
        ("lower case", good.replace(STATION_HEADING, &STATION_HEADING.to_lowercase())),
        ("a mark", format!("\u{feff}{good}")),
        ("blank lines", good.replace('\n', "\r\n\r\n")),
    ] {
        let job = Job::new();
        write(&file(&job), &text);
        let outcome = job.run("rides.json", &lines);
        assert_eq!(outcome.with_weather(), 28, "{name}: {outcome:?}");
    }
    for (name, text) in [
        ("empty", ""),
        ("HTML", "<html><body>Service unavailable</body></html>\n"),
        ("XML", "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code></Error>"),
        ("JSON", "{\"error\": \"not found\"}"),
    ] {
        let job = Job::new();
        write(&file(&job), text);
        let outcome = job.run("rides.json", &lines);
        let why = outcome.refusal();
        assert_eq!(outcome.code, 3, "{name}: {outcome:?}");
        assert!(why.contains("weather_unusable") && why.contains("USW00094728.csv"), "{name}: {why}");
    }
    let job = Job::new();
    fs::remove_file(file(&job)).unwrap();
    fs::write(job.weather.join("csv/by_station").join(format!("{STATION}.csv.gz")), gzip(good.as_bytes())).unwrap();
    assert_eq!(job.run("rides.json", &lines).with_weather(), 28, "compressed");
    for (name, list) in
        [("twice", STATION_LIST.repeat(2)), ("moved", STATION_LIST.replace("40.7789", "10.0000") + STATION_LIST)]
    {
        let job = Job::new();
        write(&job.weather.join("ghcnd-stations.txt"), &list);
        assert_eq!(job.run("rides.json", &lines).with_weather(), 28, "listed {name}");
    }
}

/// Padding after gzip, columns in another order, ids in lower case and carriage returns cost nothing.
#[test]
fn weather_files_in_unusual_forms_are_read() {
    let lines = rides(28).join("\n");
    let good = station_file();
    let exchanged: String = good
        .lines()
        .map(|row| {
            let fields: Vec<&str> = row.split(',').collect();
            [0, 1, 2, 5, 4, 3, 6, 7].map(|field| fields[field]).join(",") + "\n"
        })
        .collect();
    for (name, text) in [
        ("columns in another order", exchanged),
        ("carriage returns", good.replace('\n', "\r")),
        ("a final blank", good.replace('\n', "\r\n") + " \r\n"),
        ("zeros at the end", good.clone() + "\0".repeat(512).as_str()),
    ] {
        let job = Job::new();
        write(&job.station_file(), text);
        let outcome = job.run("rides.json", &lines);
        assert_eq!(outcome.with_weather(), 28, "{name}: {outcome:?}");
        assert_eq!(outcome.json["weather_warnings"], serde_json::json!([]), "{name}: {outcome:?}");
    }
    for padding in [&[0; 512][..], b"\n"] {
        let job = Job::new();
        let packed = |text: &str| [&gzip(text.as_bytes())[..], padding].concat();
        fs::remove_file(job.station_file()).unwrap();
        fs::remove_file(job.weather.join("ghcnd-stations.txt")).unwrap();
        write(&job.weather.join("ghcnd-stations.txt.gz"), packed(STATION_LIST));
        write(&job.station_file().with_extension("csv.gz"), packed(&good));
        assert_eq!(job.run("rides.json", &lines).with_weather(), 28, "{} bytes of padding", padding.len());
    }
    let job = Job::new();
    write(&job.weather.join("ghcnd-stations.txt"), STATION_LIST.to_lowercase());
    let inventory =
        ["tmin", "tmax", "prcp"].map(|element| format!("usw00094728  40.7789  -73.9692 {element} 2010 2020\n"));
    write(&job.weather.join("ghcnd-inventory.txt"), inventory.concat());
    assert_eq!(job.run("rides.json", &lines).with_weather(), 28, "lists in lower case");
}

/// Weather that cannot be read is refused, with what to do.
#[test]
fn weather_in_a_form_that_is_not_read_is_named() {
    let lines = rides(5).join("\n");
    let good = station_file();
    for (name, bytes, words) in [
        ("zstd", zstd(good.as_bytes()), "zstd data: decompress it, or compress it with gzip"),
        ("gzip twice", gzip(&gzip(good.as_bytes())), "gzip data within gzip data: decompress it once"),
        ("gzip with a tail", [&gzip(good.as_bytes())[..], b"tail"].concat(), "4 bytes that are not gzip data follow"),
        (
            "no flags",
            b"ID,DATE,ELEMENT,DATA_VALUE\nUSW00094728,20180405,TMAX,99\n".to_vec(),
            "a heading with one column Q_FLAG",
        ),
    ] {
        let job = Job::new();
        write(&job.station_file(), bytes);
        let outcome = job.run("rides.json", &lines);
        let why = outcome.refusal();
        assert_eq!(outcome.code, 3, "{name}: {outcome:?}");
        assert!(why.contains("USW00094728.csv") && why.contains(words), "{name}: {why}");
    }
}

/// Impossible weather counts as no weather, and is counted by its reason.
#[test]
fn impossible_weather_is_no_observation() {
    let lines = rides(28).join("\n");
    for (reason, from, to) in [
        ("tmin_above_tmax", "TMIN,55,", "TMIN,199,"),
        ("tmax_out_of_range", "TMAX,155,", "TMAX,9999,"),
        ("prcp_out_of_range", "20180405,PRCP,3,", "20180405,PRCP,-30,"),
        ("prcp_out_of_range", "20180405,PRCP,3,", "20180405,PRCP,30000,"),
    ] {
        let job = Job::new();
        let text = station_file();
        assert!(text.contains(from), "{from}");
        write(&job.station_file(), text.replacen(from, to, 1));
        let outcome = job.run("rides.json", &lines);
        assert_eq!((outcome.rides(), outcome.with_weather()), ((28, 28, 0), 27), "{reason}: {outcome:?}");
        let warnings = outcome.json["weather_warnings"].to_string();
        assert!(warnings.contains(&format!("\"{reason}\":1")), "{reason}: {warnings}");
    }
}
