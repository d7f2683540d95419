//! The documents beside an artefact.

use crate::{
    layout,
    store::{self, Store},
};
use common::{document::VersionDocument, outcome::Failure};

/// Reads a document of a version; `None` if it does not exist.
///
/// # Errors
/// Fails with an outage if the store cannot be used; permanently (`broken_object`) if the document cannot be decoded.
pub async fn read<D: VersionDocument>(store: &Store, model: &str, model_id: &str) -> Result<Option<D>, Failure> {
    store::read_json(store, &layout::version_document::<D>(model, model_id)).await
}

/// Writes a document of a version.
///
/// # Errors
/// Fails with an outage if the store cannot be used.
pub async fn write<D: VersionDocument>(
    store: &Store,
    model: &str,
    model_id: &str,
    document: &D,
) -> Result<(), Failure> {
    store::write(store, &layout::version_document::<D>(model, model_id), store::pretty(document)?).await
}

/// Writes the report on a version, an HTML page.
///
/// # Errors
/// Fails with an outage if the store cannot be used.
pub async fn write_report(store: &Store, model: &str, model_id: &str, page: String) -> Result<(), Failure> {
    store::write(store, &layout::report(model, model_id), page.into_bytes()).await
}
