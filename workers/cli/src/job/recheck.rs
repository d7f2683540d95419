//! Checks how the weather of an earlier dataset would differ today.
//!
//! A revision of a dataset is never changed. Some of its rides are looked up again, so that a person can decide whether to join
//! them again with weather that arrived or was corrected since.

use super::{
    earlier::{Changes, EarlierDataset},
    outcome::Submission,
};
use common::{
    dataset::DatasetFile,
    message::{DatasetReady, PlaceWeather, WEATHER_PLACES_MAX, WeatherErrorCode, WeatherPlace, WeatherRequest},
    outcome::Failure,
    topology::queue,
};
use jiff::{SignedDuration, Timestamp};
use records::{
    Store,
    datasets::{self, Header, Record, Records, columns},
    layout, store,
};
use runtime::client::Client;
use std::{ops::Range, pin::pin, time::Duration};

/// Maximum number of rides to look up again.
const RIDES_MAX: usize = 200;
const _: () = assert!(RIDES_MAX <= WEATHER_PLACES_MAX);
/// Maximum number of bytes of a dataset to choose these rides from.
const BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Maximum number of pieces of one file.
const PIECES: u64 = 8;
/// Maximum number of files of a dataset to choose these rides from.
const FILES_MAX: usize = 32;
/// Deadline of the lookup.
const LOOKUP_MAX: Duration = Duration::from_secs(60);
/// Time after which a message reports the running lookup.
const REPORT_AFTER: Duration = Duration::from_secs(1);
/// Maximum difference between the clocks of this machine and of the store.
const CLOCK_SKEW_MAX: SignedDuration = SignedDuration::from_secs(2);

/// Returns the report on the dataset of a batch; `None` if this command produced the dataset.
///
/// # Errors
/// Fails if the store is unavailable or the dataset is damaged. An unavailable weather service is part of the report.
pub(crate) async fn look(
    client: &Client,
    store: &Store,
    submission: &Submission,
    ready: &DatasetReady,
) -> Result<Option<EarlierDataset>, Failure> {
    let Some(stored) = datasets::manifest(store, &ready.batch_id).await? else { return Ok(None) };
    let manifest = stored.manifest;
    let path = layout::manifest(&manifest.batch_id, manifest.revision());
    let Some(found) = store::head(store, &path).await? else { return Ok(None) };
    let made_at = Timestamp::from_second(found.last_modified.timestamp()).unwrap_or(Timestamp::MIN);
    // If the document contains its batch id, the id was not known when the batch was submitted.
    let was_made_before = made_at.saturating_add(CLOCK_SKEW_MAX).is_ok_and(|made_at| made_at < submission.at);
    if !submission.was_there && !was_made_before {
        return Ok(None);
    }
    let rides = choose(sample(store, &manifest.files).await?);
    let changes =
        if rides.is_empty() { Ok(Changes::default()) } else { ask(client, &submission.trace_id, &rides).await };
    let (looked_up_again, not_looked_up) = match changes {
        Ok(changes) => (Some(changes), None),
        Err(why) => (None, Some(why)),
    };
    Ok(Some(EarlierDataset {
        made_at,
        revision: manifest.revision(),
        batch_id: manifest.batch_id,
        rides: manifest.accepted,
        without_weather: manifest.without_weather.values().sum(),
        without_weather_by_reason: manifest.without_weather,
        looked_up_again,
        not_looked_up,
        refreshed: None,
    }))
}

/// A ride of a dataset: its place, and its weather in the dataset.
#[derive(Debug, Clone, PartialEq)]
struct Ride {
    place: WeatherPlace,
    /// Station, then tmin, tmax and prcp as written in the dataset.
    weather: Option<(String, [f64; 3])>,
}

/// Reads rides spread over the files, in their order.
async fn sample(store: &Store, files: &[DatasetFile]) -> Result<Vec<Ride>, Failure> {
    let mut rides = Vec::new();
    let chosen: Vec<&DatasetFile> = spread(files, FILES_MAX).collect();
    for file in &chosen {
        for piece in pieces(file.bytes, BYTES_MAX / chosen.len().max(1) as u64) {
            let bytes = store::read_range(store, &file.path, piece.clone()).await?;
            let gone = || Failure::permanent("broken_object", format!("{}: the file is missing", file.path));
            let bytes = bytes.ok_or_else(gone)?;
            rides.extend(parse(whole_lines(&bytes, piece, file.bytes)));
        }
    }
    Ok(rides)
}

/// Returns the pieces of a file to read: the whole file, or several pieces spread over it.
fn pieces(bytes: u64, bytes_max: u64) -> Vec<Range<u64>> {
    if bytes == 0 {
        return Vec::new();
    }
    if bytes <= bytes_max.max(PIECES) {
        return std::iter::once(0..bytes).collect();
    }
    let length = bytes_max.max(PIECES) / PIECES;
    (0..PIECES).map(|n| (bytes - length) * n / (PIECES - 1)).map(|start| start..start + length).collect()
}

