//! Tests of concurrent requests, which share messages.

use super::{probability, same};
use common::model::Model;
use futures::future::join_all;
use pipeline_tests::{
    gateway::{Api, Serving, ride},
    processes::{Input, succeed, wildrydes},
    wait,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn rides(count: usize) -> Vec<Value> {
    let ride = |n: usize| {
        let mut ride = ride();
        (ride["distance"], ride["ride_id"]) = (json!(n as f64 / 8.0), json!(format!("ride {n}")));
        ride
    };
    (0..count).map(ride).collect()
}

async fn messages(api: &Api) -> (f64, f64) {
    (api.metric("score_messages_total", "").await, api.metric("rides_sent_total", "").await)
}

/// Requests one after the other are one message each, sent at once. Concurrent requests are fewer messages, and each has the
/// score of its own ride.
#[tokio::test]
async fn concurrent_requests_share_messages_and_have_their_own_answers() {
    let serving = Serving::start(&Input::of(2_000), &["--set", "gateway.coalesce_wait_us=50000"]).await;
    let api = &serving.api;
    let rides = rides(400);
    let expected = api.post("/v1/score?explain=false", &json!(rides)).await.good();
    let before = messages(api).await;
    for ride in &rides[..10] {
        api.post("/v1/score?explain=false", ride).await.good();
    }
    let alone = messages(api).await;
    assert_eq!((alone.0 - before.0, alone.1 - before.1), (10.0, 10.0));
    let answers = join_all(rides.iter().map(|ride| api.post("/v1/score?explain=false", ride))).await;
    for (answer, (ride, expected)) in answers.into_iter().zip(rides.iter().zip(expected["scores"].as_array().unwrap()))
    {
        let answer = answer.good();
        assert_eq!(answer["ride_id"], ride["ride_id"]);
        same(probability(&answer), probability(expected), "the answer to its own ride");
    }
    let together = messages(api).await;
    let (sent, rides_sent) = (together.0 - alone.0, together.1 - alone.1);
    pipeline_tests::print_uncaptured(format_args!("400 requests at once travelled in {sent} messages"));
    assert_eq!(rides_sent, 400.0);
    assert!(sent < 200.0, "{sent} messages");
    serving.finish().await;
}

/// A request of the maximum size, or one that the scorer refuses, does not affect the requests in the same message.
#[tokio::test]
async fn no_request_affects_another() {
    let serving = Serving::start(&Input::of(2_000), &[]).await;
    let api = &serving.api;
    let (large, small) = (json!(rides(10_000)), rides(200));
    let expected = api.post("/v1/score?explain=false", &json!(small)).await.good();
    let mut bad = ride();
    bad["distance"] = json!(-1);
    let large = async { join_all((0..4).map(|_| api.post("/v1/score?explain=false", &large))).await };
    let bad = async { join_all((0..50).map(|_| api.post("/v1/score?explain=false", &bad))).await };
    let small = async { join_all(small.iter().map(|ride| api.post("/v1/score?explain=false", ride))).await };
    let (large, bad, small) = tokio::join!(large, bad, small);
    for answer in large {
        assert_eq!(answer.good()["scores"].as_array().unwrap().len(), 10_000);
    }
    for answer in bad {
        answer.problem(422, "impossible-feature");
    }
    for (answer, expected) in small.into_iter().zip(expected["scores"].as_array().unwrap()) {
        same(probability(&answer.good()), probability(expected), "a small request among large ones");
    }
    serving.finish().await;
}

/// While another model is promoted under load, every answer names one model and has its probability.
#[tokio::test]
async fn a_promotion_under_load_gives_answers_of_one_model_each() {
    let input = Input::of(2_000);
    let serving = Serving::start(&input, &["--set", "trainer.promotion=always"]).await;
    let api = &serving.api;
    let more = input.folder().join("more.json");
    succeed(wildrydes().args(["generate", "rides", "--rides", "3000", "--seed", "7"]).arg(&more));
    let first = api.score(&ride()).await["model_id"].clone();
    let taken = api.post_bytes("/v1/batches", "application/json", std::fs::read(&more).unwrap()).await.good();
    let mut seen: BTreeMap<String, Vec<(usize, Vec<f64>)>> = BTreeMap::new();
    let rides = rides(64);
    let mut after = 0;
    // Without a pause, so that requests are on their way when the model changes.
    let followed = async {
        while after < 20 {
            let ask = async |pair: Value| api.post("/v1/score?explain=false", &pair).await;
            let pairs = rides.chunks(2).map(|pair| ask(json!(pair)));
            for (n, answer) in join_all(pairs).await.into_iter().enumerate() {
                let answer = answer.good();
                let numbers = answer["scores"].as_array().unwrap().iter().map(probability).collect();
                seen.entry(answer["model_id"].as_str().unwrap().to_owned()).or_default().push((2 * n, numbers));
                after += usize::from(n == 0 && answer["model_id"] != first);
            }
        }
    };
    wait::soon(format!("20 answers of another model: {taken}"), followed).await;
    assert!(seen.len() >= 2, "{:?}", seen.keys());
    for (id, answers) in seen {
        let model = api.get(&format!("/v1/models/service-request/versions/{id}")).await.good();
        let model: Model = serde_json::from_value(model).unwrap();
        for (n, numbers) in answers {
            for (ride, number) in rides[n..].iter().zip(numbers) {
                let features = ["distance", "healthpoints", "magicpoints", "tmin", "tmax", "prcp"];
                let features = features.map(|name| ride[name].as_f64().unwrap());
                same(number, model.probability(&features), &id);
            }
        }
    }
    serving.finish().await;
}
