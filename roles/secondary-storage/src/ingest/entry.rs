//! Before a download writes: whether another host of the zone does it, and what one that died has left
//! of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use agent_protocol::storage::DownloadCommand;
use agent_protocol::{Body, Envelope};

use super::DownloadContext;
use super::error::IngestError;
use super::intake::{clean_up, temporary_name};
use super::job::{Job, Phase, Request};
use super::journal::Note;
use super::records::Checkpoint;
use crate::objects::inventory::{self, Item};
use crate::sharing::takeover::published;
use crate::sharing::{Begun, Doing, SharingError, Shown, Worker, reclaim, work_of};
use crate::stores::{FileName, InstallPath, ObjectKind, Store};
use disk_image::{Format, Sizes};

/// Between two looks at what another host does.
const LOOK: Duration = Duration::from_secs(1);
/// Copied at once.
const BLOCK: u64 = 1 << 20;

impl From<SharingError> for IngestError {
    fn from(error: SharingError) -> Self {
        Self::Sharing(Box::new(error))
    }
}

impl Worker for Job {
    fn doing(&self) -> Doing {
        let mut record = self.record().clone();
        // Each host knows its own.
        record.internal_sites.clear();
        let has_secrets = has_secrets(self.request.command.reveal());
        Doing {
            received: self.received(),
            total: self.expected(),
            record: (!has_secrets).then_some(record),
            what: Some(what(&self.request)),
            upload: None,
        }
    }

    fn is_over(&self) -> bool {
        // What is suspended goes on at the next start.
        !self.holds_place() && self.phase() != Phase::Suspended
    }

    fn lose(&self) {
        self.lost.store(true, Ordering::SeqCst);
        self.cancel.cancel();
    }
}

/// What is downloaded, without secrets.
fn what(request: &Request) -> String {
    let source = &request.source;
    let format = request.content.format().map_or("files", Format::extension);
    let digest = request.given_checksum.as_deref().unwrap_or("-");
    format!("{source} as {format}, {digest}, at most {}", request.limit)
}

/// Whether a command holds what hypervisor hosts must not read: credentials, or a query, which may be
/// a signature.
fn has_secrets(command: &str) -> bool {
    let Ok(body) = serde_json::value::RawValue::from_string(command.to_owned()) else {
        return true;
    };
    let class = DownloadCommand::CLASS.to_owned();
    let Ok(command) = (Envelope { class, body }).open::<DownloadCommand>() else { return true };
    let url = command.url.as_deref().unwrap_or_default();
    let proxy = command.proxy.as_ref().is_some_and(|proxy| proxy.password.is_some());
    command.auth.is_some() || proxy || url.contains(['?', '@'])
}

/// What became of the wish to download.
pub(super) enum Entered {
    Ours,
    /// Another host has done it.
    Done(Sizes),
    /// Another host does it.
    Elsewhere,
}

fn work(job: &Job) -> Result<FileName, IngestError> {
    work_of(&job.request.place()).map_err(|error| SharingError::from(error).into())
}

/// Waits while another host does the download, and says how far it is; `true` when there was one.
pub(super) async fn wait_for_others(
    job: &Job,
    cx: &DownloadContext,
    store: &Store,
) -> Result<bool, IngestError> {
    let (work, mut waited) = (work(job)?, false);
    while cx.sharing.is_elsewhere(store, &work).await? {
        if !waited {
            let path = &job.request.directory;
            tracing::info!(job = job.id, %path, "another storage host downloads this already");
        }
        waited = true;
        follow(job, cx.sharing.look(store, &work).await.as_ref());
        tokio::time::sleep(cx.sharing.beat().min(LOOK)).await;
    }
    Ok(waited)
}

