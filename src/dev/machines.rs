//! The machines of the demo: a row of the server each, and the screen behind it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use demo_screen::{DemoOptions, DemoScreen};
use management_server::{ManagementServer, Vm};
use role::TaskScope;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Password of the screens that have one.
const PASSWORD: &str = "demoscrn";

/// A machine, on a host that it may leave.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) uuid: String,
    pub(crate) screen: DemoScreen,
    /// Its host speaks TLS alone.
    pub(crate) encrypted: bool,
    id: i64,
    password: &'static str,
    place: Arc<Mutex<Place>>,
}

/// Where its screen is, and what ends it there.
#[derive(Debug)]
struct Place {
    address: SocketAddr,
    stop: CancellationToken,
}

/// What serves screens.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    pub(crate) server: ManagementServer,
    pub(crate) tasks: TaskScope,
    pub(crate) stop: CancellationToken,
}

impl Machine {
    pub(crate) fn address(&self) -> SocketAddr {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).address
    }

    /// Goes to another host, as a live migration does: the same screen at another address, and
    /// nothing at the old one.
    pub(crate) async fn move_away(&self, hosts: &Hosts) -> std::io::Result<()> {
        let place = hosts.serve(&self.screen).await?;
        hosts.server.put_vm(self.row(place.address));
        let mut held = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *held, place).stop.cancel();
        Ok(())
    }

    fn row(&self, address: SocketAddr) -> Vm {
        Vm {
            id: self.id,
            uuid: self.uuid.clone(),
            name: self.name.clone(),
            host_address: address.ip().to_string(),
            port: address.port(),
            vnc_password: self.password.into(),
            keyboard: None,
            windows: false,
            running: true,
        }
    }
}

impl Hosts {
    async fn serve(&self, screen: &DemoScreen) -> std::io::Result<Place> {
        let listener = TcpListener::bind((LOOPBACK, 0)).await?;
        let address = listener.local_addr()?;
        let (serving, stop) = (screen.clone(), self.stop.child_token());
        let token = stop.clone();
        self.tasks.spawn("demo screen", async move { serving.serve(listener, token).await });
        Ok(Place { address, stop })
    }

    /// Three of them: with a password, without, and on a host that speaks TLS alone.
    pub(crate) async fn machines(&self) -> std::io::Result<Vec<Machine>> {
        let tls = host_tls(&self.server).map_err(std::io::Error::other)?;
        let mut machines = Vec::new();
        for (id, password, tls) in [(1, PASSWORD, None), (2, "", None), (3, PASSWORD, Some(tls))] {
            let name = format!("demo-{id}");
            let encrypted = tls.is_some();
            let screen = DemoScreen::new(DemoOptions {
                password: (!password.is_empty()).then(|| password.to_owned()),
                name: name.clone(),
                tls,
                ..DemoOptions::default()
            });
            let place = self.serve(&screen).await?;
            let address = place.address;
            let uuid = format!("00000000-0000-4000-8000-00000000000{id}");
            let place = Arc::new(Mutex::new(place));
            let machine = Machine { name, uuid, screen, encrypted, id, password, place };
            self.server.put_vm(machine.row(address));
            machines.push(machine);
        }
        Ok(machines)
    }
}

/// What a host shows to the console proxy: a certificate of the server's authority.
fn host_tls(server: &ManagementServer) -> Result<Arc<rustls::ServerConfig>, String> {
    let text = |error: &(dyn std::error::Error + 'static)| bedrock::chain(error);
    let issued = server.authority().issue("demo-host", &[LOOPBACK]).map_err(|e| text(&e))?;
    let chain = CertificateDer::pem_slice_iter(issued.certificate_pem.as_bytes());
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(|e| text(&e))?;
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).map_err(|e| text(&e))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().map_err(|e| text(&e))?;
    let config = builder.with_no_client_auth().with_single_cert(chain, key);
    Ok(Arc::new(config.map_err(|e| text(&e))?))
}
