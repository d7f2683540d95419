//! Tests of the broker port.

use super::{next, on_both_brokers};
use bytes::Bytes;
use common::{
    envelope::{Header, Properties},
    exchange,
    outcome::Outgoing,
    reply_address::is_reply_address,
    topology::{self, queue},
};
use futures::{StreamExt, stream};
use pipeline_tests::wait;
use runtime::{
    Broker,
    broker::{Browser, Connection, Delivery, Depth, PublishError},
};
use std::{collections::BTreeSet, sync::Arc};

on_both_brokers! {
    a_message_is_delivered_once_with_its_properties;
    messages_of_a_lost_connection_are_delivered_again;
    a_settled_message_stays_settled;
    a_mandatory_message_without_a_queue_is_refused;
    the_prefetch_limits_unsettled_deliveries;
    concurrent_publishers_lose_and_duplicate_nothing;
    a_retry_queue_returns_messages_after_its_delay;
    dead_letters_have_their_own_queue;
    a_dead_letter_can_be_read_any_number_of_times;
    a_browser_reads_each_message_once_and_removes_acknowledged_ones;
    a_cancelled_consumer_returns_unstarted_deliveries;
    a_depth_counts_unsettled_deliveries_if_the_broker_reports_them;
    a_message_beyond_the_delivery_limit_is_dead_lettered;
    every_subscriber_gets_its_own_copy;
    a_reply_queue_takes_answers_by_its_name;
    an_unread_score_request_expires;
}

fn message(exchange: &'static str, routing_key: &str, id: &str) -> Outgoing {
    let properties = Properties { message_id: Some(id.to_owned()), persistent: true, ..Properties::default() };
    let body = Bytes::from(format!("{{\"id\":{id:?}}}"));
    Outgoing { exchange, routing_key: routing_key.to_owned(), properties, body, mandatory: true }
}

async fn connect(broker: &Arc<dyn Broker>) -> Box<dyn Connection> {
    let connection = broker.connect("conformance").await.unwrap();
    connection.declare().await.unwrap();
    connection
}

async fn a_message_is_delivered_once_with_its_properties(broker: Arc<dyn Broker>) {
    let connection = connect(&broker).await;
    let publisher = connection.publisher().await.unwrap();
    let mut sent = message(exchange::WORK, "ride-chunk.v1", "a");
    sent.properties.kind = Some("ride-chunk.v1".to_owned());
    sent.properties.set_count("x-attempt", 2);
    sent.properties.headers.insert("flag".to_owned(), Header::Boolean(true));
    publisher.publish(sent.clone()).await.unwrap();

    let mut consumer = connection.consume(queue::WEATHER_FETCHER, 10).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.properties, sent.properties);
    assert_eq!(delivery.body, sent.body);
    assert_eq!((delivery.exchange.as_str(), delivery.routing_key.as_str()), (exchange::WORK, "ride-chunk.v1"));
    assert!(!delivery.redelivered);
    delivery.settle.ack().await.unwrap();
    assert_eq!(connection.depth(queue::WEATHER_FETCHER).await.unwrap().messages, 0);
}

async fn messages_of_a_lost_connection_are_delivered_again(broker: Arc<dyn Broker>) {
    let first = connect(&broker).await;
    let publisher = first.publisher().await.unwrap();
    for id in ["a", "b"] {
        publisher.publish(message(exchange::WORK, "ride-chunk.v1", id)).await.unwrap();
    }
    let mut consumer = first.consume(queue::WEATHER_FETCHER, 10).await.unwrap();
    let (a, b) = (next(&mut consumer).await, next(&mut consumer).await);
    b.settle.ack().await.unwrap();
    drop(consumer);
    first.close().await;
    drop(first);

    let second = connect(&broker).await;
    let mut consumer = second.consume(queue::WEATHER_FETCHER, 10).await.unwrap();
    let again = next(&mut consumer).await;
    assert_eq!(again.properties.message_id, a.properties.message_id);
    assert!(again.redelivered);
    assert!(a.settle.ack().await.is_err(), "the old delivery can no longer be settled");
    again.settle.ack().await.unwrap();
}

