//! The role: how it is described, checked, started and stopped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agent_protocol::agent::StartupProxyCommand;
use config_reader::Violations;
use http_front::{Site, Transport};
use management_link::{LinkConfig, ManagementLink};
use role::{
    BoxFuture, ConfigInput, Host, PreflightError, Resource, Role, RoleContext, RoleDescriptor,
    RoleError, RoleKind, RoleSpec,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::agent::{ConsoleAgent, LinkPort};
use crate::report;
use crate::service::Service;
use crate::sessions::Ended;
use crate::settings::Settings;
use crate::web;

/// The console proxy.
pub const KIND: RoleKind =
    RoleKind { short: "cp", title: "console proxy", section: "console_proxy" };

/// Offers the role to the registry.
pub const DESCRIPTOR: RoleDescriptor = RoleDescriptor::new(KIND, configure);

/// How long consoles have to say goodbye when the role stops.
const GOODBYES: Duration = Duration::from_secs(3);
/// How long the last load report may take.
const LAST_REPORT: Duration = Duration::from_secs(2);

fn configure(input: ConfigInput<'_>, violations: &mut Violations) -> Option<Arc<dyn RoleSpec>> {
    let settings = Settings::read(input, violations)?;
    Some(Arc::new(ConsoleProxySpec { settings }))
}

#[derive(Debug)]
struct ConsoleProxySpec {
    settings: Settings,
}

impl RoleSpec for ConsoleProxySpec {
    fn kind(&self) -> RoleKind {
        KIND
    }

    fn resources(&self) -> Vec<Resource> {
        let routes = self.settings.listen.iter();
        let mut resources: Vec<Resource> =
            routes.map(|addr| Resource::HttpRoute { addr: *addr, prefix: "/" }).collect();
        resources.push(Resource::Dir(self.settings.state_directory.clone()));
        resources.push(self.settings.link().host_resource(StartupProxyCommand::RESOURCE_NAME));
        resources
    }

    fn preflight<'a>(&'a self, _host: &'a Host) -> BoxFuture<'a, Vec<PreflightError>> {
        Box::pin(async move {
            let mut found: Vec<PreflightError> =
                self.settings.listen.iter().filter_map(not_local).collect();
            if let Some(directory) = &self.settings.novnc_dir
                && !directory.join("vnc.html").is_file()
            {
                found.push(PreflightError {
                    problem: format!("{} has no vnc.html", directory.display()),
                    remedy: "give a directory with a complete noVNC, or leave out \
                             roles.console_proxy.novnc_dir"
                        .to_owned(),
                });
            }
            found
        })
    }

    fn misconfigured(&self) -> Vec<PreflightError> {
        self.settings.management.misconfigured()
    }

    fn stop_grace(&self) -> Option<Duration> {
        Some(self.settings.management.limits.stop_grace() + GOODBYES + LAST_REPORT)
    }

    fn build(&self) -> Box<dyn Role> {
        Box::new(ConsoleProxy { settings: self.settings.clone() })
    }
}

/// An address of another machine cannot be listened on.
fn not_local(addr: &SocketAddr) -> Option<PreflightError> {
    let probe = SocketAddr::new(addr.ip(), 0);
    let error = std::net::UdpSocket::bind(probe).err()?;
    (error.kind() == std::io::ErrorKind::AddrNotAvailable).then(|| PreflightError {
        problem: format!("{} is not an address of this machine", addr.ip()),
        remedy: "correct roles.console_proxy.listen".to_owned(),
    })
}

impl Settings {
    fn link(&self) -> LinkConfig {
        LinkConfig {
            management: self.management.clone(),
            guid: self.identity.guid.clone(),
            state_directory: self.state_directory.clone(),
        }
    }
}

struct ConsoleProxy {
    settings: Settings,
}

impl Role for ConsoleProxy {
    fn run(self: Box<Self>, cx: RoleContext) -> BoxFuture<'static, Result<(), RoleError>> {
        Box::pin(run(self.settings, cx))
    }
}

