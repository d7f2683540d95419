//! Maps the errors of a batch to failures of its message: permanent, transient, or an outage.

use crate::{
    document::Refusal,
    source::{InvalidUtf16, ReadError},
    split::TooManyRideIds,
};
use common::outcome::Failure;
use records::store;

pub(crate) fn refused(refusal: Refusal) -> Failure {
    Failure::permanent(refusal.code, refusal)
}

pub(crate) fn too_many_ride_ids(error: TooManyRideIds) -> Failure {
    Failure::permanent("too_many_ride_ids", error)
}

pub(crate) fn read_failure(error: ReadError) -> Failure {
    match error {
        ReadError::Missing(_) => Failure::permanent("object_missing", error),
        // The next attempt reads it from its start and compares it with the message.
        ReadError::Replaced(_) => Failure::transient(error),
        ReadError::Store(error) if can_never_be_read(&error) => Failure::permanent("bad_reference", error),
        ReadError::Store(error) => store::outage(error),
        ReadError::CutShort(_) => Failure::permanent("cut_short", error),
        ReadError::Corrupt { .. }
        | ReadError::NotAsDeclared { .. }
        | ReadError::CompressedTwice { .. }
        | ReadError::Trailing { .. } => Failure::permanent("bad_compression", error),
        ReadError::Expands(_) => Failure::permanent("expands_too_much", error),
        ReadError::Unsupported(_) => Failure::permanent("unsupported_format", error),
        ReadError::Utf16(InvalidUtf16::CutShort(_)) => Failure::permanent("cut_short", error),
        ReadError::Utf16(InvalidUtf16::Unpaired { .. }) => Failure::permanent("invalid_text", error),
        ReadError::Csv(invalid) => Failure::permanent(invalid.code(), invalid),
        ReadError::Parquet(invalid) => Failure::permanent(invalid.code(), invalid),
        ReadError::Spool(error) => Failure::outage("temporary folder", error),
    }
}

/// Returns whether the name is wrong and not the store, so that waiting does not help.
fn can_never_be_read(error: &object_store::Error) -> bool {
    use std::io::ErrorKind::{InvalidFilename, IsADirectory, NotADirectory};
    if matches!(error, object_store::Error::InvalidPath { .. }) {
        return true;
    }
    std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| matches!(error.kind(), InvalidFilename | IsADirectory | NotADirectory))
}
