//! Changing the server: back to the preferred one, or away because this one asks for it.

use bedrock::net::HostPort;

use super::*;

impl Session {
    pub(super) fn effective_check_interval(&self) -> Duration {
        self.settings.limits.preferred_check_interval.unwrap_or(self.check_interval)
    }

    pub(super) fn rearm_check(&mut self, server_interval: Option<i64>, now: Instant) {
        if let Some(seconds) = server_interval {
            self.check_interval = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        }
        let interval = self.effective_check_interval();
        self.check_at = (!interval.is_zero()).then(|| now + interval);
    }

    /// Asks whether the preferred server is alive, unless we are with it or are moving.
    pub(super) fn check_preferred(&mut self, out: &mut Vec<Action>) {
        let Some(preferred) = self.endpoints.preferred().cloned() else { return };
        let moving = self.probe.is_some() || self.migration.is_some() || self.drain.is_some();
        if moving || Some(&preferred) == self.endpoint.as_ref() {
            return;
        }
        if !self.endpoints.is_avoided(&preferred) {
            self.probe = Some(Probe::Preferred(preferred.clone()));
            out.push(Action::Probe { endpoint: preferred });
        }
    }

    pub(super) fn probe_next(&mut self, out: &mut Vec<Action>) {
        if let Some(Probe::Migration(candidates)) = &self.probe {
            match candidates.front() {
                Some(endpoint) => out.push(Action::Probe { endpoint: endpoint.clone() }),
                None => {
                    self.probe = None;
                    out.push(Action::Note(Notice::Stays));
                }
            }
        }
    }

    pub(super) fn on_probe_done(
        &mut self,
        endpoint: &Endpoint,
        reachable: bool,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let State::Attached(_) = self.state else { return };
        match &mut self.probe {
            Some(Probe::Preferred(probed)) if probed == endpoint => {
                self.probe = None;
                if reachable && self.in_flight == 0 {
                    self.move_to(endpoint.clone(), "it is preferred", now, out);
                }
            }
            Some(Probe::Migration(candidates)) if candidates.front() == Some(endpoint) => {
                candidates.pop_front();
                if reachable {
                    self.transferred = true;
                    self.move_to(endpoint.clone(), "the server asked for it", now, out);
                } else {
                    self.probe_next(out);
                }
            }
            _ => {}
        }
    }

    pub(super) fn move_to(
        &mut self,
        endpoint: Endpoint,
        why: &'static str,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        out.push(Action::Note(Notice::Moves { endpoint: endpoint.clone(), why }));
        self.last_error = Some(format!("moving to {endpoint}: {why}"));
        self.end_link(out);
        self.forced = Some(endpoint);
        self.state = State::Disconnected { retry_at: now + self.backoff.after_loss() };
    }

    /// A list that a server sent belongs to the servers that were configured then. The server in use
    /// is left for a configured one when it is not configured any more.
    pub(super) fn on_reconfigured(
        &mut self,
        servers: &[HostPort],
        port: u16,
        limits: LinkLimits,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        self.backoff.reconfigure(limits.backoff, limits.refusal_backoff);
        let soon = now + limits.backoff;
        self.settings.limits = limits;
        if !self.endpoints.reseed(servers, port) {
            return;
        }
        let before = self.identity.clone();
        self.identity.server_list = None;
        self.identity.configured = self.endpoints.reported();
        self.persist_if_changed(&before, out);
        match &mut self.state {
            State::Disconnected { retry_at } | State::Refused { retry_at } => {
                *retry_at = soon.min(*retry_at);
            }
            State::Attached(_) => {
                let known = self.endpoint.as_ref().is_some_and(|used| self.endpoints.has(used));
                if !known {
                    self.check_preferred(out);
                }
            }
            _ => {}
        }
    }
}
