//! Building a zone: the calls of dhcp-dns.md §3.1.2, in that order.

use std::net::IpAddr;

use bedrock::Secret;
use uuid::Uuid;

use crate::macros::command;
use crate::model::{
    Cluster, Host, Network, NetworkOffering, NetworkServiceProvider, PhysicalNetwork, Pod,
    StoragePool, TrafficType, VlanIpRange, Zone,
};
use crate::sign::ServiceProviders;

command! {
    CreateZone = "createZone" => in Zone, "zone";
    {
        name: String = "name",
        network_type: String = "networktype",
        security_group_enabled: Option<bool> = "securitygroupenabled",
        dns1: Option<IpAddr> = "dns1",
        internal_dns1: Option<IpAddr> = "internaldns1",
    }
}

command! {
    CreatePhysicalNetwork = "createPhysicalNetwork" => job PhysicalNetwork, "physicalnetwork";
    {
        name: String = "name",
        zone_id: Uuid = "zoneid",
        /// `POD` in a basic zone.
        broadcast_domain_range: Option<String> = "broadcastdomainrange",
        /// `VLAN` in an advanced zone; a basic one takes none.
        isolation_methods: Option<String> = "isolationmethods",
    }
}

command! {
    AddTrafficType = "addTrafficType" => job TrafficType, "traffictype";
    { physical_network_id: Uuid = "physicalnetworkid", kind: String = "traffictype" }
}

command! {
    UpdatePhysicalNetwork = "updatePhysicalNetwork" => job PhysicalNetwork, "physicalnetwork";
    { id: Uuid = "id", state: Option<String> = "state" }
}

command! {
    AddNetworkServiceProvider = "addNetworkServiceProvider"
        => job NetworkServiceProvider, "networkserviceprovider";
    { name: String = "name", physical_network_id: Uuid = "physicalnetworkid" }
}

command! {
    UpdateNetworkServiceProvider = "updateNetworkServiceProvider"
        => job NetworkServiceProvider, "networkserviceprovider";
    { id: Uuid = "id", state: Option<String> = "state" }
}

command! {
    CreateNetworkOffering = "createNetworkOffering" => in NetworkOffering, "networkoffering";
    {
        name: String = "name",
        display_text: String = "displaytext",
        guest_ip_type: String = "guestiptype",
        traffic_type: String = "traffictype",
        specify_vlan: Option<bool> = "specifyvlan",
        specify_ip_ranges: Option<bool> = "specifyipranges",
        availability: Option<String> = "availability",
        conserve_mode: Option<bool> = "conservemode",
        supported_services: Vec<String> = "supportedservices",
        service_providers: ServiceProviders = "serviceproviderlist",
    }
}

command! {
    UpdateNetworkOffering = "updateNetworkOffering" => in NetworkOffering, "networkoffering";
    { id: Uuid = "id", state: Option<String> = "state" }
}

command! {
    /// The range is that of the management network.
    CreatePod = "createPod" => in Pod, "pod";
    {
        name: String = "name",
        zone_id: Uuid = "zoneid",
        gateway: Option<IpAddr> = "gateway",
        netmask: Option<IpAddr> = "netmask",
        start_ip: Option<IpAddr> = "startip",
        end_ip: Option<IpAddr> = "endip",
    }
}

command! {
    /// Range, VLAN and physical network are for shared networks of advanced zones; a basic zone's
    /// network gets its ranges one by one.
    CreateNetwork = "createNetwork" => in Network, "network";
    {
        name: String = "name",
        display_text: Option<String> = "displaytext",
        zone_id: Uuid = "zoneid",
        network_offering_id: Uuid = "networkofferingid",
        network_domain: Option<String> = "networkdomain",
        dns1: Option<IpAddr> = "dns1",
        dns2: Option<IpAddr> = "dns2",
        physical_network_id: Option<Uuid> = "physicalnetworkid",
        vlan: Option<String> = "vlan",
        gateway: Option<IpAddr> = "gateway",
        netmask: Option<IpAddr> = "netmask",
        start_ip: Option<IpAddr> = "startip",
        end_ip: Option<IpAddr> = "endip",
    }
}

command! {
    /// Leave our own addresses outside of the range.
    CreateVlanIpRange = "createVlanIpRange" => in VlanIpRange, "vlan|vlaniprange";
    {
        zone_id: Option<Uuid> = "zoneid",
        pod_id: Option<Uuid> = "podid",
        network_id: Option<Uuid> = "networkid",
        for_virtual_network: Option<bool> = "forvirtualnetwork",
        vlan: Option<String> = "vlan",
        gateway: Option<IpAddr> = "gateway",
        netmask: Option<IpAddr> = "netmask",
        start_ip: Option<IpAddr> = "startip",
        end_ip: Option<IpAddr> = "endip",
    }
}

command! {
    AddCluster = "addCluster" => in Cluster, "cluster";
    {
        name: String = "clustername",
        /// `CloudManaged` or `ExternalManaged`.
        kind: String = "clustertype",
        hypervisor: String = "hypervisor",
        zone_id: Uuid = "zoneid",
        pod_id: Uuid = "podid",
    }
}

command! {
    AddHost = "addHost" => in Host, "host";
    {
        zone_id: Uuid = "zoneid",
        pod_id: Uuid = "podid",
        cluster_id: Option<Uuid> = "clusterid",
        hypervisor: String = "hypervisor",
        url: String = "url",
        user_name: Option<String> = "username",
        password: Option<Secret<String>> = "password",
    }
}

command! {
    CreateStoragePool = "createStoragePool" => job StoragePool, "storagepool";
    {
        name: String = "name",
        /// May hold a user and a password.
        url: Secret<String> = "url",
        zone_id: Uuid = "zoneid",
        pod_id: Option<Uuid> = "podid",
        cluster_id: Option<Uuid> = "clusterid",
        /// `CLUSTER` or `ZONE`.
        scope: Option<String> = "scope",
    }
}
