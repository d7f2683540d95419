//! Sequences of values with any separators.

use super::*;
use serde_json::Value;

#[test]
fn several_objects_on_a_line_are_several_rides() {
    let expected = r#"o{"a":1} o{"b":2} o{"c":3}"#;
    for text in [
        "{\"a\":1}{\"b\":2}{\"c\":3}",
        "{\"a\":1} {\"b\":2}\n{\"c\":3}\n",
        "{\"a\":1}\n{\"b\":2}{\"c\":3}",
        "{\"a\":1}\n{\"b\":2},{\"c\":3},\n",
        "{\"a\":1},{\"b\":2},{\"c\":3}",
        "{\"a\":1},\n{\"b\":2},\n{\"c\":3}\n",
        "[{\"a\":1},{\"b\":2},{\"c\":3}]",
        "[{\"a\":1}]\n[{\"b\":2},{\"c\":3}]\n",
        "{\"a\":1}\n[{\"b\":2},{\"c\":3}]\n",
        "{\"a\":1}\n[ ]\n[ {\"b\":2} , {\"c\":3} ]\n",
        "\u{1e}{\"a\":1}\n\u{1e}{\"b\":2}\n\u{1e}{\"c\":3}\n",
        "\u{feff}{\"a\":1}\n\u{feff}{\"b\":2}\n\u{feff}\u{feff}{\"c\":3}\u{feff}",
        "[\u{feff}{\"a\":1},\u{feff}{\"b\":2}\u{feff},{\"c\":3}]\u{feff}\n",
    ] {
        assert_eq!(outcome(text), expected, "{text:?}");
        assert_eq!(outcome_of(parse_with(LINES, text)), expected, "{text:?} as lines");
    }
    let spread = "{\"a\":1}\n{\n  \"b\" : [\n    2\n  ]\n}\n{\"c\":3}\n";
    let expected = "o{\"a\":1} o{\n  \"b\" : [\n    2\n  ]\n} o{\"c\":3}";
    assert_eq!(outcome(spread), expected);
    assert_eq!(outcome_of(parse_with(LINES, spread)), expected);
    assert_eq!(outcome_of(parse_with(LINES, "{\n\"a\":1\n}\n{\n\"b\":2\n}\n")), "o{\n\"a\":1\n} o{\n\"b\":2\n}");
}

#[test]
fn an_array_of_rides_is_read_even_if_lines_are_declared() {
    for text in ["[{\"a\":1},7,{\"b\":2}]", "[\n{\"a\":1},\n7,\n{\"b\":2}\n]\n"] {
        assert_eq!(outcome_of(parse_with(LINES, text)), "o{\"a\":1} n7 o{\"b\":2}");
    }
    assert_eq!(outcome_of(parse_with(LINES, "[null,{\"a\":1}]\n{\"b\":2}")), "nnull o{\"a\":1} o{\"b\":2}");
    assert_eq!(outcome_of(parse_with(LINES, "[1,\"{\"]\n[2]\n{\"b\":2}")), "n[1,\"{\"] n[2] o{\"b\":2}");
    assert_eq!(outcome_of(parse_with(LINES, "[]\n")), "");
    assert_eq!(outcome_of(parse_with(LINES, "{\"rides\":[{\"a\":1},{\"b\":2}]}")), "o{\"a\":1} o{\"b\":2}");
    let many = format!("{{\"a\":1}}\n[1{},{{\"b\":2}}]\n", ",1".repeat(20_000));
    assert_eq!(outcome_of(parse_with(LINES, many)).matches("o{").count(), 2);
}

#[test]
fn a_long_line_of_small_rides_is_not_a_large_ride() {
    let line = "{\"name\":\"x\"} ".repeat(20_000);
    for text in [line.clone(), format!("{{}}\n{line}\n{{}}")] {
        let rides = text.matches('{').count();
        assert_eq!(parse_in::<Outline>(LINES, &[text.as_bytes()]).unwrap().0.len(), rides);
        assert_eq!(parse_in::<Outline>(ANY, &[text.as_bytes()]).unwrap().0.len(), rides);
    }
}

