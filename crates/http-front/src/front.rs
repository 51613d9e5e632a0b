//! The HTTP front of the process: one port, several roles.
//!
//! In the originals the storage VM's web server and the console proxy both serve on port 80, each
//! on a machine of its own. In one process they meet: the server's links name the host's address
//! without a port, so both must answer on port 80. A role registers path prefixes on an address;
//! a request goes to the longest matching prefix registered for the address it arrived at. Roles
//! neither see each other nor share anything but the port: a role that stops takes its prefixes
//! with it, and the listener ends with its last prefix.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::listener::{BindError, HttpLimits, Listener, Peer, serve};
use task_scope::TaskScope;

/// Hands out routes on shared listeners. Cloneable; clones share everything.
#[derive(Clone)]
pub struct HttpFront {
    shared: Arc<Shared>,
}

struct Shared {
    tasks: TaskScope,
    limits: HttpLimits,
    state: Mutex<FrontState>,
    /// Serialises binding, which awaits; the state's lock is never held across an await.
    binding: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct FrontState {
    next_id: u64,
    routes: Vec<Route>,
    listeners: HashMap<SocketAddr, Listening>,
}

struct Listening {
    bound: SocketAddr,
    stop: CancellationToken,
}

#[derive(Clone)]
struct Route {
    id: u64,
    owner: &'static str,
    /// As registered, with the real port once bound.
    addr: SocketAddr,
    prefix: &'static str,
    router: Router,
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

/// Connections of one shared listener; consoles and downloads hold theirs for hours.
const CONNECTIONS: usize = 4096;

impl HttpFront {
    /// `tasks` is the supervisor's scope: a listener outlives the role that asked for it first.
    pub fn new(tasks: TaskScope) -> Self {
        let limits = HttpLimits { connections: CONNECTIONS, ..HttpLimits::default() };
        Self {
            shared: Arc::new(Shared {
                tasks,
                limits,
                state: Mutex::default(),
                binding: tokio::sync::Mutex::new(()),
            }),
        }
    }

