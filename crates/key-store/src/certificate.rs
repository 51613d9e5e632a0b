//! Certificates: read, written, and looked into.

use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What some editors put before the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// First byte of every certificate in DER: a SEQUENCE.
const DER_SEQUENCE: u8 = 0x30;

/// Why some bytes are not a list of certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    #[error("there is no certificate in it; give PEM with BEGIN CERTIFICATE, or one in DER")]
    None,
    #[error("it is not valid PEM; write it again from its source")]
    Pem(#[source] rustls_pki_types::pem::Error),
    #[error("certificate {0} in it cannot be read as X.509; write it again from its source")]
    Unreadable(usize),
}

/// Every certificate of a PEM text, in order, or the one of a DER file; at least one, and each can
/// be read.
///
/// # Errors
/// See [`CertificatesError`].
pub fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificatesError> {
    let bytes = without_mark(bytes);
    if bytes.first() == Some(&DER_SEQUENCE) {
        let certificate = CertificateDer::from(bytes.to_vec());
        return match public_key(&certificate) {
            Some(_key) => Ok(vec![certificate]),
            None => Err(CertificatesError::None),
        };
    }
    let found = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(CertificatesError::Pem)?;
    if found.is_empty() {
        return Err(CertificatesError::None);
    }
    match found.iter().position(|certificate| public_key(certificate).is_none()) {
        Some(position) => Err(CertificatesError::Unreadable(position + 1)),
        None => Ok(found),
    }
}

pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

/// The PEM text of these certificates, as [`certificates`] reads it.
pub fn to_pem<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>) -> String {
    let blocks: Vec<pem::Pem> = certificates
        .into_iter()
        .map(|certificate| pem::Pem::new("CERTIFICATE", certificate.as_ref()))
        .collect();
    pem::encode_many_config(&blocks, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
}

/// SHA-256 as tools print it, in lower case.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = Sha256::digest(certificate.as_ref());
    digest.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// The public key info; `None` when the bytes are not one whole certificate.
pub fn public_key(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (rest, parsed) = X509Certificate::from_der(certificate.as_ref()).ok()?;
    rest.is_empty().then(|| parsed.public_key().raw.to_vec())
}

/// Begin of validity in seconds since 1970; unreadable counts as oldest.
pub fn issued_at(certificate: &CertificateDer<'_>) -> i64 {
    X509Certificate::from_der(certificate.as_ref())
        .map_or(i64::MIN, |(_rest, parsed)| parsed.validity().not_before.timestamp())
}

/// End of validity in seconds since 1970; `None` for what cannot be read.
pub fn expires_at(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_rest, parsed) = X509Certificate::from_der(certificate.as_ref()).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

/// The subject alternative names: DNS names and addresses as texts; a text that says so when there
/// is none.
pub fn alternative_names(certificate: &CertificateDer<'_>) -> Vec<String> {
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

/// Under which names a client that shows the certificate may be known: its DNS names and addresses,
/// or, when it has no alternative names at all, the common name of its subject.
pub fn client_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_rest, parsed)) = X509Certificate::from_der(certificate.as_ref()) else {
        return Vec::new();
    };
    match parsed.subject_alternative_name() {
        Ok(Some(_extension)) => alternative_names(certificate),
        Ok(None) => {
            let names = parsed.subject().iter_common_name();
            names.filter_map(|name| name.as_str().ok().map(str::to_owned)).collect()
        }
        Err(_odd) => Vec::new(),
    }
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
    use super::*;

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(names).unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn what_is_written_is_read_whatever_stands_around_it() {
        let both = [certificate(&["a"]), certificate(&["b"])];
        let text = to_pem(&both);
        assert!(text.lines().all(|line| line.len() <= 64) && !text.contains('\r'));
        let decorated = format!("\u{feff}{}# a comment\n", text.replace('\n', "\r\n"));
        for text in [text, decorated] {
            assert_eq!(certificates(text.as_bytes()).unwrap(), both, "{text}");
        }
    }

    #[test]
    fn a_certificate_in_der_is_as_good_as_one_in_pem() {
        let one = certificate(&["a"]);
        assert_eq!(certificates(&one).unwrap(), std::slice::from_ref(&one));
        let mut longer = one.to_vec();
        longer.push(0);
        assert!(matches!(certificates(&longer), Err(CertificatesError::None)));
    }

    #[test]
    fn a_list_without_a_certificate_is_an_error() {
        let key = rcgen::KeyPair::generate().unwrap();
        for nothing in ["", "text", &key.serialize_pem(), "0"] {
            assert!(matches!(certificates(nothing.as_bytes()), Err(CertificatesError::None)));
        }
        let cut = "-----BEGIN CERTIFICATE-----\nA";
        assert!(matches!(certificates(cut.as_bytes()), Err(CertificatesError::Pem(_))));
        let odd = CertificateDer::from(vec![7; 9]);
        let text = to_pem([&certificate(&["a"]), &odd]);
        assert!(matches!(certificates(text.as_bytes()), Err(CertificatesError::Unreadable(2))));
    }

    #[test]
    fn the_names_of_a_certificate_are_read() {
        let names = ["10.0.0.5", "v-2-VM", "::1"];
        assert_eq!(alternative_names(&certificate(&names)), names);
        assert_eq!(alternative_names(&certificate(&[])), ["no name or address"]);
    }
}
