//! A trained release is written, judged and promoted; the only folder that changes the registry. May depend on every other folder.

mod announcement;
mod breed_champions;
pub mod breeds;
pub mod decision;
pub mod delayed_labels;
pub(crate) mod publication;
pub mod registry;

pub use announcement::announcement;
pub(crate) use announcement::known_decision;
pub(crate) use breed_champions::complete_release;
pub use breed_champions::{BreedPromotion, in_service, promote_breed_models};
