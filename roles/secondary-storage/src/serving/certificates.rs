//! Which certificate the https listeners serve.
//!
//! Three may be there: the operator's files, what the management server sent at set-up, and a
//! self-signed one, which always is. A client gets the one for the name it asks for; without a match
//! the first, in this order, of those that are valid now. All are looked at again now and then, and
//! at once when the server or a reload brings something; a fault in a new one changes nothing and
//! makes the role degraded. Open transfers go on: only new handshakes see the change.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent_protocol::storage::Certificates as Sent;
use bedrock::Secret;
use http_front::{CertificateError, Certificates};
use key_store::certificate::{alternative_names, expires_at, to_pem};
use key_store::{CertificatesError, KeyError, PairError};
use role::{Host, TaskScope};
use rustls::sign::CertifiedKey;
use status_api::CertificateStatus;
use tls_material::{FileError, OwnError, own_pair, read_pair};

use super::config::{LiveServing, TlsFiles};
use crate::live::Live;

/// Files of the role's state directory.
const OWN_FILE: &str = "own-certificate.pem";
const SENT_FILE: &str = "server-certificate.pem";
const MODE: u32 = 0o600;
/// What certbot writes is served that soon.
pub const INTERVAL: Duration = Duration::from_secs(15);
/// From here on an operator is told.
const SOON: Duration = Duration::from_hours(7 * 24);

