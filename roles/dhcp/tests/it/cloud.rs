//! A scripted server of the CloudStack API beside the role.

use std::path::Path;

use demo_api::{DemoApi, Keys, World};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::harness::{Api, Running};

/// The server; it ends with this.
pub(crate) struct Cloud {
    pub(crate) api: DemoApi,
    stop: CancellationToken,
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Cloud {
    pub(crate) async fn start(world: World) -> Self {
        let stop = CancellationToken::new();
        let keys = Keys { api: "EXAMPLE-Api_Key".to_owned(), secret: "EXAMPLE-Secret".to_owned() };
        let address = "127.0.0.1:0".parse().unwrap();
        let (api, serving) = DemoApi::start(address, world, keys, stop.clone()).await.unwrap();
        tokio::spawn(serving);
        Self { api, stop }
    }

    /// The role's table `sync`, with its key files in `directory`.
    pub(crate) fn table(&self, directory: &Path, more: &str) -> String {
        let file = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).unwrap();
            crate::namespace::set_mode(&path, 0o600);
            path.display().to_string()
        };
        let (key, secret) = (file("key", "EXAMPLE-Api_Key\n"), file("secret", "EXAMPLE-Secret\n"));
        let zone = self.api.with(|world| world.zones[0]["name"].as_str().unwrap().to_owned());
        format!(
            "[sync]\nurls = [\"{}\"]\nzone = \"{zone}\"\napi_key_file = \"{key}\"\n\
             secret_key_file = \"{secret}\"\n{more}\n",
            self.api.url()
        )
    }
}

/// Nothing happens by itself.
pub(crate) const BY_HAND: &str = "full_interval = \"1h\"\nstarting_interval = \"0s\"";

/// Reads the book now; what came of it.
pub(crate) async fn sync(api: &Api) -> Value {
    api.send("POST", "/v1/sync", &[], "").await.expect(200).json()
}

/// Reservations of zone z2 by id, as (MAC, address, name).
pub(crate) async fn reservations(api: &Api, zone: &str) -> Vec<(String, String, String)> {
    let answer = api.get(&format!("/v1/zones/{zone}/reservations?limit=1000")).await.expect(200);
    let items = answer.json()["items"].as_array().unwrap().clone();
    let text = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
    items.iter().map(|i| (text(i, "mac"), text(i, "ipv4"), text(i, "hostname"))).collect()
}

/// A recorded document: the machines in it.
pub(crate) fn recorded(name: &str) -> Vec<Value> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = directory.join("../../crates/cloudstack-api/tests/vectors").join(name);
    let document: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let objects = document.as_object().unwrap().values().next().unwrap().as_object().unwrap();
    objects.values().find_map(Value::as_array).cloned().unwrap_or_default()
}

/// The MAC address in the recorded life.
pub(crate) const LIFE_MAC: &str = "1e:00:28:00:01:63";

/// The recorded life of a machine, as 4.22 told it: document, address and name.
pub(crate) const LIFE: [(&str, Option<(&str, &str)>); 10] = [
    ("life-1-running", Some(("10.77.9.175", "lifea"))),
    ("life-2-secondary", Some(("10.77.9.175", "lifea"))),
    ("life-3-stopped", Some(("10.77.9.175", "lifea2"))),
    ("life-4-renamed", Some(("10.77.9.175", "lifea2"))),
    ("life-5-newip", Some(("10.77.9.88", "lifea-up"))),
    ("life-6-started", Some(("10.77.9.88", "lifea-up"))),
    ("life-7-restored", Some(("10.77.9.88", "lifea-up"))),
    ("life-8-destroyed", Some(("10.77.9.88", "lifea-up"))),
    ("life-9-recovered", Some(("10.77.9.88", "lifea-up"))),
    ("life-10-expunged", None),
];

/// The zone of the recorded documents.
pub(crate) fn recorded_world() -> World {
    let [zones, networks, ranges] =
        ["listZones-few.json", "listNetworks-few.json", "listVlanIpRanges-few.json"].map(recorded);
    World::of(zones, networks, ranges)
}

/// Kinds of the alarms.
pub(crate) async fn alarms(api: &Api) -> Vec<String> {
    let status = api.status().await;
    let alarms = status["alarms"].as_array().unwrap();
    alarms.iter().map(|alarm| alarm["alarm"].as_str().unwrap().to_owned()).collect()
}

impl Cloud {
    /// The role beside this server, without a dnsmasq.
    pub(crate) async fn role(&self, directory: &Path, more: &str) -> Running {
        let text = format!("dnsmasq = \"/nonexistent/dnsmasq\"\n{}", self.table(directory, more));
        Running::start(directory, &text, role::Host::system()).await
    }
}
