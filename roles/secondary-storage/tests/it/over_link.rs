//! The whole role against an embedded management server, over real TLS and packets.

use std::sync::Arc;
use std::time::Duration;

use agent_protocol::storage::{
    ImageFormat, SecStorageSetupCommand, UploadStatusCommand, UploadStatusState,
};
use config_reader::Violations;
use management_server::{
    HostKind, HostState, ImageKind, ImageState, ImageStore, ManagementServer, NewImage,
    ServerConfig, SystemVm,
};
use role::{ConfigInput, Health, RoleContext, RoleSpec};
use secondary_storage::DESCRIPTOR;
use tokio::task::JoinHandle;

use crate::bench::{SOON, STORE, section, store_to};
use crate::images::{ImageServer, raw, vector};
use crate::recorded;
use crate::upload_client::{Connection, KEY, Signed, form, order, post};
use crate::uploads::ID;

pub const GUID: &str = "SecondaryStorage.1-NfsSecondaryStorageResource";

/// The server says which private sources are allowed, unless a test does.
fn with_defaults(more: &str) -> String {
    let is_said = more.contains("allowed_sources");
    format!("{}{more}", if is_said { "" } else { "allowed_sources = []\n" })
}

pub struct Zone {
    pub server: ManagementServer,
    spec: Arc<dyn RoleSpec>,
    images: ImageServer,
    pub temp: tempfile::TempDir,
}

pub struct Running {
    pub cx: RoleContext,
    task: JoinHandle<Result<(), role::RoleError>>,
}

impl Zone {
    /// `more` are lines of the role's configuration.
    pub async fn new(more: &str) -> Self {
        Self::changed(more, |_config| {}).await
    }

    /// With a server that `change` makes another one.
    pub async fn changed(more: &str, change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = ServerConfig::new("127.0.0.1:0".parse().unwrap());
        config.stores = vec![ImageStore { url: STORE.to_owned(), writable: true }];
        config.system_vms = vec![SystemVm {
            kind: HostKind::SecondaryStorage,
            id: 900,
            name: "s-900-VM".to_owned(),
            public_address: "127.0.0.1".to_owned(),
        }];
        // A lost answer fails a test after half a minute, not after an hour.
        config.answer_wait = SOON / 2;
        config.images.poll_interval = Duration::from_millis(50);
        config.images.stats_interval = Some(Duration::from_millis(100));
        config.images.allowed_internal_sites = vec!["127.0.0.1/32".to_owned()];
        change(&mut config);
        let server = ManagementServer::start(config).await.unwrap();
        let temp = tempfile::tempdir().unwrap();
        let ca_file = temp.path().join("ca.pem");
        std::fs::write(&ca_file, server.ca_pem()).unwrap();
        let section = section(temp.path(), &with_defaults(more));
        let management = format!(
            "servers = [\"{}\"]\nzone = \"z1\"\npod = \"p1\"\nca_file = \"{}\"",
            server.address(),
            ca_file.display()
        );
        let management: toml::Table = management.parse().unwrap();
        let mut violations = Violations::new();
        let state = temp.path().join("state");
        let input =
            ConfigInput { section: &section, management: &management, state_directory: &state };
        let spec = (DESCRIPTOR.configure)(input, &mut violations);
        assert!(violations.is_empty(), "{:?}", violations.list());
        Self { server, spec: spec.unwrap(), images: ImageServer::start().await, temp }
    }

    /// The role with other lines of configuration.
    pub fn spec(&self, more: &str) -> Arc<dyn RoleSpec> {
        let section = section(self.temp.path(), more);
        let management: toml::Table = "servers = [\"127.0.0.1\"]".parse().unwrap();
        let mut violations = Violations::new();
        let state = self.temp.path().join("state");
        let input =
            ConfigInput { section: &section, management: &management, state_directory: &state };
        (DESCRIPTOR.configure)(input, &mut violations).unwrap()
    }

    pub async fn start(&self) -> Running {
        let cx = testkit::context(DESCRIPTOR.kind);
        let findings = self.spec.preflight(&cx.host).await;
        assert!(findings.is_empty(), "{findings:?}");
        let task = tokio::spawn(self.spec.build().run(cx.clone()));
        self.server.wait_for_host(GUID, HostState::Up, SOON).await.unwrap();
        Running { cx, task }
    }

