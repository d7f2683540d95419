//! Tests that reach each limit: wasteful clients are ended, and all others are served.

use super::{
    hostile::{connect, to_the_end},
    keys::key,
    probability, same,
};
use pipeline_tests::{
    gateway::{Answer, Api, Serving, ride},
    processes::Input,
    wait,
};
use reqwest::{Method, Response};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};

const OPS: [&str; 3] = ["-v", "--set", "gateway.ops_bind=127.0.0.1:0"];

/// The label of a limit in `/metrics`.
fn of(limit: &str) -> String {
    format!("{{limit=\"{limit}\"}}")
}

/// The value of a limit.
async fn limit(api: &Api, limit: &str) -> f64 {
    api.metric("limit{", &of(limit)).await
}

/// Waits until a counter or gauge has a value that `fits` accepts.
async fn until(api: &Api, name: &str, limit: &str, fits: impl Fn(f64) -> bool) {
    wait::until(format!("{name} of {limit}"), async || {
        let value = api.metric(name, &of(limit)).await;
        (fits(value), value)
    })
    .await;
}

/// A stream of events.
async fn events(api: &Api, key: Option<&str>) -> Response {
    let request = api.request(Method::GET, "/v1/fleet/events");
    let request = key.into_iter().fold(request, |request, key| request.bearer_auth(key));
    request.send().await.expect("a stream")
}

/// Of three times as many silent connections as the gateway keeps, the oldest are closed. Health and a score are answered on
/// new connections, and the counters name the limit.
#[tokio::test]
async fn silent_connections_beyond_the_limit_block_no_other_client() {
    let settings = [&OPS[..], &["--set", "gateway.connections_max=100"]].concat();
    let serving = Serving::start(&Input::of(1_000), &settings).await;
    let (api, ops) = (&serving.api, serving.ops());
    let expected = probability(&api.score(&ride()).await);
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(connect(api).await);
        // Half a head counts as silent.
        silent.last_mut().unwrap().write_all(b"GET /healthz HTT").await.ok();
    }
    for _ in 0..5 {
        Api::at(&api.url).get("/healthz").await.good();
        same(probability(&Api::at(&api.url).score(&ride()).await), expected, "beside silent connections");
    }
    for socket in silent.drain(..150) {
        assert_eq!(to_the_end(socket).await, "", "the oldest are closed");
    }
    assert_eq!(limit(&ops, "connections").await, 100.0);
    assert!(ops.metric("limit_refusals_total", &of("connections")).await >= 200.0);
    drop(silent);
    serving.finish().await;
}

/// While every connection has an endless request, new ones are refused and counted, and the listener for probes answers under
/// any host name. Once a client disconnects, its place is free.
#[tokio::test]
async fn probes_are_answered_while_every_connection_is_busy() {
    let input = Input::of(10);
    let settings = [&OPS[..], &["--set", "gateway.connections_max=20"]].concat();
    let serving = Serving::without_rides(&input, &settings).await;
    let (api, ops) = (&serving.api, serving.ops());
    let mut busy = Vec::new();
    for _ in 0..20 {
        busy.push(events(&Api::at(&api.url), None).await);
    }
    let refused = Api::at(&api.url).request(Method::GET, "/healthz").send().await;
    assert!(refused.is_err(), "{refused:?}");
    for path in ["/healthz", "/metrics"] {
        let probe = ops.request(Method::GET, path).header("host", "10.1.2.3:8081");
        assert_eq!(ops.send(probe).await.status, 200, "{path}");
    }
    ops.get("/v1/batches").await.problem(404, "not-found");
    assert!(ops.metric("limit_refusals_total", &of("connections")).await >= 1.0);
    drop(busy.pop());
    until(&ops, "limit_used", "connections", |used| used < 20.0).await;
    Api::at(&api.url).get("/healthz").await.good();
    drop(busy);
    serving.finish().await;
}

/// A peer with all its allowed connections loses its own silent ones, not those of others.
#[tokio::test]
async fn a_peer_at_its_limit_is_served_in_place_of_its_silent_connections() {
    let settings = [&OPS[..], &["--set", "gateway.connections_per_peer_max=10"]].concat();
    // The process looks for the weather once it has started.
    let input = Input::of(10);
    let serving = Serving::without_rides(&input, &settings).await;
    let mut silent = Vec::new();
    for _ in 0..30 {
        silent.push(connect(&serving.api).await);
    }
    Api::at(&serving.api.url).get("/healthz").await.good();
    let ops = serving.ops();
    assert!(ops.metric("limit_used", &of("connections_per_peer")).await <= 10.0);
    assert!(ops.metric("limit_refusals_total", &of("connections_per_peer")).await >= 20.0);
    drop(silent);
    serving.finish().await;
}

/// Started with few descriptors, as from a shell, the gateway raises its soft limit to the hard one, and keeps more connections
/// than the soft limit allows.
#[tokio::test]
async fn the_soft_limit_on_open_files_does_not_bound_the_connections() {
    let input = Input::of(10);
    let serving = Serving::on("127.0.0.1:0", 100, &input, &OPS).await;
    let ops = serving.ops();
    assert!(limit(&ops, "descriptors").await > 1_000.0, "the hard limit of a machine for tests");
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(connect(&serving.api).await);
    }
    Api::at(&serving.api.url).get("/healthz").await.good();
    until(&ops, "limit_used", "connections", |used| used >= 300.0).await;
    assert_eq!(ops.metric("limit_refusals_total", &of("descriptors")).await, 0.0);
    drop(silent);
    serving.finish().await;
}

