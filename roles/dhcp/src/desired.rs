//! The desired state: everything the role has been asked to serve, and what must always hold.
//!
//! [`DesiredState::apply`] is the only way to change it. A change is checked against every
//! invariant first and touches nothing when one is broken; a change that changes nothing keeps
//! the generation. Time and the machine's own addresses are inputs, so this module is pure.
//!
//! Invariants: subnets do not overlap, whatever their zone (one dnsmasq serves them all); a
//! reservation lies inside its subnet, on no address of ours, of the gateway or of an excluded
//! range; an address, a MAC within a subnet and a full name belong to one reservation; a CNAME has
//! its name alone and does not lead back to itself; only its owner changes or removes a resource.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Serialize;

use dhcp_api::read::Place;
use dhcp_api::record::{Record, RecordType};
use dhcp_api::resource::{OptionSet, Range, Reservation, Source, Subnet, Zone};
use dhcp_api::words::{DomainName, RecordName, ResourceId, Stamp};

mod containers;
mod index;
mod option_sets;
mod quarantine;
mod records;
mod reservations;
mod step;
mod stored;
mod sync;
#[cfg(test)]
pub(crate) mod tests;
mod whole;

pub use quarantine::Quarantined;
pub use records::{RecordKey, Standings};
pub(crate) use stored::Stored;
pub use sync::{SyncChange, SyncNote, SyncZone};
pub use whole::{Difference, WholeChange, WholeSubnet, WholeZone};

use quarantine::Settled;
use step::Step;

/// Bounds of the state; far beyond what one dnsmasq serves well.
pub const MAX_ZONES: usize = 64;
pub const MAX_SUBNETS: usize = 1024;
pub const MAX_RANGES: usize = 64;
pub const MAX_RECORDS: usize = 10_000;
pub const MAX_RESERVATIONS: usize = 50_000;
pub const MAX_OPTION_SETS: usize = 256;
/// From here on a reload stalls DHCP noticeably.
pub const SOFT_RESERVATIONS: usize = 5_000;

/// Everything asked for, with the generation it belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DesiredState {
    /// Grows by one with every change that changes something.
    pub generation: u64,
    pub zones: BTreeMap<ResourceId, ZoneState>,
    /// What was stored and cannot be served.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<Quarantined>,
}

/// A zone with all that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ZoneState {
    pub zone: Zone,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub option_sets: BTreeMap<ResourceId, OptionSet>,
    pub subnets: BTreeMap<ResourceId, SubnetState>,
    pub reservations: BTreeMap<ResourceId, Reservation>,
    #[serde(serialize_with = "records_as_list")]
    pub records: BTreeMap<(RecordName, RecordType), Record>,
}

/// A subnet with its ranges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubnetState {
    pub subnet: Subnet,
    pub ranges: BTreeMap<ResourceId, Range>,
}

/// One change of the state.
#[derive(Debug, Clone)]
pub enum Change {
    PutZone(Box<Zone>),
    DeleteZone {
        zone: ResourceId,
        cascade: bool,
    },
    PutSubnet {
        zone: ResourceId,
        subnet: Box<Subnet>,
    },
    DeleteSubnet {
        zone: ResourceId,
        subnet: ResourceId,
        cascade: bool,
    },
    PutRange {
        zone: ResourceId,
        subnet: ResourceId,
        range: Box<Range>,
    },
    DeleteRange {
        zone: ResourceId,
        subnet: ResourceId,
        range: ResourceId,
    },
    PutOptionSet {
        zone: ResourceId,
        set: Box<OptionSet>,
    },
    DeleteOptionSet {
        zone: ResourceId,
        set: ResourceId,
    },
    PutReservation {
        zone: ResourceId,
        reservation: Box<Reservation>,
    },
    DeleteReservation {
        zone: ResourceId,
        reservation: ResourceId,
    },
    /// All or nothing; what is replaced makes room for what comes.
    Batch {
        zone: ResourceId,
        upsert: Vec<Reservation>,
        delete: Vec<ResourceId>,
    },
    PutRecord {
        zone: ResourceId,
        record: Box<Record>,
    },
    DeleteRecord {
        zone: ResourceId,
        name: RecordName,
        kind: RecordType,
    },
    /// What the management server says, as one transaction.
    Sync(Box<SyncChange>),
    /// Everything that the API wants, in a zone or in all of them.
    Whole(Box<WholeChange>),
}

