//! The answer to a score request, as clients read it.

use common::{
    message::{Climatology, Fallback, Forecast, PlaceWeather, WeatherError},
    ride::Observation,
};
use serde::Serialize;
use std::borrow::Cow;
use utoipa::ToSchema;

/// The score of one ride.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OneScore {
    #[serde(flatten)]
    pub(crate) score: RideScore,
    #[serde(flatten)]
    pub(crate) by: ScoredBy,
}

/// The scores of several rides: by the global model, and by breed models for rides that name their breed. The model is absent if
/// no ride could be scored.
#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ManyScores {
    /// As in the request.
    #[schema(nullable = false)]
    pub(crate) request_id: Option<String>,
    /// Model family.
    #[schema(nullable = false)]
    pub(crate) model: Option<String>,
    /// Version that made every score of this answer that has no `by` of its own.
    #[schema(nullable = false)]
    pub(crate) model_id: Option<String>,
    /// Probability from which the decision is service.
    #[schema(nullable = false)]
    pub(crate) threshold: Option<f64>,
    /// What the contributions add to; with `explain`.
    #[schema(nullable = false)]
    pub(crate) baseline: Option<Baseline>,
    /// In the order of the request.
    pub(crate) scores: Vec<ScoreOrError>,
}

/// The answer for one ride, or for several.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ScoreAnswer {
    /// One ride.
    One(Box<OneScore>),
    /// An array of rides.
    Many(ManyScores),
}

/// The model that scored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ScoredBy {
    /// Model family.
    pub(crate) model: String,
    /// Version that made the score.
    pub(crate) model_id: String,
    /// Probability from which the decision is service.
    pub(crate) threshold: f64,
    /// What the contributions add to; with `explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) baseline: Option<Baseline>,
}

/// The score of a ride whose features all have their training mean.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub(crate) struct Baseline {
    /// Log-odds of service at the training mean.
    pub(crate) log_odds: f64,
    /// The same as a probability.
    pub(crate) probability: f64,
}

/// A scored ride.
#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RideScore {
    /// As in the request.
    #[schema(nullable = false)]
    pub(crate) ride_id: Option<String>,
    /// Probability of a service request, 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) probability: f64,
    /// Whether the probability reaches the threshold.
    pub(crate) service: bool,
    /// In an array: the model that made this score, if it is not that of the answer.
    #[schema(nullable = false)]
    pub(crate) by: Option<ScoredBy>,
    /// Why the global model scored the ride instead of the model of its breed.
    #[schema(nullable = false)]
    pub(crate) fallback: Option<FallbackName>,
    /// What each feature adds to the log-odds, largest first; with `explain`. With the baseline they add up to the log-odds of the
    /// probability; if features were assumed, to the log-odds at the assumed values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(crate) contributions: Vec<Reason>,
    /// The features that were missing, with the values that were assumed: their expectations given the known features. The probability
    /// takes the uncertainty of these values into account.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(crate) assumed: Vec<AssumedFeature>,
    /// 90 % interval of the probability that all features together would give; if a feature was assumed.
    #[schema(nullable = false)]
    pub(crate) interval: Option<ScoreInterval>,
    /// Reasons for caution: values far outside the range of the training rides, and weather that was not found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(crate) warnings: Vec<String>,
    /// The weather that was looked up.
    #[schema(nullable = false)]
    pub(crate) weather: Option<Box<LookedUp>>,
}

/// A missing feature, and what was assumed instead.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct AssumedFeature {
    /// Name of the feature.
    pub(crate) feature: String,
    /// Value in `unit`.
    pub(crate) value: f64,
    /// Unit of the dataset.
    pub(crate) unit: &'static str,
}

/// An interval of a probability.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub(crate) struct ScoreInterval {
    /// Lower end.
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) low: f64,
    /// Upper end.
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) high: f64,
}

/// Why the global model scored a ride instead of a breed model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Fallback)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FallbackName {
    /// The champion's release has no model of the breed: it is unknown, has too few rides, or its model is of another release.
    NoBreedModel,
    /// The breed model is still being read.
    Loading,
    /// The breed model cannot be read or served now.
    Unavailable,
}

