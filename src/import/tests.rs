//! Files as they lie on system VMs and in the seed's HOWTOs, and hostile ones.

use std::net::IpAddr;
use std::path::Path;

use super::machine::Machine;
use super::*;

struct Known;

impl Machine for Known {
    fn address_towards(&self, host: &str, port: u16) -> Option<IpAddr> {
        (host == "192.168.56.1" && port == 8250).then_some([192, 168, 56, 10].into())
    }

    fn address_of(&self, interface: &str) -> Option<IpAddr> {
        (interface == "eth1").then_some([10, 1, 1, 5].into())
    }
}

/// An agent's directory.
fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    directory
}

fn imported(files: &[(&str, &[u8])], words: &[&str], store: Option<&str>) -> Imported {
    let directory = directory(files);
    let mut inputs = vec![directory.path().display().to_string()];
    inputs.extend(words.iter().map(|word| (*word).to_owned()));
    let request = Request::parse(&inputs, store.map(str::to_owned)).unwrap();
    let agents = request.agents.iter().map(|agent| given::read(agent).unwrap()).collect();
    mapping::map(agents, request.store.as_deref(), Path::new("/etc/q/password"), &Known)
}

/// The result is what is expected, and a configuration that can be run with.
fn check(found: &Imported, expected: &str) {
    let expected: Table = expected.parse().unwrap();
    assert_eq!(found.table, expected, "{}", found.table);
    let sources = crate::config::Sources::default();
    let loaded = crate::config::load_table(&found.table, &sources, crate::registry::ROLES).unwrap();
    assert_eq!(loaded.violations, []);
}

fn fates(found: &Imported, key: &str) -> Vec<String> {
    let lines = found.lines.iter().filter(|line| line.key == key);
    lines.map(ToString::to_string).collect()
}

#[test]
fn the_start_lines_of_a_developers_console_proxy_and_storage() {
    let words = ["zone=1", "pod=1", "host=192.168.56.1", "guid=ConsoleProxy.1"];
    let files: &[(&str, &[u8])] = &[
        ("agent.properties", b"instance=ConsoleProxy\nresource=x.y.ConsoleProxyResource\n"),
        (
            "consoleproxy.properties",
            b"consoleproxy.tcpListenPort=0\nconsoleproxy.httpListenPort=80\n",
        ),
        ("environment.properties", b"paths.script=../../scripts/\npaths.pid=.\n"),
    ];
    let found = imported(files, &words, None);
    check(
        &found,
        "management = { servers = ['192.168.56.1'], zone = '1', pod = '1' }\n\
         supervisor.roles = ['cp']\n\
         roles.console_proxy = { name = 'ConsoleProxy.1', guid = 'ConsoleProxy.1', \
         private_address = '192.168.56.10' }",
    );
    let words = [
        "zone=1",
        "pod=1",
        "host=192.168.56.1",
        "guid=SecondaryStorage.1",
        "secondary.storage.vm=false",
        "mount.path=/srv/sec",
        "workers=3",
        "eth1ip=192.168.56.11",
        "eth2ip=192.0.2.7",
        "instance=Secondary",
    ];
    let found = imported(&[], &words, Some("nfs://10.0.0.9/export/sec"));
    check(
        &found,
        "management = { servers = ['192.168.56.1'], zone = '1', pod = '1' }\n\
         supervisor.roles = ['ss']\n\
         roles.secondary_storage = { name = 'SecondaryStorage.1', guid = 'SecondaryStorage.1', \
         private_address = '192.168.56.11', public_address = '192.0.2.7', \
         stores = [{ url = 'nfs://10.0.0.9/export/sec', directory = '/srv/sec' }] }",
    );
    assert!(fates(&found, "workers")[0].contains("management.max_commands"));
}

