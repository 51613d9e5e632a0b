//! Signs of life.

use crate::base::{AnswerBase, CommandBase};
use crate::gson::Dictionary;

constants! {
    /// Kind of a host.
    HostType {
        Storage = "Storage",
        Routing = "Routing",
        SecondaryStorage = "SecondaryStorage",
        SecondaryStorageCmdExecutor = "SecondaryStorageCmdExecutor",
        ConsoleProxy = "ConsoleProxy",
        ExternalFirewall = "ExternalFirewall",
        ExternalLoadBalancer = "ExternalLoadBalancer",
        ExternalVirtualSwitchSupervisor = "ExternalVirtualSwitchSupervisor",
        PxeServer = "PxeServer",
        BaremetalPxe = "BaremetalPxe",
        BaremetalDhcp = "BaremetalDhcp",
        TrafficMonitor = "TrafficMonitor",
        NetScalerControlCenter = "NetScalerControlCenter",
        ExternalDhcp = "ExternalDhcp",
        SecondaryStorageVM = "SecondaryStorageVM",
        LocalSecondaryStorage = "LocalSecondaryStorage",
        L2Networking = "L2Networking",
    }
}

constants! {
    /// State of a command that is reconciled (hypervisor hosts only).
    CommandState {
        Created = "CREATED",
        Started = "STARTED",
        Processing = "PROCESSING",
        ProcessingInBackend = "PROCESSING_IN_BACKEND",
        Completed = "COMPLETED",
        Failed = "FAILED",
        ReconcileRetry = "RECONCILE_RETRY",
        Reconciling = "RECONCILING",
        Reconciled = "RECONCILED",
        ReconcileSkipped = "RECONCILE_SKIPPED",
        ReconcileFailed = "RECONCILE_FAILED",
        TimedOut = "TIMED_OUT",
        Interrupted = "INTERRUPTED",
        DangledInBackend = "DANGLED_IN_BACKEND",
    }
}

java! {
    /// One command under reconciliation.
    CommandInfo {
        "requestSeq" request_seq: i64,
        "state" state: Option<CommandState>,
        /// Date in the style of the peer's Java release.
        "startTime" start_time: Option<String>,
        "updateTime" update_time: Option<String>,
        "commandName" command_name: Option<String>,
        /// JSON text of the command, secrets included.
        "command" command: Option<bedrock::Secret<String>>,
        "timeout" timeout: i32,
        "answerName" answer_name: Option<String>,
        /// JSON text of the answer, secrets included.
        "answer" answer: Option<bedrock::Secret<String>>,
    }
}

java! {
    /// Ping of a console proxy.
    PingCommand = "com.cloud.agent.api.PingCommand" {
        "hostType" host_type: Option<HostType>,
        "hostId" host_id: i64,
        "outOfBand" out_of_band: bool,
        /// Always written, for the server walks through it.
        "commandInfos" command_infos: Vec<CommandInfo>,
    }
    extends base: CommandBase
}

java! {
    /// Ping of secondary storage; its host type is `Storage`.
    PingStorageCommand = "com.cloud.agent.api.PingStorageCommand" {
        "changes" changes: Dictionary<bool>,
    }
    extends ping: PingCommand
}

java! {
    /// The ping inside its answer, of either class.
    PingEcho {
        /// Present when it was a [`PingStorageCommand`].
        "changes" changes: Option<Dictionary<bool>>,
    }
    extends ping: PingCommand
}

java! {
    /// Answer to either ping.
    PingAnswer = "com.cloud.agent.api.PingAnswer" {
        /// The ping it answers.
        "_command" command: Option<PingEcho>,
        /// The host is not up for the server: start up anew.
        "sendStartup" send_startup: bool,
        /// Replaces the list of servers to stay away from.
        "avoidMsList" avoid_ms_list: Option<Vec<String>>,
        "reconcileCommands" reconcile_commands: Option<Vec<String>>,
    }
    extends base: AnswerBase
}

answers!(PingAnswer);
commands! {
    PingCommand.base => PingAnswer, false;
    PingStorageCommand.ping.base => PingAnswer, false;
}

impl PingCommand {
    /// A ping of host `host_id`.
    pub fn new(host_type: HostType, host_id: i64) -> PingCommand {
        PingCommand { host_type: Some(host_type), host_id, ..PingCommand::default() }
    }
}

impl PingStorageCommand {
    /// A ping of the secondary storage host `host_id`.
    pub fn new(host_id: i64) -> PingStorageCommand {
        let ping = PingCommand::new(HostType::Storage, host_id);
        PingStorageCommand { ping, ..PingStorageCommand::default() }
    }
}
