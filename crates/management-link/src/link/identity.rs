//! What the session learns about us, read at the start and written at every change.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Shared;
use crate::state::Identity;

/// What an earlier run learned, if it still holds for these servers.
pub(super) async fn load_identity(shared: &Shared, configured: String) -> Identity {
    let directory = shared.config().directory().to_owned();
    let guid = shared.config().guid.clone();
    let fallback =
        Identity { guid: guid.clone(), configured: configured.clone(), ..Identity::default() };
    let load = move || Identity::load(&directory, &guid, &configured);
    shared.cx.tasks.blocking("load identity", load).await.unwrap_or(fallback)
}

/// Writes each identity the session hands over, the latest only when they come fast.
pub(super) fn keep_identity(
    shared: &Arc<Shared>,
    mut changed: watch::Receiver<Identity>,
) -> JoinHandle<Option<()>> {
    let shared = Arc::clone(shared);
    shared.cx.tasks.clone().spawn("keep identity", async move {
        while changed.changed().await.is_ok() {
            let identity = changed.borrow_and_update().clone();
            let directory = shared.config().directory().to_owned();
            let store = move || identity.store(&directory);
            match shared.cx.tasks.blocking("keep identity", store).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(error = bedrock::chain(&error), "cannot keep the identity");
                }
                Err(error) => tracing::debug!(%error, "cannot keep the identity"),
            }
        }
    })
}
