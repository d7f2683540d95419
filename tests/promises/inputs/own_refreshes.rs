//! Tests of weather that is published after the rides.

use super::{Job, STATION, STATION_HEADING, ride, write};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use pipeline_tests::processes::{json_output, succeed, wildrydes};
use std::{fmt::Write, fs, path::Path, process::Command};

/// Number of rides: enough for a training.
const RIDES: usize = 400;

fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

/// A station file with every day of this and the last year up to `last`.
fn published_until(last: Date) -> String {
    let mut text = STATION_HEADING.to_owned();
    let mut day = Date::new(last.year() - 1, 1, 1).expect("a date");
    while day <= last {
        let (date, number) = (day.strftime("%Y%m%d"), i32::from(day.day()));
        for (element, value) in [("TMIN", 50 + number), ("TMAX", 150 + number), ("PRCP", 3 * (number % 4))] {
            writeln!(text, "{STATION},{date},{element},{value},,,W,").expect("a text");
        }
        day = day.tomorrow().expect("a date");
    }
    text
}

/// The objects of a dataset's first revision.
fn first_revision(dataset: &Path) -> Vec<Vec<u8>> {
    ["manifest.json", "part-00000.csv"].map(|name| fs::read(dataset.join(name)).expect("the first revision")).into()
}

/// Number of model versions with an artefact.
fn models(store: &Path) -> usize {
    let versions = fs::read_dir(store.join("models/service-request")).into_iter().flatten().flatten();
    versions.filter(|version| version.path().join("model.json").is_file()).count()
}

/// Rides of yesterday have no weather at first. Refreshed after it was published, they have it in revision 2; revision 1 stays byte
/// for byte, and one training follows. A further refresh changes nothing.
#[test]
fn rides_of_yesterday_get_their_weather_once_it_is_published() {
    let mut job = Job::new();
    job.keeps_store = true;
    let yesterday = today().yesterday().expect("a date");
    let week_before = yesterday.saturating_sub(jiff::Span::new().days(7));
    write(&job.station_file(), published_until(week_before));
    // Half of the rides are older, so that there is a model before.
    let rides: Vec<String> = (0..RIDES)
        .map(|n| ride(n).replace(&format!("2018-04-{:02}", 1 + n % 28), &[yesterday, week_before][n % 2].to_string()))
        .collect();
    let first = job.run("rides.json", rides.join("\n"));
    let half = RIDES as u64 / 2;
    assert_eq!(first.manifest()["without_weather"]["not_yet_published"], half, "{first:?}");
    let store = job.path("store");
    let dataset = store.join("dataset").join(first.batch_id());
    let (before, trained) = (first_revision(&dataset), models(&store));

    let refresh = |more: &[&str]| -> Command {
        let mut command = wildrydes();
        command.arg("refresh").args(more).arg("--weather").arg(&job.weather).arg("--store").arg(&store);
        command
    };
    let listed = succeed(&mut refresh(&["--stale", "--dry-run"]));
    assert_eq!(listed, format!("would refresh batch {}\n", first.batch_id()));
    // Nothing was published yet.
    let unchanged = json_output(&mut refresh(&["--stale"]));
    assert_eq!((&unchanged["refreshed"][0]["revision"], &unchanged["refreshed"][0]["gained"]), (&1.into(), &0.into()));
    assert_eq!((first_revision(&dataset), models(&store)), (before.clone(), trained));

    write(&job.station_file(), published_until(yesterday));
    let text = succeed(&mut refresh(&["--stale"]));
    assert!(text.contains(&format!("revision 2: {half} rides gained weather, 0 changed, 0 lost\n")), "{text}");
    assert_eq!((first_revision(&dataset), models(&store)), (before.clone(), trained + 1));
    let status = json_output(wildrydes().arg("status").arg(first.batch_id()).arg("--store").arg(&store));
    assert!(status.to_string().contains("\"revision\":2"), "{status}");
    let exported = job.path("rides.csv");
    succeed(wildrydes().args(["export", "--no-dictionary", "--store"]).arg(&store).arg("--out").arg(&exported));
    let rows = csv::Reader::from_path(exported).expect("a file").into_records().map(|row| row.expect("a row"));
    let with_weather = rows.filter(|row| row.iter().any(|cell| cell == STATION)).count();
    assert_eq!(with_weather, RIDES, "the newest revision is exported");

    let none = succeed(&mut refresh(&["--stale"]));
    assert_eq!(none, "no batch waits for weather to be published\n");
    let again = succeed(&mut refresh(&[first.batch_id()]));
    assert!(again.contains("unchanged, revision 2\n"), "{again}");
    assert_eq!((first_revision(&dataset), models(&store)), (before, trained + 1));
}
