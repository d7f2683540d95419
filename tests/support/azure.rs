//! Azure Blob Storage for the tests, found in this order:
//!
//! 1. `WILDRYDES_TEST_AZURE_URL`, as in `az://CONTAINER/PREFIX`, reached as `AZURE_…` in the environment says;
//! 2. Azurite, Microsoft's server for tests, if `tests/run` has installed it below `target/`.
//!
//! Without any of them the tests print a line and do not run. The server ends with this process.

use crate::{
    rabbitmq::free_ports,
    service::{BUCKET, Service, end_with_this, found, variable},
    wait::{self, SOON},
};
use anyhow::{Context, ensure};
use object_store::{
    azure::{AzureAccessKey, AzureAuthorizer, AzureCredential},
    client::{ClientOptions, HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector},
};
use std::{
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
};

/// The account in a server that was started for the tests, and its key.
const ACCOUNT: &str = "wildrydes";
const KEY: &str = "d2lsZHJ5ZGVzLXRlc3Rz";

/// The Azure service of this test process, started at the first call. Without one, prints that the tests do not run on it and returns `None`.
///
/// # Panics
/// If a service was given, but cannot be used.
pub fn azure() -> Option<&'static Service> {
    static SERVICE: OnceLock<Result<Option<Service>, String>> = OnceLock::new();
    let none = "not run on Azure: set WILDRYDES_TEST_AZURE_URL=az://CONTAINER/PREFIX, or let tests/run install Azurite, \
                for which it needs npm";
    found(&SERVICE, find, none)
}

fn find() -> anyhow::Result<Option<Service>> {
    if let Some(url) = variable("WILDRYDES_TEST_AZURE_URL") {
        return Ok(Some(Service::given(&url, "AZURE_", "WILDRYDES_TEST_AZURE_URL")));
    }
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/node-azure/node_modules/.bin/azurite-blob");
    if program.exists() {
        return from_node(&program).context("Azurite below target/").map(Some);
    }
    Ok(None)
}

fn from_node(program: &Path) -> anyhow::Result<Service> {
    let [port] = free_ports()?;
    let server = Command::new(program)
        .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{KEY}"))
        .args(["--blobPort", &port.to_string(), "--inMemoryPersistence", "--skipApiVersionCheck"])
        .args(["--silent", "--disableTelemetry"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let watcher = end_with_this(&server)?;
    wait::within_blocking(SOON, "Azurite", || TcpStream::connect(("127.0.0.1", port))).map_err(anyhow::Error::msg)?;
    let endpoint = format!("http://127.0.0.1:{port}/{ACCOUNT}");
    records::tls::install_cryptography();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(make_container(&endpoint))?;
    let environment = [
        ("AZURE_STORAGE_ENDPOINT", endpoint.as_str()),
        ("AZURE_ALLOW_HTTP", "true"),
        ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT),
        ("AZURE_STORAGE_ACCOUNT_KEY", KEY),
    ];
    Ok(Service::started("az", &environment, format!("Azurite in {}", program.display()), watcher))
}

async fn make_container(endpoint: &str) -> anyhow::Result<()> {
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.method_mut() = "PUT".parse()?;
    *request.uri_mut() = format!("{endpoint}/{BUCKET}?restype=container").parse()?;
    request.headers_mut().insert("content-length", "0".parse()?);
    let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(KEY)?);
    AzureAuthorizer::new(&credential, ACCOUNT).try_authorize(&mut request)?;
    let client = ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true))?;
    let made = client.execute(request).await?;
    ensure!(made.status().is_success(), "making the container: {}", made.status());
    Ok(())
}