/// Removes the first line of a piece, which is the header or incomplete, and an incomplete last line.
fn whole_lines(bytes: &[u8], piece: Range<u64>, all: u64) -> &[u8] {
    let first = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1);
    let last = match piece.end == all {
        true => bytes.len(),
        false => bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1),
    };
    bytes.get(first..last).unwrap_or_default()
}

/// Parses the rides of some lines. Skips what is not a ride, such as the rest of a name with a line break in it.
fn parse(lines: &[u8]) -> Vec<Ride> {
    let header = Header::default();
    let mut records = Records::new(&header, lines);
    let mut rides = Vec::new();
    loop {
        match records.read() {
            Ok(Some(record)) => rides.extend(ride(record)),
            Ok(None) => return rides,
            Err(_) => {}
        }
    }
}

fn ride(record: Record<'_>) -> Option<Ride> {
    let number = |column| record.number(column).ok().flatten();
    let place = WeatherPlace {
        latitude: number(columns::LATITUDE).filter(|degrees| degrees.abs() <= 90.0)?,
        longitude: number(columns::LONGITUDE).filter(|degrees| degrees.abs() <= 180.0)?,
        statustime: record.time(columns::STATUSTIME).ok()?,
    };
    let station = record.text(columns::GROUNDSTATION).ok().filter(|station| !station.is_empty()).map(str::to_owned);
    let [tmin, tmax, prcp] = columns::WEATHER.map(number);
    Some(Ride { place, weather: station.and_then(|station| Some((station, [tmin?, tmax?, prcp?]))) })
}

/// Chooses the rides to look up: those without weather first, both kinds spread over the dataset.
fn choose(rides: Vec<Ride>) -> Vec<Ride> {
    let (with, without): (Vec<Ride>, Vec<Ride>) = rides.into_iter().partition(|ride| ride.weather.is_some());
    let mut chosen: Vec<Ride> = spread(&without, RIDES_MAX).cloned().collect();
    chosen.extend(spread(&with, RIDES_MAX - chosen.len()).cloned());
    chosen
}

/// Returns up to `count` items at even distances.
fn spread<T>(all: &[T], count: usize) -> impl Iterator<Item = &T> {
    let count = count.min(all.len());
    (0..count).filter_map(move |n| all.get(n * all.len() / count))
}

/// Looks the rides up. The error tells a person why the lookup failed.
async fn ask(client: &Client, request_id: &str, rides: &[Ride]) -> Result<Changes, String> {
    if client.depth(queue::WEATHER_LOOKUP).await.is_ok_and(|depth| depth.consumers == 0) {
        return Err("no process reads the queue `weather-lookup`".to_owned());
    }
    let places = rides.iter().map(|ride| ride.place).collect();
    let request = WeatherRequest { request_id: request_id.to_owned(), places, observed_only: true };
    let mut asking = pin!(client.weather(&request, LOOKUP_MAX));
    let answer = tokio::select! {
        biased;
        answer = &mut asking => answer,
        () = tokio::time::sleep(REPORT_AFTER) => {
            eprintln!("looking up the weather of {} rides again, {} s at most", rides.len(), LOOKUP_MAX.as_secs());
            asking.await
        }
    };
    let answer = answer.map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
    if let Some(error) = answer.error {
        return Err(error.message);
    }
    let failed = |now: &PlaceWeather| match now {
        PlaceWeather::Failed { error } if !is_no_weather(error.code) => Some(error.message.clone()),
        _ => None,
    };
    let changes = compare(rides, &answer.weather);
    match answer.weather.iter().find_map(failed) {
        Some(why) if changes.failed == changes.rides => Err(why),
        _ => Ok(changes),
    }
}

/// Returns whether the code means that there is no weather, rather than that the lookup failed.
fn is_no_weather(code: WeatherErrorCode) -> bool {
    !matches!(
        code,
        WeatherErrorCode::MalformedRequest
            | WeatherErrorCode::UnknownVersion
            | WeatherErrorCode::Unavailable
            | WeatherErrorCode::DeadlineExceeded
            | WeatherErrorCode::Internal
    )
}

