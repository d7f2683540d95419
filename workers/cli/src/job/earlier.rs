//! A dataset of an earlier command: the report on it.

use common::{outcome::Failure, ride::Counts};
use indicatif::HumanCount;
use jiff::Timestamp;
use records::{Store, layout, store};
use serde::{Serialize, Serializer};
use std::fmt::Write;

/// The report on a dataset from an earlier command.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Earlier {
    /// When the dataset was made.
    #[serde(serialize_with = "as_text")]
    pub(super) made_at: Timestamp,
    pub(super) rides: u64,
    pub(super) without_weather: u64,
    pub(super) without_weather_by_reason: Counts,
    /// The weather of some of its rides as of now; absent where the lookup failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) looked_up_again: Option<Changes>,
    /// Why the lookup failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_looked_up: Option<String>,
    /// Path in the store that must be removed before the batch can be joined again.
    pub(super) remove: String,
}

fn as_text<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

/// How the weather of some rides differs from what their dataset has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Changes {
    /// Rides looked up.
    pub(super) rides: u64,
    /// Rides looked up that have no weather in the dataset.
    pub(super) without_weather: u64,
    /// Those of them that would have weather now.
    pub(super) would_have_weather: u64,
    /// Rides with weather in the dataset that would have other values.
    pub(super) other_values: u64,
    /// Rides with weather in the dataset that would have none.
    pub(super) would_have_none: u64,
    /// Rides for which the lookup failed.
    pub(super) failed: u64,
}

/// Whether a batch has its dataset.
///
/// # Errors
/// Fails if the store is away.
pub(crate) async fn is_there(store: &Store, batch_id: &str) -> Result<bool, Failure> {
    store::exists(store, &layout::manifest(batch_id)).await
}

impl Earlier {
    /// For a person: that the result is not new, what changed, and how to join again. `name`: the file; `store`: the
    /// location of the store.
    pub(crate) fn text(&self, name: &str, store: &str) -> String {
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
                let why = why.as_deref().unwrap_or("nobody answered");
                let _ = write!(text, "Whether the weather changed since then is not known: {why}.");
            }
        }
        let folder = format!("{}/{}", store.trim_end_matches('/'), self.remove);
        let _ =
            writeln!(text, "\n  To join its rides again, remove the folder {folder} and run the same command again.");
        text
    }
}

impl Changes {
    pub(super) fn text(&self) -> String {
        let Self { rides, without_weather, would_have_weather, other_values, would_have_none, failed } = *self;
        if rides == 0 {
            return "No ride of it could be looked up again.".to_owned();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_the_date_the_counts_and_the_folder() {
        let earlier = Earlier {
            made_at: "2026-11-24T03:12:40Z".parse().unwrap(),
            rides: 1_600,
            without_weather: 160,
            without_weather_by_reason: Counts::from([("no_observation_on_date".to_owned(), 160)]),
            looked_up_again: None,
            not_looked_up: Some("no answer within 60000 ms".to_owned()),
            remove: layout::dataset("b1"),
        };
        let text = earlier.text("rides.json", "results/");
        for part in [
            "from an earlier run, 2026-11-24 03:12:40 UTC",
            "160 of its 1,600 rides are without weather (no_observation_on_date 160)",
            "not known: no answer within 60000 ms",
            "remove the folder results/dataset/b1 and run the same command again",
        ] {
            assert!(text.contains(part), "{part} is missing\n{text}");
        }
        let empty = Earlier { rides: 0, without_weather: 0, without_weather_by_reason: Counts::new(), ..earlier };
        let text = empty.text("rides.json", "results/");
        assert!(text.contains("it has no rides") && !text.contains("remove the folder"), "{text}");
    }
}
