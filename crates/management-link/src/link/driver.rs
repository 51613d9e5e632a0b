//! Between the session and the world: waits for what happens next, tells the session, does what
//! it says. Decides nothing itself.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use agent_protocol::agent::PlainAnswer;
use agent_protocol::{Answer, Envelope, Flags, Frame, FrameHeader};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::identity::{keep_identity, load_identity};
use super::outage::Outage;
use super::{Change, Control, LinkError, Reply, Shared};
use crate::agent::Agent;
use crate::connect::{self, ConnectError, Opened};
use crate::dispatch::{Circumstances, Dispatcher, Waiting, random};
use crate::endpoints::{Endpoint, Endpoints};
use crate::session::{Action, Event, Session, Settings, Work};
use crate::state::Identity;
use crate::transport::{Connection, LossError, Outbound};
use crate::trust;

/// The role's main loop shows that it lives at least this often.
const BEAT: Duration = Duration::from_secs(1);
/// Requests of ours without an answer.
const MAX_PENDING: usize = 1024;
pub(super) const HEALTH_CONDITION: &str = "link";

/// What the tasks around the loop report back.
enum Report {
    Connected { link: u64, opened: Box<Opened> },
    ConnectFailed { link: u64, error: Box<ConnectError> },
    CommandDone { link: u64, number: u64 },
    ProbeDone { endpoint: Endpoint, reachable: bool },
}

pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) session: Session,
    agent: Arc<dyn Agent>,
    dispatcher: Dispatcher,
    control: mpsc::Receiver<Control>,
    reports: mpsc::Receiver<Report>,
    reports_tx: mpsc::Sender<Report>,
    connection: Option<ActiveConnection>,
    /// Ends the attempt under way.
    attempt: CancellationToken,
    link: u64,
    pending: HashMap<i64, Reply>,
    identity: watch::Sender<Identity>,
    keeper: JoinHandle<Option<()>>,
    pub(super) outage: Outage,
    pub(super) refusals: Outage,
    condition: Option<String>,
    paused: bool,
    waiting: Waiting,
    /// Ends what has no answer when the role stops.
    give_up: CancellationToken,
    /// The queue of messages that must not wait is full.
    overflowed: bool,
    /// The last connection, while it is being ended.
    closing: Option<JoinHandle<Option<()>>>,
    stopping: bool,
    finished: bool,
}

/// The link as the driver sees it.
struct ActiveConnection {
    connection: Connection,
    peer: Option<std::net::SocketAddr>,
    seen_at: Option<IpAddr>,
    /// What the server presented, its own certificate first.
    presented: Vec<CertificateDer<'static>>,
    /// It is to be remembered when the server has proved to be one.
    first_use: bool,
}

/// What woke the loop.
enum Wake {
    Event(Event),
    Control(Control),
    Report(Report),
    Message(Result<Vec<u8>, LossError>),
    Beat,
}

impl Driver {
    pub(super) async fn new(
        shared: Arc<Shared>,
        agent: Arc<dyn Agent>,
        endpoints: Endpoints,
        control: mpsc::Receiver<Control>,
    ) -> Self {
        let config = shared.config();
        let management = &config.management;
        let configured = endpoints.reported();
        let identity = load_identity(&shared, configured).await;
        let settings = Settings {
            guid: config.guid.clone(),
            zone: management.zone.clone(),
            pod: management.pod.clone(),
            version: management.version.clone(),
            limits: management.limits.clone(),
        };
        let session = Session::new(settings, endpoints, identity.clone(), random(), now());
        let (identity, changed) = watch::channel(identity);
        let keeper = keep_identity(&shared, changed);
        let max_commands = management.limits.max_commands;
        let (reports_tx, reports) = mpsc::channel(max_commands + 16);
        let dispatcher = Dispatcher {
            agent: Arc::clone(&agent),
            tasks: shared.cx.tasks.clone(),
            state_directory: config.directory().to_owned(),
        };
        Self {
            session,
            agent,
            dispatcher,
            control,
            reports,
            reports_tx,
            connection: None,
            attempt: CancellationToken::new(),
            link: 0,
            pending: HashMap::new(),
            identity,
            keeper,
            outage: Outage::default(),
            refusals: Outage::default(),
            condition: None,
            paused: false,
            waiting: Waiting::new(max_commands),
            give_up: CancellationToken::new(),
            overflowed: false,
            closing: None,
            stopping: false,
            finished: false,
            shared,
        }
    }

