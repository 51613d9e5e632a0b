//! An interface for the demo's basic zone: a dummy device of our own, gone when the demo ends.
//!
//! Only root can make one; without it the dhcp role shows as degraded and the rest runs.

use std::time::Duration;

use role::{CommandSpec, Host, chain};

/// Name of the device; no other program uses it.
pub(crate) const INTERFACE: &str = "qcdemo0";
/// Its address, the gateway of the demo subnet 10.99.0.0/24.
const ADDRESS: &str = "10.99.0.1/24";

/// The device while it exists.
#[derive(Debug)]
pub(crate) struct Bridge {
    host: Host,
}

impl Bridge {
    /// Makes the device, replacing one that a killed demo left. The error is a sentence.
    pub(crate) async fn create(host: &Host) -> Result<Self, String> {
        ip(host, &["link", "del", INTERFACE]).await.ok();
        ip(host, &["link", "add", INTERFACE, "type", "dummy"]).await?;
        let bridge = Self { host: host.clone() };
        for arguments in [
            ["addr", "add", ADDRESS, "dev", INTERFACE].as_slice(),
            &["link", "set", INTERFACE, "up"],
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
