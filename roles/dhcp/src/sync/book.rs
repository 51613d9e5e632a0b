//! PURE: what the server said, checked before anything is concluded from it.
//!
//! The server's book is believed, the texts in it are not: tenants choose names, and an answer may
//! be forged, cut or old. An address counts when it lies in a range of the network, a MAC when it
//! is unicast; what two NICs claim is taken from neither.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cloudstack_api::model::{
    ExtraDhcpOption, Network, Nic, Router, VirtualMachine, VlanIpRange, VmState, Zone,
};
use dhcp_api::answer::AlarmKind;
use dhcp_api::words::{Cidr, DomainName, MacAddress, Mtu, Upstream};
use uuid::Uuid;

use super::Notes;

/// The only provider of DHCP that leaves the answering to us.
const PROVIDER: &str = "ConfigDrive";
/// The zone's detail with the domains that guests search.
const SEARCH_ORDER: &str = "network.guestnetwork.dns.search.order";

/// A zone with the networks that are ours to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Catalog {
    pub(super) zone: Uuid,
    pub(super) zone_name: String,
    pub(super) upstreams: Vec<Upstream>,
    pub(super) search: Vec<DomainName>,
    pub(super) networks: BTreeMap<Uuid, NetworkFacts>,
    pub(super) subnets: Vec<SubnetFacts>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NetworkFacts {
    pub(super) domain: Option<DomainName>,
    pub(super) mtu: Option<Mtu>,
    /// Somebody else serves it.
    pub(super) is_foreign: bool,
}

/// All ranges of one IP subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SubnetFacts {
    pub(super) cidr: Cidr,
    pub(super) network: Uuid,
    pub(super) gateway: Ipv4Addr,
    /// Id, first and last address.
    pub(super) ranges: Vec<(Uuid, Ipv4Addr, Ipv4Addr)>,
    /// Unless the ranges are of several.
    pub(super) pod: Option<Uuid>,
    /// Whether an address of ours lies in it.
    pub(super) is_local: bool,
}

/// The zone that is meant by its id or name.
pub(super) fn zone_of(zones: Vec<Zone>, wanted: &str) -> Result<Zone, String> {
    let is_it = |zone: &Zone| zone.id.to_string() == wanted || zone.name == wanted;
    let mut found: Vec<Zone> = zones.into_iter().filter(is_it).collect();
    match (found.pop(), found.is_empty()) {
        (Some(zone), true) => Ok(zone),
        (Some(_), false) => Err(format!("several zones are called {wanted:?}; give the id")),
        (None, _) => Err(format!(
            "there is no zone {wanted:?}; set roles.dhcp.sync.zone to the name or id of a zone"
        )),
    }
}

/// The networks that are meant. Names are texts of tenants: one that two networks have is nobody's.
fn networks_of(
    networks: Vec<Network>,
    zone: &Zone,
    wanted: &[String],
) -> Result<Vec<Network>, String> {
    let ours: Vec<Network> =
        networks.into_iter().filter(|network| network.zone_id == zone.id).collect();
    if wanted.is_empty() {
        return match ours.len() {
            _ if zone.network_type == "Basic" => Ok(ours),
            0 | 1 => Ok(ours),
            several => Err(format!(
                "the zone has {several} shared networks; say which are ours in \
                 roles.dhcp.sync.networks"
            )),
        };
    }
    let mut found: Vec<Network> = Vec::new();
    for text in wanted {
        let by_id = |network: &&Network| network.id.to_string() == *text;
        let one = match ours.iter().find(by_id) {
            Some(network) => network,
            None => {
                let mut named = ours.iter().filter(|network| network.name == *text);
                match (named.next(), named.next()) {
                    (Some(network), None) => network,
                    (Some(_), Some(_)) => {
                        return Err(format!(
                            "several networks are called {text:?}; give the id in \
                             roles.dhcp.sync.networks"
                        ));
                    }
                    (None, _) => {
                        return Err(format!("the zone has no shared guest network {text:?}"));
                    }
                }
            }
        };
        if found.iter().all(|known| known.id != one.id) {
            found.push(one.clone());
        }
    }
    Ok(found)
}

/// What the four small listings said.
#[derive(Debug, Clone)]
pub(super) struct Infrastructure {
    pub(super) zone: Zone,
    pub(super) networks: Vec<Network>,
    pub(super) ranges: Vec<VlanIpRange>,
    pub(super) routers: Vec<Router>,
    /// Addresses of our interface.
    pub(super) local: Vec<Ipv4Addr>,
}

