//! Objects around rides, and the refusals that name them.

use super::*;

const RIDE: &str = r#"{"name":"A","statustime":"2018-04-25 17:03:05","latitude":1,"longitude":2}"#;

/// Checks that the document is refused as no batch, in words that hold all of these.
fn refused(text: &str, words: &[&str]) {
    let refusal = parse(text).unwrap_err();
    assert_eq!(refusal.code, "not_a_batch", "{text}: {refusal}");
    for word in words {
        assert!(refusal.to_string().contains(word), "{text}: no {word:?} in {refusal}");
    }
    assert!(refusal.to_string().len() <= 700, "{refusal}");
}

#[test]
fn rides_under_another_key_are_refused_with_the_way_out() {
    for (text, words) in [
        (format!("{{\"data\":[{RIDE},{RIDE}]}}"), ["`data` is an array of 2", "`--rides-at data`"]),
        (format!("{{\"count\":1,\"results\":[{RIDE}]}}"), ["`count`, `results`", "`--rides-at results`"]),
        (
            format!("{{\"data\":{{\"page\":1,\"rides\":[{RIDE}]}}}}"),
            ["`data.rides` is an array of 1", "`--rides-at data.rides`"],
        ),
        (
            format!("{{\"tags\":[{{\"a\":1}},2,3],\"items\":[{RIDE}]}}"),
            ["`tags` is an array of 3", "`--rides-at items`"],
        ),
        (format!("{{\"name\":\"export\",\"data\":[{RIDE}]}}"), ["`name`, `data`", "`--rides-at data`"]),
        ("{\"data\":[]}".to_owned(), ["`data` is an array of 0", "none of them is a field of a ride"]),
        ("{\"data\":[{\"x\":1}]}".to_owned(), ["`data` is an array of 1", "`--rides-at data`"]),
        ("{\"error\":\"not found\"}".to_owned(), ["the member `error`", "none of them is a field"]),
        (format!("{{\"a.b\":[{RIDE}]}}"), ["`a.b` is an array of 1", "hand in the array of rides alone"]),
        ("{\"lat\":1,\"lng\":2,\"status_time\":3}".to_owned(), ["`lat`", "--map latitude=lat --map longitude=lng"]),
        (format!("{{\"ride\":{RIDE}}}"), ["the member `ride`", "--map statustime=ride.statustime"]),
    ] {
        refused(&text, &words);
        assert_eq!(shown(parse_with(LINES, &text)), "not_a_batch 0 1:1", "{text}");
    }
    let many = (0..50).map(|n| format!("\"{}\\u0001{n}\":[{{}}]", "k".repeat(300))).collect::<Vec<_>>();
    refused(&format!("{{{}}}", many.join(",")), &["and 44 others"]);
}

#[test]
fn known_layouts_and_envelopes_are_named() {
    let cell = |column: &str| format!("\"{column}\":{{\"0\":1,\"1\":2}}");
    let list = |column: &str| format!("\"{column}\":[1,2]");
    let columns = ["statustime", "latitude", "longitude"];
    let feature = format!("{{\"type\":\"Feature\",\"geometry\":{{\"coordinates\":[1,2]}},\"properties\":{RIDE}}}");
    for (text, words) in [
        (
            "{\"columns\":[\"latitude\"],\"index\":[0],\"data\":[[1]]}".to_owned(),
            ["orient='split'", "orient='records'"],
        ),
        (
            format!("{{\"schema\":{{\"fields\":[{{\"name\":\"latitude\"}}]}},\"data\":[{RIDE}]}}"),
            ["orient='table'", "orient='records'"],
        ),
        (format!("{{\"0\":{RIDE},\"1\":{RIDE}}}"), ["orient='index'", "orient='records'"]),
        (format!("{{\"17\":{RIDE}}}"), ["orient='index'", "orient='records'"]),
        (format!("{{{}}}", columns.map(cell).join(",")), ["orient='columns'", "orient='records'"]),
        (format!("{{{}}}", columns.map(list).join(",")), ["orient='list'", "orient='records'"]),
        (
            format!("{{\"type\":\"FeatureCollection\",\"features\":[{feature},{feature}]}}"),
            ["FeatureCollection", "`--rides-at 'features[].properties'`"],
        ),
        (format!("{feature}\n{feature}\n"), ["a GeoJSON Feature", "--map statustime=properties.statustime"]),
        (format!("{{\"specversion\":\"1.0\",\"type\":\"x\",\"data\":[{RIDE}]}}"), ["CloudEvents", "`--rides-at data`"]),
        (
            format!("{{\"specversion\":\"1.0\",\"type\":\"x\",\"data\":{RIDE}}}"),
            ["CloudEvents", "--map statustime=data.statustime"],
        ),
        (
            "{\"Records\":[{\"messageId\":\"x\",\"body\":\"{}\",\"eventSource\":\"aws:sqs\"}]}".to_owned(),
            ["AWS event", "jq -r '.Records[].body'"],
        ),
        ("{\"Type\":\"Notification\",\"TopicArn\":\"x\",\"Message\":\"{}\"}".to_owned(), ["SNS", "`Message`"]),
    ] {
        refused(&text, &words);
    }
}

