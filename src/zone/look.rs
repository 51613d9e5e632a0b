//! What the server tells of a zone, read by one function and judged by others.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cloudstack_api::commands::{
    ListConfigurations, ListHosts, ListImageStores, ListNetworkOfferings,
    ListNetworkServiceProviders, ListNetworks, ListPhysicalNetworks, ListPods, ListRouters,
    ListSystemVms, ListTrafficTypes, ListVlanIpRanges, ListWebhooks, ListZones,
};
use cloudstack_api::model::{
    Host, ImageStore, Network, NetworkOffering, NetworkServiceProvider, PhysicalNetwork, Pod,
    SystemVm, TrafficType, VlanIpRange, VmState, Webhook, Zone,
};
use cloudstack_api::{CallError, Client};

use super::network::offering_name;
use super::{CONSOLE_DETAIL, STORAGE_DETAIL};

/// Everything that plans and findings are made of.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) zone: Zone,
    pub(crate) pods: Vec<Pod>,
    pub(crate) storage_vms: Vec<SystemVm>,
    pub(crate) console_vms: Vec<SystemVm>,
    pub(crate) storage_hosts: Vec<Host>,
    pub(crate) console_hosts: Vec<Host>,
    pub(crate) stores: Vec<ImageStore>,
    /// Settings by name, those that have a value.
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) networks: Vec<Network>,
    pub(crate) physical: Vec<PhysicalNetwork>,
    /// Kinds of traffic of all physical networks.
    pub(crate) traffic: Vec<TrafficType>,
    pub(crate) ranges: Vec<VlanIpRange>,
    pub(crate) providers: Vec<NetworkServiceProvider>,
    /// The one that a zone of this kind needs, if the server has it.
    pub(crate) offering: Option<NetworkOffering>,
    /// Only when they are asked for; see [`webhooks`].
    pub(crate) webhooks: Vec<Webhook>,
    /// Names of routers that run.
    pub(crate) routers: Vec<String>,
}

/// Why a zone cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookError {
    #[error("the server has no zone {wanted:?}; it has {known}")]
    NoZone { wanted: String, known: String },
    #[error("several zones are called {0:?}; give the id")]
    Ambiguous(String),
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Settings that a plan or a finding asks for.
const SETTINGS: [&str; 8] = [
    "instance.name",
    "consoleproxy.static.publicIp",
    "consoleproxy.static.port",
    "consoleproxy.sslEnabled",
    "consoleproxy.url.domain",
    "secstorage.ssl.cert.domain",
    "use.https.to.upload",
    "secstorage.allowed.internal.sites",
];

/// States of a row that nothing can be done with.
const GONE: [&str; 4] = ["Destroyed", "Expunging", "Expunged", "Error"];

/// Asks for everything. `zone` is a name or an id.
pub(crate) async fn look(client: &mut Client, zone: &str) -> Result<Seen, LookError> {
    let zone = find_zone(client, zone).await?;
    let id = Some(zone.id);
    let pods = client.list(&ListPods { zone_id: id, ..ListPods::default() }).await?.items;
    let vms = client.list(&ListSystemVms { zone_id: id, ..ListSystemVms::default() }).await?.items;
    let hosts = client.list(&ListHosts { zone_id: id, ..ListHosts::default() }).await?.items;
    let stores = ListImageStores { zone_id: id, ..ListImageStores::default() };
    let stores = client.list(&stores).await?.items;
    let settings = settings(client).await?;
    let networks = ListNetworks {
        zone_id: id,
        list_all: Some(true),
        project_id: Some(-1),
        traffic_type: Some("Guest".to_owned()),
        ..ListNetworks::default()
    };
    let networks = client.list(&networks).await?.items;
    let physical = ListPhysicalNetworks { zone_id: id, ..ListPhysicalNetworks::default() };
    let physical = client.list(&physical).await?.items;
    let (mut providers, mut traffic) = (Vec::new(), Vec::new());
    for network in &physical {
        let list = ListNetworkServiceProviders {
            physical_network_id: Some(network.id),
            ..ListNetworkServiceProviders::default()
        };
        providers.extend(client.list(&list).await?.items);
        let list = ListTrafficTypes { physical_network_id: network.id };
        traffic.extend(client.list(&list).await?.items);
    }
    let ranges = ListVlanIpRanges {
        zone_id: id,
        for_virtual_network: Some(false),
        ..ListVlanIpRanges::default()
    };
    let ranges = client.list(&ranges).await?.items;
    let wanted = offering_name(zone.security_groups_enabled == Some(true));
    let offerings =
        ListNetworkOfferings { name: Some(wanted.to_owned()), ..ListNetworkOfferings::default() };
    let offerings = client.list(&offerings).await?.items;
    let routers = ListRouters {
        zone_id: id,
        list_all: Some(true),
        project_id: Some(-1),
        ..ListRouters::default()
    };
    let routers = client.list(&routers).await?.items;
    let (mut storage_vms, mut console_vms) = (Vec::new(), Vec::new());
    for vm in vms.into_iter().filter(|vm| !GONE.contains(&vm.state.as_str())) {
        match vm.kind.as_str() {
            "secondarystoragevm" => storage_vms.push(vm),
            "consoleproxy" => console_vms.push(vm),
            _ => {}
        }
    }
    let of_kind = |kind: &str| hosts.iter().filter(|host| host.kind == kind).cloned().collect();
    Ok(Seen {
        storage_hosts: of_kind("SecondaryStorageVM"),
        console_hosts: of_kind("ConsoleProxy"),
        zone,
        pods,
        storage_vms,
        console_vms,
        stores,
        settings,
        networks,
        physical,
        traffic,
        ranges,
        webhooks: Vec::new(),
        providers,
        offering: offerings.into_iter().find(|offering| offering.name == wanted),
        routers: routers
            .into_iter()
            .filter(|router| router.state == VmState::Running)
            .map(|router| router.name)
            .collect(),
    })
}

