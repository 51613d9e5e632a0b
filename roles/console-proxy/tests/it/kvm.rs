//! QEMU as a KVM host has it: X.509 with certificates of the management server's CA on both sides.

use std::io::{BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use management_server::CertificateAuthority;

use crate::browser::{Program, answers, free_port, password_file, until_line};
use crate::viewer::{Refused, Viewer};
use crate::world::{LIMIT, LOCAL, Options, World, start, vm};

/// A host's machine with that certificate; without a password when that is `None`.
async fn machine(
    directory: &Path,
    authority: &CertificateAuthority,
    issued: (&str, &str),
    password: Option<&str>,
) -> (Program, SocketAddr) {
    let credentials = directory.join("pki");
    std::fs::create_dir_all(&credentials).unwrap();
    std::fs::write(credentials.join("ca-cert.pem"), authority.pem()).unwrap();
    std::fs::write(credentials.join("server-cert.pem"), issued.0).unwrap();
    std::fs::write(credentials.join("server-key.pem"), issued.1).unwrap();
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port().port().max(5901)));
    let control = directory.join("qmp");
    let wanted = if password.is_some() { ",password=on" } else { "" };
    let object = format!(
        "tls-creds-x509,id=tls0,dir={},endpoint=server,verify-peer=yes,sanity-check=no",
        credentials.display()
    );
    let machine = Program(
        Command::new("qemu-system-x86_64")
            .args(["-display", "none", "-machine", "accel=tcg", "-m", "16", "-net", "none"])
            .args(["-object", &object])
            .args(["-vnc", &format!("127.0.0.1:{},tls-creds=tls0{wanted}", addr.port() - 5900)])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", control.display())])
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap(),
    );
    answers(addr).await;
    let stream = testkit::eventually("QEMU's control socket", LIMIT, || {
        std::os::unix::net::UnixStream::connect(&control).ok()
    })
    .await;
    let mut say = stream.try_clone().unwrap();
    let mut lines = BufReader::new(stream);
    until_line(&mut lines, "QMP");
    let mut commands = vec![r#"{"execute":"qmp_capabilities"}"#.to_owned()];
    commands.extend(password.map(|password| {
        format!(
            r#"{{"execute":"set_password","arguments":{{"protocol":"vnc","password":"{password}"}}}}"#
        )
    }));
    for command in commands {
        writeln!(say, "{command}").unwrap();
        until_line(&mut lines, "return");
    }
    (machine, addr)
}

/// A proxy with a certificate of `authority`, or without one.
async fn proxy(
    directory: &Path,
    authority: &CertificateAuthority,
    has_certificate: bool,
    role: &str,
) -> World {
    let write = |name: &str, text: &str| -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let ca = write("ca.pem", &authority.pem());
    let mut management = format!("ca_file = \"{}\"\n", ca.display());
    if has_certificate {
        let own = authority.issue("v-901-VM", &[LOCAL]).unwrap();
        let certificate = write("own.pem", &own.certificate_pem);
        let key = write("own.key", &own.key_pem);
        management += &format!(
            "client_cert_file = \"{}\"\nclient_key_file = \"{}\"\n",
            certificate.display(),
            key.display()
        );
    }
    let authority = authority.clone();
    start(Options {
        role: role.to_owned(),
        management,
        server: Box::new(move |config| config.authority = Some(authority)),
        ..Options::default()
    })
    .await
}

async fn open(world: &World, addr: SocketAddr) -> Result<Viewer, Refused> {
    world.server.put_vm(vm(2, addr));
    let link = world.link(2).await;
    world.open_link(&link).await
}

/// The machine's picture comes, and the name tells that its connection is encrypted.
async fn shows_its_screen(world: &World, addr: SocketAddr) {
    let mut viewer = open(world, addr).await.unwrap_or_else(|refused| panic!("{refused:?}"));
    assert_eq!(viewer.init.name, b"vm2 (TLS backend)");
    let (width, height) = (viewer.init.width, viewer.init.height);
    assert!(width > 100 && height > 100);
    let pixels = viewer.picture().await;
    assert!(pixels > 0, "no picture");
    assert_eq!(world.cx.health.details()["consoles"][0]["encrypted"], true);
}

fn words(outcome: Result<Viewer, Refused>) -> String {
    outcome.err().expect("a refusal").reason
}

const UNREACHABLE: &str = "the virtual machine's screen cannot be reached: ";

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_x509_and_a_password_is_shown_to_whom_its_ca_has_certified() {
    let directory = tempfile::tempdir().unwrap();
    let authority = CertificateAuthority::generate().unwrap();
    let issued = authority.issue("kvm1", &[LOCAL]).unwrap();
    let issued = (issued.certificate_pem.as_str(), issued.key_pem.as_str());
    let (_machine, addr) = machine(directory.path(), &authority, issued, Some("vncpassw")).await;
    let world = proxy(directory.path(), &authority, true, "host_tls = \"verify\"").await;
    shows_its_screen(&world, addr).await;
    // Without a certificate of ours the host hangs up, and says so as TLS does.
    let bare = proxy(directory.path(), &authority, false, "").await;
    let refused = words(open(&bare, addr).await);
    assert!(refused.starts_with(UNREACHABLE), "{refused}");
    assert!(refused.contains("the management server has issued none"), "{refused}");
    // Where encryption is off, this host offers nothing.
    let off = proxy(directory.path(), &authority, true, "host_tls = \"off\"").await;
    let refused = words(open(&off, addr).await);
    assert!(refused.contains("offers no usable security (VeNCrypt)"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_certificate_has_expired_is_shown_unless_that_is_not_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let authority = CertificateAuthority::generate().unwrap();
    let (certificate, key) = authority.issue_expired("kvm1", &[LOCAL]).unwrap();
    let (_machine, addr) = machine(directory.path(), &authority, (&certificate, &key), None).await;
    let lenient = proxy(directory.path(), &authority, true, "").await;
    shows_its_screen(&lenient, addr).await;
    let mut metrics = String::new();
    let registry = lenient.cx.health.metrics().unwrap();
    prometheus_client::encoding::text::encode(&mut metrics, &registry).unwrap();
    assert!(metrics.contains("expired_host_certificates_total 1"), "{metrics}");
    let strict = proxy(directory.path(), &authority, true, "host_tls = \"verify\"").await;
    let refused = words(open(&strict, addr).await);
    assert!(refused.ends_with("the host's certificate has expired"), "{refused}");
}

/// Its encryption shows no certificate, so that it would protect from nobody in the middle: the server
/// is asked again for what it offers besides.
#[tokio::test(flavor = "multi_thread")]
async fn a_tigervnc_with_anonymous_encryption_is_shown_without_it() {
    let world = start(Options::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("passwd");
    password_file(&file, "vncpassw");
    let addr = free_port();
    let _server = Program(
        Command::new("Xtigervnc")
            .args([&format!(":{}", addr.port()), "-rfbport", &addr.port().to_string()])
            .args(["-localhost=1", "-SecurityTypes=TLSVnc,VncAuth", "-geometry", "320x240"])
            .args(["-depth", "24", "-nolisten", "tcp"])
            .arg(format!("-PasswordFile={}", file.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    answers(addr).await;
    let mut viewer = open(&world, addr).await.unwrap_or_else(|refused| panic!("{refused:?}"));
    assert_eq!(viewer.init.name, b"vm2 ");
    assert!(viewer.picture().await > 0);
}
