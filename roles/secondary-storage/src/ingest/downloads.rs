//! The table of jobs: started, shared, stopped, forgotten.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::journal::{Note, remove_leftovers};
use super::{DownloadContext, IngestError, Job, Phase, Request, run};
use crate::stores::{InstallPath, Lane, StoreUrl};

/// Jobs that wait or run, over all stores.
const MAX_ACTIVE: usize = 512;
/// Ended jobs that are kept for a late question.
const MAX_ENDED: usize = 1_000;
const KEEP_ENDED: Duration = Duration::from_secs(3_600);
/// How long a cancelled job may take to let go of its directory.
const CANCEL_LIMIT: Duration = Duration::from_secs(30);
/// Commands that may wait at the same time for a small image to be done.
const PATIENT_ANSWERS: usize = 3;
const RECOVERY_RETRY: Duration = Duration::from_secs(60);

/// The table of jobs. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct Downloads {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    cx: DownloadContext,
    per_store: usize,
    answer_wait: Duration,
    patience: Semaphore,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// The role stops: nothing is accepted any more.
    stopping: bool,
    jobs: BTreeMap<String, Arc<Job>>,
    slots: HashMap<String, Arc<Semaphore>>,
}

/// A job for `/status`.
#[derive(Debug, serde::Serialize)]
pub struct JobStatus {
    pub job: String,
    pub phase: Phase,
    pub percent: u8,
    pub received_bytes: u64,
    pub url: String,
    pub store: String,
    pub path: String,
    pub text: String,
    pub warnings: Vec<String>,
    pub age_seconds: u64,
}

impl Downloads {
    /// At most `per_store` downloads write to one store at the same time; a first answer waits up
    /// to `answer_wait` for its download.
    pub fn new(cx: DownloadContext, per_store: usize, answer_wait: Duration) -> Self {
        let patience = Semaphore::new(PATIENT_ANSWERS);
        let table = Mutex::default();
        Self { shared: Arc::new(Shared { cx, per_store, answer_wait, patience, table }) }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, id: &str) -> Option<Arc<Job>> {
        self.table().jobs.get(id).cloned()
    }

    /// Starts a job, or attaches to the one that already downloads the same to the same place. A
    /// job that downloads something else to that place is cancelled first.
    pub async fn start(&self, request: Request) -> Result<Arc<Job>, IngestError> {
        self.start_as(uuid::Uuid::new_v4().to_string(), request).await
    }

    async fn start_as(&self, id: String, request: Request) -> Result<Arc<Job>, IngestError> {
        loop {
            let conflicting = {
                let mut table = self.table();
                table.forget_old();
                match table.running_at(&request.store, &request.directory) {
                    Some(job) if job.request.is_same_download(&request) => {
                        tracing::info!(job = job.id, "second command for a running download");
                        job.adopt(request.about);
                        return Ok(job);
                    }
                    Some(job) => job,
                    None => return self.begin(&mut table, id, request),
                }
            };
            conflicting.cancel.cancel();
            if !conflicting.wait(CANCEL_LIMIT).await {
                return Err(IngestError::Internal);
            }
        }
    }

    fn begin(
        &self,
        table: &mut Table,
        id: String,
        request: Request,
    ) -> Result<Arc<Job>, IngestError> {
        if table.stopping {
            return Err(IngestError::Aborted);
        }
        if table.jobs.values().filter(|job| !job.phase().is_over()).count() >= MAX_ACTIVE {
            return Err(IngestError::Busy(MAX_ACTIVE));
        }
        let slots = table
            .slots
            .entry(request.store.key())
            .or_insert_with(|| Arc::new(Semaphore::new(self.shared.per_store)));
        let slots = Arc::clone(slots);
        let job = Arc::new(Job::new(id, request));
        table.jobs.insert(job.id.clone(), Arc::clone(&job));
        let cx = self.shared.cx.clone();
        cx.metrics.accepted();
        let span = tracing::error_span!("download", job = job.id, store = %job.request.store);
        tracing::info!(parent: &span, url = %job.request.source, path = %job.request.directory, "download accepted");
        let run = Box::pin(run::run(Arc::clone(&job), cx.clone(), slots).instrument(span));
        cx.tasks.spawn("download", run);
        Ok(job)
    }

    /// Gives a small image the chance to be done before the first answer. Only a few commands wait
    /// like this, so that a server that sends many at once gets its answers at once.
    pub async fn patience(&self, job: &Job) {
        if let Ok(_turn) = self.shared.patience.try_acquire() {
            job.wait(self.shared.answer_wait).await;
        }
    }

    /// Stops a job and waits for it.
    pub async fn abort(&self, id: &str) -> Option<Arc<Job>> {
        let job = self.get(id)?;
        job.cancel.cancel();
        if !job.wait(CANCEL_LIMIT).await {
            tracing::warn!(job = job.id, "a cancelled download does not end");
        }
        Some(job)
    }

    /// Stops a job and forgets it.
    pub async fn purge(&self, id: &str) -> Option<Arc<Job>> {
        let job = self.abort(id).await?;
        self.table().jobs.remove(id);
        Some(job)
    }

    /// Stops a job and does its work again under the same id, the only one that the server knows.
    pub async fn restart(&self, id: &str) -> Option<Result<Arc<Job>, IngestError>> {
        let job = self.purge(id).await?;
        Some(self.start_as(job.id.clone(), job.request.clone()).await)
    }

