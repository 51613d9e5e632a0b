//! Templates, ISOs and volumes: their records and the objects that commands carry. How they come
//! onto a store is in [`crate::transfers`], how they are compared in [`crate::sync_images`].

use std::collections::{BTreeMap, HashMap};

use agent_protocol::storage::{
    DataStoreTO, DataTO, DownloadCommand, ImageFormat, OVFInformationTO, ProvisioningType,
    ResourceType, TemplateObjectTO, VolumeObjectTO, VolumeType,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bedrock::Secret;
use tokio_util::sync::CancellationToken;

use crate::attachment::SendError;
use crate::commands::{base, base_of_job};
use crate::config::ServerConfig;
use crate::random::{self, RandomError};

/// Numbers of built-in templates end here.
const FIRST_ID: i64 = 200;
/// Account that owns what is registered.
const ACCOUNT: i64 = 2;

/// What a record describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageKind {
    /// A template of a VM.
    Template,
    /// An ISO.
    Iso,
    /// A volume uploaded from a URL.
    Volume,
}

/// Where a record is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageState {
    /// Nothing was heard of it yet.
    NotDownloaded,
    /// It waits for a browser to upload its file.
    NotUploaded,
    /// The agent works on it.
    InProgress,
    /// It lies on the store.
    Downloaded,
    /// It failed; the record's error says why.
    Failed,
}

/// What the operator registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewImage {
    /// Kind.
    pub kind: ImageKind,
    /// Name that users see.
    pub name: String,
    /// Where it is downloaded from; empty of what a browser uploads.
    pub url: String,
    /// Format of the file.
    pub format: ImageFormat,
    /// Full virtualisation.
    pub hvm: bool,
    /// `{ALG}hex` or bare MD5.
    pub checksum: Option<String>,
}

/// A link to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLink {
    /// The whole link.
    pub url: String,
    /// Directory part, a random UUID.
    pub directory: String,
    /// File name part.
    pub file: String,
}

/// A copy of one record.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// What was registered.
    pub wanted: NewImage,
    /// Unique name on the store.
    pub unique_name: String,
    /// URL of the store it lies on.
    pub store: String,
    /// State.
    pub state: ImageState,
    /// Progress in percent.
    pub percent: i32,
    /// What the agent said last; after success a sentence too.
    pub message: String,
    /// Job of the agent.
    pub job: Option<String>,
    /// Temporary path at the agent.
    pub local_path: Option<String>,
    /// Path below the store's root.
    pub install_path: Option<String>,
    /// Virtual size in bytes.
    pub size: i64,
    /// Bytes on the store.
    pub physical_size: i64,
    /// Digest that the agent computed.
    pub checksum: Option<String>,
    /// The machine that an OVA describes.
    pub machine: Option<Box<OVFInformationTO>>,
    /// Open link.
    pub link: Option<ImageLink>,
}

/// Size of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreUsage {
    /// Bytes in use.
    pub used: i64,
    /// Bytes altogether.
    pub capacity: i64,
}

/// Why an operation on an image failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No record has this number.
    #[error("no image {0}")]
    Unknown(i64),
    /// No writable store has room.
    #[error("no image store with room for {0}")]
    NoStore(String),
    /// The image is not in a state that allows it.
    #[error("image {id} cannot be {operation} now")]
    Busy {
        /// Number of the record.
        id: i64,
        /// What was asked.
        operation: &'static str,
    },
    /// The agent said no.
    #[error("the agent did not {operation} image {id}: {details}")]
    Denied {
        /// Number of the record.
        id: i64,
        /// What was asked.
        operation: &'static str,
        /// Its text.
        details: String,
    },
    /// The command did not reach the agent or brought no answer.
    #[error("{operation} image {id}")]
    Send {
        /// Number of the record.
        id: i64,
        /// What was asked.
        operation: &'static str,
        /// Why.
        #[source]
        source: SendError,
    },
}

#[derive(Debug)]
struct Record {
    image: Image,
    transfer: Option<CancellationToken>,
}

/// All records, and what the stores have in common.
#[derive(Debug)]
pub(crate) struct Images {
    records: BTreeMap<i64, Record>,
    last_id: i64,
    last_job: i64,
    parents: HashMap<String, String>,
    usage: HashMap<String, StoreUsage>,
    upload_key: Secret<String>,
    copy_password: Secret<String>,
}

