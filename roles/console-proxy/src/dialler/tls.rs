//! TLS towards hosts, as the client.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use tls_material::{HostTrust, HostVerifier};
use tokio_rustls::TlsConnector;

use super::{BoxStream, Dialling, StartTls};
use crate::certificate::date;
use crate::config::HostTlsPolicy;
use crate::refusal::VncServerError;

/// TLS with a KVM host: both sides have certificates of the management server's CA.
pub(super) fn start(host: String, dialling: Dialling) -> StartTls {
    Box::new(move |stream| {
        Box::pin(async move {
            let credentials = dialling.credentials.credentials().await;
            let credentials = credentials.map_err(VncServerError::Credentials)?;
            let trust = match dialling.policy {
                HostTlsPolicy::Verify => HostTrust::Verify,
                HostTlsPolicy::VerifyIgnoreExpiry => HostTrust::IgnoreExpiry,
                HostTlsPolicy::AcceptAny | HostTlsPolicy::Off => HostTrust::Any,
            };
            let verifier = HostVerifier::new(trust, &credentials.authorities);
            let has_certificate = credentials.client.is_some();
            let builder = builder(Arc::clone(&verifier))?;
            let config = match credentials.client {
                Some(key) => {
                    builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
                }
                None => builder.with_no_client_auth(),
            };
            let stream = connect(stream, &host, config).await;
            let stream = stream.map_err(|error| in_words(error, Some(has_certificate)))?;
            if let Some(ended) = verifier.expired() {
                dialling.metrics.expired_host();
                let ended = date(ended).unwrap_or_default();
                tracing::warn!(host, ended, "the host's certificate has expired; issue a new one");
            }
            Ok(stream)
        })
    })
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn builder(verifier: Arc<HostVerifier>) -> Result<Builder, VncServerError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| {
        VncServerError::Tls("TLS cannot be set up".to_owned(), io::Error::other(error))
    })?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
}

/// TLS with a XenServer or ESXi host, whose certificate its own installation made: encrypted, to
/// whoever answers, as the original does. What admits us there is the session or ticket.
pub(super) async fn to_anyone(
    stream: tokio::net::TcpStream,
    host: &str,
) -> Result<BoxStream, VncServerError> {
    let config = builder(HostVerifier::new(HostTrust::Any, &[]))?.with_no_client_auth();
    let connected = connect(Box::new(stream), host, config).await;
    connected.map_err(|error| in_words(error, None))
}

async fn connect(stream: BoxStream, host: &str, config: ClientConfig) -> io::Result<BoxStream> {
    // A scope of a link-local address is not part of a name.
    let name = host.split('%').next().unwrap_or(host).to_owned();
    let name = ServerName::try_from(name).map_err(io::Error::other)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    Ok(Box::new(stream))
}

/// A failure on a connection that is encrypted, or was to be. In TLS 1.3 a host judges our certificate
/// when the handshake is over for us: so this is asked of later errors too.
pub(crate) fn of_stream(error: io::Error) -> VncServerError {
    let is_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    if is_tls { in_words(error, None) } else { VncServerError::Io(error) }
}

fn in_words(error: io::Error, has_certificate: Option<bool>) -> VncServerError {
    VncServerError::Tls(words(&error, has_certificate), error)
}

/// What a failed handshake means for people.
fn words(error: &io::Error, has_certificate: Option<bool>) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let text = match tls {
        Some(rustls::Error::InvalidCertificate(error)) => match error {
            CertificateError::UnknownIssuer => {
                "the host's certificate was not issued by the management server's CA"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the host's certificate has expired"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the host's certificate is for other names and addresses"
            }
            _ => "the host's certificate is of no use",
        },
        Some(rustls::Error::AlertReceived(alert)) if is_about_certificates(*alert) => {
            let missing = *alert == AlertDescription::CertificateRequired;
            if has_certificate.map_or(!missing, |has| has) {
                "the host does not accept the console proxy's certificate"
            } else {
                "the host wants a certificate, and the management server has issued none to the \
                 console proxy"
            }
        }
        Some(rustls::Error::AlertReceived(_) | rustls::Error::PeerIncompatible(_)) => {
            "the host and the console proxy have no cipher or version in common"
        }
        _ => "the host ended the TLS handshake",
    };
    text.to_owned()
}

fn is_about_certificates(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateRequired
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
    )
}
