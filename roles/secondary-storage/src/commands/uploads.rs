//! How an upload goes, as often as the server asks.

use agent_protocol::agent::AnswerBase;
use agent_protocol::storage::{UploadStatusAnswer, UploadStatusCommand, UploadStatusState};

use crate::uploads::table::Told;
use crate::uploads::{UploadError, Uploads};

/// Handler of the question about uploads.
#[derive(Debug)]
pub struct UploadCommands {
    pub uploads: Uploads,
}

impl UploadCommands {
    pub async fn status(&self, command: UploadStatusCommand) -> UploadStatusAnswer {
        let id = command.entity_uuid.unwrap_or_default().to_ascii_lowercase();
        if command.abort == Some(true) {
            return if self.uploads.abort(&id).await {
                failed(UploadError::Aborted.to_string())
            } else {
                answer(Told::Unknown)
            };
        }
        answer(self.uploads.tell(&id).await)
    }
}

fn failed(text: String) -> UploadStatusAnswer {
    UploadStatusAnswer {
        status: Some(UploadStatusState::Error),
        base: AnswerBase::failed(text),
        ..UploadStatusAnswer::default()
    }
}

fn answer(told: Told) -> UploadStatusAnswer {
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let base = AnswerBase::success();
    match told {
        Told::Failed(text) => failed(text),
        Told::Unknown => UploadStatusAnswer {
            status: Some(UploadStatusState::Unknown),
            base,
            ..UploadStatusAnswer::default()
        },
        // From 4.23 on the server counts these bytes against the limit of a volume's owner. Those of
        // a template it would count again at each question.
        Told::InProgress { percent, received, is_volume } => UploadStatusAnswer {
            status: Some(UploadStatusState::InProgress),
            download_percent: i32::from(percent),
            physical_size: if is_volume { bytes(received) } else { 0 },
            base,
            ..UploadStatusAnswer::default()
        },
        Told::Completed(completed) => UploadStatusAnswer {
            status: Some(UploadStatusState::Completed),
            virtual_size: bytes(completed.virtual_size),
            physical_size: bytes(completed.physical_size),
            install_path: Some(completed.install_path.to_string()),
            download_percent: 100,
            ovf_information: completed.ovf.map(|ovf| *ovf),
            base,
        },
    }
}
