//! The worker against a stub of NOAA's services.

mod answers;
mod broken;
#[path = "../../../tests/support/forecasts.rs"]
pub(crate) mod forecasts;
mod forms;
mod inspection;
mod live;
#[path = "../../../tests/support/noaa.rs"]
pub(crate) mod noaa;
mod refreshed;

use crate::{Settings, WeatherFetcher};
use common::{
    envelope::{Envelope, Properties},
    message::{EnrichedChunk, RideChunk, decode},
    outcome::Failure,
    ride::{Observation, Ride, StatusTime, Weather, WeatherMissing},
};
use futures::{StreamExt, future::join_all};
use noaa::{Data, Fault, Noaa};
use records::{Store, store};
use runtime::Worker;
use std::{path::Path, sync::Arc, time::Duration};

/// Central Park has all three elements; a nearer rain gauge does not; Boston is out of reach of New York.
pub(crate) const PARK: &str = "USW00094728";
const GAUGE: &str = "US1NYNY0074";
pub(crate) const BOSTON: &str = "USW00014739";

pub(crate) fn new_york() -> Data {
    Data::empty()
        .with_station(PARK, 40.7789, -73.9692)
        .with_station(GAUGE, 40.7969, -73.9330)
        .with_station(BOSTON, 42.3606, -71.0097)
        .with_day(PARK, "20180425", (111, 156, 241))
        .with_day(PARK, "20190425", (100, 150, 0))
        .with_file(&format!("csv/by_station/{GAUGE}.csv"), format!("{GAUGE},20180425,PRCP,200,,,N,0700\n"))
}

fn ride(statustime: &str, latitude: f64, longitude: f64) -> Ride {
    Ride {
        ride_id: "r".into(),
        name: "Twilight".into(),
        breed: None,
        statustime: statustime.parse::<StatusTime>().unwrap(),
        latitude,
        longitude,
        distance: 1.0,
        healthpoints: 1.0,
        magicpoints: 1.0,
        fieldservice: None,
    }
}

pub(crate) fn in_harlem(statustime: &str) -> Ride {
    ride(statustime, 40.81, -73.94)
}

pub(crate) fn memory_store() -> Store {
    Arc::new(object_store::memory::InMemory::new())
}

pub(crate) fn fetcher(settings: Settings, store: &Store) -> WeatherFetcher {
    WeatherFetcher::new(Settings { requests_per_second: 1_000, ..settings }, store.clone()).unwrap()
}

pub(crate) fn of(source: String) -> Settings {
    Settings { source, ..Settings::default() }
}

async fn enrich(fetcher: &WeatherFetcher, rides: Vec<Ride>) -> Result<Vec<Weather>, Failure> {
    let payload = RideChunk { batch_id: "b".to_owned(), chunk: 3, split_id: None, digest: None, refresh: None, rides };
    let outputs = fetcher.handle(Envelope { payload, properties: Properties::default() }).await?;
    let messages: Vec<_> = outputs.into_stream().map(Result::unwrap).collect().await;
    assert_eq!(messages.len(), 1);
    let chunk: EnrichedChunk = decode(&messages[0].body).unwrap();
    assert_eq!((chunk.batch_id.as_str(), chunk.chunk), ("b", 3));
    Ok(chunk.rides.into_iter().map(|ride| ride.weather).collect())
}

pub(crate) async fn enrich_one(fetcher: &WeatherFetcher) -> Result<Weather, Failure> {
    enrich(fetcher, vec![in_harlem("2018-04-25 12:00:00")]).await.map(|mut weather| weather.remove(0))
}

pub(crate) fn park(tmin: i32, tmax: i32, prcp: i32) -> Weather {
    let station_km = crate::stations::nearest::haversine_km((40.81, -73.94), (40.7789, -73.9692));
    Weather::Observed(Observation { groundstation: PARK.into(), station_km, tmin, tmax, prcp })
}

fn why(result: Result<Weather, Failure>) -> (String, Option<Duration>) {
    match result {
        Err(Failure::Outage { dependency: "weather service", why, retry_after }) => (why, retry_after),
        other => panic!("expected an outage, got {other:?}"),
    }
}

