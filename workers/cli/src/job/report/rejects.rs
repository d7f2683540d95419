//! Explains why most rides of a batch were rejected: the most frequent reason, an example, and a remedy.

use crate::output::legible;
use common::{
    dataset::Manifest,
    document::RejectedRide,
    reading::{FIELDS, Mapping, NUMERIC_FIELDS, Source, near_miss},
    ride::RejectReason,
};
use futures::TryStreamExt;
use records::{Store, batches, layout, store};
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};
use std::fmt::Write;

/// Maximum number of bytes of the rejected rides to search for a sample.
const BYTES_MAX: usize = 1024 * 1024;
/// Maximum number of keys of a ride to print.
const KEYS_MAX: usize = 12;
/// Maximum number of characters of a value to print.
const VALUE_CHARS_MAX: usize = 60;

/// Why most rides of a batch were rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RejectSummary {
    /// The batch.
    pub(crate) batch_id: String,
    /// Rides of the batch.
    pub(crate) received: u64,
    /// Rejected rides of the batch.
    pub(crate) rejected: u64,
    /// The most frequent reason.
    pub(crate) reason: String,
    /// Rides that were rejected for it.
    pub(crate) count: u64,
    /// The first of them, if it can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sample: Option<Sample>,
    /// Path of the rejected rides in the store.
    pub(crate) rejects: String,
}

/// One rejected ride.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Sample {
    /// Its position in the batch, from 0.
    pub(crate) index: u64,
    /// The key or path from which the field is read; absent if the field is not mapped.
    pub(crate) mapped: Option<String>,
    /// The value of the field, before any factor; absent if the ride lacks the field.
    pub(crate) value: Option<String>,
    /// The probable error in the value, and a remedy.
    pub(crate) hint: Option<String>,
    /// Its keys.
    pub(crate) keys: Vec<String>,
    /// Options that map similar keys to the fields they resemble.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) suggestions: Vec<String>,
}

/// Summarises the rejected rides of a batch; `None` if at most half of its rides were rejected.
pub(crate) async fn summary(store: &Store, manifest: &Manifest) -> Option<RejectSummary> {
    let commonest =
        manifest.rejected_by_reason.iter().max_by_key(|(reason, count)| (**count, std::cmp::Reverse(*reason)));
    let (reason, count) = commonest.filter(|_| manifest.rejected * 2 > manifest.received)?;
    let rejects = layout::rejected(&manifest.batch_id);
    // Without a sample the counts are still reported.
    let head = head(store, &rejects).await.unwrap_or_default();
    let claim = batches::read_claim(store, &manifest.batch_id).await.ok().flatten();
    let map = claim.map(|claim| claim.reading.map).unwrap_or_default();
    Some(RejectSummary {
        batch_id: manifest.batch_id.clone(),
        received: manifest.received,
        rejected: manifest.rejected,
        reason: reason.clone(),
        count: *count,
        sample: sample(&head, reason, &map),
        rejects,
    })
}

/// Reads the first bytes of an object.
async fn head(store: &Store, path: &str) -> Option<Vec<u8>> {
    let mut pieces = store::pieces(store, path).await.ok()??;
    let mut head = Vec::new();
    while head.len() < BYTES_MAX {
        let Some(piece) = pieces.try_next().await.ok()? else { break };
        head.extend_from_slice(&piece);
    }
    Some(head)
}

