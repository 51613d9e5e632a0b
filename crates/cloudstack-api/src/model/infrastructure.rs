//! Zones, pods, hosts, stores, settings: what an administrator sets up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bedrock::Secret;
use uuid::Uuid;

use crate::macros::object;
use crate::model::NetworkService;
use crate::xml::{Element, Object, ReadError, Value};

object! {
    /// A zone.
    Zone {
        id: Uuid = "id",
        name: String = "name",
        /// `Basic` or `Advanced`.
        network_type: String = "networktype",
        /// `Enabled` or `Disabled`.
        allocation_state: Option<String> = "allocationstate",
        security_groups_enabled: Option<bool> = "securitygroupsenabled",
        domain: Option<String> = "domain",
        dns1: Option<IpAddr> = "dns1",
        dns2: Option<IpAddr> = "dns2",
        internal_dns1: Option<IpAddr> = "internaldns1",
        internal_dns2: Option<IpAddr> = "internaldns2",
        ip6_dns1: Option<Ipv6Addr> = "ip6dns1",
        ip6_dns2: Option<Ipv6Addr> = "ip6dns2",
        details: Option<ZoneDetails> = "resourcedetails",
    }
}

/// Details of a zone, which the server writes as one text: `{enable.consoleproxy.vm=false, a=b}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneDetails(Vec<(String, String)>);

impl ZoneDetails {
    /// The value of a detail. Right for values without `", "`, which the flags are.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Value for ZoneDetails {
    const WHAT: &'static str = "a text of the form {name=value, …}";

    fn parse(text: &str) -> Option<Self> {
        let inner = text.strip_prefix('{')?.strip_suffix('}')?;
        let pairs = inner.split(", ").filter_map(|pair| pair.split_once('='));
        Some(Self(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()))
    }
}

object! {
    /// A pod; its ranges are those of the management network.
    Pod {
        id: Uuid = "id",
        name: String = "name",
        zone_id: Uuid = "zoneid",
        gateway: Option<IpAddr> = "gateway",
        netmask: Option<Ipv4Addr> = "netmask",
        allocation_state: Option<String> = "allocationstate",
        ranges: Vec<PodRange> = "ipranges",
    }
}

object! {
    /// Management addresses of a pod.
    PodRange {
        start_ip: IpAddr = "startip",
        end_ip: Option<IpAddr> = "endip",
    }
}

object! {
    /// A host row, agents of system VMs included.
    Host {
        id: Uuid = "id",
        name: String = "name",
        /// `Routing`, `SecondaryStorageVM`, `ConsoleProxy`, …
        kind: String = "type",
        /// `Up`, `Connecting`, `Disconnected`, `Alert`, …
        state: String = "state",
        resource_state: Option<String> = "resourcestate",
        zone_id: Option<Uuid> = "zoneid",
        pod_id: Option<Uuid> = "podid",
        cluster_id: Option<Uuid> = "clusterid",
        ip_address: Option<IpAddr> = "ipaddress",
        hypervisor: Option<String> = "hypervisor",
        version: Option<String> = "version",
    }
}

object! {
    /// A system VM's row, also when the VM is stopped and its agent runs elsewhere.
    SystemVm {
        id: Uuid = "id",
        name: String = "name",
        /// `secondarystoragevm` or `consoleproxy`.
        kind: String = "systemvmtype",
        state: String = "state",
        agent_state: Option<String> = "agentstate",
        zone_id: Option<Uuid> = "zoneid",
        pod_id: Option<Uuid> = "podid",
        /// Where it runs; absent for a row that no machine stands behind.
        host_id: Option<Uuid> = "hostid",
        /// Absent for a row that was made by hand.
        template_id: Option<Uuid> = "templateid",
        private_ip: Option<IpAddr> = "privateip",
        public_ip: Option<IpAddr> = "publicip",
        version: Option<String> = "version",
    }
}

object! {
    /// A setting.
    Configuration {
        name: String = "name",
        /// Absent when unset, and for settings that the server hides.
        value: Option<String> = "value",
        scope: Option<String> = "scope",
        category: Option<String> = "category",
    }
}

