//! The link against a peer of another make: `tests/java/LinkPeer.java`, an `SSLEngine` set up and
//! framed as the management server's. Needs a JDK: `cargo xtask setup`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use management_link::ClientCertificate;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, RsaKeySize,
};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::bench::{Bench, config};
use crate::server::Server;

/// Debug builds handle some MiB a second; this is enough for every size to come up.
const MESSAGES: usize = 2000;
/// Enough to see that a link stands.
const FEW: usize = 20;

struct Java {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl Java {
    async fn start(directory: &Path, client: &str, messages: usize) -> Self {
        let (certificate, key) = authority(directory);
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/java/LinkPeer.java");
        let mut child = Command::new("java")
            .arg("-XX:TieredStopAtLevel=1")
            .arg(source)
            .args([&certificate, &key])
            .args([client, &messages.to_string()])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("cannot start java; `cargo xtask setup` installs a JDK");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines
            .next_line()
            .await
            .unwrap()
            .expect("the peer ends at once; it needs a JDK, not only a runtime");
        let port = first.strip_prefix("port ").unwrap().parse().unwrap();
        Self { child, lines, port }
    }

    async fn says(&mut self, expected: &str) -> String {
        let line = self.lines.next_line().await.unwrap();
        let line = line.unwrap_or_else(|| panic!("the peer ended before {expected:?}"));
        assert!(line.starts_with(expected), "{line:?} instead of {expected:?}");
        line
    }
}

/// The real server's certificate: RSA, its own CA, no name.
fn authority(directory: &Path) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "ca.example.org");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let files = (directory.join("ca.pem"), directory.join("ca.key"));
    std::fs::write(&files.0, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&files.1, key.serialize_pem()).unwrap();
    files
}

async fn talk(
    client: &str,
    certificate: Option<ClientCertificate>,
    subject: &str,
    messages: usize,
) {
    let directory = tempfile::tempdir().unwrap();
    let mut java = Java::start(directory.path(), client, messages).await;
    // Only for the shape of the configuration; nobody connects to it.
    let server = Server::start().await;
    let mut management = config(&[&server]);
    management.servers = vec![format!("127.0.0.1:{}", java.port).parse().unwrap()];
    management.ca_file = Some(directory.path().join("ca.pem"));
    management.client_certificate = certificate;
    let bench = Bench::with(management, None);
    java.says(&format!("client {subject}")).await;
    let said = java.says(&format!("ok {messages} ")).await;
    let bytes: usize = said.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(bytes > messages * 100, "{said}");
    let stopping = tokio::spawn(bench.stop());
    java.says("goodbye").await;
    java.says("end").await;
    stopping.await.unwrap();
    assert!(java.child.wait().await.unwrap().success());
}

#[tokio::test]
async fn thousands_of_messages_pass_between_rustls_and_sslengine() {
    talk("want", None, "none", MESSAGES).await;
}

#[tokio::test]
async fn a_client_certificate_from_every_kind_of_file_satisfies_sslengine() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let pem = pem_pair(directory.path());
    talk("need", Some(pem), "CN=pem", FEW).await;

    // The password of stock agents needs no file, any other does.
    key_store(&path("cloud.jks"), "JKS", "vmops.com");
    let jks = ClientCertificate::KeyStore { file: path("cloud.jks"), password_file: None };
    talk("need", Some(jks), "CN=JKS", FEW).await;

    let password = "correct horse: battery";
    key_store(&path("cloud.p12"), "PKCS12", password);
    std::fs::write(path("password"), format!("{password}\n")).unwrap();
    let file = path("cloud.p12");
    let p12 = ClientCertificate::KeyStore { file, password_file: Some(path("password")) };
    talk("need", Some(p12), "CN=PKCS12", FEW).await;
}

fn pem_pair(directory: &Path) -> ClientCertificate {
    let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "pem");
    let (certificate, key_file) = (directory.join("c.pem"), directory.join("k.pem"));
    std::fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    ClientCertificate::Pem { certificate, key: key_file }
}

/// As a stock agent's set-up script makes it; the subject is the kind.
fn key_store(file: &Path, kind: &str, password: &str) {
    let made = std::process::Command::new("keytool")
        .args([
            "-J-XX:TieredStopAtLevel=1",
            "-genkeypair",
            "-alias",
            "cloud",
            "-keyalg",
            "RSA",
            "-keysize",
            "2048",
        ])
        .args(["-ext", "san=ip:127.0.0.1", "-dname", &format!("CN={kind}")])
        .args(["-storetype", kind, "-storepass:env", "PASSWORD", "-keypass:env", "PASSWORD"])
        .arg("-keystore")
        .arg(file)
        .env("PASSWORD", password)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
}
