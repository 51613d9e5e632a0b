//! Certificates of a listener: found by the name a client asks for, replaced while it serves.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The certified keys of one owner. Cloneable; clones share everything, so that whoever holds one
/// can renew what a listener serves.
#[derive(Clone)]
pub struct Certificates {
    keys: Arc<RwLock<Keys>>,
}

type Keys = Arc<[Arc<CertifiedKey>]>;

/// Why certificates cannot be served.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum CertificateError {
    #[error("there is no certificate to serve")]
    None,
    #[error("certificate {place} does not belong to its key")]
    Foreign { place: usize, source: rustls::Error },
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("keys", &self.current().len()).finish()
    }
}

impl Certificates {
    /// The first one is for clients that ask for no name, or for one that nobody has.
    pub fn new(keys: Vec<Arc<CertifiedKey>>) -> Result<Self, CertificateError> {
        Ok(Self { keys: Arc::new(RwLock::new(checked(keys)?)) })
    }

    /// Later handshakes see the new ones, all at once; a fault changes nothing.
    pub fn replace(&self, keys: Vec<Arc<CertifiedKey>>) -> Result<(), CertificateError> {
        let keys = checked(keys)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    fn current(&self) -> Keys {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn checked(keys: Vec<Arc<CertifiedKey>>) -> Result<Keys, CertificateError> {
    if keys.is_empty() {
        return Err(CertificateError::None);
    }
    for (index, key) in keys.iter().enumerate() {
        match key.keys_match() {
            // A key that cannot tell its public half is judged by the handshake.
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(source) => return Err(CertificateError::Foreign { place: index + 1, source }),
        }
    }
    Ok(keys.into())
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        choose(std::slice::from_ref(self), &hello)
    }
}

/// The certificate for the name asked for, of those whose key the client can check; else the first.
pub(crate) fn choose(
    owners: &[Certificates],
    hello: &ClientHello<'_>,
) -> Option<Arc<CertifiedKey>> {
    let keys: Vec<Arc<CertifiedKey>> =
        owners.iter().flat_map(|owner| owner.current().to_vec()).collect();
    let usable =
        || keys.iter().filter(|key| key.key.choose_scheme(hello.signature_schemes()).is_some());
    let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
    let named = name.and_then(|name| usable().find(|key| is_for(key, &name)));
    named.or_else(|| usable().next()).or(keys.first()).cloned()
}

fn is_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = key.cert.first().map(ParsedCertificate::try_from);
    parsed.is_some_and(|parsed| parsed.is_ok_and(|it| verify_server_name(&it, name).is_ok()))
}

/// The TLS settings of a listener.
pub(crate) fn server_config(
    resolver: Arc<dyn ResolvesServerCert>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions()?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
