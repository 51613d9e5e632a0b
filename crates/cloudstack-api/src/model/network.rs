//! Networks and the ranges that addresses are taken from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use uuid::Uuid;

use crate::macros::object;

object! {
    /// A guest network. In a basic zone its gateway and CIDR are those of *one* range: take
    /// [`VlanIpRange`] instead.
    Network {
        id: Uuid = "id",
        name: String = "name",
        /// `Setup` also when a shared network is in use.
        state: Option<String> = "state",
        /// `Shared`, `Isolated`, `L2`.
        kind: Option<String> = "type",
        traffic_type: Option<String> = "traffictype",
        zone_id: Uuid = "zoneid",
        network_offering_id: Option<Uuid> = "networkofferingid",
        physical_network_id: Option<Uuid> = "physicalnetworkid",
        /// Absent when the offering has no DNS.
        network_domain: Option<String> = "networkdomain",
        dns1: Option<IpAddr> = "dns1",
        dns2: Option<IpAddr> = "dns2",
        ip6_dns1: Option<Ipv6Addr> = "ip6dns1",
        ip6_dns2: Option<Ipv6Addr> = "ip6dns2",
        private_mtu: Option<u32> = "privatemtu",
        broadcast_uri: Option<String> = "broadcasturi",
        services: Vec<NetworkService> = "service",
    }
}

object! {
    /// A service of a network and who provides it.
    NetworkService {
        name: String = "name",
        providers: Vec<ServiceProvider> = "provider",
    }
}

object! {
    /// A provider's name: `ConfigDrive`, `VirtualRouter`, the name of an extension.
    ServiceProvider { name: String = "name" }
}

impl Network {
    /// Names of the providers of a service, empty when the network does not have it.
    pub fn providers_of(&self, service: &str) -> Vec<&str> {
        let services = self.services.iter().filter(|entry| entry.name == service);
        services.flat_map(|entry| &entry.providers).map(|entry| entry.name.as_str()).collect()
    }
}

object! {
    /// Addresses of a subnet that the server gives to guests. Several may share one subnet, and
    /// ranges of two pods may, too.
    VlanIpRange {
        id: Uuid = "id",
        for_virtual_network: Option<bool> = "forvirtualnetwork",
        zone_id: Uuid = "zoneid",
        pod_id: Option<Uuid> = "podid",
        pod_name: Option<String> = "podname",
        network_id: Option<Uuid> = "networkid",
        physical_network_id: Option<Uuid> = "physicalnetworkid",
        vlan: Option<String> = "vlan",
        gateway: Option<Ipv4Addr> = "gateway",
        netmask: Option<Ipv4Addr> = "netmask",
        cidr: Option<String> = "cidr",
        start_ip: Option<Ipv4Addr> = "startip",
        end_ip: Option<Ipv4Addr> = "endip",
        ip6_gateway: Option<Ipv6Addr> = "ip6gateway",
        ip6_cidr: Option<String> = "ip6cidr",
        start_ip6: Option<Ipv6Addr> = "startipv6",
        end_ip6: Option<Ipv6Addr> = "endipv6",
        for_system_vms: Option<bool> = "forsystemvms",
    }
}
