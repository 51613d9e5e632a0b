//! One run of one role: started, watched, stopped, and ended for certain.
//!
//! The role's main future is a task of its own, so that a role that blocks its thread cannot stall
//! its watcher. Whatever way the run ends, its token is cancelled, its tasks are awaited and what
//! is left is killed: nothing of a run outlives it.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bedrock::chain;
use futures_util::FutureExt;
use role::{Health, RoleContext, RoleError, RoleSpec, TaskScope};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::Ports;
use super::announce::Announcer;
use crate::restart::Failure;

/// How long an aborted task may take to reach its next await.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// How a run ended.
#[derive(Debug)]
pub(super) struct RunEnd {
    /// `None` after a stop that was asked for.
    pub(super) failure: Option<(Failure, String)>,
    /// Something had to be aborted.
    pub(super) killed: bool,
}

type MainEnd = Result<Result<(), RoleError>, String>;

/// Why the watcher stopped watching.
enum Turn {
    Ended(MainEnd),
    Fault(String),
    Hung,
    Stop,
}

/// Runs `spec` once, until it ends, fails, hangs or `stop` fires. `abort` ends every wait.
pub(super) async fn run_once(
    spec: &Arc<dyn RoleSpec>,
    ports: &Ports,
    stop: &CancellationToken,
    abort: &CancellationToken,
) -> RunEnd {
    let kind = spec.kind();
    let cx = RoleContext::new(
        kind,
        stop.child_token(),
        TaskScope::new(),
        ports.heartbeat.clone(),
        ports.http.clone(),
        ports.host.clone(),
    );
    let _ending = EndOnDrop(cx.clone());
    let hung = ports.board.begin(&cx);
    // Before the role runs, so that nothing it says is missed.
    let health = cx.health.subscribe();
    let mut main: JoinSet<MainEnd> = JoinSet::new();
    main.spawn(main_task(Arc::clone(spec), cx.clone()).in_current_span());

    let turn = watch_run(&mut main, &cx, health, ports, &hung, stop).await;
    let stopping = matches!(turn, Turn::Stop);
    cx.shutdown.cancel();
    let limits = ports.limits.current();
    // A stop of the process has a grace period of its own.
    let grace =
        (!stopping).then(|| limits.role_stop_grace.max(spec.stop_grace().unwrap_or_default()));
    let mut killed = false;
    let failure = match turn {
        Turn::Ended(end) => Some(failure_of(end)),
        Turn::Fault(text) => {
            killed |= wind_up(&mut main, ports, kind, grace, stop, abort).await.is_none();
            Some((Failure::Counted, text))
        }
        Turn::Hung => {
            killed |= wind_up(&mut main, ports, kind, grace, stop, abort).await.is_none();
            let silence = config_reader::format_duration(limits.progress_deadline);
            Some((Failure::Counted, format!("hangs: no progress for {silence}")))
        }
        Turn::Stop => {
            match wind_up(&mut main, ports, kind, grace, stop, abort).await {
                None => killed = true,
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => {
                    tracing::warn!(error = %chain(&error), "role failed while stopping");
                }
                Some(Err(text)) => tracing::error!(error = text, "role panicked while stopping"),
            }
            None
        }
    };
    killed |= !end_tasks(&cx.tasks, grace, abort).await;
    RunEnd { failure, killed }
}

/// Whatever way a run ends: nothing of it outlives it.
struct EndOnDrop(RoleContext);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.tasks.kill();
        self.0.admin.withdraw();
        self.0.reload.withdraw();
    }
}

async fn main_task(spec: Arc<dyn RoleSpec>, cx: RoleContext) -> MainEnd {
    let run = async move { spec.build().run(cx).await };
    AssertUnwindSafe(run).catch_unwind().await.map_err(|payload| panic_text(payload.as_ref()))
}

/// What a panic said.
pub(super) fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned());
    text.map_or_else(|| "panicked".to_owned(), |text| format!("panicked: {text}"))
}

async fn watch_run(
    main: &mut JoinSet<MainEnd>,
    cx: &RoleContext,
    mut health: watch::Receiver<Health>,
    ports: &Ports,
    hung: &CancellationToken,
    stop: &CancellationToken,
) -> Turn {
    let mut announcer = Announcer::default();
    let mut fault = cx.tasks.fault();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Turn::Stop,
            end = main.join_next() => return Turn::Ended(joined(end)),
            text = fault.wait_for(Option::is_some) => {
                let text = text.ok().and_then(|text| text.clone());
                return Turn::Fault(text.unwrap_or_else(|| "a vital task panicked".to_owned()));
            }
            () = hung.cancelled() => return Turn::Hung,
            changed = health.changed() => {
                if changed.is_ok() {
                    ports.board.touch(cx.kind);
                    let now = health.borrow_and_update().clone();
                    announcer.health(&now, Instant::now());
                }
            }
            () = announcer.due() => {
                let now = health.borrow().clone();
                announcer.remind(&now, Instant::now());
            }
        }
    }
}

fn joined(end: Option<Result<MainEnd, tokio::task::JoinError>>) -> MainEnd {
    match end {
        Some(Ok(end)) => end,
        Some(Err(error)) if error.is_panic() => Err(panic_text(error.into_panic().as_ref())),
        Some(Err(_)) | None => Err("was aborted".to_owned()),
    }
}

fn failure_of(end: MainEnd) -> (Failure, String) {
    match end {
        Ok(Ok(())) => (Failure::Counted, "ended although nobody asked it to stop".to_owned()),
        Ok(Err(error)) => {
            let failure = match error {
                RoleError::Misconfigured(..) => Failure::Misconfigured,
                RoleError::Dependency(..) => Failure::Outside,
                RoleError::Internal(..) => Failure::Counted,
            };
            (failure, chain(&error))
        }
        Err(panic) => (Failure::Counted, panic),
    }
}

/// Waits for the main task, aborts it when the grace is over, and does not return before it is gone
/// unless the process stops. `None` when it had to be aborted.
async fn wind_up(
    main: &mut JoinSet<MainEnd>,
    ports: &Ports,
    kind: role::RoleKind,
    grace: Option<Duration>,
    stop: &CancellationToken,
    abort: &CancellationToken,
) -> Option<MainEnd> {
    tokio::select! {
        end = main.join_next() => return Some(joined(end)),
        () = over(grace, abort) => {}
    }
    main.abort_all();
    if tokio::time::timeout(ABORT_TIMEOUT, main.join_next()).await.is_err() {
        let error = "blocks its thread and cannot be stopped; restart the process".to_owned();
        tracing::error!(error, "role cannot be aborted");
        ports.board.failed(kind, error);
        if grace.is_some() {
            tokio::select! {
                _gone = main.join_next() => {}
                () = stop.cancelled() => {}
            }
        }
    }
    None
}

/// Ends what the role spawned; false when something had to be killed.
async fn end_tasks(tasks: &TaskScope, grace: Option<Duration>, abort: &CancellationToken) -> bool {
    tasks.close();
    let clean = tokio::select! {
        () = tasks.wait() => true,
        () = over(grace, abort) => false,
    };
    tasks.kill();
    if !clean && tokio::time::timeout(ABORT_TIMEOUT, tasks.wait()).await.is_err() {
        tracing::error!(tasks = tasks.len(), "tasks cannot be aborted");
    }
    clean
}

async fn over(grace: Option<Duration>, abort: &CancellationToken) {
    match grace {
        Some(grace) => {
            tokio::select! {
                () = tokio::time::sleep(grace) => {}
                () = abort.cancelled() => {}
            }
        }
        None => abort.cancelled().await,
    }
}
