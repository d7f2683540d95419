//! Weather with bad rows, bad files, or missing files.

use super::{noaa::Noaa, *};
use crate::{
    cache::WEATHER_UNUSABLE,
    formats::gzip::tests::gzip,
    lookup::tests::{ask, place},
};
use common::{
    document::WeatherWarnings,
    message::{PlaceWeather, WeatherErrorCode, WeatherResponse},
};
use records::{layout, store::read_json};

pub(super) const LIST: &str = "ghcnd-stations.txt";

pub(super) fn file_of(station: &str) -> String {
    format!("csv/by_station/{station}.csv")
}

pub(super) fn source(folder: &tempfile::TempDir) -> Settings {
    of(folder.path().to_str().unwrap().to_owned())
}

pub(super) async fn warnings(store: &Store, station: &str) -> Option<WeatherWarnings> {
    read_json(store, &layout::weather_warnings(station)).await.unwrap()
}

pub(super) fn permanent(result: Result<Weather, Failure>) -> String {
    match result {
        Err(Failure::Permanent { reason: WEATHER_UNUSABLE, why }) => why,
        other => panic!("expected a permanent failure, got {other:?}"),
    }
}

async fn look_up(fetcher: &WeatherFetcher) -> WeatherResponse {
    ask(&fetcher.lookup(), vec![place(40.81, -73.94, "2018-04-25 12:00:00")], None).await
}

/// Central Park with two days, and one more row.
fn park_with(row: &str) -> Data {
    let data = new_york().with_day(PARK, "20180426", (90, 140, 0));
    let Data::Files(files) = &data else { unreachable!() };
    let mut text = String::from_utf8(files[&file_of(PARK)].clone()).unwrap();
    text.push_str(row);
    data.with_file(&file_of(PARK), text)
}

#[tokio::test]
async fn a_bad_row_is_left_out_with_a_warning_until_it_is_corrected() {
    let two_days = vec![in_harlem("2018-04-25 12:00:00"), in_harlem("2018-04-26 12:00:00")];
    let missing = Weather::Missing(WeatherMissing::NoObservationOnDate);
    for (row, reason, second) in [
        (format!("{PARK},20180426,TMAX,150,,,W,2400\n"), "second_value", missing.clone()),
        (format!("{PARK},20180230,TMAX,150,,,W,2400\n"), "invalid_date", park(90, 140, 0)),
        (format!("{PARK},20180427,TMAX,NaN,,,W,2400\n"), "invalid_value", park(90, 140, 0)),
        (format!("{BOSTON},20180426,TMAX,150,,,W,2400\n"), "other_station", park(90, 140, 0)),
        (format!("{PARK},20180426,TMAX,150,,,W\n"), "wrong_fields", park(90, 140, 0)),
    ] {
        let store = memory_store();
        let folder = folder_of(park_with(&row));
        let weather = enrich(&fetcher(source(&folder), &store), two_days.clone()).await.unwrap();
        assert_eq!(weather, [park(111, 156, 241), second], "{row}");
        let document = warnings(&store, PARK).await.unwrap();
        assert_eq!(document.left_out, [(reason.to_owned(), 1)].into(), "{row}");
        assert_eq!(document.samples[0].line, 11, "{row}");
        assert!(document.file.ends_with(&file_of(PARK)), "{}", document.file);
        let corrected = park_with("");
        let Data::Files(files) = &corrected else { unreachable!() };
        std::fs::write(folder.path().join(file_of(PARK)), &files[&file_of(PARK)]).unwrap();
        let weather = enrich(&fetcher(source(&folder), &store), two_days.clone()).await.unwrap();
        assert_eq!(weather[1], park(90, 140, 0), "{row}");
        assert_eq!(warnings(&store, PARK).await, None, "{row}");
    }
}

