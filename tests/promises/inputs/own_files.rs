//! Tests of ways to submit files: through pipes, a second time, and as the fleet exports them.

use super::{Job, cases::PIPES, ride, rides, station_file, write};
use pipeline_tests::processes::{output, succeed, wildrydes};
use std::{fs, path::PathBuf};

/// A pipe is read once, of any kind and however long it is silent.
#[test]
fn a_pipe_is_read_to_its_end() {
    let job = Job::new();
    let file = job.path("rides.csv");
    let csv = "statustime,latitude,longitude,distance,healthpoints,magicpoints\n2018-04-01 00:03:05,40.7,-73.9,1,2,3\n";
    write(&file, csv);
    for script in PIPES {
        assert_eq!(job.run_by(script, &file).rides(), (1, 1, 0), "{script}");
    }
    write(&file, rides(5).join("\n"));
    let in_parts = r#"{ head -c 100 "$FILE"; sleep 0.3; tail -c +101 "$FILE"; } | "$PROGRAM" run - "$@""#;
    let redirected = r#""$PROGRAM" run - "$@" < "$FILE""#;
    for script in [in_parts, redirected] {
        assert_eq!(job.run_by(script, &file).rides(), (5, 5, 0), "{script}");
    }
}

/// A pipe that ends before its first byte, and standard input given twice, are named.
#[test]
fn a_pipe_without_bytes_is_named() {
    let job = Job::new();
    for (files, words) in [(&["-"][..], "stdin is empty"), (&["-", "/dev/stdin"], "give it once")] {
        let mut run = wildrydes();
        run.arg("run").args(files).arg("--weather").arg(&job.weather).arg("--store").arg(job.path("store"));
        let ended = output(&mut run);
        let err = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success() && err.contains(words), "{files:?}: {err}");
    }
}

/// After the weather was corrected, the second run says that its dataset is from the first, what would change, and how
/// to join it again.
#[test]
fn a_dataset_from_before_the_weather_was_corrected_is_named() {
    let mut job = Job::new();
    job.keeps_store = true;
    let good = station_file();
    write(&job.station_file(), good.replace("20180403,TMAX", "20180403,SNOW"));
    let first = job.run("rides.json", rides(5).join("\n"));
    assert_eq!(
        (first.with_weather(), &first.json["batches"][0]["earlier"]),
        (4, &serde_json::Value::Null),
        "{first:?}"
    );
    write(&job.station_file(), &good);
    let second = job.run("rides.json", rides(5).join("\n"));
    let earlier = &second.json["batches"][0]["earlier"];
    assert_eq!((&earlier["rides"], &earlier["without_weather"]), (&5.into(), &1.into()), "{second:?}");
    assert_eq!(earlier["looked_up_again"]["would_have_weather"], 1, "{earlier}");
    assert_eq!((&earlier["revision"], &earlier["refreshed"]), (&1.into(), &serde_json::Value::Null), "{earlier}");
    let dataset = job.path("store").join("dataset").join(earlier["batch_id"].as_str().expect("its id"));
    let first_revision = || {
        let names = ["manifest.json", "part-00000.csv"];
        names.map(|name| fs::read(dataset.join(name)).expect("the first revision"))
    };
    let before = first_revision();
    job = job.option("--refresh");
    let third = job.run("rides.json", rides(5).join("\n"));
    let refreshed = &third.json["batches"][0]["earlier"]["refreshed"];
    assert_eq!(
        (third.with_weather(), &refreshed["revision"], &refreshed["gained"]),
        (5, &2.into(), &1.into()),
        "{third:?}"
    );
    assert_eq!(first_revision(), before);
    let manifests: Vec<&str> = ["r2", "r3"].into_iter().filter(|name| dataset.join(name).exists()).collect();
    assert_eq!(manifests, ["r2"]);
    // Once more: nothing changed since.
    let fourth = job.run("rides.json", rides(5).join("\n"));
    let refreshed = &fourth.json["batches"][0]["earlier"]["refreshed"];
    assert_eq!((&refreshed["revision"], &refreshed["gained"]), (&2.into(), &0.into()), "{fourth:?}");
    assert!(!dataset.join("r3").exists());
}

/// What the fleet exports, as CSV and as Parquet, is a batch again: the same rides with the same weather.
#[test]
fn what_the_fleet_exports_is_a_batch() {
    let mut job = Job::new();
    job.keeps_store = true;
    let bad = ride(7).replace("\"latitude\"", "\"lat\"");
    let first = job.run("rides.ndjson", format!("{}\n{bad}\n", rides(7).join("\n")));
    assert_eq!(first.rides(), (8, 7, 1), "{first:?}");
    let store = job.path("store");
    let exported = |name: &str| -> PathBuf {
        let file = job.path(name);
        succeed(
            wildrydes().args(["export", "--force", "--no-dictionary", "--store"]).arg(&store).arg("--out").arg(&file),
        );
        file
    };
    let files = [exported("rides.csv"), exported("rides.parquet")];
    job.keeps_store = false;
    for file in files {
        let again = job.run_file(&file);
        assert_eq!(again.rides(), (7, 7, 0), "{}: {again:?}", file.display());
        assert_eq!(again.dataset, first.dataset, "{}", file.display());
        // Under a name that promises another format.
        let renamed = job.path("renamed.json");
        fs::copy(&file, &renamed).expect("copied");
        assert_eq!(job.run_file(&renamed).dataset, first.dataset, "{}", file.display());
    }
}
