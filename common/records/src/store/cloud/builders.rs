//! Clients of the services, from the settings and the environment.
//!
//! Credentials are found as [`object_store`] finds them. For S3: `AWS_ACCESS_KEY_ID`, a web identity (IRSA), the credentials of a
//! container (ECS, EKS Pod Identity), the metadata service of the machine. For Google: a service account, application default
//! credentials, the metadata service. For Azure: an account key, a client secret, workload identity, managed identity.

use crate::{
    store::{
        Store,
        location::{Bucket, Service, StoreSettings},
    },
    tls::install_cryptography,
};
use anyhow::{Context, bail, ensure};
use object_store::{
    BackoffConfig, ClientConfigKey, ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
};
use std::{sync::Arc, time::Duration};

/// Maximum time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum time of a request, which transfers at most one block or one part.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum time of a request to copy an object, in which the service copies up to 4 GiB.
const COPY_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Time after which a request is not repeated. The workers wait by themselves for a service that is down.
const RETRIES_WITHIN: Duration = Duration::from_secs(10);
/// Maximum number of repetitions of a request.
const RETRIES_MAX: usize = 4;

/// Returns whether a variable of the environment concerns a service.
pub(super) fn is_known(variable: &str) -> bool {
    ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| variable.starts_with(prefix)) || OTHERS.contains(&variable)
}

/// Variables of Google's and Azure's clients without their prefix.
const OTHERS: [&str; 2] = [SERVICE_ACCOUNT, IDENTITY_ENDPOINT];
const SERVICE_ACCOUNT: &str = "SERVICE_ACCOUNT";
const IDENTITY_ENDPOINT: &str = "IDENTITY_ENDPOINT";

/// The clients of a bucket.
pub(super) struct Connected {
    pub store: Store,
    /// Waits longer for an answer.
    pub copying: Store,
}

/// Builds both clients of a bucket, which share their credentials. A macro, because the builders of the services share no trait.
macro_rules! connected {
    ($builder:expr, $options:expr) => {{
        let (builder, options) = ($builder, $options);
        let store = builder.clone().with_client_options(options.clone()).build()?;
        let copying = builder
            .with_client_options(options.with_timeout(COPY_TIMEOUT))
            .with_credentials(Arc::clone(store.credentials()))
            .build()?;
        Ok(Connected { store: Arc::new(store), copying: Arc::new(copying) })
    }};
}

pub(super) fn connect(
    bucket: &Bucket,
    settings: &StoreSettings,
    environment: &[(String, String)],
) -> anyhow::Result<Connected> {
    install_cryptography();
    let connected = match bucket.service {
        Service::S3 => connect_s3(bucket, settings, environment),
        Service::GoogleCloud => connect_google(bucket, settings, environment),
        Service::Azure => connect_azure(bucket, settings, environment),
    };
    connected.with_context(|| bucket.to_string())
}

/// Returns a client of an S3 bucket with its options; `None` for other services.
pub(super) fn s3(
    bucket: &Bucket,
    settings: &StoreSettings,
    environment: &[(String, String)],
) -> anyhow::Result<Option<(AmazonS3, ClientOptions)>> {
    if bucket.service != Service::S3 {
        return Ok(None);
    }
    install_cryptography();
    let (builder, options) = s3_builder(bucket, settings, environment)?;
    let s3 = builder.with_client_options(options.clone()).build();
    Ok(Some((s3.with_context(|| bucket.to_string())?, options)))
}

fn retries() -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(3), base: 2.0 };
    RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: RETRIES_WITHIN }
}

fn client_options() -> ClientOptions {
    ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT).with_timeout(REQUEST_TIMEOUT)
}

fn connect_s3(
    bucket: &Bucket,
    settings: &StoreSettings,
    environment: &[(String, String)],
) -> anyhow::Result<Connected> {
    let (builder, options) = s3_builder(bucket, settings, environment)?;
    connected!(builder, options)
}