async fn a_settled_message_stays_settled(broker: Arc<dyn Broker>) {
    let first = connect(&broker).await;
    first.publisher().await.unwrap().publish(message(exchange::INGEST, "anything", "a")).await.unwrap();
    let mut consumer = first.consume(queue::SPLITTER, 10).await.unwrap();
    next(&mut consumer).await.settle.ack().await.unwrap();
    drop(consumer);
    first.close().await;
    drop(first);

    let second = connect(&broker).await;
    second.publisher().await.unwrap().publish(message(exchange::INGEST, "anything", "b")).await.unwrap();
    let mut consumer = second.consume(queue::SPLITTER, 10).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.properties.message_id.as_deref(), Some("b"));
    delivery.settle.ack().await.unwrap();
}

async fn a_mandatory_message_without_a_queue_is_refused(broker: Arc<dyn Broker>) {
    let connection = connect(&broker).await;
    let publisher = connection.publisher().await.unwrap();
    let refused = publisher.publish(message(exchange::WORK, "no-such-message.v1", "a")).await;
    assert!(matches!(refused, Err(PublishError::Unroutable { .. })), "{refused:?}");
    let event = Outgoing { mandatory: false, ..message(exchange::EVENTS, "model-promoted.v1", "b") };
    publisher.publish(event).await.unwrap();
}

async fn the_prefetch_limits_unsettled_deliveries(broker: Arc<dyn Broker>) {
    let connection = connect(&broker).await;
    let publisher = connection.publisher().await.unwrap();
    for id in 0..5 {
        publisher.publish(message(exchange::WORK, "ride-chunk.v1", &id.to_string())).await.unwrap();
    }
    let mut consumer = connection.consume(queue::WEATHER_FETCHER, 2).await.unwrap();
    let (first, second) = (next(&mut consumer).await, next(&mut consumer).await);
    assert_eq!(connection.depth(queue::WEATHER_FETCHER).await.unwrap().messages, 3, "two are held, three wait");
    first.settle.ack().await.unwrap();
    let third = next(&mut consumer).await;
    assert_eq!(third.properties.message_id.as_deref(), Some("2"));
    for delivery in [second, third] {
        delivery.settle.ack().await.unwrap();
    }
    for _ in 0..2 {
        next(&mut consumer).await.settle.ack().await.unwrap();
    }
}

async fn concurrent_publishers_lose_and_duplicate_nothing(broker: Arc<dyn Broker>) {
    let connection = connect(&broker).await;
    let publisher = connection.publisher().await.unwrap();
    let ids: Vec<String> = (0..1_000).map(|id| id.to_string()).collect();
    stream::iter(&ids)
        .for_each_concurrent(64, |id| async {
            publisher.publish(message(exchange::WORK, "ride-chunk.v1", id)).await.unwrap();
        })
        .await;
    let mut consumer = connection.consume(queue::WEATHER_FETCHER, 100).await.unwrap();
    let mut seen = BTreeSet::new();
    for _ in &ids {
        let delivery = next(&mut consumer).await;
        assert!(seen.insert(delivery.properties.message_id.unwrap()), "delivered twice");
        delivery.settle.ack().await.unwrap();
    }
    assert_eq!(seen, ids.into_iter().collect());
    assert_eq!(connection.depth(queue::WEATHER_FETCHER).await.unwrap().messages, 0);
}

async fn a_retry_queue_returns_messages_after_its_delay(broker: Arc<dyn Broker>) {
    let connection = connect(&broker).await;
    let publisher = connection.publisher().await.unwrap();
    let mut waiting = message(exchange::RETRY, &topology::retry_queue(queue::MERGER, 0), "a");
    waiting.properties.expiration_ms = Some(1_000);
    publisher.publish(waiting).await.unwrap();
    // Checked before there is a consumer, which would take the message at once.
    assert_eq!(connection.depth(queue::MERGER).await.unwrap().messages, 0, "not before its delay");
    let mut consumer = connection.consume(queue::MERGER, 10).await.unwrap();
    let back = next(&mut consumer).await;
    assert_eq!(back.properties.message_id.as_deref(), Some("a"));
    assert_eq!(back.properties.expiration_ms, None, "the delay must not follow it into the work queue");
    back.settle.ack().await.unwrap();
}

async fn dead_letters_have_their_own_queue(broker: Arc<dyn Broker>) {
    let connection = connect(&broker).await;
    let publisher = connection.publisher().await.unwrap();
    publisher.publish(message(exchange::DEAD, queue::TRAINER, "a")).await.unwrap();
    let mut consumer = connection.consume(&topology::dead_queue(queue::TRAINER), 10).await.unwrap();
    let dead = next(&mut consumer).await;
    assert_eq!(dead.properties.message_id.as_deref(), Some("a"));
    dead.settle.ack().await.unwrap();
    assert_eq!(connection.depth(queue::TRAINER).await.unwrap().messages, 0);
}