impl From<Fallback> for FallbackName {
    fn from(fallback: Fallback) -> Self {
        match fallback {
            Fallback::NoBreedModel => Self::NoBreedModel,
            Fallback::Loading => Self::Loading,
            Fallback::Unavailable => Self::Unavailable,
        }
    }
}

/// What one feature adds to the log-odds, compared with a ride at the training mean.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Reason {
    /// Name of the feature.
    pub(crate) feature: String,
    /// Value in `unit`.
    pub(crate) value: f64,
    /// Unit of the dataset.
    pub(crate) unit: &'static str,
    /// Coefficient times distance from the training mean.
    pub(crate) log_odds: f64,
    /// Whether the value is outside the range of the training rides.
    pub(crate) outside_training: bool,
}

/// The weather that was looked up: as the pipeline would join it, or an estimate where no station has published it.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct LookedUp {
    /// `observed`: measured at a station, as in a dataset. `forecast`: forecast for a grid cell. `climatology`: mean of the same
    /// days in earlier years.
    pub(crate) kind: &'static str,
    /// Source: `ghcn-daily`, or the forecast service, such as `nws` or `open-meteo`.
    pub(crate) source: String,
    /// Id of the weather station; for a forecast, the same as `cell`.
    pub(crate) groundstation: String,
    /// Distance of the station, or of the middle of the cell, kilometres.
    pub(crate) station_km: f64,
    /// Grid cell of a forecast, in the form of the service.
    #[schema(nullable = false)]
    pub(crate) cell: Option<String>,
    /// When a forecast was issued, UTC.
    #[schema(nullable = false)]
    pub(crate) issued: Option<String>,
    /// Number of years in a climatology.
    #[schema(nullable = false)]
    pub(crate) years: Option<u16>,
    /// Lowest temperature, tenths of °C.
    pub(crate) tmin: i32,
    /// Highest temperature, tenths of °C.
    pub(crate) tmax: i32,
    /// Precipitation, tenths of mm.
    pub(crate) prcp: i32,
}

impl LookedUp {
    /// Returns the weather in the form of an answer.
    ///
    /// # Errors
    /// Fails with the reason if the place has no weather.
    pub(crate) fn of(weather: PlaceWeather) -> Result<Self, WeatherError> {
        let (kind, source) = (weather.kind(), weather.source().unwrap_or_default().to_owned());
        let kind = kind.map_or("", Into::into);
        match weather {
            PlaceWeather::Observed(Observation { groundstation, station_km, tmin, tmax, prcp }) => {
                let groundstation = groundstation.to_string();
                Ok(Self {
                    kind,
                    source,
                    groundstation,
                    station_km,
                    cell: None,
                    issued: None,
                    years: None,
                    tmin,
                    tmax,
                    prcp,
                })
            }
            PlaceWeather::Forecast(Forecast { cell, cell_km: station_km, issued, tmin, tmax, prcp, .. }) => {
                let (groundstation, issued) = (cell.to_string(), Some(issued.to_string()));
                let cell = Some(cell.into());
                Ok(Self { kind, source, groundstation, station_km, cell, issued, years: None, tmin, tmax, prcp })
            }
            PlaceWeather::Climatology(Climatology { groundstation, station_km, years, tmin, tmax, prcp }) => {
                let (groundstation, years) = (groundstation.to_string(), Some(years));
                Ok(Self { kind, source, groundstation, station_km, cell: None, issued: None, years, tmin, tmax, prcp })
            }
            PlaceWeather::Failed { error } => Err(error),
        }
    }
}

/// A scored ride, or why it could not be scored.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ScoreOrError {
    /// The ride's score.
    Score(RideScore),
    /// Why the ride has none.
    Error(RideError),
}

/// Why one ride of several could not be scored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RideError {
    /// As in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) ride_id: Option<String>,
    /// The reason.
    pub(crate) error: Why,
}

/// Why a ride could not be scored.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Why {
    /// Stable code.
    pub(crate) code: &'static str,
    /// What is wrong, and what would be right.
    pub(crate) message: String,
    /// The invalid field, as spelled in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    pub(crate) field: Option<Cow<'static, str>>,
}
