//! Tests of `wildrydes export` and `wildrydes describe`.

use super::failed;
use common::dataset::Manifest;
use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::Field,
};
use pipeline_tests::processes::{Input, json_output, output, succeed, wildrydes};
use records::datasets::column_names;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// A folder with a store, and the report of the run that made it.
struct Store {
    folder: TempDir,
    report: Value,
}

impl Store {
    /// Generated rides, in one file for each number of rides.
    fn of(rides: &[u64]) -> Self {
        let input = Input::of(1);
        let files: Vec<PathBuf> = rides
            .iter()
            .enumerate()
            .map(|(seed, rides)| {
                let file = input.folder().join(format!("{seed}.json"));
                let (rides, seed) = (rides.to_string(), seed.to_string());
                succeed(wildrydes().args(["generate", "rides", "--rides", &rides, "--seed", &seed]).arg(&file));
                file
            })
            .collect();
        Self::run(&files, &input.weather)
    }

    fn run(files: &[PathBuf], weather: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut run = wildrydes();
        run.current_dir(folder.path()).arg("run").args(files).args(["--store", "store", "--weather"]).arg(weather);
        let report = json_output(run.args(["--set", "trainer.rides_min=100"]));
        Self { folder, report }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn wildrydes(&self, arguments: &[&str]) -> Command {
        let mut command = wildrydes();
        command.current_dir(self.folder.path()).args(["--store", "store"]).args(arguments);
        command
    }

    /// Ids of the batches, sorted.
    fn manifests(&self) -> Vec<Manifest> {
        let mut manifests = BTreeMap::new();
        for folder in fs::read_dir(self.path("store/dataset")).unwrap() {
            let manifest = fs::read(folder.unwrap().path().join("manifest.json")).unwrap();
            let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
            manifests.insert(manifest.batch_id.clone(), manifest);
        }
        manifests.into_values().collect()
    }

    /// The expected export of these batches.
    fn joined(&self, manifests: &[Manifest]) -> String {
        let header = column_names().join(",");
        let mut text = format!("batch_id,{header}\n");
        for manifest in manifests {
            for file in &manifest.files {
                let rows = fs::read_to_string(self.path("store").join(&file.path)).unwrap();
                let rows = rows.strip_prefix(&format!("{header}\n")).expect("a header").to_owned();
                text.extend(rows.lines().map(|row| format!("{},{row}\n", manifest.batch_id)));
            }
        }
        text
    }

    /// The files beside the store.
    fn beside(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != "store");
        names.sort();
        names
    }
}

/// The rows of a CSV export, each a map from column to value.
fn rows(csv: &str) -> Vec<BTreeMap<String, String>> {
    csv::Reader::from_reader(csv.as_bytes()).deserialize().map(|row| row.unwrap()).collect()
}

