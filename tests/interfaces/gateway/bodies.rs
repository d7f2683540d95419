//! Tests of bodies as clients send them: compressed, with a byte order mark, with nulls, as telemetry records, as over RPC.

use super::{probability, same};
use async_compression::tokio::bufread::{BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use pipeline_tests::{
    gateway::{Answer, Api, Serving, ride},
    print_uncaptured,
    processes::Input,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;
use tokio::io::{AsyncRead, AsyncReadExt};

const INFER: &str = "/v2/models/service-request/infer";

async fn all_of(mut from: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).await.expect("in memory");
    bytes
}

async fn compressed(coding: &str, bytes: &[u8]) -> Vec<u8> {
    match coding.trim().to_ascii_lowercase().as_str() {
        "gzip" | "x-gzip" => all_of(GzipEncoder::new(bytes)).await,
        "deflate" => all_of(ZlibEncoder::new(bytes)).await,
        "zstd" => all_of(ZstdEncoder::new(bytes)).await,
        "br" => all_of(BrotliEncoder::new(bytes)).await,
        _ => bytes.to_vec(),
    }
}

async fn send(api: &Api, path: &str, coding: &str, body: Vec<u8>) -> Answer {
    let request = api.request(Method::POST, path).header("content-type", "application/json").body(body);
    api.send(request.header("content-encoding", coding)).await
}

fn tensors() -> Value {
    json!({ "inputs": [{ "name": "features", "shape": [1, 6], "datatype": "FP64", "data": [30.5, 330, 300, 97, 176, 48] }] })
}

/// Every coding in any case, two codings, and names of character sets give exactly the score of the plain body, on every path
/// that reads a body, also for binary tensors.
#[tokio::test]
async fn a_compressed_body_has_the_score_of_the_plain_one() {
    let serving = Serving::start(&Input::of(1_000), &[]).await;
    let api = &serving.api;
    let expected = probability(&api.score(&ride()).await);
    let workshop = api.post("/v1/score/workshop", &ride()).await.good();
    for codings in
        ["gzip", "X-GZIP", "deflate", "zstd", "br", "identity", "utf-8", "gzip, utf-8", "deflate, gzip", "br, zstd"]
    {
        let (mut score, mut infer) = (ride().to_string().into_bytes(), tensors().to_string().into_bytes());
        for coding in codings.split(',') {
            (score, infer) = (compressed(coding, &score).await, compressed(coding, &infer).await);
        }
        same(probability(&send(api, "/v1/score", codings, score.clone()).await.good()), expected, codings);
        same(probability(&send(api, INFER, codings, infer).await.good()), expected, codings);
        for path in ["/", "/v1/score/workshop"] {
            assert_eq!(send(api, path, codings, score.clone()).await.good(), workshop, "{path} {codings}");
        }
    }
    let bare = all_of(DeflateEncoder::new(ride().to_string().as_bytes())).await;
    same(probability(&send(api, "/v1/score", "deflate", bare).await.good()), expected, "bare deflate");
    let padded = [compressed("gzip", ride().to_string().as_bytes()).await, vec![0; 512]].concat();
    same(probability(&send(api, "/v1/score", "gzip", padded).await.good()), expected, "padded gzip");

    // The length of the JSON is that of the plain body, as the Triton client counts it.
    let json = json!({ "inputs": [{ "name": "features", "shape": [1, 6], "datatype": "FP64",
        "parameters": { "binary_data_size": 48 } }] });
    let mut binary = json.to_string().into_bytes();
    let length = binary.len();
    binary.extend([30.5f64, 330.0, 300.0, 97.0, 176.0, 48.0].iter().flat_map(|number| number.to_le_bytes()));
    let request = api.request(Method::POST, INFER).header("inference-header-content-length", length);
    let request = request.header("content-encoding", "gzip").body(compressed("gzip", &binary).await);
    same(probability(&api.send(request).await.good()), expected, "binary tensors");
    serving.finish().await;
}

/// An unsupported coding is named, with those that are accepted; a body that is not compressed as declared is
/// described; an expanding body stays within the limit of a body.
#[tokio::test]
async fn an_unsupported_coding_is_refused_by_name() {
    let input = Input::of(1_000);
    let serving = Serving::start(&input, &["--set", "gateway.body_bytes_max=100000"]).await;
    let api = &serving.api;
    for path in ["/v1/score", "/", INFER] {
        for coding in ["compress", "lzma", "gzip, gzip, gzip", "aws-chunked"] {
            let answer = send(api, path, coding, b"{}".to_vec()).await;
            let problem_json = answer.problem(415, "unsupported-media-type");
            assert!(problem_json["detail"].as_str().unwrap().starts_with("Content-Encoding "), "{problem_json}");
            assert_eq!(answer.header("accept-encoding"), "gzip, deflate, zstd, br, identity", "{answer:?}");
        }
        for (coding, body, words) in [
            ("gzip", ride().to_string().into_bytes(), "starts like JSON"),
            ("zstd", ride().to_string().into_bytes(), "starts like JSON"),
            ("br", ride().to_string().into_bytes(), "starts like JSON"),
            ("gzip", compressed("zstd", b"{}").await, "starts like zstd"),
            ("gzip", compressed("gzip", b"{\"distance\": 3}").await[..20].to_vec(), "gzip stream is broken"),
            ("gzip", [compressed("gzip", b"{}").await, b"{}".to_vec()].concat(), "2 bytes follow"),
            ("identity", compressed("gzip", b"{}").await, "Content-Encoding: gzip"),
            ("gzip", Vec::new(), "the body is empty"),
        ] {
            let problem_json = send(api, path, coding, body).await.problem(400, "unreadable-request");
            assert!(problem_json["detail"].as_str().unwrap().contains(words), "{coding}: {problem_json}");
        }
        for coding in ["gzip", "deflate", "zstd", "br"] {
            send(api, path, coding, compressed(coding, &vec![b' '; 50 << 20]).await).await.problem(413, "too-large");
        }
    }
    let answer = api.post_bytes("/v1/score", "text/plain", "{}").await;
    answer.problem(415, "unsupported-media-type");
    assert_eq!(answer.header("accept-encoding"), "", "the type is the problem, and not the coding");
    let answer = send(api, "/v1/batches", "compress", b"[]".to_vec()).await;
    answer.problem(415, "unsupported-media-type");
    assert_eq!(answer.header("accept-encoding"), "gzip, deflate, zstd, br, identity");
    let rides = std::fs::read(&input.rides).unwrap();
    for coding in ["deflate", "br", "gzip", "zstd"] {
        let accepted = send(api, "/v1/batches", coding, compressed(coding, &rides).await).await.good();
        let batch = api.until_batch_is(accepted["batch_id"].as_str().unwrap(), "ready").await;
        assert!(batch["counts"]["received"].as_u64().unwrap() > 0, "{coding}: {batch}");
    }
    serving.finish().await;
}

/// A telemetry record, rides as over RPC in their units, nulls and a byte order mark give exactly the score of the clean
/// request. An error uses the request's spelling, and suggests the intended key.
#[tokio::test]
async fn rides_are_scored_as_clients_write_them() {
    let serving = Serving::start(&Input::of(1_000), &[]).await;
    let api = &serving.api;
    let clean = ride();
    let expected = probability(&api.score(&clean).await);
    let record = json!({ "Name": "Ash", "FieldService": 0, " Distance": "30.5", "HealthPoints": "330 ", "MAGICPOINTS": 3e2,
        "TMin": "97", "TMax": "1.76e2", "PRCP": "48" });
    same(probability(&api.score(&record).await), expected, "a record");
    let marked = [b"\xEF\xBB\xBF".to_vec(), clean.to_string().into_bytes()].concat();
    same(probability(&api.post_bytes("/v1/score", "application/json", marked).await.good()), expected, "marked");
    let bare = clean.to_string().replacen('{', "{\"fieldservice\": NaN, ", 1);
    same(probability(&api.post_bytes("/v1/score", "application/json", bare).await.good()), expected, "ignored NaN");
    let nulls = json!({ "id": null, "parameters": null, "outputs": null, "inputs": [{ "name": "features", "shape": [1, 6],
        "datatype": "FP64", "parameters": null, "data": [30.5, 330, 300, 97, 176, 48] }] });
    same(probability(&api.post(INFER, &nulls).await.good()), expected, "nulls");

    let mut celsius = clean.clone();
    (celsius["tmin"], celsius["tmax"], celsius["ride_id"]) = (json!(9.7), json!(17.6), json!(7));
    let units = json!({ "temperature": "celsius", "precipitation": null });
    let as_over_rpc = json!({ "request_id": "q", "units": units, "explain": false, "rides": [celsius, clean.clone()] });
    let many = api.post("/v1/score", &as_over_rpc).await.good();
    let (first, second) = (&many["scores"][0], &many["scores"][1]);
    same(probability(first), expected, "in °C");
    assert_eq!((&many["request_id"], &first["ride_id"], first.get("contributions")), (&json!("q"), &json!("7"), None));
    assert_eq!(second["error"]["field"], "tmin", "97 °C: {second}");
    let travel_data = json!({ "travel_data": [clean], "units": null });
    same(probability(&api.post("/v1/score", &travel_data).await.good()["scores"][0]), expected, "travel_data");

    for (body, code, field, words) in [
        (r#"{"distance": NaN, "healthpoints": 1}"#, "invalid-field", "distance", "write null"),
        (r#"{"distance": 1, "DISTANCE": 2}"#, "invalid-field", "DISTANCE", "given twice"),
        (
            r#"{"km": 1, "healthpoints": 1, "magicpoints": 1, "tmin": 1, "tmax": 2, "prcp": 0}"#,
            "missing-feature",
            "distance",
            "distance is missing; did you mean `km`? Name it distance (unit: mile)",
        ),
        (
            r#"{"Distance": -1, "healthpoints": 1, "magicpoints": 1, "tmin": 1, "tmax": 2, "prcp": 0}"#,
            "impossible-feature",
            "Distance",
            "Distance is -1",
        ),
        (
            r#"{"distance": 1, "healthpoints": 1, "magicpoints": 1, "lat": 1, "lng": 2}"#,
            "missing-feature",
            "tmin",
            "did you mean `lat`? Name it latitude",
        ),
        (
            r#"{"distance": 1, "healthpoints": 1, "magicpoints": 1, "prcp": 0,
            "Temperature": {"min": 20, "max": 10, "unit": "celsius"}}"#,
            "impossible-feature",
            "Temperature.min",
            "Temperature.min is 20.0: expected at most temperature.max, 10.0",
        ),
        (
            r#"{"distance": 1, "healthpoints": 1, "magicpoints": 1, "prcp": 0, "temperature": {"min": 20, "max": 30}}"#,
            "missing-field",
            "temperature.unit",
            "celsius, fahrenheit",
        ),
        (
            r#"{"distance": 1, "healthpoints": 1, "magicpoints": 1, "tmin": 1, "tmax": 2, "prcp": 30000}"#,
            "impossible-feature",
            "prcp",
            "2,000 mm",
        ),
        (
            r#"{"distance": 1, "rides": [{"distance": 1}]}"#,
            "invalid-field",
            "rides",
            "either the members of one ride or rides",
        ),
        (r#"{"data": [{"distance": 1}, {"distance": 2}]}"#, "no-rides", "data", "\"data\" is an array of 2"),
        (r#"{"rides": []}"#, "no-rides", "", "at least one ride"),
    ] {
        let problem_json = api.post_bytes("/v1/score", "application/json", body).await.problem(422, code);
        assert_eq!(problem_json["errors"][0]["field"], field, "{problem_json}");
        assert!(problem_json["detail"].as_str().unwrap().contains(words), "{problem_json}");
    }
    serving.finish().await;
}

/// A CSV table, and rides under other keys, become datasets. The reading is part of the batch's identity. An invalid reading is
/// refused with the reason.
#[tokio::test]
async fn a_batch_is_read_as_its_query_says() {
    let input = Input::of(100);
    let serving = Serving::without_rides(&input, &[]).await;
    let api = &serving.api;
    let rides = br#"{"data": [{"lat": 40.7}, {"lat": 40.8}]}"#;
    let hand_in =
        async |query: &str| api.post_bytes(&format!("/v1/batches{query}"), "application/json", &rides[..]).await;
    let plain = hand_in("").await.good();
    let mapped = hand_in("?rides_at=data&map=latitude=lat&map=distance=km*0.621371").await.good();
    assert_ne!(plain["batch_id"], mapped["batch_id"], "{plain} {mapped}");
    assert_eq!(plain["sha256"], mapped["sha256"]);
    assert_eq!(
        hand_in("?rides_at=data&map=distance=km*0.621371&map=latitude=lat").await.good()["batch_id"],
        mapped["batch_id"]
    );
    hand_in("?batch_id=mine&rides_at=data").await.good();
    let problem_json = hand_in("?batch_id=mine&rides_at=other").await.problem(409, "conflict");
    assert!(problem_json["detail"].as_str().unwrap().contains("--rides-at data"), "{problem_json}");
    for (query, words) in [("?map=altitude=alt", "a field of a ride"), ("?rides_at=a..b", "the path of member names")] {
        let problem_json = hand_in(query).await.problem(422, "invalid-reading");
        assert!(problem_json["detail"].as_str().unwrap().contains(words), "{problem_json}");
    }
    for media_type in ["text/csv", "text/tab-separated-values", "application/vnd.apache.parquet"] {
        let path = format!("/v1/batches?batch_id={}", media_type.replace(['/', '.'], "-"));
        assert_eq!(api.post_bytes(&path, media_type, "a,b\n1,2\n").await.status, 202, "{media_type}");
    }
    let rejected = br#"[{"name": "a"}, {"name": "b"}]"#;
    api.post_bytes("/v1/batches?batch_id=rejected", "application/json", &rejected[..]).await.good();
    let batch = api.until_batch_is("rejected", "ready").await;
    assert!(batch["note"].as_str().unwrap().starts_with("all 2 rides were rejected"), "{batch}");
    api.post_bytes("/v1/batches?batch_id=none", "application/json", "[]").await.good();
    assert_eq!(api.until_batch_is("none", "ready").await["note"], "the batch holds no rides");
    serving.finish().await;
}

/// The bodies of the shared cases, if their folder exists.
#[tokio::test]
async fn the_shared_cases_are_scored() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases");
    if !cases.is_dir() {
        return print_uncaptured("not run: the bodies of the shared cases, which are not here");
    }
    let serving = Serving::start(&Input::of(1_000), &[]).await;
    let api = &serving.api;
    let read = |name: &str| std::fs::read(cases.join(name)).expect("a file of a case");
    send(api, "/v1/score", "gzip", read("17-gzip-request-body/score.json.gz")).await.good();
    send(api, INFER, "gzip", read("17-gzip-request-body/infer.json.gz")).await.good();
    send(api, INFER, "identity", read("18-optional-fields-null/infer.json")).await.good();
    // This fleet may lack the ride's station; then its weather is assumed.
    send(api, "/v1/score", "identity", read("19-a-ride-record-to-score/ride.json")).await.good();
    serving.finish().await;
}
