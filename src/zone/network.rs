//! The steps to a guest network without a router, whose DHCP and DNS are the role's: providers,
//! offering, network and ranges, in the order in which the server wants them. *Pure*.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use cloudstack_api::commands::{
    AddTrafficType, CreateNetwork, CreatePhysicalNetwork, CreatePod, CreateVlanIpRange,
    UpdateConfiguration, UpdatePhysicalNetwork,
};
use cloudstack_api::model::{Network, Pod, VlanIpRange};
use uuid::Uuid;

use super::enable::step;
use super::look::Seen;
use super::{Action, SetUp, Step};

/// Makes KVM hosts write configuration drives themselves, as a detail of the zone.
const HOST_CACHE: &str = "vm.configdrive.force.host.cache.use";
const PHYSICAL: &str = "physical";

/// What is wanted of the guest network. By default nothing is made that has addresses: what is
/// there is judged, and the operator is told.
#[derive(Debug, Clone, Default)]
pub(crate) struct NetworkWish {
    /// Make what is missing.
    pub(crate) make: bool,
    /// The one that is meant; any without a router by default.
    pub(crate) name: Option<String>,
    pub(crate) domain: Option<String>,
    /// Our address in the network, for option 6 and the configuration drive.
    pub(crate) dns: Option<Ipv4Addr>,
    /// `untagged`, or a number.
    pub(crate) vlan: Option<String>,
    pub(crate) pod: Option<Range>,
    pub(crate) ranges: Vec<Range>,
    pub(crate) host_cache: bool,
}

/// Addresses of a subnet: `pod1=10.1.1.1/24,10.1.1.20-10.1.1.250`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) pod: Option<String>,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) prefix: u32,
    pub(crate) first: Ipv4Addr,
    pub(crate) last: Ipv4Addr,
}

impl Range {
    fn netmask(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::MAX << (32 - self.prefix))
    }

    pub(crate) fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gateway, prefix, first, last, .. } = self;
        write!(f, "{gateway}/{prefix},{first}-{last}")
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || "give [POD=]GATEWAY/PREFIX,FIRST-LAST".to_owned();
        let (pod, rest) = match text.split_once('=') {
            Some((pod, rest)) if !pod.is_empty() => (Some(pod.to_owned()), rest),
            Some(_) => return Err(form()),
            None => (None, text),
        };
        let (subnet, addresses) = rest.split_once(',').ok_or_else(form)?;
        let (gateway, prefix) = subnet.split_once('/').ok_or_else(form)?;
        let (first, last) = addresses.split_once('-').ok_or_else(form)?;
        let address = |text: &str| {
            text.trim().parse::<Ipv4Addr>().map_err(|_bad| format!("{text:?} is no IPv4 address"))
        };
        let prefix = prefix.parse().ok().filter(|prefix| (8..=30).contains(prefix));
        let prefix: u32 = prefix.ok_or_else(|| "give a prefix of 8 to 30".to_owned())?;
        let (gateway, first, last) = (address(gateway)?, address(first)?, address(last)?);
        let range = Self { pod, gateway, prefix, first, last };
        let mask = u32::from(range.netmask());
        let network = u32::from(gateway) & mask;
        let edges = [Ipv4Addr::from(network), Ipv4Addr::from(network | !mask)];
        if first > last {
            return Err(format!("{first} is behind {last}"));
        }
        for address in [gateway, first, last] {
            if u32::from(address) & mask != network {
                return Err(format!("{address} is not in the subnet of {gateway}/{prefix}"));
            }
            if edges.contains(&address) {
                return Err(format!("{address} is no host's address in a /{prefix}"));
            }
        }
        if range.contains(gateway) {
            return Err(format!("the gateway {gateway} would be given to a guest"));
        }
        Ok(range)
    }
}

/// Name of the offering that the zone's kind needs: one that names security groups cannot be used
/// in a zone without, and one without them would leave guests of the other kind open.
pub(crate) fn offering_name(security_groups: bool) -> &'static str {
    if security_groups { "QuickCloud" } else { "QuickCloud-no-security-groups" }
}

