//! Decides what an attempt to join a batch again changes: compares its staged chunks with the base, ride by ride.
//!
//! If no weather changed, no revision is written. `records::refreshes` explains why an attempt writes one result, however many
//! processes work on it.

use crate::{
    settings::Settings,
    staged::{self, Rows},
};
use common::{
    document::{RefreshAttempt, RefreshOutcome},
    message::{BatchSplit, Refresh},
    outcome::Failure,
    ride::WeatherMissing,
    schema::Described,
};
use records::{
    Store,
    datasets::{self, Header, Reader, Record, Records, RowError, columns},
    layout,
    refreshes::{self, NO_DATASET},
    store,
};
use runtime::host::offload;
use sha2::{Digest, Sha256};
use std::{collections::VecDeque, num::NonZeroU32};

/// Maximum number of blocks of the base parsed at once.
const PARSERS: usize = 2;

/// What is left to do for an attempt.
pub(crate) enum Decided {
    /// Write the staged chunks as this revision.
    Write(NonZeroU32),
    /// Write the staged chunks of another splitting, which the outcome names. The process that decided may have died before it wrote
    /// them, and its messages may be lost.
    WriteOther(BatchSplit, NonZeroU32),
    /// Nothing: the chunks change nothing, or the revision is complete.
    Ended,
    /// A staged chunk is gone.
    Gone,
}

/// Decides the outcome of an attempt from its staged chunks, unless it was decided before.
///
/// # Errors
/// Fails permanently if the store has no record of the attempt or the base is missing or damaged.
pub(crate) async fn decide(
    store: &Store,
    settings: &Settings,
    split: &BatchSplit,
    refresh: Refresh,
) -> Result<Decided, Failure> {
    let batch_id = split.batch_id.as_str();
    let Some(attempt) = refreshes::attempt(store, batch_id, refresh.attempt).await? else {
        let path = layout::refresh(batch_id, refresh.attempt);
        return Err(Failure::permanent("unknown_refresh", format!("there is no {path}")));
    };
    let Some(proposed) = result(store, settings, split, &attempt).await? else { return Ok(Decided::Gone) };
    let decided = refreshes::decide(store, &proposed).await?;
    tracing::info!(
        batch_id,
        attempt = decided.attempt,
        revision = decided.revision,
        gained = decided.gained,
        altered = decided.altered,
        lost = decided.lost,
        "refresh decided"
    );
    if !decided.is_changed() {
        return Ok(Decided::Ended);
    }
    if decided.rows_sha256 == proposed.rows_sha256 {
        return Ok(Decided::Write(decided.revision));
    }
    match store::read_json(store, &layout::staged_split(batch_id, Some(&decided.split_id))).await? {
        Some(other) => Ok(Decided::WriteOther(other, decided.revision)),
        None => check_written(store, batch_id, decided.revision, refresh).await.map(|()| Decided::Ended),
    }
}

/// Checks that the revision is complete, after the staged chunks that its attempt decided on are gone.
///
/// # Errors
/// Fails permanently if the revision is incomplete: no process can write it any more.
pub(crate) async fn check_written(
    store: &Store,
    batch_id: &str,
    revision: NonZeroU32,
    refresh: Refresh,
) -> Result<(), Failure> {
    if store::exists(store, &layout::manifest(batch_id, revision)).await? {
        return Ok(());
    }
    let why = format!(
        "the staged chunks that attempt {} to refresh batch {batch_id} decided on were removed, and the weather has changed \
         since; remove {} and replay this message",
        refresh.attempt,
        layout::refresh_outcome(batch_id, refresh.attempt)
    );
    Err(Failure::permanent("refresh_lost", why))
}

