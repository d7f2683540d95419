//! An S3 service for the tests, found in this order:
//!
//! 1. `WILDRYDES_TEST_S3_URL`, as in `s3://BUCKET/PREFIX`, reached as `AWS_…` in the environment says;
//! 2. a container of the image in `WILDRYDES_TEST_S3_IMAGE`, Ceph's gateway of `../shared/images/ensure --with-s3`;
//! 3. moto, a server in Python, if `tests/run` has installed it below `target/`.
//!
//! Without any of them the tests print a line and do not run. One service serves the whole test process; each test has its
//! own prefix. What was started is removed when the process ends, in any way.

use crate::{
    rabbitmq::{free_ports, succeeds, watch},
    wait::{self, SOON},
};
use anyhow::{Context, ensure};
use object_store::{aws::AmazonS3Builder, path::Path as Key, signer::Signer};
use records::{Store, StoreSettings, store};
use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use testcontainers::{
    GenericImage, ImageExt,
    core::{IntoContainerPort, WaitFor},
    runners::SyncRunner,
};

/// Port of Ceph's gateway in its container.
const GATEWAY_PORT: u16 = 7480;
/// The bucket in a service that was started for the tests.
const BUCKET: &str = "wildrydes-tests";

/// A running service.
#[derive(Debug)]
pub struct S3 {
    /// `s3://…`, without an end.
    url: String,
    /// Variables with which a process reaches it.
    pub environment: Vec<(String, String)>,
    /// How it was found, for messages.
    pub origin: String,
    /// Keeps the watcher waiting; closed at the latest by the end of this process.
    _watcher: Option<ChildStdin>,
}

impl S3 {
    /// Returns a new address within the service.
    pub fn new_url(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        format!("{}/test-{}-{}", self.url, std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Opens the store at an address within the service.
    ///
    /// # Panics
    /// If the settings are refused.
    pub fn open(&self, url: &str) -> Store {
        let settings = StoreSettings { url: url.to_owned(), ..StoreSettings::default() };
        store::open_with(&settings, &self.environment).expect("an S3 store opens without a request")
    }

    /// Returns a new store within the service.
    pub fn store(&self) -> Store {
        self.open(&self.new_url())
    }
}

/// The service of this test process, started at the first call. Prints a line and returns `None` if there is none.
///
/// # Panics
/// If a service was given, but cannot be used.
pub fn s3() -> Option<&'static S3> {
    static SERVICE: OnceLock<Result<Option<S3>, String>> = OnceLock::new();
    let service = SERVICE.get_or_init(|| {
        // Blocking clients have their own runtime, which must not start inside a test's runtime.
        let start = std::thread::spawn(|| find().map_err(|error| format!("{error:#}")));
        let service = start.join().unwrap_or_else(|_| Err("starting the S3 service panicked".to_owned()));
        match &service {
            Ok(Some(service)) => crate::print_uncaptured(format_args!("S3 for the tests: {}", service.origin)),
            Ok(None) => crate::print_uncaptured(
                "not run on S3: set WILDRYDES_TEST_S3_URL=s3://BUCKET/PREFIX, or WILDRYDES_TEST_S3_IMAGE (see \
                 ../shared/images), or let tests/run install moto",
            ),
            Err(_) => {}
        }
        service
    });
    match service {
        Ok(service) => service.as_ref(),
        Err(why) => panic!("{why}"),
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn find() -> anyhow::Result<Option<S3>> {
    if let Some(url) = variable("WILDRYDES_TEST_S3_URL") {
        let environment = std::env::vars().filter(|(name, _)| name.starts_with("AWS_")).collect();
        let origin = format!("WILDRYDES_TEST_S3_URL, {url}");
        return Ok(Some(S3 { url: url.trim_end_matches('/').to_owned(), environment, origin, _watcher: None }));
    }
    if let Some(image) = variable("WILDRYDES_TEST_S3_IMAGE") {
        return from_image(&image).with_context(|| format!("WILDRYDES_TEST_S3_IMAGE={image}")).map(Some);
    }
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python-s3");
    if packages.join("moto").is_dir() {
        return from_python(packages).context("moto below target/").map(Some);
    }
    Ok(None)
}

fn from_image(image: &str) -> anyhow::Result<S3> {
    ensure!(succeeds("docker", &["info"]), "no Docker engine answers");
    let (name, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
    let container = GenericImage::new(name, tag)
        .with_exposed_port(GATEWAY_PORT.tcp())
        .with_wait_for(WaitFor::message_on_stdout(format!("S3 ready on {GATEWAY_PORT}")))
        .with_startup_timeout(Duration::from_secs(120))
        .start()?;
    let (port, id) = (container.get_host_port_ipv4(GATEWAY_PORT)?, container.id().to_owned());
    // The watcher removes it: a static is never dropped.
    std::mem::forget(container);
    let watcher = watch(&format!("docker rm -f -v {id}"))?;
    started(port, ["wildrydes", "wildrydes-secret"], format!("container {image}"), watcher)
}

fn from_python(packages: PathBuf) -> anyhow::Result<S3> {
    let [port] = free_ports()?;
    let server = Command::new("python3")
        .env("PYTHONPATH", &packages)
        .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let watcher = watch(&format!("kill {}", server.id()))?;
    wait::within_blocking(SOON, "moto", || TcpStream::connect(("127.0.0.1", port))).map_err(anyhow::Error::msg)?;
    started(port, ["moto", "moto-secret"], format!("moto in {}", packages.display()), watcher)
}

/// Makes the bucket in a service on this port.
fn started(port: u16, [id, secret]: [&str; 2], origin: String, watcher: ChildStdin) -> anyhow::Result<S3> {
    let endpoint = format!("http://127.0.0.1:{port}");
    rustls::crypto::ring::default_provider().install_default().ok();
    let bucket = AmazonS3Builder::new()
        .with_endpoint(&endpoint)
        .with_allow_http(true)
        .with_bucket_name(BUCKET)
        .with_access_key_id(id)
        .with_secret_access_key(secret)
        .build()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (nothing, minute) = (Key::default(), Duration::from_secs(60));
        let url = bucket.signed_url(reqwest::Method::PUT, &nothing, minute).await?;
        let making = reqwest::Client::builder().no_proxy().build()?.put(url.as_str());
        let made = making.header(reqwest::header::CONTENT_LENGTH, 0).send().await?;
        ensure!(made.status().is_success(), "making the bucket: {}", made.status());
        anyhow::Ok(())
    })?;
    let variables = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", id),
        ("AWS_SECRET_ACCESS_KEY", secret),
    ];
    let environment = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Ok(S3 { url: format!("s3://{BUCKET}"), environment, origin, _watcher: Some(watcher) })
}
