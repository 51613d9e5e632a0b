//! Plans and findings against a server that does what the real one does.

use std::time::Duration;

use bedrock::Secret;
use cloudstack_api::{Client, ClientConfig, Credentials};
use demo_api::{DemoApi, Keys, World};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::act::{Doing, act, settle};
use super::look::look;
use super::*;

const ZONE: &str = "z1";

fn keys() -> (Keys, Credentials) {
    let keys = Keys { api: "key".to_owned(), secret: "secret".to_owned() };
    let secret = |text: &str| Secret::new(text.to_owned());
    (keys, Credentials { api_key: secret("key"), secret_key: secret("secret") })
}

/// A zone that its system VMs serve.
pub(super) fn fresh() -> World {
    let mut world = World::basic(ZONE);
    let zone = world.zone_id().to_owned();
    world.zones[0]["resourcedetails"] = json!({});
    world.pods = vec![json!({"id": uuid(), "name": "pod1", "zoneid": zone})];
    for (name, kind, host, address) in [
        ("s-1-VM", "secondarystoragevm", "SecondaryStorageVM", "192.0.2.1"),
        ("v-2-VM", "consoleproxy", "ConsoleProxy", "192.0.2.2"),
    ] {
        world.system_vms.push(json!({
            "id": uuid(), "name": name, "systemvmtype": kind, "state": "Running", "agentstate": "Up",
            "zoneid": zone, "publicip": address, "hostid": uuid(), "templateid": uuid(),
        }));
        world.hosts.push(host_row(name, host, &zone));
    }
    world.physical_networks =
        vec![json!({"id": uuid(), "name": "eth", "zoneid": zone, "state": "Enabled"})];
    world
}

fn host_row(name: &str, kind: &str, zone: &str) -> Value {
    json!({"id": uuid(), "name": name, "type": kind, "state": "Up", "zoneid": zone})
}

fn uuid() -> String {
    Uuid::new_v4().to_string()
}

pub(super) fn wish() -> Wish {
    Wish {
        ss: true,
        cp: true,
        dhcp: false,
        address: [10, 0, 0, 9].into(),
        public: [10, 0, 0, 9].into(),
        servers: vec!["10.0.0.5".to_owned()],
        storage: StorageMode::Auto,
        console: ConsoleMode::Row,
        console_port: 8080,
        interface: None,
        api: ApiFiles::default(),
        set_up: None,
    }
}

pub(super) struct Bench {
    pub(super) api: DemoApi,
    client: Client,
    _stop: tokio_util::sync::DropGuard,
}

pub(super) async fn bench(world: World) -> Bench {
    let (keys, credentials) = keys();
    let stop = CancellationToken::new();
    let address = ([127, 0, 0, 1], 0).into();
    let (api, serving) = DemoApi::start(address, world, keys, stop.clone()).await.unwrap();
    drop(tokio::spawn(serving));
    let tls = tls_material::https::client_config(Vec::new(), "").unwrap();
    let now = std::time::SystemTime::now;
    let config = ClientConfig::new(vec![api.url().parse().unwrap()], credentials, tls, now);
    Bench { api, client: Client::new(config), _stop: stop.drop_guard() }
}

impl Bench {
    pub(super) async fn seen(&mut self) -> look::Seen {
        look(&mut self.client, ZONE).await.unwrap()
    }

    async fn act(
        &mut self,
        file: Option<&std::path::Path>,
        plan: impl Fn(&look::Seen) -> Vec<Step>,
    ) -> Vec<Step> {
        let mut doing = Doing {
            client: &mut self.client,
            zone: ZONE,
            database: None,
            file,
            force: false,
            wait: Duration::from_millis(1),
            interval: Duration::from_millis(1),
            webhooks: false,
        };
        let steps = act(&mut doing, &plan, |_| {}).await.unwrap();
        if steps.iter().all(|step| step.done) {
            return steps;
        }
        settle(&mut doing, &plan, |_| {}).await.unwrap()
    }

    /// With statements run.
    pub(super) async fn act_with(
        &mut self,
        database: &database::Database,
        plan: impl Fn(&look::Seen) -> Vec<Step>,
    ) -> Vec<Step> {
        self.try_act_with(database, plan).await.unwrap()
    }

