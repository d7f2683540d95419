//! Lists objects and folders.

use super::{Store, outage, written_at};
use common::outcome::Failure;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use jiff::Timestamp;
use object_store::{ObjectMeta, path::Path};
use std::collections::BTreeMap;

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Path of the object.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// When the object was last written, by the store's clock.
    pub written_at: Timestamp,
}

impl Listed {
    fn new(meta: ObjectMeta) -> Self {
        Self { bytes: meta.size, written_at: written_at(&meta), path: meta.location.into() }
    }

    /// Returns the last part of its path.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// Lists all objects below a folder, in no particular order. Each item fails with an outage if the store cannot be used.
pub fn list(store: &Store, below: &str) -> BoxStream<'static, Result<Listed, Failure>> {
    store.list(Some(&Path::from(below))).map_ok(Listed::new).map_err(outage).boxed()
}

/// Lists what is directly in a folder: the objects, and the names of the folders.
///
/// # Errors
/// Fails with an outage if the store cannot be used.
pub async fn list_folder(store: &Store, within: &str) -> Result<(Vec<Listed>, Vec<String>), Failure> {
    let listed = store.list_with_delimiter(Some(&Path::from(within))).await.map_err(outage)?;
    let names = listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect();
    Ok((listed.objects.into_iter().map(Listed::new).collect(), names))
}

/// Lists the names of the folders directly in a folder.
///
/// # Errors
/// Fails with an outage if the store cannot be used.
pub async fn folders(store: &Store, within: &str) -> Result<Vec<String>, Failure> {
    Ok(list_folder(store, within).await?.1)
}

/// The objects of a folder, those in folders below it included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folder {
    /// Paths of the objects.
    pub objects: Vec<String>,
    /// Total size in bytes.
    pub bytes: u64,
    /// When the last of them was written, by the store's clock.
    pub written_at: Timestamp,
}

/// Groups all objects below a folder by the first `N` parts of their paths. Leaves out objects with fewer parts before
/// their names.
///
/// # Errors
/// Fails with an outage if the store cannot be used.
pub async fn by_folder<const N: usize>(store: &Store, below: &str) -> Result<BTreeMap<[String; N], Folder>, Failure> {
    let mut folders: BTreeMap<[String; N], Folder> = BTreeMap::new();
    let mut objects = list(store, below);
    while let Some(Listed { path, bytes, written_at }) = objects.try_next().await? {
        let parts: Vec<&str> = path.split('/').collect();
        let Some((first, [_, ..])) = parts.split_first_chunk::<N>() else { continue };
        let folder = folders.entry(first.map(str::to_owned)).or_default();
        folder.written_at = folder.written_at.max(written_at);
        folder.bytes += bytes;
        folder.objects.push(path);
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::write;
    use object_store::memory::InMemory;
    use std::sync::Arc;

    #[tokio::test]
    async fn objects_are_grouped_by_their_folder() {
        let store: Store = Arc::new(InMemory::new());
        for path in ["models/m/champion.json", "models/m/1/a", "models/m/1/b/c", "models/n/2/a", "other/m/1/a"] {
            write(&store, path, "four").await.unwrap();
        }
        let grouped = by_folder::<3>(&store, "models").await.unwrap();
        let [first, second] = [["models", "m", "1"], ["models", "n", "2"]].map(|parts| parts.map(str::to_owned));
        assert_eq!(grouped.keys().collect::<Vec<_>>(), [&first, &second]);
        let objects: Vec<&str> = grouped[&first].objects.iter().map(String::as_str).collect();
        assert_eq!((objects.as_slice(), grouped[&first].bytes), (&["models/m/1/a", "models/m/1/b/c"][..], 8));
        assert!(grouped[&first].written_at > Timestamp::UNIX_EPOCH);
        assert_eq!(folders(&store, "models").await.unwrap(), ["m", "n"]);
    }
}
