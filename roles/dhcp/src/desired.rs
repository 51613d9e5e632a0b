//! The desired state: everything the role has been asked to serve, and what must always hold.
//!
//! [`DesiredState::apply`] is the only way to change it. A change is checked against every
//! invariant first and touches nothing when one is broken; a change that changes nothing keeps
//! the generation. Time and the machine's own addresses are inputs, so this module is pure.
//!
//! Invariants: subnets do not overlap, whatever their zone (one dnsmasq serves them all); a
//! reservation lies inside its subnet, on no address of ours, of the gateway or of an excluded
//! range; an address, a MAC within a subnet and a name within a domain belong to one reservation.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::model::{Range, Record, RecordType, Reservation, Subnet, Zone};
use crate::value::{DomainName, RecordName, ResourceId, Stamp};

mod index;
mod step;
#[cfg(test)]
pub(crate) mod tests;

use index::{Index, Owner};
use step::{Step, check_placement, check_range, not_empty};

/// Bounds of the state; far beyond what one dnsmasq serves well.
pub const MAX_ZONES: usize = 64;
pub const MAX_SUBNETS: usize = 1024;
pub const MAX_RANGES: usize = 64;
pub const MAX_RECORDS: usize = 10_000;
pub const MAX_RESERVATIONS: usize = 20_000;
/// From here on a reload stalls DHCP noticeably.
pub const SOFT_RESERVATIONS: usize = 5_000;

/// Everything asked for, with the generation it belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredState {
    /// Grows by one with every change that changes something.
    pub generation: u64,
    pub zones: BTreeMap<ResourceId, ZoneState>,
}

