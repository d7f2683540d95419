//! Section `[weather]` of the configuration.

use crate::{
    sources::{
        http::Reqwest,
        location::{Location, redacted_url},
        request_policy::RequestPolicy,
        source::Source,
    },
    stations::nearest::REACH_KM_MAX,
};
use anyhow::Context;
use common::topology::process::WEATHER_FETCHER;
use runtime::config::{
    self, Problem,
    reference::{Entry, above_0, number, text},
};
use serde::{Deserialize, Serialize};
use std::{num::NonZeroU32, time::Duration};

/// Section `[weather]` of the configuration.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Source of the weather: a folder or URL in the layout of NOAA's open-data bucket (`csv/by_station/<ID>.csv`), or the
    /// NCEI access service, recognised by the path `/access/services/data/v1` or by `ncei+https://<host>`.
    pub source: String,
    /// Path or URL of `ghcnd-stations.txt`, plain or gzip. Default: in the source itself, or at NOAA.
    pub stations: Option<String>,
    /// Maximum distance of a station from a ride, kilometres: above 0, up to 10,000.
    pub max_station_km: f64,
    /// Maximum number of requests to the service per second: 1 to 1,000. A folder is read without a limit.
    pub requests_per_second: u32,
    /// Maximum silence of the service, milliseconds: 1 to 600,000. A whole answer may take ten times as long.
    pub request_timeout_ms: u64,
    /// Number of days after the end of a year from which its weather counts as final and is cached in the object store: 0 to
    /// 65,535. NOAA's files by station lag behind by up to four months.
    pub settled_days: u16,
    /// Maximum time during which the service answers a request only with failures that waiting cannot repair, milliseconds: 0
    /// to 86,400,000. Such failures are a text that is not weather, a success status without a text, a redirect that is not
    /// followed, and a refusal. The rides wait until then; afterwards they are dead letters, which can be replayed. A local
    /// file that is not weather fails at once.
    pub unusable_patience_ms: u64,
    /// URL or mail address for the operators of the service, printable ASCII, sent in the `User-Agent` header.
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
    /// Returns where the station list may be. The first location that exists is read.
    ///
    /// # Errors
    /// Fails if `source` or `stations` is invalid.
    pub fn station_list_locations(&self) -> Result<Vec<Location>, Problem> {
        let (source, stations) = self.source_and_stations()?;
        Ok(source.station_list_locations(stations.as_ref()))
    }

    /// Returns an HTTP client that follows these settings.
    ///
    /// # Errors
    /// Fails if HTTPS cannot be prepared.
    pub fn http(&self) -> anyhow::Result<Reqwest> {
        Reqwest::new(&self.request_policy())
            .context("weather.source: cannot prepare for HTTPS; are the system's CA certificates installed?")
    }

    pub(crate) fn source_and_stations(&self) -> Result<(Source, Option<Location>), Problem> {
        let wrong = |key, value: &str, expected: &str| Problem::new(key, redacted_url(value), expected);
        let source = Source::parse(&self.source).map_err(|expected| wrong("source", &self.source, expected))?;
        let stations = self.stations.as_deref().map(Location::parse).transpose();
        let value = self.stations.as_deref().unwrap_or_default();
        Ok((source, stations.map_err(|expected| wrong("stations", value, expected))?))
    }

    pub(crate) fn request_policy(&self) -> RequestPolicy {
        RequestPolicy {
            requests_per_second: NonZeroU32::new(self.requests_per_second).unwrap_or(NonZeroU32::MIN),
            timeout: Duration::from_millis(self.request_timeout_ms),
            contact: self.contact.clone(),
            unusable_patience: Duration::from_millis(self.unusable_patience_ms),
        }
    }
}

impl config::Settings for Settings {
    const SECTION: &'static str = WEATHER_FETCHER.section;
    const REFERENCE: &'static [Entry] = &[
        text("source", "path or URL")
            .means("a folder or bucket in NOAA's layout (csv/by_station/<ID>.csv), or the NCEI access service"),
        text("stations", "path or URL").means("ghcnd-stations.txt, plain or gzip; default: the one in the source"),
        above_0("max_station_km", "kilometres", Some(REACH_KM_MAX))
            .means("maximum distance between a ride and its station"),
        number("requests_per_second", "requests", 1..=1_000)
            .means("maximum number of requests to the service per second; a folder has no limit"),
        number("request_timeout_ms", "milliseconds", 1..=600_000).means("maximum time without a byte from the service"),
        number("settled_days", "days", 0..=u16::MAX as u64)
            .means("days after the end of a year from which on its weather is final and cached in the store"),
        number("unusable_patience_ms", "milliseconds", 0..=86_400_000).means(
            "how long a service may answer without weather (another document, an empty one, a redirect that is \
            not followed, a refusal) before the message becomes a dead letter",
        ),
        text("contact", "URL or mail address")
            .means("contact for the operators of the service, sent with the User-Agent"),
    ];

    fn check_rules(&self) -> Result<(), Problem> {
        self.source_and_stations()?;
        let is_printable = |text: &String| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        match self.contact.as_ref().filter(|text| !is_printable(text)) {
            Some(text) => Err(Problem::new("contact", text, "printable ASCII: a URL or mail address")),
            None => Ok(()),
        }
    }
}
