//! Starting dnsmasq: whether the machine lets it, a look at its main file, tidying up, and waiting
//! until it serves.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use dhcp_api::answer::Phase;
use role::CommandSpec;
use role::host::CommandError;

use super::applying::reload_time;
use super::{ApplyError, PROGRAM, Reconciler, millis};
use crate::child::{Child, ChildError};
use crate::files;
use crate::machine::{self, RunAs};
use crate::plan::Loaded;
use crate::render::Rendered;
use crate::version;

impl Reconciler {
    /// Starts dnsmasq on the files as written and waits until it serves.
    pub(super) async fn start(&mut self, rendered: &Arc<Rendered>) -> Result<(), ApplyError> {
        let run_as = self.prerequisites(rendered).await?;
        self.test(rendered).await?;
        self.kill_orphans().await?;
        self.look_at_ports().await?;
        let (layout, served, account) =
            (self.settings.layout.clone(), Arc::clone(rendered), run_as.clone());
        let prepare = move || {
            let pruned = files::prune_leases(&layout, &served.hosts)?;
            files::hand_over_leases(&layout, &account).map(|()| pruned)
        };
        let pruned = self.cx.tasks.blocking("prepare", prepare).await??;
        if pruned > 0 {
            tracing::info!(pruned, "leases without a reservation removed before dnsmasq starts");
        }
        self.metrics.released.inc_by(u64::try_from(pruned).unwrap_or(u64::MAX));
        let layout = &self.settings.layout;
        let runner = &*self.cx.host.runner;
        let child = Child::start(
            runner,
            &self.dnsmasq,
            &layout.main(),
            &run_as,
            &self.cx.tasks,
            &self.metrics,
            &self.heard,
        )?;
        let (pid, started) = (child.pid.as_raw(), child.started);
        let awaited = self.awaited(rendered);
        self.process = Some((child, Loaded::all(rendered)));
        let limit = reload_time(rendered.hosts.len()) + Duration::from_secs(9);
        let Some(complaints) = self.confirm(&awaited, limit).await? else {
            self.process = None;
            return Err(ChildError::NotReady(limit).into());
        };
        tracing::info!(pid, elapsed_ms = millis(started.elapsed()), "dnsmasq serves");
        self.retry_at = None;
        self.metrics.up.set(1);
        self.cx.health.clear_condition("dnsmasq");
        self.observed.send_modify(|observed| {
            let instance = &mut observed.instance;
            instance.phase = Phase::Serving;
            instance.reason = None;
            instance.pid = Some(pid);
            instance.started = Some(started);
            instance.runs_as = Some(match &run_as {
                RunAs::Plain => "own account".to_owned(),
                RunAs::Root => "root".to_owned(),
                RunAs::Account { name, .. } => name.clone(),
            });
        });
        self.read_anew(complaints, rendered);
        Ok(())
    }

    /// Ends what a killed predecessor may have left, and waits until its ports are free.
    async fn kill_orphans(&self) -> Result<(), ApplyError> {
        const ROUNDS: u32 = 40;
        for _ in 0..ROUNDS {
            let main_file = self.settings.layout.main();
            let kill = move || machine::kill_orphans(&main_file);
            match self.cx.tasks.blocking("orphans", kill).await? {
                Ok(0) => return Ok(()),
                Ok(orphans) => tracing::info!(orphans, "killing the dnsmasq of a predecessor"),
                Err(error) => {
                    tracing::warn!(%error, "cannot kill the dnsmasq of a predecessor");
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Whether the machine lets dnsmasq serve, and as whom.
    async fn prerequisites(&mut self, rendered: &Rendered) -> Result<RunAs, ApplyError> {
        let missing = machine::missing_capabilities().map_err(|error| {
            ApplyError::Missing(format!("cannot read our capabilities: {error}"))
        })?;
        if !missing.is_empty() {
            return Err(ApplyError::Missing(format!(
                "dnsmasq cannot serve DHCP without {}: run as root, or with these as ambient \
                 capabilities",
                missing.join(", ")
            )));
        }
        let interface = &self.settings.interface;
        // dnsmasq waits for its interface, but takes the name of an absent one in this line for
        // an address.
        let exists = machine::interface_exists(interface).map_err(|error| {
            ApplyError::Missing(format!("cannot look at interface {interface}: {error}"))
        })?;
        if rendered.main.contains("\nshared-network=") && !exists {
            let text =
                format!("interface {interface} does not exist, and a subnet is shared with it");
            return Err(ApplyError::Missing(text));
        }
        let program = self.dnsmasq.display().to_string();
        let spec = CommandSpec::new(&self.dnsmasq, PROGRAM).arg("--version");
        let output = self.cx.host.runner.run(spec).await;
        let output = output.map_err(|source| no_program(program, source))?;
        let version = version::parse(&output.stdout)?;
        self.observed.send_modify(|observed| observed.instance.version = Some(version));
        machine::run_as(self.account.as_deref(), self.settings.layout.directory())
            .map_err(ApplyError::Missing)
    }

    /// Lets dnsmasq look at a main file it has not seen, written aside.
    pub(super) async fn test(&mut self, rendered: &Rendered) -> Result<(), ApplyError> {
        if self.tested.as_ref() == Some(&rendered.main) {
            return Ok(());
        }
        let layout = self.settings.layout.clone();
        let aside = layout.directory().join("main.conf.new");
        let (path, text) = (aside.clone(), rendered.main.clone());
        self.cx.tasks.blocking("test", move || files::replace(&layout, &path, &text)).await??;
        let spec = CommandSpec::new(&self.dnsmasq, PROGRAM)
            .arg("--test")
            .arg(format!("--conf-file={}", aside.display()));
        let program = self.dnsmasq.display().to_string();
        let output = self.cx.host.runner.run(spec).await;
        let output = output.map_err(|source| ApplyError::Program { program, source })?;
        if output.code != Some(0) {
            return Err(ApplyError::Refused(output.stderr.trim().to_owned()));
        }
        self.tested = Some(rendered.main.clone());
        Ok(())
    }
}

fn no_program(program: String, source: CommandError) -> ApplyError {
    match &source {
        CommandError::Start { source: error, .. } if error.kind() == ErrorKind::NotFound => {
            ApplyError::NoProgram { program }
        }
        _ => ApplyError::Program { program, source },
    }
}
