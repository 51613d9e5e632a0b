//! Metrics of the consoles that are open now; a console that ends takes its series with it.

use std::fmt;
use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use status_api::ConsoleStatus;

use crate::sessions::Sessions;

/// Looks at the open consoles whenever somebody asks.
pub(super) struct PerSession(pub(super) Weak<Sessions>);

impl fmt::Debug for PerSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PerSession")
    }
}

type Value = fn(&ConsoleStatus) -> u64;

const SERIES: [(&str, &str, Value); 4] = [
    ("session_bytes_to_viewer", "Bytes of picture of an open console", |it| it.bytes_to_viewer),
    ("session_bytes_to_vm", "Bytes of input of an open console", |it| it.bytes_to_vm),
    ("session_messages", "Messages of picture of an open console", |it| it.messages),
    ("session_idle_ms", "Since anything moved in an open console", |it| it.last_used_ago_ms),
];

impl Collector for PerSession {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(sessions) = self.0.upgrade() else { return Ok(()) };
        let open = Arc::clone(&sessions).status();
        for (name, help, value) in SERIES {
            let mut series = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for console in &open {
                let id = console.id.to_string();
                let labels = [
                    ("id", id.as_str()),
                    ("vm", console.vm.as_str()),
                    ("upstream", console.screen.as_str()),
                ];
                let gauge = ConstGauge::new(i64::try_from(value(console)).unwrap_or(i64::MAX));
                gauge.encode(series.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
