//! Serving statistics and scored rides, by model version, day and scorer process.
//!
//! ```text
//! served/<model>/<id>/<date>/<scorer>.json   counts and histograms           scorer ─▶ gateway, `wildrydes model drift`
//! scored/<model>/<id>/<date>/<scorer>.csv    a sample of the scored rides    scorer ─▶ trainer, for delayed labels
//! ```

use crate::{
    layout,
    store::{self, Folder, Listed, Store},
};
use common::{
    outcome::Failure,
    schema::Described,
    served::{Served, Tally, read_scored},
};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// Maximum number of concurrent reads.
const READS_MAX: usize = 8;

/// One model version on one day.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VersionDay {
    /// Model family.
    pub model: String,
    /// Id of the version.
    pub model_id: String,
    /// `YYYY-MM-DD`, UTC.
    pub date: String,
}

impl VersionDay {
    /// Parses the path of an object of this module; `None` for other paths.
    fn of(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').collect();
        let [_, model, model_id, date, _] = parts.as_slice() else { return None };
        let [model, model_id, date] = [model, model_id, date].map(|part| (*part).to_owned());
        Some(Self { model, model_id, date })
    }
}

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
    let listed: Vec<Listed> = store::list(store, &layout::served_by(model, model_id)).try_collect().await?;
    let is_in_period =
        |path: &str| VersionDay::of(path).is_some_and(|day| since.is_none_or(|since| *day.date >= *since));
    let paths = listed.into_iter().map(|object| object.path);
    let mut paths: Vec<String> = paths.filter(|path| path.ends_with(".json") && is_in_period(path)).collect();
    paths.sort();
    let reads = stream::iter(paths).map(|path| async move { snapshot(store, &path).await });
    let mut tally = Tally::default();
    let mut reads = std::pin::pin!(reads.buffered(READS_MAX));
    while let Some(counted) = reads.try_next().await? {
        tally.add(&counted);
    }
    Ok(tally)
}

/// Reads the counts of one snapshot; none if it does not exist or cannot be decoded.
async fn snapshot(store: &Store, path: &str) -> Result<Tally, Failure> {
    match store::read_json::<Served>(store, path).await {
        Err(Failure::Permanent { .. }) => Ok(Tally::default()),
        read => Ok(read?.map(|served| served.tally).unwrap_or_default()),
    }
}

/// Returns what a scorer process has written with [`write`]; no counts if nothing, or if it cannot be decoded.
///
/// # Errors
/// Fails with an outage if the store cannot be read.
pub async fn written(store: &Store, day: &VersionDay, scorer: &str) -> Result<Tally, Failure> {
    snapshot(store, &layout::served(&day.model, &day.model_id, &day.date, scorer)).await
}

/// Writes the serving statistics of a scorer process for a version and a day; replaces those it has written before.
///
/// # Errors
/// Fails with an outage if the store cannot be written.
pub async fn write(store: &Store, day: &VersionDay, scorer: &str, tally: Tally) -> Result<(), Failure> {
    let VersionDay { model, model_id, date } = day.clone();
    let path = layout::served(&model, &model_id, &date, scorer);
    let served =
        Served { schema: Served::SCHEMA.name.to_owned(), model, model_id, date, scorer: scorer.to_owned(), tally };
    let body = serde_json::to_vec(&served).map_err(|error| Failure::permanent("unencodable", error))?;
    store::write(store, &path, body).await
}

/// Writes the rides that a scorer process scored with a version on a day, as
/// [`write_scored`](common::served::write_scored) encodes them; replaces those it has written before.
///
/// # Errors
/// Fails with an outage if the store cannot be written.
pub async fn write_scored(store: &Store, day: &VersionDay, scorer: &str, csv: Vec<u8>) -> Result<(), Failure> {
    store::write(store, &layout::scored(&day.model, &day.model_id, &day.date, scorer), csv).await
}

/// Ids and probabilities of the rides of one file.
pub type ScoredFile = (VersionDay, Vec<(String, f64)>);

