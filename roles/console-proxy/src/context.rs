//! What every console of the role shares.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_front::{Crowded, HttpFront, TrustedProxies};
use role::TaskScope;
use role::host::Clock;
use status_api::Notes;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::access::AccessAuthority;
use crate::audit::Audit;
use crate::bridge::Window;
use crate::certificate::BrowserCertificate;
use crate::config::{ConsoleProxyConfig, Reloadable};
use crate::dialler::Credentials;
use crate::metrics::Metrics;
use crate::parked::Parked;
use crate::places::Places;
use crate::query::RawQuery;
use crate::recording::Recordings;
use crate::refusal::Refusal;
use crate::replay::Replays;
use crate::sessions::Sessions;
use crate::token::{ConsoleToken, TokenKey};

/// Client addresses whose failures are counted.
const ADDRESSES: usize = 4096;
const WINDOW: Duration = Duration::from_secs(60);

/// The role's state while it runs. Shared by the agent, the web front and every console.
pub(crate) struct ConsoleContext {
    pub(crate) config: ConsoleProxyConfig,
    reloadable: watch::Sender<Arc<Reloadable>>,
    /// As the listeners use them.
    pub(crate) trusted_proxies: TrustedProxies,
    pub(crate) certificate: Arc<BrowserCertificate>,
    pub(crate) authority: Arc<dyn AccessAuthority>,
    pub(crate) credentials: Arc<dyn Credentials>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) audit: Arc<Audit>,
    pub(crate) recordings: Arc<Recordings>,
    pub(crate) replays: Replays,
    /// Admit a console only from the address its link was made for.
    pub(crate) source_check: AtomicBool,
    /// Consoles open or opening.
    pub(crate) places: Places,
    pub(crate) parked: Parked,
    pub(crate) tasks: TaskScope,
    pub(crate) stop: CancellationToken,
    key: Mutex<Option<Arc<TokenKey>>>,
    failures: Mutex<HashMap<IpAddr, (u32, Instant)>>,
    /// Sends what only a proxy sends, and is not known as one.
    unknown_proxy: Mutex<Option<IpAddr>>,
}

impl std::fmt::Debug for ConsoleContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsoleContext").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}

impl ConsoleContext {
    pub(crate) fn new(
        config: ConsoleProxyConfig,
        (authority, credentials): (Arc<dyn AccessAuthority>, Arc<dyn Credentials>),
        clock: Arc<dyn Clock>,
        tasks: TaskScope,
        stop: CancellationToken,
    ) -> Self {
        let metrics = Arc::new(Metrics::default());
        let host_of_links = config.tls.host_of_links(config.identity.public_address);
        Self {
            certificate: Arc::new(BrowserCertificate::new(host_of_links)),
            places: Places::default(),
            parked: Parked::default(),
            trusted_proxies: config.reloadable.trusted_proxies.clone().into(),
            audit: Arc::new(Audit::new(config.audit_log.clone())),
            recordings: Arc::new(Recordings::new(config.recording.clone())),
            replays: Replays::default(),
            reloadable: watch::Sender::new(Arc::new(config.reloadable.clone())),
            sessions: Arc::new(Sessions::new(clock, Arc::clone(&metrics))),
            config,
            authority,
            credentials,
            metrics,
            source_check: AtomicBool::new(false),
            tasks,
            stop,
            key: Mutex::default(),
            failures: Mutex::default(),
            unknown_proxy: Mutex::default(),
        }
    }

    /// Limits and lists as they are now.
    pub(crate) fn now(&self) -> Arc<Reloadable> {
        Arc::clone(&self.reloadable.borrow())
    }

    /// Takes over other limits and lists; open consoles keep theirs.
    pub(crate) fn reload(&self, new: Reloadable) {
        self.trusted_proxies.replace(new.trusted_proxies.clone());
        self.reloadable.send_replace(Arc::new(new));
    }

