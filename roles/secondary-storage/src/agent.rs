//! This host as the management server sees it.

use std::net::IpAddr;
use std::sync::Arc;

use agent_protocol::Envelope;
use agent_protocol::agent::{HostType, PingStorageCommand, StartupSecondaryStorageCommand};
use management_link::nic::{HostNics, Nic};
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
        let nics = HostNics {
            private: Nic::of_address(self.private_address),
            public: Nic::of_address(self.public_address),
            storage: Nic::of_address(self.storage_address),
        };
        let startup =
            facts.command(HostType::SecondaryStorage, &self.name, &self.resource_name, nics);
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
