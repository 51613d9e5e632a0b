//! The TLS side of one connection attempt: what we offer, whom we trust, and what a failed
//! handshake means in words.
//!
//! TLS 1.2 only and no resumption: with either, the server would speak last in the handshake or
//! send a ticket outside the packets, and its side of the link swallows what comes early.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, CertificateError, ClientConfig};
use rustls_pki_types::CertificateDer;

use crate::certificates;
use crate::config::LinkConfig;
use crate::key_store::{ClientCertificate, KeyFileError};
use crate::trust::{Anchors, ServerVerifier, TrustError};

/// Everything a handshake needs, read fresh from disk.
#[derive(Debug, Clone)]
pub(crate) struct Material {
    pub(crate) config: Arc<ClientConfig>,
    /// The server's certificate is to be remembered.
    pub(crate) first_use: bool,
    /// Names and addresses of the certificate we offer; `None` without one.
    pub(crate) offered: Option<Vec<String>>,
}

/// Why no handshake can even be tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MaterialError {
    #[error(transparent)]
    File(#[from] KeyFileError),
    #[error("cannot set up TLS")]
    Setup(#[source] rustls::Error),
}

impl Material {
    /// Reads certificates and keys from disk; takes milliseconds, blocks.
    pub(crate) fn load(link: &LinkConfig) -> Result<Self, MaterialError> {
        let client = certificates::client_key(link)?;
        let issuers = client.as_ref().map(|key| key.issuers.as_slice()).unwrap_or_default();
        let ca_file = link.management.ca_file.as_deref();
        let store = match &link.management.client_certificate {
            Some(ClientCertificate::KeyStore { file, .. }) => Some(file.as_path()),
            _ => None,
        };
        let anchors = Anchors::load(ca_file, link.directory(), issuers, store)?;
        Self::new(anchors, client.map(|key| key.certified)).map_err(MaterialError::Setup)
    }

    pub(crate) fn new(
        anchors: Anchors,
        client: Option<Arc<CertifiedKey>>,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let first_use = anchors.is_first_use();
        let verifier = ServerVerifier::new(anchors, &provider);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12])?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let offered = client.as_ref().and_then(|key| key.cert.first()).map(alternative_names);
        let mut config = match client {
            Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), first_use, offered })
    }
}

