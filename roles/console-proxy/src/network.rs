//! Who the client is behind trusted proxies.

use std::net::{IpAddr, SocketAddr};

use bedrock::net::Network;

/// The client's address: the peer of the connection, or, when that is a trusted proxy, the last
/// address in `X-Forwarded-For` that is not one.
pub(crate) fn client_address(peer: IpAddr, forwarded: &[&str], trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let peer = peer.to_canonical();
    if !is_trusted(peer) {
        return peer;
    }
    let chain = forwarded.iter().rev().flat_map(|line| line.rsplit(','));
    let mut client = peer;
    for hop in chain {
        // Some proxies add the port.
        let address = hop.trim().parse::<IpAddr>();
        let address =
            address.or_else(|_error| hop.trim().parse().map(|addr: SocketAddr| addr.ip()));
        let Ok(address) = address else { break };
        client = address.to_canonical();
        if !is_trusted(client) {
            break;
        }
    }
    client
}

/// Whether a text is this address, however it is written: Java writes IPv6 uncompressed.
pub(crate) fn is_address(text: &str, address: IpAddr) -> bool {
    let text = text.trim().trim_matches(['[', ']']);
    let text = text.split_once('%').map_or(text, |(text, _scope)| text);
    text.parse::<IpAddr>().is_ok_and(|parsed| parsed.to_canonical() == address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_trusted_proxy() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let check = |peer: &str, forwarded: &[&str], expected: &str| {
            assert_eq!(client_address(ip(peer), forwarded, &trusted), ip(expected));
        };
        check("192.0.2.1", &["203.0.113.9"], "192.0.2.1");
        check("10.0.0.1", &["198.51.100.1, 203.0.113.9"], "203.0.113.9");
        check("10.0.0.1", &["198.51.100.1", "203.0.113.9, 10.0.0.2"], "203.0.113.9");
        check("10.0.0.1", &["nonsense, 10.0.0.2"], "10.0.0.2");
        check("10.0.0.1", &["203.0.113.9:50123"], "203.0.113.9");
        check("10.0.0.1", &["[2001:db8::1]:50123"], "2001:db8::1");
        check("10.0.0.1", &[], "10.0.0.1");
        check("::ffff:192.0.2.1", &[], "192.0.2.1");
    }

    #[test]
    fn addresses_are_compared_as_addresses() {
        let check = |text: &str, address: &str, expected: bool| {
            assert_eq!(is_address(text, ip(address)), expected, "{text} {address}");
        };
        check("2001:db8:0:0:0:0:0:1", "2001:db8::1", true);
        check("::ffff:192.0.2.1", "192.0.2.1", true);
        check("fe80::1%eth0", "fe80::1", true);
        check("192.0.2.1", "192.0.2.2", false);
        check("", "192.0.2.2", false);
    }
}
