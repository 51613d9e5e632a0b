//! Messages to systemd (`sd_notify(3)`). Without systemd every one of them is nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// Speaks to the service manager that started this process. Cloneable.
#[derive(Debug, Clone, Copy)]
pub struct Notifier {
    enabled: bool,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// The service manager named by the environment, if there is one.
    pub fn from_environment() -> Self {
        let enabled = std::env::var_os("NOTIFY_SOCKET").is_some();
        let watchdog = sd_notify::watchdog_enabled().filter(|_| enabled);
        Self { enabled, watchdog }
    }

    /// Tells nobody anything; for tests and for processes inside a process.
    pub const fn silent() -> Self {
        Self { enabled: false, watchdog: None }
    }

    /// How often the watchdog wants to hear from us: half of its timeout.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog.map(|timeout| timeout / 2)
    }

    pub fn feed_watchdog(&self) {
        self.send(&[NotifyState::Watchdog]);
    }

    pub fn ready(&self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    pub fn status(&self, status: &str) {
        self.send(&[NotifyState::Status(status)]);
    }

    /// The configuration is being read again; [`Notifier::ready`] ends it.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!(%error, "cannot read the clock of the service manager"),
        }
    }

    pub fn stopping(&self) {
        self.send(&[NotifyState::Stopping]);
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        if self.enabled
            && let Err(error) = sd_notify::notify(states)
        {
            tracing::debug!(%error, "cannot notify the service manager");
        }
    }
}
