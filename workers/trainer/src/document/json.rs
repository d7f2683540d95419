//! How documents are encoded, and what an unreadable one counts as.

use common::outcome::Failure;
use serde::Serialize;

/// Encodes a document as indented JSON with a line end.
pub(crate) fn pretty<T: Serialize>(value: &T) -> Result<Vec<u8>, Failure> {
    let mut json = serde_json::to_vec_pretty(value).map_err(|error| Failure::permanent("unencodable", error))?;
    json.push(b'\n');
    Ok(json)
}

/// Treats an object that cannot be decoded as missing.
pub(crate) fn unreadable_as_missing<T>(read: Result<Option<T>, Failure>) -> Result<Option<T>, Failure> {
    match read {
        Err(Failure::Permanent { why, .. }) => {
            tracing::warn!(%why, "an object cannot be read; it will be replaced");
            Ok(None)
        }
        other => other,
    }
}