#[test]
fn the_boot_arguments_of_system_vms() {
    let cmdline = b"template=domP type=consoleproxy host=10.0.0.5,10.0.0.6 port=8250 name=v-2-VM \
        premium=true zone=1 pod=1 guid=Proxy.2 proxy_vm=2 disable_rp_filter=true \
        authorized_key=QUJDREVGR0g== eth2ip=192.0.2.10 eth2mask=255.255.255.0 gateway=192.0.2.1 \
        eth1ip=10.1.1.5 eth1mask=255.255.255.0 mgmtcidr=10.1.1.0/24 localgw=10.1.1.1 \
        internaldns1=10.1.1.1 dns1=9.9.9.9 vncport=8443 keystore_password=geheim a=b=c quiet";
    let installed = b"instance=ConsoleProxy\nresource=x.ConsoleProxyResource\nguid=old\nzone=9\n";
    let found = imported(&[("cmdline", cmdline), ("conf/agent.properties", installed)], &[], None);
    check(
        &found,
        "management = { servers = ['10.0.0.5', '10.0.0.6'], port = 8250, zone = '1', pod = '1' }\n\
         supervisor.roles = ['cp']\n\
         roles.console_proxy = { name = 'v-2-VM', guid = 'Proxy.2', proxy_vm = 2, \
         private_address = '10.1.1.5', public_address = '192.0.2.10' }",
    );
    assert_eq!(fates(&found, "zone")[0], "zone (agent.properties:4) is not used: cmdline wins");
    for odd in ["a", "quiet"] {
        assert!(fates(&found, odd)[0].contains("not of the form key=value"), "{odd}");
    }
    let all: String = found.lines.iter().map(ToString::to_string).collect();
    assert!(!all.contains("geheim") && !all.contains("QUJD"), "{all}");

    let cmdline = b"type=secstorage host=10.0.0.5 port=8250 name=s-1-VM zone=1 pod=1 guid=s-1-VM \
        workers=5 instance=SecStorage resource=x.PremiumSecondaryStorageResource sslcopy=false \
        role=templateProcessor private.network.device=eth1 storageip=10.2.2.5 nfsVersion=4 \
        secondary.storage.vm=true mount.path=/mnt";
    let found = imported(&[("cmdline", cmdline)], &[], None);
    check(
        &found,
        "management = { servers = ['10.0.0.5'], port = 8250, zone = '1', pod = '1' }\n\
         supervisor.roles = ['ss']\n\
         roles.secondary_storage = { name = 's-1-VM', guid = 's-1-VM', \
         resource_name = 'PremiumSecondaryStorageResource', private_address = '10.1.1.5', \
         storage_address = '10.2.2.5' }",
    );
}

#[test]
fn hostile_property_files_are_read_as_java_reads_them() {
    let text = b"# host=commented\r\n  host = 10.0.0.5,\\\r\n   10.0.0.6 @shuffle\r\nz\\u006fne:Z\\u00fcrich\n\
        pod first\nguid=one\nguid = two\nname\t=\ts-7-VM \nport=eighty\nbackoff.seconds=10\n\
        eth1ip=10.0.0.9\nssl.handshake.timeout=30\nresource=a.NfsSecondaryStorageResource\nodd\n=x\n";
    let found = imported(&[("agent.properties", text)], &[], None);
    check(
        &found,
        "management = { servers = ['10.0.0.5', '10.0.0.6'], zone = 'Z\u{fc}rich', pod = 'first', \
         backoff = '10s' }\nsupervisor.roles = ['ss']\n\
         roles.secondary_storage = { name = 's-7-VM', guid = 'two', private_address = '10.0.0.9' }",
    );
    let guid = fates(&found, "guid");
    assert_eq!(guid[0], "guid (agent.properties:6) is not used: agent.properties:7 wins");
    assert!(fates(&found, "port")[0].contains("8250 holds"));

    let text = "zone=Zürich\npod=\\u12\nhost=@HOST@\nguid=a-ConsoleProxyResource\nproxy_vm=3\n";
    let found = imported(&[("agent.properties", text.as_bytes())], &[], None);
    assert!(fates(&found, "zone")[0].contains("property files are ISO-8859-1"));
    assert!(fates(&found, "pod")[0].contains("Java refuses the whole file"));
    assert!(fates(&found, "host")[0].contains("a placeholder"));
    assert!(fates(&found, "guid")[0].contains("without its end"));
    assert!(fates(&found, "eth1ip")[0].contains("add eth1ip=ADDRESS"));
    let zone = found.table["management"]["zone"].as_str().unwrap();
    assert_eq!(zone, "Z\u{c3}\u{bc}rich");
}

