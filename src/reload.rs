//! Another configuration while the roles run.
//!
//! SIGHUP and `POST /reload` come here. The configuration is read and validated whole; a faulty one
//! changes nothing. Then the supervisor puts its own part in force and offers every role its spec,
//! which answers what it could put in force and what needs a restart. One reload runs at a time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bedrock::chain;
use futures_util::future::join_all;
use http_front::HttpFront;
use role::{RoleContext, RoleSpec, TaskScope};
use status_api::{ReloadAnswer, ReloadReport, RoleReload, Violation};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::config::{Config, LoadError, Loaded, LogConfig, SupervisorConfig};
use crate::notify::Notifier;
use crate::process::own_resources;
use crate::supervisor::board::{Board, RoleRow};
use crate::supervisor::{ConfiguredRole, Keys, Limits, Offer, RoleSlot, conflicts};
use crate::telemetry::LogHandle;

/// How long a role may take to put another configuration in force.
const ROLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that wait while one is worked on.
const QUEUE: usize = 4;

/// Keys of the supervisor's own tables that a reload puts in force.
pub const RELOADABLE: &[&str] = &[
    "log.filter",
    "log.repeat_window",
    "supervisor.shutdown_grace",
    "supervisor.connections_per_address",
    "supervisor.exit_on_failed_role",
    "supervisor.progress_deadline",
    "supervisor.role_stop_grace",
    "supervisor.restart_delay",
    "supervisor.restart_delay_max",
    "supervisor.restart_limit",
    "supervisor.restart_window",
    "supervisor.restart_reset_after",
];

/// Where a process's configuration comes from, and who asks for it to be read again. Cloneable.
#[derive(Clone)]
pub struct ReloadSource {
    load: Arc<dyn Fn() -> Result<Loaded, LoadError> + Send + Sync>,
    /// SIGHUP; several in a row are one.
    pub(crate) asked: Arc<Notify>,
}

impl std::fmt::Debug for ReloadSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReloadSource")
    }
}

impl ReloadSource {
    pub fn new(load: impl Fn() -> Result<Loaded, LoadError> + Send + Sync + 'static) -> Self {
        Self { load: Arc::new(load), asked: Arc::default() }
    }

    /// Asks for a reload without waiting for it.
    pub fn ask(&self) {
        self.asked.notify_one();
    }
}

type Request = oneshot::Sender<ReloadAnswer>;

/// Asks for a reload and waits for what came of it. Cloneable.
#[derive(Debug, Clone)]
pub(crate) struct ReloadHandle(mpsc::Sender<Request>);

impl ReloadHandle {
    /// `None` when too many wait already, or the process stops.
    pub(crate) async fn reload(&self) -> Option<ReloadAnswer> {
        let (request, answer) = oneshot::channel();
        self.0.try_send(request).ok()?;
        answer.await.ok()
    }
}

/// Works on reloads, one at a time.
pub(crate) struct ReloadService {
    pub(crate) source: ReloadSource,
    pub(crate) slots: Vec<RoleSlot>,
    pub(crate) board: Board,
    pub(crate) limits: Limits,
    http: HttpFront,
    pub(crate) log: Option<LogHandle>,
    pub(crate) notifier: Notifier,
    pub(crate) tasks: TaskScope,
    running: Own,
    requests: mpsc::Receiver<Request>,
}

/// The supervisor's own configuration in force.
struct Own {
    log: LogConfig,
    keys: Keys,
}

impl ReloadService {
    pub(crate) fn new(
        source: ReloadSource,
        config: &Config,
        slots: Vec<RoleSlot>,
        (board, limits, http): (Board, Limits, HttpFront),
        (log, notifier): (Option<LogHandle>, Notifier),
        tasks: TaskScope,
    ) -> (Self, ReloadHandle) {
        let (sender, requests) = mpsc::channel(QUEUE);
        let running = Own { log: config.log.clone(), keys: config.keys.clone() };
        let service =
            Self { source, slots, board, limits, http, log, notifier, tasks, running, requests };
        (service, ReloadHandle(sender))
    }