/// Gets the download for this host, with what a dead one has left of it. `waited` tells that another
/// host did it a moment ago.
pub(super) async fn enter(
    job: &Arc<Job>,
    cx: &DownloadContext,
    store: &Store,
    waited: bool,
) -> Result<Entered, IngestError> {
    let Request { kind, directory, .. } = &job.request;
    let work = work(job)?;
    let worker: Arc<dyn Worker> = Arc::<Job>::clone(job);
    // What an earlier run of this process had begun is given back: another host has ended it.
    let was_begun = job.is_restored && note_of(job, cx).await?.is_some();
    let former = match cx.sharing.begin(store, &work, &job.id, worker).await? {
        Begun::Unshared => return Ok(Entered::Ours),
        Begun::Elsewhere => return Ok(Entered::Elsewhere),
        Begun::Ours(former) => former,
    };
    let mut done = None;
    if let Some(former) = &former {
        done = published(store, &former.left).await?;
    }
    let was_ended = was_begun && former.is_none();
    if done.is_none() && (waited || was_ended) {
        let found = inventory::find(store, *kind, directory).await?;
        done =
            found.filter(|item| item.unique_name == job.about().unique_name && !item.is_corrupted);
    }
    let mut sizes = done.and_then(|item| adopt(job, item));
    if sizes.is_none() && (waited || was_ended) {
        sizes = snapshot_of_another(job, store).await?;
    }
    if let Some(sizes) = sizes {
        // What this host had begun of it, if it had.
        if let Err(error) = clean_up(cx, &job.id).await {
            let error = bedrock::chain(&error);
            tracing::warn!(job = job.id, error, "cannot remove what a download left");
        }
        return Ok(Entered::Done(sizes));
    }
    if job.follows && former.is_none() {
        // The end of this job gives the work back.
        return Err(IngestError::Elsewhere);
    }
    if waited {
        job.received.store(0, Ordering::Relaxed);
    }
    if let Some(former) = former {
        take_over(job, cx, store, &work, *former).await?;
    }
    Ok(Entered::Ours)
}

pub(super) async fn note_of(job: &Job, cx: &DownloadContext) -> Result<Option<Note>, IngestError> {
    let (journal, id) = (cx.journal.clone(), job.id.clone());
    let read = cx.tasks.blocking("read a note", move || journal.read(&id)).await?;
    read.map_err(IngestError::Journal)
}

/// Shows how far the other host is.
fn follow(job: &Job, shown: Option<&Shown>) {
    if let Some(Shown { doing, .. }) = shown {
        job.received.store(doing.received, Ordering::Relaxed);
        job.expected.store(doing.total.unwrap_or(0), Ordering::Relaxed);
    }
    job.update(|report| {
        report.phase = Phase::Downloading;
        "another storage host of the zone downloads it".clone_into(&mut report.text);
    });
}

/// The object is there: it is this job's, too.
fn adopt(job: &Job, item: Item) -> Option<Sizes> {
    let sizes = Sizes {
        virtual_size: u64::try_from(item.virtual_size).ok()?,
        physical_size: u64::try_from(item.physical_size).ok()?,
    };
    let checksum = job.record().checksum.clone();
    job.update(|report| {
        report.install_path = item.install_path;
        report.checksum = checksum.or_else(|| report.checksum.take());
    });
    Some(sizes)
}

/// A snapshot's file has no list that names it; it gets its name when it is whole.
async fn snapshot_of_another(job: &Job, store: &Store) -> Result<Option<Sizes>, IngestError> {
    if job.request.kind != ObjectKind::Snapshot || !job.request.more.is_empty() {
        return Ok(None);
    }
    let place = job.request.place();
    let opening = store.engine().open(&job.work, place.clone());
    let Some(file) = store.run("look for a snapshot", opening).await? else { return Ok(None) };
    job.update(|report| report.install_path = place.to_string());
    Ok(Some(Sizes { virtual_size: file.length(), physical_size: file.length() }))
}

