//! Why weather is not available, and whether waiting helps.

use crate::formats::malformed::Malformed;
use reqwest::StatusCode;
use std::time::Duration;

/// Why weather is not available now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No connection, no answer in time, or an incomplete answer.
    #[error("{location}: {why}")]
    Broken {
        /// The URL or path.
        location: String,
        /// Text of the underlying error.
        why: String,
    },
    /// An HTTP status other than 200, 404, 410 and those of redirects.
    #[error("{location} answered {status}{}", hint(*.status))]
    Status {
        /// The URL or path.
        location: String,
        /// HTTP status.
        status: StatusCode,
        /// Pause that the service asks for.
        retry_after: Option<Duration>,
    },
    /// A redirect that was not followed.
    #[error("{location} answered {status}: {why}; check weather.source and weather.stations")]
    Redirected {
        /// The URL or path.
        location: String,
        /// HTTP status.
        status: StatusCode,
        /// Why it was not followed.
        why: String,
    },
    /// The service asked for a pause earlier, and the pause is not over.
    #[error("the service asked for a pause; {} seconds of it are left", .retry_after.as_secs())]
    Paused {
        /// Time left of the pause.
        retry_after: Duration,
    },
    /// A text that is not weather.
    #[error("{location}{}{malformed}; it is not a usable {name}", if .malformed.line > 0 { ", " } else { ": " })]
    NotWeather {
        /// The URL or path.
        location: String,
        /// Expected kind of text.
        name: &'static str,
        /// Line, column and reason.
        malformed: Malformed,
    },
    /// A text longer than allowed.
    #[error("{location}: more than {bytes_max} bytes; it is not a usable {name}")]
    TooLarge {
        /// The URL or path.
        location: String,
        /// Expected kind of text.
        name: &'static str,
        /// Maximum number of bytes, as received and decompressed.
        bytes_max: u64,
    },
    /// The station list is missing.
    #[error("no station list at {locations}: set weather.stations to the path or URL of NOAA's ghcnd-stations.txt")]
    NoStations {
        /// The locations that were tried.
        locations: String,
    },
    /// Waiting cannot help: a local file that cannot be used, or a service that has not sent weather for too long.
    #[error("{why}")]
    Unusable {
        /// The file, the location in it, and what to do.
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
    /// Returns the pause that the service asks for.
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

    /// Returns whether the same request may succeed a moment later.
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

    /// Returns whether access is refused (403). A bucket that may not be listed answers so for a missing file.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Status { status: StatusCode::FORBIDDEN, retry_after: None, .. })
    }

    /// Returns whether waiting cannot repair the failure, because the location answered with something other than weather. The
    /// meaning of a refused access (403) depends on other answers of the service, see [`Self::is_forbidden`].
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

    /// Makes a failure of a local file permanent: the file does not change by itself.
    pub(crate) fn of_local_file(self) -> Self {
        Self::Unusable {
            why: format!("{self}. Replace the file with NOAA's, then replay the dead letter or run again"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn not_weather() -> Unavailable {
        let malformed = Malformed::new(3, "ID", "x");
        Unavailable::NotWeather { location: "a".to_owned(), name: "station file", malformed }
    }

    pub(crate) fn down() -> Unavailable {
        Unavailable::Broken { location: "a".to_owned(), why: "refused".to_owned() }
    }

    pub(crate) fn status(code: u16, retry_after: Option<u64>) -> Unavailable {
        let status = StatusCode::from_u16(code).unwrap();
        Unavailable::Status { location: "a".to_owned(), status, retry_after: retry_after.map(Duration::from_secs) }
    }

    #[test]
    fn waiting_does_not_repair_an_answer_that_is_no_weather() {
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
            Unavailable::Redirected { location: "a".to_owned(), status: StatusCode::FOUND, why: "a loop".to_owned() };
        assert!(redirected.is_lasting() && !redirected.may_pass_soon());
    }
}
