//! The table of jobs: started, shared, stopped, forgotten.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use role::TaskScope;
use status_api::{DownloadState, DownloadStatus};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::journal::{Note, remove_leftovers};
use super::records::Record;
use super::turns::Turns;
use super::{DownloadContext, IngestError, Job, Phase, Request, run};
use crate::stores::{InstallPath, StoreUrl};

/// Jobs that wait or run, over all stores.
const MAX_ACTIVE: usize = 512;
/// Ended jobs that are kept for a late question.
const MAX_ENDED: usize = 1_000;
const KEEP_ENDED: Duration = Duration::from_secs(3_600);
/// How long an answer waits for its job to be on record.
const RECORD_LIMIT: Duration = Duration::from_secs(5);
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
    /// Commands that may wait at the same time for a small image to be done.
    waiting: Semaphore,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// The role stops: nothing is accepted any more.
    stopping: bool,
    jobs: BTreeMap<String, Arc<Job>>,
    turns: HashMap<String, Turns>,
}

/// What became of a command.
enum Begun {
    New(Arc<Job>),
    /// The same is downloaded to the same place already.
    Shared(Arc<Job>),
    /// Something else is downloaded to that place.
    Conflict(Arc<Job>),
}

impl Downloads {
    /// At most `per_store` downloads write to one store at the same time; at most `waiting` first
    /// answers wait for their download.
    pub fn new(cx: DownloadContext, per_store: usize, waiting: usize) -> Self {
        let waiting = Semaphore::new(waiting.min(Semaphore::MAX_PERMITS));
        let table = Mutex::default();
        Self { shared: Arc::new(Shared { cx, per_store, waiting, table }) }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of the role.
    pub fn tasks(&self) -> &TaskScope {
        &self.shared.cx.tasks
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
            let conflicting = match self.begin_or_share(&id, &request)? {
                Begun::Shared(job) => return Ok(job),
                Begun::New(job) => {
                    // The answer names it: from then on it survives this process.
                    let recorded = tokio::time::timeout(RECORD_LIMIT, job.recorded.cancelled());
                    if recorded.await.is_err() {
                        tracing::warn!(job = job.id, "a download is not on record yet");
                    }
                    return Ok(job);
                }
                Begun::Conflict(job) => job,
            };
            conflicting.cancel.cancel();
            if !conflicting.wait_for_place(self.shared.cx.settings.get().cancel_limit).await {
                return Err(IngestError::StillEnding);
            }
        }
    }

    fn begin_or_share(&self, id: &str, request: &Request) -> Result<Begun, IngestError> {
        let mut table = self.table();
        self.forget_old(&mut table);
        match table.running_for(request) {
            Some(job) if !job.phase().is_over() && job.request.is_same_download(request) => {
                tracing::info!(job = job.id, "second command for a running download");
                job.adopt(request.clone());
                Ok(Begun::Shared(job))
            }
            Some(job) => Ok(Begun::Conflict(job)),
            None => {
                let now = self.shared.cx.host.clock.unix_ms();
                let job = Job::new(id.to_owned(), request.clone(), now);
                self.begin(&mut table, job).map(Begun::New)
            }
        }
    }

    /// Takes over the jobs of an earlier run of this process: those that were running go on, the
    /// others are there to be asked for.
    pub fn restore(&self, jobs: Vec<Job>) {
        let mut table = self.table();
        for job in jobs {
            let id = job.id.clone();
            if job.phase().is_over() {
                table.jobs.insert(id, Arc::new(job));
            } else if let Err(error) = self.begin(&mut table, job) {
                tracing::warn!(job = id, %error, "a download does not go on");
            }
        }
        self.forget_old(&mut table);
    }

    /// Everything that is on disk of jobs.
    pub async fn records(&self) -> Vec<(String, Record)> {
        let records = self.shared.cx.records.clone();
        match self.shared.cx.tasks.blocking("read records", move || records.all()).await {
            Ok(Ok(records)) => records,
            Ok(Err(error)) => {
                let error = bedrock::chain(&error);
                tracing::warn!(error, "cannot read the records of former downloads");
                Vec::new()
            }
            Err(_stopped) => Vec::new(),
        }
    }

    /// Removes records nobody asks for any more.
    pub fn erase_records(&self, ids: Vec<String>) {
        if ids.is_empty() {
            return;
        }
        let (cx, records) = (self.shared.cx.clone(), self.shared.cx.records.clone());
        let work = move || ids.iter().try_for_each(|id| records.erase(id));
        let tasks = cx.tasks.clone();
        tasks.spawn("erase records", async move {
            if let Ok(Err(error)) = cx.tasks.blocking("erase records", work).await {
                tracing::warn!(error = bedrock::chain(&error), "cannot erase the record of a job");
            }
        });
    }

    fn forget_old(&self, table: &mut Table) {
        self.erase_records(table.forget_old());
    }

