//! Messages of JSON that arrive compressed: the content decides, and `content_encoding` names what the content does not
//! show.

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

/// Path of a violation about how the body is compressed.
const CONTENT_ENCODING: &str = "content_encoding";

/// Decodes a message that could not be decoded as it came once more, decompressed: as gzip or zstd where the first
/// bytes show it, as deflate or Brotli where `content_encoding` declares it. Names an unknown compression.
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
        // The JSON is wrong, not the compression.
        Err(BadCompression::Other { .. }) => return Err(why),
        Err(bad) => return Err(malformed(bad.to_string())),
    };
    match Coding::of_body(&plain) {
        Some(inner) => Err(malformed(format!("compressed twice, {inner} within {coding}: compress it once"))),
        None => worker.decode(wire_kind, &plain),
    }
}