    pub fn register(&self, path: &str, format: ImageFormat) -> i64 {
        let image = NewImage {
            kind: if format == ImageFormat::Iso { ImageKind::Iso } else { ImageKind::Template },
            name: "tiny".to_owned(),
            url: self.images.url(path),
            format,
            hvm: true,
            checksum: None,
        };
        self.server.register_template(image).unwrap()
    }
}

impl Running {
    pub async fn stop(self) {
        self.cx.shutdown.cancel();
        let outcome = tokio::time::timeout(SOON, self.task).await.unwrap().unwrap();
        assert!(outcome.is_ok(), "{outcome:?}");
    }

    async fn until_degraded(&self, because: &str) -> String {
        testkit::eventually("degraded", SOON, || match self.cx.health.health() {
            Health::Degraded { reason } if reason.contains(because) => Some(reason),
            _ => None,
        })
        .await
    }

    pub async fn until_ready(&self) {
        testkit::eventually("ready", SOON, || {
            (self.cx.health.health() == Health::Ready).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_template_is_registered_fetched_over_its_link_and_deleted() {
    let zone = Zone::new("").await;
    let role = zone.start().await;
    role.until_ready().await;
    let id = zone.register("golden/tiny.qcow2", ImageFormat::Qcow2);
    let ready = |image: &management_server::Image| image.state == ImageState::Downloaded;
    let image = zone.server.wait_for_image(id, SOON, ready).await.unwrap();
    assert_eq!((image.size, image.physical_size), (1_048_576, 524_288));
    let digest = zone.server.compute_checksum(id, "SHA-512").await.unwrap();
    assert_eq!(Some(digest), image.checksum);
    let usage = |server: &ManagementServer| server.store_usage(STORE);
    let usage = zone.server.wait_for("figures", SOON, usage).await.unwrap();
    assert!(usage.capacity >= usage.used && usage.used > 0);
    let link = zone.server.create_link(id).await.unwrap();
    let addr = role.cx.http.addresses()[0];
    let url = format!("http://{addr}/userdata/{}/{}", link.directory, link.file);
    let bytes = fetch(&url).await;
    assert!(bytes == vector("tiny.qcow2"));
    let details = serde_json::Value::Object(role.cx.health.details());
    assert_eq!(details["stores"][0]["state"], "ready", "{details}");
    assert_eq!(details["download_links"]["count"], 1, "{details}");
    let mut metrics = String::new();
    prometheus_client::encoding::text::encode(&mut metrics, &role.cx.health.metrics().unwrap())
        .unwrap();
    assert!(metrics.contains("quickcloud_ss_downloads_total{outcome=\"done\"} 1"), "{metrics}");
    assert!(metrics.contains("quickcloud_ss_link_served_bytes_total 524288"), "{metrics}");
    zone.server.delete_link(id).await.unwrap();
    zone.server.delete_image(id).await.unwrap();
    assert!(!zone.temp.path().join("sec/template/tmpl/2").join(id.to_string()).exists());
    role.stop().await;
}

pub async fn fetch(url: &str) -> Vec<u8> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let client =
        reqwest::Client::builder().tls_backend_preconfigured(tls).timeout(SOON).build().unwrap();
    let response = client.get(url).send().await.unwrap().error_for_status().unwrap();
    response.bytes().await.unwrap().to_vec()
}

#[tokio::test]
async fn the_recorded_conversation_over_the_real_link() {
    let zone = Zone::new("answer_wait = \"10s\"").await;
    let role = zone.start().await;
    let server = &zone.server;
    // The embedded server has done the set-up itself; from the first line on it is repeatable.
    let played = recorded::play(&zone.images.url("golden"), 0, |command, in_sequence| async move {
        // What the recorded server allows does not hold here: its images lie on this machine.
        let command = if command.simple_name() == "SecStorageVMSetupCommand" {
            let text = command.body.get().replace("10.77.0.0/24", "127.0.0.1/32");
            agent_protocol::Envelope {
                class: command.class,
                body: serde_json::value::RawValue::from_string(text).unwrap(),
            }
        } else {
            command
        };
        server.send(GUID, command, in_sequence, SOON).await.unwrap()
    })
    .await;
    assert_eq!(played, 33);
    role.stop().await;
}

#[tokio::test]
async fn a_reload_puts_limits_and_allow_lists_in_force_and_keeps_what_it_cannot_read() {
    let zone = Zone::new("").await;
    let role = zone.start().await;
    role.until_ready().await;
    let spec = |more: &str| zone.spec(more);
    let small = "size_limit = \"1MiB\"\ndecompressed_limit = \"1KiB\"\nca_file = \"/nowhere.pem\"";
    let report = role.cx.reload.begin(spec(small)).unwrap().await;
    assert!(report.mentions("roles.secondary_storage.ca_file"), "{report:?}");
    assert!(report.failed[0].problem.contains("/nowhere.pem"), "{report:?}");
    let id = zone.register("golden/tiny.qcow2", ImageFormat::Qcow2);
    let failed = |image: &management_server::Image| image.state == ImageState::Failed;
    let image = zone.server.wait_for_image(id, SOON, failed).await.unwrap();
    assert!(image.message.contains("the limit is 1024 bytes"), "{image:?}");
    let report = role.cx.reload.begin(spec("")).unwrap().await;
    assert!(report.failed.is_empty(), "{report:?}");
    let id = zone.register("golden/tiny.qcow2", ImageFormat::Qcow2);
    let ready = |image: &management_server::Image| image.state == ImageState::Downloaded;
    zone.server.wait_for_image(id, SOON, ready).await.unwrap();
    role.stop().await;
}

#[tokio::test]
async fn a_failed_store_leaves_the_host_up_and_says_so() {
    let zone = Zone::new("stores = []").await;
    std::fs::write(zone.temp.path().join("mnt"), "in the way").unwrap();
    let role = zone.start().await;
    let details = serde_json::Value::Object(role.cx.health.details());
    assert_eq!(details["stores"][0]["state"], "failed", "{details}");
    assert!(details["stores"][0]["reason"].as_str().unwrap().contains("mount"), "{details}");
    role.until_degraded("mnt").await;
    std::fs::remove_file(zone.temp.path().join("mnt")).unwrap();
    let name = "b523f0c4-0847-33cd-bb44-f46c4da95327";
    std::fs::create_dir_all(zone.temp.path().join("mnt").join(name).join("template")).unwrap();
    // The next command for the store opens it.
    role.until_ready().await;
    role.stop().await;
}

#[tokio::test]
async fn a_port_that_is_taken_makes_the_role_degraded_not_dead() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let zone = Zone::new(&format!("listen = [\"{addr}\"]")).await;
    let role = zone.start().await;
    let reason = role.until_degraded("links").await;
    assert!(reason.contains(&format!("cannot listen on {addr}")), "{reason}");
    let id = zone.register("golden/tiny.iso", ImageFormat::Iso);
    let ready = |image: &management_server::Image| image.state == ImageState::Downloaded;
    zone.server.wait_for_image(id, SOON, ready).await.unwrap();
    role.stop().await;
}

/// Row 19 of the weaknesses: the server asks again after a reconnect, and gets the same download.
#[tokio::test]
async fn a_reconnect_in_the_middle_of_a_download_gives_one_image() {
    let zone = Zone::new("").await;
    let role = zone.start().await;
    let id = zone.register("gated/tiny.raw", ImageFormat::Raw);
    let half = |image: &management_server::Image| image.percent == 50;
    zone.server.wait_for_image(id, SOON, half).await.unwrap();
    zone.server.strike(GUID, management_server::Action::Close).await.unwrap();
    let away = |server: &ManagementServer| {
        server.host(GUID).filter(|host| host.state != HostState::Up).map(|_host| ())
    };
    zone.server.wait_for("the host to be away", SOON, away).await.unwrap();
    zone.server.wait_for_host(GUID, HostState::Up, SOON).await.unwrap();
    zone.images.open_gate();
    let ready = |image: &management_server::Image| image.state == ImageState::Downloaded;
    zone.server.wait_for_image(id, SOON, ready).await.unwrap();
    assert_eq!(zone.images.requests("gated/tiny.raw"), 1, "the server asked again, we attached");
    let directory = zone.temp.path().join("sec/template/tmpl/2").join(id.to_string());
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 2);
    role.stop().await;
}

/// Row 19 of the weaknesses: a reconnect fails every upload of the original.
#[tokio::test]
async fn a_reconnect_in_the_middle_of_an_upload_is_not_noticed() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let zone = Zone::new(&format!("listen = [\"{free}\"]\n")).await;
    let role = zone.start().await;
    role.until_ready().await;
    let setup = SecStorageSetupCommand {
        store: Some(store_to()),
        sec_url: Some(STORE.into()),
        post_upload_key: Some(KEY.into()),
        ..SecStorageSetupCommand::default()
    };
    assert!(zone.server.succeeds(GUID, &setup, SOON).await.unwrap());
    let signed = Signed::of(&order(ID, 270));
    let body = form("a.qcow2", &vector("tiny.qcow2"));
    let mut connection = Connection::open(free).await;
    connection.send(post(ID, &signed.headers(), body.len()).as_bytes()).await;
    let (first, rest) = body.split_at(body.len() / 2);
    connection.send(first).await;
    zone.server.strike(GUID, management_server::Action::Close).await.unwrap();
    let away = |server: &ManagementServer| {
        server.host(GUID).filter(|host| host.state != HostState::Up).map(|_host| ())
    };
    zone.server.wait_for("the host to be away", SOON, away).await.unwrap();
    zone.server.wait_for_host(GUID, HostState::Up, SOON).await.unwrap();
    connection.send(rest).await;
    assert_eq!(connection.reply().await.status, 200);
    let status =
        UploadStatusCommand { entity_uuid: Some(ID.to_owned()), ..UploadStatusCommand::default() };
    let answer = zone.server.request(GUID, &status, SOON).await.unwrap();
    assert_eq!(answer.status, Some(UploadStatusState::Completed), "{answer:?}");
    role.stop().await;
}

