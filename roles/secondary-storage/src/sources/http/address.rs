//! Which addresses a download may reach.
//!
//! Whoever may register a template chooses a URL that this process fetches. Without a rule that
//! is a way into every network the host can see, so private, loopback, link-local and other
//! special addresses are refused unless the operator or the management server named them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bedrock::net::Network;

use crate::sources::SourceError;

/// The rule for one download: everything public, and the named networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    allowed: Vec<Network>,
}

impl AddressPolicy {
    pub fn new(allowed: impl IntoIterator<Item = Network>) -> Self {
        Self { allowed: allowed.into_iter().collect() }
    }

    /// `Err` says what kind of address it is.
    pub fn check(&self, address: IpAddr) -> Result<(), &'static str> {
        let address = address.to_canonical();
        if self.allowed.iter().any(|network| network.contains(address)) {
            return Ok(());
        }
        let kind = match address {
            IpAddr::V4(address) => special_v4(address),
            IpAddr::V6(address) => special_v6(address),
        };
        kind.map_or(Ok(()), Err)
    }

    /// As [`AddressPolicy::check`], as an error about `host`.
    pub fn judge(&self, host: &str, address: IpAddr) -> Result<(), SourceError> {
        self.check(address).map_err(|kind| SourceError::Address {
            host: host.to_owned(),
            kind,
            address,
        })
    }

    /// The allowed addresses of a name or an address; an error when there are none.
    pub async fn resolve(
        &self,
        host: &str,
        port: u16,
        limit: Duration,
    ) -> Result<Vec<SocketAddr>, SourceError> {
        let host = host.trim_matches(['[', ']']);
        let error = |reason: String, is_passing| SourceError::Resolve {
            host: host.to_owned(),
            reason,
            is_passing,
        };
        let lookup = tokio::net::lookup_host((host, port));
        let found = tokio::time::timeout(limit, lookup)
            .await
            .map_err(|_elapsed| error("the name service does not answer".to_owned(), true))?
            .map_err(|source| {
                let text = source.to_string();
                let is_passing = text.contains("Temporary failure");
                error(text, is_passing)
            })?;
        let mut refused = None;
        let mut allowed = Vec::new();
        for address in found {
            match self.judge(host, address.ip()) {
                Ok(()) => allowed.push(address),
                Err(reason) => refused = Some(reason),
            }
        }
        match (allowed.is_empty(), refused) {
            (false, _) => Ok(allowed),
            (true, Some(reason)) => Err(reason),
            (true, None) => Err(error("it has none".to_owned(), false)),
        }
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (0, ..) => Some("an unspecified"),
        (127, ..) => Some("a loopback"),
        (169, 254, _) => Some("a link-local"),
        (10, ..) | (192, 168, _) => Some("a private"),
        (172, 16..=31, _) => Some("a private"),
        (100, 64..=127, _) => Some("a shared (carrier)"),
        (192, 0, 0) | (198, 18..=19, _) | (240..=255, ..) => Some("a reserved"),
        (224..=239, ..) => Some("a multicast"),
        _ => None,
    }
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("an unspecified");
    }
    if address.is_loopback() {
        return Some("a loopback");
    }
    let [first, second, ..] = address.segments();
    match first {
        0xfe80..=0xfebf => Some("a link-local"),
        0xfec0..=0xfeff | 0xfc00..=0xfdff => Some("a private"),
        0xff00..=0xffff => Some("a multicast"),
        // An IPv4 address behind a translator or a tunnel: its target cannot be judged.
        0x0064 if second == 0xff9b => Some("a translated"),
        0x2002 => Some("a tunnelled"),
        0x2001 if second == 0 => Some("a tunnelled"),
        0 => Some("a reserved"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(policy: &AddressPolicy, address: &str, expected: Result<(), &'static str>) {
        assert_eq!(policy.check(address.parse().unwrap()), expected, "{address}");
    }

    #[test]
    fn special_addresses_are_refused_unless_named() {
        let none = AddressPolicy::default();
        check(&none, "93.184.216.34", Ok(()));
        check(&none, "2606:2800:220:1::1", Ok(()));
        check(&none, "10.77.0.2", Err("a private"));
        check(&none, "172.31.255.255", Err("a private"));
        check(&none, "172.32.0.1", Ok(()));
        check(&none, "127.0.0.1", Err("a loopback"));
        check(&none, "::1", Err("a loopback"));
        check(&none, "::ffff:127.0.0.1", Err("a loopback"));
        check(&none, "169.254.169.254", Err("a link-local"));
        check(&none, "fe80::1", Err("a link-local"));
        check(&none, "0.0.0.0", Err("an unspecified"));
        check(&none, "64:ff9b::7f00:1", Err("a translated"));
        let some = AddressPolicy::new(["10.77.0.0/24".parse().unwrap()]);
        check(&some, "10.77.0.2", Ok(()));
        check(&some, "::ffff:10.77.0.2", Ok(()));
        check(&some, "10.77.1.2", Err("a private"));
    }
}
