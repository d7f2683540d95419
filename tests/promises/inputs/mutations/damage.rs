//! Damage at any byte of a document; the expected outcome comes from a plain reader of the rest.

use super::{
    document::{Damaged, Expected, FORMS, Form, Mutation, RIDES, rides},
    draw::Draw,
    plain::{self, Node},
};
use crate::inputs::Outcome;

/// Bytes by class: NUL and controls, invalid UTF-8, quotes, braces, separators, parts of a byte order mark.
const CLASSES: [&[u8]; 6] =
    [b"\0\x01\x0B\x1F\x7F", b"\x80\xC3\xE9\xFF", b"\"'\\", b"{}[]", b",:;\n\r\t ", b"\xEF\xBB\xBF"];

fn damaged(draw: &mut Draw, words: String, form: Form, text: Vec<u8>) -> Mutation {
    let whole = form.write(&rides()).into_bytes();
    let at = whole.iter().zip(&text).take_while(|(before, after)| before == after).count();
    let expected = Expected::Damaged(Damaged { text: text.clone(), at, form });
    Mutation::of_bytes(draw, format!("{form:?}: {words}"), text, expected)
}

/// Cut at any byte.
pub(super) fn cut(draw: &mut Draw) -> Mutation {
    let form = draw.one_of(&FORMS);
    let mut text = form.write(&rides()).into_bytes();
    let length = draw.below(text.len());
    text.truncate(length);
    damaged(draw, format!("cut at byte {length}"), form, text)
}

/// A byte of a class inserted, put in place of another, or repeated.
pub(super) fn byte(draw: &mut Draw) -> Mutation {
    let form = draw.one_of(&FORMS);
    let mut text = form.write(&rides()).into_bytes();
    let at = draw.below(text.len());
    let class = draw.one_of(&CLASSES);
    let byte = draw.one_of(class);
    let how = match draw.below(4) {
        0 | 1 => {
            text.insert(at, byte);
            "inserted"
        }
        2 => {
            text[at] = byte;
            "in place of another"
        }
        _ => {
            text.splice(at..at, [byte; 3]);
            "inserted three times"
        }
    };
    damaged(draw, format!("byte {byte:#04x} {how} at {at}"), form, text)
}

/// Some bytes removed, or repeated.
pub(super) fn span(draw: &mut Draw) -> Mutation {
    let form = draw.one_of(&FORMS);
    let mut text = form.write(&rides()).into_bytes();
    let start = draw.below(text.len());
    let length = if draw.once_in(4) { draw.below(400) } else { draw.below(20) };
    let end = (start + 1 + length).min(text.len());
    let how = if draw.once_in(2) {
        text.drain(start..end);
        "left out"
    } else {
        let again = text[start..end].to_vec();
        text.splice(end..end, again);
        "given twice"
    };
    damaged(draw, format!("bytes {start} to {end} {how}"), form, text)
}

/// Lines swapped, repeated, or removed.
pub(super) fn lines(draw: &mut Draw) -> Mutation {
    let form = draw.one_of(&[Form::Lines, Form::Csv, Form::Array, Form::Rides]);
    let text = form.write(&rides());
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (one, other) = (draw.below(lines.len()), draw.below(lines.len()));
    let how = match draw.below(3) {
        0 => {
            lines.swap(one, other);
            "swapped"
        }
        1 => {
            lines.insert(other, lines[one]);
            "one before the other again"
        }
        _ => {
            lines.remove(one);
            "the first left out"
        }
    };
    damaged(draw, format!("lines {one} and {other}, {how}"), form, lines.concat().into_bytes())
}

/// Codes that a damaged text of JSON may be refused with, and one of CSV.
const JSON_CODES: [&str; 5] = ["empty", "not_a_batch", "invalid_json", "cut_short", "unsupported_format"];
const CSV_CODES: [&str; 4] = ["empty", "not_a_batch", "invalid_csv", "unsupported_format"];
/// Bytes before the damage that a refusal may point to: it names a value by its first byte, a quote by where it opens.
const VALUE_BYTES_MAX: u64 = 250;

