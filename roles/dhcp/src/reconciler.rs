//! The one loop that makes dnsmasq serve the desired state.
//!
//! A pass takes no input: it reads the desired state, the files as they are and the process as it
//! is, plans, and applies. After a crash, after a change and after somebody edited a file, the
//! same code runs. Nobody else writes these files or signals the process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dhcp_api::answer::Phase;
use role::RoleContext;
use role::host::CommandError;
use role::tasks::BlockingError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::child::{Child, ChildError};
use crate::desired::{DesiredState, RecordKey};
use crate::dnsmasq_log::LogEvent;
use crate::files::{self, FileError};
use crate::heard::Heard;
use crate::layout::Layout;
use crate::metrics::Metrics;
use crate::observed::{Observed, Rejection};
use crate::plan::{Loaded, Plan, plan};
use crate::release::ReleaseError;
use crate::render::{Rendered, Settings};
use crate::rollback::Survival;
use crate::store::Store;
use crate::version::VersionError;

mod applying;
mod clock;
mod liveness;
mod released;
mod reporting;
mod starting;
mod surroundings;
mod vetting;

/// Between passes nobody asked for.
const PERIOD: Duration = Duration::from_secs(2);
/// For a program that must answer at once.
pub(crate) const PROGRAM: Duration = Duration::from_secs(10);
/// For dnsmasq to read a file it watches, besides the time its size costs.
const WATCHED: Duration = Duration::from_secs(1);
/// A process that lived this long failed for a new reason.
const STABLE: Duration = Duration::from_secs(60);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Complaints kept.
const REJECTED: usize = 32;

