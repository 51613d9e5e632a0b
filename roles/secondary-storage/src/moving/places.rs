//! Who writes where: one work at a time for each place, and the newest wins.
//!
//! The server gives up a copy when its link is lost or its patience ends, and sends another, or a
//! deletion. Whatever still works at that place is then told to end, and waited for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use status_api::CopyStatus;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::copy::Progress;
use crate::redacted::RedactedUrl;
use crate::stores::{InstallPath, StoreUrl};

/// Cloneable; clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Places(Arc<Mutex<HashMap<(String, InstallPath), Holder>>>);

#[derive(Debug, Clone, Default)]
struct Holder {
    id: Uuid,
    progress: Progress,
    /// An operator does not want it any more.
    cancelled: CancellationToken,
    /// Asks the work to end.
    end: CancellationToken,
    /// The work has ended.
    ended: CancellationToken,
}

/// The right to write at a place; ends when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    key: (String, InstallPath),
    holder: Holder,
}

impl Places {
    fn table(&self) -> MutexGuard<'_, HashMap<(String, InstallPath), Holder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends whoever is there and waits for it.
    pub async fn enter(&self, store: &StoreUrl, path: &InstallPath) -> Place {
        let key = (store.key(), path.clone());
        loop {
            let before = {
                let mut table = self.table();
                match table.get(&key) {
                    Some(before) => before.clone(),
                    None => {
                        let holder = Holder { id: Uuid::new_v4(), ..Holder::default() };
                        table.insert(key.clone(), holder.clone());
                        return Place { places: self.clone(), key, holder };
                    }
                }
            };
            before.end.cancel();
            before.ended.cancelled().await;
        }
    }

    fn around(&self, store: &StoreUrl, path: &InstallPath) -> Vec<Holder> {
        let key = store.key();
        let touches = |other: &InstallPath| {
            path.parts().starts_with(other.parts()) || other.parts().starts_with(path.parts())
        };
        let table = self.table();
        let found = table.iter().filter(|((store, other), _)| *store == key && touches(other));
        found.map(|(_, holder)| holder.clone()).collect()
    }

    /// Ends whatever is at, above or below a place.
    pub async fn vacate(&self, store: &StoreUrl, path: &InstallPath) {
        for holder in self.around(store, path) {
            holder.end.cancel();
            holder.ended.cancelled().await;
        }
    }

    /// What is under way, for `/status`.
    pub fn status(&self) -> Vec<CopyStatus> {
        let table = self.table();
        let status = table.iter().map(|((store, path), holder)| {
            let (done_bytes, total_bytes) = holder.progress.figures();
            let ago = holder.progress.started().elapsed().as_millis();
            CopyStatus {
                job: holder.id.to_string(),
                store: RedactedUrl::of(store).to_string(),
                path: path.to_string(),
                done_bytes,
                total_bytes,
                started_ago_ms: u64::try_from(ago).unwrap_or(u64::MAX),
            }
        });
        let mut status: Vec<CopyStatus> = status.collect();
        status.sort_by(|a, b| (&a.store, &a.path).cmp(&(&b.store, &b.path)));
        status
    }

    /// Tells the work of this id to end; how it was, if there is any.
    pub fn cancel(&self, id: &str) -> Option<CopyStatus> {
        let status = self.status().into_iter().find(|copy| copy.job == id)?;
        let table = self.table();
        let holder = table.values().find(|holder| holder.id.to_string() == id)?;
        holder.cancelled.cancel();
        holder.end.cancel();
        Some(status)
    }

    pub fn is_busy(&self, store: &StoreUrl, path: &InstallPath) -> bool {
        !self.around(store, path).is_empty()
    }
}

impl Place {
    pub const fn path(&self) -> &InstallPath {
        &self.key.1
    }

    /// How far the work is; whoever does it tells.
    pub fn progress(&self) -> &Progress {
        &self.holder.progress
    }

    pub fn is_cancelled(&self) -> bool {
        self.holder.cancelled.is_cancelled()
    }

    /// Ends when somebody else wants the place, or an operator wants the work to end.
    pub async fn wanted(&self) {
        self.holder.end.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.table().remove(&self.key);
        self.holder.ended.cancel();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_newest_gets_the_place_once_the_one_before_has_ended() {
        let places = Places::default();
        let store: StoreUrl = "nfs://h/p".parse().unwrap();
        let path: InstallPath = "template/tmpl/2/204".parse().unwrap();
        let first = places.enter(&store, &path).await;
        let other = places.enter(&store, &"template/tmpl/2/205".parse().unwrap()).await;
        let mut second = Box::pin(places.enter(&store, &path));
        assert!((&mut second).now_or_never().is_none());
        assert!(first.wanted().now_or_never().is_some());
        assert!(other.wanted().now_or_never().is_none());
        drop(first);
        let second = second.await;
        assert!(second.wanted().now_or_never().is_none());
        let deeper = "template/tmpl/2/204/x.qcow2".parse().unwrap();
        assert!(places.is_busy(&store, &deeper));
        second.progress().expect(100);
        second.progress().add(40);
        let status = places.status();
        let told = status.iter().find(|copy| copy.path == path.to_string()).unwrap();
        assert_eq!((told.done_bytes, told.total_bytes), (40, 100));
        assert_eq!(told.store, "nfs://h/p");
        assert_eq!(places.cancel(&told.job).map(|copy| copy.path), Some(path.to_string()));
        assert!(second.is_cancelled() && !other.is_cancelled());
        assert!(second.wanted().now_or_never().is_some());
        assert_eq!(places.cancel("none"), None);
        assert!(!places.is_busy(&"nfs://h/q".parse().unwrap(), &deeper));
        let mut vacating = Box::pin(places.vacate(&store, &deeper));
        assert!((&mut vacating).now_or_never().is_none());
        drop(second);
        vacating.await;
        assert!(!places.is_busy(&store, &path));
        drop(other);
        assert!(places.table().is_empty());
    }
}
