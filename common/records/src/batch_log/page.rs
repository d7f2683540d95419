//! Reads the batch log page by page, from its newest entry backwards.

use super::{BatchLog, earlier::Line};
use common::outcome::Failure;
use futures::{StreamExt, TryStreamExt, stream};
use std::str::FromStr;
use thiserror::Error;

/// Batches read at the same time.
const READS_AT_ONCE: usize = 16;
/// Minimum and maximum number of entries read per round. The minimum allows for entries without a batch.
const ROUND: (usize, usize) = (8, 512);

/// Where a page begins, as given by the page before it. Opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
pub enum Cursor {
    /// At the entry before this one.
    #[strum(to_string = "log.{0}")]
    Log(u64),
    /// At the line before this byte of the list of earlier batches.
    #[strum(to_string = "earlier.{0}")]
    Earlier(u64),
}

/// A text that is not a [`Cursor`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected the `next` of the previous page")]
pub struct InvalidCursor;

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
    /// Number of its entry: the one in its claim, or else the one in the record of its upload.
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
            let places = self.places_before(from, count).await?;
            let reading: Vec<_> = places.iter().map(|place| self.listed_at(place, &look)).collect();
            let round: Vec<Option<T>> = stream::iter(reading).buffered(READS_AT_ONCE).try_collect().await?;
            let mut reached = from;
            for (place, batch) in places.iter().zip(round) {
                if batches.len() == limits.batches {
                    break;
                }
                batches.extend(batch);
                looks += 1;
                reached = place.cursor();
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

    /// Returns at most `count` places before `from`, newest first.
    async fn places_before(&self, from: Cursor, count: usize) -> Result<Vec<Place>, Failure> {
        Ok(match from {
            Cursor::Log(before) => (1..before).rev().take(count).map(Place::Entry).collect(),
            Cursor::Earlier(before) => {
                let earlier = self.earlier().await?;
                self.lines_before(&earlier, before, count).await?.into_iter().map(Place::Line).collect()
            }
        })
    }

    /// Reads the batch that is listed at a place; `None` if none is.
    async fn listed_at<T, L, F>(&self, place: &Place, look: &L) -> Result<Option<T>, Failure>
    where
        L: Fn(String) -> F,
        F: Future<Output = Result<Option<Seen<T>>, Failure>>,
    {
        let batch_id = match place {
            Place::Entry(number) => self.entry(*number).await?,
            Place::Line(line) => line.batch_id.clone(),
        };
        let Some(batch_id) = batch_id else { return Ok(None) };
        let Some(Seen { batch, listed }) = look(batch_id.clone()).await? else { return Ok(None) };
        let is_here = match (place, listed) {
            (Place::Entry(number), listed) => listed == Some(*number),
            (Place::Line(_), Some(number)) => !self.holds(number, &batch_id).await?,
            (Place::Line(_), None) => true,
        };
        Ok(is_here.then_some(batch))
    }
}

/// Where a batch may be listed.
enum Place {
    /// The entry with this number.
    Entry(u64),
    /// A line of the list of earlier batches.
    Line(Line),
}

impl Place {
    /// The cursor after this place.
    fn cursor(&self) -> Cursor {
        match self {
            Self::Entry(number) => Cursor::Log(*number),
            Self::Line(line) => Cursor::Earlier(line.start),
        }
    }
}
