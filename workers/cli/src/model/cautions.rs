//! What a reader of a model must know before using it.

use crate::output::legible;
use common::model::Model;

/// Returns every caution about a model, each as a sentence without its full stop.
pub(crate) fn cautions(model: &Model) -> Vec<String> {
    let without_evidence = model.evidence.as_ref().and_then(trainer::evaluate::inference::without_evidence);
    let warnings = model.warnings.iter().map(|warning| legible(&warning.why, false).into_owned());
    warnings.chain(without_evidence).collect()
}
