//! `[store]`, and the location that `store.url` names.

use anyhow::{bail, ensure};
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use std::fmt;

/// `[store]`: the object store.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// Path of a folder, `file:///…`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`. All workers of a
    /// fleet use the same one.
    pub url: String,
    /// Whether every write to a folder is synced to disk: it then survives a power failure, but is slower.
    pub fsync: bool,
    /// Address of a service other than the provider's own, `https://…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Region of an S3 bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Whether requests to S3 name the bucket in their path, and not in the host name.
    pub path_style: bool,
    /// Whether `endpoint` may be `http://…`, which encrypts nothing.
    pub allow_http: bool,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            url: "wildrydes-data".to_owned(),
            fsync: false,
            endpoint: None,
            region: None,
            path_style: true,
            allow_http: false,
        }
    }
}

impl StoreSettings {
    /// Returns whether the store is a service that is reached over the network, not a folder.
    pub fn is_remote(&self) -> bool {
        matches!(self.location(), Ok(Location::Cloud(_)))
    }

    /// Returns the settings of another store that is reached in the same way, as far as they apply to its kind.
    #[must_use]
    pub fn at(&self, url: &str) -> Self {
        let other = Self { url: url.to_owned(), ..self.clone() };
        let service = match other.url.split_once("://") {
            Some((scheme, _)) => Service::of(scheme).ok(),
            None => None,
        };
        let is_s3 = service == Some(Service::S3);
        Self {
            fsync: self.fsync && service.is_none(),
            endpoint: other.endpoint.filter(|_| service.is_some()),
            region: other.region.filter(|_| is_s3),
            path_style: self.path_style || !is_s3,
            ..other
        }
    }

    /// Returns the location that `url` names. No error repeats an address that may contain a password.
    ///
    /// # Errors
    /// Fails if `url` is invalid, or another setting does not apply to its kind of store.
    pub(super) fn location(&self) -> anyhow::Result<Location<'_>> {
        let location = match self.url.split_once("://") {
            Some(("file", path)) => Location::Folder(path),
            Some((scheme, rest)) => Location::Cloud(Bucket::parse(Service::of(scheme)?, rest)?),
            None => {
                let scheme = self.url.split_once(':').map(|(scheme, _)| scheme);
                if let Some(scheme) = scheme.filter(|scheme| Service::of(scheme).is_ok()) {
                    bail!("store.url: expected {scheme}://BUCKET/PREFIX, with two slashes");
                }
                Location::Folder(&self.url)
            }
        };
        self.check_kind(&location)?;
        Ok(location)
    }

    /// Checks that the other settings apply to the kind of store.
    fn check_kind(&self, location: &Location<'_>) -> anyhow::Result<()> {
        match location {
            Location::Folder(_) => {
                let unused = [("endpoint", self.endpoint.is_some()), ("region", self.region.is_some())];
                if let Some((key, _)) = unused.iter().find(|(_, is_set)| *is_set) {
                    bail!("store.{key}: store.url names a folder, which has none; remove the setting");
                }
            }
            Location::Cloud(bucket) => {
                let scheme = bucket.service.scheme();
                ensure!(
                    !self.fsync,
                    "store.fsync: not with {scheme}://, which confirms no write before it is durable; remove the setting"
                );
                ensure!(
                    self.region.is_none() || bucket.service == Service::S3,
                    "store.region: not with {scheme}://; remove the setting"
                );
                ensure!(
                    self.path_style || bucket.service == Service::S3,
                    "store.path_style: not with {scheme}://; remove the setting"
                );
            }
        }
        Ok(())
    }
}

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location<'a> {
    /// Path of a folder.
    Folder(&'a str),
    /// A bucket of a service, or a part of one.
    Cloud(Bucket),
}

/// A service that stores objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    S3,
    GoogleCloud,
    Azure,
}

impl Service {
    pub(super) const ALL: [Self; 3] = [Self::S3, Self::GoogleCloud, Self::Azure];

    fn of(scheme: &str) -> anyhow::Result<Self> {
        Ok(match scheme {
            "s3" => Self::S3,
            "gs" => Self::GoogleCloud,
            "az" => Self::Azure,
            other => {
                bail!("store.url: {other}:// is not supported; use a folder, file:///…, s3://…, gs://… or az://…")
            }
        })
    }

    pub(super) fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::GoogleCloud => "gs",
            Self::Azure => "az",
        }
    }
}

