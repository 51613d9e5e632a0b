//! Figures for `/metrics`; names start with `quickcloud_ss_`.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::uploads::metrics::UploadMetrics;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreLabel {
    store: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabel {
    class: String,
    result: &'static str,
}

/// All figures of one run of the role.
#[derive(Debug)]
pub struct Metrics {
    pub(crate) uploads: UploadMetrics,
    downloads: Family<Outcome, Counter>,
    received: Counter,
    duration: Histogram,
    active: Gauge,
    served: Counter,
    links: Gauge,
    commands: Family<ClassLabel, Counter>,
    capacity: Family<StoreLabel, Gauge<f64, AtomicU64>>,
    used: Family<StoreLabel, Gauge<f64, AtomicU64>>,
    findings: Family<StoreLabel, Gauge<f64, AtomicU64>>,
    reclaimable: Family<StoreLabel, Gauge<f64, AtomicU64>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            uploads: UploadMetrics::default(),
            downloads: Family::default(),
            received: Counter::default(),
            // From half a second to about four and a half hours.
            duration: Histogram::new(exponential_buckets(0.5, 2.0, 16)),
            active: Gauge::default(),
            served: Counter::default(),
            links: Gauge::default(),
            commands: Family::default(),
            capacity: Family::default(),
            used: Family::default(),
            findings: Family::default(),
            reclaimable: Family::default(),
        }
    }
}

impl Metrics {
    /// A registry with everything in it; the figures stay shared with `self`.
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("quickcloud_ss");
        self.uploads.register(&mut registry);
        registry.register("downloads", "Downloads that ended, by outcome", self.downloads.clone());
        registry.register_with_unit(
            "download_received",
            "Received from image servers",
            Unit::Bytes,
            self.received.clone(),
        );
        registry.register_with_unit(
            "download_duration",
            "From command to end, waiting included",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register("downloads_active", "Downloads waiting or running", self.active.clone());
        registry.register_with_unit(
            "link_served",
            "Sent to users over links",
            Unit::Bytes,
            self.served.clone(),
        );
        registry.register("links", "Links that can be used", self.links.clone());
        registry.register(
            "commands",
            "Commands of the management server, by class and result",
            self.commands.clone(),
        );
        registry.register_with_unit(
            "store_capacity",
            "Size of the store's file system",
            Unit::Bytes,
            self.capacity.clone(),
        );
        registry.register_with_unit(
            "store_used",
            "Used in the store's file system",
            Unit::Bytes,
            self.used.clone(),
        );
        registry.register(
            "store_findings",
            "What is not whole or not listed, at the last look at everything",
            self.findings.clone(),
        );
        registry.register_with_unit(
            "store_reclaimable",
            "Left by unfinished downloads and uploads, at the last look at everything",
            Unit::Bytes,
            self.reclaimable.clone(),
        );
        registry
    }

    /// A download ended.
    pub fn downloaded(&self, outcome: &'static str, seconds: f64) {
        self.downloads.get_or_create(&Outcome { outcome }).inc();
        self.duration.observe(seconds);
        self.active.dec();
    }

    /// A download was accepted.
    pub fn accepted(&self) {
        self.active.inc();
    }

    pub fn received(&self, bytes: u64) {
        self.received.inc_by(bytes);
    }

    pub fn served(&self, bytes: u64) {
        self.served.inc_by(bytes);
    }

    pub fn links(&self, count: usize) {
        self.links.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub fn answered(&self, class: &str, result: bool) {
        let result = if result { "true" } else { "false" };
        self.commands.get_or_create(&ClassLabel { class: class.to_owned(), result }).inc();
    }

    /// What a look at everything on a store found.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub fn findings(&self, store: &str, count: u64, reclaimable: u64) {
        let label = StoreLabel { store: store.to_owned() };
        self.findings.get_or_create(&label).set(count as f64);
        self.reclaimable.get_or_create(&label).set(reclaimable as f64);
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub fn store(&self, store: &str, capacity: u64, used: u64) {
        let label = StoreLabel { store: store.to_owned() };
        self.capacity.get_or_create(&label).set(capacity as f64);
        self.used.get_or_create(&label).set(used as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_appear_under_the_roles_prefix() {
        let metrics = Metrics::default();
        let registry = metrics.registry();
        metrics.accepted();
        metrics.downloaded("done", 2.0);
        metrics.store("nfs://h/p", 100, 40);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "quickcloud_ss_downloads_total{outcome=\"done\"} 1",
            "quickcloud_ss_downloads_active 0",
            "quickcloud_ss_store_used_bytes{store=\"nfs://h/p\"} 40.0",
        ] {
            assert!(text.contains(line), "{line} not in {text}");
        }
    }
}
