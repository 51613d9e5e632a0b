//! Figures of uploads.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: &'static str,
}

/// Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct UploadMetrics {
    ended: Family<Outcome, Counter>,
    refused: Family<Code, Counter>,
    received: Counter,
    duration: Histogram,
    active: Gauge,
}

impl Default for UploadMetrics {
    fn default() -> Self {
        Self {
            ended: Family::default(),
            refused: Family::default(),
            received: Counter::default(),
            // From half a second to about four and a half hours.
            duration: Histogram::new(exponential_buckets(0.5, 2.0, 16)),
            active: Gauge::default(),
        }
    }
}

impl UploadMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("uploads", "Uploads that ended, by outcome", self.ended.clone());
        registry.register(
            "upload_refusals",
            "Requests to upload that were refused before their first byte, by reason",
            self.refused.clone(),
        );
        registry.register_with_unit(
            "upload_received",
            "Received from browsers and other clients",
            Unit::Bytes,
            self.received.clone(),
        );
        registry.register_with_unit(
            "upload_duration",
            "From admission to end",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register("uploads_active", "Uploads under way", self.active.clone());
    }

    pub(super) fn begun(&self) {
        self.active.inc();
    }

    pub(super) fn ended(&self, outcome: &'static str, seconds: f64) {
        self.ended.get_or_create(&Outcome { outcome }).inc();
        self.duration.observe(seconds);
        self.active.dec();
    }

    pub(super) fn refused(&self, code: &'static str) {
        self.refused.get_or_create(&Code { code }).inc();
    }

    pub(super) fn received(&self, bytes: u64) {
        self.received.inc_by(bytes);
    }
}