#[test]
fn a_record_is_a_line_and_nothing_is_guessed() {
    let records = Options { records: true, ..ANY };
    let text = "{\"rides\":\"x\"}\n[\"1\",\"2\"]\n{\"object\":\"raw/x\"}\n{\"a\":1}\n";
    assert_eq!(outcome_of(parse_with(records, text)), r#"o{"rides":"x"} n["1","2"] o{"object":"raw/x"} o{"a":1}"#);
    assert_eq!(outcome_of(parse_with(records, "{\"error\":\"x\"}\n")), "o{\"error\":\"x\"}");
    let at = Reading { rides_at: Some("data".parse().unwrap()), ..Reading::default() };
    assert!(parse_at(records, &at, text).unwrap_err().to_string().contains("leave it out"));
}

/// One value of a sequence, without envelopes.
fn value() -> impl Strategy<Value = Value> {
    let flat = || object().prop_map(|text| serde_json::from_str::<Value>(&text.replace("1e999", "1e9")).unwrap());
    let scalar =
        prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), any::<i32>().prop_map(Value::from)];
    prop_oneof![
        6 => flat(),
        1 => scalar.clone(),
        1 => "[a-z{}\\[\\]]{0,6}".prop_map(Value::from),
        1 => proptest::collection::vec(flat(), 0..4).prop_map(Value::from),
        1 => proptest::collection::vec(scalar, 1..4).prop_map(Value::from),
    ]
}

/// The number of objects that a streaming JSON parser finds, including those in arrays.
fn objects_in(text: &str) -> usize {
    let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    values
        .map(|value| match value.unwrap() {
            Value::Object(_) => 1,
            Value::Array(elements) => elements.iter().filter(|element| element.is_object()).count(),
            _ => 0,
        })
        .sum()
}

proptest! {
    #[test]
    fn every_object_of_a_streaming_json_parser_is_a_ride(
        values in proptest::collection::vec((value(), 0usize..9, any::<bool>()), 1..10),
        lines in any::<bool>(), small in any::<bool>(), cuts in proptest::collection::vec(any::<usize>(), 0..6),
    ) {
        const SEPARATORS: [&str; 9] =
            ["\n", "\r\n", " ", ",", ",\n", "\n\n \t", "\u{feff}\n", "\n\u{feff}", "\u{1e}"];
        let first_is_array = values[0].0.is_array();
        let (mut text, mut plain) = (String::new(), String::new());
        for (value, separator, pretty) in values {
            let json = if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() };
            text.push_str(&json);
            text.push_str(SEPARATORS[separator]);
            plain.push_str(&json);
            plain.push('\n');
        }
        let options = Options { lines, records: false, ride_bytes_max: if small { 8 } else { 1024 } };
        let whole = parse_in::<Validation>(options, &[text.as_bytes()]);
        prop_assert_eq!(&parse_in::<Outline>(options, &cut(text.as_bytes(), &cuts)), &whole, "in pieces");
        match whole {
            Ok((elements, _)) => {
                let objects = elements.iter().filter(|(kind, raw)| *kind == 'o' || (*kind == 'l' && raw.starts_with('{')));
                prop_assert_eq!(objects.count(), objects_in(&plain), "{:?}", text);
                prop_assert!(elements.iter().all(|(kind, _)| *kind != 'b'), "{:?}", text);
            }
            // A single object without any of a ride's fields is refused, and a document starts with an object or an array.
            Err(refusal) => {
                let starts_oddly = !text.starts_with(['{', '[']);
                let is_alone = objects_in(&plain) <= 1 && !first_is_array;
                prop_assert!(refusal.code == "not_a_batch" && (starts_oddly || is_alone), "{:?}: {}", text, refusal);
            }
        }
    }
}