impl Catalog {
    /// Reads it out of the listings; why nothing can be concluded from them otherwise.
    pub(super) fn of(
        said: Infrastructure,
        wanted: &[String],
        notes: &mut Notes,
    ) -> Result<Self, String> {
        let Infrastructure { zone, networks, ranges, routers, local } = said;
        let chosen = networks_of(networks, &zone, wanted)?;
        let mut networks = BTreeMap::new();
        for network in chosen {
            let other = foreign(&network, &routers);
            if let Some(text) = &other {
                notes.add(AlarmKind::VrPresent, text.clone());
            }
            let domain = network.network_domain.as_deref().and_then(|d| d.parse().ok());
            let mtu = network.private_mtu.and_then(|mtu| u16::try_from(mtu).ok());
            let facts = NetworkFacts {
                domain,
                mtu: mtu.and_then(|mtu| mtu.try_into().ok()),
                is_foreign: other.is_some(),
            };
            networks.insert(network.id, facts);
        }
        let mut subnets: Vec<SubnetFacts> = Vec::new();
        for range in ranges {
            let Some(network) = range.network_id.filter(|id| networks.contains_key(id)) else {
                continue;
            };
            let is_ours = range.zone_id == zone.id && range.for_virtual_network != Some(true);
            if is_ours && range.start_ip.is_some() {
                let id = range.id;
                if let Err(text) = add_range(&mut subnets, network, &range, &local) {
                    notes.add(AlarmKind::SyncConflict, format!("range {id} {text}"));
                }
            }
        }
        let servers = [zone.internal_dns1, zone.internal_dns2, zone.dns1, zone.dns2];
        let mut upstreams: Vec<Upstream> = Vec::new();
        for address in servers.into_iter().flatten() {
            // Asking ourselves would never end.
            let is_ours = matches!(address, IpAddr::V4(v4) if local.contains(&v4));
            let upstream = Upstream { address, port: None };
            if !is_ours && !upstreams.contains(&upstream) {
                upstreams.push(upstream);
            }
        }
        let order = zone.details.as_ref().and_then(|details| details.get(SEARCH_ORDER));
        let search = order.unwrap_or_default().split(',').map(str::trim);
        let search = search.filter_map(|domain| domain.parse().ok()).take(8).collect();
        Ok(Self { zone: zone.id, zone_name: zone.name, upstreams, search, networks, subnets })
    }

    pub(super) fn subnet_of(&self, network: Uuid, address: Ipv4Addr) -> Option<&SubnetFacts> {
        let is_in = |subnet: &&SubnetFacts| {
            let (network_fits, mut ranges) = (subnet.network == network, subnet.ranges.iter());
            network_fits && ranges.any(|(_, start, end)| (*start..=*end).contains(&address))
        };
        self.subnets.iter().find(is_in)
    }
}

/// Who else answers in a network.
fn foreign(network: &Network, routers: &[Router]) -> Option<String> {
    let other = network.providers_of("Dhcp").into_iter().find(|name| *name != PROVIDER);
    if let Some(provider) = other {
        return Some(format!(
            "network {} ({}) has its DHCP from {provider:?}, which answers there: it is not served \
             here; use an offering whose Dhcp is {PROVIDER}'s",
            network.name, network.id
        ));
    }
    let serves = |router: &&Router| {
        let is_router = router.role.as_deref().is_none_or(|role| role == "VIRTUAL_ROUTER");
        let is_here = router.guest_network_id == Some(network.id)
            || router.nics.iter().any(|nic| nic.network_id == network.id);
        is_router && is_here && router.state == VmState::Running
    };
    let router = routers.iter().find(serves)?;
    Some(format!(
        "virtual router {} runs in network {} ({}) and answers there: the network is not served \
         here; destroy the router",
        router.name, network.name, network.id
    ))
}

fn add_range(
    subnets: &mut Vec<SubnetFacts>,
    network: Uuid,
    range: &VlanIpRange,
    local: &[Ipv4Addr],
) -> Result<(), String> {
    let (Some(start), Some(end), Some(gateway), Some(netmask)) =
        (range.start_ip, range.end_ip.or(range.start_ip), range.gateway, range.netmask)
    else {
        return Err("has no gateway or netmask".to_owned());
    };
    let mask = netmask.to_bits();
    let prefix = mask.leading_ones();
    if prefix + mask.trailing_zeros() != 32 {
        return Err(format!("has {netmask}, which is not a netmask"));
    }
    let base = Ipv4Addr::from_bits(start.to_bits() & mask);
    let cidr: Cidr = format!("{base}/{prefix}").parse().map_err(|error| format!("is {error}"))?;
    if start > end || !cidr.has_host(start) || !cidr.has_host(end) || !cidr.has_host(gateway) {
        return Err(format!("from {start} to {end}, gateway {gateway}, does not lie in {cidr}"));
    }
    let entry = (range.id, start, end);
    match subnets.iter_mut().find(|subnet| subnet.cidr.overlaps(cidr)) {
        Some(known) if known.cidr == cidr && known.network == network => {
            known.ranges.push(entry);
            known.ranges.sort();
            if known.pod != range.pod_id {
                known.pod = None;
            }
            // One gateway for all, whatever order they come in.
            known.gateway = known.gateway.min(gateway);
            Ok(())
        }
        Some(known) => {
            Err(format!("in {cidr} overlaps {} of network {}", known.cidr, known.network))
        }
        None => {
            let is_local = local.iter().any(|address| cidr.contains(*address));
            let pod = range.pod_id;
            subnets.push(SubnetFacts {
                cidr,
                network,
                gateway,
                ranges: vec![entry],
                pod,
                is_local,
            });
            subnets.sort_by_key(|subnet| subnet.cidr);
            Ok(())
        }
    }
}

