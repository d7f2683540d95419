//! The models of one request, and which of them scores each ride.

use super::{artefact::Servable, version::Named};
use common::message::Fallback;
use std::sync::Arc;

/// The models of one request: a snapshot, whatever is promoted meanwhile.
pub(crate) struct Models {
    /// The model of all rides.
    pub(crate) all: Arc<Named>,
    /// Those of breeds.
    pub(crate) breeds: Vec<Arc<Named>>,
    /// Who scores each ride, in the order of the request; empty: `all` does.
    pub(crate) choices: Vec<Choice>,
}

/// Who scores a ride.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The model of all rides: it names no breed.
    All,
    /// That of its breed, by its place in [`Models::breeds`].
    Breed(usize),
    /// The model of all rides, and why.
    Fallback(Fallback),
}

impl Models {
    /// Who scores the ride at this place of the request.
    pub(crate) fn choice(&self, index: usize) -> Choice {
        self.choices.get(index).copied().unwrap_or(Choice::All)
    }

    /// The model that is chosen.
    pub(crate) fn model(&self, choice: Choice) -> &Servable {
        match choice {
            Choice::Breed(place) => &self.breeds[place].model,
            Choice::All | Choice::Fallback(_) => &self.all.model,
        }
    }
}
