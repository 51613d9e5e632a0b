//! The statements on a real MariaDB with the tables that they name, beside a server of the API that
//! shows what stands there: as it is with a management server.

use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use demo_api::DemoApi;
use role::host::CommandOutput;
use role::{BoxFuture, Host};
use serde_json::json;

use super::*;
use crate::zone::tests::{Bench, bench, fresh, wish};
use crate::zone::{Action, Step, StorageMode, act, disable, enable};

/// As the server's schema has them, with the constraints that an insert meets.
const TABLES: &str = "\
CREATE DATABASE cloud; USE cloud;
CREATE TABLE data_center (id BIGINT UNSIGNED PRIMARY KEY, uuid VARCHAR(40), removed DATETIME);
CREATE TABLE host_pod_ref (id BIGINT UNSIGNED PRIMARY KEY, data_center_id BIGINT UNSIGNED NOT NULL,
  removed DATETIME);
CREATE TABLE service_offering (id BIGINT UNSIGNED PRIMARY KEY, vm_type VARCHAR(32));
CREATE TABLE guest_os (id BIGINT UNSIGNED PRIMARY KEY, removed DATETIME);
CREATE TABLE sequence (name VARCHAR(64) PRIMARY KEY, value BIGINT UNSIGNED NOT NULL);
CREATE TABLE vm_instance (id BIGINT UNSIGNED PRIMARY KEY, name VARCHAR(255) NOT NULL,
  instance_name VARCHAR(255) NOT NULL, uuid VARCHAR(40) UNIQUE, state VARCHAR(32) NOT NULL,
  guest_os_id BIGINT UNSIGNED NOT NULL, data_center_id BIGINT UNSIGNED NOT NULL,
  pod_id BIGINT UNSIGNED, vnc_password VARCHAR(255) NOT NULL, created DATETIME NOT NULL,
  type VARCHAR(32) NOT NULL, vm_type VARCHAR(32) NOT NULL, account_id BIGINT UNSIGNED NOT NULL,
  domain_id BIGINT UNSIGNED NOT NULL, user_id BIGINT UNSIGNED NOT NULL DEFAULT 1,
  service_offering_id BIGINT UNSIGNED NOT NULL, hypervisor_type CHAR(32),
  vm_template_id BIGINT UNSIGNED, host_id BIGINT UNSIGNED, power_state VARCHAR(74),
  display_vm TINYINT(1) NOT NULL DEFAULT 1, update_time DATETIME, removed DATETIME);
CREATE TABLE console_proxy (id BIGINT UNSIGNED PRIMARY KEY, public_ip_address CHAR(40) UNIQUE,
  FOREIGN KEY (id) REFERENCES vm_instance(id));
CREATE TABLE secondary_storage_vm (id BIGINT UNSIGNED PRIMARY KEY, public_ip_address CHAR(40) UNIQUE,
  role VARCHAR(64) NOT NULL, FOREIGN KEY (id) REFERENCES vm_instance(id));
CREATE TABLE configuration (category VARCHAR(255) NOT NULL, instance VARCHAR(255) NOT NULL,
  component VARCHAR(255) NOT NULL, name VARCHAR(255) PRIMARY KEY, value VARCHAR(8191));
INSERT INTO host_pod_ref VALUES (1, 1, NULL);
INSERT INTO service_offering VALUES (7, 'consoleproxy'), (8, 'secondarystoragevm');
INSERT INTO guest_os VALUES (15, NULL);
INSERT INTO sequence VALUES ('vm_instance_seq', 71);
";
/// Rows of system VMs that were stopped.
const STOPPED: &str = "\
INSERT INTO vm_instance (id, name, instance_name, uuid, state, guest_os_id, data_center_id,
  vnc_password, created, type, vm_type, account_id, domain_id, service_offering_id, vm_template_id)
  VALUES (1, 's-1-VM', 's-1-VM', UUID(), 'Stopped', 15, 1, '', NOW(), 'SecondaryStorageVm',
    'SecondaryStorageVm', 1, 1, 8, 3),
   (2, 'v-2-VM', 'v-2-VM', UUID(), 'Stopped', 15, 1, '', NOW(), 'ConsoleProxy', 'ConsoleProxy',
    1, 1, 7, 3);
INSERT INTO secondary_storage_vm VALUES (1, '192.0.2.1', 'templateProcessor');
INSERT INTO console_proxy VALUES (2, '192.0.2.2');
";
/// A value that a server of 4.18 or later sealed with [`KEY`].
const SEALED: &str = "AAECAwQFBgcICQoLf9hi01FbBA3eLBg74wfRHnsQuOy4LXTXAnD6jt75";
const KEY: &str = "k3Zq0mJb2mJ0f5o1f0V7yQ";

