//! Non-finite numbers in every form of a document.

use super::*;
use crate::document::relaxed::{INFINITE, NAN, Relaxed, is_not_finite};
use common::ride::RejectReason;

const NAMES: [&str; 16] = [
    "NaN",
    "-NaN",
    "nan",
    "Infinity",
    "-Infinity",
    "+Infinity",
    "Inf",
    "-Inf",
    "inf",
    "NA",
    "None",
    "undefined",
    "NAN",
    "+nan",
    "INF",
    "-infinity",
];

fn validated(text: &str) -> Vec<(Option<RejectReason>, String)> {
    let mut document = Document::new(ANY);
    document.push(text.as_bytes());
    document.end();
    let mut elements = Vec::new();
    while let Some(element) = document.next_element::<Validation>().unwrap() {
        let reason = match element.content {
            Content::Object(Validation::Rejected { reason, .. }) => Some(reason),
            Content::Object(Validation::Accepted(_)) => None,
            other => panic!("{text}: {other:?}"),
        };
        elements.push((reason, String::from_utf8(element.raw.to_vec()).unwrap()));
    }
    elements
}

fn ride(field: &str, value: &str) -> String {
    let members = [
        ("statustime", "\"2018-04-25 17:03:05\""),
        ("latitude", "40.5"),
        ("longitude", "-74"),
        ("distance", "29.5"),
        ("healthpoints", "291"),
        ("magicpoints", "292"),
        ("fieldservice", "1"),
        ("name", "\"x\""),
        ("breed", "\"y\""),
        ("ride_id", "\"\""),
        ("note", "\"[{\""),
    ];
    let written = members.map(|(name, good)| format!("{name:?}: {}", if name == field { value } else { good }));
    format!("{{{}}}", written.join(", "))
}

#[test]
fn a_non_finite_number_rejects_one_ride_in_every_form() {
    use RejectReason as Why;
    for (field, expected) in [
        ("statustime", Some(Why::InvalidStatustime)),
        ("latitude", Some(Why::InvalidLatitude)),
        ("magicpoints", Some(Why::InvalidMagicpoints)),
        ("fieldservice", Some(Why::InvalidFieldservice)),
        ("name", Some(Why::InvalidName)),
        ("breed", Some(Why::InvalidBreed)),
        ("ride_id", Some(Why::InvalidRideId)),
        ("note", None),
    ] {
        for name in NAMES {
            // An optional field may be missing but not infinite.
            let is_missing = !name.to_ascii_lowercase().contains("inf");
            let is_optional = ["fieldservice", "name", "breed", "ride_id"].contains(&field);
            let expected = expected.filter(|_| !is_missing || !is_optional);
            let (good, odd) = (ride("", ""), ride(field, name));
            for text in [
                format!("[{good},{odd},{good}]"),
                format!("[\n  {odd},\n  {good}\n]"),
                format!("{{\"travel_data\":[{odd},{good}],\"version\":{name}}}"),
                format!("{{\"version\":{name},\"batch_id\":{name},\"rides\":[{odd},{good}]}}"),
                format!("{odd}\n{good}\n"),
                format!("{good}\n{odd}\n"),
                format!("{good}{odd}"),
                odd.clone(),
            ] {
                let elements = validated(&text);
                let at =
                    elements.iter().position(|(_, raw)| *raw == odd).unwrap_or_else(|| panic!("{text}: {elements:?}"));
                let others = elements.iter().enumerate().filter(|(nth, _)| *nth != at);
                assert_eq!(elements[at].0, expected, "{text}");
                assert!(others.into_iter().all(|(_, (reason, raw))| reason.is_none() && *raw == good), "{text}");
                assert!(parse(&text).is_ok(), "{text}");
            }
        }
    }
    assert_eq!(outcome("[NaN,{\"a\":1},-Infinity]"), "nNaN o{\"a\":1} n-Infinity");
    assert_eq!(outcome("[{\"a\":[1,{\"b\":NaN}]},{\"a\":1}]"), "not_a_batch 1 1:2");
}

#[test]
fn words_that_resemble_non_finite_numbers_are_refused() {
    for word in ["Nan1", "nann", "infinit", "NULL", "True", "na", "none", "--NaN", "-NA", "Undefined", "inf."] {
        assert!(!is_not_finite(word.as_bytes()), "{word}");
        assert!(outcome(format!("[{{\"a\":{word}}}]")).starts_with("invalid_json"), "{word}");
    }
    assert_eq!(outcome("[{\"a\":NaN,\"b\":tru}]"), "invalid_json 17 1:18");
    assert_eq!(outcome("[{\"a\":NaN,\"b\""), "cut_short 13 1:14");
    assert_eq!(outcome("{}\n{\"a\":NaN,\"b\":tru}\n{}\n"), "o{} b{\"a\":NaN,\"b\":tru} o{}");
}

#[test]
fn a_replacement_keeps_positions() {
    assert!(Relaxed::of(b"{\"a\":\"NaN\",\"b\\\"\":1}").is_none());
    let json = b"[NaN, {\"NaN\": -Inf}, \"\\\"NaN\"]x";
    let relaxed = Relaxed::of(json).unwrap();
    let text = String::from_utf8(relaxed.text.clone()).unwrap();
    assert_eq!(text, format!("[{NAN}, {{\"NaN\": {INFINITE}}}, \"\\\"NaN\"]x"));
    assert_eq!(relaxed.original(0), 0);
    assert_eq!(relaxed.original(1), 1);
    assert_eq!(relaxed.original(3), 1, "within the replacement");
    for (index, byte) in text.bytes().enumerate().filter(|(_, byte)| b",{}]x".contains(byte)) {
        assert_eq!(json[relaxed.original(index)], byte, "{index}");
    }
}
