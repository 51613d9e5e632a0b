//! One transaction of the sync: containers, then deletions, then upserts, all of it or nothing.
//!
//! The server's book decides who has an address. A reservation of the API that stands in the way
//! is set aside with its reason, never removed, and comes back when the way is free. A NIC whose
//! reservation cannot be kept is told of and stops no other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use dhcp_api::resource::{
    Range, RangeContent, Reservation, ReservationContent, Source, Subnet, SubnetContent, Zone,
    ZoneContent,
};
use dhcp_api::words::{MacAddress, ResourceId, Text};
use serde_json::Value;

use super::index::Index;
use super::quarantine::Quarantined;
use super::step::Step;
use super::{Applied, ChangeError, Circumstances, ConflictKind, DesiredState, Outcome, ZoneState};
use crate::sync::with_address;

/// How the reason of what was set aside begins.
const ASIDE: &str = "set aside for the management server: ";

/// A subnet with its ranges.
pub(super) type SyncSubnet = (ResourceId, SubnetContent, Vec<(ResourceId, RangeContent)>);

/// A zone as the server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncZone {
    /// What it may be called here; the first that nobody has.
    pub ids: Vec<ResourceId>,
    pub zone: ZoneContent,
    /// Subnets with their ranges.
    pub subnets: Vec<SyncSubnet>,
}

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncChange {
    pub zone: SyncZone,
    /// Whether subnets and ranges are to be as in `zone`.
    pub is_whole: bool,
    pub upsert: Vec<(ResourceId, Arc<ReservationContent>)>,
    pub delete: Vec<ResourceId>,
    /// What an earlier sync left in other zones goes.
    pub forced: bool,
}

/// What was not as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncNote {
    pub text: String,
    /// The reservation that could not be kept.
    pub refused: Option<(ResourceId, Arc<ReservationContent>)>,
}

impl DesiredState {
    /// The zone that the sync keeps for a zone of the server.
    pub fn synced_zone(&self, cloudstack_id: Option<&Text>) -> Option<&ZoneState> {
        self.zones.values().find(|state| {
            let zone = &state.zone;
            let is_it = zone.cloudstack_zone_id.as_ref() == cloudstack_id;
            zone.meta.source == Source::Cloudstack && is_it
        })
    }

    /// The reservations of the sync, whatever their zone.
    pub fn synced(&self) -> BTreeMap<ResourceId, Arc<ReservationContent>> {
        let all = self.reservations().map(|(_, reservation)| reservation);
        all.filter(|reservation| reservation.meta.source == Source::Cloudstack)
            .map(|reservation| (reservation.id.clone(), Arc::clone(&reservation.content)))
            .collect()
    }

    pub(super) fn sync(
        &mut self,
        change: SyncChange,
        step: &Step,
        facts: &Circumstances,
    ) -> Outcome {
        let mut work = Work { state: self.clone(), step, facts, notes: Vec::new() };
        let zone = work.zone(&change.zone)?;
        if change.is_whole {
            work.put_subnets(&zone, &change.zone);
        }
        work.delete(&zone, &change.delete);
        work.make_room(&zone, &change.upsert);
        work.upsert(&zone, change.upsert)?;
        work.bring_back();
        if change.is_whole {
            work.drop_subnets(&zone, &change.zone);
        }
        work.others(&zone, change.forced);
        let Work { state, notes, .. } = work;
        let changed = state != *self;
        *self = state;
        Ok(Applied { generation: 0, created: false, changed, notes })
    }
}

struct Work<'a> {
    state: DesiredState,
    step: &'a Step,
    facts: &'a Circumstances,
    notes: Vec<SyncNote>,
}

