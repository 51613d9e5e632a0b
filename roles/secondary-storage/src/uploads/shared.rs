//! What every storage host of the zone knows of an upload.
//!
//! ```text
//! .quickcloud/uploads/<id>/upload.json     how it is or ended: the record of the host that has it
//! ```
//!
//! The management server asks whichever host it takes for the right one, and a browser's request lands
//! where its name leads. So the record of an upload lies on the store of its object, every host answers
//! from it, and a URL that was used up at one host is used up at all of them. Who receives is decided
//! by the lease of the object's directory (see [`crate::sharing`]).

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::error::UploadError;
use super::record::{Record, State};
use super::run;
use super::table::{KEPT, Told, Uploads};
use super::upload::Upload;
use crate::objects::inventory::Item;
use crate::sharing::{Begun, Doing, Left, Worker, reclaim, work_of};
use crate::stores::facts::{self, FactError};
use crate::stores::path::PathError;
use crate::stores::{FileName, InstallPath, ObjectKind, Store, StoreUrl, Work};

const TREE: &str = ".quickcloud/uploads";
const FILE: &str = "upload.json";

fn place(id: &str) -> Result<(InstallPath, FileName), PathError> {
    Ok((TREE.parse::<InstallPath>()?.join(id.parse()?), FILE.parse()?))
}

async fn read(store: &Store, id: &str) -> Result<Option<Record>, FactError> {
    let (directory, file) = place(id)?;
    facts::read(store, "look at an upload", directory.join(file)).await
}

impl Worker for Upload {
    fn doing(&self) -> Doing {
        Doing {
            received: self.received(),
            total: Some(self.total),
            upload: Some(self.id.clone()),
            ..Doing::default()
        }
    }

    fn is_over(&self) -> bool {
        // What is suspended goes on at the next start.
        !matches!(self.outcome(), None | Some(Err(UploadError::Suspended)))
    }

    fn lose(&self) {
        self.set_lost();
        self.end(UploadError::Stopped);
    }
}

impl Uploads {
    /// Makes an upload this host's, if its URL is not used up and no other host receives it.
    ///
    /// # Errors
    /// Why not; what the other hosts know of it stays as it is.
    pub(super) async fn claim(
        &self,
        upload: &Arc<Upload>,
        store: &Store,
    ) -> Result<(), UploadError> {
        let claimed = self.try_claim(upload, store).await;
        if claimed.is_err() {
            upload.set_lost();
        }
        claimed
    }

    async fn try_claim(&self, upload: &Arc<Upload>, store: &Store) -> Result<(), UploadError> {
        if !store.engine().can_claim() {
            return Ok(());
        }
        let broken = |error: String| UploadError::Record(error);
        let known =
            read(store, &upload.id).await.map_err(|error| broken(bedrock::chain(&error)))?;
        match known.map(|record| record.state) {
            Some(State::Completed(_)) => {
                return Err(UploadError::Used("its upload is complete".to_owned()));
            }
            Some(State::Failed { text, told: true }) => {
                let text = format!("its upload failed and the server knows that; {text}");
                return Err(UploadError::Used(text));
            }
            Some(State::Failed { told: false, .. } | State::Receiving { .. }) | None => {}
        }
        let work = work_of(&upload.plan.directory).map_err(|error| broken(error.to_string()))?;
        let worker: Arc<dyn Worker> = Arc::<Upload>::clone(upload);
        let sharing = &self.context().sharing;
        match sharing.begin(store, &work, &upload.attempt, worker).await {
            Ok(Begun::Elsewhere) => {
                let text = "another storage host of the zone receives it, or died a moment ago";
                Err(UploadError::Used(text.to_owned()))
            }
            Ok(Begun::Ours(Some(former))) => {
                // Its client is gone, and comes again here. What this host left itself it goes on with.
                let is_other = |left: &&Left| left.owner != upload.attempt;
                let others: Vec<Left> = former.left.iter().filter(is_other).cloned().collect();
                let removed = reclaim(store, &others).await;
                removed.map_err(|error| broken(bedrock::chain(&error)))?;
                let shown = sharing.reclaimed(store, &work).await;
                shown.map_err(|error| broken(bedrock::chain(&error)))
            }
            Ok(Begun::Ours(None) | Begun::Unshared) => Ok(()),
            Err(error) => Err(broken(bedrock::chain(&error))),
        }
    }

    /// Keeps a record where all hosts find it: on the store of its object, else on the first there is.
    pub(super) async fn share(&self, id: &str, record: &Record) {
        let stores = &self.context().stores;
        let store = match &record.store {
            Some(url) => stores.open(url, None).await.ok(),
            None => {
                let mut ready = stores.ready();
                ready.sort_by_key(|store| store.url().key());
                ready.into_iter().next()
            }
        };
        let Some(store) = store.filter(|store| store.engine().can_claim()) else { return };
        let record = record.for_others();
        let written = async {
            let (directory, file) = place(id)?;
            facts::write(&store, "keep an upload", &directory, file, &record).await
        };
        if let Err(error) = written.await {
            let error = bedrock::chain(&error);
            tracing::warn!(upload = id, store = %store.url(), error, "other storage hosts do not know of an upload");
        }
    }

