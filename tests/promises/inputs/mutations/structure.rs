//! Mutations of what surrounds the rides: other keys, other layouts, elements that are not rides, compression,
//! character sets.

use super::{
    super::{gzip, zstd},
    document::{Expected, FORMS, Form, JSON_FORMS, Mutation, RIDES, Ride, all_accepted, all_but, rides, utf16},
    draw::Draw,
};

fn array(rides: &[Ride]) -> String {
    Form::Array.write(rides)
}

fn read_all() -> Expected {
    Expected::Read { elements: all_accepted(), cells: Vec::new(), words: Vec::new() }
}

fn refused(codes: &'static [&'static str], words: &[&str]) -> Expected {
    Expected::Refused { codes, words: words.iter().map(ToString::to_string).collect() }
}

/// Rides below another key: refused with an option that reads them, and read with that option.
pub(super) fn envelope(draw: &mut Draw) -> Mutation {
    let all = rides();
    let rides = array(&all);
    let feature = |ride: &Ride| format!(r#"{{"type":"Feature","geometry":null,"properties":{}}}"#, ride.json());
    let features: Vec<String> = all.iter().map(feature).collect();
    let (path, text) = match draw.below(8) {
        0 => ("data", format!(r#"{{"data":{rides}}}"#)),
        1 => ("results", format!(r#"{{"count":{RIDES},"next":null,"results":{rides}}}"#)),
        2 => ("records", format!("{{\n  \"records\": {rides},\n  \"ok\": true\n}}")),
        3 => ("Items", format!(r#"{{"Items":{rides},"Count":8}}"#)),
        4 => ("payload.rides", format!(r#"{{"payload":{{"rides":{rides}}},"id":"x"}}"#)),
        5 => ("data.trips", format!(r#"{{"specversion":"1.0","type":"rides","data":{{"trips":{rides}}}}}"#)),
        6 => ("value", format!(r#"{{"@odata.context":"x","value":{rides}}}"#)),
        _ => {
            ("features[].properties", format!(r#"{{"type":"FeatureCollection","features":[{}]}}"#, features.join(",")))
        }
    };
    if draw.once_in(2) {
        // As a shell takes it.
        let quoted = if path.contains('[') { format!("'{path}'") } else { path.to_owned() };
        let expected = refused(&["not_a_batch"], &[&format!("--rides-at {quoted}")]);
        return Mutation::of_text(draw, format!("rides at {path}"), &text, expected);
    }
    let mut mutation = Mutation::of_text(draw, format!("rides read at {path}"), &text, read_all());
    mutation.reading.rides_at = Some(path.parse().expect("a path"));
    mutation
}

/// Envelopes of frameworks and pandas around rides, where each value would be counted as one ride.
pub(super) fn frame(draw: &mut Draw) -> Mutation {
    let all = rides();
    let json: Vec<String> = all.iter().map(Ride::json).collect();
    let by_column = |open: &str, close: &str, label: fn(usize) -> String| {
        let columns: Vec<String> = (0..all[0].0.len())
            .map(|column| {
                let values: Vec<String> =
                    all.iter().enumerate().map(|(nth, ride)| format!("{}{}", label(nth), ride.0[column].1)).collect();
                format!("\"{}\":{open}{}{close}", all[0].0[column].0, values.join(","))
            })
            .collect();
        format!("{{{}}}", columns.join(","))
    };
    let keys: Vec<String> = all[0].0.iter().map(|(key, _)| format!("\"{key}\"")).collect();
    let rows: Vec<String> = all
        .iter()
        .map(|ride| format!("[{}]", ride.0.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(",")))
        .collect();
    let indexed: Vec<String> = json.iter().enumerate().map(|(nth, ride)| format!("\"{nth}\":{ride}")).collect();
    let (words, text, parts): (_, String, &[&str]) = match draw.below(8) {
        0 => ("columns", by_column("{", "}", |nth| format!("\"{nth}\":")), &["orient='records'"]),
        1 => ("lists", by_column("[", "]", |_| String::new()), &["orient='records'"]),
        2 => (
            "split",
            format!(r#"{{"columns":[{}],"index":[0],"data":[{}]}}"#, keys.join(","), rows.join(",")),
            &["orient='records'"],
        ),
        3 => ("index", format!("{{{}}}", indexed.join(",")), &["orient='records'"]),
        4 => ("table", format!(r#"{{"schema":{{"fields":[]}},"data":[{}]}}"#, json.join(",")), &["orient='records'"]),
        5 => ("an envelope a line", json.iter().map(|ride| format!("{{\"data\":{ride}}}\n")).collect(), &["data"]),
        6 => (
            "an array of batches",
            format!(r#"[{{"rides":[{}]}},{{"rides":[{}]}}]"#, json[..4].join(","), json[4..].join(",")),
            &["rides"],
        ),
        _ => ("a task of a framework", format!(r#"[[{}],{{}},{{"chain":null}}]"#, json.join(",")), &[]),
    };
    Mutation::of_text(draw, words, &text, refused(&["not_a_batch"], parts))
}

/// Objects and arrays one after the other, with any separators: each object is a ride.
pub(super) fn layout(draw: &mut Draw) -> Mutation {
    let separators =
        ["", " ", "\n", "\r\n", ",\n", ", ", "\t", "\n\n", "\u{1e}", "\n\u{1e}", "\n\u{feff}", "\u{feff}", "\n  "];
    let all = rides();
    let mut rest = all.as_slice();
    let mut text = String::new();
    while !rest.is_empty() {
        let several = if draw.once_in(4) { 1 + draw.below(3) } else { 0 };
        let (these, others) = rest.split_at(several.max(1).min(rest.len()));
        match several {
            0 if draw.once_in(4) => text.push_str(&these[0].json().replace(",\"", ",\n    \"")),
            0 => text.push_str(&these[0].json()),
            _ => text.push_str(&array(these)),
        }
        // A comma after the last element would announce another one.
        text.push_str(if others.is_empty() { "\n" } else { draw.one_of(&separators) });
        rest = others;
    }
    let words = format!("laid out as {text:?}");
    Mutation::of_text(draw, words, &text, read_all())
}

/// An element that is not an object is rejected, and nothing else.
pub(super) fn element(draw: &mut Draw) -> Mutation {
    let form = draw.one_of(&JSON_FORMS);
    let (element, position) =
        (draw.one_of(&["null", "5", "\"x\"", "true", "[1,2]", "-0.5"]), 1 + draw.below(RIDES - 1));
    let text = form.write(&rides());
    let written = rides()[position].json();
    let separator = match form {
        Form::Array | Form::TravelData | Form::Rides => ", ",
        _ => "\n",
    };
    let text = text.replacen(&written, &format!("{element}{separator}{written}"), 1);
    let mut elements = all_but(position, "not_an_object");
    elements.push(None);
    let expected = Expected::Read { elements, cells: Vec::new(), words: Vec::new() };
    Mutation::of_text(draw, format!("{form:?}: {element} at {position}"), &text, expected)
}

/// Members that no field uses, with any value; a ride that is too large.
pub(super) fn other_member(draw: &mut Draw) -> Mutation {
    let form = draw.one_of(&JSON_FORMS);
    let large = format!("\"{}\"", "x".repeat(70_000));
    let (value, reason) = match draw.below(6) {
        0 => (r#""}{\"[]\\""#, None),
        1 => (r#"{"a":[{"b":{}},[]],"c":"}]"}"#, None),
        2 => (r#""\n\u0000\ud83e\udd84""#, None),
        3 => ("1234567890123456789012345678901234567890", None),
        4 => (r#"[[[[{"x":[[[[[]]]]]}]]]]"#, None),
        _ => (large.as_str(), Some("ride_too_large")),
    };
    let (mut rides, position) = (rides(), draw.below(RIDES));
    let at = draw.below(rides[position].0.len() + 1);
    rides[position].0.insert(at, ("note".to_owned(), value.to_owned()));
    let mut elements = all_accepted();
    elements[position] = reason;
    let words = format!("ride {position} has a note {value:.40}");
    Mutation::of_rides(draw, words, form, &rides, elements)
}

/// Bytes after a compressed stream, several streams, and a stream inside a stream.
pub(super) fn padding(draw: &mut Draw) -> Mutation {
    let form = draw.one_of(&FORMS);
    let text = form.write(&rides());
    let packed = gzip(text.as_bytes());
    let at = draw.below(text.len());
    let count = 1 + draw.below(2_000);
    let (words, bytes, expected) = match draw.below(7) {
        0 => (format!("{count} zeros"), [packed, vec![0; count]].concat(), read_all()),
        1 => ("a newline".to_owned(), [packed, b"\n".to_vec()].concat(), read_all()),
        2 => ("CRLF".to_owned(), [packed, b"\r\n".to_vec()].concat(), read_all()),
        3 => {
            let bytes = [gzip(&text.as_bytes()[..at]), gzip(&text.as_bytes()[at..])].concat();
            (format!("two members, cut at byte {at}"), bytes, read_all())
        }
        4 => {
            let bytes = [zstd(&text.as_bytes()[..at]), zstd(&text.as_bytes()[at..])].concat();
            (format!("two zstd frames, cut at byte {at}"), bytes, read_all())
        }
        5 => {
            let expected = refused(&["bad_compression"], &[&format!("{count} bytes follow")]);
            (format!("{count} bytes x"), [packed, vec![b'x'; count]].concat(), expected)
        }
        _ => {
            let twice = if draw.once_in(2) { gzip(&packed) } else { zstd(&packed) };
            ("compressed twice".to_owned(), twice, refused(&["bad_compression"], &["twice"]))
        }
    };
    Mutation::of_bytes(draw, format!("{form:?}: {words}"), bytes, expected)
}

/// Compressed bytes that are cut or changed.
pub(super) fn packed(draw: &mut Draw) -> Mutation {
    /// Bytes of a header of gzip; some of them may have any value.
    const HEADER: usize = 10;
    let form = draw.one_of(&FORMS);
    let text = form.write(&rides());
    let with_gzip = draw.once_in(2);
    let mut bytes = if with_gzip { gzip(text.as_bytes()) } else { zstd(text.as_bytes()) };
    let name = if with_gzip { "gzip" } else { "zstd" };
    if draw.once_in(2) {
        let length = HEADER + draw.below(bytes.len() - HEADER);
        bytes.truncate(length);
        let expected = refused(&["cut_short"], &[&format!("byte {length}")]);
        return Mutation::of_bytes(draw, format!("{form:?}: {name} cut at byte {length}"), bytes, expected);
    }
    let at = HEADER + draw.below(bytes.len() - HEADER);
    bytes[at] ^= 1 << draw.below(8);
    let codes =
        &["bad_compression", "cut_short", "expands_too_much", "invalid_json", "not_a_batch", "unsupported_format"];
    Mutation::of_bytes(draw, format!("{form:?}: {name} changed at byte {at}"), bytes, Expected::ReadOrRefused { codes })
}

/// Other character sets: read by their byte order mark, or refused by name.
pub(super) fn encoding(draw: &mut Draw) -> Mutation {
    let form = draw.one_of(&FORMS);
    let text = form.write(&rides());
    let little = utf16(&text, u16::to_le_bytes);
    let big = utf16(&text, u16::to_be_bytes);
    let utf32 = |mark: bool| -> Vec<u8> {
        let mark = mark.then_some('\u{feff}');
        mark.into_iter().chain(text.chars()).flat_map(|character| u32::from(character).to_le_bytes()).collect()
    };
    let at = 2 * draw.below(text.len());
    let unpaired = [&little[..2 + at], &[0x00, 0xD8], &little[2 + at..]].concat();
    let odd = little.len() - 1;
    let (words, bytes, expected) = match draw.below(8) {
        0 => ("UTF-16LE", little, read_all()),
        1 => ("UTF-16BE", big, read_all()),
        2 => ("UTF-16LE without a mark", little[2..].to_vec(), refused(&["unsupported_format"], &["UTF-16", "iconv"])),
        3 => ("UTF-16BE without a mark", big[2..].to_vec(), refused(&["unsupported_format"], &["UTF-16", "iconv"])),
        4 => ("UTF-32", utf32(true), refused(&["unsupported_format"], &["UTF-32"])),
        5 => ("UTF-32 without a mark", utf32(false), refused(&["unsupported_format"], &["UTF-32"])),
        6 => ("half a unit at the end", little[..odd].to_vec(), refused(&["cut_short"], &[])),
        _ => ("half a surrogate pair", unpaired, refused(&["invalid_text"], &["UTF-16"])),
    };
    Mutation::of_bytes(draw, format!("{form:?}: {words}"), bytes, expected)
}

/// Formats that are not read are refused by name, with what to do instead.
pub(super) fn foreign(draw: &mut Draw) -> Mutation {
    let formats: [(&[u8], &str); 12] = [
        (b"PK\x03\x04\x14\0\0\0\x08\0", "zip"),
        (b"Rar!\x1A\x07\x01\0", "RAR"),
        (b"7z\xBC\xAF\x27\x1C", "7z"),
        (b"BZh91AY&SY\x01", "bzip2"),
        (b"\xFD7zXZ\0\0\x04", "xz"),
        (b"Obj\x01\x04\x14", "Avro"),
        (b"SQLite format 3\0", "SQLite"),
        (b"%PDF-1.7\n%\xE2\xE3", "PDF"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"<html><head><title>503", "HTML"),
        (b"<?xml version=\"1.0\"?><rides><ride>", "XML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "LFS"),
    ];
    let (start, name) = draw.one_of(&formats);
    let is_text = start.iter().all(|byte| (b' '..0x7F).contains(byte) || *byte == b'\n');
    let noise = |draw: &mut Draw| if is_text { b'a' + draw.below(26) as u8 } else { draw.below(256) as u8 };
    let mut bytes = start.to_vec();
    (0..draw.below(400)).for_each(|_| bytes.push(noise(draw)));
    Mutation::of_bytes(draw, name, bytes, refused(&["unsupported_format"], &[name]))
}
