//! Looks at everything on every store now and then, and when an operator asks.
//!
//! One look at a time: it reads every directory of a store, which is work for its server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use status_api::{FindingKind, StoreStatus, VerifyReport};
use tokio_util::sync::CancellationToken;

use super::{InstallPath, Store, StoreUrl};
use crate::ingest::{DownloadContext, Downloads};
use crate::objects::verify::{Look, verify};

/// From the start to the first look: first what the server asks.
const FIRST: Duration = Duration::from_secs(5 * 60);
/// Between two looks at all stores.
const INTERVAL: Duration = Duration::from_secs(6 * 3600);

/// Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct Surveys {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    cx: DownloadContext,
    downloads: Downloads,
    one_at_a_time: tokio::sync::Mutex<()>,
    /// How many findings the last look at a store had.
    told: Mutex<BTreeMap<String, u64>>,
}

impl Surveys {
    pub fn new(cx: DownloadContext, downloads: Downloads) -> Self {
        let (one_at_a_time, told) = (tokio::sync::Mutex::default(), Mutex::default());
        let shared = Shared { cx, downloads, one_at_a_time, told };
        Self { shared: Arc::new(shared) }
    }

    /// The stores, with what the last look at each found.
    pub fn status(&self) -> Vec<StoreStatus> {
        let mut stores = self.shared.cx.stores.status();
        let told = self.shared.told.lock().unwrap_or_else(PoisonError::into_inner);
        for store in &mut stores {
            store.orphans = told.get(&store.url).copied();
        }
        stores
    }

    /// Looks at one store, or at all that are ready.
    pub async fn look(&self, only: Option<&StoreUrl>, repair: bool) -> Vec<VerifyReport> {
        let _one = self.shared.one_at_a_time.lock().await;
        let ready = self.shared.cx.stores.ready().into_iter();
        let chosen = ready.filter(|store| only.is_none_or(|url| url.key() == store.url().key()));
        let mut reports = Vec::new();
        for store in chosen {
            let now = self.shared.cx.host.clock.now();
            // Without an answer everything may be somebody's.
            let elsewhere = self.shared.cx.sharing.busy(&store).await;
            let running = |directory: &InstallPath| {
                elsewhere.as_ref().is_none_or(|busy| busy.contains(directory))
                    || self.shared.downloads.running_at(store.url(), directory).is_some()
            };
            let look = Look { repair, now, busy: &running };
            let report = verify(&store, &look).await;
            self.tell(&store, &report);
            reports.push(report);
        }
        reports.sort_by(|a, b| a.store.cmp(&b.store));
        reports
    }

    /// In the log when it changed, in the figures always.
    fn tell(&self, store: &Store, report: &VerifyReport) {
        if let Some(error) = &report.error {
            tracing::warn!(store = %store.url(), error, "cannot look at everything on a store");
            return;
        }
        let left = report.found.saturating_sub(report.repaired);
        self.shared.cx.metrics.findings(&report.store, left, report.reclaimable_bytes);
        let mut told = self.shared.told.lock().unwrap_or_else(PoisonError::into_inner);
        let before = told.insert(report.store.clone(), left);
        if left > 0 && before != Some(left) {
            let count =
                |kind| report.findings.iter().filter(|finding| finding.kind == kind).count();
            let (missing, short) = (count(FindingKind::Missing), count(FindingKind::Short));
            let (unlisted, leftover) = (count(FindingKind::Unlisted), count(FindingKind::Leftover));
            tracing::warn!(
                store = %store.url(), missing, short, unlisted, leftover,
                "a store holds what is not whole or not listed: see quickcloud ss verify"
            );
        }
    }

    /// Looks now and then until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut pause = FIRST;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                _reports = self.look(None, false) => {}
            }
            pause = INTERVAL;
        }
    }
}
