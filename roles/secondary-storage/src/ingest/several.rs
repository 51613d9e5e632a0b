//! Several files that are one object: a snapshot of VMware, copied from another zone.
//!
//! All or nothing: the files come into a directory beside, under names of the job, and that directory
//! gets its place in one step. Before it nothing is there; what a crash leaves is named by the job's
//! note.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::DownloadContext;
use super::error::IngestError;
use super::intake::{Intake, Order};
use super::job::{Job, Phase};
use super::publish::Publishing;
use super::run::passes;
use super::transfer::File;
use super::write::Written;
use crate::sources::Source;
use crate::stores::{EngineError, EntryKind, FileName, InstallPath, Store, StoreError};
use disk_image::Sizes;

/// One of the files beside the first.
#[derive(Debug, Clone)]
pub struct Further {
    pub name: FileName,
    pub source: Source,
}

/// Downloads all files of a job and makes them an object.
pub(super) async fn work(
    job: &Arc<Job>,
    cx: &DownloadContext,
    store: &Arc<Store>,
    first: &FileName,
) -> Result<Sizes, IngestError> {
    let request = &job.request;
    let (parent, _name) = request.directory.split().ok_or(IngestError::Internal)?;
    let further = request.more.iter();
    let names: Vec<FileName> =
        std::iter::once(first).chain(further.map(|file| &file.name)).cloned().collect();
    announce(job, &names).await?;
    let order = Order { directory: parent.join(job.staging()?), ..request.order() };
    let staging = order.directory.clone();
    let mut intake = Intake::begin(cx, store, &job.work, &job.id, order, names.len()).await?;
    job.update(|report| {
        report.phase = Phase::Downloading;
        " ".clone_into(&mut report.text);
        report.temporary = Some(format!("{}/{staging}", store.place()));
    });
    let limit = cx.settings.get().total_timeout;
    let written = tokio::time::timeout(limit, receive(job, cx, &intake, &names))
        .await
        .map_err(|_elapsed| IngestError::TotalTimeout(limit))??;
    job.update(|report| {
        report.phase = Phase::Installing;
        "Download success, starting install ".clone_into(&mut report.text);
        report.install_path = shown_path(&request.directory, &names);
    });
    let ready = intake.gather(written, &names).await?;
    let publishing = Publishing {
        unique_name: job.about().unique_name.clone(),
        install_path: request.directory.clone(),
        // It is gone once the object is there.
        temporary: staging.clone(),
        sizes: ready.sizes,
    };
    job.publishes(publishing);
    let about = job.about().clone();
    intake.publish(&ready, about).await?;
    take_place(job, store, &staging, &names).await?;
    Ok(ready.sizes)
}

/// Asks for every length before anything is stored: a file that is missing, or too much for the
/// limit, is known before the first gigabyte.
async fn announce(job: &Job, names: &[FileName]) -> Result<(), IngestError> {
    let request = &job.request;
    let further = request.more.iter().map(|file| &file.source);
    let mut total = Some(0_u64);
    for (source, name) in std::iter::once(&request.source).chain(further).zip(names) {
        let opening = source.open(None).await;
        let announced = opening.map_err(|error| of(name, error.into()))?.announced;
        let length = announced.length.or(announced.hint);
        total = total.zip(length).map(|(total, length)| total.saturating_add(length));
        if total.is_some_and(|total| total > request.limit) {
            return Err(IngestError::TooLarge { limit: request.limit });
        }
    }
    job.expected.store(total.unwrap_or(0), Ordering::Relaxed);
    Ok(())
}

/// One file after the other.
async fn receive(
    job: &Arc<Job>,
    cx: &DownloadContext,
    intake: &Intake<'_>,
    names: &[FileName],
) -> Result<Vec<Written>, IngestError> {
    let request = &job.request;
    let further = request.more.iter().map(|file| &file.source);
    let mut all = Vec::new();
    let mut before = 0_u64;
    let sources = std::iter::once(&request.source).chain(further);
    for (nth, (source, name)) in sources.zip(names).enumerate() {
        let received = passes(job, cx, intake, File { nth, source, before }).await;
        let written = received.map_err(|error| of(name, error))?;
        before = before.saturating_add(written.file.length());
        all.push(written);
    }
    Ok(all)
}

/// Says which file it is about.
fn of(name: &FileName, error: IngestError) -> IngestError {
    match error {
        IngestError::Source(error) => IngestError::SourceOf { name: name.to_string(), error },
        other => other,
    }
}

/// What the server keeps as the place: the directory, of a machine's description its name without
/// the ending in it.
fn shown_path(directory: &InstallPath, names: &[FileName]) -> String {
    let described = names.iter().find_map(|name| name.as_str().strip_suffix(".ovf"));
    match described {
        Some(base) => format!("{directory}/{base}"),
        None => directory.to_string(),
    }
}

/// Gives the complete directory its place. An earlier copy of the same files is replaced; anything
/// else that is there stays, and is an error.
async fn take_place(
    job: &Job,
    store: &Store,
    staging: &InstallPath,
    names: &[FileName],
) -> Result<(), IngestError> {
    const NAME: &str = "install";
    let (engine, work, directory) = (store.engine(), &job.work, &job.request.directory);
    let relocate = || engine.relocate(work, staging.clone(), directory.clone());
    let moved = match store.run(NAME, relocate()).await {
        Err(error) if is_taken(&error) => {
            let there = store.run(NAME, engine.entries(work, Some(directory.clone()))).await?;
            let foreign = there.into_iter().flatten().find(|entry| {
                entry.kind != EntryKind::File
                    || !names.iter().any(|name| name.as_str() == entry.name)
            });
            if let Some(foreign) = foreign {
                let directory = directory.to_string();
                return Err(IngestError::Occupied { directory, name: foreign.name });
            }
            tracing::info!(job = job.id, path = %directory, "an earlier copy is replaced");
            let first = names.first().cloned().ok_or(IngestError::Internal)?;
            store.run(NAME, engine.remove_tree(work, directory.clone(), first)).await?;
            store.run(NAME, relocate()).await?
        }
        outcome => outcome?,
    };
    if moved { Ok(()) } else { Err(IngestError::Internal) }
}

fn is_taken(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Operation { source: EngineError::Io(source), .. }
            if source.kind() == std::io::ErrorKind::AlreadyExists
    )
}
