//! The options of the source of the weather.

use clap::Args;

/// The source of the weather.
#[derive(Debug, Clone, Args)]
pub struct Weather {
    /// Generate a folder of weather in the layout of NOAA's bucket, or a URL [default: NOAA's open-data bucket]
    #[arg(long, value_name = "URL|DIR")]
    pub weather: Option<String>,
    /// NOAA's station list, ghcnd-stations.txt[.gz] [default: the one at the source of the weather]
    #[arg(long, value_name = "URL|FILE")]
    pub stations: Option<String>,
    /// Maximum distance between a ride and its weather station
    #[arg(long, value_name = "KM")]
    pub max_station_km: Option<f64>,
}
