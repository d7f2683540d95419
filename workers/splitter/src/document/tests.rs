mod broken;
mod envelopes;
mod finite;
mod paths;
mod sequences;

use super::*;
use crate::ride::{Outline, Validation};
use common::reading::Reading;
use proptest::prelude::*;

const LINES: Options = Options { lines: true, records: false, ride_bytes_max: 1024 };
const ANY: Options = Options { lines: false, records: false, ride_bytes_max: 1024 };

/// The elements: the kind, which is an object (`o`), another value (`n`), broken (`b`) or too large (`l`), and the raw bytes.
type Parsed = Vec<(char, String)>;

fn parse_in<T: FromObject>(options: Options, pieces: &[&[u8]]) -> Result<(Parsed, Header), Refusal> {
    parse_as::<T>(options, &Reading::default(), pieces)
}

fn parse_as<T: FromObject>(options: Options, reading: &Reading, pieces: &[&[u8]]) -> Result<(Parsed, Header), Refusal> {
    let mut document = Document::new(options).with_reading(reading.clone());
    let mut elements = Vec::new();
    let mut read = |document: &mut Document| -> Result<(), Refusal> {
        while let Some(element) = document.next_element::<T>()? {
            assert_eq!(element.index, elements.len() as u64);
            let kind = match element.content {
                Content::Object(_) => 'o',
                Content::NotAnObject => 'n',
                Content::Broken => 'b',
                Content::TooLarge => 'l',
            };
            elements.push((kind, String::from_utf8_lossy(element.raw.trim_ascii()).into_owned()));
        }
        Ok(())
    };
    for piece in pieces {
        document.push(piece);
        read(&mut document)?;
    }
    document.end();
    read(&mut document)?;
    assert_eq!(document.elements(), elements.len() as u64);
    Ok((elements, document.header().clone()))
}

/// Parses at once and byte by byte, in both passes. All must agree.
fn parse_with(options: Options, text: impl AsRef<[u8]>) -> Result<(Parsed, Header), Refusal> {
    parse_at(options, &Reading::default(), text)
}

fn parse_at(options: Options, reading: &Reading, text: impl AsRef<[u8]>) -> Result<(Parsed, Header), Refusal> {
    let text = text.as_ref();
    let whole = parse_as::<Outline>(options, reading, &[text]);
    let bytes: Vec<&[u8]> = text.chunks(1).collect();
    assert_eq!(parse_as::<Outline>(options, reading, &bytes), whole, "byte by byte");
    assert_eq!(parse_as::<Validation>(options, reading, &[text]), whole, "second pass");
    assert_eq!(parse_as::<Validation>(options, reading, &bytes), whole, "second pass, byte by byte");
    whole
}

/// The text of the refusal.
fn refusal(text: impl AsRef<[u8]>) -> String {
    parse(text).unwrap_err().to_string()
}

fn parse(text: impl AsRef<[u8]>) -> Result<(Parsed, Header), Refusal> {
    parse_with(ANY, text)
}

fn outcome(text: impl AsRef<[u8]>) -> String {
    outcome_of(parse(text))
}

/// The elements, as in `o{"a":1} n7`, or the code and the position of the refusal.
fn outcome_of(parsed: Result<(Parsed, Header), Refusal>) -> String {
    match parsed {
        Ok((elements, _)) => elements.iter().map(|(kind, raw)| format!("{kind}{raw}")).collect::<Vec<_>>().join(" "),
        Err(Refusal { code, offset, line, column, .. }) => format!("{code} {offset} {line}:{column}"),
    }
}

