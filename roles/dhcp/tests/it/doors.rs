//! Who is let in: accounts on the socket, certificates over TLS, and files that change meanwhile.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dhcp::access::{AccessRole, mint};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use role::Host;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::harness::{Running, eventually};

/// No account of the list has it.
const NOBODY: u32 = 64_999;
const LISTED: u32 = 64_998;

// The other account's process is waited for on this thread.
#[tokio::test(flavor = "multi_thread")]
async fn the_socket_lets_accounts_in_by_the_kernels_word() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: another account's process needs root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let more = format!(
        "dnsmasq = \"/nonexistent/dnsmasq\"\n\
         api_socket_access = [\"{LISTED} reader\", \"@{LISTED} writer\", \"no-such-account admin\"]"
    );
    let running = Running::start(directory.path(), &more, Host::system()).await;
    // root may everything, listed or not.
    running.api.set_up().await;
    assert!(running.degraded().contains("no-such-account"), "{}", running.degraded());
    let socket = running.api.socket.clone();
    let ask = |uid: u32, gid: u32, arguments: &[&str]| {
        let mut command = std::process::Command::new("curl");
        command.args(["-sS", "-w", "\n%{http_code}", "--unix-socket"]).arg(&socket);
        let output = command.args(arguments).uid(uid).gid(gid).current_dir("/").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse::<u16>().unwrap(), body.to_owned())
    };
    let put = ["-X", "PUT", "-d", r#"{"mac":"02:00:00:00:00:01","ipv4":"10.77.0.50"}"#];
    let reservation = [&put[..], &["http://x/v1/zones/z1/reservations/r1"]].concat();
    let status = ["http://x/v1/status"];
    assert_eq!(ask(NOBODY, NOBODY, &["http://x/v1/healthz"]).0, 200);
    let (code, text) = ask(NOBODY, NOBODY, &status);
    assert_eq!(code, 403, "{text}");
    assert!(text.contains("the account 64999 is not let in"), "{text}");
    assert!(text.contains("api_socket_access"), "{text}");
    assert_eq!(ask(LISTED, NOBODY, &status).0, 200);
    let (code, text) = ask(LISTED, NOBODY, &reservation);
    assert_eq!(code, 403, "{text}");
    assert!(text.contains("the account 64998 is a reader's, and this needs a writer's"), "{text}");
    assert_eq!(ask(NOBODY, LISTED, &reservation).0, 202);
    running.stop().await;
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "clients");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key; the name is an alternative one, or only the subject's.
    fn issue(&self, name: &str, alternative: bool) -> (String, String) {
        let names = if alternative { vec![name.to_owned()] } else { Vec::new() };
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

type Shown<'a> = Option<&'a (String, String)>;

/// One request; status and body, or the handshake's refusal. `trusted` is the server's certificate.
async fn ask(
    port: u16,
    trusted: &str,
    shown: Shown<'_>,
    head: &str,
    body: &str,
) -> Result<(u16, String), std::io::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let trusted = CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap();
    let verifier = tls_material::https::client_config(vec![trusted], "").unwrap();
    let mut config = (*verifier).clone();
    if let Some((certificate, key)) = shown {
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let key = provider.key_provider.load_private_key(key).unwrap();
        let key = Arc::new(rustls::sign::CertifiedKey::new(chain, key));
        config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(key));
    }
    let stream =
        eventually("the port is open", async || TcpStream::connect(("127.0.0.1", port)).await.ok())
            .await;
    let name = ServerName::try_from("dhcp.example").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let length = body.len();
    let request =
        format!("{head}Host: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok((answer.split(' ').nth(1).unwrap().parse().unwrap(), answer))
}

fn own_pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["dhcp.example".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn certificates_of_clients_have_roles_and_changed_files_hold_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (own, next) = (own_pair(), own_pair());
    let (token, line) = mint("ci", AccessRole::Reader);
    write(at, "own.crt", &own.0);
    write(at, "own.key", &own.1);
    let ca = write(at, "clients.crt", &authority.0.pem());
    let tokens = write(at, "tokens", &line);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let shown = at.display();
    let more = format!(
        "dnsmasq = \"/nonexistent/dnsmasq\"\napi_listen = \"127.0.0.1:{port}\"\n\
         api_certificate_file = \"{shown}/own.crt\"\napi_private_key_file = \"{shown}/own.key\"\n\
         api_tokens_file = {tokens:?}\napi_client_ca_file = {ca:?}\n\
         api_client_names = [\"look.example reader\", \"operator admin\"]"
    );
    let running = Running::start(at, &more, Host::system()).await;
    running.api.set_up().await;
    let status = "GET /v1/status HTTP/1.1\r\n";
    let zone = "PUT /v1/zones/z2 HTTP/1.1\r\n";
    let domain = r#"{"domain":"b.example"}"#;
    let (look, operator) =
        (authority.issue("look.example", true), authority.issue("operator", false));
    let other = authority.issue("other.example", true);

    let code = async |shown: Shown<'_>, head: &str, body: &str| {
        ask(port, &own.0, shown, head, body).await.unwrap()
    };
    assert_eq!(code(Some(&look), status, "").await.0, 200);
    let (refused, text) = code(Some(&look), zone, domain).await;
    assert_eq!(refused, 403, "{text}");
    assert!(text.contains("the certificate look.example is a reader's"), "{text}");
    assert_eq!(code(Some(&operator), zone, domain).await.0, 202);
    let (refused, text) = code(Some(&other), status, "").await;
    assert!(refused == 403 && text.contains("not let in: other.example"), "{text}");
    // No certificate: a token, or nothing.
    assert_eq!(code(None, status, "").await.0, 401);
    let bearer = format!("{status}Authorization: Bearer {token}\r\n");
    assert_eq!(code(None, &bearer, "").await.0, 200);
    let foreign = stranger.issue("operator", false);
    ask(port, &own.0, Some(&foreign), status, "").await.unwrap_err();

    // A token taken out, a renewed certificate, another authority; a broken file changes nothing.
    let (_, second) = mint("other", AccessRole::Reader);
    write(at, "tokens", &second);
    write(at, "own.crt", &next.0);
    write(at, "own.key", &next.1);
    eventually("the new certificate is shown", async || {
        ask(port, &next.0, Some(&look), status, "").await.ok()
    })
    .await;
    assert_eq!(ask(port, &next.0, None, &bearer, "").await.unwrap().0, 401);
    write(at, "clients.crt", "no certificate");
    eventually("the broken file is told", async || {
        matches!(running.health.health(), role::Health::Degraded { reason }
            if reason.contains("there is no certificate in it"))
        .then_some(())
    })
    .await;
    assert_eq!(ask(port, &next.0, Some(&look), status, "").await.unwrap().0, 200);
    write(at, "clients.crt", &stranger.0.pem());
    eventually("the new authority counts", async || {
        ask(port, &next.0, Some(&foreign), status, "").await.ok()
    })
    .await;
    ask(port, &next.0, Some(&look), status, "").await.unwrap_err();
    running.stop().await;
}
