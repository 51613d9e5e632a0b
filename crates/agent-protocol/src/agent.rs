//! Bodies of the session: everything both roles say to, and hear from, a management server.
//!
//! Fields that may be absent on the wire are `Option`s; numbers and flags are always written.

mod answers;
mod certificate;
mod cluster;
mod maintenance;
mod ping;
mod ready;
mod startup;

pub use crate::base::{AnswerBase, CommandBase};
pub use answers::{PlainAnswer, UnsupportedAnswer, unsupported};
pub use certificate::{
    PostCertificateRenewalCommand, SetupCertificateAnswer, SetupCertificateCommand,
    SetupKeyStoreCommand, SetupKeystoreAnswer,
};
pub use cluster::{
    CancelCommand, ChangeAgentAnswer, ChangeAgentCommand, MigrateAgentConnectionAnswer,
    MigrateAgentConnectionCommand, PropagateResourceEventCommand, ScheduleHostScanTaskCommand,
    SetupMSListAnswer, SetupMSListCommand, TransferAgentCommand,
};
pub use maintenance::{
    AgentControlAnswer, AgentControlCommand, CheckHealthAnswer, CheckHealthCommand, MaintainAnswer,
    MaintainCommand, RollingMaintenanceAnswer, RollingMaintenanceCommand, SetHostParamsCommand,
    ShutdownCommand,
};
pub use ping::{
    CommandInfo, CommandState, HostType, PingAnswer, PingCommand, PingEcho, PingStorageCommand,
};
pub use ready::{ReadyAnswer, ReadyCommand};
pub use startup::{
    StartupAnswer, StartupCommand, StartupProxyCommand, StartupSecondaryStorageCommand,
};

command_set! {
    /// What a management server may ask of any agent, whatever its role.
    AgentCommand {
        Ready(ReadyCommand),
        Shutdown(ShutdownCommand),
        Maintain(MaintainCommand),
        CheckHealth(CheckHealthCommand),
        AgentControl(AgentControlCommand),
        SetupKeyStore(SetupKeyStoreCommand),
        SetupCertificate(SetupCertificateCommand),
        PostCertificateRenewal(PostCertificateRenewalCommand),
        SetupMSList(SetupMSListCommand),
        MigrateAgentConnection(MigrateAgentConnectionCommand),
        RollingMaintenance(RollingMaintenanceCommand),
        SetHostParams(SetHostParamsCommand),
    }
}
