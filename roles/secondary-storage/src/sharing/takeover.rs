//! Looks for the work of dead hosts, now and then: downloads go on here, what uploads left is removed
//! and the management server is told that they failed.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Left, Sharing, SharingError, Shown, reclaim};
use crate::commands::downloads::DownloadCommands;
use crate::ingest::{DownloadContext, Job};
use crate::objects::inventory;
use crate::stores::lease::Lease;
use crate::stores::{FileName, Store, Work};
use crate::uploads::Uploads;

/// Everything that work of other hosts may become here.
#[derive(Debug)]
pub struct Takeover {
    cx: DownloadContext,
    downloads: DownloadCommands,
    uploads: Uploads,
}

impl Takeover {
    pub const fn new(cx: DownloadContext, downloads: DownloadCommands, uploads: Uploads) -> Self {
        Self { cx, downloads, uploads }
    }

    /// Rounds until shutdown. What is under way then stays this host's for as long as a host may be
    /// silent: it goes on itself if it starts again by then.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            let rounds = self.cx.stores.ready().into_iter().map(|store| self.round(store));
            futures_util::future::join_all(rounds).await;
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(self.sharing().beat()) => {}
            }
        }
        self.downloads.downloads.stop().await;
        self.uploads.stop().await;
        for store in self.cx.stores.ready() {
            if let Err(error) = self.sharing().leave(&store).await {
                let error = bedrock::chain(&error);
                tracing::debug!(store = %store.url(), error, "others wait for this host for a while");
            }
        }
    }

    fn sharing(&self) -> &Sharing {
        &self.cx.sharing
    }

    /// One store; what fails is tried again in the next round.
    async fn round(&self, store: Arc<Store>) {
        if !store.engine().can_claim() {
            return;
        }
        let outcome = async {
            self.sharing().renew(&store).await?;
            let orphans =
                self.sharing().orphans(&store, |work| self.is_begun(&store, work)).await?;
            for (work, lease) in orphans {
                self.take_over(&store, work, lease).await?;
            }
            Ok::<(), SharingError>(())
        };
        match outcome.await {
            Ok(()) => {}
            Err(SharingError::Lease(error)) if error.is_unsupported() => {}
            Err(error) => {
                let error = bedrock::chain(&error);
                tracing::warn!(store = %store.url(), error, "cannot look after work on this store");
            }
        }
    }

    /// Somebody here was asked for it and waits for its turn, or goes on with what an earlier run of
    /// this process had: it takes over itself.
    fn is_begun(&self, store: &Store, work: &FileName) -> bool {
        super::place_of(work).is_some_and(|place| {
            self.downloads.downloads.is_making(store.url(), &place)
                || self.uploads.is_making(store.url(), &place)
        })
    }

    async fn take_over(
        &self,
        store: &Store,
        work: FileName,
        lease: Lease,
    ) -> Result<(), SharingError> {
        if let Some(shown) = self.sharing().look(store, &work).await {
            if self.go_on(store, &work, &lease, &shown).await {
                return Ok(());
            }
            self.clean_up(store, &work, &shown).await?;
        }
        self.sharing().hide(store, &work).await?;
        Ok(self.sharing().leases().release(store, &lease).await?)
    }

    /// Goes on with a download, under an id of this host's own; `false` when that cannot be.
    async fn go_on(&self, store: &Store, work: &FileName, lease: &Lease, shown: &Shown) -> bool {
        let Some(mut record) = shown.doing.record.clone() else { return false };
        // Whoever can write to the store must not choose what this host may reach.
        let sites = self.downloads.server.internal_sites();
        record.internal_sites = sites.iter().map(ToString::to_string).collect();
        record.outcome = None;
        let request = match self.downloads.request_of(&record) {
            Ok(request) if super::work_of(&request.place()).as_ref() == Ok(work) => request,
            Ok(_) | Err(_) => {
                tracing::warn!(store = %store.url(), %work, "a dead host's download cannot go on here");
                return false;
            }
        };
        let id = uuid::Uuid::new_v4().to_string();
        let (records, key, kept) = (self.cx.records.clone(), id.clone(), record.clone());
        let keep = move || records.write(&key, &kept);
        if let Ok(Err(error)) = self.cx.tasks.blocking("keep a record", keep).await {
            let error = bedrock::chain(&error);
            tracing::warn!(job = id, error, "a download that was taken over is not on record");
        }
        let received = shown.doing.received;
        tracing::info!(job = id, store = %store.url(), %work, received, "the download of a dead host goes on here");
        self.sharing().keep(store, work, &id, lease.clone(), Some(shown.clone()), None);
        self.downloads.downloads.restore(vec![Job::restored(id.clone(), request, record)]);
        let is_begun = self.downloads.downloads.get(&id).is_some();
        if !is_begun {
            self.sharing().held().remove(&Sharing::key(store, work));
        }
        is_begun
    }

    /// What cannot go on leaves nothing behind; the server is told of an upload.
    async fn clean_up(
        &self,
        store: &Store,
        work: &FileName,
        shown: &Shown,
    ) -> Result<(), SharingError> {
        let published = published(store, &shown.left).await?;
        if published.is_none() {
            reclaim(store, &shown.left).await?;
        }
        let is_whole = published.is_some();
        tracing::info!(store = %store.url(), %work, is_whole, "work of a dead host was cleaned up");
        if let Some(id) = &shown.doing.upload {
            self.uploads.end_of_another(store, id, published).await;
        }
        Ok(())
    }
}

/// The object that hosts before have made, if it came to its end.
pub async fn published(
    store: &Store,
    left: &[Left],
) -> Result<Option<inventory::Item>, SharingError> {
    for Left { note, .. } in left {
        let Some(image) = &note.image else { continue };
        let (work, directory) = (Work::new(), &note.directory);
        let listed = inventory::listed_image(store, &work, note.kind, directory).await?;
        if listed.as_deref() == Some(image.as_str())
            && let Some(item) = inventory::find(store, note.kind, directory).await?
            && !item.is_corrupted
        {
            return Ok(Some(item));
        }
    }
    Ok(None)
}