    pub(super) async fn try_act_with(
        &mut self,
        database: &database::Database,
        plan: impl Fn(&look::Seen) -> Vec<Step>,
    ) -> Result<Vec<Step>, act::ActError> {
        let mut doing = Doing {
            client: &mut self.client,
            zone: ZONE,
            database: Some(database),
            file: None,
            force: false,
            wait: Duration::ZERO,
            interval: Duration::from_millis(1),
            webhooks: false,
        };
        act(&mut doing, &plan, |_| {}).await
    }

    /// What the operator's SQL does to a row.
    fn sql(&self, name: &str, change: impl FnOnce(&mut Value)) {
        self.api.with(|world| {
            change(world.system_vms.iter_mut().find(|vm| vm["name"] == name).unwrap());
        });
    }

    fn connect(&self, name: &str, state: &str) {
        self.api.with(|world| {
            world.hosts.iter_mut().find(|host| host["name"] == name).unwrap()["state"] =
                state.into();
        });
    }
}

fn open(steps: &[Step]) -> Vec<String> {
    let open = steps.iter().filter(|step| !step.done);
    open.map(|step| format!("{} {}", step.action.by(), step.what)).collect()
}

fn names(found: &state::State) -> Vec<&str> {
    found.findings.iter().map(|finding| finding.name).collect()
}

#[tokio::test]
async fn a_zone_goes_over_and_back_and_each_run_goes_on_where_the_last_one_ended() {
    let mut bench = bench(fresh()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("quickcloud.toml");
    let found = state::judge(&bench.seen().await);
    assert_eq!((found.storage, found.findings.len()), (state::Served::SystemVm, 0));

    let plan = |seen: &look::Seen| enable::enable(seen, &wish());
    let left = bench.act(Some(&file), plan).await;
    let sql = [
        "sql public address of s-1-VM",
        "sql state of the row v-2-VM",
        "sql public address of v-2-VM",
        "server hosts s-1-VM, v-2-VM",
    ];
    assert_eq!(open(&left), sql);
    let calls: Vec<String> = bench.api.calls().iter().map(|q| q["command"].clone()).collect();
    let at = |name: &str| calls.iter().position(|call| call == name).unwrap();
    assert!(at("updateZone") < at("stopSystemVm"), "the detail comes before the stop: {calls:?}");
    let found = state::judge(&bench.seen().await);
    assert_eq!(names(&found), ["storage.nobody", "console.nobody", "console.row"]);
    // The file is one that can be run with.
    let sources = crate::config::Sources { file: Some(file.clone()), ..Default::default() };
    let loaded = crate::config::load(&sources, crate::registry::ROLES).unwrap();
    assert_eq!(loaded.violations, []);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("proxy_vm = 2") && text.contains("name = \"s-1-VM\""), "{text}");

    bench.sql("s-1-VM", |vm| vm["publicip"] = "10.0.0.9".into());
    bench.sql("v-2-VM", |vm| {
        vm["publicip"] = "10.0.0.9".into();
        vm["state"] = "Running".into();
    });
    for name in ["s-1-VM", "v-2-VM"] {
        bench.connect(name, "Up");
    }
    let before = bench.api.calls().len();
    assert_eq!(open(&bench.act(Some(&file), plan).await), [""; 0]);
    let changes = |call: &demo_api::answer::Query| !call["command"].starts_with("list");
    assert_eq!(bench.api.calls().iter().skip(before).filter(|call| changes(call)).count(), 0);
    let found = state::judge(&bench.seen().await);
    assert_eq!((found.consoles, names(&found)), (state::Served::QuickCloud, vec![]));

    let left = bench.act(None, disable::disable).await;
    assert_eq!(open(&left)[0], "server QuickCloud's hosts");
    for name in ["s-1-VM", "v-2-VM"] {
        bench.connect(name, "Disconnected");
    }
    let left = bench.act(None, disable::disable).await;
    assert_eq!(open(&left)[0], "sql row v-2-VM");
    let Action::Sql { statements, .. } = &left.iter().find(|step| !step.done).unwrap().action
    else {
        panic!("not sql");
    };
    assert!(statements.contains("SET state = 'Stopped'") && statements.contains("id = 2"));
    bench.sql("v-2-VM", |vm| vm["state"] = "Stopped".into());
    assert_eq!(open(&bench.act(None, disable::disable).await), [""; 0]);
    let seen = bench.seen().await;
    assert_eq!(seen.detail(STORAGE_DETAIL), Some("true"));
    assert_eq!(state::judge(&seen).findings, []);
}

