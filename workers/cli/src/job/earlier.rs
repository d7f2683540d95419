//! The report on a dataset that an earlier command produced.

use common::{document::RefreshOutcome, ride::Counts};
use indicatif::HumanCount;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use std::{fmt::Write, num::NonZeroU32};

/// A dataset that an earlier command produced.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct EarlierDataset {
    /// When the dataset was made.
    #[serde(serialize_with = "as_text")]
    pub(super) made_at: Timestamp,
    pub(super) rides: u64,
    pub(super) without_weather: u64,
    pub(super) without_weather_by_reason: Counts,
    /// How the weather of some of its rides would differ now; absent if the lookup failed.
    pub(super) looked_up_again: Option<Changes>,
    /// Why the lookup failed.
    pub(super) not_looked_up: Option<String>,
    /// Batch id.
    pub(super) batch_id: String,
    /// Number of the newest revision, from 1.
    pub(super) revision: NonZeroU32,
    /// What a refresh by this command changed; absent if it was not asked to refresh.
    pub(super) refreshed: Option<RefreshOutcome>,
}

fn as_text<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

/// How the weather of some rides differs from that in their dataset. Counts of rides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Changes {
    /// Looked up.
    pub(super) rides: u64,
    /// Without weather in the dataset.
    pub(super) without_weather: u64,
    /// Without weather in the dataset, with weather now.
    pub(super) would_have_weather: u64,
    /// With other values now.
    pub(super) other_values: u64,
    /// With weather in the dataset, without weather now.
    pub(super) would_have_none: u64,
    /// Whose lookup failed.
    pub(super) failed: u64,
}

impl EarlierDataset {
    /// Describes for a person the date of the dataset, the changes, and how to join again. `name`: the file.
    pub(crate) fn text(&self, name: &str) -> String {
        let count = |count: u64| HumanCount(count).to_string();
        let mut text =
            format!("\nThe dataset of {name} is from an earlier run, {}: ", self.made_at.strftime("%F %T UTC"));
        if self.rides == 0 {
            text.push_str(
                "it has no rides.\n  A run of the same bytes gives the same result: correct the file or its reading.\n",
            );
            return text;
        }
        let reasons: Vec<String> =
            self.without_weather_by_reason.iter().map(|(reason, of)| format!("{reason} {}", count(*of))).collect();
        let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
        let _ = write!(
            text,
            "{} of its {} rides are without weather{reasons}.\n  ",
            count(self.without_weather),
            count(self.rides)
        );
        match (&self.looked_up_again, &self.not_looked_up) {
            (Some(changes), _) => text.push_str(&changes.text()),
            (None, why) => {
                let why = why.as_deref().unwrap_or("no answer");
                let _ = write!(text, "Whether the weather has changed since is not known: {why}.");
            }
        }
        let _ = match &self.refreshed {
            Some(outcome) => writeln!(text, "\n  They were joined again: {}.", in_words(outcome)),
            None => writeln!(
                text,
                "\n  To join its rides again with the weather as of now: --refresh, or wildrydes refresh {}",
                self.batch_id
            ),
        };
        text
    }
}

impl Changes {
    pub(super) fn text(&self) -> String {
        let Self { rides, without_weather, would_have_weather, other_values, would_have_none, failed } = *self;
        if rides == 0 {
            return "None of its rides could be looked up again.".to_owned();
        }
        let mut text = format!("Of {rides} rides looked up again, ");
        if would_have_weather + other_values + would_have_none + failed == 0 {
            text.push_str("none would have other weather now.");
            return text;
        }
        let _ = write!(
            text,
            "{would_have_weather} of {without_weather} without weather would have weather now, {other_values} would have other values, \
             {would_have_none} would have none"
        );
        if failed > 0 {
            let _ = write!(text, "; {failed} could not be looked up");
        }
        text.push('.');
        text
    }
}

/// Describes the outcome of a refresh for a person, as in `revision 2: 123 rides gained weather, 4 changed, 0 lost`.
pub(super) fn in_words(outcome: &RefreshOutcome) -> String {
    let RefreshOutcome { revision, gained, altered, lost, not_yet_published, .. } = outcome;
    let count = |count: &u64| HumanCount(*count).to_string();
    let mut text = match outcome.is_changed() {
        true => format!(
            "revision {revision}: {} rides gained weather, {} changed, {} lost",
            count(gained),
            count(altered),
            count(lost)
        ),
        false => format!("unchanged, revision {revision}"),
    };
    if *not_yet_published > 0 {
        let _ = write!(text, "; {} wait for weather to be published", count(not_yet_published));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::schema::Described;

    #[test]
    fn text_names_date_counts_and_folder() {
        let earlier = EarlierDataset {
            made_at: "2026-11-24T03:12:40Z".parse().unwrap(),
            rides: 1_600,
            without_weather: 160,
            without_weather_by_reason: Counts::from([("no_observation_on_date".to_owned(), 160)]),
            looked_up_again: None,
            not_looked_up: Some("no answer within 60000 ms".to_owned()),
            batch_id: "b1".to_owned(),
            revision: NonZeroU32::MIN,
            refreshed: None,
        };
        let text = earlier.text("rides.json");
        for part in [
            "from an earlier run, 2026-11-24 03:12:40 UTC",
            "160 of its 1,600 rides are without weather (no_observation_on_date 160)",
            "not known: no answer within 60000 ms",
            "again with the weather as of now: --refresh, or wildrydes refresh b1",
        ] {
            assert!(text.contains(part), "{part} is missing\n{text}");
        }
        let empty =
            EarlierDataset { rides: 0, without_weather: 0, without_weather_by_reason: Counts::new(), ..earlier };
        let text = empty.text("rides.json");
        assert!(text.contains("it has no rides") && !text.contains("--refresh"), "{text}");
    }

    #[test]
    fn an_outcome_says_what_changed_and_what_is_still_expected() {
        let mut outcome = RefreshOutcome {
            schema: RefreshOutcome::SCHEMA.name.to_owned(),
            batch_id: "b".to_owned(),
            attempt: NonZeroU32::MIN,
            revision: NonZeroU32::MIN,
            gained: 0,
            altered: 0,
            lost: 0,
            not_yet_published: 12,
            split_id: "r1-s".to_owned(),
            rows_sha256: "0".repeat(64),
        };
        assert_eq!(in_words(&outcome), "unchanged, revision 1; 12 wait for weather to be published");
        (outcome.gained, outcome.altered, outcome.not_yet_published) = (1_123, 4, 0);
        outcome.revision = outcome.revision.saturating_add(1);
        assert_eq!(in_words(&outcome), "revision 2: 1,123 rides gained weather, 4 changed, 0 lost");
    }
}