#[tokio::test]
async fn a_bad_row_is_left_out_over_http_and_in_the_station_list() {
    let data = park_with(&format!("{PARK},20180427,TMAX,NaN,,,W,2400\n"));
    let Data::Files(files) = &data else { unreachable!() };
    let list = [b"USC00300000  95.0000  -73.9400\n", files[LIST].as_slice()].concat();
    let noaa = Noaa::start(data.with_file(LIST, list)).await.unwrap();
    // The line of the file, and the object of the answer.
    for (settings, line) in each_service(&noaa).into_iter().zip([11, 3]) {
        let store = memory_store();
        let rides = vec![in_harlem("2018-04-25 12:00:00"), in_harlem("2018-04-26 12:00:00")];
        let weather = enrich(&fetcher(settings, &store), rides).await.unwrap();
        assert_eq!(weather, [park(111, 156, 241), park(90, 140, 0)]);
        for (station, sample_line) in [(PARK, line), (crate::almanac::STATION_LIST, 1)] {
            let document = warnings(&store, station).await.unwrap();
            assert_eq!(document.left_out, [("invalid_value".to_owned(), 1)].into());
            assert_eq!(document.samples[0].line, sample_line, "{station}");
        }
    }
}

#[tokio::test]
async fn a_local_file_that_is_not_weather_fails_at_once() {
    let html = b"<html><body>503 Slow down</body></html>\n".as_slice();
    let packed = gzip(html).await;
    let only_bad = format!("{PARK},20180230,TMAX,NaN,,,W,2400\n");
    for (content, part) in [
        (&b""[..], "empty"),
        (b"\xef\xbb\xbf\r\n\r\n", "empty"),
        (html, ", line 1"),
        (html, "looks like HTML"),
        (&packed, "looks like HTML"),
        (&packed[..20], "damaged or cut short"),
        (b"<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code></Error>", "looks like XML"),
        (b"{\"error\": \"gone\"}", "looks like JSON"),
        (b"\0\x01\x02\x03", "looks like binary data"),
        (only_bad.as_bytes(), ", line 1, column "),
    ] {
        for path in [file_of(PARK), LIST.to_owned()] {
            let folder = folder_of(new_york().with_file(&path, content));
            let why = permanent(enrich_one(&fetcher(source(&folder), &memory_store())).await);
            let file = folder.path().join(&path);
            assert!(why.starts_with(file.to_str().unwrap()) && why.contains(part), "{part}: {why}");
            assert!(why.contains("Replace the file"), "{why}");
        }
    }
    let folder = folder_of(new_york().without_file(&file_of(PARK)));
    std::fs::create_dir(folder.path().join(file_of(PARK))).unwrap();
    let why = permanent(enrich_one(&fetcher(source(&folder), &memory_store())).await);
    assert!(why.contains(&file_of(PARK)) && why.contains("directory"), "{why}");
}

#[tokio::test]
async fn waiting_for_a_service_that_sends_no_weather_is_limited() {
    let html = "<html><body>Be right back</body></html>\n";
    for path in [file_of(PARK), LIST.to_owned()] {
        let noaa = Noaa::start(new_york().with_file(&path, html)).await.unwrap();
        let patient = fetcher(of(noaa.url()), &memory_store());
        let (waiting, _) = why(enrich_one(&patient).await);
        assert!(waiting.contains("looks like HTML"), "{waiting}");
        let impatient = fetcher(Settings { unusable_patience_ms: 0, ..of(noaa.url()) }, &memory_store());
        let text = permanent(enrich_one(&impatient).await);
        assert!(text.contains(&format!("{path}, line 1")) && text.contains("weather.unusable_patience_ms"), "{text}");
        let error = look_up(&impatient).await.error.unwrap();
        assert_eq!(error.code, WeatherErrorCode::Unavailable);
        assert!(error.message.contains("looks like HTML"), "{}", error.message);
    }
    let noaa = Noaa::start(Data::empty()).await.unwrap();
    let impatient = fetcher(Settings { unusable_patience_ms: 0, ..of(noaa.url()) }, &memory_store());
    assert!(permanent(enrich_one(&impatient).await).contains("no station list at"));
}

