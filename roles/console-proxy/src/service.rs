//! The role: how it is described, checked, started and stopped.

use std::sync::Arc;
use std::time::Duration;

use agent_protocol::agent::StartupProxyCommand;
use config_reader::Violations;
use management_link::{LinkConfig, ManagementLink};
use role::{
    BoxFuture, ConfigInput, DoctorCheck, Host, PreflightError, Resource, Role, RoleContext,
    RoleDescriptor, RoleError, RoleKind, RoleSpec,
};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::agent::{ConsoleAgent, LinkPort};
use crate::config::{self, ConsoleProxyConfig};
use crate::context::ConsoleContext;
use crate::doctor;
use crate::journal::Journal;
use crate::ledger::Owed;
use crate::listeners::{self, Doors};
use crate::report;
use crate::sessions::Ended;

/// The console proxy.
pub const KIND: RoleKind =
    RoleKind { short: "cp", title: "console proxy", section: "console_proxy" };

/// Offers the role to the registry.
pub const DESCRIPTOR: RoleDescriptor =
    RoleDescriptor::new(KIND, configure).reloading(config::RELOADABLE);

/// How long consoles have to say goodbye when the role stops.
const GOODBYES: Duration = Duration::from_secs(3);
/// How long the last load report may take.
const LAST_REPORT: Duration = Duration::from_secs(2);

fn configure(input: ConfigInput<'_>, violations: &mut Violations) -> Option<Arc<dyn RoleSpec>> {
    let config = ConsoleProxyConfig::read(input, violations)?;
    Some(Arc::new(ConsoleProxySpec { config }))
}

#[derive(Debug)]
struct ConsoleProxySpec {
    config: ConsoleProxyConfig,
}

impl RoleSpec for ConsoleProxySpec {
    fn kind(&self) -> RoleKind {
        KIND
    }

    fn resources(&self) -> Vec<Resource> {
        let routes = self.config.listen.iter().chain(&self.config.tls.listen);
        let mut resources: Vec<Resource> =
            routes.map(|addr| Resource::HttpRoute { addr: *addr, prefix: "/" }).collect();
        resources.push(Resource::Dir(self.config.state_directory.clone()));
        resources.push(self.config.link().host_resource(StartupProxyCommand::RESOURCE_NAME));
        resources
    }

    fn preflight<'a>(&'a self, _host: &'a Host) -> BoxFuture<'a, Vec<PreflightError>> {
        Box::pin(async move {
            let listen = self.config.listen.iter().chain(&self.config.tls.listen);
            let mut found: Vec<PreflightError> = listen.filter_map(doctor::not_local).collect();
            if let Some(directory) = self.config.novnc_dir.clone() {
                match doctor::look(move || doctor::without_page(&directory)).await {
                    Ok(problem) => found.extend(problem),
                    Err(error) => tracing::error!(%error, "cannot look at novnc_dir"),
                }
            }
            found
        })
    }

    fn misconfigured(&self) -> Vec<PreflightError> {
        let mut found = self.config.management.misconfigured();
        if let Some(files) = &self.config.tls.files
            && let Err(error) = tls_material::read_pair(&files.certificate, &files.key)
        {
            let remedy = "correct roles.console_proxy.certificate_file and certificate_key_file";
            let problem = bedrock::chain(&error);
            found.push(PreflightError { problem, remedy: remedy.to_owned() });
        }
        found
    }

    fn stop_grace(&self) -> Option<Duration> {
        Some(self.config.management.limits.stop_grace() + GOODBYES + LAST_REPORT)
    }

    fn doctor(&self) -> Vec<DoctorCheck> {
        doctor::checks(&self.config)
    }

    fn build(&self) -> Box<dyn Role> {
        Box::new(ConsoleProxy { config: self.config.clone() })
    }
}

impl ConsoleProxyConfig {
    pub(crate) fn link(&self) -> LinkConfig {
        LinkConfig {
            management: self.management.clone(),
            guid: self.identity.guid.clone(),
            state_directory: self.state_directory.clone(),
        }
    }
}

struct ConsoleProxy {
    config: ConsoleProxyConfig,
}

impl Role for ConsoleProxy {
    fn run(self: Box<Self>, cx: RoleContext) -> BoxFuture<'static, Result<(), RoleError>> {
        Box::pin(run(self.config, cx))
    }
}