/// Which provider answers for which service of the offering. UserData must be among them: the
/// server fails to start machines without it.
pub(crate) fn offering_services(security_groups: bool) -> Vec<(&'static str, &'static str)> {
    let mut services =
        vec![("Dhcp", "ConfigDrive"), ("Dns", "ConfigDrive"), ("UserData", "ConfigDrive")];
    if security_groups {
        services.push(("SecurityGroup", "SecurityGroupProvider"));
    }
    services
}

/// Every step, those that are done too.
pub(crate) fn network(seen: &Seen, wish: &NetworkWish, steps: &mut Vec<Step>) {
    if wish.make {
        physical(seen, steps);
    }
    providers(seen, steps);
    offering(seen, steps);
    if let Some(pod) = &wish.pod {
        steps.push(pod_step(seen, pod));
    }
    guest(seen, wish, steps);
    for range in &wish.ranges {
        steps.push(range_step(seen, wish, range));
    }
    if wish.host_cache {
        steps.push(host_cache(seen));
    }
    if !seen.routers.is_empty() {
        steps.push(Step {
            then: "none".to_owned(),
            why: "two DHCP servers in one network; the role refuses to serve beside a router"
                .to_owned(),
            undo: "the server makes a router when a network needs one".to_owned(),
            ..step("routers that run", Action::Other, seen.routers.join(", "))
        });
    }
}

/// A physical network for guests: made where there is none, and only completed where there is one.
fn physical(seen: &Seen, steps: &mut Vec<Step>) {
    let basic = is_basic(seen);
    let there = seen.physical.first();
    let command = CreatePhysicalNetwork {
        name: PHYSICAL.to_owned(),
        zone_id: seen.zone.id,
        broadcast_domain_range: Some(if basic { "POD" } else { "ZONE" }.to_owned()),
        isolation_methods: (!basic).then(|| "VLAN".to_owned()),
    };
    steps.push(Step {
        done: there.is_some(),
        then: "there".to_owned(),
        why: "providers and traffic belong to a physical network".to_owned(),
        undo: "deletePhysicalNetwork".to_owned(),
        blocks: true,
        ..step("physical network", Action::SetUp(SetUp::PhysicalNetwork(command)), "absent")
    });
    for kind in ["Management", "Guest"] {
        let done = seen.traffic.iter().any(|traffic| traffic.kind.as_deref() == Some(kind));
        let action = match there {
            Some(network) => Action::SetUp(SetUp::Traffic(AddTrafficType {
                physical_network_id: network.id,
                kind: kind.to_owned(),
            })),
            None => Action::After,
        };
        steps.push(Step {
            done,
            then: "there".to_owned(),
            why: "the server puts networks where their kind of traffic goes".to_owned(),
            undo: "deleteTrafficType".to_owned(),
            blocks: true,
            ..step(format!("traffic type {kind}"), action, "absent")
        });
    }
    let state = there.map_or("absent", |network| network.state.as_deref().unwrap_or("unknown"));
    let action = there.map_or(Action::After, |network| {
        let state = Some("Enabled".to_owned());
        Action::SetUp(SetUp::EnablePhysical(UpdatePhysicalNetwork { id: network.id, state }))
    });
    steps.push(Step {
        done: state == "Enabled",
        then: "Enabled".to_owned(),
        why: "no network comes up on a disabled one".to_owned(),
        undo: "updatePhysicalNetwork state=Disabled".to_owned(),
        blocks: true,
        ..step("state of the physical network", action, state)
    });
}

fn providers(seen: &Seen, steps: &mut Vec<Step>) {
    let mut names = vec!["ConfigDrive"];
    if has_security_groups(seen) {
        names.push("SecurityGroupProvider");
    }
    for network in &seen.physical {
        for name in &names {
            let provider = seen.providers.iter().find(|provider| {
                provider.name == *name && provider.physical_network_id == Some(network.id)
            });
            let state = provider.map_or("absent", |p| p.state.as_deref().unwrap_or("unknown"));
            let id = provider.map(|provider| provider.id);
            let why = match *name {
                "ConfigDrive" => "it answers for DHCP, DNS and user data, and starts no router",
                _ => "hypervisor hosts enforce security groups by themselves",
            };
            steps.push(Step {
                done: state == "Enabled",
                then: "Enabled".to_owned(),
                why: why.to_owned(),
                undo: format!("updateNetworkServiceProvider state=Disabled ({name})"),
                blocks: true,
                ..step(
                    format!("provider {name} of physical network {}", network.name),
                    Action::Provider { network: network.id, name, id },
                    state,
                )
            });
        }
    }
}