#[tokio::test]
async fn a_service_that_recovers_is_used_again() {
    let noaa = Noaa::start(new_york()).await.unwrap();
    noaa.fail_next(PARK, 3, Fault::Garbage);
    let fetcher = fetcher(Settings { unusable_patience_ms: 0, ..of(noaa.url()) }, &memory_store());
    permanent(enrich_one(&fetcher).await);
    assert_eq!(enrich_one(&fetcher).await, Ok(park(111, 156, 241)));
}

#[tokio::test]
async fn forbidden_means_missing_only_while_the_service_answers_for_other_files() {
    let data = new_york().with_station("USC00300000", 40.80, -73.94);
    let noaa = Noaa::start(data.clone()).await.unwrap();
    noaa.forbid_missing();
    let store = memory_store();
    assert_eq!(enrich_one(&fetcher(of(noaa.url()), &store)).await, Ok(park(111, 156, 241)));
    assert!(noaa.requests("USC00300000") > 0);
    // The client is barred after the station list was read.
    let noaa = Noaa::start(data.clone()).await.unwrap();
    noaa.fail_next("by_station", 1, Fault::Status(403, None));
    let barred = fetcher(of(noaa.url()), &memory_store());
    enrich(&barred, vec![ride("2018-04-25 12:00:00", 0.0, 0.0)]).await.unwrap();
    noaa.fail_next(LIST, 1, Fault::Status(403, None));
    let (text, _) = why(enrich_one(&barred).await);
    assert!(text.contains("access is refused"), "{text}");
    // Refused from the first request on.
    let noaa = Noaa::start(data).await.unwrap();
    noaa.fail_next("", 1, Fault::Status(403, None));
    let (text, _) = why(enrich_one(&fetcher(of(noaa.url()), &memory_store())).await);
    assert!(text.contains("check weather.source"), "{text}");
}

/// Every file compressed, as on some mirrors.
pub(super) async fn compressed(data: Data) -> Data {
    let Data::Files(files) = data else { unreachable!() };
    let mut packed = Data::empty();
    for (path, content) in files {
        packed = packed.with_file(&format!("{path}.gz"), gzip(&content).await);
    }
    packed
}

#[tokio::test]
async fn compressed_station_files_are_read_from_a_folder_and_a_url() {
    let folder = folder_of(compressed(new_york()).await);
    assert_eq!(enrich_one(&fetcher(source(&folder), &memory_store())).await, Ok(park(111, 156, 241)));
    // A plain file beside the compressed one is read instead of it.
    std::fs::write(folder.path().join(file_of(PARK)), format!("{PARK},20180425,PRCP,1,,,W,2400\n")).unwrap();
    let weather = enrich_one(&fetcher(source(&folder), &memory_store())).await;
    assert_eq!(weather, Ok(Weather::Missing(WeatherMissing::NoObservationOnDate)));
    let mut data = new_york();
    for station in 0..10 {
        data = data.with_station(&format!("USC003000{station:02}"), 40.8, -73.93 + f64::from(station) / 10_000.0);
    }
    let noaa = Noaa::start(compressed(data).await).await.unwrap();
    let fetcher = fetcher(of(noaa.url()), &memory_store());
    assert_eq!(enrich_one(&fetcher).await, Ok(park(111, 156, 241)));
    let first = noaa.requests("USC003000");
    assert!((10..=20).contains(&first), "{first} requests for 10 stations without a file");
    enrich(&fetcher, vec![in_harlem("2019-04-25 12:00:00")]).await.unwrap();
    assert_eq!(noaa.requests("USC003000"), first + 10, "one request for each, once the spelling is known");
}