/// A CSV export is the dataset files with the batch id before each row, batches in the order of their ids.
#[test]
fn a_csv_export_is_the_dataset_files_with_the_batch_before_each_row() {
    let store = Store::of(&[900, 700]);
    let manifests = store.manifests();
    assert_eq!(manifests.len(), 2);
    let whole = store.joined(&manifests);

    let text = succeed(&mut store.wildrydes(&["export"]));
    assert_eq!(fs::read_to_string(store.path("rides.csv")).unwrap(), whole);
    assert!(text.contains("rides.csv: ") && text.contains(" of 2 batches"), "{text}");
    assert_eq!(store.beside(), ["rides.csv", "rides.csv.dictionary.json"]);
    let dictionary: Value =
        serde_json::from_slice(&fs::read(store.path("rides.csv.dictionary.json")).unwrap()).unwrap();
    assert_eq!(dictionary, json_output(wildrydes().args(["export", "--dictionary"])));
    assert!(succeed(wildrydes().args(["export", "--dictionary"])).contains("tenth of °C"));

    // An existing file is replaced only with `--force`.
    fs::write(store.path("rides.csv"), "mine").unwrap();
    let text = failed(&mut store.wildrydes(&["export"]), 2);
    assert!(text.contains("rides.csv exists: --force"), "{text}");
    assert_eq!(fs::read_to_string(store.path("rides.csv")).unwrap(), "mine");
    let exported = json_output(&mut store.wildrydes(&["export", "--force", "--no-dictionary"]));
    assert_eq!(fs::read_to_string(store.path("rides.csv")).unwrap(), whole);
    let accepted: u64 = manifests.iter().map(|manifest| manifest.accepted).sum();
    assert_eq!((&exported["rides"], &exported["bytes"]), (&json!(accepted), &json!(whole.len())));
    assert_eq!(exported["batches"], json!([manifests[0].batch_id, manifests[1].batch_id]));

    // Standard output has the rides and nothing else. A batch that is named twice is exported once.
    assert_eq!(succeed(&mut store.wildrydes(&["export", "--out", "-"])), whole);
    let second = &manifests[1].batch_id;
    let one = succeed(&mut store.wildrydes(&["export", second, second, "--out", "-"]));
    assert_eq!(one, store.joined(&manifests[1..]));
    for (arguments, part) in [
        (&["export", "--out", "-", "--json"][..], "omit --json"),
        (&["export", "--out", "nowhere/rides.csv"], "there is no folder nowhere"),
        (&["export", "--out", "store", "--force"], "store exists and is not a regular file"),
    ] {
        let text = failed(&mut store.wildrydes(arguments), 2);
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(store.beside(), ["rides.csv", "rides.csv.dictionary.json"], "nothing half written stays");
}

/// A Parquet export has the values of the CSV export: times as timestamps, numbers as numbers, null for missing values. The
/// same datasets give the same bytes.
#[test]
fn a_parquet_export_reads_back_as_the_same_values() {
    let store = Store::of(&[900, 700]);
    succeed(&mut store.wildrydes(&["export", "--out", "a.parquet"]));
    succeed(&mut store.wildrydes(&["export", "--format", "parquet"]));
    let redirected = output(&mut store.wildrydes(&["export", "--format", "parquet", "--out", "-"])).stdout;
    let bytes = fs::read(store.path("a.parquet")).unwrap();
    assert!(bytes == fs::read(store.path("rides.parquet")).unwrap() && bytes == redirected);

    let csv = rows(&succeed(&mut store.wildrydes(&["export", "--out", "-"])));
    let reader = SerializedFileReader::new(File::open(store.path("a.parquet")).unwrap()).unwrap();
    let metadata = reader.metadata().file_metadata();
    let pairs = metadata.key_value_metadata().unwrap();
    let value = |key: &str| pairs.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone()).unwrap();
    let dictionary: Value = serde_json::from_str(&value("wildrydes.dictionary")).unwrap();
    assert_eq!(dictionary, json_output(wildrydes().args(["export", "--dictionary"])));
    let batches: Vec<String> = serde_json::from_str(&value("wildrydes.batches")).unwrap();
    assert_eq!(batches, store.manifests().into_iter().map(|manifest| manifest.batch_id).collect::<Vec<_>>());

    let mut nulls = 0;
    let mut read = 0;
    for (row, expected) in reader.get_row_iter(None).unwrap().zip(&csv) {
        let row = row.unwrap();
        assert_eq!(row.len(), expected.len());
        for (name, field) in row.get_column_iter() {
            let text = &expected[name];
            let same = match field {
                Field::Null => text.is_empty(),
                Field::Str(value) => value == text,
                Field::Double(value) => text.parse() == Ok(*value),
                Field::Int(value) => text.parse() == Ok(*value),
                Field::TimestampMillis(value) => millis(text) == *value,
                other => panic!("{name} is {other:?}"),
            };
            assert!(same, "{name} is {field:?}, in CSV {text:?}");
            nulls += usize::from(matches!(field, Field::Null));
        }
        read += 1;
    }
    assert_eq!(read, csv.len());
    assert!(nulls > 0, "some rides have no weather");
}

