//! `generate`: writes synthetic rides or weather.

use super::{
    rides::{RidesOptions, write_rides},
    weather::{WeatherOptions, write_weather},
};
use crate::{arguments::Generate, output::refuse_to_replace, session::Failed};
use anyhow::Context;

/// `generate`
pub(crate) fn generate(options: &Generate) -> Result<(), Failed> {
    match options {
        Generate::Rides { file, rides, seed, form, bad_share, unlabelled, force } => {
            refuse_to_replace(file, *force)?;
            let options = RidesOptions {
                rides: *rides,
                seed: *seed,
                bad_share: *bad_share,
                labelled: !unlabelled,
                ..RidesOptions::default()
            };
            write_rides(file, *form, &options).with_context(|| format!("writing {}", file.display()))?;
        }
        Generate::Weather { dir, seed, force } => {
            refuse_to_replace(&dir.join("ghcnd-stations.txt"), *force)?;
            let options = WeatherOptions { seed: *seed, ..WeatherOptions::default() };
            write_weather(dir, &options).with_context(|| format!("writing {}", dir.display()))?;
        }
    }
    Ok(())
}