    /// Serves `router` of the role `owner` for requests that arrive at `addr` with a path below one of `prefixes`
    /// ("/" for everything nobody else wants). The router sees the whole path.
    ///
    /// Binds `addr` unless the front listens there already, itself or through the unspecified
    /// address of the same port; a specific listener gives way to an unspecified one.
    pub async fn register(
        &self,
        owner: &'static str,
        addr: SocketAddr,
        prefixes: &[&'static str],
        router: Router,
    ) -> Result<Registration, BindError> {
        let _serialised = self.shared.binding.lock().await;
        let bound = match self.shared.listening(addr) {
            Some(bound) => bound,
            None => self.bind(addr).await?,
        };
        let mut state = self.shared.lock();
        state.next_id += 1;
        let id = state.next_id;
        for &prefix in prefixes {
            let taken = state.routes.iter().any(|route| {
                route.prefix == prefix && route.owner != owner && overlap(route.addr, bound)
            });
            if taken {
                state.routes.retain(|route| route.id != id);
                return Err(BindError {
                    what: format!("{bound}{prefix}"),
                    source: std::io::Error::from(std::io::ErrorKind::AddrInUse),
                });
            }
            state.routes.push(Route { id, owner, addr: bound, prefix, router: router.clone() });
        }
        drop(state);
        Ok(Registration { front: Arc::downgrade(&self.shared), id, local_addr: bound })
    }

    async fn bind(&self, addr: SocketAddr) -> Result<SocketAddr, BindError> {
        if addr.ip().is_unspecified() && addr.port() != 0 {
            // Linux refuses the wildcard while a specific address of the port listens.
            self.shared.stop_specific(addr).await;
        }
        let listener = Listener::tcp(addr).await?;
        let bound = listener.local_addr().unwrap_or(addr);
        let stop = CancellationToken::new();
        self.shared.lock().listeners.insert(bound, Listening { bound, stop: stop.clone() });
        let router = Router::new().fallback(route).with_state(Arc::downgrade(&self.shared));
        let (tasks, limits) = (self.shared.tasks.clone(), self.shared.limits);
        self.shared.tasks.spawn("http front", serve(listener, router, limits, tasks, stop));
        tracing::info!(addr = %bound, "listening");
        Ok(bound)
    }

    /// Addresses listened on now, for `/status`.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let mut list: Vec<_> = self.shared.lock().listeners.keys().copied().collect();
        list.sort();
        list
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

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, FrontState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address to register at, when a listener already covers `addr`.
    fn listening(&self, addr: SocketAddr) -> Option<SocketAddr> {
        if addr.port() == 0 {
            return None;
        }
        let state = self.lock();
        let covered = state.listeners.values().any(|listening| covers(listening.bound, addr));
        covered.then_some(addr)
    }

    async fn stop_specific(&self, wide: SocketAddr) {
        let stopped: Vec<Listening> = {
            let mut state = self.lock();
            let keys: Vec<_> =
                state.listeners.keys().filter(|bound| covers(wide, **bound)).copied().collect();
            keys.iter().filter_map(|key| state.listeners.remove(key)).collect()
        };
        for listening in stopped {
            listening.stop.cancel();
            // The accept loop drops its socket at its next poll; waiting for that is bounded.
            for _attempt in 0..250 {
                if tokio::net::TcpListener::bind(listening.bound).await.is_ok() {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        }
    }

    fn find(&self, local: SocketAddr, path: &str) -> Option<Router> {
        let state = self.lock();
        let matching = state.routes.iter().filter(|route| {
            overlap(route.addr, local) && (route.prefix == "/" || path.starts_with(route.prefix))
        });
        matching.max_by_key(|route| route.prefix.len()).map(|route| route.router.clone())
    }
}

async fn route(
    State(front): State<Weak<Shared>>,
    Extension(peer): Extension<Peer>,
    request: Request<Body>,
) -> Response<Body> {
    let local = match peer {
        // A listener for both families writes IPv4 addresses in IPv6 form.
        Peer::Tcp { local, .. } => SocketAddr::new(local.ip().to_canonical(), local.port()),
        Peer::Unix => return StatusCode::NOT_FOUND.into_response(),
    };
    let router = front.upgrade().and_then(|front| front.find(local, request.uri().path()));
    match router {
        Some(router) => match router.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        None => (StatusCode::NOT_FOUND, "no service of this host answers here\n").into_response(),
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let Some(front) = self.front.upgrade() else { return };
        let mut state = front.lock();
        state.routes.retain(|route| route.id != self.id);
        let FrontState { routes, listeners, .. } = &mut *state;
        listeners.retain(|bound, listening| {
            let used = routes.iter().any(|route| overlap(route.addr, *bound));
            if !used {
                listening.stop.cancel();
            }
            used
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const SS: &str = "ss";
    const CP: &str = "cp";

    fn says(text: &'static str) -> Router {
        Router::new().fallback(get(move || async move { text }))
    }

    async fn fetch(addr: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.rsplit("\r\n").next().unwrap().to_owned()
    }

    #[tokio::test]
    async fn two_roles_share_a_port_by_longest_prefix_until_each_leaves() {
        let front = HttpFront::new(TaskScope::new());
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let cp = front.register(CP, any, &["/"], says("cp")).await.unwrap();
        let addr = cp.local_addr();
        let ss = front.register(SS, addr, &["/userdata/"], says("ss")).await.unwrap();
        assert_eq!(fetch(addr, "/userdata/x").await, "ss");
        assert_eq!(fetch(addr, "/userdatax").await, "cp");
        drop(cp);
        assert!(fetch(addr, "/").await.contains("no service"));
        assert_eq!(fetch(addr, "/userdata/x").await, "ss");
        drop(ss);
        assert_eq!(front.addresses(), []);
    }

    #[test]
    fn the_wildcard_of_ipv6_gets_everything_and_that_of_ipv4_only_ipv4() {
        let check = |wide: &str, addr: &str, expected: bool| {
            let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
            assert_eq!(covers(parse(wide), parse(addr)), expected, "{wide} {addr}");
        };
        check("0.0.0.0:80", "10.0.0.1:80", true);
        check("[::]:80", "10.0.0.1:80", true);
        check("[::]:80", "0.0.0.0:80", true);
        check("0.0.0.0:80", "[::]:80", false);
        check("0.0.0.0:80", "[2001:db8::1]:80", false);
        check("0.0.0.0:80", "10.0.0.1:81", false);
        check("10.0.0.1:80", "10.0.0.2:80", false);
    }

    #[tokio::test]
    async fn both_wildcards_of_a_port_serve_both_families() {
        if std::net::TcpListener::bind("[::1]:0").is_err() {
            // Without IPv6 there is one family only.
            return;
        }
        let front = HttpFront::new(TaskScope::new());
        let four = front.register(CP, SocketAddr::from(([0, 0, 0, 0], 0)), &["/"], says("cp"));
        let four = four.await.unwrap();
        let port = four.local_addr().port();
        let six = SocketAddr::from(([0_u16; 8], port));
        let _six = front.register(CP, six, &["/"], says("cp")).await.unwrap();
        let one = SocketAddr::from(([127, 0, 0, 1], port));
        let _ss = front.register(SS, one, &["/userdata/"], says("ss")).await.unwrap();
        let six = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1_u16], port));
        assert_eq!((fetch(one, "/").await.as_str(), fetch(six, "/").await.as_str()), ("cp", "cp"));
        assert_eq!(fetch(one, "/userdata/x").await, "ss");
    }

    #[tokio::test]
    async fn a_prefix_belongs_to_one_role() {
        let front = HttpFront::new(TaskScope::new());
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let cp = front.register(CP, any, &["/"], says("cp")).await.unwrap();
        let error = front.register(SS, cp.local_addr(), &["/"], says("ss")).await.unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {}/", cp.local_addr()));
    }

    #[tokio::test]
    async fn a_specific_listener_gives_way_to_the_wildcard_and_keeps_its_routes() {
        let front = HttpFront::new(TaskScope::new());
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let ss = front.register(SS, any, &["/userdata/"], says("ss")).await.unwrap();
        let port = ss.local_addr().port();
        let wildcard = SocketAddr::from(([0, 0, 0, 0], port));
        let _cp = front.register(CP, wildcard, &["/"], says("cp")).await.unwrap();
        assert_eq!(fetch(ss.local_addr(), "/userdata/x").await, "ss");
        assert_eq!(fetch(SocketAddr::from(([127, 0, 0, 2], port)), "/userdata/x").await, "cp");
        assert_eq!(front.addresses(), [wildcard]);
    }
}
