//! The only place of this crate that starts tasks: they are counted, told to stop by one token, and
//! waited for at shutdown. The supervisor's scopes are not at hand here, because this crate knows
//! nothing of roles.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// All tasks of one server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Starts a task; it ends at the latest at its next suspension after [`Tasks::finish`].
    #[expect(
        clippy::disallowed_methods,
        reason = "tracked and joined in finish; this crate has no task scope of a role"
    )]
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let tracked = self.tracker.track_future(async move {
            stop.run_until_cancelled_owned(task).await;
        });
        drop(tokio::spawn(tracked));
    }

    /// Token that is cancelled when the server stops.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Stops and waits for all tasks; false when some were still running after `grace`.
    pub(crate) async fn finish(&self, grace: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait()).await.is_ok()
    }
}
