//! Reads the query, the path and the body of a request.

use super::{
    encoding,
    pace::{READ_AHEAD, UploadSlot},
    problem::Problem,
};
use crate::{app::App, limits::Limit};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequestParts, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use bytes::BytesMut;
use common::coding::Coding;
use futures::StreamExt;
use runtime::compression::decompress;
use serde::de::DeserializeOwned;
use std::{ops::Deref, time::Duration};
use tokio::{sync::SemaphorePermit, time::Instant};

/// Bodies of up to this many bytes do not count towards the memory limit of all bodies.
const SMALL: usize = 16 << 10;

/// The query of a URL.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        read.map(|query| Self(query.0)).map_err(|error| {
            Problem::unprocessable("invalid-query", format!("the query of the URL: {}", error.body_text()))
        })
    }
}

/// The parameters in the path of a URL.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        read.map(|path| Self(path.0)).map_err(|error| Problem::unreadable(format!("the path: {}", error.body_text())))
    }
}

/// Checks that the Content-Type of a body is JSON, or absent.
///
/// # Errors
/// 415 for any other type.
pub(crate) fn expect_json(headers: &HeaderMap) -> Result<(), Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?"));
    let Some(content_type) = content_type else { return Ok(()) };
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || essence.ends_with("+json") {
        return Ok(());
    }
    let detail = format!(
        "Content-Type is {content_type:?}: expected application/json (with curl: -H 'Content-Type: application/json')"
    );
    Err(Problem::unsupported_media_type(detail))
}

/// A complete body. While it lives, it counts towards the memory limit of all bodies.
pub(crate) struct WholeBody<'a> {
    bytes: Bytes,
    _room: Option<SemaphorePermit<'a>>,
}

impl Deref for WholeBody<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads the complete body, decompressed as its headers say, within the maximum size and before the request's deadline.
pub(crate) async fn whole_body(request: Request, app: &App) -> Result<WholeBody<'_>, Problem> {
    let until = Instant::now() + app.deadline();
    let late = || Problem::too_late(app.deadline());
    let codings = encoding::codings(request.headers())?;
    let content_length =
        request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let mut pieces = BodyPieces::of(request.into_body(), app.stall());
    let all = tokio::time::timeout_at(until, read_all(content_length, &mut pieces, app)).await;
    if let Ok(Err(problem)) = &all {
        pieces.discard_after(problem, Duration::from_millis(300)).await;
    }
    let body = all.unwrap_or_else(|_| Err(late()))?;
    if codings.is_empty() || body.is_empty() {
        return Ok(body);
    }
    tokio::time::timeout_at(until, decompress_all(body, &codings, app)).await.unwrap_or_else(|_| Err(late()))
}

/// Undoes the compressions of a body, the last one first.
async fn decompress_all<'a>(
    mut body: WholeBody<'a>,
    codings: &[Coding],
    app: &'a App,
) -> Result<WholeBody<'a>, Problem> {
    for coding in codings.iter().rev() {
        let mut room = None;
        let more_room = |bytes| reserve_memory(app, &mut room, bytes);
        let plain = decompress(&body, *coding, app.settings.body_bytes_max, more_room).await?;
        body = WholeBody { bytes: plain.into(), _room: room };
    }
    Ok(body)
}

async fn read_all<'a>(
    content_length: Option<usize>,
    pieces: &mut BodyPieces,
    app: &'a App,
) -> Result<WholeBody<'a>, Problem> {
    let max = app.settings.body_bytes_max;
    let too_large =
        || Problem::too_large(format!("the body is larger than {max} bytes, the maximum (gateway.body_bytes_max)"));
    if content_length.is_some_and(|bytes| bytes > max) {
        return Err(too_large());
    }
    // One piece is the usual case: it is not copied.
    let Some(first) = pieces.next().await? else { return Ok(WholeBody { bytes: Bytes::new(), _room: None }) };
    let Some(second) = pieces.next().await? else {
        return if first.len() > max { Err(too_large()) } else { Ok(WholeBody { bytes: first, _room: None }) };
    };
    let mut room = None;
    let mut body = Vec::new();
    let mut next = Some(first);
    let mut then = Some(second);
    while let Some(piece) = next {
        if body.len() + piece.len() > max {
            return Err(too_large());
        }
        let bytes = body.len() + piece.len();
        if bytes > body.capacity() {
            // Content-Length is not trusted: memory is reserved as the body arrives.
            let capacity = bytes.max(body.capacity() * 2).min(max);
            reserve_memory(app, &mut room, capacity)?;
            body.reserve_exact(capacity - body.len());
        }
        body.extend_from_slice(&piece);
        next = match then.take() {
            Some(piece) => Some(piece),
            None => pieces.next().await?,
        };
    }
    Ok(WholeBody { bytes: body.into(), _room: room })
}

