//! Rides at the path `rides_at`.

use super::*;

fn at(path: &str) -> Reading {
    Reading { rides_at: Some(path.parse().unwrap()), ..Reading::default() }
}

fn outcome_at(path: &str, text: impl AsRef<[u8]>) -> String {
    outcome_of(parse_at(ANY, &at(path), text))
}

fn refusal_at(path: &str, text: &str) -> String {
    let refusal = parse_at(ANY, &at(path), text).unwrap_err();
    assert_eq!(refusal.code, "not_a_batch", "{refusal}");
    refusal.to_string()
}

#[test]
fn a_path_leads_to_the_rides() {
    let expected = r#"o{"a":1} n7 o{"b":2}"#;
    let rides = r#"[{"a":1},7,{"b":2}]"#;
    for (path, text) in [
        ("data", format!("{{\"data\":{rides}}}")),
        ("data", format!("\u{feff}{{\"x\":[{{\"data\":[1]}}],\"rides\":[{{}}],\" Data\":{rides},\"y\":{{}}}}\n")),
        ("a.b", format!("{{\"b\":[1],\"a\":{{\"a\":[2],\"b\":{rides},\"c\":3}},\"d\":4}}")),
        ("r[].p", r#"{"r":[{"p":{"a":1}},7,{"q":[{}],"p":{"b":2}}]}"#.to_owned()),
    ] {
        assert_eq!(outcome_at(path, &text), expected, "{path} {text}");
    }
    assert_eq!(outcome_at("data", "{\"data\":[]}"), "");
    assert_eq!(outcome_at("r[].p", r#"{"r":[{"p":null},{"q":1},{"p":[1]}]}"#), r#"n{"p":null} n{"q":1} n{"p":[1]}"#);
    let deep = r#"{"r":[{"p":{"q":{"a":NaN}}}]}"#;
    assert_eq!(outcome_at("r[].p.q", deep), r#"o{"p":{"q":{"a":NaN}}}"#);
}

#[test]
fn every_envelope_of_a_sequence_is_read() {
    let text = "{\"data\":[{\"a\":1}]}\n{\"n\":2,\"data\":[{\"b\":2},{\"c\":3}]},{\"data\":[]}";
    assert_eq!(outcome_at("data", text), r#"o{"a":1} o{"b":2} o{"c":3}"#);
}

#[test]
fn members_larger_than_the_window_are_skipped() {
    let other = format!("\"{}\"", "x{[\\\"".repeat(20_000));
    let rides = vec!["{\"name\":\"x\"}"; 3_000].join(",");
    let text = format!("{{\"x\":{other},\"data\":{{\"y\":[{other}],\"rides\":[{rides}],\"z\":{other}}}}}");
    assert_eq!(parse_as::<Outline>(ANY, &at("data.rides"), &[text.as_bytes()]).unwrap().0.len(), 3_000);
    let pieces: Vec<_> = text.as_bytes().chunks(1_000).collect();
    assert_eq!(parse_as::<Outline>(ANY, &at("data.rides"), &pieces).unwrap().0.len(), 3_000);
}

#[test]
fn the_window_stays_bounded_along_a_path() {
    for start in [
        "{",
        "{\"",
        "{\"x\"",
        "{\"x\":",
        "{\"x\":[",
        "{\"x\":[],",
        "{\"data\"",
        "{\"data\":",
        "{\"data\":{\"",
        "{\"data\":[],",
    ] {
        let mut document = Document::new(ANY).with_reading(at("data"));
        document.push(start.as_bytes());
        for _ in 0..5_000 {
            // A refusal ends the test case.
            if document.next_element::<Outline>().is_err() {
                break;
            }
            // The window is read again each time it has doubled.
            assert!(document.window.len() <= 2 * document.large() + 512, "{start}");
            document.push(&[b' '; 512]);
        }
    }
}

#[test]
fn a_missing_path_is_refused_with_the_actual_members() {
    for (path, text, words) in [
        ("data", "{\"a\":1,\"b\":[2]}", "expected `data` in the object, as rides_at `data` says, found `a`, `b`"),
        ("a.data", "{\"a\":{\"x\":1}}", "expected `data` in `a`, as rides_at `a.data` says, found `x`"),
        ("data", "{}", "found no members"),
        (
            "data",
            "{\"data\":{\"rides\":[1]}}",
            "an array of rides at `data`, as rides_at `data` says, found an object with the member `rides`",
        ),
        ("data", "{\"data\":null}", "found `null`"),
        ("a.b", "{\"a\":[]}", "expected an object at `a`, as rides_at `a.b` says, found an array"),
        ("data", "{\"data\":\"x\"}", "found a text"),
        ("data", "{\"data\":[],\"data\":[]}", "one array of rides at `data`"),
        ("data", "[{}]", "leave rides_at out"),
        ("r[].p", r#"{"r":[{"p":[{"latitude":1}]}]}"#, "an array of 1 with objects in it"),
        ("data", r#"{"data":[{"rides":[{"latitude":1}]}]}"#, "`rides` is an array of 1"),
    ] {
        let refusal = refusal_at(path, text);
        assert!(refusal.contains(words), "{path} {text}: {refusal}");
    }
    for (text, expected) in [
        ("", "empty 0 1:1"),
        ("{\"data\":[{}", "cut_short 11 1:12"),
        ("{\"data\":[{}]", "cut_short 12 1:13"),
        ("{\"a\":tru,\"data\":[{}]}", "invalid_json 8 1:9"),
        // Regression test (fuzzing): the text depended on the pieces.
        ("{\"data\":tts\":\"292\",\"field\u{7}\"namce\":true}},{\"properties\":null}]}", "invalid_json 9 1:10"),
        ("{\"data\":{\"a\":1,\"b\":tru},\"c\":[1,2,3,4,5,6,7,8,9]}", "invalid_json 22 1:23"),
        ("{\"data\":[{}]}x", "not_a_batch 13 1:14"),
        ("{\"data\":[{}] \"b\":1}", "invalid_json 13 1:14"),
    ] {
        assert_eq!(outcome_at("data", text), expected, "{text}");
    }
}

#[test]
fn a_document_with_a_path_has_no_header() {
    let (_, header) = parse_at(ANY, &at("data"), r#"{"batch_id":"x","source":{},"map":7,"data":[{}]}"#).unwrap();
    assert_eq!(header, Header::default());
}
