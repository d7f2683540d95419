//! The models of one request, and which of them scores each ride.

use super::{artefact::Servable, version::NamedVersion};
use common::message::Fallback;
use std::sync::Arc;

/// The models of one request: a snapshot that promotions do not change.
pub(crate) struct Models {
    /// The global model.
    pub(crate) global: Arc<NamedVersion>,
    /// The breed models.
    pub(crate) breeds: Vec<Arc<NamedVersion>>,
    /// The choice for each ride, in the order of the request; empty if the global model scores all rides.
    pub(crate) choices: Vec<Choice>,
}

/// The choice of a model for a ride.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The global model: the ride names no breed.
    Global,
    /// The model of its breed, by its index in [`Models::breeds`].
    Breed(usize),
    /// The global model, and why not a breed model.
    Fallback(Fallback),
}

impl Models {
    /// Returns the choice for the ride at this index of the request.
    pub(crate) fn choice(&self, index: usize) -> Choice {
        self.choices.get(index).copied().unwrap_or(Choice::Global)
    }

    /// Returns the chosen model.
    pub(crate) fn model(&self, choice: Choice) -> &Servable {
        match choice {
            Choice::Breed(place) => &self.breeds[place].model,
            Choice::Global | Choice::Fallback(_) => &self.global.model,
        }
    }
}