#[tokio::test]
async fn a_role_that_stops_in_a_download_goes_on_at_its_next_start() {
    let zone = Zone::new("").await;
    let bytes = raw(12 << 20);
    zone.images.put("big.raw", bytes.clone());
    let role = zone.start().await;
    let id = zone.register("paused/big.raw", ImageFormat::Raw);
    let half = |image: &management_server::Image| image.percent == 50;
    zone.server.wait_for_image(id, SOON, half).await.unwrap();
    let tasks = role.cx.tasks.clone();
    role.stop().await;
    tasks.close();
    tokio::time::timeout(SOON, tasks.wait()).await.unwrap();
    let directory = zone.temp.path().join("sec/template/tmpl/2").join(id.to_string());
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1, "only what there is of it");
    let role = zone.start().await;
    let ready = |image: &management_server::Image| image.state == ImageState::Downloaded;
    zone.server.wait_for_image(id, SOON, ready).await.unwrap();
    let heads = zone.images.heads("paused/big.raw");
    assert_eq!(heads.len(), 2, "the server's new command is the same download");
    assert!(crate::scripted::first(&heads[1]).unwrap() >= 4 << 20, "{}", heads[1]);
    assert_eq!(zone.server.compute_checksum(id, "SHA-256").await.unwrap(), sha256(&bytes));
    role.stop().await;
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    let hex: String =
        sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{{SHA-256}}{hex}")
}

/// Everything of one process, both ends of the link, in one log. Row 36 of the weaknesses: the original logs passwords in clear.
#[tokio::test]
async fn secrets_of_a_download_are_in_nobodys_log() {
    let log = testkit::CapturedLog::of_level(tracing::Level::DEBUG);
    let zone = Zone::new("").await;
    let role = zone.start().await;
    let ready = |image: &management_server::Image| {
        matches!(image.state, ImageState::Downloaded | ImageState::Failed)
    };
    for path in ["golden/tiny.qcow2", "none/tiny.qcow2"] {
        let url = zone.images.url(path).replace("http://", "http://user:geheim1@");
        let image = NewImage {
            kind: ImageKind::Template,
            name: "tiny".to_owned(),
            url: format!("{url}?X-Amz-Signature=geheim2"),
            format: ImageFormat::Qcow2,
            hvm: true,
            checksum: None,
        };
        let id = zone.server.register_template(image).unwrap();
        zone.server.wait_for_image(id, SOON, ready).await.unwrap();
    }
    role.stop().await;
    let text = log.text();
    assert!(text.contains("download accepted") && text.contains("download failed"), "{text}");
    assert!(!text.contains("geheim"), "{text}");
}
