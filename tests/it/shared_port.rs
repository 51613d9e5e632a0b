//! Roles ss and cp of one process on one port of TLS: each with the certificate of its own name and its
//! own paths, and a certificate that is replaced is nobody else's business.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use agent_protocol::storage::{
    CreateEntityDownloadURLCommand, DataStoreTO, DataTO, TemplateObjectTO,
};
use management_server::{CertificateAuthority, HostState, ManagementServer};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::real_roles::{self, STORE};
use crate::running::LIMIT;
use crate::zone::spawn;

const IMAGE: &str = "template/tmpl/2/320/a.qcow2";
const LINK: &str = "/userdata/245aa84f-36c2-4a2b-ab08-c2efa8b16f18/a.qcow2";
const CONSOLE: &str = "/resource/noVNC/vnc.html";
const STORAGE_NAME: &str = "storage.example";
const CONSOLE_NAME: &str = "console.example";

/// Certificate and key for `name`, in two files of the directory.
fn certify(authority: &CertificateAuthority, directory: &Path, name: &str) {
    let issued = authority.issue(name, &[]).unwrap();
    std::fs::write(directory.join(format!("{name}.crt")), issued.certificate_pem).unwrap();
    std::fs::write(directory.join(format!("{name}.key")), issued.key_pem).unwrap();
}

fn settings(directory: &Path, server: SocketAddr, web: SocketAddr) -> Vec<String> {
    let file =
        |name: &str, ending: &str| directory.join(format!("{name}.{ending}")).display().to_string();
    let mut settings = real_roles::settings(directory, server);
    settings.push(format!("management.ca_file={}", directory.join("ca.pem").display()));
    for (role, name) in [("secondary_storage", STORAGE_NAME), ("console_proxy", CONSOLE_NAME)] {
        settings.extend([
            format!("roles.{role}.listen=[]"),
            format!("roles.{role}.tls_listen=[\"{web}\"]"),
            format!("roles.{role}.certificate_file={}", file(name, "crt")),
            format!("roles.{role}.certificate_key_file={}", file(name, "key")),
        ]);
    }
    settings
}

struct Client {
    connector: TlsConnector,
    web: SocketAddr,
}

struct Reply {
    status: u16,
    body: Vec<u8>,
    certificate: CertificateDer<'static>,
}

impl Client {
    fn new(authority: &CertificateAuthority, web: SocketAddr) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.certificate()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A resumed session shows the certificate of the one before.
        config.resumption = rustls::client::Resumption::disabled();
        Self { connector: TlsConnector::from(Arc::new(config)), web }
    }

    /// The handshake fails unless the certificate is for `name`.
    async fn get(&self, name: &'static str, path: &str) -> Reply {
        let stream = TcpStream::connect(self.web).await.unwrap();
        let server = ServerName::try_from(name).unwrap();
        let mut stream = self.connector.connect(server, stream).await.unwrap();
        let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let status = std::str::from_utf8(&bytes[9..12]).unwrap().parse().unwrap();
        Reply { status, body: bytes.split_off(end + 4), certificate }
    }

    /// Links and consoles are served to whoever asks by their names; gives both certificates.
    async fn serves_both(&self) -> [CertificateDer<'static>; 2] {
        let link = self.get(STORAGE_NAME, LINK).await;
        assert_eq!((link.status, link.body.as_slice()), (200, &b"image"[..]));
        let page = self.get(CONSOLE_NAME, CONSOLE).await;
        let text = String::from_utf8_lossy(&page.body);
        assert!(page.status == 200 && text.contains("<html"), "{} {text}", page.status);
        // Paths are the role's, whatever name they are asked under.
        assert_eq!(self.get(CONSOLE_NAME, LINK).await.status, 200);
        [link.certificate, page.certificate]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_and_consoles_share_a_tls_port_with_a_certificate_each() {
    let (server, temp) = (real_roles::server().await, tempfile::tempdir().unwrap());
    let (directory, authority) = (temp.path(), server.authority().clone());
    std::fs::create_dir_all(directory.join("sec").join(IMAGE).parent().unwrap()).unwrap();
    std::fs::write(directory.join("sec").join(IMAGE), "image").unwrap();
    std::fs::write(directory.join("ca.pem"), server.ca_pem()).unwrap();
    certify(&authority, directory, STORAGE_NAME);
    certify(&authority, directory, CONSOLE_NAME);
    let web = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = settings(directory, server.address(), web);
    let settings = settings.into_iter().flat_map(|set| ["--set".to_owned(), set]);
    let run = ["run", "--roles", "ss,cp"].map(str::to_owned);
    let arguments: Vec<String> = run.into_iter().chain(settings).collect();
    let process = spawn(arguments, &directory.join("log"));
    let storage = "s-900-VM-NfsSecondaryStorageResource";
    server.wait_for_host(storage, HostState::Up, LIMIT).await.unwrap();
    let both = |server: &ManagementServer| (server.hosts().len() == 2).then_some(());
    server.wait_for("both hosts", LIMIT, both).await.unwrap();
    let create = CreateEntityDownloadURLCommand {
        install_path: Some(IMAGE.to_owned()),
        filename_in_extract_url: Some("a.qcow2".to_owned()),
        filepath_in_extract_url: Some("245aa84f-36c2-4a2b-ab08-c2efa8b16f18".to_owned()),
        data: Some(DataTO::from(TemplateObjectTO {
            path: Some(IMAGE.to_owned()),
            id: 320,
            image_data_store: Some(DataStoreTO::nfs(STORE)),
            ..TemplateObjectTO::default()
        })),
        ..CreateEntityDownloadURLCommand::default()
    };
    assert!(server.succeeds(storage, &create, LIMIT).await.unwrap());

    let client = Client::new(&authority, web);
    let [links, consoles] = client.serves_both().await;
    assert_ne!(links, consoles);
    // One is replaced: the other stays as it is.
    certify(&authority, directory, STORAGE_NAME);
    process.reload(&directory.join("state/admin.addr"));
    let [links_now, consoles_now] = client.serves_both().await;
    assert_ne!(links_now, links);
    assert_eq!(consoles_now, consoles);
    certify(&authority, directory, CONSOLE_NAME);
    process.reload(&directory.join("state/admin.addr"));
    let [links_at_last, consoles_at_last] = client.serves_both().await;
    assert_eq!(links_at_last, links_now);
    assert_ne!(consoles_at_last, consoles);
}
