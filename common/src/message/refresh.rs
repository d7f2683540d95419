//! The member `refresh` of messages: the attempt to join a batch again with the weather as of now.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::num::NonZeroU32;

/// Identifies one attempt to join a batch again. Absent in the messages of the first join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refresh {
    /// Number of the attempt among those of its batch, from 1.
    pub attempt: NonZeroU32,
    /// When the refresh was requested; weather that was fetched earlier counts as out of date. RFC 3339 in UTC on the wire.
    #[serde(serialize_with = "write_utc", deserialize_with = "read_utc")]
    pub asked_at: Timestamp,
}

/// Returns the start of the ids of messages about a batch, which differ between the attempts.
pub(super) fn prefix(batch_id: &str, refresh: Option<Refresh>) -> String {
    match refresh {
        Some(Refresh { attempt, .. }) => format!("{batch_id}/refresh-{attempt}"),
        None => batch_id.to_owned(),
    }
}

fn write_utc<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

fn read_utc<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    let is_utc = text.ends_with('Z') && text.as_bytes().get(10) == Some(&b'T');
    let time = text.parse().ok().filter(|_| is_utc);
    time.ok_or_else(|| de::Error::invalid_value(de::Unexpected::Str(&text), &"a time like 2026-11-30T17:03:05Z"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn attempts_count_from_1_and_times_are_utc() {
        let read =
            |attempt, asked_at| serde_json::from_value::<Refresh>(json!({ "attempt": attempt, "asked_at": asked_at }));
        let refresh = read(2, "2026-11-30T17:03:05.25Z").unwrap();
        assert_eq!(
            serde_json::to_value(refresh).unwrap(),
            json!({ "attempt": 2, "asked_at": "2026-11-30T17:03:05.25Z" })
        );
        for (attempt, asked_at) in
            [(0, "2026-11-30T17:03:05Z"), (1, "2026-11-30T17:03:05+01:00"), (1, "2026-11-30 17:03:05Z"), (1, "")]
        {
            assert!(read(attempt, asked_at).is_err(), "{attempt} {asked_at}");
        }
    }
}
