//! Zones, subnets and ranges: what holds reservations and records.

use std::collections::BTreeMap;

use dhcp_api::resource::{Purpose, Range, Subnet, Zone};
use dhcp_api::words::ResourceId;

use super::index::Index;
use super::step::{Step, check_placement, check_range, not_empty};
use super::{
    ChangeError, Circumstances, ConflictKind, DesiredState, MAX_RANGES, MAX_SUBNETS, MAX_ZONES,
    Outcome, SubnetState, ZoneState, absent,
};

impl DesiredState {
    pub(super) fn put_zone(&mut self, zone: Zone, step: &mut Step) -> Outcome {
        let existing = self.zones.get(&zone.id).map(|state| &state.zone);
        if existing.is_none() && self.zones.len() >= MAX_ZONES {
            return Err(ChangeError::Limit { what: "zones", limit: MAX_ZONES });
        }
        step.required();
        let id = zone.id.clone();
        let (zone, outcome) = step.replace("zone", &id, existing, zone)?;
        let Some(state) = self.zones.get(&id) else {
            self.zones.insert(id, ZoneState::new(zone));
            return Ok(outcome);
        };
        // A new domain moves every name of the zone.
        if state.zone.domain != zone.domain {
            let mut index = Index::of(self, |owner, _| *owner == id, |owner, _| *owner == id);
            for reservation in state.reservations.values() {
                let subnet = state.subnets.get(&reservation.subnet).map(|s| &s.subnet);
                index.claim_names(&zone, subnet, reservation)?;
            }
            for record in state.records.values() {
                index.claim_record(&zone, record)?;
            }
        }
        self.zone_mut(&id)?.zone = zone;
        Ok(outcome)
    }

    pub(super) fn delete_zone(&mut self, id: &ResourceId, cascade: bool, step: &Step) -> Outcome {
        let state = self.zone(id)?;
        let contents = [
            (state.option_sets.len(), "option sets"),
            (state.subnets.len(), "subnets"),
            (state.reservations.len(), "reservations"),
            (state.records.len(), "records"),
        ];
        step.check_required("zone", &state.zone.meta)?;
        step.check_owner("zone", id, &state.zone.meta)?;
        not_empty("zone", id, &contents, cascade)?;
        for set in state.option_sets.values() {
            step.check_owner("option set", &set.id, &set.meta)?;
        }
        for subnet in state.subnets.values() {
            subnet.check_owner(step)?;
        }
        for reservation in state.reservations.values() {
            step.check_owner("reservation", &reservation.id, &reservation.meta)?;
        }
        for record in state.records.values() {
            step.check_owner("record", &format!("{} {}", record.name, record.kind), &record.meta)?;
        }
        self.zones.remove(id);
        Ok(Step::removed())
    }

    /// Subnets never overlap, whatever their zone: one dnsmasq serves them all.
    pub(super) fn check_overlap(
        &self,
        zone: &ResourceId,
        subnet: &Subnet,
    ) -> Result<(), ChangeError> {
        let other = self.subnets().find(|(other_zone, other)| {
            let same = other_zone.zone.id == *zone && other.subnet.id == subnet.id;
            !same && other.subnet.cidr.overlaps(subnet.cidr)
        });
        match other {
            None => Ok(()),
            Some((zone, other)) => Err(ChangeError::Conflict {
                kind: ConflictKind::Subnet,
                field: "cidr",
                value: subnet.cidr.to_string(),
                owner: format!("subnet {} of zone {}", other.subnet.id, zone.zone.id),
            }),
        }
    }