/// Milliseconds since 1970 of `YYYY-MM-DD HH:MM:SS.fff`, by the calendar of 2000 to 2099.
fn millis(text: &str) -> i64 {
    let number = |from: usize, to: usize| text[from..to].parse::<i64>().unwrap();
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][month as usize - 1];
    let leap_days = (year - 1969) / 4 + i64::from(year % 4 == 0 && month > 2);
    let days = (year - 1970) * 365 + leap_days + before + day - 1;
    ((days * 24 + number(11, 13)) * 60 + number(14, 16)) * 60_000 + number(17, 19) * 1_000 + number(20, 23)
}

/// A damaged dataset is named with what to do, no partial file is left, and the other datasets can be exported.
#[test]
fn a_damaged_dataset_is_named_and_leaves_no_partial_export() {
    let store = Store::of(&[300, 200]);
    let manifests = store.manifests();
    let (good, bad) = (&manifests[0].batch_id, &manifests[1].batch_id);
    let path = &manifests[1].files[0].path;
    let file = store.path("store").join(path);
    let whole = fs::read(&file).unwrap();
    let refused = |part: &str| {
        for arguments in [&["export"][..], &["export", "--format", "parquet"], &["export", bad], &["describe"]] {
            let text = failed(&mut store.wildrydes(arguments), 1);
            for part in [path.as_str(), part, &format!("wildrydes replay {bad}")] {
                assert!(text.contains(part), "{part} is missing\n{text}");
            }
            assert!(store.beside().is_empty(), "{:?}", store.beside());
        }
    };
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() = b' ';
    fs::write(&file, &flipped).unwrap();
    refused("SHA-256");
    // A field that is not a number any more is reported as a file that has changed.
    let mut flipped = whole.clone();
    let digit = flipped.iter().rposition(|byte| *byte == b'.').unwrap() + 1;
    flipped[digit] = b'x';
    fs::write(&file, &flipped).unwrap();
    refused("SHA-256");
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    refused(&format!("{} bytes; its manifest says {}", whole.len() / 2, whole.len()));
    fs::remove_file(&file).unwrap();
    refused("the file is missing");
    assert_eq!(succeed(&mut store.wildrydes(&["export", good, "--out", "-"])), store.joined(&manifests[..1]));

    let manifest = store.path("store").join(format!("dataset/{bad}/manifest.json"));
    fs::write(&manifest, "{").unwrap();
    let text = failed(&mut store.wildrydes(&["export"]), 1);
    assert!(text.contains(&format!("dataset/{bad}/manifest.json")) && text.contains("replay"), "{text}");
    fs::remove_file(&manifest).unwrap();
    let text = failed(&mut store.wildrydes(&["export", bad]), 1);
    assert!(text.contains(&format!("batch {bad} has no dataset yet")), "{text}");
    assert_eq!(succeed(&mut store.wildrydes(&["export", "--out", "-"])), store.joined(&manifests[..1]));
}

