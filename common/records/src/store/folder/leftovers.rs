//! Removes the temporary files of killed writers, which no listing shows, and empty folders from a store that is a
//! folder.
//!
//! A writer fills a file `<name>#<n>` and renames it once it is complete. If the process is killed before that, the
//! file stays, and the store's listing omits it.

use crate::layout;
use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Age at which a temporary file counts as abandoned; no write takes that long.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Interval between two sweeps.
const EVERY: Duration = Duration::from_secs(60 * 60);

/// Numbers of files, bytes and folders that a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Swept {
    files: u64,
    bytes: u64,
    /// Empty folders of the staging area.
    folders: u64,
}

/// Sweeps now and every hour, in a separate thread, until the process ends. Logs a failure.
pub(super) fn sweep_in_background(root: PathBuf) {
    let sweeping = move || loop {
        match sweep(&root, ABANDONED_AFTER) {
            Ok(Swept { files: 0, folders: 0, .. }) => {}
            Ok(Swept { files, bytes, folders }) => {
                tracing::info!(files, bytes, folders, "removed temporary files of killed writers from the store");
            }
            Err(error) => tracing::warn!(%error, "cannot remove temporary files of killed writers from the store"),
        }
        std::thread::sleep(EVERY);
    };
    if let Err(error) = std::thread::Builder::new().name("sweep".to_owned()).spawn(sweeping) {
        tracing::warn!(%error, "cannot start the thread that removes temporary files");
    }
}

/// Removes the temporary files below `root` and the empty folders of the staging area that are older than `age`.
/// Follows no symbolic link, except for the folder of the uploads.
///
/// # Errors
/// Fails if a folder cannot be read or a file cannot be removed, unless it vanished meanwhile.
fn sweep(root: &Path, age: Duration) -> io::Result<Swept> {
    let before = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut swept = Swept::default();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let Some(entries) = unless_missing(fs::read_dir(&folder))? else { continue };
        let mut is_empty = true;
        for entry in entries {
            let entry = entry?;
            is_empty = false;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() || (kind.is_symlink() && path == root.join(layout::RAW) && path.is_dir()) {
                folders.push(path);
            } else if kind.is_file() && is_temporary(root, &path) {
                let Some(meta) = unless_missing(entry.metadata())? else { continue };
                if meta.modified()? < before && unless_missing(fs::remove_file(&path))?.is_some() {
                    swept.files += 1;
                    swept.bytes += meta.len();
                }
            }
        }
        let is_staging = folder.starts_with(root.join(layout::STAGING)) && folder != root.join(layout::STAGING);
        if is_empty && is_staging {
            let Some(meta) = unless_missing(fs::metadata(&folder))? else { continue };
            // Fails if a writer has just created a file in the folder; the folder then stays.
            swept.folders += u64::from(meta.modified()? < before && fs::remove_dir(&folder).is_ok());
        }
    }
    Ok(swept)
}

fn unless_missing<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns whether a file is a temporary file of a writer of this project. Publishers may store files of any name
/// directly in the folder of the uploads, so there the name must also have the form of an upload.
fn is_temporary(root: &Path, path: &Path) -> bool {
    let Some((name, suffix)) = path.file_name().and_then(OsStr::to_str).and_then(|name| name.rsplit_once('#')) else {
        return false;
    };
    let is_numbered = !suffix.is_empty() && suffix.bytes().all(|byte| byte.is_ascii_digit());
    let is_upload = name.split_once('-').is_some_and(|(sha256, _)| sha256.len() == 16 && hex::decode(sha256).is_ok());
    is_numbered && (is_upload || path.parent() != Some(&root.join(layout::RAW)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_removes_abandoned_files_only() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let abandoned = [
            "raw/0123456789abcdef-rides.json#1",
            "raw/incoming/00ff#12",
            "raw/inline/00ff#1",
            "dataset/b/part-00000.csv#1",
            "models/m/1/model.json#3",
        ];
        let kept = [
            "raw/0123456789abcdef-rides.json",
            "raw/rides#5",
            "raw/2018-rides#5",
            "dataset/b/part-00000.csv",
            "dataset/b/part#x",
            "staging/b/s/chunk-0000000000",
        ];
        for name in abandoned.iter().chain(&kept) {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "12345").unwrap();
        }
        fs::create_dir_all(root.join("staging/empty")).unwrap();
        fs::create_dir_all(root.join("dataset/empty")).unwrap();
        assert_eq!(sweep(root, Duration::from_secs(3_600)).unwrap(), Swept::default(), "it may still be written");
        assert_eq!(sweep(root, Duration::ZERO).unwrap(), Swept { files: 5, bytes: 25, folders: 1 });
        let exists = |name: &&str| root.join(name).exists();
        assert!(!abandoned.iter().any(exists) && kept.iter().all(exists));
        assert!(root.join("dataset/empty").exists() && root.join("staging").exists());
        assert_eq!(sweep(&root.join("nothing"), Duration::ZERO).unwrap(), Swept::default());
    }

    #[test]
    fn a_sweep_stays_in_the_store() {
        let (store, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let uploads = store.path().join("raw");
        fs::write(elsewhere.path().join("0123456789abcdef-a#1"), "1").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), store.path().join("link")).unwrap();
        assert_eq!(sweep(store.path(), Duration::ZERO).unwrap(), Swept::default());
        std::os::unix::fs::symlink(elsewhere.path(), &uploads).unwrap();
        assert_eq!(sweep(store.path(), Duration::ZERO).unwrap().files, 1, "the folder of the uploads may be a link");
    }
}