    /// A request came with headers of a proxy from somebody who is not known as one.
    pub(crate) fn forwarded_by(&self, peer: IpAddr) {
        let mut known = self.unknown_proxy.lock().unwrap_or_else(PoisonError::into_inner);
        if known.replace(peer) != Some(peer) {
            tracing::warn!(%peer, "a proxy that is not in trusted_proxies tells of clients");
        }
    }

    /// What an operator should know although all is well.
    pub(crate) fn notes(&self, http: &HttpFront) -> Notes {
        let proxy = *self.unknown_proxy.lock().unwrap_or_else(PoisonError::into_inner);
        let of_proxy = |proxy| {
            format!(
                "{proxy} sends X-Forwarded-For or Forwarded; if it is a proxy of yours, name it in \
                 roles.console_proxy.trusted_proxies: until then all its viewers have its address"
            )
        };
        let of_crowd = |Crowded { address, limit, refused }| {
            format!(
                "{address} had {limit} connections and was refused more (supervisor.\
                 connections_per_address; {refused} refused so far); if it is a proxy of yours, name \
                 it in roles.console_proxy.trusted_proxies"
            )
        };
        Notes(proxy.map(of_proxy).into_iter().chain(http.crowded().map(of_crowd)).collect())
    }

    /// The key of tokens, once the management server sent it.
    pub(crate) fn key(&self) -> Option<Arc<TokenKey>> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How lost viewers come back; `None` when they cannot.
    pub(crate) fn window(&self) -> Option<Window> {
        let length = self.now().resume_window;
        let key = self.key().filter(|_| !length.is_zero())?;
        Some(Window { tickets: key.tickets(), length })
    }

    /// Takes over a key. The same one again keeps what was learnt with it.
    pub(crate) fn set_key(&self, key: TokenKey) {
        let mut held = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_deref() != Some(&key) {
            *held = Some(Arc::new(key));
        }
    }

    /// Notes a refusal; those that look like guessing count against the client's address.
    pub(crate) fn refused(&self, refusal: &Refusal, client: IpAddr, token: Option<&ConsoleToken>) {
        self.metrics.refused(refusal.label());
        self.audit.refused(refusal.label(), client, token);
        let cause = std::error::Error::source(refusal).map(bedrock::chain);
        tracing::warn!(
            reason = refusal.label(),
            vm = token.map(|token| token.vm.as_str()),
            name = token.map(|token| token.display_name.as_str()),
            session = token.and_then(|token| token.session.as_deref()),
            vnc_server =
                token.and_then(|token| token.upstream.as_ref()).map(tracing::field::display),
            cause,
            "console refused"
        );
        if matches!(refusal, Refusal::Token) {
            self.count_failure(client);
        }
    }

    fn count_failure(&self, client: IpAddr) {
        let now = Instant::now();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= ADDRESSES && !failures.contains_key(&client) {
            failures.retain(|_, (_, since)| now.duration_since(*since) < WINDOW);
            if failures.len() >= ADDRESSES {
                return;
            }
        }
        let entry = failures.entry(client).or_insert((0, now));
        if now.duration_since(entry.1) >= WINDOW {
            *entry = (0, now);
        }
        entry.0 = entry.0.saturating_add(1);
    }

    /// Whether a link is one of ours. A good one is never in the way of others' bad ones: behind a
    /// proxy that is not configured, all viewers have one address.
    pub(crate) fn is_genuine(&self, query: &str) -> bool {
        let text = RawQuery(query).token();
        self.replays.knows(query)
            || self.key().zip(text).is_some_and(|(key, text)| key.open(&text).is_ok())
    }

    /// Whether this address gave too many bad tokens within the last minute.
    pub(crate) fn is_guessing(&self, client: IpAddr) -> bool {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get(&client).is_some_and(|(count, since)| {
            *count >= self.now().failed_tokens_per_minute && since.elapsed() < WINDOW
        })
    }
}
