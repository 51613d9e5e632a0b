//! The only way to start work: every task has a name, is joined at stop and dies on abort.
//!
//! Detached tasks are how a stopped role keeps holding a port. A [`TaskScope`] belongs to one run
//! of one role: the supervisor closes and awaits it, and when the grace period is over it kills
//! what is left.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};

/// Threads that one role may occupy with file work at the same time.
const BLOCKING_LIMIT: usize = 16;

/// Spawns tasks that belong to one run of one role. Cloneable.
#[derive(Debug, Clone)]
pub struct TaskScope {
    tracker: TaskTracker,
    /// Of tasks that the others need until their end.
    supporting: TaskTracker,
    /// Ends these.
    unneeded: CancellationToken,
    kill: CancellationToken,
    blocking: Arc<Semaphore>,
    fault: Arc<watch::Sender<Option<String>>>,
}

/// Why a piece of blocking work gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockingError {
    #[error("{0} panicked")]
    Panicked(&'static str),
    #[error("{0} was cancelled because the role stops")]
    Stopped(&'static str),
}

impl Default for TaskScope {
    fn default() -> Self {
        Self::new()
    }
}

impl TaskScope {
    pub fn new() -> Self {
        Self {
            tracker: TaskTracker::new(),
            supporting: TaskTracker::new(),
            unneeded: CancellationToken::new(),
            kill: CancellationToken::new(),
            blocking: Arc::new(Semaphore::new(BLOCKING_LIMIT)),
            fault: Arc::new(watch::Sender::new(None)),
        }
    }

    /// Starts a task the role cannot live without. A panic in it is a failure of the role: the
    /// supervisor restarts the role as if its main task had panicked.
    pub fn spawn_vital<F>(&self, name: &'static str, future: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let fault = Arc::clone(&self.fault);
        self.spawn_guarded(Span::current(), name, future, move || {
            fault.send_replace(Some(format!("task {name} panicked")));
        })
    }

    /// Starts a task for one connection, session or job. A panic is logged and ends that task only.
    /// The handle gives `None` when the task panicked or was killed.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawn_in(Span::current(), name, future)
    }

    /// The same in a span other than the caller's: for work that is started on somebody's behalf.
    pub fn spawn_in<F>(
        &self,
        span: Span,
        name: &'static str,
        future: F,
    ) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawn_guarded(span, name, future, || {})
    }

    /// Starts a task that others need until their end, as a connection that they share: it is dropped
    /// at its next await when all others of a closed scope have ended, and nobody waits for it before.
    pub fn spawn_supporting<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let unneeded = self.unneeded.clone();
        let supporting = async move {
            tokio::select! {
                () = unneeded.cancelled() => {}
                () = future => {}
            }
        };
        let (span, nothing) = (Span::current(), Box::new(|| {}));
        drop(self.spawn_tracked(&self.supporting, span, name, Box::pin(supporting), nothing));
    }

    fn spawn_guarded<F>(
        &self,
        span: Span,
        name: &'static str,
        future: F,
        on_panic: impl FnOnce() + Send + 'static,
    ) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawn_tracked(&self.tracker, span, name, Box::pin(future), Box::new(on_panic))
    }

    /// Takes a boxed future: the runtime's code for a task is then made once for each type of result,
    /// not for each of some hundred futures.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    fn spawn_tracked<T: Send + 'static>(
        &self,
        tracker: &TaskTracker,
        span: Span,
        name: &'static str,
        future: BoxFuture<'static, T>,
        on_panic: Box<dyn FnOnce() + Send>,
    ) -> JoinHandle<Option<T>> {
        let kill = self.kill.clone();
        let guarded = async move {
            tokio::select! {
                // First: a task that is killed does nothing more, whatever it has waited for came too.
                biased;
                () = kill.cancelled() => None,
                outcome = AssertUnwindSafe(future).catch_unwind() => outcome.map_or_else(
                    |_| {
                        tracing::error!(task = name, "task panicked");
                        on_panic();
                        None
                    },
                    Some,
                ),
            }
        };
        tokio::spawn(tracker.track_future(guarded.instrument(span)))
    }

    /// Runs file work on a blocking thread, at most [`BLOCKING_LIMIT`] at a time for this role.
    /// The closure itself cannot be interrupted; keep each piece short or check a token.
    pub async fn blocking<T, F>(&self, name: &'static str, work: F) -> Result<T, BlockingError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.blocking_boxed(name, Box::new(work)).await
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that uses the blocking pool")]
    async fn blocking_boxed<T: Send + 'static>(
        &self,
        name: &'static str,
        work: Box<dyn FnOnce() -> T + Send>,
    ) -> Result<T, BlockingError> {
        let permit = tokio::select! {
            () = self.kill.cancelled() => return Err(BlockingError::Stopped(name)),
            permit = Arc::clone(&self.blocking).acquire_owned() =>
                permit.map_err(|_closed| BlockingError::Stopped(name))?,
        };
        let span = tracing::Span::current();
        let handle = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            span.in_scope(work)
        });
        handle.await.map_err(|error| {
            if error.is_panic() {
                BlockingError::Panicked(name)
            } else {
                BlockingError::Stopped(name)
            }
        })
    }

    /// Fires with a text when a vital task panicked.
    pub fn fault(&self) -> watch::Receiver<Option<String>> {
        self.fault.subscribe()
    }

    /// No new wait is started after this; [`TaskScope::wait`] then ends when all tasks did.
    pub fn close(&self) {
        self.tracker.close();
        self.supporting.close();
    }

    /// Waits until every task of a closed scope has ended.
    pub async fn wait(&self) {
        self.tracker.wait().await;
        self.unneeded.cancel();
        self.supporting.wait().await;
    }

    /// Number of tasks still running.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Drops every task at its next await. For the end of the grace period only.
    pub fn kill(&self) {
        self.kill.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_vital_task_is_a_fault_and_elsewhere_is_not() {
        let scope = TaskScope::new();
        let fault = scope.fault();
        assert_eq!(scope.spawn("c", async { panic!("boom") }).await.ok(), Some(None::<()>));
        assert_eq!(*fault.borrow(), None);
        assert_eq!(scope.spawn_vital("v", async { panic!("boom") }).await.ok(), Some(None::<()>));
        assert_eq!(fault.borrow().as_deref(), Some("task v panicked"));
    }

    #[tokio::test]
    async fn kill_ends_a_task_that_never_returns() {
        let scope = TaskScope::new();
        let task = scope.spawn("stuck", std::future::pending::<()>());
        scope.close();
        scope.kill();
        scope.wait().await;
        assert!(matches!(task.await, Ok(None)));
    }

    #[tokio::test]
    async fn what_supports_others_lasts_as_long_as_they_do() {
        let scope = TaskScope::new();
        let (ask, mut asked) = tokio::sync::mpsc::channel::<tokio::sync::oneshot::Sender<u8>>(1);
        scope.spawn_supporting("connection", async move {
            // The way in is never closed.
            while let Some(answer) = asked.recv().await {
                answer.send(7).unwrap();
            }
        });
        let asking = ask.clone();
        let task = scope.spawn("operation", async move {
            tokio::task::yield_now().await;
            let (answer, answered) = tokio::sync::oneshot::channel();
            asking.send(answer).await.unwrap();
            answered.await.unwrap()
        });
        scope.close();
        scope.wait().await;
        assert_eq!(task.await.unwrap(), Some(7));
        assert!(ask.is_closed());
    }

    #[tokio::test]
    async fn blocking_work_reports_its_panic_by_name() {
        let scope = TaskScope::new();
        let outcome = scope.blocking("digest", || -> u8 { panic!("boom") }).await;
        assert_eq!(outcome, Err(BlockingError::Panicked("digest")));
        assert_eq!(scope.blocking("digest", || 7).await, Ok(7));
    }
}