impl Change {
    /// What it is, for the history.
    pub(crate) fn summary(&self) -> String {
        match self {
            Self::PutZone(zone) => format!("put zone {}", zone.id),
            Self::DeleteZone { zone, .. } => format!("delete zone {zone}"),
            Self::PutSubnet { zone, subnet } => format!("put subnet {} of {zone}", subnet.id),
            Self::DeleteSubnet { zone, subnet, .. } => format!("delete subnet {subnet} of {zone}"),
            Self::PutRange { zone, subnet, range } => {
                format!("put range {} of {zone}/{subnet}", range.id)
            }
            Self::DeleteRange { zone, subnet, range } => {
                format!("delete range {range} of {zone}/{subnet}")
            }
            Self::PutOptionSet { zone, set } => format!("put option set {} of {zone}", set.id),
            Self::DeleteOptionSet { zone, set } => format!("delete option set {set} of {zone}"),
            Self::PutReservation { zone, reservation } => {
                let (id, mac, ipv4) = (&reservation.id, reservation.mac, reservation.ipv4);
                format!("put reservation {id} of {zone}: {mac} gets {ipv4}")
            }
            Self::DeleteReservation { zone, reservation } => {
                format!("delete reservation {reservation} of {zone}")
            }
            Self::Batch { zone, upsert, delete } => {
                format!("batch in {zone}: {} put, {} deleted", upsert.len(), delete.len())
            }
            Self::PutRecord { zone, record } => {
                format!("put record {} {} of {zone}", record.name, record.kind)
            }
            Self::DeleteRecord { zone, name, kind } => {
                format!("delete record {name} {kind} of {zone}")
            }
            Self::Whole(change) => {
                let count: usize = change.zones.iter().map(|zone| zone.reservations.len()).sum();
                let zones: Vec<&str> = change.zones.iter().map(|zone| zone.id.as_str()).collect();
                let (all, zones) = (if change.every_zone { "all, " } else { "" }, zones.join(", "));
                format!("replace everything of the API in {all}{zones}: {count} reservations")
            }
            Self::Sync(change) => {
                let (put, deleted) = (change.upsert.len(), change.delete.len());
                let zone = change.zone.ids.first().map(ToString::to_string).unwrap_or_default();
                format!("sync of {zone}: {put} put, {deleted} deleted")
            }
        }
    }

    const fn is_removal(&self) -> bool {
        match self {
            Self::DeleteZone { .. }
            | Self::DeleteSubnet { .. }
            | Self::DeleteRange { .. }
            | Self::DeleteOptionSet { .. }
            | Self::DeleteReservation { .. }
            | Self::DeleteRecord { .. } => true,
            Self::PutZone(_)
            | Self::PutSubnet { .. }
            | Self::PutRange { .. }
            | Self::PutOptionSet { .. }
            | Self::PutReservation { .. }
            | Self::Batch { .. }
            | Self::PutRecord { .. }
            | Self::Sync(_)
            | Self::Whole(_) => false,
        }
    }
}

/// What the caller believes about the resource it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Precondition {
    /// `If-Match`: the revision it must have.
    pub revision: Option<u64>,
    /// `If-None-Match: *`: it must not exist.
    pub absent: bool,
    /// A replacement or removal without `revision` is refused.
    pub required: bool,
}

/// Facts from outside that a change is judged by.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// Milliseconds since 1970.
    pub now_ms: i64,
    /// Addresses of the machine itself.
    pub local: Vec<Ipv4Addr>,
}

/// What a change did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Generation of the state afterwards.
    pub generation: u64,
    pub created: bool,
    pub changed: bool,
    /// What of a transaction of the sync was not as asked.
    pub notes: Vec<SyncNote>,
}

