//! Reading the log from its newest entry on, page by page.

use super::BatchLog;
use crate::contract::outcome::Failure;
use futures::{StreamExt, TryStreamExt, stream};
use std::{fmt, str::FromStr};
use thiserror::Error;

/// Batches that are looked at at the same time.
const READS_AT_ONCE: usize = 16;
/// Entries that are looked at in one go: at least, since some may stand for nothing, and at most.
const ROUND: (usize, usize) = (8, 512);

/// Where a page begins, as the page before it says. For those who page it is a text without meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// With the entries before this one.
    Log(u64),
    /// With the lines before this byte of the list of earlier batches.
    Earlier(u64),
}

/// A text that is no [`Cursor`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected what the page before gives as `next`")]
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

/// How much a page holds, and how much work it may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Batches at most.
    pub batches: usize,
    /// Entries and lines that are looked at, at most, whether a batch stands there or not; rounded up to some.
    pub looks: usize,
}

/// Some batches, the newest first.
#[derive(Debug)]
pub struct Page<T> {
    /// What was found of each. May be none although there are more.
    pub batches: Vec<T>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<Cursor>,
}

/// A batch as a reader knows it.
#[derive(Debug)]
pub struct Seen<T> {
    /// Whatever the reader makes of it.
    pub batch: T,
    /// The entry that stands for it, as [`place`](super::place) says.
    pub listed: Option<u64>,
}

impl BatchLog {
    /// A page of the batches, the newest first, from a cursor on or from the newest. `look` reads the batch of an id; it
    /// returns `None` if there is no such batch. No batch is on two pages, and none that was there before the first page is
    /// on none.
    ///
    /// # Errors
    /// Fails with an outage if the store cannot be read, and as `look` does.
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

    /// Where to begin. A cursor from before the log was built anew may lie beyond its end.
    async fn start(&self, after: Option<Cursor>) -> Result<Option<Cursor>, Failure> {
        let from = match after {
            None => Cursor::Log(self.newest().await? + 1),
            Some(Cursor::Log(number)) => Cursor::Log(number.min(self.newest().await? + 1)),
            Some(Cursor::Earlier(byte)) => Cursor::Earlier(byte.min(self.earlier().await?.bytes())),
        };
        self.settled(from).await
    }

    /// The same place in the list of earlier batches if nothing of the log is left; `None` if nothing of that is left.
    async fn settled(&self, at: Cursor) -> Result<Option<Cursor>, Failure> {
        let at = match at {
            Cursor::Log(0 | 1) => Cursor::Earlier(self.earlier().await?.bytes()),
            other => other,
        };
        Ok(Some(at).filter(|at| *at != Cursor::Earlier(0)))
    }

    /// At most `count` entries before one, the newest first: where each ends, and the batch that is shown there.
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

    /// The same of the lines before a byte of the list of earlier batches.
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
