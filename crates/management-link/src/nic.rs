//! The network interface behind an address, for the addresses of the startup command.

use std::net::{IpAddr, Ipv4Addr};

use nix::ifaddrs::InterfaceAddress;

/// Netmask sent when the address belongs to no interface of this machine (behind NAT, in a
/// container): what an agent outside a system VM has always sent.
pub const PLACEHOLDER_NETMASK: &str = "255.255.255.0";
/// MAC address sent when there is no interface or it has none (loopback, tunnels).
pub const PLACEHOLDER_MAC: &str = "00:06:0a:0b:0c:0d";

/// Address, netmask and MAC address as texts of the wire: lower-case hex with colons, the netmask
/// dotted (an IPv6 prefix as an address).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    pub address: String,
    pub netmask: String,
    pub mac: String,
}

/// The three networks of a host as the server knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostNics {
    /// Towards the management server.
    pub private: Nic,
    /// Towards users.
    pub public: Nic,
    /// Towards the stores; the private one where there is none.
    pub storage: Nic,
}

impl Nic {
    /// Looks up the interface that has `address`. What cannot be found is replaced by the
    /// placeholders above; the address itself is always kept.
    pub fn of_address(address: IpAddr) -> Self {
        let all = interface_addresses();
        let own = all.iter().find(|entry| ip_of(entry.address.as_ref()) == Some(address));
        let netmask = own
            .and_then(|entry| ip_of(entry.netmask.as_ref()))
            .map_or_else(|| PLACEHOLDER_NETMASK.to_owned(), |mask| mask.to_string());
        let mac = own
            .and_then(|own| {
                all.iter()
                    .filter(|entry| entry.interface_name == own.interface_name)
                    .find_map(|entry| entry.address.as_ref()?.as_link_addr()?.addr())
            })
            .filter(|mac| mac.iter().any(|byte| *byte != 0))
            .map_or_else(|| PLACEHOLDER_MAC.to_owned(), |mac| text_of(&mac));
        Self { address: address.to_string(), netmask, mac }
    }
}

/// The addresses of this machine that another machine can reach, for certificate requests: no
/// loopback, no link-local, each once.
pub(crate) fn reachable_addresses() -> Vec<IpAddr> {
    let mut found = Vec::new();
    for entry in interface_addresses() {
        let Some(address) = ip_of(entry.address.as_ref()) else { continue };
        let hidden = address.is_loopback()
            || match address {
                IpAddr::V4(v4) => v4.is_link_local() || v4 == Ipv4Addr::UNSPECIFIED,
                IpAddr::V6(v6) => v6.is_unicast_link_local(),
            };
        if !hidden && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// Empty, with a word in the log, when the kernel does not tell.
fn interface_addresses() -> Vec<InterfaceAddress> {
    match nix::ifaddrs::getifaddrs() {
        Ok(all) => all.collect(),
        Err(error) => {
            tracing::warn!(%error, "cannot list this machine's addresses");
            Vec::new()
        }
    }
}

fn ip_of(address: Option<&nix::sys::socket::SockaddrStorage>) -> Option<IpAddr> {
    let address = address?;
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(IpAddr::V4(v4.ip()));
    }
    address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()))
}

fn text_of(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_its_netmask_and_the_placeholder_mac() {
        let nic = Nic::of_address(IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(nic.address, "127.0.0.1");
        assert_eq!(nic.netmask, "255.0.0.0");
        assert_eq!(nic.mac, PLACEHOLDER_MAC);
    }

    #[test]
    fn an_address_of_another_machine_gets_the_placeholders() {
        let nic = Nic::of_address("192.0.2.1".parse().unwrap());
        assert_eq!(nic.address, "192.0.2.1");
        assert_eq!(nic.netmask, PLACEHOLDER_NETMASK);
        assert_eq!(nic.mac, PLACEHOLDER_MAC);
    }

    #[test]
    fn an_interface_with_a_mac_address_shows_it() {
        for address in reachable_addresses() {
            let nic = Nic::of_address(address);
            assert_eq!(nic.mac.len(), 17, "{nic:?}");
            assert!(!address.is_loopback());
        }
        assert_eq!(text_of(&[0, 0x0a, 1, 0xff, 2, 3]), "00:0a:01:ff:02:03");
    }
}
