//! Generated certificates, and a RabbitMQ that uses them for TLS.

use crate::rabbitmq::{image, rabbitmq, watch};
use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd};
use std::{
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use testcontainers::{
    GenericImage, ImageExt,
    core::{IntoContainerPort, WaitFor},
    runners::SyncRunner,
};

/// An authority, certificates of it and one of another authority, as PEM files, each certificate beside its key.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// Generates them.
    ///
    /// # Panics
    /// When that fails.
    pub fn new() -> Self {
        let made = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        let (authority, issuer) = authority("ours");
        made.write("ca.pem", &authority);
        made.write("other-ca.pem", &self::authority("another").0);
        let server = || CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        made.issue("server", server(), &issuer);
        let mut expired = server();
        (expired.not_before, expired.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1));
        made.issue("expired", expired, &issuer);
        let mut client = CertificateParams::new(vec!["splitter".to_owned()]).expect("a name");
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        made.issue("client", client, &issuer);
        made
    }

    /// A file: `ca`, `other-ca`, `server`, `expired`, `client`, and the keys of the last three, such as `server-key`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.pem"))
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).expect("a file");
    }

    fn issue(&self, name: &str, params: CertificateParams, issuer: &Issuer<'_, KeyPair>) {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, issuer).expect("a certificate");
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}-key.pem"), &key.serialize_pem());
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::new(Vec::new()).expect("no name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("authority {name}"));
    let key = KeyPair::generate().expect("a key");
    let pem = params.self_signed(&key).expect("a certificate").pem();
    (pem, Issuer::new(params, key))
}

/// A RabbitMQ whose only AMQP port uses TLS; removed on drop.
#[derive(Debug)]
pub struct TlsRabbitMq {
    /// Port on `localhost`.
    pub port: u16,
    container: String,
    _watcher: ChildStdin,
}

impl TlsRabbitMq {
    /// Starts one with these certificates, which requires a client certificate or not. Prints a line and returns `None` if the
    /// tests' broker is not a container.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(certificates: &Certificates, demands_certificate: bool) -> Option<Self> {
        if !rabbitmq().origin.starts_with("container") {
            crate::print_uncaptured(format_args!(
                "not run: a broker with TLS needs Docker, and this is {}",
                rabbitmq().origin
            ));
            return None;
        }
        let file = |name: &str| std::fs::read(certificates.file(name)).expect("a certificate");
        let files = [
            ("ca", file("ca")),
            ("server", file("server")),
            ("server-key", file("server-key")),
            ("expired", file("expired")),
            ("expired-key", file("expired-key")),
        ];
        let started = std::thread::spawn(move || start(files, demands_certificate)).join();
        Some(started.expect("starting the broker panicked").expect("the broker starts"))
    }

    /// Switches to an expired certificate.
    ///
    /// # Panics
    /// When it cannot be made to.
    pub fn let_certificate_expire(&self) {
        let swap = "cp /tls/expired.pem /tls/server.pem && cp /tls/expired-key.pem /tls/server-key.pem && \
                    rabbitmqctl eval 'ssl:clear_pem_cache().'";
        let mut command = Command::new("docker");
        command.args(["exec", "--user", "root", &self.container, "sh", "-c", swap]);
        let ended = command.stdin(Stdio::null()).output().expect("docker runs");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
}

fn start(files: [(&str, Vec<u8>); 5], demands_certificate: bool) -> anyhow::Result<TlsRabbitMq> {
    let image = image();
    let (name, tag) = image.rsplit_once(':').unwrap_or((&image, "latest"));
    let verify = if demands_certificate { "verify_peer" } else { "verify_none" };
    let config = format!(
        "listeners.tcp = none\nlisteners.ssl.1 = 5671\nssl_options.cacertfile = /tls/ca.pem\n\
         ssl_options.certfile = /tls/server.pem\nssl_options.keyfile = /tls/server-key.pem\n\
         ssl_options.verify = {verify}\nssl_options.fail_if_no_peer_cert = {demands_certificate}\n"
    );
    let mut request = GenericImage::new(name, tag)
        .with_exposed_port(5671.tcp())
        .with_wait_for(WaitFor::message_on_stdout("Server startup complete"))
        .with_startup_timeout(Duration::from_secs(180))
        .with_copy_to("/etc/rabbitmq/conf.d/90-tls.conf", config.into_bytes());
    for (file, content) in files {
        request = request.with_copy_to(Path::new("/tls").join(format!("{file}.pem")).display().to_string(), content);
    }
    let container = request.start().with_context(|| format!("starting {image}"))?;
    let port = container.get_host_port_ipv4(5671)?;
    let id = container.id().to_owned();
    std::mem::forget(container);
    let watcher = watch(&format!("docker rm -f -v {id}"))?;
    Ok(TlsRabbitMq { port, container: id, _watcher: watcher })
}
