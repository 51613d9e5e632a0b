//! The one loop that makes dnsmasq serve the desired state.
//!
//! A pass takes no input: it reads the desired state, the files as they are and the process as it
//! is, plans, and applies. After a crash, after a change and after somebody edited a file, the
//! same code runs. Nobody else writes these files or signals the process.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bedrock::chain;
use role::RoleContext;
use role::host::CommandError;
use role::tasks::BlockingError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::child::{Child, ChildError};
use crate::desired::DesiredState;
use crate::dnsmasq_log::LogEvent;
use crate::files::{self, FileError};
use crate::leases;
use crate::metrics::Metrics;
use crate::observed::{LastApply, Observed, Phase};
use crate::plan::{Loaded, Plan, plan};
use crate::release::{ReleaseError, Releaser};
use crate::render::{Rendered, Settings, render};
use crate::store::Store;
use crate::value::{Cidr, Stamp};
use crate::version::VersionError;

mod starting;
mod surroundings;

/// Between passes nobody asked for.
const PERIOD: Duration = Duration::from_secs(2);
/// For a program that must answer at once.
const PROGRAM: Duration = Duration::from_secs(10);
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
    /// Who else listens on our ports.
    holder: Option<String>,
}

impl Reconciler {
    pub(crate) fn new(
        cx: RoleContext,
        store: Store,
        settings: Settings,
        dnsmasq: PathBuf,
        account: Option<String>,
        metrics: Metrics,
        observed: watch::Sender<Observed>,
    ) -> Self {
        let (process, failures, retry_at) = (None, 0, None);
        let (tried, tested, holder) = (None, None, None);
        Self {
            cx,
            store,
            settings,
            dnsmasq,
            account,
            metrics,
            observed,
            process,
            failures,
            retry_at,
            tried,
            tested,
            holder,
        }
    }