/// Settings for the bucket and for the access service.
fn each_service(noaa: &Noaa) -> [Settings; 2] {
    let stations = Some(format!("{}/ghcnd-stations.txt", noaa.url()));
    [of(noaa.url()), Settings { stations, ..of(noaa.ncei_url()) }]
}

#[tokio::test]
async fn a_ride_gets_the_nearest_station_with_all_three_elements() {
    let noaa = Noaa::start(new_york()).await.unwrap();
    for settings in each_service(&noaa) {
        let fetcher = fetcher(Settings { contact: Some("ops@example.org".to_owned()), ..settings }, &memory_store());
        let rides = vec![
            in_harlem("2018-04-25 23:59:59.999"),
            in_harlem("2018-04-26 00:00:00"),
            in_harlem("2019-04-25 00:00:00"),
            ride("2018-04-25 12:00:00", 0.0, 0.0),
            in_harlem("1700-01-01 00:00:00"),
            in_harlem("9999-01-01 00:00:00"),
        ];
        let missing = Weather::Missing(WeatherMissing::NoObservationOnDate);
        let expected = vec![
            park(111, 156, 241),
            missing.clone(),
            park(100, 150, 0),
            Weather::Missing(WeatherMissing::NoStationInReach),
            missing,
            Weather::Missing(WeatherMissing::NotYetPublished),
        ];
        assert_eq!(enrich(&fetcher, rides).await.unwrap(), expected);
    }
    assert_eq!(noaa.requests(&format!("by_station/{PARK}")), 1, "both years in one download");
    assert_eq!(noaa.requests(&format!("stations={PARK}")), 2, "a request for each year");
    assert_eq!(noaa.requests("=1700-"), 0);
    assert_eq!(noaa.requests("=9999-"), 0);
    assert_eq!(noaa.requests(BOSTON), 0, "out of reach");
    let version = env!("CARGO_PKG_VERSION");
    let agent = format!("wildrydes-weather-fetcher/{version} (+ops@example.org)");
    assert_eq!(noaa.user_agents().into_iter().collect::<Vec<_>>(), [agent]);
}

#[tokio::test]
async fn the_inventory_saves_requests() {
    let mut inventory = String::new();
    for (station, element) in [(PARK, "TMIN"), (PARK, "TMAX"), (PARK, "PRCP"), (GAUGE, "PRCP")] {
        inventory.push_str(&format!("{station}  40.7789  -73.9692 {element} 2010 2018\n"));
    }
    let noaa = Noaa::start(new_york().with_file("ghcnd-inventory.txt", inventory)).await.unwrap();
    let fetcher = fetcher(of(noaa.url()), &memory_store());
    assert_eq!(enrich_one(&fetcher).await.unwrap(), park(111, 156, 241));
    let later = enrich(&fetcher, vec![in_harlem("2019-04-25 00:00:00")]).await.unwrap();
    assert_eq!(later, [Weather::Missing(WeatherMissing::NoObservationOnDate)]);
    assert_eq!((noaa.requests(GAUGE), noaa.requests(PARK)), (0, 1));
}

#[tokio::test]
async fn concurrent_chunks_share_one_request() {
    let noaa = Noaa::start(new_york()).await.unwrap();
    noaa.fail_next(PARK, 1, Fault::Hold);
    let fetcher = fetcher(of(noaa.url()), &memory_store());
    let all = async { join_all((0..20).map(|_| enrich_one(&fetcher))).await };
    let release = async {
        noaa.held(1).await;
        noaa.release();
    };
    let (all, ()) = tokio::join!(all, release);
    assert!(all.into_iter().all(|weather| weather == Ok(park(111, 156, 241))));
    assert_eq!((noaa.requests(PARK), noaa.requests(GAUGE), noaa.requests("stations.txt")), (1, 1, 1));
}

