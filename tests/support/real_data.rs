//! Real input, where it lies beside the project: none of it belongs to the product, and its tests say when they had none.

use std::path::PathBuf;

/// A file or folder of the real input, or `None`, said aloud.
pub fn find(path: &str) -> Option<PathBuf> {
    let found = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(path);
    if found.exists() {
        return Some(found);
    }
    crate::aloud(format_args!("not run: there is no real input at {}", found.display()));
    None
}
