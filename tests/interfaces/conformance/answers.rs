//! Tests of the reply addresses that a worker accepts, on both brokers, with a worker that does not check them itself.

use super::{next, worker::options};
use common::{
    envelope::{self, Envelope, Properties},
    message::{ScoreRequest, ScoreRide, Undecodable, Units},
    outcome::{Failure, Outgoing, Outputs},
    topology::{self, queue},
};
use pipeline_tests::{rabbitmq, wait};
use runtime::{AmqpBroker, Broker, MemoryBroker, Shutdown, Worker, worker::run};
use std::sync::Arc;

/// Publishes to any queue that a request names, in `reply_to` or, if that is a valid reply address, in its id.
struct Careless;

fn answer(queue: &str) -> Outgoing {
    Outgoing {
        exchange: "",
        routing_key: queue.to_owned(),
        properties: Properties { message_id: Some("answer".to_owned()), ..Properties::default() },
        body: "{}".into(),
        mandatory: false,
    }
}

impl Worker for Careless {
    const NAME: &'static str = queue::SCORER;
    type In = ScoreRequest;

    async fn handle(&self, envelope: Envelope<ScoreRequest>) -> Result<Outputs, Failure> {
        match envelope.payload.request_id.as_str() {
            "fails" => Err(Failure::transient("on purpose")),
            name => Ok(Outputs::all(vec![answer(name)])),
        }
    }

    fn answer_undecodable(&self, properties: &Properties, _: &Undecodable) -> Option<Outgoing> {
        properties.reply_to.as_deref().map(answer)
    }

    fn answer_failure(&self, properties: &Properties, _: &Failure) -> Option<Outgoing> {
        properties.text("to").or(properties.reply_to.as_deref()).map(answer)
    }
}

#[tokio::test]
async fn a_worker_publishes_into_no_queue_of_the_fleet_in_process() {
    a_worker_publishes_into_no_queue_of_the_fleet(Arc::new(MemoryBroker::new()), "").await;
}

#[tokio::test]
async fn a_worker_publishes_into_no_queue_of_the_fleet_on_rabbitmq() {
    let settings = rabbitmq::settings();
    let broker = AmqpBroker::new(settings.clone());
    a_worker_publishes_into_no_queue_of_the_fleet(Arc::new(broker.clone()), &settings.namespace).await;
    broker.remove_topology().await.unwrap();
}

/// No queue of the fleet gets a message, whether the request names it or the worker makes it up, before or after a failure. The
/// request becomes a dead letter with the reason, and the worker's session continues. A queue that the broker named gets its
/// answer.
async fn a_worker_publishes_into_no_queue_of_the_fleet(broker: Arc<dyn Broker>, namespace: &str) {
    let connection = broker.connect("test").await.unwrap();
    connection.declare().await.unwrap();
    let (reply_queue, mut answers) = connection.reply_queue().await.unwrap();
    let shutdown = Shutdown::new();
    let running = tokio::spawn(run(Arc::new(Careless), Arc::clone(&broker), options(), shutdown.clone()));
    let publisher = connection.publisher().await.unwrap();
    let mut letters = connection.consume(&topology::dead_queue(queue::SCORER), 1).await.unwrap();
    let ask = |request_id: &str, reply_to: &str| {
        let rides = vec![ScoreRide::default()];
        let request = ScoreRequest {
            request_id: request_id.to_owned(),
            units: Units::default(),
            explain: false,
            impute: true,
            rides,
        };
        let mut asked = Outgoing::message(&request).unwrap();
        asked.properties.reply_to = Some(reply_to.to_owned());
        asked
    };
    let targets = ["merger", "merger.dead", "merger.retry.0", "scorer.dead", "splitter"]
        .map(|plain| format!("{namespace}{plain}"));
    for target in targets.iter().map(String::as_str) {
        let mut fails_for_another = ask("fails", &reply_queue);
        fails_for_another.properties.set_text("to", target);
        let unreadable = Outgoing { body: "{".into(), ..ask("x", target) };
        for (asked, reason) in [
            (ask(&reply_queue, target), "foreign_reply_to"),
            (ask("fails", target), "foreign_reply_to"),
            (unreadable, "foreign_reply_to"),
            (ask(target, &reply_queue), "foreign_reply_to"),
            // The runtime does not publish the worker's answer: the failure is judged as for any other message. A request is
            // not retried.
            (fails_for_another, "no_retries"),
        ] {
            // If the worker's answer may be published, it is, and there is no dead letter.
            let is_answered =
                reason == "foreign_reply_to" && asked.properties.reply_to.as_deref() == Some(&*reply_queue);
            publisher.publish(asked).await.unwrap();
            if is_answered {
                assert_eq!(next(&mut answers).await.properties.message_id.as_deref(), Some("answer"));
                continue;
            }
            let letter = next(&mut letters).await;
            assert_eq!(letter.properties.text(envelope::REASON), Some(reason), "{target}: {:?}", letter.properties);
            assert_eq!(letter.properties.kind.as_deref(), Some("score-request.v1"));
            letter.settle.ack().await.unwrap();
        }
    }
    publisher.publish(ask(&reply_queue, &reply_queue)).await.unwrap();
    assert_eq!(next(&mut answers).await.properties.message_id.as_deref(), Some("answer"));
    // Every request is settled, so everything that it made the worker publish has arrived.
    shutdown.cancel();
    wait::soon("the end of the worker", running).await.unwrap().unwrap();
    for name in ["merger", "merger.dead", "merger.retry.0", "scorer", "scorer.dead", "splitter"] {
        assert_eq!(connection.depth(name).await.unwrap().messages, 0, "{name}");
    }
    connection.close().await;
}
