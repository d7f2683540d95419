//! Tests of TLS to the broker: it is always verified, never silently omitted, and each refusal says what to do.

use pipeline_tests::{
    rabbitmq,
    tls::{Certificates, TlsRabbitMq},
};
use runtime::{
    AmqpBroker, Broker,
    broker::BrokerError,
    config::{AmqpUrl, BrokerSettings},
};
use std::io::Read;

fn settings(host: &str, port: u16, certificates: &Certificates, authority: Option<&str>) -> BrokerSettings {
    BrokerSettings {
        url: AmqpUrl::new(format!("amqps://guest:guest@{host}:{port}/%2f")),
        ca_file: authority.map(|name| certificates.file(name).display().to_string()),
        ..BrokerSettings::default()
    }
}

fn with_certificate(settings: BrokerSettings, certificates: &Certificates, key: &str) -> BrokerSettings {
    BrokerSettings {
        client_certificate_file: Some(certificates.file("client").display().to_string()),
        client_key_file: Some(certificates.file(key).display().to_string()),
        ..settings
    }
}

/// Connects and declares, which is enough for both connections to complete their handshakes.
async fn connects(settings: BrokerSettings) -> Result<(), BrokerError> {
    let broker = AmqpBroker::new(settings.clone());
    let connection = broker.connect("test").await?;
    connection.declare().await?;
    connection.publisher().await?;
    connection.close().await;
    Ok(())
}

async fn refusal(settings: BrokerSettings) -> String {
    match connects(settings).await {
        Err(BrokerError::Refused(why)) => why,
        other => panic!("expected a refusal for good, not {other:?}"),
    }
}

async fn started(certificates: &Certificates, demands_certificate: bool) -> Option<TlsRabbitMq> {
    tokio::task::block_in_place(|| TlsRabbitMq::start(certificates, demands_certificate))
}

/// A broker is accepted if its certificate is of the configured authority, for its name, and not expired. Otherwise it is
/// refused, and the error says what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_is_trusted_by_its_certificate_alone() {
    let certificates = Certificates::new();
    let Some(broker) = started(&certificates, false).await else { return };
    let at = |host, authority| settings(host, broker.port, &certificates, authority);
    connects(at("localhost", Some("ca"))).await.expect("the right authority");
    // A client certificate that the broker does not request does no harm.
    connects(with_certificate(at("localhost", Some("ca")), &certificates, "client-key")).await.expect("both sides");

    for (settings, parts) in [
        (at("localhost", Some("other-ca")), ["UnknownIssuer", "broker.ca_file"]),
        (at("localhost", None), ["UnknownIssuer", "broker.ca_file"]),
        (at("127.0.0.1", Some("ca")), ["not valid for", "broker.url"]),
    ] {
        let reason = refusal(settings).await;
        assert!(parts.iter().all(|part| reason.contains(part)), "{reason}");
        assert!(reason.contains(&broker.port.to_string()), "{reason}");
    }
    tokio::task::block_in_place(|| broker.let_certificate_expire());
    let reason = refusal(at("localhost", Some("ca"))).await;
    assert!(reason.contains("expired") && reason.contains("give the broker a new one"), "{reason}");
}

/// A broker that requires a client certificate accepts ours, and refuses a client without one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_requires_a_certificate_gets_ours() {
    let certificates = Certificates::new();
    let Some(broker) = started(&certificates, true).await else { return };
    let bare = settings("localhost", broker.port, &certificates, Some("ca"));
    connects(with_certificate(bare.clone(), &certificates, "client-key")).await.expect("with our certificate");
    let reason = refusal(bare.clone()).await;
    assert!(reason.contains("broker.client_certificate_file"), "{reason}");
    let reason = refusal(with_certificate(bare, &certificates, "server-key")).await;
    assert!(reason.contains("broker.client_certificate_file = "), "the key of another certificate: {reason}");
}

/// Missing files, and files that are not certificates, are named with their setting.
#[tokio::test]
async fn a_file_that_is_not_a_certificate_is_named() {
    let certificates = Certificates::new();
    let good = || settings("localhost", 1, &certificates, Some("ca"));
    let key = certificates.file("client-key").display().to_string();
    for (settings, setting) in [
        (BrokerSettings { ca_file: Some("/nowhere/ca.pem".to_owned()), ..good() }, "broker.ca_file = /nowhere/ca.pem"),
        (BrokerSettings { ca_file: Some(key), ..good() }, "broker.ca_file = "),
        (with_certificate(good(), &certificates, "ca"), "broker.client_key_file = "),
    ] {
        let reason = refusal(settings).await;
        assert!(reason.starts_with(setting), "{reason}");
    }
}

/// `amqps://` starts with a TLS handshake, whatever listens there, and fails without TLS: nothing is sent in the clear, least
/// of all the password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amqps_never_sends_plain_text() {
    const HANDSHAKE: u8 = 22;
    let certificates = Certificates::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let first = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut first = [0];
        stream.read_exact(&mut first).unwrap();
        first[0]
    });
    assert!(connects(settings("127.0.0.1", port, &certificates, Some("ca"))).await.is_err());
    assert_eq!(first.join().unwrap(), HANDSHAKE);

    let plain = tokio::task::block_in_place(rabbitmq::rabbitmq).url.replace("amqp://", "amqps://");
    let settings = BrokerSettings { url: AmqpUrl::new(plain), ..BrokerSettings::default() };
    let error = connects(settings).await.expect_err("no TLS is spoken there").to_string();
    assert!(error.contains("5671"), "{error}");
}
