//! Reads what a request brings, and says what is wrong with it.

use super::{
    encoding,
    pace::{Place, READ_AHEAD},
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

/// Bytes of a body that are not counted against what all bodies together may take.
const SMALL: usize = 16 << 10;

/// The query of a URL.
pub(crate) struct Asked<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        read.map(|query| Self(query.0)).map_err(|error| {
            Problem::unprocessable("invalid-query", format!("the query of the URL: {}", error.body_text()))
        })
    }
}

/// What the path of a URL names.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        read.map(|path| Self(path.0)).map_err(|error| Problem::unreadable(format!("the path: {}", error.body_text())))
    }
}

/// Whether a body says it is JSON. No word at all is taken as yes.
pub(crate) fn expect_json(headers: &HeaderMap) -> Result<(), Problem> {
    let told = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?"));
    let Some(told) = told else { return Ok(()) };
    let essence = told.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || essence.ends_with("+json") {
        return Ok(());
    }
    let detail =
        format!("Content-Type is {told:?}: expected application/json (with curl: -H 'Content-Type: application/json')");
    Err(Problem::unsupported_media_type(detail))
}

/// A body that came to its end. While it lives it takes room from the other bodies.
pub(crate) struct Whole<'a> {
    bytes: Bytes,
    _room: Option<SemaphorePermit<'a>>,
}

impl Deref for Whole<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The whole body, decompressed as its headers say, within the settings' size and before the request's deadline.
pub(crate) async fn whole(request: Request, app: &App) -> Result<Whole<'_>, Problem> {
    let until = Instant::now() + app.deadline();
    let late = || Problem::too_late(app.deadline());
    let codings = encoding::codings(request.headers())?;
    let told = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let mut pieces = Pieces::of(request.into_body(), app.stall());
    let all = tokio::time::timeout_at(until, all_of(told, &mut pieces, app)).await;
    if let Ok(Err(problem)) = &all {
        pieces.discard_after(problem, Duration::from_millis(300)).await;
    }
    let body = all.unwrap_or_else(|_| Err(late()))?;
    if codings.is_empty() || body.is_empty() {
        return Ok(body);
    }
    tokio::time::timeout_at(until, decompressed(body, &codings, app)).await.unwrap_or_else(|_| Err(late()))
}

/// Undoes the compressions of a body, the last one first.
async fn decompressed<'a>(mut body: Whole<'a>, codings: &[Coding], app: &'a App) -> Result<Whole<'a>, Problem> {
    for coding in codings.iter().rev() {
        let mut room = None;
        let more_room = |bytes| make_room(app, &mut room, bytes);
        let plain = decompress(&body, *coding, app.settings.body_bytes_max, more_room).await?;
        body = Whole { bytes: plain.into(), _room: room };
    }
    Ok(body)
}

async fn all_of<'a>(told: Option<usize>, pieces: &mut Pieces, app: &'a App) -> Result<Whole<'a>, Problem> {
    let max = app.settings.body_bytes_max;
    let too_large = || Problem::too_large(format!("the body is larger than the {max} bytes that are taken here"));
    if told.is_some_and(|bytes| bytes > max) {
        return Err(too_large());
    }
    // One piece is the usual case: taken as it is.
    let Some(first) = pieces.next().await? else { return Ok(Whole { bytes: Bytes::new(), _room: None }) };
    let Some(second) = pieces.next().await? else {
        return if first.len() > max { Err(too_large()) } else { Ok(Whole { bytes: first, _room: None }) };
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
            // What is promised is not taken at its word: room goes to bodies as they come.
            let capacity = bytes.max(body.capacity() * 2).min(max);
            make_room(app, &mut room, capacity)?;
            body.reserve_exact(capacity - body.len());
        }
        body.extend_from_slice(&piece);
        next = match then.take() {
            Some(piece) => Some(piece),
            None => pieces.next().await?,
        };
    }
    Ok(Whole { bytes: body.into(), _room: room })
}

/// Takes room for a body of so many bytes from what all bodies together may take.
fn make_room<'a>(app: &'a App, room: &mut Option<SemaphorePermit<'a>>, bytes: usize) -> Result<(), Problem> {
    let needed = if bytes <= SMALL { 0 } else { bytes.div_ceil(1 << 10) };
    let held = room.as_ref().map_or(0, SemaphorePermit::num_permits);
    let more = u32::try_from(needed.saturating_sub(held)).unwrap_or(u32::MAX);
    if more == 0 {
        return Ok(());
    }
    let taken = app.bodies.try_acquire_many(more).map_err(|_| {
        app.metrics.limits().refused(Limit::Bodies);
        Problem::unavailable(
            "too-busy",
            "the bodies of other requests take all the memory there is for them; try again",
        )
    })?;
    match room {
        Some(held) => held.merge(taken),
        None => *room = Some(taken),
    }
    Ok(())
}

/// A body piece by piece, with a limit to how long it may be silent.
pub(crate) struct Pieces {
    body: axum::body::BodyDataStream,
    stall: Duration,
    /// Of an upload.
    place: Option<Place>,
    /// Bytes that were read ahead.
    ahead: BytesMut,
}

impl Pieces {
    pub(crate) fn of(body: Body, stall: Duration) -> Self {
        Self { body: body.into_data_stream(), stall, place: None, ahead: BytesMut::new() }
    }

    /// From now on it is an upload, which must keep the pace of uploads.
    pub(crate) fn keep_pace(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// Reads the first bytes of an upload ahead, then takes its place.
    pub(crate) async fn take_place(&mut self) -> Result<(), Problem> {
        while self.ahead.len() < READ_AHEAD
            && let Some(piece) = self.receive().await?
        {
            self.ahead.extend_from_slice(&piece);
        }
        self.place.as_ref().map_or(Ok(()), Place::take)
    }

    /// Reads on for a moment and forgets it: a client that is still sending when its connection closes sees that, and not the
    /// answer.
    pub(crate) async fn discard_after(&mut self, problem: &Problem, time_max: Duration) {
        const BYTES_MAX: usize = 16 << 20;
        // What is read here is kept nowhere: another upload may have the place.
        self.place = None;
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
        // Whoever has more to send, or is slower, is told by the end of the connection.
        let _ = tokio::time::timeout(time_max, reading).await;
    }

    /// The next piece; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        if !self.ahead.is_empty() {
            return Ok(Some(self.ahead.split().freeze()));
        }
        self.receive().await
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, Problem> {
        let piece = match &self.place {
            Some(place) => {
                let length =
                    |piece: &Option<Result<Bytes, _>>| piece.as_ref()?.as_ref().ok().map(|piece| piece.len() as u64);
                place.piece(self.body.next(), length).await?
            }
            None => {
                let piece = tokio::time::timeout(self.stall, self.body.next()).await;
                piece.map_err(|_| Problem::too_slow(self.stall))?
            }
        };
        piece.transpose().map_err(|error| Problem::unreadable(format!("the body broke off: {error}")))
    }
}
