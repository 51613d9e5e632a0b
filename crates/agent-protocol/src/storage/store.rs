//! Stores: where an object lies.

use crate::gson::Dictionary;
use crate::text::UrlText;
use bedrock::Secret;

constants! {
    /// What a store is for.
    DataStoreRole {
        Primary = "Primary",
        Image = "Image",
        ImageCache = "ImageCache",
        Backup = "Backup",
        Object = "Object",
    }
}

constants! {
    /// Format of an image file.
    ImageFormat {
        Qcow2 = "QCOW2",
        Raw = "RAW",
        Vhd = "VHD",
        Iso = "ISO",
        Ova = "OVA",
        Vhdx = "VHDX",
        Baremetal = "BAREMETAL",
        External = "EXTERNAL",
        Vmdk = "VMDK",
        Vdi = "VDI",
        Tar = "TAR",
        Zip = "ZIP",
        Dir = "DIR",
        Png = "PNG",
    }
}

impl ImageFormat {
    /// The file name extension the server expects, without a dot.
    pub fn extension(&self) -> &str {
        match self {
            ImageFormat::Qcow2 => "qcow2",
            ImageFormat::Raw => "raw",
            ImageFormat::Vhd => "vhd",
            ImageFormat::Iso => "iso",
            ImageFormat::Ova => "ova",
            ImageFormat::Vhdx => "vhdx",
            ImageFormat::Vmdk => "vmdk",
            ImageFormat::Vdi => "vdi",
            ImageFormat::Tar => "tar",
            ImageFormat::Zip => "zip",
            ImageFormat::Dir => "dir",
            ImageFormat::Png => "png",
            ImageFormat::Baremetal | ImageFormat::External | ImageFormat::Other(_) => self.as_str(),
        }
    }
}

java! {
    /// A store on NFS or CIFS.
    NfsTO {
        /// `nfs://host/path`, or `cifs://…` with its credentials in the query.
        "_url" url: Option<UrlText>,
        "_role" role: Option<DataStoreRole>,
        "uuid" uuid: Option<String>,
        "nfsVersion" nfs_version: Option<String>,
    }
}

java! {
    /// An object store that speaks S3.
    S3TO {
        "id" id: Option<i64>,
        "uuid" uuid: Option<String>,
        "accessKey" access_key: Option<Secret<String>>,
        "secretKey" secret_key: Option<Secret<String>>,
        /// Host with optional port, or a URL; without the bucket.
        "endPoint" end_point: Option<UrlText>,
        "bucketName" bucket_name: Option<String>,
        "signer" signer: Option<String>,
        "httpsFlag" https_flag: Option<bool>,
        "useTCPKeepAlive" use_tcp_keep_alive: Option<bool>,
        /// Milliseconds.
        "connectionTimeout" connection_timeout: Option<i32>,
        "maxErrorRetry" max_error_retry: Option<i32>,
        /// Milliseconds.
        "socketTimeout" socket_timeout: Option<i32>,
        /// Milliseconds.
        "connectionTtl" connection_ttl: Option<i32>,
        /// Date in the style of the peer's Java release.
        "created" created: Option<String>,
        "enableRRS" enable_rrs: bool,
        /// Negative: one request always; 0: several always.
        "maxSingleUploadSizeInBytes" max_single_upload_size_in_bytes: i64,
    }
}

java! {
    /// An object store that speaks Swift.
    SwiftTO {
        "id" id: Option<i64>,
        /// Where to authenticate.
        "url" url: Option<UrlText>,
        "account" account: Option<String>,
        "userName" user_name: Option<String>,
        "key" key: Option<Secret<String>>,
        "storagePolicy" storage_policy: Option<String>,
    }
}

java! {
    /// A store of a provider without a class of its own.
    ImageStoreTO {
        "type" store_type: Option<String>,
        "uri" uri: Option<UrlText>,
        "providerName" provider_name: Option<String>,
        "role" role: Option<DataStoreRole>,
        "uuid" uuid: Option<String>,
    }
}

java! {
    /// Primary storage; only as the home of a snapshot's volume, never to act on.
    PrimaryDataStoreTO {
        "uuid" uuid: Option<String>,
        "name" name: Option<String>,
        "type" store_type: Option<String>,
        "id" id: i64,
        "poolType" pool_type: Option<String>,
        "host" host: Option<String>,
        "path" path: Option<String>,
        "port" port: i32,
        "url" url: Option<UrlText>,
        "details" details: Option<Dictionary<Secret<String>>>,
        "fullCloneFlag" full_clone_flag: Option<bool>,
        "diskProvisioningStrictnessFlag" disk_provisioning_strictness_flag: Option<bool>,
        "isManaged" is_managed: bool,
        "parentPoolType" parent_pool_type: Option<String>,
    }
}

interface! {
    /// A store of any kind, with its class.
    DataStoreTO {
        Nfs(NfsTO) = "com.cloud.agent.api.to.NfsTO",
        S3(S3TO) = "com.cloud.agent.api.to.S3TO",
        Swift(SwiftTO) = "com.cloud.agent.api.to.SwiftTO",
        ImageStore(ImageStoreTO) = "org.apache.cloudstack.storage.to.ImageStoreTO",
        Primary(PrimaryDataStoreTO) = "org.apache.cloudstack.storage.to.PrimaryDataStoreTO",
    }
}

impl DataStoreTO {
    /// An image store on NFS.
    pub fn nfs(url: impl Into<UrlText>) -> DataStoreTO {
        let role = Some(DataStoreRole::Image);
        DataStoreTO::from(NfsTO { url: Some(url.into()), role, ..NfsTO::default() })
    }

    /// The store when it is on NFS or CIFS.
    pub fn as_nfs(&self) -> Option<&NfsTO> {
        match self {
            DataStoreTO::Nfs(nfs) => Some(nfs),
            _ => None,
        }
    }
}