/// Compares the staged chunks with the base; returns `None` if a chunk is gone.
async fn result(
    store: &Store,
    settings: &Settings,
    split: &BatchSplit,
    attempt: &RefreshAttempt,
) -> Result<Option<RefreshOutcome>, Failure> {
    let batch_id = split.batch_id.as_str();
    let Some(base) = datasets::revision(store, batch_id, attempt.base).await? else {
        let path = layout::manifest(batch_id, attempt.base);
        return Err(Failure::permanent(NO_DATASET, format!("{path}, which the refresh started from, is missing")));
    };
    let mut comparison = Comparison {
        base: Reader::new(store, &base.manifest, PARSERS, offload, weather_of_rides),
        ahead: VecDeque::new(),
        changes: Changes::default(),
        rows_sha256: Sha256::new(),
    };
    let Some(total) = staged::pass_rows(store, settings, split, &mut comparison).await? else { return Ok(None) };
    let (Changes { gained, altered, lost }, rows_sha256) = comparison.finish().await?;
    let code: &str = WeatherMissing::NotYetPublished.into();
    let mut outcome = RefreshOutcome {
        schema: RefreshOutcome::SCHEMA.name.to_owned(),
        batch_id: batch_id.to_owned(),
        attempt: attempt.refresh.attempt,
        revision: attempt.base,
        gained,
        altered,
        lost,
        not_yet_published: total.without_weather.get(code).copied().unwrap_or(0),
        split_id: split.split_id.clone().unwrap_or_default(),
        rows_sha256,
    };
    if outcome.is_changed() {
        outcome.revision = attempt.base.saturating_add(1);
    }
    Ok(Some(outcome))
}

/// The columns of the weather in a ride's row of the dataset, joined by commas; `None` for a ride without weather.
type WrittenWeather = Option<Vec<u8>>;

/// Compares rows with the rides of the base, which are in the same order.
struct Comparison<'a> {
    base: Reader<'a, Vec<WrittenWeather>>,
    /// Rides of the base that were read and not compared yet.
    ahead: VecDeque<WrittenWeather>,
    changes: Changes,
    rows_sha256: Sha256,
}

impl Rows for Comparison<'_> {
    async fn push(&mut self, rows: &[u8], _: u64) -> Result<(), Failure> {
        self.rows_sha256.update(rows);
        let header = Header::default();
        let rides = weather_of_rides(&mut Records::new(&header, rows));
        for new in rides.map_err(|error| Failure::permanent("broken_object", error))? {
            let old = self.next_of_base().await?;
            self.changes.count(old, new);
        }
        Ok(())
    }
}

impl Comparison<'_> {
    async fn next_of_base(&mut self) -> Result<Option<WrittenWeather>, Failure> {
        while self.ahead.is_empty() {
            match self.base.next().await? {
                Some(block) => self.ahead.extend(block),
                None => return Ok(None),
            }
        }
        Ok(self.ahead.pop_front())
    }

    /// Returns the changes, and the SHA-256 of the rows.
    async fn finish(mut self) -> Result<(Changes, String), Failure> {
        while self.next_of_base().await?.is_some() {
            self.changes.altered += 1;
        }
        Ok((self.changes, hex::encode(self.rows_sha256.finalize())))
    }
}

/// Numbers of rides with other weather than in the base.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    gained: u64,
    altered: u64,
    lost: u64,
}

impl Changes {
    /// Counts one ride. A ride that the base does not have, because an earlier version rejected it, counts as altered.
    fn count(&mut self, old: Option<WrittenWeather>, new: WrittenWeather) {
        match (old, new) {
            (Some(None), Some(_)) => self.gained += 1,
            (Some(Some(_)), None) => self.lost += 1,
            (Some(old), new) if old == new => {}
            _ => self.altered += 1,
        }
    }
}

/// Returns the weather of each ride.
fn weather_of_rides(records: &mut Records<'_>) -> Result<Vec<WrittenWeather>, RowError> {
    let mut rides = Vec::new();
    while let Some(record) = records.read()? {
        rides.push(written_weather(record));
    }
    Ok(rides)
}

fn written_weather(record: Record<'_>) -> WrittenWeather {
    let station = record.field(columns::GROUNDSTATION);
    let elements = columns::WEATHER.map(|column| record.field(column));
    (!station.is_empty()).then(|| [&[station][..], &elements].concat().join(&b','))
}