/// Why a change is refused. The state is untouched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("{what} {id} does not exist")]
    NotFound { what: &'static str, id: String },
    #[error("{field} {value} {reason}")]
    Invalid { field: &'static str, value: String, reason: String, remedy: &'static str },
    #[error("{field} {value} belongs to {owner} already")]
    Conflict { kind: ConflictKind, field: &'static str, value: String, owner: String },
    #[error("{what} {id} still has {contents}")]
    NotEmpty { what: &'static str, id: String, contents: String },
    #[error("{what} {id} is named by {users}")]
    InUse { what: &'static str, id: String, users: String },
    /// Of one body, with their places.
    #[error("{}", several(.0))]
    Several(Vec<(Place, Self)>),
    #[error("the resource is not as expected: {state}")]
    PreconditionFailed { state: String },
    #[error("replacing or removing {what} needs If-Match with its revision, now {revision}")]
    PreconditionRequired { what: &'static str, revision: u64 },
    #[error("no more than {limit} {what} are kept")]
    Limit { what: &'static str, limit: usize },
    #[error("{gone} of {of} reservations would go")]
    MassDelete { gone: usize, of: usize },
    #[error("{what} {id} belongs to {owner}, which alone changes and removes it")]
    Owned { what: &'static str, id: String, owner: Source },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictKind {
    Address,
    Mac,
    HostName,
    Subnet,
}

type Outcome = Result<Applied, ChangeError>;

fn several(faults: &[(Place, ChangeError)]) -> String {
    match faults {
        [] => "nothing is wrong".to_owned(),
        [(_, one)] => one.to_string(),
        [(_, first), rest @ ..] => format!("{first}; and {} more faults", rest.len()),
    }
}

fn absent(what: &'static str, id: &impl ToString) -> ChangeError {
    ChangeError::NotFound { what, id: id.to_string() }
}

impl DesiredState {
    /// Applies one change that `by` wants, or says why not and stays as it is.
    pub fn apply(
        &mut self,
        change: Change,
        by: Source,
        precondition: Precondition,
        facts: &Circumstances,
    ) -> Outcome {
        let settled = Settled::by(&change);
        let aside = self.is_aside(&settled);
        let is_removal = change.is_removal();
        let step = Step {
            by,
            generation: self.generation + 1,
            now: Stamp::from_unix_ms(facts.now_ms),
            precondition,
        };
        let generation = step.generation;
        let mut outcome = match self.perform(change, step, facts) {
            // It was there, aside.
            Err(ChangeError::NotFound { .. }) if is_removal && aside => Step::removed(),
            other => other?,
        };
        if aside {
            self.settle(&settled);
            outcome.changed = true;
        }
        if outcome.changed {
            self.generation = generation;
        }
        Ok(Applied { generation: self.generation, ..outcome })
    }

    fn perform(&mut self, change: Change, mut step: Step, facts: &Circumstances) -> Outcome {
        match change {
            Change::PutZone(zone) => self.put_zone(*zone, &mut step),
            Change::DeleteZone { zone, cascade } => self.delete_zone(&zone, cascade, &step),
            Change::PutSubnet { zone, subnet } => self.put_subnet(&zone, *subnet, &mut step, facts),
            Change::DeleteSubnet { zone, subnet, cascade } => {
                self.delete_subnet(&zone, &subnet, cascade, &step)
            }
            Change::PutRange { zone, subnet, range } => {
                self.put_range(&zone, &subnet, *range, &step)
            }
            Change::DeleteRange { zone, subnet, range } => {
                let state = self.subnet_mut(&zone, &subnet)?;
                step.remove("range", &mut state.ranges, &range, &range)
            }
            Change::PutOptionSet { zone, set } => self.put_option_set(&zone, *set, &step),
            Change::DeleteOptionSet { zone, set } => self.delete_option_set(&zone, &set, &step),
            Change::PutReservation { zone, reservation } => {
                self.put_reservation(&zone, *reservation, &step, facts)
            }
            Change::DeleteReservation { zone, reservation } => {
                let state = self.zone_mut(&zone)?;
                step.remove("reservation", &mut state.reservations, &reservation, &reservation)
            }
            Change::Batch { zone, upsert, delete } => {
                self.batch(&zone, upsert, &delete, &step, facts)
            }
            Change::PutRecord { zone, record } => self.put_record(&zone, *record, &step),
            Change::DeleteRecord { zone, name, kind } => {
                let state = self.zone_mut(&zone)?;
                let id = format!("{name} {kind}");
                step.remove("record", &mut state.records, &(name, kind), &id)
            }
            Change::Sync(change) => self.sync(*change, &step, facts),
            Change::Whole(change) => self.whole(*change, &step, facts),
        }
    }

    pub fn zone(&self, zone: &ResourceId) -> Result<&ZoneState, ChangeError> {
        self.zones.get(zone).ok_or_else(|| absent("zone", zone))
    }

    fn zone_mut(&mut self, zone: &ResourceId) -> Result<&mut ZoneState, ChangeError> {
        self.zones.get_mut(zone).ok_or_else(|| absent("zone", zone))
    }

    fn subnet_mut(
        &mut self,
        zone: &ResourceId,
        subnet: &ResourceId,
    ) -> Result<&mut SubnetState, ChangeError> {
        let state = self.zone_mut(zone)?;
        state.subnets.get_mut(subnet).ok_or_else(|| absent("subnet", subnet))
    }

    pub fn subnets(&self) -> impl Iterator<Item = (&ZoneState, &SubnetState)> {
        self.zones.values().flat_map(|zone| zone.subnets.values().map(move |subnet| (zone, subnet)))
    }

    pub fn reservations(&self) -> impl Iterator<Item = (&ZoneState, &Reservation)> {
        self.zones.values().flat_map(|zone| zone.reservations.values().map(move |r| (zone, r)))
    }
}

/// The domain names of a subnet's hosts lie below.
pub fn domain_of<'a>(zone: &'a Zone, subnet: Option<&'a Subnet>) -> &'a DomainName {
    subnet.and_then(|subnet| subnet.domain.as_ref()).unwrap_or(&zone.domain)
}

fn records_as_list<S: serde::Serializer>(
    records: &BTreeMap<(RecordName, RecordType), Record>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(records.values())
}
