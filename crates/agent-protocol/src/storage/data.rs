//! Objects on a store: templates, volumes, snapshots, diagnostics.

use bedrock::Secret;

use super::store::{DataStoreTO, ImageFormat};
use crate::text::UrlText;

java! {
    /// A template or an ISO.
    TemplateObjectTO {
        /// Below the root of the store.
        "path" path: Option<String>,
        /// Where it was registered from.
        "origUrl" orig_url: Option<UrlText>,
        "uuid" uuid: Option<String>,
        "id" id: i64,
        "format" format: Option<ImageFormat>,
        "accountId" account_id: i64,
        /// `{ALG}hex` or bare hex.
        "checksum" checksum: Option<String>,
        "hvm" hvm: bool,
        "displayText" display_text: Option<String>,
        "imageDataStore" image_data_store: Option<DataStoreTO>,
        /// The unique name, not the one users see.
        "name" name: Option<String>,
        "guestOsType" guest_os_type: Option<String>,
        /// Virtual bytes.
        "size" size: Option<i64>,
        /// Bytes on disk.
        "physicalSize" physical_size: Option<i64>,
        "hypervisorType" hypervisor_type: Option<String>,
        "bootable" bootable: bool,
        "uniqueName" unique_name: Option<String>,
        "directDownload" direct_download: bool,
        "deployAsIs" deploy_as_is: bool,
        "deployAsIsConfiguration" deploy_as_is_configuration: Option<String>,
        "followRedirects" follow_redirects: bool,
    }
}

constants! {
    /// What a volume is to its VM.
    VolumeType {
        Unknown = "UNKNOWN",
        Root = "ROOT",
        Swap = "SWAP",
        Datadisk = "DATADISK",
        Iso = "ISO",
    }
}

constants! {
    /// How space of a volume is set aside.
    ProvisioningType {
        Thin = "THIN",
        Sparse = "SPARSE",
        Fat = "FAT",
    }
}

constants! {
    /// How a hypervisor caches a volume.
    CacheMode {
        NoCache = "NONE",
        Writeback = "WRITEBACK",
        Writethrough = "WRITETHROUGH",
        HypervisorDefault = "HYPERVISOR_DEFAULT",
    }
}

java! {
    /// How a volume moves between pools; primary storage only.
    MigrationOptions {
        "srcPoolUuid" src_pool_uuid: Option<String>,
        "srcPoolType" src_pool_type: Option<String>,
        "srcPoolClusterId" src_pool_cluster_id: Option<i64>,
        "type" migration_type: Option<String>,
        "scopeType" scope_type: Option<String>,
        "srcBackingFilePath" src_backing_file_path: Option<String>,
        "copySrcTemplate" copy_src_template: bool,
        "srcVolumeUuid" src_volume_uuid: Option<String>,
        "timeout" timeout: i32,
    }
}

java! {
    /// A volume.
    VolumeObjectTO {
        "uuid" uuid: Option<String>,
        "volumeType" volume_type: Option<VolumeType>,
        "dataStore" data_store: Option<DataStoreTO>,
        "name" name: Option<String>,
        /// Virtual bytes.
        "size" size: Option<i64>,
        "usableSize" usable_size: Option<i64>,
        /// Below the root of the store.
        "path" path: Option<String>,
        "volumeId" volume_id: Option<i64>,
        "vmName" vm_name: Option<String>,
        "accountId" account_id: i64,
        "chainInfo" chain_info: Option<String>,
        "format" format: Option<ImageFormat>,
        "provisioningType" provisioning_type: Option<ProvisioningType>,
        "poolId" pool_id: Option<i64>,
        "id" id: i64,
        "deviceId" device_id: Option<i64>,
        "bytesReadRate" bytes_read_rate: Option<i64>,
        "bytesReadRateMax" bytes_read_rate_max: Option<i64>,
        "bytesReadRateMaxLength" bytes_read_rate_max_length: Option<i64>,
        "bytesWriteRate" bytes_write_rate: Option<i64>,
        "bytesWriteRateMax" bytes_write_rate_max: Option<i64>,
        "bytesWriteRateMaxLength" bytes_write_rate_max_length: Option<i64>,
        "iopsReadRate" iops_read_rate: Option<i64>,
        "iopsReadRateMax" iops_read_rate_max: Option<i64>,
        "iopsReadRateMaxLength" iops_read_rate_max_length: Option<i64>,
        "iopsWriteRate" iops_write_rate: Option<i64>,
        "iopsWriteRateMax" iops_write_rate_max: Option<i64>,
        "iopsWriteRateMaxLength" iops_write_rate_max_length: Option<i64>,
        "cacheMode" cache_mode: Option<CacheMode>,
        "hypervisorType" hypervisor_type: Option<String>,
        "migrationOptions" migration_options: Option<MigrationOptions>,
        "directDownload" direct_download: bool,
        "dataStoreUuid" data_store_uuid: Option<String>,
        "deployAsIs" deploy_as_is: bool,
        "updatedDataStoreUUID" updated_data_store_uuid: Option<String>,
        "vSphereStoragePolicyId" vsphere_storage_policy_id: Option<String>,
        "passphrase" passphrase: Option<Secret<Vec<u8>>>,
        "encryptFormat" encrypt_format: Option<String>,
        "checkpointPaths" checkpoint_paths: Option<Vec<String>>,
        "checkpointImageStoreUrls" checkpoint_image_store_urls: Option<Vec<UrlText>>,
        "followRedirects" follow_redirects: bool,
    }
}

