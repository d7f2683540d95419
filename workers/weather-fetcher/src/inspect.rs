//! Checks a weather source before it is used: reads its station list and a sample of its station files.

use crate::{Settings, client::Client};
use anyhow::Context;
use common::{contract::weather::WeatherWarnings, runtime::config};

/// What a sample of a weather source shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Stations in the station list; 0 where it cannot be read.
    pub stations_listed: usize,
    /// Paths or URLs of the files that were read, the station list among them.
    pub files_read: Vec<String>,
    /// What was left out of the files that were read, one per file that has rows or days to leave out.
    pub warnings: Vec<WeatherWarnings>,
    /// What makes joins fail, in words with place, value and way out; empty for a source that works.
    pub problems: Vec<String>,
}

/// Reads the station list and up to `files_max` station files of the source that `settings` name.
///
/// # Errors
/// Fails if a setting is invalid or HTTPS cannot be prepared. What the source lacks is in [`Inspection::problems`].
pub async fn inspect(settings: &Settings, files_max: usize) -> anyhow::Result<Inspection> {
    config::Settings::check(settings).context("[weather]")?;
    let (source, stations) = settings.places().context("[weather]")?;
    let http = Box::new(settings.http()?);
    let client = Client::new(source, stations.as_ref(), &settings.manners().context("[weather]")?, http);
    let mut inspection = Inspection::default();
    if files_max == 0 {
        return Ok(inspection);
    }
    match client.stations().await {
        Ok(list) => inspection.stations_listed = list.len(),
        Err(why) => inspection.problems.push(why.to_string()),
    }
    Ok(inspection)
}
