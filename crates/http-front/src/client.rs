//! Whose request it is: the client's address behind proxies, decided in this one place.
//!
//! A proxy is believed only when it is a trusted one, hop by hop from our end of the chain: the
//! client is the first address that no trusted proxy has. A client can send both `X-Forwarded-For`
//! and `Forwarded`, and a proxy that knows one of them passes the other through. So two headers that
//! disagree are believed neither.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::header::FORWARDED;
use axum::http::{HeaderMap, HeaderName};
use bedrock::net::Network;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client's address; an extension of every request that came over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// Proxies whose word about the client is taken. Cloneable; clones share everything, so that whoever
/// holds one can change what is believed of the next request.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Arc<RwLock<Arc<[Network]>>>);

impl From<Vec<Network>> for TrustedProxies {
    fn from(networks: Vec<Network>) -> Self {
        Self(Arc::new(RwLock::new(networks.into())))
    }
}

impl TrustedProxies {
    /// Believes these from now on.
    pub fn replace(&self, networks: Vec<Network>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = networks.into();
    }

    pub(crate) fn current(&self) -> Arc<[Network]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The client's address: the peer of the connection, or, when that is a trusted proxy, the last
/// address it tells of that is not one.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(peer) {
        return peer;
    }
    let told = |name: &HeaderName, hops: fn(&str) -> Vec<Option<IpAddr>>| {
        headers.contains_key(name).then(|| {
            // A line that is not text says nothing, and so does what stands before it.
            let lines = headers.get_all(name).iter().rev();
            let hops = lines.flat_map(|line| line.to_str().map_or_else(|_| vec![None], hops));
            let mut client = peer;
            for hop in hops {
                let Some(address) = hop else { break };
                client = address;
                if !is_trusted(client) {
                    break;
                }
            }
            client
        })
    };
    match (told(&X_FORWARDED_FOR, x_forwarded_for), told(&FORWARDED, forwarded)) {
        (None, None) => peer,
        (Some(client), None) | (None, Some(client)) => client,
        (Some(first), Some(second)) if first == second => first,
        (Some(first), Some(second)) => {
            tracing::debug!(%peer, x_forwarded_for = %first, forwarded = %second, "proxy contradicts itself");
            peer
        }
    }
}

/// An address as it stands in headers, tokens and logs: bare, in brackets, with a scope, with a
/// port. IPv4 in IPv6 form is IPv4.
pub fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let address = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, after) = rest.split_once(']')?;
            let port = after.strip_prefix(':');
            if !after.is_empty() && !port.is_some_and(is_port) {
                return None;
            }
            IpAddr::V6(scoped(inside)?)
        }
        None => text
            .parse()
            .ok()
            .or_else(|| text.parse().map(|addr: SocketAddr| addr.ip()).ok())
            .or_else(|| scoped(text).map(IpAddr::V6))?,
    };
    Some(address.to_canonical())
}

/// Some proxies write no number: RFC 7239 allows `_name` to hide it.
fn is_port(text: &str) -> bool {
    let hidden = text.strip_prefix('_');
    hidden.map_or_else(
        || text.parse::<u16>().is_ok(),
        |name| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        },
    )
}

/// An IPv6 address, the scope (`%eth0`) of a link-local one left out.
fn scoped(text: &str) -> Option<Ipv6Addr> {
    let (address, scope) = text.split_once('%').map_or((text, None), |(a, scope)| (a, Some(scope)));
    if scope.is_some_and(str::is_empty) {
        return None;
    }
    address.parse().ok()
}

/// The hops of one `X-Forwarded-For`, nearest first.
fn x_forwarded_for(line: &str) -> Vec<Option<IpAddr>> {
    line.rsplit(',').filter(|hop| !hop.trim().is_empty()).map(parse_address).collect()
}

/// The hops of one `Forwarded` (RFC 7239), nearest first. One without a usable `for` is unknown.
fn forwarded(line: &str) -> Vec<Option<IpAddr>> {
    let elements = outside_quotes(line, ',');
    let filled = elements.iter().rev().filter(|element| !element.trim().is_empty());
    filled
        .map(|element| {
            let pairs = outside_quotes(element, ';');
            let mut values = pairs.iter().filter_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                name.trim().eq_ignore_ascii_case("for").then(|| value.trim())
            });
            match (values.next(), values.next()) {
                (Some(value), None) => parse_node(value),
                _ => None,
            }
        })
        .collect()
}

/// The value of `for`: quoted whenever it has a colon.
fn parse_node(value: &str) -> Option<IpAddr> {
    match value.strip_prefix('"') {
        Some(rest) => parse_address(rest.strip_suffix('"')?),
        None => parse_address(value),
    }
}

