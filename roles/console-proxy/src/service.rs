//! What every console of the role shares.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use role::TaskScope;
use role::host::Clock;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::console::AccessAuthority;
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::sessions::Sessions;
use crate::settings::Settings;
use crate::token::TokenKey;

/// Client addresses whose failures are counted.
const ADDRESSES: usize = 4096;
const WINDOW: Duration = Duration::from_secs(60);

/// The role's state while it runs. Shared by the agent, the web front and every console.
pub(crate) struct Service {
    pub(crate) config: Settings,
    pub(crate) authority: Arc<dyn AccessAuthority>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) metrics: Arc<Metrics>,
    /// Admit a console only from the address its link was made for.
    pub(crate) source_check: AtomicBool,
    /// Consoles open or opening.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) tasks: TaskScope,
    pub(crate) stop: CancellationToken,
    key: Mutex<Option<Arc<TokenKey>>>,
    failures: Mutex<HashMap<IpAddr, (u32, Instant)>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}

impl Service {
    pub(crate) fn new(
        config: Settings,
        authority: Arc<dyn AccessAuthority>,
        clock: Arc<dyn Clock>,
        tasks: TaskScope,
        stop: CancellationToken,
    ) -> Self {
        let metrics = Arc::new(Metrics::default());
        Self {
            places: Arc::new(Semaphore::new(config.sessions)),
            sessions: Arc::new(Sessions::new(clock, Arc::clone(&metrics))),
            config,
            authority,
            metrics,
            source_check: AtomicBool::new(false),
            tasks,
            stop,
            key: Mutex::default(),
            failures: Mutex::default(),
        }
    }

    /// The key of tokens, once the management server sent it.
    pub(crate) fn key(&self) -> Option<Arc<TokenKey>> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over a key. The same one again keeps what was learnt with it.
    pub(crate) fn set_key(&self, key: TokenKey) {
        let mut held = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_deref() != Some(&key) {
            *held = Some(Arc::new(key));
        }
    }

    /// Notes a refusal; those that look like guessing count against the client's address.
    pub(crate) fn refused(&self, refusal: &Refusal, client: IpAddr) {
        self.metrics.refused(refusal.label());
        if !matches!(refusal, Refusal::Screen(_)) {
            // That one was logged with the screen's address.
            tracing::warn!(reason = refusal.label(), "console refused");
        }
        if !matches!(refusal, Refusal::Token) {
            return;
        }
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

    /// Whether this address gave too many bad tokens within the last minute.
    pub(crate) fn is_guessing(&self, client: IpAddr) -> bool {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get(&client).is_some_and(|(count, since)| {
            *count >= self.config.failed_tokens_per_minute && since.elapsed() < WINDOW
        })
    }
}