/// Starts an upload from the local address `peer`, sends `first` bytes at once and then single bytes at intervals. Returns the
/// answer.
async fn trickle(api: &Api, peer: [u8; 4], first: usize) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((peer, 0).into()).unwrap();
    let address = api.url.strip_prefix("http://").unwrap().parse().unwrap();
    let mut socket = socket.connect(address).await.unwrap();
    let length = first + 5_000;
    let head = format!(
        "POST /v1/batches HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&vec![b' '; first]).await.unwrap();
    let mut answer = Vec::new();
    let ended = async {
        while tokio::time::timeout(Duration::from_millis(200), socket.read_buf(&mut answer)).await.is_err() {
            let _ = socket.write_all(b" ").await;
        }
    };
    wait::soon("the end of a trickle", ended).await;
    answer.extend(to_the_end(socket).await.bytes());
    String::from_utf8_lossy(&answer).into_owned()
}

/// Slow uploads take no place, and are ended for their rate. Uploads that send much before they slow down take all places: an
/// ordinary upload still gets one at its first try, as the share of another peer.
#[tokio::test]
async fn slow_uploads_are_ended_and_an_ordinary_one_succeeds() {
    let input = Input::of(1_000);
    let settings = ["--set", "gateway.uploads_max=4", "--set", "gateway.stall_ms=5000"];
    let serving = Serving::start(&input, &[&OPS[..], &settings].concat()).await;
    let (api, ops) = (&serving.api, serving.ops());
    let small = futures::future::join_all((0..16).map(|_| trickle(api, [127, 0, 0, 1], 1)));
    let large = futures::future::join_all((0..16).map(|_| trickle(api, [127, 0, 0, 2], 100_000)));
    let honest = async {
        until(&ops, "limit_used", "uploads", |used| used >= 4.0).await;
        let rides = std::fs::read(&input.rides).unwrap();
        api.post_bytes("/v1/batches", "application/json", rides).await
    };
    let (small, large, honest) = tokio::join!(small, large, honest);
    assert_eq!(honest.status, 202, "{}", honest.text());
    let is_slow = |answer: &&String| answer.starts_with("HTTP/1.1 408 ") && answer.contains("body-too-slow");
    let is_too_many = |answer: &&String| answer.starts_with("HTTP/1.1 503 ") && answer.contains("too-many-uploads");
    assert_eq!(small.iter().filter(is_slow).count(), 16, "{small:?}");
    let (ended, refused) = (large.iter().filter(is_slow).count(), large.iter().filter(is_too_many).count());
    assert!(ended >= 3 && ended + refused == 16, "{large:?}");
    assert!(ops.metric("limit_refusals_total", &of("upload_bytes_per_second")).await >= 19.0);
    until(&ops, "limit_used", "uploads", |used| used == 0.0).await;
    serving.finish().await;
}

/// A client that requests the stream of events and does not read it is disconnected, and counted; a client that reads is not.
#[tokio::test]
async fn a_client_that_does_not_read_its_stream_is_disconnected() {
    let settings = [&OPS[..], &["--set", "gateway.write_timeout_ms=500"]].concat();
    // The process looks for the weather once it has started.
    let input = Input::of(10);
    let serving = Serving::without_rides(&input, &settings).await;
    let ops = serving.ops();
    let socket = TcpSocket::new_v4().unwrap();
    // What the client's system buffers counts as read.
    socket.set_recv_buffer_size(2_048).unwrap();
    let address = serving.api.url.strip_prefix("http://").unwrap().parse().unwrap();
    let mut unread = socket.connect(address).await.unwrap();
    unread.write_all(b"GET /v1/fleet/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut reader = events(&serving.api, None).await;
    let reading = async {
        loop {
            assert!(reader.chunk().await.expect("the stream goes on").is_some());
        }
    };
    tokio::select! {
        () = until(&ops, "limit_refusals_total", "write_seconds", |refusals| refusals >= 1.0) => {}
        () = reading => {}
    }
    until(&ops, "limit_used", "connections", |used| used <= 1.0).await;
    assert!(reader.chunk().await.expect("the stream goes on").is_some());
    assert_eq!(ops.metric("limit_refusals_total", &of("write_seconds")).await, 1.0);
    drop((reader, unread));
    serving.finish().await;
}

/// Concurrent requests of one key are limited, streams of events included. Another key is served.
#[tokio::test]
async fn concurrent_requests_of_each_key_are_limited() {
    let input = Input::of(10);
    let (one, lines) = key("one", &["--scope", "read"]);
    let (other, more) = key("other", &["--scope", "read"]);
    let config = input.folder().join("wildrydes.toml");
    std::fs::write(&config, ["[gateway]\nrequests_per_key_max = 2\n", &lines, &more].concat()).unwrap();
    let serving = Serving::without_rides(&input, &[&OPS[..], &["--config", config.to_str().unwrap()]].concat()).await;
    let (api, ops) = (&serving.api, serving.ops());
    let first = events(api, Some(&one)).await;
    let second = events(api, Some(&one)).await;
    assert!(first.status().is_success() && second.status().is_success());
    let get = |key: &str| api.request(Method::GET, "/v1/models").bearer_auth(key);
    api.send(get(&one)).await.problem(429, "too-many-at-once");
    api.send(get(&other)).await.good();
    assert_eq!(ops.metric("limit_used", &of("requests_per_key")).await, 2.0);
    drop(first);
    until(&ops, "limit_used", "requests_per_key", |used| used == 1.0).await;
    let answer: Answer = api.send(get(&one)).await;
    answer.good();
    drop(second);
    serving.finish().await;
}
