//! `quickcloud doctor`, `cert` and `import` through the real binary: each fault has a finding of its own.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::SystemTime;

use serde_json::Value;

fn quickcloud(arguments: &[String]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quickcloud")).args(arguments).output().unwrap()
}

/// A configuration of both registering roles in which nothing is wrong but the server's absence.
pub(crate) fn sound(state: &Path, server: &str) -> Vec<String> {
    let store = state.join("store");
    std::fs::create_dir_all(store.join("template")).unwrap();
    [
        "supervisor.roles=[\"ss\", \"cp\"]".to_owned(),
        format!("supervisor.state_directory={}", state.display()),
        "supervisor.admin_address=127.0.0.1:1".to_owned(),
        format!("management.servers=[\"{server}\"]"),
        "roles.secondary_storage.name=s-900-VM".to_owned(),
        "roles.secondary_storage.private_address=127.0.0.1".to_owned(),
        format!(
            "roles.secondary_storage.stores=[{{url=\"nfs://127.0.0.1/e\",directory=\"{}\"}}]",
            store.display()
        ),
        "roles.secondary_storage.listen=[\"127.0.0.1:0\"]".to_owned(),
        "roles.secondary_storage.tls_listen=[]".to_owned(),
        "roles.console_proxy.name=v-901-VM".to_owned(),
        "roles.console_proxy.proxy_vm=901".to_owned(),
        "roles.console_proxy.private_address=127.0.0.1".to_owned(),
        "roles.console_proxy.listen=[\"127.0.0.1:0\"]".to_owned(),
        "roles.console_proxy.tls_listen=[]".to_owned(),
    ]
    .into()
}

