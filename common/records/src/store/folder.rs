//! A local folder as the object store.

mod confined;
mod leftovers;

use super::{
    Store,
    location::{Location, StoreSettings},
};
use anyhow::Context;
use confined::Confined;
use std::{path::Path, sync::Arc};

/// Opens a folder; creates it if it is missing.
///
/// # Errors
/// Fails if the folder cannot be used.
pub(super) fn open(path: &str, fsync: bool) -> anyhow::Result<Store> {
    std::fs::create_dir_all(path).with_context(|| format!("store.url: cannot make the folder {path}"))?;
    let store = object_store::local::LocalFileSystem::new_with_prefix(path)
        .with_context(|| format!("store.url: cannot use the folder {path}"))?
        .with_automatic_cleanup(false)
        .with_fsync(fsync);
    Ok(Arc::new(Confined::new(store)))
}

pub(super) fn sweep_in_background(path: &str) {
    leftovers::sweep_in_background(path.into());
}

/// Restricts the umask of this process: its user can write new files, its group can read them, others have no access
/// (0640, folders 0750). A stricter umask is kept.
#[cfg(unix)]
pub fn keep_from_others() {
    use rustix::{fs::Mode, process::umask};
    let strict = Mode::from_raw_mode(0o027);
    let before = umask(strict);
    umask(before | strict);
}

/// Does nothing: this platform has no umask.
#[cfg(not(unix))]
pub fn keep_from_others() {}

/// Returns whether what this process writes belongs to the owner of the store. In a folder, files of another user may be
/// inaccessible to the workers; the objects of a service belong to nobody.
#[cfg(unix)]
pub fn is_own(settings: &StoreSettings) -> bool {
    use std::os::unix::fs::MetadataExt;
    match settings.location() {
        Ok(Location::Folder(path)) => {
            let owner = std::fs::metadata(path).ok().map(|meta| meta.uid());
            owner == Some(rustix::process::geteuid().as_raw())
        }
        Ok(Location::Cloud(_)) => true,
        Err(_) => false,
    }
}

/// Returns true: on this platform files have no owner that matters here.
#[cfg(not(unix))]
pub fn is_own(_settings: &StoreSettings) -> bool {
    true
}

/// Removes these folders if they are empty: a store that is a folder keeps them when their objects are removed. Other stores
/// have no folders.
pub fn remove_empty_folders<'a>(settings: &StoreSettings, folders: impl Iterator<Item = &'a str>) {
    let Ok(Location::Folder(root)) = settings.location() else { return };
    for folder in folders {
        let _ = std::fs::remove_dir(Path::new(root).join(folder));
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::store::{open, write};
    use std::os::unix::fs::PermissionsExt;

    /// Other accounts on the machine cannot read the rides.
    #[tokio::test]
    async fn other_accounts_cannot_read_objects() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("store");
        let settings = StoreSettings { url: root.to_str().unwrap().to_owned(), ..StoreSettings::default() };
        let store = open(&settings).unwrap();
        write(&store, "raw/a/b", "rides").await.unwrap();
        let mode = |path: &str| std::fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode(""), mode("raw"), mode("raw/a"), mode("raw/a/b")], [0o750, 0o750, 0o750, 0o640]);
    }
}
