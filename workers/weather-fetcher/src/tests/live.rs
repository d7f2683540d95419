//! Forecasts and climatology, against stubs of the forecast services and of NOAA's bucket.

use super::{
    forecasts::{CELL, FORECAST, Forecasts, Mood},
    noaa::Noaa,
    *,
};
use crate::{
    WeatherLookup,
    live::provider::Provider::{self, Climatology, Nws, OpenMeteo},
    lookup::tests::{ask, ask_for, place},
};
use common::message::{PlaceWeather, WeatherErrorCode, WeatherKind, WeatherPlace, WeatherResponse};
use runtime::host::Simulation;
use serde_json::json;

const NOW: &str = "2026-11-30T15:00:00Z";
const TODAY: &str = "2026-11-30 15:00:00";
const HEATHROW: &str = "UKM00003772";

/// Central Park and Heathrow, each with three Novembers and Decembers: every day 4 to 10 °C and 2.5 mm.
fn with_history() -> Data {
    let mut data = new_york().with_station(HEATHROW, 51.478, -0.461);
    for station in [PARK, HEATHROW] {
        for (year, month) in (2023..=2025).flat_map(|year| [(year, 11), (year, 12)]) {
            for day in 1..=30 {
                data = data.with_day(station, &format!("{year}{month:02}{day:02}"), (40, 100, 25));
            }
        }
    }
    data
}

/// The stubs, the clock, and a lookup that knows them.
struct World {
    noaa: Noaa,
    forecasts: Forecasts,
    fetcher: WeatherFetcher,
    lookup: WeatherLookup,
    _simulation: Simulation,
}

async fn world(live: &[Provider]) -> World {
    let simulation = Simulation::begin(1, NOW.parse().unwrap());
    let noaa = Noaa::start(with_history()).await.unwrap();
    let forecasts = Forecasts::start(&TODAY[..10]).await.unwrap();
    let settings = Settings {
        live: Some(live.to_vec()),
        nws_url: forecasts.url(),
        open_meteo_url: forecasts.url(),
        contact: Some("ops@example.org".to_owned()),
        ..of(noaa.url())
    };
    let fetcher = fetcher(settings, &memory_store());
    let lookup = fetcher.lookup();
    World { noaa, forecasts, fetcher, lookup, _simulation: simulation }
}

fn in_new_york(at: &str) -> WeatherPlace {
    place(40.81, -73.94, at)
}

fn in_london(at: &str) -> WeatherPlace {
    place(51.5, -0.12, at)
}

fn kinds(response: &WeatherResponse) -> Vec<Option<WeatherKind>> {
    response.weather.iter().map(PlaceWeather::kind).collect()
}

/// Today's ride: a forecast in the United States, climatology elsewhere; each answer says which, from where, and of when.
#[tokio::test]
async fn a_ride_of_today_gets_a_forecast_in_the_united_states_and_climatology_elsewhere() {
    let world = world(&[Nws, Climatology]).await;
    let places = vec![
        in_new_york(TODAY),
        in_london(TODAY),
        in_new_york("2018-04-25 12:00:00"),
        in_london("2026-11-29 12:00:00"),
    ];
    let response = ask(&world.lookup, places, None).await;
    let [
        PlaceWeather::Forecast(forecast),
        PlaceWeather::Climatology(london),
        PlaceWeather::Observed(observed),
        yesterday,
    ] = response.weather.as_slice()
    else {
        panic!("{response:?}")
    };
    assert_eq!([forecast.tmin, forecast.tmax, forecast.prcp], FORECAST);
    assert_eq!((forecast.source.as_str(), forecast.cell.as_str()), ("nws", CELL));
    assert_eq!(forecast.issued.to_string(), "2026-11-30 00:24:41.000");
    assert!((3.0..5.0).contains(&forecast.cell_km), "{}", forecast.cell_km);
    assert_eq!((london.groundstation.as_str(), london.years), (HEATHROW, 3));
    assert_eq!([london.tmin, london.tmax, london.prcp], [40, 100, 25]);
    assert!((20.0..30.0).contains(&london.station_km), "{}", london.station_km);
    assert_eq!(observed.groundstation, PARK);
    assert_eq!(yesterday, &PlaceWeather::Climatology(london.clone()));
    let agent = format!("wildrydes-weather-fetcher/{} (+ops@example.org)", env!("CARGO_PKG_VERSION"));
    assert_eq!(world.forecasts.user_agents().into_iter().collect::<Vec<_>>(), [agent]);
    assert_eq!(world.forecasts.requests("/points/40.81,-73.94"), 1);
}

