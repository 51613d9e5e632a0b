//! Health, maintenance, farewell, and the empty control command.

use super::answers::PlainAnswer;
use crate::base::{AnswerBase, CommandBase};
use crate::gson::Dictionary;

java! {
    /// From an agent: it stops. From a server: the host was deleted.
    ShutdownCommand = "com.cloud.agent.api.ShutdownCommand" {
        /// Must be present: `sig.kill`, `update`, `unknown` or `deleteHost`.
        "reason" reason: Option<String>,
        "detail" detail: Option<String>,
        /// Forget zone, cluster and pod.
        "removeHost" remove_host: bool,
    }
    extends base: CommandBase
}

impl ShutdownCommand {
    /// Reason of an agent that was asked to stop: no alert, no investigation.
    pub const SIG_KILL: &'static str = "sig.kill";
    /// Reason of a server that deleted the host.
    pub const DELETE_HOST: &'static str = "deleteHost";

    /// The farewell of an agent that was asked to stop.
    pub fn stopped() -> ShutdownCommand {
        let reason = Some(ShutdownCommand::SIG_KILL.to_owned());
        ShutdownCommand { reason, ..ShutdownCommand::default() }
    }
}

java! {
    /// Are you well?
    CheckHealthCommand = "com.cloud.agent.api.CheckHealthCommand" {}
    extends base: CommandBase
}

java! {
    /// Answer to [`CheckHealthCommand`].
    CheckHealthAnswer = "com.cloud.agent.api.CheckHealthAnswer" {}
    extends base: AnswerBase
}

impl CheckHealthAnswer {
    /// The answer in the words of the original agent.
    pub fn alive(alive: bool) -> CheckHealthAnswer {
        let text = if alive { "resource is alive" } else { "resource is not alive" };
        let base = AnswerBase { result: alive, ..AnswerBase::success_with(text) };
        CheckHealthAnswer { base }
    }
}

java! {
    /// The host goes into maintenance.
    MaintainCommand = "com.cloud.agent.api.MaintainCommand" {}
    extends base: CommandBase
}

java! {
    /// Answer to [`MaintainCommand`].
    MaintainAnswer = "com.cloud.agent.api.MaintainAnswer" {
        "willMigrate" will_migrate: bool,
    }
    extends base: AnswerBase
}

java! {
    /// One stage of a rolling maintenance (hypervisor hosts only).
    RollingMaintenanceCommand = "com.cloud.agent.api.RollingMaintenanceCommand" {
        "stage" stage: Option<String>,
        "payload" payload: Option<String>,
        "started" started: bool,
        "checkMaintenanceScript" check_maintenance_script: bool,
    }
    extends base: CommandBase
}

java! {
    /// Answer to [`RollingMaintenanceCommand`].
    RollingMaintenanceAnswer = "com.cloud.agent.api.RollingMaintenanceAnswer" {
        "finished" finished: bool,
        "avoidMaintenance" avoid_maintenance: bool,
        /// Spelled so on the wire.
        "maintenaceScriptDefined" maintenance_script_defined: bool,
    }
    extends base: AnswerBase
}

java! {
    /// Parameters of a hypervisor host.
    SetHostParamsCommand = "com.cloud.agent.api.SetHostParamsCommand" {
        "params" params: Option<Dictionary<String>>,
    }
    extends base: CommandBase
}

java! {
    /// A control command of no particular class; no release sends it.
    AgentControlCommand = "com.cloud.agent.api.AgentControlCommand" {}
    extends base: CommandBase
}

java! {
    /// The answer to a control command that nobody claimed.
    AgentControlAnswer = "com.cloud.agent.api.AgentControlAnswer" {}
    extends base: AnswerBase
}

answers!(CheckHealthAnswer, MaintainAnswer, RollingMaintenanceAnswer, AgentControlAnswer);
commands! {
    ShutdownCommand.base => PlainAnswer, true;
    CheckHealthCommand.base => CheckHealthAnswer, false;
    MaintainCommand.base => MaintainAnswer, true;
    RollingMaintenanceCommand.base => RollingMaintenanceAnswer, false;
    SetHostParamsCommand.base => PlainAnswer, true;
    AgentControlCommand.base => AgentControlAnswer, false;
}