#[test]
fn every_form_gives_the_same_rides() {
    let expected = r#"o{"a":1} o{"b":[2]}"#;
    for text in [
        r#"[{"a":1},{"b":[2]}]"#,
        "\u{feff} [ {\"a\":1} , {\"b\":[2]} ] \n\n",
        r#"{"travel_data":[{"a":1},{"b":[2]}]}"#,
        r#"{"Travel_Data":[{"a":1},{"b":[2]}]}"#,
        r#"{"x":{"rides":[]},"source":"s","RIDES":[{"a":1},{"b":[2]}],"y":[1],"batch_id":"b"}"#,
        "{\"a\":1}\n{\"b\":[2]}\n",
        "\n\r\n{\"a\":1}\r\n  \n{\"b\":[2]}",
        r#"{"a":1}{"b":[2]}"#,
        "{\"a\":1} {\"b\":[2]}\n",
    ] {
        assert_eq!(outcome(text), expected, "{text}");
    }
    assert_eq!(outcome("{\n\"a\":1\n}\n{\n\"b\":[2]\n}\n"), "o{\n\"a\":1\n} o{\n\"b\":[2]\n}");
    assert_eq!(outcome_of(parse_with(LINES, "{\"a\":1}\n{\"b\":[2]}")), expected);
}

#[test]
fn an_empty_array_is_a_batch_and_an_empty_document_is_not() {
    for text in ["[]", " [ ] ", r#"{"rides":[]}"#, r#"{"a":1,"travel_data":[ ],"b":2}"#] {
        assert_eq!(outcome(text), "", "{text}");
    }
    for (text, place) in [("", "empty 0 1:1"), (" \n \t", "empty 4 2:3"), ("\u{feff}", "empty 3 1:4")] {
        assert_eq!(outcome(text), place);
        assert_eq!(outcome_of(parse_with(LINES, text)), place);
    }
}