object! {
    /// A network offering.
    NetworkOffering {
        id: Uuid = "id",
        name: String = "name",
        state: Option<String> = "state",
        guest_ip_type: Option<String> = "guestiptype",
        services: Vec<NetworkService> = "service",
    }
}

object! {
    /// A physical network of a zone.
    PhysicalNetwork {
        id: Uuid = "id",
        name: String = "name",
        zone_id: Option<Uuid> = "zoneid",
        state: Option<String> = "state",
        broadcast_domain_range: Option<String> = "broadcastdomainrange",
    }
}

object! {
    /// A kind of traffic on a physical network.
    TrafficType {
        id: Uuid = "id",
        kind: Option<String> = "traffictype",
        physical_network_id: Option<Uuid> = "physicalnetworkid",
    }
}

object! {
    /// A provider on a physical network; offerings can use it once it is enabled.
    NetworkServiceProvider {
        id: Uuid = "id",
        name: String = "name",
        state: Option<String> = "state",
        physical_network_id: Option<Uuid> = "physicalnetworkid",
    }
}

object! {
    /// A cluster of hosts.
    Cluster {
        id: Uuid = "id",
        name: String = "name",
        zone_id: Option<Uuid> = "zoneid",
        pod_id: Option<Uuid> = "podid",
        hypervisor: Option<String> = "hypervisortype",
    }
}

object! {
    /// A secondary storage, as the server knows it.
    ImageStore {
        id: Uuid = "id",
        name: String = "name",
        zone_id: Option<Uuid> = "zoneid",
        /// May hold a user and a password.
        url: Option<Secret<String>> = "url",
        protocol: Option<String> = "protocol",
        provider: Option<String> = "providername",
        scope: Option<String> = "scope",
        read_only: Option<bool> = "readonly",
    }
}

impl Value for Secret<String> {
    const WHAT: &'static str = "a text";

    fn parse(text: &str) -> Option<Self> {
        Some(Self::new(text.to_owned()))
    }
}

object! {
    /// A primary storage.
    StoragePool {
        id: Uuid = "id",
        name: String = "name",
        zone_id: Option<Uuid> = "zoneid",
        state: Option<String> = "state",
    }
}

object! {
    /// Where the server sends events.
    Webhook {
        id: Uuid = "id",
        name: String = "name",
        payload_url: Option<String> = "payloadurl",
        /// `Enabled` or `Disabled`.
        state: Option<String> = "state",
        /// `Local`, `Domain` or `Global`.
        scope: Option<String> = "scope",
        ssl_verification: Option<bool> = "sslverification",
        secret_key: Option<Secret<String>> = "secretkey",
    }
}

object! {
    /// A key pair as registered.
    UserKeys {
        api_key: Secret<String> = "apikey",
        secret_key: Secret<String> = "secretkey",
    }
}

/// That a change was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Success;

impl Object for Success {
    fn read(element: Element<'_, '_>) -> Result<Self, ReadError> {
        match element.field::<bool>("success")? {
            true => Ok(Self),
            false => Err(ReadError::Malformed {
                path: element.path("success"),
                value: "false".to_owned(),
                what: "true",
            }),
        }
    }
}

/// That a job did what it was to do: its element `success` itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done;

impl Object for Done {
    fn read(element: Element<'_, '_>) -> Result<Self, ReadError> {
        match element.text().map(str::trim) {
            Some("true") => Ok(Self),
            other => Err(ReadError::Malformed {
                path: element.name().to_owned(),
                value: other.unwrap_or_default().to_owned(),
                what: "true",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_of_a_zone_are_found_by_name() {
        let details = ZoneDetails::parse("{enable.secstorage.vm=false, a=b=c}").unwrap();
        assert_eq!(details.get("enable.secstorage.vm"), Some("false"));
        assert_eq!(details.get("a"), Some("b=c"));
        assert_eq!(details.get("b"), None);
        assert!(ZoneDetails::parse("{}").unwrap().get("").is_none());
        assert!(ZoneDetails::parse("a=b").is_none());
    }
}
