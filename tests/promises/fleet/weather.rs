//! Tests with weather over HTTP.

use pipeline_tests::{
    noaa::{Data, Fault, Noaa},
    processes::{Fleet, Input, dataset_sha256, json_output},
};

/// A weather service that is first down and then sends garbage gives the same dataset as a folder: the outage is waited out, no
/// value is made up, no ride misses its weather.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_weather_service_that_fails_at_first_changes_no_byte() {
    let input = Input::of(2_000);
    let from_folder = input.run(&[]);
    let noaa = Noaa::start(Data::Folder(input.weather.clone())).await.unwrap();
    noaa.fail_next("ghcnd-stations.txt", 1, Fault::Status(503, None));
    noaa.fail_next("csv/by_station/", 1, Fault::Garbage);
    noaa.fail_next("csv/by_station/", 1, Fault::Status(503, None));
    let fleet = Fleet::start_with(1, noaa.url(), &[("WILDRYDES__WEATHER__REQUESTS_PER_SECOND", "1000")]);
    let ingested = json_output(fleet.wildrydes().arg("ingest").arg(&input.rides));
    assert_eq!(dataset_sha256(&ingested), dataset_sha256(&from_folder));
    assert_eq!(ingested["batches"][0]["manifest"], from_folder["batches"][0]["manifest"]);
    assert!(noaa.requests("ghcnd-stations.txt") >= 2, "asked again after the 503");
    let stations = std::fs::read_dir(input.weather.join("csv/by_station")).unwrap().count();
    let asked = noaa.requests("csv/by_station/");
    // At most one request per station and year, and one more for each of the two bad answers.
    assert!((3..=stations + 2).contains(&asked), "{asked} requests for {stations} stations");
    assert_eq!(fleet.champion()["model_id"], from_folder["model"]["model_id"]);
    fleet.finish().await;
}
