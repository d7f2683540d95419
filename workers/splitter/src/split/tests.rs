use super::*;
use crate::document::{Document, Options};
use proptest::prelude::*;

const RIDE: &str = r#""statustime":"2018-04-25 17:03:05","latitude":40.5,"longitude":-74,"distance":29.5,"healthpoints":291,"magicpoints":292}"#;

fn ride(members: &str) -> String {
    format!("{{{members}{RIDE}")
}

fn ride_ids(document: &str, lines: bool) -> RideIds {
    let mut parser = Document::new(Options { lines, records: false, ride_bytes_max: 4096 });
    parser.push(document.as_bytes());
    parser.end();
    let mut ride_ids = RideIds::default();
    while let Some(element) = parser.next_element().unwrap() {
        ride_ids.count(&element.content);
    }
    ride_ids
}

fn split(chunk_size: u32, document: &str, lines: bool) -> (Vec<RideChunk>, Vec<Value>, BatchSplit) {
    let mut parser = Document::new(Options { lines, records: false, ride_bytes_max: 4096 });
    parser.push(document.as_bytes());
    parser.end();
    let mut split = Split::new("batch", "s".to_owned(), None, chunk_size, ride_ids(document, lines));
    let mut chunks = Vec::new();
    while let Some(element) = parser.next_element::<Validation>().unwrap() {
        split.take(element).unwrap();
        chunks.extend(split.full_chunk());
    }
    chunks.extend(split.last_chunk());
    let lines = std::str::from_utf8(split.reject_lines()).unwrap().lines();
    let rejects = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    (chunks, rejects, split.summary("00"))
}

fn ids(chunks: &[RideChunk]) -> Vec<&str> {
    chunks.iter().flat_map(|chunk| &chunk.rides).map(|ride| ride.ride_id.as_str()).collect()
}