/// A forecast service is asked for days that it may know, and for no other.
#[tokio::test]
async fn forecasts_are_requested_for_recent_and_coming_days_only() {
    let world = world(&[Nws, OpenMeteo, Climatology]).await;
    for at in ["2018-04-26 12:00:00", "2026-09-30 23:59:59", "2026-12-16 00:00:00", "9999-12-31 00:00:00"] {
        ask(&world.lookup, vec![in_new_york(at)], None).await;
    }
    assert_eq!(world.forecasts.requests(""), 0);
    for (at, kind) in [
        ("2026-12-06 12:00:00", Some(WeatherKind::Forecast)),
        ("2026-12-08 12:00:00", Some(WeatherKind::Climatology)),
        ("2025-11-30 12:00:00", Some(WeatherKind::Observed)),
        ("2026-11-05 12:00:00", Some(WeatherKind::Climatology)),
        ("2025-11-05 12:00:00", Some(WeatherKind::Observed)),
        // Only two of the years before it have days around it.
        ("2025-10-31 12:00:00", None),
        ("2018-04-26 12:00:00", None),
    ] {
        assert_eq!(kinds(&ask(&world.lookup, vec![in_new_york(at)], None).await), [kind], "{at}");
    }
}

/// Requests for more places than a silent service may be asked for at a time still get climatology for each, in time.
#[tokio::test]
async fn a_silent_service_does_not_keep_climatology_from_answering_many_places() {
    let world = world(&[Nws, Climatology]).await;
    world.forecasts.be("/points/", Mood::Silent);
    for latitude in [40.5, 40.6] {
        let places = (0..100).map(|nth| place(latitude, -74.5 + f64::from(nth) / 100.0, TODAY)).collect();
        let response = ask(&world.lookup, places, Some(4_000)).await;
        assert_eq!(kinds(&response), vec![Some(WeatherKind::Climatology); 100], "{latitude}");
    }
}

/// A request for observed weather, and a chunk of rides, never reach the live providers.
#[tokio::test]
async fn datasets_have_observed_weather_only() {
    let world = world(&[Nws, OpenMeteo, Climatology]).await;
    let response = ask_for(&world.lookup, vec![in_new_york(TODAY)], None, true).await;
    let [PlaceWeather::Failed { error }] = response.weather.as_slice() else { panic!("{response:?}") };
    assert_eq!(error.code, WeatherErrorCode::NoObservationOnDate);
    let enriched = enrich(&world.fetcher, vec![in_harlem(TODAY), in_harlem("2026-12-02 00:00:00")]).await.unwrap();
    assert!(enriched.iter().all(|weather| matches!(weather, Weather::Missing(_))), "{enriched:?}");
    assert_eq!(world.forecasts.requests(""), 0);
}

