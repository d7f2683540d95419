//! The documents beside an artefact.

use crate::{
    layout,
    store::{self, Store},
};
use common::{
    document::{Breeds, DelayedLabelMetrics, MetricsFile, Verdict},
    message::ModelRejected,
    outcome::Failure,
};
use serde::{Serialize, de::DeserializeOwned};

/// A document that is stored once per version. Writing it replaces the one before.
pub trait VersionDocument: Serialize + DeserializeOwned {
    /// Returns its path, by model family and version.
    fn path(model: &str, model_id: &str) -> String;
}

macro_rules! version_documents {
    ($($document:ty => $path:path),+ $(,)?) => {
        $(impl VersionDocument for $document {
            fn path(model: &str, model_id: &str) -> String {
                $path(model, model_id)
            }
        })+
    };
}

version_documents! {
    Breeds => layout::breeds,
    Verdict => layout::verdict,
    MetricsFile => layout::metrics,
    DelayedLabelMetrics => layout::delayed_labels,
    ModelRejected => layout::model_rejected,
}

/// Reads a document of a version; `None` if it does not exist.
///
/// # Errors
/// Fails with an outage if the store cannot be used; permanently (`broken_object`) if the document cannot be decoded.
pub async fn read<D: VersionDocument>(store: &Store, model: &str, model_id: &str) -> Result<Option<D>, Failure> {
    store::read_json(store, &D::path(model, model_id)).await
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
    store::write(store, &D::path(model, model_id), store::pretty(document)?).await
}

/// Writes the report on a version, an HTML page.
///
/// # Errors
/// Fails with an outage if the store cannot be used.
pub async fn write_report(store: &Store, model: &str, model_id: &str, page: String) -> Result<(), Failure> {
    store::write(store, &layout::report(model, model_id), page.into_bytes()).await
}
