//! The simulated weather service: three stations, one week, and many kinds of failure. In each edition weather appears, changes
//! or disappears.

use super::world::{Fault, Process};
use bytes::Bytes;
use futures::{
    FutureExt, StreamExt,
    future::{self, BoxFuture},
    stream,
};
use std::{
    fmt::Write,
    io,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};
use weather_fetcher::sources::http::{Answer, Http};

/// Its URL.
pub const URL: &str = "http://weather.simulated";

/// Station, latitude, longitude, and the elements that it measures.
const STATIONS: [(&str, f64, f64, Measures); 5] = [
    ("SIM00000001", 40.70, -74.00, Measures::Everything),
    ("SIM00000002", 40.90, -73.80, Measures::EveryOtherDay),
    // The nearest to many rides, and unusable.
    ("SIM00000003", 40.75, -73.95, Measures::Rain),
    // In the list, but without a file.
    ("SIM00000004", 40.72, -73.98, Measures::Missing),
    ("SIM00000005", 41.60, -73.00, Measures::Everything),
];

#[derive(Clone, Copy, PartialEq)]
enum Measures {
    Everything,
    EveryOtherDay,
    Rain,
    Missing,
}

/// The service as seen by a process.
#[derive(Debug)]
pub struct SimulatedWeather(pub Arc<Process>);

impl Http for SimulatedWeather {
    fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Answer, String>> {
        async move {
            let process = &self.0;
            process.alive().await;
            process.tell(format_args!("asks {url}"));
            process.latency().await;
            let edition = process.world.edition.load(SeqCst);
            let file = text(url.trim_start_matches(URL).trim_start_matches('/'), edition);
            if process.happens(Fault::Weather) {
                let mood = process.world.below(8);
                process.tell(format_args!("✗ Weather mood {mood}"));
                return match mood {
                    0 => {
                        tokio::time::sleep(Duration::from_secs(20 + process.world.below(600))).await;
                        process.alive().await;
                        Ok(answer(file))
                    }
                    1 => Err("connection refused".to_owned()),
                    2 => Ok(status(429, Some("2"))),
                    3 => Ok(status(429, Some("900"))),
                    4 => Ok(status(503, None)),
                    5 => Ok(answer(Some("<html>be right back</html>".to_owned()))),
                    6 => Ok(cut_off(file.unwrap_or_default())),
                    _ => Ok(status(500, Some("Mon, 01 Jun 2020 00:00:10 GMT"))),
                };
            }
            Ok(answer(file))
        }
        .boxed()
    }
}

fn answer(file: Option<String>) -> Answer {
    match file {
        Some(text) => {
            let body = stream::once(future::ready(Ok(Bytes::from(text)))).boxed();
            Answer { status: 200.try_into().expect("a status"), retry_after: None, body }
        }
        None => status(404, None),
    }
}

fn status(status: u16, retry_after: Option<&str>) -> Answer {
    Answer {
        status: status.try_into().expect("a status"),
        retry_after: retry_after.map(str::to_owned),
        body: stream::empty().boxed(),
    }
}

fn cut_off(text: String) -> Answer {
    let half = Bytes::from(text).slice(..);
    let half = half.slice(..half.len() / 2);
    let broken = Err(io::Error::new(io::ErrorKind::ConnectionReset, "simulated: reset"));
    let body = stream::iter([Ok(half), broken]).boxed();
    Answer { status: 200.try_into().expect("a status"), retry_after: None, body }
}

/// Number of the last edition in which any weather differs from the one before.
pub const EDITIONS: u64 = 2;

fn text(path: &str, edition: u64) -> Option<String> {
    if path == "ghcnd-stations.txt" {
        let line = |(id, latitude, longitude, _): (&str, f64, f64, Measures)| {
            format!("{:<85}\n", format!("{id:<11} {latitude:>8.4} {longitude:>9.4} {:>6}", "-999.9"))
        };
        return Some(STATIONS.into_iter().map(line).collect());
    }
    let id = path.strip_prefix("csv/by_station/")?.strip_suffix(".csv")?;
    let (number, &(.., measures)) = STATIONS.iter().enumerate().find(|(_, (station, ..))| *station == id)?;
    if measures == Measures::Missing {
        return None;
    }
    let mut text = "ID,DATE,ELEMENT,DATA_VALUE,M_FLAG,Q_FLAG,S_FLAG,OBS_TIME\n".to_owned();
    for day in 1..=7 {
        let values = [("PRCP", day * 13 % 40), ("TMAX", 200 + 7 * day + number), ("TMIN", 100 + 5 * day + number)];
        for (element, value) in values {
            let left_out = match measures {
                Measures::Rain => element != "PRCP",
                Measures::EveryOtherDay => day % 2 == 0,
                Measures::Everything | Measures::Missing => false,
            };
            let left_out = left_out || is_missing_in(edition, number, day);
            let value = if is_corrected_in(edition, number, day) { value + 7 } else { value };
            if !left_out {
                let _ = writeln!(text, "{id},201804{day:02},{element},{value},,,W,2400");
            }
        }
    }
    Some(text)
}

/// Whether a station's day is missing: the last days of the first edition appear later, and one day disappears.
fn is_missing_in(edition: u64, station: usize, day: usize) -> bool {
    match edition {
        0 => day >= 6,
        1 => false,
        _ => station == 0 && day == 2,
    }
}

/// Whether a station's day was corrected.
fn is_corrected_in(edition: u64, station: usize, day: usize) -> bool {
    edition >= 1 && station != 2 && day == 4
}
