//! The client certificate the management server provisions over the link.
//!
//! Two commands: one asks for a certificate request (new key), the other brings the certificate,
//! with a key of its own or for the request before. Files are written whole and take effect at
//! the next connect; the running link is never touched.
//!
//! ```text
//! cloud.key.new   key of the last certificate request, 0600, waits for its certificate
//! cloud.key       private key in use, 0600
//! cloud.crt       our certificate
//! cloud.ca.crt    the server's CA certificates; pinned besides management.ca_file
//! ```

use std::net::IpAddr;
use std::path::Path;

use bedrock::Secret;
use key_store::{CertificatesError, KeyError, PairError};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, RsaKeySize, SanType};
use rustls_pki_types::PrivateKeyDer;
use tls_material::{FileError, read_key, read_optional, read_pair};

use crate::client_certificate::ClientKey;
use crate::config::LinkConfig;
use crate::files::{self, WriteError};
use crate::trust::PROVISIONED_CA;

pub(crate) const KEY: &str = "cloud.key";
pub(crate) const REQUESTED_KEY: &str = "cloud.key.new";
pub(crate) const CERTIFICATE: &str = "cloud.crt";

/// Why a certificate command failed; becomes the details of the answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("cannot make a certificate request")]
    Request(#[source] rcgen::Error),
    #[error("there is no key for this certificate: none came with it and none was requested")]
    NoKey,
    #[error("cannot take certificates from the command")]
    Certificates(#[from] CertificatesError),
    #[error("cannot take a private key from the command")]
    Key(#[from] KeyError),
    #[error("the certificate of the command cannot be used")]
    Pair(#[from] PairError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Makes a new RSA key and a certificate request for this machine; returns the request as PEM.
/// `seen_at` is our end of the link: a strict server compares it with the certificate. Takes a
/// second or so, blocks.
pub(crate) fn make_request(
    directory: &Path,
    name: &str,
    seen_at: Option<IpAddr>,
) -> Result<String, CertificateError> {
    let mut addresses = crate::nic::reachable_addresses();
    if let Some(seen_at) = seen_at
        && !addresses.contains(&seen_at)
    {
        addresses.insert(0, seen_at);
    }
    let (key, request) = request_for(name, &addresses).map_err(CertificateError::Request)?;
    files::replace(&directory.join(REQUESTED_KEY), key.reveal().as_bytes(), files::PRIVATE)?;
    Ok(request)
}

fn request_for(name: &str, addresses: &[IpAddr]) -> Result<(Secret<String>, String), rcgen::Error> {
    let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationalUnitName, "cloudstack");
    params.distinguished_name.push(DnType::OrganizationName, "cloudstack");
    // The original writes "cloudstack" as country too, which is not a country code.
    params.subject_alt_names = addresses.iter().copied().map(SanType::IpAddress).collect();
    if let Ok(dns) = rcgen::string::Ia5String::try_from(name) {
        params.subject_alt_names.push(SanType::DnsName(dns));
    }
    let request = params.serialize_request(&key)?.pem()?;
    Ok((Secret::new(key.serialize_pem()), request))
}

/// Checks what the server sent and replaces the files; on an error nothing is replaced. Blocks.
pub(crate) fn install(
    directory: &Path,
    certificate: &str,
    private_key: &Secret<String>,
    ca_certificates: &str,
) -> Result<(), CertificateError> {
    let requested = directory.join(REQUESTED_KEY);
    let current = directory.join(KEY);
    let chain = key_store::certificates(certificate.as_bytes())?;
    key_store::certificates(ca_certificates.as_bytes())?;
    let sent = Some(private_key.reveal().as_str()).filter(|text| !text.trim().is_empty());
    let waiting = match sent {
        Some(_) => None,
        None => optional_key(&requested)?,
    };
    let becomes_current = sent.is_some() || waiting.is_some();
    let key = match (sent, waiting) {
        (Some(text), _) => key_store::private_key(text.as_bytes())?,
        (None, Some(waiting)) => waiting,
        (None, None) => optional_key(&current)?.ok_or(CertificateError::NoKey)?,
    };
    key_store::pair(chain, key)?;
    // The key last: until then the old key does not fit, and loading falls back to the new one.
    if let Some(text) = sent {
        files::replace(&requested, text.as_bytes(), files::PRIVATE)?;
    }
    files::replace(&directory.join(PROVISIONED_CA), ca_certificates.as_bytes(), files::PUBLIC)?;
    files::replace(&directory.join(CERTIFICATE), certificate.as_bytes(), files::PUBLIC)?;
    if becomes_current {
        files::rename(&requested, &current)?;
    }
    Ok(())
}

/// `None` when there is no such file; any other failure to read it is an error.
fn optional_key(path: &Path) -> Result<Option<PrivateKeyDer<'static>>, FileError> {
    match read_key(path) {
        Err(error) if error.is_absent() => Ok(None),
        read => read.map(Some),
    }
}

/// The certificate to offer: the configured or the provisioned one, whichever was issued later.
/// A provisioned one that is unusable is logged and left out; a configured one is an error.
pub(crate) fn client_key(link: &LinkConfig) -> Result<Option<ClientKey>, FileError> {
    let configured = match &link.management.client_certificate {
        Some(certificate) => Some(certificate.load()?),
        None => None,
    };
    let provisioned = match provisioned(link) {
        Ok(key) => key,
        Err(error) => {
            let error = bedrock::chain(&error);
            tracing::warn!(error, "the provisioned certificate is unusable, not offering it");
            None
        }
    };
    Ok(match (configured, provisioned) {
        (Some(configured), Some(provisioned)) => {
            Some(if issued_at(&provisioned) > issued_at(&configured) {
                provisioned
            } else {
                configured
            })
        }
        (one, other) => one.or(other),
    })
}

fn provisioned(link: &LinkConfig) -> Result<Option<ClientKey>, FileError> {
    let certificate = link.file(CERTIFICATE);
    if read_optional(&certificate)?.is_none() {
        return Ok(None);
    }
    let pair = |name: &str| read_pair(&certificate, &link.file(name));
    // A crash between the renames leaves the new key under its first name.
    let certified = pair(KEY).or_else(|error| pair(REQUESTED_KEY).map_err(|_second| error))?;
    Ok(Some(ClientKey { certified, issuers: Vec::new() }))
}

/// Begin of validity in seconds; unreadable counts as oldest.
fn issued_at(key: &ClientKey) -> i64 {
    key.certified.cert.first().map_or(i64::MIN, |own| key_store::certificate::issued_at(own))
}

#[cfg(test)]
mod tests;
