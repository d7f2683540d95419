//! Lists objects and folders.

use super::{Store, StoreSettings, folder, outage};
use common::outcome::Failure;
use futures::TryStreamExt;
use jiff::Timestamp;
use object_store::path::Path;
use std::collections::BTreeMap;

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Path of the object.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// When the object was last written, to the second.
    pub written: Timestamp,
}

/// Lists all objects below a folder, in any order.
///
/// # Errors
/// Fails with an outage if the store cannot be used.
pub async fn list(store: &Store, below: &str) -> Result<Vec<Listed>, Failure> {
    let objects = store.list(Some(&Path::from(below))).map_ok(|meta| Listed {
        path: meta.location.to_string(),
        bytes: meta.size,
        written: Timestamp::from_second(meta.last_modified.timestamp()).unwrap_or(Timestamp::MAX),
    });
    objects.try_collect().await.map_err(outage)
}

/// Lists the names of the folders directly in a folder.
///
/// # Errors
/// Fails with an outage if the store cannot be used.
pub async fn folders(store: &Store, within: &str) -> Result<Vec<String>, Failure> {
    let listed = store.list_with_delimiter(Some(&Path::from(within))).await.map_err(outage)?;
    Ok(listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect())
}

/// The objects of a folder, those in folders below it included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folder {
    /// Paths of the objects.
    pub objects: Vec<String>,
    /// Total size in bytes.
    pub bytes: u64,
    /// When the last of them was written, to the second.
    pub written: Timestamp,
}

/// Groups all objects below a folder by the first `N` parts of their paths. Leaves out objects with fewer parts before
/// their names.
///
/// # Errors
/// Fails with an outage if the store cannot be used.
pub async fn by_folder<const N: usize>(store: &Store, below: &str) -> Result<BTreeMap<[String; N], Folder>, Failure> {
    let mut folders: BTreeMap<[String; N], Folder> = BTreeMap::new();
    for Listed { path, bytes, written } in list(store, below).await? {
        let parts: Vec<&str> = path.split('/').collect();
        let Some((first, [_, ..])) = parts.split_first_chunk::<N>() else { continue };
        let folder = folders.entry(first.map(str::to_owned)).or_default();
        folder.written = folder.written.max(written);
        folder.bytes += bytes;
        folder.objects.push(path);
    }
    Ok(folders)
}

/// Removes these folders if they are empty: a store that is a folder keeps them when their objects are removed.
pub fn remove_empty_folders<'a>(settings: &StoreSettings, folders: impl Iterator<Item = &'a str>) {
    let Ok(root) = folder(settings) else { return };
    for folder in folders {
        let _ = std::fs::remove_dir(std::path::Path::new(root).join(folder));
    }
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
        assert!(grouped[&first].written > Timestamp::UNIX_EPOCH);
        assert_eq!(folders(&store, "models").await.unwrap(), ["m", "n"]);
    }
}
