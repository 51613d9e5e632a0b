//! Who has which address, MAC and name: built once per change, so that a batch of thousands stays
//! linear.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::{ChangeError, ConflictKind, DesiredState, domain_of};
use crate::model::{Reservation, Subnet, Zone};
use crate::value::{MacAddress, ResourceId};

/// The reservation that has something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) zone: ResourceId,
    pub(super) reservation: ResourceId,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    addresses: HashMap<Ipv4Addr, Owner>,
    macs: HashMap<(ResourceId, ResourceId, MacAddress), Owner>,
    names: HashMap<String, Owner>,
}

impl Index {
    pub(super) fn of(state: &DesiredState) -> Self {
        Self::filtered(state, |_, _| true)
    }

    /// Of everything but one zone.
    pub(super) fn without_zone(state: &DesiredState, zone: &ResourceId) -> Self {
        Self::filtered(state, |owner, _| owner != zone)
    }

    /// Of everything but the reservations of `zone` that `leave_out` names.
    pub(super) fn without(
        state: &DesiredState,
        zone: &ResourceId,
        leave_out: impl Fn(&Reservation) -> bool,
    ) -> Self {
        Self::filtered(state, |owner, reservation| owner != zone || !leave_out(reservation))
    }

    fn filtered(state: &DesiredState, keep: impl Fn(&ResourceId, &Reservation) -> bool) -> Self {
        let mut index = Self::default();
        for zone in state.zones.values() {
            for reservation in zone.reservations.values() {
                if !keep(&zone.zone.id, reservation) {
                    continue;
                }
                let subnet = zone.subnets.get(&reservation.subnet).map(|s| &s.subnet);
                index.insert(&zone.zone, subnet, reservation);
            }
        }
        index
    }

    /// What the state holds already; it was checked when it came in.
    fn insert(&mut self, zone: &Zone, subnet: Option<&Subnet>, reservation: &Reservation) {
        let owner = owner(zone, reservation);
        let domain = domain_of(zone, subnet);
        for name in reservation.names() {
            self.names.insert(format!("{name}.{domain}"), owner.clone());
        }
        self.macs.insert(mac_key(zone, reservation), owner.clone());
        self.addresses.insert(reservation.ipv4, owner);
    }

    pub(super) fn reservations(&self) -> usize {
        self.addresses.len()
    }

    pub(super) fn owner_of_name(&self, name: &str) -> Option<&Owner> {
        self.names.get(name)
    }

    /// Takes address, MAC and names for `reservation`, or says who has one of them.
    pub(super) fn claim(
        &mut self,
        zone: &Zone,
        subnet: &Subnet,
        reservation: &Reservation,
    ) -> Result<(), ChangeError> {
        let conflict = |kind, field, value: String, owner: &Owner| {
            Err(ChangeError::Conflict { kind, field, value, owner: owner.to_string() })
        };
        if let Some(owner) = self.addresses.get(&reservation.ipv4) {
            return conflict(ConflictKind::Address, "ipv4", reservation.ipv4.to_string(), owner);
        }
        if let Some(owner) = self.macs.get(&mac_key(zone, reservation)) {
            return conflict(ConflictKind::Mac, "mac", reservation.mac.to_string(), owner);
        }
        self.claim_names(zone, Some(subnet), reservation)?;
        let owner = owner(zone, reservation);
        self.macs.insert(mac_key(zone, reservation), owner.clone());
        self.addresses.insert(reservation.ipv4, owner);
        Ok(())
    }

    pub(super) fn claim_names(
        &mut self,
        zone: &Zone,
        subnet: Option<&Subnet>,
        reservation: &Reservation,
    ) -> Result<(), ChangeError> {
        let domain = domain_of(zone, subnet);
        for name in reservation.names() {
            let full = format!("{name}.{domain}");
            let owner = owner(zone, reservation);
            if let Some(other) = self.names.insert(full.clone(), owner) {
                return Err(ChangeError::Conflict {
                    kind: ConflictKind::HostName,
                    field: if reservation.hostname.as_ref() == Some(name) {
                        "hostname"
                    } else {
                        "aliases"
                    },
                    value: full,
                    owner: other.to_string(),
                });
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "reservation {} of zone {}", self.reservation, self.zone)
    }
}

fn owner(zone: &Zone, reservation: &Reservation) -> Owner {
    Owner { zone: zone.id.clone(), reservation: reservation.id.clone() }
}

fn mac_key(zone: &Zone, reservation: &Reservation) -> (ResourceId, ResourceId, MacAddress) {
    (zone.id.clone(), reservation.subnet.clone(), reservation.mac)
}
