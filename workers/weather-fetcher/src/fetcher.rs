//! The worker that adds weather to chunks of rides.

use crate::{
    almanac::{Almanac, READ_DEADLINE},
    cache::WeatherCache,
    live::LiveWeather,
    lookup::WeatherLookup,
    settings::Settings,
    sources::{
        client::Client,
        http::Http,
        location::{Location, other_compression},
        source::{BY_STATION, Source},
    },
};
use anyhow::Context;
use common::{
    envelope::Envelope,
    message::{EnrichedChunk, EnrichedRide, RideChunk, WeatherPlace},
    outcome::{Failure, Outputs},
    ride::{Ride, Weather},
    topology::process::WEATHER_FETCHER,
};
use records::Store;
use runtime::{Worker, config, metrics::metrics};
use std::{io, path::Path, sync::Arc, time::Duration};

/// Checks that a folder has the layout of a source.
fn check_folder(folder: &Path) -> anyhow::Result<()> {
    let problem_of = |folder: &Path, missing: &str| match folder.metadata() {
        Ok(metadata) if metadata.is_dir() => None,
        Ok(_) => Some(format!("{} is a file, not a folder", folder.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(missing.to_owned()),
        Err(error) => Some(format!("{}: {error}", folder.display())),
    };
    if let Some(why) = problem_of(folder, "there is no such folder") {
        anyhow::bail!("weather.source = {}: {why}", folder.display());
    }
    if let Some(why) = problem_of(&folder.join(BY_STATION), &format!("there is no folder {BY_STATION} in it")) {
        anyhow::bail!(
            "weather.source = {}: {why}; give a folder in the layout of NOAA's bucket, with {BY_STATION}/<ID>.csv of each \
             station",
            folder.display()
        );
    }
    Ok(())
}

/// Turns a ride chunk into an enriched chunk.
#[derive(Debug)]
pub struct WeatherFetcher {
    almanac: Arc<Almanac>,
    live: Arc<LiveWeather>,
    pub(crate) deadline: Duration,
}

impl WeatherFetcher {
    /// Sends no request. The first chunk reads the station list, so that a service that cannot be reached delays the work but
    /// not the start.
    ///
    /// # Errors
    /// Fails if a setting is invalid or names a folder or file that does not exist.
    pub fn new(settings: Settings, store: Store) -> anyhow::Result<Self> {
        config::Settings::check(&settings).context("[weather]")?;
        Self::over(Box::new(settings.http()?), settings, store)
    }

    /// Works like [`Self::new`], with another HTTP client: for simulations.
    ///
    /// # Errors
    /// Fails as [`Self::new`] does.
    pub fn over(http: Box<dyn Http>, settings: Settings, store: Store) -> anyhow::Result<Self> {
        let (source, stations) = settings.source_and_stations().context("[weather]")?;
        if let Source::Bucket(Location::File(folder)) = &source {
            check_folder(folder)?;
        }
        let (http, policy): (Arc<dyn Http>, _) = (http.into(), settings.request_policy());
        let client = Client::new(source, stations.as_ref(), &policy, Arc::clone(&http));
        let is_missing = |location: &Location| matches!(location, Location::File(path) if !path.is_file());
        let locations = client.station_list_locations();
        if locations.iter().all(is_missing) {
            let names: Vec<String> = locations.iter().map(Location::to_string).collect();
            let is_directory = |location: &&Location| matches!(location, Location::File(path) if path.is_dir());
            let directory = locations.iter().find(is_directory).map(|location| format!(" ({location} is a directory)"));
            anyhow::bail!(
                "weather.stations: there is no station list at {}{}{}; give the path or URL of NOAA's ghcnd-stations.txt",
                names.join(" or "),
                directory.unwrap_or_default(),
                other_compression(locations)
            );
        }
        let weather = WeatherCache::new(client, store, settings.settled_days);
        let almanac = Arc::new(Almanac::new(weather, settings.max_station_km));
        let providers = settings.providers().context("[weather]")?;
        let live = Arc::new(LiveWeather::new(&providers, policy.requests_per_second, &http, &almanac));
        Ok(Self { almanac, live, deadline: READ_DEADLINE })
    }

    /// Returns the worker that answers weather requests from the same station list, caches and client, and from the live providers.
    pub fn lookup(&self) -> WeatherLookup {
        WeatherLookup::new(Arc::clone(&self.almanac), Arc::clone(&self.live))
    }

    async fn enrich(
        &self,
        RideChunk { batch_id, chunk, split_id, digest, refresh, rides }: RideChunk,
    ) -> Result<EnrichedChunk, Failure> {
        let place = |ride: &Ride| {
            let Ride { latitude, longitude, statustime, .. } = *ride;
            WeatherPlace { latitude, longitude, statustime }
        };
        let places: Vec<WeatherPlace> = rides.iter().map(place).collect();
        let weather = self.almanac.weather(&places, refresh.map(|refresh| refresh.asked_at)).await?;
        let observed = weather.iter().filter(|weather| matches!(weather, Weather::Observed(_))).count();
        metrics().rides(Self::NAME, "observed", observed as u64);
        metrics().rides(Self::NAME, "without_weather", (weather.len() - observed) as u64);
        let rides = rides.into_iter().zip(weather).map(|(ride, weather)| EnrichedRide { ride, weather }).collect();
        Ok(EnrichedChunk { batch_id, chunk, split_id, digest, refresh, rides })
    }
}

impl Worker for WeatherFetcher {
    const NAME: &'static str = WEATHER_FETCHER.name;
    type In = RideChunk;

    async fn handle(&self, envelope: Envelope<RideChunk>) -> Result<Outputs, Failure> {
        let late = |_| {
            let minutes = self.deadline.as_secs() / 60;
            let why =
                format!("not everything was read within {minutes} minutes; the next attempt continues from the cache");
            Failure::outage("weather service", why)
        };
        let enriched = tokio::time::timeout(self.deadline, self.enrich(envelope.payload)).await.map_err(late)??;
        Outputs::one(&enriched)
    }
}
