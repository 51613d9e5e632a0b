//! HTTP/1.1 over TCP, as much as the client of an API needs; signatures; and what goes wrong.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha1::Sha1;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::answer::{Query, answer, refusal};
use crate::world::World;

/// A request's head; the calls of a sync stay far below.
const LONGEST_HEAD: usize = 16 * 1024;
/// What the signature leaves alone besides letters and digits.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'*').remove(b'_');

/// A key pair that is accepted.
#[derive(Debug, Clone)]
pub struct Keys {
    pub api: String,
    pub secret: String,
}

/// What goes wrong with the next call that it fits.
#[derive(Debug, Clone)]
pub enum Fault {
    /// A refusal with this code.
    Refuse(u16),
    /// A page of a proxy.
    NotAnAnswer(u16),
    /// The answer breaks off half way.
    Cut,
    /// The connection closes without an answer.
    Close,
    /// The answer takes so long.
    Slow(Duration),
    /// A success with nothing in it.
    Empty,
    /// This document instead of the answer.
    Forged(String),
}

type Change = Box<dyn FnOnce(&mut World) + Send>;

struct Inner {
    world: Mutex<World>,
    keys: Keys,
    /// Faults with the command that they are for.
    faults: Mutex<VecDeque<(String, Fault)>>,
    /// Changes made before a page of machines is answered.
    drifts: Mutex<VecDeque<(u32, Change)>>,
    log: Mutex<Vec<Query>>,
}

/// The running server. Cloneable; clones share everything.
#[derive(Clone)]
pub struct DemoApi {
    address: SocketAddr,
    inner: Arc<Inner>,
}

impl std::fmt::Debug for DemoApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DemoApi").field("address", &self.address).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DemoApi {
    /// Serves `world` at `address`; give the future to a task.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(
        address: SocketAddr,
        world: World,
        keys: Keys,
        stop: CancellationToken,
    ) -> io::Result<(Self, impl Future<Output = ()> + Send + 'static)> {
        let listener = TcpListener::bind(address).await?;
        let inner = Arc::new(Inner {
            world: Mutex::new(world),
            keys,
            faults: Mutex::default(),
            drifts: Mutex::default(),
            log: Mutex::default(),
        });
        let api = Self { address: listener.local_addr()?, inner: Arc::clone(&inner) };
        Ok((api, async move {
            stop.run_until_cancelled(accept(listener, inner)).await.unwrap_or_default();
        }))
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the API is.
    pub fn url(&self) -> String {
        format!("http://{}/client/api", self.address)
    }

    /// Looks at what the server knows, or changes it.
    pub fn with<T>(&self, work: impl FnOnce(&mut World) -> T) -> T {
        work(&mut locked(&self.inner.world))
    }

    /// The next call of `command` goes wrong.
    pub fn fault(&self, command: &str, fault: Fault) {
        locked(&self.inner.faults).push_back((command.to_owned(), fault));
    }

    /// Something changes before the next answer with this page of machines.
    pub fn drift(&self, page: u32, change: impl FnOnce(&mut World) + Send + 'static) {
        locked(&self.inner.drifts).push_back((page, Box::new(change)));
    }

    /// Faults and drifts that have not come yet.
    pub fn pending(&self) -> usize {
        locked(&self.inner.faults).len() + locked(&self.inner.drifts).len()
    }

    /// Every call so far.
    pub fn calls(&self) -> Vec<Query> {
        locked(&self.inner.log).clone()
    }
}

