//! Whether somebody else gives addresses on our interface: a DISCOVER of a client that nobody knows.
//! Our own dnsmasq stays silent for it, so whoever offers something is another server.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use dhcp_api::answer::OtherServer;
use dhcp_api::words::InterfaceName;
use nix::sys::socket::sockopt::{BindToDevice, ReuseAddr};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket};

/// For an answer; a server may think about it for a while.
const WAIT: Duration = Duration::from_secs(3);
/// For the others, once somebody has answered.
const OTHERS: Duration = Duration::from_millis(500);
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Servers that are told.
const MOST: usize = 32;
/// What is read of one message.
const LARGEST: usize = 1500;

/// Asks on `interface`, and gives everybody who answers; `seed` makes the client unknown.
pub(crate) fn probe(interface: &InterfaceName, seed: [u8; 8]) -> io::Result<Vec<OtherServer>> {
    let socket = open(interface)?;
    let [a, b, c, d, id @ ..] = seed;
    // Locally administered, one NIC.
    let mac = [0x02, 0x51, a, b, c, d];
    socket.send_to(&discover(mac, id), (Ipv4Addr::BROADCAST, 67))?;
    let mut deadline = Instant::now() + WAIT;
    let mut servers: BTreeMap<(Ipv4Addr, Option<Ipv4Addr>), OtherServer> = BTreeMap::new();
    let mut buffer = [0; LARGEST];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(servers.into_values().collect());
        }
        socket.set_read_timeout(Some(left))?;
        let (length, from) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        let (std::net::IpAddr::V4(ip), Some(message)) = (from.ip(), buffer.get(..length)) else {
            continue;
        };
        if let Some(offered) = offer(message, mac, id)
            && servers.len() < MOST
        {
            let server = OtherServer { ip, server_id: offered.server, offers: offered.address };
            servers.insert((ip, offered.server), server);
            deadline = deadline.min(Instant::now() + OTHERS);
        }
    }
}

/// A socket of a client on the interface; another client of the machine may have one, too.
fn open(interface: &InterfaceName) -> io::Result<UdpSocket> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, ReuseAddr, &true)?;
    setsockopt(&socket, BindToDevice, &OsString::from(interface.as_str()))?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrIn::new(0, 0, 0, 0, 68))?;
    let socket = UdpSocket::from(socket);
    socket.set_broadcast(true)?;
    Ok(socket)
}

fn discover(mac: [u8; 6], id: [u8; 4]) -> Vec<u8> {
    // op, hardware type and length, hops
    let mut packet = vec![1, 1, 6, 0];
    packet.extend(id);
    // Seconds, then the flag for answers by broadcast; no addresses.
    packet.extend([0, 0, 0x80, 0]);
    packet.extend([0; 16]);
    packet.extend(mac);
    packet.extend([0; 10 + 64 + 128]);
    packet.extend(COOKIE);
    // DISCOVER, asking for mask and router.
    packet.extend([53, 1, 1, 55, 2, 1, 3, 255]);
    packet.resize(300, 0);
    packet
}

#[derive(Debug, PartialEq, Eq)]
struct Offer {
    address: Ipv4Addr,
    server: Option<Ipv4Addr>,
}

/// Reads an offer to this client; whatever else comes to the port is none.
fn offer(message: &[u8], mac: [u8; 6], id: [u8; 4]) -> Option<Offer> {
    let is_ours = message.first() == Some(&2)
        && message.get(4..8) == Some(&id)
        && message.get(28..34) == Some(&mac)
        && message.get(236..240) == Some(&COOKIE);
    let mut rest = message.get(240..).filter(|_| is_ours)?;
    let (mut kind, mut server) = (None, None);
    while let [code, after @ ..] = rest {
        match (code, after) {
            (255, _) => break,
            (0, _) => rest = after,
            (code, [length, after @ ..]) => {
                let value = after.get(..usize::from(*length))?;
                match code {
                    53 => kind = value.first().copied(),
                    54 => server = <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from),
                    _ => {}
                }
                rest = after.get(usize::from(*length)..)?;
            }
            _ => break,
        }
    }
    let address = <[u8; 4]>::try_from(message.get(16..20)?).ok()?;
    (kind == Some(2)).then_some(Offer { address: address.into(), server })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: [u8; 6] = [2, 0x51, 1, 2, 3, 4];
    const ID: [u8; 4] = [9, 8, 7, 6];

    fn answer(kind: u8) -> Vec<u8> {
        let mut packet = discover(MAC, ID);
        packet[0] = 2;
        packet[16..20].copy_from_slice(&[10, 0, 0, 9]);
        packet.truncate(240);
        packet.extend([53, 1, kind, 0, 54, 4, 10, 0, 0, 1, 255]);
        packet
    }

    #[test]
    fn only_an_offer_to_the_client_that_asked_counts() {
        let found = Offer { address: [10, 0, 0, 9].into(), server: Some([10, 0, 0, 1].into()) };
        assert_eq!(offer(&answer(2), MAC, ID), Some(found));
        assert_eq!(offer(&answer(5), MAC, ID), None, "an acknowledgement");
        assert_eq!(offer(&answer(2), MAC, [0; 4]), None, "to another question");
        assert_eq!(offer(&answer(2), [2, 0, 0, 0, 0, 0], ID), None, "to another client");
        assert_eq!(offer(&discover(MAC, ID), MAC, ID), None, "our own question");
    }

    proptest! {
        /// Anybody may send anything to the port.
        #[test]
        fn no_message_is_too_odd(start in 0usize..260, more in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut packet = answer(2);
            packet.truncate(start);
            packet.extend(more);
            offer(&packet, MAC, ID);
        }
    }
}
