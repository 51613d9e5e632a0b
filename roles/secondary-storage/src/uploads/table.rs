//! The table of uploads: begun, answered about, ended, remembered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tracing::Instrument;

use super::config::UploadSettings;
use super::error::UploadError;
use super::keys::Keys;
use super::metrics::UploadMetrics;
use super::record::{Completed, Record, Records, Resume, State};
use super::run;
use super::upload::{Outcome, Upload, Wish};
use crate::ingest::DownloadContext;
use crate::ingest::write::{PIECES, Piece};
use crate::live::Live;
use crate::stores::{InstallPath, StoreUrl};

/// Ended uploads that are kept for the server's question.
const MAX_KEPT: usize = 4_096;
/// Longer than any URL of an upload is valid, so that one used up stays used up.
pub(super) const KEPT: Duration = Duration::from_hours(48);

/// The table of uploads. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct Uploads {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    cx: DownloadContext,
    settings: Live<UploadSettings>,
    keys: Keys,
    records: Records,
    metrics: UploadMetrics,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// The role stops: nothing is accepted any more.
    stopping: bool,
    uploads: BTreeMap<String, Slot>,
}

#[derive(Debug, Clone)]
enum Slot {
    Running(Arc<Upload>),
    Ended(Box<Record>),
}

/// Where the bytes of an admitted upload go. Dropping it before [`Feed::end`] ends the upload.
#[derive(Debug)]
pub struct Feed {
    pub upload: Arc<Upload>,
    pieces: mpsc::Sender<Piece>,
}

/// What the management server is told of an upload.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    Unknown,
    InProgress { percent: u8, received: u64, is_volume: bool },
    Completed(Completed),
    Failed(String),
}