/// Returns the first ride of these lines that was rejected for `reason`. `map` is the mapping of the batch.
fn sample(lines: &[u8], reason: &str, map: &Mapping) -> Option<Sample> {
    let reject = |line| serde_json::from_slice::<RejectedRide<'_, &RawValue>>(line).ok();
    let rejects = lines.split(|byte| *byte == b'\n').filter_map(reject);
    let reject = rejects.into_iter().find(|reject| reject.reason == reason)?;
    let ride: Value = serde_json::from_str(reject.ride.get()).ok()?;
    let field = reason.parse().ok().and_then(RejectReason::field);
    let source = field.and_then(|field| map.source(field));
    let members = ride.as_object();
    let value = match (members, field) {
        (Some(members), Some(field)) => match source {
            Some(source) => at(members, source),
            None => members.iter().find(|(key, _)| key.trim().eq_ignore_ascii_case(field)).map(|(_, value)| value),
        },
        (Some(_), None) => None,
        (None, _) => Some(&ride),
    };
    let text = value.map(|value| match value.as_str() {
        Some(text) if members.is_none() => shortened(text),
        _ => shortened(&value.to_string()),
    });
    let hint = match members {
        Some(_) => value.zip(field).and_then(|(value, field)| decimal_comma(field, value)),
        None => json_in_text(&ride),
    };
    let keys: Vec<String> = members.into_iter().flatten().map(|(key, _)| key.clone()).collect();
    let is_read =
        |field: &str| map.source(field).is_some() || keys.iter().any(|key| key.trim().eq_ignore_ascii_case(field));
    let similar =
        members.into_iter().flatten().filter_map(|(key, value)| Some((near_miss(key)?, path_to_value(key, value)?)));
    let suggestions = similar.filter(|(field, _)| !is_read(field)).map(|(field, key)| option(field, &key)).collect();
    let mapped = source.map(ToString::to_string);
    Some(Sample { index: reject.index, mapped, value: text, hint, keys, suggestions })
}

/// Returns the value that a mapping reads: the member with the literal key, else the one at the path.
fn at<'a>(members: &'a Map<String, Value>, source: &Source) -> Option<&'a Value> {
    let named = |members: &'a Map<String, Value>, name: &str| {
        members.iter().find(|(key, _)| key.trim().eq_ignore_ascii_case(name.trim())).map(|(_, value)| value)
    };
    named(members, &source.key).or_else(|| {
        let mut path = source.path();
        let first = named(members, path.next()?)?;
        path.try_fold(first, |value, name| match value {
            Value::Array(elements) => elements.get(name.trim().parse::<usize>().ok()?),
            value => named(value.as_object()?, name),
        })
    })
}

/// Returns the key of a value that a mapping can read, or the path to the only value of an object, as in `_id.$oid`.
fn path_to_value(key: &str, value: &Value) -> Option<String> {
    match value {
        Value::Array(_) => None,
        Value::Object(members) if members.len() == 1 => {
            let (inner, value) = members.iter().next()?;
            (!value.is_array() && !value.is_object()).then(|| format!("{key}.{inner}"))
        }
        Value::Object(_) => None,
        _ => Some(key.to_owned()),
    }
}

/// Returns a hint on a number with a decimal comma.
fn decimal_comma(field: &str, value: &Value) -> Option<String> {
    let text = value.as_str().filter(|_| NUMERIC_FIELDS.contains(&field))?.trim();
    let with_point = text.replace(',', ".");
    let is_number = text.matches(',').count() == 1 && with_point.parse::<f64>().is_ok();
    is_number.then(|| format!("a decimal comma is not accepted: write {with_point}"))
}

/// Returns a hint on a ride that is a text with JSON in it.
fn json_in_text(ride: &Value) -> Option<String> {
    let inner = serde_json::from_str::<Value>(ride.as_str()?).ok()?;
    inner
        .is_object()
        .then(|| "the ride is a text that contains JSON: decode it first, as with jq 'map(fromjson)'".to_owned())
}

/// Returns an option, as in `--map latitude=lat`. Converts kilometres to miles.
fn option(field: &str, key: &str) -> String {
    let letters: String = key.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_ascii_lowercase();
    let factor = if field == "distance" && letters.contains("k") && letters.contains("m") { "*0.621371" } else { "" };
    let key = key.replace('\'', r"'\''");
    let quote = if factor.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') { "" } else { "'" };
    format!("--map {quote}{field}={key}{factor}{quote}")
}

