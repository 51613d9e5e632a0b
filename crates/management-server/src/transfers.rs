//! How images come onto a store and go again: one task per transfer that asks the agent until it is
//! done, deletions, links, digests, and the sizes of stores.

use std::sync::Arc;
use std::time::Duration;

use agent_protocol::storage::{
    ComputeChecksumCommand, CreateEntityDownloadURLCommand, DeleteCommand,
    DeleteEntityDownloadURLCommand, DownloadAnswer, DownloadProgressCommand, DownloadRequest,
    DownloadStatus, GetStorageStatsAnswer, GetStorageStatsCommand, UploadType,
};
use agent_protocol::{Command, Envelope, UrlText};

use crate::attachment::SendError;
use crate::commands::{base, base_of_job};
use crate::core::Core;
use crate::events::EventKind;
use crate::images::{
    self, Image, ImageError, ImageKind, ImageLink, ImageState, NewImage, StoreUsage,
};
use crate::random;
use crate::sync::lock;
use bedrock::chain;

/// Time between success and the command that makes the agent forget the job.
const PURGE_DELAY: Duration = Duration::from_millis(100);
/// Text of a transfer whose agent is gone.
const DISCONNECTED: &str = "Storage agent or storage VM disconnected";
const SILENT: &str = "Timeout waiting for response from storage host";

/// Makes a record and starts its transfer, if an agent is there.
pub(crate) fn register(core: &Arc<Core>, wanted: NewImage) -> Result<i64, ImageError> {
    let mut images = lock(&core.images);
    let store = images
        .store_with_room(&core.config)
        .ok_or_else(|| ImageError::NoStore(wanted.name.clone()))?;
    let id = images.register(wanted, store);
    drop(images);
    core.journal.record(0, None, EventKind::Image { id });
    if core.storage_host().is_ok() {
        start(core, id);
    }
    Ok(id)
}

/// Starts the transfers that found no agent before.
pub(crate) fn continue_waiting(core: &Arc<Core>) {
    let waiting = lock(&core.images).waiting();
    for id in waiting {
        start(core, id);
    }
}

/// Starts a transfer from the beginning, in a task of its own.
pub(crate) fn start(core: &Arc<Core>, id: i64) {
    let Some((image, transfer)) = lock(&core.images).begin(id) else { return };
    let task_core = Arc::clone(core);
    core.tasks.spawn(async move {
        let run = run(&task_core, &image);
        if let Some(Err(error)) = transfer.run_until_cancelled(run).await {
            fail(&task_core, id, &error);
        }
        lock(&task_core.images).end(id, &transfer);
    });
}

async fn run(core: &Core, image: &Image) -> Result<(), SendError> {
    let timeout = core.config.images.poll_timeout;
    let log_id = || random::log_id().unwrap_or_default();
    let job = lock(&core.images).next_job();
    let download = images::download_command(&core.config, image, &log_id(), job);
    let (_, attachment) = core.storage_host()?;
    let answer = core.ask(&attachment, &download, timeout).await?;
    let mut answer = download_answer(answer)?;
    let job_id = answer.job_id.clone();
    let question = |request| {
        let mut download = download.clone();
        download.base = base(&log_id());
        DownloadProgressCommand { job_id: job_id.clone(), request: Some(request), download }
    };
    loop {
        // An answer of another job is not looked at; the next question follows as usual.
        let state = if answer.job_id == job_id {
            take(core, image.id, &answer)
        } else {
            ImageState::InProgress
        };
        match state {
            ImageState::NotDownloaded | ImageState::NotUploaded | ImageState::InProgress => {
                tokio::time::sleep(core.config.images.poll_interval).await;
                let status = question(DownloadRequest::GetStatus);
                answer = download_answer(core.ask(&attachment, &status, timeout).await?)?;
            }
            ImageState::Downloaded => {
                tokio::time::sleep(PURGE_DELAY).await;
                let purge = question(DownloadRequest::Purge);
                let answer = core.ask(&attachment, &purge, timeout).await?;
                // It is the only one that tells of the machine.
                if let Some(machine) = download_answer(answer)?.ovf_information {
                    lock(&core.images).update(image.id, |image| {
                        image.machine = Some(Box::new(machine));
                    });
                    core.journal.record(0, None, EventKind::Image { id: image.id });
                }
                return Ok(());
            }
            ImageState::Failed => return Ok(()),
        }
    }
}