impl Images {
    pub(crate) fn new() -> Result<Self, RandomError> {
        Ok(Self {
            records: BTreeMap::new(),
            last_id: FIRST_ID,
            last_job: 0,
            parents: HashMap::new(),
            usage: HashMap::new(),
            upload_key: Secret::new(URL_SAFE_NO_PAD.encode(random::bytes::<64>()?)),
            copy_password: Secret::new(random::password(12)?),
        })
    }

    pub(crate) fn upload_key(&self) -> Secret<String> {
        self.upload_key.clone()
    }

    pub(crate) fn copy_password(&self) -> Secret<String> {
        self.copy_password.clone()
    }

    pub(crate) fn next_job(&mut self) -> i64 {
        self.last_job += 1;
        self.last_job
    }

    /// Makes a record on a store.
    pub(crate) fn register(&mut self, wanted: NewImage, store: String) -> i64 {
        self.last_id += 1;
        let id = self.last_id;
        let unique_name = match wanted.kind {
            ImageKind::Volume => wanted.name.clone(),
            _ => format!("{id}-{ACCOUNT}-{}", uuid::Uuid::new_v4()),
        };
        let image = Image {
            id,
            uuid: uuid::Uuid::new_v4().to_string(),
            wanted,
            unique_name,
            store,
            state: ImageState::NotDownloaded,
            percent: 0,
            message: String::new(),
            job: None,
            local_path: None,
            install_path: None,
            size: 0,
            physical_size: 0,
            checksum: None,
            machine: None,
            link: None,
        };
        self.records.insert(id, Record { image, transfer: None });
        id
    }

    pub(crate) fn get(&self, id: i64) -> Option<Image> {
        self.records.get(&id).map(|record| record.image.clone())
    }

    pub(crate) fn all(&self) -> Vec<Image> {
        self.records.values().map(|record| record.image.clone()).collect()
    }

    pub(crate) fn remove(&mut self, id: i64) {
        if let Some(Record { transfer: Some(transfer), .. }) = self.records.remove(&id) {
            transfer.cancel();
        }
    }

    /// Changes a record; nothing happens when it is gone.
    pub(crate) fn update(&mut self, id: i64, change: impl FnOnce(&mut Image)) {
        if let Some(record) = self.records.get_mut(&id) {
            change(&mut record.image);
        }
    }

    /// Starts a transfer from the beginning and ends one that is running.
    pub(crate) fn begin(&mut self, id: i64) -> Option<(Image, CancellationToken)> {
        let record = self.records.get_mut(&id)?;
        if let Some(previous) = record.transfer.take() {
            previous.cancel();
        }
        let image = &mut record.image;
        image.state = ImageState::NotDownloaded;
        image.percent = 0;
        image.message = String::new();
        image.job = None;
        image.local_path = None;
        image.install_path = None;
        let transfer = CancellationToken::new();
        record.transfer = Some(transfer.clone());
        Some((image.clone(), transfer))
    }

    /// Marks the end of a transfer, unless a newer one replaced it.
    pub(crate) fn end(&mut self, id: i64, transfer: &CancellationToken) {
        if let Some(record) = self.records.get_mut(&id)
            && !transfer.is_cancelled()
        {
            record.transfer = None;
        }
    }

    /// Records that wait for a transfer.
    pub(crate) fn waiting(&self) -> Vec<i64> {
        let waiting = self.records.values().filter(|record| {
            record.transfer.is_none() && record.image.state == ImageState::NotDownloaded
        });
        waiting.map(|record| record.image.id).collect()
    }

    pub(crate) fn set_parent(&mut self, store: &str, parent: Option<String>) {
        if let Some(parent) = parent {
            self.parents.insert(store.to_owned(), parent);
        }
    }

    pub(crate) fn parent(&self, store: &str) -> Option<String> {
        self.parents.get(store).cloned()
    }

    pub(crate) fn set_usage(&mut self, store: &str, usage: Option<StoreUsage>) {
        match usage {
            Some(usage) => self.usage.insert(store.to_owned(), usage),
            None => self.usage.remove(store),
        };
    }

    pub(crate) fn usage(&self, store: &str) -> Option<StoreUsage> {
        self.usage.get(store).copied()
    }