/// A ride in several batches is exported as it is in each; with `--unique` once. Of the rides with label and weather there are
/// as many as the trainer counted.
#[test]
fn unique_keeps_of_each_ride_what_training_keeps() {
    let input = Input::of(1);
    let made_up = input.folder().join("made-up.ndjson");
    let options = ["generate", "rides", "--form", "ndjson", "--rides", "1200", "--bad-share", "0"];
    succeed(wildrydes().args(options).arg(&made_up));
    let made_up = fs::read_to_string(&made_up).unwrap();
    let rides: Vec<Value> = made_up.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let write = |name: &str, of: std::ops::Range<usize>, labelled: &dyn Fn(usize) -> bool| {
        let mut lines = String::new();
        for index in of {
            let mut ride = rides[index].clone();
            let fields = ride.as_object_mut().unwrap();
            fields.insert("ride_id".to_owned(), format!("ride-{index}").into());
            if !labelled(index) {
                fields.retain(|name, _| !name.eq_ignore_ascii_case("fieldservice"));
            }
            lines.push_str(&format!("{ride}\n"));
        }
        let file = input.folder().join(name);
        fs::write(&file, lines).unwrap();
        file
    };
    let files = [
        write("a.ndjson", 0..800, &|index| !index.is_multiple_of(3)),
        write("b.ndjson", 400..1200, &|index| !index.is_multiple_of(4)),
    ];
    let store = Store::run(&files, &input.weather);

    let all = rows(&succeed(&mut store.wildrydes(&["export", "--out", "-"])));
    let once = output(&mut store.wildrydes(&["export", "--unique", "--out", "-"]));
    let (once, stderr_text) =
        (rows(&String::from_utf8_lossy(&once.stdout)), String::from_utf8_lossy(&once.stderr).into_owned());
    let trainable = |row: &&BTreeMap<String, String>| !row["fieldservice"].is_empty() && !row["tmax"].is_empty();
    let ids = |rows: &[BTreeMap<String, String>]| rows.iter().map(|row| row["ride_id"].clone()).collect::<HashSet<_>>();
    assert_eq!((all.len(), ids(&all).len()), (1_600, 1_200));
    assert_eq!(once.len(), 1_200);
    assert_eq!(ids(&once), ids(&all));
    assert!(stderr_text.contains("left out: 400 rides with ids of another batch"), "{stderr_text}");
    let counts = &store.report["model"]["counts"];
    let counted = counts["train"].as_u64().unwrap() + counts["test"].as_u64().unwrap();
    assert_eq!(once.iter().filter(trainable).count() as u64, counted, "{counts}");
    // Of two with label and weather, the one with the smaller batch id.
    let mut expected: BTreeMap<&str, &str> = BTreeMap::new();
    for row in all.iter().filter(trainable) {
        expected.entry(&row["ride_id"]).or_insert(&row["batch_id"]);
    }
    for row in once.iter().filter(trainable) {
        assert_eq!(expected[row["ride_id"].as_str()], row["batch_id"]);
    }

    let labelled = json_output(&mut store.wildrydes(&["export", "--unique", "--labelled", "--out", "labelled.csv"]));
    let exported = rows(&fs::read_to_string(store.path("labelled.csv")).unwrap());
    assert!(exported.iter().all(|row| !row["fieldservice"].is_empty()));
    assert_eq!(exported.iter().filter(trainable).count() as u64, counted);
    let unlabelled = all.iter().filter(|row| row["fieldservice"].is_empty()).count();
    assert_eq!(labelled["left_out"]["unlabelled"], unlabelled);
    assert_eq!(labelled["left_out"]["duplicates"], all.len() - unlabelled - exported.len());
    let described = json_output(&mut store.wildrydes(&["describe", "--unique", "--labelled"]));
    assert_eq!((&described["rides"], &described["left_out"]), (&labelled["rides"], &labelled["left_out"]));
}