#[test]
fn generated_ids_number_all_elements_of_the_batch() {
    let document = format!("[{},7,{},{}]", ride(""), ride(r#""ride_id":null,"#), ride(r#""ride_id":"x","#));
    let (chunks, rejects, summary) = split(10, &document, false);
    assert_eq!(ids(&chunks), ["batch-0", "batch-2", "x"]);
    assert_eq!(rejects, [serde_json::json!({"index": 1, "field": null, "reason": "not_an_object", "ride": 7})]);
    assert_eq!((summary.received, summary.accepted, summary.rejected, summary.chunks), (4, 3, 1, 1));
    assert_eq!(summary.rejected_by_reason, [("not_an_object".to_owned(), 1)].into());
}

#[test]
fn a_repeated_id_rejects_the_ride() {
    let id = |id: &str| ride(&format!("\"ride_id\":{id:?},"));
    let rides = [
        id("a"),
        id("a"),
        id("A"),
        id("batch-3"),
        id("batch-9"),
        id("batch-05"),
        id("batch-05"),
        id("b").replace("40.5", "99"),
        id("b"),
        ride(""),
    ];
    let (chunks, rejects, _) = split(10, &format!("[{}]", rides.join(",")), false);
    assert_eq!(ids(&chunks), ["a", "A", "batch-3", "batch-05", "batch-9"]);
    let reasons: Vec<_> =
        rejects.iter().map(|line| (line["index"].as_u64().unwrap(), line["reason"].as_str().unwrap())).collect();
    let duplicate = "duplicate_ride_id";
    assert_eq!(reasons, [(1, duplicate), (4, duplicate), (6, duplicate), (7, "latitude_out_of_range"), (8, duplicate)]);
    assert_eq!(rejects[0]["field"], "ride_id");
}

#[test]
fn given_ids_may_look_like_generated_ones_if_none_is_generated() {
    let numbered =
        |from: u64| (0..4).map(|n| ride(&format!("\"ride_id\":\"batch-{}\",", n + from))).collect::<Vec<_>>();
    let (chunks, rejects, _) = split(10, &format!("[7,{}]", numbered(1).join(",")), false);
    assert_eq!(ids(&chunks), ["batch-1", "batch-2", "batch-3", "batch-4"]);
    assert_eq!(rejects.len(), 1);
    let twice = [numbered(1), numbered(1)].concat().join(",");
    let (chunks, rejects, _) = split(10, &format!("[{twice}]"), false);
    assert_eq!((ids(&chunks).len(), rejects.len()), (4, 4));
    assert!(rejects.iter().all(|line| line["reason"] == "duplicate_ride_id"));
}

#[test]
fn a_reject_line_has_the_raw_ride() {
    let deep = format!("{{\"latitude\":{}{}}}", "[".repeat(1000), "]".repeat(1000));
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(5000));
    let lines =
        ["{\"Latitude\": 1e999, \"x\": [1,  \"\\n\"]}", "{\"a\":tru", &deep, &large, "{\"Latitude\": 1.0,\"b\" :2}"];
    let (_, rejects, _) = split(10, &lines.join("\n"), true);
    let rides: Vec<_> = rejects.iter().map(|line| line["ride"].clone()).collect();
    assert_eq!(rides[..3], lines[..3]);
    assert_eq!(rides[3], large[..HEAD_BYTES]);
    assert_eq!(rides[4], serde_json::json!({"Latitude": 1.0, "b": 2}));
    let (_, rejects, _) = split(10, "[{\r\n    \"name\": \"a  b\",\n\n    \"x\": [1, 2]\n}]", false);
    assert_eq!(rejects[0]["ride"], serde_json::json!({"name": "a  b", "x": [1, 2]}));
}

#[test]
fn a_reject_line_keeps_the_raw_text_of_numbers() {
    let mut lines = Vec::new();
    write_reject(&mut lines, 3, RejectReason::MissingStatustime, b"{\"Distance\":  1.50e0,\n  \"x\":1}");
    let line = std::str::from_utf8(&lines).unwrap();
    let expected =
        r#"{"index":3,"field":"statustime","reason":"missing_statustime","ride":{"Distance":  1.50e0,"x":1}}"#;
    assert_eq!(line, format!("{expected}\n"));
}

#[test]
fn decimal_agrees_with_to_string() {
    for value in [0, 7, 10, 999, 1_000, u64::MAX] {
        assert_eq!(decimal(value, &mut [0; 20]), value.to_string());
    }
}

proptest! {
    #[test]
    fn every_element_is_accepted_or_rejected_for_any_chunk_size(
        kinds in proptest::collection::vec(0usize..5, 0..60), chunk_size in 1u32..20,
    ) {
        let kinds_of_ride =
            [ride(""), "{}".to_owned(), "[]".to_owned(), ride(r#""ride_id":"same","#), ride(r#""Name":"x","breed":"y","#)];
        let document = format!("[{}]", kinds.iter().map(|kind| kinds_of_ride[*kind].as_str()).collect::<Vec<_>>().join(","));
        let (chunks, rejects, summary) = split(chunk_size, &document, false);
        let (one_each, same_rejects, one_summary) = split(1, &document, false);
        prop_assert_eq!(summary.received, kinds.len() as u64);
        prop_assert_eq!(summary.accepted + summary.rejected, summary.received);
        prop_assert_eq!(summary.accepted, ids(&chunks).len() as u64);
        prop_assert_eq!(summary.rejected, rejects.len() as u64);
        prop_assert_eq!(u64::from(summary.chunks), summary.accepted.div_ceil(chunk_size.into()));
        prop_assert_eq!(summary.chunks as usize, chunks.len());
        prop_assert!(chunks.iter().enumerate().all(|(n, chunk)| chunk.chunk as usize == n));
        let full = chunks.len().saturating_sub(1);
        prop_assert!(chunks[..full].iter().all(|chunk| chunk.rides.len() == chunk_size as usize));
        let rides = |chunks: &[RideChunk]| chunks.iter().flat_map(|chunk| chunk.rides.clone()).collect::<Vec<_>>();
        prop_assert_eq!(rides(&chunks), rides(&one_each));
        prop_assert_eq!(rejects, same_rejects);
        prop_assert_eq!(u64::from(one_summary.chunks), summary.accepted);
        let distinct: HashSet<_> = ids(&chunks).into_iter().collect();
        prop_assert_eq!(distinct.len() as u64, summary.accepted);
    }
}