/// Exit code and, of `check`, the states and texts.
fn doctor(settings: &[String], extra: &[&str], check: &str) -> (i32, Vec<(String, String)>) {
    let mut arguments = vec!["doctor".to_owned(), "--json".to_owned()];
    arguments.extend(settings.iter().flat_map(|set| ["--set".to_owned(), set.clone()]));
    arguments.extend(extra.iter().map(|word| (*word).to_owned()));
    let output = quickcloud(&arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let document: Value = serde_json::from_str(&text)
        .unwrap_or_else(|_odd| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    let checks = document["checks"].as_array().unwrap().iter();
    let of_name = checks.filter(|line| line["check"] == check).map(|line| {
        assert_eq!(
            line["remedy"].is_string(),
            line["state"] == "fault" || line["state"] == "warning"
        );
        (line["state"].as_str().unwrap().to_owned(), line["text"].as_str().unwrap().to_owned())
    });
    (output.status.code().unwrap(), of_name.collect())
}

fn check(settings: &[String], extra: &[&str], name: &str, part: &str) {
    let (code, found) = doctor(settings, extra, name);
    let fits = found.iter().any(|(state, text)| state == "fault" && text.contains(part));
    assert!(fits && code == 69, "{name} {part:?}: {code} {found:?}");
}

#[test]
fn each_fault_of_machine_and_configuration_has_a_finding_of_its_own() {
    let state = tempfile::tempdir().unwrap();
    let good = sound(state.path(), "127.0.0.1:1");
    let with = |set: &str| [&good[..], &[set.to_owned()]].concat();
    let offline = ["--offline"];
    let (code, found) = doctor(&good, &offline, "state.directory");
    assert_eq!((code, found[0].0.as_str()), (0, "ok"), "{found:?}");
    let file = state.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below = format!("supervisor.state_directory={}/x", file.display());
    check(&with(&below), &offline, "state.directory", "cannot be looked at");
    check(
        &with("roles.secondary_storage.stores=[{url=\"nfs://h/e\",directory=\"/does/not/exist\"}]"),
        &offline,
        "store.directory",
        "/does/not/exist",
    );
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let listen = format!("roles.console_proxy.listen=[\"{addr}\"]");
    check(&with(&listen), &offline, "port", "Address already in use");
    let same = with("roles.console_proxy.guid=s-900-VM");
    check(&same, &offline, "config.conflict", "s-900-VM");
    let (code, found) = doctor(&with("management.port=0"), &offline, "config");
    assert_eq!(code, 78);
    assert!(found[0].1.starts_with("management.port"), "{found:?}");
    let (_, found) = doctor(&good, &offline, "process.running");
    assert_eq!(found[0].0, "warning");
    let fresh = format!("supervisor.state_directory={}", state.path().join("new/state").display());
    let (code, found) = doctor(&with(&fresh), &["--offline", "--fix"], "fix");
    assert!(code == 0 && found[0].1.contains("new/state is made"), "{found:?}");
    assert!(state.path().join("new/state").is_dir());
}

#[test]
fn each_fault_on_the_way_to_the_server_has_a_finding_of_its_own() {
    let state = tempfile::tempdir().unwrap();
    let closed = sound(state.path(), "127.0.0.1:1");
    check(&closed, &[], "link.reachable", "Connection refused");
    let (_, found) = doctor(&closed, &[], "link.tls");
    assert_eq!(found[0].0, "skipped", "told once: {found:?}");
    let unknown = sound(state.path(), "no.such.host.invalid");
    check(&unknown, &[], "link.name", "cannot resolve no.such.host.invalid");
    // Something else listens there.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let talk = std::thread::spawn(move || {
        while let Ok((mut stream, _)) = other.accept() {
            if stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").is_err() {
                return;
            }
        }
    });
    check(&sound(state.path(), &address), &[], "link.tls", "TLS");
    drop(talk);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_there_is_found_and_another_ca_is_told() {
    let config = management_server::ServerConfig::new("127.0.0.1:0".parse().unwrap());
    let server = management_server::ManagementServer::start(config).await.unwrap();
    let state = tempfile::tempdir().unwrap();
    let settings = sound(state.path(), &server.address().to_string());
    let asked = settings.clone();
    let found =
        tokio::task::spawn_blocking(move || doctor(&asked, &[], "link.tls")).await.unwrap().1;
    assert!(found.len() == 2 && found.iter().all(|(state, _)| state == "ok"), "{found:?}");
    assert!(found[0].1.contains("will be trusted at first use"), "{found:?}");
    // Any other certificate, as if the server's had been replaced.
    std::fs::create_dir_all(state.path().join("cp")).unwrap();
    let remembered = state.path().join("cp/management-ca.pem");
    tls_material::own_pair(&remembered, &["other".to_owned()], SystemTime::now()).unwrap();
    let asked = settings.clone();
    tokio::task::spawn_blocking(move || {
        check(&asked, &["--roles", "cp"], "link.tls", "another certificate");
        let mut reset = vec!["cert".to_owned(), "reset".to_owned(), "--yes".to_owned()];
        reset.extend(asked.iter().flat_map(|set| ["--set".to_owned(), set.clone()]));
        let output = quickcloud(&reset);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("cp: management-ca.pem set aside as .old"), "{text}");
        let (code, found) = doctor(&asked, &["--roles", "cp"], "link.tls");
        assert_eq!((code, found[0].0.as_str()), (0, "ok"), "{found:?}");
    })
    .await
    .unwrap();
    assert!(server.shutdown().await);
}

#[test]
fn an_imported_configuration_passes_check_and_runs_no_risk_of_a_leak() {
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("conf");
    std::fs::create_dir_all(&conf).unwrap();
    let text = "guid=Proxy.2\nproxy_vm=2\nkeystore.passphrase=geheim\nhost=127.0.0.1@static\n";
    std::fs::write(conf.join("agent.properties"), text).unwrap();
    std::fs::write(conf.join("cloud.jks"), "x").unwrap();
    let file = folder.path().join("site.toml");
    let run = |words: &[&str]| {
        let mut arguments = vec!["import".to_owned(), folder.path().display().to_string()];
        arguments.extend(words.iter().map(|word| (*word).to_owned()));
        quickcloud(&arguments)
    };
    let path = file.display().to_string();
    let output = run(&["eth1ip=127.0.0.1", "-o", &path]);
    let report = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{report}");
    for part in ["kept", "mapped", "management.servers", "v-2-VM", "0 to look at"] {
        assert!(report.contains(part), "{part} in {report}");
    }
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(!report.contains("geheim") && !written.contains("geheim"));
    let password = std::fs::read_to_string(folder.path().join("agent.jks.password")).unwrap();
    assert_eq!(password, "geheim");
    assert_eq!(run(&["eth1ip=127.0.0.1", "-o", &path]).status.code(), Some(1), "not twice");
    let output = run(&["proxy_vm=3"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("proxy_vm = 3"), "{text}");
    let checked = quickcloud(&["check", "--json", "--config", &path].map(str::to_owned));
    let checked: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(checked["violations"], serde_json::json!([]));
}
