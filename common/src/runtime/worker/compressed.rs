//! Messages whose body is compressed although they are read as JSON: content decides, and `content_encoding` explains.

use super::{Decoded, ErasedWorker};
use crate::{
    contract::{
        envelope::Properties,
        message::{Undecodable, Violation},
    },
    runtime::{
        broker::MESSAGE_BYTES_MAX,
        compression::{self, BadCompression, Coding},
    },
};
use bytes::Bytes;

/// The path of a violation that is about how the body is compressed.
const CONTENT_ENCODING: &str = "content_encoding";

/// Decodes a message that could not be decoded as it came: once more, decompressed, where it is gzip or zstd by its first bytes;
/// another compression is named where `content_encoding` declares it.
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
    let Some(coding) = Coding::of_body(body) else {
        return Err(foreign_coding(properties, body).map_or(why, malformed));
    };
    let read = compression::decompress(body, coding, MESSAGE_BYTES_MAX, |_| Ok::<_, BadCompression>(())).await;
    let plain = Bytes::from(read.map_err(|bad| malformed(bad.to_string()))?);
    match Coding::of_body(&plain) {
        Some(inner) => Err(malformed(format!("compressed twice, {inner} within {coding}: once is enough"))),
        None => worker.decode(wire_kind, &plain),
    }
}

/// What to say of a body that does not start like JSON and declares a compression that is not read here.
fn foreign_coding(properties: &Properties, body: &[u8]) -> Option<String> {
    let declared = properties.content_encoding.as_deref()?;
    let is_foreign = |name: &str| {
        let read = matches!(Coding::named(name), Some(Coding::Gzip | Coding::Zstd));
        !read && !compression::is_no_compression(name)
    };
    let foreign = declared.split([',', ':', ';']).map(str::trim).find(|name| is_foreign(name))?;
    let found = compression::starts_like(body);
    (found != "JSON").then(|| format!("{foreign:?} is not read here: publish the JSON itself, or gzip or zstd of it"))
}
