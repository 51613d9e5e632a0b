//! The client certificate: from PEM files, or taken over from a stock agent's key store.
//!
//! Nothing here is kept: files are read again at each connect, so that a certificate replaced on
//! disk is used at the next one, as stock agents do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bedrock::Secret;
use p12_keystore::{KeyStore, KeyStoreEntry, Pkcs12ImportPolicy};
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::jks::{self, JavaKeyStore, JksError};

/// Password of a stock agent's key store when nobody ever set one. Published with its source.
const STOCK_PASSWORD: &str = "vmops.com";
/// No certificate bundle and no key store of an agent comes near it.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Where the client certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificate {
    /// Certificate chain and private key, each a PEM file.
    Pem { certificate: PathBuf, key: PathBuf },
    /// A JKS or PKCS#12 file; which of the two is seen by its first bytes.
    KeyStore { file: PathBuf, password_file: Option<PathBuf> },
}

/// Why a certificate, key or key store file is of no use. Every text ends with a remedy.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("cannot read {}; check that it exists and that this user may read it", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} has more than {MAX_FILE_BYTES} bytes; give a PEM file or a key store", .0.display())]
    TooLarge(PathBuf),
    #[error("{} holds no PEM certificate; give a file with BEGIN CERTIFICATE", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} is not valid PEM; write it again from its source", path.display())]
    Pem { path: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("{} holds no private key; give a PEM file with BEGIN PRIVATE KEY", .0.display())]
    NoKey(PathBuf),
    #[error("cannot open the key store {}; check the file and its password", path.display())]
    Jks { path: PathBuf, source: JksError },
    #[error("cannot open the PKCS#12 key store {}; check the file and its password", path.display())]
    Pkcs12 { path: PathBuf, source: p12_keystore::error::Error },
    #[error("the key store {} holds no private key with a certificate; import both", .0.display())]
    NoKeyEntry(PathBuf),
    #[error("the key in {} does not belong to the certificate; give the pair", .0.display())]
    Mismatch(PathBuf),
    #[error("the key in {} is of no use for TLS; give an RSA or EC key", path.display())]
    Unusable { path: PathBuf, source: rustls::Error },
}

/// A private key with its chain, ready for the handshake.
#[derive(Debug, Clone)]
pub(crate) struct ClientKey {
    pub(crate) certified: Arc<CertifiedKey>,
    /// Certificates of issuers that a key store held besides.
    pub(crate) issuers: Vec<CertificateDer<'static>>,
}

impl ClientCertificate {
    /// Reads the files and checks that the key fits its certificate.
    pub(crate) fn load(&self) -> Result<ClientKey, KeyFileError> {
        match self {
            Self::Pem { certificate, key } => {
                let chain = read_certificates(certificate)?;
                Ok(ClientKey {
                    certified: certified(chain, read_key(key)?, key)?,
                    issuers: Vec::new(),
                })
            }
            Self::KeyStore { file, password_file } => {
                load_key_store(file, password_file.as_deref())
            }
        }
    }
}

/// Every certificate of a PEM file, in order; at least one.
pub(crate) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, KeyFileError> {
    let bytes = read_bounded(path)?;
    let certificates = certificates_of(&bytes)
        .map_err(|source| KeyFileError::Pem { path: path.to_owned(), source })?;
    if certificates.is_empty() {
        return Err(KeyFileError::NoCertificate(path.to_owned()));
    }
    Ok(certificates)
}

/// Every certificate of a PEM text.
pub(crate) fn certificates_of(
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, rustls_pki_types::pem::Error> {
    CertificateDer::pem_slice_iter(pem).collect()
}

/// The first private key of a PEM file: PKCS#8, PKCS#1 or SEC1.
pub(crate) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, KeyFileError> {
    let bytes = Secret::new(read_bounded(path)?);
    PrivateKeyDer::from_pem_slice(bytes.reveal()).map_err(|source| match source {
        rustls_pki_types::pem::Error::NoItemsFound => KeyFileError::NoKey(path.to_owned()),
        source => KeyFileError::Pem { path: path.to_owned(), source },
    })
}

/// Joins a key and its chain; fails when the key does not belong to the first certificate. The
/// TLS library's own comparison refuses certificates of version 1, which small CAs still issue.
pub(crate) fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    path: &Path,
) -> Result<Arc<CertifiedKey>, KeyFileError> {
    let key = aws_lc_rs::default_provider()
        .key_provider
        .load_private_key(key)
        .map_err(|source| KeyFileError::Unusable { path: path.to_owned(), source })?;
    let certified = chain.first().and_then(public_key);
    let certified = certified.ok_or_else(|| KeyFileError::NoCertificate(path.to_owned()))?;
    let own = key.public_key();
    if own.is_some_and(|own| own.as_ref() != certified) {
        return Err(KeyFileError::Mismatch(path.to_owned()));
    }
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}

/// The public key info of a certificate; `None` when it is not one.
pub(crate) fn public_key(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let (rest, parsed) = X509Certificate::from_der(certificate.as_ref()).ok()?;
    rest.is_empty().then(|| parsed.public_key().raw.to_vec())
}

