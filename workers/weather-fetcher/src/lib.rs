//! Joins rides with the weather of their day: NOAA's daily observations at the nearest station that has them.
//!
//! ```text
//!       ride-chunk ─▶ WeatherFetcher ─────▶ enriched-chunk
//!  weather-request ─▶ WeatherLookup  ─────▶ weather-response    two queues and connections, so that a question never
//!                          │                                    waits behind a batch; one almanac
//!                       almanac
//!                          │
//!                         join   which stations lie near?   nearest   k-d tree over the station list
//!               needs some │  ▲ knows them
//!            station-years ▼  │
//!                       weather   memory ─▶ object store ─▶ client   one request per station and year
//!                                                            │
//!                                           lines ─▶ ghcn ◀──┘  source: bucket, folder or NCEI access service
//! ```
//!
//! [`join`], [`nearest`], [`ghcn`], [`lines`], [`foreign`], [`left_out`], [`station_year`], [`cache`] and [`source`] are pure;
//! [`http`], [`client`], [`body`], [`gunzip`], [`unavailable`], [`weather`], [`warnings`], [`almanac`] and [`inspect`](mod@inspect) do the I/O.
//! Start reading at [`join`].

pub mod almanac;
pub mod body;
pub mod cache;
pub mod client;
pub mod foreign;
pub mod ghcn;
pub mod gunzip;
pub mod http;
pub mod inspect;
pub mod join;
pub mod left_out;
pub mod lines;
pub mod lookup;
pub mod nearest;
pub mod source;
pub mod station_year;
pub mod unavailable;
pub mod warnings;
pub mod weather;

#[cfg(test)]
mod tests;

pub use inspect::{Inspection, inspect};
pub use lookup::WeatherLookup;

use crate::{
    almanac::Almanac,
    client::{Client, Manners, other_compression},
    http::{Http, Reqwest},
    nearest::REACH_KM_MAX,
    source::{BY_STATION, Place, Source, told},
    weather::WeatherCache,
};
use anyhow::Context;
use common::{
    envelope::Envelope,
    message::{EnrichedChunk, EnrichedRide, RideChunk, WeatherPlace},
    outcome::{Failure, Outputs},
    ride::Ride,
};
use records::Store;
use runtime::{
    Worker,
    config::{self, Problem},
};
use serde::{Deserialize, Serialize};
use std::{io, num::NonZeroU32, path::Path, sync::Arc, time::Duration};

/// How long one chunk may take: below the 20 minutes of the runtime and the 30 of RabbitMQ's `consumer_timeout`, either of
/// which would count slowness as a failed attempt.
const CHUNK_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// One day: nobody waits longer for a result.
const UNUSABLE_PATIENCE_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Section `[weather]` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where weather comes from: a folder or URL in the layout of NOAA's open-data bucket (`csv/by_station/<ID>.csv`), or
    /// the NCEI access service, known by the path `/access/services/data/v1` or by `ncei+https://<host>`.
    pub source: String,
    /// Path or URL of `ghcnd-stations.txt`, plain or gzip; where not given, in the source itself or at NOAA's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stations: Option<String>,
    /// How far a station may be from a ride, kilometres: above 0, up to 10,000.
    pub max_station_km: f64,
    /// Requests to the service per second at most: 1 to 1,000. A folder is read without a limit.
    pub requests_per_second: u32,
    /// The longest silence of the service, milliseconds: 1 to 600,000. A whole answer may take ten times as long.
    pub request_timeout_ms: u64,
    /// Days after its end from which on a year's weather counts as final and is kept in the object store: 0 to 65,535. NOAA's
    /// files by station lag behind by up to four months.
    pub settled_days: u16,
    /// How long the service may answer a request with nothing but what waiting does not turn into weather, milliseconds: 0 to
    /// 86,400,000. That is a text that is not weather, a status of success without a text, a redirect that is not followed, or
    /// a refusal. Until then the rides wait; after that they are dead letters, which can be replayed. A local file that is not weather
    /// is an error at once.
    pub unusable_patience_ms: u64,
    /// A URL or mail address for the operators of the service, printable ASCII, sent with the `User-Agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            source: "https://noaa-ghcn-pds.s3.amazonaws.com".to_owned(),
            stations: None,
            max_station_km: 100.0,
            requests_per_second: 5,
            request_timeout_ms: 30_000,
            settled_days: 180,
            unusable_patience_ms: 15 * 60 * 1000,
            contact: None,
        }
    }
}

