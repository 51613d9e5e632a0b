//! The handle a role holds, and what it can ask through it.

mod credentials;
mod driver;
mod expiry;
mod identity;
mod notices;
mod outage;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use agent_protocol::{BodyError, Command, Envelope, Flags};
use bedrock::net::HostPort;
use role::{LinkReport, LinkState, PingedLink, RoleContext, RoleError};
use rustls_pki_types::CertificateDer;
use status_api::ReloadReport;
use tokio::sync::{mpsc, oneshot, watch};

use crate::agent::Agent;
use crate::config::{LinkConfig, LinkLimits, ManagementConfig};
use crate::endpoints::Endpoints;
use crate::files;
use crate::tls::Material;
use crate::trust::ServerVerifier;
pub use credentials::HostCredentials;
use driver::Driver;

/// Requests of the role on their way to the link; more wait.
const CONTROL_QUEUE: usize = 128;

/// Why a request of ours got no answer of its class.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("there is no link to a management server")]
    NotAttached,
    #[error("the link was lost before the answer came")]
    Lost,
    #[error("the management server did not answer within {0:?}")]
    Timeout(Duration),
    /// As a rule a plain answer with `result: false`: something went wrong on the server.
    #[error("the management server answered with {class}: {}", details.as_deref().unwrap_or("no details"))]
    UnexpectedAnswer {
        /// Without its package.
        class: String,
        details: Option<String>,
    },
    #[error("cannot read the answer of the management server")]
    Body(#[source] BodyError),
    #[error("the management server's answer is not readable")]
    Unreadable,
    #[error("too many requests wait for the management server")]
    Busy,
    #[error("the link is closed, the role stops")]
    Closed,
}

/// A request of the role, or the heartbeat's wish.
#[derive(Debug)]
enum Control {
    Ping,
    Reload(Box<Change>),
    Request { envelope: Envelope, flags: Flags, reply: Reply },
}

/// What a reload changes for the running link.
#[derive(Debug)]
struct Change {
    servers: Vec<HostPort>,
    port: u16,
    limits: LinkLimits,
    verifier: Arc<ServerVerifier>,
}

type Reply = oneshot::Sender<Result<Envelope, LinkError>>;

/// A link to the management servers, valid across reconnects. Cloneable; clones share it.
#[derive(Clone)]
pub struct ManagementLink {
    shared: Arc<Shared>,
}

impl fmt::Debug for ManagementLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagementLink")
            .field("guid", &self.shared.config().guid)
            .field("state", &*self.shared.state.borrow())
            .finish()
    }
}

struct Shared {
    config: Mutex<Arc<LinkConfig>>,
    cx: RoleContext,
    control: mpsc::Sender<Control>,
    /// Taken by the one call of `serve`.
    waiting: Mutex<Option<mpsc::Receiver<Control>>>,
    report: Mutex<LinkReport>,
    state: watch::Sender<LinkState>,
    /// End of the certificate that we present.
    certificate_end: Mutex<Option<i64>>,
    /// What a server presented at first use while it could not be remembered in a file.
    unwritten: Mutex<Vec<CertificateDer<'static>>>,
}

impl Shared {
    /// The configuration in force.
    fn config(&self) -> Arc<LinkConfig> {
        Arc::clone(&self.config.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn unwritten(&self) -> Vec<CertificateDer<'static>> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn publish(&self, report: LinkReport) {
        let state = report.state;
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = report;
        self.state.send_if_modified(|current| {
            let changed = *current != state;
            *current = state;
            changed
        });
    }

    fn report(&self) -> LinkReport {
        let report = self.report.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let certificate_end = *self.certificate_end.lock().unwrap_or_else(PoisonError::into_inner);
        LinkReport { guid: Some(self.config().guid.clone()), certificate_end, ..report }
    }

    fn set_certificate_end(&self, end: Option<i64>) {
        *self.certificate_end.lock().unwrap_or_else(PoisonError::into_inner) = end;
    }
}

impl PingedLink for Shared {
    fn report(&self) -> LinkReport {
        Shared::report(self)
    }

    fn ping(&self) {
        // A full queue means the link has other troubles; the next beat comes.
        if self.control.try_send(Control::Ping).is_err() {
            tracing::debug!("ping skipped");
        }
    }
}

impl ManagementLink {
    /// Prepares a link and registers it with the heartbeat; nothing is connected before
    /// [`ManagementLink::serve`].
    ///
    /// # Errors
    /// [`RoleError::Misconfigured`] when a configured certificate or key is of no use or the state
    /// directory cannot be made; the text names file and remedy.
    pub fn new(config: LinkConfig, cx: &RoleContext) -> Result<Self, RoleError> {
        files::create_directory(config.directory())
            .map_err(|error| RoleError::misconfigured("cannot keep the link's state", error))?;
        Material::load(&config, &[])
            .map_err(|error| RoleError::misconfigured("cannot set up the link", error))?;
        let (control, waiting) = mpsc::channel(CONTROL_QUEUE);
        let shared = Arc::new(Shared {
            config: Mutex::new(Arc::new(config)),
            cx: cx.clone(),
            control,
            waiting: Mutex::new(Some(waiting)),
            report: Mutex::default(),
            state: watch::Sender::new(LinkState::Disconnected),
            certificate_end: Mutex::default(),
            unwritten: Mutex::default(),
        });
        let pinged: Arc<dyn PingedLink> = Arc::clone(&shared) as Arc<dyn PingedLink>;
        cx.heartbeat.register(cx.kind, &pinged);
        // From the first moment: a role with a link is not ready before it is attached.
        cx.health.set_condition(driver::HEALTH_CONDITION, "no link to a management server yet");
        Ok(Self { shared })
    }