    /// The job that a question about `id` is about: that one, or the one that replaced it.
    pub fn current(&self, id: &str) -> Option<Arc<Job>> {
        let table = self.table();
        let job = table.jobs.get(id)?;
        if job.phase() != Phase::Aborted {
            return Some(Arc::clone(job));
        }
        let at_its_place = table.jobs.values().filter(|other| {
            other.request.store.key() == job.request.store.key()
                && other.request.directory == job.request.directory
        });
        at_its_place.max_by_key(|other| other.started).cloned()
    }

    /// The job that downloads into a directory now.
    pub fn running_at(&self, store: &StoreUrl, directory: &InstallPath) -> Option<Arc<Job>> {
        self.table().running_at(store, directory)
    }

    /// Stops whatever downloads into a directory that is about to be removed.
    pub async fn release(&self, store: &StoreUrl, directory: &InstallPath) {
        if let Some(job) = self.running_at(store, directory) {
            self.abort(&job.id).await;
        }
    }

    /// Stops everything, so that nothing is left on the stores when the role ends.
    pub async fn stop(&self) {
        let running: Vec<Arc<Job>> = {
            let mut table = self.table();
            table.stopping = true;
            table.jobs.values().filter(|job| !job.phase().is_over()).cloned().collect()
        };
        for job in &running {
            job.cancel.cancel();
        }
        for job in &running {
            job.wait(CANCEL_LIMIT).await;
        }
    }

    /// Removes from the stores what a former run of this process left there. A store that is not
    /// there now is tried again later.
    pub async fn recover(&self, shutdown: CancellationToken) {
        let journal = self.shared.cx.journal.clone();
        let read = self.shared.cx.tasks.blocking("read notes", move || journal.all()).await;
        let mut notes = match read {
            Ok(Ok(notes)) => notes,
            Ok(Err(error)) => {
                tracing::warn!(
                    error = bedrock::chain(&error),
                    "cannot read the notes of former downloads"
                );
                return;
            }
            Err(_stopped) => return,
        };
        loop {
            let mut left = Vec::new();
            for (job, note) in notes {
                if !self.recover_one(&job, &note).await {
                    left.push((job, note));
                }
            }
            if left.is_empty() {
                return;
            }
            notes = left;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RECOVERY_RETRY) => {}
            }
        }
    }

    async fn recover_one(&self, job: &str, note: &Note) -> bool {
        // An ISO has the same name each time: what is being installed there is not a leftover.
        if let (Ok(url), Ok(directory)) = (note.store.parse(), note.directory.parse())
            && self.running_at(&url, &directory).is_some()
        {
            return false;
        }
        let cx = &self.shared.cx;
        let removed = async {
            let url: StoreUrl = note.store.parse()?;
            let store = cx.stores.open(&url, None).await?;
            let (id, note) = (job.to_owned(), note.clone());
            store
                .run("remove leftovers", Lane::Quick, move |root| {
                    remove_leftovers(root, &id, &note)
                })
                .await
        };
        if let Err(error) = removed.await {
            tracing::warn!(
                job,
                error = bedrock::chain(&error),
                "cannot remove what a former download left, will retry"
            );
            return false;
        }
        tracing::info!(job, path = note.directory, "removed what a former download left");
        let (journal, id) = (cx.journal.clone(), job.to_owned());
        matches!(cx.tasks.blocking("erase a note", move || journal.erase(&id)).await, Ok(Ok(())))
    }

    /// For `/status`: running jobs first, then ended ones.
    pub fn status(&self) -> Vec<JobStatus> {
        let jobs: Vec<Arc<Job>> = self.table().jobs.values().cloned().collect();
        let mut list: Vec<JobStatus> = jobs.iter().map(|job| JobStatus::of(job)).collect();
        list.sort_by_key(|status| (status.phase.is_over(), status.age_seconds));
        list
    }
}

impl JobStatus {
    fn of(job: &Job) -> Self {
        let report = job.report();
        Self {
            job: job.id.clone(),
            phase: report.phase,
            percent: report.percent,
            received_bytes: job.received(),
            url: job.request.source.to_string(),
            store: job.request.store.to_string(),
            path: report.install_path,
            text: report.text.trim().to_owned(),
            warnings: report.warnings,
            age_seconds: job.started.elapsed().as_secs(),
        }
    }
}

impl Table {
    fn running_at(&self, store: &StoreUrl, directory: &InstallPath) -> Option<Arc<Job>> {
        let same = |job: &&Arc<Job>| {
            !job.phase().is_over()
                && job.request.store.key() == store.key()
                && job.request.directory == *directory
        };
        self.jobs.values().find(same).cloned()
    }

    fn forget_old(&mut self) {
        let now = Instant::now();
        let is_old = |job: &Job| job.ended().is_some_and(|at| now.duration_since(at) > KEEP_ENDED);
        self.jobs.retain(|_, job| !is_old(job));
        let mut ended: Vec<(Instant, String)> =
            self.jobs.values().filter_map(|job| Some((job.ended()?, job.id.clone()))).collect();
        let surplus = ended.len().saturating_sub(MAX_ENDED);
        ended.sort();
        for (_, id) in ended.into_iter().take(surplus) {
            self.jobs.remove(&id);
        }
    }
}