java! {
    /// A snapshot.
    SnapshotObjectTO {
        /// Below the root of the store.
        "path" path: Option<String>,
        /// The volume it was taken of; its class is fixed, so it is not named on the wire.
        "volume" volume: Option<VolumeObjectTO>,
        "parentSnapshotPath" parent_snapshot_path: Option<String>,
        /// Where this copy lies.
        "dataStore" data_store: Option<DataStoreTO>,
        "imageStore" image_store: Option<DataStoreTO>,
        "kvmIncrementalSnapshot" kvm_incremental_snapshot: bool,
        "vmName" vm_name: Option<String>,
        "name" name: Option<String>,
        "hypervisorType" hypervisor_type: Option<String>,
        "id" id: i64,
        "quiescevm" quiescevm: bool,
        /// Paths of the parents, oldest first.
        "parents" parents: Option<Vec<String>>,
        "parentStore" parent_store: Option<DataStoreTO>,
        "checkpointPath" checkpoint_path: Option<String>,
        /// Bytes on disk.
        "physicalSize" physical_size: i64,
        "accountId" account_id: i64,
        "followRedirects" follow_redirects: bool,
    }
}

java! {
    /// A file of diagnostics, or one picked in the store browser.
    DiagnosticsDataTO {
        "dataStoreTO" data_store_to: Option<DataStoreTO>,
        "hypervisorType" hypervisor_type: Option<String>,
        "path" path: Option<String>,
        "id" id: i64,
    }
}

java! {
    /// One file of a backup (4.23).
    BackupDeltaTO {
        "dataStoreTO" data_store_to: Option<DataStoreTO>,
        "hypervisorType" hypervisor_type: Option<String>,
        /// `backups/<account>/<volume>/<uuid>`, below the root of the store.
        "path" path: Option<String>,
        "screenshotPath" screenshot_path: Option<String>,
        "format" format: Option<ImageFormat>,
        /// Id of the backup, which may have several files.
        "id" id: i64,
    }
}

java! {
    /// The picture of a backup's validation (4.23).
    BackupScreenshotTO {
        "dataStoreTO" data_store_to: Option<DataStoreTO>,
        "hypervisor" hypervisor: Option<String>,
        /// Below the root of the store; holds `:` and `+`.
        "path" path: Option<String>,
    }
}

interface! {
    /// An object of any kind, with its class.
    DataTO {
        Template(TemplateObjectTO) = "org.apache.cloudstack.storage.to.TemplateObjectTO",
        Volume(VolumeObjectTO) = "org.apache.cloudstack.storage.to.VolumeObjectTO",
        Snapshot(SnapshotObjectTO) = "org.apache.cloudstack.storage.to.SnapshotObjectTO",
        Diagnostics(DiagnosticsDataTO) = "org.apache.cloudstack.diagnostics.to.DiagnosticsDataTO",
        BackupDelta(BackupDeltaTO) = "org.apache.cloudstack.storage.to.BackupDeltaTO",
        BackupScreenshot(BackupScreenshotTO) = "org.apache.cloudstack.backup.to.BackupScreenshotTO",
    }
}

impl DataTO {
    /// The store the object lies on.
    pub fn store(&self) -> Option<&DataStoreTO> {
        match self {
            DataTO::Template(template) => template.image_data_store.as_ref(),
            DataTO::Volume(volume) => volume.data_store.as_ref(),
            DataTO::Snapshot(snapshot) => snapshot.data_store.as_ref(),
            DataTO::Diagnostics(file) => file.data_store_to.as_ref(),
            DataTO::BackupDelta(delta) => delta.data_store_to.as_ref(),
            DataTO::BackupScreenshot(picture) => picture.data_store_to.as_ref(),
            DataTO::Unknown { .. } => None,
        }
    }

    /// The path below the root of the store.
    pub fn path(&self) -> Option<&str> {
        match self {
            DataTO::Template(template) => template.path.as_deref(),
            DataTO::Volume(volume) => volume.path.as_deref(),
            DataTO::Snapshot(snapshot) => snapshot.path.as_deref(),
            DataTO::Diagnostics(file) => file.path.as_deref(),
            DataTO::BackupDelta(delta) => delta.path.as_deref(),
            DataTO::BackupScreenshot(picture) => picture.path.as_deref(),
            DataTO::Unknown { .. } => None,
        }
    }
}
