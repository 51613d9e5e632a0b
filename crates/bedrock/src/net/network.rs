//! IP networks, as operators and the management server name them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A network in prefix notation, `10.0.0.0/8`; a bare address is the network of that one address.
/// IPv4 mapped into IPv6 is IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(IpNet);

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = text.trim().parse().map(|address: IpAddr| IpNet::from(address));
        let network: IpNet = address.or_else(|_error| text.trim().parse()).map_err(|_error| {
            "not a network: an address, or an address, a slash and the length of the prefix"
        })?;
        let IpAddr::V6(address) = network.addr() else { return Ok(Self(network)) };
        let Some(mapped) = address.to_ipv4_mapped() else { return Ok(Self(network)) };
        let mapped =
            network.prefix_len().checked_sub(96).map(|prefix| (IpAddr::V4(mapped), prefix));
        mapped
            .and_then(|(address, prefix)| IpNet::new(address, prefix).ok())
            .map(Self)
            .ok_or("an IPv4 address in IPv6 form needs a prefix of 96 or more")
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Network {
    /// Whether `address` is in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_contain_their_addresses() {
        let check = |network: &str, address: &str, expected: bool| {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(ip(address)), expected, "{network} {address}");
        };
        check("10.0.0.0/8", "10.200.0.1", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("10.0.0.1", "10.0.0.1", true);
        check("10.0.0.1", "10.0.0.2", false);
        check("0.0.0.0/0", "192.0.2.1", true);
        check("0.0.0.0/0", "2001:db8::1", false);
        check("2001:db8::/32", "2001:db8:1::1", true);
        check("10.0.0.0/8", "::ffff:10.0.0.1", true);
        check("::ffff:10.0.0.0/104", "10.9.9.9", true);
        check("::ffff:10.0.0.0/104", "11.9.9.9", false);
        for bad in ["::ffff:10.0.0.0/8", "10.0.0.0/33", "10.0.0/8", "x", "10.0.0.0/x"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
