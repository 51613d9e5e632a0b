//! What dnsmasq needs from the machine around it and says nothing about when it lacks it: ports for
//! itself, its interface, an address of the interface in every subnet.

use role::CommandSpec;

use super::{ApplyError, PROGRAM, Reconciler};
use crate::machine;
use crate::model::Attachment;
use crate::ports;

impl Reconciler {
    /// Another DHCP server on our interface would share every message with us, and nobody would
    /// complain; who has the DNS port is told when dnsmasq fails for it.
    pub(super) async fn look_at_ports(&mut self) -> Result<(), ApplyError> {
        let spec = CommandSpec::new("ss", PROGRAM).arg("-Htulnp").arg("sport = :53 or sport = :67");
        let listeners = match self.cx.host.runner.run(spec).await {
            Ok(output) => output.stdout,
            Err(error) => {
                tracing::debug!(error = %bedrock::chain(&error), "cannot look who has our ports");
                return Ok(());
            }
        };
        self.holder = ports::holder(&listeners, 53).or_else(|| ports::holder(&listeners, 67));
        let interface = &self.settings.interface;
        match ports::other_dhcp_server(&listeners, interface) {
            Some(holder) => Err(ApplyError::Missing(format!(
                "{holder} on {interface} already: stop it, or set roles.dhcp.interface"
            ))),
            None => Ok(()),
        }
    }

    /// What dnsmasq waits for in silence: its interface, and an address on it for every subnet.
    pub(super) fn look_at_interface(&self) {
        let (health, interface) = (&self.cx.health, &self.settings.interface);
        let exists = machine::interface_exists(interface);
        let unserved = if exists { self.unserved() } else { Vec::new() };
        let condition = match unserved.first() {
            _ if !exists => Some(format!("interface {interface} does not exist")),
            Some(subnet) => Some(format!("{interface} has no address in {subnet}")),
            None => None,
        };
        match condition {
            Some(text) => health.set_condition("interface", text),
            None => health.clear_condition("interface"),
        }
        self.observed.send_if_modified(|observed| {
            let new = (!exists, unserved);
            let changed = (observed.no_interface, &observed.unserved) != (new.0, &new.1);
            (observed.no_interface, observed.unserved) = new;
            changed
        });
    }

    fn unserved(&self) -> Vec<String> {
        let addresses = machine::addresses_of(&self.settings.interface);
        let state = self.store.state();
        let subnets = state.subnets().map(|(_, subnet)| &subnet.subnet);
        subnets
            .filter(|subnet| subnet.enabled)
            .filter(|subnet| matches!(subnet.attachment, Attachment::Interface { .. }))
            .filter(|subnet| !addresses.iter().any(|address| subnet.cidr.contains(*address)))
            .map(|subnet| format!("subnet {} ({})", subnet.id, subnet.cidr))
            .collect()
    }
}
