//! Lists. All are paged; see [`crate::Client::list`].

use uuid::Uuid;

use crate::macros::command;
use crate::model::{
    Configuration, Host, ImageStore, Network, NetworkOffering, NetworkServiceProvider, Nic,
    PhysicalNetwork, Pod, Router, SystemVm, TrafficType, VirtualMachine, VlanIpRange, Webhook,
    Zone,
};

command! {
    ListZones = "listZones" => list Zone, "zone";
    { id: Option<Uuid> = "id", name: Option<String> = "name" }
}

command! {
    ListPods = "listPods" => list Pod, "pod";
    { zone_id: Option<Uuid> = "zoneid", name: Option<String> = "name" }
}

command! {
    /// `list_all` with `project_id` −1 is everything, networks of projects included.
    ListNetworks = "listNetworks" => list Network, "network";
    {
        zone_id: Option<Uuid> = "zoneid",
        id: Option<Uuid> = "id",
        list_all: Option<bool> = "listall",
        project_id: Option<i64> = "projectid",
        kind: Option<String> = "type",
        traffic_type: Option<String> = "traffictype",
    }
}

command! {
    ListVlanIpRanges = "listVlanIpRanges" => list VlanIpRange, "vlaniprange";
    {
        zone_id: Option<Uuid> = "zoneid",
        network_id: Option<Uuid> = "networkid",
        for_virtual_network: Option<bool> = "forvirtualnetwork",
    }
}

command! {
    /// `details` `nics` is what a sync needs, and cheap; `min` gives no NICs at all. `list_all`
    /// with `project_id` −1 is everything; `project_id` −1 alone only machines of projects.
    ListVirtualMachines = "listVirtualMachines" => list VirtualMachine, "virtualmachine";
    {
        zone_id: Option<Uuid> = "zoneid",
        id: Option<Uuid> = "id",
        network_id: Option<Uuid> = "networkid",
        name: Option<String> = "name",
        state: Option<String> = "state",
        list_all: Option<bool> = "listall",
        project_id: Option<i64> = "projectid",
        details: Option<String> = "details",
    }
}

impl ListVirtualMachines {
    /// Every machine of a zone with its NICs, those of projects included.
    pub fn of_zone(zone_id: Uuid) -> Self {
        Self {
            zone_id: Some(zone_id),
            list_all: Some(true),
            project_id: Some(-1),
            details: Some("nics".to_owned()),
            ..Self::default()
        }
    }
}

command! {
    /// NICs of one machine; the server insists on `virtual_machine_id`.
    ListNics = "listNics" => list Nic, "nic";
    { virtual_machine_id: Uuid = "virtualmachineid", network_id: Option<Uuid> = "networkid" }
}

command! {
    ListRouters = "listRouters" => list Router, "router";
    {
        zone_id: Option<Uuid> = "zoneid",
        network_id: Option<Uuid> = "networkid",
        list_all: Option<bool> = "listall",
        project_id: Option<i64> = "projectid",
    }
}

command! {
    /// Host rows; `kind` is `Routing`, `SecondaryStorageVM`, `ConsoleProxy`, …
    ListHosts = "listHosts" => list Host, "host";
    {
        zone_id: Option<Uuid> = "zoneid",
        name: Option<String> = "name",
        kind: Option<String> = "type",
        details: Option<String> = "details",
    }
}

command! {
    /// `kind` is `secondarystoragevm` or `consoleproxy`.
    ListSystemVms = "listSystemVms" => list SystemVm, "systemvm";
    {
        zone_id: Option<Uuid> = "zoneid",
        name: Option<String> = "name",
        kind: Option<String> = "systemvmtype",
    }
}

command! {
    /// Settings, global or as seen in a zone.
    ListConfigurations = "listConfigurations" => list Configuration, "configuration";
    { name: Option<String> = "name", zone_id: Option<Uuid> = "zoneid" }
}

command! {
    ListImageStores = "listImageStores" => list ImageStore, "imagestore";
    { zone_id: Option<Uuid> = "zoneid", name: Option<String> = "name" }
}

command! {
    ListNetworkOfferings = "listNetworkOfferings" => list NetworkOffering, "networkoffering";
    { name: Option<String> = "name", id: Option<Uuid> = "id" }
}

command! {
    ListPhysicalNetworks = "listPhysicalNetworks" => list PhysicalNetwork, "physicalnetwork";
    { zone_id: Option<Uuid> = "zoneid", name: Option<String> = "name" }
}

command! {
    ListTrafficTypes = "listTrafficTypes" => list TrafficType, "traffictype";
    { physical_network_id: Uuid = "physicalnetworkid" }
}

command! {
    ListNetworkServiceProviders = "listNetworkServiceProviders"
        => list NetworkServiceProvider, "networkserviceprovider";
    { physical_network_id: Option<Uuid> = "physicalnetworkid", name: Option<String> = "name" }
}

command! {
    /// From 4.20 on.
    ListWebhooks = "listWebhooks" => list Webhook, "webhook";
    { name: Option<String> = "name", list_all: Option<bool> = "listall" }
}
