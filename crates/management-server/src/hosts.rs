//! What is known of an agent's host, and of an agent that wants to become one.

use crate::config::HostKind;

/// State of a host's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostState {
    /// The start-up command was accepted, the connect phase runs.
    Connecting,
    /// The first ready command was answered.
    Up,
    /// The agent said goodbye or stopped pinging.
    Disconnected,
    /// The link broke without goodbye.
    Alert,
}

/// A copy of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Number of the row.
    pub id: i64,
    /// UUID of the row.
    pub uuid: String,
    /// The guid it was found by.
    pub guid: String,
    /// Name that the agent sent.
    pub name: String,
    /// Kind of agent.
    pub kind: HostKind,
    /// `proxyVmId` of a console proxy.
    pub proxy_vm: Option<i64>,
    /// Zone.
    pub zone_id: i64,
    /// Pod, if the name was known.
    pub pod_id: Option<i64>,
    /// State.
    pub state: HostState,
    /// Whether an agent is attached; a row may be up without one.
    pub attached: bool,
    /// Address on the management network.
    pub private_address: Option<String>,
    /// Public address.
    pub public_address: Option<String>,
    /// Version text of the agent.
    pub version: Option<String>,
    /// Architecture.
    pub arch: String,
    /// How often it connected.
    pub connects: u64,
}

/// What a start-up command says, as far as a row keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StartupFacts {
    pub(crate) kind: Option<HostKind>,
    pub(crate) guid: String,
    pub(crate) resource_name: Option<String>,
    pub(crate) name: String,
    pub(crate) zone: String,
    pub(crate) pod: String,
    pub(crate) proxy_vm: Option<i64>,
    pub(crate) private_address: Option<String>,
    pub(crate) public_address: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) arch: Option<String>,
    pub(crate) host_list: Option<String>,
}
