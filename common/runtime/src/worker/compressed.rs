//! Decodes compressed JSON messages. The first bytes identify gzip and zstd; `content_encoding` declares the other
//! compressions.

use super::{Decoded, ErasedWorker};
use crate::{
    broker::MESSAGE_BYTES_MAX,
    compression::{self, BadCompression},
};
use bytes::Bytes;
use common::{
    coding::{Coding, content_coding},
    envelope::Properties,
    message::{Undecodable, Violation},
};

/// Path of a violation that concerns the compression.
const CONTENT_ENCODING: &str = "content_encoding";

/// Decompresses a body that could not be decoded and decodes the result: as gzip or zstd according to the first bytes,
/// as deflate or Brotli according to `content_encoding`. `why` is the first error; it is returned if the body is not
/// compressed.
pub(super) async fn decode_again<'a>(
    worker: &'a dyn ErasedWorker,
    wire_kind: Option<&str>,
    properties: &Properties,
    body: &Bytes,
    why: Undecodable,
) -> Result<Decoded<'a>, Undecodable> {
    let Undecodable::Malformed { kind, .. } = &why else { return Err(why) };
    let kind = *kind;
    let malformed = |why: String| Undecodable::Malformed { kind, violation: Violation::new(CONTENT_ENCODING, why) };
    let declared = content_coding(properties.content_encoding.as_deref().unwrap_or_default());
    let coding = match (Coding::of_body(body), declared) {
        (Some(coding), _) | (None, Ok(Some(coding @ (Coding::Deflate | Coding::Brotli)))) => coding,
        (None, Err(unknown)) if compression::starts_like(body) != "JSON" => {
            let unknown = unknown.to_string();
            return Err(malformed(unknown.trim_start_matches("content_encoding ").to_owned()));
        }
        _ => return Err(why),
    };
    let read = compression::decompress(body, coding, MESSAGE_BYTES_MAX, |_| Ok::<_, BadCompression>(())).await;
    let plain = match read {
        Ok(plain) => Bytes::from(plain),
        // The body is invalid JSON without compression.
        Err(BadCompression::Other { .. }) => return Err(why),
        Err(bad) => return Err(malformed(bad.to_string())),
    };
    match Coding::of_body(&plain) {
        Some(inner) => Err(malformed(format!("compressed twice, {inner} within {coding}: compress it once"))),
        None => worker.decode(wire_kind, &plain),
    }
}
