//! What a role supplies to its link, and what it learns with each command.

use std::sync::Arc;
use std::time::Duration;

use agent_protocol::Envelope;
use agent_protocol::agent::{HostType, StartupCommand};
use role::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::nic::HostNics;

/// The link's part of the startup command; the role adds its class, name and addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartupFacts {
    /// As configured for the link, with the class suffix.
    pub guid: String,
    /// Name or id.
    pub zone: String,
    /// Name or id.
    pub pod: String,
    pub version: String,
    /// Of an earlier session; `None` at the first contact.
    pub host_id: Option<i64>,
    /// `10.1.1.2,10.1.1.3@static`, or without `@` while no server has sent a list.
    pub ms_host_list: String,
    /// The server asked us to move; true for one startup.
    pub connection_transferred: bool,
    /// `x86_64`, `aarch64` or `i686`.
    pub arch: &'static str,
}

impl StartupFacts {
    /// The part that all startup commands share, complete.
    pub fn command(
        &self,
        host_type: HostType,
        name: &str,
        resource_name: &str,
        nics: HostNics,
    ) -> StartupCommand {
        let HostNics { private, public, storage } = nics;
        StartupCommand {
            host_type: Some(host_type),
            data_center: Some(self.zone.clone()),
            pod: Some(self.pod.clone()),
            guid: Some(self.guid.clone()),
            name: Some(name.to_owned()),
            id: self.host_id,
            version: Some(self.version.clone()),
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
            resource_name: Some(resource_name.to_owned()),
            ms_host_list: Some(self.ms_host_list.clone()),
            connection_transferred: self.connection_transferred,
            arch: Some(self.arch.to_owned()),
            ..StartupCommand::default()
        }
    }
}

/// What a handler knows about its command besides the body.
#[derive(Debug, Clone)]
pub struct CommandContext {
    /// The server's log context, for one `grep` over both logs.
    pub log_id: Option<String>,
    /// Ours, once known.
    pub host_id: Option<i64>,
    /// The server sends the next such command only after the answer to this one.
    pub in_sequence: bool,
    /// Together with `management_id` the name of the request.
    pub sequence: i64,
    /// The server that asks; several share one link.
    pub management_id: i64,
    /// How long the server waits at least; `None` means its default, half an hour.
    pub wait: Option<Duration>,
    /// For a handler that waits for something before it answers.
    pub answer_now: AnswerNow,
}

/// Asks a handler that waits, for the end of a download say, to answer with what it knows: too many
/// wait already and others would be delayed, or the role stops. Cloneable; clones share it.
#[derive(Debug, Clone, Default)]
pub struct AnswerNow(CancellationToken);

impl AnswerNow {
    /// Ends when the handler is asked.
    pub async fn asked(&self) {
        self.0.cancelled().await;
    }

    pub fn is_asked(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Asks the handler.
    pub fn ask(&self) {
        self.0.cancel();
    }
}

/// One host as the server sees it. Called by the link; no method but `handle` may take long.
pub trait Agent: Send + Sync + 'static {
    /// The startup command, fresh at each connection.
    fn startup(&self, facts: &StartupFacts) -> Envelope;

    /// The ping; `host_id` is −1 before the first registration.
    fn ping(&self, host_id: i64) -> Envelope;

    /// Runs one command to its answer. The link runs many at a time and drops none of them when
    /// it is lost: only the answer is dropped then, so commands should be repeatable. Only when the
    /// role stops and its `drain_timeout` is over, a handler is dropped and the link answers for it.
    fn handle(
        self: Arc<Self>,
        command: Envelope,
        cx: CommandContext,
    ) -> BoxFuture<'static, Envelope>;

    /// Registered and ready; called at each connection.
    fn attached(&self, host_id: i64) {
        let _ = host_id;
    }

    /// Not attached any more.
    fn detached(&self) {}
}
