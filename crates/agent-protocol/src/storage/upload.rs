//! Uploads: state of those by browser, and the historic push to another server.

use super::download::{DownloadRequest, PasswordAuth};
use super::extraction::UploadType;
use super::ovf::OVFInformationTO;
use super::store::ImageFormat;
use crate::Answer;
use crate::agent::{AnswerBase, CommandBase};
use crate::text::UrlText;

constants! {
    /// What is uploaded by browser.
    UploadEntityType {
        Volume = "Volume",
        Template = "Template",
    }
}

constants! {
    /// State of an upload by browser.
    UploadStatusState {
        Unknown = "UNKNOWN",
        InProgress = "IN_PROGRESS",
        Completed = "COMPLETED",
        Error = "ERROR",
    }
}

java! {
    /// How does an upload go?
    UploadStatusCommand = "org.apache.cloudstack.storage.command.UploadStatusCommand" {
        "entityUuid" entity_uuid: Option<String>,
        "entityType" entity_type: Option<UploadEntityType>,
        /// End it: the owner's limit is reached. Absent unless true.
        "abort" abort: Option<bool>,
    }
    extends base: CommandBase
}

java! {
    /// How an upload goes.
    UploadStatusAnswer = "org.apache.cloudstack.storage.command.UploadStatusAnswer" {
        "status" status: Option<UploadStatusState>,
        /// Bytes.
        "virtualSize" virtual_size: i64,
        /// Bytes.
        "physicalSize" physical_size: i64,
        "installPath" install_path: Option<String>,
        /// 0 to 100.
        "downloadPercent" download_percent: i32,
        "ovfInformationTO" ovf_information: Option<OVFInformationTO>,
    }
    extends base: AnswerBase
}

java! {
    /// What a browser is allowed to upload, as the server seals it into the header `x-metadata`:
    /// plain JSON without a class name, never sent over a link.
    PostUploadOrder {
        "entityId" entity_id: i64,
        /// As in the URL of the upload.
        "entityUUID" entity_uuid: Option<String>,
        /// Directory of the object below the store's root.
        "absolutePath" absolute_path: Option<String>,
        /// As the user gave it.
        "checksum" checksum: Option<String>,
        /// `TEMPLATE`, of ISOs too, or `VOLUME`.
        "type" entity_type: Option<String>,
        /// Unique name of a template, name of a volume.
        "name" name: Option<String>,
        "localPath" local_path: Option<String>,
        "requiresHvm" requires_hvm: bool,
        "imageFormat" image_format: Option<ImageFormat>,
        /// URL of the store.
        "dataTo" data_to: Option<UrlText>,
        "dataToRole" data_to_role: Option<String>,
        /// Public address of the storage host.
        "remoteEndPoint" remote_end_point: Option<String>,
        /// GiB, as a text.
        "maxUploadSize" max_upload_size: Option<String>,
        "description" description: Option<String>,
        /// Bytes up to 4.22.0, GiB from 4.22.1 on; negative for no limit.
        "defaultMaxSecondaryStorageInGB" max_secondary_storage: i64,
        /// Seconds.
        "processTimeout" process_timeout: i64,
        "accountId" account_id: i64,
        "nfsVersion" nfs_version: Option<String>,
        /// From 4.23 on.
        "zoneId" zone_id: Option<i64>,
    }
}

java! {
    /// Template of a historic push.
    TemplateTO {
        "id" id: i64,
        "uniqueName" unique_name: Option<String>,
        "format" format: Option<ImageFormat>,
    }
}

constants! {
    /// State of a historic push.
    UploadStatus {
        Unknown = "UNKNOWN",
        Abandoned = "ABANDONED",
        Uploaded = "UPLOADED",
        NotUploaded = "NOT_UPLOADED",
        UploadError = "UPLOAD_ERROR",
        UploadInProgress = "UPLOAD_IN_PROGRESS",
        NotCopied = "NOT_COPIED",
        CopyInProgress = "COPY_IN_PROGRESS",
        CopyError = "COPY_ERROR",
        CopyComplete = "COPY_COMPLETE",
        DownloadUrlCreated = "DOWNLOAD_URL_CREATED",
        DownloadUrlNotCreated = "DOWNLOAD_URL_NOT_CREATED",
        Error = "ERROR",
    }
}

java! {
    /// Historic push to another server. Its class names `url` twice, so that no release with the
    /// JSON library of today can send it.
    UploadCommand = "com.cloud.agent.api.storage.UploadCommand" {
        "template" template: Option<TemplateTO>,
        "url" url: Option<UrlText>,
        "installPath" install_path: Option<String>,
        "hvm" hvm: bool,
        "description" description: Option<String>,
        "checksum" checksum: Option<String>,
        "auth" auth: Option<PasswordAuth>,
        "templateSizeInBytes" template_size_in_bytes: i64,
        "id" id: i64,
        "type" upload_type: Option<UploadType>,
        "format" format: Option<ImageFormat>,
        "accountId" account_id: i64,
        "name" name: Option<String>,
        "nfsVersion" nfs_version: Option<String>,
    }
    extends base: CommandBase
}

java! {
    /// Historic question about a push.
    UploadProgressCommand = "com.cloud.agent.api.storage.UploadProgressCommand" {
        "jobId" job_id: Option<String>,
        "request" request: Option<DownloadRequest>,
    }
    extends upload: UploadCommand
}

java! {
    /// Historic state of a push.
    UploadAnswer = "com.cloud.agent.api.storage.UploadAnswer" {
        "jobId" job_id: Option<String>,
        "uploadPct" upload_pct: i32,
        "errorString" error_string: Option<String>,
        "uploadStatus" upload_status: Option<UploadStatus>,
        "uploadPath" upload_path: Option<String>,
        "installPath" install_path: Option<String>,
        "templateSize" template_size: Option<i64>,
    }
    extends base: AnswerBase
}

impl Answer for UploadStatusAnswer {
    /// The status decides; the server shows the text, and the entity can be deleted.
    fn failed(details: String) -> UploadStatusAnswer {
        UploadStatusAnswer {
            status: Some(UploadStatusState::Error),
            base: AnswerBase::failed(details),
            ..UploadStatusAnswer::default()
        }
    }

    fn answer_base(&self) -> &AnswerBase {
        &self.base
    }
}

impl Answer for UploadAnswer {
    fn failed(details: String) -> UploadAnswer {
        UploadAnswer {
            upload_status: Some(UploadStatus::UploadError),
            error_string: Some(details.clone()),
            base: AnswerBase::failed(details),
            ..UploadAnswer::default()
        }
    }

    fn answer_base(&self) -> &AnswerBase {
        &self.base
    }
}

commands! {
    UploadStatusCommand.base => UploadStatusAnswer, false;
    UploadCommand.base => UploadAnswer, true;
    UploadProgressCommand.upload.base => UploadAnswer, true;
}
