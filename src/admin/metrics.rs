//! `/metrics` in the OpenMetrics text format: the process, the roles, the links, and behind them
//! what each role measures itself.

use std::fmt;
use std::fs;
use std::panic::AssertUnwindSafe;
use std::time::{Instant, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use role::{Health, LinkState};
use status_api::HealthWord;

use crate::heartbeat::LinkRow;
use crate::supervisor::board::{Board, RoleRow};

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The whole text. A role whose collector panics loses its own metrics, nobody else's.
pub(super) fn render(board: &Board, links: &[LinkRow]) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Process {
        started: board.started().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
    }));
    registry.register_collector(Box::new(Roles { rows: board.rows() }));
    registry.register_collector(Box::new(Links { rows: links.to_vec(), now: Instant::now() }));
    let mut out = String::with_capacity(8 * 1024);
    encode_registry(&mut out, &registry)?;
    for row in board.rows() {
        let Some(metrics) = row.metrics() else { continue };
        let encoded = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let mut text = String::new();
            encode_registry(&mut text, &metrics).map(|()| text)
        }));
        match encoded {
            Ok(Ok(text)) => out.push_str(&text),
            Ok(Err(_)) | Err(_) => {
                tracing::error!(role = %row.kind, "cannot encode the metrics of a role");
            }
        }
    }
    encode_eof(&mut out)?;
    Ok(out)
}

#[derive(Debug)]
struct Process {
    started: f64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        let build = encoder.encode_descriptor(
            "quickcloud_build",
            "Version of this binary.",
            None,
            version.metric_type(),
        )?;
        version.encode(build)?;
        let help = "Start of the process since the epoch.";
        single(&mut encoder, "process_start_time", help, Some(&Unit::Seconds), self.started)?;
        if let Some(bytes) = resident_bytes() {
            let help = "Resident memory of the process.";
            single(&mut encoder, "process_resident_memory", help, Some(&Unit::Bytes), bytes)?;
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            let count = u32::try_from(entries.count()).map_or(f64::MAX, f64::from);
            single(&mut encoder, "process_open_fds", "Open files.", None, count)?;
        }
        Ok(())
    }
}

/// `VmRSS` of `/proc/self/status`, which is in KiB whatever the page size.
fn resident_bytes() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u32 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(f64::from(kib) * 1024.0)
}

#[derive(Debug)]
struct Roles {
    rows: Vec<RoleRow>,
}

impl Collector for Roles {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let per_role = |value: fn(&RoleRow) -> f64| {
            self.rows
                .iter()
                .map(|row| (vec![("role", row.kind.short.to_owned())], value(row)))
                .collect::<Vec<_>>()
        };
        let ready = per_role(|row| flag(row.health == Health::Ready));
        gauge(&mut encoder, "quickcloud_role_ready", "1 while the role is ready.", None, ready)?;
        let healths = self.rows.iter().flat_map(|row| {
            // Every one, so that each is a series that goes to zero again.
            HealthWord::ALL.map(|health| {
                let role = ("role", row.kind.short.to_owned());
                (vec![role, ("health", health.to_string())], flag(row.health.word() == health))
            })
        });
        let help = "1 for the health the role has.";
        gauge(&mut encoder, "quickcloud_role_health", help, None, healths)?;
        let help = "Times the role was started again.";
        counter(
            &mut encoder,
            "quickcloud_role_restarts",
            help,
            per_role(|row| f64::from(row.restarts)),
        )
    }
}

#[derive(Debug)]
struct Links {
    rows: Vec<LinkRow>,
    now: Instant,
}

impl Collector for Links {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let series = |value: &dyn Fn(&LinkRow) -> Option<f64>| {
            self.rows
                .iter()
                .filter_map(|row| Some((vec![("role", row.role.short.to_owned())], value(row)?)))
                .collect::<Vec<_>>()
        };
        let seconds = Some(&Unit::Seconds);
        let attached = series(&|row| Some(flag(row.report.state == LinkState::Attached)));
        let help = "1 while the link is registered and ready.";
        gauge(&mut encoder, "quickcloud_link_attached", help, None, attached)?;
        let round_trip = series(&|row| Some(row.report.round_trip?.as_secs_f64()));
        let help = "Round trip of the last ping.";
        gauge(&mut encoder, "quickcloud_link_round_trip", help, seconds, round_trip)?;
        let age = series(&|row| {
            let at = row.report.last_answer?;
            Some(self.now.saturating_duration_since(at).as_secs_f64())
        });
        let help = "Time since the last answer to a ping.";
        gauge(&mut encoder, "quickcloud_link_last_answer_age", help, seconds, age)?;
        let in_flight =
            series(&|row| Some(u32::try_from(row.report.in_flight).map_or(f64::MAX, f64::from)));
        let help = "Commands being worked on.";
        gauge(&mut encoder, "quickcloud_link_commands_in_flight", help, None, in_flight)?;
        // Seconds since 1970 fit a double exactly until long after any certificate.
        let end = series(&|row| row.report.certificate_end.map(|end| end as f64));
        let help = "End of the certificate that is presented to the server, since the epoch.";
        gauge(&mut encoder, "quickcloud_agent_cert_not_after", help, seconds, end)
    }
}

type Labels = Vec<(&'static str, String)>;

fn flag(on: bool) -> f64 {
    if on { 1.0 } else { 0.0 }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    series: impl IntoIterator<Item = (Labels, f64)>,
) -> fmt::Result {
    let kind = ConstGauge::new(0.0).metric_type();
    let mut family = encoder.encode_descriptor(name, help, unit, kind)?;
    for (labels, value) in series {
        let metric = ConstGauge::new(value);
        metric.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Labels, f64)>,
) -> fmt::Result {
    let kind = ConstCounter::new(0.0).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in series {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// A gauge of the process: one series without labels.
fn single(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: f64,
) -> fmt::Result {
    let metric = ConstGauge::new(value);
    metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
}
