//! The batches that are older than the log: listed once, stored as one object, read from its end.

use super::{BatchLog, batch_id};
use crate::{layout, store};
use bytes::Bytes;
use common::outcome::Failure;
use compact_str::CompactString;
use futures::TryStreamExt;
use object_store::{ObjectStoreExt, path::Path};

/// Bytes per read.
const RANGE_BYTES: u64 = 64 * 1024;

/// The result of building the list of earlier batches.
#[derive(Debug)]
pub struct Built {
    /// Number of batches in the list.
    pub batches: usize,
    /// Why the list could not be written to the store and is kept in memory only; `None` if it was written.
    pub unwritten: Option<Failure>,
}

/// The list of earlier batches.
#[derive(Debug)]
pub(super) enum Earlier {
    Written { bytes: u64 },
    InMemory(Bytes),
}

impl Earlier {
    /// Size in bytes.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Written { bytes } => *bytes,
            Self::InMemory(text) => text.len() as u64,
        }
    }
}

/// A line of the list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Offset of its first byte in the list.
    pub(super) start: u64,
    /// `None` if the line is not a valid batch id.
    pub(super) batch_id: Option<String>,
}

impl BatchLog {
    /// Builds the list of earlier batches if the store has none; returns `None` if there was nothing to do. If the
    /// store cannot be written, the list is kept in memory. Readers may call this in advance, because it takes long in
    /// a store with many batches.
    ///
    /// # Errors
    /// Fails with an outage if the store cannot be read.
    pub async fn prepare(&self) -> Result<Option<Built>, Failure> {
        let mut unwritten = self.unwritten.lock().await;
        let Some((batches, text)) = self.list_if_missing(unwritten.as_ref()).await? else { return Ok(None) };
        if batches == 0 {
            return Ok(None);
        }
        let why = match self.write_list(&text).await {
            Ok(()) => {
                tracing::info!(batches, "listed all batches for the batch log");
                None
            }
            Err(failure) => {
                tracing::warn!(batches, why = %failure, "listed all batches for the batch log, which cannot be written");
                *unwritten = Some(text);
                Some(failure)
            }
        };
        Ok(Some(Built { batches, unwritten: why }))
    }

    /// Like [`Self::prepare`], for a process that must not write to the store: keeps the list in memory. Returns the number
    /// of batches in the list; `None` if the store already has it, or if there are no batches.
    ///
    /// # Errors
    /// Fails with an outage if the store cannot be read.
    pub async fn prepare_unwritten(&self) -> Result<Option<usize>, Failure> {
        let mut unwritten = self.unwritten.lock().await;
        let Some((batches, text)) = self.list_if_missing(unwritten.as_ref()).await? else { return Ok(None) };
        *unwritten = Some(text);
        Ok((batches > 0).then_some(batches))
    }

    /// Writes the list of earlier batches, even an empty one, if the store has none: every later batch has an entry in
    /// the log.
    pub(super) async fn write_earlier(&self) -> Result<(), Failure> {
        let mut unwritten = self.unwritten.lock().await;
        if self.written().await?.is_none() {
            let (batches, text) = self.list_all().await?;
            self.write_list(&text).await?;
            if batches > 0 {
                tracing::info!(batches, "listed all batches for the batch log");
            }
        }
        *unwritten = None;
        Ok(())
    }

    /// Returns the list of earlier batches. Builds the list first if the store has none.
    pub(super) async fn earlier(&self) -> Result<Earlier, Failure> {
        if let Some(earlier) = self.written().await? {
            return Ok(earlier);
        }
        self.prepare().await?;
        if let Some(earlier) = self.written().await? {
            return Ok(earlier);
        }
        let unwritten = self.unwritten.lock().await;
        Ok(Earlier::InMemory(unwritten.clone().unwrap_or_default()))
    }

    /// Lists all batches as [`Self::list_all`] does; `None` if the list exists already, in the store or in memory.
    async fn list_if_missing(&self, in_memory: Option<&Bytes>) -> Result<Option<(usize, Bytes)>, Failure> {
        if in_memory.is_some() || self.written().await?.is_some() {
            return Ok(None);
        }
        self.list_all().await.map(Some)
    }

    async fn written(&self) -> Result<Option<Earlier>, Failure> {
        match self.store.head(&Path::from(layout::batch_log_earlier())).await {
            Ok(meta) => Ok(Some(Earlier::Written { bytes: meta.size })),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(store::outage(error)),
        }
    }

    /// Writes the list, unless another process has written one first.
    async fn write_list(&self, text: &Bytes) -> Result<(), Failure> {
        store::create(&self.store, &layout::batch_log_earlier(), text.clone()).await.map(drop)
    }

    /// Lists all claims and uploads: returns the number of batches, and their ids, oldest first, one per line.
    async fn list_all(&self) -> Result<(usize, Bytes), Failure> {
        let mut all: Vec<(CompactString, i64)> = Vec::new();
        for prefix in [layout::BATCHES, layout::UPLOADS] {
            let mut objects = self.store.list(Some(&Path::from(prefix)));
            while let Some(object) = objects.try_next().await.map_err(store::outage)? {
                let id = object.location.filename().and_then(|name| name.strip_suffix(".json"));
                let Some(id) = id.filter(|id| batch_id(id.as_bytes()).is_some()) else { continue };
                all.push((id.into(), object.last_modified.timestamp_millis()));
            }
        }
        all.sort_unstable();
        all.dedup_by(|later, first| later.0 == first.0);
        all.sort_unstable_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        let mut text = String::with_capacity(all.iter().map(|(id, _)| id.len() + 1).sum());
        for (id, _) in &all {
            text.push_str(id);
            text.push('\n');
        }
        Ok((all.len(), text.into()))
    }

    /// Returns at most `max` lines that end at or before byte `end`, last line first; at least one unless `end` is 0.
    pub(super) async fn lines_before(&self, earlier: &Earlier, end: u64, max: usize) -> Result<Vec<Line>, Failure> {
        let end = end.min(earlier.bytes());
        let start = end.saturating_sub(RANGE_BYTES);
        let piece = match earlier {
            Earlier::InMemory(text) => text.slice(start as usize..end as usize),
            Earlier::Written { .. } if end == 0 => Bytes::new(),
            Earlier::Written { .. } => {
                let path = Path::from(layout::batch_log_earlier());
                self.store.get_range(&path, start..end).await.map_err(store::outage)?
            }
        };
        // A line that begins before this range belongs to the next read; text without a line end is not a line.
        let first = match start {
            0 => 0,
            _ => piece.iter().position(|byte| *byte == b'\n').map_or(piece.len(), |at| at + 1),
        };
        let last = piece.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut lines = Vec::new();
        let mut line_end = last;
        while line_end > first && lines.len() < max {
            let begin = piece[..line_end - 1].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let id = batch_id(&piece[begin..line_end - 1]);
            lines.push(Line { start: start + begin as u64, batch_id: id });
            line_end = begin;
        }
        if lines.is_empty() && end > 0 {
            // The list is damaged: skip everything before this point.
            lines.push(Line { start: 0, batch_id: None });
        }
        Ok(lines)
    }
}