impl Uploads {
    /// `cx` has a journal of its own: downloads do not clean up after uploads.
    pub fn new(
        cx: DownloadContext,
        settings: Live<UploadSettings>,
        keys: Keys,
        records: Records,
    ) -> Self {
        let (metrics, table) = (cx.metrics.uploads.clone(), Mutex::default());
        Self { shared: Arc::new(Shared { cx, settings, keys, records, metrics, table }) }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn context(&self) -> &DownloadContext {
        &self.shared.cx
    }

    pub(super) fn metrics(&self) -> &UploadMetrics {
        &self.shared.metrics
    }

    pub fn keys(&self) -> &Keys {
        &self.shared.keys
    }

    pub fn settings(&self) -> Arc<UploadSettings> {
        self.shared.settings.get()
    }

    pub(super) fn now(&self) -> SystemTime {
        self.shared.cx.host.clock.now()
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.shared.cx.host.clock.unix_ms()
    }

    pub(super) fn records(&self) -> &Records {
        &self.shared.records
    }

    /// Begins an upload and waits until its bytes are wanted.
    ///
    /// # Errors
    /// Why they are not. The server learns of it too, unless another upload has the id.
    pub async fn begin(&self, wish: Wish) -> Result<Feed, UploadError> {
        let upload = Arc::new(Upload::new(wish));
        self.enter(&upload)?;
        let feed = self.work_on(upload);
        tokio::select! {
            () = feed.upload.ready.cancelled() => Ok(feed),
            // Ended before it began.
            ended = feed.upload.ended() => match ended {
                Ok(_) => Err(UploadError::Stopped),
                Err(error) => {
                    self.metrics().refused(error.code());
                    Err(error)
                }
            },
        }
    }

    /// Goes on with an upload of an earlier run of this process, which is in the table.
    pub(super) fn go_on(&self, upload: Upload) -> Feed {
        let upload = Arc::new(upload);
        self.table().uploads.insert(upload.id.clone(), Slot::Running(Arc::clone(&upload)));
        self.work_on(upload)
    }

    fn work_on(&self, upload: Arc<Upload>) -> Feed {
        let (pieces, incoming) = mpsc::channel(PIECES);
        self.metrics().begun();
        let span = tracing::error_span!("upload", upload = upload.id, store = %upload.plan.store);
        let (client, bytes) = (upload.client.as_deref().unwrap_or("-"), upload.total);
        let (path, again) = (&upload.plan.directory, upload.is_restored);
        tracing::info!(parent: &span, client, bytes, %path, again, "upload begins");
        let work = run::run(self.clone(), Arc::clone(&upload), incoming);
        self.shared.cx.tasks.spawn("upload", Box::pin(work.instrument(span)));
        Feed { upload, pieces }
    }

    /// Uploads that were under way when an earlier run of this process ended, and can go on.
    pub(super) fn interrupted(&self) -> Vec<(String, String, Box<Resume>)> {
        let open = |id: &str, record: &Record| match &record.state {
            State::Receiving { attempt, resume: Some(resume) } => {
                Some((id.to_owned(), attempt.clone(), resume.clone()))
            }
            _ => None,
        };
        self.each(|_| None, open).into_iter().flatten().collect()
    }

    fn enter(&self, upload: &Arc<Upload>) -> Result<(), UploadError> {
        let at_once = self.settings().at_once;
        let now = self.shared.cx.host.clock.unix_ms();
        let mut table = self.table();
        table.forget_old(now);
        if table.stopping {
            return Err(UploadError::Stopped);
        }
        let used = match table.uploads.get(&upload.id) {
            Some(Slot::Running(upload)) if upload.outcome().is_some() => Some(
                "its upload has ended, but its store does not let go of it; try again later"
                    .to_owned(),
            ),
            Some(Slot::Running(_)) => Some("its upload is under way".to_owned()),
            Some(Slot::Ended(record)) => match &record.state {
                State::Completed(_) => Some("its upload is complete".to_owned()),
                State::Failed { text, told: true } => {
                    Some(format!("its upload failed and the server knows that; {text}"))
                }
                State::Receiving { .. } => Some("its upload is being looked at".to_owned()),
                // A failure that nobody asked about yet: the client tries again in time.
                State::Failed { told: false, .. } => None,
            },
            None => None,
        };
        if let Some(why) = used {
            return Err(UploadError::Used(why));
        }
        if table.running().count() >= at_once {
            return Err(UploadError::Busy(at_once));
        }
        table.uploads.insert(upload.id.clone(), Slot::Running(Arc::clone(upload)));
        Ok(())
    }

    /// An authentic request that cannot be carried out: the server is told, unless it has better to
    /// know about the upload.
    pub async fn note_refusal(&self, id: &str, error: &UploadError) {
        self.metrics().refused(error.code());
        let state = State::Failed { text: error.to_string(), told: false };
        let record = self.record(None, state);
        if self.find_shared(id, None).await.is_some() {
            return;
        }
        {
            let mut table = self.table();
            table.forget_old(record.at_ms);
            if table.uploads.contains_key(id) {
                return;
            }
            table.uploads.insert(id.to_owned(), Slot::Ended(Box::new(record.clone())));
        }
        self.save(id, record).await;
    }

    fn record(&self, upload: Option<&Upload>, state: State) -> Record {
        let plan = upload.map(|upload| &upload.plan);
        Record {
            store: plan.map(|plan| plan.store.clone()),
            directory: plan.map(|plan| plan.directory.clone()),
            kind: plan.map(|plan| plan.kind),
            name: plan.map(|plan| plan.about.unique_name.clone()).unwrap_or_default(),
            file: upload.and_then(Upload::file),
            client: upload.and_then(|upload| upload.client.clone()),
            at_ms: self.shared.cx.host.clock.unix_ms(),
            state,
        }
    }

    /// Writes down that an upload begins: after a crash the server is told of it.
    pub(super) async fn remember_start(&self, upload: &Upload) -> Result<(), UploadError> {
        let record = self.receiving(upload);
        let (records, id, kept) = (self.shared.records.clone(), upload.id.clone(), record.clone());
        let work = move || records.save(&id, &kept);
        match self.shared.cx.tasks.blocking("note an upload", work).await {
            Ok(saved) => saved.map_err(|error| UploadError::Record(bedrock::chain(&error)))?,
            Err(error) => return Err(UploadError::Record(error.to_string())),
        }
        self.share(&upload.id, &record).await;
        Ok(())
    }

    fn receiving(&self, upload: &Upload) -> Record {
        let (attempt, resume) = (upload.attempt.clone(), upload.resume());
        self.record(Some(upload), State::Receiving { attempt, resume })
    }

    /// Writes down how far an upload is.
    pub(super) async fn remember_progress(&self, upload: &Upload) {
        let record = self.receiving(upload);
        let (records, id) = (self.shared.records.clone(), upload.id.clone());
        let writing = Arc::clone(&upload.writing).lock_owned().await;
        let work = move || {
            // Until it is written, also when nobody waits for that any more.
            let _writing = writing;
            records.save_soon(&id, &record)
        };
        if let Ok(Err(error)) = self.shared.cx.tasks.blocking("note an upload", work).await {
            let error = bedrock::chain(&error);
            tracing::warn!(upload = upload.id, error, "cannot write down how far an upload is");
        }
    }

    /// Writes down how an upload ended.
    pub(super) async fn remember(&self, upload: &Upload, outcome: &Outcome) {
        let record = self.ended_record(upload, outcome);
        // What all hosts know of a lost one is another host's word now.
        if !upload.is_lost() {
            self.share(&upload.id, &record).await;
        }
        let _writing = upload.writing.lock().await;
        self.save_here(&upload.id, record).await;
    }

    fn ended_record(&self, upload: &Upload, outcome: &Outcome) -> Record {
        let state = match outcome {
            Ok(completed) => State::Completed(completed.clone()),
            Err(UploadError::Suspended) => return self.receiving(upload),
            Err(error) => State::Failed { text: error.to_string(), told: upload.is_told() },
        };
        self.record(Some(upload), state)
    }

    /// Writes down how an upload is, for this host and the others.
    pub(super) async fn save(&self, id: &str, record: Record) {
        self.share(id, &record).await;
        self.save_here(id, record).await;
    }

    async fn save_here(&self, id: &str, record: Record) {
        let (records, owned) = (self.shared.records.clone(), id.to_owned());
        let work = move || records.save(&owned, &record);
        let problem = match self.shared.cx.tasks.blocking("note an upload", work).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => bedrock::chain(&error),
            Err(error) => bedrock::chain(&error),
        };
        tracing::warn!(upload = id, error = problem, "cannot write down how an upload is");
    }

