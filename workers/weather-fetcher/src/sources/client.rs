//! Reads NOAA's texts over HTTP or from a folder, with rate limit, retries, and bounds in time and size.

use crate::{
    formats::{
        ghcn::{self, ByStation, Inventory, InventoryList, Station, StationList},
        left_out::LeftOut,
        lines::{Lines, Parsed, Text},
        station_year::StationYear,
    },
    sources::{
        body::parse_body,
        file_naming::FileNaming,
        http::{Http, chain},
        location::{Location, other_compression},
        patience::Patience,
        request_policy::RequestPolicy,
        service::Service,
        source::Source,
        unavailable::Unavailable,
    },
};
use common::message::GHCN_DAILY;
use parking_lot::Mutex;
use runtime::backoff::Backoff;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Number of attempts of one request before it counts as an outage.
const ATTEMPTS: u32 = 3;
/// Pause before the second attempt, doubled for each further one. Jitter takes off up to half of it.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Maximum pause asked for by the service that is waited out here. With a longer one the message returns to its queue.
const PAUSE_WAITED_OUT_MAX: Duration = Duration::from_secs(5);

/// One file of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile<T> {
    /// Where the file is.
    pub location: Location,
    /// Its content, and what was left out of it.
    pub parsed: Parsed<T>,
}

/// Some years of one station.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StationYears {
    /// `None` if the source does not have the station-year; empty if it has the station but nothing of the year.
    pub years: BTreeMap<i16, Option<StationYear>>,
    /// The locations that were read, each with what was left out.
    pub texts: Vec<(Location, LeftOut)>,
}

/// A client of one source.
#[derive(Debug)]
pub struct Client {
    source: Source,
    stations: Vec<Location>,
    inventory: Vec<Location>,
    service: Service,
    patience: Patience,
    naming: FileNaming,
    /// The last URL of the source that was answered with 200. It is requested again when another URL is forbidden.
    witness: Mutex<Option<String>>,
    warned_of_forbidden: AtomicBool,
}

impl Client {
    /// Creates a client of `source` over `http`. `stations`: location of the station list, unless it is in the source.
    pub fn new(source: Source, stations: Option<&Location>, policy: &RequestPolicy, http: Arc<dyn Http>) -> Self {
        Self {
            stations: source.station_list_locations(stations),
            inventory: source.inventory_locations(stations),
            source,
            service: Service::new(GHCN_DAILY, http, policy.requests_per_second),
            patience: Patience::new(policy.unusable_patience),
            naming: FileNaming::default(),
            witness: Mutex::default(),
            warned_of_forbidden: AtomicBool::new(false),
        }
    }

    /// Returns the source.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Returns where the station list may be.
    pub fn station_list_locations(&self) -> &[Location] {
        &self.stations
    }

    /// Reads the station list.
    ///
    /// # Errors
    /// Fails if it cannot be read whole.
    pub async fn stations(&self) -> Result<SourceFile<Vec<Station>>, Unavailable> {
        let locations = self.stations.iter().map(Location::to_string).collect::<Vec<_>>().join(" or ");
        // Its own key: a missing list is not a failure of the location.
        let key = format!("no station list at {locations}");
        let file = match self.read_first(&self.stations, || Lines::new(StationList::default())).await {
            Ok(file) => file,
            Err(failure) => {
                // The list is still missing if the service fails in a way that waiting cannot repair either.
                if !matches!(failure, Unavailable::Unusable { .. }) && !failure.is_lasting() {
                    self.patience.record(&key, false, Instant::now());
                }
                return Err(failure);
            }
        };
        let Some(file) = file else {
            let missing = Unavailable::NoStations { locations: locations.clone() + &other_compression(&self.stations) };
            if self.stations.iter().all(|location| matches!(location, Location::File(_))) {
                return Err(Unavailable::Unusable { why: missing.to_string() });
            }
            self.patience.record(&key, true, Instant::now());
            return Err(self.patience.judge(&key, missing, Instant::now()));
        };
        self.patience.record(&key, false, Instant::now());
        Ok(file)
    }

    /// Reads the inventory, if there is one.
    ///
    /// # Errors
    /// Fails if it exists but cannot be read whole.
    pub async fn inventory(&self) -> Result<Option<SourceFile<Inventory>>, Unavailable> {
        self.read_first(&self.inventory, || Lines::new(InventoryList::default())).await
    }

    /// Reads these years of a station.
    ///
    /// # Errors
    /// Fails if any of them cannot be read whole; the years read before it are lost.
    pub async fn station_years(&self, station: &str, years: &BTreeSet<i16>) -> Result<StationYears, Unavailable> {
        let mut all = StationYears::default();
        if let Some(locations) = self.source.by_station(station) {
            let rows = || Lines::new(ByStation::new(station, years.iter().copied()));
            let mut file = self.station_file(locations, rows).await?;
            let of_year = |year| file.as_mut().map(|file| file.parsed.value.remove(&year).unwrap_or_default());
            all.years = years.iter().copied().zip(years.iter().copied().map(of_year)).collect();
            all.texts.extend(file.map(|file| (file.location, file.parsed.left_out)));
            return Ok(all);
        }
        for &year in years {
            let Some(location) = self.source.by_year(station, year) else { continue };
            let answer = self.read(&location, || ghcn::AccessAnswer::new(station, year)).await;
            let parsed = answer.map_err(|failure| self.judge(&location, failure))?;
            let (days, left_out) = parsed.map(|parsed| (parsed.value, parsed.left_out)).unzip();
            all.years.insert(year, days);
            all.texts.extend(left_out.map(|left_out| (location, left_out)));
        }
        Ok(all)
    }