#[tokio::test]
async fn a_zone_without_system_vms_is_served_by_a_host_of_its_own_and_a_row_by_sql() {
    let mut world = fresh();
    world.system_vms.clear();
    world.hosts.clear();
    let mut bench = bench(world).await;
    let plan = |seen: &look::Seen| enable::enable(seen, &wish());
    let left = bench.act(None, plan).await;
    let sql = left.iter().find_map(|step| match &step.action {
        Action::Sql { statements, .. } => Some(statements.clone()),
        _ => None,
    });
    let sql = sql.unwrap();
    for part in ["'v-', @id, '-VM'", "'Running'", "vnc_password", "vm_instance_seq", "'10.0.0.9'"] {
        assert!(sql.contains(part), "{part} in {sql}");
    }
    let file = left.iter().find(|step| step.what.starts_with("configuration")).unwrap();
    assert!(file.why.contains("run it, then this again"), "{}", file.why);
    let zone = bench.api.with(|world| {
        let zone = world.zone_id().to_owned();
        world.system_vms.push(json!({
            "id": uuid(), "name": "v-7-VM", "systemvmtype": "consoleproxy", "state": "Running",
            "zoneid": zone, "publicip": "10.0.0.9",
        }));
        zone
    });
    let left = bench.act(None, plan).await;
    assert!(open(&left).contains(&"server hosts quickcloud-ss-z1., v-7-VM".to_owned()));
    let text = left.iter().find_map(|step| match &step.action {
        Action::File { text, .. } => Some(text.clone()),
        _ => None,
    });
    assert!(text.unwrap().contains("proxy_vm = 7"));
    bench.api.with(|world| {
        world.hosts.push(host_row("quickcloud-ss-z1.", "SecondaryStorageVM", &zone));
        world.hosts.push(host_row("v-7-VM", "ConsoleProxy", &zone));
    });
    let seen = bench.seen().await;
    assert_eq!(state::judge(&seen).findings, []);
    // Rows made by hand go for good.
    let back = disable::disable(&seen);
    let removed = back.iter().any(|step| match &step.action {
        Action::Sql { statements, .. } => {
            statements.contains("DELETE FROM console_proxy WHERE id = 7")
        }
        _ => false,
    });
    assert!(removed, "{back:#?}");
}

#[tokio::test]
async fn half_done_states_have_a_name_each() {
    let mut bench = bench(fresh()).await;
    let mut check = async |change: fn(&mut World), expected: &[&str]| {
        let original = bench.api.with(|world| world.clone());
        bench.api.with(change);
        let found = state::judge(&bench.seen().await);
        assert_eq!(names(&found), expected);
        assert!(found.findings.iter().all(|f| !f.remedy.is_empty()));
        bench.api.with(|world| *world = original);
    };
    check(|world| world.hosts[0]["state"] = "Alert".into(), &["storage.waiting"]).await;
    let off = |world: &mut World| {
        world.zones[0]["resourcedetails"] = json!({STORAGE_DETAIL: "false"});
    };
    check(off, &["storage.half-disabled"]).await;
    let extra = |world: &mut World| {
        let zone = world.zone_id().to_owned();
        world.hosts.push(host_row("quickcloud-ss-z1.", "SecondaryStorageVM", &zone));
    };
    check(extra, &["storage.both"]).await;
    let alone = |world: &mut World| {
        let zone = world.zone_id().to_owned();
        world.system_vms.remove(0);
        world.hosts[0] = host_row("quickcloud-ss-z1.", "SecondaryStorageVM", &zone);
        world.hosts.push(host_row("quickcloud-ss-z1.", "SecondaryStorageVM", &zone));
    };
    check(alone, &["storage.detail", "host.twice"]).await;
    let stopped = |world: &mut World| {
        world.zones[0]["resourcedetails"] = json!({CONSOLE_DETAIL: "false"});
        world.system_vms[1]["state"] = "Stopped".into();
        world.system_vms[1].as_object_mut().unwrap().remove("hostid");
        world.hosts[1]["state"] = "Disconnected".into();
    };
    check(stopped, &["console.nobody", "console.row"]).await;
}