    /// The upload is over; from now on the server is told so.
    pub(super) fn close(&self, upload: &Arc<Upload>, outcome: Outcome) {
        let aborted = matches!(outcome, Err(UploadError::Aborted));
        let record = self.ended_record(upload, &outcome);
        {
            let mut table = self.table();
            let ours = |slot: &Slot| matches!(slot, Slot::Running(it) if Arc::ptr_eq(it, upload));
            if table.uploads.get(&upload.id).is_some_and(ours) {
                table.uploads.insert(upload.id.clone(), Slot::Ended(Box::new(record)));
            }
        }
        if aborted {
            tracing::info!(upload = upload.id, "upload aborted");
        }
        upload.finish(outcome);
        upload.gone.cancel();
    }

    /// An upload that was to go on cannot.
    pub(super) async fn give_up(&self, id: &str, error: &UploadError) {
        let Some(Slot::Ended(record)) = self.table().uploads.get(id).cloned() else { return };
        let state = State::Failed { text: error.to_string(), told: false };
        let record = Record { state, ..*record };
        self.restore(id.to_owned(), record.clone());
        self.save(id, record).await;
    }

    /// After a restart: takes over what is known of former uploads.
    pub fn restore_all(&self, records: Vec<(String, Record)>) {
        for (id, record) in records {
            self.restore(id, record);
        }
    }

