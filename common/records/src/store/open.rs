//! Opens the store that the settings name.

use super::{
    Store, cloud, folder,
    location::{Location, Service, StoreSettings},
};
use std::sync::Arc;

/// Opens the store that the settings name. A folder is created if it is missing; a bucket must exist, and nothing is requested
/// from it yet. Credentials come from the environment of this process. Also restricts the umask of this process: only its user
/// and its group can open the files it creates from now on.
///
/// # Errors
/// Fails if a setting is invalid or the folder cannot be used; the message names the remedy.
pub fn open(settings: &StoreSettings) -> anyhow::Result<Store> {
    folder::keep_from_others();
    open_with(settings, &cloud::environment())
}

/// As [`open`], with these environment variables instead of those of this process. Leaves the umask as it is.
///
/// # Errors
/// As for [`open`].
pub fn open_with(settings: &StoreSettings, environment: &[(String, String)]) -> anyhow::Result<Store> {
    Ok(match settings.location()? {
        Location::Folder(path) => folder::open(path, settings.fsync)?,
        Location::Cloud(bucket) => Arc::new(cloud::connect(&bucket, settings, environment)?),
    })
}

/// As [`open`], for a long-running process: it also removes what killed writers left, now and every hour: temporary files of a
/// folder, unfinished uploads of an S3 bucket. Requires a tokio runtime.
///
/// # Errors
/// As for [`open`].
pub fn open_swept(settings: &StoreSettings) -> anyhow::Result<Store> {
    let store = open(settings)?;
    match settings.location()? {
        Location::Folder(path) => folder::sweep_in_background(path),
        Location::Cloud(bucket) => {
            if let Some(uploads) = cloud::unfinished(&bucket, settings, &cloud::environment())? {
                tokio::spawn(uploads.sweep_forever());
            }
        }
    }
    Ok(store)
}

/// Opens the store that the settings name if it exists, for commands that only read it. Leaves the umask of this
/// process as it is. A bucket counts as existing.
///
/// # Errors
/// As for [`open`].
pub fn open_existing(settings: &StoreSettings) -> anyhow::Result<Option<Store>> {
    match settings.location()? {
        Location::Folder(path) if !std::path::Path::new(path).exists() => Ok(None),
        _ => open_with(settings, &cloud::environment()).map(Some),
    }
}

/// Returns whether a store is a service that is reached over the network, and bills every request.
pub fn is_remote(store: &Store) -> bool {
    // The names of stores in a folder and in memory are those of their types.
    let name = store.to_string();
    Service::ALL.iter().any(|service| name.starts_with(&format!("{}://", service.scheme())))
}

/// Returns access to the unfinished uploads of the S3 bucket that the settings name; `None` for another kind of store.
///
/// # Errors
/// As for [`open`].
pub fn unfinished_uploads(settings: &StoreSettings) -> anyhow::Result<Option<cloud::Unfinished>> {
    unfinished_uploads_with(settings, &cloud::environment())
}

/// As [`unfinished_uploads`], with these environment variables instead of those of this process.
///
/// # Errors
/// As for [`open`].
pub fn unfinished_uploads_with(
    settings: &StoreSettings,
    environment: &[(String, String)],
) -> anyhow::Result<Option<cloud::Unfinished>> {
    match settings.location()? {
        Location::Folder(_) => Ok(None),
        Location::Cloud(bucket) => cloud::unfinished(&bucket, settings, environment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened_with(settings: &StoreSettings, environment: &[(&str, &str)]) -> Result<Store, String> {
        let environment: Vec<_> = environment.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        open_with(settings, &environment).map_err(|error| format!("{error:#}"))
    }

    fn s3() -> StoreSettings {
        StoreSettings { url: "s3://rides/fleet".to_owned(), ..StoreSettings::default() }
    }

    const KEYS: [(&str, &str); 3] =
        [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "shibboleth"), ("AWS_SESSION_TOKEN", "")];

    #[test]
    fn each_kind_of_store_opens_without_a_request() {
        assert!(opened_with(&s3(), &KEYS).is_ok());
        let gs = StoreSettings { url: "gs://rides/fleet".to_owned(), ..StoreSettings::default() };
        assert!(opened_with(&gs, &[("GOOGLE_BEARER_TOKEN", "shibboleth")]).is_ok());
        let az = StoreSettings { url: "az://rides/fleet".to_owned(), ..StoreSettings::default() };
        let account = [("AZURE_STORAGE_ACCOUNT_NAME", "rides"), ("AZURE_STORAGE_ACCOUNT_KEY", "c2hpYmJvbGV0aA==")];
        assert!(opened_with(&az, &account).is_ok());
        let error = opened_with(&az, &[]).unwrap_err();
        assert!(error.contains("az://rides/fleet") && error.contains("AZURE_STORAGE_ACCOUNT_NAME"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let url = folder.path().join("new").display().to_string();
        let missing = StoreSettings { url, ..StoreSettings::default() };
        assert!(open_existing(&missing).unwrap().is_none());
        assert!(!is_remote(&opened_with(&missing, &[]).unwrap()) && open_existing(&missing).unwrap().is_some());
    }

    #[test]
    fn an_endpoint_that_encrypts_nothing_must_be_permitted() {
        let http = StoreSettings { endpoint: Some("http://127.0.0.1:1".to_owned()), ..s3() };
        let error = opened_with(&http, &KEYS).unwrap_err();
        assert!(error.contains("store.endpoint: http://") && error.contains("store.allow_http"), "{error}");
        assert!(opened_with(&StoreSettings { allow_http: true, ..http.clone() }, &KEYS).is_ok());
        let allowed = [&KEYS[..], &[("AWS_ALLOW_HTTP", "true")]].concat();
        assert!(opened_with(&http, &allowed).is_ok());
        let by_environment = [&KEYS[..], &[("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")]].concat();
        assert!(opened_with(&s3(), &by_environment).unwrap_err().contains("store.allow_http"));
        for endpoint in ["127.0.0.1:1", "https://shibboleth@host", "https://host?shibboleth"] {
            let odd = StoreSettings { endpoint: Some(endpoint.to_owned()), ..s3() };
            let error = opened_with(&odd, &KEYS).unwrap_err();
            assert!(error.contains("store.endpoint: expected") && !error.contains("shibboleth"), "{error}");
        }
    }

    /// No secret is in the text of a store, whichever way it is printed.
    #[test]
    fn a_store_prints_its_address_alone() {
        let store = opened_with(&s3(), &KEYS).unwrap();
        assert!(is_remote(&store) && !is_remote(&(Arc::new(object_store::memory::InMemory::new()) as Store)));
        for text in [format!("{store}"), format!("{store:?}"), format!("{store:#?}")] {
            assert!(text.contains("s3://rides/fleet") && !text.contains("shibboleth"), "{text}");
        }
    }
}