fn shortened(value: &str) -> String {
    common::text::shorten(value, VALUE_CHARS_MAX).into_owned()
}

/// Prints the summary and a remedy. `location`: the location of the store.
pub(crate) fn print(text: &mut String, file: &str, location: &str, summary: &RejectSummary) -> std::fmt::Result {
    let RejectSummary { received, rejected, reason, count, sample, rejects, .. } = summary;
    let headline = match (*received, *rejected) {
        (1, _) => "its only ride was rejected".to_owned(),
        (received, rejected) if received == rejected => format!("all {received} rides were rejected"),
        (received, rejected) => format!("{rejected} of {received} rides were rejected"),
    };
    writeln!(text, "\n{file}: {headline}")?;
    let known = reason.parse::<RejectReason>().ok();
    let field = known.and_then(RejectReason::field);
    let expected = known.map_or("a ride as schemas/ride-batch.v1.json describes it", RejectReason::expected);
    let times = if *count == 1 { "once".to_owned() } else { format!("{count} times") };
    writeln!(text, "  most often             {reason}, {times}")?;
    if let Some(Sample { index, mapped, value, hint, keys, suggestions }) = sample {
        let example = match (value, field.map(|field| (field, mapped))) {
            (Some(value), Some((field, Some(source)))) => {
                format!("ride {index} has {} where {field} is read from ({field}={source})", legible(value, false))
            }
            (None, Some((field, Some(source)))) => {
                format!("ride {index} has nothing where {field} is read from ({field}={source})")
            }
            (Some(value), Some((field, None))) => format!("ride {index} has {field} {}", legible(value, false)),
            (Some(value), None) => format!("ride {index} is {}", legible(value, false)),
            (None, Some((field, None))) => format!("ride {index} has no {field}"),
            (None, None) => format!("ride {index}"),
        };
        writeln!(text, "  found                  {example}")?;
        writeln!(text, "  expected               {expected}")?;
        if let Some(hint) = hint {
            writeln!(text, "  hint                   {}", legible(hint, false))?;
        }
        if value.is_none() && !keys.is_empty() {
            let listed: Vec<&str> = keys.iter().take(KEYS_MAX).map(String::as_str).collect();
            let more = keys.len().saturating_sub(KEYS_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            writeln!(text, "  its keys               {}{more}", legible(&listed.join(", "), false))?;
            writeln!(text, "  a ride's keys          {}", FIELDS.join(", "))?;
        }
        if !suggestions.is_empty() {
            writeln!(text, "  read similar keys by   {}", legible(&suggestions.join(" "), false))?;
        }
    } else {
        writeln!(text, "  expected               {expected}")?;
    }
    writeln!(text, "  every rejected ride    {location}/{rejects}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(reason: &str, lines: &str) -> RejectSummary {
        mapped_summary(reason, lines, &[])
    }

    /// Summarises a batch that was read with these mappings.
    fn mapped_summary(reason: &str, lines: &str, map: &[&str]) -> RejectSummary {
        let mut mapping = Mapping::default();
        map.iter().for_each(|one| mapping.add(one).unwrap());
        RejectSummary {
            batch_id: "b".to_owned(),
            received: 12,
            rejected: 12,
            reason: reason.to_owned(),
            count: 12,
            sample: sample(lines.as_bytes(), reason, &mapping),
            rejects: layout::rejected("b"),
        }
    }

    fn printed(summary: &RejectSummary) -> String {
        let mut text = String::new();
        print(&mut text, "keys.json", "store", summary).unwrap();
        text
    }

    #[test]
    fn missing_field_is_reported_with_the_keys_of_the_ride_and_similar_ones() {
        let lines = r#"{"index":0,"field":"latitude","reason":"invalid_latitude","ride":{"latitude":"x"}}
{"index":3,"field":"statustime","reason":"missing_statustime","ride":{"colour":"red","km":40,"lat":40.6,"lng":-74.1,"name":"Twilight","status_time":"2018-04-25 17:03:05"}}
"#;
        let text = printed(&summary("missing_statustime", lines));
        for part in [
            "keys.json: all 12 rides were rejected",
            "missing_statustime, 12 times",
            "ride 3 has no statustime",
            "colour, km, lat, lng, name, status_time",
            "statustime, latitude, longitude",
            "--map 'distance=km*0.621371' --map latitude=lat --map longitude=lng --map statustime=status_time",
            "store/rejected/b.ndjson",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("colour=") && !text.contains("name=name"), "{text}");
    }

    #[test]
    fn invalid_value_is_shown_with_the_expected_form() {
        let lines = r#"{"index":0,"field":"statustime","reason":"invalid_statustime","ride":{"StatusTime":"4/25/2018 17:03","latitude":1}}"#;
        let text = printed(&summary("invalid_statustime", lines));
        assert!(text.contains(r#"ride 0 has statustime "4/25/2018 17:03""#), "{text}");
        assert!(text.contains("YYYY-MM-DD HH:MM:SS") && !text.contains("--map"), "{text}");
    }

    #[test]
    fn mapped_field_is_shown_with_its_source() {
        let lines = r#"{"index":0,"field":"distance","reason":"REASON","ride":{"Time":"2018","_id":{"$oid":"5f"},"a":{"b":1,"c":[5,6]},"distance":29.0,"km":47.2}}"#;
        let printed =
            |reason: &str, map: &[&str]| printed(&mapped_summary(reason, &lines.replace("REASON", reason), map));
        let text = printed("missing_distance", &["distance=nokey"]);
        assert!(
            text.contains("has nothing where distance is read from (distance=nokey)") && !text.contains("29.0"),
            "{text}"
        );
        assert!(text.contains("--map statustime=Time --map 'ride_id=_id.$oid'"), "{text}");
        let text = printed("negative_distance", &["distance=km*-1", "ride_id=_id.$oid", "statustime=Time"]);
        assert!(text.contains("has 47.2 where distance is read from (distance=km*-1)"), "{text}");
        assert!(!text.contains("--map"), "options that were given are not suggested: {text}");
        let text = printed("invalid_distance", &["distance=a"]);
        assert!(text.contains(r#"has {"b":1,"c":[5,6]} where distance"#), "{text}");
        let text = printed("invalid_distance", &["distance=a.b"]);
        assert!(text.contains("has 1 where distance is read from (distance=a.b)"), "{text}");
        let text = printed("invalid_distance", &["distance=a.c.1"]);
        assert!(text.contains("has 6 where distance"), "{text}");
    }

    #[test]
    fn decimal_comma_and_encoded_json_have_a_hint() {
        let comma = r#"{"index":0,"field":"latitude","reason":"invalid_latitude","ride":{"latitude":"40,75"}}"#;
        let text = printed(&summary("invalid_latitude", comma));
        assert!(text.contains("write 40.75"), "{text}");
        let encoded = r#"{"index":0,"field":null,"reason":"not_an_object","ride":"{\"name\": \"Twilight\"}"}"#;
        let text = printed(&summary("not_an_object", encoded));
        assert!(text.contains("a text that contains JSON"), "{text}");
    }

    #[test]
    fn summary_without_readable_rejects_lacks_only_the_sample() {
        for lines in ["", "not json\n", r#"{"index":1,"reason":"other","ride":{}}"#] {
            let text = printed(&summary("invalid_json", lines));
            assert!(text.contains("a whole JSON object") && text.contains("all 12"), "{text}");
        }
        let broken = r#"{"index":1,"field":null,"reason":"invalid_json","ride":"{\"a\": \u001b[31m"}"#;
        let text = printed(&summary("invalid_json", broken));
        assert!(text.contains("ride 1 is") && !text.contains('\u{1b}'), "{text}");
    }
}