/// `describe` of the demo's rides prints the numbers that follow from the export, and known ones.
#[test]
fn describe_agrees_with_the_export() {
    let folder = tempfile::tempdir().unwrap();
    let wildrydes = |arguments: &[&str]| {
        let mut command = wildrydes();
        command.current_dir(folder.path()).args(["--store", "store"]).args(arguments);
        command
    };
    succeed(&mut wildrydes(&["demo", "--rides", "4000"]));
    let described = json_output(&mut wildrydes(&["describe"]));
    let rows = rows(&succeed(&mut wildrydes(&["export", "--out", "-"])));
    let values = |name: &str| -> Vec<Option<f64>> {
        rows.iter().map(|row| (!row[name].is_empty()).then(|| row[name].parse().unwrap())).collect()
    };
    let near = |value: &Value, expected: f64| {
        let value = value.as_f64().unwrap_or_else(|| panic!("{value} is no number"));
        assert!((value - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{value}, expected {expected}");
    };
    assert_eq!(described["rides"], rows.len());
    for (name, seen) in [
        ("rides", json!(3994)),
        ("labelled", json!(3994)),
        ("service", json!(1544)),
        ("trainable", json!(3992)),
        ("first", json!("2018-01-01 00:04:39.418")),
        ("last", json!("2018-12-31 23:12:25.738")),
        ("quantiles_of_rides", json!(3994)),
    ] {
        assert_eq!(described[name], seen, "{name}");
    }
    near(&described["columns"][8]["quantiles"]["0.95"], 346.0);
    near(&described["correlations"]["matrix"][5][9], 0.304111793701173);
    let rainy = &described["service_rates"][1]["bins"][3];
    assert_eq!((&rainy["bin"], &rainy["rides"], &rainy["service"]), (&json!("from 20 mm"), &json!(389), &json!(317)));
    for column in described["columns"].as_array().unwrap() {
        let all = values(column["name"].as_str().unwrap());
        let mut there: Vec<f64> = all.iter().copied().flatten().collect();
        there.sort_by(f64::total_cmp);
        let n = there.len() as f64;
        let mean = there.iter().sum::<f64>() / n;
        assert_eq!((&column["count"], &column["missing"]), (&json!(there.len()), &json!(all.len() - there.len())));
        near(&column["mean"], mean);
        near(&column["sd"], (there.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt());
        near(&column["min"], there[0]);
        near(&column["max"], there[there.len() - 1]);
        let middle = there[(there.len() - 1) / 2..=there.len() / 2].to_vec();
        near(&column["quantiles"]["0.5"], middle.iter().sum::<f64>() / middle.len() as f64);
    }
    let correlations = &described["correlations"];
    let names: Vec<_> = correlations["columns"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    for (i, x) in names.iter().enumerate() {
        for (j, y) in names.iter().enumerate() {
            let both: Vec<_> = values(x).into_iter().zip(values(y)).filter_map(|(x, y)| x.zip(y)).collect();
            let mean = |of: &dyn Fn(&(f64, f64)) -> f64| both.iter().map(of).sum::<f64>() / both.len() as f64;
            let (mx, my) = (mean(&|pair| pair.0), mean(&|pair| pair.1));
            let xy = mean(&|(x, y)| (x - mx) * (y - my));
            let xx = mean(&|(x, _)| (x - mx) * (x - mx));
            let yy = mean(&|(_, y)| (y - my) * (y - my));
            near(&correlations["matrix"][i][j], xy / (xx * yy).sqrt());
        }
    }
    let most_frequent = |part: &str, key: &str| described[part]["largest"][0][key].clone();
    let station =
        rows.iter().filter(|row| row["groundstation"] == most_frequent("stations", "value").as_str().unwrap());
    assert_eq!(most_frequent("stations", "rides"), station.count());
    for (rate, column) in described["service_rates"].as_array().unwrap().iter().zip(["tmax", "prcp"]) {
        assert_eq!(rate["column"], column);
        let all: u64 = rate["bins"].as_array().unwrap().iter().map(|bin| bin["labelled"].as_u64().unwrap()).sum();
        assert_eq!(all, described["trainable"].as_u64().unwrap());
    }

    let text = succeed(&mut wildrydes(&["describe"]));
    for part in ["Rides", "Columns", "Quantiles", "Correlations", "Service rate by", "Weather stations"] {
        assert!(text.contains(part), "{part} is missing\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

/// Without a dataset, both commands say so and name what to do.
#[test]
fn without_a_dataset_the_remedy_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["export", "describe"] {
        let run = |arguments: &[&str]| {
            let mut run = wildrydes();
            run.current_dir(folder.path()).args([command, "--store", "store"]).args(arguments);
            failed(&mut run, 1)
        };
        let text = run(&[]);
        assert!(text.contains("there is no store store") && text.contains("--store"), "{text}");
        fs::create_dir(folder.path().join("store")).unwrap();
        let text = run(&[]);
        assert!(text.contains("no complete dataset in store") && text.contains("wildrydes status"), "{text}");
        for unknown in ["unknown", "../unknown", ""] {
            let text = run(&[unknown]);
            assert!(text.contains("no batch") && text.contains("wildrydes status"), "{text}");
        }
        fs::remove_dir(folder.path().join("store")).unwrap();
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was made");
}
