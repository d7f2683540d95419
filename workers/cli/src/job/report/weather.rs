//! Reports the observations that were left out of the weather files of a job.

use crate::output::legible;
use common::document::{WeatherWarning, WeatherWarnings};
use futures::{StreamExt, TryStreamExt, future, stream};
use jiff::Timestamp;
use records::{
    Store, layout,
    store::{self, Listed},
};
use std::{collections::BTreeSet, fmt::Write};

/// Maximum number of files to print.
const FILES_MAX: usize = 5;
/// Maximum number of warnings to read.
const READ_MAX: usize = 1_000;
/// Maximum number of warnings read at the same time.
const READS_AT_ONCE: usize = 16;

/// Reads the warnings about these `stations`, and those written since the job `started`: first those about whole files,
/// then those with the most observations left out.
pub(crate) async fn warnings(store: &Store, stations: &BTreeSet<&str>, started: Timestamp) -> Vec<WeatherWarnings> {
    // Warnings are optional: one that cannot be read is not shown.
    let listed: Vec<Listed> = store::list(store, layout::WEATHER_WARNINGS).try_collect().await.unwrap_or_default();
    let concerned = |object: &Listed| {
        let station = object.name().strip_suffix(".json").unwrap_or_default();
        stations.contains(station) || object.written_at.as_second() >= started.as_second()
    };
    let paths = listed.into_iter().filter(concerned).take(READ_MAX).map(|object| object.path);
    let reading = stream::iter(paths).map(async |path| store::read_json::<WeatherWarnings>(store, &path).await.ok()?);
    let mut warnings: Vec<WeatherWarnings> = reading.buffered(READS_AT_ONCE).filter_map(future::ready).collect().await;
    let count = |warnings: &WeatherWarnings| warnings.left_out.values().sum::<u64>();
    warnings.sort_by(|a, b| (a.why.is_none(), count(b), &a.station).cmp(&(b.why.is_none(), count(a), &b.station)));
    warnings
}

/// Returns the position of a warning and its explanation.
pub(crate) fn warning_in_words(WeatherWarning { line, column, why }: &WeatherWarning) -> String {
    match (*line, column.is_empty()) {
        // The warning is about a day, which `why` names.
        (0, true) => why.clone(),
        (0, false) => format!("{column}: {why}"),
        (line, true) => format!("line {line}: {why}"),
        (line, false) => format!("line {line}, column {column}: {why}"),
    }
}

/// Prints the warnings.
pub(crate) fn print(text: &mut String, warnings: &[WeatherWarnings]) -> std::fmt::Result {
    if warnings.is_empty() {
        return Ok(());
    }
    writeln!(text, "\nLeft out of the weather")?;
    for WeatherWarnings { file, why, left_out, samples, .. } in warnings.iter().take(FILES_MAX) {
        let counts: Vec<String> = left_out.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let reason = if counts.is_empty() { "no file".to_owned() } else { counts.join(", ") };
        writeln!(text, "  {}   {reason}", legible(file, false))?;
        if let Some(why) = why {
            writeln!(text, "    {}", legible(why, false))?;
        }
        if let Some(first) = samples.first() {
            writeln!(text, "    first: {}", legible(&warning_in_words(first), false))?;
        }
    }
    let folder = layout::WEATHER_WARNINGS;
    match warnings.len().saturating_sub(FILES_MAX) {
        0 => Ok(()),
        more => writeln!(text, "  and {more} more files: {folder}/ in the store"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::schema::Described;
    use std::sync::Arc;

    fn of(station: &str, left_out: &[(&str, u64)], why: Option<&str>) -> WeatherWarnings {
        WeatherWarnings {
            schema: WeatherWarnings::SCHEMA.name.to_owned(),
            station: station.to_owned(),
            file: format!("weather/csv/by_station/{station}.csv"),
            why: why.map(str::to_owned),
            left_out: left_out.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
            samples: vec![WeatherWarning {
                line: 181,
                column: "DATA_VALUE".to_owned(),
                why: "\"150\" where 156 was".to_owned(),
            }],
        }
    }

    #[tokio::test]
    async fn warnings_of_these_stations_and_of_this_run_are_read() {
        let store: Store = Arc::new(object_store::memory::InMemory::new());
        for warnings in
            [of("USW00000001", &[("second_value", 1)], None), of("USW00000002", &[("second_value", 9)], None)]
        {
            let json = serde_json::to_vec(&warnings).unwrap();
            store::write(&store, &layout::weather_warnings(&warnings.station), json).await.unwrap();
        }
        store::write(&store, &layout::weather_warnings("USW00000003"), "no json").await.unwrap();
        let later = Timestamp::now().saturating_add(jiff::SignedDuration::from_hours(1)).unwrap();
        let stations = |found: Vec<WeatherWarnings>| found.into_iter().map(|found| found.station).collect::<Vec<_>>();
        let serve = BTreeSet::from(["USW00000001", "USW00000003"]);
        assert_eq!(stations(warnings(&store, &serve, later).await), ["USW00000001"]);
        let all = warnings(&store, &BTreeSet::new(), Timestamp::UNIX_EPOCH).await;
        assert_eq!(stations(all), ["USW00000002", "USW00000001"], "the most first");
    }

    #[test]
    fn warning_names_file_line_and_column() {
        let mut text = String::new();
        let missing =
            WeatherWarnings { samples: Vec::new(), ..of("USW00000009", &[], Some("no file; looked for it first")) };
        print(&mut text, &[missing, of("USW00000001", &[("invalid_date", 2), ("second_value", 1)], None)]).unwrap();
        for part in [
            "no file; looked for it first",
            "USW00000001.csv   invalid_date 2, second_value 1",
            "line 181, column DATA_VALUE: \"150\"",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        text.clear();
        print(&mut text, &[]).unwrap();
        assert_eq!(text, "");
        let many: Vec<_> = (0..8).map(|n| of(&format!("USW0000000{n}"), &[("x", 1)], None)).collect();
        print(&mut text, &many).unwrap();
        assert!(text.contains("and 3 more files"), "{text}");
    }
}