/// A bucket (a container in Azure), and the prefix below which the store's objects are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) service: Service,
    pub(super) name: String,
    /// Empty if the whole bucket is the store.
    pub(super) prefix: Path,
}

impl Bucket {
    fn parse(service: Service, rest: &str) -> anyhow::Result<Self> {
        let scheme = service.scheme();
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        // Not repeated: a key or a password may be in it.
        ensure!(
            !name.is_empty() && name.chars().all(is_name),
            "store.url: expected {scheme}://BUCKET/PREFIX, a bucket of letters, digits, - _ and .; credentials belong into the \
             environment"
        );
        ensure!(!prefix.contains(['?', '#', '@']), "store.url: expected {scheme}://BUCKET/PREFIX, without ? # and @");
        let prefix = Path::parse(prefix)
            .map_err(|error| anyhow::anyhow!("store.url: expected {scheme}://BUCKET/PREFIX: {error}"))?;
        Ok(Self { service, name: name.to_owned(), prefix })
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.service.scheme(), self.name)?;
        if !self.prefix.as_ref().is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> StoreSettings {
        StoreSettings { url: url.to_owned(), ..StoreSettings::default() }
    }

    #[test]
    fn a_url_names_a_folder_or_a_bucket() {
        for (url, folder) in [("data", "data"), ("/srv/w", "/srv/w"), ("file:///srv/w", "/srv/w"), ("a:b", "a:b")] {
            assert_eq!(settings(url).location().unwrap(), Location::Folder(folder), "{url}");
        }
        for (url, text) in [
            ("s3://rides", "s3://rides"),
            ("s3://rides/", "s3://rides"),
            ("s3://rides/fleet/a/", "s3://rides/fleet/a"),
            ("gs://my.rides_1/x", "gs://my.rides_1/x"),
            ("az://container/x", "az://container/x"),
        ] {
            let settings = settings(url);
            let Location::Cloud(bucket) = settings.location().unwrap() else { panic!("{url}") };
            assert_eq!((bucket.to_string(), settings.is_remote()), (text.to_owned(), true), "{url}");
        }
    }

    /// An error names the setting and what is expected, and repeats no key.
    #[test]
    fn an_invalid_url_is_refused_without_repeating_a_password() {
        for (url, expected) in [
            ("http://127.0.0.1/x", "http:// is not supported"),
            ("s3:/rides", "expected s3://BUCKET/PREFIX, with two slashes"),
            ("s3://", "expected s3://BUCKET/PREFIX"),
            ("s3://key:secret@rides/x", "credentials belong into the environment"),
            ("s3://rides/x?secret=secret", "without ? # and @"),
            ("s3://rides/a//b", "expected s3://BUCKET/PREFIX"),
            ("az://rides/../b", "expected az://BUCKET/PREFIX"),
        ] {
            let error = settings(url).location().unwrap_err().to_string();
            assert!(error.starts_with("store.url: ") && error.contains(expected), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
            assert!(!settings(url).is_remote());
        }
    }

    #[test]
    fn settings_for_another_address_are_those_of_its_kind() {
        let (endpoint, region) = (Some("https://host".to_owned()), Some("eu".to_owned()));
        let both = StoreSettings { endpoint, region, path_style: false, ..settings("s3://rides") };
        for url in ["s3://other", "gs://other", "az://other", "data", "file:///srv/data"] {
            assert!(both.at(url).location().is_ok(), "{url}");
            assert!(StoreSettings { fsync: true, ..settings("data") }.at(url).location().is_ok(), "{url}");
        }
        assert_eq!((both.at("s3://other").region, both.at("gs://other").region), (both.region.clone(), None));
    }

    #[test]
    fn settings_of_another_kind_of_store_are_refused() {
        let error = |settings: StoreSettings| settings.location().unwrap_err().to_string();
        let s3 = settings("s3://rides");
        assert!(error(StoreSettings { fsync: true, ..s3.clone() }).starts_with("store.fsync: not with s3://"));
        let some = || Some("x".to_owned());
        assert!(
            error(StoreSettings { region: some(), ..settings("gs://rides") }).starts_with("store.region: not with gs")
        );
        assert!(error(StoreSettings { path_style: false, ..settings("az://rides") }).starts_with("store.path_style"));
        assert!(error(StoreSettings { endpoint: some(), ..settings("data") }).starts_with("store.endpoint: "));
        assert!(StoreSettings { region: some(), path_style: false, ..s3 }.location().is_ok());
    }
}
