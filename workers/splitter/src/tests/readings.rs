//! Batches with `rides_at` and with a mapping of keys to fields.

use super::*;

const OWN: &str = r#"{"name":"Twilight","at":"2018-04-25 17:03:05","pos":{"lat":40.5,"lng":-74},"km":47.475652,"healthpoints":291,"magicpoints":292}"#;

fn map() -> Value {
    json!({"statustime": "at", "latitude": "pos.lat", "longitude": "pos.lng", "distance": "km*0.621371"})
}

fn reference(object: &str, bytes: &[u8], more: Value) -> String {
    let mut message = json!({"object": object, "sha256": sha256(bytes)});
    message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    message.to_string()
}

async fn claim(store: &Store, batch_id: &str) -> Claim {
    store::read_json(store, &layout::claim(batch_id)).await.unwrap().expect("a claim")
}

#[tokio::test]
async fn a_reference_may_have_rides_at_and_a_mapping() {
    let store = memory();
    let body = format!("{{\"batch_id\":7,\"count\":2,\"data\":[{{\"ride\":{OWN}}},{{\"ride\":{GOOD}}}]}}");
    store.put(&Path::from("raw/x.json"), body.clone().into()).await.unwrap();
    let without_reading = reference("raw/x.json", body.as_bytes(), json!({}));
    assert_eq!(refused_with(&splitter(&store, 10), without_reading).await, "not_a_batch");
    let message = reference("raw/x.json", body.as_bytes(), json!({"rides_at": "data[].ride", "map": map()}));
    let published = publish(&splitter(&store, 10), &message).await.unwrap();
    assert_eq!((published.summary.received, published.summary.accepted), (2, 1));
    let ride = published.rides()[0];
    assert_eq!((ride.latitude, ride.longitude, ride.name.as_str()), (40.5, -74.0, "Twilight"));
    assert!((ride.distance - 29.5).abs() < 1e-4);
    let reading = claim(&store, &published.summary.batch_id).await.reading;
    assert_eq!(reading.rides_at.as_ref().unwrap().to_string(), "data[].ride");
    assert_eq!(published.summary.batch_id, reading.batch_id(&sha256(body.as_bytes())));
    let lines = rejects(&store, &published.summary.batch_id).await;
    let as_it_came: Value = serde_json::from_str(GOOD).unwrap();
    assert_eq!(lines, [json!({"index": 1, "field": "statustime", "reason": "missing_statustime", "ride": as_it_came})]);
    assert_eq!(publish(&splitter(&store, 1000), &message).await.unwrap(), published);
}

#[tokio::test]
async fn a_mapping_in_the_document_applies_at_any_position_and_in_a_replay() {
    for body in [
        format!("{{\"map\":{},\"rides\":[{OWN},{GOOD}]}}", map()),
        format!("{{\"rides\":[{OWN},{GOOD}],\"map\":{}}}", map()),
    ] {
        let store = memory();
        let first = publish(&splitter(&store, 10), &body).await.unwrap();
        assert_eq!((first.summary.received, first.summary.accepted), (2, 1), "{body}");
        assert_ne!(first.summary.batch_id, sha256(body.as_bytes())[..16]);
        let claim = claim(&store, &first.summary.batch_id).await;
        assert_eq!(serde_json::to_value(&claim.reading.map).unwrap(), map());
        let replay = reference(claim.object.as_deref().unwrap(), body.as_bytes(), json!({}));
        assert_eq!(publish(&splitter(&store, 10), replay).await.unwrap(), first);
        let told_again = reference(claim.object.as_deref().unwrap(), body.as_bytes(), json!({"map": map()}));
        assert_eq!(publish(&splitter(&store, 10), told_again).await.unwrap(), first);
    }
}

#[tokio::test]
async fn a_batch_id_is_bound_to_its_reading() {
    let store = memory();
    let worker = splitter(&store, 10);
    let body = format!("[{OWN}]");
    store.put(&Path::from("raw/x.json"), body.clone().into()).await.unwrap();
    let message = |more: Value| reference("raw/x.json", body.as_bytes(), more);
    let mapped = json!({"batch_id": "b", "map": map()});
    publish(&worker, message(mapped.clone())).await.unwrap();
    publish(&worker, message(mapped)).await.unwrap();
    let failure = publish(&worker, message(json!({"batch_id": "b"}))).await.unwrap_err().to_string();
    assert!(failure.starts_with("batch_id_conflict"), "{failure}");
    assert!(failure.contains("--map statustime=at") && failure.contains("the default reading"), "{failure}");
    publish(&worker, message(json!({"batch_id": "c"}))).await.unwrap();
}