fn load_key_store(file: &Path, password_file: Option<&Path>) -> Result<ClientKey, KeyFileError> {
    let bytes = Secret::new(read_bounded(file)?);
    let password = match password_file {
        Some(path) => read_password(path)?,
        None => Secret::new(STOCK_PASSWORD.to_owned()),
    };
    if bytes.reveal().starts_with(&jks::MAGIC) {
        let store = JavaKeyStore::read(bytes.reveal(), password.reveal())
            .map_err(|source| KeyFileError::Jks { path: file.to_owned(), source })?;
        let entry = store.keys.into_iter().find(|entry| !entry.chain.is_empty());
        let entry = entry.ok_or_else(|| KeyFileError::NoKeyEntry(file.to_owned()))?;
        tracing::debug!(path = %file.display(), alias = entry.alias, "read JKS key entry");
        let key = private_key(entry.key.reveal(), file)?;
        let certified = certified(entry.chain, key, file)?;
        return Ok(ClientKey { certified, issuers: store.certificates });
    }
    let policy = Pkcs12ImportPolicy::Relaxed;
    let store = KeyStore::from_pkcs12(bytes.reveal(), password.reveal(), policy)
        .map_err(|source| KeyFileError::Pkcs12 { path: file.to_owned(), source })?;
    let (alias, entry) =
        store.private_key_chain().ok_or_else(|| KeyFileError::NoKeyEntry(file.to_owned()))?;
    tracing::debug!(path = %file.display(), alias, "read PKCS#12 key entry");
    let chain: Vec<_> = entry
        .certs()
        .iter()
        .map(|certificate| CertificateDer::from(certificate.as_der().to_vec()))
        .collect();
    if chain.is_empty() {
        return Err(KeyFileError::NoKeyEntry(file.to_owned()));
    }
    let certified = certified(chain, private_key(entry.key().as_der(), file)?, file)?;
    // Only those that keytool marked as trusted: since JDK 9 this is what it writes by default.
    let issuers = store.entries().filter_map(|(_alias, entry)| match entry {
        KeyStoreEntry::Certificate(issuer) => Some(CertificateDer::from(issuer.as_der().to_vec())),
        KeyStoreEntry::PrivateKeyChain(_) | KeyStoreEntry::Secret(_) => None,
    });
    Ok(ClientKey { certified, issuers: issuers.collect() })
}

fn private_key(der: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, KeyFileError> {
    PrivateKeyDer::try_from(der.to_vec()).map_err(|_unknown| KeyFileError::NoKey(path.to_owned()))
}

/// The first line of the file, without its line end.
fn read_password(path: &Path) -> Result<Secret<String>, KeyFileError> {
    let bytes = Secret::new(read_bounded(path)?);
    let text = String::from_utf8_lossy(bytes.reveal());
    Ok(Secret::new(text.lines().next().unwrap_or_default().to_owned()))
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, KeyFileError> {
    use std::io::Read;
    let read = |source| KeyFileError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(read)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(read)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(KeyFileError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn pair(certificate: &str, key: &str) -> Result<ClientKey, String> {
        let directory = tempfile::tempdir().unwrap();
        let files = [directory.path().join("c.pem"), directory.path().join("k.pem")];
        std::fs::write(&files[0], certificate).unwrap();
        std::fs::write(&files[1], key).unwrap();
        let [certificate, key] = files;
        let loaded = ClientCertificate::Pem { certificate, key }.load();
        loaded.map_err(|error| bedrock::chain(&error))
    }

    #[test]
    fn a_certificate_of_version_1_is_as_good_as_any() {
        pair(CERTIFICATE, KEY).unwrap();
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_with_its_name_and_a_remedy() {
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        for (certificate, key, expected) in [
            (
                CERTIFICATE,
                other.as_str(),
                "k.pem does not belong to the certificate; give the pair",
            ),
            (CERTIFICATE, "", "k.pem holds no private key; give a PEM file with BEGIN PRIVATE KEY"),
            ("", KEY, "c.pem holds no PEM certificate; give a file with BEGIN CERTIFICATE"),
            (KEY, KEY, "c.pem holds no PEM certificate"),
            ("-----BEGIN CERTIFICATE-----\nA", KEY, "c.pem is not valid PEM; write it again"),
        ] {
            let error = pair(certificate, key).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn certificates_that_a_pkcs12_store_trusts_are_issuers_as_those_of_a_jks_are() {
        use p12_keystore::{Certificate, PrivateKey, PrivateKeyChain};
        let authority = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["ca".to_owned()]).unwrap();
        let trusted = params.self_signed(&authority).unwrap();
        let own = certificates_of(CERTIFICATE.as_bytes()).unwrap().remove(0);
        let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
        let key = PrivateKey::from_der(key.secret_der()).unwrap();
        let chain = PrivateKeyChain::new(vec![1], key, [Certificate::from_der(&own).unwrap()]);
        let mut store = KeyStore::new();
        store.add_entry("cloud", KeyStoreEntry::PrivateKeyChain(chain));
        let anchor = Certificate::from_der(trusted.der()).unwrap();
        store.add_entry("cloudca.1", KeyStoreEntry::Certificate(anchor));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cloud.jks");
        std::fs::write(&file, store.writer(STOCK_PASSWORD).write().unwrap()).unwrap();

        let loaded = ClientCertificate::KeyStore { file, password_file: None }.load().unwrap();
        assert_eq!(loaded.certified.cert, [own]);
        assert_eq!(loaded.issuers, [trusted.der().clone()]);
    }

    #[test]
    fn a_key_store_that_cannot_be_opened_is_told_by_its_kind() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cloud.jks");
        let load = |content: &[u8]| {
            std::fs::write(&file, content).unwrap();
            let store = ClientCertificate::KeyStore { file: file.clone(), password_file: None };
            bedrock::chain(&store.load().unwrap_err())
        };
        let text = load(b"\xfe\xed\xfe\xed");
        assert!(text.contains("cannot open the key store") && text.contains("cut off"), "{text}");
        let text = load(b"0\x82nothing");
        assert!(text.contains("cannot open the PKCS#12 key store"), "{text}");
    }
}
