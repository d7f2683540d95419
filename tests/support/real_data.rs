//! Real input, which may exist beside the project. None of it belongs to the product; its tests print a line if it is missing.

use std::path::PathBuf;

/// A file or folder of the real input. Prints a line and returns `None` if it is missing.
pub fn find(path: &str) -> Option<PathBuf> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(path);
    if file.exists() {
        return Some(file);
    }
    crate::print_uncaptured(format_args!("not run: there is no real input at {}", file.display()));
    None
}