    /// The first writable store below nine tenths of its capacity; unknown usage counts as room.
    pub(crate) fn store_with_room(&self, config: &ServerConfig) -> Option<String> {
        let has_room = |usage: StoreUsage| usage.used / 9 < usage.capacity / 10;
        let mut writable = config.stores.iter().filter(|store| store.writable);
        writable
            .find(|store| self.usage.get(&store.url).copied().is_none_or(has_room))
            .map(|store| store.url.clone())
    }
}

/// A store as commands name it.
pub(crate) fn store_object(url: &str) -> DataStoreTO {
    DataStoreTO::nfs(url)
}

/// The object of a whole record, as deletions and links carry it.
pub(crate) fn data_object(image: &Image) -> DataTO {
    if image.wanted.kind == ImageKind::Volume {
        return DataTO::from(VolumeObjectTO {
            uuid: Some(image.uuid.clone()),
            volume_type: Some(VolumeType::Datadisk),
            data_store: Some(store_object(&image.store)),
            name: Some(image.wanted.name.clone()),
            size: Some(image.size),
            path: image.install_path.clone(),
            volume_id: Some(image.id),
            account_id: ACCOUNT,
            format: Some(image.wanted.format.clone()),
            provisioning_type: Some(ProvisioningType::Thin),
            id: image.id,
            hypervisor_type: Some("None".to_owned()),
            passphrase: Some(Secret::default()),
            checkpoint_paths: Some(Vec::new()),
            checkpoint_image_store_urls: Some(Vec::new()),
            ..VolumeObjectTO::default()
        });
    }
    let hypervisor = if image.wanted.kind == ImageKind::Iso { "None" } else { "KVM" };
    DataTO::from(TemplateObjectTO {
        path: image.install_path.clone(),
        orig_url: Some(image.wanted.url.as_str().into()),
        uuid: Some(image.uuid.clone()),
        id: image.id,
        format: Some(image.wanted.format.clone()),
        account_id: ACCOUNT,
        checksum: image.checksum.clone().or_else(|| image.wanted.checksum.clone()),
        hvm: image.wanted.hvm,
        display_text: Some(image.wanted.name.clone()),
        image_data_store: Some(store_object(&image.store)),
        name: Some(image.unique_name.clone()),
        size: Some(image.size),
        hypervisor_type: Some(hypervisor.to_owned()),
        unique_name: Some(image.unique_name.clone()),
        ..TemplateObjectTO::default()
    })
}

/// The stub of something on a store that has no record.
pub(crate) fn stray_object(store: &str, is_volume: bool, id: i64, path: Option<String>) -> DataTO {
    if is_volume {
        return DataTO::from(VolumeObjectTO {
            data_store: Some(store_object(store)),
            path,
            id,
            ..VolumeObjectTO::default()
        });
    }
    DataTO::from(TemplateObjectTO {
        path,
        id,
        image_data_store: Some(store_object(store)),
        ..TemplateObjectTO::default()
    })
}

/// The command that starts a transfer; questions about it repeat all of its fields.
pub(crate) fn download_command(
    config: &ServerConfig,
    image: &Image,
    log_id: &str,
    job: i64,
) -> DownloadCommand {
    let settings = &config.images;
    let is_volume = image.wanted.kind == ImageKind::Volume;
    let (kind, directory) = if is_volume {
        (ResourceType::Volume, "volumes")
    } else {
        (ResourceType::Template, "template/tmpl")
    };
    let limit = if is_volume { settings.volume_limit } else { settings.template_limit };
    DownloadCommand {
        hvm: !is_volume && image.wanted.hvm,
        description: (!is_volume).then(|| image.wanted.name.clone()),
        checksum: image.wanted.checksum.clone(),
        max_download_size_in_bytes: Some(limit),
        id: image.id,
        resource_type: Some(kind),
        install_path: Some(format!("{directory}/{ACCOUNT}/{}", image.id)),
        store: Some(store_object(&image.store)),
        follow_redirects: settings.follow_redirects,
        url: Some(image.wanted.url.as_str().into()),
        format: Some(image.wanted.format.clone()),
        account_id: ACCOUNT,
        name: Some(image.unique_name.clone()),
        sec_url: (!is_volume).then(|| image.store.as_str().into()),
        base: if is_volume { base_of_job(log_id, job) } else { base(log_id) },
        ..DownloadCommand::default()
    }
}