#[test]
fn an_element_around_rides_refuses_the_document_with_its_index() {
    let batch = format!("{{\"data\":[{RIDE},{RIDE}]}}");
    for (text, words) in [
        (format!("{batch}\n{batch}\n"), vec!["`--rides-at data`"]),
        (format!("{RIDE}\n{batch}\n"), vec!["element 1 (counted from 0)", "`--rides-at data`"]),
        (format!("[{RIDE},7,{batch}]"), vec!["element 2 (counted from 0)", "jq -c '.[].data[]'"]),
        (format!("{{\"rides\":[{RIDE},{batch}]}}"), vec!["element 1 (counted from 0)", "jq -c"]),
        (format!("[[{RIDE},{RIDE}],{{}},{{}}]"), vec!["element 0", "an array of 2 with objects in it"]),
        (format!("[[[{RIDE}]]]"), vec!["element 0", "hand in that array alone"]),
        (
            format!("[{{}},{{\"name\":\"x\",\"of\":{{\"rides\":[{RIDE}]}}}}]"),
            vec!["element 1", "`of.rides` is an array of 1"],
        ),
        (format!("[{{\"n\":1,\"ride\":{RIDE}}}]"), vec!["element 0", "`ride`"]),
    ] {
        refused(&text, &words);
    }
}

#[test]
fn a_ride_may_hold_arrays_and_objects_of_its_own() {
    let with = |members: &str| RIDE.replacen('{', &format!("{{{members},"), 1);
    for ride in [
        with("\"waypoints\":[{\"latitude\":1,\"longitude\":2},{\"latitude\":1}]"),
        with("\"tags\":[{\"a\":1}]"),
        with("\"at\":{\"latitude\":1}"),
        "{\"name\":\"x\",\"latitude\":1,\"stops\":[{\"latitude\":1}]}".to_owned(),
        "{\"latitude\":1,\"note\":{\"a\":[{\"b\":1}]}}".to_owned(),
        "{\"name\":{\"first\":\"x\"},\"latitude\":1}".to_owned(),
    ] {
        assert_eq!(found(&ride), format!("o{ride}"));
        assert_eq!(found(format!("[{ride},{ride}]")), format!("o{ride} o{ride}"));
    }
    for plain in ["{\"x\":{\"y\":1},\"z\":[1,2]}", "{\"lat\":1,\"unicorn\":{\"name\":\"A\"}}"] {
        assert_eq!(found(format!("{plain}\n{plain}\n")), format!("o{plain} o{plain}"));
    }
}

#[test]
fn documents_larger_than_the_window_are_told_apart_as_well() {
    let rides = vec![RIDE; 1_000].join(",");
    refused(
        &format!("{{\"page\":1,\"data\":[{rides}]}}"),
        &["`page`, `data`", "an array of at least", "`--rides-at data`"],
    );
    refused(&format!("[{{\"data\":[{rides}]}}]"), &["element 0", "`data`"]);
    refused(&format!("[[{rides}]]"), &["element 0"]);
    let spread = format!("{{\"travel_data\":[{rides}],\"more\":[{rides}]}}");
    assert_eq!(parse_in::<Outline>(ANY, &[spread.as_bytes()]).unwrap().0.len(), 1_000);
}

#[test]
fn a_mapping_decides_what_is_a_field() {
    let reading: Reading = serde_json::from_str(r#"{"map":{"statustime":"ride.at","latitude":"lat"}}"#).unwrap();
    let ride = "{\"ride\":{\"at\":\"2018-04-25 17:03:05\",\"latitude\":1,\"longitude\":1,\"distance\":2},\"lat\":1}";
    assert_eq!(shown(parse_at(ANY, &reading, ride)), format!("o{ride}"));
    assert!(parse(ride).is_err());
    let by_own_key = "{\"latitude\":1}";
    assert_eq!(shown(parse_at(ANY, &reading, by_own_key)), "not_a_batch 0 1:1", "a mapped field ignores its own key");
}

#[test]
fn a_mapping_after_the_rides_comes_in_time() {
    let odd = format!("{{\"data\":{{\"list\":[{RIDE}]}}}}");
    assert!(parse(format!("{{\"rides\":[{odd}]}}")).is_err());
    for text in [
        format!("{{\"rides\":[{odd}],\"map\":{{\"statustime\":\"data.at\"}}}}"),
        format!("{{\"map\":{{\"statustime\":\"data.at\"}},\"rides\":[{odd}]}}"),
    ] {
        let (found, header) = parse(&text).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(header.reading.to_string(), "--map statustime=data.at");
    }
    for (text, words) in [
        ("{\"map\":{\"altitude\":\"x\"},\"rides\":[]}", "a field of a ride"),
        ("{\"rides\":[],\"map\":7}", "`map`"),
        ("{\"rides_at\":\"data\",\"rides\":[]}", "beside `object` alone"),
        ("{\"rides\":[],\"rides_at\":\"data\"}", "beside `object` alone"),
        ("{\"object\":\"raw/x\",\"rides_at\":\"..\"}", "the path of member names"),
    ] {
        refused(text, &[words]);
    }
    let (_, header) = parse(r#"{"object":"raw/x","rides_at":"a.b[].c","map":{"latitude":"lat"}}"#).unwrap();
    assert_eq!(header.reading.to_string(), "--rides-at a.b[].c --map latitude=lat");
}