fn download_answer(answer: Envelope) -> Result<DownloadAnswer, SendError> {
    answer.open::<DownloadAnswer>().map_err(|error| {
        let details = answer.answer_base().ok().and_then(|base| base.details);
        SendError::Unexpected {
            class: <agent_protocol::storage::DownloadCommand as agent_protocol::Body>::CLASS
                .to_owned(),
            found: details.unwrap_or_else(|| chain(&error)),
        }
    })
}

/// Stores an answer in the record, every field also when it is absent.
fn take(core: &Core, id: i64, answer: &DownloadAnswer) -> ImageState {
    let state = match answer.download_status {
        Some(DownloadStatus::NotDownloaded) => ImageState::NotDownloaded,
        Some(DownloadStatus::DownloadInProgress) => ImageState::InProgress,
        Some(DownloadStatus::Downloaded) => ImageState::Downloaded,
        _ => ImageState::Failed,
    };
    lock(&core.images).update(id, |image| {
        image.state = state;
        image.percent = answer.download_pct;
        image.message = answer.error_string.clone().unwrap_or_default();
        image.job.clone_from(&answer.job_id);
        image.local_path.clone_from(&answer.download_path);
        image.install_path.clone_from(&answer.install_path);
        image.size = answer.template_size;
        image.physical_size = answer.template_physical_size;
        if state == ImageState::Downloaded {
            image.checksum.clone_from(&answer.check_sum);
        }
    });
    core.journal.record(0, None, EventKind::Image { id });
    state
}

fn fail(core: &Core, id: i64, error: &SendError) {
    let message = match error {
        SendError::Lost { .. } | SendError::Detached(_) => DISCONNECTED.to_owned(),
        SendError::Timeout { .. } => SILENT.to_owned(),
        other => chain(other),
    };
    lock(&core.images).update(id, |image| {
        if image.state != ImageState::Downloaded {
            image.state = ImageState::Failed;
            image.message = message;
            image.job = None;
            image.install_path = None;
        }
    });
    core.journal.record(0, None, EventKind::Image { id });
}

/// Deletes an image at the agent, then its record.
pub(crate) async fn delete(core: &Core, id: i64) -> Result<(), ImageError> {
    const OPERATION: &str = "delete";
    let image = lock(&core.images).get(id).ok_or(ImageError::Unknown(id))?;
    if image.state == ImageState::InProgress {
        return Err(ImageError::Busy { id, operation: "deleted" });
    }
    // What failed before its first byte is only forgotten, as the original does.
    if image.state == ImageState::Downloaded || image.percent > 0 {
        let command = DeleteCommand {
            data: Some(images::data_object(&image)),
            delete_chain: None,
            base: job_base(core),
        };
        ask(core, id, OPERATION, &command).await?;
    }
    lock(&core.images).remove(id);
    core.journal.record(0, None, EventKind::Image { id });
    Ok(())
}

/// Makes a link to an image; an open one is given again.
pub(crate) async fn create_link(core: &Core, id: i64) -> Result<ImageLink, ImageError> {
    const OPERATION: &str = "publish";
    let image = lock(&core.images).get(id).ok_or(ImageError::Unknown(id))?;
    if let Some(link) = image.link {
        return Ok(link);
    }
    if image.state != ImageState::Downloaded {
        return Err(ImageError::Busy { id, operation: "published" });
    }
    let directory = uuid::Uuid::new_v4().to_string();
    let file = format!("{}.{}", clean(&image.wanted.name), image.wanted.format.extension());
    let authority =
        authority(core).map_err(|source| ImageError::Send { id, operation: OPERATION, source })?;
    let parent = lock(&core.images).parent(&image.store);
    let command = CreateEntityDownloadURLCommand {
        install_path: image.install_path.clone(),
        parent,
        filename_in_extract_url: Some(file.clone()),
        filepath_in_extract_url: Some(directory.clone()),
        data: Some(images::data_object(&image)),
        base: job_base(core),
        ..CreateEntityDownloadURLCommand::default()
    };
    ask(core, id, OPERATION, &command).await?;
    let url = format!("http://{authority}/userdata/{directory}/{file}");
    let link = ImageLink { url, directory, file };
    lock(&core.images).update(id, |image| image.link = Some(link.clone()));
    core.journal.changed();
    Ok(link)
}

