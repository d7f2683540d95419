//! Tests of `runtime::client::Client`: requests and answers over a queue.

use super::{next, on_both_brokers};
use common::{
    exchange,
    message::{
        Message, ScoreError, ScoreErrorCode, ScoreRequest, ScoreResponse, ScoreRide, Units, WeatherError,
        WeatherErrorCode, WeatherPlace, WeatherRequest, WeatherResponse, decode,
    },
    outcome::Outgoing,
    topology::{self, queue},
};
use pipeline_tests::wait::{self, SOON};
use runtime::{
    Broker,
    broker::{Connection, Delivery},
    client::{Client, ClientError},
};
use std::{sync::Arc, time::Duration};

on_both_brokers! {
    each_request_gets_its_own_answer;
    a_late_answer_is_counted;
    a_client_reads_dead_letters;
}

fn score(request_id: &str) -> ScoreRequest {
    let rides = vec![ScoreRide::default()];
    ScoreRequest { request_id: request_id.to_owned(), units: Units::default(), explain: false, impute: true, rides }
}

fn weather(request_id: &str) -> WeatherRequest {
    let place = WeatherPlace { latitude: 1.0, longitude: 2.0, statustime: "2018-04-25 12:00:00".parse().unwrap() };
    WeatherRequest { request_id: request_id.to_owned(), places: vec![place], observed_only: false }
}

/// Answers a delivery with an error under the request's id.
async fn answer(connection: &dyn Connection, delivery: Delivery) {
    fn reply<M: Message>(response: &M, delivery: &Delivery) -> Outgoing {
        Outgoing::reply(response, &delivery.properties).unwrap()
    }
    let message = "by hand".to_owned();
    let reply = if delivery.properties.kind.as_deref() == Some("score-request.v1") {
        let request: ScoreRequest = decode(&delivery.body).unwrap();
        let error = ScoreError { code: ScoreErrorCode::NoModel, message, field: None };
        reply(&ScoreResponse::failed(request.request_id, error), &delivery)
    } else {
        let request: WeatherRequest = decode(&delivery.body).unwrap();
        let error = WeatherError { code: WeatherErrorCode::Unavailable, message, field: None };
        reply(&WeatherResponse::failed(request.request_id, error), &delivery)
    };
    connection.publisher().await.unwrap().publish(reply).await.unwrap();
    delivery.settle.ack().await.unwrap();
}

async fn connect(broker: &Arc<dyn Broker>) -> (Client, Box<dyn Connection>) {
    let client = Client::connect(broker.as_ref(), "conformance").await.unwrap();
    (client, broker.connect("conformance").await.unwrap())
}

/// Concurrent requests to two workers, answered in reverse order: each gets its own answer.
async fn each_request_gets_its_own_answer(broker: Arc<dyn Broker>) {
    let (client, connection) = connect(&broker).await;
    let mut scorer = connection.consume(queue::SCORER, 10).await.unwrap();
    let mut lookup = connection.consume(queue::WEATHER_LOOKUP, 10).await.unwrap();
    let by_hand = async {
        let (a, b) = (next(&mut scorer).await, next(&mut scorer).await);
        let c = next(&mut lookup).await;
        for delivery in [c, b, a] {
            let expiration_ms = delivery.properties.expiration_ms;
            assert_eq!(expiration_ms, Some(u64::try_from(SOON.as_millis()).unwrap()));
            answer(connection.as_ref(), delivery).await;
        }
    };
    let (a, b, c) = (score("a"), score("b"), weather("c"));
    let asked = async { tokio::join!(client.score(&a, SOON), client.score(&b, SOON), client.weather(&c, SOON)) };
    let ((a, b, c), ()) = tokio::join!(asked, by_hand);
    assert_eq!((a.unwrap().request_id, b.unwrap().request_id), ("a".to_owned(), "b".to_owned()));
    let c = c.unwrap();
    assert_eq!((c.request_id.as_str(), c.error.unwrap().code), ("c", WeatherErrorCode::Unavailable));
    assert_eq!(client.late_answers(), 0);
    client.close().await;
}

/// Without an answer in time, the error names the worker, and a late answer is counted; also if the requester has gone.
async fn a_late_answer_is_counted(broker: Arc<dyn Broker>) {
    let (client, connection) = connect(&broker).await;
    let mut scorer = connection.consume(queue::SCORER, 10).await.unwrap();
    let mut lookup = connection.consume(queue::WEATHER_LOOKUP, 10).await.unwrap();
    let late = weather("late");
    let in_vain = client.weather(&late, Duration::from_millis(500));
    let (answer_result, held) = tokio::join!(in_vain, next(&mut lookup));
    let error = answer_result.unwrap_err();
    assert!(matches!(error, ClientError::NoAnswer { worker: queue::WEATHER_LOOKUP, .. }), "{error:?}");
    assert_eq!(error.to_string(), "no answer within 500 ms: is a weather-fetcher running?");
    let gone = score("gone");
    let abandoned = tokio::select! {
        answered = client.score(&gone, SOON) => panic!("{answered:?}"),
        delivery = next(&mut scorer) => delivery,
    };
    for delivery in [held, abandoned] {
        answer(connection.as_ref(), delivery).await;
    }
    wait::until("two late answers", async || (client.late_answers() >= 2, client.late_answers())).await;
    let (response, held) = tokio::join!(client.score(&gone, Duration::from_millis(500)), next(&mut scorer));
    assert_eq!(response.unwrap_err().to_string(), "no answer within 500 ms: is a scorer running?");
    held.settle.ack().await.unwrap();
    client.close().await;
}

/// A dead letter is read with its reason, and stays in its queue.
async fn a_client_reads_dead_letters(broker: Arc<dyn Broker>) {
    let (client, connection) = connect(&broker).await;
    let dead = topology::dead_queue(queue::MERGER);
    let mut letter = Outgoing::message(&weather("dead")).unwrap();
    (letter.exchange, letter.routing_key) = (exchange::DEAD, queue::MERGER.to_owned());
    letter.properties.set_text("x-reason", "malformed");
    connection.publisher().await.unwrap().publish(letter).await.unwrap();
    for _ in 0..3 {
        let mut browser = client.browse(&dead).await.unwrap();
        let seen = browser.next().await.unwrap().unwrap();
        assert_eq!(seen.properties.text("x-reason"), Some("malformed"));
        assert!(browser.next().await.unwrap().is_none());
        browser.close().await.unwrap();
    }
    let mut consumer = connection.consume(&dead, 1).await.unwrap();
    next(&mut consumer).await.settle.ack().await.unwrap();
    let missing = async {
        let mut browser = client.browse("no such queue").await?;
        Ok::<_, ClientError>(browser.next().await.map(drop)?)
    };
    assert!(missing.await.is_err());
    client.close().await;
}
