//! Reads JSON bodies; the problem of an invalid one names the path.

use super::members;
use crate::http::problem::{FieldError, Problem};
use common::coding::Coding;
use runtime::compression::starts_like;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Strips the byte order mark that some programs write.
pub(crate) fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body)
}

/// Reads JSON.
///
/// # Errors
/// 400 if the body is not JSON, 422 with the path of the invalid value otherwise.
pub(crate) fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let body = without_mark(body);
    match serde_json::from_slice(body) {
        Ok(value) => Ok(value),
        Err(first) => match members::quoted(body) {
            // The body is valid if such words are values of ignored members only.
            Some(quoted) => serde_json::from_slice(&quoted).map_err(|error| match error.is_data() {
                true => unreadable::<T>(&quoted, &error),
                false => unreadable::<T>(body, &first),
            }),
            None => Err(unreadable::<T>(body, &first)),
        },
    }
}

/// Returns the problem of an invalid body. `first` is the error of the fast reading, which does not know the path.
fn unreadable<T: DeserializeOwned>(body: &[u8], first: &serde_json::Error) -> Problem {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Problem::unreadable("the body is empty: expected JSON");
    }
    // A number out of range is valid JSON: only its field is invalid.
    let is_beyond_numbers = first.to_string().starts_with("number out of range");
    if !first.is_data() && !is_beyond_numbers {
        return no_json(body, first);
    }
    // Read again, slowly, to find the path.
    let mut json = serde_json::Deserializer::from_slice(body);
    let (path, why) = match serde_path_to_error::deserialize::<_, T>(&mut json) {
        Err(error) => (Some(error.path().clone()), error.into_inner().to_string()),
        Ok(_) => (None, first.to_string()),
    };
    let field = path.as_ref().map(ToString::to_string).filter(|path| path != ".").unwrap_or_default();
    let place = if field.is_empty() { "the body" } else { field.as_str() };
    let value = path.and_then(|path| at_path(body, &path));
    let message = readable_error(&common::text::shorten_printable(&why, 300));
    let problem = Problem::unprocessable("invalid-field", format!("{place}: {message}"));
    let expected = message.split_once(", expected ").map_or(message.as_str(), |(_, expected)| expected).to_owned();
    problem.at(FieldError { field, value, expected })
}

/// Returns the problem of a body that is not JSON. It names the format that the body looks like.
fn no_json(body: &[u8], why: &serde_json::Error) -> Problem {
    Problem::unreadable(match (Coding::of_body(body), body) {
        (Some(coding), _) => {
            format!("the body starts like {coding}: add the header Content-Encoding: {coding}")
        }
        (None, [0xFE, 0xFF, ..] | [0xFF, 0xFE, ..]) => "the body starts like UTF-16: expected JSON in UTF-8".to_owned(),
        (None, _) if why.to_string().starts_with("trailing characters") && starts_like(body) == "JSON" => {
            format!("the body is more than one JSON document ({why}): write several rides as an array, [{{…}}, {{…}}]")
        }
        (None, _) => format!("the body is not JSON: {why}"),
    })
}

/// Returns the value at a path, unless it is too long to show.
fn at_path(body: &[u8], path: &serde_path_to_error::Path) -> Option<Value> {
    use serde_path_to_error::Segment;
    let mut value = serde_json::from_slice::<Value>(body).ok()?;
    for segment in path.iter() {
        value = match segment {
            Segment::Seq { index } => value.get_mut(*index)?.take(),
            Segment::Map { key } => value.get_mut(key)?.take(),
            Segment::Enum { .. } | Segment::Unknown => return None,
        };
    }
    let value = Some(value).filter(|value| !value.is_object() && !value.is_array() && value.to_string().len() <= 100);
    // A bare word that is not JSON is shown as received.
    value.map(|value| value.as_str().and_then(|text| text.strip_prefix('\0')).map(Value::from).unwrap_or(value))
}

/// Rewrites an error of the JSON reader for people who do not know its types.
fn readable_error(why: &str) -> String {
    let why = why.rsplit_once(" at line ").map_or(why, |(why, _)| why);
    let Some((before, expected)) = why.split_once(", expected ") else { return why.to_owned() };
    let expected = match expected {
        "f64" => "a number",
        "u64" | "usize" => "a whole number, not negative",
        other if other.starts_with("struct ") || other == "a map" => "an object",
        "a sequence" => "an array",
        other => other,
    };
    format!("{before}, expected {expected}")
}
