//! Several management servers: which one an agent should talk to, and what they say to each other.

use super::answers::PlainAnswer;
use crate::base::{AnswerBase, CommandBase};

java! {
    /// A new list of management servers.
    SetupMSListCommand = "org.apache.cloudstack.agent.lb.SetupMSListCommand" {
        "msList" ms_list: Option<Vec<String>>,
        "avoidMsList" avoid_ms_list: Option<Vec<String>>,
        "lbAlgorithm" lb_algorithm: Option<String>,
        /// Seconds; 0 = never.
        "lbCheckInterval" lb_check_interval: Option<i64>,
        /// Look for the preferred server once, now.
        "triggerHostLb" trigger_host_lb: bool,
    }
    extends base: CommandBase
}

java! {
    /// Whether the list was taken over.
    SetupMSListAnswer = "org.apache.cloudstack.agent.lb.SetupMSListAnswer" {}
    extends base: AnswerBase
}

java! {
    /// Move to another management server, since this one goes into maintenance.
    MigrateAgentConnectionCommand = "com.cloud.agent.api.MigrateAgentConnectionCommand" {
        "msList" ms_list: Option<Vec<String>>,
        /// Holds the sender.
        "avoidMsList" avoid_ms_list: Option<Vec<String>>,
        "lbAlgorithm" lb_algorithm: Option<String>,
        /// Seconds; 0 = never.
        "lbCheckInterval" lb_check_interval: Option<i64>,
    }
    extends base: CommandBase
}

java! {
    /// Whether the agent will move.
    MigrateAgentConnectionAnswer = "com.cloud.agent.api.MigrateAgentConnectionAnswer" {}
    extends base: AnswerBase
}

java! {
    /// Between servers: hand a directly attached host over.
    TransferAgentCommand = "com.cloud.agent.api.TransferAgentCommand" {
        "agentId" agent_id: i64,
        "futureOwner" future_owner: i64,
        "currentOwner" current_owner: i64,
        "isConnectionTransfer" is_connection_transfer: bool,
        "event" event: Option<String>,
    }
    extends base: CommandBase
}

java! {
    /// Between servers: drop an attachment.
    ChangeAgentCommand = "com.cloud.agent.api.ChangeAgentCommand" {
        "agentId" agent_id: i64,
        "event" event: Option<String>,
    }
    extends base: CommandBase
}

java! {
    /// Between servers: answer to [`ChangeAgentCommand`].
    ChangeAgentAnswer = "com.cloud.agent.api.ChangeAgentAnswer" {}
    extends base: AnswerBase
}

java! {
    /// Between servers: an event of a host.
    PropagateResourceEventCommand = "com.cloud.agent.api.PropagateResourceEventCommand" {
        "hostId" host_id: i64,
        "event" event: Option<String>,
    }
    extends base: CommandBase
}

java! {
    /// Between servers: look for hosts without an owner.
    ScheduleHostScanTaskCommand = "com.cloud.agent.api.ScheduleHostScanTaskCommand" {}
    extends base: CommandBase
}

java! {
    /// Between servers, with the control flag: cancel a forwarded command.
    CancelCommand = "com.cloud.agent.api.CancelCommand" {
        "sequence" sequence: i64,
        "reason" reason: Option<String>,
    }
    extends base: CommandBase
}

answers!(SetupMSListAnswer, MigrateAgentConnectionAnswer, ChangeAgentAnswer);
commands! {
    SetupMSListCommand.base => SetupMSListAnswer, false;
    MigrateAgentConnectionCommand.base => MigrateAgentConnectionAnswer, false;
    TransferAgentCommand.base => PlainAnswer, false;
    ChangeAgentCommand.base => ChangeAgentAnswer, false;
    PropagateResourceEventCommand.base => PlainAnswer, false;
    ScheduleHostScanTaskCommand.base => PlainAnswer, false;
    CancelCommand.base => PlainAnswer, false;
}
