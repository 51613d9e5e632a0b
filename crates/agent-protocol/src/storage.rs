//! Bodies for secondary storage, and the objects they carry.
//!
//! Fields that may be absent on the wire are `Option`s; numbers and flags are always written.
//! Fields of the two interface types [`DataStoreTO`] and [`DataTO`] carry their class.

mod data;
mod download;
mod extraction;
mod inventory;
mod objects;
mod ovf;
mod setup;
mod startup;
mod store;
mod upload;

pub use data::{
    BackupDeltaTO, BackupScreenshotTO, CacheMode, DataTO, DiagnosticsDataTO, MigrationOptions,
    ProvisioningType, SnapshotObjectTO, TemplateObjectTO, VolumeObjectTO, VolumeType,
};
pub use download::{
    DownloadAnswer, DownloadCommand, DownloadProgressCommand, DownloadRequest, DownloadStatus,
    PasswordAuth, Proxy, ResourceType,
};
pub use extraction::{
    CreateEntityDownloadURLAnswer, CreateEntityDownloadURLCommand, DeleteEntityDownloadURLCommand,
    UploadType,
};
pub use inventory::{
    ComputeChecksumCommand, GetStorageStatsAnswer, GetStorageStatsCommand,
    ListDataStoreObjectsAnswer, ListDataStoreObjectsCommand, ListTemplateAnswer,
    ListTemplateCommand, ListVolumeAnswer, ListVolumeCommand, TemplateProp,
};
pub use objects::{
    BackupDeleteAnswer, ConfigDriveLocation, CopyCmdAnswer, CopyCommand,
    CreateDatadiskTemplateAnswer, CreateDatadiskTemplateCommand, DeleteCommand,
    DeleteSnapshotsDirCommand, GetDatadisksAnswer, GetDatadisksCommand, HandleConfigDriveIsoAnswer,
    HandleConfigDriveIsoCommand, MoveVolumeCommand, QuerySnapshotZoneCopyAnswer,
    QuerySnapshotZoneCopyCommand,
};
pub use ovf::{
    DatadiskTO, OVFConfigurationTO, OVFEulaSectionTO, OVFInformationTO, OVFNetworkTO,
    OVFPropertyTO, OVFVirtualHardwareItemTO, OVFVirtualHardwareSectionTO, TextPair,
};
pub use setup::{
    Certificates, PortConfig, SecStorageFirewallCfgCommand, SecStorageSetupAnswer,
    SecStorageSetupCommand, SecStorageVMSetupCommand,
};
pub use startup::{StartupStorageCommand, StorageResourceType};
pub use store::{
    DataStoreRole, DataStoreTO, ImageFormat, ImageStoreTO, NfsTO, PrimaryDataStoreTO, S3TO, SwiftTO,
};
pub use upload::{
    PostUploadOrder, TemplateTO, UploadAnswer, UploadCommand, UploadEntityType,
    UploadProgressCommand, UploadStatus, UploadStatusAnswer, UploadStatusCommand,
    UploadStatusState,
};

command_set! {
    /// What a management server may ask of secondary storage, besides the session's commands.
    StorageCommand {
        SecStorageSetup(SecStorageSetupCommand),
        SecStorageVMSetup(SecStorageVMSetupCommand),
        SecStorageFirewallCfg(SecStorageFirewallCfgCommand),
        Download(DownloadCommand),
        DownloadProgress(DownloadProgressCommand),
        ListTemplate(ListTemplateCommand),
        ListVolume(ListVolumeCommand),
        GetStorageStats(GetStorageStatsCommand),
        ComputeChecksum(ComputeChecksumCommand),
        ListDataStoreObjects(ListDataStoreObjectsCommand),
        Delete(DeleteCommand),
        MoveVolume(MoveVolumeCommand),
        DeleteSnapshotsDir(DeleteSnapshotsDirCommand),
        Copy(CopyCommand),
        QuerySnapshotZoneCopy(QuerySnapshotZoneCopyCommand),
        HandleConfigDriveIso(HandleConfigDriveIsoCommand),
        GetDatadisks(GetDatadisksCommand),
        CreateDatadiskTemplate(CreateDatadiskTemplateCommand),
        CreateEntityDownloadURL(CreateEntityDownloadURLCommand),
        DeleteEntityDownloadURL(DeleteEntityDownloadURLCommand),
        UploadStatus(UploadStatusCommand),
        Upload(UploadCommand),
        UploadProgress(UploadProgressCommand),
    }
}
