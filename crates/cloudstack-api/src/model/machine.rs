//! Virtual machines and their NICs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use uuid::Uuid;

use crate::macros::object;
use crate::xml::Value;

/// State of a machine. What a newer release adds is kept as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmState {
    Starting,
    Running,
    Stopping,
    Stopped,
    Migrating,
    Destroyed,
    Expunging,
    Shutdown,
    Error,
    Unknown,
    Other(String),
}

impl Value for VmState {
    const WHAT: &'static str = "a state";

    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" => return None,
            "Starting" => Self::Starting,
            "Running" => Self::Running,
            "Stopping" => Self::Stopping,
            "Stopped" => Self::Stopped,
            "Migrating" => Self::Migrating,
            "Destroyed" => Self::Destroyed,
            "Expunging" => Self::Expunging,
            "Shutdown" => Self::Shutdown,
            "Error" => Self::Error,
            "Unknown" => Self::Unknown,
            other => Self::Other(other.to_owned()),
        })
    }
}

object! {
    /// A virtual machine of a user.
    VirtualMachine {
        id: Uuid = "id",
        /// The guest's host name, chosen by a tenant.
        name: String = "name",
        state: VmState = "state",
        zone_id: Uuid = "zoneid",
        account: Option<String> = "account",
        domain_id: Option<Uuid> = "domainid",
        project_id: Option<Uuid> = "projectid",
        /// Name at the hypervisor; only a root admin sees it.
        instance_name: Option<String> = "instancename",
        /// The hypervisor host it runs on; only an admin sees it.
        host_name: Option<String> = "hostname",
        nics: Vec<Nic> = "nic",
    }
}

object! {
    /// A network interface. Addresses are absent until the machine was started once.
    Nic {
        id: Uuid = "id",
        network_id: Uuid = "networkid",
        network_name: Option<String> = "networkname",
        /// `Shared`, `Isolated`, `L2`.
        network_type: Option<String> = "type",
        traffic_type: Option<String> = "traffictype",
        /// As the server writes it: lower case, colons.
        mac_address: Option<String> = "macaddress",
        ip_address: Option<Ipv4Addr> = "ipaddress",
        netmask: Option<Ipv4Addr> = "netmask",
        gateway: Option<Ipv4Addr> = "gateway",
        ip6_address: Option<Ipv6Addr> = "ip6address",
        ip6_gateway: Option<Ipv6Addr> = "ip6gateway",
        ip6_cidr: Option<String> = "ip6cidr",
        is_default: bool = "isdefault",
        /// Changes with the default NIC: no identity.
        device_id: Option<String> = "deviceid",
        /// False when the link is switched off (4.23); absent before.
        enabled: Option<bool> = "enabled",
        secondary_ips: Vec<SecondaryIp> = "secondaryip",
        extra_dhcp_options: Vec<ExtraDhcpOption> = "extradhcpoption",
    }
}

object! {
    /// A further address of a NIC, configured inside the guest.
    SecondaryIp {
        id: Uuid = "id",
        ip_address: IpAddr = "ipaddress",
    }
}

object! {
    /// A DHCP option that a user put on a NIC.
    ExtraDhcpOption {
        code: u16 = "extradhcpoptioncode",
        name: Option<String> = "extradhcpoptionname",
        value: String = "extradhcpvalue",
    }
}

object! {
    /// A virtual router: another DHCP server, by design.
    Router {
        id: Uuid = "id",
        name: String = "name",
        state: VmState = "state",
        /// `VIRTUAL_ROUTER`, `INTERNAL_LB_VM`, …
        role: Option<String> = "role",
        zone_id: Option<Uuid> = "zoneid",
        pod_id: Option<Uuid> = "podid",
        guest_network_id: Option<Uuid> = "guestnetworkid",
        guest_ip_address: Option<Ipv4Addr> = "guestipaddress",
        nics: Vec<Nic> = "nic",
    }
}
