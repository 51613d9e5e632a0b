//! Every class this crate models, in one list.
//!
//! `quickcloud wire decode` marks classes outside of it; tests and fuzzers walk through it.

use crate::{Body, BodyError, Envelope};
use crate::{agent, console, storage};

macro_rules! catalogue {
    ($($module:ident: $($name:ident)*;)*) => {
        /// Full names of every class with a typed body.
        pub const CLASSES: &[&str] = &[$($(<$module::$name as Body>::CLASS,)*)*];

        /// Opens the envelope as its typed body and wraps that again; `None` for a class that is
        /// not modelled. What comes out is what this crate would have sent.
        ///
        /// # Errors
        /// [`BodyError::Field`] when a field does not fit.
        pub fn rewrite(envelope: &Envelope) -> Option<Result<Envelope, BodyError>> {
            match envelope.class.as_str() {
                $($(<$module::$name as Body>::CLASS => {
                    Some(retyped::<$module::$name>(envelope))
                })*)*
                _ => None,
            }
        }

        /// The typed body as `{:?}` prints it; `None` for a class that is not modelled.
        ///
        /// # Errors
        /// [`BodyError::Field`] when a field does not fit.
        pub fn describe(envelope: &Envelope) -> Option<Result<String, BodyError>> {
            match envelope.class.as_str() {
                $($(<$module::$name as Body>::CLASS => {
                    Some(envelope.open::<$module::$name>().map(|body| format!("{body:?}")))
                })*)*
                _ => None,
            }
        }
    };
}

fn retyped<B: Body>(envelope: &Envelope) -> Result<Envelope, BodyError> {
    envelope.open::<B>().map(|body| Envelope::of(&body))
}

catalogue! {
    agent:
        PlainAnswer UnsupportedAnswer
        StartupSecondaryStorageCommand StartupProxyCommand StartupAnswer
        ReadyCommand ReadyAnswer
        PingCommand PingStorageCommand PingAnswer
        SetupKeyStoreCommand SetupKeystoreAnswer SetupCertificateCommand SetupCertificateAnswer
        PostCertificateRenewalCommand
        SetupMSListCommand SetupMSListAnswer
        MigrateAgentConnectionCommand MigrateAgentConnectionAnswer
        TransferAgentCommand ChangeAgentCommand ChangeAgentAnswer PropagateResourceEventCommand
        ScheduleHostScanTaskCommand CancelCommand
        ShutdownCommand CheckHealthCommand CheckHealthAnswer MaintainCommand MaintainAnswer
        RollingMaintenanceCommand RollingMaintenanceAnswer SetHostParamsCommand
        AgentControlCommand AgentControlAnswer;
    console:
        StartConsoleProxyAgentHttpHandlerCommand AllowConsoleAccessCommand
        CheckConsoleProxyLoadCommand WatchConsoleProxyLoadCommand ConsoleProxyLoadAnswer
        ConsoleAccessAuthenticationCommand ConsoleAccessAuthenticationAnswer
        ConsoleProxyLoadReportCommand;
    storage:
        StartupStorageCommand
        SecStorageSetupCommand SecStorageSetupAnswer SecStorageVMSetupCommand
        SecStorageFirewallCfgCommand
        DownloadCommand DownloadProgressCommand DownloadAnswer
        ListTemplateCommand ListTemplateAnswer ListVolumeCommand ListVolumeAnswer
        GetStorageStatsCommand GetStorageStatsAnswer ComputeChecksumCommand
        ListDataStoreObjectsCommand ListDataStoreObjectsAnswer
        DeleteCommand BackupDeleteAnswer MoveVolumeCommand DeleteSnapshotsDirCommand CopyCommand CopyCmdAnswer
        QuerySnapshotZoneCopyCommand QuerySnapshotZoneCopyAnswer
        HandleConfigDriveIsoCommand HandleConfigDriveIsoAnswer
        GetDatadisksCommand GetDatadisksAnswer
        CreateDatadiskTemplateCommand CreateDatadiskTemplateAnswer
        CreateEntityDownloadURLCommand CreateEntityDownloadURLAnswer
        DeleteEntityDownloadURLCommand
        UploadStatusCommand UploadStatusAnswer UploadCommand UploadProgressCommand UploadAnswer;
}
