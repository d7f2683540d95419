//! Why weather is not available, and how to treat a service that does not answer as expected.

use crate::{lines::Malformed, source::Place};
use reqwest::StatusCode;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Why weather is not available now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No connection, no answer in time, or an answer that broke off.
    #[error("{place}: {why}")]
    Broken {
        /// What was asked for.
        place: String,
        /// In words.
        why: String,
    },
    /// An HTTP status other than 200, 404, 410 and those of redirects.
    #[error("{place} answered {status}{}", hint(*.status))]
    Status {
        /// What was asked for.
        place: String,
        /// HTTP status.
        status: StatusCode,
        /// How long the service asks not to be called again.
        retry_after: Option<Duration>,
    },
    /// A redirect that was not followed.
    #[error("{place} answered {status}: {why}; check weather.source and weather.stations")]
    Redirected {
        /// What was asked for.
        place: String,
        /// HTTP status.
        status: StatusCode,
        /// Why it was not followed.
        why: String,
    },
    /// The service asked for a pause a while ago, which is not over.
    #[error("the service asked not to be asked again for {} more seconds", .retry_after.as_secs())]
    Paused {
        /// The rest of the pause.
        retry_after: Duration,
    },
    /// A text that is not weather.
    #[error("{place}{}{malformed}; it is not a usable {name}", if .malformed.line > 0 { ", " } else { ": " })]
    NotWeather {
        /// What was asked for.
        place: String,
        /// What the text should be.
        name: &'static str,
        /// Where and why.
        malformed: Malformed,
    },
    /// A text longer than allowed.
    #[error("{place}: more than {bytes_max} bytes; it is not a usable {name}")]
    TooLarge {
        /// What was asked for.
        place: String,
        /// What the text should be.
        name: &'static str,
        /// Bytes allowed, as received and decompressed.
        bytes_max: u64,
    },
    /// The station list is missing.
    #[error("no station list at {places}: set weather.stations to the path or URL of NOAA's ghcnd-stations.txt")]
    NoStations {
        /// Where it was looked for.
        places: String,
    },
    /// Waiting cannot help: a local file that cannot be used, or a service that has not sent weather for too long.
    #[error("{why}")]
    Unusable {
        /// In words: the file, the place in it, and what to do.
        why: String,
    },
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            ": access is refused; check weather.source, or whether this address is barred from the service"
        }
        status if status.is_success() => ": not a text; check weather.source and weather.stations",
        _ => "",
    }
}

impl Unavailable {
    /// How long the service asks not to be called again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Paused { retry_after } => Some(*retry_after),
            Self::Broken { .. }
            | Self::Redirected { .. }
            | Self::NotWeather { .. }
            | Self::TooLarge { .. }
            | Self::NoStations { .. }
            | Self::Unusable { .. } => None,
        }
    }

    /// Whether the same request may succeed a moment later.
    pub fn may_pass_soon(&self) -> bool {
        match self {
            Self::Broken { .. } | Self::NotWeather { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error()
                    || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            }
            Self::Redirected { .. }
            | Self::Paused { .. }
            | Self::TooLarge { .. }
            | Self::NoStations { .. }
            | Self::Unusable { .. } => false,
        }
    }

    /// Whether access is refused: a bucket that may not be listed answers so for a missing file.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Status { status: StatusCode::FORBIDDEN, retry_after: None, .. })
    }

    /// Whether waiting cannot repair it: the place answered, and not with weather. A refused access (403) is judged by what
    /// else the service answers ([`Self::is_forbidden`]).
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::NotWeather { .. } | Self::TooLarge { .. } | Self::NoStations { .. } | Self::Redirected { .. } => true,
            Self::Status { status, retry_after, .. } => {
                let may_pass = matches!(
                    *status,
                    StatusCode::FORBIDDEN
                        | StatusCode::REQUEST_TIMEOUT
                        | StatusCode::TOO_EARLY
                        | StatusCode::TOO_MANY_REQUESTS
                );
                status.is_success() || (status.is_client_error() && !may_pass && retry_after.is_none())
            }
            Self::Broken { .. } | Self::Paused { .. } | Self::Unusable { .. } => false,
        }
    }

    /// Makes a failure of a local file permanent: the file stays as it is until a person changes it.
    pub(crate) fn of_a_file(self) -> Self {
        Self::Unusable {
            why: format!("{self}. Replace the file with NOAA's, then replay the dead letter or run again"),
        }
    }
}

/// Limits how long a place is asked again that answers with something other than weather.
#[derive(Debug)]
pub struct Patience {
    limit: Duration,
    /// For each place: since when it has answered with nothing else.
    since: Mutex<HashMap<String, Instant>>,
}

impl Patience {
    /// `limit`: time from the first such answer until the failure becomes permanent.
    pub fn new(limit: Duration) -> Self {
        Self { limit, since: Mutex::default() }
    }

    /// Notes the outcome of a request to `place` at `now`. Any outcome that is not a lasting failure restarts the wait: a
    /// service whose faults change is away, not wrong.
    pub fn note(&self, place: &str, is_lasting: bool, now: Instant) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        if is_lasting {
            since.entry(place.to_owned()).or_insert(now);
        } else {
            since.remove(place);
        }
    }

    /// The failure to report, after [`Self::note`]: unchanged until the limit is reached, then permanent.
    pub fn judge(&self, place: &str, failure: Unavailable, now: Instant) -> Unavailable {
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner).get(place).copied();
        match since {
            Some(since)
                if now.duration_since(since) >= self.limit && !matches!(failure, Unavailable::Paused { .. }) =>
            {
                let seconds = now.duration_since(since).as_secs();
                Unavailable::Unusable {
                    why: format!(
                        "{failure}. The service has answered so for {seconds} s (weather.unusable_patience_ms): check \
                         weather.source and weather.stations, then replay the dead letter or run again"
                    ),
                }
            }
            _ => failure,
        }
    }
}

