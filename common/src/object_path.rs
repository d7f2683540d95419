//! Validates the paths of objects that messages name.

/// Prefix of the publishers' uploads.
pub const RAW: &str = "raw";
/// Prefix of the datasets.
pub const DATASET: &str = "dataset";
/// Prefix of the models.
pub const MODELS: &str = "models";

/// Returns whether `path` is a plain path below `prefix`. No part is empty or starts with a dot, and none contains a
/// backslash, a percent sign or a control character, which stores and systems interpret in different ways. Check every
/// path from a message or an object with it, so that the path cannot refer to other objects.
pub fn is_below(prefix: &str, path: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.bytes().any(|byte| matches!(byte, b'\\' | b'%') || byte.is_ascii_control())
    };
    path.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')).is_some_and(|rest| rest.split('/').all(plain))
}