/// RabbitMQ counts every delivery, and drops a message after 20 unless its queue has another limit.
async fn a_dead_letter_can_be_read_any_number_of_times(broker: Arc<dyn Broker>) {
    let connection = connect(&broker).await;
    connection.publisher().await.unwrap().publish(message(exchange::DEAD, queue::TRAINER, "a")).await.unwrap();
    let dead = topology::dead_queue(queue::TRAINER);
    for look in 0..45 {
        let mut browser = connection.browse(&dead).await.unwrap();
        let letter = looked_at(&mut browser, look).await;
        assert_eq!(letter.properties.message_id.as_deref(), Some("a"));
        assert!(browser.next().await.unwrap().is_none(), "there is one");
        browser.close().await.unwrap();
    }
    let mut browser = connection.browse(&dead).await.unwrap();
    looked_at(&mut browser, 45).await.settle.ack().await.unwrap();
    browser.close().await.unwrap();
    assert_eq!(connection.depth(&dead).await.unwrap().messages, 0);
}

/// The next dead letter. A broker may still be returning it to the queue.
async fn looked_at(browser: &mut Box<dyn Browser>, look: u32) -> Delivery {
    wait::until(format!("the letter after {look} looks"), async || browser.next().await.unwrap()).await
}

async fn a_browser_reads_each_message_once_and_removes_acknowledged_ones(broker: Arc<dyn Broker>) {
    let connection = connect(&broker).await;
    let publisher = connection.publisher().await.unwrap();
    let ids: BTreeSet<String> = (0..100).map(|id| id.to_string()).collect();
    for id in &ids {
        publisher.publish(message(exchange::DEAD, queue::MERGER, id)).await.unwrap();
    }
    let dead = topology::dead_queue(queue::MERGER);
    let mut browser = connection.browse(&dead).await.unwrap();
    let mut seen = BTreeSet::new();
    while let Some(letter) = browser.next().await.unwrap() {
        let id = letter.properties.message_id.unwrap();
        assert_eq!(letter.body, Bytes::from(format!("{{\"id\":{id:?}}}")));
        if id.ends_with('7') {
            letter.settle.ack().await.unwrap();
        }
        assert!(seen.insert(id), "seen twice");
    }
    assert_eq!(seen, ids);
    browser.close().await.unwrap();
    let mut consumer = connection.consume(&dead, 10).await.unwrap();
    for _ in 0..90 {
        let letter = next(&mut consumer).await;
        assert!(!letter.properties.message_id.unwrap().ends_with('7'), "it was acknowledged");
        letter.settle.ack().await.unwrap();
    }
    assert_eq!(connection.depth(&dead).await.unwrap().messages, 0);
}

async fn a_cancelled_consumer_returns_unstarted_deliveries(broker: Arc<dyn Broker>) {
    let connection = connect(&broker).await;
    let publisher = connection.publisher().await.unwrap();
    for id in 0..10 {
        publisher.publish(message(exchange::WORK, "ride-chunk.v1", &id.to_string())).await.unwrap();
    }
    let mut consumer = connection.consume(queue::WEATHER_FETCHER, 5).await.unwrap();
    let begun = next(&mut consumer).await;
    consumer.cancel().await.unwrap();
    // A quorum queue counts a consumer until every delivery to it is settled.
    reaches(connection.as_ref(), |depth| depth.messages == 9).await;
    begun.settle.ack().await.unwrap();
    reaches(connection.as_ref(), |depth| (depth.messages, depth.consumers) == (9, 0)).await;
    drop(consumer);
    let mut consumer = connection.consume(queue::WEATHER_FETCHER, 5).await.unwrap();
    let mut seen = BTreeSet::new();
    for _ in 1..10 {
        let delivery = next(&mut consumer).await;
        seen.insert(delivery.properties.message_id.unwrap());
        delivery.settle.ack().await.unwrap();
    }
    assert_eq!(seen, (1..10).map(|id| id.to_string()).collect());
}