impl Settings {
    /// Where the station list may be: the first of these that is there.
    ///
    /// # Errors
    /// What cannot be used.
    pub fn stations_places(&self) -> Result<Vec<Place>, Problem> {
        let (source, given) = self.places()?;
        Ok(source.stations(given.as_ref()))
    }

    /// The way to the service, with the manners that these settings ask for.
    ///
    /// # Errors
    /// What cannot be used.
    pub fn http(&self) -> anyhow::Result<Reqwest> {
        Reqwest::new(&self.manners().context("[weather]")?)
            .context("weather.source: cannot prepare for HTTPS; are the system's CA certificates installed?")
    }

    fn places(&self) -> Result<(Source, Option<Place>), Problem> {
        let wrong = |key, given: &str, expected: &str| Problem::new(key, told(given), expected);
        let source = Source::parse(&self.source).map_err(|expected| wrong("source", &self.source, expected))?;
        let stations = self.stations.as_deref().map(Place::parse).transpose();
        let given = self.stations.as_deref().unwrap_or_default();
        Ok((source, stations.map_err(|expected| wrong("stations", given, expected))?))
    }

    fn manners(&self) -> Result<Manners, Problem> {
        let rate = NonZeroU32::new(self.requests_per_second).filter(|rate| rate.get() <= 1_000);
        let expected = "1 to 1000 requests per second";
        let requests_per_second =
            rate.ok_or_else(|| Problem::new("requests_per_second", self.requests_per_second, expected))?;
        if !(1..=600_000).contains(&self.request_timeout_ms) {
            return Err(Problem::new("request_timeout_ms", self.request_timeout_ms, "1 to 600000 milliseconds"));
        }
        if self.unusable_patience_ms > UNUSABLE_PATIENCE_MS_MAX {
            let expected = format!("0 to {UNUSABLE_PATIENCE_MS_MAX} milliseconds");
            return Err(Problem::new("unusable_patience_ms", self.unusable_patience_ms, expected));
        }
        let contact = self.contact.clone();
        if let Some(text) = contact.as_ref().filter(|text| !text.bytes().all(|byte| matches!(byte, b' '..=b'~'))) {
            return Err(Problem::new("contact", text, "printable ASCII: a URL or mail address"));
        }
        let timeout = Duration::from_millis(self.request_timeout_ms);
        let unusable_patience = Duration::from_millis(self.unusable_patience_ms);
        Ok(Manners { requests_per_second, timeout, contact, unusable_patience })
    }
}

impl config::Settings for Settings {
    const SECTION: &'static str = "weather";

    fn check(&self) -> Result<(), Problem> {
        if !(self.max_station_km > 0.0 && self.max_station_km <= REACH_KM_MAX) {
            let expected = format!("kilometres above 0, up to {REACH_KM_MAX}");
            return Err(Problem::new("max_station_km", self.max_station_km, expected));
        }
        self.places()?;
        self.manners().map(drop)
    }
}

