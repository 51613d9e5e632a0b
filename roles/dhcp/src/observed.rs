//! What is really served, as the reconciler last saw it. Written by the reconciler alone.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use dhcp_api::answer::{LastApply, Phase};
use dhcp_api::words::Stamp;

use crate::desired::RecordKey;
use crate::render::LineOwner;
use crate::rollback::Poisoned;

/// Observed state of the one dnsmasq.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Generation whose files are on disk.
    pub rendered: u64,
    /// Generation a running dnsmasq has confirmed.
    pub applied: u64,
    pub applied_at: Option<Stamp>,
    /// Why the last attempt failed, with the generation it was for.
    pub error: Option<(u64, String)>,
    pub instance: Instance,
    pub last_apply: Option<LastApply>,
    pub reservations: usize,
    pub leases: usize,
    pub conflicts: usize,
    /// Whether the interface is not there.
    pub no_interface: bool,
    /// Subnets of the interface in which it has no address; their guests get no answer.
    pub unserved: Vec<String>,
    /// Lines dnsmasq did not take since it last read them.
    pub rejected: Vec<Rejection>,
    /// Records dnsmasq refused when it was asked, with what it said.
    pub refused: BTreeMap<RecordKey, String>,
    /// Why the desired state is that of the backup.
    pub restored: Option<String>,
    /// What dnsmasq does not survive, while an older generation is served.
    pub(crate) rolled_back: Option<Poisoned>,
    /// Options that did not fit into an answer to a client, since the last reload.
    pub dropped: Vec<String>,
    /// Addresses that their clients declined since the last reload, and when.
    pub declined: BTreeMap<Ipv4Addr, Instant>,
    /// The last jump of the wall clock, in words.
    pub clock_jump: Option<String>,
}

/// A line dnsmasq did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// What dnsmasq said.
    pub line: String,
    /// Whose line it is, if that is known.
    pub owner: Option<LineOwner>,
}

/// The dnsmasq process.
#[derive(Debug, Clone, Default)]
pub struct Instance {
    pub phase: Phase,
    pub pid: Option<i32>,
    pub version: Option<String>,
    pub started: Option<Instant>,
    /// How often it ended by itself.
    pub restarts: u64,
    /// Why it is down.
    pub reason: Option<String>,
    pub last_exit: Option<String>,
    /// Account it runs as.
    pub runs_as: Option<String>,
}

/// How far one generation has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Stored; the reconciler is at it.
    Pending,
    /// dnsmasq serves it.
    Applied,
    /// Stored and written, but dnsmasq is down; it will read it when it starts.
    Waiting,
    /// Stored, but it could not be applied; tried again.
    Failed(String),
}

impl Observed {
    /// What dnsmasq did not take of somebody's lines.
    pub fn rejected_line(&self, owner: LineOwner) -> Option<String> {
        let rejection = self.rejected.iter().find(|rejection| rejection.owner == Some(owner))?;
        Some(format!("dnsmasq does not take: {}", rejection.line))
    }

    pub fn progress(&self, generation: u64) -> Progress {
        if self.applied >= generation {
            return Progress::Applied;
        }
        match &self.error {
            Some((failed, error)) if *failed >= generation => Progress::Failed(error.clone()),
            _ if self.rendered >= generation && self.instance.phase == Phase::Down => {
                Progress::Waiting
            }
            _ => Progress::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_waits_for_a_dnsmasq_that_is_down_and_fails_only_for_its_own_error() {
        let mut observed = Observed { rendered: 3, applied: 2, ..Observed::default() };
        assert_eq!(observed.progress(2), Progress::Applied);
        assert_eq!(observed.progress(3), Progress::Pending);
        observed.instance.phase = Phase::Down;
        assert_eq!(observed.progress(3), Progress::Waiting);
        assert_eq!(observed.progress(4), Progress::Pending);
        observed.error = Some((3, "refused".to_owned()));
        assert_eq!(observed.progress(3), Progress::Failed("refused".to_owned()));
        assert_eq!(observed.progress(4), Progress::Pending);
    }
}