async fn run(config: ConsoleProxyConfig, cx: RoleContext) -> Result<(), RoleError> {
    // The link outlives the consoles, so that their ends are still reported.
    let link_stop = CancellationToken::new();
    // Also when this run panics: then the link still answers what it owes.
    let _link_stops = link_stop.clone().drop_guard();
    let link_cx = RoleContext { shutdown: link_stop.clone(), ..cx.clone() };
    let link = ManagementLink::new(config.link(), &link_cx)?;
    let port = Arc::new(LinkPort { link: link.clone(), proxy_vm: config.identity.proxy_vm });
    let consoles_stop = CancellationToken::new();
    let _consoles_stop = consoles_stop.clone().drop_guard();
    let context = Arc::new(ConsoleContext::new(
        config,
        (Arc::clone(&port) as _, Arc::clone(&port) as _),
        Arc::clone(&cx.host.clock),
        cx.tasks.clone(),
        consoles_stop.clone(),
    ));
    publish(&context, &cx);
    cx.admin.publish(admin::router(Arc::clone(&context)));
    let files_stop = CancellationToken::new();
    let _files_stop = files_stop.clone().drop_guard();
    let keeping = keep_files(&context, &cx, &files_stop).await;
    prepare_recordings(&context, &cx).await;
    cx.reload.handle({
        let (context, link) = (Arc::clone(&context), link.clone());
        move |spec: Arc<ConsoleProxySpec>| {
            context.reload(spec.config.reloadable.clone());
            let link = link.clone();
            let context = Arc::clone(&context);
            async move {
                let mut report = link.reload(spec.config.management.clone()).await;
                match listeners::read_again(&context).await {
                    Some(Ok(())) => report.apply("certificate for browsers"),
                    Some(Err(error)) => report.fail("certificate for browsers", error),
                    None => {}
                }
                report
            }
        }
    });
    let (doors, _closing) = Doors::open(&context, &cx).await?;
    listeners::bring_certificates(&context, &cx);
    let opening = Arc::clone(&doors).open_tls(Arc::clone(&context), cx.clone());
    cx.tasks.spawn_vital("tls listeners", opening);
    let report_stop = CancellationToken::new();
    let reporter = cx.tasks.spawn_vital("load report", {
        let (sessions, metrics) = (Arc::clone(&context.sessions), Arc::clone(&context.metrics));
        report::run(sessions, port, metrics, report_stop.clone())
    });
    let agent = Arc::new(ConsoleAgent { context: Arc::clone(&context), health: cx.health.clone() });
    let mut serving =
        cx.tasks.spawn_vital("management link", async move { link.serve(agent).await });
    cx.health.started();
    let early = tokio::select! {
        () = cx.shutdown.cancelled() => None,
        ended = &mut serving => Some(ended),
    };
    // New consoles first, then the open ones, then their report, then the link.
    consoles_stop.cancel();
    doors.close();
    context.sessions.end_all(Ended::Shutdown);
    if timeout(GOODBYES, context.places.all_free()).await.is_err() {
        tracing::warn!(consoles = context.sessions.len(), "consoles do not close");
    }
    report_stop.cancel();
    if timeout(LAST_REPORT, reporter).await.is_err() {
        tracing::debug!("the last load report was not acknowledged");
    }
    files_stop.cancel();
    keeping.await.ok();
    link_stop.cancel();
    let ended = match early {
        Some(ended) => ended,
        None => serving.await,
    };
    match ended {
        Ok(Some(Ok(()))) if cx.shutdown.is_cancelled() => Ok(()),
        Ok(Some(Err(error))) => Err(error),
        _ => Err(RoleError::Internal("the management link ended by itself".to_owned(), None)),
    }
}

/// What is written while the role runs: open sessions, and who saw what. What an earlier run left
/// open is owed to the server first.
async fn keep_files(
    context: &Arc<ConsoleContext>,
    cx: &RoleContext,
    stop: &CancellationToken,
) -> JoinHandle<Option<()>> {
    let (ledger, directory) = (&context.sessions.ledger, context.config.state_directory.clone());
    let left = {
        let directory = directory.clone();
        cx.tasks.blocking("open sessions", move || Journal::left(&directory)).await
    };
    for session in left.unwrap_or_default() {
        tracing::info!(session, "a console of an earlier run is reported as closed");
        // Its link brought back would end in a second report of one end.
        ledger.take(&session);
        ledger.owe(session, Owed::Admitted);
    }
    let journal = Arc::clone(&ledger.journal).keep(directory, cx.tasks.clone(), stop.clone());
    let audit = Arc::clone(&context.audit).keep(cx.tasks.clone(), stop.clone());
    cx.tasks.spawn_vital("console files", async move {
        tokio::join!(journal, audit);
    })
}

/// Consoles are shown also where they cannot be recorded: that is told.
async fn prepare_recordings(context: &Arc<ConsoleContext>, cx: &RoleContext) {
    let recordings = Arc::clone(&context.recordings);
    let prepared = cx.tasks.blocking("recordings", move || recordings.prepare()).await;
    if let Err(error) = prepared.unwrap_or_else(|error| Err(error.to_string())) {
        tracing::error!(error, "consoles are not recorded");
        cx.health.set_condition("recordings", error);
    }
}

fn publish(context: &Arc<ConsoleContext>, cx: &RoleContext) {
    cx.health.report({
        let sessions = Arc::clone(&context.sessions);
        move || sessions.status()
    });
    cx.health.report({
        let (context, http) = (Arc::clone(context), cx.http.clone());
        move || context.notes(&http)
    });
    cx.health.report({
        let certificate = Arc::clone(&context.certificate);
        move || certificate.status()
    });
    cx.health.install_metrics(context.metrics.registry(&context.sessions));
}
