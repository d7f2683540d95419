//! Sentences about a model, each supported by its metrics.

mod choices;
mod effects;
mod evidence;
mod finding;
mod limits;
mod quality;

pub(super) use choices::{decisions, threshold, verdict};
pub(super) use effects::{Effect, effects};
pub(super) use evidence::{signal, test_in_figures, weather};
pub(super) use finding::{Finding, Tone, evaluation};
pub(super) use limits::{limits, warning};
pub(super) use quality::{calibration, ranking};

#[cfg(test)]
mod tests;