/// Why a handshake failed, in words an operator can act on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error(
        "the management server demands a client certificate and we have none; set \
         management.client_cert_file and client_key_file (API issueCertificate), or turn \
         ca.plugin.root.auth.strictness off on the server"
    )]
    CertificateDemanded,
    #[error(
        "the management server refused our client certificate for {}: it must hold the address \
         the server sees us at, {source_address} unless that is translated on the way; issue one \
         with it (API issueCertificate, parameter ipaddress)",
        names.join(", ")
    )]
    AddressNotCertified { source_address: IpAddr, names: Vec<String> },
    #[error("the management server refused our client certificate for {}: {alert}", names.join(", "))]
    CertificateRefused { alert: String, names: Vec<String> },
    #[error("the management server ended the TLS handshake: {0}")]
    Refused(String),
    #[error(
        "the management server closed the connection during the TLS handshake: it prepares for \
         maintenance, limits new connections, or demands another client certificate"
    )]
    Closed,
    #[error(transparent)]
    Untrusted(TrustError),
    #[error("the TLS handshake did not end within {0:?}")]
    Timeout(std::time::Duration),
    #[error("cannot exchange the TLS handshake")]
    Io(#[source] std::io::Error),
    #[error("the TLS handshake failed")]
    Tls(#[source] rustls::Error),
}

impl HandshakeError {
    /// One side does not accept the other's certificate.
    pub(crate) fn is_about_trust(&self) -> bool {
        matches!(
            self,
            Self::Untrusted(_)
                | Self::CertificateDemanded
                | Self::AddressNotCertified { .. }
                | Self::CertificateRefused { .. }
        )
    }

    /// Puts the engine's error in words. `source_address` is our end of the connection.
    pub(crate) fn of(
        error: rustls::Error,
        source_address: Option<IpAddr>,
        offered: Option<&[String]>,
    ) -> Self {
        match error {
            rustls::Error::AlertReceived(alert) => Self::of_alert(alert, source_address, offered),
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
                match other.0.downcast_ref::<TrustError>() {
                    Some(refused) => Self::Untrusted(refused.clone()),
                    None => {
                        Self::Tls(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
                    }
                }
            }
            error => Self::Tls(error),
        }
    }

    fn of_alert(
        alert: AlertDescription,
        source_address: Option<IpAddr>,
        offered: Option<&[String]>,
    ) -> Self {
        let about_certificates = matches!(
            alert,
            AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateRequired
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::UnknownCA
        );
        match (offered, source_address) {
            (None, _) if about_certificates => Self::CertificateDemanded,
            (Some(names), Some(source_address))
                if alert == AlertDescription::CertificateUnknown =>
            {
                Self::AddressNotCertified { source_address, names: names.to_vec() }
            }
            (Some(names), _) if about_certificates => {
                Self::CertificateRefused { alert: format!("{alert:?}"), names: names.to_vec() }
            }
            // Servers other than Java's say no more than this without a certificate.
            (None, _) if alert == AlertDescription::HandshakeFailure => Self::Refused(
                "HandshakeFailure; it may demand a client certificate, and we have none".to_owned(),
            ),
            _ => Self::Refused(format!("{alert:?}")),
        }
    }
}

/// The subject alternative names of a certificate: DNS names and addresses as texts.
pub(crate) fn alternative_names(certificate: &CertificateDer<'static>) -> Vec<String> {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let Ok((_rest, parsed)) = X509Certificate::from_der(certificate.as_ref()) else {
        return vec!["an unreadable certificate".to_owned()];
    };
    let mut names = Vec::new();
    if let Ok(Some(extension)) = parsed.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => names.push(address_text(bytes)),
                _other => {}
            }
        }
    }
    if names.is_empty() {
        names.push("no name or address".to_owned());
    }
    names
}

fn address_text(bytes: &[u8]) -> String {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return IpAddr::from(v4).to_string();
    }
    match <[u8; 16]>::try_from(bytes) {
        Ok(v6) => IpAddr::from(v6).to_string(),
        Err(_odd) => "an odd address".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)));

    fn words(alert: AlertDescription, offered: Option<&[String]>) -> String {
        HandshakeError::of(rustls::Error::AlertReceived(alert), HERE, offered).to_string()
    }

    #[test]
    fn alerts_are_told_by_what_the_server_wants() {
        let names = ["10.0.0.5".to_owned()];
        let demanded = words(AlertDescription::BadCertificate, None);
        assert!(demanded.contains("demands a client certificate"), "{demanded}");
        let address = words(AlertDescription::CertificateUnknown, Some(&names));
        assert!(address.contains("10.0.0.9") && address.contains("10.0.0.5"), "{address}");
        let expired = words(AlertDescription::CertificateExpired, Some(&names));
        assert!(expired.contains("CertificateExpired"), "{expired}");
        let bare = words(AlertDescription::HandshakeFailure, None);
        assert!(bare.contains("may demand a client certificate"), "{bare}");
        let other = words(AlertDescription::HandshakeFailure, Some(&names));
        assert_eq!(other, "the management server ended the TLS handshake: HandshakeFailure");
    }

    #[test]
    fn the_names_of_a_certificate_are_read() {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["10.0.0.5".to_owned(), "v-2-VM".to_owned(), "::1".to_owned()];
        let params = rcgen::CertificateParams::new(names).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        assert_eq!(alternative_names(certificate.der()), ["10.0.0.5", "v-2-VM", "::1"]);
        let params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        assert_eq!(alternative_names(certificate.der()), ["no name or address"]);
    }
}
