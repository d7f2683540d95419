//! Weather requests against a stub of NOAA's services.

use super::*;
use crate::tests::{
    BOSTON, PARK, enrich_one, fetcher, in_harlem, memory_store, new_york,
    noaa::{Fault, Noaa},
    of, park,
};
use common::{
    envelope,
    message::{PrecipitationUnit, ScoreRide, TemperatureUnit, Units, decode},
    topology,
};
use futures::{StreamExt, future::join_all};
use runtime::{
    Broker, MemoryBroker, Shutdown,
    client::Client,
    process::both,
    worker::{RunOptions, run},
};
use serde_json::json;

/// A name that the broker generates.
const REPLY_QUEUE: &str = "amq.gen-answers";

pub(crate) fn place(latitude: f64, longitude: f64, at: &str) -> WeatherPlace {
    WeatherPlace { latitude, longitude, statustime: at.parse().unwrap() }
}

fn harlem() -> WeatherPlace {
    place(40.81, -73.94, "2018-04-25 12:00:00")
}

fn properties(expiration_ms: Option<u64>) -> Properties {
    Properties {
        reply_to: Some(REPLY_QUEUE.to_owned()),
        correlation_id: Some("c".to_owned()),
        message_id: Some("w/weather-request".to_owned()),
        expiration_ms,
        ..Properties::default()
    }
}

pub(crate) async fn ask(
    lookup: &WeatherLookup,
    places: Vec<WeatherPlace>,
    expiration_ms: Option<u64>,
) -> WeatherResponse {
    ask_for(lookup, places, expiration_ms, false).await
}

pub(crate) async fn ask_for(
    lookup: &WeatherLookup,
    places: Vec<WeatherPlace>,
    expiration_ms: Option<u64>,
    observed_only: bool,
) -> WeatherResponse {
    let payload = LookupIn::Weather(WeatherRequest { request_id: "w".to_owned(), places, observed_only });
    let outputs = lookup.handle(Envelope { payload, properties: properties(expiration_ms) }).await.unwrap();
    let outgoing: Vec<_> = outputs.into_stream().collect().await;
    let [Ok(reply)] = outgoing.as_slice() else { panic!("{outgoing:?}") };
    assert_eq!((reply.exchange, reply.routing_key.as_str(), reply.mandatory), ("", REPLY_QUEUE, false));
    assert_eq!(reply.properties.correlation_id.as_deref(), Some("c"));
    let response: WeatherResponse = decode(&reply.body).unwrap();
    assert_eq!(response.request_id, "w");
    response
}

fn code(response: &WeatherResponse) -> WeatherErrorCode {
    response.error.as_ref().expect("an error").code
}

fn in_the_park() -> PlaceWeather {
    let Weather::Observed(observation) = park(111, 156, 241) else { unreachable!() };
    PlaceWeather::Observed(observation)
}

/// Each place gets the weather that a ride there gets, or the reason why there is none. The two workers share their caches.
#[tokio::test]
async fn a_place_gets_the_weather_of_a_ride_there_from_shared_caches() {
    let noaa = Noaa::start(new_york()).await.unwrap();
    let fetcher = fetcher(of(noaa.url()), &memory_store());
    let lookup = fetcher.lookup();
    let places =
        vec![place(0.0, 0.0, "2018-04-25 12:00:00"), harlem(), place(40.81, -73.94, "2018-04-26T01:00:00+00:30")];
    let response = ask(&lookup, places.clone(), None).await;
    let failed = |at: usize| match &response.weather[at] {
        PlaceWeather::Failed { error } => (error.code, error.field.clone().unwrap(), error.message.clone()),
        weather => panic!("{weather:?}"),
    };
    let (code, field, message) = failed(0);
    assert_eq!((code, field.as_str()), (WeatherErrorCode::NoStationInReach, "places[0]"));
    assert!(message.contains("within 100 km"), "{message}");
    assert_eq!(response.weather[1], in_the_park());
    let (code, field, message) = failed(2);
    assert_eq!((code, field.as_str()), (WeatherErrorCode::NoObservationOnDate, "places[2].statustime"));
    assert!(message.contains("2018-04-26"), "{message}");
    let asked = noaa.requests("");
    assert_eq!(enrich_one(&fetcher).await, Ok(park(111, 156, 241)));
    assert_eq!(ask(&lookup, places, None).await, response);
    assert_eq!(noaa.requests(""), asked, "nothing is read twice");
}

