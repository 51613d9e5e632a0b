//! What dnsmasq needs from the machine around it and says nothing about when it lacks it: ports for
//! itself, its interface, an address of the interface in every subnet.

use role::CommandSpec;

use super::{ApplyError, PROGRAM, Reconciler};
use crate::machine;
use crate::ports;
use dhcp_api::resource::Attachment;

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
        let (exists, unserved) = match self.seen() {
            Ok(seen) => seen,
            Err(error) => {
                let text = format!("cannot look at interface {interface}: {error}");
                health.set_condition("interface", text);
                return;
            }
        };
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

    /// Whether the interface is there, and the subnets in which it has no address.
    fn seen(&self) -> std::io::Result<(bool, Vec<String>)> {
        let interface = &self.settings.interface;
        if !machine::interface_exists(interface)? {
            return Ok((false, Vec::new()));
        }
        let addresses = machine::addresses_of(interface)?;
        let state = self.store.state();
        let subnets = state.subnets().map(|(_, subnet)| &subnet.subnet);
        let unserved = subnets
            .filter(|subnet| subnet.is_enabled())
            .filter(|subnet| matches!(subnet.attachment, Some(Attachment::Interface { .. })))
            .filter(|subnet| !addresses.iter().any(|address| subnet.cidr.contains(*address)))
            .map(|subnet| format!("subnet {} ({})", subnet.id, subnet.cidr));
        Ok((true, unserved.collect()))
    }
}
