//! TLS to the broker. The broker's certificate is always verified, against the public authorities or those of
//! `broker.ca_file` alone.

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

/// Returns the TLS connector with the configured authorities and client certificate.
///
/// # Errors
/// Fails if a file cannot be used; the error names its setting.
pub(super) fn connector(settings: &BrokerSettings) -> Result<RustlsConnector, BrokerError> {
    // A configured authority replaces the public ones.
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
            let connector = config.connector_with_single_cert(chain, secret);
            connector.map_err(|error| unusable("broker.client_certificate_file", certificate, &error))
        }
        _ => config
            .connector_with_no_client_auth()
            .map_err(|error| BrokerError::Refused(format!("preparing TLS: {error}"))),
    }
}

fn certificates(key: &str, file: &str) -> Result<Vec<CertificateDer<'static>>, BrokerError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| unusable(key, file, &error))?;
    match certificates.is_empty() {
        true => Err(unusable(key, file, &"no certificate in it; expected PEM, -----BEGIN CERTIFICATE-----")),
        false => Ok(certificates),
    }
}

fn unusable(key: &str, file: &str, why: &dyn fmt::Display) -> BrokerError {
    BrokerError::Refused(format!("{key} = {file}: {why}"))
}

/// Connects: encrypted with a connector, unencrypted without.
pub(super) async fn connect(
    uri: AMQPUri,
    connector: Option<RustlsConnector>,
    properties: ConnectionProperties,
) -> lapin::Result<Connection> {
    Connection::connector(
        uri,
        runtime(),
        async move |uri, runtime| {
            let address = runtime.to_socket_addrs((uri.authority.host.clone(), uri.authority.port));
            let stream = AsyncTcpStream::connect(&Runtime::tokio_current(), address).await?;
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

/// Explains a TLS error with its remedy; `None` if TLS is not the cause.
pub(super) fn refusal(error: &lapin::Error) -> Option<String> {
    let ErrorKind::IOError(error) = error.kind() else { return None };
    let why = match tls_error(error)? {
        error @ TlsError::InvalidCertificate(cause) => {
            let remedy = match cause {
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
            format!("the broker's certificate is not trusted ({error}): {remedy}")
        }
        TlsError::AlertReceived(alert) if concerns_certificate(*alert) => format!(
            "the broker does not accept our certificate ({alert:?}): set broker.client_certificate_file and \
             broker.client_key_file to one of an authority that it trusts"
        ),
        TlsError::InvalidMessage(cause) => {
            format!("the broker does not speak TLS there ({cause:?}): is it the broker's port for TLS, usually 5671?")
        }
        _ => return None,
    };
    Some(why)
}

fn tls_error(error: &io::Error) -> Option<&TlsError> {
    let inner = error.get_ref()?;
    inner.downcast_ref::<TlsError>().or_else(|| tls_error(inner.downcast_ref::<io::Error>()?))
}

fn concerns_certificate(alert: AlertDescription) -> bool {
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
