//! DNS records: which may come in, and how those stand that are there.
//!
//! A record that dnsmasq refuses keeps it from serving anything, so none comes in. One may be there
//! all the same, from an older program; it is withheld, and everything else is served.

use std::collections::{BTreeMap, HashMap, HashSet};

use dhcp_api::record::{Record, RecordType, RecordValue};
use dhcp_api::words::{DomainName, RecordName, ResourceId};

use super::index::{Index, LONGEST_NAME, address_of};
use super::step::Step;
use super::{ChangeError, DesiredState, MAX_RECORDS, Outcome, domain_of};

/// Zone, name and type.
pub type RecordKey = (ResourceId, RecordName, RecordType);

/// How the records stand; those that are not named are served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standings {
    /// Not given to dnsmasq, with why.
    pub withheld: BTreeMap<RecordKey, String>,
    /// Served, but a client may miss something.
    pub warned: BTreeMap<RecordKey, String>,
}

impl DesiredState {
    pub(super) fn put_record(&mut self, zone: &ResourceId, record: Record, step: &Step) -> Outcome {
        let state = self.zone(zone)?;
        let key = (record.name.clone(), record.kind);
        let existing = state.records.get(&key);
        if existing.is_none() && state.records.len() >= MAX_RECORDS {
            return Err(ChangeError::Limit { what: "records of a zone", limit: MAX_RECORDS });
        }
        let id = format!("{} {}", record.name, record.kind);
        let (record, outcome) = step.replace("record", &id, existing, record)?;
        if !outcome.changed {
            return Ok(outcome);
        }
        let is_it = |owner: &ResourceId, other: &Record| {
            owner == zone && (&other.name, other.kind) == (&key.0, key.1)
        };
        let mut index = Index::of(self, |_, _| false, is_it);
        index.claim_record(&state.zone, &record)?;
        self.check_alias(&record)?;
        self.zone_mut(zone)?.records.insert(key, record);
        Ok(outcome)
    }

    pub(super) fn check_alias(&self, record: &Record) -> Result<(), ChangeError> {
        match (record.kind, record.values.first()) {
            (RecordType::Cname, Some(RecordValue::Domain(target))) => self.check_target(target),
            _ => Ok(()),
        }
    }

    /// dnsmasq follows a CNAME only to names it has itself, so one that lies elsewhere never has an
    /// address. A name that is ours may come later.
    fn check_target(&self, target: &DomainName) -> Result<(), ChangeError> {
        let zones = self.zones.values().map(|zone| &zone.zone.domain);
        let subnets = self.subnets().filter_map(|(_, subnet)| subnet.subnet.domain.as_ref());
        let is_below = |domain: &DomainName| {
            let rest = target.as_str().strip_suffix(domain.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let is_bare = || {
            self.reservations().any(|(_, r)| r.names().any(|name| name.as_str() == target.as_str()))
        };
        if zones.chain(subnets).any(is_below) || is_bare() {
            return Ok(());
        }
        Err(ChangeError::Invalid {
            field: "values[0]",
            value: target.to_string(),
            reason: "lies in no domain that is served here, and dnsmasq does not ask others for \
                     the address"
                .to_owned(),
            remedy: "give a full name below the domain of a zone or subnet, or use an A record",
        })
    }

    /// How every record stands.
    pub fn standings(&self) -> Standings {
        if self.zones.values().all(|zone| zone.records.is_empty()) {
            return Standings::default();
        }
        let mut names = Names::default();
        let mut standings = Standings::default();
        for (zone, reservation) in self.reservations() {
            let subnet = zone.subnets.get(&reservation.subnet).map(|state| &state.subnet);
            let served = subnet.is_some_and(|subnet| subnet.is_enabled());
            let domain = domain_of(&zone.zone, subnet);
            for name in reservation.names() {
                let full = format!("{name}.{domain}");
                if served {
                    names.known.insert(full.clone());
                    names.known.insert(name.to_string());
                }
                names.reserved.insert(full, reservation.id.to_string());
            }
            if served && reservation.names().next().is_some() {
                names.reverse.insert(reservation.ipv4, reservation.id.to_string());
            }
        }
        let records =
            || self.zones.values().flat_map(|zone| zone.records.values().map(move |r| (zone, r)));
        // Aliases last: everything else goes before them.
        let (aliases, others): (Vec<_>, Vec<_>) =
            records().partition(|(_, record)| record.kind == RecordType::Cname);
        for (zone, record) in others.into_iter().chain(aliases) {
            let full = record.name.within(&zone.zone.domain);
            let key = (zone.zone.id.clone(), record.name.clone(), record.kind);
            if let Some(reason) = names.take(&key, full, record) {
                standings.withheld.insert(key, reason);
            }
        }
        names.aliases(&mut standings);
        standings
    }
}

#[derive(Default)]
struct Names {
    /// Everything that has an answer.
    known: HashSet<String>,
    reserved: HashMap<String, String>,
    reverse: HashMap<std::net::Ipv4Addr, String>,
    aliases: BTreeMap<String, (String, RecordKey)>,
}

impl Names {
    /// Takes the name of a record, or says why it is withheld.
    fn take(&mut self, key: &RecordKey, full: String, record: &Record) -> Option<String> {
        if full.len() > LONGEST_NAME {
            return Some(format!("{full} is longer than {LONGEST_NAME} characters"));
        }
        if record.kind == RecordType::Ptr
            && let Some(owner) = address_of(&full).and_then(|address| self.reverse.get(&address))
        {
            return Some(format!("reservation {owner} answers for the address"));
        }
        let (RecordType::Cname, Some(RecordValue::Domain(target))) =
            (record.kind, record.values.first())
        else {
            self.known.insert(full);
            return None;
        };
        if let Some(owner) = self.reserved.get(&full) {
            return Some(format!("reservation {owner} has the name {full}"));
        }
        if self.known.contains(&full) {
            return Some(format!("{full} has other records, and a CNAME stands alone"));
        }
        if let Some((_, (zone, name, _))) = self.aliases.get(&full) {
            return Some(format!("record {name} CNAME of zone {zone} has the name {full}"));
        }
        self.aliases.insert(full, (target.to_string(), key.clone()));
        None
    }

    /// Where the aliases lead.
    fn aliases(&self, standings: &mut Standings) {
        for (name, (target, key)) in &self.aliases {
            let mut seen = HashSet::from([name.as_str()]);
            let mut end = target.as_str();
            while seen.insert(end)
                && let Some((next, _)) = self.aliases.get(end)
            {
                end = next;
            }
            if end == name {
                standings.withheld.insert(key.clone(), format!("{name} leads back to itself"));
            } else if !self.known.contains(end) {
                let text = format!("no address is given: {end} is not a name that is served here");
                standings.warned.insert(key.clone(), text);
            }
        }
    }
}
