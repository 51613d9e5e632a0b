//! Which addresses a download may reach.
//!
//! Whoever may register a template chooses a URL that this process fetches. Without a rule that
//! is a way into every network the host can see, so private, loopback, link-local and other
//! special addresses are refused unless the operator or the management server named them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network in CIDR form; a bare address is the network of that one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// Why a text is not a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    #[error("not an IP address or network")]
    Address,
    #[error("the prefix length is not a number up to {0}")]
    Prefix(u8),
}

impl Cidr {
    /// Whether `address` is in the network. IPv4 mapped into IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = mask32(self.prefix);
                network.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = mask128(self.prefix);
                network.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        }
    }
}

fn mask32(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

fn mask128(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let network: IpAddr = address.trim().parse().map_err(|_bad| CidrError::Address)?;
        let longest = if network.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(text) => text
                .trim()
                .parse()
                .ok()
                .filter(|prefix| *prefix <= longest)
                .ok_or(CidrError::Prefix(longest))?,
        };
        Ok(Self { network, prefix })
    }
}

/// The rule for one download: everything public, and the named networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    allowed: Vec<Cidr>,
}

impl AddressPolicy {
    pub fn new(allowed: impl IntoIterator<Item = Cidr>) -> Self {
        Self { allowed: allowed.into_iter().collect() }
    }

    /// `Err` says what kind of address it is.
    pub fn check(&self, address: IpAddr) -> Result<(), &'static str> {
        let address = address.to_canonical();
        if self.allowed.iter().any(|cidr| cidr.contains(address)) {
            return Ok(());
        }
        let kind = match address {
            IpAddr::V4(address) => special_v4(address),
            IpAddr::V6(address) => special_v6(address),
        };
        kind.map_or(Ok(()), Err)
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

    #[test]
    fn networks_parse_and_print() {
        let parsed: Cidr = "10.77.0.0/24".parse().unwrap();
        assert_eq!(parsed.to_string(), "10.77.0.0/24");
        assert_eq!("10.20.30.40".parse::<Cidr>().unwrap().to_string(), "10.20.30.40/32");
        assert_eq!("10.0.0.0/33".parse::<Cidr>(), Err(CidrError::Prefix(32)));
        assert_eq!("ten/8".parse::<Cidr>(), Err(CidrError::Address));
        let all: Cidr = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("203.0.113.1".parse().unwrap()));
        let v6: Cidr = "fd00::/8".parse().unwrap();
        assert!(
            v6.contains("fd12::1".parse().unwrap()) && !v6.contains("fe12::1".parse().unwrap())
        );
    }
}
