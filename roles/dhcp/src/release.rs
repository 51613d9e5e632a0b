//! Taking leases back from a running dnsmasq: a DHCPRELEASE in the client's name.
//!
//! dnsmasq never offers an address that is leased to another MAC, however its reservation reads,
//! and with infinite leases that is for ever. It honours a release only when the packet names the
//! server id it would use itself and comes in on its interface. Success is what the lease file
//! says afterwards, nothing else.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt::BindToDevice};
use role::TaskScope;
use role::tasks::BlockingError;

use crate::layout::Layout;
use crate::leases::{self, Lease, release_packet};
use crate::machine::addresses_of;
use dhcp_api::words::{Cidr, InterfaceName};

/// Packets in a row; the server's socket buffer is finite.
const BURST: usize = 64;
/// Rounds without any success before giving up.
const FAILURES: u32 = 3;
const ROUND: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(5);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReleaseError {
    #[error("cannot send a release on {interface}")]
    Send { interface: String, source: io::Error },
    #[error("interface {0} has no IPv4 address")]
    NoAddress(String),
    #[error("cannot read the leases")]
    Leases(#[source] io::Error),
    #[error("cannot release leases")]
    Blocking(#[from] BlockingError),
}

/// Releases leases on one interface. Cloneable.
#[derive(Debug, Clone)]
pub(crate) struct Releaser {
    pub(crate) interface: InterfaceName,
    pub(crate) layout: Layout,
}

impl Releaser {
    /// Releases `stale` and returns what is still leased afterwards. `subnets` are those served.
    pub(crate) async fn release(
        &self,
        mut stale: Vec<Lease>,
        subnets: Vec<Cidr>,
        tasks: &TaskScope,
    ) -> Result<Vec<Lease>, ReleaseError> {
        let mut failures = 0;
        while !stale.is_empty() && failures < FAILURES {
            let before = stale.len();
            let (burst, releaser) =
                (stale.iter().take(BURST).cloned().collect::<Vec<_>>(), self.clone());
            let subnets = subnets.clone();
            tasks.blocking("release", move || releaser.send(&burst, &subnets)).await??;
            let deadline = tokio::time::Instant::now() + ROUND;
            while tokio::time::Instant::now() < deadline {
                tokio::time::sleep(LOOK).await;
                let path = self.layout.leases();
                let held = tasks.blocking("leases", move || leases::read(&path)).await?;
                let held = held.map_err(ReleaseError::Leases)?;
                let held: HashSet<_> = held.iter().map(|held| (held.ipv4, held.mac)).collect();
                stale.retain(|lease| held.contains(&(lease.ipv4, lease.mac)));
                if stale.len() + BURST <= before || stale.is_empty() {
                    break;
                }
            }
            failures = if stale.len() < before { 0 } else { failures + 1 };
        }
        Ok(stale)
    }

    fn send(&self, leases: &[Lease], subnets: &[Cidr]) -> Result<(), ReleaseError> {
        let interface = self.interface.to_string();
        let failed = |source| ReleaseError::Send { interface: interface.clone(), source };
        let local = addresses_of(&self.interface).map_err(failed)?;
        let main =
            local.first().copied().ok_or_else(|| ReleaseError::NoAddress(interface.clone()))?;
        let work = || -> io::Result<()> {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            setsockopt(&socket, BindToDevice, &OsString::from(&interface))?;
            for (number, lease) in (1u32..).zip(leases) {
                let server = server_id(lease.ipv4, &local, subnets).unwrap_or(main);
                let packet = release_packet(lease, server, number);
                socket.send_to(&packet, (server, 67))?;
            }
            Ok(())
        };
        work().map_err(|source| ReleaseError::Send { interface: interface.clone(), source })
    }
}

/// The address of ours that dnsmasq calls itself by in the lease's subnet.
fn server_id(address: Ipv4Addr, local: &[Ipv4Addr], subnets: &[Cidr]) -> Option<Ipv4Addr> {
    let subnet = subnets.iter().find(|subnet| subnet.contains(address))?;
    local.iter().copied().find(|local| subnet.contains(*local))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_id_is_our_address_in_the_subnet_of_the_lease() {
        let local = [Ipv4Addr::new(10, 1, 1, 1), Ipv4Addr::new(10, 1, 2, 1)];
        let subnets = ["10.1.1.0/24".parse().unwrap(), "10.1.2.0/24".parse().unwrap()];
        let check = |address: [u8; 4], expected: Option<[u8; 4]>| {
            let id = server_id(address.into(), &local, &subnets);
            assert_eq!(id, expected.map(Ipv4Addr::from));
        };
        check([10, 1, 2, 50], Some([10, 1, 2, 1]));
        check([10, 1, 1, 50], Some([10, 1, 1, 1]));
        check([10, 1, 3, 50], None);
    }
}