/// Why certificates cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    #[error(transparent)]
    Own(#[from] OwnError),
    #[error(transparent)]
    Files(#[from] FileError),
    #[error(transparent)]
    Serve(#[from] CertificateError),
    #[error("the management server's certificate cannot be used")]
    Sent(#[from] SentError),
    #[error("cannot keep the management server's certificate in {}", .0.display())]
    Keep(PathBuf, #[source] std::io::Error),
    #[error(transparent)]
    Task(#[from] role::tasks::BlockingError),
}

/// What is wrong with a certificate from the management server.
#[derive(Debug, thiserror::Error)]
pub enum SentError {
    #[error(transparent)]
    Chain(#[from] CertificatesError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Pair(#[from] PairError),
    #[error("there is a certificate without its key, or a key without its certificate")]
    Half,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Files,
    Server,
    SelfSigned,
}

impl Origin {
    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Server => "management server",
            Self::SelfSigned => "self-signed",
        }
    }
}

/// A certificate that may be served.
#[derive(Debug, Clone)]
pub struct Held {
    pub origin: Origin,
    pub key: Arc<CertifiedKey>,
}

/// Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct ServedCertificates {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    served: Certificates,
    settings: Live<LiveServing>,
    state_directory: PathBuf,
    names: Vec<String>,
    host: Host,
    tasks: TaskScope,
    held: Mutex<Vec<Held>>,
}

impl ServedCertificates {
    /// Reads what there is; the first certificate may be a self-signed one for these names.
    ///
    /// # Errors
    /// When not even that can be made.
    pub async fn open(
        settings: Live<LiveServing>,
        state_directory: &Path,
        names: Vec<String>,
        host: Host,
        tasks: TaskScope,
    ) -> Result<Self, ServingError> {
        let (directory, now) = (state_directory.to_owned(), host.clock.now());
        let (own_file, own_names) = (directory.join(OWN_FILE), names.clone());
        let make = move || own_pair(&own_file, &own_names, now);
        let own = tasks.blocking("make a certificate", make).await??;
        let served = Certificates::new(vec![own])?;
        let shared = Shared {
            served,
            settings,
            state_directory: directory,
            names,
            host,
            tasks,
            held: Mutex::default(),
        };
        let this = Self { shared: Arc::new(shared) };
        if let Err(error) = this.renew().await {
            tracing::warn!(error = bedrock::chain(&error), "not every certificate can be served");
        }
        Ok(this)
    }

    /// For the listeners.
    pub fn served(&self) -> Certificates {
        self.shared.served.clone()
    }

    fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.shared.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In the order in which they are served.
    pub fn list(&self) -> Vec<Held> {
        self.held().clone()
    }

    /// Takes a certificate that the management server sent, and keeps it for the next start.
    ///
    /// # Errors
    /// Nothing is changed then.
    pub async fn take(&self, sent: &Sent) -> Result<bool, ServingError> {
        let Some(pem) = pem_of(sent)? else { return Ok(false) };
        let file = self.shared.state_directory.join(SENT_FILE);
        let keep = move || {
            let kept = bedrock::files::replace(&file, pem.reveal().as_bytes(), MODE);
            kept.map_err(|source| ServingError::Keep(file, source))
        };
        self.shared.tasks.blocking("keep a certificate", keep).await??;
        self.renew().await?;
        Ok(true)
    }

    /// Looks at all of them again, and serves what is there now.
    ///
    /// # Errors
    /// Names the first that cannot be used; the others are served, and of that one what was
    /// served before.
    pub async fn renew(&self) -> Result<(), ServingError> {
        let shared = &self.shared;
        let now = shared.host.clock.now();
        let files = shared.settings.get().tls_files.clone();
        let (directory, names) = (shared.state_directory.clone(), shared.names.clone());
        let before = self.list();
        let read = move || read_all(files.as_ref(), &directory, &names, now, &before);
        let (held, fault) = shared.tasks.blocking("read certificates", read).await?;
        if !held.is_empty() {
            shared.served.replace(held.iter().map(|held| Arc::clone(&held.key)).collect())?;
            let mut table = self.held();
            let same = |a: &Held, b: &Held| a.origin == b.origin && a.key.cert == b.key.cert;
            let is_new = table.len() != held.len()
                || table.iter().zip(&held).any(|(old, new)| !same(old, new));
            if is_new && let Some(first) = held.first() {
                let names = names_of(first).join(", ");
                tracing::info!(names, origin = first.origin.text(), "certificate of https");
            }
            *table = held;
        }
        fault.map_or(Ok(()), Err)
    }

    /// Why somebody should look at the certificates, if so.
    pub fn trouble(&self) -> Option<String> {
        let now = self.shared.host.clock.now();
        let list = self.list();
        let first = list.first()?;
        if first.origin == Origin::SelfSigned && list.len() == 1 {
            return None;
        }
        let ending = list.iter().find(|held| expires(held) < seconds(now + SOON))?;
        let word = if expires(ending) < seconds(now) { "has expired" } else { "expires" };
        Some(format!(
            "the certificate for {} ({}) {word} at {}",
            names_of(ending).join(", "),
            ending.origin.text(),
            date(expires(ending)),
        ))
    }

    /// For `/status`.
    pub fn status(&self) -> Vec<CertificateStatus> {
        let list = self.list();
        let now = seconds(self.shared.host.clock.now());
        let described = list.iter().map(|held| CertificateStatus {
            source: held.origin.text().to_owned(),
            names: names_of(held),
            expires: date(expires(held)),
            fingerprint: held
                .key
                .cert
                .first()
                .map(|own| key_store::fingerprint(own))
                .unwrap_or_default(),
            problem: problem_of(held, now).map(str::to_owned),
        });
        described.collect()
    }
}

/// What there is, in the order of serving, and the first fault.
fn read_all(
    files: Option<&TlsFiles>,
    directory: &Path,
    names: &[String],
    now: SystemTime,
    before: &[Held],
) -> (Vec<Held>, Option<ServingError>) {
    let (mut held, mut fault) = (Vec::new(), None);
    let mut add = |origin, read: Result<Arc<CertifiedKey>, ServingError>| match read {
        Ok(key) => held.push(Held { origin, key }),
        Err(error) => {
            held.extend(before.iter().find(|former| former.origin == origin).cloned());
            fault.get_or_insert(error);
        }
    };
    if let Some(TlsFiles { certificate, key }) = files {
        add(Origin::Files, read_pair(certificate, key).map_err(ServingError::from));
    }
    let sent = directory.join(SENT_FILE);
    match read_pair(&sent, &sent) {
        Err(error) if error.is_absent() => {}
        read => add(Origin::Server, read.map_err(ServingError::from)),
    }
    add(Origin::SelfSigned, own_pair(&directory.join(OWN_FILE), names, now).map_err(Into::into));
    // Stable: among those that are valid the order stays.
    held.sort_by_key(|held| expires(held) < seconds(now));
    (held, fault)
}

/// The PEM text of a certificate with its chain and key; `None` when none was sent.
fn pem_of(sent: &Sent) -> Result<Option<Secret<String>>, SentError> {
    let text = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
    let key = sent.priv_key.as_ref().filter(|key| !key.reveal().trim().is_empty());
    let (certificate, key) = match (text(&sent.priv_cert), key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        _half => return Err(SentError::Half),
    };
    let mut chain = key_store::certificates(certificate.as_bytes())?;
    if let Some(more) = text(&sent.cert_chain) {
        chain.extend(key_store::certificates(more.as_bytes())?);
    }
    let private = key_store::private_key(key.reveal().as_bytes())?;
    key_store::pair(chain.clone(), private)?;
    Ok(Some(Secret::new(format!("{}{}\n", to_pem(&chain), key.reveal().trim()))))
}

fn names_of(held: &Held) -> Vec<String> {
    held.key.cert.first().map(alternative_names).unwrap_or_default()
}

/// Why browsers will not accept it.
fn problem_of(held: &Held, now: i64) -> Option<&'static str> {
    match held.origin {
        _ if expires(held) < now => Some("it has expired"),
        Origin::SelfSigned => Some("it is self-signed"),
        Origin::Files | Origin::Server => None,
    }
}

fn expires(held: &Held) -> i64 {
    held.key.cert.first().and_then(|own| expires_at(own)).unwrap_or(i64::MIN)
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// RFC 3339, in UTC.
fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
}

/// What a certificate of our own is for: what the server's links can name this host by.
pub fn own_names(addresses: &[IpAddr], host_name: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let addresses = addresses.iter().map(ToString::to_string);
    let is_name = |name: &str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte))
    };
    for name in addresses.chain([host_name.to_owned()]) {
        if !names.contains(&name) && is_name(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serving::config::CopyAccess;

    struct Bench {
        temp: tempfile::TempDir,
        settings: Live<LiveServing>,
    }

    impl Bench {
        fn new() -> Self {
            let live = LiveServing {
                tls_files: None,
                trusted_proxies: Vec::new(),
                copy: CopyAccess::default(),
            };
            Self { temp: tempfile::tempdir().unwrap(), settings: Live::new(live) }
        }

        async fn open(&self) -> ServedCertificates {
            let names = own_names(&["203.0.113.7".parse().unwrap()], "s-900-VM");
            let (host, tasks) = (Host::system(), TaskScope::new());
            let state = self.temp.path();
            ServedCertificates::open(self.settings.clone(), state, names, host, tasks)
                .await
                .unwrap()
        }

        fn give(&self, pem: &str) {
            let file = self.temp.path().join("site.pem");
            std::fs::write(&file, pem).unwrap();
            let mut live = LiveServing::clone(&self.settings.get());
            live.tls_files = Some(TlsFiles { certificate: file.clone(), key: file });
            self.settings.replace(live);
        }
    }

    fn pair(name: &str, end: i32) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(end, 1, 1);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn sent(certificate: &str, key: &str) -> Sent {
        Sent {
            priv_key: Some(Secret::new(key.to_owned())),
            priv_cert: Some(certificate.to_owned()),
            ..Sent::default()
        }
    }

    fn origins(certificates: &ServedCertificates) -> Vec<Origin> {
        certificates.list().iter().map(|held| held.origin).collect()
    }

    #[tokio::test]
    async fn files_come_before_the_servers_and_that_before_our_own() {
        let bench = Bench::new();
        let certificates = bench.open().await;
        assert_eq!(origins(&certificates), [Origin::SelfSigned]);
        assert_eq!(names_of(&certificates.list()[0]), ["203.0.113.7", "s-900-VM"]);
        assert_eq!(certificates.trouble(), None);
        let (certificate, key) = pair("server.example.org", 2099);
        assert!(certificates.take(&sent(&certificate, &key)).await.unwrap());
        assert!(!certificates.take(&Sent::default()).await.unwrap(), "none was sent");
        assert_eq!(origins(&certificates), [Origin::Server, Origin::SelfSigned]);
        let (certificate, key) = pair("site.example.org", 2099);
        bench.give(&format!("{certificate}{key}"));
        certificates.renew().await.unwrap();
        let all = [Origin::Files, Origin::Server, Origin::SelfSigned];
        assert_eq!(origins(&certificates), all);
        // A restart forgets nothing.
        let status = bench.open().await.status();
        assert_eq!(status.len(), 3);
        assert_eq!(status[1].names, ["server.example.org"]);
        assert_eq!(status[1].expires, "2099-01-01T00:00:00Z");
        assert_eq!(status, certificates.status());
    }

    #[tokio::test]
    async fn a_fault_keeps_what_was_served_and_is_told() {
        let bench = Bench::new();
        let certificates = bench.open().await;
        let (certificate, key) = pair("site.example.org", 2099);
        let (_, other) = pair("site.example.org", 2099);
        bench.give(&format!("{certificate}{key}"));
        certificates.renew().await.unwrap();
        let before = certificates.status();
        bench.give(&format!("{certificate}{other}"));
        let error = bedrock::chain(&certificates.renew().await.unwrap_err());
        assert!(error.contains("site.pem") && error.contains("does not belong"), "{error}");
        assert_eq!(certificates.status(), before);
        for bad in [sent(&certificate, &other), sent("", &key), sent("nonsense", &key)] {
            let error = certificates.take(&bad).await.unwrap_err();
            assert!(matches!(error, ServingError::Sent(_)), "{error:?}");
        }
        assert_eq!(certificates.status(), before);
    }

    /// 10.3 of the secondary storage notes, row 27.
    #[tokio::test]
    async fn an_expired_certificate_goes_last_and_is_told() {
        let bench = Bench::new();
        let certificates = bench.open().await;
        let (certificate, key) = pair("old.example.org", 2017);
        certificates.take(&sent(&certificate, &key)).await.unwrap();
        assert_eq!(origins(&certificates), [Origin::SelfSigned, Origin::Server]);
        let trouble = certificates.trouble().unwrap();
        let expected = "the certificate for old.example.org (management server) has expired at \
                        2017-01-01T00:00:00Z";
        assert_eq!(trouble, expected);
    }
}
