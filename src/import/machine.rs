//! Addresses of this machine, which the agent would have looked up itself.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

/// What is asked of the machine.
pub(super) trait Machine {
    /// The address that packets to `host` leave with.
    fn address_towards(&self, host: &str, port: u16) -> Option<IpAddr>;
    /// The first address of an interface, IPv4 before IPv6.
    fn address_of(&self, interface: &str) -> Option<IpAddr>;
}

/// The machine itself.
#[derive(Debug)]
pub(super) struct System;

impl Machine for System {
    fn address_towards(&self, host: &str, port: u16) -> Option<IpAddr> {
        let to = (host, port).to_socket_addrs().ok()?.next()?;
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        // Sends nothing: the kernel only chooses a route.
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(to).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    }

    fn address_of(&self, interface: &str) -> Option<IpAddr> {
        let mut found: Vec<IpAddr> = nix::ifaddrs::getifaddrs()
            .ok()?
            .filter(|entry| entry.interface_name == interface)
            .filter_map(|entry| {
                let address = entry.address?;
                let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
            })
            .collect();
        found.sort_by_key(IpAddr::is_ipv6);
        found.first().copied()
    }
}
