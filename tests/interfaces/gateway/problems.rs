//! Tests of problem details: the type of the problem, where it is, and what would be right.

use pipeline_tests::{
    gateway::{Serving, ride},
    processes::Input,
};
use reqwest::Method;
use serde_json::{Value, json};

/// Every kind of mistake in a request has its status, its type, and the field in the request's spelling.
#[tokio::test]
async fn mistakes_are_reported_with_field_value_and_expectation() {
    let serving = Serving::start(&Input::of(1_000), &["--set", "gateway.rides_max=100"]).await;
    let api = &serving.api;
    let with = |changes: Value| {
        let mut ride = ride();
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(ride.as_object_mut().unwrap().remove(name)),
                value => ride[name] = value.clone(),
            }
        }
        ride
    };
    let celsius = |min: f64| json!({ "min": min, "max": 20, "unit": "celsius" });
    let no_weather = json!({ "tmin": null, "tmax": null, "prcp": null });
    let place = |latitude: f64, statustime: &str| {
        let mut changes = no_weather.clone();
        (changes["latitude"], changes["longitude"]) = (json!(latitude), json!(-74.1));
        changes["statustime"] = json!(statustime);
        with(changes)
    };
    for (body, status, code, field) in [
        (with(json!({ "distance": null, "impute": false })), 422, "missing-feature", "distance"),
        (with(json!({ "distance": -1 })), 422, "impossible-feature", "distance"),
        (with(json!({ "distance": "far" })), 422, "invalid-field", "distance"),
        (with(json!({ "tmax": 9_999_999 })), 422, "impossible-feature", "tmax"),
        (
            with(json!({ "tmin": null, "tmax": null, "temperature": celsius(-300.0) })),
            422,
            "impossible-feature",
            "temperature.min",
        ),
        (
            with(json!({ "tmin": null, "tmax": null, "temperature": celsius(1e308) })),
            422,
            "impossible-feature",
            "temperature.min",
        ),
        (with(json!({ "temperature": celsius(10.0) })), 422, "ambiguous-weather", "temperature"),
        (
            with(json!({ "tmin": null, "tmax": null, "temperature": { "min": 1, "max": 2, "unit": "kelvin" } })),
            422,
            "invalid-field",
            "temperature.unit",
        ),
        (with(json!({ "ride_id": "x".repeat(129) })), 422, "ride-id-too-long", "ride_id"),
        (place(91.0, "2018-04-25 17:03:05"), 422, "place-out-of-range", "latitude"),
        (place(40.6, "yesterday"), 422, "invalid-statustime", "statustime"),
        (json!([]), 422, "no-rides", ""),
        (json!([ride(), { "distance": true }]), 422, "invalid-field", "[1].distance"),
        (json!("a ride"), 422, "invalid-field", ""),
    ] {
        let problem_json = api.post("/v1/score", &body).await.problem(status, code);
        let error = &problem_json["errors"][0];
        assert_eq!(error["field"], field, "{problem_json}");
        assert!(error["expected"].as_str().is_some_and(|text| !text.is_empty()), "{problem_json}");
    }
    // Weather that nobody has is assumed, with the reason, unless the request forbids it.
    for (latitude, time, code) in
        [(0.0, "2018-04-25 17:03:05", "no-station-in-reach"), (40.6, "1901-04-25 17:03:05", "no-observation-on-date")]
    {
        let mut ride = place(latitude, time);
        let scored = api.post("/v1/score", &ride).await.good();
        let warning = scored["warnings"][0].as_str().unwrap_or_default();
        assert!(warning.starts_with("the weather is assumed: ") && warning.contains("within 100 km"), "{scored}");
        assert_eq!((&scored["assumed"][0]["feature"], &scored["weather"]), (&json!("tmin"), &Value::Null), "{scored}");
        ride["impute"] = json!(false);
        api.post("/v1/score", &ride).await.problem(422, code);
    }

    // In an array each ride has its own error; the valid ones are scored.
    let many = api.post("/v1/score", &json!([ride(), with(json!({ "prcp": -1, "ride_id": "wet" }))])).await.good();
    assert!(many["scores"][0]["probability"].is_f64(), "{many}");
    let error = &many["scores"][1];
    assert_eq!((&error["ride_id"], &error["error"]["field"]), (&json!("wet"), &json!("prcp")), "{many}");

    for bytes in ["", " ", "{\"distance\": 3", "{\"distance\": }", "not JSON"] {
        for path in ["/v1/score", "/v1/score/workshop", "/", "/v2/models/service-request/infer"] {
            api.post_bytes(path, "application/json", bytes).await.problem(400, "unreadable-request");
        }
    }
    let workshop = |name: &str, value: Value| {
        let mut ride =
            json!({ "distance": 30, "healthpoints": 30, "magicpoints": 1500, "TMAX": 333, "TMIN": 300, "PRCP": 100 });
        ride[name] = value;
        ride
    };
    assert_eq!(api.post("/", &workshop("TMAX", json!("333"))).await.status, 200);
    for (name, value, code) in [("TMAX", json!("hot"), "invalid-field"), ("PRCP", json!(-5), "impossible-feature")] {
        let problem_json = api.post("/", &workshop(name, value)).await.problem(422, code);
        assert_eq!(problem_json["errors"][0]["field"], name, "{problem_json}");
    }

    let tensor = |changes: Value| {
        let mut tensor = json!({ "name": "features", "shape": [2, 6], "datatype": "FP64",
            "data": [[30, 330, 300, 97, 176, 48], [31, 330, 300, 97, 176, 48]] });
        for (name, value) in changes.as_object().unwrap() {
            tensor[name] = value.clone();
        }
        json!({ "inputs": [tensor] })
    };
    let infer = "/v2/models/service-request/infer";
    for (body, code, field) in [
        (tensor(json!({ "shape": [3, 6] })), "invalid-tensor", "inputs[0].data"),
        (tensor(json!({ "shape": [2, 5] })), "invalid-tensor", "inputs[0].shape"),
        (tensor(json!({ "shape": [101, 6] })), "invalid-tensor", "inputs[0].shape"),
        (tensor(json!({ "datatype": "BYTES" })), "invalid-tensor", "inputs[0].datatype"),
        (tensor(json!({ "name": "colour" })), "invalid-tensor", "inputs[0].name"),
        (tensor(json!({ "data": [[1, "two"]] })), "invalid-field", "inputs[0].data[0][1]"),
        (tensor(json!({ "data": [[[1]]] })), "invalid-field", "inputs[0].data[0][0]"),
        (tensor(json!({ "data": 3 })), "invalid-field", "inputs[0].data"),
        (
            tensor(json!({ "data": [30, 330, 300, 97, 176, 48, -31, 330, 300, 97, 176, 48] })),
            "impossible-feature",
            "distance",
        ),
        (json!({ "inputs": [] }), "invalid-tensor", "inputs"),
    ] {
        let problem_json = api.post(infer, &body).await.problem(422, code);
        assert_eq!(problem_json["errors"][0]["field"], field, "{problem_json}");
        assert_eq!(problem_json["error"], problem_json["detail"], "clients of the protocol read this: {problem_json}");
        if code == "impossible-feature" {
            assert!(problem_json["detail"].as_str().unwrap().starts_with("ride 1: "), "{problem_json}");
        }
    }
    let mut outputs = tensor(json!({}));
    outputs["outputs"] = json!([{ "name": "odds" }]);
    api.post(infer, &outputs).await.problem(422, "unknown-output");
    let behind = api.request(Method::POST, infer).header("inference-header-content-length", "5000").body("{}");
    api.send(behind).await.problem(400, "unreadable-request");
    serving.finish().await;
}

