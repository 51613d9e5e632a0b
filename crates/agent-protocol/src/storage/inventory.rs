//! What lies on a store: lists, sizes, digests, the store browser.

use super::store::DataStoreTO;
use crate::agent::{AnswerBase, CommandBase, PlainAnswer};
use crate::gson::Dictionary;
use crate::text::UrlText;

java! {
    /// One template or volume in a list.
    TemplateProp {
        "templateName" template_name: Option<String>,
        /// Below the root of the store.
        "installPath" install_path: Option<String>,
        /// Virtual bytes.
        "size" size: i64,
        /// Bytes on disk.
        "physicalSize" physical_size: i64,
        "id" id: i64,
        "isPublic" is_public: bool,
        "isCorrupted" is_corrupted: bool,
    }
}

java! {
    /// Which templates are there?
    ListTemplateCommand = "com.cloud.agent.api.storage.ListTemplateCommand" {
        "store" store: Option<DataStoreTO>,
        "nfsVersion" nfs_version: Option<String>,
    }
    extends base: CommandBase
}

java! {
    /// The templates. Absent means "do not compare"; an empty one means "all are gone".
    ListTemplateAnswer = "com.cloud.agent.api.storage.ListTemplateAnswer" {
        "secUrl" sec_url: Option<UrlText>,
        /// By unique name.
        "templateInfos" template_infos: Option<Dictionary<TemplateProp>>,
    }
    extends base: AnswerBase
}

java! {
    /// Which volumes are there?
    ListVolumeCommand = "com.cloud.agent.api.storage.ListVolumeCommand" {
        "store" store: Option<DataStoreTO>,
        "secUrl" sec_url: Option<UrlText>,
        "nfsVersion" nfs_version: Option<String>,
    }
    extends base: CommandBase
}

java! {
    /// The volumes. Absent means "do not compare"; an empty one means "all are gone".
    ListVolumeAnswer = "com.cloud.agent.api.storage.ListVolumeAnswer" {
        "secUrl" sec_url: Option<UrlText>,
        /// By volume id, as text.
        "templateInfos" template_infos: Option<Dictionary<TemplateProp>>,
    }
    extends base: AnswerBase
}

java! {
    /// How full is the store?
    GetStorageStatsCommand = "com.cloud.agent.api.GetStorageStatsCommand" {
        "id" id: Option<String>,
        "localPath" local_path: Option<String>,
        "pooltype" pooltype: Option<String>,
        "secUrl" sec_url: Option<UrlText>,
        "store" store: Option<DataStoreTO>,
        "nfsVersion" nfs_version: Option<String>,
    }
    extends base: CommandBase
}

java! {
    /// Size and use of a store, in bytes.
    GetStorageStatsAnswer = "com.cloud.agent.api.GetStorageStatsAnswer" {
        "usedBytes" used_bytes: i64,
        "capacityBytes" capacity_bytes: i64,
        "capacityIops" capacity_iops: Option<i64>,
        "usedIops" used_iops: Option<i64>,
    }
    extends base: AnswerBase
}

java! {
    /// The digest of a file; comes in `details` as `{ALG}hex`.
    ComputeChecksumCommand = "com.cloud.agent.api.ComputeChecksumCommand" {
        "store" store: Option<DataStoreTO>,
        "templatePath" template_path: Option<String>,
        /// `MD5` when absent.
        "algorithm" algorithm: Option<String>,
        "secUrl" sec_url: Option<UrlText>,
        "nfsVersion" nfs_version: Option<String>,
    }
    extends base: CommandBase
}

java! {
    /// One page of a directory.
    ListDataStoreObjectsCommand =
        "org.apache.cloudstack.storage.command.browser.ListDataStoreObjectsCommand"
    {
        "store" store: Option<DataStoreTO>,
        "path" path: Option<String>,
        "startIndex" start_index: i32,
        "pageSize" page_size: i32,
        "nfsVersion" nfs_version: Option<String>,
    }
    extends base: CommandBase
}

java! {
    /// One page of a directory; the lists run in step.
    ListDataStoreObjectsAnswer =
        "org.apache.cloudstack.storage.command.browser.ListDataStoreObjectsAnswer"
    {
        "pathExists" path_exists: bool,
        /// Entries of the whole directory.
        "count" count: i32,
        "names" names: Option<Vec<String>>,
        "paths" paths: Option<Vec<String>>,
        "absPaths" abs_paths: Option<Vec<String>>,
        "isDirs" is_dirs: Option<Vec<bool>>,
        "sizes" sizes: Option<Vec<i64>>,
        /// Milliseconds since 1970.
        "lastModified" last_modified: Option<Vec<i64>>,
    }
    extends base: AnswerBase
}

answers!(ListTemplateAnswer, ListVolumeAnswer, GetStorageStatsAnswer, ListDataStoreObjectsAnswer);
commands! {
    ListTemplateCommand.base => ListTemplateAnswer, true;
    ListVolumeCommand.base => ListVolumeAnswer, true;
    GetStorageStatsCommand.base => GetStorageStatsAnswer, false;
    ComputeChecksumCommand.base => PlainAnswer, true;
    ListDataStoreObjectsCommand.base => ListDataStoreObjectsAnswer, false;
}
