//! Envelopes of rides and their refusals.

use super::*;

const RIDE: &str = r#"{"name":"A","statustime":"2018-04-25 17:03:05","latitude":1,"longitude":2}"#;

/// Checks that the document is refused as `not_a_batch` with all of these words.
fn refused(text: &str, words: &[&str]) {
    let refusal = parse(text).unwrap_err();
    assert_eq!(refusal.code, "not_a_batch", "{text}: {refusal}");
    for word in words {
        assert!(refusal.to_string().contains(word), "{text}: no {word:?} in {refusal}");
    }
    assert!(refusal.to_string().len() <= 700, "{refusal}");
}

#[test]
fn rides_under_another_key_are_refused_with_advice() {
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
        (
            format!("{{\"a.b\":[{RIDE}]}}"),
            ["`a.b` is an array of 1", "take the rides out first, as `jq -c '.\"a.b\"[]'` does"],
        ),
        ("{\"lat\":1,\"lng\":2,\"status_time\":3}".to_owned(), ["`lat`", "--map latitude=lat --map longitude=lng"]),
        (format!("{{\"ride\":{RIDE}}}"), ["the member `ride`", "--map statustime=ride.statustime"]),
    ] {
        refused(&text, &words);
        assert_eq!(outcome_of(parse_with(LINES, &text)), "not_a_batch 0 1:1", "{text}");
    }
    let many = (0..50).map(|n| format!("\"{}\\u0001{n}\":[{{}}]", "k".repeat(300))).collect::<Vec<_>>();
    refused(&format!("{{{}}}", many.join(",")), &["and 44 others"]);
}

