//! This host as the management server sees it.

use std::net::IpAddr;
use std::sync::Arc;

use agent_protocol::Envelope;
use agent_protocol::agent::{
    HostType, PingStorageCommand, StartupCommand, StartupSecondaryStorageCommand,
};
use management_link::nic::Nic;
use management_link::{Agent, CommandContext, StartupFacts};
use role::BoxFuture;

use crate::commands::Commands;

/// Registers as secondary storage and hands commands on.
#[derive(Debug)]
pub struct StorageAgent {
    pub name: String,
    pub resource_name: String,
    pub private_address: IpAddr,
    pub public_address: IpAddr,
    pub storage_address: IpAddr,
    pub commands: Commands,
}

impl Agent for StorageAgent {
    fn startup(&self, facts: &StartupFacts) -> Envelope {
        let private = Nic::of_address(self.private_address);
        let public = Nic::of_address(self.public_address);
        let storage = Nic::of_address(self.storage_address);
        let startup = StartupCommand {
            host_type: Some(HostType::SecondaryStorage),
            data_center: Some(facts.zone.clone()),
            pod: Some(facts.pod.clone()),
            guid: Some(facts.guid.clone()),
            name: Some(self.name.clone()),
            id: facts.host_id,
            version: Some(facts.version.clone()),
            iqn: Some("NoIqn".to_owned()),
            public_ip_address: Some(public.address),
            public_netmask: Some(public.netmask),
            public_mac_address: Some(public.mac),
            private_ip_address: Some(private.address),
            private_mac_address: Some(private.mac),
            private_netmask: Some(private.netmask),
            storage_ip_address: Some(storage.address),
            storage_netmask: Some(storage.netmask),
            storage_mac_address: Some(storage.mac),
            resource_name: Some(self.resource_name.clone()),
            ms_host_list: Some(facts.ms_host_list.clone()),
            connection_transferred: facts.connection_transferred,
            arch: Some(facts.arch.to_owned()),
            ..StartupCommand::default()
        };
        Envelope::of(&StartupSecondaryStorageCommand { startup })
    }

    fn ping(&self, host_id: i64) -> Envelope {
        Envelope::of(&PingStorageCommand::new(host_id))
    }

    fn handle(
        self: Arc<Self>,
        command: Envelope,
        cx: CommandContext,
    ) -> BoxFuture<'static, Envelope> {
        Box::pin(async move { self.commands.handle(command, &cx).await })
    }
}
