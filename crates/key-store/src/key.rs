//! Private keys, and a key together with the chain of its certificate.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::certificate::{public_key, without_mark};

/// Why some bytes are not a private key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("there is no private key in it; give PEM with BEGIN PRIVATE KEY")]
    None,
    #[error(
        "the private key in it is encrypted; write it without a passphrase (openssl pkey) into a \
         file that only this user may read"
    )]
    Encrypted,
    #[error("it is not valid PEM; write it again from its source")]
    Pem(#[source] rustls_pki_types::pem::Error),
}

/// Why a key and a chain of certificates are not a pair.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    #[error("there is no certificate that can be read; give the key's own certificate first")]
    NoCertificate,
    #[error("the key does not belong to the certificate; give the pair")]
    Mismatch,
    #[error("the key is not usable for TLS; give an RSA or EC key")]
    Unusable(#[source] rustls::Error),
}

/// The first private key of a PEM text, or the one of a DER file: PKCS#8, PKCS#1 or SEC1.
///
/// # Errors
/// See [`KeyError`].
pub fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, KeyError> {
    let bytes = without_mark(bytes);
    if let Ok(key) = PrivateKeyDer::try_from(bytes) {
        return Ok(key.clone_key());
    }
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
        rustls_pki_types::pem::Error::NoItemsFound if is_encrypted(bytes) => KeyError::Encrypted,
        rustls_pki_types::pem::Error::NoItemsFound => KeyError::None,
        _ if is_encrypted(bytes) => KeyError::Encrypted,
        error => KeyError::Pem(error),
    })
}

/// PKCS#8 with a passphrase, or the older form with headers inside the block.
fn is_encrypted(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

/// Joins a key and its chain. The TLS library's own comparison refuses certificates of version 1,
/// which small CAs still issue.
///
/// # Errors
/// [`PairError::Mismatch`] when the key does not belong to the first certificate, and see there.
pub fn pair(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, PairError> {
    let key = aws_lc_rs::default_provider()
        .key_provider
        .load_private_key(key)
        .map_err(PairError::Unusable)?;
    let certified = chain.first().and_then(public_key).ok_or(PairError::NoCertificate)?;
    if key.public_key().is_some_and(|own| own.as_ref() != certified) {
        return Err(PairError::Mismatch);
    }
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates;

    /// Version 1, as `openssl x509 -req` without extensions makes it, and its key.
    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\n\
    MIIBFzCBvQIURe+gFKfm87V2yLsM/6tKeIreJ6gwCgYIKoZIzj0EAwIwDTELMAkG\n\
    A1UEAwwCdjEwIBcNMjYxMTI0MTQwMTMyWhgPMjEyNjEwMzExNDAxMzJaMA0xCzAJ\n\
    BgNVBAMMAnYxMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEq/KM0/XQKCVjsVum\n\
    V5EDEEOQyzXK/B0scH0YelQAyjO5jFtoeYkqBibweuD8tFWYFp5eeofksUj2GZxx\n\
    qqCzsTAKBggqhkjOPQQDAgNJADBGAiEA0+CfNxitMOHl/rLVp0jhS6tcj2AabNZr\n\
    VBGsKp3NWNkCIQD5Qj0g/oLRoz8igELYE8hSUCQEyV8susF+UlGcO8gOHA==\n\
    -----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
    MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgqaek7TJwHCS5IICO\n\
    KTuMH1rF5PQJPgs6VjOsj36HI7OhRANCAASr8ozT9dAoJWOxW6ZXkQMQQ5DLNcr8\n\
    HSxwfRh6VADKM7mMW2h5iSoGJvB64Py0VZgWnl56h+SxSPYZnHGqoLOx\n\
    -----END PRIVATE KEY-----\n";

    #[test]
    fn a_certificate_of_version_1_is_as_good_as_any() {
        let chain = certificates(CERTIFICATE.as_bytes()).unwrap();
        pair(chain, private_key(KEY.as_bytes()).unwrap()).unwrap();
    }

    #[test]
    fn a_foreign_key_is_told_apart() {
        let chain = certificates(CERTIFICATE.as_bytes()).unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        let key = private_key(other.serialized_der()).unwrap();
        assert!(matches!(pair(chain, key), Err(PairError::Mismatch)));
        let key = private_key(KEY.as_bytes()).unwrap();
        assert!(matches!(pair(Vec::new(), key), Err(PairError::NoCertificate)));
    }

    #[test]
    fn a_key_with_a_passphrase_is_told_apart_from_none() {
        let encrypted = KEY.replace("PRIVATE", "ENCRYPTED PRIVATE");
        assert!(matches!(private_key(encrypted.as_bytes()), Err(KeyError::Encrypted)));
        let older = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
                     DEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        assert!(matches!(private_key(older.as_bytes()), Err(KeyError::Encrypted)));
        assert!(matches!(private_key(CERTIFICATE.as_bytes()), Err(KeyError::None)));
        assert!(matches!(private_key(b""), Err(KeyError::None)));
    }
}