fn offering(seen: &Seen, steps: &mut Vec<Step>) {
    let security_groups = has_security_groups(seen);
    let name = offering_name(security_groups);
    let offering = seen.offering.as_ref();
    let state = offering.map_or("absent", |o| o.state.as_deref().unwrap_or("unknown"));
    let other = offering.and_then(|offering| {
        // Releases that tell no services tell nothing against it.
        let told = !offering.services.is_empty();
        let fits = |(service, provider): &(&str, &str)| {
            let mut entries = offering.services.iter().filter(|entry| entry.name == *service);
            entries.any(|entry| entry.providers.iter().any(|p| p.name == *provider))
        };
        let missing = offering_services(security_groups).into_iter().find(|pair| !fits(pair));
        missing.filter(|_| told)
    });
    let what = format!("network offering {name}");
    let Some((service, provider)) = other else {
        steps.push(Step {
            done: state == "Enabled",
            then: "Enabled".to_owned(),
            why: "a network needs a provider of DHCP to get ranges; this one needs no router"
                .to_owned(),
            undo: "updateNetworkOffering state=Disabled".to_owned(),
            blocks: true,
            ..step(
                what,
                Action::Offering { id: offering.map(|offering| offering.id), security_groups },
                state,
            )
        });
        return;
    };
    steps.push(Step {
        then: format!("{service} by {provider}"),
        why: "an offering of this name is there and says something else; services of an offering \
              cannot be changed: rename it (updateNetworkOffering name=…), then run this again"
            .to_owned(),
        undo: "rename it back".to_owned(),
        blocks: true,
        ..step(what, Action::Other, format!("{service} by somebody else, or not there"))
    });
}

fn pod_step(seen: &Seen, wish: &Range) -> Step {
    let name = wish.pod.clone().unwrap_or_else(|| "pod1".to_owned());
    let command = CreatePod {
        name: name.clone(),
        zone_id: seen.zone.id,
        gateway: Some(IpAddr::V4(wish.gateway)),
        netmask: Some(IpAddr::V4(wish.netmask())),
        start_ip: Some(IpAddr::V4(wish.first)),
        end_ip: Some(IpAddr::V4(wish.last)),
    };
    Step {
        done: seen.pods.iter().any(|pod| pod.name == name),
        then: "there".to_owned(),
        why: "ranges of a basic zone belong to pods; these are the pod's management addresses"
            .to_owned(),
        undo: "deletePod".to_owned(),
        blocks: true,
        ..step(format!("pod {name}"), Action::SetUp(SetUp::Pod(command)), "absent")
    }
}

/// The network that the role serves, or would.
fn served<'s>(seen: &'s Seen, wish: &NetworkWish) -> Option<&'s Network> {
    shared(seen, wish).find(|network| is_without_router(network))
}

fn shared<'s>(seen: &'s Seen, wish: &NetworkWish) -> impl Iterator<Item = &'s Network> {
    let named = move |network: &&Network, name: &Option<String>| {
        name.as_ref().is_none_or(|name| network.name == *name)
    };
    let name = wish.name.clone();
    let of_kind = seen.networks.iter().filter(|n| n.kind.as_deref() == Some("Shared"));
    of_kind.filter(move |network| named(network, &name))
}

fn is_without_router(network: &Network) -> bool {
    !network.providers_of("Dhcp").contains(&"VirtualRouter")
}