/// Takes the link to an image away.
pub(crate) async fn delete_link(core: &Core, id: i64) -> Result<(), ImageError> {
    let image = lock(&core.images).get(id).ok_or(ImageError::Unknown(id))?;
    let Some(link) = &image.link else { return Ok(()) };
    let kind = match image.wanted.kind {
        ImageKind::Volume => UploadType::Volume,
        ImageKind::Template | ImageKind::Iso => UploadType::Template,
    };
    let parent_path = lock(&core.images).parent(&image.store);
    let command = DeleteEntityDownloadURLCommand {
        path: image.install_path.clone(),
        extract_url: Some(link.url.as_str().into()),
        upload_type: Some(kind),
        parent_path,
        ..DeleteEntityDownloadURLCommand::default()
    };
    ask(core, id, "unpublish", &command).await?;
    lock(&core.images).update(id, |image| image.link = None);
    core.journal.changed();
    Ok(())
}

/// The digest of an image as `{ALG}hex`.
pub(crate) async fn checksum(core: &Core, id: i64, algorithm: &str) -> Result<String, ImageError> {
    const OPERATION: &str = "read";
    let image = lock(&core.images).get(id).ok_or(ImageError::Unknown(id))?;
    let command = ComputeChecksumCommand {
        store: Some(images::store_object(&image.store)),
        template_path: image.install_path.clone(),
        algorithm: Some(algorithm.to_owned()),
        base: base(&random::log_id().unwrap_or_default()),
        ..ComputeChecksumCommand::default()
    };
    let details = ask(core, id, OPERATION, &command).await?;
    details.ok_or_else(|| ImageError::Denied {
        id,
        operation: OPERATION,
        details: "no digest came".to_owned(),
    })
}

/// Asks for the sizes of all stores, again and again.
pub(crate) async fn watch_usage(core: Arc<Core>, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok((host, attachment)) = core.storage_host() else { continue };
        for store in &core.config.stores {
            let command = GetStorageStatsCommand {
                store: Some(images::store_object(&store.url)),
                base: base(&random::log_id().unwrap_or_default()),
                ..GetStorageStatsCommand::default()
            };
            let answer = core.ask(&attachment, &command, core.answer_timeout(0)).await;
            let usage = answer.ok().and_then(|answer| {
                let answer = answer.open::<GetStorageStatsAnswer>().ok()?;
                let (used, capacity) = (answer.used_bytes, answer.capacity_bytes);
                answer.base.result.then_some(StoreUsage { used, capacity })
            });
            if usage.is_none() {
                let store = UrlText::from(store.url.as_str());
                tracing::debug!(host = host.id, ?store, "size of a store not known");
            }
            lock(&core.images).set_usage(&store.url, usage);
            core.journal.changed();
        }
    }
}

/// Sends a command about an image; its details when the agent says yes.
async fn ask<C: Command>(
    core: &Core,
    id: i64,
    operation: &'static str,
    command: &C,
) -> Result<Option<String>, ImageError> {
    let send = async {
        let (_, attachment) = core.storage_host()?;
        core.ask(&attachment, command, core.answer_timeout(0)).await
    };
    let answer = send.await.map_err(|source| ImageError::Send { id, operation, source })?;
    let base = answer.answer_base().map_err(|error| ImageError::Denied {
        id,
        operation,
        details: chain(&error),
    })?;
    if base.result {
        Ok(base.details)
    } else {
        let details = base.details.unwrap_or_default();
        Err(ImageError::Denied { id, operation, details })
    }
}

fn job_base(core: &Core) -> agent_protocol::agent::CommandBase {
    let job = lock(&core.images).next_job();
    base_of_job(&random::log_id().unwrap_or_default(), job)
}

/// Host and port of links: the setting, else the public address of the row or of the host.
fn authority(core: &Core) -> Result<String, SendError> {
    if let Some(authority) = &core.config.images.link_authority {
        return Ok(authority.clone());
    }
    let (host, _) = core.storage_host()?;
    let row = core.row(&host).map(|row| row.public_address.clone());
    row.or(host.public_address).ok_or(SendError::Detached(host.guid))
}

/// A name for a link: runs of anything but letters and digits become one dash.
fn clean(name: &str) -> String {
    let words = name.split(|letter: char| !letter.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    if words.is_empty() { uuid::Uuid::new_v4().to_string() } else { words.join("-") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_links_are_letters_digits_and_single_dashes() {
        assert_eq!(clean("g-plain"), "g-plain");
        assert_eq!(clean("  Debian 12 (amd64)!"), "Debian-12-amd64");
        assert_eq!(clean("ä/ö").len(), 36);
    }
}
