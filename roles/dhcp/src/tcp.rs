//! The API over TCP: TLS unless it is on the loopback, and a token for everything.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use config_reader::Section;
use http_front::{Certificates, HttpLimits, Listener, Transport};
use role::RoleContext;

use crate::access::Tokens;
use crate::api::Api;

/// A tokens file stays far below this.
const LONGEST_FILE: u64 = 64 * 1024;
/// The address may come later than we do.
const AGAIN: Duration = Duration::from_secs(10);

/// `[roles.dhcp]`, `api_listen` and what goes with it.
#[derive(Debug, Clone)]
pub struct TcpConfig {
    pub listen: SocketAddr,
    pub tokens_file: PathBuf,
    /// Certificate and key; without them only the loopback is served.
    pub certificate: Option<(PathBuf, PathBuf)>,
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
        let listen = listen?;
        if certificate.is_none() && !listen.ip().is_loopback() {
            let problem = format!("{listen} would take tokens in clear");
            let remedy =
                "give api_certificate_file and api_private_key_file, or a loopback address";
            section.violation("api_listen", problem, remedy);
        }
        let Some(tokens_file) = tokens_file else {
            let remedy = "make one with: quickcloud dhcp token NAME --role reader >> FILE";
            section.violation("api_tokens_file", "is missing beside api_listen", remedy);
            return None;
        };
        Some(Self { listen, tokens_file, certificate })
    }
}

/// Listens for as long as the role runs; while it cannot, the Unix socket still serves.
pub(crate) async fn serve(config: TcpConfig, api: Api, cx: RoleContext) {
    let opening = async {
        loop {
            match open(&config, &cx).await {
                Ok(both) => return both,
                Err(text) => {
                    tracing::warn!(error = text, "the DHCP API is not served over TCP");
                    let text = format!("the API is not served over TCP: {text}");
                    cx.health.set_condition("api", text);
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    let Some((listener, tokens)) = cx.shutdown.run_until_cancelled(opening).await else { return };
    cx.health.clear_condition("api");
    let limits = HttpLimits { connections: 100, ..HttpLimits::default() };
    let router = api.router(Some(tokens));
    http_front::serve(listener, router, limits, cx.tasks.clone(), cx.shutdown.clone()).await;
}

async fn open(config: &TcpConfig, cx: &RoleContext) -> Result<(Listener, Tokens), String> {
    let files = config.clone();
    let read = move || {
        let shown = files.tokens_file.display();
        let metadata =
            std::fs::metadata(&files.tokens_file).map_err(|e| format!("{shown}: {e}"))?;
        if metadata.len() > LONGEST_FILE {
            return Err(format!("{shown} is too long for a file of tokens"));
        }
        let text =
            std::fs::read_to_string(&files.tokens_file).map_err(|e| format!("{shown}: {e}"))?;
        let tokens = Tokens::parse(&text).map_err(|error| format!("{shown}: {error}"))?;
        let pair = files.certificate.map(|(certificate, key)| {
            tls_material::read_pair(&certificate, &key).map_err(|error| bedrock::chain(&error))
        });
        Ok((tokens, pair.transpose()?))
    };
    let read = cx.tasks.blocking("api files", read).await;
    let (tokens, pair) = read.map_err(|error| bedrock::chain(&error))??;
    let certificates = pair.map(|pair| Certificates::new(vec![pair])).transpose();
    let certificates = certificates.map_err(|error| bedrock::chain(&error))?;
    let listener = Listener::tcp(config.listen).await.map_err(|error| bedrock::chain(&error))?;
    let listener = listener.over(Transport { certificates, ..Transport::default() });
    Ok((listener.map_err(|error| bedrock::chain(&error))?, tokens))
}