async fn a_depth_counts_unsettled_deliveries_if_the_broker_reports_them(broker: Arc<dyn Broker>) {
    let connection = connect(&broker).await;
    let publisher = connection.publisher().await.unwrap();
    for id in ["a", "b", "c"] {
        publisher.publish(message(exchange::WORK, "ride-chunk.v1", id)).await.unwrap();
    }
    let mut consumer = connection.consume(queue::WEATHER_FETCHER, 2).await.unwrap();
    let (first, second) = (next(&mut consumer).await, next(&mut consumer).await);
    first.settle.ack().await.unwrap();
    second.settle.requeue().await.unwrap();
    let held = [next(&mut consumer).await, next(&mut consumer).await];
    reaches(connection.as_ref(), |depth| (depth.messages, depth.consumers) == (0, 1)).await;
    let depth = connection.depth(queue::WEATHER_FETCHER).await.unwrap();
    // RabbitMQ's passive declaration returns both counts or none.
    match depth.unacknowledged {
        Some(unacknowledged) => assert_eq!((unacknowledged, depth.acknowledged_total), (2, Some(1))),
        None => assert_eq!(depth.acknowledged_total, None),
    }
    let tells = connection.depth(&topology::dead_queue(queue::MERGER)).await.unwrap().unacknowledged.is_some();
    assert_eq!(tells, depth.unacknowledged.is_some());
    for delivery in held {
        delivery.settle.ack().await.unwrap();
    }
}

async fn reaches(connection: &dyn Connection, expected: impl Fn(Depth) -> bool) {
    wait::until("the depth of the queue", async || {
        let depth = connection.depth(queue::WEATHER_FETCHER).await.unwrap();
        (expected(depth), depth)
    })
    .await;
}

async fn a_message_beyond_the_delivery_limit_is_dead_lettered(broker: Arc<dyn Broker>) {
    let connection = connect(&broker).await;
    connection.publisher().await.unwrap().publish(message(exchange::INGEST, "x", "poison")).await.unwrap();
    let mut consumer = connection.consume(queue::SPLITTER, 1).await.unwrap();
    let mut deliveries = 0;
    let mut parked = connection.consume(&topology::dead_queue(queue::SPLITTER), 1).await.unwrap();
    let dead = loop {
        tokio::select! {
            delivery = consumer.next() => {
                deliveries += 1;
                assert!(deliveries <= topology::DELIVERY_LIMIT + 1, "the limit is not kept");
                delivery.unwrap().settle.requeue().await.unwrap();
            }
            dead = next(&mut parked) => break dead,
        }
    };
    assert_eq!(dead.properties.message_id.as_deref(), Some("poison"));
    assert_eq!(dead.properties.text("x-first-death-reason"), Some("delivery_limit"));
    assert_eq!(deliveries, topology::DELIVERY_LIMIT + 1);
    dead.settle.ack().await.unwrap();
}

async fn every_subscriber_gets_its_own_copy(broker: Arc<dyn Broker>) {
    let connection = connect(&broker).await;
    let mut one = connection.subscribe(exchange::EVENTS, "model-promoted.#", 10).await.unwrap();
    let mut two = connection.subscribe(exchange::EVENTS, "#", 10).await.unwrap();
    let publisher = connection.publisher().await.unwrap();
    publisher.publish(message(exchange::EVENTS, "model-promoted.v1", "a")).await.unwrap();
    for consumer in [&mut one, &mut two] {
        let event = next(consumer).await;
        assert_eq!(event.properties.message_id.as_deref(), Some("a"));
        event.settle.ack().await.unwrap();
    }
}

async fn a_reply_queue_takes_answers_by_its_name(broker: Arc<dyn Broker>) {
    let connection = connect(&broker).await;
    let (name, mut replies) = connection.reply_queue().await.unwrap();
    assert!(is_reply_address(&name), "workers answer there: {name}");
    let answer = Outgoing { mandatory: false, ..message("", &name, "answer") };
    connection.publisher().await.unwrap().publish(answer).await.unwrap();
    assert_eq!(next(&mut replies).await.properties.message_id.as_deref(), Some("answer"));
}

async fn an_unread_score_request_expires(broker: Arc<dyn Broker>) {
    let connection = connect(&broker).await;
    let publisher = connection.publisher().await.unwrap();
    let mut late = message(exchange::RPC, "score-request.v1", "late");
    late.properties.expiration_ms = Some(1);
    publisher.publish(late).await.unwrap();
    // The time is the point: fifty times as long as the request lives. A broker may count it until the next delivery.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    publisher.publish(message(exchange::RPC, "score-request.v1", "in time")).await.unwrap();
    let mut consumer = connection.consume(queue::SCORER, 10).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.properties.message_id.as_deref(), Some("in time"));
    delivery.settle.ack().await.unwrap();
}