/// Checks that a folder can be a source.
fn check_folder(folder: &Path) -> anyhow::Result<()> {
    let there = |folder: &Path, missing: &str| match folder.metadata() {
        Ok(found) if found.is_dir() => None,
        Ok(_) => Some(format!("{} is a file, not a folder", folder.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(missing.to_owned()),
        Err(error) => Some(format!("{}: {error}", folder.display())),
    };
    if let Some(why) = there(folder, "there is no such folder") {
        anyhow::bail!("weather.source = {}: {why}", folder.display());
    }
    if let Some(why) = there(&folder.join(BY_STATION), &format!("there is no folder {BY_STATION} in it")) {
        anyhow::bail!(
            "weather.source = {}: {why}; give a folder in the layout of NOAA's bucket, with {BY_STATION}/<ID>.csv of each \
             station",
            folder.display()
        );
    }
    Ok(())
}

/// The weather-fetcher: a ride chunk in, an enriched chunk out.
#[derive(Debug)]
pub struct WeatherFetcher {
    almanac: Arc<Almanac>,
    deadline: Duration,
}

impl WeatherFetcher {
    /// Asks nothing yet: the station list is read when the first chunk comes, so that a service that is away delays the
    /// work but not the start.
    ///
    /// # Errors
    /// When a setting cannot be used, or names a folder or file that is not there.
    pub fn new(settings: Settings, store: Store) -> anyhow::Result<Self> {
        config::Settings::check(&settings).context("[weather]")?;
        Self::over(Box::new(settings.http()?), settings, store)
    }

    /// As [`Self::new`], over another way to the service: for simulations.
    ///
    /// # Errors
    /// As there.
    pub fn over(http: Box<dyn Http>, settings: Settings, store: Store) -> anyhow::Result<Self> {
        let (source, stations) = settings.places().context("[weather]")?;
        if let Source::Bucket(Place::File(folder)) = &source {
            check_folder(folder)?;
        }
        let client = Client::new(source, stations.as_ref(), &settings.manners().context("[weather]")?, http);
        let missing = |place: &Place| matches!(place, Place::File(path) if !path.is_file());
        let places = client.stations_places();
        if places.iter().all(missing) {
            let names: Vec<String> = places.iter().map(Place::to_string).collect();
            let is_directory = |place: &&Place| matches!(place, Place::File(path) if path.is_dir());
            let directory = places.iter().find(is_directory).map(|place| format!(" ({place} is a directory)"));
            anyhow::bail!(
                "weather.stations: there is no station list at {}{}{}; give the path or URL of NOAA's ghcnd-stations.txt",
                names.join(" or "),
                directory.unwrap_or_default(),
                other_compression(places)
            );
        }
        let weather = WeatherCache::new(client, store, settings.settled_days);
        Ok(Self { almanac: Arc::new(Almanac::new(weather, settings.max_station_km)), deadline: CHUNK_DEADLINE })
    }

    /// The worker that answers weather requests with the same station list, caches and manners.
    pub fn lookup(&self) -> WeatherLookup {
        WeatherLookup::new(Arc::clone(&self.almanac))
    }

    async fn enrich(
        &self,
        RideChunk { batch_id, chunk, split_id, digest, rides }: RideChunk,
    ) -> Result<EnrichedChunk, Failure> {
        let place = |ride: &Ride| {
            let Ride { latitude, longitude, statustime, .. } = *ride;
            WeatherPlace { latitude, longitude, statustime }
        };
        let places: Vec<WeatherPlace> = rides.iter().map(place).collect();
        let weather = self.almanac.weather(&places).await?;
        let rides = rides.into_iter().zip(weather).map(|(ride, weather)| EnrichedRide { ride, weather }).collect();
        Ok(EnrichedChunk { batch_id, chunk, split_id, digest, rides })
    }
}

impl Worker for WeatherFetcher {
    const NAME: &'static str = "weather-fetcher";
    type In = RideChunk;

    async fn handle(&self, envelope: Envelope<RideChunk>) -> Result<Outputs, Failure> {
        let late = |_| {
            let minutes = self.deadline.as_secs() / 60;
            let why = format!("not all answers within {minutes} minutes; what has been read is cached; going on");
            Failure::outage("weather service", why)
        };
        let enriched = tokio::time::timeout(self.deadline, self.enrich(envelope.payload)).await.map_err(late)??;
        Outputs::one(&enriched)
    }
}
