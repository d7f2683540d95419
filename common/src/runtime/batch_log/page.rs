//! Reads the batch log page by page, from its newest entry backwards.

use super::BatchLog;
use crate::contract::outcome::Failure;
use futures::{StreamExt, TryStreamExt, stream};
use std::{fmt, str::FromStr};
use thiserror::Error;

/// Batches read at the same time.
const READS_AT_ONCE: usize = 16;
/// Minimum and maximum number of entries read per round. The minimum allows for entries without a batch.
const ROUND: (usize, usize) = (8, 512);

/// Where a page begins, as given by the page before it. Opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// At the entry before this one.
    Log(u64),
    /// At the line before this byte of the list of earlier batches.
    Earlier(u64),
}

/// A text that is not a [`Cursor`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected the `next` of the previous page")]
pub struct InvalidCursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(number) => write!(f, "log.{number}"),
            Self::Earlier(byte) => write!(f, "earlier.{byte}"),
        }
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (part, number) = text.split_once('.').ok_or(InvalidCursor)?;
        let number = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok()).flatten();
        match (part, number.ok_or(InvalidCursor)?) {
            ("log", number) => Ok(Self::Log(number)),
            ("earlier", byte) => Ok(Self::Earlier(byte)),
            _ => Err(InvalidCursor),
        }
    }
}

/// Limits of a page: its size, and the work to read it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum number of batches.
    pub batches: usize,
    /// Maximum number of entries and lines to read, whether they have a batch or not; the last round may exceed it.
    pub looks: usize,
}

/// A page of batches, newest first.
#[derive(Debug)]
pub struct Page<T> {
    /// May be empty although more pages follow.
    pub batches: Vec<T>,
    /// Where the next page begins; `None` on the last page.
    pub next: Option<Cursor>,
}

/// A batch as the caller of [`BatchLog::page`] reads it.
#[derive(Debug)]
pub struct Seen<T> {
    /// The caller's own type.
    pub batch: T,
    /// Number of its entry, as [`place`](super::place) returns it.
    pub listed: Option<u64>,
}

impl BatchLog {
    /// Returns a page of batches, newest first, from the cursor `after` or from the newest batch. `look` reads the
    /// batch with a given id; it returns `None` if there is no such batch. No batch is on two pages, and every batch
    /// that existed before the first page was read is on one.
    ///
    /// # Errors
    /// Fails with an outage if the store cannot be read; passes on the errors of `look`.
    pub async fn page<T, L, F>(&self, after: Option<Cursor>, limits: Limits, look: L) -> Result<Page<T>, Failure>
    where
        L: Fn(String) -> F,
        F: Future<Output = Result<Option<Seen<T>>, Failure>>,
    {
        let (mut batches, mut looks) = (Vec::new(), 0);
        let mut at = self.start(after).await?;
        while let Some(from) = at
            && batches.len() < limits.batches
            && looks < limits.looks
        {
            let count = (limits.batches - batches.len()).clamp(ROUND.0, ROUND.1);
            let round = match from {
                Cursor::Log(number) => self.entries_before(number, count, &look).await?,
                Cursor::Earlier(byte) => self.earlier_before(byte, count, &look).await?,
            };
            let mut reached = from;
            for (cursor, batch) in round {
                if batches.len() == limits.batches {
                    break;
                }
                batches.extend(batch);
                looks += 1;
                reached = cursor;
            }
            at = self.settled(reached).await?;
        }
        Ok(Page { batches, next: at })
    }

    /// Returns where to begin. A cursor from before the log was rebuilt may lie beyond its end.
    async fn start(&self, after: Option<Cursor>) -> Result<Option<Cursor>, Failure> {
        let from = match after {
            None => Cursor::Log(self.newest().await? + 1),
            Some(Cursor::Log(number)) => Cursor::Log(number.min(self.newest().await? + 1)),
            Some(Cursor::Earlier(byte)) => Cursor::Earlier(byte.min(self.earlier().await?.bytes())),
        };
        self.settled(from).await
    }

    /// Continues in the list of earlier batches once the entries are exhausted; `None` once that list is exhausted,
    /// too.
    async fn settled(&self, at: Cursor) -> Result<Option<Cursor>, Failure> {
        let at = match at {
            Cursor::Log(0 | 1) => Cursor::Earlier(self.earlier().await?.bytes()),
            other => other,
        };
        Ok(Some(at).filter(|at| *at != Cursor::Earlier(0)))
    }

    /// Reads at most `count` entries before entry `before`, newest first: the cursor after each, and the batch listed
    /// there.
    async fn entries_before<T, L, F>(
        &self,
        before: u64,
        count: usize,
        look: &L,
    ) -> Result<Vec<(Cursor, Option<T>)>, Failure>
    where
        L: Fn(String) -> F,
        F: Future<Output = Result<Option<Seen<T>>, Failure>>,
    {
        let shown = |number: u64| async move {
            let Some(batch_id) = self.entry(number).await? else { return Ok((Cursor::Log(number), None)) };
            let seen = look(batch_id).await?.filter(|seen| seen.listed == Some(number));
            Ok((Cursor::Log(number), seen.map(|seen| seen.batch)))
        };
        let looking: Vec<_> = (1..before).rev().take(count).map(shown).collect();
        stream::iter(looking).buffered(READS_AT_ONCE).try_collect().await
    }

    /// Reads at most `count` lines before byte `before` of the list of earlier batches, like `entries_before`.
    async fn earlier_before<T, L, F>(
        &self,
        before: u64,
        count: usize,
        look: &L,
    ) -> Result<Vec<(Cursor, Option<T>)>, Failure>
    where
        L: Fn(String) -> F,
        F: Future<Output = Result<Option<Seen<T>>, Failure>>,
    {
        let earlier = self.earlier().await?;
        let lines = self.lines_before(&earlier, before, count).await?;
        let looking: Vec<_> = lines
            .into_iter()
            .map(|line| async move {
                let cursor = Cursor::Earlier(line.start);
                let Some(batch_id) = line.batch_id else { return Ok((cursor, None)) };
                let Some(seen) = look(batch_id.clone()).await? else { return Ok((cursor, None)) };
                let is_in_log = match seen.listed {
                    Some(number) => self.holds(number, &batch_id).await?,
                    None => false,
                };
                Ok((cursor, Some(seen.batch).filter(|_| !is_in_log)))
            })
            .collect();
        stream::iter(looking).buffered(READS_AT_ONCE).try_collect().await
    }
}
