//! Requests with places instead of weather.

use super::*;
use async_trait::async_trait;
use common::{
    exchange,
    message::{PlaceWeather, WeatherError, WeatherErrorCode},
    ride::Observation,
};
use futures::future::join_all;
use runtime::{
    Broker, Connection, MemoryBroker, Shutdown,
    broker::{BrokerError, Browser, ConnectionState, Consumer, Depth, PublishError, Publisher},
    client::Client,
    worker::{RunOptions, run},
};
use serde_json::json;
use tokio::sync::watch;

/// A ride in Harlem without weather.
fn in_harlem() -> ScoreRide {
    let ScoreRide { distance, healthpoints, magicpoints, .. } = request(1).rides.remove(0);
    ScoreRide {
        distance,
        healthpoints,
        magicpoints,
        latitude: Some(json!(40.81)),
        longitude: Some(json!(-73.94)),
        statustime: Some(json!("2018-04-25 12:00:00")),
        ..ScoreRide::default()
    }
}

/// A request with a place goes to a weather-fetcher with its reply address and deadline; returned with weather, it is answered with
/// the weather and its source.
#[tokio::test]
async fn a_request_with_a_place_goes_through_a_weather_fetcher() {
    let store = memory();
    put_model(&store, "10").await;
    put_champion(&store, &["10"]).await;
    let scorer = scorer(&store);
    scorer.connected().await.unwrap();
    let mut request = ScoreRequest { rides: vec![in_harlem(), request(1).rides.remove(0)], ..request(1) };
    let envelope = Envelope {
        payload: ScorerIn::Score(request.clone()),
        properties: Properties { expiration_ms: Some(900), ..properties() },
    };
    let outgoing: Vec<_> = scorer.handle(envelope).await.unwrap().into_stream().collect().await;
    let [Ok(forwarded)] = outgoing.as_slice() else { panic!("{outgoing:?}") };
    assert_eq!((forwarded.exchange, forwarded.routing_key.as_str()), ("work", "score-request.v1"));
    let Properties { reply_to, correlation_id, expiration_ms, persistent, .. } = &forwarded.properties;
    assert_eq!((reply_to.as_deref(), correlation_id.as_deref()), (Some(REPLY_QUEUE), Some("c")));
    assert_eq!((*expiration_ms, *persistent, forwarded.mandatory), (Some(900), false, true));
    assert_eq!(common::message::decode::<ScoreRequest>(&forwarded.body).unwrap(), request);

    let observation = Observation { groundstation: "USW00094728".into(), station_km: 4.2, tmin: 0, tmax: 0, prcp: 0 };
    request.rides[0].add_weather(PlaceWeather::Observed(observation.clone()), Units::default());
    let response = ask_for(&scorer, request, None).await.unwrap();
    let weather = response.scores.iter().map(|score| match &score.outcome {
        ScoreOutcome::Scored { weather, assumed, warnings, .. } if assumed.is_empty() && warnings.is_empty() => {
            weather.clone()
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(weather.collect::<Vec<_>>(), [Some(Box::new(PlaceWeather::Observed(observation))), None]);

    let many = ScoreRequest { rides: vec![in_harlem(); WEATHER_PLACES_MAX + 1], ..self::request(1) };
    let refused = ask_for(&scorer, many, None).await.unwrap();
    assert_eq!(code(&refused), ScoreErrorCode::MalformedRequest);
}

/// If no service has the weather, it is assumed, with the reason as a warning, unless the request forbids it. Weather that a later request
/// may find is not assumed. An incomplete place is an error of its ride.
#[tokio::test]
async fn weather_that_was_not_found_is_assumed_or_an_error() {
    let store = memory();
    put_model(&store, "10").await;
    put_champion(&store, &["10"]).await;
    let scorer = scorer(&store);
    scorer.connected().await.unwrap();
    let outcome = async |impute: bool, code: WeatherErrorCode| {
        let mut request = ScoreRequest { impute, rides: vec![in_harlem()], ..request(1) };
        let error = WeatherError { code, message: "so".to_owned(), field: None };
        request.rides[0].add_weather(PlaceWeather::Failed { error }, Units::default());
        ask_for(&scorer, request, None).await.unwrap().scores.remove(0).outcome
    };
    let ScoreOutcome::Scored { assumed, interval, warnings, weather, .. } =
        outcome(true, WeatherErrorCode::NoStationInReach).await
    else {
        panic!("no score")
    };
    let assumed: Vec<&str> = assumed.iter().map(|assumed| assumed.feature.as_str()).collect();
    assert_eq!((assumed, interval.is_some(), weather), (vec!["tmin", "tmax", "prcp"], true, None));
    assert!(warnings[0].ends_with("is assumed: so"), "{warnings:?}");
    for (impute, code, expected) in [
        (false, WeatherErrorCode::NoObservationOnDate, ScoreErrorCode::MissingFeature),
        (true, WeatherErrorCode::Unavailable, ScoreErrorCode::Internal),
        (true, WeatherErrorCode::DeadlineExceeded, ScoreErrorCode::DeadlineExceeded),
    ] {
        let ScoreOutcome::Failed { error } = outcome(impute, code).await else { panic!("a score") };
        assert_eq!((error.code, error.field.as_deref()), (expected, Some("rides[0].statustime")), "{error:?}");
    }
    let rides = vec![
        ScoreRide { longitude: None, ..in_harlem() },
        ScoreRide { latitude: Some(json!(90.5)), ..in_harlem() },
        ScoreRide { statustime: Some(json!("yesterday")), ..in_harlem() },
        // With its weather, the form of the other members does not matter; and a time alone is no place.
        ScoreRide { latitude: Some(json!("north")), ..request(1).rides.remove(0) },
        ScoreRide { latitude: None, longitude: None, ..in_harlem() },
    ];
    let response = ask_for(&scorer, ScoreRequest { rides, ..request(1) }, None).await.unwrap();
    let faults = response.scores.iter().filter_map(|score| match &score.outcome {
        ScoreOutcome::Failed { error } => Some((error.code, error.field.as_deref().unwrap())),
        ScoreOutcome::Scored { .. } => None,
    });
    let fields = ["rides[0].longitude", "rides[1].latitude", "rides[2].statustime"];
    assert_eq!(
        faults.collect::<Vec<_>>(),
        fields.map(|field| (ScoreErrorCode::MalformedRequest, field)),
        "{response:?}"
    );
}

/// A broker that refuses what goes to the exchange `work`, as a full queue or a missing permission does.
struct Refusing(MemoryBroker);
struct RefusingConnection(Box<dyn Connection>);
struct RefusingPublisher(Box<dyn Publisher>);

#[async_trait]
impl Broker for Refusing {
    async fn connect(&self, name: &str) -> Result<Box<dyn Connection>, BrokerError> {
        Ok(Box::new(RefusingConnection(self.0.connect(name).await?)))
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}

#[async_trait]
impl Connection for RefusingConnection {
    async fn declare(&self) -> Result<(), BrokerError> {
        self.0.declare().await
    }

    async fn publisher(&self) -> Result<Box<dyn Publisher>, BrokerError> {
        Ok(Box::new(RefusingPublisher(self.0.publisher().await?)))
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        self.0.consume(queue, prefetch).await
    }

    async fn subscribe(&self, exchange: &str, pattern: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        self.0.subscribe(exchange, pattern, prefetch).await
    }

    async fn reply_queue(&self) -> Result<(String, Box<dyn Consumer>), BrokerError> {
        self.0.reply_queue().await
    }

    async fn browse(&self, queue: &str) -> Result<Box<dyn Browser>, BrokerError> {
        self.0.browse(queue).await
    }

    async fn depth(&self, queue: &str) -> Result<Depth, BrokerError> {
        self.0.depth(queue).await
    }

    fn state(&self) -> watch::Receiver<ConnectionState> {
        self.0.state()
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

#[async_trait]
impl Publisher for RefusingPublisher {
    async fn publish(&self, message: Outgoing) -> Result<(), PublishError> {
        if message.exchange == exchange::WORK { Err(PublishError::Refused) } else { self.0.publish(message).await }
    }
}

/// Requests that cannot go on to a weather-fetcher are answered at once, and do not hold the slots of others.
#[tokio::test]
async fn a_request_that_cannot_go_on_is_answered_with_an_error() {
    let store = memory();
    put_model(&store, "10").await;
    put_champion(&store, &["10"]).await;
    let (broker, stop) = (Arc::new(Refusing(MemoryBroker::new())), Shutdown::new());
    let running = tokio::spawn(run(Arc::new(scorer(&store)), broker.clone(), RunOptions::default(), stop.clone()));
    let client = Client::connect(broker.as_ref(), "test").await.unwrap();
    let located = ScoreRequest { rides: vec![in_harlem()], ..request(1) };
    let deadline = Duration::from_secs(60);
    let answers = join_all((0..3 * Scorer::CONCURRENCY).map(|nth| {
        let request = ScoreRequest { request_id: format!("q-{nth}"), ..located.clone() };
        let client = &client;
        async move { client.score(&request, deadline).await.unwrap() }
    }));
    for answer in answers.await {
        assert_eq!(code(&answer), ScoreErrorCode::Internal);
    }
    let answer = client.score(&request(1), deadline).await.unwrap();
    assert_eq!(answer.model_id.as_deref(), Some("10"));
    stop.cancel();
    running.await.unwrap().unwrap();
}