/// Reads the files of scored rides of all scorers, those of the latest days first. Skips a file that cannot be decoded,
/// with a warning.
///
/// # Errors
/// Fails with an outage if the store cannot be read, here or in the stream.
pub async fn scored(store: &Store) -> Result<impl Stream<Item = Result<ScoredFile, Failure>>, Failure> {
    let listed: Vec<Listed> = store::list(store, layout::SCORED).try_collect().await?;
    let files = listed.into_iter().filter_map(|Listed { path, .. }| Some((VersionDay::of(&path)?, path)));
    let mut files: Vec<(VersionDay, String)> = files.collect();
    files.sort_by(|(a, of_a), (b, of_b)| b.date.cmp(&a.date).then_with(|| of_a.cmp(of_b)));
    let reading = stream::iter(files)
        .map(move |(day, path)| async move { store::read(store, &path).await.map(|bytes| (day, path, bytes)) })
        .buffered(READS_MAX);
    Ok(reading.try_filter_map(async |(day, path, bytes)| {
        Ok(match bytes.as_deref().map(read_scored) {
            Some(Ok(rides)) => Some((day, rides)),
            Some(Err(why)) => {
                tracing::warn!(path, %why, "a file of scored rides cannot be decoded; it is left out");
                None
            }
            None => None,
        })
    }))
}

/// Lists the folders of all days before `date` (`YYYY-MM-DD`), by their paths: serving statistics and scored rides.
///
/// # Errors
/// Fails with an outage if the store cannot be read.
pub async fn days_before(store: &Store, date: &str) -> Result<BTreeMap<String, Folder>, Failure> {
    let mut days = BTreeMap::new();
    for below in [layout::SERVED, layout::SCORED] {
        let folders = store::by_folder::<4>(store, below).await?;
        let old = folders.into_iter().filter(|([_, _, _, day], _)| day.as_str() < date);
        days.extend(old.map(|(parts, folder)| (parts.join("/"), folder)));
    }
    Ok(days)
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::served::write_scored as encode;
    use object_store::memory::InMemory;
    use std::sync::Arc;

    fn day(model_id: &str, date: &str) -> VersionDay {
        VersionDay { model: "m".to_owned(), model_id: model_id.to_owned(), date: date.to_owned() }
    }

    fn rides(rides: u64) -> Tally {
        Tally { rides, ..Tally::default() }
    }

    /// Statistics are summed over processes and days of one version; a damaged snapshot is skipped.
    #[tokio::test]
    async fn statistics_of_all_processes_are_summed() {
        let store: Store = Arc::new(InMemory::new());
        for (version, date, scorer, count) in [
            ("a", "2026-01-01", "one", 1),
            ("a", "2026-01-02", "one", 2),
            ("a", "2026-01-02", "two", 4),
            ("ab", "2026-01-02", "one", 8),
        ] {
            write(&store, &day(version, date), scorer, rides(count)).await.unwrap();
        }
        store::write(&store, &layout::served("m", "a", "2026-01-03", "torn"), "{").await.unwrap();
        assert_eq!(read(&store, "m", "a", None).await.unwrap().rides, 7);
        assert_eq!(read(&store, "m", "a", Some("2026-01-02")).await.unwrap().rides, 6);
        assert_eq!(written(&store, &day("a", "2026-01-02"), "two").await.unwrap(), rides(4));
        assert_eq!(written(&store, &day("a", "2026-01-03"), "torn").await.unwrap(), Tally::default());
    }

    #[tokio::test]
    async fn scored_rides_of_the_latest_days_come_first() {
        let store: Store = Arc::new(InMemory::new());
        for (version, date) in [("a", "2026-01-01"), ("b", "2026-01-02"), ("a", "2026-01-02")] {
            let csv = encode([("r", 0.5)].into_iter()).unwrap();
            write_scored(&store, &day(version, date), "one", csv).await.unwrap();
        }
        store::write(&store, &layout::scored("m", "a", "2026-01-03", "torn"), "ride_id").await.unwrap();
        let files: Vec<ScoredFile> = scored(&store).await.unwrap().try_collect().await.unwrap();
        let expected = [day("a", "2026-01-02"), day("b", "2026-01-02"), day("a", "2026-01-01")];
        assert_eq!(files, expected.map(|day| (day, vec![("r".to_owned(), 0.5)])));
    }

    #[tokio::test]
    async fn days_before_a_date_are_listed_with_their_objects() {
        let store: Store = Arc::new(InMemory::new());
        for date in ["2026-01-01", "2026-01-02"] {
            write(&store, &day("a", date), "one", rides(1)).await.unwrap();
            write_scored(&store, &day("a", date), "one", Vec::new()).await.unwrap();
        }
        let old = days_before(&store, "2026-01-02").await.unwrap();
        let objects: Vec<(&str, &[String])> = old.iter().map(|(day, it)| (day.as_str(), &it.objects[..])).collect();
        let expected = [("scored/m/a/2026-01-01", "one.csv"), ("served/m/a/2026-01-01", "one.json")];
        let expected = expected.map(|(folder, name)| (folder, vec![format!("{folder}/{name}")]));
        assert_eq!(objects, expected.each_ref().map(|(folder, objects)| (*folder, &objects[..])));
    }
}