    /// Serves requests until `stop` fires.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let request = tokio::select! {
                () = stop.cancelled() => return,
                () = self.source.asked.notified() => None,
                request = self.requests.recv() => match request {
                    Some(request) => Some(request),
                    None => return,
                },
            };
            self.notifier.reloading();
            let answer = self.reload().await;
            self.notifier.ready(&self.board.summary());
            log(&answer);
            if let Some(request) = request
                && request.send(answer).is_err()
            {
                tracing::debug!("nobody waits for the outcome of the reload");
            }
        }
    }

    async fn reload(&mut self) -> ReloadAnswer {
        let refused = |error: String| ReloadAnswer { error: Some(error), ..Default::default() };
        let load = Arc::clone(&self.source.load);
        let loaded = match self.tasks.blocking("read the configuration", move || load()).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(error)) => return refused(chain(&error)),
            Err(error) => return refused(chain(&error)),
        };
        let Some(config) = loaded.config else {
            let violations = loaded.violations.into_iter().map(|found| Violation {
                place: found.place,
                problem: found.problem,
                remedy: found.remedy,
            });
            return ReloadAnswer { violations: violations.collect(), ..Default::default() };
        };
        let conflicts = conflicts::find(&config.specs(), &own_resources(&config));
        if !conflicts.is_empty() {
            let list: Vec<String> = conflicts.iter().map(ToString::to_string).collect();
            return refused(format!("roles claim the same resource: {}", list.join("; ")));
        }
        let supervisor = self.apply_own(&config);
        let offered = self.slots.iter().filter_map(|slot| {
            let role = config.roles.iter().find(|role| role.spec.kind() == slot.kind)?;
            Some(self.offer(slot, role.clone()))
        });
        let roles = join_all(offered).await;
        let failed = roles.iter().any(|role| !role.report.failed.is_empty());
        let ok = !failed && supervisor.failed.is_empty();
        ReloadAnswer { ok, supervisor, roles, ..Default::default() }
    }

    /// Puts the supervisor's part in force.
    fn apply_own(&mut self, config: &Config) -> ReloadReport {
        let mut report = ReloadReport::default();
        let mut changed = config_reader::changes(&self.running.keys, &config.keys);
        // `--log` and `--log-format` win over the file: then its change is none.
        let (old, new) = (&self.running.log, &config.log);
        for (key, same) in
            [("log.filter", old.filter == new.filter), ("log.format", old.format == new.format)]
        {
            if same {
                changed.remove(key);
            }
        }
        // What is not in force yet after this reload, with the value that is.
        let mut log = new.clone();
        log.format = old.format;
        if changed.remove("log.filter")
            && let Some(handle) = &self.log
        {
            match handle.replace_filter(&new.filter) {
                Ok(()) => report.apply("log.filter"),
                Err(error) => {
                    report.fail("log.filter", chain(&error));
                    log.filter.clone_from(&old.filter);
                }
            }
        }
        if let Some(handle) = &self.log {
            handle.set_repeat_window(new.repeat_window);
        }
        // `--roles` wins over the file: what counts is which roles there would be.
        changed.remove("supervisor.roles");
        let runs = |kind| self.slots.iter().any(|slot| slot.kind == kind);
        let same = config.roles.len() == self.slots.len()
            && config.roles.iter().all(|role| runs(role.spec.kind()));
        if !same {
            report.needs_restart.push("supervisor.roles".to_owned());
        }
        self.http.set_connections_per_address(config.supervisor.connections_per_address);
        let current = self.limits.current();
        self.limits.replace(SupervisorConfig {
            state_directory: current.state_directory.clone(),
            admin_address: current.admin_address,
            ..config.supervisor.clone()
        });
        complete(&mut report, &changed, RELOADABLE);
        let waiting: BTreeSet<&String> = report.needs_restart.iter().collect();
        let mut keys = config.keys.clone();
        keys.retain(|key, _| !waiting.contains(key));
        let kept = self.running.keys.iter().filter(|(key, _)| waiting.contains(key));
        keys.extend(kept.map(|(key, entry)| (key.clone(), entry.clone())));
        self.running = Own { log, keys };
        report
    }

    /// Offers a role its configuration; its run of this moment answers, within a bound.
    async fn offer(&self, slot: &RoleSlot, role: ConfiguredRole) -> RoleReload {
        let (spec, reloadable) = (Arc::clone(&role.spec), role.reloadable);
        let offer = slot.offer(role);
        let row = self.board.rows().into_iter().find(|row| row.kind == slot.kind);
        let report = match row.as_ref().and_then(RoleRow::run) {
            Some(run) => {
                let span = tracing::error_span!("role", role = %slot.kind);
                let answer = answer_of(run, spec).instrument(span).await;
                completed(slot, &offer, answer, reloadable)
            }
            // Not running: its next start, which the offer brings about, has everything.
            None => ReloadReport {
                applied: offer.changed.iter().cloned().collect(),
                ..ReloadReport::default()
            },
        };
        RoleReload { role: slot.kind.short.to_owned(), report }
    }
}