#[test]
fn certificates_beside_the_files_are_used_and_the_password_stays_secret() {
    let jks: &[(&str, &[u8])] = &[
        (
            "agent.properties",
            b"keystore.passphrase=geheim\nguid=Proxy.2\nhost=10.0.0.5\neth1ip=10.0.0.9\n",
        ),
        ("cloud.jks", b"x"),
        ("cloud.ca.crt", b"x"),
    ];
    let found = imported(jks, &[], None);
    let management = &found.table["management"];
    assert_eq!(management["client_keystore_password_file"].as_str(), Some("/etc/q/password"));
    assert!(management["ca_file"].as_str().unwrap().ends_with("/cloud.ca.crt"));
    assert_eq!(found.password.as_ref().unwrap().reveal(), "geheim");
    assert!(!format!("{found:?}").contains("geheim"));
    let pem = [jks, &[("cloud.crt", b"x".as_slice()), ("cloud.key", b"x")]].concat();
    let found = imported(&pem, &[], None);
    assert!(found.table["management"]["client_cert_file"].as_str().is_some());
    assert!(found.password.is_none() && !found.table.to_string().contains("keystore"));
}

#[test]
fn pid_files_ports_and_two_agents_in_one_process() {
    let ss = directory(&[
        ("agent.properties", b"guid=s-1-VM\nname=s-1-VM\nhost=10.0.0.5\neth1ip=10.0.0.9\ntype=secstorage\ninstance=SecStorage\n"),
        ("environment.properties", b"paths.pid=/run\n"),
    ]);
    let cp = directory(&[
        ("agent.properties", b"guid=Proxy.2\nproxy_vm=2\nhost=10.0.0.7\neth1ip=10.0.0.9\n"),
        ("consoleproxy.properties", b"consoleproxy.httpListenPort=8088\n"),
    ]);
    let inputs = [&ss, &cp].map(|directory| directory.path().display().to_string());
    let request = Request::parse(&inputs, None).unwrap();
    let agents = request.agents.iter().map(|agent| given::read(agent).unwrap()).collect();
    let found = mapping::map(agents, None, Path::new("/p"), &Known);
    check(
        &found,
        "management = { servers = ['10.0.0.5'] }\n\
         supervisor = { roles = ['ss', 'cp'], pid_file = '/run/agent.SecStorage.pid' }\n\
         roles.secondary_storage = { name = 's-1-VM', guid = 's-1-VM', private_address = '10.0.0.9' }\n\
         roles.console_proxy = { name = 'v-2-VM', guid = 'Proxy.2', proxy_vm = 2, \
         private_address = '10.0.0.9', listen = ['0.0.0.0:8088', '0.0.0.0:8080'] }",
    );
    let hosts = fates(&found, "host");
    assert!(hosts[1].contains("by another agent; one process has one value"), "{hosts:?}");
}

#[test]
fn what_cannot_be_read_is_named() {
    let read = |path: &Path| {
        let input = AgentInput { directory: path.to_owned(), words: Vec::new() };
        bedrock::chain(&given::read(&input).unwrap_err())
    };
    let empty = tempfile::tempdir().unwrap();
    assert!(read(empty.path()).contains("holds none of agent.properties"));
    assert!(read(&empty.path().join("none")).contains("No such file"));
    std::fs::create_dir(empty.path().join("agent.properties")).unwrap();
    assert!(read(empty.path()).ends_with("agent.properties: it is not a file"));
    let long = directory(&[("agent.properties", &[b'#'; (1 << 20) + 1])]);
    assert!(read(long.path()).contains("larger than 1 MiB"));
    let kvm = b"resource=x.LibvirtComputingResource\nhost=10.0.0.5\nlocal.storage.path=/a\n";
    let found = imported(&[("agent.properties", kvm)], &[], None);
    assert!(fates(&found, "resource")[0].contains("only the link is taken over"));
    assert!(Request::parse(&["a=b".to_owned()], None).is_err());
}