/// Settings of the server that have a value.
async fn settings(client: &mut Client) -> Result<BTreeMap<String, String>, LookError> {
    let mut settings = BTreeMap::new();
    for name in SETTINGS {
        let wanted = ListConfigurations { name: Some(name.to_owned()), zone_id: None };
        let found = client.list(&wanted).await?.items;
        let value = found.into_iter().find(|setting| setting.name == name).and_then(|s| s.value);
        settings.extend(value.filter(|value| !value.is_empty()).map(|v| (name.to_owned(), v)));
    }
    Ok(settings)
}

/// Where the server sends events.
pub(crate) async fn webhooks(client: &mut Client) -> Result<Vec<Webhook>, CallError> {
    let all = ListWebhooks { list_all: Some(true), ..ListWebhooks::default() };
    Ok(client.list(&all).await?.items)
}

async fn find_zone(client: &mut Client, wanted: &str) -> Result<Zone, LookError> {
    let zones = client.list(&ListZones::default()).await?.items;
    let by_id = zones.iter().position(|zone| zone.id.to_string() == wanted);
    let named: Vec<usize> =
        (0..).zip(&zones).filter(|(_, z)| z.name == wanted).map(|(i, _)| i).collect();
    let at = match (by_id, named.as_slice()) {
        (Some(at), _) => at,
        (None, [at]) => *at,
        (None, []) => {
            let known: Vec<&str> = zones.iter().map(|zone| zone.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(LookError::NoZone { wanted: wanted.to_owned(), known });
        }
        (None, _) => return Err(LookError::Ambiguous(wanted.to_owned())),
    };
    let missing = || LookError::NoZone { wanted: wanted.to_owned(), known: String::new() };
    zones.into_iter().nth(at).ok_or_else(missing)
}

impl Seen {
    /// The value of a zone's detail; absent means true.
    pub(crate) fn detail(&self, name: &str) -> Option<&str> {
        self.zone.details.as_ref()?.get(name)
    }

    /// Whether the server makes its own storage VMs.
    pub(crate) fn makes_storage_vms(&self) -> bool {
        self.detail(STORAGE_DETAIL) != Some("false")
    }

    /// Whether the server makes its own console proxies.
    pub(crate) fn makes_consoles(&self) -> bool {
        self.detail(CONSOLE_DETAIL) != Some("false")
    }

    /// The end of system VMs' names, which the setting `instance.name` has.
    pub(crate) fn instance_name(&self) -> &str {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        match self.settings.get("instance.name") {
            Some(name) if name.chars().all(plain) => name,
            _ => "VM",
        }
    }

    /// Name of the host that stands for the zone's storage without a row. It ends in a period,
    /// because newer servers find a row by the beginning of its guid: z1 must not begin z10.
    pub(crate) fn standalone_name(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let zone: String = self.zone.name.chars().map(plain).collect();
        format!("quickcloud-ss-{zone}.")
    }
}

/// Whether the row is Running on a machine, and not only in the table.
pub(crate) fn on_a_machine(vm: &SystemVm) -> bool {
    vm.host_id.is_some()
}

/// Whether the row is one that this host stands for: Running without a machine.
pub(crate) fn is_ours(vm: &SystemVm) -> bool {
    vm.state == "Running" && vm.host_id.is_none()
}

/// The number in `s-12-VM`, which is the row's.
pub(crate) fn number(name: &str) -> Option<u64> {
    name.split('-').nth(1)?.parse().ok()
}

/// The host that answers to a name.
pub(crate) fn is_up(hosts: &[Host], name: &str) -> bool {
    hosts.iter().any(|host| host.name == name && host.state == "Up")
}

/// An address, for people.
pub(crate) fn shown(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "none".to_owned(), |address| address.to_string())
}
