//! Reads what all scorers served of a version.

use super::store::{self, Store};
use crate::layout;
use common::{
    outcome::Failure,
    served::{Served, Tally},
};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use object_store::path::Path;

/// Snapshots that are read at the same time.
const READS_MAX: usize = 8;

/// The first of so many days (UTC) that end with the day of `now`: `YYYY-MM-DD`.
pub fn since(days: i64, now: Timestamp) -> String {
    let before = SignedDuration::from_hours(24 * (days.max(1) - 1));
    now.checked_sub(before).unwrap_or(Timestamp::MIN).strftime("%F").to_string()
}

/// Adds up what every scorer process was asked and answered with a version, from the day `since` on (`YYYY-MM-DD`) or ever. A
/// snapshot that cannot be read is left out: it is being replaced, or of a newer scorer.
///
/// # Errors
/// When the store is away.
pub async fn read(store: &Store, model: &str, model_id: &str, since: Option<&str>) -> Result<Tally, Failure> {
    let folder = format!("{}/", layout::served_by(model, model_id));
    let listed = store.list(Some(&Path::from(folder.as_str()))).map_err(store::outage);
    let paths = listed.try_filter_map(|found| {
        let path = found.location.to_string();
        let date = path.strip_prefix(&folder).and_then(|rest| rest.split('/').next());
        let wanted = path.ends_with(".json") && date.is_some_and(|date| since.is_none_or(|since| date >= since));
        async move { Ok::<_, Failure>(wanted.then_some(path)) }
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
