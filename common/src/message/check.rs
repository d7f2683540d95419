//! Checks that several messages share.

use crate::{message::violation::Violation, object_path};

/// Checks a batch id: 1 to 64 of `A-Z a-z 0-9 _ -`, because it is part of object paths.
///
/// # Errors
/// Fails with a violation at `path`.
pub fn check_batch_id(path: &str, batch_id: &str) -> Result<(), Violation> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (1..=64).contains(&batch_id.len()) && batch_id.bytes().all(fits) {
        Ok(())
    } else {
        Err(Violation::new(path, "expected 1 to 64 of A-Z a-z 0-9 _ -"))
    }
}

/// Checks a SHA-256: 64 lower-case hex digits, so that two can be compared as texts.
///
/// # Errors
/// Fails with a violation at `path`.
pub fn check_sha256(path: &str, sha256: &str) -> Result<(), Violation> {
    check_hex(path, sha256, 64)
}

/// Checks that `text` has exactly `digits` lower-case hex digits.
pub(super) fn check_hex(path: &str, text: &str, digits: usize) -> Result<(), Violation> {
    if text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        Ok(())
    } else {
        Err(Violation::new(path, format!("expected {digits} lower-case hex digits")))
    }
}

/// Checks an object that a publisher names: a plain path below `raw/`, so that it cannot refer to other objects.
///
/// # Errors
/// Fails with a violation at `path`.
pub fn check_object(path: &str, object: &str) -> Result<(), Violation> {
    check_below(object_path::RAW, path, object)
}

/// Checks that a path in the object store is below `prefix`: see [`object_path::is_below`].
///
/// # Errors
/// Fails with a violation at `path`.
pub fn check_below(prefix: &str, path: &str, object: &str) -> Result<(), Violation> {
    if object_path::is_below(prefix, object) {
        return Ok(());
    }
    let why = format!("expected a path below {prefix}/ without empty or dotted parts, \\, % and control characters");
    Err(Violation::new(path, why))
}

/// Checks split id and digest, if present. A split id has the form of a batch id, because it becomes part of a path.
pub(super) fn check_provenance(split_id: Option<&str>, digest: Option<&str>) -> Result<(), Violation> {
    split_id.map_or(Ok(()), |split_id| check_batch_id("split_id", split_id))?;
    digest.map_or(Ok(()), |digest| check_hex("digest", digest, 32))
}
