//! The HTTP front of the process: one port, several roles.
//!
//! In the originals the storage VM's web server and the console proxy both serve on port 80, each
//! on a machine of its own. In one process they meet: the server's links name the host's address
//! without a port, so both must answer on port 80. A role registers path prefixes on an address;
//! a request goes to the longest matching prefix registered for the address it arrived at. Roles
//! neither see each other nor share anything but the port: a role that stops takes its prefixes
//! with it, and the listener ends with its last prefix.
//!
//! A registration is had whole or not at all, and no other role's listener is touched by it: the
//! unspecified address is bound beside specific ones of its port (`socket`). What a request makes a
//! role do runs in the role's scope and span (`request`), so that nothing of a run outlives it.

mod request;
mod socket;

use std::collections::HashMap;
use std::fmt;
use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use axum::Router;
use bedrock::net::Network;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use task_scope::TaskScope;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::Span;

pub use crate::addresses::Crowded;
use crate::addresses::{Addresses, OfAddress, TooMany};
use crate::client::TrustedProxies;
use crate::files::Files;
use crate::listener::{BindError, Listener, Transport};
use crate::serve::{HttpLimits, Served, serve_counted};
use crate::tls::{Certificates, choose};

/// Connections of one shared listener; consoles and downloads hold theirs for hours.
const CONNECTIONS: usize = 4096;
/// Of these, those of one client address, unless configured otherwise.
pub const CONNECTIONS_PER_ADDRESS: usize = 1024;
/// How long a listener whose last role left may take to free its port for the next.
const CLOSING: Duration = Duration::from_secs(2);

/// The prefix of what nobody else serves on an address. Unlike every other one it may have several
/// roles; "/" comes before it.
pub const ANYTHING_ELSE: &str = "";

/// What a role serves on an address.
#[derive(Debug, Clone)]
pub struct Site {
    /// Short name of the role; a prefix of an address belongs to one.
    pub owner: &'static str,
    pub addr: SocketAddr,
    /// Paths below one of these; "/" for everything nobody else wants. The router sees the whole path.
    pub prefixes: &'static [&'static str],
    pub router: Router,
    /// Requests run here, so that they end with the role's run.
    pub tasks: TaskScope,
    /// Proxies whose word about the client's address is taken.
    pub trusted_proxies: TrustedProxies,
    pub transport: Transport,
}

/// A listener, for whoever wants to show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerReport {
    pub addr: SocketAddr,
    pub tls: bool,
    /// Open connections, upgraded ones included.
    pub connections: usize,
}

/// Hands out routes on shared listeners. Cloneable; clones share everything.
#[derive(Clone)]
pub struct HttpFront {
    shared: Arc<Shared>,
}

struct Shared {
    tasks: TaskScope,
    /// Where the front was made: accept loops belong to no role.
    span: Span,
    addresses: Addresses,
    state: Mutex<FrontState>,
}

#[derive(Default)]
struct FrontState {
    next_id: u64,
    routes: Vec<Route>,
    listeners: HashMap<u64, Listening>,
    /// Those whose role left, until their port is free.
    closing: Vec<(SocketAddr, CancellationToken)>,
}

struct Listening {
    bound: SocketAddr,
    layers: Layers,
    /// The same socket as the accept loop's.
    socket: OwnedFd,
    places: Arc<Semaphore>,
    stop: CancellationToken,
    closed: CancellationToken,
}

/// What has to agree for two roles to share a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layers {
    tls: bool,
    proxy_protocol: Vec<Network>,
}

#[derive(Clone)]
pub(crate) struct Route {
    id: u64,
    /// As registered, with the real port once bound.
    addr: SocketAddr,
    prefix: &'static str,
    layers: Layers,
    pub(crate) site: Arc<Site>,
    pub(crate) files: Option<Arc<dyn Files>>,
    /// The role's, for what its requests log.
    pub(crate) span: Span,
}

/// The routes of one listener, as they are at each moment.
#[derive(Clone)]
pub(crate) struct FrontRoutes {
    front: Weak<Shared>,
    listener: u64,
}

impl FrontRoutes {
    /// The route of a request that came to the address `local`.
    pub(crate) fn find(&self, local: SocketAddr, path: &str) -> Option<Route> {
        // A listener for both families writes IPv4 addresses in IPv6 form.
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        self.front.upgrade()?.find(self.listener, local, path)
    }