async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    // Connections end with the server: the set is dropped with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let inner = Arc::clone(&inner);
                drop(connections.spawn(async move {
                    if let Err(error) = serve(stream, &inner).await {
                        tracing::trace!(%error, "a connection of the demo API ended");
                    }
                }));
            }
            Err(error) => {
                tracing::debug!(%error, "the demo API cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: TcpStream, inner: &Inner) -> io::Result<()> {
    loop {
        let Some((head, form)) = read_request(&mut stream).await? else { return Ok(()) };
        let target = head.split(' ').nth(1).unwrap_or_default();
        let in_target = target.split_once('?').map_or("", |(_, query)| query);
        let query = parse(if form.is_empty() { in_target } else { &form });
        locked(&inner.log).push(query.clone());
        let command = query.get("command").cloned().unwrap_or_default();
        let (status, body) = match fault_for(inner, &command) {
            Some(Fault::Close) => return Ok(()),
            Some(Fault::Cut) => {
                let (_, body) = respond(inner, &query);
                let half = body.get(..body.len() / 2).unwrap_or_default();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all(format!("{head}{half}").as_bytes()).await?;
                return stream.shutdown().await;
            }
            Some(Fault::Refuse(code)) => refusal(&command, code, "refused as told"),
            Some(Fault::NotAnAnswer(status)) => (status, "<html>Bad Gateway".to_owned()),
            Some(Fault::Empty) => {
                let root = command.to_ascii_lowercase() + "response";
                (200, format!("<{root} cloud-stack-version=\"4.22.0.0\"/>"))
            }
            Some(Fault::Forged(body)) => (200, body),
            Some(Fault::Slow(time)) => {
                tokio::time::sleep(time).await;
                respond(inner, &query)
            }
            None => respond(inner, &query),
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: text/xml;charset=utf-8\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
    }
}

/// Head and body of a request; the body is a form, if there is one.
async fn read_request(stream: &mut TcpStream) -> io::Result<Option<(String, String)>> {
    const END: &[u8] = b"\r\n\r\n";
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(END.len()).position(|window| window == END) {
            let body = bytes.split_off(end + END.len());
            let Ok(head) = String::from_utf8(bytes) else { return Ok(None) };
            return read_form(stream, head, body).await;
        }
        if bytes.len() > LONGEST_HEAD || stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
}

async fn read_form(
    stream: &mut TcpStream,
    head: String,
    mut body: Vec<u8>,
) -> io::Result<Option<(String, String)>> {
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let length = length.unwrap_or_default();
    while body.len() < length {
        if length > LONGEST_HEAD || stream.read_buf(&mut body).await? == 0 {
            return Ok(None);
        }
    }
    Ok(String::from_utf8(body).ok().map(|form| (head, form)))
}

fn fault_for(inner: &Inner, command: &str) -> Option<Fault> {
    let mut faults = locked(&inner.faults);
    let index = faults.iter().position(|(wanted, _)| wanted == command)?;
    faults.remove(index).map(|(_, fault)| fault)
}

fn respond(inner: &Inner, query: &Query) -> (u16, String) {
    if !is_signed(query, &inner.keys) {
        return refusal("", 401, "unable to verify user credentials");
    }
    let page = query.get("page").and_then(|page| page.parse::<u32>().ok());
    let is_full = query.get("command").is_some_and(|command| command == "listVirtualMachines")
        && !query.contains_key("state")
        && !query.contains_key("id")
        && query.contains_key("projectid");
    let mut world = locked(&inner.world);
    if is_full {
        let mut drifts = locked(&inner.drifts);
        if drifts.front().is_some_and(|(wanted, _)| Some(*wanted) == page)
            && let Some((_, change)) = drifts.pop_front()
        {
            change(&mut world);
        }
    }
    crate::change::change(&mut world, query).unwrap_or_else(|| answer(&world, query))
}

fn parse(query: &str) -> Query {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name).to_ascii_lowercase(), decoded(value))).collect()
}

/// The server's check: every parameter but the signature, sorted, escaped, in lower case.
fn is_signed(query: &Query, keys: &Keys) -> bool {
    let Some(given) = query.get("signature") else { return false };
    let pairs = query.iter().filter(|(name, _)| *name != "signature");
    let pairs =
        pairs.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, ESCAPED)));
    let text = pairs.collect::<Vec<_>>().join("&").to_lowercase();
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(keys.secret.as_bytes()) else { return false };
    mac.update(text.as_bytes());
    let expected = STANDARD.encode(mac.finalize().into_bytes());
    query.get("apikey") == Some(&keys.api) && *given == expected
}
