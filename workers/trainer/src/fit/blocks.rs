//! Blocks of rides, side by side on all cores.

use super::matrix::Features;
use crate::data::rows::Rides;
use rayon::prelude::*;

/// Rides per block. Sums over blocks are added up in the order of the rides, so that the number of cores changes no bit of a model.
pub(crate) const BLOCK_RIDES: usize = 16_384;

/// Returns what `work` makes of each block of rides, in the order of the rides.
pub(crate) fn over_blocks<T: Send>(rides: &Rides, work: impl Fn(&[Features], &[bool]) -> T + Sync) -> Vec<T> {
    let blocks = rides.features.par_chunks(BLOCK_RIDES).zip(rides.service.par_chunks(BLOCK_RIDES));
    blocks.map(|(features, service)| work(features, service)).collect()
}
