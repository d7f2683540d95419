//! Tests that a client cannot use a worker's permissions (confused deputy): requests do not make a worker publish into the
//! fleet's queues.

use super::users::Users;
use common::{
    envelope,
    message::{Message, ScoreRequest, ScoreRide, Units, WeatherPlace, WeatherRequest},
    outcome::Outgoing,
    reply_address::FOREIGN_REPLY_TO,
    topology::{self, Topology, queue},
};
use pipeline_tests::{
    processes::{Input, succeed},
    rabbitmq::settings,
    wait::SOON,
};
use runtime::{AmqpBroker, Broker, client::Client, config::BrokerSettings};
use tokio::task::block_in_place;

/// The user `client` names work queues, retry queues and dead-letter queues of the fleet in `reply_to`, of requests to the
/// scorer and to the weather lookup, whose users may publish there. Each request becomes a dead letter with its reason, no
/// queue gets another message, and the client's next request is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_cannot_make_a_worker_write_into_a_queue_of_the_fleet() {
    let Some(mut users) = block_in_place(|| Users::make(|_, _| {})) else { return };
    let input = block_in_place(|| Input::of(50));
    block_in_place(|| {
        succeed(users.wildrydes("operator").args(["topology", "apply"]));
        let weather = input.weather.display().to_string();
        for worker in [queue::SCORER, queue::WEATHER_FETCHER] {
            let environment = [("WILDRYDES__BROKER__DECLARE", "never"), ("WILDRYDES__WEATHER__SOURCE", &*weather)];
            users.launch(worker, &environment);
        }
    });
    let all = BrokerSettings { namespace: users.namespace.clone(), ..settings() };
    let operator = AmqpBroker::new(all.clone()).connect("a test").await.unwrap();
    let client = AmqpBroker::new(users.settings("client")).connect("a test").await.unwrap();
    let publisher = client.publisher().await.unwrap();
    let scores = ScoreRequest {
        request_id: "s".to_owned(),
        units: Units::default(),
        explain: false,
        impute: true,
        rides: vec![ScoreRide::default()],
    };
    let place = WeatherPlace { latitude: 40.7, longitude: -74.0, statustime: "2018-04-25 12:00:00".parse().unwrap() };
    let lookup = WeatherRequest { request_id: "w".to_owned(), places: vec![place], observed_only: false };
    let names = Topology::of_fleet(&users.namespace).queues.into_iter().map(|queue| queue.name);
    let targets: Vec<String> = names.collect();
    for (worker, asked) in [(queue::SCORER, message(&scores)), (queue::WEATHER_LOOKUP, message(&lookup))] {
        for target in &targets {
            let mut asked = asked.clone();
            asked.properties.reply_to = Some(target.clone());
            publisher.publish(asked).await.unwrap();
        }
        let mut letters = operator.consume(&topology::dead_queue(worker), 8).await.unwrap();
        for _ in &targets {
            let letter = tokio::time::timeout(SOON, letters.next()).await;
            let letter = letter.unwrap_or_else(|_| panic!("no letter\n{}", users.log(topology::process_of(worker))));
            let letter = letter.unwrap();
            assert_eq!(letter.properties.text(envelope::REASON), Some(FOREIGN_REPLY_TO), "{:?}", letter.properties);
            assert_eq!(letter.properties.kind, asked.properties.kind, "the request, and no answer");
            letter.settle.ack().await.unwrap();
        }
    }
    client.close().await;
    let broker = AmqpBroker::new(users.settings("client"));
    let client = Client::connect(&broker, "a test").await.unwrap();
    assert_eq!(client.score(&scores, SOON).await.unwrap().request_id, "s");
    assert_eq!(client.weather(&lookup, SOON).await.unwrap().request_id, "w");
    client.close().await;
    // Every request is settled when the workers have ended.
    block_in_place(|| users.stop());
    for plain in Topology::of_fleet("").queues.into_iter().map(|queue| queue.name) {
        assert_eq!(operator.depth(&plain).await.unwrap().messages, 0, "{plain}");
    }
    operator.close().await;
    AmqpBroker::new(all).remove_topology().await.expect("the queues can be removed");
}

fn message<M: Message>(message: &M) -> Outgoing {
    Outgoing::message(message).unwrap()
}
