//! An S3 service for the tests, found in this order:
//!
//! 1. `WILDRYDES_TEST_S3_URL`, as in `s3://BUCKET/PREFIX`, reached as `AWS_…` in the environment says;
//! 2. a container of the image in `WILDRYDES_TEST_S3_IMAGE`, Ceph's gateway of `../shared/images/ensure --with-s3`;
//! 3. moto, a server in Python, if `tests/run` has installed it below `target/`.
//!
//! Without any of them the tests print a line and do not run. What was started is removed when the process ends, in any way.

use crate::{
    rabbitmq::{free_ports, succeeds, watch},
    service::{BUCKET, Service, end_with_this, found, variable},
    wait::{self, SOON},
};
use anyhow::{Context, ensure};
use object_store::{
    aws::AmazonS3Builder,
    path::Path as Key,
    signer::{SignedUrlOptions, Signer},
};
use std::{
    net::TcpStream,
    path::Path,
    process::{ChildStdin, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};
use testcontainers::{
    GenericImage, ImageExt,
    core::{IntoContainerPort, WaitFor},
    runners::SyncRunner,
};

/// Port of Ceph's gateway in its container.
const GATEWAY_PORT: u16 = 7480;

/// Prefix of the bucket for which it has the rule [`LIFECYCLE`].
pub const WITH_RULE: &str = "with-rule";
/// A rule for unfinished uploads below [`WITH_RULE`], and its MD5, which S3 requires.
const LIFECYCLE: &str = "<LifecycleConfiguration><Rule><ID>unfinished</ID><Filter><Prefix>with-rule/</Prefix></Filter>\
    <Status>Enabled</Status><AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation>\
    </AbortIncompleteMultipartUpload></Rule></LifecycleConfiguration>";
const LIFECYCLE_MD5: &str = "WCzExJu4RX5ibo0cXf65Mw==";

/// The S3 service of this test process, started at the first call. Without one, prints that the tests do not run on it and returns `None`.
///
/// # Panics
/// If a service was given, but cannot be used.
pub fn s3() -> Option<&'static Service> {
    static SERVICE: OnceLock<Result<Option<Service>, String>> = OnceLock::new();
    let none = "not run on S3: set WILDRYDES_TEST_S3_URL=s3://BUCKET/PREFIX, or WILDRYDES_TEST_S3_IMAGE (see \
                ../shared/images), or let tests/run install moto";
    found(&SERVICE, find, none)
}

fn find() -> anyhow::Result<Option<Service>> {
    if let Some(url) = variable("WILDRYDES_TEST_S3_URL") {
        return Ok(Some(Service::given(&url, "AWS_", "WILDRYDES_TEST_S3_URL")));
    }
    if let Some(image) = variable("WILDRYDES_TEST_S3_IMAGE") {
        return from_image(&image).with_context(|| format!("WILDRYDES_TEST_S3_IMAGE={image}")).map(Some);
    }
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python-s3");
    if packages.join("moto").is_dir() {
        return from_python(&packages).context("moto below target/").map(Some);
    }
    Ok(None)
}

fn from_image(image: &str) -> anyhow::Result<Service> {
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
    with_bucket(port, ["wildrydes", "wildrydes-secret"], format!("container {image}"), watcher)
}

fn from_python(packages: &Path) -> anyhow::Result<Service> {
    let [port] = free_ports()?;
    let server = Command::new("python3")
        .env("PYTHONPATH", packages)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/support/s3_server.py"))
        .arg(port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let watcher = end_with_this(&server)?;
    wait::within_blocking(SOON, "moto", || TcpStream::connect(("127.0.0.1", port))).map_err(anyhow::Error::msg)?;
    with_bucket(port, ["moto", "moto-secret"], format!("moto in {}", packages.display()), watcher)
}

/// Makes the bucket in a service on this port, with a rule for a part of it.
fn with_bucket(port: u16, [id, secret]: [&str; 2], origin: String, watcher: ChildStdin) -> anyhow::Result<Service> {
    let endpoint = format!("http://127.0.0.1:{port}");
    records::tls::install_cryptography();
    let bucket = AmazonS3Builder::new()
        .with_endpoint(&endpoint)
        .with_allow_http(true)
        .with_bucket_name(BUCKET)
        .with_access_key_id(id)
        .with_secret_access_key(secret)
        .build()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (the_bucket, minute, client) =
            (Key::default(), Duration::from_secs(60), reqwest::Client::builder().no_proxy().build()?);
        let url = bucket.signed_url(reqwest::Method::PUT, &the_bucket, minute).await?;
        let made = client.put(url.as_str()).header(reqwest::header::CONTENT_LENGTH, 0).send().await?;
        ensure!(made.status().is_success(), "making the bucket: {}", made.status());
        let options = SignedUrlOptions::new().with_query([("lifecycle", "")]);
        let url = bucket.signed_url_opts(reqwest::Method::PUT, &the_bucket, minute, &options).await?;
        let ruled = client.put(url.as_str()).header("content-md5", LIFECYCLE_MD5).body(LIFECYCLE).send().await?;
        ensure!(ruled.status().is_success(), "adding a lifecycle rule: {}", ruled.status());
        anyhow::Ok(())
    })?;
    let environment = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", id),
        ("AWS_SECRET_ACCESS_KEY", secret),
    ];
    Ok(Service::started("s3", &environment, origin, watcher))
}