fn guest(seen: &Seen, wish: &NetworkWish, steps: &mut Vec<Step>) {
    let offering = offering_name(has_security_groups(seen));
    let name = wish.name.clone().unwrap_or_else(|| "guest".to_owned());
    let found = served(seen, wish);
    let every = NetworkWish::default();
    let others: Vec<&str> = shared(seen, &every).map(|network| network.name.as_str()).collect();
    let there = match others.as_slice() {
        [] => "none yet".to_owned(),
        others => others.join(", "),
    };
    let mut made = Step {
        done: found.is_some(),
        then: format!("one of the offering {offering}"),
        why: "machines get addresses from its ranges, and nothing else answers for DHCP".to_owned(),
        undo: "deleteNetwork".to_owned(),
        blocks: wish.make,
        ..step(
            "guest network without a router",
            Action::Other,
            found.map_or_else(|| "none".to_owned(), |network| network.name.clone()),
        )
    };
    if found.is_none() {
        (made.action, made.why) = match (wish.make, &seen.offering) {
            (false, _) => (
                Action::Other,
                format!(
                    "the offering of a network cannot be changed: quickcloud dhcp plan {} makes one, \
                     or createNetwork with this offering (dns1=the address of this host) and \
                     createVlanIpRange with ranges that leave this host's address out. There is \
                     {there}",
                    seen.zone.name
                ),
            ),
            (true, _)
                if shared(seen, wish).next().is_some()
                    || (is_basic(seen) && !others.is_empty()) =>
            {
                (
                    Action::Other,
                    format!(
                        "there is {there}, and a router answers for its DHCP; the offering of a network \
                     cannot be changed, and a basic zone has one guest network: once no machine is \
                     in it, deleteNetwork, then run this again"
                    ),
                )
            }
            (true, None) => (Action::After, made.why),
            (true, Some(offering)) => creation(seen, wish, name, offering.id, made.why),
        };
    }
    steps.push(made);
}

/// In an advanced zone the first range goes with the network.
fn creation(
    seen: &Seen,
    wish: &NetworkWish,
    name: String,
    offering: Uuid,
    why: String,
) -> (Action, String) {
    let mut command = CreateNetwork {
        display_text: Some(name.clone()),
        name,
        zone_id: seen.zone.id,
        network_offering_id: offering,
        network_domain: wish.domain.clone(),
        dns1: wish.dns.map(IpAddr::V4),
        ..CreateNetwork::default()
    };
    if !is_basic(seen) {
        let (Some(range), Some(physical)) = (wish.ranges.first(), seen.physical.first()) else {
            return (
                Action::Other,
                "an advanced zone wants its first range: add --range".to_owned(),
            );
        };
        command.physical_network_id = Some(physical.id);
        command.vlan = Some(wish.vlan.clone().unwrap_or_else(|| "untagged".to_owned()));
        command.gateway = Some(IpAddr::V4(range.gateway));
        command.netmask = Some(IpAddr::V4(range.netmask()));
        command.start_ip = Some(IpAddr::V4(range.first));
        command.end_ip = Some(IpAddr::V4(range.last));
    }
    (Action::SetUp(SetUp::Network(Box::new(command))), why)
}

fn range_step(seen: &Seen, wish: &NetworkWish, range: &Range) -> Step {
    let mut made = Step {
        then: "there".to_owned(),
        why: "machines get their addresses from it".to_owned(),
        undo: "deleteVlanIpRange".to_owned(),
        ..step(format!("range {range}"), Action::After, "absent")
    };
    let Some(network) = served(seen, wish) else { return made };
    let of_network = || seen.ranges.iter().filter(|r| r.network_id == Some(network.id));
    made.done = of_network().any(|there| is_same(there, range));
    if made.done {
        return made;
    }
    let overlapping = of_network().find_map(|there| {
        let (first, last) = (there.start_ip?, there.end_ip?);
        (first <= range.last && range.first <= last).then(|| format!("{first}-{last}"))
    });
    let pod = match (is_basic(seen), pod_of(seen, range)) {
        (false, _) => Ok(None),
        (true, Ok(pod)) => Ok(Some(pod.id)),
        (true, Err(text)) => Err(text),
    };
    match (overlapping, pod) {
        (Some(there), _) => {
            made.action = Action::Other;
            made.now = there;
            made.why = "the network has a range that overlaps it: give that one, or one beside it"
                .to_owned();
        }
        (None, Err(text)) => {
            made.action = Action::Other;
            made.why = text;
        }
        (None, Ok(pod)) => {
            let command = CreateVlanIpRange {
                zone_id: Some(seen.zone.id),
                pod_id: pod,
                network_id: Some(network.id),
                for_virtual_network: Some(false),
                vlan: is_basic(seen).then(|| "untagged".to_owned()),
                gateway: Some(IpAddr::V4(range.gateway)),
                netmask: Some(IpAddr::V4(range.netmask())),
                start_ip: Some(IpAddr::V4(range.first)),
                end_ip: Some(IpAddr::V4(range.last)),
            };
            made.action = Action::SetUp(SetUp::Range(Box::new(command)));
        }
    }
    made
}