    /// Counts a connection of this client; not one of a proxy that speaks for its clients.
    pub(crate) fn count(&self, client: IpAddr) -> Result<Option<OfAddress>, TooMany> {
        match self.front.upgrade() {
            Some(front) if !front.is_proxy(self.listener, client) => {
                front.addresses.take(client).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// Keeps the routes alive; dropping it removes them.
#[must_use = "dropping the registration removes its routes"]
pub struct Registration {
    front: Weak<Shared>,
    id: u64,
    local_addr: SocketAddr,
}

impl Registration {
    /// The address bound, with the real port when 0 was asked for.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("local_addr", &self.local_addr).finish()
    }
}

impl fmt::Debug for HttpFront {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpFront")
    }
}

impl HttpFront {
    /// `tasks` is the supervisor's scope: a listener outlives the role that asked for it first.
    pub fn new(tasks: TaskScope) -> Self {
        let addresses = Addresses::new(CONNECTIONS_PER_ADDRESS);
        let shared = Shared { tasks, span: Span::current(), addresses, state: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// How many connections a client address may have from now on.
    pub fn set_connections_per_address(&self, limit: usize) {
        self.shared.addresses.set_limit(limit);
    }

    /// The client address that was refused a connection last, if one ever was.
    pub fn crowded(&self) -> Option<Crowded> {
        self.shared.addresses.crowded()
    }

    /// Serves the site until the registration is dropped. Binds its address unless the front listens
    /// there already, itself or through the unspecified address of the same port.
    pub async fn register(&self, site: Site) -> Result<Registration, BindError> {
        self.register_with(site, None).await
    }

    /// As [`HttpFront::register`], for a site that also has files.
    pub async fn register_files(
        &self,
        site: Site,
        files: Arc<dyn Files>,
    ) -> Result<Registration, BindError> {
        self.register_with(site, Some(files)).await
    }

    async fn register_with(
        &self,
        site: Site,
        files: Option<Arc<dyn Files>>,
    ) -> Result<Registration, BindError> {
        loop {
            let closing = {
                let mut state = self.shared.lock();
                match state.closing(site.addr) {
                    Some(closing) => closing,
                    None => return self.add(&mut state, site, files),
                }
            };
            if tokio::time::timeout(CLOSING, closing.cancelled()).await.is_err() {
                let source = "the port's former listener does not end";
                return Err(in_use(site.addr, source.to_owned()));
            }
        }
    }

    fn add(
        &self,
        state: &mut FrontState,
        site: Site,
        files: Option<Arc<dyn Files>>,
    ) -> Result<Registration, BindError> {
        let layers = Layers {
            tls: site.transport.certificates.is_some(),
            proxy_protocol: site.transport.proxy_protocol.clone(),
        };
        state.check_owners(&site, &layers)?;
        let addr = match state.listening(site.addr, &layers)? {
            true => site.addr,
            false => self.bind(state, site.addr, &layers)?,
        };
        state.next_id += 1;
        let (id, site, span) = (state.next_id, Arc::new(site), Span::current());
        for &prefix in site.prefixes {
            let (layers, site, span) = (layers.clone(), Arc::clone(&site), span.clone());
            let files = files.clone();
            state.routes.push(Route { id, addr, prefix, layers, site, files, span });
        }
        Ok(Registration { front: Arc::downgrade(&self.shared), id, local_addr: addr })
    }

    fn bind(
        &self,
        state: &mut FrontState,
        addr: SocketAddr,
        layers: &Layers,
    ) -> Result<SocketAddr, BindError> {
        let beside = state.listeners.values().filter(|other| overlap(other.bound, addr));
        let (listener, socket) = socket::bind_beside(addr, beside.map(|other| &other.socket))
            .map_err(|source| BindError::new(addr, source))?;
        let mut listener = Listener::from(listener);
        let bound = listener.local_addr().unwrap_or(addr);
        listener.proxy_protocol.clone_from(&layers.proxy_protocol);
        let front = Arc::downgrade(&self.shared);
        if layers.tls {
            listener = listener.over_tls(Arc::new(FrontCertificates { front, bound }), None)?;
        }
        state.next_id += 1;
        let id = state.next_id;
        let limits =
            HttpLimits { connections: CONNECTIONS, drain: Duration::MAX, ..HttpLimits::default() };
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let (stop, closed) = (CancellationToken::new(), CancellationToken::new());
        let routes = FrontRoutes { front: Arc::downgrade(&self.shared), listener: id };
        let what = Served { router: request::router(routes.clone()), routes: Some(routes) };
        let tasks = self.shared.tasks.clone();
        let serving =
            serve_counted(listener, what, limits, tasks, stop.clone(), Arc::clone(&places));
        let guard = closed.clone().drop_guard();
        self.shared.tasks.spawn_in(self.shared.span.clone(), "http front", async move {
            serving.await;
            drop(guard);
        });
        tracing::info!(addr = %bound, "listening");
        let layers = layers.clone();
        state.listeners.insert(id, Listening { bound, layers, socket, places, stop, closed });
        Ok(bound)
    }

    /// Listeners of now, by address.
    pub fn listeners(&self) -> Vec<ListenerReport> {
        let state = self.shared.lock();
        let reports = state.listeners.values().map(|listening| ListenerReport {
            addr: listening.bound,
            tls: listening.layers.tls,
            connections: CONNECTIONS.saturating_sub(listening.places.available_permits()),
        });
        let mut reports: Vec<_> = reports.collect();
        reports.sort_by_key(|report| report.addr);
        reports
    }

    /// Addresses listened on now.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners().iter().map(|report| report.addr).collect()
    }
}

/// Whether a listener on `wide` gets what is sent to `addr`: the unspecified IPv6 address gets
/// everything, that of IPv4 only IPv4.
fn covers(wide: SocketAddr, addr: SocketAddr) -> bool {
    wide.port() == addr.port()
        && (wide.ip() == addr.ip()
            || (wide.ip().is_unspecified() && (wide.is_ipv6() || addr.is_ipv4())))
}

fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    covers(a, b) || covers(b, a)
}

fn in_use(what: impl fmt::Display, why: String) -> BindError {
    BindError::new(what, Error::new(ErrorKind::AddrInUse, why))
}

impl FrontState {
    /// The end of a listener that still has the port.
    fn closing(&mut self, addr: SocketAddr) -> Option<CancellationToken> {
        self.closing.retain(|(_, closed)| !closed.is_cancelled());
        let waiting = self.closing.iter().find(|(bound, _)| overlap(*bound, addr));
        waiting.map(|(_, closed)| closed.clone())
    }

    /// A prefix of an address belongs to one role, but for [`ANYTHING_ELSE`].
    fn check_owners(&self, site: &Site, layers: &Layers) -> Result<(), BindError> {
        let other = self.routes.iter().find(|route| {
            route.site.owner != site.owner
                && route.layers == *layers
                && route.prefix != ANYTHING_ELSE
                && site.prefixes.contains(&route.prefix)
                && overlap(route.addr, site.addr)
        });
        other.map_or(Ok(()), |route| {
            let what = format!("{}{}", site.addr, route.prefix);
            Err(in_use(what, format!("the role {} serves that", route.site.owner)))
        })
    }

    /// Whether a listener with these layers gets what is sent to the address.
    fn listening(&self, addr: SocketAddr, layers: &Layers) -> Result<bool, BindError> {
        if addr.port() == 0 {
            return Ok(false);
        }
        let mut all = self.listeners.values();
        if all.clone().any(|it| covers(it.bound, addr) && it.layers == *layers) {
            return Ok(true);
        }
        match all.find(|it| it.bound == addr) {
            Some(other) if other.layers.tls != layers.tls => {
                let with = if other.layers.tls { "with" } else { "without" };
                Err(in_use(addr, format!("it is served {with} TLS already")))
            }
            Some(_) => {
                let why = "it is served for other senders of PROXY headers already";
                Err(in_use(addr, why.to_owned()))
            }
            None => Ok(false),
        }
    }

    /// Routes that requests of this listener may go to.
    fn routes_of(&self, listener: u64) -> impl Iterator<Item = &Route> {
        let listening = self.listeners.get(&listener);
        listening.into_iter().flat_map(|listening| {
            self.routes.iter().filter(|route| {
                overlap(route.addr, listening.bound) && route.layers == listening.layers
            })
        })
    }

    /// Whether a route would lose its port with this listener: one for all that it gets, or one for a
    /// part of it that has no listener of its own.
    fn is_needed(&self, listening: &Listening) -> bool {
        self.routes.iter().filter(|route| route.layers == listening.layers).any(|route| {
            let has_own = || {
                self.listeners.values().any(|other| {
                    other.layers == listening.layers
                        && other.bound != listening.bound
                        && covers(listening.bound, other.bound)
                        && covers(other.bound, route.addr)
                })
            };
            covers(route.addr, listening.bound)
                || (covers(listening.bound, route.addr) && !has_own())
        })
    }

    /// Ends the listeners that no route needs any more.
    fn sweep(&mut self) {
        let is_idle = |(_, listening): &(&u64, &Listening)| !self.is_needed(listening);
        let idle: Vec<u64> = self.listeners.iter().filter(is_idle).map(|(id, _)| *id).collect();
        for id in idle {
            if let Some(listening) = self.listeners.remove(&id) {
                listening.stop.cancel();
                self.closing.push((listening.bound, listening.closed));
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, FrontState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The route of a request that `listener` got at its address `local`.
    fn find(&self, listener: u64, local: SocketAddr, path: &str) -> Option<Route> {
        let state = self.lock();
        let matching = state.routes_of(listener).filter(|route| {
            overlap(route.addr, local) && (route.prefix == "/" || path.starts_with(route.prefix))
        });
        matching.max_by_key(|route| route.prefix.len()).cloned()
    }

    /// Whether some site of the listener trusts this peer to tell whose requests it brings.
    fn is_proxy(&self, listener: u64, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        let state = self.lock();
        state.routes_of(listener).any(|route| {
            let trusted = route.site.trusted_proxies.current();
            trusted.iter().any(|network| network.contains(peer))
        })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let Some(front) = self.front.upgrade() else { return };
        let mut state = front.lock();
        state.routes.retain(|route| route.id != self.id);
        state.sweep();
    }
}

/// The certificates of all roles on a listener.
struct FrontCertificates {
    front: Weak<Shared>,
    bound: SocketAddr,
}

impl fmt::Debug for FrontCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrontCertificates").field("bound", &self.bound).finish()
    }
}

impl ResolvesServerCert for FrontCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let front = self.front.upgrade()?;
        let owners: Vec<Certificates> = {
            let state = front.lock();
            let routes = state.routes.iter().filter(|route| overlap(route.addr, self.bound));
            routes.filter_map(|route| route.site.transport.certificates.clone()).collect()
        };
        choose(&owners, &hello)
    }
}