#[test]
fn elements_may_be_other_values_than_objects() {
    let text = r#"[1, -2.5e3 ,true,null,"x",[[]],{"a":1},1e999]"#;
    assert_eq!(outcome(text), r#"n1 n-2.5e3 ntrue nnull n"x" n[[]] o{"a":1} n1e999"#);
    assert_eq!(outcome("{}\n5\nnull\n[1,[2]]\n"), "o{} n5 nnull n[1,[2]]");
}

#[test]
fn a_header_is_read_at_any_position() {
    for text in [
        r#"{"batch_id":"b","source":"s","rides":[{}]}"#,
        r#"{"rides":[{}],"Source":"s","BATCH_ID":"b"}"#,
        r#"{"source":"s","rides":[{}],"batch_id":"b","sha256":null}"#,
    ] {
        let (_, header) = parse(text).unwrap();
        assert_eq!((header.batch_id.as_deref(), header.source.as_deref()), (Some("b"), Some("s")), "{text}");
    }
    let (elements, header) = parse(r#"{"object":"raw/x","sha256":"00","batch_id":"b"}"#).unwrap();
    assert!(elements.is_empty());
    assert_eq!((header.object.as_deref(), header.sha256.as_deref()), (Some("raw/x"), Some("00")));
    let (_, header) = parse("{\"batch_id\":\"b\",\"a\":1}\n{}\n").unwrap();
    assert_eq!(header, Header::default(), "members of a ride make no header");
    let (_, header) = parse(r#"{"source":{"host":"h"},"rides":[]}"#).unwrap();
    assert_eq!(header.source, None);
}

#[test]
fn a_ride_may_have_members_of_a_batch() {
    let ride = r#"{"statustime":"x","rides":7,"object":"unicorn"}"#;
    assert_eq!(outcome(ride), format!("o{ride}"));
    assert_eq!(outcome(format!("{ride}\n{ride}\n")), format!("o{ride} o{ride}"));
}

#[test]
fn a_document_that_is_no_batch_is_refused_with_the_position() {
    for (text, expected) in [
        ("hello", "not_a_batch 0 1:1"),
        ("7", "not_a_batch 0 1:1"),
        ("\n <html>\n</html>\n", "not_a_batch 2 2:2"),
        (r#"{"rides":7}"#, "not_a_batch 9 1:10"),
        (r#"{"rides":null}"#, "not_a_batch 9 1:10"),
        (r#"{"batch_id":7,"rides":[]}"#, "not_a_batch 12 1:13"),
        (r#"{"rides":[],"batch_id":[]}"#, "not_a_batch 23 1:24"),
        (r#"{"batch_id":"a","batch_id":"b","rides":[]}"#, "not_a_batch 27 1:28"),
        (r#"{"rides":[],"travel_data":[]}"#, "not_a_batch 12 1:13"),
        (r#"{"object":"raw/x","rides":[]}"#, "not_a_batch 18 1:19"),
        (r#"{"rides":[],"object":"raw/x"}"#, "not_a_batch 21 1:22"),
        (r#"{"object":7}"#, "not_a_batch 0 1:1"),
        ("{}", "not_a_batch 0 1:1"),
        (r#"[{"a":1},]"#, "invalid_json 9 1:10"),
        (r#"[{"a":1} {"b":2}]"#, "invalid_json 9 1:10"),
        (r#"[,{"a":1}]"#, "invalid_json 1 1:2"),
        ("[\n{\"a\":1},\n{\"a\":tru}\n]", "invalid_json 19 3:9"),
        ("[{\"a\":1}]\nx", "invalid_json 10 2:1"),
        ("{\"rides\":[]}{}", "invalid_json 12 1:13"),
        ("{\"rides\":[] \"a\":1}", "invalid_json 12 1:13"),
        ("{\"object\":\"raw/x\"}\n{}\n", "invalid_json 19 2:1"),
        ("{\"a\":1}{\"b\":2},,{}", "invalid_json 15 1:16"),
        ("{\"a\":1}{\"b\":2}}", "invalid_json 14 1:15"),
        ("{\n\"a\":1\n}\nx", "invalid_json 10 4:1"),
        ("[{\"a\":1}", "cut_short 8 1:9"),
        ("[{\"a\":1},\n", "cut_short 10 2:1"),
        ("[{\"a\":[", "cut_short 7 1:8"),
        ("[tru", "cut_short 4 1:5"),
        ("[-", "cut_short 2 1:3"),
        ("[{\"a\":1e", "cut_short 8 1:9"),
        ("[tru]", "invalid_json 4 1:5"),
        ("{\"rides\":[]", "cut_short 11 1:12"),
        ("{\"rides\"", "cut_short 8 1:9"),
        ("{\"a\":\n{\"b\":1}\n", "cut_short 14 3:1"),
        ("{\"a\":1}{\"b\"", "cut_short 11 1:12"),
        ("{\n\"a\":1}\n{\"b\"\n", "cut_short 14 4:1"),
    ] {
        assert_eq!(outcome(text), expected, "{text}");
    }
    assert_eq!(outcome(b"[{\"a\":\"\xFF\"}]"), "invalid_json 7 1:8");
    assert_eq!(outcome(b"\xFF\xFE[\0]\0"), "not_a_batch 0 1:1");
    for (text, words) in [
        ("[{'a': 1}]", "write the document with json.dump, found `'a': 1}]`, at byte 2"),
        ("{'a': 1}", "write the document with json.dump, found `'a': 1}`, at byte 1"),
        ("['a']", "write the document with json.dump, found `'a']`, at byte 1"),
    ] {
        assert!(refusal(text).contains(words), "{text}: {}", refusal(text));
    }
    assert!(refusal(b"[{\"name\":\"Th\xE9o\"}]").contains("iconv -f WINDOWS-1252 -t UTF-8"));
    assert_eq!(refusal(r#"[{"a":1 "b":2}]"#), "expected `,` or `}`, found `\"b\":2}]`, at byte 8 (line 1, column 9)");
    assert_eq!(
        refusal("[{}"),
        "expected the rest of the array of rides, found the end of the document, at byte 3 (line 1, column 4)"
    );
    assert_eq!(
        refusal("[{}]\n\u{1}\u{e9}\n"),
        "expected a value, found `\u{fffd}\u{e9}`, at byte 5 (line 2, column 1)"
    );
}

#[test]
fn a_broken_line_is_one_broken_ride() {
    let text = "{\"a\":1}\n{\"a\":\n\nx\n{\"a\":1}{\"b\":2}\n[1]\n{\"b\":2}\n";
    let expected = r#"o{"a":1} b{"a": bx o{"a":1} o{"b":2} n[1] o{"b":2}"#;
    assert_eq!(outcome(text), expected);
    assert_eq!(outcome_of(parse_with(LINES, text)), expected);
    assert_eq!(outcome(b"{\"a\":1}\n{\"a\":\"\xFF\"}\n{}"), "o{\"a\":1} b{\"a\":\"\u{fffd}\"} o{}");
    assert_eq!(outcome_of(parse_with(LINES, "{\"rides\":[{}]}\n")), "o{}", "the content determines the form");
}

#[test]
fn an_object_on_the_second_line_makes_the_first_a_broken_ride() {
    for first in ["garbage", "{\"a\":tru,", "{\"a\" 1}", "{\"a\":1,\"b\":"] {
        assert_eq!(
            outcome(format!("{first}\n{{\"b\":2}}\n{{\"c\":3}}\n")),
            format!("b{first} o{{\"b\":2}} o{{\"c\":3}}")
        );
    }
    assert_eq!(outcome("{\"a\":1}]\n{\"b\":2}\n"), "o{\"a\":1} b] o{\"b\":2}");
    assert_eq!(outcome("garbage\n{\"b\":2}"), "not_a_batch 0 1:1", "not a line yet");
    assert_eq!(outcome("garbage\n[1]\n{\"b\":2}\n"), "not_a_batch 0 1:1");
}

#[test]
fn a_last_line_that_is_cut_short_refuses_the_document() {
    assert_eq!(outcome("{\"a\":1}\n{\"a\":"), "cut_short 13 2:6");
    assert_eq!(outcome_of(parse_with(LINES, "{\"a\":1}\n{\"a\":\"x")), "cut_short 15 2:8");
    assert_eq!(outcome("{\"a\":1}\n{\"a\":}"), "o{\"a\":1} b{\"a\":}");
}

#[test]
fn a_ride_that_is_too_large_is_one_element() {
    for factor in [3, LARGE_FACTOR * 3] {
        let large = format!("{{\"name\":\"{}\"}}", "x".repeat(1024 * factor));
        let head = &large[..HEAD_BYTES];
        assert_eq!(outcome(format!("[{{}},{large},{{}}]")), format!("o{{}} l{head} o{{}}"));
        assert_eq!(outcome(format!("{{\"rides\":[{large}]}}")), format!("l{head}"));
        assert_eq!(outcome(format!("{{}}\n{large}\n{{}}")), format!("o{{}} l{head} o{{}}"));
        assert_eq!(outcome(format!("{{}}\n{large}{large}{{}}\n{{}}")), format!("o{{}} l{head} l{head} o{{}} o{{}}"));
        assert_eq!(outcome_of(parse_with(LINES, format!("{large}\n{{}}"))), format!("l{head} o{{}}"));
        assert_eq!(outcome(format!("{large}\n{{}}")), format!("l{head} o{{}}"));
        let junk = "junk ".repeat(1024 * factor);
        let head_of_junk = junk[..HEAD_BYTES].trim();
        assert_eq!(outcome_of(parse_with(LINES, format!("{junk}\n{{}}"))), format!("l{head_of_junk} o{{}}"));
        let spread = large.replacen(':', ":\n  ", 1);
        assert_eq!(outcome(format!("{{}}\n{spread}\n{{}}")), format!("o{{}} l{} o{{}}", &spread[..HEAD_BYTES]));
        let length = large.len() + 3;
        assert_eq!(
            outcome(format!("[{{}},{}", &large[..large.len() - 1])),
            format!("cut_short {length} 1:{}", length + 1)
        );
    }
}

#[test]
fn a_large_value_hides_no_ride() {
    let filler = "x".repeat(1024 * LARGE_FACTOR * 2);
    let ride = r#"{"latitude":1}"#;
    for text in [
        format!("[{{\"name\":\"{filler}}},{ride}]"),
        format!("[{{\"name\":\"{filler}\"\"}},{ride},{{\"a\":\"b\"}}]"),
        format!("{{}}\n{{\"name\":\"{filler}}},{ride}\n{ride}\n"),
        format!("{{}}\n{{\"name\":\"{filler}\"\"}},{ride},{{\"a\":\"b\"}}\n{ride}\n"),
        format!("[{{\"batch\":\"{filler}\",\"rides\":[{ride},{ride}]}}]"),
        format!("[{{\"rides\":[{ride},{ride}],\"filler\":\"{filler}\"}}]"),
        format!("[[{ride},{ride},\"{filler}\"]]"),
        format!("{{\"data\":[{ride},{ride},\"{filler}\"]}}"),
        format!("{{\"filler\":\"{filler}\",\"data\":[{ride},{ride}]}}"),
    ] {
        assert!(parse(&text).is_err(), "{:.60} … {}", text, &text[text.len() - 60..]);
    }
}

#[test]
fn the_window_stays_bounded() {
    let small = 64 * 1024;
    let feed = |options: Options, start: &str, filler: &str| -> Result<usize, Refusal> {
        let mut document = Document::new(options);
        document.push(start.as_bytes());
        let mut largest = 0;
        for _ in 0..2_000 {
            while document.next_element::<Outline>()?.is_some() {}
            document.push(filler.as_bytes());
            largest = largest.max(document.window.len());
        }
        Ok(largest)
    };
    let (blanks, letters, brackets) = (" \n".repeat(256), "x".repeat(512), "[".repeat(512));
    for (options, start) in [(ANY, ""), (ANY, "["), (ANY, "[{}"), (ANY, "[]"), (ANY, "{}{}"), (LINES, "{}\n{}")] {
        assert!(feed(options, start, &blanks).unwrap() < small, "{start}");
    }
    assert!(feed(ANY, "{}{}", &" ".repeat(512)).unwrap() < small);
    assert!(feed(LINES, "{}\n", &letters).unwrap() < small);
    for start in ["[\"", "[{\"a\":\"", "{\"a\":\"", "{}{\"", "{\"rides\":[],\"a\":\""] {
        assert!(feed(ANY, start, &letters).unwrap() < small, "{start}");
        assert!(feed(LINES, start, &letters).unwrap() < small, "{start}");
    }
    assert!(feed(ANY, "[{\"a\":[", &brackets).unwrap() < small);
    assert!(feed(LINES, "{\"latitude\":[", &format!("{{\"b\":[\n{brackets}")).unwrap() < small);
    assert!(feed(ANY, "{ ", &blanks).unwrap() < small);
    assert!(feed(ANY, "{\"", &letters).unwrap() < small);
    assert_eq!(feed(ANY, "{}", &blanks).unwrap_err().code, "not_a_batch");
    assert_eq!(feed(ANY, "[", &letters).unwrap_err().code, "ride_too_large");
    assert_eq!(feed(ANY, "{\"object\":\"raw/x\",\"a\":\"", &letters).unwrap_err().code, "not_a_batch");
    assert_eq!(feed(ANY, "garbage", &letters).unwrap_err().code, "not_a_batch");
}

#[test]
fn deep_nesting_is_read() {
    let options = Options { lines: false, records: false, ride_bytes_max: 1024 * 1024 };
    let depth = 200_000;
    let deep = format!("[{{\"a\":{}{}}}]", "[".repeat(depth), "]".repeat(depth));
    let whole = parse_in::<Validation>(options, &[deep.as_bytes()]).unwrap().0;
    assert_eq!(whole.iter().map(|(kind, _)| *kind).collect::<String>(), "o");
    let open = "{\"a\":".repeat(depth);
    assert_eq!(parse_in::<Validation>(options, &[open.as_bytes()]).unwrap_err().code, "cut_short");
}

/// A small JSON object on one line, with confusing characters in its strings.
fn object() -> impl Strategy<Value = String> {
    let scalar = || {
        prop_oneof![
            any::<i32>().prop_map(|n| n.to_string()),
            "[a-z\\[\\]{},:\"\\\\ é\n]{0,12}".prop_map(|text| serde_json::to_string(&text).unwrap()),
            Just("1e999".to_owned()),
        ]
    };
    let other = prop_oneof![Just("[1,[\"rides\",[]]]".to_owned()), Just("{\"rides\":{}}".to_owned()), scalar()];
    let member = prop_oneof![
        (prop_oneof![Just("latitude".to_owned()), Just("Name".to_owned())], scalar()),
        ("x[a-z]{1,4}", other),
    ];
    proptest::collection::vec(member, 0..4).prop_map(|members| {
        let written: Vec<_> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", written.join(","))
    })
}

fn cut<'a>(text: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = cuts.iter().map(|cut| cut % (text.len() + 1)).chain([0, text.len()]).collect();
    places.sort_unstable();
    places.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

const HOSTILE: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\"",
    b"\n",
    b" ",
    b"\\",
    b"\\u",
    b"\\ud800",
    b"1",
    b"-",
    b"e999",
    b"tru",
    b"null",
    b"\"rides\":[",
    b"\"object\":",
    b"{\"latitude\":1}",
    b"{\"statustime\":1}",
    b"{\n \"latitude\" : [ 1 ,\n2]\n}",
    b"{\"data\":[{\"latitude\":",
    b"\x1e",
    b"\xEF\xBB",
    b"NaN",
    b"-Inf",
    b"undefined",
    b"\"map\":{\"latitude\":\"a\"}",
    b"{}\n",
    b"\xFF",
    b"\xEF\xBB\xBF",
    b"\x01",
    b"\"name\":",
    b"\"na\\u006de\":",
];

proptest! {
    #[test]
    fn all_forms_and_all_cuts_give_the_same_rides(
        rides in proptest::collection::vec(object(), 2..12), cuts in proptest::collection::vec(any::<usize>(), 0..8),
    ) {
        let expected: Parsed = rides.iter().map(|ride| ('o', ride.clone())).collect();
        for text in [
            format!("[{}]", rides.join(",")),
            format!("[\n  {}\n]\n", rides.join(",\n  ")),
            format!("{{\"batch_id\":\"b\",\"travel_data\":[{}],\"source\":\"s\"}}", rides.join(" , ")),
            format!("{{\"rides\":[{}]}}", rides.join(",\n")),
            rides.join("\n"),
            rides.join("\r\n\n") + "\n",
            rides.concat(),
            rides.join(" "),
        ] {
            let (elements, _) = parse_in::<Validation>(ANY, &cut(text.as_bytes(), &cuts)).unwrap();
            prop_assert_eq!(&elements, &expected, "{}", text);
        }
        let spread: Vec<_> = rides.iter().map(|ride| ride.replacen('{', "{\n  ", 1)).collect();
        let (elements, _) = parse_in::<Validation>(ANY, &cut(spread.join("\n").as_bytes(), &cuts)).unwrap();
        let expected: Parsed = spread.into_iter().map(|ride| ('o', ride)).collect();
        prop_assert_eq!(elements, expected);
    }

    #[test]
    fn a_truncated_array_is_refused(
        rides in proptest::collection::vec(object(), 0..6), at in any::<proptest::sample::Index>(),
        (start, end) in prop_oneof![
            Just(("[", "]")), Just(("{\"travel_data\":[\n", "]}")), Just(("{\"a\":1,\n\"rides\":[", "],\"b\":\"c\"}")),
        ],
    ) {
        let text = format!("{start}{}{end}", rides.join(",\n"));
        let prefix = &text.as_bytes()[..at.index(text.len())];
        let refusal = parse_in::<Outline>(ANY, &[prefix]).unwrap_err();
        prop_assert!(matches!(refusal.code, "cut_short" | "empty"), "{:?}", refusal);
        prop_assert_eq!(refusal.offset, prefix.len() as u64);
    }

    #[test]
    fn hostile_input_never_panics_and_both_passes_agree(
        text in proptest::collection::vec(proptest::sample::select(HOSTILE), 0..24),
        lines in any::<bool>(), small in any::<bool>(), how in 0usize..4,
        cuts in proptest::collection::vec(any::<usize>(), 0..4),
    ) {
        let text = text.concat();
        let options = Options { lines, records: false, ride_bytes_max: if small { 3 } else { 64 } };
        let at = |path: &str| Some(path.parse().unwrap());
        let reading = match how {
            0 => Reading::default(),
            1 => Reading { rides_at: at("data"), ..Reading::default() },
            2 => Reading { rides_at: at("rides[].data"), ..Reading::default() },
            _ => serde_json::from_str(r#"{"map":{"statustime":"latitude","latitude":"data.latitude"}}"#).unwrap(),
        };
        let whole = parse_as::<Outline>(options, &reading, &[&text]);
        prop_assert_eq!(&parse_as::<Validation>(options, &reading, &[&text]), &whole);
        let pieces = cut(&text, &cuts);
        let in_pieces = parse_as::<Validation>(options, &reading, &pieces);
        prop_assert_eq!(&parse_as::<Outline>(options, &reading, &pieces), &in_pieces);
        prop_assert_eq!(in_pieces, whole);
    }

    #[test]
    fn the_pieces_of_hostile_input_do_not_matter(
        text in proptest::collection::vec(prop_oneof![
            Just("{"), Just("}"), Just("["), Just("]"), Just(","), Just(":1"), Just("\"a\""), Just("\n"), Just("7"),
            Just("{\"a\":1}"), Just("{}\n"), Just("\"rides\":["),
        ], 0..16),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
    ) {
        let text = text.concat();
        prop_assert_eq!(parse_in::<Validation>(ANY, &cut(text.as_bytes(), &cuts)), parse_in::<Validation>(ANY, &[text.as_bytes()]));
    }
}

/// Regression test (fuzzing): a line of blanks that was longer than a ride may be was a ride that is too large if it arrived in
/// pieces.
#[test]
fn blank_lines_of_any_length_are_skipped() {
    let ride = r#"{"a":1}"#;
    for blanks in [" ".repeat(5_000), "\u{c}\t\r".repeat(2_000)] {
        let text = format!("{blanks}\n{ride}\n{blanks}\n{blanks}{ride}\n{blanks}");
        assert_eq!(outcome_of(parse_with(LINES, &text)), format!("o{ride} o{ride}"));
    }
}

/// Programs of DOS and Windows end a text with U+001A.
#[test]
fn the_end_of_file_mark_of_dos_is_skipped() {
    let expected = "o{\"a\":1} o{\"b\":2}";
    for text in [
        "[{\"a\":1},{\"b\":2}]\r\n\u{1a}",
        "{\"a\":1}\r\n{\"b\":2}\r\n\u{1a}",
        "{\"a\":1}\u{1a}{\"b\":2}\u{1a}\n",
        "{\"rides\":[{\"a\":1},{\"b\":2}]}\u{1a}",
    ] {
        assert_eq!(outcome(text), expected, "{text:?}");
        assert_eq!(outcome_of(parse_with(LINES, text)), expected, "{text:?} as lines");
    }
    assert_eq!(outcome("\u{1a}"), "empty 1 1:2");
    assert_eq!(outcome("{\"latitude\":1}\n\u{1a}"), "o{\"latitude\":1}");
}