    /// After a restart: puts what a record says into the table.
    pub(super) fn restore(&self, id: String, record: Record) {
        self.table().uploads.insert(id, Slot::Ended(Box::new(record)));
    }

    /// Bytes that other uploads of the account will still put on secondary storage.
    pub(super) fn under_way(&self, account: i64, but: &str) -> u64 {
        let table = self.table();
        let others = table.running().filter(|it| it.plan.account == account && it.id != but);
        others.map(|upload| upload.total).fold(0, u64::saturating_add)
    }

    /// Whether an upload makes this now.
    pub(crate) fn is_making(&self, store: &StoreUrl, directory: &InstallPath) -> bool {
        let is_it = |upload: Arc<Upload>| {
            upload.plan.store.key() == store.key() && upload.plan.directory == *directory
        };
        self.table().running().any(is_it)
    }

    /// The upload of an id while it runs.
    pub fn running(&self, id: &str) -> Option<Arc<Upload>> {
        match self.table().uploads.get(id) {
            Some(Slot::Running(upload)) => Some(Arc::clone(upload)),
            Some(Slot::Ended(_)) | None => None,
        }
    }

    /// Uploads that run and uploads that ended, for whoever shows them.
    pub(super) fn each<T>(
        &self,
        running: impl Fn(&Upload) -> T,
        ended: impl Fn(&str, &Record) -> T,
    ) -> Vec<T> {
        let table = self.table();
        let all = table.uploads.iter().map(|(id, slot)| match slot {
            Slot::Running(upload) => running(upload),
            Slot::Ended(record) => ended(id, record),
        });
        all.collect()
    }

    /// What the server is told, as often as it asks.
    pub async fn tell(&self, id: &str) -> Told {
        let slot = self.table().uploads.get(id).cloned();
        let local = match slot {
            None => None,
            Some(Slot::Ended(record)) => Some(*record),
            Some(Slot::Running(upload)) => match upload.outcome() {
                Some(outcome) => Some(self.ended_record(&upload, &outcome)),
                None => {
                    return Told::InProgress {
                        percent: upload.percent(),
                        received: upload.received(),
                        is_volume: upload.plan.kind == crate::stores::ObjectKind::Volume,
                    };
                }
            },
        };
        let Some(record) = self.known_to_all(id, local).await else { return Told::Unknown };
        match record.state.clone() {
            // It goes on, or is being looked at.
            State::Receiving { .. } => self.progress_elsewhere(&record).await,
            State::Completed(completed) => Told::Completed(completed),
            State::Failed { text, told } => {
                if !told {
                    self.set_told(id, record, &text).await;
                }
                Told::Failed(text)
            }
        }
    }

    /// From now on the object is lost to the server: a client cannot try again.
    async fn set_told(&self, id: &str, record: Record, text: &str) {
        let state = State::Failed { text: text.to_owned(), told: true };
        let record = Record { state, ..record };
        {
            let mut table = self.table();
            match table.uploads.get_mut(id) {
                Some(Slot::Ended(known)) => **known = record.clone(),
                Some(Slot::Running(upload)) => return upload.set_told(),
                // Another host's.
                None => {
                    let ended = Slot::Ended(Box::new(record.clone()));
                    table.uploads.insert(id.to_owned(), ended);
                }
            }
        }
        self.save(id, record).await;
    }