    /// Runs until the role stops; then dnsmasq is stopped.
    pub(crate) async fn run(mut self) {
        let mut desired = self.store.subscribe();
        let shutdown = self.cx.shutdown.clone();
        while !shutdown.is_cancelled() {
            self.cx.health.progress();
            let state = Arc::clone(&desired.borrow_and_update());
            let outcome = self.pass(&state).await;
            self.publish(state.generation, outcome);
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
        let end = tokio::select! {
            () = shutdown.cancelled() => return None,
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
        self.down(&reason, Some(end));
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

    async fn pass(&mut self, state: &DesiredState) -> Result<(), ApplyError> {
        let rendered = render(state, &self.settings);
        if self.process.as_mut().is_some_and(|(child, _)| child.has_ended()) {
            let end = match &mut self.process {
                Some((child, _)) => child.ended().await,
                None => String::new(),
            };
            self.note_end(end);
        }
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
        }
        Ok(())
    }

    /// Brings files and process to `rendered`. Returns what was done; `None` when dnsmasq is down
    /// and its time has not come.
    async fn adjust(&mut self, rendered: &Rendered) -> Result<Option<&'static str>, ApplyError> {
        let layout = self.settings.layout.clone();
        let Some((child, loaded)) = &mut self.process else {
            let text = rendered.clone();
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
        let mut complaints = Vec::new();
        while let Ok(event) = child.events.try_recv() {
            if let LogEvent::Rejected(line) = event {
                complaints.push(line);
            }
        }
        self.observed.send_modify(|observed| {
            observed.rejected.extend(complaints);
            observed.rejected.truncate(REJECTED);
        });
        let disk = self.cx.tasks.blocking("files", move || files::read(&layout)).await??;
        let plan = plan(rendered, loaded, &disk);
        let kind = plan.kind();
        match plan {
            Plan::Nothing => {}
            Plan::Names => self.names(rendered).await?,
            Plan::Add(added) => self.add(rendered, &added).await?,
            Plan::Reload => self.reload(rendered).await?,
            Plan::Restart => self.restart(rendered).await?,
        }
        self.observed.send_modify(|observed| observed.rendered = rendered.generation);
        Ok(Some(kind))
    }

    async fn names(&mut self, rendered: &Rendered) -> Result<(), ApplyError> {
        let (layout, text) = (self.settings.layout.clone(), rendered.clone());
        self.cx.tasks.blocking("names", move || files::write_names(&layout, &text)).await??;
        if !self.settings.dns
            || self
                .confirm(&[self.settings.layout.names()], watched_time(rendered))
                .await?
                .is_some()
        {
            if let Some((_, loaded)) = &mut self.process {
                loaded.names.clone_from(&rendered.names);
            }
            return Ok(());
        }
        self.reload(rendered).await
    }

    async fn add(
        &mut self,
        rendered: &Rendered,
        added: &[crate::render::HostLine],
    ) -> Result<(), ApplyError> {
        let Some((_, loaded)) = &mut self.process else { return Ok(()) };
        let delta = loaded.delta(added);
        let path = self.settings.layout.hosts_directory().join(&delta.0);
        let (layout, text, content) =
            (self.settings.layout.clone(), rendered.clone(), delta.1.clone());
        let target = path.clone();
        // Names last: that they were read means that complaints about the hosts have been made.
        let write = move || {
            files::replace(&layout, &target, &content)
                .and_then(|()| files::write_names(&layout, &text))
        };
        self.cx.tasks.blocking("add", write).await??;
        let mut awaited = vec![path];
        if self.settings.dns {
            awaited.push(self.settings.layout.names());
        }
        match self.confirm(&awaited, watched_time(rendered)).await? {
            Some(complaints) if complaints.is_empty() => {
                if let Some((_, loaded)) = &mut self.process {
                    loaded.added(rendered, added, delta);
                    loaded.names.clone_from(&rendered.names);
                }
                Ok(())
            }
            outcome => {
                tracing::info!(?outcome, "an addition was not taken, reloading");
                self.reload(rendered).await
            }
        }
    }

    async fn reload(&mut self, rendered: &Rendered) -> Result<(), ApplyError> {
        let (layout, text) = (self.settings.layout.clone(), rendered.clone());
        self.cx.tasks.blocking("reload", move || files::write_all(&layout, &text)).await??;
        let Some((child, _)) = &mut self.process else { return Ok(()) };
        while child.events.try_recv().is_ok() {}
        child.reload()?;
        let awaited = self.awaited(rendered);
        match self.confirm(&awaited, reload_time(rendered.hosts.len())).await? {
            Some(complaints) => {
                if let Some((_, loaded)) = &mut self.process {
                    *loaded = Loaded::all(rendered);
                }
                self.observed.send_modify(|observed| observed.rejected = complaints);
                Ok(())
            }
            None => {
                tracing::warn!("dnsmasq does not confirm a reload and is started anew");
                self.restart(rendered).await
            }
        }
    }

    async fn restart(&mut self, rendered: &Rendered) -> Result<(), ApplyError> {
        // Before the running one is given up.
        self.test(rendered).await?;
        if let Some((child, _)) = self.process.take() {
            child.stop().await;
        }
        let (layout, text) = (self.settings.layout.clone(), rendered.clone());
        self.cx.tasks.blocking("restart", move || files::write_all(&layout, &text)).await??;
        self.start(rendered).await
    }

    /// What dnsmasq reads last at a start or reload.
    fn awaited(&self, rendered: &Rendered) -> Vec<PathBuf> {
        let layout = &self.settings.layout;
        if rendered.serves_dhcp() {
            return vec![layout.base_hosts(), layout.options()];
        }
        if self.settings.dns { vec![layout.names()] } else { Vec::new() }
    }

    /// Waits until dnsmasq has read every file of `awaited`; gives its complaints meanwhile, or
    /// `None` when it does not in time.
    async fn confirm(
        &mut self,
        awaited: &[PathBuf],
        limit: Duration,
    ) -> Result<Option<Vec<String>>, ApplyError> {
        let Some((child, _)) = &mut self.process else { return Ok(None) };
        let (health, shutdown) = (self.cx.health.clone(), self.cx.shutdown.clone());
        let mut missing: Vec<_> = awaited.to_vec();
        let mut complaints = Vec::new();
        let deadline = tokio::time::Instant::now() + limit;
        let mut beat = tokio::time::interval(Duration::from_secs(1));
        while !missing.is_empty() {
            tokio::select! {
                () = shutdown.cancelled() => return Err(ApplyError::Stopping),
                () = tokio::time::sleep_until(deadline) => return Ok(None),
                _ = beat.tick() => health.progress(),
                event = child.events.recv() => match event {
                    Some(LogEvent::Read(path)) => missing.retain(|awaited| *awaited != path),
                    Some(LogEvent::Rejected(line)) => {
                        if complaints.len() < REJECTED {
                            complaints.push(line);
                        }
                    }
                    Some(_) => {}
                    None => {
                        let end = child.ended().await;
                        self.note_end(end.clone());
                        return Err(ChildError::Ended(end).into());
                    }
                },
            }
        }
        Ok(Some(complaints))
    }

    /// Leases whose (address, MAC) is nobody's reservation.
    async fn stale_leases(&self, rendered: &Rendered) -> Result<Vec<leases::Lease>, ApplyError> {
        let path = self.settings.layout.leases();
        let leases = self.cx.tasks.blocking("leases", move || leases::read(&path)).await?;
        let leases = leases.map_err(ReleaseError::Leases)?;
        let count = leases.len();
        let stale: Vec<_> = leases
            .into_iter()
            .filter(|lease| !files::is_reserved(&rendered.hosts, lease))
            .collect();
        self.metrics.leases.set(i64::try_from(count).unwrap_or(i64::MAX));
        self.metrics.conflicts.set(i64::try_from(stale.len()).unwrap_or(i64::MAX));
        self.observed.send_modify(|observed| {
            (observed.leases, observed.conflicts) = (count, stale.len());
        });
        Ok(stale)
    }

    /// Takes stale leases back; what cannot be released is removed while dnsmasq is down.
    async fn release(
        &mut self,
        stale: Vec<leases::Lease>,
        subnets: Vec<Cidr>,
        rendered: &Rendered,
    ) -> Result<(), ApplyError> {
        let count = stale.len();
        let releaser = Releaser {
            interface: self.settings.interface.clone(),
            layout: self.settings.layout.clone(),
        };
        let left = releaser.release(stale.clone(), subnets, &self.cx.tasks).await;
        let left = left.unwrap_or_else(|error| {
            tracing::warn!(error = %chain(&error), "cannot release leases");
            stale
        });
        self.metrics.released.inc_by(u64::try_from(count - left.len()).unwrap_or(0));
        tracing::info!(released = count - left.len(), left = left.len(), "leases taken back");
        if !left.is_empty() {
            self.restart(rendered).await?;
        }
        let left = self.stale_leases(rendered).await?.len();
        if left > 0 {
            tracing::warn!(left, "leases without a reservation remain");
        }
        Ok(())
    }

    fn applied(&self, rendered: &Rendered, kind: &'static str, begun: Instant) {
        let elapsed = begun.elapsed();
        let now = Stamp::from_unix_ms(self.cx.host.clock.unix_ms());
        let id = rendered.generation;
        let news = kind != Plan::Nothing.kind();
        if news {
            self.metrics.applied(kind, true, elapsed.as_secs_f64());
            tracing::info!(generation = id, kind, elapsed_ms = millis(elapsed), "applied");
        }
        self.observed.send_modify(|observed| {
            if news || observed.applied != id {
                observed.applied_at = Some(now);
            }
            observed.applied = id;
            observed.error = None;
            if news {
                let duration_ms = millis(elapsed);
                observed.last_apply = Some(LastApply { id, kind, duration_ms, result: "ok" });
            }
        });
    }

    /// What a pass came to, for everybody who watches.
    fn publish(&mut self, generation: u64, outcome: Result<(), ApplyError>) {
        let health = self.cx.health.clone();
        match outcome {
            Ok(()) => health.clear_condition("apply"),
            Err(ApplyError::Stopping) => {}
            Err(error) => {
                let text = chain(&error);
                let known = {
                    let observed = self.observed.borrow();
                    let failed = observed.error.as_ref().is_some_and(|(_, error)| *error == text);
                    failed || observed.instance.reason.as_ref() == Some(&text)
                };
                if known {
                    tracing::debug!(generation, error = %text, "cannot apply, still");
                } else {
                    tracing::warn!(generation, error = %text, "cannot apply");
                }
                self.metrics.applied("failed", false, 0.0);
                if self.process.is_none() {
                    self.failed_start(&error, &text);
                } else {
                    health.set_condition("apply", text.clone());
                }
                // What is only stored until dnsmasq runs again has not failed.
                let waits = self.process.is_none()
                    && !matches!(error, ApplyError::Refused(_) | ApplyError::File(_));
                if !waits {
                    self.observed.send_modify(|observed| observed.error = Some((generation, text)));
                }
            }
        }
        self.look_at_interface();
        let rejected = self.observed.borrow().rejected.first().cloned();
        match rejected {
            Some(line) => {
                health.set_condition("rejected", format!("dnsmasq does not take: {line}"))
            }
            None => health.clear_condition("rejected"),
        }
        self.metrics.dirty.set(i64::from(self.observed.borrow().applied < generation));
        health.started();
    }

    fn failed_start(&mut self, error: &ApplyError, text: &str) {
        // A process that ended was noted when it did.
        if !matches!(error, ApplyError::Child(ChildError::Ended(_))) {
            self.down(text, None);
        }
    }
}

/// dnsmasq compares every line with every other: 1 s and 0.03 µs per pair, at most two minutes.
fn reload_time(hosts: usize) -> Duration {
    let hosts = u64::try_from(hosts).unwrap_or(u64::MAX);
    let pairs = hosts.saturating_mul(hosts);
    Duration::from_secs(1)
        .saturating_add(Duration::from_nanos(pairs.saturating_mul(30)))
        .min(Duration::from_secs(120))
}

/// After an addition dnsmasq compares every lease with every line.
fn watched_time(rendered: &Rendered) -> Duration {
    WATCHED.saturating_add(reload_time(rendered.hosts.len()))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