/// What the run answers, within a bound, whatever it does.
async fn answer_of(run: &RoleContext, spec: Arc<dyn RoleSpec>) -> Option<ReloadReport> {
    let failed = |problem: &str| {
        let mut report = ReloadReport::default();
        report.fail("role", problem);
        Some(report)
    };
    let hook = run.reload.clone();
    // In the scope of the run: nothing of a run outlives it.
    let work = async move { Some(hook.begin(spec)?.await) };
    let working = run.tasks.spawn("reload", work);
    let abort = working.abort_handle();
    match tokio::time::timeout(ROLE_TIMEOUT, working).await {
        Ok(Ok(Some(report))) => report,
        Ok(Ok(None) | Err(_)) => failed("the role's reload panicked, or the role ended meanwhile"),
        Err(_elapsed) => {
            abort.abort();
            failed("the role did not answer in time")
        }
    }
}

/// The role's answer with every changed key in it, noted at its slot.
fn completed(
    slot: &RoleSlot,
    offer: &Offer,
    answer: Option<ReloadReport>,
    reloadable: &[&str],
) -> ReloadReport {
    let handled = answer.is_some();
    let mut report = answer.unwrap_or_default();
    // A failure of the whole leaves every key as it was.
    let lost = report.failed.iter().any(|fault| fault.what == "role");
    complete(&mut report, &offer.changed, if handled && !lost { reloadable } else { &[] });
    let failed = report.failed.iter().map(|fault| fault.what.clone());
    let waiting = report.needs_restart.iter().cloned().chain(failed).collect();
    slot.applied(offer, &waiting);
    report
}

/// Adds the changed keys that the report does not mention.
fn complete(report: &mut ReloadReport, changed: &BTreeSet<String>, reloadable: &[&str]) {
    for key in changed {
        if report.mentions(key) {
            continue;
        }
        if reloadable.contains(&key.as_str()) {
            report.applied.push(key.clone());
        } else {
            report.needs_restart.push(key.clone());
        }
    }
}

/// Says in the log what came of a reload.
fn log(answer: &ReloadAnswer) {
    if let Some(error) = &answer.error {
        tracing::error!(error, "configuration is faulty, nothing changed");
        return;
    }
    for found in &answer.violations {
        let (place, problem, remedy) = (&found.place, &found.problem, &found.remedy);
        tracing::error!(place, problem, remedy, "configuration is faulty, nothing changed");
    }
    if !answer.violations.is_empty() {
        return;
    }
    let own = RoleReload { role: "supervisor".to_owned(), report: answer.supervisor.clone() };
    for RoleReload { role, report } in std::iter::once(&own).chain(&answer.roles) {
        for fault in &report.failed {
            tracing::error!(role, what = fault.what, error = fault.problem, "cannot be reloaded");
        }
        if !report.is_empty() {
            let (applied, needs_restart) =
                (report.applied.join(","), report.needs_restart.join(","));
            tracing::info!(role, applied, needs_restart, "configuration reloaded");
        }
    }
    tracing::info!(ok = answer.ok, "reload done");
}
