//! The certificate that browsers are shown: where it comes from, and whether it is the right one.
//!
//! Three sources, the first that has one counts: the operator's files, read again when they change;
//! the management server's key store, which comes with every registration; one of our own. A better
//! one takes effect at the next handshake, and no open console notices.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bedrock::Secret;
use http_front::{CertificateError, Certificates};
use key_store::certificate::{alternative_names, expires_at};
use key_store::{KeyStore, KeyStoreError, fingerprint};
use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use status_api::CertificateStatus;
use tokio::sync::watch;

mod watch_files;

pub(crate) use watch_files::{keep_files, read_files};

/// Where a certificate comes from, the best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Own,
    Server,
    Files,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "self-signed",
            Self::Server => "management server",
            Self::Files => "files",
        })
    }
}

/// Why the management server's key store cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeliveryError {
    #[error("the key store from the management server is of no use")]
    KeyStore(#[source] KeyStoreError),
    #[error("the certificate from the management server cannot be served")]
    Served(#[source] CertificateError),
}

#[derive(Default)]
struct State {
    /// By source; at most one each.
    offered: Vec<(Source, Arc<CertifiedKey>)>,
    served: Option<(Source, Certificates)>,
    /// A name that a browser asked for and the certificate has not.
    unmatched: Option<String>,
}

/// The certificate of this moment, and those it would fall back to.
pub(crate) struct BrowserCertificate {
    state: Mutex<State>,
    /// The host in the server's links, where that is known.
    expected: Option<String>,
    available: watch::Sender<bool>,
}

impl fmt::Debug for BrowserCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrowserCertificate").field("expected", &self.expected).finish()
    }
}

impl BrowserCertificate {
    pub(crate) fn new(expected: Option<String>) -> Self {
        Self { state: Mutex::default(), expected, available: watch::Sender::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what a source has now. One that ends (`None`) leaves what is served until there
    /// is another one.
    pub(crate) fn offer(
        &self,
        source: Source,
        pair: Option<Arc<CertifiedKey>>,
    ) -> Result<(), CertificateError> {
        let mut state = self.lock();
        if let Some(pair) = &pair {
            // A pair that is none must not push out one that is.
            Certificates::new(vec![Arc::clone(pair)])?;
        }
        state.offered.retain(|(other, _)| *other != source);
        state.offered.extend(pair.map(|pair| (source, pair)));
        let best = state.offered.iter().max_by_key(|(source, _)| *source).cloned();
        let Some((source, pair)) = best else { return Ok(()) };
        let names = pair.cert.first().map(|own| alternative_names(own)).unwrap_or_default();
        match &mut state.served {
            Some((served, certificates)) => {
                certificates.replace(vec![pair])?;
                *served = source;
            }
            none => *none = Some((source, Certificates::new(vec![pair])?)),
        }
        state.unmatched = None;
        drop(state);
        tracing::info!(%source, names = names.join(", "), "certificate for browsers");
        if let Some(problem) = self.problem() {
            tracing::warn!(problem, "browsers will not accept the certificate");
        }
        self.available.send_replace(true);
        Ok(())
    }

    /// Takes over the server's key store, or that it sends none.
    pub(crate) fn deliver(
        &self,
        key_store: Option<(&[u8], &Secret<String>)>,
    ) -> Result<(), DeliveryError> {
        let pair = match key_store {
            Some((bytes, password)) => {
                Some(KeyStore::read(bytes, password).map_err(DeliveryError::KeyStore)?.pair)
            }
            None => None,
        };
        self.offer(Source::Server, pair).map_err(DeliveryError::Served)
    }

    /// What listeners serve, once there is anything.
    pub(crate) async fn first(&self) -> Certificates {
        let mut available = self.available.subscribe();
        loop {
            if let Some((_, certificates)) = &self.lock().served {
                return certificates.clone();
            }
            // The sender lives as long as `self`.
            available.changed().await.ok();
        }
    }

    /// A browser opened the page under this name. Told once per name, and in the status.
    pub(crate) fn asked_for(&self, host: &str) {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let mut state = self.lock();
        let Some(certificate) = state.current() else { return };
        if is_for(&certificate, host) {
            return;
        }
        let host: String = host.chars().filter(|c| !c.is_control()).take(253).collect();
        if state.unmatched.as_ref() != Some(&host) {
            tracing::warn!(host, "the page was opened under a name that the certificate has not");
            state.unmatched = Some(host);
        }
    }

    /// Why browsers will not accept the certificate, as far as can be told from here.
    pub(crate) fn problem(&self) -> Option<String> {
        let state = self.lock();
        let (source, _) = state.served.as_ref()?;
        let certificate = state.current()?;
        problem_of(*source, &certificate, self.expected.as_deref(), unix_now()).or_else(|| {
            let host = state.unmatched.as_ref()?;
            Some(format!("browsers come as {host}, which the certificate is not for"))
        })
    }

    /// For `/status`.
    pub(crate) fn status(&self) -> Option<CertificateStatus> {
        let problem = self.problem();
        let state = self.lock();
        let (source, _) = state.served.as_ref()?;
        let own = state.current()?.cert.first()?.clone();
        Some(CertificateStatus {
            source: source.to_string(),
            names: alternative_names(&own),
            expires: expires_at(&own).and_then(date).unwrap_or_default(),
            fingerprint: fingerprint(&own),
            problem,
        })
    }
}

impl State {
    fn current(&self) -> Option<Arc<CertifiedKey>> {
        let (source, _) = self.served.as_ref()?;
        let offered = self.offered.iter().find(|(other, _)| other == source);
        offered.map(|(_, pair)| Arc::clone(pair))
    }
}

fn unix_now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Seconds since 1970 as a date.
pub(crate) fn date(seconds: i64) -> Option<String> {
    jiff::Timestamp::from_second(seconds).ok().map(|at| at.to_string())
}

/// Why browsers will not accept a certificate.
pub(crate) fn problem_of(
    source: Source,
    pair: &CertifiedKey,
    expected: Option<&str>,
    now: i64,
) -> Option<String> {
    let own = pair.cert.first()?;
    if source == Source::Own {
        return Some(
            "it is self-signed: set certificate_file, or upload one to the management server"
                .to_owned(),
        );
    }
    if let Some(at) = expires_at(own).filter(|at| *at < now) {
        return Some(format!("it expired at {}", date(at).unwrap_or_default()));
    }
    let expected = expected?;
    (!is_for(pair, expected)).then(|| {
        let names = alternative_names(own).join(", ");
        format!("links name {expected}, and it is for {names}")
    })
}

/// Whether a certificate is for this name or address.
fn is_for(pair: &CertifiedKey, host: &str) -> bool {
    let host = match host.parse::<IpAddr>() {
        Ok(address) => ServerName::from(address),
        Err(_) => match ServerName::try_from(host) {
            Ok(name) => name,
            Err(_) => return false,
        },
    };
    let parsed = pair.cert.first().map(ParsedCertificate::try_from);
    parsed.is_some_and(|parsed| parsed.is_ok_and(|it| verify_server_name(&it, &host).is_ok()))
}

#[cfg(test)]
mod tests;