    fn begin(&self, table: &mut Table, job: Job) -> Result<Arc<Job>, IngestError> {
        if table.stopping {
            return Err(IngestError::Aborted);
        }
        if table.jobs.values().filter(|job| job.holds_place()).count() >= MAX_ACTIVE {
            return Err(IngestError::Busy(MAX_ACTIVE));
        }
        let turns = table
            .turns
            .entry(job.request.store.key())
            .or_insert_with(|| Turns::new(self.shared.per_store))
            .clone();
        let job = Arc::new(job);
        table.jobs.insert(job.id.clone(), Arc::clone(&job));
        let cx = self.shared.cx.clone();
        cx.metrics.accepted();
        let span = tracing::error_span!("download", job = job.id, store = %job.request.store);
        tracing::info!(parent: &span, url = %job.request.source, path = %job.request.directory, "download accepted");
        let run = Box::pin(run::run(Arc::clone(&job), cx.clone(), turns).instrument(span));
        let (downloads, running) = (self.clone(), Arc::clone(&job));
        cx.tasks.spawn("download", async move {
            run.await;
            downloads.follow(&running);
        });
        Ok(job)
    }

    /// A place among the commands that wait for their image; `None` when all are taken. Waiting costs
    /// nothing but a place among the commands under way, so some of those places stay free.
    pub fn waiting_place(&self) -> Option<SemaphorePermit<'_>> {
        self.shared.waiting.try_acquire().ok()
    }

    /// Gives a small image the chance to be done before the first answer: the server asks again
    /// after ten seconds only.
    pub async fn settle(&self, job: &Job, _place: SemaphorePermit<'_>) {
        job.wait(self.shared.cx.settings.get().answer_wait).await;
    }

    /// Stops a job and waits a while for it. A job whose store hangs goes on ending.
    pub async fn abort(&self, id: &str) -> Option<Arc<Job>> {
        let job = self.get(id)?;
        self.end(&job).await;
        Some(job)
    }

    /// Stops a job and waits a while; `false` when its store still has not let go of it.
    async fn end(&self, job: &Job) -> bool {
        job.cancel.cancel();
        let ended = job.wait_for_place(self.shared.cx.settings.get().cancel_limit).await;
        if !ended {
            tracing::warn!(job = job.id, "a cancelled download does not end");
        }
        ended
    }

    /// Stops a job and forgets it, as soon as its store has let go of it.
    pub async fn purge(&self, id: &str) -> Option<Arc<Job>> {
        let job = self.get(id)?;
        job.forgotten.store(true, Ordering::Relaxed);
        if self.end(&job).await {
            self.table().jobs.remove(id);
            self.erase_records(vec![id.to_owned()]);
        }
        Some(job)
    }

    /// Stops a job and does its work again under the same id, the only one that the server knows.
    pub async fn restart(&self, id: &str) -> Option<Result<Arc<Job>, IngestError>> {
        let job = self.get(id)?;
        if !self.end(&job).await {
            return Some(Err(IngestError::StillEnding));
        }
        Some(self.start_as(job.id.clone(), job.request.clone()).await)
    }

    /// Waits for the host that has taken a job over, under the id that the server knows.
    fn follow(&self, job: &Job) {
        let is_lost = job.lost.load(Ordering::SeqCst) && job.phase() == Phase::Aborted;
        if !is_lost || job.forgotten.load(Ordering::Relaxed) {
            return;
        }
        let mut table = self.table();
        if table.running_for(&job.request).is_none()
            && let Err(error) = self.begin(&mut table, job.following())
        {
            let error = bedrock::chain(&error);
            tracing::warn!(job = job.id, error, "cannot wait for another storage host");
        }
    }

    /// The job that a question about `id` is about: that one, or the one that replaced it.
    pub fn current(&self, id: &str) -> Option<Arc<Job>> {
        let table = self.table();
        let job = table.jobs.get(id)?;
        if job.phase() != Phase::Aborted {
            return Some(Arc::clone(job));
        }
        let at_its_place =
            table.jobs.values().filter(|other| other.request.is_same_place(&job.request));
        at_its_place.max_by_key(|other| other.started).cloned()
    }

    /// The job that downloads into a directory now.
    pub fn running_at(&self, store: &StoreUrl, directory: &InstallPath) -> Option<Arc<Job>> {
        self.table().running_at(store, directory)
    }

    /// Whether a job makes this now.
    pub fn is_making(&self, store: &StoreUrl, place: &InstallPath) -> bool {
        let is_it = |job: &Arc<Job>| {
            job.holds_place()
                && job.request.store.key() == store.key()
                && job.request.place() == *place
        };
        self.table().jobs.values().any(is_it)
    }

    /// Stops whatever downloads into a directory that is about to be removed.
    pub async fn release(
        &self,
        store: &StoreUrl,
        directory: &InstallPath,
    ) -> Result<(), IngestError> {
        match self.running_at(store, directory) {
            Some(job) if !self.end(&job).await => Err(IngestError::StillEnding),
            Some(_) | None => Ok(()),
        }
    }

    /// Stops everything; what is under way goes on at the next start.
    pub async fn stop(&self) {
        let running: Vec<Arc<Job>> = {
            let mut table = self.table();
            table.stopping = true;
            table.jobs.values().filter(|job| job.holds_place()).cloned().collect()
        };
        for job in &running {
            job.suspend();
        }
        let limit = self.shared.cx.settings.get().cancel_limit;
        futures_util::future::join_all(running.iter().map(|job| job.wait_for_place(limit))).await;
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
        // It is not left but under way: the job of that name goes on with it.
        if self.get(job).is_some_and(|job| job.holds_place()) {
            return true;
        }
        // An ISO has the same name each time: what is being installed there is not a leftover.
        if self.running_at(&note.store, &note.directory).is_some() {
            return false;
        }
        let cx = &self.shared.cx;
        let removed = async {
            let store = cx.stores.open(&note.store, None).await?;
            remove_leftovers(&store, job, note).await
        };
        if let Err(error) = removed.await {
            tracing::warn!(
                job,
                error = bedrock::chain(&error),
                "cannot remove what a former download left, will retry"
            );
            return false;
        }
        tracing::info!(job, path = %note.directory, "removed what a former download left");
        let (journal, id) = (cx.journal.clone(), job.to_owned());
        matches!(cx.tasks.blocking("erase a note", move || journal.erase(&id)).await, Ok(Ok(())))
    }

    /// For `/status`: running jobs first, then ended ones.
    pub fn status(&self) -> Vec<DownloadStatus> {
        let jobs: Vec<Arc<Job>> = self.table().jobs.values().cloned().collect();
        let mut list: Vec<(bool, DownloadStatus)> =
            jobs.iter().map(|job| (job.phase().is_over(), status_of(job))).collect();
        list.sort_by_key(|(is_over, status)| (*is_over, status.started_ago_ms));
        list.into_iter().map(|(_, status)| status).collect()
    }
}