/// A service that is down, asks for a pause, or has no station list is reported at once, with the time to ask again if the
/// service names one. The next request contacts the service again.
#[tokio::test]
async fn an_outage_is_reported_and_not_waited_out() {
    let noaa = Noaa::start(new_york()).await.unwrap();
    let fetcher = fetcher(of(noaa.url()), &memory_store());
    let lookup = fetcher.lookup();
    noaa.fail_next("ghcnd-stations.txt", 3, Fault::Status(503, None));
    let response = ask(&lookup, vec![harlem()], None).await;
    assert_eq!(code(&response), WeatherErrorCode::Unavailable);
    let message = response.error.unwrap().message;
    assert!(message.contains("weather service is away") && message.contains("503"), "{message}");
    assert_eq!(ask(&lookup, vec![harlem()], None).await.weather, [in_the_park()]);
    noaa.fail_next(BOSTON, 1, Fault::Status(429, Some("600".to_owned())));
    let boston = || vec![place(42.36, -71.01, "2018-04-25 12:00:00")];
    for _ in 0..2 {
        let response = ask(&lookup, boston(), None).await;
        assert_eq!(code(&response), WeatherErrorCode::Unavailable);
        let message = response.error.unwrap().message;
        assert!(message.contains("; ask again in"), "{message}");
    }
    assert_eq!(noaa.requests(BOSTON), 1, "the pause is respected");
}

/// Nobody waits for a silent service beyond the expiration. Reading continues, and a repeated request finds the weather.
#[tokio::test]
async fn a_slow_lookup_outlives_its_request() {
    let noaa = Noaa::start(new_york()).await.unwrap();
    noaa.fail_next(PARK, 1, Fault::Hold);
    let lookup = fetcher(of(noaa.url()), &memory_store()).lookup();
    let responses = join_all((0..5).map(|_| ask(&lookup, vec![harlem()], Some(100)))).await;
    for response in responses {
        assert_eq!(code(&response), WeatherErrorCode::DeadlineExceeded);
        let message = response.error.unwrap().message;
        assert!(message.contains("within the 100 ms"), "{message}");
    }
    noaa.held(1).await;
    noaa.release();
    assert_eq!(ask(&lookup, vec![harlem()], None).await.weather, [in_the_park()]);
    assert_eq!(noaa.requests(PARK), 1);
}

/// A place whose weather is in memory is answered although another one waits for a silent service.
#[tokio::test]
async fn a_place_in_memory_does_not_wait_for_the_others() {
    let noaa = Noaa::start(new_york()).await.unwrap();
    let lookup = fetcher(of(noaa.url()), &memory_store()).lookup();
    assert_eq!(ask(&lookup, vec![harlem()], None).await.weather, [in_the_park()]);
    noaa.fail_next(BOSTON, 1, Fault::Hold);
    let both = vec![place(42.36, -71.01, "2018-04-25 12:00:00"), harlem()];
    let response = ask(&lookup, both, Some(300)).await;
    let [PlaceWeather::Failed { error }, found] = response.weather.as_slice() else { panic!("{response:?}") };
    assert_eq!((error.code, found), (WeatherErrorCode::DeadlineExceeded, &in_the_park()));
    noaa.release();
}

