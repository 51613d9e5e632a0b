//! Who has which address, MAC and name: built once per change, so that a batch of thousands stays
//! linear.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use dhcp_api::record::{Record, RecordType, RecordValue};
use dhcp_api::resource::{Reservation, Subnet, Zone};
use dhcp_api::words::{MacAddress, RecordName, ResourceId};

use super::{ChangeError, ConflictKind, DesiredState, domain_of};

/// A name on the wire has 255 bytes at most, which are so many characters.
pub(super) const LONGEST_NAME: usize = 253;

/// What has an address, a MAC or a name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    zone: ResourceId,
    what: Holder,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Holder {
    /// With whether it has a name.
    Reservation(ResourceId, bool),
    Record(RecordName, RecordType),
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.what {
            Holder::Reservation(id, _) => write!(f, "reservation {id} of zone {}", self.zone),
            Holder::Record(name, kind) => write!(f, "record {name} {kind} of zone {}", self.zone),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Index {
    addresses: HashMap<Ipv4Addr, Owner>,
    macs: HashMap<(ResourceId, ResourceId, MacAddress), Owner>,
    /// Of reservations.
    names: HashMap<String, Owner>,
    records: HashMap<String, Vec<(RecordType, Owner)>>,
    /// Targets of CNAME records by name.
    aliases: HashMap<String, String>,
}

impl Index {
    /// Of everything but what `reservation` and `record` leave out.
    pub(super) fn of(
        state: &DesiredState,
        reservation: impl Fn(&ResourceId, &Reservation) -> bool,
        record: impl Fn(&ResourceId, &Record) -> bool,
    ) -> Self {
        let mut index = Self::default();
        for zone in state.zones.values() {
            let id = &zone.zone.id;
            for kept in zone.reservations.values().filter(|kept| !reservation(id, kept)) {
                let subnet = zone.subnets.get(&kept.subnet).map(|s| &s.subnet);
                index.insert(&zone.zone, subnet, kept);
            }
            for kept in zone.records.values().filter(|kept| !record(id, kept)) {
                index.insert_record(&zone.zone, kept);
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

    fn insert_record(&mut self, zone: &Zone, record: &Record) {
        let name = record.name.within(&zone.domain);
        if let (RecordType::Cname, Some(RecordValue::Domain(target))) =
            (record.kind, record.values.first())
        {
            self.aliases.insert(name.clone(), target.to_string());
        }
        let what = Holder::Record(record.name.clone(), record.kind);
        let owner = Owner { zone: zone.id.clone(), what };
        self.records.entry(name).or_default().push((record.kind, owner));
    }

    pub(super) fn reservations(&self) -> usize {
        self.addresses.len()
    }

    /// Takes address, MAC and names for `reservation`, or says who has one of them.
    pub(super) fn claim(
        &mut self,
        zone: &Zone,
        subnet: &Subnet,
        reservation: &Reservation,
    ) -> Result<(), ChangeError> {
        if let Some(owner) = self.addresses.get(&reservation.ipv4) {
            let address = reservation.ipv4.to_string();
            return conflict(ConflictKind::Address, "ipv4", address, owner);
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
        // Taken only when all of them can be: what is refused takes nothing.
        let mut claimed = Vec::new();
        for name in reservation.names() {
            let is_host = reservation.hostname.as_ref() == Some(name);
            let field = if is_host { "hostname" } else { "aliases" };
            let full = format!("{name}.{domain}");
            check_length(field, &full)?;
            if let Some((_, owner)) = self.records.get(&full).and_then(|records| records.first()) {
                return conflict(ConflictKind::HostName, field, full, owner);
            }
            if let Some(other) = self.names.get(&full) {
                return conflict(ConflictKind::HostName, field, full, other);
            }
            if claimed.contains(&full) {
                return conflict(ConflictKind::HostName, field, full, &owner(zone, reservation));
            }
            claimed.push(full);
        }
        let reverse = reverse_name(reservation.ipv4);
        let pointer = self.records.get(&reverse).into_iter().flatten();
        match pointer.into_iter().find(|(kind, _)| *kind == RecordType::Ptr) {
            Some((_, owner)) if reservation.names().next().is_some() => {
                conflict(ConflictKind::HostName, "ipv4", reservation.ipv4.to_string(), owner)
            }
            _ => {
                let owner = owner(zone, reservation);
                self.names.extend(claimed.into_iter().map(|name| (name, owner.clone())));
                Ok(())
            }
        }
    }

    /// Takes the name of a record, or says who has it. A CNAME stands alone; other types share a
    /// name with each other, but not with a reservation.
    pub(super) fn claim_record(&mut self, zone: &Zone, record: &Record) -> Result<(), ChangeError> {
        let name = record.name.within(&zone.domain);
        check_length("name", &name)?;
        if let Some(owner) = self.names.get(&name) {
            return conflict(ConflictKind::HostName, "name", name, owner);
        }
        let alone = record.kind == RecordType::Cname;
        let others = self.records.get(&name).into_iter().flatten();
        let other = others
            .into_iter()
            .find(|(kind, _)| alone || *kind == RecordType::Cname || *kind == record.kind);
        if let Some((_, owner)) = other {
            return conflict(ConflictKind::HostName, "name", name, owner);
        }
        if record.kind == RecordType::Ptr
            && let Some(owner) = address_of(&name).and_then(|ip| self.addresses.get(&ip))
            && matches!(owner.what, Holder::Reservation(_, true))
        {
            return conflict(ConflictKind::HostName, "name", name, owner);
        }
        self.insert_record(zone, record);
        if alone { self.check_loop(&name) } else { Ok(()) }
    }

    /// dnsmasq ends at a CNAME that leads back to itself.
    fn check_loop(&self, name: &str) -> Result<(), ChangeError> {
        let mut way = vec![name];
        let mut next = self.aliases.get(name);
        while let Some(target) = next {
            if target == name {
                let way = way.join(" → ");
                return Err(ChangeError::Invalid {
                    field: "values[0]",
                    value: self.aliases.get(name).cloned().unwrap_or_default(),
                    reason: format!("leads back to itself: {way} → {name}"),
                    remedy: "give a name that has an address",
                });
            }
            // Another's loop is not a fault of this one.
            if way.contains(&target.as_str()) {
                break;
            }
            way.push(target);
            next = self.aliases.get(target);
        }
        Ok(())
    }
}

fn conflict(
    kind: ConflictKind,
    field: &'static str,
    value: String,
    owner: &Owner,
) -> Result<(), ChangeError> {
    Err(ChangeError::Conflict { kind, field, value, owner: owner.to_string() })
}

fn check_length(field: &'static str, name: &str) -> Result<(), ChangeError> {
    if name.len() <= LONGEST_NAME {
        return Ok(());
    }
    Err(ChangeError::Invalid {
        field,
        value: name.to_owned(),
        reason: format!("is longer than {LONGEST_NAME} characters with its domain"),
        remedy: "give a shorter name",
    })
}

fn owner(zone: &Zone, reservation: &Reservation) -> Owner {
    let named = reservation.names().next().is_some();
    Owner { zone: zone.id.clone(), what: Holder::Reservation(reservation.id.clone(), named) }
}

fn mac_key(zone: &Zone, reservation: &Reservation) -> (ResourceId, ResourceId, MacAddress) {
    (zone.id.clone(), reservation.subnet.clone(), reservation.mac)
}

/// `50.0.77.10.in-addr.arpa`.
fn reverse_name(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
}

/// The address a name of the reverse tree stands for.
pub(super) fn address_of(name: &str) -> Option<Ipv4Addr> {
    let parts = name.strip_suffix(".in-addr.arpa")?.split('.');
    let octets: Vec<&str> = parts.rev().collect();
    if octets.len() == 4 { octets.join(".").parse().ok() } else { None }
}