fn s3_builder(
    bucket: &Bucket,
    settings: &StoreSettings,
    environment: &[(String, String)],
) -> anyhow::Result<(AmazonS3Builder, ClientOptions)> {
    let (mut builder, mut options) = (AmazonS3Builder::new().with_retry(retries()), client_options());
    for (variable, value) in environment.iter().filter(|(variable, _)| variable.starts_with("AWS_")) {
        match variable.to_ascii_lowercase().parse() {
            _ if value.is_empty() => {}
            Ok(AmazonS3ConfigKey::Client(key)) => options = options.with_config(key, value),
            Ok(key) => builder = builder.with_config(key, value),
            Err(_) => {}
        }
    }
    options = permit_http(options, settings);
    if let Some(region) = &settings.region {
        builder = builder.with_region(region);
    }
    let in_environment = builder
        .get_config_value(&AmazonS3ConfigKey::S3Endpoint)
        .or_else(|| builder.get_config_value(&AmazonS3ConfigKey::Endpoint));
    let endpoint = endpoint(settings, in_environment, &options)?;
    builder = builder.with_virtual_hosted_style_request(!settings.path_style);
    if let Some(endpoint) = endpoint {
        // The client expects the whole address: with virtual hosts, that of the bucket.
        let endpoint = match (settings.path_style, endpoint.split_once("://")) {
            (false, Some((scheme, host))) => format!("{scheme}://{}.{host}", bucket.name),
            _ => endpoint,
        };
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    Ok((builder.with_bucket_name(&bucket.name), options))
}

fn connect_google(
    bucket: &Bucket,
    settings: &StoreSettings,
    environment: &[(String, String)],
) -> anyhow::Result<Connected> {
    let mut builder = GoogleCloudStorageBuilder::new().with_retry(retries());
    let mut options = client_options();
    for (variable, value) in environment {
        let key = match variable.as_str() {
            SERVICE_ACCOUNT => Ok(GoogleConfigKey::ServiceAccount),
            name if name.starts_with("GOOGLE_") => name.to_ascii_lowercase().parse(),
            _ => continue,
        };
        match key {
            _ if value.is_empty() => {}
            Ok(GoogleConfigKey::Client(key)) => options = options.with_config(key, value),
            Ok(key) => builder = builder.with_config(key, value),
            Err(_) => {}
        }
    }
    options = permit_http(options, settings);
    if let Some(endpoint) = endpoint(settings, builder.get_config_value(&GoogleConfigKey::BaseUrl), &options)? {
        builder = builder.with_base_url(&endpoint);
    }
    connected!(builder.with_bucket_name(&bucket.name), options)
}

fn connect_azure(
    bucket: &Bucket,
    settings: &StoreSettings,
    environment: &[(String, String)],
) -> anyhow::Result<Connected> {
    let mut builder = MicrosoftAzureBuilder::new().with_retry(retries());
    let mut options = client_options();
    for (variable, value) in environment {
        if variable == IDENTITY_ENDPOINT {
            builder = builder.with_msi_endpoint(value);
            continue;
        }
        match variable.to_ascii_lowercase().parse() {
            _ if value.is_empty() || !variable.starts_with("AZURE_") => {}
            Ok(AzureConfigKey::Client(key)) => options = options.with_config(key, value),
            Ok(key) => builder = builder.with_config(key, value),
            Err(_) => {}
        }
    }
    options = permit_http(options, settings);
    let is_set = |key| builder.get_config_value(&key).is_some_and(|value| !value.is_empty() && value != "false");
    ensure!(
        is_set(AzureConfigKey::AccountName) || is_set(AzureConfigKey::UseEmulator),
        "set AZURE_STORAGE_ACCOUNT_NAME to the account of the container"
    );
    if let Some(endpoint) = endpoint(settings, builder.get_config_value(&AzureConfigKey::Endpoint), &options)? {
        builder = builder.with_endpoint(endpoint);
    }
    connected!(builder.with_container_name(&bucket.name), options)
}

fn permit_http(options: ClientOptions, settings: &StoreSettings) -> ClientOptions {
    if settings.allow_http { options.with_allow_http(true) } else { options }
}

/// Returns the endpoint of the settings, else that of the environment. Refuses one without encryption that nobody permitted. An
/// error does not repeat an address that may contain a password.
fn endpoint(
    settings: &StoreSettings,
    in_environment: Option<String>,
    options: &ClientOptions,
) -> anyhow::Result<Option<String>> {
    let Some(endpoint) = settings.endpoint.clone().or(in_environment) else { return Ok(None) };
    let Some((scheme @ ("http" | "https"), host)) = endpoint.split_once("://") else {
        bail!("store.endpoint: expected https://HOST or https://HOST:PORT")
    };
    ensure!(
        !host.is_empty() && !host.contains(['@', '?', '#']),
        "store.endpoint: expected https://HOST or https://HOST:PORT; credentials belong into the environment"
    );
    let permission = options.get_config_value(&ClientConfigKey::AllowHttp).unwrap_or_default().to_ascii_lowercase();
    let is_permitted = ["1", "true", "on", "yes", "y"].contains(&permission.as_str());
    ensure!(
        scheme == "https" || is_permitted,
        "store.endpoint: {endpoint} encrypts nothing: use https://, or permit it with store.allow_http = true"
    );
    Ok(Some(endpoint.trim_end_matches('/').to_owned()))
}