/// Checks the outcome against a plain reader. Returns whether the document was read or refused, and with which code.
pub(super) fn check(about: &str, damaged: &Damaged, outcome: &Outcome) -> String {
    let reading = plain::read(&damaged.text, damaged.form);
    if outcome.is_refused() {
        check_refusal(about, damaged, &reading, outcome);
        return outcome.refusal_of_document().0.to_owned();
    }
    outcome.check_account(about);
    let received = outcome.count("received") as usize;
    let objects = reading.objects();
    assert!(received as u64 >= objects, "{about}: a plain reader finds {objects} objects: {outcome:?}");
    if reading.is_whole {
        assert_eq!(received, reading.before.len(), "{about}: {outcome:?}");
    } else if outcome.count("rejected") == 0 {
        assert!(received >= RIDES, "{about}: nothing is rejected of a broken document: {outcome:?}");
    }
    let skipped = received - reading.after.len().min(received);
    let places = reading.before.iter().enumerate();
    let places = places.chain(reading.after.iter().enumerate().map(|(nth, element)| (skipped + nth, element)));
    for (position, element) in places {
        let reason = outcome.reject(position).map(|reject| reject["reason"].as_str().unwrap_or_default());
        let judgement = plain::judge(element);
        // A scalar and the damage behind it on the same line may count as one broken line.
        let is_broken =
            !reading.is_whole && position + 1 == reading.before.len() && !matches!(element, Node::Object(_));
        assert!(
            judgement.allows(reason) || (is_broken && reason == Some("invalid_json")),
            "{about}: element {position}: {reason:?}, {judgement:?}: {outcome:?}"
        );
    }
    if outcome.count("rejected") == 0 { "read".to_owned() } else { "read, some rejected".to_owned() }
}

fn check_refusal(about: &str, damaged: &Damaged, reading: &plain::Found, outcome: &Outcome) {
    let (code, why) = outcome.refusal_of_document();
    let codes = if damaged.form == Form::Csv { &CSV_CODES[..] } else { &JSON_CODES[..] };
    assert!(codes.contains(&code), "{about}: {code}: {why}");
    let blank = damaged.text.iter().all(u8::is_ascii_whitespace);
    assert_eq!(code == "empty", blank, "{about}: {code}: {why}");
    if code == "not_a_batch" {
        // The beginning is neither a ride nor the header of a table.
        let is_early = (damaged.at as u64) < VALUE_BYTES_MAX || why.contains("header");
        assert!(is_early || !reading.is_whole, "{about}: {why}");
        return;
    }
    if damaged.form == Form::Csv {
        if code == "invalid_csv" {
            check_line(about, damaged, why);
        }
        return;
    }
    assert!(!reading.is_whole, "{about}: a plain reader reads all of it: {code}: {why}");
    if matches!(code, "invalid_json" | "cut_short") {
        let place = why.rsplit_once("at byte ").and_then(|(_, rest)| rest.split(' ').next());
        let place: u64 = place.and_then(|place| place.parse().ok()).unwrap_or_else(|| panic!("{about}: {why}"));
        let (at, end) = (damaged.at as u64, damaged.text.len() as u64);
        assert!(place + VALUE_BYTES_MAX >= at && place <= end, "{about}: the damage begins at byte {at}: {why}");
        assert!(code != "cut_short" || place == end, "{about}: {why}");
    }
}

/// A refused table names a line, no earlier than the row before the damage.
fn check_line(about: &str, damaged: &Damaged, why: &str) {
    let number = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<usize>().ok();
    let line = why.split("line ").skip(1).find_map(number).unwrap_or_else(|| panic!("{about}: {why}"));
    let line_of = |at: usize| 1 + damaged.text[..at].iter().filter(|byte| **byte == b'\n').count();
    let (first, last) = (line_of(damaged.at), line_of(damaged.text.len()));
    assert!(line + 1 >= first && line <= last + 1, "{about}: the damage begins on line {first}: {why}");
}
