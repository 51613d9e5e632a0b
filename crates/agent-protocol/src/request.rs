//! What agents ask of a server: the session's requests and those of the roles, in one set.

use crate::agent::{
    PingCommand, PingStorageCommand, ShutdownCommand, StartupProxyCommand,
    StartupSecondaryStorageCommand,
};
use crate::console::{ConsoleAccessAuthenticationCommand, ConsoleProxyLoadReportCommand};
use crate::storage::StartupStorageCommand;

command_set! {
    /// What an agent asks of a management server.
    AgentRequest {
        StartupSecondaryStorage(StartupSecondaryStorageCommand),
        StartupProxy(StartupProxyCommand),
        StartupStorage(StartupStorageCommand),
        PingStorage(PingStorageCommand),
        Ping(PingCommand),
        Shutdown(ShutdownCommand),
        ConsoleAccessAuthentication(ConsoleAccessAuthenticationCommand),
        ConsoleProxyLoadReport(ConsoleProxyLoadReportCommand),
    }
}
