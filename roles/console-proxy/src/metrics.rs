//! What the role counts, as `/metrics` shows it.

mod per_session;

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::sessions::Sessions;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct To {
    to: &'static str,
}

/// Counters of one run of the role.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    open: Gauge,
    opened: Counter,
    refused: Family<Reason, Counter>,
    ended: Family<Reason, Counter>,
    reports: Family<Outcome, Counter>,
    bytes: Family<To, Counter>,
    expired_hosts: Counter,
}

impl Metrics {
    /// A registry that shows these counters, and the open sessions of the moment.
    pub(crate) fn registry(&self, sessions: &Arc<Sessions>) -> Registry {
        let mut registry = Registry::with_prefix("quickcloud_cp");
        let per_session = per_session::PerSession(Arc::downgrade(sessions));
        registry.register_collector(Box::new(per_session));
        registry.register("sessions", "Consoles open now", self.open.clone());
        registry.register("sessions_opened", "Consoles admitted", self.opened.clone());
        registry.register("sessions_refused", "Consoles refused, by reason", self.refused.clone());
        registry.register("sessions_ended", "Consoles ended, by reason", self.ended.clone());
        registry.register("load_reports", "Load reports sent, by outcome", self.reports.clone());
        registry.register("relayed_bytes", "Bytes relayed, by destination", self.bytes.clone());
        let text = "Connections to hosts whose certificate has expired";
        registry.register("expired_host_certificates", text, self.expired_hosts.clone());
        registry
    }

    pub(crate) fn expired_host(&self) {
        self.expired_hosts.inc();
    }

    pub(crate) fn opened(&self) {
        self.open.inc();
        self.opened.inc();
    }

    pub(crate) fn closed(&self) {
        self.open.dec();
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn ended(&self, reason: &'static str) {
        self.ended.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn report(&self, outcome: &'static str) {
        self.reports.get_or_create(&Outcome { outcome }).inc();
    }

    /// Counters of relayed bytes: to the viewer, to the VM. Fetched once per session.
    pub(crate) fn bytes(&self) -> (Counter, Counter) {
        let counter = |to| self.bytes.get_or_create(&To { to }).clone();
        (counter("viewer"), counter("vm"))
    }
}