/// One job as an operator sees it.
pub fn status_of(job: &Job) -> DownloadStatus {
    let report = job.report();
    DownloadStatus {
        job: job.id.clone(),
        state: match report.phase {
            Phase::Waiting | Phase::Suspended => DownloadState::Queued,
            Phase::Downloading => DownloadState::Downloading,
            Phase::Installing => DownloadState::Installing,
            Phase::Done => DownloadState::Done,
            Phase::Failed => DownloadState::Failed,
            Phase::Aborted => DownloadState::Cancelled,
        },
        percent: report.percent,
        received_bytes: job.received(),
        total_bytes: job.expected(),
        bytes_per_second: (report.phase == Phase::Downloading).then(|| job.speed()),
        object: format!("{} {}", job.request.kind.name(), job.about().id),
        url: job.request.source.to_string(),
        store: job.request.store.to_string(),
        path: report.install_path,
        text: report.text.trim().to_owned(),
        warnings: report.warnings,
        started_ago_ms: u64::try_from(job.started.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

impl Table {
    /// The job that makes the same thing of a store now.
    fn running_for(&self, request: &Request) -> Option<Arc<Job>> {
        let same = |job: &&Arc<Job>| job.holds_place() && job.request.is_same_place(request);
        self.jobs.values().find(same).cloned()
    }

    fn running_at(&self, store: &StoreUrl, directory: &InstallPath) -> Option<Arc<Job>> {
        let same = |job: &&Arc<Job>| {
            job.holds_place()
                && job.request.store.key() == store.key()
                && job.request.directory.parts().starts_with(directory.parts())
        };
        self.jobs.values().find(same).cloned()
    }

    /// Says which ones.
    fn forget_old(&mut self) -> Vec<String> {
        let before: Vec<String> = self.jobs.keys().cloned().collect();
        let now = Instant::now();
        let is_old = |job: &Job| {
            let kept =
                if job.forgotten.load(Ordering::Relaxed) { Duration::ZERO } else { KEEP_ENDED };
            !job.holds_place() && job.ended().is_some_and(|at| now.duration_since(at) >= kept)
        };
        self.jobs.retain(|_, job| !is_old(job));
        let over = self.jobs.values().filter(|job| !job.holds_place());
        let mut ended: Vec<(Instant, String)> =
            over.filter_map(|job| Some((job.ended()?, job.id.clone()))).collect();
        let surplus = ended.len().saturating_sub(MAX_ENDED);
        ended.sort();
        for (_, id) in ended.into_iter().take(surplus) {
            self.jobs.remove(&id);
        }
        before.into_iter().filter(|id| !self.jobs.contains_key(id)).collect()
    }
}