/// Number of stations after which the spelling of a source counts as known.
const SPELLING_STATIONS: u32 = 8;

/// Which names the station files of a remote source have, `ID.csv` or `ID.csv.gz`: learned from the first stations, so that a
/// station without a file does not cost two requests for ever.
#[derive(Debug, Default)]
pub struct Spelling(Mutex<Learned>);

#[derive(Debug, Clone, Copy, Default)]
struct Learned {
    plain: u32,
    gzipped: u32,
    neither: u32,
}

impl Spelling {
    /// The places to ask, of the plain and the compressed file.
    pub fn places(&self, [plain, gzipped]: [Place; 2]) -> Vec<Place> {
        let learned = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = learned.plain + learned.gzipped + learned.neither >= SPELLING_STATIONS;
        match (learned.plain > 0, learned.gzipped > 0) {
            (true, false) if known => vec![plain],
            (false, true) if known => vec![gzipped],
            _ => vec![plain, gzipped],
        }
    }

    /// Notes which file of a station was there: the plain one, the compressed one, or neither.
    pub fn note(&self, is_gzipped: Option<bool>) {
        let mut learned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = match is_gzipped {
            Some(false) => &mut learned.plain,
            Some(true) => &mut learned.gzipped,
            None => &mut learned.neither,
        };
        *count = count.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_weather() -> Unavailable {
        let malformed = Malformed::new(3, "ID", "x");
        Unavailable::NotWeather { place: "a".to_owned(), name: "station file", malformed }
    }

    fn down() -> Unavailable {
        Unavailable::Broken { place: "a".to_owned(), why: "refused".to_owned() }
    }

    fn status(code: u16, retry_after: Option<u64>) -> Unavailable {
        let status = StatusCode::from_u16(code).unwrap();
        Unavailable::Status { place: "a".to_owned(), status, retry_after: retry_after.map(Duration::from_secs) }
    }

    #[test]
    fn waiting_does_not_repair_an_answer_that_is_no_text() {
        for code in [202, 204, 206, 400, 401, 405, 406, 451] {
            assert!(status(code, None).is_lasting(), "{code}");
        }
        for code in [403, 408, 425, 429, 500, 502, 503, 504] {
            assert!(!status(code, None).is_lasting(), "{code}");
        }
        assert!(!status(401, Some(60)).is_lasting(), "the service says when to come back");
        assert!(status(204, Some(60)).is_lasting());
        assert!(status(403, None).is_forbidden() && !status(403, Some(60)).is_forbidden());
        assert!(not_weather().is_lasting() && !down().is_lasting());
        let redirected =
            Unavailable::Redirected { place: "a".to_owned(), status: StatusCode::FOUND, why: "a loop".to_owned() };
        assert!(redirected.is_lasting() && !redirected.may_pass_soon());
    }

    #[test]
    fn patience_ends_with_a_place_that_sends_nothing_but_other_texts() {
        let (patience, begin) = (Patience::new(Duration::from_secs(60)), Instant::now());
        let ask = |place: &str, failure: Unavailable, second: u64| {
            let now = begin + Duration::from_secs(second);
            patience.note(place, failure.is_lasting(), now);
            patience.judge(place, failure, now)
        };
        for (place, second) in [("a", 0), ("a", 59), ("b", 59)] {
            assert_eq!(ask(place, not_weather(), second), not_weather());
        }
        let Unavailable::Unusable { why } = ask("a", status(204, None), 60) else { panic!("waits for ever") };
        assert!(why.starts_with("a answered 204 No Content: not a text; check weather.source"), "{why}");
        let Unavailable::Unusable { why } = ask("a", not_weather(), 60) else { panic!("waits for ever") };
        assert!(why.starts_with("a, line 3, column ID: x; it is not a usable station file. The service"), "{why}");
        assert_eq!(ask("b", not_weather(), 60), not_weather(), "each place for itself");
        for (other, second) in [(Some(down()), 100), (None, 200)] {
            let is_lasting = other.as_ref().is_some_and(Unavailable::is_lasting);
            patience.note("a", is_lasting, begin + Duration::from_secs(second));
            assert_eq!(ask("a", not_weather(), second + 1), not_weather(), "anew after {other:?}");
            assert_eq!(ask("a", not_weather(), second + 60), not_weather());
            assert_eq!(ask("a", down(), second + 99), down());
        }
    }

    #[test]
    fn a_source_with_one_spelling_is_soon_asked_for_that_alone() {
        let places = || ["a.csv", "a.csv.gz"].map(|name| Place::File(name.into()));
        let asked = |notes: &[Option<bool>]| {
            let spelling = Spelling::default();
            notes.iter().for_each(|note| spelling.note(*note));
            spelling.places(places()).iter().map(Place::to_string).collect::<Vec<_>>()
        };
        let both = ["a.csv", "a.csv.gz"];
        let after = |count: usize, first| [vec![Some(first)], vec![None; count - 1]].concat();
        assert_eq!(asked(&[]), both);
        assert_eq!(asked(&after(7, false)), both);
        assert_eq!(asked(&after(8, false)), ["a.csv"]);
        assert_eq!(asked(&after(8, true)), ["a.csv.gz"]);
        assert_eq!(asked(&[None; 100]), both, "nothing was found: nothing is known");
        assert_eq!(asked(&[[Some(true); 50], [Some(false); 50]].concat()), both, "a mixed source");
    }
}
