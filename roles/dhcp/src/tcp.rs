//! The API over TCP: TLS unless it is on the loopback, and a token or a certificate for everything.
//!
//! Tokens, certificate and client CA are read again when their files change: a token that is taken
//! out of its file ends with the next request, a renewed certificate is shown at the next handshake.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bedrock::files::{Mark, mark};
use config_reader::Section;
use http_front::{Certificates, HttpLimits, Listener, Transport};
use role::RoleContext;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use tls_material::ClientVerifier;
use tokio::sync::watch;

use crate::access::{Grant, Tokens};
use crate::api::{Api, Gate};

/// A tokens file stays far below this.
const LONGEST_FILE: u64 = 64 * 1024;
/// The address may come later than we do.
const AGAIN: Duration = Duration::from_secs(10);
/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// `[roles.dhcp]`, `api_listen` and what goes with it.
#[derive(Debug, Clone)]
pub struct TcpConfig {
    pub listen: SocketAddr,
    pub tokens_file: Option<PathBuf>,
    /// Certificate and key; without them only the loopback is served.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Who issues certificates of clients, and what their names allow.
    pub clients: Option<(PathBuf, Vec<Grant>)>,
}

impl TcpConfig {
    /// Reads the keys; what does not go together is a violation.
    pub(crate) fn read(section: &mut Section<'_>) -> Option<Self> {
        let listen = section.optional::<SocketAddr>("api_listen", "give address:port");
        let tokens_file = section.optional_path("api_tokens_file");
        let certificate = section.optional_path("api_certificate_file");
        let key = section.optional_path("api_private_key_file");
        let certificate = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                let remedy = "give both api_certificate_file and api_private_key_file, or neither";
                section.violation("api_certificate_file", "goes with its key", remedy);
                None
            }
        };
        let authorities = section.optional_path("api_client_ca_file");
        let names: Vec<Grant> = section.list(
            "api_client_names",
            "give names of certificates and roles: [\"portal.example writer\"]",
        );
        let clients = match (authorities, names.is_empty()) {
            (Some(authorities), false) => Some((authorities, names)),
            (None, true) => None,
            _ => {
                let remedy = "give both api_client_ca_file and api_client_names, or neither";
                section.violation("api_client_ca_file", "goes with api_client_names", remedy);
                None
            }
        };
        let listen = listen?;
        if certificate.is_none() && !listen.ip().is_loopback() {
            let problem = format!("{listen} would take tokens in clear");
            let remedy =
                "give api_certificate_file and api_private_key_file, or a loopback address";
            section.violation("api_listen", problem, remedy);
        }
        if certificate.is_none() && clients.is_some() {
            let remedy = "give api_certificate_file and api_private_key_file";
            section.violation("api_client_ca_file", "needs TLS", remedy);
        }
        if tokens_file.is_none() && clients.is_none() {
            let remedy = "make one with: quickcloud dhcp token NAME --role reader >> FILE; or give \
                          api_client_ca_file";
            section.violation("api_tokens_file", "is missing beside api_listen", remedy);
            return None;
        }
        Some(Self { listen, tokens_file, certificate, clients })
    }

    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let pair = self.certificate.iter().flat_map(|(certificate, key)| [certificate, key]);
        pair.chain(self.tokens_file.as_ref()).chain(self.clients.iter().map(|(file, _)| file))
    }
}

/// What the files hold, all of it good.
struct Held {
    tokens: Tokens,
    pair: Option<Arc<CertifiedKey>>,
    authorities: Vec<CertificateDer<'static>>,
}

/// What is served of them.
struct Served {
    tokens: watch::Sender<Tokens>,
    certificates: Option<Certificates>,
    /// The CA file as the listener took it: a change of it needs a new one.
    authorities: Vec<CertificateDer<'static>>,
    marks: Vec<Mark>,
}

/// Listens for as long as the role runs; while it cannot, the Unix socket still serves.
pub(crate) async fn serve(config: TcpConfig, api: Api, cx: RoleContext) {
    let serving = async {
        loop {
            let end = match open(&config, &cx).await {
                Ok((listener, served)) => {
                    cx.health.clear_condition("api");
                    run(listener, served, &config, &api, &cx).await;
                    continue;
                }
                Err(text) => text,
            };
            tracing::warn!(error = end, "the DHCP API is not served over TCP");
            cx.health.set_condition("api", format!("the API is not served over TCP: {end}"));
            tokio::time::sleep(AGAIN).await;
        }
    };
    // Whatever serves ends with the role's own token, gracefully.
    let _ends = cx.shutdown.run_until_cancelled(serving).await;
}