#[tokio::test]
async fn a_network_without_a_router_gets_its_providers_and_its_offering() {
    let mut bench = bench(fresh()).await;
    let wish =
        Wish { ss: false, cp: false, dhcp: true, interface: Some("br0".to_owned()), ..wish() };
    let left = bench.act(None, |seen| enable::enable(seen, &wish)).await;
    assert_eq!(open(&left), ["file configuration of this host"]);
    bench.api.with(|world| {
        assert_eq!(world.offerings[0]["state"], "Enabled");
        let enabled = world.providers.iter().filter(|provider| provider["state"] == "Enabled");
        assert_eq!(enabled.count(), 2);
    });
    let offering = bench.api.calls().into_iter().find(|q| q["command"] == "createNetworkOffering");
    let offering = offering.unwrap();
    assert_eq!(offering["supportedservices"], "Dhcp,Dns,UserData,SecurityGroup");
}

/// A zone with nothing in it but its name.
fn empty() -> World {
    let mut world = World::basic(ZONE);
    world.networks.clear();
    world.ranges.clear();
    world
}

fn guest_wish() -> network::NetworkWish {
    network::NetworkWish {
        make: true,
        domain: Some("cs.example".to_owned()),
        dns: Some([10, 1, 1, 2].into()),
        pod: Some("pod1=10.0.0.1/24,10.0.0.100-10.0.0.120".parse().unwrap()),
        ranges: vec![
            "pod1=10.1.1.1/24,10.1.1.20-10.1.1.250".parse().unwrap(),
            "10.1.2.1/24,10.1.2.20-10.1.2.250".parse().unwrap(),
        ],
        host_cache: true,
        ..network::NetworkWish::default()
    }
}

fn guest_steps(seen: &look::Seen, wish: &network::NetworkWish) -> Vec<Step> {
    let mut steps = Vec::new();
    network::network(seen, wish, &mut steps);
    steps
}

/// The calls that change something.
fn changes(bench: &Bench) -> Vec<String> {
    let commands = bench.api.calls().into_iter().map(|query| query["command"].clone());
    commands.filter(|c| !c.starts_with("list") && !c.starts_with("query")).collect()
}

#[tokio::test]
async fn a_zone_gets_its_guest_network_call_by_call_and_a_second_run_makes_none() {
    let mut bench = bench(empty()).await;
    let wish = guest_wish();
    let plan = guest_steps(&bench.seen().await, &wish);
    assert!(changes(&bench).is_empty() && plan.iter().all(|step| !step.done), "{plan:#?}");
    let left = bench.act(None, |seen| guest_steps(seen, &wish)).await;
    assert_eq!(open(&left), [""; 0], "{left:#?}");
    let expected = [
        "createPhysicalNetwork",
        "addTrafficType",
        "addTrafficType",
        "updatePhysicalNetwork",
        "addNetworkServiceProvider",
        "updateNetworkServiceProvider",
        "addNetworkServiceProvider",
        "updateNetworkServiceProvider",
        "createNetworkOffering",
        "updateNetworkOffering",
        "createPod",
        "createNetwork",
        "createVlanIpRange",
        "createVlanIpRange",
        "updateConfiguration",
    ];
    assert_eq!(changes(&bench), expected);
    let sent = |command: &str| bench.api.calls().into_iter().find(|q| q["command"] == command);
    let made = sent("createNetwork").unwrap();
    assert_eq!((made["dns1"].as_str(), made["networkdomain"].as_str()), ("10.1.1.2", "cs.example"));
    assert!(!made.contains_key("startip"), "{made:?}");
    let range = sent("createVlanIpRange").unwrap();
    assert_eq!((range["vlan"].as_str(), range["netmask"].as_str()), ("untagged", "255.255.255.0"));
    bench.act(None, |seen| guest_steps(seen, &wish)).await;
    assert_eq!(changes(&bench).len(), expected.len());
}

#[tokio::test]
async fn an_advanced_zone_gets_its_first_range_with_the_network() {
    let mut world = empty();
    world.zones[0]["networktype"] = "Advanced".into();
    world.zones[0]["securitygroupsenabled"] = false.into();
    let mut bench = bench(world).await;
    let wish = network::NetworkWish { pod: None, ..guest_wish() };
    let left = bench.act(None, |seen| guest_steps(seen, &wish)).await;
    assert_eq!(open(&left), [""; 0], "{left:#?}");
    let sent = |command: &str| bench.api.calls().into_iter().find(|q| q["command"] == command);
    assert_eq!(sent("createNetworkOffering").unwrap()["supportedservices"], "Dhcp,Dns,UserData");
    let made = sent("createNetwork").unwrap();
    assert_eq!((made["startip"].as_str(), made["vlan"].as_str()), ("10.1.1.20", "untagged"));
    let ranges = bench.api.calls().into_iter().filter(|q| q["command"] == "createVlanIpRange");
    assert_eq!(ranges.map(|q| q["startip"].clone()).collect::<Vec<_>>(), ["10.1.2.20"]);
}

