//! PURE: the resources that the server's book asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use cloudstack_api::model::VmState;
use dhcp_api::answer::AlarmKind;
use dhcp_api::option::{DhcpOption, Options};
use dhcp_api::resource::{
    Addresses, Attachment, DefaultRoute, DnsServers, Labels, Purpose, RangeContent,
    ReservationContent, SearchDomains, SubnetContent, SubnetStatus, ZoneContent,
};
use dhcp_api::words::{Cidr, DomainName, InterfaceName, ResourceId, Text};
use uuid::Uuid;

use super::Notes;
use super::book::{Catalog, Sighting, SubnetFacts};
use super::names::{self, Claim};
use crate::desired::SyncZone;

/// Options that a NIC may bring.
const MOST_OPTIONS: usize = 32;
/// Label of a reservation: the machine.
pub(super) const MACHINE: &str = "vm";

/// The reservation of a NIC: `nic:8f4c28c5-…`.
pub(super) fn reservation_id(nic: Uuid) -> Option<ResourceId> {
    format!("nic:{nic}").parse().ok()
}

/// The NIC of a reservation.
pub(super) fn nic_of(id: &ResourceId) -> Option<Uuid> {
    id.as_str().strip_prefix("nic:")?.parse().ok()
}

/// `s-10-77-9-0-24`.
fn subnet_id(cidr: Cidr) -> Option<ResourceId> {
    format!("s-{}", cidr.to_string().replace(['.', '/'], "-")).parse().ok()
}

fn domain_of<'a>(catalog: &'a Catalog, network: Uuid, default: &'a DomainName) -> &'a DomainName {
    let network = catalog.networks.get(&network);
    network.and_then(|network| network.domain.as_ref()).unwrap_or(default)
}

/// Zone, subnets and ranges.
pub(super) fn containers(
    catalog: &Catalog,
    default: &DomainName,
    interface: &InterfaceName,
) -> SyncZone {
    let text = |text: &str| text.parse::<Text>().ok();
    let first = catalog.networks.keys().next();
    let domain = first.map_or(default, |network| domain_of(catalog, *network, default));
    let network = first.filter(|_| catalog.networks.len() == 1);
    let id: String = catalog.zone_name.chars().filter(|c| !c.is_whitespace()).collect();
    let ids = [id, format!("cloudstack-{}", catalog.zone)];
    let zone = ZoneContent {
        name: text(&catalog.zone_name),
        cloudstack_zone_id: text(&catalog.zone.to_string()),
        network_id: network.and_then(|network| text(&network.to_string())),
        domain: domain.clone(),
        dns_upstreams: catalog.upstreams.clone(),
        dns_servers: DnsServers::Own,
        search_domains: SearchDomains(catalog.search.clone()),
        lease_time: None,
        labels: Labels::new(),
    };
    let subnets = catalog.subnets.iter().filter_map(|facts| {
        let domain = domain_of(catalog, facts.network, default);
        let domain = (*domain != zone.domain).then(|| domain.clone());
        Some((subnet_id(facts.cidr)?, subnet(catalog, facts, domain, interface), ranges(facts)))
    });
    SyncZone {
        ids: ids.iter().filter_map(|id| id.parse().ok()).collect(),
        subnets: subnets.collect(),
        zone,
    }
}

fn subnet(
    catalog: &Catalog,
    facts: &SubnetFacts,
    domain: Option<DomainName>,
    interface: &InterfaceName,
) -> SubnetContent {
    let network = catalog.networks.get(&facts.network);
    let name = interface.as_str().parse().ok();
    let attachment = name.map(|name| match facts.is_local {
        true => Attachment::Interface { name },
        false => Attachment::Shared { name },
    });
    let is_foreign = network.is_some_and(|network| network.is_foreign);
    SubnetContent {
        cidr: facts.cidr,
        gateway: Some(facts.gateway),
        attachment,
        dns_servers: None,
        domain,
        search_domains: None,
        ntp_servers: Addresses::default(),
        mtu: network.and_then(|network| network.mtu),
        lease_time: None,
        options: Options::default(),
        option_sets: Vec::new(),
        pod_id: facts.pod.and_then(|pod| pod.to_string().parse().ok()),
        state: if is_foreign { SubnetStatus::Disabled } else { SubnetStatus::Active },
        labels: label("network", &facts.network.to_string()).into_iter().collect(),
    }
}

