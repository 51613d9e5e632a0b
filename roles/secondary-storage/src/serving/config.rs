//! The keys of `[roles.secondary_storage]` about what is served.

use std::net::SocketAddr;
use std::path::PathBuf;

use bedrock::Secret;
use bedrock::net::Network;
use config_reader::Section;

/// Where and to whom the role serves.
#[derive(Debug, Clone)]
pub struct ServingConfig {
    /// Addresses of plain HTTP.
    pub listen: Vec<SocketAddr>,
    /// Addresses of HTTPS.
    pub tls_listen: Vec<SocketAddr>,
    /// What a reload changes.
    pub live: LiveServing,
}

/// Looked up anew for each request or renewal.
#[derive(Debug, Clone)]
pub struct LiveServing {
    /// Certificate chain and key that the operator has.
    pub tls_files: Option<TlsFiles>,
    /// Proxies that are believed about the client's address.
    pub trusted_proxies: Vec<Network>,
    pub copy: CopyAccess,
}

/// The operator's pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Who may fetch from `/copy/`, besides those whom the management server names.
#[derive(Debug, Clone, Default)]
pub struct CopyAccess {
    pub allowed: Vec<Network>,
    pub credentials: Option<Credentials>,
}

/// User and password of `/copy/`.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub user: String,
    pub password: Secret<String>,
}

/// The server's links name an address without a port.
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

impl ServingConfig {
    /// Reads the keys.
    pub fn read(section: &mut Section<'_>) -> Self {
        let listen = read_listen(section);
        let tls_listen = read_tls_listen(section, &listen);
        let trusted_proxies =
            section.list("trusted_proxies", "give networks such as \"10.0.0.0/8\"");
        let live = LiveServing {
            tls_files: read_files(section),
            trusted_proxies,
            copy: CopyAccess {
                allowed: section.list("copy_allowed", "give networks: [\"198.51.100.7\"]"),
                credentials: read_credentials(section),
            },
        };
        Self { listen, tls_listen, live }
    }
}

fn read_listen(section: &mut Section<'_>) -> Vec<SocketAddr> {
    let listen = section.list("listen", "give addresses with ports: [\"0.0.0.0:80\"]");
    if section.raw("listen").is_some() {
        return listen;
    }
    vec![([0, 0, 0, 0], HTTP_PORT).into()]
}

/// Beside every address with the port of plain HTTP, unless given.
fn read_tls_listen(section: &mut Section<'_>, listen: &[SocketAddr]) -> Vec<SocketAddr> {
    let given = section.list("tls_listen", "give addresses with ports: [\"0.0.0.0:443\"]");
    if section.raw("tls_listen").is_some() {
        for addr in &given {
            if listen.contains(addr) {
                section.violation(
                    "tls_listen",
                    format!("{addr} is in listen as well"),
                    "a port is served with TLS or without",
                );
            }
        }
        return given;
    }
    section.otherwise("tls_listen", "port 443 beside each port 80 of listen");
    let plain = listen.iter().filter(|addr| addr.port() == HTTP_PORT);
    plain.map(|addr| SocketAddr::new(addr.ip(), HTTPS_PORT)).collect()
}

fn read_files(section: &mut Section<'_>) -> Option<TlsFiles> {
    let certificate = section.optional_path("certificate_file");
    let key = section.optional_path("certificate_key_file");
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
        (Some(both), None) => Some(TlsFiles { key: both.clone(), certificate: both }),
        (None, Some(_)) => {
            let remedy = "give the certificate as well";
            section.violation("certificate_key_file", "is a key without a certificate", remedy);
            None
        }
        (None, None) => None,
    }
}

fn read_credentials(section: &mut Section<'_>) -> Option<Credentials> {
    let user: Option<String> = section.optional("copy_user", "give a name");
    let password = section.secret("copy_password");
    match (user, password) {
        (user, Some(password)) => {
            let user = user.unwrap_or_else(|| "cloud".to_owned());
            if user.contains(':') || password.reveal().is_empty() {
                let remedy = "give a name without a colon, and a password";
                section.violation("copy_user", "cannot be used with its password", remedy);
                return None;
            }
            Some(Credentials { user, password })
        }
        (Some(_), None) => {
            section.violation("copy_user", "has no password", "give copy_password as well");
            None
        }
        (None, None) => None,
    }
}