/// Whatever is wrong with the service, the next kind answers within the request's expiration. Alone, the service is named with
/// what is wrong.
#[tokio::test]
async fn a_faulty_service_is_followed_by_the_next_kind() {
    let points = |mood| ("/points/", mood);
    let grid = |mood| ("/gridpoints/", mood);
    let changed = |pointer: &str, value| Mood::Changed(vec![(pointer.to_owned(), value)]);
    let retry = Some(WeatherErrorCode::Unavailable);
    for ((part, mood), code, words) in [
        (points(Mood::Status(500, None)), retry, "/points/40.81,-73.94 answered 500"),
        (grid(Mood::Status(503, None)), retry, "answered 503"),
        (points(Mood::Status(429, Some("600".to_owned()))), retry, "answered 429"),
        (points(Mood::Status(403, None)), retry, "set weather.contact"),
        (points(Mood::Silent), retry, "its share of the request's expiration"),
        (grid(Mood::Silent), retry, "its share of the request's expiration"),
        (points(Mood::Text("<html>be right back</html>".to_owned())), retry, "it is not a usable forecast"),
        (
            points(Mood::Text(r#"{"properties": {"forecastGridData": "/x"}}"#.to_owned())),
            retry,
            "expected the URL of a gridpoint",
        ),
        (points(Mood::Redirect("http://localhost:1/points".to_owned())), retry, "answered 302"),
        (points(Mood::Status(404, None)), None, "land in the United States only"),
        (points(Mood::Text(r#"{"properties": {"forecastGridData": null}}"#.to_owned())), None, "United States only"),
        (grid(changed("/properties/maxTemperature/uom", json!("wmoUnit:degF"))), retry, "wmoUnit:degF"),
        (grid(changed("/properties/updateTime", json!("today"))), retry, "updateTime"),
        (
            grid(changed("/properties/minTemperature/values", json!([]))),
            None,
            "OKX/33,35 lacks an element of 2026-11-30",
        ),
        (grid(changed("/properties/quantitativePrecipitation/values", json!([]))), None, "lacks an element"),
    ] {
        let falls_back = world(&[Nws, Climatology]).await;
        falls_back.forecasts.be(part, mood.clone());
        let response = ask(&falls_back.lookup, vec![in_new_york(TODAY)], Some(2_000)).await;
        assert_eq!(kinds(&response), [Some(WeatherKind::Climatology)], "{mood:?}: {response:?}");
        drop(falls_back);
        let alone = world(&[Nws]).await;
        alone.forecasts.be(part, mood.clone());
        let response = ask(&alone.lookup, vec![in_new_york(TODAY)], Some(1_000)).await;
        let error = match (&response.error, response.weather.as_slice()) {
            (Some(error), []) => error,
            (None, [PlaceWeather::Failed { error }]) => error,
            _ => panic!("{mood:?}: {response:?}"),
        };
        assert_eq!(error.code, code.unwrap_or(WeatherErrorCode::NoObservationOnDate), "{mood:?}: {error:?}");
        assert!(error.message.contains("; nws: ") && error.message.contains(words), "{mood:?}: {}", error.message);
    }
}

/// A redirect within the service is followed.
#[tokio::test]
async fn a_place_may_be_redirected_within_the_service() {
    let world = world(&[Nws]).await;
    world.forecasts.be("/points/40.81", Mood::Redirect("/points/40.8,-73.9".to_owned()));
    assert_eq!(kinds(&ask(&world.lookup, vec![in_new_york(TODAY)], None).await), [Some(WeatherKind::Forecast)]);
}

#[tokio::test]
async fn a_pause_that_the_service_asks_for_is_granted_to_all_places() {
    let world = world(&[Nws, Climatology]).await;
    world.forecasts.be("/points/", Mood::Status(429, Some("600".to_owned())));
    for _ in 0..3 {
        let response = ask(&world.lookup, vec![in_new_york(TODAY), place(40.6, -73.8, TODAY)], None).await;
        assert_eq!(kinds(&response), [Some(WeatherKind::Climatology); 2]);
        world.forecasts.recover("/points/");
    }
    assert!(world.forecasts.requests("") <= 2, "the places of the first request");
}

/// Requests at the same time share one request for a grid cell, and later ones need none.
#[tokio::test]
async fn a_grid_cell_is_requested_once() {
    let world = world(&[Nws]).await;
    world.forecasts.be("/gridpoints/", Mood::Slow);
    let all = async { join_all((0..20).map(|_| ask(&world.lookup, vec![in_new_york(TODAY)], None))).await };
    let release = async {
        while world.forecasts.requests("/gridpoints/") == 0 {
            tokio::task::yield_now().await;
        }
        world.forecasts.release();
    };
    let (all, ()) = tokio::join!(all, release);
    assert!(all.iter().all(|response| kinds(response) == [Some(WeatherKind::Forecast)]), "{all:?}");
    // Another place in the cell, and another day.
    let more = vec![place(40.78, -73.96, TODAY), in_new_york("2026-12-03 00:00:00")];
    assert_eq!(kinds(&ask(&world.lookup, more, None).await), [Some(WeatherKind::Forecast); 2]);
    assert_eq!((world.forecasts.requests("/points/"), world.forecasts.requests("/gridpoints/")), (2, 1));
}

/// What a request no longer waits for is read nevertheless.
#[tokio::test]
async fn a_slow_forecast_is_there_for_the_next_request() {
    let world = world(&[Nws, Climatology]).await;
    world.forecasts.be("/gridpoints/", Mood::Slow);
    let response = ask(&world.lookup, vec![in_new_york(TODAY)], Some(2_000)).await;
    assert_eq!(kinds(&response), [Some(WeatherKind::Climatology)]);
    world.forecasts.release();
    assert_eq!(kinds(&ask(&world.lookup, vec![in_new_york(TODAY)], None).await), [Some(WeatherKind::Forecast)]);
    assert_eq!(world.forecasts.requests("/gridpoints/"), 1);
}

/// Without NOAA's observations a forecast still answers, also for the last days. If every kind is down, the error names each.
#[tokio::test]
async fn forecasts_do_not_need_the_observations() {
    let world = world(&[Nws, OpenMeteo, Climatology]).await;
    world.noaa.fail_next("ghcnd-stations", usize::from(u16::MAX), Fault::Status(503, None));
    let today = || vec![in_new_york(TODAY), in_london(TODAY)];
    let response = ask(&world.lookup, today(), None).await;
    let sources: Vec<Option<&str>> = response.weather.iter().map(PlaceWeather::source).collect();
    assert_eq!(sources, [Some("nws"), Some("open-meteo")], "{response:?}");
    let [_, PlaceWeather::Forecast(london)] = response.weather.as_slice() else { unreachable!() };
    assert_eq!((london.cell.as_str(), [london.tmin, london.tmax, london.prcp]), ("51.52,-0.1", FORECAST));
    let old = ask(&world.lookup, vec![in_new_york("2018-04-25 12:00:00")], None).await;
    assert_eq!(old.error.map(|error| error.code), Some(WeatherErrorCode::Unavailable), "an observation exists");
    world.forecasts.be("", Mood::Status(500, None));
    let down =
        ask(&world.lookup, vec![place(35.0, -100.0, "2026-12-01 00:00:00"), in_london("2026-12-01 00:00:00")], None)
            .await;
    let error = down.error.unwrap_or_else(|| panic!("{:?}", down.weather));
    assert_eq!(error.code, WeatherErrorCode::Unavailable);
    for words in ["; nws: ", "; open-meteo: ", "answered 500", "; climatology: weather service is away", "answered 503"]
    {
        assert!(error.message.contains(words), "{words}: {}", error.message);
    }
}

#[tokio::test]
async fn open_meteo_with_other_units_or_texts_is_refused() {
    for (mood, words) in [
        (Mood::Changed(vec![("/daily_units/precipitation_sum".to_owned(), json!("inch"))]), "expected mm"),
        (Mood::Text(r#"{"error": true, "reason": "no"}"#.to_owned()), "it is not a usable forecast"),
        (Mood::Status(400, None), "answered 400"),
    ] {
        let world = world(&[OpenMeteo]).await;
        world.forecasts.be("/v1/forecast", mood.clone());
        let response = ask(&world.lookup, vec![in_london(TODAY)], None).await;
        let error = response.error.unwrap_or_else(|| panic!("{mood:?}: {:?}", response.weather));
        assert!(
            error.message.contains("; open-meteo: ") && error.message.contains(words),
            "{mood:?}: {}",
            error.message
        );
    }
    let world = world(&[OpenMeteo]).await;
    world.forecasts.be("/v1/", Mood::Changed(vec![("/daily/temperature_2m_min/0".to_owned(), json!(null))]));
    let response = ask(&world.lookup, vec![in_london(TODAY)], None).await;
    let [PlaceWeather::Failed { error }] = response.weather.as_slice() else { panic!("{response:?}") };
    assert!(error.message.contains("open-meteo: it has no whole forecast of 2026-11-30 (UTC)"), "{}", error.message);
}

/// A folder may have weather of any day, so that it is read first. Nothing is requested from a service by default.
#[tokio::test]
async fn a_folder_has_climatology_and_no_forecasts_by_default() {
    let _simulation = Simulation::begin(1, NOW.parse().unwrap());
    let folder = folder_of(with_history().with_day(PARK, "20261130", (1, 2, 3)));
    let settings = of(folder.path().to_str().unwrap().to_owned());
    assert_eq!(settings.providers().unwrap().order, [Climatology]);
    let lookup = fetcher(settings, &memory_store()).lookup();
    let response = ask(&lookup, vec![in_new_york(TODAY), in_london(TODAY)], None).await;
    assert_eq!(kinds(&response), [Some(WeatherKind::Observed), Some(WeatherKind::Climatology)]);
    assert_eq!(of("https://weather.test".to_owned()).providers().unwrap().order, [Nws, Climatology]);
}

#[test]
fn providers_are_checked_and_read_from_text() {
    let read = |text: &str| {
        let pairs = [("weather.live".to_owned(), text.to_owned())];
        let configuration = runtime::config::Configuration::load(None, &pairs).map_err(|error| error.to_string())?;
        configuration.section::<Settings>().map_err(|error| format!("{:#}", anyhow::Error::from(error)))
    };
    assert_eq!(read("open-meteo, nws").unwrap().live, Some(vec![OpenMeteo, Nws]));
    assert_eq!(read("").unwrap().live, Some(Vec::new()));
    for (text, words) in [
        ("nws,radar", r#"no provider "radar": expected nws, open-meteo or climatology"#),
        ("nws,climatology,nws", "nws at places 3 and before: expected each provider once"),
    ] {
        let why = read(text).unwrap_err();
        assert!(why.contains(words), "{why}");
    }
    for (nws_url, words) in
        [("/srv/nws", "an http:// or https:// URL"), ("https://u:secret@nws.test", "without a user")]
    {
        let why = Settings { nws_url: nws_url.to_owned(), ..Settings::default() }.providers().unwrap_err().to_string();
        assert!(why.contains(words) && !why.contains("secret"), "{why}");
    }
}