fn is_same(there: &VlanIpRange, range: &Range) -> bool {
    there.gateway == Some(range.gateway)
        && there.netmask == Some(range.netmask())
        && there.start_ip == Some(range.first)
        && there.end_ip == Some(range.last)
}

fn pod_of<'s>(seen: &'s Seen, range: &Range) -> Result<&'s Pod, String> {
    let names: Vec<&str> = seen.pods.iter().map(|pod| pod.name.as_str()).collect();
    let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    match (&range.pod, seen.pods.as_slice()) {
        (Some(name), pods) => pods.iter().find(|pod| pod.name == *name).ok_or_else(|| {
            format!("the zone has no pod {name}, it has {known}: make it with --pod")
        }),
        (None, [pod]) => Ok(pod),
        (None, _) => Err(format!("name its pod as --range POD={range}; the zone has {known}")),
    }
}

fn host_cache(seen: &Seen) -> Step {
    let now = seen.detail(HOST_CACHE).unwrap_or("not set, which means false").to_owned();
    let command = UpdateConfiguration {
        name: HOST_CACHE.to_owned(),
        value: "true".to_owned(),
        zone_id: Some(seen.zone.id),
    };
    Step {
        done: now == "true",
        then: "true".to_owned(),
        why: "KVM hosts write configuration drives themselves; no start waits for the storage"
            .to_owned(),
        undo: format!("updateConfiguration name={HOST_CACHE} value=false"),
        ..step(format!("setting {HOST_CACHE}"), Action::SetUp(SetUp::Setting(command)), now)
    }
}

fn is_basic(seen: &Seen) -> bool {
    seen.zone.network_type == "Basic"
}

fn has_security_groups(seen: &Seen) -> bool {
    seen.zone.security_groups_enabled == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_says_what_is_wrong_with_it() {
        let range: Range = "pod1=10.1.1.1/24,10.1.1.20-10.1.1.250".parse().unwrap();
        assert_eq!(range.netmask(), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(range.to_string(), "10.1.1.1/24,10.1.1.20-10.1.1.250");
        assert_eq!(range.pod.as_deref(), Some("pod1"));
        for (text, expected) in [
            ("10.1.1.1", "give [POD=]GATEWAY/PREFIX,FIRST-LAST"),
            ("=10.1.1.1/24,10.1.1.2-10.1.1.3", "give [POD=]"),
            ("10.1.1.1/31,10.1.1.2-10.1.1.3", "give a prefix of 8 to 30"),
            ("10.1.1.1/24,10.1.1.9-10.1.1.3", "10.1.1.9 is behind 10.1.1.3"),
            ("10.1.1.1/24,10.1.1.2-10.1.2.3", "10.1.2.3 is not in the subnet of 10.1.1.1/24"),
            ("10.1.1.1/24,10.1.1.2-10.1.1.255", "10.1.1.255 is no host's address in a /24"),
            ("10.1.1.9/24,10.1.1.2-10.1.1.20", "the gateway 10.1.1.9 would be given to a guest"),
            ("10.1.1.1/24,10.1.1.02-10.1.1.20", "\"10.1.1.02\" is no IPv4 address"),
        ] {
            let error = text.parse::<Range>().unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
