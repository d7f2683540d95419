//! Removes what killed writers left in a store that is a folder: files that no listing shows, and empty folders.
//!
//! A writer fills a file `<name>#<n>` and renames it once it is complete. If the process is killed before that, the file
//! stays, and the store's own listing leaves it out.

use crate::layout;
use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Age from which on a file is taken for abandoned: no write takes as long.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Time between two sweeps.
const EVERY: Duration = Duration::from_secs(60 * 60);

/// What a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Swept {
    files: u64,
    bytes: u64,
    /// Empty folders of the staging area.
    folders: u64,
}

/// Sweeps now and every hour, in a thread of its own, until the process ends. A failure is logged.
pub(super) fn sweep_in_background(root: PathBuf) {
    let sweeping = move || loop {
        match sweep(&root, ABANDONED_AFTER) {
            Ok(Swept { files: 0, folders: 0, .. }) => {}
            Ok(Swept { files, bytes, folders }) => {
                tracing::info!(files, bytes, folders, "removed what killed writers left in the store");
            }
            Err(error) => tracing::warn!(%error, "the store could not be swept of what killed writers left"),
        }
        std::thread::sleep(EVERY);
    };
    if let Err(error) = std::thread::Builder::new().name("sweep".to_owned()).spawn(sweeping) {
        tracing::warn!(%error, "no thread to sweep the store");
    }
}

/// Removes the temporary files below `root` that are older than `age`, and empty folders of the staging area of that age.
/// Symbolic links are not followed, except that the folder of the uploads may be one.
///
/// # Errors
/// Fails if a folder cannot be read or a file cannot be removed, unless it vanished meanwhile.
fn sweep(root: &Path, age: Duration) -> io::Result<Swept> {
    let before = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut swept = Swept::default();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let Some(entries) = unless_gone(fs::read_dir(&folder))? else { continue };
        let mut is_empty = true;
        for entry in entries {
            let entry = entry?;
            is_empty = false;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() || (kind.is_symlink() && path == root.join(layout::RAW) && path.is_dir()) {
                folders.push(path);
            } else if kind.is_file() && is_temporary(root, &path) {
                let Some(found) = unless_gone(entry.metadata())? else { continue };
                if found.modified()? < before && unless_gone(fs::remove_file(&path))?.is_some() {
                    swept.files += 1;
                    swept.bytes += found.len();
                }
            }
        }
        let is_staging = folder.starts_with(root.join(layout::STAGING)) && folder != root.join(layout::STAGING);
        if is_empty && is_staging {
            let Some(found) = unless_gone(fs::metadata(&folder))? else { continue };
            // A writer may have put something there just now: then it is not empty, and stays.
            swept.folders += u64::from(found.modified()? < before && fs::remove_dir(&folder).is_ok());
        }
    }
    Ok(swept)
}

fn unless_gone<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a file is one that a writer of this project fills before it renames it. Publishers put files of their own
/// directly into the folder of the uploads, under any name: there the name must be one that an upload gives.
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
    fn a_sweep_takes_what_is_abandoned_and_nothing_else() {
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
        let is_there = |name: &&str| root.join(name).exists();
        assert!(!abandoned.iter().any(is_there) && kept.iter().all(is_there));
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
