//! Paths of objects that messages name: where they may lead.

/// Prefix of what publishers upload.
pub const RAW: &str = "raw";
/// Prefix of the datasets.
pub const DATASET: &str = "dataset";
/// Prefix of the models.
pub const MODELS: &str = "models";

/// Whether `path` is a plain path below `prefix`: parts that are not empty and start with no dot, without backslashes, percent
/// signs and control characters, which stores and systems read in ways of their own. For every path that comes out of a
/// message or an object: it must not lead out of what it may name.
pub fn is_below(prefix: &str, path: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.bytes().any(|byte| matches!(byte, b'\\' | b'%') || byte.is_ascii_control())
    };
    path.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')).is_some_and(|rest| rest.split('/').all(plain))
}