#[tokio::test]
async fn rides_without_any_station_file_cause_a_warning_for_the_nearest_station() {
    let data = new_york().without_file(&file_of(PARK)).without_file(&file_of(GAUGE));
    let folder = folder_of(data);
    std::fs::create_dir_all(folder.path().join("csv/by_station")).unwrap();
    let store = memory_store();
    let fetcher = fetcher(source(&folder), &store);
    let missing = Weather::Missing(WeatherMissing::NoObservationOnDate);
    assert_eq!(enrich_one(&fetcher).await, Ok(missing.clone()), "the reason on the wire stays");
    let document = warnings(&store, GAUGE).await.expect("a warning for the nearest station");
    let why = document.why.unwrap();
    let file = folder.path().join(file_of(GAUGE));
    let file = file.to_str().unwrap();
    assert_eq!(document.file, file);
    let expected =
        format!("none of the 2 stations within 100 km of 40.81, -73.94 has a file; first tried {file} (and {file}.gz)");
    assert!(why.starts_with(&expected), "{why}");
    assert_eq!(warnings(&store, PARK).await, None, "only the nearest");
    let response = look_up(&fetcher).await;
    let PlaceWeather::Failed { error } = &response.weather[0] else { panic!("{response:?}") };
    assert_eq!(error.code, WeatherErrorCode::NoObservationOnDate);
    assert!(error.message.starts_with(&expected), "{}", error.message);
    // With one file the reason is the date.
    std::fs::write(folder.path().join(file_of(GAUGE)), format!("{GAUGE},20180425,PRCP,200,,,N,0700\n")).unwrap();
    let fetcher = super::fetcher(source(&folder), &store);
    assert_eq!(enrich_one(&fetcher).await, Ok(missing));
    assert_eq!(warnings(&store, GAUGE).await, None);
    let response = look_up(&fetcher).await;
    let PlaceWeather::Failed { error } = &response.weather[0] else { panic!("{response:?}") };
    assert!(error.message.contains("has tmin, tmax and prcp of 2018-04-25"), "{}", error.message);
}

#[tokio::test]
async fn impossible_weather_is_no_observation() {
    const QUEENS: &str = "USW00014732";
    let data = |tmin| {
        Data::empty()
            .with_station(PARK, 40.7789, -73.9692)
            .with_station(QUEENS, 40.7794, -73.8803)
            .with_day(PARK, "20180425", (tmin, 156, 241))
            .with_day(QUEENS, "20180425", (100, 150, 0))
    };
    for (tmin, reason) in [(157, "tmin_above_tmax"), (9999, "tmin_out_of_range"), (-1001, "tmin_out_of_range")] {
        let noaa = Noaa::start(data(tmin)).await.unwrap();
        let folder = folder_of(data(tmin));
        let [bucket, access] = each_service(&noaa);
        for settings in [source(&folder), bucket, access] {
            let store = memory_store();
            let weather = enrich_one(&fetcher(settings, &store)).await.unwrap();
            let Weather::Observed(observation) = weather else { panic!("{weather:?}") };
            assert_eq!(observation.groundstation, QUEENS, "the next station");
            let document = warnings(&store, PARK).await.unwrap();
            assert_eq!(document.left_out, [(reason.to_owned(), 1)].into());
        }
    }
}

#[tokio::test]
async fn impossible_weather_in_the_store_is_no_observation() {
    let noaa = Noaa::start(new_york()).await.unwrap();
    let store = memory_store();
    let path = layout::weather(PARK, 2018);
    store::write(&store, &path, "date,tmin,tmax,prcp\n2018-04-25,157,156,241\n").await.unwrap();
    let weather = enrich_one(&fetcher(of(noaa.url()), &store)).await;
    assert_eq!(weather, Ok(Weather::Missing(WeatherMissing::NoObservationOnDate)));
    assert_eq!(noaa.requests(PARK), 0, "read from the store");
    let document = warnings(&store, PARK).await.unwrap();
    assert_eq!((document.file.as_str(), document.left_out["tmin_above_tmax"]), (path.as_str(), 1));
}