impl Work<'_> {
    fn note(&mut self, text: String) {
        self.notes.push(SyncNote { text, refused: None });
    }

    fn zone(&mut self, wanted: &SyncZone) -> Result<ResourceId, ChangeError> {
        let known = self.state.synced_zone(wanted.zone.cloudstack_zone_id.as_ref());
        let known = known.map(|state| (state.zone.id.clone(), state.zone.meta.revision));
        let id = match &known {
            Some((id, _)) => id.clone(),
            None => {
                let free = |id: &&ResourceId| !self.state.zones.contains_key(*id);
                let id = wanted.ids.iter().find(free).cloned();
                id.ok_or_else(|| ChangeError::Conflict {
                    kind: ConflictKind::Subnet,
                    field: "zone",
                    value: wanted.ids.first().map(ToString::to_string).unwrap_or_default(),
                    owner: Source::Api.to_string(),
                })?
            }
        };
        let mut step = self.step.knowing(known.map(|(_, revision)| revision));
        let zone = Zone::new(id.clone(), wanted.zone.clone(), step.by);
        self.state.put_zone(zone, &mut step)?;
        Ok(id)
    }

    fn put_subnets(&mut self, zone: &ResourceId, wanted: &SyncZone) {
        for (id, content, ranges) in &wanted.subnets {
            let known = self.state.zones.get(zone).and_then(|state| state.subnets.get(id));
            let (revision, is_same) = match known {
                Some(known) => {
                    let is_same = *known.subnet.content == *content;
                    (Some(known.subnet.meta.revision), is_same)
                }
                None => (None, false),
            };
            if !is_same {
                let mut step = self.step.knowing(revision);
                let subnet = Subnet::new(id.clone(), content.clone(), step.by);
                if let Err(error) = self.state.put_subnet(zone, subnet, &mut step, self.facts) {
                    self.note(format!(
                        "subnet {} cannot be served: {error}; remove what is in its way with the \
                         API",
                        content.cidr
                    ));
                    continue;
                }
            }
            self.put_ranges(zone, id, ranges);
        }
    }

    fn put_ranges(
        &mut self,
        zone: &ResourceId,
        subnet: &ResourceId,
        wanted: &[(ResourceId, RangeContent)],
    ) {
        for (id, content) in wanted {
            let range = Range::new(id.clone(), content.clone(), self.step.by);
            let step = self.step.knowing(None);
            if let Err(error) = self.state.put_range(zone, subnet, range, &step) {
                self.note(format!("range {id} is not kept: {error}"));
            }
        }
        if let Ok(state) = self.state.subnet_mut(zone, subnet) {
            state.ranges.retain(|id, range| {
                range.meta.source != Source::Cloudstack || wanted.iter().any(|(w, _)| w == id)
            });
        }
    }

    fn delete(&mut self, zone: &ResourceId, ids: &[ResourceId]) {
        let ids: HashSet<&ResourceId> = ids.iter().collect();
        if let Some(state) = self.state.zones.get_mut(zone) {
            state.reservations.retain(|id, reservation| {
                reservation.meta.source != Source::Cloudstack || !ids.contains(id)
            });
        }
    }

    /// Takes addresses and MACs from whoever has them.
    fn make_room(&mut self, zone: &ResourceId, upsert: &[(ResourceId, Arc<ReservationContent>)]) {
        let ids: HashSet<&ResourceId> = upsert.iter().map(|(id, _)| id).collect();
        let addresses: HashMap<Ipv4Addr, &ResourceId> =
            upsert.iter().map(|(id, content)| (content.ipv4, id)).collect();
        let macs: HashMap<(&ResourceId, MacAddress), &ResourceId> =
            upsert.iter().map(|(id, content)| ((&content.subnet, content.mac), id)).collect();
        let mut aside = Vec::new();
        for (owner, state) in &mut self.state.zones {
            state.reservations.retain(|id, kept| {
                let is_here = owner == zone;
                let is_replaced = is_here && ids.contains(id);
                let claimed = addresses.get(&kept.ipv4).map(|nic| (kept.ipv4.to_string(), *nic));
                let claimed = claimed.or_else(|| {
                    let by_mac = macs.get(&(&kept.subnet, kept.mac)).filter(|_| is_here)?;
                    Some((kept.mac.to_string(), *by_mac))
                });
                let Some((what, nic)) = claimed.filter(|_| !is_replaced) else { return true };
                if kept.meta.source == Source::Api {
                    aside.push((owner.clone(), kept.clone(), format!("{what} belongs to {nic}")));
                }
                false
            });
        }
        for (owner, kept, reason) in aside {
            self.note(format!("reservation {} of zone {owner} is set aside: {reason}", kept.id));
            self.state.quarantine.push(Quarantined {
                place: format!("zones/{owner}/reservations/{}", kept.id),
                reason: format!("{ASIDE}{reason}"),
                content: serde_json::to_value(&kept).unwrap_or(Value::Null),
            });
        }
    }

    fn upsert(
        &mut self,
        zone: &ResourceId,
        upsert: Vec<(ResourceId, Arc<ReservationContent>)>,
    ) -> Result<(), ChangeError> {
        let ids: HashSet<ResourceId> = upsert.iter().map(|(id, _)| id.clone()).collect();
        let is_replaced =
            |owner: &ResourceId, kept: &Reservation| owner == zone && ids.contains(&kept.id);
        let mut index = Index::of(&self.state, is_replaced, |_, _| false);
        let mut old = HashMap::new();
        if let Some(state) = self.state.zones.get_mut(zone) {
            for id in &ids {
                old.extend(state.reservations.remove(id).map(|kept| (id.clone(), kept)));
            }
        }
        for (id, content) in upsert {
            match self.admit_named(zone, &id, &content, old.get(&id), &mut index)? {
                Ok(kept) => {
                    self.state.zone_mut(zone)?.reservations.insert(id, kept);
                }
                Err(error) => {
                    let text = format!("{id} ({}) is not served: {error}", content.ipv4);
                    self.notes.push(SyncNote { text, refused: Some((id, content)) });
                }
            }
        }
        Ok(())
    }

    /// Admits a reservation, under another name or none when its own is taken.
    fn admit_named(
        &mut self,
        zone: &ResourceId,
        id: &ResourceId,
        content: &Arc<ReservationContent>,
        old: Option<&Reservation>,
        index: &mut Index,
    ) -> Result<Result<Reservation, ChangeError>, ChangeError> {
        let step = self.step.knowing(None);
        let own = content.hostname.clone();
        let others = own.as_ref().into_iter().flat_map(|name| {
            [2, 4].into_iter().filter_map(|count| with_address(name, content.ipv4, count)).map(Some)
        });
        let mut refusal = None;
        for hostname in std::iter::once(own.clone()).chain(others).chain([None]) {
            let mut tried = Arc::clone(content);
            if tried.hostname != hostname {
                Arc::make_mut(&mut tried).hostname.clone_from(&hostname);
            }
            let new = Reservation::sharing(id.clone(), tried, step.by);
            let (new, _) = step.replace("reservation", id, old, new)?;
            match self.state.admit(zone, &new, index, self.facts) {
                Ok(()) => {
                    if let Some(error) = refusal {
                        let called = hostname.map_or("nothing".to_owned(), |name| name.to_string());
                        self.note(format!("{id} is called {called}: {error}"));
                    }
                    return Ok(Ok(new));
                }
                Err(error @ ChangeError::Conflict { kind: ConflictKind::HostName, .. }) => {
                    refusal.get_or_insert(error);
                }
                Err(other) => return Ok(Err(other)),
            }
        }
        Ok(Err(refusal.unwrap_or(ChangeError::NotFound { what: "name", id: id.to_string() })))
    }

    /// What was set aside and is in nobody's way any more.
    fn bring_back(&mut self) {
        let aside = self.state.quarantine.iter().filter(|kept| kept.reason.starts_with(ASIDE));
        if aside.clone().next().is_none() {
            return;
        }
        let aside: Vec<Quarantined> = aside.cloned().collect();
        let mut index = Index::of(&self.state, |_, _| false, |_, _| false);
        for kept in aside {
            let zone = kept.place.split('/').nth(1).and_then(|zone| zone.parse().ok());
            let (Some(zone), Ok(reservation)) =
                (zone, serde_json::from_value::<Reservation>(kept.content.clone()))
            else {
                continue;
            };
            let zone: ResourceId = zone;
            if self.state.admit(&zone, &reservation, &mut index, self.facts).is_err() {
                continue;
            }
            if let Ok(state) = self.state.zone_mut(&zone) {
                state.reservations.insert(reservation.id.clone(), reservation);
                self.state.quarantine.retain(|other| *other != kept);
            }
        }
    }

    /// Subnets that the server has no more, once nobody has a reservation there.
    fn drop_subnets(&mut self, zone: &ResourceId, wanted: &SyncZone) {
        let Some(state) = self.state.zones.get_mut(zone) else { return };
        let used: HashSet<ResourceId> =
            state.reservations.values().map(|kept| kept.subnet.clone()).collect();
        let mut kept_for_others = Vec::new();
        state.subnets.retain(|id, state| {
            let is_wanted = wanted.subnets.iter().any(|(wanted, ..)| wanted == id);
            if is_wanted || state.subnet.meta.source != Source::Cloudstack {
                return true;
            }
            let ranges = state.ranges.values();
            let foreign = ranges.filter(|range| range.meta.source != Source::Cloudstack).count();
            let is_kept = used.contains(id) || foreign > 0;
            if is_kept {
                kept_for_others.push(id.clone());
            }
            is_kept
        });
        for id in kept_for_others {
            self.note(format!(
                "subnet {id} is not the server's any more, and kept for what is still in it"
            ));
        }
    }

    /// Zones of an earlier configuration.
    fn others(&mut self, zone: &ResourceId, forced: bool) {
        let is_other = |id: &ResourceId, state: &ZoneState| {
            id != zone && state.zone.meta.source == Source::Cloudstack
        };
        let others: Vec<ResourceId> = self
            .state
            .zones
            .iter()
            .filter(|(id, state)| is_other(id, state))
            .map(|(id, _)| id.clone())
            .collect();
        for id in others {
            let revision = self.state.zones.get(&id).map(|state| state.zone.meta.revision);
            let step = self.step.knowing(revision);
            match forced.then(|| self.state.delete_zone(&id, true, &step)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    self.note(format!("zone {id} of an earlier sync stays: {error}"))
                }
                None => self.note(format!(
                    "zone {id} is of an earlier sync and stays as it was; POST \
                     /v1/sync?force=true removes it"
                )),
            }
        }
    }
}
