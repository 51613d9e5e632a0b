//! An interface for the demo's basic zone: a pair of our own, gone when the demo ends.
//!
//! A client can be tried at the other end: `udhcpc -i qcdemo1 -f -n -q`.
//!
//! Only root can make one; without it the dhcp role shows as degraded and the rest runs.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use bedrock::chain;
use role::{CommandSpec, Host};

/// Our end; no other program uses the name.
pub(crate) const INTERFACE: &str = "qcdemo0";
/// The end of the clients.
const CLIENT_END: &str = "qcdemo1";
/// Its address, the gateway of the demo subnet 10.99.0.0/24.
const ADDRESS: &str = "10.99.0.1/24";

/// The device while it exists.
#[derive(Debug)]
pub(crate) struct Bridge {
    host: Host,
    /// Keeps another demo from taking the device over; gone with us, however we end.
    _claim: UnixListener,
}

impl Bridge {
    /// Makes the device, replacing one that a killed demo left. The error is a sentence.
    pub(crate) async fn create(host: &Host) -> Result<Self, String> {
        let claim = claim(INTERFACE).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => format!("another quickcloud dev has {INTERFACE}"),
            _ => format!("cannot claim {INTERFACE}: {error}"),
        })?;
        ip(host, &["link", "del", INTERFACE]).await.ok();
        let pair = ["link", "add", INTERFACE, "type", "veth", "peer", "name", CLIENT_END];
        ip(host, &pair).await?;
        let bridge = Self { host: host.clone(), _claim: claim };
        for arguments in [
            ["addr", "add", ADDRESS, "dev", INTERFACE].as_slice(),
            &["link", "set", INTERFACE, "up"],
            &["link", "set", CLIENT_END, "up"],
        ] {
            if let Err(error) = ip(host, arguments).await {
                bridge.remove().await;
                return Err(error);
            }
        }
        Ok(bridge)
    }

    pub(crate) async fn remove(self) {
        if let Err(error) = ip(&self.host, &["link", "del", INTERFACE]).await {
            tracing::warn!(interface = INTERFACE, %error, "the demo interface stays behind");
        }
    }
}

/// An abstract socket: like interfaces, its name belongs to the network namespace.
fn claim(interface: &str) -> io::Result<UnixListener> {
    let name = format!("quickcloud-dev/{interface}");
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

async fn ip(host: &Host, arguments: &[&str]) -> Result<(), String> {
    let mut spec = CommandSpec::new("ip", Duration::from_secs(10));
    spec.arguments = arguments.iter().map(Into::into).collect();
    let line = format!("ip {}", arguments.join(" "));
    let output = host.runner.run(spec).await.map_err(|error| chain(&error))?;
    match output.code {
        Some(0) => Ok(()),
        _ => Err(format!("`{line}` failed: {}", output.stderr.trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_exclusive_and_ends_with_its_holder() {
        let interface = format!("test-{}", std::process::id());
        let held = claim(&interface).unwrap();
        assert_eq!(claim(&interface).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(held);
        claim(&interface).unwrap();
    }
}
