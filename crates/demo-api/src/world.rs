//! What the server knows. Addresses and ids follow the server's own habits: a NIC keeps both while
//! its machine is stopped or destroyed, and an address that is free goes to the next machine.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::{Value, json};
use uuid::Uuid;

/// The objects of one cloud, in the API's own JSON.
#[derive(Debug, Clone, Default)]
pub struct World {
    pub zones: Vec<Value>,
    pub networks: Vec<Value>,
    pub ranges: Vec<Value>,
    pub routers: Vec<Value>,
    pub machines: Vec<Value>,
    pub pods: Vec<Value>,
    pub system_vms: Vec<Value>,
    pub hosts: Vec<Value>,
    pub image_stores: Vec<Value>,
    pub settings: Vec<Value>,
    pub physical_networks: Vec<Value>,
    pub traffic_types: Vec<Value>,
    pub webhooks: Vec<Value>,
    pub providers: Vec<Value>,
    pub offerings: Vec<Value>,
    /// Results of jobs by their id.
    pub(crate) jobs: BTreeMap<String, String>,
    zone: String,
    network: String,
    /// Numbers what is made.
    next: u32,
}

/// The network of [`World::basic`].
const GATEWAY: &str = "10.77.0.254";
const NETMASK: &str = "255.255.255.0";
const FIRST: u8 = 20;
const LAST: u8 = 240;

impl World {
    /// A basic zone with one pod, whose guests have 10.77.0.20 to 10.77.0.240.
    pub fn basic(name: &str) -> Self {
        let (zone, network) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
        let service =
            |name: &str, provider: &str| json!({"name": name, "provider": [{"name": provider}]});
        Self {
            zones: vec![json!({
                "id": zone, "name": name, "networktype": "Basic", "securitygroupsenabled": true,
                "allocationstate": "Enabled", "dns1": "10.0.0.53", "internaldns1": "10.0.0.53",
                "resourcedetails": {"enable.secstorage.vm": "false"},
            })],
            networks: vec![json!({
                "id": network, "name": "guest", "zoneid": zone, "traffictype": "Guest",
                "type": "Shared", "state": "Setup", "networkdomain": "cs.example",
                "privatemtu": 1500,
                "service": [service("Dhcp", "ConfigDrive"), service("Dns", "ConfigDrive"),
                    service("UserData", "ConfigDrive"),
                    service("SecurityGroup", "SecurityGroupProvider")],
            })],
            ranges: vec![json!({
                "id": Uuid::new_v4().to_string(), "zoneid": zone, "networkid": network,
                "podid": Uuid::new_v4().to_string(), "podname": "pod1", "vlan": "vlan://untagged",
                "forvirtualnetwork": false, "forsystemvms": false, "gateway": GATEWAY,
                "netmask": NETMASK, "cidr": "10.77.0.0/24",
                "startip": format!("10.77.0.{FIRST}"), "endip": format!("10.77.0.{LAST}"),
            })],
            zone,
            network,
            ..Self::default()
        }
    }

    /// A cloud of recorded objects.
    pub fn of(zones: Vec<Value>, networks: Vec<Value>, ranges: Vec<Value>) -> Self {
        Self { zones, networks, ranges, ..Self::default() }
    }

    /// Id of the zone of [`World::basic`].
    pub fn zone_id(&self) -> &str {
        &self.zone
    }

    pub fn network_id(&self) -> &str {
        &self.network
    }

    /// A machine, running; its id. The first free address, or none when all are taken.
    pub fn deploy(&mut self, name: &str) -> Option<String> {
        let address = self.free_address()?;
        self.next += 1;
        let [.., a, b, c] = self.next.to_be_bytes();
        // One byte of the server's is random, so nobody can foretell it.
        let random = Uuid::new_v4().as_bytes().first().copied().unwrap_or(7);
        let mac = format!("1e:00:{random:02x}:{a:02x}:{b:02x}:{c:02x}");
        Some(self.deploy_with(name, &mac, &address.to_string()))
    }

    /// A machine, running, with this NIC; its id.
    pub fn deploy_with(&mut self, name: &str, mac: &str, address: &str) -> String {
        let id = Uuid::new_v4().to_string();
        let mut nic = json!({
            "id": Uuid::new_v4().to_string(), "networkid": self.network, "networkname": "guest",
            "traffictype": "Guest", "type": "Shared", "isdefault": true, "deviceid": "0",
        });
        give(&mut nic, mac, address);
        self.machines.push(json!({
            "id": id, "name": name, "displayname": name, "account": "admin", "zoneid": self.zone,
            "state": "Running", "hostname": "host1", "instancename": format!("i-2-{}-VM", self.next),
            "nic": [nic],
        }));
        id
    }

    fn free_address(&self) -> Option<Ipv4Addr> {
        let taken: Vec<&str> = self
            .machines
            .iter()
            .filter_map(|machine| machine.get("nic")?.as_array())
            .flatten()
            .filter_map(|nic| nic.get("ipaddress")?.as_str())
            .collect();
        let all = (FIRST..=LAST).map(|last| Ipv4Addr::new(10, 77, 0, last));
        all.into_iter().find(|address| !taken.contains(&address.to_string().as_str()))
    }

    /// A machine by its id.
    pub fn machine(&mut self, id: &str) -> Option<&mut Value> {
        self.machines.iter_mut().find(|machine| text(machine, "id") == Some(id))
    }

    /// Sets a field of a machine: `name`, `state`.
    pub fn set(&mut self, id: &str, field: &str, value: impl Into<Value>) {
        if let Some(members) = self.machine(id).and_then(Value::as_object_mut) {
            members.insert(field.to_owned(), value.into());
        }
    }

    /// The first NIC of a machine.
    pub fn nic(&mut self, id: &str) -> Option<&mut Value> {
        self.machine(id)?.get_mut("nic")?.get_mut(0)
    }

    /// Another address for the first NIC, as `updateVmNicIp` gives it: the MAC stays.
    pub fn readdress(&mut self, id: &str, address: &str) {
        if let Some(members) = self.nic(id).and_then(Value::as_object_mut) {
            members.insert("ipaddress".to_owned(), address.into());
        }
    }

    /// The machine and its NICs are gone, their addresses free.
    pub fn expunge(&mut self, id: &str) {
        self.machines.retain(|machine| text(machine, "id") != Some(id));
    }
}

fn give(nic: &mut Value, mac: &str, address: &str) {
    if let Some(members) = nic.as_object_mut() {
        let fields = [
            ("macaddress", mac),
            ("ipaddress", address),
            ("netmask", NETMASK),
            ("gateway", GATEWAY),
        ];
        members.extend(fields.map(|(name, value)| (name.to_owned(), value.into())));
    }
}

pub(crate) fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name)?.as_str()
}