/// Reserves memory for a body of this many bytes.
fn reserve_memory<'a>(app: &'a App, room: &mut Option<SemaphorePermit<'a>>, bytes: usize) -> Result<(), Problem> {
    let needed = if bytes <= SMALL { 0 } else { bytes.div_ceil(1 << 10) };
    let held = room.as_ref().map_or(0, SemaphorePermit::num_permits);
    let more = u32::try_from(needed.saturating_sub(held)).unwrap_or(u32::MAX);
    if more == 0 {
        return Ok(());
    }
    let taken = app.bodies.try_acquire_many(more).map_err(|_| {
        app.metrics.limits().refused(Limit::Bodies);
        Problem::unavailable("too-busy", "the bodies of other requests occupy all memory for bodies; try again")
    })?;
    match room {
        Some(held) => held.merge(taken),
        None => *room = Some(taken),
    }
    Ok(())
}

/// Reads a body piece by piece, and limits how long it may be silent.
pub(crate) struct BodyPieces {
    body: axum::body::BodyDataStream,
    stall: Duration,
    /// The slot of an upload.
    slot: Option<UploadSlot>,
    /// Bytes read before the upload took its slot.
    ahead: BytesMut,
}

impl BodyPieces {
    pub(crate) fn of(body: Body, stall: Duration) -> Self {
        Self { body: body.into_data_stream(), stall, slot: None, ahead: BytesMut::new() }
    }

    /// Marks the body as an upload, which must keep the pace of uploads.
    pub(crate) fn keep_pace(&mut self, slot: UploadSlot) {
        self.slot = Some(slot);
    }

    /// Reads the first bytes of an upload, then takes its slot.
    pub(crate) async fn take_slot(&mut self) -> Result<(), Problem> {
        while self.ahead.len() < READ_AHEAD
            && let Some(piece) = self.receive().await?
        {
            self.ahead.extend_from_slice(&piece);
        }
        self.slot.as_ref().map_or(Ok(()), UploadSlot::take)
    }

    /// Reads on for a moment and discards the bytes: a client that still sends when its connection closes sees a reset instead of
    /// the answer.
    pub(crate) async fn discard_after(&mut self, problem: &Problem, time_max: Duration) {
        const BYTES_MAX: usize = 16 << 20;
        // These bytes are not stored: another upload may have the slot.
        self.slot = None;
        if problem.status() == StatusCode::REQUEST_TIMEOUT {
            return;
        }
        let mut bytes = 0;
        let reading = async {
            while bytes < BYTES_MAX
                && let Some(Ok(piece)) = self.body.next().await
            {
                bytes += piece.len();
            }
        };
        // A client with more data, or a slower one, sees the end of the connection.
        let _ = tokio::time::timeout(time_max, reading).await;
    }

    /// Returns the next piece; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        if !self.ahead.is_empty() {
            return Ok(Some(self.ahead.split().freeze()));
        }
        self.receive().await
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, Problem> {
        let piece = match &self.slot {
            Some(slot) => {
                let length =
                    |piece: &Option<Result<Bytes, _>>| piece.as_ref()?.as_ref().ok().map(|piece| piece.len() as u64);
                slot.piece(self.body.next(), length).await?
            }
            None => {
                let piece = tokio::time::timeout(self.stall, self.body.next()).await;
                piece.map_err(|_| Problem::too_slow(self.stall))?
            }
        };
        piece.transpose().map_err(|error| Problem::unreadable(format!("the body broke off: {error}")))
    }
}