async fn run(settings: Settings, cx: RoleContext) -> Result<(), RoleError> {
    // The link outlives the consoles, so that their ends are still reported.
    let link_stop = CancellationToken::new();
    // Also when this run panics: then the link still answers what it owes.
    let _link_stops = link_stop.clone().drop_guard();
    let link_cx = RoleContext { shutdown: link_stop.clone(), ..cx.clone() };
    let link = ManagementLink::new(settings.link(), &link_cx)?;
    let port = Arc::new(LinkPort {
        link: link.clone(),
        proxy_vm: settings.identity.proxy_vm,
        verdict_timeout: settings.verdict_timeout,
    });
    let consoles_stop = CancellationToken::new();
    let service = Arc::new(Service::new(
        settings,
        Arc::clone(&port) as _,
        Arc::clone(&cx.host.clock),
        cx.tasks.clone(),
        consoles_stop.clone(),
    ));
    publish(&service, &cx);
    let registrations = listen(&service, &cx).await?;
    let report_stop = CancellationToken::new();
    let reporter = cx.tasks.spawn_vital("load report", {
        let (sessions, metrics) = (Arc::clone(&service.sessions), Arc::clone(&service.metrics));
        report::run(sessions, port, metrics, report_stop.clone())
    });
    let agent = Arc::new(ConsoleAgent { service: Arc::clone(&service), health: cx.health.clone() });
    let mut serving =
        cx.tasks.spawn_vital("management link", async move { link.serve(agent).await });
    cx.health.started();
    let early = tokio::select! {
        () = cx.shutdown.cancelled() => None,
        ended = &mut serving => Some(ended),
    };
    // New consoles first, then the open ones, then their report, then the link.
    drop(registrations);
    consoles_stop.cancel();
    service.sessions.end_all(Ended::Shutdown);
    if timeout(GOODBYES, all_closed(&service)).await.is_err() {
        tracing::warn!(consoles = service.sessions.len(), "consoles do not close");
    }
    report_stop.cancel();
    if timeout(LAST_REPORT, reporter).await.is_err() {
        tracing::debug!("the last load report was not acknowledged");
    }
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

/// Waits until no console has a place.
async fn all_closed(service: &Service) {
    let places = u32::try_from(service.config.sessions).unwrap_or(u32::MAX);
    if let Err(closed) = service.places.acquire_many(places).await {
        tracing::debug!(error = %closed, "no place is left to wait for");
    }
}

fn publish(service: &Arc<Service>, cx: &RoleContext) {
    cx.health.publish("sessions", {
        let sessions = Arc::clone(&service.sessions);
        move || sessions.status()
    });
    cx.health.install_metrics(service.metrics.registry());
}

async fn listen(
    service: &Arc<Service>,
    cx: &RoleContext,
) -> Result<Vec<http_front::Registration>, RoleError> {
    let mut registrations = Vec::new();
    for addr in &service.config.listen {
        let site = Site {
            owner: KIND.short,
            addr: *addr,
            prefixes: &["/"],
            router: web::router(Arc::clone(service)),
            tasks: cx.tasks.clone(),
            trusted_proxies: service.config.trusted_proxies.clone().into(),
            transport: Transport::default(),
        };
        let registration = cx.http.register(site).await.map_err(|error| {
            if error.source.kind() == std::io::ErrorKind::PermissionDenied {
                RoleError::misconfigured("cannot serve consoles", error)
            } else {
                RoleError::dependency("cannot serve consoles", error)
            }
        })?;
        tracing::info!(addr = %registration.local_addr(), "serving consoles");
        registrations.push(registration);
    }
    cx.health.publish("listen", {
        let addrs: Vec<SocketAddr> = registrations.iter().map(|r| r.local_addr()).collect();
        move || serde_json::json!(addrs)
    });
    Ok(registrations)
}
