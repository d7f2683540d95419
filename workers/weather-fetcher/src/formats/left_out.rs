//! The rows and days left out of a weather text: counts by reason, and the first samples.

use crate::formats::malformed::Malformed;
use common::{
    document::{WARNING_SAMPLES_MAX, WeatherWarning, WeatherWarnings},
    ride::Counts,
    schema::Described,
    weather::Impossible,
};
use std::{collections::BTreeMap, fmt};

/// Why a row or a day is left out. Its text is the stable code in [`WeatherWarnings::left_out`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// Another value of the same element and day, or another position of the same station, was read before.
    SecondValue,
    /// Not a calendar date, or a date outside the period of the text.
    InvalidDate,
    /// Not a valid value of its column.
    InvalidValue,
    /// Wrong number or form of fields.
    WrongFields,
    /// A row of another station.
    OtherStation,
    /// The day is complete, but its weather is physically impossible.
    #[strum(transparent)]
    Impossible(Impossible),
}

/// The rows and days left out of one text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    counts: BTreeMap<Reason, u64>,
    samples: Vec<WeatherWarning>,
}

impl LeftOut {
    /// Counts one row or day. The first [`WARNING_SAMPLES_MAX`] are kept as samples.
    pub fn note(&mut self, reason: Reason, fault: &Malformed) {
        *self.counts.entry(reason).or_default() += 1;
        if self.samples.len() < WARNING_SAMPLES_MAX {
            let Malformed { line, column, why } = fault;
            self.samples.push(WeatherWarning { line: *line, column: (*column).to_owned(), why: why.clone() });
        }
    }

    /// Adds what was left out of another text about the same station.
    pub fn add(&mut self, other: &Self) {
        for (reason, count) in &other.counts {
            *self.counts.entry(*reason).or_default() += count;
        }
        let room = WARNING_SAMPLES_MAX.saturating_sub(self.samples.len());
        self.samples.extend(other.samples.iter().take(room).cloned());
    }

    /// Returns whether nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Returns the number of rows and days left out for a reason.
    pub fn count(&self, reason: Reason) -> u64 {
        self.counts.get(&reason).copied().unwrap_or_default()
    }

    /// Returns the first rows and days left out.
    pub fn samples(&self) -> &[WeatherWarning] {
        &self.samples
    }

    /// Returns the first sample as text.
    pub fn first(&self) -> Option<String> {
        let WeatherWarning { line, column, why } = self.samples.first()?;
        let line = if *line > 0 { format!("line {line}, ") } else { String::new() };
        let column = if column.is_empty() { String::new() } else { format!("column {column}: ") };
        Some(format!("{line}{column}{why}"))
    }

    /// Returns the warnings about `file` as the document of `station`.
    pub fn document(&self, station: &str, file: &str) -> WeatherWarnings {
        let left_out: Counts = self.counts.iter().map(|(reason, count)| (reason.to_string(), *count)).collect();
        WeatherWarnings {
            schema: WeatherWarnings::SCHEMA.name.to_owned(),
            station: station.to_owned(),
            file: file.to_owned(),
            why: None,
            left_out,
            samples: self.samples.clone(),
        }
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> = self.counts.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        f.write_str(&counts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_counted_and_the_first_are_kept_as_samples() {
        let mut left_out = LeftOut::default();
        assert!(left_out.is_empty());
        for line in 1..=25 {
            let reason = if line % 5 == 0 { Reason::InvalidDate } else { Reason::SecondValue };
            left_out.note(reason, &Malformed::new(line, "DATE", "x"));
        }
        let day = Malformed::new(0, "TMIN", "y");
        left_out.note(Reason::Impossible(Impossible::TminAboveTmax), &day);
        let document = left_out.document("USW00094728", "a.csv");
        let counts = [("invalid_date", 5), ("second_value", 20), ("tmin_above_tmax", 1)];
        assert_eq!(document.left_out, counts.map(|(code, count)| (code.to_owned(), count)).into());
        assert_eq!(document.samples.len(), WARNING_SAMPLES_MAX);
        assert_eq!((document.samples[9].line, document.samples[9].column.as_str()), (10, "DATE"));
        assert_eq!(left_out.to_string(), "second_value 20, invalid_date 5, tmin_above_tmax 1");
        assert_eq!(left_out.first().as_deref(), Some("line 1, column DATE: x"));
        let mut both = LeftOut::default();
        both.note(Reason::OtherStation, &day);
        both.add(&left_out);
        assert_eq!((both.count(Reason::SecondValue), both.count(Reason::OtherStation)), (20, 1));
        assert_eq!(both.samples().len(), WARNING_SAMPLES_MAX);
    }
}