/// A zone with all that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneState {
    pub zone: Zone,
    pub subnets: BTreeMap<ResourceId, SubnetState>,
    pub reservations: BTreeMap<ResourceId, Reservation>,
    #[serde(with = "records_as_list")]
    pub records: BTreeMap<(RecordName, RecordType), Record>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Generation of the state afterwards.
    pub generation: u64,
    pub created: bool,
    pub changed: bool,
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
    #[error("the resource is not as expected: {state}")]
    PreconditionFailed { state: String },
    #[error("replacing or removing {what} needs If-Match with its revision, now {revision}")]
    PreconditionRequired { what: &'static str, revision: u64 },
    #[error("no more than {limit} {what} are kept")]
    Limit { what: &'static str, limit: usize },
    #[error("{what} {id} is owned by the management server")]
    Owned { what: &'static str, id: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictKind {
    Address,
    Mac,
    HostName,
    Subnet,
}

type Outcome = Result<Applied, ChangeError>;

fn absent(what: &'static str, id: &impl ToString) -> ChangeError {
    ChangeError::NotFound { what, id: id.to_string() }
}

impl DesiredState {
    /// Applies one change, or says why not and stays as it is.
    pub fn apply(
        &mut self,
        change: Change,
        precondition: Precondition,
        facts: &Circumstances,
    ) -> Outcome {
        let mut step = Step {
            generation: self.generation + 1,
            now: Stamp::from_unix_ms(facts.now_ms),
            precondition,
        };
        let outcome = match change {
            Change::PutZone(zone) => self.put_zone(*zone, &mut step),
            Change::DeleteZone { zone, cascade } => self.delete_zone(&zone, cascade, &step),
            Change::PutSubnet { zone, subnet } => self.put_subnet(&zone, *subnet, &mut step, facts),
            Change::DeleteSubnet { zone, subnet, cascade } => {
                self.delete_subnet(&zone, &subnet, cascade, &step)
            }
            Change::PutRange { zone, subnet, range } => {
                self.put_range(&zone, &subnet, *range, &mut step)
            }
            Change::DeleteRange { zone, subnet, range } => {
                let state = self.subnet_mut(&zone, &subnet)?;
                step.remove("range", &mut state.ranges, &range, &range)
            }
            Change::PutReservation { zone, reservation } => {
                self.put_reservation(&zone, *reservation, &mut step, facts)
            }
            Change::DeleteReservation { zone, reservation } => {
                let state = self.zone_mut(&zone)?;
                step.remove("reservation", &mut state.reservations, &reservation, &reservation)
            }
            Change::Batch { zone, upsert, delete } => {
                self.batch(&zone, upsert, &delete, &step, facts)
            }
            Change::PutRecord { zone, record } => self.put_record(&zone, *record, &mut step),
            Change::DeleteRecord { zone, name, kind } => {
                let state = self.zone_mut(&zone)?;
                let id = format!("{name} {kind}");
                step.remove("record", &mut state.records, &(name, kind), &id)
            }
        }?;
        if outcome.changed {
            self.generation = step.generation;
        }
        Ok(Applied { generation: self.generation, ..outcome })
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
        let all = |zone: &'_ ZoneState| zone.reservations.len();
        debug_assert!(self.zones.values().map(all).sum::<usize>() <= MAX_RESERVATIONS);
        self.zones.values().flat_map(|zone| zone.reservations.values().map(move |r| (zone, r)))
    }

    fn put_zone(&mut self, zone: Zone, step: &mut Step) -> Outcome {
        let existing = self.zones.get(&zone.id).map(|state| &state.zone);
        if existing.is_none() && self.zones.len() >= MAX_ZONES {
            return Err(ChangeError::Limit { what: "zones", limit: MAX_ZONES });
        }
        step.required();
        let (zone, outcome) = step.replace("zone", existing, zone)?;
        // A new domain moves every name of the zone.
        let mut index = Index::without_zone(self, &zone.id);
        if let Some(state) = self.zones.get(&zone.id) {
            for reservation in state.reservations.values() {
                let subnet = state.subnets.get(&reservation.subnet).map(|s| &s.subnet);
                index.claim_names(&zone, subnet, reservation)?;
            }
        }
        if let Some(state) = self.zones.get_mut(&zone.id) {
            state.zone = zone;
        } else {
            let empty = ZoneState {
                subnets: BTreeMap::new(),
                reservations: BTreeMap::new(),
                records: BTreeMap::new(),
                zone: zone.clone(),
            };
            self.zones.insert(zone.id, empty);
        }
        Ok(outcome)
    }

    fn delete_zone(&mut self, id: &ResourceId, cascade: bool, step: &Step) -> Outcome {
        let state = self.zone(id)?;
        let contents = [
            (state.subnets.len(), "subnets"),
            (state.reservations.len(), "reservations"),
            (state.records.len(), "records"),
        ];
        step.check_required("zone", &state.zone.meta)?;
        not_empty("zone", id, &contents, cascade)?;
        self.zones.remove(id);
        Ok(Step::removed())
    }

    fn put_subnet(
        &mut self,
        zone: &ResourceId,
        subnet: Subnet,
        step: &mut Step,
        facts: &Circumstances,
    ) -> Outcome {
        let count = self.subnets().count();
        let state = self.zone(zone)?;
        let existing = state.subnets.get(&subnet.id);
        if existing.is_none() && count >= MAX_SUBNETS {
            return Err(ChangeError::Limit { what: "subnets", limit: MAX_SUBNETS });
        }
        step.required();
        let (subnet, outcome) = step.replace("subnet", existing.map(|s| &s.subnet), subnet)?;
        for (other_zone, other) in self.subnets() {
            let same = other_zone.zone.id == *zone && other.subnet.id == subnet.id;
            if !same && other.subnet.cidr.overlaps(subnet.cidr) {
                return Err(ChangeError::Conflict {
                    kind: ConflictKind::Subnet,
                    field: "cidr",
                    value: subnet.cidr.to_string(),
                    owner: format!("subnet {} of zone {}", other.subnet.id, other_zone.zone.id),
                });
            }
        }
        let ranges = existing.map(|state| state.ranges.clone()).unwrap_or_default();
        for range in ranges.values() {
            check_range(&subnet, range)?;
        }
        let mut changed = SubnetState { subnet, ranges };
        let mut index = Index::without_zone(self, zone);
        for reservation in state.reservations.values() {
            if reservation.subnet == changed.subnet.id {
                check_placement(&changed, reservation, facts)?;
            }
            let subnet = if reservation.subnet == changed.subnet.id {
                Some(&changed.subnet)
            } else {
                state.subnets.get(&reservation.subnet).map(|s| &s.subnet)
            };
            index.claim_names(&state.zone, subnet, reservation)?;
        }
        let state = self.zone_mut(zone)?;
        if let Some(old) = state.subnets.get_mut(&changed.subnet.id) {
            std::mem::swap(&mut old.subnet, &mut changed.subnet);
        } else {
            state.subnets.insert(changed.subnet.id.clone(), changed);
        }
        Ok(outcome)
    }

    fn delete_subnet(
        &mut self,
        zone: &ResourceId,
        id: &ResourceId,
        cascade: bool,
        step: &Step,
    ) -> Outcome {
        let state = self.zone_mut(zone)?;
        let subnet = state.subnets.get(id).ok_or_else(|| absent("subnet", id))?;
        step.check_required("subnet", &subnet.subnet.meta)?;
        let inside = state.reservations.values().filter(|r| r.subnet == *id).count();
        not_empty("subnet", id, &[(inside, "reservations")], cascade)?;
        state.reservations.retain(|_, reservation| reservation.subnet != *id);
        state.subnets.remove(id);
        Ok(Step::removed())
    }

    fn put_range(
        &mut self,
        zone: &ResourceId,
        subnet: &ResourceId,
        range: Range,
        step: &mut Step,
    ) -> Outcome {
        let taken =
            self.zone(zone)?.reservations.values().find(|reservation| {
                reservation.subnet == *subnet && range.contains(reservation.ipv4)
            });
        if let (crate::model::Purpose::Excluded, Some(reservation)) = (range.purpose, taken) {
            return Err(ChangeError::Conflict {
                kind: ConflictKind::Address,
                field: "start",
                value: format!("{}-{}", range.start, range.end),
                owner: format!("reservation {} ({})", reservation.id, reservation.ipv4),
            });
        }
        let state = self.subnet_mut(zone, subnet)?;
        check_range(&state.subnet, &range)?;
        let existing = state.ranges.get(&range.id);
        if existing.is_none() && state.ranges.len() >= MAX_RANGES {
            return Err(ChangeError::Limit { what: "ranges of a subnet", limit: MAX_RANGES });
        }
        let (range, outcome) = step.replace("range", existing, range)?;
        state.ranges.insert(range.id.clone(), range);
        Ok(outcome)
    }

    fn put_reservation(
        &mut self,
        zone: &ResourceId,
        reservation: Reservation,
        step: &mut Step,
        facts: &Circumstances,
    ) -> Outcome {
        let existing = self.zone(zone)?.reservations.get(&reservation.id);
        let (reservation, outcome) = step.replace("reservation", existing, reservation)?;
        if !outcome.changed {
            return Ok(outcome);
        }
        let id = reservation.id.clone();
        let mut index = Index::without(self, zone, |r| r.id == id);
        self.admit(zone, &reservation, &mut index, facts)?;
        self.zone_mut(zone)?.reservations.insert(id, reservation);
        Ok(outcome)
    }

    fn admit(
        &self,
        zone: &ResourceId,
        reservation: &Reservation,
        index: &mut Index,
        facts: &Circumstances,
    ) -> Result<(), ChangeError> {
        let state = self.zone(zone)?;
        let subnet = state
            .subnets
            .get(&reservation.subnet)
            .ok_or_else(|| absent("subnet", &reservation.subnet))?;
        check_placement(subnet, reservation, facts)?;
        index.claim(&state.zone, &subnet.subnet, reservation)?;
        if index.reservations() > MAX_RESERVATIONS {
            return Err(ChangeError::Limit { what: "reservations", limit: MAX_RESERVATIONS });
        }
        Ok(())
    }

    fn batch(
        &mut self,
        zone: &ResourceId,
        upsert: Vec<Reservation>,
        delete: &[ResourceId],
        step: &Step,
        facts: &Circumstances,
    ) -> Outcome {
        let state = self.zone(zone)?;
        let delete: HashSet<&ResourceId> = delete.iter().collect();
        let replaced: HashSet<&ResourceId> =
            upsert.iter().map(|r| &r.id).chain(delete.iter().copied()).collect();
        let mut index = Index::without(self, zone, |r| replaced.contains(&r.id));
        let gone = delete.iter().filter(|id| state.reservations.contains_key(*id)).count();
        let (mut changed, mut created) = (gone > 0, false);
        let mut admitted = Vec::with_capacity(upsert.len());
        for reservation in upsert.iter().cloned() {
            let existing =
                state.reservations.get(&reservation.id).filter(|r| !delete.contains(&r.id));
            let (reservation, outcome) = step.replace("reservation", existing, reservation)?;
            self.admit(zone, &reservation, &mut index, facts)?;
            changed |= outcome.changed;
            created |= outcome.created;
            admitted.push(reservation);
        }
        let state = self.zone_mut(zone)?;
        state.reservations.retain(|id, _| !delete.contains(id));
        state.reservations.extend(admitted.into_iter().map(|r| (r.id.clone(), r)));
        Ok(Applied { generation: 0, created, changed })
    }

    fn put_record(&mut self, zone: &ResourceId, record: Record, step: &mut Step) -> Outcome {
        let state = self.zone_mut(zone)?;
        let key = (record.name.clone(), record.kind);
        let existing = state.records.get(&key);
        if existing.is_none() && state.records.len() >= MAX_RECORDS {
            return Err(ChangeError::Limit { what: "records of a zone", limit: MAX_RECORDS });
        }
        let (record, outcome) = step.replace("record", existing, record)?;
        let name = record.name.within(&state.zone.domain);
        let owner = Index::of(self).owner_of_name(&name).cloned();
        if let Some(Owner { reservation, .. }) = owner {
            return Err(ChangeError::Conflict {
                kind: ConflictKind::HostName,
                field: "name",
                value: name,
                owner: format!("reservation {reservation}"),
            });
        }
        self.zone_mut(zone)?.records.insert(key, record);
        Ok(outcome)
    }

    /// Whether everything that must hold does; for a state read from disk.
    pub fn check(&self) -> Result<(), ChangeError> {
        let mut index = Index::default();
        for (zone, reservation) in self.reservations() {
            let subnet = zone
                .subnets
                .get(&reservation.subnet)
                .ok_or_else(|| absent("subnet", &reservation.subnet))?;
            check_placement(subnet, reservation, &Circumstances::default())?;
            index.claim(&zone.zone, &subnet.subnet, reservation)?;
        }
        Ok(())
    }
}

/// The domain names of a subnet's hosts lie below.
pub fn domain_of<'a>(zone: &'a Zone, subnet: Option<&'a Subnet>) -> &'a DomainName {
    subnet.and_then(|subnet| subnet.domain.as_ref()).unwrap_or(&zone.domain)
}

mod records_as_list {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Record, RecordName, RecordType};

    type Records = BTreeMap<(RecordName, RecordType), Record>;

    pub(super) fn serialize<S: Serializer>(map: &Records, s: S) -> Result<S::Ok, S::Error> {
        map.values().collect::<Vec<_>>().serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Records, D::Error> {
        let list = Vec::<Record>::deserialize(d)?;
        Ok(list.into_iter().map(|record| ((record.name.clone(), record.kind), record)).collect())
    }
}
