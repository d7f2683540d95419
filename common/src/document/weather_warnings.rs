//! `weather/warnings/<station>.json`: warnings about a weather file.

use crate::ride::Counts;
use serde::{Deserialize, Serialize};

/// Maximum number of [`WeatherWarnings::samples`].
pub const WARNING_SAMPLES_MAX: usize = 10;

/// Warnings about one station's weather file: rows and days left out, or a missing file. Stored as
/// `weather/warnings/<station>.json`. For people; no result depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeatherWarnings {
    /// Name of its schema.
    pub schema: String,
    /// GHCN-Daily id of the station, 11 characters; `ghcnd-stations` or `ghcnd-inventory` for these lists.
    pub station: String,
    /// Path or URL of the file.
    pub file: String,
    /// Warning about the file as a whole, in words: that it is missing, and which places are affected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Number of rows and days left out, by reason: `second_value`, `invalid_date`, `invalid_value`, `wrong_fields`,
    /// `other_station`, and the codes of [`crate::weather::Impossible`].
    pub left_out: Counts,
    /// The first of these rows and days, at most [`WARNING_SAMPLES_MAX`].
    pub samples: Vec<WeatherWarning>,
}

/// A row or day that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeatherWarning {
    /// Line of the file, from 1; 0 if the warning concerns a day.
    pub line: u64,
    /// Name of the column or element; empty if the warning concerns the whole line.
    pub column: String,
    /// The value in the file, and what was expected.
    pub why: String,
}