fn ranges(facts: &SubnetFacts) -> Vec<(ResourceId, RangeContent)> {
    let ranges = facts.ranges.iter().filter_map(|(id, start, end)| {
        let (start, end) = (*start, *end);
        Some((
            id.to_string().parse().ok()?,
            RangeContent { start, end, purpose: Purpose::Reserved },
        ))
    });
    ranges.collect()
}

fn label(key: &str, value: &str) -> Option<(dhcp_api::words::LabelKey, Text)> {
    Some((key.parse().ok()?, value.parse().ok()?))
}

/// What is stored of the sync, by id.
pub(super) type Stored = BTreeMap<ResourceId, Arc<ReservationContent>>;

/// The reservations of every NIC; those that are `stored` just so are shared with it.
pub(super) fn reservations(
    catalog: &Catalog,
    default: &DomainName,
    sightings: &BTreeMap<Uuid, Sighting>,
    stored: &Stored,
    notes: &mut Notes,
) -> Stored {
    let claims = sightings.iter().map(|(nic, sighting)| Claim {
        nic: *nic,
        name: &sighting.name,
        domain: domain_of(catalog, sighting.network, default),
        address: sighting.ipv4,
        is_default: sighting.is_default,
    });
    let mut names = names::assign(claims.collect());
    for text in names.changed {
        notes.add(AlarmKind::HostnameChanged, text);
    }
    for text in names.duplicates {
        notes.add(AlarmKind::DuplicateHostname, text);
    }
    let mut wanted = BTreeMap::new();
    for (nic, sighting) in sightings {
        let (Some(id), Some(subnet)) = (reservation_id(*nic), subnet_id(sighting.cidr)) else {
            continue;
        };
        let project = sighting.project.map(|project| project.to_string());
        let labels = [
            label(MACHINE, &sighting.vm.to_string()),
            label("vm_state", &state(&sighting.state)),
            sighting.account.as_ref().and_then(|account| label("account", account)),
            project.and_then(|project| label("project", &project)),
        ];
        let content = ReservationContent {
            mac: sighting.mac,
            ipv4: sighting.ipv4,
            subnet,
            hostname: names.given.remove(nic),
            aliases: Vec::new(),
            ipv6: sighting.ipv6,
            secondary_ips: Addresses(sighting.secondary.clone()),
            default_route: DefaultRoute(sighting.is_default),
            lease_time: None,
            options: options(*nic, sighting, notes),
            option_sets: Vec::new(),
            labels: labels.into_iter().flatten().collect(),
        };
        let known = stored.get(&id).filter(|known| ***known == content);
        let content = known.map_or_else(|| Arc::new(content), Arc::clone);
        wanted.insert(id, content);
    }
    wanted
}

fn state(state: &VmState) -> String {
    match state {
        VmState::Other(text) => text.clone(),
        known => format!("{known:?}"),
    }
}

/// The options that a user put on a NIC. A bad one is left out, the address is not.
fn options(nic: Uuid, sighting: &Sighting, notes: &mut Notes) -> Options {
    let mut taken: Vec<DhcpOption> = Vec::new();
    let mut bytes = 0;
    for given in &sighting.options {
        let (code, value) = (given.code, given.value.as_str());
        let read = u8::try_from(code)
            .map_err(|_too_big| "is not an option code".to_owned())
            .and_then(|code| DhcpOption::from_text(code, value).map_err(|e| e.to_string()))
            .and_then(|option| match taken.iter().any(|known| known.code() == option.code()) {
                true => Err("is given twice".to_owned()),
                false => Ok(option),
            });
        match read {
            Ok(option) if taken.len() < MOST_OPTIONS && bytes + option.encoded_size() <= 1000 => {
                bytes += option.encoded_size();
                taken.push(option);
            }
            Ok(_) => {
                let text = format!("option {code} of NIC {nic} is left out: too much");
                notes.add(AlarmKind::OptionDropped, text);
            }
            Err(reason) => {
                let text = format!("option {code} of NIC {nic}, {value:?}, is left out: {reason}");
                notes.add(AlarmKind::OptionDropped, text);
            }
        }
    }
    taken.into_iter().collect()
}
