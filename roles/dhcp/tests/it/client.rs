//! A DHCP client of our own: it says exactly what it was sent, byte for byte.
//!
//! It speaks over a plain UDP socket in the client's namespace and asks for answers by broadcast,
//! so that it can be any MAC without changing the interface's.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{setsockopt, sockopt::BindToDevice};

const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// For an answer; a server on the same machine that answers does so within milliseconds.
const ANSWER: Duration = Duration::from_secs(2);
/// What it takes to believe that there is none.
const SILENCE: Duration = Duration::from_millis(300);
/// Everything a usual client asks for.
const USUAL: [u8; 9] = [1, 3, 6, 12, 15, 26, 28, 42, 119];

/// A socket in the client's namespace.
#[derive(Debug)]
pub(crate) struct Client {
    socket: UdpSocket,
    /// Of a relay, whose address goes into every message; then the server's.
    relay: Option<(Ipv4Addr, Ipv4Addr)>,
}

/// What the client says of itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asks<'a> {
    pub(crate) options: &'a [u8],
    /// Option 60.
    pub(crate) vendor: Option<&'a str>,
    /// Option 57: the largest message it takes.
    pub(crate) largest: Option<u16>,
}

/// An offer or an acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) address: Ipv4Addr,
    pub(crate) next_server: Ipv4Addr,
    pub(crate) options: BTreeMap<u8, Vec<u8>>,
}

impl Given {
    pub(crate) fn ip(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn text(&self, code: u8) -> Option<String> {
        Some(String::from_utf8(self.options.get(&code)?.clone()).unwrap())
    }

    pub(crate) fn addresses(&self, code: u8) -> Vec<Ipv4Addr> {
        let bytes = self.options.get(&code).map(Vec::as_slice).unwrap_or_default();
        bytes.chunks(4).map(|four| <[u8; 4]>::try_from(four).unwrap().into()).collect()
    }
}

impl Client {
    pub(crate) fn new(namespace: &str) -> Self {
        Self { socket: socket(namespace, (Ipv4Addr::UNSPECIFIED, 68)), relay: None }
    }

    /// A client behind a relay with this address.
    pub(crate) fn behind(namespace: &str, relay: Ipv4Addr, server: Ipv4Addr) -> Self {
        Self { socket: socket(namespace, (relay, 67)), relay: Some((relay, server)) }
    }

    /// Discover, offer, request, acknowledgement; `None` when nobody answers.
    pub(crate) fn lease(&self, mac: &str) -> Option<Given> {
        let asks = Asks { options: &USUAL, ..Asks::default() };
        let offer = self.exchange(mac, 1, asks, &[], SILENCE)?;
        let server = offer.options[&54].clone();
        let chosen = [(50, offer.address.octets().to_vec()), (54, server)];
        let given = self.exchange(mac, 3, asks, &chosen, ANSWER).expect("an acknowledgement");
        assert_eq!(given.options[&53], [5], "acknowledged");
        Some(given)
    }

    /// Says that somebody else has the address that was given.
    pub(crate) fn decline(&self, mac: &str, given: &Given) {
        let about = [(50, given.address.octets().to_vec()), (54, given.options[&54].clone())];
        let answer = self.exchange(mac, 4, Asks::default(), &about, Duration::from_millis(1));
        assert_eq!(answer, None, "nobody answers to that");
    }

    /// Asks for an address that it had, as after a restart: the kind of the answer.
    pub(crate) fn again(&self, mac: &str, address: Ipv4Addr) -> Option<u8> {
        let about = [(50, address.octets().to_vec())];
        let answer = self.exchange(mac, 3, Asks::default(), &about, ANSWER)?;
        answer.options[&53].first().copied()
    }

    /// The offer for a client that asks like this.
    pub(crate) fn offer(&self, mac: &str, asks: Asks<'_>) -> Given {
        self.exchange(mac, 1, asks, &[], ANSWER).expect("an offer")
    }

    fn exchange(
        &self,
        mac: &str,
        kind: u8,
        asks: Asks<'_>,
        more: &[(u8, Vec<u8>)],
        limit: Duration,
    ) -> Option<Given> {
        let mac: Vec<u8> =
            mac.split(':').map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        let id: [u8; 4] = uuid::Uuid::new_v4().as_bytes()[..4].try_into().unwrap();
        let mut packet = vec![1, 1, 6, 0];
        packet.extend(id);
        // Seconds, then the flag for answers by broadcast.
        packet.extend([0, 0, 0x80, 0]);
        packet.extend([0; 12]);
        packet.extend(self.relay.map_or([0; 4], |(relay, _)| relay.octets()));
        packet.extend(&mac);
        packet.extend([0; 10 + 64 + 128]);
        packet.extend(COOKIE);
        packet.extend([53, 1, kind]);
        let mut options = more.to_vec();
        if !asks.options.is_empty() {
            options.push((55, asks.options.to_vec()));
        }
        options.extend(asks.vendor.map(|vendor| (60, vendor.as_bytes().to_vec())));
        options.extend(asks.largest.map(|largest| (57, largest.to_be_bytes().to_vec())));
        for (code, value) in options {
            packet.extend([code, u8::try_from(value.len()).unwrap()]);
            packet.extend(value);
        }
        packet.push(255);
        packet.resize(packet.len().max(300), 0);
        let server = self.relay.map_or(Ipv4Addr::BROADCAST, |(_, server)| server);
        self.socket.send_to(&packet, (server, 67)).unwrap();
        let deadline = std::time::Instant::now() + limit;
        let mut buffer = [0; 2048];
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
            match self.socket.recv(&mut buffer) {
                Ok(length) if buffer[4..8] == id => return Some(read(&buffer[..length])),
                Ok(_) => {}
                Err(_) if !left.is_zero() => {}
                Err(_) => return None,
            }
        }
    }
}

/// Namespaces belong to threads, and a socket to the one it was made in.
fn socket(namespace: &str, bind: (Ipv4Addr, u16)) -> UdpSocket {
    let namespace = File::open(format!("/run/netns/{namespace}")).unwrap();
    let made = std::thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        let socket = UdpSocket::bind(bind).unwrap();
        setsockopt(&socket, BindToDevice, &"eth0".into()).unwrap();
        socket.set_broadcast(true).unwrap();
        socket
    });
    made.join().unwrap()
}

fn read(packet: &[u8]) -> Given {
    let address = |at: usize| <[u8; 4]>::try_from(&packet[at..at + 4]).unwrap().into();
    let mut options = BTreeMap::new();
    collect(&packet[240..], &mut options);
    // Option 52: the fields for file and server name carry options, too.
    let overload = options.get(&52).map_or(0, |value: &Vec<u8>| value[0]);
    if overload & 1 != 0 {
        collect(&packet[108..236], &mut options);
    }
    if overload & 2 != 0 {
        collect(&packet[44..108], &mut options);
    }
    Given { address: address(16), next_server: address(20), options }
}

/// An option that comes twice is one (RFC 3396).
fn collect(mut bytes: &[u8], options: &mut BTreeMap<u8, Vec<u8>>) {
    while let [code, rest @ ..] = bytes {
        match (code, rest) {
            (255, _) => return,
            (0, _) => bytes = rest,
            (code, [length, rest @ ..]) => {
                let (value, after) = rest.split_at(usize::from(*length));
                options.entry(*code).or_default().extend(value);
                bytes = after;
            }
            _ => panic!("an option without a length"),
        }
    }
}
