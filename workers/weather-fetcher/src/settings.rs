//! Section `[weather]` of the configuration.

use crate::{
    live::provider::{Provider, Providers},
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
    reference::{Entry, Kind, above_0, entry, number, text},
};
use serde::{Deserialize, Deserializer, Serialize, de::Error};
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
    /// Providers of weather that no station has published, in order of preference; each at most once, and none if the list is
    /// empty. Default: the US National Weather Service and climatology; climatology alone if `source` is a folder.
    #[serde(deserialize_with = "providers")]
    pub live: Option<Vec<Provider>>,
    /// URL of the US National Weather Service.
    pub nws_url: String,
    /// URL of Open-Meteo, or of a server of one's own with its interface.
    pub open_meteo_url: String,
}

/// Reads the names of providers: a list, or a text separated by commas.
fn providers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Provider>>, D::Error> {
    let provider = |name: String| {
        let expected = "expected nws, open-meteo or climatology";
        name.parse::<Provider>().map_err(|_| D::Error::custom(format_args!("no provider {name:?}: {expected}")))
    };
    config::list(deserializer)?.into_iter().map(provider).collect::<Result<_, _>>().map(Some)
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
            live: None,
            nws_url: "https://api.weather.gov".to_owned(),
            open_meteo_url: "https://api.open-meteo.com".to_owned(),
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

    /// Returns the providers of weather that no station has published. A folder needs no network unless a service is configured.
    ///
    /// # Errors
    /// Fails if a provider is configured twice or an address is no URL.
    pub fn providers(&self) -> Result<Providers, Problem> {
        let by_default = || match self.source_and_stations()?.0.is_folder() {
            true => Ok(vec![Provider::Climatology]),
            false => Ok(vec![Provider::Nws, Provider::Climatology]),
        };
        let order = self.live.clone().map_or_else(by_default, Ok)?;
        if let Some((at, twice)) = order.iter().enumerate().find(|(at, provider)| order[..*at].contains(provider)) {
            return Err(Problem::new("live", format!("{twice} at places {} and before", at + 1), "each provider once"));
        }
        let url = |key, text: &str| match Location::parse(text) {
            Ok(Location::Url(url)) => Ok(url),
            Ok(Location::File(_)) => Err(Problem::new(key, text, "an http:// or https:// URL")),
            Err(expected) => Err(Problem::new(key, redacted_url(text), expected)),
        };
        Ok(Providers {
            order,
            nws_url: url("nws_url", &self.nws_url)?,
            open_meteo_url: url("open_meteo_url", &self.open_meteo_url)?,
        })
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
            .means("contact for the operators of the services, sent with the User-Agent; the National Weather Service asks for it"),
        entry("live", Kind::List, "provider names").means(
            "providers of weather that no station has published, in order of preference: nws (US National Weather Service), \
            open-meteo (non-commercial use; attribution under CC BY 4.0) and climatology; empty: none; default: nws and \
            climatology, or climatology alone if source is a folder",
        ),
        text("nws_url", "URL").means("address of the US National Weather Service"),
        text("open_meteo_url", "URL").means("address of Open-Meteo, or of a server with its interface"),
    ];

    fn check_rules(&self) -> Result<(), Problem> {
        self.source_and_stations()?;
        self.providers()?;
        let is_printable = |text: &String| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        match self.contact.as_ref().filter(|text| !is_printable(text)) {
            Some(text) => Err(Problem::new("contact", text, "printable ASCII: a URL or mail address")),
            None => Ok(()),
        }
    }
}
