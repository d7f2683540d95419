//! A local folder as the object store, with protection against symbolic links below `raw/`.

use crate::layout;
use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, local::LocalFileSystem, path::Path,
};
use std::{
    fmt,
    fs::Metadata,
    io::{self, ErrorKind},
    ops::Range,
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

/// A local folder. Publishers name objects below `raw/` only; these must be regular files of that folder, so a symbolic
/// link must not lead out of it. `raw` itself may be a link, chosen by the operator.
#[derive(Debug)]
pub(super) struct Confined(LocalFileSystem);

impl Confined {
    pub(super) fn new(store: LocalFileSystem) -> Self {
        Self(store)
    }

    /// Returns the metadata of the file that a path below `raw/` denotes; `None` if it does not exist. Fails if the
    /// file is outside `raw/`.
    async fn confined(&self, location: &Path) -> Result<Option<Metadata>> {
        let own = self.0.path_to_filesystem(&Path::from(layout::RAW))?;
        let (own, file) = match resolved(own, self.0.path_to_filesystem(location)?).await {
            Ok(resolved) => resolved,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if !file.starts_with(&own) {
            return Err(leads_away(location, "a symbolic link leads out of the store's folder raw"));
        }
        match tokio::fs::metadata(&file).await {
            Ok(meta) if meta.is_dir() || meta.is_file() => Ok(Some(meta)),
            Ok(_) => Err(leads_away(location, "it is not a regular file")),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}

async fn resolved(own: PathBuf, file: PathBuf) -> io::Result<(PathBuf, PathBuf)> {
    Ok((tokio::fs::canonicalize(own).await?, tokio::fs::canonicalize(file).await?))
}

/// Returns the error of an unusable file name, which callers do not treat as an outage.
fn leads_away(location: &Path, why: &str) -> object_store::Error {
    failed(io::Error::new(ErrorKind::InvalidFilename, format!("{location}: {why}")))
}

fn failed(error: io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "LocalFileSystem", source: error.into() }
}

impl fmt::Display for Confined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Confined {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if location.parts().next().is_none_or(|first| first.as_ref() != layout::RAW) {
            return self.0.get_opts(location, options).await;
        }
        let before = self.confined(location).await?;
        let object = self.0.get_opts(location, options).await?;
        // The opened file must be the checked one: another process may have replaced it in between.
        if let GetResultPayload::File(file, _) = &object.payload {
            let opened = file.metadata().map_err(failed)?;
            if before.is_none_or(|before| (before.dev(), before.ino()) != (opened.dev(), opened.ino())) {
                return Err(failed(io::Error::other(format!("{location} was replaced while it was being opened"))));
            }
        }
        Ok(object)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        if location.parts().next().is_some_and(|first| first.as_ref() == layout::RAW) {
            self.confined(location).await?;
        }
        self.0.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.0.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use crate::{Store, StoreSettings, store};
    use object_store::{ObjectStoreExt, path::Path};
    use std::{fs, os::unix::fs::symlink};

    async fn read(store: &Store, object: &str) -> Result<Vec<u8>, String> {
        let result = store.get(&Path::from(object)).await.map_err(|error| format!("{error:?}"))?;
        Ok(result.bytes().await.unwrap().to_vec())
    }

    #[tokio::test]
    async fn no_link_below_raw_leads_out_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("store"), folder.path().join("outside"));
        for new in [root.join("raw/sub"), root.join("dataset"), outside.clone()] {
            fs::create_dir_all(new).unwrap();
        }
        fs::write(outside.join("secret"), "secret").unwrap();
        fs::write(root.join("dataset/rides"), "rides").unwrap();
        fs::write(root.join("raw/sub/file"), "[]").unwrap();
        symlink(outside.join("secret"), root.join("raw/file-link")).unwrap();
        symlink(&outside, root.join("raw/folder-link")).unwrap();
        symlink("../dataset/rides", root.join("raw/other-prefix")).unwrap();
        symlink("sub/file", root.join("raw/within")).unwrap();
        symlink("nowhere", root.join("raw/broken")).unwrap();
        let settings = StoreSettings { url: root.display().to_string(), ..StoreSettings::default() };
        let store = store::open(&settings).unwrap();
        for object in ["raw/file-link", "raw/folder-link/secret", "raw/other-prefix"] {
            let error = read(&store, object).await.unwrap_err();
            assert!(error.contains("leads out"), "{object}: {error}");
            assert!(store.get_range(&Path::from(object), 0..1).await.is_err(), "{object}");
            assert!(store.head(&Path::from(object)).await.is_err(), "{object}");
        }
        assert_eq!(read(&store, "raw/within").await.unwrap(), b"[]");
        for missing in ["raw/broken", "raw/nothing"] {
            let error = read(&store, missing).await.unwrap_err();
            assert!(error.contains("NotFound"), "{missing}: {error}");
        }
        // Names that only look like a parent folder are plain names.
        for object in ["raw/%2e%2e/outside/secret", "raw/..%2foutside%2fsecret", "raw/..\\outside\\secret"] {
            assert!(read(&store, object).await.unwrap_err().contains("NotFound"), "{object}");
        }
    }

    #[tokio::test]
    async fn raw_itself_may_be_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (root, disk) = (folder.path().join("store"), folder.path().join("disk"));
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(&disk).unwrap();
        fs::write(disk.join("rides"), "[]").unwrap();
        symlink(&disk, root.join("raw")).unwrap();
        let settings = StoreSettings { url: root.display().to_string(), ..StoreSettings::default() };
        let store = store::open(&settings).unwrap();
        assert_eq!(read(&store, "raw/rides").await.unwrap(), b"[]");
    }
}