    pub(super) fn put_subnet(
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
        let id = subnet.id.clone();
        let (subnet, outcome) =
            step.replace("subnet", &id, existing.map(|state| &state.subnet), subnet)?;
        if !outcome.changed {
            return Ok(outcome);
        }
        self.check_overlap(zone, &subnet)?;
        check_options(&self.zone(zone)?.zone, &subnet)?;
        self.check_subnet_sets(zone, &subnet)?;
        let ranges = existing.map(|state| state.ranges.clone()).unwrap_or_default();
        for range in ranges.values() {
            check_range(&subnet, range)?;
        }
        let changed = SubnetState { subnet, ranges };
        let mut index = Index::of(self, |owner, _| owner == zone, |_, _| false);
        for reservation in state.reservations.values() {
            let is_inside = reservation.subnet == id;
            if is_inside {
                check_placement(&changed, reservation, facts)?;
            }
            let other = || state.subnets.get(&reservation.subnet).map(|s| &s.subnet);
            let subnet = if is_inside { Some(&changed.subnet) } else { other() };
            index.claim_names(&state.zone, subnet, reservation)?;
        }
        self.zone_mut(zone)?.subnets.insert(id, changed);
        Ok(outcome)
    }

    pub(super) fn delete_subnet(
        &mut self,
        zone: &ResourceId,
        id: &ResourceId,
        cascade: bool,
        step: &Step,
    ) -> Outcome {
        let state = self.zone_mut(zone)?;
        let subnet = state.subnets.get(id).ok_or_else(|| absent("subnet", id))?;
        step.check_required("subnet", &subnet.subnet.meta)?;
        step.check_owner("subnet", id, &subnet.subnet.meta)?;
        let inside = || state.reservations.values().filter(|r| r.subnet == *id);
        not_empty("subnet", id, &[(inside().count(), "reservations")], cascade)?;
        subnet.check_owner(step)?;
        for reservation in inside() {
            step.check_owner("reservation", &reservation.id, &reservation.meta)?;
        }
        state.reservations.retain(|_, reservation| reservation.subnet != *id);
        state.subnets.remove(id);
        Ok(Step::removed())
    }

    pub(super) fn put_range(
        &mut self,
        zone: &ResourceId,
        subnet: &ResourceId,
        range: Range,
        step: &Step,
    ) -> Outcome {
        let taken =
            self.zone(zone)?.reservations.values().find(|reservation| {
                reservation.subnet == *subnet && range.contains(reservation.ipv4)
            });
        if let (Purpose::Excluded, Some(reservation)) = (range.purpose, taken) {
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
        let id = range.id.clone();
        let (range, outcome) = step.replace("range", &id, existing, range)?;
        state.ranges.insert(id, range);
        Ok(outcome)
    }
}

/// An option and the field for the same would silently replace each other.
fn check_options(zone: &Zone, subnet: &Subnet) -> Result<(), ChangeError> {
    let searches = subnet.search_domains.as_ref().unwrap_or(&zone.search_domains);
    let fields = [
        (26, subnet.mtu.is_some()),
        (42, !subnet.ntp_servers.is_empty()),
        (119, !searches.is_empty()),
    ];
    match fields.into_iter().find(|(code, given)| *given && subnet.options.has(*code)) {
        None => Ok(()),
        Some((code, _)) => Err(ChangeError::Invalid {
            field: "options",
            value: code.to_string(),
            reason: "is given by a field of its own, too".to_owned(),
            remedy: "give either the option, or mtu, ntp_servers or search_domains",
        }),
    }
}

impl ZoneState {
    /// A zone with nothing in it.
    pub(super) const fn new(zone: Zone) -> Self {
        Self {
            zone,
            option_sets: BTreeMap::new(),
            subnets: BTreeMap::new(),
            reservations: BTreeMap::new(),
            records: BTreeMap::new(),
        }
    }
}

impl SubnetState {
    /// Whether the subnet and its ranges may go.
    fn check_owner(&self, step: &Step) -> Result<(), ChangeError> {
        step.check_owner("subnet", &self.subnet.id, &self.subnet.meta)?;
        self.ranges.values().try_for_each(|range| step.check_owner("range", &range.id, &range.meta))
    }
}
