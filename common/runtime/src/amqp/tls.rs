//! TLS to the broker: always verified, by the public authorities or by those of `broker.ca_file` alone.

use super::transport::{Transport, runtime};
use crate::{broker::BrokerError, config::BrokerSettings};
use async_rs::Runtime;
use lapin::{
    Connection, ConnectionProperties, ErrorKind,
    tcp::{AsyncTcpStream, RustlsConnector, RustlsConnectorConfig},
    uri::AMQPUri,
};
use rustls::{
    AlertDescription, CertificateError, Error as TlsError, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{fmt, io};

/// What verifies the broker and answers for us.
///
/// # Errors
/// When a file cannot be used, naming its setting.
pub(super) fn connector(settings: &BrokerSettings) -> Result<RustlsConnector, BrokerError> {
    // Not the public authorities as well: whoever names an authority means that one.
    let config = match &settings.ca_file {
        Some(file) => {
            let authorities = certificates("broker.ca_file", file)?;
            let mut usable = RootCertStore::empty();
            for authority in &authorities {
                usable.add(authority.clone()).map_err(|error| unusable("broker.ca_file", file, &error))?;
            }
            RustlsConnectorConfig::default().with_parsable_certificates(authorities)
        }
        None => RustlsConnectorConfig::new_with_webpki_root_certs(),
    };
    match (&settings.client_certificate_file, &settings.client_key_file) {
        (Some(certificate), Some(key)) => {
            let chain = certificates("broker.client_certificate_file", certificate)?;
            let secret = PrivateKeyDer::from_pem_file(key);
            let secret = secret.map_err(|error| unusable("broker.client_key_file", key, &error))?;
            let made = config.connector_with_single_cert(chain, secret);
            made.map_err(|error| unusable("broker.client_certificate_file", certificate, &error))
        }
        _ => config
            .connector_with_no_client_auth()
            .map_err(|error| BrokerError::Refused(format!("preparing TLS: {error}"))),
    }
}

fn certificates(key: &str, file: &str) -> Result<Vec<CertificateDer<'static>>, BrokerError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| unusable(key, file, &error))?;
    match found.is_empty() {
        true => Err(unusable(key, file, &"no certificate in it; expected PEM, -----BEGIN CERTIFICATE-----")),
        false => Ok(found),
    }
}

fn unusable(key: &str, file: &str, why: &dyn fmt::Display) -> BrokerError {
    BrokerError::Refused(format!("{key} = {file}: {why}"))
}

/// Connects: encrypted with a connector, in the clear without.
pub(super) async fn connect(
    uri: AMQPUri,
    connector: Option<RustlsConnector>,
    properties: ConnectionProperties,
) -> lapin::Result<Connection> {
    Connection::connector(
        uri,
        runtime(),
        async move |uri, runtime| {
            let place = runtime.to_socket_addrs((uri.authority.host.clone(), uri.authority.port));
            let stream = AsyncTcpStream::connect(&Runtime::tokio_current(), place).await?;
            let stream = match &connector {
                Some(connector) => stream.into_rustls(connector, &uri.authority.host).await?,
                None => stream,
            };
            Ok(AsyncTcpStream::Plain(Transport::from(stream)))
        },
        properties,
    )
    .await
}

/// Why the two sides do not trust each other, and the way out; `None` when that is not what failed.
pub(super) fn refusal(error: &lapin::Error) -> Option<String> {
    let ErrorKind::IOError(error) = error.kind() else { return None };
    let told = match tls_error(error)? {
        error @ TlsError::InvalidCertificate(why) => {
            let way_out = match why {
                CertificateError::UnknownIssuer => "name the file of the authority that signed it in broker.ca_file",
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    "use a name in broker.url that the certificate holds"
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "it has expired: give the broker a new one"
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "it is not valid yet: is this machine's clock right?"
                }
                _ => "give the broker another one",
            };
            format!("the broker's certificate is not trusted ({error}): {way_out}")
        }
        TlsError::AlertReceived(alert) if speaks_of_certificate(*alert) => format!(
            "the broker does not accept our certificate ({alert:?}): set broker.client_certificate_file and \
             broker.client_key_file to one of an authority that it trusts"
        ),
        TlsError::InvalidMessage(why) => {
            format!("no TLS is spoken there ({why:?}): is it the broker's port for TLS, usually 5671?")
        }
        _ => return None,
    };
    Some(told)
}

fn tls_error(error: &io::Error) -> Option<&TlsError> {
    let inner = error.get_ref()?;
    inner.downcast_ref::<TlsError>().or_else(|| tls_error(inner.downcast_ref::<io::Error>()?))
}

fn speaks_of_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::HandshakeFailure
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
    )
}