fn compare(rides: &[Ride], now: &[PlaceWeather]) -> Changes {
    let mut changes = Changes { rides: rides.len() as u64, ..Changes::default() };
    for (ride, now) in rides.iter().zip(now) {
        changes.without_weather += u64::from(ride.weather.is_none());
        match (&ride.weather, now) {
            (None, PlaceWeather::Observed(_)) => changes.would_have_weather += 1,
            (Some((station, elements)), PlaceWeather::Observed(now)) => {
                let same = *elements == [now.tmin, now.tmax, now.prcp].map(f64::from) && now.groundstation == station;
                changes.other_values += u64::from(!same);
            }
            (_, PlaceWeather::Failed { error }) if !is_no_weather(error.code) => changes.failed += 1,
            // No dataset has other weather than observations.
            (Some(_), PlaceWeather::Forecast(_) | PlaceWeather::Climatology(_) | PlaceWeather::Failed { .. }) => {
                changes.would_have_none += 1;
            }
            (None, PlaceWeather::Forecast(_) | PlaceWeather::Climatology(_) | PlaceWeather::Failed { .. }) => {}
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::{message::WeatherError, ride::Observation};
    use object_store::memory::InMemory;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn line(n: usize, weather: bool) -> String {
        let weather = if weather { "USW00094728,20.7,111,156,241" } else { ",,,," };
        format!("a-{n},Twilight,,2018-04-25 17:03:05,40.{n:05},-74.1,29.5,291,292,1,{weather}\n")
    }

    fn rides(text: &str) -> Vec<Ride> {
        parse(text.as_bytes())
    }

    #[test]
    fn incomplete_lines_are_skipped() {
        let found = rides(&format!("{}tail of a name\",,,\n{}", line(1, true), line(2, false)));
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].weather, Some(("USW00094728".to_owned(), [111.0, 156.0, 241.0])));
        assert_eq!((found[1].place.latitude, &found[1].weather), (40.00002, &None));
    }

    #[test]
    fn rides_without_weather_come_first() {
        let text: String = (0..1_000).map(|n| line(n, n % 10 != 0)).collect();
        let chosen = choose(rides(&text));
        assert_eq!(chosen.len(), RIDES_MAX);
        assert!(
            chosen[..100].iter().all(|ride| ride.weather.is_none())
                && chosen[100..].iter().all(|ride| ride.weather.is_some())
        );
        let all_without: String = (0..1_000).map(|n| line(n, false)).collect();
        let chosen = choose(rides(&all_without));
        assert_eq!(chosen.len(), RIDES_MAX);
        assert!(chosen.last().unwrap().place.latitude > 40.0099, "from all over the dataset");
    }

    #[tokio::test]
    async fn large_dataset_is_sampled_in_pieces_spread_over_it() {
        let store: Store = Arc::new(InMemory::new());
        let text: String =
            std::iter::once("header\n".to_owned()).chain((0..400_000).map(|n| line(n, n > 399_990))).collect();
        assert!(text.len() as u64 > BYTES_MAX);
        let path = "dataset/b/part-00000.csv";
        store::write(&store, path, text.clone().into_bytes()).await.unwrap();
        let file =
            DatasetFile { path: path.to_owned(), bytes: text.len() as u64, rows: 400_000, sha256: String::new() };
        let found = sample(&store, &[file]).await.unwrap();
        assert!(found.len() < 400_000, "{}", found.len());
        assert_eq!(
            found.iter().filter(|ride| ride.weather.is_some()).count(),
            9,
            "the last lines are among them, none twice"
        );
        assert_eq!(found[0], rides(&line(0, false))[0]);
    }

    fn observed(prcp: i32) -> PlaceWeather {
        let groundstation = "USW00094728".into();
        PlaceWeather::Observed(Observation { groundstation, station_km: 20.7, tmin: 111, tmax: 156, prcp })
    }

    fn failed(code: WeatherErrorCode) -> PlaceWeather {
        PlaceWeather::Failed { error: WeatherError { code, message: "m".to_owned(), field: None } }
    }

    #[test]
    fn changes_are_counted_and_printed() {
        let old = rides(
            &[line(1, true), line(2, true), line(3, true), line(4, false), line(5, false), line(6, false)].concat(),
        );
        let now = [
            observed(241),
            observed(0),
            failed(WeatherErrorCode::NoObservationOnDate),
            observed(1),
            failed(WeatherErrorCode::NoStationInReach),
            failed(WeatherErrorCode::Unavailable),
        ];
        let changes = compare(&old, &now);
        let expected = Changes {
            rides: 6,
            without_weather: 3,
            would_have_weather: 1,
            other_values: 1,
            would_have_none: 1,
            failed: 1,
        };
        assert_eq!(changes, expected);
        let text = changes.text();
        assert!(
            text.starts_with("Of 6 rides looked up again, 1 of 3 without weather would have weather now"),
            "{text}"
        );
        let same = compare(&old[..1], &now[..1]).text();
        assert_eq!(same, "Of 1 rides looked up again, none would have other weather now.");
    }

    proptest! {
        #[test]
        fn pieces_lie_within_the_file_and_reach_its_end(bytes in 0u64..1_000_000, bytes_max in 0u64..100_000) {
            let pieces = pieces(bytes, bytes_max);
            prop_assert!(pieces.iter().all(|piece| piece.start < piece.end && piece.end <= bytes));
            prop_assert_eq!(pieces.last().map_or(0, |piece| piece.end), bytes);
            prop_assert!(pieces.iter().map(|piece| piece.end - piece.start).sum::<u64>() <= bytes_max.max(PIECES).max(1));
        }
    }
}
