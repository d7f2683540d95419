//! The data dictionary: the meaning of each column of an export.

use crate::{
    output::{print_json, wrapped},
    session::Failed,
};
use records::datasets::{self, Column, Kind};
use serde_json::{Value, json};
use std::fmt::Write;

/// The first column of an export, before those of a dataset file.
const BATCH_ID: Column = Column {
    name: "batch_id",
    short: "batch",
    kind: Kind::Text,
    unit: None,
    meaning: "The batch of the ride. batch_id and ride_id together identify a row.",
    missing: None,
};

/// Returns the columns of an export, in order.
pub(crate) fn columns() -> impl Iterator<Item = &'static Column> {
    [&BATCH_ID].into_iter().chain(&datasets::COLUMNS)
}

/// Returns the physical type of a Parquet column, and the logical type in parentheses.
pub(crate) fn parquet_type(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Text => ("BYTE_ARRAY", "(STRING)"),
        Kind::Time => ("INT64", "(TIMESTAMP(MILLIS,true))"),
        Kind::Number => ("DOUBLE", ""),
        Kind::Whole | Kind::Flag => ("INT32", ""),
    }
}

/// Returns the dictionary for machines.
pub(crate) fn as_json() -> Value {
    let columns: Vec<_> = columns()
        .map(|Column { name, kind, unit, meaning, missing, .. }| {
            let (physical, logical) = parquet_type(*kind);
            json!({
                "name": name, "type": kind.name(), "parquet_type": format!("{physical} {logical}").trim_end(),
                "unit": unit, "meaning": meaning, "missing_when": missing,
            })
        })
        .collect();
    json!({
        "rows": "One unicorn ride each, joined with the weather of its day.",
        "missing_value": { "csv": "an empty field", "parquet": "null" },
        "columns": columns,
    })
}

/// `export --dictionary`
pub(crate) fn print(json: bool) -> Result<(), Failed> {
    match json {
        true => print_json(&as_json())?,
        false => print!("{}", as_text()?),
    }
    Ok(())
}

fn as_text() -> Result<String, std::fmt::Error> {
    const INDENT: usize = 16;
    const WIDTH: usize = 100;
    let mut text = String::new();
    for Column { name, kind, unit, meaning, missing, .. } in columns() {
        let unit = unit.map(|unit| format!(", {unit}")).unwrap_or_default();
        writeln!(text, "{name:<INDENT$}{}{unit}", kind.name())?;
        let missing = missing.map_or("Never missing.".to_owned(), |when| format!("Missing when {when}."));
        for line in wrapped(&format!("{meaning} {missing}"), WIDTH - INDENT) {
            writeln!(text, "{:INDENT$}{line}", "")?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_describes_every_column_within_100_characters_per_line() {
        let text = as_text().unwrap();
        for Column { name, .. } in columns() {
            assert!(text.lines().any(|line| line.starts_with(&format!("{name} "))), "{name}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
}
