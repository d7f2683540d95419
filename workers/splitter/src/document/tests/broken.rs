//! A broken value rejects itself or its line, and never another ride.

use super::*;

#[test]
fn a_broken_value_with_a_clear_end_rejects_only_itself() {
    for (line, expected) in [
        ("{\"a\":1}{\"b\":tru}{\"c\":3}", r#"o{"a":1} b{"b":tru} o{"c":3}"#),
        ("{\"a\":1} {\"b\" 2} {\"c\":3}", r#"o{"a":1} b{"b" 2} o{"c":3}"#),
        ("{\"a\":[1,}]}{\"c\":3}", r#"b{"a":[1,}] b}{"c":3}"#),
        ("{\"a\":1}{\"b\":", r#"o{"a":1} b{"b":"#),
        ("{\"a\":1} and so on", r#"o{"a":1} band so on"#),
        ("\"a\":1,", r#"b"a":1,"#),
        ("2018-04-25 INFO started", "b2018-04-25 INFO started"),
        ("1 2", "n1 n2"),
    ] {
        let text = format!("{{}}\n{line}\n{{}}\n");
        assert_eq!(outcome(&text), format!("o{{}} {expected} o{{}}"), "{line}");
        assert_eq!(outcome_of(parse_with(LINES, format!("{line}\n{{}}\n"))), format!("{expected} o{{}}"), "{line}");
    }
}

#[test]
fn a_broken_line_that_may_have_other_rides_refuses_the_document() {
    for (line, column) in [
        ("{\"latitude\":1{\"latitude\":2}", 1),
        ("{\"name\":\"A,\"latitude\":1}{\"name\":\"B\",\"latitude\":2}", 1),
        ("{\"a\":1} INFO {\"latitude\":2}", 9),
        ("data: {\"latitude\":NaN}", 1),
        ("},{\"Latitude\":2}", 1),
    ] {
        let text = format!("{{}}\n{line}\n{{}}\n");
        let refusal = parse(&text).unwrap_err();
        assert_eq!((refusal.code, refusal.line, refusal.column), ("invalid_json", 2, column), "{line}");
        assert!(refusal.to_string().contains("put one object on each line"), "{refusal}");
    }
}

#[test]
fn a_broken_ride_on_several_lines_is_at_most_one_broken_ride() {
    let broken = "{\n  \"a\": tru,\n  \"b\": [\n    1\n  ]\n}";
    assert_eq!(outcome(format!("{{}}\n{broken}\n{{}}\n")), format!("o{{}} b{broken} o{{}}"));
    let cut_off = "{}\n{\n  \"a\": tru,\n  \"b\": [\n";
    assert_eq!(outcome(cut_off), "cut_short 26 5:1");
    let truncated = "{}\n{\"a\":[1,\n{\"b\":2}\n{\"c\":3}\n";
    assert_eq!(outcome(truncated), r#"o{} b{"a":[1, o{"b":2} o{"c":3}"#);
    let balanced_later = "{}\n{\"a\":{\"x\":1\n{\"b\":2}\n{\"c\":3}}\n{}\n";
    assert_eq!(outcome(balanced_later), r#"o{} b{"a":{"x":1 o{"b":2} o{"c":3} b} o{}"#);
}

/// The work is linear in the size of the document.
#[test]
fn many_lines_with_incomplete_values_are_read_in_linear_time() {
    let options = Options { lines: true, records: false, ride_bytes_max: 64 * 1024 };
    let lines = 60_000;
    let text = "{\"a\":[1,\n".repeat(lines) + "x\n{\"b\":1}\n";
    let elements = parse_in::<Outline>(options, &[text.as_bytes()]).unwrap().0;
    assert_eq!(elements.len(), lines + 2);
    let deep = format!("{{}}\n{}\n{{}}\n", "{\"a\":".repeat(20_000));
    assert!(parse_in::<Outline>(options, &[deep.as_bytes()]).is_err());
}

proptest! {
    /// A document of lines with one changed byte is refused or keeps its number of elements.
    #[test]
    fn one_changed_byte_never_merges_two_rides(
        rides in proptest::collection::vec(
            (any::<i8>(), "[a-z ]{0,4}", prop_oneof![Just("\n"), Just(""), Just(", "), Just(" ")]), 3..9,
        ),
        at in any::<proptest::sample::Index>(), how in 0usize..3,
        byte in prop_oneof![
            Just(b'"'), Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b','), Just(b':'), Just(b'\\'), Just(b'x'),
            Just(b'\n'), Just(b' '), Just(0u8), Just(0xFFu8),
        ],
        lines in any::<bool>(), cuts in proptest::collection::vec(any::<usize>(), 0..4),
    ) {
        let mut text = String::from("{\"latitude\":0}\n");
        for (latitude, name, separator) in &rides {
            text.push_str(&format!("{{\"latitude\":{latitude},\"name\":{name:?}}}{separator}"));
        }
        text.push('\n');
        let mut changed = text.into_bytes();
        let at = at.index(changed.len());
        match how {
            0 => drop(changed.remove(at)),
            1 => changed.insert(at, byte),
            _ => changed[at] = byte,
        }
        let options = Options { lines, ..ANY };
        let whole = parse_in::<Validation>(options, &[&changed]);
        prop_assert_eq!(&parse_in::<Validation>(options, &cut(&changed, &cuts)), &whole);
        if let Ok((elements, _)) = whole {
            prop_assert!(elements.len() > rides.len(), "{}", String::from_utf8_lossy(&changed));
        }
    }
}
