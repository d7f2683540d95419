//! Checks a weather source before it is used: reads its station list and a sample of its station files.

use crate::{
    Settings,
    formats::{ghcn::Station, left_out::LeftOut},
    live::{self, provider::Provider},
    sources::{
        client::{Client, SourceFile, StationYears},
        http::Http,
        location::Location,
        source::BY_STATION,
    },
};
use anyhow::Context;
use common::{document::WeatherWarnings, message::PlaceWeather};
use runtime::{config, host};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

/// Maximum time for the station list of a service, again for the sample, and for each forecast service.
const SERVICE_DEADLINE: Duration = Duration::from_secs(15);
/// Maximum number of stations that are requested from a service.
const SERVICE_STATIONS_MAX: usize = 3;
/// Stations with observations for a century up to today: New York, Boston, London, De Bilt.
const LONG_LIVED: [&str; 4] = ["USW00094728", "USW00014739", "UKM00003772", "NLM00006260"];

/// The state of a weather source, judged by a sample.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Number of stations in the station list; 0 if it cannot be read.
    pub stations_listed: usize,
    /// Paths or URLs of the files that were read, the station list among them.
    pub files_read: Vec<String>,
    /// Rows and days left out, one entry per file that has any.
    pub warnings: Vec<WeatherWarnings>,
    /// What makes joins fail: the place, the value and what to do. Empty for a source that works.
    pub problems: Vec<String>,
}

impl Inspection {
    fn read(&mut self, station: &str, location: &Location, left_out: &LeftOut) {
        let file = location.to_string();
        if !left_out.is_empty() {
            self.warnings.push(left_out.document(station, &file));
        }
        self.files_read.push(file);
    }

    fn read_years(&mut self, station: &str, years: &StationYears) {
        years.texts.iter().for_each(|(location, left_out)| self.read(station, location, left_out));
    }
}

/// Reads the station list, the inventory if there is one, and a sample of station files. The sample of a folder has up to
/// `files_max` files of listed stations, or of any stations if there is no list; that of a service has one long-lived station.
///
/// # Errors
/// Fails if a setting is invalid or HTTPS cannot be prepared. Problems of the source are in [`Inspection::problems`].
pub async fn inspect(settings: &Settings, files_max: usize) -> anyhow::Result<Inspection> {
    config::Settings::check(settings).context("[weather]")?;
    let (source, stations) = settings.source_and_stations().context("[weather]")?;
    let folder = source.folder().map(Path::to_owned);
    let http = Arc::new(settings.http()?);
    let client = Client::new(source, stations.as_ref(), &settings.request_policy(), http);
    let mut inspection = Inspection::default();
    let listed = lists(&client, &mut inspection).await;
    match folder {
        Some(folder) => sample_of_folder(&client, &folder, &listed, files_max, &mut inspection).await,
        None if !listed.is_empty() && files_max > 0 => sample_of_service(&client, &listed, &mut inspection).await,
        None => {}
    }
    Ok(inspection)
}

/// Asks each configured forecast service for the weather of today in New York, which all of them know.
///
/// # Errors
/// Fails if a setting is invalid or HTTPS cannot be prepared. A service that does not answer is in the result, with the reason.
pub async fn inspect_forecasts(settings: &Settings) -> anyhow::Result<Vec<(Provider, Result<PlaceWeather, String>)>> {
    config::Settings::check(settings).context("[weather]")?;
    let (providers, policy) = (settings.providers().context("[weather]")?, settings.request_policy());
    let http: Arc<dyn Http> = Arc::new(settings.http()?);
    let answers = live::sample(&providers, policy.requests_per_second, &http, SERVICE_DEADLINE).await;
    Ok(answers.into_iter().map(|(provider, answer)| (provider, answer.map_err(|why| why.to_string()))).collect())
}

/// Reads the station list and the inventory; returns the stations.
async fn lists(client: &Client, inspection: &mut Inspection) -> BTreeSet<String> {
    let read = async { (client.stations().await, client.inventory().await) };
    let Ok((list, inventory)) = tokio::time::timeout(SERVICE_DEADLINE, read).await else {
        let locations: Vec<String> = client.station_list_locations().iter().map(Location::to_string).collect();
        let seconds = SERVICE_DEADLINE.as_secs();
        inspection.problems.push(format!(
            "{}: the station list was not read within {seconds} s; is the service reachable from here and fast enough?",
            locations.join(" or ")
        ));
        return BTreeSet::new();
    };
    let mut listed = BTreeSet::new();
    match list {
        Ok(SourceFile { location, parsed }) => {
            inspection.stations_listed = parsed.value.len();
            inspection.read(crate::almanac::STATION_LIST, &location, &parsed.left_out);
            listed = parsed.value.into_iter().map(|Station { id, .. }| id.to_string()).collect();
        }
        Err(why) => inspection.problems.push(why.to_string()),
    }
    match inventory {
        Ok(Some(SourceFile { location, parsed })) => {
            inspection.read(crate::almanac::INVENTORY, &location, &parsed.left_out);
            if !listed.is_empty() && listed.iter().all(|id| parsed.value.complete_years(id).is_none()) {
                inspection.problems.push(format!(
                    "{location}: none of the {} listed stations has TMIN, TMAX and PRCP in the same years, so no ride gets \
                     weather; copy the inventory that belongs to the station list, or remove it",
                    listed.len()
                ));
            }
        }
        Ok(None) => {}
        Err(why) => inspection.problems.push(why.to_string()),
    }
    listed
}