    /// The server gives an upload up: it ends, and is forgotten. `false` when there is none.
    pub async fn abort(&self, id: &str) -> bool {
        if let Some(upload) = self.running(id) {
            upload.end(UploadError::Aborted);
            let limit = self.shared.cx.settings.get().cancel_limit;
            if tokio::time::timeout(limit, upload.gone.cancelled()).await.is_err() {
                tracing::warn!(upload = id, "an aborted upload does not end");
                return true;
            }
        }
        let known = self.table().uploads.remove(id).is_some();
        let elsewhere = self.abort_elsewhere(id).await;
        if known {
            let (records, owned) = (self.shared.records.clone(), id.to_owned());
            let work = move || records.remove(&owned);
            if let Ok(Err(error)) = self.shared.cx.tasks.blocking("forget an upload", work).await {
                let error = bedrock::chain(&error);
                tracing::warn!(upload = id, error, "cannot forget an upload");
            }
        }
        known || elsewhere
    }

    /// Ends whatever is uploaded into a directory that is about to be removed; `false` when its
    /// store does not let go of it.
    pub async fn release(&self, store: &StoreUrl, directory: &InstallPath) -> bool {
        let running = self.table().running().find(|upload| {
            upload.plan.store.key() == store.key() && upload.plan.directory == *directory
        });
        let Some(upload) = running else { return true };
        upload.end(UploadError::Aborted);
        let limit = self.shared.cx.settings.get().cancel_limit;
        tokio::time::timeout(limit, upload.gone.cancelled()).await.is_ok()
    }

    /// Stops everything. Of resumable uploads what is there stays, for the next run to go on; of others
    /// nothing is left on the stores when the role ends.
    pub async fn stop(&self) {
        let running: Vec<Arc<Upload>> = {
            let mut table = self.table();
            table.stopping = true;
            table.running().collect()
        };
        for upload in &running {
            let goes_on = upload.resumable;
            upload.end(if goes_on { UploadError::Suspended } else { UploadError::Stopped });
        }
        let limit = self.shared.cx.settings.get().cancel_limit;
        let ended =
            running.iter().map(|upload| tokio::time::timeout(limit, upload.gone.cancelled()));
        futures_util::future::join_all(ended).await;
    }
}

impl Table {
    fn running(&self) -> impl Iterator<Item = Arc<Upload>> + '_ {
        self.uploads.values().filter_map(|slot| match slot {
            Slot::Running(upload) => Some(Arc::clone(upload)),
            Slot::Ended(_) => None,
        })
    }

    /// Forgets what the server had two days to ask about. The files of records go at the next start.
    fn forget_old(&mut self, now_ms: i64) {
        let kept = i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
        self.uploads.retain(|_, slot| match slot {
            Slot::Running(_) => true,
            Slot::Ended(record) => now_ms.saturating_sub(record.at_ms) < kept,
        });
        let surplus = self.uploads.len().saturating_sub(MAX_KEPT);
        if surplus > 0 {
            let ended = self.uploads.iter().filter_map(|(id, slot)| match slot {
                Slot::Ended(record) => Some((record.at_ms, id.clone())),
                Slot::Running(_) => None,
            });
            let mut oldest: Vec<(i64, String)> = ended.collect();
            oldest.sort();
            for (_, id) in oldest.into_iter().take(surplus) {
                self.uploads.remove(&id);
            }
        }
    }
}

impl Feed {
    /// Passes bytes of the file on, as fast as the store takes them.
    ///
    /// # Errors
    /// The upload has ended: it knows why.
    pub async fn data(&self, bytes: bytes::Bytes, shared: &Uploads) -> Result<(), Ended> {
        let length = bytes.len() as u64;
        self.upload.progress.receives(&bytes);
        tokio::select! {
            sent = self.pieces.send(Piece::Data(bytes)) => sent.map_err(|_gone| Ended)?,
            // Its threads may still wait for more.
            _over = self.upload.ended() => return Err(Ended),
        }
        self.upload.add_received(length);
        shared.metrics().received(length);
        Ok(())
    }

    /// The file is whole.
    ///
    /// # Errors
    /// As [`Feed::data`].
    pub async fn end(&self) -> Result<(), Ended> {
        self.pieces.send(Piece::End).await.map_err(|_gone| Ended)
    }
}

/// The upload has ended before all its bytes came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended;
