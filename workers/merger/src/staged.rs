//! Reads the staged chunks of a splitting, in the order of the batch.

use crate::{
    join::{self, Heading, Statistics},
    settings::{READ_AHEAD, Settings},
};
use common::{
    message::{BatchSplit, SplitDigest},
    outcome::Failure,
};
use futures::{StreamExt, TryStreamExt, stream};
use records::{Store, datasets::Writer, layout, store};

/// Takes the rows of a dataset.
pub(crate) trait Rows: Send {
    /// Takes the next `count` rows, as `records::datasets::push_row` encodes them.
    fn push(&mut self, rows: &[u8], count: u64) -> impl Future<Output = Result<(), Failure>> + Send;
}

impl Rows for Writer {
    async fn push(&mut self, rows: &[u8], count: u64) -> Result<(), Failure> {
        Self::push(self, rows, count).await
    }
}

/// Passes on the rows of every chunk; returns their counts, or `None` if a chunk is gone.
///
/// # Errors
/// Fails as the receiver does; with an outage if the store cannot be read; permanently if the chunks are not those that the
/// splitter sent.
pub(crate) async fn pass_rows(
    store: &Store,
    settings: &Settings,
    split: &BatchSplit,
    receiver: &mut impl Rows,
) -> Result<Option<Statistics>, Failure> {
    let read = |chunk| async move {
        let path = layout::staged_chunk(&split.batch_id, split.split_id.as_deref(), chunk);
        let object = store::read(store, &path).await?;
        Ok::<_, Failure>((chunk, object))
    };
    let mut staged = stream::iter(0..split.chunks).map(read).buffered(settings.read_ahead.unwrap_or(READ_AHEAD));
    let (mut total, mut sent) = (Statistics::default(), SplitDigest::default());
    while let Some((chunk, object)) = staged.try_next().await? {
        let Some(object) = object else { return Ok(None) };
        let (Heading { digest, statistics }, start) = join::open_staged(chunk, &object)?;
        sent.add(digest.unwrap_or_default().as_bytes());
        receiver.push(object.get(start..).unwrap_or_default(), statistics.rides).await?;
        total.add(&statistics);
    }
    join::check_digest(split, &sent)?;
    join::check_counts(split, &total)?;
    Ok(Some(total))
}