#[tokio::test]
async fn a_ride_with_nan_is_rejected_with_its_raw_text() {
    let store = memory();
    let odd = GOOD.replace("292", "NaN");
    let published = publish(&splitter(&store, 10), format!("[{GOOD},\n{odd},{GOOD}]")).await.unwrap();
    assert_eq!((published.summary.received, published.summary.accepted), (3, 2));
    let lines = rejects(&store, &published.summary.batch_id).await;
    assert_eq!(lines, [json!({"index": 1, "field": "magicpoints", "reason": "invalid_magicpoints", "ride": odd})]);
}

#[tokio::test]
async fn an_object_with_several_rides_is_never_one_ride() {
    let worker = splitter(&memory(), 10);
    let lines = Properties { content_type: Some("application/x-ndjson".into()), ..Properties::default() };
    for body in [
        format!("{GOOD}{GOOD}{GOOD}"),
        format!("{GOOD}\n{GOOD}{GOOD}\n"),
        format!("[{GOOD},{GOOD},{GOOD}]"),
        format!("[{GOOD},{GOOD}]\n[{GOOD}]\n"),
        format!("{{\"rides\":[{GOOD},{GOOD},{GOOD}]}}"),
    ] {
        let published = publish_with(&worker, body.as_bytes(), lines.clone()).await.unwrap();
        assert_eq!((published.summary.received, published.summary.accepted), (3, 3), "{body}");
    }
    for body in [format!("{{\"data\":[{GOOD},{GOOD}]}}"), format!("[[{GOOD},{GOOD}],{{}}]")] {
        let failure = publish_with(&worker, body.as_bytes(), lines.clone()).await.unwrap_err();
        assert!(matches!(failure, Failure::Permanent { reason: "not_a_batch", .. }), "{failure}");
    }
}

/// Runs the public cases on forms of documents, times, labels, numbers and keys, if their folder exists.
#[tokio::test]
async fn the_public_cases_give_the_expected_counts() {
    let cases = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/cases");
    if !cases.is_dir() {
        eprintln!("skipped: {} does not exist", cases.display());
        return;
    }
    for (case, received, rejected) in [
        ("01-times-that-say-utc/rides.json", 6, 0),
        ("03-label-true-false/rides.json", 12, 0),
        ("04-nan-in-an-array/rides.json", 12, 1),
        ("04-nan-in-an-array/rides.ndjson", 12, 1),
        ("05-several-objects-on-a-line/pairs.jsonl", 12, 0),
        ("05-several-objects-on-a-line/concatenated.jsonl", 12, 0),
        ("05-several-objects-on-a-line/first-alone.json", 12, 0),
        ("09-byte-order-mark-within/joined.json", 12, 0),
        ("09-byte-order-mark-within/each.ndjson", 12, 0),
        ("11-numbers-in-texts/padded.json", 6, 0),
        ("11-numbers-in-texts/exponent.json", 6, 0),
    ] {
        let store = memory();
        let bytes = std::fs::read(cases.join(case)).unwrap();
        let reference = upload(&store, &format!("raw/{case}"), &bytes).await;
        let summary = publish(&splitter(&store, 100), reference).await.unwrap().summary;
        assert_eq!((summary.received, summary.rejected), (received, rejected), "{case}: {summary:?}");
    }
    for (case, path) in [("data", "data"), ("results", "results"), ("features", "features[].properties")] {
        let store = memory();
        let bytes = std::fs::read(cases.join(format!("06-rides-below-another-key/{case}.json"))).unwrap();
        let without_reading = upload(&store, "raw/x", &bytes).await;
        let failure = publish(&splitter(&store, 100), without_reading).await.unwrap_err().to_string();
        assert!(failure.starts_with("not_a_batch") && failure.contains("an array of 12"), "{failure}");
        assert!(failure.contains("--rides-at") && failure.contains(path), "{failure}");
        let read = reference("raw/x", &bytes, json!({"rides_at": path}));
        let summary = publish(&splitter(&store, 100), read).await.unwrap().summary;
        assert_eq!((summary.received, summary.rejected), (12, 0), "{case}");
    }
}
