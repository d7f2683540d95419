//! Tests with slow, idle, large and malformed requests: memory is bounded, answers are right, and other clients are served.

use super::{probability, same};
use pipeline_tests::{
    gateway::{Answer, Api, Serving, ride, within_memory},
    print_uncaptured,
    processes::Input,
    wait,
};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use reqwest::{Method, header};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const POST_PATHS: [&str; 5] =
    ["/v1/score", "/", "/v1/score/workshop", "/v2/models/service-request/infer", "/v1/batches?batch_id=fuzzed"];

pub(super) async fn connect(api: &Api) -> TcpStream {
    TcpStream::connect(api.url.strip_prefix("http://").unwrap()).await.expect("it listens")
}

/// Everything that a connection sends until it is closed.
pub(super) async fn to_the_end(mut socket: TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset closes it as well.
    let _ = wait::soon("the end of the answer", socket.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// A thousand idle connections, and hundreds that send a head or a body byte by byte, are ended in time, bodies with 408, and
/// other clients are served meanwhile.
#[tokio::test]
async fn slow_and_idle_clients_block_no_other_client() {
    let settings = ["--set", "gateway.deadline_ms=2000", "--set", "gateway.stall_ms=1000"];
    let serving = Serving::start(&Input::of(1_000), &settings).await;
    let api = &serving.api;
    let expected = probability(&api.score(&ride()).await);
    let mut idle = Vec::new();
    for _ in 0..1_000 {
        idle.push(connect(api).await);
    }
    let mut heads = Vec::new();
    for n in 0..300 {
        let mut socket = connect(api).await;
        socket.write_all(&b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nX-Slow: "[..10 + n % 40]).await.unwrap();
        heads.push(socket);
    }
    let slow = |path: &'static str, pause: Duration| async move {
        let mut socket = connect(api).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // One byte at intervals, until there is an answer.
        let ended = async {
            while tokio::time::timeout(pause, socket.read_buf(&mut answer)).await.is_err() {
                let _ = socket.write_all(b" ").await;
            }
        };
        wait::soon(format!("the end of a slow {path}"), ended).await;
        answer.extend(to_the_end(socket).await.bytes());
        String::from_utf8_lossy(&answer).into_owned()
    };
    let dripping = futures::future::join_all((0..50).map(|_| slow("/v1/score", Duration::from_millis(300))));
    let silent = futures::future::join_all(
        ["/v1/batches", "/v1/score", "/v2/models/service-request/infer"]
            .map(|path| slow(path, Duration::from_secs(30))),
    );
    let others = async {
        for _ in 0..50 {
            same(probability(&api.score(&ride()).await), expected, "somebody else");
        }
    };
    let (dripping, silent, ()) = tokio::join!(dripping, silent, others);
    for answer in dripping.into_iter().chain(silent) {
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("body-too-slow"), "{answer}");
    }
    for socket in heads.into_iter().chain(idle.drain(..500)) {
        let answer = to_the_end(socket).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    drop(idle);
    // On a new connection: the earlier ones have been idle for the whole head timeout.
    same(probability(&Api::at(&api.url).score(&ride()).await), expected, "afterwards");
    within_memory("1,000 idle, 300 slow heads, 53 slow bodies", serving.peak_memory(), 300);
    serving.finish().await;
}

/// A batch of 100 MB becomes its dataset. Small bodies that expand are refused at their limit. Many of them together stay
/// within the limit of all bodies.
#[tokio::test]
async fn large_bodies_take_bounded_memory() {
    let input = Input::of(1_000);
    let serving = Serving::start(&input, &[]).await;
    let api = &serving.api;
    let before = serving.peak_memory();
    let rides = std::fs::read(&input.rides).unwrap();
    let filler = std::iter::repeat_n(vec![b' '; 1 << 20], 100).chain([rides]);
    let pieces = futures::stream::iter(filler.map(Ok::<_, std::io::Error>));
    let taken = api.post_bytes("/v1/batches", "application/json", reqwest::Body::wrap_stream(pieces)).await;
    assert_eq!(taken.status, 202, "{}", taken.text());
    assert!(taken.json()["bytes"].as_u64().unwrap() > 100 << 20);
    api.until_batch_is(taken.json()["batch_id"].as_str().unwrap(), "ready").await;
    within_memory("a batch of 100 MB, all workers in one process", serving.peak_memory() - before, 200);

    let many = |what: &str, count: usize| format!("[{}]", vec![what; count].join(","));
    let empty = many("{}", 2_700_000);
    let numbers = format!(
        r#"{{"inputs":[{{"name":"features","shape":[1,6],"datatype":"FP64","data":{}}}]}}"#,
        many("1", 4_000_000)
    );
    let rows = format!(
        r#"{{"inputs":[{{"name":"features","shape":[1,6],"datatype":"FP64","data":{}}}]}}"#,
        many("[]", 2_700_000)
    );
    let tensors = format!(r#"{{"inputs":{}}}"#, many(r#"{"name":"","shape":[],"datatype":""}"#, 200_000));
    let before = serving.peak_memory();
    let infer = "/v2/models/service-request/infer";
    for (path, body, status) in [
        ("/v1/score", &empty, 413),
        (infer, &numbers, 422),
        (infer, &rows, 422),
        (infer, &tensors, 422),
        ("/", &empty, 422),
    ] {
        let answer = api.post_bytes(path, "application/json", body.clone()).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    within_memory("8 MB that are millions of things", serving.peak_memory() - before, 300);

    // More than all bodies together may take.
    let body = bytes::Bytes::from(vec![b' '; 8 << 20]);
    let at_once = (0..60).map(|_| {
        let body = body.clone();
        async move {
            let half = body.slice(..body.len() / 2);
            let pieces = futures::stream::iter([Ok(half), Ok::<_, std::io::Error>(body.slice(body.len() / 2..))]);
            let request = api.request(Method::POST, "/v1/score").body(reqwest::Body::wrap_stream(pieces));
            // A client that is refused before it has sent everything may find the connection closed.
            match request.send().await {
                Ok(response) => Some(Answer::of(response).await.status.as_u16()),
                Err(_) => None,
            }
        }
    });
    let statuses = futures::future::join_all(at_once).await;
    assert!(statuses.iter().flatten().all(|status| matches!(status, 400 | 408 | 503)), "{statuses:?}");
    within_memory("60 bodies of 8 MB at once", serving.peak_memory(), 900);
    api.score(&ride()).await;
    serving.finish().await;
}

/// Random bytes, and JSON that is nearly valid.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![
        Just(json!(0)),
        Just(json!(-1)),
        Just(json!(1e308)),
        Just(json!(u64::MAX)),
        Just(json!(i64::MIN)),
        Just(json!(5e-324)),
        any::<f64>().prop_map(|number| json!(number)),
        any::<i32>().prop_map(|number| json!(number)),
    ];
    let leaf = prop_oneof![
        4 => number, 1 => Just(Value::Null), 1 => any::<bool>().prop_map(Value::from), 1 => ".{0,20}".prop_map(Value::from),
        1 => prop::sample::select(vec!["celsius", "inch", "FP64", "FP32", "features", "distance", "2018-04-25 17:03:05", "probability"])
            .prop_map(Value::from),
    ];
    let name = prop_oneof![
        12 => prop::sample::select(vec![
            "distance", "healthpoints", "magicpoints", "tmin", "tmax", "tavg", "prcp", "temperature", "precipitation", "value",
            "min", "max", "unit", "impute",
            "amount", "latitude", "longitude", "statustime", "ride_id", "inputs", "outputs", "name", "shape", "datatype", "data",
            "parameters", "binary_data_size", "binary_data", "id", "TMAX", "rides", "travel_data", "batch_id", "fieldservice",
        ]).prop_map(str::to_owned),
        1 => ".{0,8}",
    ];
    let json = leaf.prop_recursive(4, 40, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    });
    let near = (prop::sample::select(vec![0, 1, 2, 3]), json.clone(), any::<prop::sample::Index>()).prop_map(|(kind, value, at)| {
        let mut whole = match kind {
            0 => ride(),
            1 => json!([ride(), ride()]),
            2 => json!({ "inputs": [{ "name": "features", "shape": [1, 6], "datatype": "FP64", "data": [1, 2, 3, 4, 5, 6] }] }),
            _ => json!({ "distance": 1, "healthpoints": 1, "magicpoints": 1, "latitude": 40.6, "longitude": -74.1,
                "statustime": "2018-04-25 17:03:05" }),
        };
        let place = match &mut whole {
            Value::Array(items) => &mut items[1],
            other if other.get("inputs").is_some() => &mut other["inputs"][0],
            other => other,
        };
        let members = place.as_object_mut().expect("an object");
        let name = members.keys().nth(at.index(members.len())).expect("a member").clone();
        members.insert(name, value);
        whole
    });
    let text = prop_oneof![json, near.clone(), near].prop_map(|value| serde_json::to_vec(&value).expect("JSON"));
    prop_oneof![
        4 => text.clone(),
        2 => (text, any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut bytes, at, byte)| {
            let at = at.index(bytes.len());
            if byte % 3 == 0 { bytes.truncate(at) } else { bytes[at] = byte }
            bytes
        }),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

/// Any body, on any path that takes one, is answered in time, with success or with a problem that is not a failure of the
/// gateway.
#[tokio::test]
async fn no_body_makes_the_gateway_fail() {
    const CASES: usize = 600;
    let serving =
        Serving::start(&Input::of(1_000), &["--set", "gateway.deadline_ms=10000", "--set", "gateway.uploads_max=1000"])
            .await;
    let api = &serving.api;
    let mut runner = TestRunner::new(Config::default());
    let strategy = bodies();
    let mut by_status = std::collections::BTreeMap::<u16, u64>::new();
    for _ in 0..CASES / 20 {
        let batch: Vec<Vec<u8>> = (0..20).map(|_| strategy.new_tree(&mut runner).expect("a body").current()).collect();
        let asked = batch.iter().flat_map(|body| POST_PATHS.map(|path| (path, body))).map(|(path, body)| async move {
            let request =
                api.request(Method::POST, path).header(header::CONTENT_TYPE, "application/json").body(body.clone());
            let binary = path.contains("infer") && body.len() % 5 == 0;
            let request =
                if binary { request.header("inference-header-content-length", body.len() / 2) } else { request };
            let what = format!("the answer of {path} to {:?}", String::from_utf8_lossy(body));
            (path, body, wait::soon(what, api.send(request)).await)
        });
        for (path, body, answer) in futures::future::join_all(asked).await {
            let status = answer.status.as_u16();
            *by_status.entry(status).or_default() += 1;
            let describe = || format!("{path}: {:?}\n{status} {}", String::from_utf8_lossy(body), answer.text());
            assert!(matches!(status, 200 | 202 | 400 | 409 | 413 | 422), "{}", describe());
            if status >= 400 {
                assert_eq!(answer.header("content-type"), "application/problem+json", "{}", describe());
                assert_eq!(answer.json()["status"], status, "{}", describe());
            } else if path == "/v1/score" {
                let each = answer.json()["scores"].as_array().cloned().unwrap_or_else(|| vec![answer.json()]);
                let good = |score: &Value| score["probability"].as_f64().is_some_and(|p| (0.0..=1.0).contains(&p));
                assert!(each.iter().all(|score| good(score) || score["error"].is_object()), "{}", describe());
            }
        }
    }
    print_uncaptured(format_args!("{} fuzzed bodies: {by_status:?}", CASES * POST_PATHS.len()));
    within_memory("fuzzed bodies", serving.peak_memory(), 300);
    serving.finish().await;
}