#[test]
fn known_layouts_and_envelopes_are_named() {
    let cell = |column: &str| format!("\"{column}\":{{\"0\":1,\"1\":2}}");
    let list = |column: &str| format!("\"{column}\":[1,2]");
    let columns = ["statustime", "latitude", "longitude"];
    let all = ["statustime", "latitude", "longitude", "distance", "healthpoints", "magicpoints"];
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
        (format!("{{{}}}", all.map(cell).join(",")), ["orient='columns'", "orient='records'"]),
        (format!("{{{}}}", all.map(list).join(",")), ["orient='list'", "orient='records'"]),
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
fn an_element_with_several_rides_refuses_the_document_with_its_index() {
    let batch = format!("{{\"data\":[{RIDE},{RIDE}]}}");
    for (text, words) in [
        (format!("{batch}\n{batch}\n"), vec!["`--rides-at data`"]),
        (format!("{RIDE}\n{batch}\n"), vec!["element 1 (counted from 0)", "jq -c '(.data[])? // .'"]),
        (format!("[{RIDE},7,{batch}]"), vec!["element 2 (counted from 0)", "jq -c '.[] | (.data[])? // .'"]),
        (
            format!("{{\"Rides\":[{RIDE},{batch}]}}"),
            vec!["element 1 (counted from 0)", "jq -c '.Rides[] | (.data[])? // .'"],
        ),
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
fn a_ride_may_have_arrays_and_objects() {
    let with = |members: &str| RIDE.replacen('{', &format!("{{{members},"), 1);
    for ride in [
        with("\"waypoints\":[{\"latitude\":1,\"longitude\":2},{\"latitude\":1}]"),
        with("\"tags\":[{\"a\":1}]"),
        with("\"at\":{\"latitude\":1}"),
        "{\"name\":\"x\",\"latitude\":1,\"stops\":[{\"latitude\":1}]}".to_owned(),
        "{\"latitude\":1,\"note\":{\"a\":[{\"b\":1}]}}".to_owned(),
        "{\"name\":{\"first\":\"x\"},\"latitude\":1}".to_owned(),
    ] {
        assert_eq!(outcome(&ride), format!("o{ride}"));
        assert_eq!(outcome(format!("[{ride},{ride}]")), format!("o{ride} o{ride}"));
    }
    for plain in ["{\"x\":{\"y\":1},\"z\":[1,2]}", "{\"lat\":1,\"unicorn\":{\"name\":\"A\"}}"] {
        assert_eq!(outcome(format!("{plain}\n{plain}\n")), format!("o{plain} o{plain}"));
    }
}

#[test]
fn envelopes_larger_than_the_window_are_refused() {
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
fn a_mapping_determines_the_fields() {
    let reading: Reading = serde_json::from_str(r#"{"map":{"statustime":"ride.at","latitude":"lat"}}"#).unwrap();
    let ride = "{\"ride\":{\"at\":\"2018-04-25 17:03:05\",\"latitude\":1,\"longitude\":1,\"distance\":2},\"lat\":1}";
    assert_eq!(outcome_of(parse_at(ANY, &reading, ride)), format!("o{ride}"));
    assert!(parse(ride).is_err());
    let by_own_key = "{\"latitude\":1}";
    assert_eq!(
        outcome_of(parse_at(ANY, &reading, by_own_key)),
        "not_a_batch 0 1:1",
        "a mapped field ignores its own key"
    );
}

#[test]
fn a_mapping_after_the_rides_applies() {
    let odd = format!("{{\"data\":{{\"list\":[{RIDE}]}}}}");
    assert!(parse(format!("{{\"rides\":[{odd}]}}")).is_err());
    for text in [
        format!("{{\"rides\":[{odd}],\"map\":{{\"statustime\":\"data.at\"}}}}"),
        format!("{{\"map\":{{\"statustime\":\"data.at\"}},\"rides\":[{odd}]}}"),
    ] {
        let (elements, header) = parse(&text).unwrap();
        assert_eq!(elements.len(), 1);
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

const COMPLETE: &str = r#"{"name":"A","statustime":"2018-04-25 17:03:05","latitude":1,"longitude":2,"distance":3,"healthpoints":4,"magicpoints":5}"#;

/// An envelope may have a time. The number of a ride's fields decides.
#[test]
fn an_envelope_with_a_time_is_refused() {
    let array = [COMPLETE; 4].join(",");
    let time = r#""statustime":"2018-05-01 00:00:00""#;
    let many = [COMPLETE; 1_000].join(",");
    let near = r#"[{"lat":1,"lng":2},{"lat":3,"lng":4}]"#;
    for (text, words) in [
        (
            format!("{{{time},\"source\":\"x\",\"data\":[{array}]}}"),
            vec!["`data` is an array of 4", "`--rides-at data`"],
        ),
        (format!("[{{{time},\"rides\":[{array}]}}]"), vec!["element 0", "`rides` is an array of 4"]),
        (format!("{{{time},\"payload\":[{array}]}}\n{{{time},\"payload\":[{array}]}}\n"), vec!["`--rides-at payload`"]),
        (format!("{{{time},\"payload\":{COMPLETE}}}\n{{{time},\"payload\":{COMPLETE}}}\n"), vec!["`payload`"]),
        (format!("{{{time},\"data\":[{many}]}}"), vec!["`data` is an array of at least", "`--rides-at data`"]),
        (format!("[{{{time},\"data\":[{many}]}}]"), vec!["element 0", "`data`"]),
        (format!("{{{time},\"data\":{near}}}"), vec!["`data` is an array of 2", "`--rides-at data`"]),
        (
            format!("{{{time},\"note\":\"{}\",\"data\":[{array}]}}", "x".repeat(40_000)),
            vec!["hand in that array alone"],
        ),
        (format!("{{{time},\"columns\":[\"latitude\"],\"data\":[[1]]}}"), vec!["orient='split'"]),
    ] {
        refused(&text, &words);
    }
    let reading: Reading = serde_json::from_str(r#"{"map":{"statustime":"time"}}"#).unwrap();
    let mapped = format!("{{\"time\":\"2018-05-01 00:00:00\",\"data\":[{array}]}}");
    let refusal = parse_at(ANY, &reading, mapped).unwrap_err().to_string();
    assert!(refusal.contains("`--rides-at data`"), "{refusal}");
    let spread = format!("{{{time},\"at\":{{\"latitude\":1,\"longitude\":2,\"distance\":3}}}}");
    assert_eq!(outcome(&spread), format!("o{spread}"), "one ride, spread over objects");
    let reference = format!("{{{time},\"object\":\"raw/x\",\"sha256\":\"00\"}}");
    assert_eq!(parse(reference).unwrap().1.object.as_deref(), Some("raw/x"));
}

/// A complete ride that contains complete rides is ambiguous.
#[test]
fn complete_rides_within_a_ride_are_refused_and_incomplete_ones_accepted() {
    let with = |members: &str| COMPLETE.replacen('{', &format!("{{{members},"), 1);
    let several = with(&format!("\"legs\":[{COMPLETE},{COMPLETE}]"));
    let one = with(&format!("\"raw\":{{\"of\":{COMPLETE}}}"));
    for (text, words) in [
        (
            several.clone(),
            vec!["a ride with complete rides below `legs`", "jq -c 'del(.legs)'", "one beside the other"],
        ),
        (format!("{COMPLETE}\n{several}\n"), vec!["element 1", "jq -c 'del(.legs)'"]),
        (format!("[{several}]"), vec!["element 0", "jq -c '.[] | del(.legs)'"]),
        (format!("{{\"rides\":[{one}]}}"), vec!["below `raw.of`", "jq -c '.rides[] | del(.raw.of)'"]),
    ] {
        refused(&text, &words);
    }
    for ride in [
        with(
            r#""legs":[{"statustime":"x","latitude":1,"longitude":2,"distance":3,"name":"a","breed":"b","ride_id":"c","fieldservice":1}]"#,
        ),
        with(r#""at":{"latitude":1,"longitude":2}"#),
        with(r#""columns":[1],"data":[[2]]"#),
    ] {
        assert_eq!(outcome(&ride), format!("o{ride}"));
        assert_eq!(outcome(format!("[{ride}]")), format!("o{ride}"));
    }
}

/// The enclosing ride would be lost.
#[test]
fn a_ride_that_encloses_the_array_of_rides_is_refused() {
    let inner = COMPLETE.trim_matches(['{', '}']);
    for text in [
        format!("{{{inner},\"rides\":[{COMPLETE},{COMPLETE}]}}"),
        format!("{{\"travel_data\":[{COMPLETE}],{inner}}}"),
        r#"{"Distance ":3,"rides":[]}"#.to_owned(),
    ] {
        refused(&text, &["of a ride as well", "as an element of the array"]);
    }
    for fine in [
        r#"{"statustime":"2018-05-01 00:00:00","name":"x","ride_id":7,"breed":"y","rides":[{}]}"#,
        r#"{"distance":{"unit":"miles"},"latitude":null,"rides":[{}]}"#,
        r#"{"rides":[{}],"longitude":[1,2]}"#,
    ] {
        assert_eq!(outcome(fine), "o{}", "{fine}");
    }
}

/// Rides are detected behind many arrays and at any depth.
#[test]
fn no_bound_of_the_survey_hides_rides() {
    let array = [COMPLETE; 3].join(",");
    let nested = |depth: usize| format!("{}{array}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}[{array}]{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let tags = |value: &str| (0..40).map(|n| format!("\"tags{n}\":{value}")).collect::<Vec<_>>().join(",");
    let (plain, filled) = (tags("[0]"), tags("[{\"x\":1}]"));
    for depth in [2, 17, 18, 31, 32, 33, 40, 100] {
        refused(&nested(depth), &["element 0", "array"]);
        refused(&format!("[{COMPLETE},{}]", nested(depth)), &["element 1"]);
        refused(&format!("[{COMPLETE},{}]", objects(depth)), &["element 1"]);
        refused(&format!("{COMPLETE}\n{}\n", objects(depth)), &["element 1"]);
        refused(&objects(depth), &["expected rides"]);
    }
    refused(&objects(40), &["more than 32 levels deep"]);
    for tags in [plain, filled] {
        refused(&format!("{{{tags},\"data\":[{array}]}}"), &["`data` is an array of 3", "`--rides-at data`"]);
        refused(&format!("[{COMPLETE},{{{tags},\"data\":[{array}]}}]"), &["element 1", "(.data[])?"]);
        refused(&format!("{COMPLETE}\n{{{tags},\"data\":[{array}]}}\n"), &["element 1", "(.data[])?"]);
    }
    let levels = (0..17).map(|n| format!("[{n}]")).collect::<Vec<_>>().join(",");
    refused(&format!("[{COMPLETE},[{levels},[{array}]]]"), &["element 1", "an array of 18"]);
    let deep = format!("{{\"latitude\":1,\"longitude\":2,\"x\":{}1{}}}", "{\"latitude\":".repeat(50), "}".repeat(50));
    assert_eq!(outcome(&deep), format!("o{deep}"), "one field, however often");
}

/// Names in advice are quoted for jq and the shell.
#[test]
fn names_in_advice_are_quoted() {
    for (text, words) in [
        (format!("{{\"my rides\":[{RIDE}]}}"), "`--rides-at 'my rides'`"),
        (format!("{{\"it's\":[{RIDE}]}}"), r"`--rides-at 'it'\''s'`"),
        (format!("[{{\"my-rides\":[{RIDE}]}}]"), "jq -c '.[] | (.\"my-rides\"[])? // .'"),
        (format!("[{{\"rows\":[{{\"ride\":{RIDE}}}]}}]"), "jq -c '.[] | (.rows[].ride)? // .'"),
        (format!("{{\"data\":{{\"a\":{RIDE},\"b\":{RIDE},\"n\":2}}}}"), "jq -c '.data[]'"),
        (format!("{{\"a\":{RIDE},\"b\":{RIDE},\"n\":2}}"), "jq -c '.[] | objects'"),
        (format!("{{\"rides\":{{\"17\":{RIDE}}}}}"), "`jq '{rides: [.rides[]]}'` makes an array"),
        ("{\"Rides\":\"[]\"}".to_owned(), "`jq '.Rides |= fromjson'`"),
        ("{\"rides\":null}".to_owned(), "`{\"rides\":[]}` for a batch without rides"),
        (format!("\"[{}]\"", RIDE.replace('"', "\\\"")), "`jq -r .`"),
        ("hello".to_owned(), "CSV with a header, or Parquet"),
    ] {
        refused(&text, &[words]);
    }
}