async fn sample_of_folder(
    client: &Client,
    folder: &Path,
    listed: &BTreeSet<String>,
    files_max: usize,
    inspection: &mut Inspection,
) {
    let by_station = folder.join(BY_STATION);
    let (stations, other_file) = match station_files(&by_station).await {
        Ok(files) => files,
        Err(error) => {
            inspection.problems.push(format!(
                "{}: {error}; weather.source must be a folder in the layout of NOAA's bucket, with {BY_STATION}/<ID>.csv of \
                 each station",
                by_station.display()
            ));
            return;
        }
    };
    let (of_list, others): (Vec<&String>, Vec<&String>) = stations.iter().partition(|id| listed.contains(*id));
    if let Some(first) = listed.first()
        && of_list.is_empty()
    {
        let file = by_station.join(format!("{first}.csv"));
        let hint = other_file
            .map(|name| format!(" ({name} exists but is not read: decompress such files, or compress them with gzip)"));
        inspection.problems.push(format!(
            "no file of any of the {} listed stations is in {}; first tried {} (and {}.gz): add the station files{}",
            listed.len(),
            by_station.display(),
            file.display(),
            file.display(),
            hint.unwrap_or_default()
        ));
    }
    // Joins read only the files of listed stations.
    let sample = if listed.is_empty() { others } else { of_list };
    for station in sample.into_iter().take(files_max) {
        match client.station_years(station, &BTreeSet::new()).await {
            Ok(years) => inspection.read_years(station, &years),
            Err(why) => inspection.problems.push(why.to_string()),
        }
    }
}

/// Returns the stations with a file, plain or gzip, and the name of one file in another compression.
async fn station_files(folder: &Path) -> std::io::Result<(BTreeSet<String>, Option<String>)> {
    let mut entries = tokio::fs::read_dir(folder).await?;
    let (mut stations, mut other_file) = (BTreeSet::new(), None);
    while let Some(entry) = entries.next_entry().await? {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        match name.strip_suffix(".gz").unwrap_or(name).strip_suffix(".csv") {
            Some(station) => drop(stations.insert(station.to_owned())),
            None if name.contains(".csv.") => drop(other_file.get_or_insert_with(|| name.to_owned())),
            None => {}
        }
    }
    Ok((stations, other_file))
}

async fn sample_of_service(client: &Client, listed: &BTreeSet<String>, inspection: &mut Inspection) {
    // The latest year that is certainly published.
    let year = host::now().to_zoned(jiff::tz::TimeZone::UTC).year().saturating_sub(2);
    let long_lived = LONG_LIVED.into_iter().filter(|id| listed.contains(*id));
    let others = listed.iter().map(String::as_str).filter(|id| !LONG_LIVED.contains(id));
    let sample = async {
        let mut missing = BTreeMap::new();
        for station in long_lived.chain(others).take(SERVICE_STATIONS_MAX) {
            match client.station_years(station, &BTreeSet::from([year])).await {
                Ok(years) if years.texts.is_empty() => {
                    let file = client.source().first_location(station, year).map(|location| location.to_string());
                    missing.insert(station.to_owned(), file.unwrap_or_default());
                }
                Ok(years) => {
                    inspection.read_years(station, &years);
                    return;
                }
                Err(why) => return inspection.problems.push(why.to_string()),
            }
        }
        let files: Vec<&str> = missing.values().map(String::as_str).collect();
        inspection.problems.push(format!(
            "the service has none of {}: is weather.source the address of a bucket in NOAA's layout, or of the access service?",
            files.join(", ")
        ));
    };
    if tokio::time::timeout(SERVICE_DEADLINE, sample).await.is_err() {
        let seconds = SERVICE_DEADLINE.as_secs();
        inspection.problems.push(format!(
            "no station file was read within {seconds} s; is the service reachable from here and fast enough?"
        ));
    }
}