/// Unknown paths and methods, and types and sizes that are not accepted, get the right status and the same form of answer; 405
/// lists the allowed methods.
#[tokio::test]
async fn every_other_answer_has_the_same_form() {
    let serving =
        Serving::start(&Input::of(1_000), &["--set", "gateway.body_bytes_max=2000", "--set", "gateway.rides_max=3"])
            .await;
    let api = &serving.api;
    for path in [
        "/nowhere",
        "/v1",
        "/v2/nowhere",
        "/page/none.js",
        "/v1/batches/unknown",
        "/v1/batches/..%2F..%2Fetc",
        "/v1/models/none",
        "/v1/models/service-request/versions/0",
        "/v2/models/none",
        "/v2/models/service-request/versions/0",
        "/v2/models/none/ready",
    ] {
        api.get(path).await.problem(404, "not-found");
    }
    for path in ["/v1/batches/%ff", "/v2/models/%ff", "/page/%ff"] {
        api.get(path).await.problem(400, "unreadable-request");
    }
    for (method, path, allowed) in [
        (Method::GET, "/v1/score", "POST"),
        (Method::DELETE, "/v1/batches", "GET"),
        (Method::PUT, "/", "POST"),
        (Method::GET, "/v2/models/service-request/infer", "POST"),
        (Method::from_bytes(b"FROBNICATE").unwrap(), "/v1/batches", "POST"),
    ] {
        let answer = api.send(api.request(method, path)).await;
        answer.problem(405, "method-not-allowed");
        assert!(answer.header("allow").contains(allowed), "{path}: {answer:?}");
    }
    let counted = api.get("/metrics").await.text();
    assert!(counted.contains("method=\"other\"") && !counted.contains("FROBNICATE"), "{counted}");
    for path in ["/v1/score", "/v2/models/service-request/infer"] {
        for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/xml"] {
            api.post_bytes(path, media_type, "{}").await.problem(415, "unsupported-media-type");
        }
    }
    for path in ["/v1/score", "/", "/v1/score/workshop", "/v2/models/service-request/infer"] {
        api.post_bytes(path, "application/json", vec![b' '; 2001]).await.problem(413, "too-large");
        let pieces = futures::stream::iter((0..3).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1_000])));
        let chunked = api.post_bytes(path, "application/json", reqwest::Body::wrap_stream(pieces)).await;
        chunked.problem(413, "too-large");
    }
    api.post("/v1/score", &json!([ride(), ride(), ride(), ride()])).await.problem(413, "too-large");
    for path in ["/v1/batches?limit=0", "/v1/batches?limit=501", "/v1/dead-letters?limit=501"] {
        let problem_json = api.get(path).await.problem(422, "invalid-limit");
        assert_eq!(problem_json["errors"][0]["field"], "limit", "{problem_json}");
    }
    for path in ["/v1/batches?limit=many", "/v1/dead-letters?limit=-1"] {
        api.get(path).await.problem(422, "invalid-query");
    }
    api.post("/v1/score?explain=perhaps", &ride()).await.problem(422, "invalid-query");
    serving.finish().await;
}