/// Makes what a dead host has left this job's own: its bytes under another name, its other files gone.
async fn take_over(
    job: &Arc<Job>,
    cx: &DownloadContext,
    store: &Store,
    work: &FileName,
    former: Shown,
) -> Result<(), IngestError> {
    let left: Vec<_> = former.left.into_iter().filter(|left| left.owner != job.id).collect();
    if left.is_empty() {
        // Of an earlier run of this process, or nothing: its own record knows.
        return Ok(());
    }
    let Request { kind, directory, .. } = &job.request;
    if !job.request.more.is_empty() {
        // Several files come anew.
        reclaim(store, &left).await?;
        return Ok(cx.sharing.reclaimed(store, work).await?);
    }
    let has_begun = note_of(job, cx).await?.is_some();
    let own = job.checkpoint().filter(|_own| has_begun).map_or(0, |own| own.received);
    let is_same = former.doing.what.as_deref() == Some(what(&job.request).as_str());
    let known = former.doing.record.and_then(|record| record.checkpoint);
    let known = known.filter(|known| is_same && known.received > own);
    if known.is_some() {
        // Shown from now on: if this host dies meanwhile, the next one goes on from there.
        job.record().checkpoint.clone_from(&known);
    }
    let temporary = temporary_name(&job.id, 0)?;
    let note = Note {
        store: store.url().clone(),
        directory: directory.clone(),
        kind: *kind,
        temporary: temporary.clone(),
        image: None,
        files: Vec::new(),
    };
    let (journal, id, own) = (cx.journal.clone(), job.id.clone(), note.clone());
    let noting = cx.tasks.blocking("note a file", move || journal.write(&id, &own)).await?;
    noting.map_err(IngestError::Journal)?;
    cx.sharing.note(store, &job.id, &note).await?;
    if let Some(checkpoint) = known {
        let mut files: Vec<FileName> = Vec::new();
        for left in left.iter().rev() {
            files.push(left.note.temporary.clone());
            files.extend(left.note.image.clone());
        }
        if copy_of_any(job, store, directory, &files, &temporary, &checkpoint).await {
            tracing::info!(
                job = job.id,
                received = checkpoint.received,
                "took over what a dead host had received"
            );
            job.received.store(checkpoint.received, Ordering::Relaxed);
        } else {
            job.record().checkpoint = None;
        }
    }
    reclaim(store, &left).await?;
    Ok(cx.sharing.reclaimed(store, work).await?)
}

/// Copies the first of these files that is long enough. What cannot be copied is downloaded again;
/// whether it is the right file is looked at when the download goes on.
async fn copy_of_any(
    job: &Job,
    store: &Store,
    directory: &InstallPath,
    files: &[FileName],
    to: &FileName,
    checkpoint: &Checkpoint,
) -> bool {
    for from in files {
        match copy(job, store, directory, from, to, checkpoint.received).await {
            Ok(true) => return true,
            Ok(false) => {}
            Err(error) => {
                let error = bedrock::chain(&error);
                tracing::warn!(job = job.id, file = %from, error, "cannot copy what a dead host had received");
            }
        }
    }
    false
}

/// Copies the first `length` bytes of a file that somebody may still have open; `false` when it has
/// fewer.
async fn copy(
    job: &Job,
    store: &Store,
    directory: &InstallPath,
    from: &FileName,
    to: &FileName,
    length: u64,
) -> Result<bool, IngestError> {
    const NAME: &str = "take over a download";
    let engine = store.engine();
    let opening = engine.open(&job.work, directory.join(from.clone()));
    let Some(source) = store.run(NAME, opening).await? else { return Ok(false) };
    if source.length() < length {
        return Ok(false);
    }
    let creating = engine.create(&job.work, directory.clone(), to.clone());
    let mut target = store.run(NAME, creating).await?;
    let mut at = 0;
    while at < length {
        let end = at.saturating_add(BLOCK).min(length);
        let block = store.run(NAME, source.read(at..end)).await?;
        store.run(NAME, target.write(at, block)).await?;
        at = end;
    }
    store.run(NAME, target.finish()).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hypervisor_hosts_must_not_read_stays_on_its_host() {
        for (url, more, secret) in [
            ("http://h/a.qcow2", "", false),
            ("http://h/a.qcow2?sig=1", "", true),
            ("http://u:p@h/a.qcow2", "", true),
            ("http://h/a", r#","auth":{"userName":"u","password":"p"}"#, true),
            (
                "http://h/a",
                r#","_proxy":{"_host":"p","_port":1,"_userName":"u","_password":"p"}"#,
                true,
            ),
        ] {
            let command = format!(r#"{{"url":"{url}"{more}}}"#);
            assert_eq!(has_secrets(&command), secret, "{command}");
        }
        assert!(has_secrets("no command"));
    }
}
