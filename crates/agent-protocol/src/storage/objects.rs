//! Work on one object: delete, move, copy, split, and config drives.

use bedrock::Secret;

use super::data::{DataTO, SnapshotObjectTO, TemplateObjectTO};
use super::ovf::DatadiskTO;
use super::store::DataStoreTO;
use crate::agent::{AnswerBase, CommandBase, PlainAnswer};
use crate::gson::Dictionary;
use crate::text::UrlText;
use crate::{Answer, Envelope};

java! {
    /// Delete a template, volume, snapshot or backup.
    DeleteCommand = "org.apache.cloudstack.storage.command.DeleteCommand" {
        "data" data: Option<DataTO>,
        /// True on primary storage only; absent before 4.23.
        "deleteChain" delete_chain: Option<bool>,
    }
    extends base: CommandBase
}

java! {
    /// The deletion of a backup failed; its success is a plain answer.
    BackupDeleteAnswer = "org.apache.cloudstack.storage.command.BackupDeleteAnswer" {
        /// Id of the backup that the command named.
        "backupId" backup_id: i64,
    }
    extends base: AnswerBase
}

impl DeleteCommand {
    /// The server casts a failure by the kind of what was to be deleted.
    fn failed_answer(&self, details: &str) -> Envelope {
        let base = AnswerBase::failed(details);
        match &self.data {
            Some(DataTO::BackupDelta(backup)) => {
                Envelope::of(&BackupDeleteAnswer { backup_id: backup.id, base })
            }
            _ => Envelope::of(&PlainAnswer { base }),
        }
    }
}

java! {
    /// Move a volume to the directory of another account.
    MoveVolumeCommand = "org.apache.cloudstack.storage.command.MoveVolumeCommand" {
        "srcPath" src_path: Option<String>,
        "destPath" dest_path: Option<String>,
        "volumeName" volume_name: Option<String>,
        "volumeUuid" volume_uuid: Option<String>,
        "datastoreUri" datastore_uri: Option<UrlText>,
    }
    extends base: CommandBase
}

java! {
    /// Remove every snapshot of a volume.
    DeleteSnapshotsDirCommand = "com.cloud.agent.api.DeleteSnapshotsDirCommand" {
        "store" store: Option<DataStoreTO>,
        "directory" directory: Option<String>,
    }
    extends base: CommandBase
}

java! {
    /// Copy between stores, or make a template of a snapshot.
    CopyCommand = "org.apache.cloudstack.storage.command.CopyCommand" {
        "srcTO" src_to: Option<DataTO>,
        /// Its path is a directory.
        "destTO" dest_to: Option<DataTO>,
        "cacheTO" cache_to: Option<DataTO>,
        "executeInSequence" execute_in_sequence: bool,
        "options" options: Dictionary<Secret<String>>,
        "options2" options2: Dictionary<Secret<String>>,
    }
    extends base: CommandBase
}

java! {
    /// The object that a copy made.
    CopyCmdAnswer = "org.apache.cloudstack.storage.command.CopyCmdAnswer" {
        "newData" new_data: Option<DataTO>,
    }
    extends base: AnswerBase
}

java! {
    /// Which files make up a snapshot?
    QuerySnapshotZoneCopyCommand =
        "org.apache.cloudstack.storage.command.QuerySnapshotZoneCopyCommand"
    {
        "snapshot" snapshot: Option<SnapshotObjectTO>,
    }
    extends base: CommandBase
}

java! {
    /// The files of a snapshot, below the root of the store.
    QuerySnapshotZoneCopyAnswer =
        "org.apache.cloudstack.storage.command.QuerySnapshotZoneCopyAnswer"
    {
        "files" files: Option<Vec<String>>,
    }
    extends base: AnswerBase
}

java! {
    /// Write or delete the config drive of a VM.
    HandleConfigDriveIsoCommand = "com.cloud.agent.api.HandleConfigDriveIsoCommand" {
        /// The image in base64. It holds the VM's password.
        "isoData" iso_data: Option<Secret<String>>,
        "isoFile" iso_file: Option<String>,
        /// False: delete.
        "create" create: bool,
        "destStore" dest_store: Option<DataStoreTO>,
        "useHostCacheOnUnsupportedPool" use_host_cache_on_unsupported_pool: bool,
        "preferHostCache" prefer_host_cache: bool,
    }
    extends base: CommandBase
}