    /// Keeps the link up for `agent` until the role's shutdown, then drains, says goodbye and
    /// returns. Sets and clears the health condition "link" and reports progress.
    ///
    /// # Errors
    /// [`RoleError::Internal`] when called twice.
    pub async fn serve(&self, agent: Arc<dyn Agent>) -> Result<(), RoleError> {
        let waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(waiting) = waiting else {
            return Err(RoleError::Internal("the link is served twice".to_owned(), None));
        };
        let config = self.shared.config();
        let management = &config.management;
        let endpoints = Endpoints::new(&management.servers, management.port);
        let driver = Driver::new(Arc::clone(&self.shared), agent, endpoints, waiting).await;
        self.shared.cx.tasks.spawn("own certificate", expiry::watch(Arc::clone(&self.shared)));
        // A task of its own: when the role's main task panics or is dropped, the link still answers
        // what the server waits for and says goodbye.
        match self.shared.cx.tasks.spawn_vital("management link", driver.run()).await {
            Ok(Some(())) => Ok(()),
            Ok(None) | Err(_) => Err(RoleError::Internal("the link was aborted".to_owned(), None)),
        }
    }

    /// Asks the server and waits for its answer, at most `timeout`.
    ///
    /// # Errors
    /// [`LinkError::UnexpectedAnswer`] for any other class than the command's answer; see
    /// [`LinkError`] for the rest.
    pub async fn request<C: Command>(
        &self,
        command: &C,
        timeout: Duration,
    ) -> Result<C::Answer, LinkError> {
        let (reply, answer) = oneshot::channel();
        let envelope = Envelope::of(command);
        let asked = async {
            self.shared
                .control
                .send(Control::Request { envelope, flags: flags::<C>(), reply })
                .await
                .map_err(|_closed| LinkError::Closed)?;
            answer.await.map_err(|_dropped| LinkError::Lost)?
        };
        let envelope = tokio::time::timeout(timeout, asked)
            .await
            .map_err(|_late| LinkError::Timeout(timeout))??;
        if envelope.is::<C::Answer>() {
            return envelope.open().map_err(LinkError::Body);
        }
        let details = envelope.answer_base().ok().and_then(|base| base.details);
        Err(LinkError::UnexpectedAnswer { class: envelope.simple_name().to_owned(), details })
    }

    /// Takes over another configuration while the link runs; when its files are of no use, nothing
    /// changes. Trust roots hold at once: a server that they do not vouch for is left. Everything
    /// else holds from the next connection on, and a server that is not in the list any more is
    /// left for one that is, when it can be reached and nothing is under way. What the startup
    /// command tells (zone, pod, version) needs a restart of the role.
    ///
    /// The report names every key of `[management]` that differs.
    pub async fn reload(&self, management: ManagementConfig) -> ReloadReport {
        const FILES: &str = "certificates of the management server";
        let mut report = ReloadReport::default();
        let old = self.shared.config();
        let mut new = LinkConfig { management, ..LinkConfig::clone(&old) };
        let differing = old.management.differing_keys(&new.management);
        let (fixed, changed): (Vec<_>, Vec<_>) =
            differing.into_iter().partition(|key| ManagementConfig::is_fixed(key));
        // As registered, until the restart.
        new.management.zone.clone_from(&old.management.zone);
        new.management.pod.clone_from(&old.management.pod);
        new.management.version.clone_from(&old.management.version);
        let (candidate, unwritten) = (new.clone(), self.shared.unwritten());
        let material = self
            .shared
            .cx
            .tasks
            .blocking("link certificates", move || Material::load(&candidate, &unwritten))
            .await;
        let verifier = match material {
            Ok(Ok(material)) => material.verifier,
            Ok(Err(error)) => {
                report.fail(FILES, bedrock::chain(&error));
                return report;
            }
            Err(error) => {
                report.fail(FILES, error.to_string());
                return report;
            }
        };
        let change = Change {
            servers: new.management.servers.clone(),
            port: new.management.port,
            limits: new.management.limits.clone(),
            verifier,
        };
        *self.shared.config.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        match self.shared.control.send(Control::Reload(Box::new(change))).await {
            Ok(()) => {
                // Read again although the keys may be the same: the files may have changed.
                report.apply(FILES);
                for key in changed {
                    report.apply(key);
                }
                report.needs_restart.extend(fixed.into_iter().map(str::to_owned));
            }
            Err(_closed) => report.fail(FILES, "the link is closed, the role stops"),
        }
        report
    }

    /// The station the link is at.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.shared.state.subscribe()
    }

    /// Our host's id, once a server gave one; kept while disconnected.
    pub fn host_id(&self) -> Option<i64> {
        self.shared.report().host_id
    }

    /// What the heartbeat publishes about the link.
    pub fn report(&self) -> LinkReport {
        self.shared.report()
    }

    /// The link's entry for `/status`.
    pub fn status(&self) -> serde_json::Value {
        let report = self.shared.report();
        let ago = |at: Option<Instant>| {
            at.map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX))
        };
        let retry_in = report.retry_at.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
        });
        serde_json::json!({
            "state": report.state,
            "guid": self.shared.config().guid,
            "endpoint": report.endpoint,
            "peer": report.peer.map(|peer| peer.to_string()),
            "host_id": report.host_id,
            "last_ping_ms_ago": ago(report.last_ping),
            "last_answer_ms_ago": ago(report.last_answer),
            "round_trip_us": report.round_trip.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            "last_error": report.last_error,
            "retry_in_ms": retry_in,
            "in_flight": report.in_flight,
        })
    }
}

fn flags<C: Command>() -> Flags {
    if C::IN_SEQUENCE { Flags::AGENT_REQUEST | Flags::IN_SEQUENCE } else { Flags::AGENT_REQUEST }
}
