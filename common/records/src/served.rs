//! Reads the serving statistics of a model version over all scorers.

use super::store::{self, Store};
use crate::layout;
use common::{
    outcome::Failure,
    served::{Served, Tally},
};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use object_store::path::Path;

/// Maximum number of concurrent reads of snapshots.
const READS_MAX: usize = 8;

/// Returns the first day (UTC, `YYYY-MM-DD`) of a period of `days` days that ends with the day of `now`.
pub fn since(days: i64, now: Timestamp) -> String {
    let before = SignedDuration::from_hours(24 * (days.max(1) - 1));
    now.checked_sub(before).unwrap_or(Timestamp::MIN).strftime("%F").to_string()
}

/// Sums the serving statistics of all scorer processes for a model version, from the day `since` on (`YYYY-MM-DD`), or
/// all of them. Skips a snapshot that cannot be decoded: it is being replaced, or comes from a newer scorer.
///
/// # Errors
/// Fails with an outage if the store cannot be read.
pub async fn read(store: &Store, model: &str, model_id: &str, since: Option<&str>) -> Result<Tally, Failure> {
    let folder = format!("{}/", layout::served_by(model, model_id));
    let listed = store.list(Some(&Path::from(folder.as_str()))).map_err(store::outage);
    let paths = listed.try_filter_map(|meta| {
        let path = meta.location.to_string();
        let date = path.strip_prefix(&folder).and_then(|rest| rest.split('/').next());
        let is_in_period = path.ends_with(".json") && date.is_some_and(|date| since.is_none_or(|since| date >= since));
        async move { Ok::<_, Failure>(is_in_period.then_some(path)) }
    });
    let mut paths: Vec<String> = paths.try_collect().await?;
    paths.sort();
    let reads = stream::iter(paths).map(|path| async move {
        match store::read_json::<Served>(store, &path).await {
            Err(Failure::Permanent { .. }) => Ok(None),
            read => read,
        }
    });
    let mut tally = Tally::default();
    let mut reads = std::pin::pin!(reads.buffered(READS_MAX));
    while let Some(served) = reads.try_next().await? {
        if let Some(served) = served {
            tally.add(&served.tally);
        }
    }
    Ok(tally)
}