/// Serves until the client CA's file says something else.
async fn run(listener: Listener, served: Served, config: &TcpConfig, api: &Api, cx: &RoleContext) {
    let limits = HttpLimits { connections: 100, ..HttpLimits::default() };
    let names = config.clients.as_ref().map(|(_, names)| names.clone()).unwrap_or_default();
    let gate = Gate::Tcp { tokens: served.tokens.subscribe(), names: names.into() };
    let router = api.clone().router(Some(gate));
    let stop = cx.shutdown.child_token();
    let _stops = stop.clone().drop_guard();
    let accepting = http_front::serve(listener, router, limits, cx.tasks.clone(), stop);
    tokio::select! {
        () = accepting => {}
        () = follow(served, config, cx) => {}
    }
}

/// Takes over what the files say, until the client CA is another one; a fault changes nothing.
async fn follow(mut served: Served, config: &TcpConfig, cx: &RoleContext) {
    loop {
        tokio::time::sleep(LOOK).await;
        let (files, seen) = (config.clone(), served.marks.clone());
        let look = move || {
            let marks: Vec<Mark> = files.files().map(|file| mark(file)).collect();
            // Half-written files are read once more when they are whole.
            let held = (marks != seen).then(|| read(&files));
            (marks, held)
        };
        let Ok((marks, Some(held))) = cx.tasks.blocking("api files", look).await else { continue };
        served.marks = marks;
        let taken = held.and_then(|held| {
            if let (Some(certificates), Some(pair)) = (&served.certificates, held.pair) {
                certificates.replace(vec![pair]).map_err(|error| bedrock::chain(&error))?;
            }
            served.tokens.send_replace(held.tokens);
            Ok(held.authorities == served.authorities)
        });
        match taken {
            Ok(same) => {
                tracing::info!("files of the DHCP API were read again");
                cx.health.clear_condition("api");
                if !same {
                    return;
                }
            }
            Err(error) => {
                tracing::error!(error, "what the DHCP API served stays");
                cx.health.set_condition("api", format!("a file of the API changed: {error}"));
            }
        }
    }
}

async fn open(config: &TcpConfig, cx: &RoleContext) -> Result<(Listener, Served), String> {
    let files = config.clone();
    let look = move || {
        let marks: Vec<Mark> = files.files().map(|file| mark(file)).collect();
        read(&files).map(|held| (held, marks))
    };
    let read = cx.tasks.blocking("api files", look).await;
    let (held, marks) = read.map_err(|error| bedrock::chain(&error))??;
    let certificates = held.pair.map(|pair| Certificates::new(vec![pair])).transpose();
    let certificates = certificates.map_err(|error| bedrock::chain(&error))?;
    let listener = Listener::tcp(config.listen).await.map_err(|error| bedrock::chain(&error))?;
    let listener = match &certificates {
        Some(certificates) if config.clients.is_some() => {
            let clients = ClientVerifier::new(held.authorities.clone());
            let clients = clients.map_err(|error| bedrock::chain(&error))?;
            listener.over_mutual_tls(certificates.clone(), clients)
        }
        Some(certificates) => {
            let certificates = Some(certificates.clone());
            listener.over(Transport { certificates, ..Transport::default() })
        }
        None => Ok(listener),
    };
    let listener = listener.map_err(|error| bedrock::chain(&error))?;
    let (tokens, _) = watch::channel(held.tokens);
    let authorities = held.authorities;
    Ok((listener, Served { tokens, certificates, authorities, marks }))
}

/// Reads all files. Blocks.
fn read(config: &TcpConfig) -> Result<Held, String> {
    let tokens = match &config.tokens_file {
        Some(file) => {
            let shown = file.display();
            let metadata = std::fs::metadata(file).map_err(|e| format!("{shown}: {e}"))?;
            if metadata.len() > LONGEST_FILE {
                return Err(format!("{shown} is too long for a file of tokens"));
            }
            let text = std::fs::read_to_string(file).map_err(|e| format!("{shown}: {e}"))?;
            Tokens::parse(&text).map_err(|error| format!("{shown}: {error}"))?
        }
        None => Tokens::default(),
    };
    let pair = config.certificate.as_ref().map(|(certificate, key)| {
        tls_material::read_pair(certificate, key).map_err(|error| bedrock::chain(&error))
    });
    let authorities = config.clients.as_ref().map(|(file, _)| {
        tls_material::read_certificates(file).map_err(|error| bedrock::chain(&error))
    });
    Ok(Held {
        tokens,
        pair: pair.transpose()?,
        authorities: authorities.transpose()?.unwrap_or_default(),
    })
}
