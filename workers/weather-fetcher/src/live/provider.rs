//! The providers of weather that no station has published.

use crate::sources::unavailable::Unavailable;
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use std::fmt;
use strum::{EnumString, IntoStaticStr};

/// A provider of weather that no station has published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, EnumString, IntoStaticStr, strum::Display)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Provider {
    /// Forecasts of the US National Weather Service.
    Nws,
    /// Forecasts of Open-Meteo, for the whole earth.
    OpenMeteo,
    /// What the nearest station with enough earlier years usually measures at that time of the year.
    Climatology,
}

impl Provider {
    /// Returns whether the provider is a forecast service, which knows recent and coming days only.
    pub fn is_forecast(self) -> bool {
        match self {
            Self::Nws | Self::OpenMeteo => true,
            Self::Climatology => false,
        }
    }
}

/// Which providers are asked, in order of preference, and where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Providers {
    /// The providers, each at most once.
    pub order: Vec<Provider>,
    /// URL of the National Weather Service.
    pub nws_url: String,
    /// URL of Open-Meteo.
    pub open_meteo_url: String,
}

/// Why a provider has no weather for a place and date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoEstimate {
    /// The provider has none, and trying again soon does not help.
    NotCovered(String),
    /// The provider cannot be reached now; trying again may help.
    Unavailable(String),
}

impl NoEstimate {
    /// Returns why a provider does not know a day that is out of its range.
    pub fn out_of_range(days: &str) -> Self {
        Self::NotCovered(format!("it knows {days}"))
    }
}

impl fmt::Display for NoEstimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCovered(why) | Self::Unavailable(why) => f.write_str(why),
        }
    }
}

impl From<Unavailable> for NoEstimate {
    /// Names the settings of a forecast service instead of those of the observations.
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(match unavailable {
            Unavailable::Status { location, status, .. } => {
                let hint = match status {
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                        ": access is refused; set weather.contact, by which the service knows its clients"
                    }
                    _ => "",
                };
                format!("{location} answered {status}{hint}")
            }
            Unavailable::Redirected { location, status, why } => format!("{location} answered {status}: {why}"),
            other => other.to_string(),
        })
    }
}
