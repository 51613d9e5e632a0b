//! The first message of a connection: who the agent is.

use super::ping::HostType;
use crate::base::{AnswerBase, CommandBase};

java! {
    /// What every kind of agent says about itself. Not a body of its own: see the classes below.
    StartupCommand {
        "type" host_type: Option<HostType>,
        /// Zone, name or id; refused when unknown.
        "dataCenter" data_center: Option<String>,
        /// Pod, name or id.
        "pod" pod: Option<String>,
        /// Leave it out: an unknown name would create a cluster.
        "cluster" cluster: Option<String>,
        /// Key of the host: the configured guid, `-`, and `resource_name`.
        "guid" guid: Option<String>,
        /// Instance name of the system VM (`s-1-VM`); the server finds its row by it.
        "name" name: Option<String>,
        /// Host id of an earlier session.
        "id" id: Option<i64>,
        /// Version shown to operators, such as `4.22.0.0`.
        "version" version: Option<String>,
        "iqn" iqn: Option<String>,
        "publicIpAddress" public_ip_address: Option<String>,
        "publicNetmask" public_netmask: Option<String>,
        "publicMacAddress" public_mac_address: Option<String>,
        "privateIpAddress" private_ip_address: Option<String>,
        "privateMacAddress" private_mac_address: Option<String>,
        "privateNetmask" private_netmask: Option<String>,
        "storageIpAddress" storage_ip_address: Option<String>,
        "storageNetmask" storage_netmask: Option<String>,
        "storageMacAddress" storage_mac_address: Option<String>,
        "storageIpAddressDeux" storage_ip_address_deux: Option<String>,
        "storageMacAddressDeux" storage_mac_address_deux: Option<String>,
        "storageNetmaskDeux" storage_netmask_deux: Option<String>,
        "agentTag" agent_tag: Option<String>,
        /// Cut off the guid by the server.
        "resourceName" resource_name: Option<String>,
        "gatewayIpAddress" gateway_ip_address: Option<String>,
        /// The management servers the agent knows, `a,b@algorithm`.
        "msHostList" ms_host_list: Option<String>,
        /// True once after a server asked the agent to move.
        "connectionTransferred" connection_transferred: bool,
        /// Absent, `i686`, `x86_64` or `aarch64`; anything else is refused.
        "arch" arch: Option<String>,
    }
    extends base: CommandBase
}

java! {
    /// Start-up of secondary storage.
    StartupSecondaryStorageCommand = "com.cloud.agent.api.StartupSecondaryStorageCommand" {}
    extends startup: StartupCommand
}

impl StartupSecondaryStorageCommand {
    /// The resource name in class suffix and body, as the open build has it.
    pub const RESOURCE_NAME: &'static str = "NfsSecondaryStorageResource";
}

java! {
    /// Start-up of a console proxy.
    StartupProxyCommand = "com.cloud.agent.api.StartupProxyCommand" {
        /// Port of the console pages.
        "proxyPort" proxy_port: i32,
        /// Id of the system VM; 0 without one.
        "proxyVmId" proxy_vm_id: i64,
    }
    extends startup: StartupCommand
}

impl StartupProxyCommand {
    /// The resource name in class suffix and body.
    pub const RESOURCE_NAME: &'static str = "ConsoleProxyResource";
}

java! {
    /// Sent before the server has looked at the host: brings only the ping interval.
    StartupAnswer = "com.cloud.agent.api.StartupAnswer" {
        /// 0 in the early answer.
        "hostId" host_id: i64,
        "hostName" host_name: Option<String>,
        "hostUuid" host_uuid: Option<String>,
        /// Seconds.
        "pingInterval" ping_interval: i32,
    }
    extends base: AnswerBase
}

answers!(StartupAnswer);
commands! {
    StartupSecondaryStorageCommand.startup.base => StartupAnswer, true;
    StartupProxyCommand.startup.base => StartupAnswer, true;
}