    /// Runs to the end of the session.
    pub(super) async fn run(mut self) {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.publish();
        while !self.finished {
            let wake = self.wait(&mut beat).await;
            self.on_wake(wake);
            while std::mem::take(&mut self.overflowed) {
                // An answer that is not sent would hold the server's thread: it must see the end.
                self.connection = None;
                let error = bedrock::chain(&LossError::NoRoom);
                self.step(Event::Lost { error, by_peer: false });
            }
            self.publish();
        }
        let Self { identity, keeper, control, closing, .. } = self;
        drop(control);
        if let Some(closing) = closing
            && closing.await.is_err()
        {
            tracing::debug!("the last connection was aborted");
        }
        drop(identity);
        if keeper.await.is_err() {
            tracing::debug!("the identity keeper was aborted");
        }
    }

    async fn wait(&mut self, beat: &mut tokio::time::Interval) -> Wake {
        let deadline = self.session.deadline().map(tokio::time::Instant::from_std);
        let timer = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let reads = !self.is_paused();
        let message = async {
            match &mut self.connection {
                Some(active) if reads => active.connection.inbound.recv().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.shared.cx.shutdown.cancelled(), if !self.stopping => {
                self.stopping = true;
                self.waiting.hurry();
                Wake::Event(Event::Shutdown)
            }
            () = timer => Wake::Event(Event::Timer),
            Some(control) = self.control.recv() => Wake::Control(control),
            Some(report) = self.reports.recv() => Wake::Report(report),
            message = message => Wake::Message(message.unwrap_or(Err(LossError::Closed))),
            _ = beat.tick() => Wake::Beat,
        }
    }

    fn is_paused(&self) -> bool {
        self.session.in_flight() >= self.shared.config().management.limits.max_commands
    }

    fn on_wake(&mut self, wake: Wake) {
        match wake {
            Wake::Event(event) => self.step(event),
            Wake::Control(control) => self.on_control(control),
            Wake::Report(report) => self.on_report(report),
            Wake::Message(Ok(bytes)) => self.on_message(&bytes),
            Wake::Message(Err(error)) => {
                self.connection = None;
                let by_peer = error.is_end();
                self.step(Event::Lost { error: bedrock::chain(&error), by_peer });
            }
            Wake::Beat => {
                self.shared.cx.health.progress();
                self.pending.retain(|_, reply| !reply.is_closed());
            }
        }
    }

    fn on_control(&mut self, control: Control) {
        match control {
            Control::Ping => {
                let paused = self.is_paused();
                self.step(Event::PingDue { paused });
            }
            Control::Reload(change) => self.reload(*change),
            Control::Request { envelope, flags, reply } => {
                if self.pending.len() >= MAX_PENDING {
                    self.pending.retain(|_, reply| !reply.is_closed());
                }
                let sent = if self.pending.len() >= MAX_PENDING {
                    Err(LinkError::Busy)
                } else {
                    self.send_or_queue(envelope, flags)
                };
                match sent {
                    Ok(sequence) => {
                        self.pending.insert(sequence, reply);
                    }
                    Err(error) => give(reply, Err(error)),
                }
            }
        }
    }

    /// Another configuration is in force. A server that nothing vouches for any more is left at
    /// once.
    fn reload(&mut self, change: Change) {
        let Change { servers, port, limits, verifier } = change;
        self.waiting.limit(limits.max_commands);
        self.step(Event::Reconfigured { servers, port, limits });
        let Some(active) = &self.connection else { return };
        if !verifier.trusts(&active.presented, UnixTime::now()) {
            self.connection = None;
            self.outage.does_not_heal();
            let error = "the management server is not among the trusted ones any more".to_owned();
            self.step(Event::Lost { error, by_peer: false });
        }
    }

    /// A request that finds the queue full waits for room, as a burst of consoles makes them: their
    /// number is bounded by [`MAX_PENDING`], their time by whoever asks.
    fn send_or_queue(&mut self, envelope: Envelope, flags: Flags) -> Result<i64, LinkError> {
        let (outbound, sequence, message) = self.request(envelope, flags)?;
        if let Err(message) = outbound.try_send(message) {
            self.shared.cx.tasks.spawn("waiting request", async move {
                if !outbound.send(message).await {
                    tracing::debug!(seq = sequence, "the link was lost before a request was sent");
                }
            });
        }
        Ok(sequence)
    }

    fn request(
        &mut self,
        envelope: Envelope,
        flags: Flags,
    ) -> Result<(Outbound, i64, Vec<u8>), LinkError> {
        let Some(active) = self.connection.as_ref().filter(|_| self.session.is_attached()) else {
            return Err(LinkError::NotAttached);
        };
        let outbound = active.connection.outbound.clone();
        let sequence = self.session.next_sequence();
        let frame = Frame::request(flags, sequence, self.session.agent_id(), &[envelope]);
        Ok((outbound, sequence, frame.encode()))
    }

    fn on_report(&mut self, report: Report) {
        match report {
            Report::Connected { link, opened } if link == self.link => {
                self.connection = Some(ActiveConnection {
                    connection: opened.connection,
                    peer: opened.peer,
                    seen_at: opened.local.map(|local| local.ip()),
                    presented: opened.presented,
                    first_use: opened.first_use,
                });
                self.step(Event::Connected);
            }
            Report::ConnectFailed { link, error } if link == self.link => {
                if error.does_not_heal() {
                    self.outage.does_not_heal();
                }
                self.step(Event::ConnectFailed { error: bedrock::chain(&*error) });
            }
            // An attempt that was given up meanwhile; dropping it closes the socket.
            Report::Connected { .. } | Report::ConnectFailed { .. } => {}
            Report::CommandDone { link, number } => {
                self.waiting.done(number);
                self.step(Event::CommandDone { link });
            }
            Report::ProbeDone { endpoint, reachable } => {
                self.step(Event::ProbeDone { endpoint, reachable });
            }
        }
    }

    fn on_message(&mut self, bytes: &[u8]) {
        let limit = self.shared.config().management.limits.max_message;
        let read =
            Frame::decode(bytes, limit).map_err(|error| bedrock::chain(&error)).and_then(|frame| {
                match frame.envelopes() {
                    Ok(envelopes) => Ok((frame.header, envelopes)),
                    Err(error) => Err(bedrock::chain(&error)),
                }
            });
        match read {
            Ok((header, commands)) if header.flags.contains(Flags::REQUEST) => {
                if commands.is_empty() {
                    // As many answers as commands: none.
                    self.send_urgent(&Frame::response(&header, &[]));
                } else {
                    self.step(Event::Request { header, commands });
                }
            }
            Ok((header, answers)) => self.step(Event::Response { header, answers }),
            Err(error) => self.on_unreadable(bytes, error),
        }
    }

    /// A request gets an answer as long as its header can be read: the server's in-sequence queue
    /// would stand still without one.
    fn on_unreadable(&mut self, bytes: &[u8], error: String) {
        let Ok(header) = FrameHeader::decode(bytes) else {
            tracing::error!(error, "a message of the management server has no readable header");
            self.connection = None;
            self.step(Event::Lost { error, by_peer: false });
            return;
        };
        let seq = header.sequence.0;
        tracing::error!(seq, error, "a message of the management server cannot be read");
        if header.flags.contains(Flags::REQUEST) {
            let answer = Envelope::of(&PlainAnswer::failed(error));
            self.send_urgent(&Frame::response(&header, &[answer]));
        } else if let Some(reply) = self.pending.remove(&seq) {
            give(reply, Err(LinkError::Unreadable));
        }
    }

    fn step(&mut self, event: Event) {
        for action in self.session.step(event, now()) {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Connect { link, endpoint } => self.connect(link, endpoint),
            Action::Startup { sequence, agent_id, facts } => {
                let startup = self.agent.startup(&facts);
                self.send_urgent(&Frame::request(Flags::STARTUP, sequence, agent_id, &[startup]));
            }
            Action::Ping { sequence, agent_id } => {
                let ping = self.agent.ping(agent_id);
                let flags = Flags::AGENT_REQUEST;
                self.send_urgent(&Frame::request(flags, sequence, agent_id, &[ping]));
            }
            Action::Send(frame) => self.send_urgent(&frame),
            Action::Dispatch(work) => self.dispatch(work),
            Action::Deliver { sequence, answers } => self.deliver(sequence, answers),
            Action::Probe { endpoint } => self.probe(endpoint),
            Action::RememberServer => self.remember_server(),
            Action::Persist(identity) => {
                self.identity.send_replace(identity);
            }
            Action::Attached { host_id } => self.on_attached(host_id),
            Action::Detached => self.agent.detached(),
            Action::GiveUp => self.give_up.cancel(),
            Action::Goodbye(frame) => self.say_goodbye(&frame),
            Action::Close => {
                self.attempt.cancel();
                self.close();
                // Dropping the senders tells the waiting ones.
                self.pending.clear();
            }
            Action::Finished => self.finished = true,
            Action::Note(notice) => self.log(notice),
        }
    }

    fn send_urgent(&mut self, frame: &Frame) {
        let Some(active) = &self.connection else { return };
        if !active.connection.outbound.send_urgent(frame.encode()) {
            self.overflowed = true;
        }
    }

    /// Behind the answers, for which there may be no room yet.
    fn say_goodbye(&self, frame: &Frame) {
        let Some(active) = &self.connection else { return };
        let (outbound, message) = (active.connection.outbound.clone(), frame.encode());
        self.shared.cx.tasks.spawn("goodbye", async move {
            let sent = outbound.send(message).await;
            tracing::info!(sent, "said goodbye to the management server");
        });
    }

    /// Ends the connection once what is queued is written.
    fn close(&mut self) {
        let Some(active) = self.connection.take() else { return };
        let timeout = self.shared.config().management.limits.goodbye_timeout;
        let closing = self.shared.cx.tasks.spawn("link close", active.connection.finish(timeout));
        self.closing = Some(closing);
    }

    fn connect(&mut self, link: u64, endpoint: Endpoint) {
        self.link = link;
        self.attempt = CancellationToken::new();
        let given_up = self.attempt.clone();
        let shared = Arc::clone(&self.shared);
        let reports = self.reports_tx.clone();
        tracing::debug!(%endpoint, "connecting");
        self.shared.cx.tasks.spawn("link connect", async move {
            let config = shared.config();
            let attempt = connect::open(&config, shared.unwritten(), endpoint, &shared.cx.tasks);
            let report = tokio::select! {
                () = given_up.cancelled() => return,
                outcome = attempt => match outcome {
                    Ok(opened) => Report::Connected { link, opened: Box::new(opened) },
                    Err(error) => Report::ConnectFailed { link, error: Box::new(error) },
                },
            };
            report_to(&reports, report).await;
        });
    }

    fn dispatch(&mut self, work: Work) {
        let outbound = self.connection.as_ref().map(|s| s.connection.outbound.downgrade());
        let (number, answer_now) = self.waiting.start();
        let dispatcher = self.dispatcher.clone();
        let reports = self.reports_tx.clone();
        let link = work.link;
        let identity = self.identity.borrow().clone();
        let circumstances = Circumstances {
            host_id: identity.host_id,
            host_name: identity.host_name.unwrap_or_else(machine_name),
            seen_at: self.connection.as_ref().and_then(|active| active.seen_at),
            answer_now,
            give_up: self.give_up.clone(),
        };
        self.shared.cx.tasks.spawn("command", async move {
            let seq = work.header.sequence.0;
            let response = dispatcher.run(work, circumstances).await;
            // The server has forgotten the request with its link: another link is not a place for
            // the answer.
            let sent = match outbound {
                Some(outbound) => outbound.send(response.encode()).await,
                None => false,
            };
            if !sent {
                tracing::info!(seq, "answer dropped, its link is gone");
            }
            report_to(&reports, Report::CommandDone { link, number }).await;
        });
    }

    fn deliver(&mut self, sequence: i64, answers: Vec<Envelope>) {
        match (self.pending.remove(&sequence), answers.into_iter().next()) {
            (Some(reply), Some(answer)) => give(reply, Ok(answer)),
            (Some(reply), None) => give(reply, Err(LinkError::Unreadable)),
            (None, _) => tracing::debug!(seq = sequence, "answer to nobody"),
        }
    }

    fn probe(&self, endpoint: Endpoint) {
        let reports = self.reports_tx.clone();
        let timeout = self.shared.config().management.limits.probe_timeout;
        self.shared.cx.tasks.spawn("link probe", async move {
            let reachable = connect::is_reachable(&endpoint, timeout).await;
            report_to(&reports, Report::ProbeDone { endpoint, reachable }).await;
        });
    }

    fn remember_server(&mut self) {
        let Some(active) = &mut self.connection else { return };
        if !std::mem::take(&mut active.first_use) {
            return;
        }
        let presented = active.presented.clone();
        let shared = Arc::clone(&self.shared);
        self.shared.cx.tasks.spawn("remember server", async move {
            let fingerprint = presented.first().map(trust::fingerprint).unwrap_or_default();
            let directory = shared.config().directory().to_owned();
            let written = shared
                .cx
                .tasks
                .blocking("remember server", {
                    let presented = presented.clone();
                    move || trust::remember(&directory, &presented)
                })
                .await;
            // Trusted once is not trusted for ever: until it is written, memory holds the pin.
            if !matches!(written, Ok(Ok(()))) {
                *shared.unwritten.lock().unwrap_or_else(PoisonError::into_inner) = presented;
            }
            match written {
                Ok(Ok(())) => tracing::info!(
                    fingerprint,
                    "trusted the management server at first use and remembered its certificate"
                ),
                Ok(Err(error)) => {
                    let error = bedrock::chain(&error);
                    tracing::error!(error, "cannot remember the server beyond this process");
                }
                Err(error) => tracing::debug!(%error, "cannot remember the server"),
            }
        });
    }

    fn on_attached(&mut self, host_id: i64) {
        let outage_ms = self.outage.ended(now()).map(|time| time.as_millis());
        self.refusals.ended(now());
        let endpoint = self.session.report().endpoint;
        tracing::info!(host_id, endpoint, outage_ms, "attached to the management server");
        self.agent.attached(host_id);
    }

    fn publish(&mut self) {
        let mut report = self.session.report();
        report.peer = self.connection.as_ref().and_then(|active| active.peer);
        self.shared.publish(report);
        let condition = self.session.condition();
        if condition != self.condition || self.condition.is_none() {
            match &condition {
                Some(reason) => self.shared.cx.health.set_condition(HEALTH_CONDITION, reason),
                None => self.shared.cx.health.clear_condition(HEALTH_CONDITION),
            }
        }
        self.condition = condition;
        let paused = self.is_paused();
        if paused && !self.paused {
            let in_flight = self.session.in_flight();
            tracing::warn!(in_flight, "too many commands in progress, reading no more for now");
        }
        self.paused = paused;
    }
}

async fn report_to(reports: &mpsc::Sender<Report>, report: Report) {
    if reports.send(report).await.is_err() {
        tracing::trace!("the link is not served any more");
    }
}

fn give(reply: Reply, outcome: Result<Envelope, LinkError>) {
    if reply.send(outcome).is_err() {
        tracing::trace!("nobody waits for the answer any more");
    }
}

fn machine_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "quickcloud".to_owned())
}

pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