#[tokio::test]
async fn what_is_there_and_is_something_else_is_told_and_left_alone() {
    let wish = network::NetworkWish { pod: None, host_cache: false, ..guest_wish() };
    let check = async |world: World, expected: &[&str]| {
        let mut bench = bench(world).await;
        let left = bench.act(None, |seen| guest_steps(seen, &wish)).await;
        let told: Vec<&str> =
            left.iter().filter(|step| !step.done).map(|step| step.why.as_str()).collect();
        for text in expected {
            assert!(told.iter().any(|why| why.contains(text)), "{text}: {told:#?}");
        }
        assert!(!changes(&bench).contains(&"createNetwork".to_owned()));
    };
    let mut routed = World::basic(ZONE);
    routed.networks[0]["service"] =
        json!([{"name": "Dhcp", "provider": [{"name": "VirtualRouter"}]}]);
    check(routed, &["a router answers for its DHCP"]).await;
    let mut overlapping = World::basic(ZONE);
    overlapping.ranges[0]["startip"] = "10.1.1.200".into();
    overlapping.ranges[0]["endip"] = "10.1.1.251".into();
    check(overlapping, &["overlaps it", "name its pod as --range POD=10.1.2.1/24"]).await;
    let mut foreign = empty();
    let service = json!([{"name": "Dhcp", "provider": [{"name": "VirtualRouter"}]}]);
    foreign.offerings = vec![json!({
        "id": uuid(), "name": "QuickCloud", "state": "Enabled", "service": service,
    })];
    check(foreign, &["services of an offering cannot be changed"]).await;
}

#[tokio::test]
async fn a_webhook_is_made_once_and_follows_what_is_wanted() {
    let mut bench = bench(empty()).await;
    let mut wish = webhook::WebhookWish {
        url: "http://10.1.1.2:8252/v1/webhooks/cloudstack".parse().unwrap(),
        secret: Secret::new("whsecret".to_owned()),
    };
    for (url, calls) in [
        ("http://10.1.1.2:8252/v1/webhooks/cloudstack", 1),
        ("http://10.1.1.2:8252/v1/webhooks/cloudstack", 1),
        ("https://dhcp.example/v1/webhooks/cloudstack", 2),
    ] {
        wish.url = url.parse().unwrap();
        let mut doing = Doing {
            client: &mut bench.client,
            zone: ZONE,
            file: None,
            force: false,
            wait: Duration::ZERO,
            interval: Duration::from_millis(1),
            webhooks: true,
            database: None,
        };
        let left = act(&mut doing, |seen| vec![webhook::step(seen, &wish)], |_| {}).await.unwrap();
        assert_eq!(open(&left), [""; 0], "{left:#?}");
        assert!(!format!("{left:?}").contains("whsecret"));
        let told = act::calls(&left[0].action, Uuid::nil()).join("\n");
        assert!(told.contains("secretkey=…") && !told.contains("whsecret"), "{told}");
        assert_eq!(changes(&bench).len(), calls);
    }
    let made = bench.api.calls().into_iter().find(|q| q["command"] == "createWebhook").unwrap();
    assert_eq!((made["scope"].as_str(), made["secretkey"].as_str()), ("Global", "whsecret"));
    bench.api.with(|world| {
        assert_eq!(world.webhooks[0]["payloadurl"], "https://dhcp.example/v1/webhooks/cloudstack");
    });
}

#[tokio::test]
async fn unknown_zones_and_refusals_are_told_in_words() {
    let mut bench = bench(fresh()).await;
    let error = look(&mut bench.client, "z9").await.unwrap_err().to_string();
    assert_eq!(error, "the server has no zone \"z9\"; it has z1");
    bench.api.fault("stopSystemVm", demo_api::Fault::Refuse(530));
    let mut doing = Doing {
        client: &mut bench.client,
        zone: ZONE,
        database: None,
        file: None,
        force: false,
        wait: Duration::ZERO,
        interval: Duration::from_millis(1),
        webhooks: false,
    };
    let error = act(&mut doing, |seen| enable::enable(seen, &wish()), |_| {}).await.unwrap_err();
    let text = bedrock::chain(&error);
    assert!(text.starts_with("system VM s-1-VM: failed: stopSystemVm was refused"), "{text}");
}
