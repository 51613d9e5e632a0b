//! Downloads by URL: start one, ask how it goes.

use bedrock::Secret;

use super::ovf::OVFInformationTO;
use super::store::{DataStoreTO, ImageFormat};
use crate::agent::{AnswerBase, CommandBase};
use crate::text::UrlText;
use crate::{Answer, Envelope};

constants! {
    /// What is downloaded.
    ResourceType {
        Volume = "VOLUME",
        Template = "TEMPLATE",
        Snapshot = "SNAPSHOT",
    }
}

constants! {
    /// What is asked about a download.
    DownloadRequest {
        GetStatus = "GET_STATUS",
        Abort = "ABORT",
        Restart = "RESTART",
        Purge = "PURGE",
        GetOrRestart = "GET_OR_RESTART",
    }
}

constants! {
    /// State of a download. The server copes with the first five from an agent.
    DownloadStatus {
        Unknown = "UNKNOWN",
        DownloadError = "DOWNLOAD_ERROR",
        NotDownloaded = "NOT_DOWNLOADED",
        DownloadInProgress = "DOWNLOAD_IN_PROGRESS",
        Downloaded = "DOWNLOADED",
        Abandoned = "ABANDONED",
        Uploaded = "UPLOADED",
        NotUploaded = "NOT_UPLOADED",
        UploadError = "UPLOAD_ERROR",
        UploadInProgress = "UPLOAD_IN_PROGRESS",
        Creating = "CREATING",
        Created = "CREATED",
        Bypassed = "BYPASSED",
        /// Of the server alone.
        LimitReached = "LIMIT_REACHED",
    }
}

java! {
    /// Credentials for a source.
    PasswordAuth {
        "userName" user_name: Option<String>,
        "password" password: Option<Secret<String>>,
    }
}

java! {
    /// An HTTP proxy.
    Proxy {
        "_host" host: Option<String>,
        "_port" port: i32,
        "_userName" user_name: Option<String>,
        "_password" password: Option<Secret<String>>,
    }
}

java! {
    /// Download a template, a volume or a copy of a snapshot.
    DownloadCommand = "org.apache.cloudstack.storage.command.DownloadCommand" {
        "hvm" hvm: bool,
        "description" description: Option<String>,
        /// `{ALG}hex`, or bare hex of an MD5.
        "checksum" checksum: Option<String>,
        "auth" auth: Option<PasswordAuth>,
        "_proxy" proxy: Option<Proxy>,
        "maxDownloadSizeInBytes" max_download_size_in_bytes: Option<i64>,
        /// Id of the template, volume or snapshot.
        "id" id: i64,
        "resourceType" resource_type: Option<ResourceType>,
        /// Directory below the root of the store.
        "installPath" install_path: Option<String>,
        "_store" store: Option<DataStoreTO>,
        "cacheStore" cache_store: Option<DataStoreTO>,
        "followRedirects" follow_redirects: bool,
        /// One URL; for a snapshot one per line.
        "url" url: Option<UrlText>,
        "format" format: Option<ImageFormat>,
        "accountId" account_id: i64,
        /// Unique name.
        "name" name: Option<String>,
        "secUrl" sec_url: Option<UrlText>,
        "nfsVersion" nfs_version: Option<String>,
    }
    extends base: CommandBase
}

java! {
    /// A question about a download, with everything needed to start it again.
    DownloadProgressCommand = "org.apache.cloudstack.storage.command.DownloadProgressCommand" {
        "jobId" job_id: Option<String>,
        "request" request: Option<DownloadRequest>,
    }
    extends download: DownloadCommand
}

java! {
    /// How a download goes.
    DownloadAnswer = "com.cloud.agent.api.storage.DownloadAnswer" {
        "jobId" job_id: Option<String>,
        /// 0 to 100.
        "downloadPct" download_pct: i32,
        /// Shown to users; the same text as `details`.
        "errorString" error_string: Option<String>,
        "downloadStatus" download_status: Option<DownloadStatus>,
        /// Temporary file, for information.
        "downloadPath" download_path: Option<String>,
        /// Below the root of the store; see [`DownloadAnswer::relative`].
        "installPath" install_path: Option<String>,
        /// Virtual bytes.
        "templateSize" template_size: i64,
        /// Bytes on disk; spelled so on the wire.
        "templatePhySicalSize" template_physical_size: i64,
        /// `{ALG}hex`.
        "checkSum" check_sum: Option<String>,
        "ovfInformationTO" ovf_information: Option<OVFInformationTO>,
    }
    extends base: AnswerBase
}

impl DownloadAnswer {
    /// `path` without one leading and one trailing slash, as the original writes install paths.
    pub fn relative(path: &str) -> &str {
        let path = path.strip_prefix('/').unwrap_or(path);
        path.strip_suffix('/').unwrap_or(path)
    }
}

impl DownloadCommand {
    /// The path is repeated: the server overwrites its own with what it gets, absent included.
    fn failed(&self, details: &str) -> DownloadAnswer {
        let path = self.install_path.as_deref().map(DownloadAnswer::relative);
        DownloadAnswer {
            install_path: path.map(str::to_owned),
            ..DownloadAnswer::failed(details.to_owned())
        }
    }

    fn failed_answer(&self, details: &str) -> Envelope {
        Envelope::of(&self.failed(details))
    }
}

impl DownloadProgressCommand {
    /// An answer without the job's id would be dropped.
    fn failed_answer(&self, details: &str) -> Envelope {
        let job_id = self.job_id.clone();
        Envelope::of(&DownloadAnswer { job_id, ..self.download.failed(details) })
    }
}

impl Answer for DownloadAnswer {
    /// The status decides, and the error text is what users see. Both sizes stay 0: others stall
    /// the copy of a snapshot.
    fn failed(details: String) -> DownloadAnswer {
        DownloadAnswer {
            download_status: Some(DownloadStatus::DownloadError),
            error_string: Some(details.clone()),
            base: AnswerBase::failed(details),
            ..DownloadAnswer::default()
        }
    }

    fn answer_base(&self) -> &AnswerBase {
        &self.base
    }
}

commands! {
    DownloadCommand.base => DownloadAnswer, false, DownloadCommand::failed_answer;
    DownloadProgressCommand.download.base => DownloadAnswer, false,
        DownloadProgressCommand::failed_answer;
}
