//! A Java key store: the key with its chain, and the certificates it trusts.

use std::sync::Arc;

use bedrock::Secret;
use p12_keystore::{KeyStoreEntry, Pkcs12ImportPolicy};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::jks::{self, JavaKeyStore, JksError};
use crate::key::{PairError, pair};

/// Why a key store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    #[error("it cannot be opened as a JKS key store; check the file and its password")]
    Jks(#[source] JksError),
    #[error("it cannot be opened as a PKCS#12 key store; check the file and its password")]
    Pkcs12(#[source] p12_keystore::error::Error),
    #[error("there is no private key with a certificate in it; import both")]
    NoKey,
    #[error("the key of entry {0:?} is of no known form; give an RSA or EC key")]
    UnknownKey(String),
    #[error("entry {alias:?} is not a pair")]
    Pair { alias: String, source: PairError },
}

/// The first key of a store.
#[derive(Debug, Clone)]
pub struct KeyStore {
    /// As the store names it; only to be shown.
    pub alias: String,
    /// The key with its chain, its own certificate first.
    pub pair: Arc<CertifiedKey>,
    /// Certificates that the store trusts, besides the chain.
    pub issuers: Vec<CertificateDer<'static>>,
}

impl KeyStore {
    /// Reads a whole file; which kind it is is seen by its first bytes. The password holds for the
    /// store and for its key, as agents' stores have it.
    ///
    /// # Errors
    /// See [`KeyStoreError`].
    pub fn read(bytes: &[u8], password: &Secret<String>) -> Result<Self, KeyStoreError> {
        if bytes.starts_with(&jks::MAGIC) {
            Self::read_jks(bytes, password)
        } else {
            Self::read_pkcs12(bytes, password)
        }
    }

    fn read_jks(bytes: &[u8], password: &Secret<String>) -> Result<Self, KeyStoreError> {
        let store = JavaKeyStore::read(bytes, password.reveal()).map_err(KeyStoreError::Jks)?;
        let entry = store.keys.into_iter().find(|entry| !entry.chain.is_empty());
        let entry = entry.ok_or(KeyStoreError::NoKey)?;
        Self::of(entry.alias, entry.chain, entry.key.reveal(), store.certificates)
    }

    fn read_pkcs12(bytes: &[u8], password: &Secret<String>) -> Result<Self, KeyStoreError> {
        let policy = Pkcs12ImportPolicy::Relaxed;
        let store = p12_keystore::KeyStore::from_pkcs12(bytes, password.reveal(), policy)
            .map_err(KeyStoreError::Pkcs12)?;
        let (alias, entry) = store.private_key_chain().ok_or(KeyStoreError::NoKey)?;
        let der = |certificate: &p12_keystore::Certificate| {
            CertificateDer::from(certificate.as_der().to_vec())
        };
        let chain: Vec<_> = entry.certs().iter().map(der).collect();
        if chain.is_empty() {
            return Err(KeyStoreError::NoKey);
        }
        // Only those that keytool marked as trusted: since JDK 9 this is what it writes by default.
        let issuers = store.entries().filter_map(|(_alias, entry)| match entry {
            KeyStoreEntry::Certificate(issuer) => Some(der(issuer)),
            KeyStoreEntry::PrivateKeyChain(_) | KeyStoreEntry::Secret(_) => None,
        });
        Self::of(alias.to_owned(), chain, entry.key().as_der(), issuers.collect())
    }

    fn of(
        alias: String,
        chain: Vec<CertificateDer<'static>>,
        key: &[u8],
        issuers: Vec<CertificateDer<'static>>,
    ) -> Result<Self, KeyStoreError> {
        let Ok(key) = PrivateKeyDer::try_from(key) else {
            return Err(KeyStoreError::UnknownKey(alias));
        };
        match pair(chain, key.clone_key()) {
            Ok(pair) => Ok(Self { alias, pair, issuers }),
            Err(source) => Err(KeyStoreError::Pair { alias, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use p12_keystore::{Certificate, PrivateKey, PrivateKeyChain};

    use super::*;

    fn password() -> Secret<String> {
        Secret::new("vmops.com".to_owned())
    }

    #[test]
    fn certificates_that_a_pkcs12_store_trusts_are_issuers_as_those_of_a_jks_are() {
        let own_key = rcgen::KeyPair::generate().unwrap();
        let certificate = |key: &rcgen::KeyPair| {
            let params = rcgen::CertificateParams::new(vec!["s-1-VM".to_owned()]).unwrap();
            params.self_signed(key).unwrap().der().clone()
        };
        let (own, trusted) =
            (certificate(&own_key), certificate(&rcgen::KeyPair::generate().unwrap()));
        let key = PrivateKey::from_der(own_key.serialized_der()).unwrap();
        let chain = PrivateKeyChain::new(vec![1], key, [Certificate::from_der(&own).unwrap()]);
        let mut store = p12_keystore::KeyStore::new();
        store.add_entry("cloud", KeyStoreEntry::PrivateKeyChain(chain));
        let anchor = Certificate::from_der(&trusted).unwrap();
        store.add_entry("cloudca.1", KeyStoreEntry::Certificate(anchor));
        let bytes = store.writer(password().reveal()).write().unwrap();

        let read = KeyStore::read(&bytes, &password()).unwrap();
        assert_eq!(read.alias, "cloud");
        assert_eq!(read.pair.cert, [own]);
        assert_eq!(read.issuers, [trusted]);
        let wrong = KeyStore::read(&bytes, &Secret::new("x".to_owned())).unwrap_err();
        assert!(matches!(wrong, KeyStoreError::Pkcs12(_)), "{wrong:?}");
    }

    #[test]
    fn a_store_that_cannot_be_opened_is_told_by_its_kind() {
        let read = |bytes: &[u8]| bedrock::chain(&KeyStore::read(bytes, &password()).unwrap_err());
        let text = read(b"\xfe\xed\xfe\xed");
        assert!(text.contains("JKS key store") && text.contains("cut off"), "{text}");
        assert!(read(b"0\x82nothing").contains("PKCS#12 key store"));
        assert!(read(b"").contains("PKCS#12 key store"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(0_u8.., 0..300)) {
            let jks = [jks::MAGIC.as_slice(), &[0, 0, 0, 2], &bytes].concat();
            let pkcs12 = [&[0x30, 0x82], bytes.as_slice()].concat();
            for bytes in [bytes, jks, pkcs12] {
                proptest::prop_assert!(KeyStore::read(&bytes, &password()).is_err());
            }
        }
    }
}