    /// Reads the first file of a station that exists, by its names in order.
    async fn station_file<T: Text>(
        &self,
        locations: [Location; 2],
        text: impl Fn() -> T,
    ) -> Result<Option<SourceFile<T::Output>>, Unavailable> {
        let gzipped = locations[1].clone();
        let locations = if self.source.is_folder() { locations.into() } else { self.naming.locations(locations) };
        let file = self.read_first(&locations, text).await?;
        self.naming.note(file.as_ref().map(|file| file.location == gzipped));
        Ok(file)
    }

    /// Returns whether the service still answers 200 for another file: then 403 means that a file is missing. The request is
    /// made each time, so that a client that becomes barred never mistakes the source for one without files.
    async fn answers_403_for_missing_files(&self) -> bool {
        let witness = self.witness.lock().clone();
        match witness {
            Some(url) => self.service.answers(&url).await,
            None => false,
        }
    }

    /// Reads the first location that exists. A forbidden one counts as missing if the service answers 200 for other files.
    async fn read_first<T: Text>(
        &self,
        locations: &[Location],
        text: impl Fn() -> T,
    ) -> Result<Option<SourceFile<T::Output>>, Unavailable> {
        let mut forbidden = None;
        for location in locations {
            match self.read(location, &text).await {
                Ok(Some(parsed)) => return Ok(Some(SourceFile { location: location.clone(), parsed })),
                Ok(None) => {}
                Err(failure) if failure.is_forbidden() => forbidden = forbidden.or(Some((location, failure))),
                Err(failure) => return Err(self.judge(location, failure)),
            }
        }
        let Some((location, failure)) = forbidden else { return Ok(None) };
        if !self.answers_403_for_missing_files().await {
            return Err(self.judge(location, failure));
        }
        if !self.warned_of_forbidden.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                place = %location,
                "the weather service answers 403 for this file and 200 for others: such files count as missing (a bucket \
                 that may not be listed answers like this)"
            );
        }
        Ok(None)
    }

    /// Returns the failure to report, after [`Self::read`]: permanent if the location has failed for too long in a way that
    /// waiting cannot repair.
    fn judge(&self, location: &Location, failure: Unavailable) -> Unavailable {
        self.patience.judge(&location.to_string(), failure, Instant::now())
    }

    /// Returns whether waiting cannot repair a failure of a location. A refused station file may be temporary if the source has
    /// answered before.
    fn is_lasting(&self, location: &Location, failure: &Unavailable) -> bool {
        let is_list = || self.stations.contains(location) || self.inventory.contains(location);
        let never_answered = || self.witness.lock().is_none();
        failure.is_lasting() || (failure.is_forbidden() && (is_list() || never_answered()))
    }

    /// Reads a location; `None` if nothing is there.
    async fn read<T: Text>(
        &self,
        location: &Location,
        text: impl Fn() -> T,
    ) -> Result<Option<Parsed<T::Output>>, Unavailable> {
        let url = match location {
            Location::File(path) => {
                let read = match open(path).await {
                    Ok(file) => parse_body(location, file, text()).await.map(Some),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        let why =
                            format!("{location}: {error}. Let this user read the file, then replay the dead letter");
                        return Err(Unavailable::Unusable { why: format!("{why} or run again") });
                    }
                    Err(error) => Err(Unavailable::Broken { location: location.to_string(), why: chain(&error) }),
                };
                return read.map_err(Unavailable::of_local_file);
            }
            Location::Url(url) => url,
        };
        let mut attempt = 1;
        let mut pauses = Backoff::new(RETRY_PAUSE, Duration::MAX);
        loop {
            self.service.ready().await?;
            let answered = || {
                if self.source.contains(location) {
                    *self.witness.lock() = Some(url.clone());
                }
            };
            let answer = self.service.request(url, text(), answered).await;
            let is_lasting = answer.as_ref().is_err_and(|failure| self.is_lasting(location, failure));
            self.patience.record(url, is_lasting, Instant::now());
            let failure = match answer {
                Ok(parsed) => return Ok(parsed),
                Err(failure) => failure,
            };
            let pause = failure.retry_after().unwrap_or_default();
            if pause > PAUSE_WAITED_OUT_MAX {
                self.service.pause(pause);
                return Err(failure);
            }
            if attempt == ATTEMPTS || !failure.may_pass_soon() {
                return Err(failure);
            }
            tracing::warn!(place = %location, tried = attempt, why = %failure, "the weather service failed; trying again");
            tokio::time::sleep(pause.max(pauses.next_pause())).await;
            attempt += 1;
        }
    }
}

/// Opens a file. Refuses a directory, a pipe and a device: reading them fails or does not end.
async fn open(path: &Path) -> io::Result<tokio::fs::File> {
    let kind = tokio::fs::metadata(path).await?.file_type();
    if kind.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory, not a file"));
    }
    if !kind.is_file() {
        return Err(io::Error::other("it is a pipe or a device, not a file"));
    }
    tokio::fs::File::open(path).await
}
