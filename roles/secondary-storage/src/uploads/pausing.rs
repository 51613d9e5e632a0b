//! Resumable uploads between two requests, and over a restart of this process.
//!
//! The way into the store stays open between requests, so that nothing is read or written twice. It
//! ends with a pause that is too long. When the process ends, what is on the store stays there; the
//! next run reads it once, to make sure of it and to have its digest, and goes on. The management
//! server hears that the upload is in progress, unless it looked while the host was away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use role::RoleContext;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::UploadError;
use super::http::UploadService;
use super::plan::Plan;
use super::record::Resume;
use super::table::Feed;
use super::upload::{Upload, Wish};

/// Between two looks for uploads that pause too long.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long the end of an upload can be asked for.
const KEPT: Duration = Duration::from_secs(600);
/// How long a client waits for what is read after a restart, before it is told to ask again.
const READY_LIMIT: Duration = Duration::from_secs(20);

/// Resumable uploads by the secret of their URL. Cloneable; clones share everything.
#[derive(Debug, Clone, Default)]
pub(super) struct Pausing(Arc<Mutex<HashMap<String, Arc<Resumable>>>>);

#[derive(Debug)]
pub(super) struct Resumable {
    pub(super) upload: Arc<Upload>,
    /// Whoever sends has it; `None` once all bytes are here.
    pub(super) feed: tokio::sync::Mutex<Option<Feed>>,
    turn: Mutex<Turn>,
}

#[derive(Debug)]
struct Turn {
    /// Ends the request that sends now, when another one takes its place.
    current: CancellationToken,
    last: Instant,
}

impl Pausing {
    fn table(&self) -> MutexGuard<'_, HashMap<String, Arc<Resumable>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, token: String, feed: Feed) {
        let turn = Turn { current: CancellationToken::new(), last: Instant::now() };
        let upload = Arc::clone(&feed.upload);
        let feed = tokio::sync::Mutex::new(Some(feed));
        let resumable = Resumable { upload, feed, turn: Mutex::new(turn) };
        self.table().insert(token, Arc::new(resumable));
    }

    pub(super) fn remove(&self, token: &str) {
        self.table().remove(token);
    }

    pub(super) fn find(&self, id: &str, token: &str) -> Option<Arc<Resumable>> {
        self.table().get(token).filter(|it| it.upload.id == id).cloned()
    }

    /// The upload of the same file under this id that is not over.
    pub(super) fn same(
        &self,
        id: &str,
        total: u64,
        about: &str,
    ) -> Option<(String, Arc<Resumable>)> {
        let is_same = |it: &Resumable| {
            it.upload.id == id
                && it.upload.outcome().is_none()
                && it.upload.total == total
                && it.upload.resume().is_some_and(|resume| resume.about == about)
        };
        let table = self.table();
        let (token, found) = table.iter().find(|(_, it)| is_same(it))?;
        Some((token.clone(), Arc::clone(found)))
    }
}

impl Resumable {
    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place of a request that still sends: its client has come back on another
    /// connection, before this host saw the end of the old one.
    pub(super) fn take_turn(&self) -> CancellationToken {
        let current = CancellationToken::new();
        let mut turn = self.turn();
        turn.last = Instant::now();
        std::mem::replace(&mut turn.current, current.clone()).cancel();
        current
    }

    pub(super) fn touch(&self) {
        self.turn().last = Instant::now();
    }

    /// Waits until its bytes are wanted, or it is over: after a restart what is there is read first.
    ///
    /// # Errors
    /// [`UploadError::NotReady`] after a while.
    pub(super) async fn ready(&self) -> Result<(), UploadError> {
        tokio::select! {
            () = self.upload.ready.cancelled() => Ok(()),
            _over = self.upload.ended() => Ok(()),
            () = tokio::time::sleep(READY_LIMIT) => Err(UploadError::NotReady),
        }
    }

    /// How much of it is here; from now on nobody adds to that but whoever asked.
    ///
    /// # Errors
    /// Why the upload failed, and as [`Resumable::ready`].
    pub(super) async fn settled(&self) -> Result<u64, UploadError> {
        self.take_turn();
        self.ready().await?;
        drop(self.feed.lock().await);
        match self.upload.outcome() {
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => Ok(self.upload.received()),
        }
    }
}

/// Ends uploads that pause too long, until shutdown.
pub(crate) async fn end_pauses(service: UploadService, cx: RoleContext) {
    loop {
        tokio::select! {
            () = cx.shutdown.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        service.end_old_pauses(service.uploads.settings().pause);
    }
}

impl UploadService {
    /// Ends uploads that pause for longer, and forgets those that ended long ago.
    pub fn end_old_pauses(&self, pause: Duration) {
        let now = Instant::now();
        self.pausing.table().retain(|_, it| {
            let idle = now.duration_since(it.turn().last);
            if it.upload.outcome().is_some() {
                // Its threads end with the way in.
                if let Ok(mut place) = it.feed.try_lock() {
                    place.take();
                }
                return idle < KEPT;
            }
            // All bytes are here: it ends by itself.
            if idle > pause && !it.upload.is_installing() {
                it.upload.end(UploadError::Paused(pause));
            }
            true
        });
    }

    /// Takes up what an earlier run of this process left of resumable uploads. Their pause begins now.
    pub async fn go_on(&self) {
        for (id, attempt, resume) in self.uploads.interrupted() {
            let plan = match Plan::of(&resume.order, &id, &self.downloads.get()) {
                Ok(plan) => plan,
                Err(error) => {
                    tracing::warn!(upload = id, error = %error, "an upload cannot go on");
                    self.uploads.give_up(&id, &error).await;
                    continue;
                }
            };
            let (token, file) = (resume.token.clone(), file_name(&resume));
            let (total, client) = (resume.total, resume.client.clone());
            let wish = Wish { id, plan, total, client, resume: Some(resume) };
            let upload = Upload::restored(wish, attempt);
            if let Some(name) = file {
                upload.set_file(name);
            }
            self.pausing.insert(token, self.uploads.go_on(upload));
        }
    }
}

/// The name of the file, from the first pair that is called so.
pub(super) fn file_name(resume: &Resume) -> Option<String> {
    let names = ["filename", "name"];
    let value = resume.about.split(',').find_map(|pair| {
        let (name, value) = pair.trim().split_once(' ')?;
        names.contains(&name).then_some(value)
    })?;
    let bytes = base64::prelude::BASE64_STANDARD.decode(value).ok()?;
    Some(String::from_utf8_lossy(&bytes).chars().take(255).collect())
}