    /// What hosts of the zone know of an upload, with its store, looked for on `only` that one when it
    /// is known. A store that cannot be read is told.
    pub(super) async fn find_shared(
        &self,
        id: &str,
        only: Option<&StoreUrl>,
    ) -> Option<(Arc<Store>, Record)> {
        uuid::Uuid::try_parse(id).ok()?;
        let stores = &self.context().stores;
        let asked = match only {
            Some(url) => vec![stores.open(url, None).await.ok()?],
            None => {
                stores.open_configured().await;
                stores.ready()
            }
        };
        let asked = asked.into_iter().filter(|store| store.engine().can_claim());
        let looks = asked.map(|store| async move { (read(&store, id).await, store) });
        // One that hangs holds up nobody who is answered by another.
        let mut looks: FuturesUnordered<_> = looks.collect();
        // A request whose order named no store; a later one may have been carried out.
        let mut refused = None;
        while let Some((found, store)) = looks.next().await {
            match found {
                Ok(Some(record)) if record.store.is_none() => refused = Some((store, record)),
                Ok(Some(record)) => return Some((store, record)),
                Ok(None) => {}
                Err(error) => {
                    let error = bedrock::chain(&error);
                    tracing::warn!(upload = id, store = %store.url(), error, "cannot look for an upload");
                }
            }
        }
        refused
    }

    /// The truth about an upload that this host does not receive now; `local` is what it knows itself.
    pub(super) async fn known_to_all(&self, id: &str, local: Option<Record>) -> Option<Record> {
        let place = local.as_ref().and_then(|record| record.store.clone());
        let Some((store, shared)) = self.find_shared(id, place.as_ref()).await else {
            return local;
        };
        let is_open = matches!(shared.state, State::Receiving { .. });
        if is_open && local.is_some() && !self.is_elsewhere(&store, &shared).await {
            return local;
        }
        Some(shared)
    }

    async fn is_elsewhere(&self, store: &Store, record: &Record) -> bool {
        let Some(work) = record.directory.as_ref().and_then(|at| work_of(at).ok()) else {
            return false;
        };
        let is_elsewhere = self.context().sharing.is_elsewhere(store, &work).await;
        is_elsewhere.unwrap_or(true)
    }

    /// How far the host that receives an upload is.
    pub(super) async fn progress_elsewhere(&self, record: &Record) -> Told {
        let is_volume = record.kind == Some(ObjectKind::Volume);
        let work = record.directory.as_ref().and_then(|at| work_of(at).ok());
        let stores = &self.context().stores;
        let store = match &record.store {
            Some(url) => stores.open(url, None).await.ok(),
            None => None,
        };
        let shown = match store.zip(work) {
            Some((store, work)) => self.context().sharing.look(&store, &work).await,
            None => None,
        };
        let Some(doing) = shown.map(|shown| shown.doing) else {
            return Told::InProgress { percent: 99, received: 0, is_volume };
        };
        let total = doing.total.unwrap_or(0).max(1);
        let percent = doing.received.saturating_mul(100) / total;
        let percent = u8::try_from(percent.min(99)).unwrap_or(99);
        Told::InProgress { percent, received: doing.received, is_volume }
    }

    /// The server gives up an upload that another host receives, or knows of; `false` when there is
    /// none.
    pub(super) async fn abort_elsewhere(&self, id: &str) -> bool {
        let Some((store, record)) = self.find_shared(id, None).await else { return false };
        let ended = async {
            if let (State::Receiving { .. }, Some(directory)) = (&record.state, &record.directory) {
                let (sharing, work) = (&self.context().sharing, work_of(directory)?);
                let left = sharing.look(&store, &work).await.map(|shown| shown.left);
                sharing.clear(&store, directory).await?;
                reclaim(&store, &left.unwrap_or_default()).await?;
            }
            let (directory, file) = place(id)?;
            facts::remove(&store, "forget an upload", directory, file).await?;
            Ok::<(), crate::sharing::SharingError>(())
        };
        if let Err(error) = ended.await {
            let error = bedrock::chain(&error);
            tracing::warn!(upload = id, store = %store.url(), error, "cannot end an upload of another host");
        }
        true
    }

    /// The host that received an upload is dead, and what it left is gone or `published`.
    pub(crate) async fn end_of_another(&self, store: &Store, id: &str, published: Option<Item>) {
        let record = match read(store, id).await {
            Ok(Some(record)) if matches!(record.state, State::Receiving { .. }) => record,
            Ok(_) => return,
            Err(error) => {
                let error = bedrock::chain(&error);
                tracing::warn!(upload = id, error, "cannot say how an upload ended");
                return;
            }
        };
        let completed = match (published, &record.directory) {
            (Some(item), Some(directory)) => {
                let completed = run::completed(self.context(), store, item, directory).await;
                completed.ok().flatten()
            }
            _ => None,
        };
        let failed = || State::Failed { text: UploadError::Stopped.to_string(), told: false };
        let state = completed.map_or_else(failed, State::Completed);
        self.share(id, &Record { state, at_ms: self.now_ms(), ..record }).await;
    }

    /// Forgets what the server had two days to ask about.
    pub(super) async fn tidy_shared(&self) {
        let oldest = self.now_ms().saturating_sub(millis(KEPT));
        for store in self.context().stores.ready() {
            if !store.engine().can_claim() {
                continue;
            }
            let tidied = async {
                let work = Work::new();
                let listing = store.engine().list(&work, TREE.parse()?, FILE.parse()?);
                for found in store.run("look at the uploads", listing).await? {
                    let record = serde_json::from_slice::<Record>(&found.index);
                    if record.map_or(true, |record| record.at_ms < oldest) {
                        facts::remove(&store, "forget an upload", found.directory, FILE.parse()?)
                            .await?;
                    }
                }
                Ok::<(), FactError>(())
            };
            if let Err(error) = tidied.await {
                let error = bedrock::chain(&error);
                tracing::warn!(store = %store.url(), error, "cannot remove old records of uploads");
            }
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