/// A fetcher with a short timeout for the access service, and with its station list in a folder.
fn with_short_timeout(noaa: &Noaa, folder: &Path) -> WeatherFetcher {
    let Data::Files(files) = Data::empty().with_station(PARK, 40.7789, -73.9692) else { unreachable!() };
    let list = folder.join("ghcnd-stations.txt");
    std::fs::write(&list, &files["ghcnd-stations.txt"]).unwrap();
    let stations = Some(list.to_str().unwrap().to_owned());
    fetcher(Settings { stations, request_timeout_ms: 100, ..of(noaa.ncei_url()) }, &memory_store())
}

#[tokio::test]
async fn concurrent_chunks_share_the_outage_of_a_silent_service() {
    let noaa = Noaa::start(new_york()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let fetcher = with_short_timeout(&noaa, folder.path());
    let nowhere = enrich(&fetcher, vec![ride("2018-04-25 12:00:00", 0.0, 0.0)]).await;
    assert_eq!(nowhere, Ok(vec![Weather::Missing(WeatherMissing::NoStationInReach)]));
    noaa.fail_next(PARK, 3, Fault::Hold);
    for weather in join_all((0..20).map(|_| enrich_one(&fetcher))).await {
        let (text, _) = why(weather);
        assert!(text.contains("time"), "{text}");
    }
    assert_eq!(noaa.requests(PARK), 3);
}

#[tokio::test]
async fn a_missing_file_is_cached() {
    let data = new_york().with_station("USC00300000", 40.80, -73.94);
    let noaa = Noaa::start(data).await.unwrap();
    let store = memory_store();
    for settings in each_service(&noaa) {
        let fetcher = fetcher(settings, &store);
        // Once a source had a file, its 404 answers are reliable.
        enrich(&fetcher, vec![ride("2018-04-25 12:00:00", 40.7789, -73.9692)]).await.unwrap();
        for _ in 0..3 {
            assert_eq!(enrich_one(&fetcher).await, Ok(park(111, 156, 241)));
        }
    }
    assert_eq!(noaa.requests("USC00300000"), 2, "plain and compressed; the second fetcher read it in the store");
    let cached = store::read(&store, "weather/USC00300000/2018.csv").await.unwrap().unwrap();
    assert_eq!(cached, "date,tmin,tmax,prcp\n");
}

#[tokio::test]
async fn answers_of_a_source_without_any_file_are_not_stored() {
    let noaa = Noaa::start(Data::empty().with_station(PARK, 40.7789, -73.9692)).await.unwrap();
    let store = memory_store();
    let fetcher = fetcher(of(noaa.url()), &store);
    for _ in 0..2 {
        assert_eq!(enrich_one(&fetcher).await, Ok(Weather::Missing(WeatherMissing::NoObservationOnDate)));
    }
    assert_eq!(noaa.requests(PARK), 2, "plain and compressed; kept in memory");
    assert_eq!(store::exists(&store, &format!("weather/{PARK}/2018.csv")).await, Ok(false));
}

#[tokio::test]
async fn a_chunk_beyond_the_deadline_is_an_outage_and_continues_from_the_cache() {
    let noaa = Noaa::start(new_york()).await.unwrap();
    noaa.fail_next(PARK, 1, Fault::Hold);
    let mut fetcher = fetcher(of(noaa.url()), &memory_store());
    fetcher.deadline = Duration::ZERO;
    let (text, retry_after) = why(enrich_one(&fetcher).await);
    assert!(text.contains("continues from the cache"), "{text}");
    assert_eq!(retry_after, None);
    fetcher.deadline = crate::almanac::READ_DEADLINE;
    noaa.release();
    assert_eq!(enrich_one(&fetcher).await, Ok(park(111, 156, 241)));
}

#[tokio::test]
async fn the_store_is_a_cache_that_outlives_the_process() {
    let noaa = Noaa::start(new_york()).await.unwrap();
    let store = memory_store();
    assert_eq!(enrich_one(&fetcher(of(noaa.url()), &store)).await, Ok(park(111, 156, 241)));
    assert_eq!(noaa.requests("by_station"), 2);
    assert_eq!(enrich_one(&fetcher(of(noaa.url()), &store)).await, Ok(park(111, 156, 241)));
    assert_eq!(noaa.requests("by_station"), 2);
    // A damaged object in the cache is fetched again.
    let path = format!("weather/{PARK}/2018.csv");
    store::write(&store, &path, "date,tmin,tmax,prcp\n2018-04-25,1,").await.unwrap();
    assert_eq!(enrich_one(&fetcher(of(noaa.url()), &store)).await, Ok(park(111, 156, 241)));
    assert_eq!(noaa.requests("by_station"), 3);
    let rewritten = store::read(&store, &path).await.unwrap().unwrap();
    assert_eq!(rewritten, "date,tmin,tmax,prcp\n2018-04-25,111,156,241\n");
}

#[tokio::test]
async fn a_year_that_can_still_change_is_not_stored() {
    let noaa = Noaa::start(new_york()).await.unwrap();
    let store = memory_store();
    let settings = || Settings { settled_days: u16::MAX, ..of(noaa.url()) };
    let settings_2018 = fetcher(settings(), &store);
    assert_eq!(enrich_one(&settings_2018).await, Ok(park(111, 156, 241)));
    assert_eq!(enrich_one(&settings_2018).await, Ok(park(111, 156, 241)));
    assert_eq!(noaa.requests(PARK), 1, "kept in memory");
    assert_eq!(store::exists(&store, &format!("weather/{PARK}/2018.csv")).await, Ok(false));
}

#[tokio::test]
async fn a_request_is_repeated_after_one_failure() {
    let faults = [
        Fault::Status(500, None),
        Fault::Status(503, Some("0".to_owned())),
        Fault::Truncated,
        Fault::Garbage,
        Fault::WrongStation,
    ];
    for fault in faults {
        let noaa = Noaa::start(new_york()).await.unwrap();
        for settings in each_service(&noaa) {
            noaa.fail_next(PARK, 1, fault.clone());
            let before = noaa.requests(PARK);
            let weather = enrich_one(&fetcher(settings, &memory_store())).await;
            assert_eq!(weather, Ok(park(111, 156, 241)), "{fault:?}");
            assert_eq!(noaa.requests(PARK), before + 2, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_service_that_keeps_failing_is_an_outage() {
    let cases = [
        (Fault::Status(500, None), "500", 3),
        (Fault::Status(401, None), "access is refused", 1),
        (Fault::Status(400, None), "400", 1),
        (Fault::Truncated, "", 3),
        (Fault::Garbage, "looks like HTML", 3),
        (Fault::WrongStation, PARK, 3),
        (Fault::Redirect("http://localhost:1/elsewhere".to_owned()), "another host", 1),
        (Fault::Redirect("http://127.0.0.1:1/elsewhere".to_owned()), "or port", 1),
    ];
    for (fault, part, tries) in cases {
        let noaa = Noaa::start(new_york()).await.unwrap();
        for settings in each_service(&noaa) {
            noaa.fail_next(PARK, 3, fault.clone());
            let store = memory_store();
            let before = noaa.requests(PARK);
            let fetcher = fetcher(settings, &store);
            let (why, retry_after) = why(enrich_one(&fetcher).await);
            assert!(why.contains(part), "{fault:?}: {why}");
            assert_eq!((retry_after, noaa.requests(PARK) - before), (None, tries), "{fault:?}");
            assert_eq!(store::exists(&store, &format!("weather/{PARK}/2018.csv")).await, Ok(false), "{fault:?}");
            // The remaining faults, then a good answer.
            for _ in tries..3 {
                assert!(enrich_one(&fetcher).await.is_err());
            }
            assert_eq!(enrich_one(&fetcher).await, Ok(park(111, 156, 241)), "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_pause_that_the_service_asks_for_is_respected() {
    let noaa = Noaa::start(new_york()).await.unwrap();
    noaa.fail_next(PARK, 1, Fault::Status(429, Some("120".to_owned())));
    let fetcher = fetcher(of(noaa.url()), &memory_store());
    let (text, retry_after) = why(enrich_one(&fetcher).await);
    assert!(text.contains("429"), "{text}");
    assert_eq!(retry_after, Some(Duration::from_secs(120)));
    let asked = noaa.requests("");
    let (_, retry_after) = why(enrich_one(&fetcher).await);
    assert!(retry_after.is_some_and(|left| left <= Duration::from_secs(120)));
    assert_eq!(noaa.requests(""), asked, "no request during the pause");
}

#[tokio::test]
async fn a_missing_station_list_is_an_outage() {
    let noaa = Noaa::start(Data::empty()).await.unwrap();
    let (text, _) = why(enrich_one(&fetcher(of(noaa.url()), &memory_store())).await);
    assert!(text.contains("no station list at http://127.0.0.1"), "{text}");
    let noaa = Noaa::start(new_york()).await.unwrap();
    noaa.fail_next("ghcnd-stations.txt", 3, Fault::Truncated);
    let fetcher = fetcher(of(noaa.url()), &memory_store());
    assert!(enrich_one(&fetcher).await.is_err());
    assert_eq!(enrich_one(&fetcher).await, Ok(park(111, 156, 241)));
}

/// A folder with these files.
fn folder_of(data: Data) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let Data::Files(files) = data else { unreachable!() };
    for (path, content) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    folder
}

#[tokio::test]
async fn a_folder_is_a_source_and_needs_no_cache() {
    let folder = folder_of(new_york());
    let store = memory_store();
    let source = folder.path().to_str().unwrap().to_owned();
    assert_eq!(enrich_one(&fetcher(of(source.clone()), &store)).await, Ok(park(111, 156, 241)));
    assert_eq!(store::exists(&store, &format!("weather/{PARK}/2018.csv")).await, Ok(false));
    let refused = |settings| format!("{:#}", WeatherFetcher::new(settings, memory_store()).unwrap_err());
    assert!(refused(of(format!("{source}/nowhere"))).contains("no such folder"));
    std::fs::remove_file(folder.path().join("ghcnd-stations.txt")).unwrap();
    assert!(refused(of(source.clone())).contains("no station list"));
    std::fs::remove_dir_all(folder.path().join("csv/by_station")).unwrap();
    assert!(refused(of(source)).contains("there is no folder csv/by_station in it"));
}

#[test]
fn invalid_settings_are_refused_by_name() {
    use runtime::config::Settings as _;
    for (key, settings) in [
        ("source", of("s3://noaa-ghcn-pds".to_owned())),
        ("stations", Settings { stations: Some("ftp://x/y".to_owned()), ..Settings::default() }),
        ("max_station_km", Settings { max_station_km: f64::NAN, ..Settings::default() }),
        ("max_station_km", Settings { max_station_km: 0.0, ..Settings::default() }),
        ("requests_per_second", Settings { requests_per_second: 0, ..Settings::default() }),
        ("request_timeout_ms", Settings { request_timeout_ms: 0, ..Settings::default() }),
        ("unusable_patience_ms", Settings { unusable_patience_ms: 86_400_001, ..Settings::default() }),
        ("contact", Settings { contact: Some("a\nb".to_owned()), ..Settings::default() }),
    ] {
        assert_eq!(settings.check().unwrap_err().key, key);
    }
    assert_eq!(Settings::default().check(), Ok(()));
}

#[tokio::test]
async fn the_first_ride_of_the_real_data_gets_its_reference_weather() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/noaa");
    if !folder.is_dir() {
        println!("skipped: {} does not exist", folder.display());
        return;
    }
    let rides = || vec![ride("2018-04-25 17:03:05.722", 40.626722, -74.110954)];
    let observation =
        Observation { groundstation: PARK.into(), station_km: 20.715330, tmin: 111, tmax: 156, prcp: 241 };
    let expected = vec![Weather::Observed(observation)];
    let from_folder = fetcher(of(folder.to_str().unwrap().to_owned()), &memory_store());
    assert_eq!(enrich(&from_folder, rides()).await.unwrap(), expected);
    let noaa = Noaa::start(Data::Folder(folder)).await.unwrap();
    let stations = Some(format!("{}/ghcnd-stations.txt.gz", noaa.url()));
    for settings in [of(noaa.url()), Settings { stations, ..of(noaa.ncei_url()) }] {
        assert_eq!(enrich(&fetcher(settings, &memory_store()), rides()).await.unwrap(), expected);
    }
}