constants! {
    /// Where a config drive went.
    ConfigDriveLocation {
        Secondary = "SECONDARY",
        Primary = "PRIMARY",
        Host = "HOST",
    }
}

java! {
    /// Answer to [`HandleConfigDriveIsoCommand`]; without a location the VM does not start.
    HandleConfigDriveIsoAnswer = "com.cloud.agent.api.HandleConfigDriveIsoAnswer" {
        "location" location: Option<ConfigDriveLocation>,
    }
    extends base: AnswerBase
}

java! {
    /// Which disks are in an OVA?
    GetDatadisksCommand = "com.cloud.agent.api.storage.GetDatadisksCommand" {
        "data" data: Option<DataTO>,
        "configurationId" configuration_id: Option<String>,
    }
    extends base: CommandBase
}

java! {
    /// The disks in an OVA.
    GetDatadisksAnswer = "com.cloud.agent.api.storage.GetDatadisksAnswer" {
        "dataDiskDetails" data_disk_details: Option<Vec<DatadiskTO>>,
    }
    extends base: AnswerBase
}

java! {
    /// Make a template of one disk of an OVA.
    CreateDatadiskTemplateCommand = "com.cloud.agent.api.storage.CreateDatadiskTemplateCommand" {
        "dataDiskTemplate" data_disk_template: Option<DataTO>,
        "path" path: Option<String>,
        "fileSize" file_size: i64,
        "bootable" bootable: bool,
        "diskId" disk_id: Option<String>,
    }
    extends base: CommandBase
}

java! {
    /// The template made of a disk; its class is fixed, so it is not named on the wire.
    CreateDatadiskTemplateAnswer = "com.cloud.agent.api.storage.CreateDatadiskTemplateAnswer" {
        "dataDiskTemplate" data_disk_template: Option<TemplateObjectTO>,
    }
    extends base: AnswerBase
}

impl Answer for HandleConfigDriveIsoAnswer {
    fn failed(details: String) -> HandleConfigDriveIsoAnswer {
        // The server reads the location of a failure, too.
        let location = Some(ConfigDriveLocation::Secondary);
        HandleConfigDriveIsoAnswer { location, base: AnswerBase::failed(details) }
    }

    fn answer_base(&self) -> &AnswerBase {
        &self.base
    }
}

impl Answer for QuerySnapshotZoneCopyAnswer {
    /// The list is never absent from the original.
    fn failed(details: String) -> QuerySnapshotZoneCopyAnswer {
        QuerySnapshotZoneCopyAnswer { files: Some(vec![]), base: AnswerBase::failed(details) }
    }

    fn answer_base(&self) -> &AnswerBase {
        &self.base
    }
}

impl Answer for GetDatadisksAnswer {
    /// The list is never absent from the original.
    fn failed(details: String) -> GetDatadisksAnswer {
        GetDatadisksAnswer { data_disk_details: Some(vec![]), base: AnswerBase::failed(details) }
    }

    fn answer_base(&self) -> &AnswerBase {
        &self.base
    }
}

answers!(BackupDeleteAnswer, CopyCmdAnswer, CreateDatadiskTemplateAnswer);
commands! {
    DeleteCommand.base => PlainAnswer, false, DeleteCommand::failed_answer;
    MoveVolumeCommand.base => PlainAnswer, false;
    DeleteSnapshotsDirCommand.base => PlainAnswer, true;
    CopyCommand.base => CopyCmdAnswer, false;
    QuerySnapshotZoneCopyCommand.base => QuerySnapshotZoneCopyAnswer, false;
    HandleConfigDriveIsoCommand.base => HandleConfigDriveIsoAnswer, false;
    GetDatadisksCommand.base => GetDatadisksAnswer, false;
    CreateDatadiskTemplateCommand.base => CreateDatadiskTemplateAnswer, false;
}