/// A NIC with an address in one of our networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub(super) vm: Uuid,
    /// The machine's name, as a tenant chose it.
    pub(super) name: String,
    pub(super) state: VmState,
    pub(super) account: Option<String>,
    pub(super) project: Option<Uuid>,
    pub(super) network: Uuid,
    pub(super) cidr: Cidr,
    pub(super) mac: MacAddress,
    pub(super) ipv4: Ipv4Addr,
    pub(super) ipv6: Option<Ipv6Addr>,
    pub(super) is_default: bool,
    pub(super) secondary: Vec<Ipv4Addr>,
    pub(super) options: Vec<ExtraDhcpOption>,
}

/// NICs of ours by id; `None` for one that is there and says nothing that counts.
pub(super) type Sightings = BTreeMap<Uuid, Option<Sighting>>;

/// What a machine's NICs say. One that is being expunged has none any more.
pub(super) fn look(vm: &VirtualMachine, catalog: &Catalog, notes: &mut Notes) -> Sightings {
    let mut seen = Sightings::new();
    if vm.state == VmState::Expunging || vm.zone_id != catalog.zone {
        return seen;
    }
    for nic in vm.nics.iter().filter(|nic| catalog.networks.contains_key(&nic.network_id)) {
        let sighting = sighting(vm, nic, catalog).unwrap_or_else(|text| {
            notes.add(
                AlarmKind::SyncConflict,
                format!("NIC {} of machine {}: {text}", nic.id, vm.id),
            );
            None
        });
        seen.insert(nic.id, sighting);
    }
    seen
}

fn sighting(vm: &VirtualMachine, nic: &Nic, catalog: &Catalog) -> Result<Option<Sighting>, String> {
    let (Some(mac), Some(ipv4)) = (&nic.mac_address, nic.ip_address) else { return Ok(None) };
    let mac: MacAddress = mac.parse().map_err(|error| format!("MAC {mac:?} {error}"))?;
    let subnet = catalog
        .subnet_of(nic.network_id, ipv4)
        .ok_or_else(|| format!("{ipv4} lies in no range of its network"))?;
    let v4 = |secondary: IpAddr| match secondary {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    };
    let secondary = nic.secondary_ips.iter().filter_map(|entry| v4(entry.ip_address));
    Ok(Some(Sighting {
        vm: vm.id,
        name: vm.name.clone(),
        state: vm.state.clone(),
        account: vm.account.clone(),
        project: vm.project_id,
        network: nic.network_id,
        cidr: subnet.cidr,
        mac,
        ipv4,
        ipv6: nic.ip6_address,
        is_default: nic.is_default,
        secondary: secondary.take(32).collect(),
        options: nic.extra_dhcp_options.clone(),
    }))
}

/// What every machine of a listing says. A NIC that is listed twice, and an address or MAC that
/// two NICs claim, say nothing.
pub(super) fn look_at_all<'a>(
    machines: impl Iterator<Item = &'a VirtualMachine>,
    catalog: &Catalog,
    notes: &mut Notes,
) -> Sightings {
    let mut all = Sightings::new();
    let mut twice = Vec::new();
    for machine in machines {
        for (nic, sighting) in look(machine, catalog, notes) {
            if all.insert(nic, sighting).is_some() {
                twice.push(nic);
            }
        }
    }
    for nic in twice {
        notes.add(AlarmKind::SyncConflict, format!("NIC {nic} is listed twice"));
        all.insert(nic, None);
    }
    let mut addresses: HashMap<Ipv4Addr, Uuid> = HashMap::new();
    let mut macs: HashMap<(Cidr, MacAddress), Uuid> = HashMap::new();
    let mut contested = Vec::new();
    for (nic, sighting) in all.iter().filter_map(|(nic, s)| Some((*nic, s.as_ref()?))) {
        let by_address = addresses.insert(sighting.ipv4, nic).map(|other| (other, true));
        let by_mac = macs.insert((sighting.cidr, sighting.mac), nic).map(|other| (other, false));
        for (other, is_address) in by_address.into_iter().chain(by_mac) {
            let (mac, ipv4) = (sighting.mac, sighting.ipv4);
            let what = if is_address { ipv4.to_string() } else { mac.to_string() };
            let text = format!("NICs {other} and {nic} both claim {what}; neither gets it");
            notes.add(AlarmKind::SyncConflict, text);
            contested.extend([other, nic]);
        }
    }
    for nic in contested {
        all.insert(nic, None);
    }
    all
}
