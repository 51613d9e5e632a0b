//! What is compared: the binary, haproxy and websockify before the same VNC servers, plain and with
//! TLS.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use management_server::ManagementServer;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::binary::{self, LOOPBACK, Running, free, until_up};
use crate::viewers::{Target, Way, target};

pub(crate) const KINDS: [Target; 3] = [Target::Flood, Target::Paced, Target::Quiet];

/// What stands between viewer and VNC server.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Relay {
    Direct,
    Ours,
    Haproxy,
    Websockify,
    OursTls,
    HaproxyTls,
}

impl Relay {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Ours => "ours",
            Self::Haproxy => "haproxy",
            Self::Websockify => "websockify",
            Self::OursTls => "ours TLS",
            Self::HaproxyTls => "haproxy TLS",
        }
    }

    pub(crate) const fn is_tls(self) -> bool {
        matches!(self, Self::OursTls | Self::HaproxyTls)
    }
}

/// The binary, registered with an embedded server.
pub(crate) struct Ours {
    server: ManagementServer,
    process: Running,
    plain: SocketAddr,
    secure: SocketAddr,
    pem: PathBuf,
    directory: tempfile::TempDir,
}

impl Ours {
    pub(crate) async fn start(binary: &Path) -> Self {
        let (plain, secure, directory) = (free(), free(), tempfile::tempdir().unwrap());
        let server = binary::server(plain).await;
        let mut settings = binary::settings(&server, directory.path(), plain);
        settings.extend([
            "supervisor.admin_address=127.0.0.1:0".to_owned(),
            "supervisor.connections_per_address=5000".to_owned(),
            format!("roles.console_proxy.tls_listen=[\"{secure}\"]"),
            "roles.console_proxy.sessions=5000".to_owned(),
            "roles.console_proxy.sessions_per_address=5000".to_owned(),
        ]);
        let process = binary::run(binary, "cp", &settings);
        binary::until_registered(&server, 1).await;
        until_up(plain);
        until_up(secure);
        let pem = directory.path().join("cp/self-signed.pem");
        Self { server, process, plain, secure, pem, directory }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// A viewer that trusts the certificate.
    pub(crate) fn trust(&self) -> Arc<ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.pem).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    }

    /// A fresh link to the `number`th machine with that screen.
    pub(crate) async fn way(
        &self,
        screen: SocketAddr,
        number: usize,
        tls: Option<Arc<ClientConfig>>,
    ) -> Way {
        let id = i64::from(screen.port()) * 10_000 + i64::try_from(number).unwrap();
        let uuid = binary::machine(&self.server, id, screen);
        let link = self.server.console_link(&uuid, LOOPBACK, None).await.unwrap();
        let token = link.token.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        let addr = if tls.is_some() { self.secure } else { self.plain };
        Way { addr, path: Some(format!("/websockify?token={token}")), tls }
    }
}

/// All of them.
pub(crate) struct World {
    pub(crate) ours: Ours,
    trust: Arc<ClientConfig>,
    targets: [SocketAddr; 3],
    haproxy: Option<(Running, [SocketAddr; 3])>,
    haproxy_tls: Option<(Running, [SocketAddr; 3])>,
    websockify: Option<(Running, SocketAddr)>,
}

impl World {
    pub(crate) async fn start(binary: &Path) -> Self {
        let targets = KINDS.map(target);
        let ours = Ours::start(binary).await;
        let directory = ours.directory.path();
        let haproxy = |pem| haproxy(directory, &targets, pem);
        Self {
            trust: ours.trust(),
            haproxy: haproxy(None),
            haproxy_tls: haproxy(Some(&ours.pem)),
            websockify: websockify(directory, &targets),
            targets,
            ours,
        }
    }

    /// Those that are installed.
    pub(crate) fn relays(&self) -> Vec<Relay> {
        let all = [
            Relay::Direct,
            Relay::Ours,
            Relay::Haproxy,
            Relay::Websockify,
            Relay::OursTls,
            Relay::HaproxyTls,
        ];
        let there = |relay: &Relay| *relay == Relay::Direct || self.process(*relay).is_some();
        all.into_iter().filter(there).collect()
    }

    pub(crate) fn process(&self, relay: Relay) -> Option<u32> {
        match relay {
            Relay::Direct => None,
            Relay::Ours | Relay::OursTls => Some(self.ours.id()),
            Relay::Haproxy => self.haproxy.as_ref().map(|(process, _)| process.id()),
            Relay::HaproxyTls => self.haproxy_tls.as_ref().map(|(process, _)| process.id()),
            Relay::Websockify => self.websockify.as_ref().map(|(process, _)| process.id()),
        }
    }

    pub(crate) async fn way(&self, relay: Relay, kind: Target, number: usize) -> Way {
        let index = KINDS.iter().position(|other| *other == kind).unwrap();
        let tls = relay.is_tls().then(|| Arc::clone(&self.trust));
        let plain = |addr| Way { addr, path: None, tls: None };
        match relay {
            Relay::Direct => plain(self.targets[index]),
            Relay::Haproxy => plain(self.haproxy.as_ref().unwrap().1[index]),
            Relay::HaproxyTls => {
                let addr = self.haproxy_tls.as_ref().unwrap().1[index];
                Way { addr, path: None, tls }
            }
            Relay::Websockify => {
                let path = Some(format!("/websockify?token=t{index}"));
                Way { addr: self.websockify.as_ref().unwrap().1, path, tls: None }
            }
            Relay::Ours | Relay::OursTls => self.ours.way(self.targets[index], number, tls).await,
        }
    }
}

fn started(command: &mut Command) -> Option<Running> {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok().map(Running)
}

fn haproxy(
    directory: &Path,
    targets: &[SocketAddr; 3],
    pem: Option<&Path>,
) -> Option<(Running, [SocketAddr; 3])> {
    let tls = pem.map(|pem| format!(" ssl crt {}", pem.display())).unwrap_or_default();
    let mut text = "global\n nbthread 2\ndefaults\n mode tcp\n timeout connect 5s\n \
                    timeout client 1h\n timeout server 1h\n"
        .to_owned();
    let ports = targets.map(|_| free());
    for (port, target) in ports.iter().zip(targets) {
        writeln!(text, "listen l{}\n bind {port}{tls}\n server s {target}", port.port()).unwrap();
    }
    let file = directory.join(if pem.is_some() { "haproxy-tls.cfg" } else { "haproxy.cfg" });
    std::fs::write(&file, text).unwrap();
    let process = started(Command::new("haproxy").arg("-f").arg(&file))?;
    ports.iter().copied().for_each(until_up);
    Some((process, ports))
}

/// One port for all targets, told apart by a token as with us.
fn websockify(directory: &Path, targets: &[SocketAddr; 3]) -> Option<(Running, SocketAddr)> {
    let (port, file) = (free(), directory.join("tokens"));
    let line = |(index, target): (usize, &SocketAddr)| format!("t{index}: {target}\n");
    std::fs::write(&file, targets.iter().enumerate().map(line).collect::<String>()).unwrap();
    let mut command = Command::new("websockify");
    command
        .args(["--token-plugin", "TokenFile", "--token-source"])
        .arg(&file)
        .arg(port.to_string());
    let process = started(&mut command)?;
    until_up(port);
    Some((process, port))
}
