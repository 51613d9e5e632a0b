//! Links under which a user fetches a file, and their end.

use super::data::DataTO;
use super::store::ImageFormat;
use crate::agent::{AnswerBase, CommandBase, PlainAnswer};
use crate::text::UrlText;

constants! {
    /// Kind of an extracted object.
    UploadType {
        Volume = "VOLUME",
        Snapshot = "SNAPSHOT",
        Template = "TEMPLATE",
        Iso = "ISO",
    }
}

java! {
    /// Publish a file under a link.
    CreateEntityDownloadURLCommand = "com.cloud.agent.api.storage.CreateEntityDownloadURLCommand" {
        /// The file, below the root of the store.
        "installPath" install_path: Option<String>,
        /// Directory name of the store, see
        /// [`SecStorageSetupAnswer::dir`](super::SecStorageSetupAnswer::dir).
        "parent" parent: Option<String>,
        "filenameInExtractURL" filename_in_extract_url: Option<String>,
        "filepathInExtractURL" filepath_in_extract_url: Option<String>,
        "data" data: Option<DataTO>,
        "url" url: Option<UrlText>,
        "format" format: Option<ImageFormat>,
        "accountId" account_id: i64,
        "name" name: Option<String>,
        "secUrl" sec_url: Option<UrlText>,
        "nfsVersion" nfs_version: Option<String>,
    }
    extends base: CommandBase
}

java! {
    /// Whether the link is there.
    CreateEntityDownloadURLAnswer = "com.cloud.agent.api.storage.CreateEntityDownloadURLAnswer" {}
    extends base: AnswerBase
}

java! {
    /// Take a link away.
    DeleteEntityDownloadURLCommand = "com.cloud.agent.api.storage.DeleteEntityDownloadURLCommand" {
        /// The file, below the root of the store.
        "path" path: Option<String>,
        "extractUrl" extract_url: Option<UrlText>,
        "type" upload_type: Option<UploadType>,
        /// Directory name of the store.
        "parentPath" parent_path: Option<String>,
        "url" url: Option<UrlText>,
        "format" format: Option<ImageFormat>,
        "accountId" account_id: i64,
        "name" name: Option<String>,
        "secUrl" sec_url: Option<UrlText>,
        "nfsVersion" nfs_version: Option<String>,
    }
    extends base: CommandBase
}

answers!(CreateEntityDownloadURLAnswer);
commands! {
    CreateEntityDownloadURLCommand.base => CreateEntityDownloadURLAnswer, false;
    DeleteEntityDownloadURLCommand.base => PlainAnswer, true;
}
