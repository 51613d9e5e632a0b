//! Uploads in `/status` and in the admin API.

use status_api::{UploadState, UploadStatus};

use super::record::{Record, State};
use super::table::Uploads;
use super::upload::Upload;

/// In `/status`; those under way are all shown.
const MAX_ENDED: usize = 50;

impl Uploads {
    /// Uploads under way first, then the last that ended.
    pub fn status(&self) -> Vec<UploadStatus> {
        let now = self.now_ms();
        let mut all = self.each(running, |id, record| ended(id, record, now));
        all.sort_by_key(|status| (is_over(status), status.since_ago_ms));
        let running = all.iter().filter(|status| !is_over(status)).count();
        all.truncate(running + MAX_ENDED);
        all
    }
}

const fn is_over(status: &UploadStatus) -> bool {
    matches!(status.state, UploadState::Done | UploadState::Failed)
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn running(upload: &Upload) -> UploadStatus {
    let plan = &upload.plan;
    UploadStatus {
        upload: upload.id.clone(),
        state: if upload.is_installing() {
            UploadState::Installing
        } else {
            UploadState::Receiving
        },
        percent: upload.percent(),
        received_bytes: upload.received(),
        total_bytes: Some(upload.total),
        object: plan.about.unique_name.clone(),
        file: upload.file(),
        client: upload.client.clone(),
        resumable: upload.resumable,
        store: plan.store.to_string(),
        path: plan.directory.to_string(),
        text: String::new(),
        since_ago_ms: millis(upload.started.elapsed()),
    }
}

fn ended(id: &str, record: &Record, now_ms: i64) -> UploadStatus {
    let store = record.store.as_ref().map(ToString::to_string);
    let mut status = UploadStatus {
        upload: id.to_owned(),
        state: UploadState::Failed,
        percent: 0,
        received_bytes: 0,
        total_bytes: None,
        object: record.name.clone(),
        file: record.file.clone(),
        client: record.client.clone(),
        resumable: false,
        store: store.unwrap_or_default(),
        path: record.directory.as_ref().map(ToString::to_string).unwrap_or_default(),
        text: String::new(),
        since_ago_ms: u64::try_from(now_ms.saturating_sub(record.at_ms)).unwrap_or(0),
    };
    match &record.state {
        State::Receiving { .. } => status.state = UploadState::Installing,
        State::Failed { text, .. } => status.text.clone_from(text),
        State::Completed(completed) => {
            status.state = UploadState::Done;
            status.percent = 100;
            status.received_bytes = completed.physical_size;
            status.path = completed.install_path.to_string();
        }
    }
    status
}