#[derive(Debug, thiserror::Error)]
enum ApplyError {
    /// Something on this machine is missing; dnsmasq is not started.
    #[error("{0}")]
    Missing(String),
    #[error("cannot run {program}")]
    Program { program: String, source: CommandError },
    #[error("{program} is not there: install the package dnsmasq-base, or set roles.dhcp.dnsmasq")]
    NoProgram { program: String },
    #[error(transparent)]
    Version(#[from] VersionError),
    #[error("dnsmasq refuses its configuration: {0}")]
    Refused(String),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error(transparent)]
    Release(#[from] ReleaseError),
    #[error(transparent)]
    Blocking(#[from] BlockingError),
    #[error("the role is stopping")]
    Stopping,
}

/// What the loop is made of.
#[derive(Debug)]
pub(crate) struct Reconciler {
    pub(crate) cx: RoleContext,
    pub(crate) store: Store,
    pub(crate) settings: Settings,
    /// What a reload of the configuration puts in force.
    configured: watch::Receiver<Settings>,
    pub(crate) dnsmasq: PathBuf,
    /// Account to run dnsmasq as, if configured.
    pub(crate) account: Option<String>,
    pub(crate) metrics: Metrics,
    pub(crate) observed: watch::Sender<Observed>,
    process: Option<(Child, Loaded)>,
    failures: u32,
    retry_at: Option<Instant>,
    /// Generation dnsmasq was last started for.
    tried: Option<u64>,
    /// Main file that passed `dnsmasq --test`.
    tested: Option<String>,
    /// Records that dnsmasq refused, at their revision, with what it said.
    refused: BTreeMap<RecordKey, (u64, String)>,
    /// What was rendered last, and from what.
    rendered: Option<(Arc<DesiredState>, Settings, Arc<Rendered>)>,
    /// Who else listens on our ports.
    holder: Option<String>,
    survival: Survival,
    liveness: liveness::Liveness,
    wall_clock: clock::WallClock,
    /// What clients said last.
    pub(crate) heard: Heard,
}

impl Reconciler {
    pub(crate) fn new(
        cx: RoleContext,
        store: Store,
        mut configured: watch::Receiver<Settings>,
        dnsmasq: PathBuf,
        account: Option<String>,
        metrics: Metrics,
        observed: watch::Sender<Observed>,
    ) -> Self {
        let (process, failures, retry_at) = (None, 0, None);
        let (tried, tested, holder) = (None, None, None);
        let settings = configured.borrow_and_update().clone();
        Self {
            cx,
            store,
            settings,
            configured,
            dnsmasq,
            account,
            metrics,
            observed,
            process,
            failures,
            retry_at,
            tried,
            tested,
            refused: BTreeMap::new(),
            rendered: None,
            holder,
            survival: Survival::default(),
            liveness: liveness::Liveness::default(),
            wall_clock: clock::WallClock::default(),
            heard: Heard::default(),
        }
    }

    /// Runs until the role stops; then dnsmasq is stopped.
    pub(crate) async fn run(mut self) {
        let mut desired = self.store.subscribe();
        let shutdown = self.cx.shutdown.clone();
        let settings = self.settings.clone();
        let proven = self.cx.tasks.blocking("proven", move || files::read_proven(&settings)).await;
        self.survival = Survival::with(proven.ok().flatten());
        while !shutdown.is_cancelled() {
            self.cx.health.progress();
            let state = Arc::clone(&desired.borrow_and_update());
            self.settings = self.configured.borrow_and_update().clone();
            let outcome = self.pass(&state).await;
            self.publish(&state, outcome);
            if self.wait(&mut desired, &shutdown).await.is_none() {
                break;
            }
        }
        if let Some((child, _)) = self.process.take() {
            child.stop().await;
        }
        self.metrics.up.set(0);
        self.observed.send_modify(|observed| {
            observed.instance.phase = Phase::Stopped;
            observed.instance.pid = None;
        });
    }

    /// Waits for a reason to look again; `None` when the role stops.
    async fn wait(
        &mut self,
        desired: &mut watch::Receiver<Arc<DesiredState>>,
        shutdown: &CancellationToken,
    ) -> Option<()> {
        let until_retry = self.retry_at.map(|at| at.saturating_duration_since(Instant::now()));
        let pause = until_retry.map_or(PERIOD, |retry| retry.min(PERIOD));
        let ended = async {
            match &mut self.process {
                Some((child, _)) => child.ended().await,
                None => std::future::pending().await,
            }
        };
        let configured = self.configured.clone();
        let reconfigured = async {
            let mut configured = configured;
            // Without a sender there is nothing to wait for.
            if configured.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let end = tokio::select! {
            () = shutdown.cancelled() => return None,
            () = reconfigured => return Some(()),
            changed = desired.changed() => {
                // The store ends with the role.
                changed.ok()?;
                return Some(());
            }
            () = tokio::time::sleep(pause) => return Some(()),
            end = ended => end,
        };
        self.note_end(end);
        Some(())
    }

    fn note_end(&mut self, end: String) {
        let Some((child, _)) = self.process.take() else { return };
        tracing::warn!(pid = child.pid.as_raw(), %end, "dnsmasq ended");
        if child.started.elapsed() >= STABLE {
            self.failures = 0;
        }
        let reason = match &self.holder {
            Some(holder) if end.contains("in use") => format!("dnsmasq ended: {end}; {holder}"),
            _ => format!("dnsmasq ended: {end}"),
        };
        self.down(&reason, Some(end.clone()));
        self.note_death(&end);
    }

    /// dnsmasq died, or never came to life; returns to what it survived when that keeps happening.
    fn note_death(&mut self, end: &str) {
        let Some(poisoned) = self.survival.died(end, Instant::now()) else { return };
        let (generation, served) = (poisoned.generation, poisoned.served);
        tracing::error!(generation, served, end, "dnsmasq does not survive a generation");
        self.metrics.rollbacks.inc();
        (self.failures, self.retry_at) = (0, None);
    }

    /// dnsmasq does not run, for this reason; says when it is tried again.
    fn down(&mut self, reason: &str, exit: Option<String>) {
        // The first time at once, then 0.5 s, 1 s, 2 s …
        let delay = match self.failures {
            0 => Duration::ZERO,
            n => LONGEST_WAIT.min(Duration::from_millis(250).saturating_mul(1 << n.min(10))),
        };
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(Instant::now() + delay);
        self.metrics.up.set(0);
        self.cx.health.set_condition("dnsmasq", reason);
        self.observed.send_modify(|observed| {
            observed.instance.phase = Phase::Down;
            observed.instance.pid = None;
            observed.instance.started = None;
            observed.instance.reason = Some(reason.to_owned());
            if exit.is_some() {
                observed.instance.last_exit = exit;
                observed.instance.restarts += 1;
                self.metrics.restarts.inc();
            }
        });
    }

    async fn pass(&mut self, state: &Arc<DesiredState>) -> Result<(), ApplyError> {
        self.look_at_clock();
        self.look_at_life().await;
        let wanted = self.vetted(state).await?;
        if self.process.as_mut().is_some_and(|(child, _)| child.has_ended()) {
            let end = match &mut self.process {
                Some((child, _)) => child.ended().await,
                None => String::new(),
            };
            self.note_end(end);
        }
        let rendered = self.survival.choose(wanted, Instant::now());
        self.metrics.generation.set(i64::try_from(state.generation).unwrap_or(i64::MAX));
        self.metrics.reservations.set(i64::try_from(rendered.hosts.len()).unwrap_or(i64::MAX));
        self.observed.send_modify(|observed| observed.reservations = rendered.hosts.len());
        let begun = Instant::now();
        let kind = self.adjust(&rendered).await?;
        let stale = self.stale_leases(&rendered).await?;
        if self.process.is_some() && !stale.is_empty() {
            let subnets = state.subnets().map(|(_, subnet)| subnet.subnet.cidr).collect();
            self.release(stale, subnets, &rendered).await?;
        }
        if let (Some(kind), Some(_)) = (kind, &self.process) {
            self.applied(&rendered, kind, begun);
            self.survival.confirmed(Instant::now());
        }
        self.keep_proven().await;
        Ok(())
    }

    /// Keeps what dnsmasq has survived for some time, for a later run.
    async fn keep_proven(&mut self) {
        if self.process.is_none() {
            return;
        }
        let Some(proven) = self.survival.alive(Instant::now()) else { return };
        let settings = self.settings.clone();
        let keep = move || files::write_proven(&settings, &proven);
        match self.cx.tasks.blocking("proven", keep).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(error)) => {
                tracing::debug!(error = %bedrock::chain(&error), "a proven generation is not kept");
            }
        }
    }

    /// Brings files and process to `rendered`. Returns what was done; `None` when dnsmasq is down
    /// and its time has not come.
    async fn adjust(
        &mut self,
        rendered: &Arc<Rendered>,
    ) -> Result<Option<&'static str>, ApplyError> {
        let layout = self.settings.layout.clone();
        let Some((child, loaded)) = &mut self.process else {
            let text = Arc::clone(rendered);
            let write =
                move || files::prepare(&layout).and_then(|()| files::write_all(&layout, &text));
            self.cx.tasks.blocking("render", write).await??;
            // A change may be what puts it right.
            let news = self.tried != Some(rendered.generation);
            let due = news || self.retry_at.is_none_or(|at| at <= Instant::now());
            self.observed.send_modify(|observed| {
                if due {
                    observed.instance.phase = Phase::Starting;
                }
                observed.rendered = rendered.generation;
            });
            if !due {
                return Ok(None);
            }
            self.tried = Some(rendered.generation);
            self.start(rendered).await?;
            return Ok(Some("start"));
        };
        let (mut complaints, mut dropped, mut declined) = (Vec::new(), Vec::new(), Vec::new());
        while let Ok(event) = child.events.try_recv() {
            match event {
                LogEvent::Rejected(line) => complaints.push(line),
                LogEvent::Dropped(line) => dropped.push(line),
                LogEvent::Declined(address) => declined.push(address),
                _ => {}
            }
        }
        if !complaints.is_empty() || !dropped.is_empty() || !declined.is_empty() {
            let complaints = rejections(complaints, rendered, &layout);
            self.observed.send_modify(|observed| {
                observed.rejected.extend(complaints);
                observed.rejected.truncate(REJECTED);
                let room = REJECTED.saturating_sub(observed.declined.len());
                let declined = declined.into_iter().take(room);
                observed.declined.extend(declined.map(|address| (address, Instant::now())));
                for line in dropped {
                    if observed.dropped.len() < REJECTED && !observed.dropped.contains(&line) {
                        observed.dropped.push(line);
                    }
                }
            });
        }
        let disk = self.cx.tasks.blocking("files", move || files::read(&layout)).await??;
        let plan = plan(rendered, loaded, &disk);
        let kind = plan.kind();
        match plan {
            Plan::Nothing => {}
            Plan::Main => self.write_main(rendered).await?,
            Plan::Add(added) => {
                self.add(rendered, added).await?;
                self.fold(rendered).await?;
            }
            Plan::Reload => self.reload(rendered).await?,
            Plan::Restart => self.restart(rendered).await?,
        }
        self.observed.send_modify(|observed| observed.rendered = rendered.generation);
        Ok(Some(kind))
    }
}

/// What dnsmasq did not take, with its owners.
fn rejections(complaints: Vec<String>, rendered: &Rendered, layout: &Layout) -> Vec<Rejection> {
    let with_owner = |line: String| Rejection { owner: rendered.owner_of(&line, layout), line };
    complaints.into_iter().map(with_owner).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