/// A server in a directory of its own, gone with this value.
struct Server {
    child: Child,
    folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Server {
    #[allow(clippy::disallowed_methods, reason = "the server of a test")]
    fn start(zone: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let file = |name: &str| folder.path().join(name).display().to_string();
        let mut command = Command::new("/usr/sbin/mariadbd");
        command.args(["--no-defaults", "--skip-grant-tables", "--skip-networking"]);
        // No buffers and logs of the size that a real one has.
        command.args(["--innodb-buffer-pool-size=8M", "--innodb-log-file-size=4M"]);
        command.arg(format!("--datadir={}", file("data")));
        command.arg(format!("--socket={}", file("socket")));
        command.arg(format!("--pid-file={}", file("pid")));
        if nix::unistd::geteuid().is_root() {
            command.arg("--user=root");
        }
        let child = command.stdout(Stdio::null()).stderr(log).spawn();
        let server = Self { child: child.expect("apt-get install mariadb-server"), folder };
        let started = std::time::Instant::now();
        while server.client("", "SELECT 1").is_err() {
            let log = std::fs::read_to_string(server.folder.path().join("log"));
            assert!(started.elapsed().as_secs() < 60, "{log:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        server.client("", TABLES).unwrap();
        let zone = format!("INSERT INTO data_center VALUES (1, '{zone}', NULL)");
        server.client("cloud", &zone).unwrap();
        server
    }

    #[allow(clippy::disallowed_methods, reason = "the client of a test")]
    fn client(&self, schema: &str, sql: &str) -> Result<String, String> {
        let socket = format!("--socket={}", self.folder.path().join("socket").display());
        let client = Command::new("mariadb")
            .args(["--no-defaults", &socket, "-BN", "-e", sql, schema])
            .output()
            .unwrap();
        match client.status.success() {
            true => Ok(String::from_utf8(client.stdout).unwrap()),
            false => Err(String::from_utf8(client.stderr).unwrap()),
        }
    }

    fn access(&self) -> Access {
        let socket = self.folder.path().join("socket");
        let url = format!("mysql://cloud@localhost/cloud?socket={}", socket.display());
        Access::read(&url, None, None).unwrap()
    }
}

/// Runs clients, and lets the API show what then stands in the database.
struct Shown {
    server: Server,
    api: DemoApi,
    arguments: Mutex<Vec<String>>,
}

impl Shown {
    fn show(&self) {
        let rows = "SELECT v.name, v.state, v.type, IFNULL(p.public_ip_address, s.public_ip_address), \
                    v.vm_template_id IS NULL FROM vm_instance v \
                    LEFT JOIN console_proxy p ON p.id = v.id \
                    LEFT JOIN secondary_storage_vm s ON s.id = v.id WHERE v.removed IS NULL";
        let rows = self.server.client("cloud", rows).unwrap();
        self.api.with(|world| {
            let zone = world.zone_id().to_owned();
            world.system_vms.retain(|vm| rows.contains(vm["name"].as_str().unwrap()));
            for row in rows.lines() {
                let [name, state, kind, address, made] =
                    row.split('\t').collect::<Vec<_>>().try_into().unwrap();
                let known = world.system_vms.iter().position(|vm| vm["name"] == name);
                let at = known.unwrap_or_else(|| {
                    let kind = kind.replace("Vm", "vm").to_lowercase();
                    world
                        .system_vms
                        .push(json!({"id": uuid::Uuid::new_v4().to_string(), "name": name,
                        "systemvmtype": kind, "zoneid": zone}));
                    world.system_vms.len() - 1
                });
                let vm = &mut world.system_vms[at];
                vm["state"] = state.into();
                vm["publicip"] = address.into();
                assert_eq!(vm.get("templateid").is_none(), made == "1", "{name}");
            }
        });
    }
}

#[derive(Clone)]
struct Runner(Arc<Shown>);

impl CommandRunner for Runner {
    fn run(&self, spec: CommandSpec) -> BoxFuture<'static, Result<CommandOutput, CommandError>> {
        let shown = Arc::clone(&self.0);
        let line: Vec<_> = spec.arguments.iter().map(|word| word.to_string_lossy()).collect();
        shown.arguments.lock().unwrap().push(line.join(" "));
        Box::pin(async move {
            let output = Host::system().runner.run(spec).await;
            shown.show();
            output
        })
    }

    fn start(&self, spec: CommandSpec) -> Result<tokio::process::Child, CommandError> {
        Host::system().runner.start(spec)
    }
}

fn ours(steps: &[Step]) -> Vec<&str> {
    let open = steps.iter().filter(|step| !step.done);
    open.filter(|step| matches!(step.action, Action::Sql { .. })).map(|step| &*step.what).collect()
}

#[test]
fn urls_and_property_files_name_a_database_and_never_a_password_on_the_command_line() {
    let url = |text: &str| Access::read(text, None, None);
    let access = url("mysql://cloud@[2001:db8::5]:3307/other").unwrap();
    assert_eq!((&*access.host, access.port, &*access.schema), ("2001:db8::5", 3307, "other"));
    let options = url("mariadb://root@localhost?socket=/run/x").unwrap().options();
    assert!(options.reveal().contains("socket=\"/run/x\"\n") && options.reveal().contains("cloud"));
    for (text, part) in [
        ("mysql://cloud:geheim@h/cloud", "--db-password-file"),
        ("mysql://h/cloud", "no user"),
        ("postgres://u@h", "no database of MySQL"),
        ("mysql://u@h:x/cloud", "port"),
        ("mysql://u\"@h/cloud", "user is odd"),
        ("mysql://u@h/cloud?ssl=no", "not known"),
        ("/does/not/exist", "No such file"),
    ] {
        let problem = url(text).unwrap_err();
        assert!(problem.contains(part) && !problem.contains("geheim"), "{problem}");
    }
    let folder = tempfile::tempdir().unwrap();
    let (file, key) = (folder.path().join("db.properties"), folder.path().join("key"));
    // Sealed by a server before 4.18: MD5 with DES.
    let text = "db.cloud.host=10.0.0.5\ndb.cloud.port=3306\ndb.cloud.username=cloud\n\
                db.cloud.password=ENC(AAECAwQFBgfhlwetvmymIg==)\ndb.cloud.encryption.type=file\n\
                db.cloud.encrypt.secret=ENC(AAECAwQFBgcVMZp2+wV5IPu8cmBC7+Sv)\n";
    std::fs::write(&file, text).unwrap();
    write_closed(&key, "management-key\n").unwrap();
    let path = file.to_str().unwrap();
    let access = Access::read(path, None, Some(&key)).unwrap();
    assert_eq!(access.password.reveal(), "p\"w\\#1");
    assert_eq!(access.values, Values::Sealed("database-key".into()));
    assert!(access.options().reveal().contains("password=\"p\\\"w\\\\#1\"\n"));
    let problem = Access::read(path, None, None).unwrap_err();
    assert!(problem.contains("db.cloud.password is encrypted"), "{problem}");
    std::fs::remove_file(&key).unwrap();
    write_closed(&key, "other").unwrap();
    let problem = Access::read(path, None, Some(&key)).unwrap_err();
    assert!(problem.contains("cannot be opened"), "{problem}");
}

/// The API of a zone whose system VMs are stopped, and its database.
async fn both() -> (Bench, Runner) {
    let mut world = fresh();
    world.hosts.clear();
    let bench = bench(world).await;
    let zone = bench.api.with(|world| world.zone_id().to_owned());
    let server = Server::start(&zone);
    server.client("cloud", STOPPED).unwrap();
    let shown = Shown { server, api: bench.api.clone(), arguments: Mutex::default() };
    (bench, Runner(Arc::new(shown)))
}

#[tokio::test]
async fn the_database_is_changed_as_the_plan_says_and_back() {
    let (mut bench, runner) = both().await;
    let (shown, server) = (&runner.0, &runner.0.server);
    let database = Database::open(&server.access(), Arc::new(runner.clone())).await.unwrap();
    let options = database.options.clone();
    let mode = std::fs::metadata(&options).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);

    // System VMs that are there: their rows are taken, and given back.
    let row = |id: u64| {
        let sql = "SELECT state, (SELECT public_ip_address FROM console_proxy c WHERE c.id = v.id) \
                   FROM vm_instance v WHERE id = ";
        server.client("cloud", &format!("{sql}{id}")).unwrap()
    };
    let mut wish = wish();
    let left = bench.act_with(&database, |seen| enable::enable(seen, &wish)).await;
    assert_eq!((ours(&left), &*row(2)), (vec![], "Running\t10.0.0.9\n"), "{left:#?}");
    let back = bench.act_with(&database, disable::disable).await;
    assert_eq!((ours(&back), &*row(2)), (vec![], "Stopped\t10.0.0.9\n"));

    // None is there: rows are made, and taken away.
    server.client("cloud", "UPDATE vm_instance SET removed = NOW()").unwrap();
    shown.show();
    wish.storage = StorageMode::Shadow;
    wish.public = [10, 0, 0, 10].into();
    let left = bench.act_with(&database, |seen| enable::enable(seen, &wish)).await;
    assert_eq!(ours(&left), [""; 0], "{left:#?}");
    let rows = server.client("cloud", "SELECT name, state FROM vm_instance WHERE id > 2").unwrap();
    assert_eq!(rows, "s-71-VM\tStopped\nv-72-VM\tRunning\n");
    let next = server.client("cloud", "SELECT value FROM sequence").unwrap();
    assert_eq!(next, "73\n");
    let file = left.iter().any(
        |step| matches!(&step.action, Action::File { text, .. } if text.contains("proxy_vm = 72")),
    );
    assert!(file, "{left:#?}");
    assert_eq!(ours(&bench.act_with(&database, disable::disable).await), [""; 0]);
    let count = "SELECT (SELECT COUNT(*) FROM vm_instance WHERE removed IS NULL), \
                 (SELECT COUNT(*) FROM console_proxy WHERE id > 2)";
    assert_eq!(server.client("cloud", count).unwrap(), "0\t0\n");

    // A block that does not fit changes nothing at all, and says why.
    server.client("cloud", "DELETE FROM service_offering").unwrap();
    let error =
        bench.try_act_with(&database, |seen| enable::enable(seen, &wish)).await.unwrap_err();
    assert!(matches!(error, act::ActError::Database { .. }), "{error:?}");
    let text = bedrock::chain(&error);
    assert!(text.contains("service_offering_id") && text.contains("row of a storage VM"), "{text}");
    assert_eq!(server.client("cloud", "SELECT value FROM sequence").unwrap(), "73\n");

    // Tables that are others are found before anything is changed.
    server.client("cloud", "ALTER TABLE vm_instance DROP COLUMN power_state").unwrap();
    let error = Database::open(&server.access(), Arc::new(runner.clone())).await.unwrap_err();
    assert!(error.to_string().contains("power_state"), "{error}");
    drop(database);
    assert!(!options.exists());
}

#[tokio::test]
async fn settings_that_the_api_hides_are_opened_and_shown_to_nobody() {
    let (mut bench, runner) = both().await;
    let (shown, server) = (&runner.0, &runner.0.server);
    let database = Database::open(&server.access(), Arc::new(runner.clone())).await.unwrap();
    let mut wish = wish();
    let plain = |value: &str| {
        let sql = "REPLACE INTO configuration VALUES ('Hidden', 'DEFAULT', 'x', \
                   'upload.post.secret.key', '";
        server.client("cloud", &format!("{sql}{value}')")).unwrap();
    };
    plain("geheim");
    assert_eq!(database.set_up().await.unwrap(), None, "it may be sealed");
    let open = Access { values: Values::Plain, ..server.access() };
    let open = Database::open(&open, Arc::new(runner.clone())).await.unwrap();
    let found = open.set_up().await.unwrap().unwrap();
    assert_eq!(found.upload_key, Some("geheim".into()));
    let sealed = Access { values: Values::Sealed(KEY.into()), ..server.access() };
    let sealed = Database::open(&sealed, Arc::new(runner.clone())).await.unwrap();
    let error = sealed.set_up().await.unwrap_err().to_string();
    assert!(
        error.starts_with("upload.post.secret.key in the database cannot be opened"),
        "{error}"
    );
    plain(SEALED);
    let set_up = sealed.set_up().await.unwrap().unwrap();
    wish.storage = StorageMode::Standalone;
    wish.set_up = Some(set_up.clone());
    let steps = enable::enable(&bench.seen().await, &wish);
    let file = steps.iter().find_map(|step| match &step.action {
        Action::File { text, full } => Some((text.clone(), full.clone())),
        _ => None,
    });
    let (key, (text, full)) = (set_up.upload_key.unwrap(), file.unwrap());
    assert!(!text.contains(key.reveal()) && text.contains("upload_key"), "{text}");
    let full: toml::Table = full.reveal().parse().unwrap();
    assert_eq!(full["roles"]["secondary_storage"]["upload_key"].as_str(), Some(&**key.reveal()));
    let arguments = shown.arguments.lock().unwrap().join("\n");
    assert!(!arguments.contains("geheim") && !arguments.contains(key.reveal()), "{arguments}");
}
