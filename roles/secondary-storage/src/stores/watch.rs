//! Looks at the opened stores now and then, whether anybody asks for them or not.
//!
//! A store that fails or hangs is a condition of the role, so that an operator sees it before the
//! first command fails. A failed store that nobody asks for any more is forgotten: the management
//! server may have removed it.

use std::sync::Arc;
use std::time::Duration;

use role::HealthReporter;
use tokio_util::sync::CancellationToken;

use super::{Store, Stores};
use crate::metrics::Metrics;

/// Name of the role's condition.
const CONDITION: &str = "stores";
/// Between two looks.
pub const INTERVAL: Duration = Duration::from_secs(2);
/// Between two attempts to open a store that failed.
const REOPEN_PAUSE: Duration = Duration::from_secs(15);
/// For one look.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// Runs until shutdown.
pub async fn watch(
    stores: Stores,
    health: HealthReporter,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    interval: Duration,
) {
    let mut changes = stores.changes();
    loop {
        let ready = stores.ready();
        let looks = ready.iter().map(|store| look(store, &metrics));
        let found = futures_util::future::join_all(looks).await;
        // A lost store is opened again, mounted again if need be; if that fails, it is a failure.
        stores.reopen(REOPEN_PAUSE);
        let mut reasons = stores.failures();
        let looked = ready.iter().zip(found).filter(|(store, _)| !store.is_lost());
        reasons.extend(looked.filter_map(|(_, reason)| reason));
        if reasons.is_empty() {
            health.clear_condition(CONDITION);
        } else {
            health.set_condition(CONDITION, reasons.join("; "));
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
            // A store was opened, failed or was found lost by a command: say so at once.
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

/// The reason why a store cannot be used, if it cannot.
async fn look(store: &Arc<Store>, metrics: &Metrics) -> Option<String> {
    // A store that hangs is told long before its commands fail.
    match tokio::time::timeout(LOOK_LIMIT, store.probe()).await {
        Ok(Ok(space)) => {
            metrics.store(&store.url().to_string(), space.capacity, space.used);
            store.trouble(space)
        }
        Ok(Err(error)) => Some(bedrock::chain(&error)),
        Err(_elapsed) => {
            let url = store.url();
            Some(format!("store {url} does not answer (nothing within {LOOK_LIMIT:?})"))
        }
    }
}
