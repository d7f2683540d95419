//! The registry: versions of models, which never change, and their aliases `champion` and `challenger`, which do.
//!
//! ```text
//! models/<model>/<id>/model.json            the artefact, created once
//! models/<model>/<id>/verdict.json, …       documents beside it
//! models/<model>/champion/0000000001.json   the first champion; never changes
//! models/<model>/champion/0000000002.json   the second, …
//! models/<model>/champion.json              a copy of the newest generation, which scorers read
//! ```
//!
//! The trainer and `wildrydes model` change aliases; everybody else reads them.

mod alias;
mod documents;
mod release;
mod version;

pub use alias::{Change, current_alias, publish_alias, read_alias, served_alias, set_alias, set_alias_after};
pub use documents::{read, write, write_report};
pub use release::{BreedPromotion, announcement, complete_release, in_service, promote_breed_models, rejection};
pub use version::{
    AT_ONCE, Version, VersionError, VersionKey, decode_named, families, named_model, remove_versions, version,
    version_folders, versions, write_artefact,
};
