//! Metrics of the role, `quickcloud_dhcp_…`.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Message {
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Apply {
    kind: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Operation {
    op: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Received {
    result: &'static str,
}

/// Handles of every metric; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) reservations: Gauge,
    pub(crate) leases: Gauge,
    pub(crate) conflicts: Gauge,
    pub(crate) generation: Gauge,
    pub(crate) dirty: Gauge,
    pub(crate) up: Gauge,
    pub(crate) restarts: Counter,
    pub(crate) released: Counter,
    pub(crate) rollbacks: Counter,
    pub(crate) sync_success: Gauge,
    pub(crate) sync_held: Gauge,
    sync_changes: Family<Operation, Counter>,
    webhooks: Family<Received, Counter>,
    applies: Family<Apply, Counter>,
    seconds: Histogram,
    messages: Family<Message, Counter>,
    ignored: Counter<u64, AtomicU64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            reservations: Gauge::default(),
            leases: Gauge::default(),
            conflicts: Gauge::default(),
            generation: Gauge::default(),
            dirty: Gauge::default(),
            up: Gauge::default(),
            restarts: Counter::default(),
            released: Counter::default(),
            rollbacks: Counter::default(),
            sync_success: Gauge::default(),
            sync_held: Gauge::default(),
            sync_changes: Family::default(),
            webhooks: Family::default(),
            applies: Family::default(),
            seconds: Histogram::new(exponential_buckets(0.001, 3.0, 10)),
            messages: Family::default(),
            ignored: Counter::default(),
        }
    }

    /// A registry with all of them.
    pub(crate) fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        let sub = registry.sub_registry_with_prefix("quickcloud_dhcp");
        sub.register("reservations", "Reservations served", self.reservations.clone());
        sub.register("leases", "Leases in dnsmasq's file", self.leases.clone());
        sub.register("lease_conflicts", "Leases without a reservation", self.conflicts.clone());
        sub.register("generation", "Generation of the desired state", self.generation.clone());
        sub.register("dirty", "1 while the desired state is not served", self.dirty.clone());
        sub.register("dnsmasq_up", "1 while dnsmasq serves", self.up.clone());
        sub.register("dnsmasq_restarts", "Unwanted ends of dnsmasq", self.restarts.clone());
        sub.register("leases_released", "Leases taken back", self.released.clone());
        let rollbacks = self.rollbacks.clone();
        sub.register("rollbacks", "Returns to a generation that dnsmasq survives", rollbacks);
        let success = self.sync_success.clone();
        sub.register("sync_success_timestamp_seconds", "Last listing taken over", success);
        sub.register("sync_held_deletes", "Deletions that wait for force", self.sync_held.clone());
        let changes = self.sync_changes.clone();
        sub.register("sync_changes", "Reservations changed by the sync", changes);
        sub.register("webhook", "Webhooks by result", self.webhooks.clone());
        sub.register("apply", "Applied generations by kind and result", self.applies.clone());
        sub.register("apply_seconds", "Time to apply a generation", self.seconds.clone());
        sub.register("dhcp_messages", "DHCP messages by type", self.messages.clone());
        sub.register("dhcp_ignored", "DHCP messages of unknown clients", self.ignored.clone());
        registry
    }

    pub(crate) fn message(&self, kind: &'static str, ignored: bool) {
        self.messages.get_or_create(&Message { r#type: kind }).inc();
        if ignored {
            self.ignored.inc();
        }
    }

    pub(crate) fn sync_changed(&self, upserts: usize, deletes: usize) {
        for (op, count) in [("upsert", upserts), ("delete", deletes)] {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            self.sync_changes.get_or_create(&Operation { op }).inc_by(count);
        }
    }

    pub(crate) fn webhook(&self, result: &'static str) {
        self.webhooks.get_or_create(&Received { result }).inc();
    }

    pub(crate) fn applied(&self, kind: &'static str, ok: bool, seconds: f64) {
        let result = if ok { "ok" } else { "failed" };
        self.applies.get_or_create(&Apply { kind, result }).inc();
        self.seconds.observe(seconds);
    }
}