/// The answer to an unreadable request names the field. A request without `reply_to` is a dead letter.
#[tokio::test]
async fn an_unreadable_request_is_answered_if_it_names_a_queue() {
    let noaa = Noaa::start(new_york()).await.unwrap();
    let lookup = fetcher(of(noaa.url()), &memory_store()).lookup();
    let answered = |body: &str| {
        let why = decode::<WeatherRequest>(body.as_bytes()).unwrap_err();
        let answer = lookup.answer_undecodable(&properties(None), &why).unwrap();
        decode::<WeatherResponse>(&answer.body).unwrap().error.unwrap()
    };
    for (body, field) in [
        (r#"{"request_id": "w", "places": []}"#, "places"),
        (
            r#"{"request_id": "w", "places": [{"latitude": 91, "longitude": 0, "statustime": "2018-04-25 12:00:00"}]}"#,
            "places[0].latitude",
        ),
        (
            r#"{"request_id": "w", "places": [{"latitude": 9, "longitude": 0, "statustime": "yesterday"}]}"#,
            "places[0].statustime",
        ),
    ] {
        let error = answered(body);
        assert_eq!(
            (error.code, error.field.as_deref()),
            (WeatherErrorCode::MalformedRequest, Some(field)),
            "{error:?}"
        );
    }
    let version = Undecodable::UnknownVersion { kind: "weather-request.v2".to_owned(), known: String::new() };
    let answer = lookup.answer_undecodable(&properties(None), &version).unwrap();
    assert_eq!(code(&decode(&answer.body).unwrap()), WeatherErrorCode::UnknownVersion);
    let request = WeatherRequest { request_id: "w".to_owned(), places: vec![harlem()], observed_only: false };
    let nobody =
        lookup.handle(Envelope { payload: LookupIn::Weather(request), properties: Properties::default() }).await;
    assert!(matches!(nobody, Err(Failure::Permanent { reason: "no_reply_to", .. })), "{nobody:?}");
    assert_eq!(lookup.answer_failure(&Properties::default(), &Failure::transient("x")), None);
}

/// The lookup adds the weather of each place, or the reason why there is none, in the units of the request, and sends the request to a
/// scorer. It leaves a ride with weather of its own as it is. It answers an unreadable score request with a score response.
#[tokio::test]
async fn a_score_request_goes_on_to_a_scorer_with_the_weather_of_its_places() {
    let noaa = Noaa::start(new_york()).await.unwrap();
    let lookup = fetcher(of(noaa.url()), &memory_store()).lookup();
    let at = |latitude: f64, longitude: f64| ScoreRide {
        distance: Some(12.0),
        latitude: Some(json!(latitude)),
        longitude: Some(json!(longitude)),
        statustime: Some(json!(harlem().statustime)),
        ..ScoreRide::default()
    };
    let own = ScoreRide { tmin: Some(-3.0), ..at(40.81, -73.94) };
    let incomplete = ScoreRide { longitude: None, ..at(40.81, 0.0) };
    let request = ScoreRequest {
        request_id: "q".to_owned(),
        units: Units { temperature: TemperatureUnit::Celsius, precipitation: PrecipitationUnit::Millimetre },
        explain: true,
        impute: false,
        rides: vec![own.clone(), at(40.81, -73.94), incomplete.clone(), at(0.0, 0.0)],
    };
    let properties = Properties { kind: Some(ScoreRequest::KIND.to_string()), ..properties(Some(20_000)) };
    let envelope = Envelope { payload: LookupIn::Score(request.clone()), properties: properties.clone() };
    let outgoing: Vec<_> = lookup.handle(envelope).await.unwrap().into_stream().collect().await;
    let [Ok(forwarded)] = outgoing.as_slice() else { panic!("{outgoing:?}") };
    assert_eq!((forwarded.exchange, forwarded.routing_key.as_str()), ("rpc", "score-request.v1"));
    assert_eq!(forwarded.properties.reply_to.as_deref(), Some(REPLY_QUEUE));
    assert_eq!(forwarded.properties.correlation_id.as_deref(), Some("c"));
    assert!(forwarded.properties.expiration_ms.is_some_and(|left| (1..=20_000).contains(&left)), "{forwarded:?}");
    assert!(!forwarded.properties.persistent && forwarded.mandatory, "{forwarded:?}");
    let ScoreRequest { mut rides, .. } = decode(&forwarded.body).unwrap();
    let nowhere = rides.pop().unwrap();
    let Some(PlaceWeather::Failed { error }) = nowhere.weather.as_deref() else { panic!("{nowhere:?}") };
    assert_eq!((error.code, nowhere.tmin), (WeatherErrorCode::NoStationInReach, None));
    let [tmin, tmax, prcp] = [11.1, 15.6, 24.1].map(Some);
    let found = ScoreRide { tmin, tmax, prcp, weather: Some(Box::new(in_the_park())), ..at(40.81, -73.94) };
    assert_eq!(rides, [own, found, incomplete]);

    let version = Undecodable::UnknownVersion { kind: "score-request.v2".to_owned(), known: String::new() };
    let answers = [
        lookup.answer_undecodable(&properties, &version),
        lookup.answer_failure(&properties, &Failure::transient("x")),
    ];
    let codes = answers.map(|answer| decode::<ScoreResponse>(&answer.unwrap().body).unwrap().error.unwrap().code);
    assert_eq!(codes, [ScoreErrorCode::UnknownVersion, ScoreErrorCode::Internal]);
}

/// In one process, over two connections: a request is answered while every slot of the weather-fetcher waits for a silent
/// service. If either worker ends, both end.
#[tokio::test]
async fn a_request_does_not_wait_behind_a_batch() {
    let noaa = Noaa::start(new_york()).await.unwrap();
    let fetcher = fetcher(of(noaa.url()), &memory_store());
    assert_eq!(enrich_one(&fetcher).await, Ok(park(111, 156, 241)));
    noaa.fail_next(BOSTON, 1, Fault::Hold);
    let broker = Arc::new(MemoryBroker::new());
    let lookup = fetcher.lookup();
    let (options, stop) = (RunOptions { concurrency: 2, ..RunOptions::default() }, Shutdown::new());
    let first = run(Arc::new(fetcher), broker.clone(), options.clone(), stop.clone());
    let second = run(Arc::new(lookup), broker.clone(), options, stop.clone());
    let token = stop.clone();
    let running = tokio::spawn(async move { both(first, second, &token).await });
    let client = Client::connect(broker.as_ref(), "test").await.unwrap();
    for chunk in 0..10 {
        let mut ride = in_harlem("2018-04-25 12:00:00");
        (ride.latitude, ride.longitude) = (42.36, -71.01);
        let chunk = common::message::RideChunk {
            batch_id: "b".to_owned(),
            chunk,
            split_id: None,
            digest: None,
            refresh: None,
            rides: vec![ride],
        };
        client.publish(&chunk).await.unwrap();
    }
    noaa.held(1).await;
    let request = WeatherRequest { request_id: "w".to_owned(), places: vec![harlem()], observed_only: false };
    let response = client.weather(&request, Duration::from_secs(60)).await.unwrap();
    assert_eq!(response.weather, [in_the_park()]);
    noaa.release();
    let connection = broker.connect("test").await.unwrap();
    let mut enriched = connection.consume(queue::MERGER, 10).await.unwrap();
    for _ in 0..10 {
        tokio::time::timeout(Duration::from_secs(60), enriched.next()).await.expect("the batch continues").unwrap();
    }
    stop.cancel();
    running.await.unwrap().unwrap();
    assert!(!broker.unfinished().contains_key(queue::WEATHER_FETCHER), "{:?}", broker.unfinished());
}

/// A request that names a queue of the fleet for its answer is refused, and nothing is published there. A request with a
/// reply queue is answered.
#[tokio::test]
async fn a_request_cannot_make_the_lookup_write_into_a_queue_of_the_fleet() {
    let noaa = Noaa::start(new_york()).await.unwrap();
    let fetcher = fetcher(of(noaa.url()), &memory_store());
    let (broker, stop) = (Arc::new(MemoryBroker::new()), Shutdown::new());
    let running = tokio::spawn(run(Arc::new(fetcher.lookup()), broker.clone(), RunOptions::default(), stop.clone()));
    let connection = broker.connect("test").await.unwrap();
    connection.declare().await.unwrap();
    let publisher = connection.publisher().await.unwrap();
    let mut letters = connection.consume(&topology::dead_queue(queue::WEATHER_LOOKUP), 1).await.unwrap();
    let request = WeatherRequest { request_id: "w".to_owned(), places: vec![harlem()], observed_only: false };
    for target in [queue::MERGER, "merger.dead", "weather-lookup.dead", "merger.retry.0"] {
        let mut asked = Outgoing::message(&request).unwrap();
        asked.properties.reply_to = Some(target.to_owned());
        publisher.publish(asked).await.unwrap();
        let letter = tokio::time::timeout(Duration::from_secs(60), letters.next()).await.unwrap().unwrap();
        assert_eq!(letter.properties.text(envelope::REASON), Some("foreign_reply_to"));
        assert_eq!(letter.properties.kind.as_deref(), Some("weather-request.v1"));
        assert!(letter.properties.text(envelope::WHY).unwrap().contains(target), "{:?}", letter.properties);
        letter.settle.ack().await.unwrap();
    }
    let client = Client::connect(broker.as_ref(), "test").await.unwrap();
    let response = client.weather(&request, Duration::from_secs(60)).await.unwrap();
    assert_eq!(response.weather, [in_the_park()]);
    stop.cancel();
    running.await.unwrap().unwrap();
    assert!(broker.unfinished().is_empty(), "{:?}", broker.unfinished());
}
