//! The start-up of secondary storage before it had a class of its own.

use super::inventory::TemplateProp;
use crate::agent::{StartupAnswer, StartupCommand};
use crate::gson::Dictionary;

constants! {
    /// What a historic storage agent served.
    StorageResourceType {
        StoragePool = "STORAGE_POOL",
        StorageHost = "STORAGE_HOST",
        SecondaryStorage = "SECONDARY_STORAGE",
        LocalSecondaryStorage = "LOCAL_SECONDARY_STORAGE",
    }
}

java! {
    /// Historic start-up of secondary storage; no server of today accepts it.
    StartupStorageCommand = "com.cloud.agent.api.StartupStorageCommand" {
        "parent" parent: Option<String>,
        "templateInfo" template_info: Option<Dictionary<TemplateProp>>,
        "totalSize" total_size: i64,
        "poolInfo" pool_info: Option<crate::gson::RawObject>,
        "resourceType" resource_type: Option<StorageResourceType>,
        "fsType" fs_type: Option<String>,
        "hostDetails" host_details: Dictionary<String>,
        "nfsShare" nfs_share: Option<String>,
    }
    extends startup: StartupCommand
}

commands! { StartupStorageCommand.startup.base => StartupAnswer, false; }