/// Splits at a separator, but not inside a quoted string.
fn outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c: char| {
        let splits = c == separator && !quoted;
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = quoted,
            '"' => quoted = !quoted,
            _ => {}
        }
        splits
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn check(peer: &str, headers: &[(&'static str, &str)], expected: &str) {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        assert_eq!(client_address(ip(peer), &headers, &trusted), ip(expected), "{headers:?}");
    }

    #[test]
    fn the_client_is_the_last_address_that_is_not_a_trusted_proxy() {
        let x = |lines: &[&'static str]| -> Vec<(&'static str, &'static str)> {
            lines.iter().map(|line| ("x-forwarded-for", *line)).collect()
        };
        check("192.0.2.1", &x(&["203.0.113.9"]), "192.0.2.1");
        check("10.0.0.1", &x(&["198.51.100.1, 203.0.113.9"]), "203.0.113.9");
        check("10.0.0.1", &x(&["198.51.100.1", "203.0.113.9, 10.0.0.2"]), "203.0.113.9");
        check("10.0.0.1", &x(&["nonsense, 10.0.0.2"]), "10.0.0.2");
        check("10.0.0.1", &x(&["203.0.113.9:50123"]), "203.0.113.9");
        check("10.0.0.1", &x(&["[2001:db8::1]:50123"]), "2001:db8::1");
        check("10.0.0.1", &x(&["[2001:db8::1]"]), "2001:db8::1");
        check("10.0.0.1", &x(&["[fe80::1%eth0]"]), "fe80::1");
        check("10.0.0.1", &x(&["203.0.113.9, "]), "203.0.113.9");
        check("10.0.0.1", &[], "10.0.0.1");
        check("::ffff:192.0.2.1", &[], "192.0.2.1");
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        let f =
            |line: &'static str, expected: &str| check("fd00::1", &[("forwarded", line)], expected);
        f("for=192.0.2.43", "192.0.2.43");
        f("For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17");
        f("for=198.51.100.1, for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60");
        f("for=192.0.2.43, for=10.0.0.9", "192.0.2.43");
        f("for=192.0.2.43, for=unknown", "fd00::1");
        f("for=192.0.2.43, for=\"_hidden\"", "fd00::1");
        f("for=192.0.2.43, proto=https", "fd00::1");
        f("for=192.0.2.43;for=192.0.2.44", "fd00::1");
        f("by=\"a,for=192.0.2.1\";for=192.0.2.43", "192.0.2.43");
        f("by=\"a\\\",for=192.0.2.1\";for=\"192.0.2.43:_x\"", "fd00::1");
        f("for=\"[2001:db8::1]:_gazonk\"", "2001:db8::1");
    }

    /// The one that the proxy does not know comes from the client.
    #[test]
    fn headers_that_disagree_are_believed_neither() {
        let both = |first: &'static str, second: &'static str, expected: &str| {
            check("10.0.0.1", &[("x-forwarded-for", first), ("forwarded", second)], expected);
        };
        both("203.0.113.9", "for=203.0.113.9", "203.0.113.9");
        both("203.0.113.9", "for=198.51.100.1", "10.0.0.1");
        both("203.0.113.9", "nonsense", "10.0.0.1");
    }

    #[test]
    fn a_line_that_is_not_text_ends_the_chain() {
        let mut headers = HeaderMap::new();
        headers.append(X_FORWARDED_FOR, "203.0.113.9".parse().unwrap());
        headers.append(X_FORWARDED_FOR, axum::http::HeaderValue::from_bytes(b"\xff").unwrap());
        headers.append(X_FORWARDED_FOR, "10.0.0.7".parse().unwrap());
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        assert_eq!(client_address(ip("10.0.0.1"), &headers, &trusted), ip("10.0.0.7"));
    }

    #[test]
    fn addresses_are_read_however_they_are_written() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(parse_address(text), expected.map(ip), "{text}");
        };
        check("2001:db8:0:0:0:0:0:1", Some("2001:db8::1"));
        check("::ffff:192.0.2.1", Some("192.0.2.1"));
        check("[::ffff:192.0.2.1]:80", Some("192.0.2.1"));
        check("fe80::1%eth0", Some("fe80::1"));
        check("[fe80::1%25eth0]:80", Some("fe80::1"));
        check("192.0.2.1:8080", Some("192.0.2.1"));
        for bad in
            ["", "[", "[]", "[192.0.2.1]", "[::1]x", "[::1]:", "fe80::1%", "192.0.2.1%eth0", "a"]
        {
            check(bad, None);
        }
    }
}
