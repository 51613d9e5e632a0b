//! The session with the management server as a value: an event in, actions out, no clock, no
//! socket, no task.
//!
//! ```text
//!              timer                   TCP + TLS                  startup answer
//! Disconnected ─────▶ Connecting ───────────────▶ AwaitingStartup ──────────────▶ AwaitingReady
//!   ▲  ▲  ▲               │ failed                 Answer │                         │     │
//!   │  │  └───────────────┘                               │ refused, closed,        │     │ ready with
//!   │  │                                                  │ 60 s                    │     │ host id
//!   │  └──────────────────────────────────────────────────┴─────────────────────────┘     ▼
//!   │          closed, 3 pings unanswered, sendStartup, migration, preferred server      Attached
//!   └─────────────────────────────────────────────────────────────────────────────────────│  │
//!   Refused ◀── ready with details (any state with a link); growing wait, then Connecting ─┘  │
//!                                                                                      shutdown
//!   Closed ◀── the link ended ── any state that drains ◀───────────────────────────────────────┘
//! ```
//!
//! A stop is not a state but lies over them ([`drain`]): a link that the server is still making us
//! ready on goes on until it has, because the server would wait up to an hour for an answer that
//! never comes.
//!
//! What the server does that a naive machine gets wrong, each with a test below:
//!
//! * the startup answer comes before the server has looked at the host: id 0, only the ping
//!   interval counts; our identity comes with the ready command;
//! * the ready command comes twice, both are answered, and either may bring lists; with details it
//!   is a refusal and must not be answered; with neither details nor host id it is a failure;
//! * commands come before the ready command and are handled;
//! * `sendStartup` means nothing while the server is still connecting us, and a new link later;
//! * after a loss in the middle of connecting, the server may stay silent for a minute or two, and
//!   for an hour when a command of the connect phase was left without its answer: the link is kept
//!   two minutes, and the cause is said after one;
//! * a second agent with our guid makes the server close our link without a word;
//! * the goodbye is said only when the server has us Up: before, it would leave the host Up for
//!   ever.

mod commands;
mod drain;
mod event;
mod facts;
mod moving;
mod pings;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use agent_protocol::agent::StartupAnswer;
use agent_protocol::{Envelope, Frame, FrameHeader};
use role::{LinkReport, LinkState};

pub(crate) use commands::STOPPING;
pub(crate) use event::{Action, Event, Notice, Step, Work};

use crate::agent::StartupFacts;
use crate::config::LinkLimits;
use crate::endpoints::{Backoff, Endpoint, Endpoints};
use crate::state::Identity;
use event::{Attachment, Drain, Phase, Probe, State};
use pings::Pings;

/// Stock interval, used when the server gives none that makes sense.
const PING_INTERVAL: Duration = Duration::from_secs(60);
/// A link that the server closes this soon after attaching was probably taken over.
const TAKEOVER_AGE: Duration = Duration::from_secs(30);
/// So many of them within a minute are not an accident.
const TAKEOVERS: usize = 3;
const TAKEOVER_WINDOW: Duration = Duration::from_secs(60);

/// What a session needs to know once.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) guid: String,
    pub(crate) zone: String,
    pub(crate) pod: String,
    pub(crate) version: String,
    pub(crate) limits: LinkLimits,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Session {
    settings: Settings,
    endpoints: Endpoints,
    backoff: Backoff,
    identity: Identity,
    state: State,
    /// The server in use or tried last.
    endpoint: Option<Endpoint>,
    /// Counts connection attempts, so that late reports of an old link are told apart.
    link: u64,
    /// Of our own requests; goes on across links.
    sequence: i64,
    startup_sequence: i64,
    ping_interval: Option<Duration>,
    pings: Pings,
    /// Commands being worked on, on all links and on the current one.
    in_flight: usize,
    in_flight_here: usize,
    /// As the server wants it; the local setting wins.
    check_interval: Duration,
    check_at: Option<Instant>,
    migration: Option<(Instant, VecDeque<Endpoint>)>,
    probe: Option<Probe>,
    /// Where the next attempt goes instead of the next server of the list.
    forced: Option<Endpoint>,
    transferred: bool,
    /// The server deleted our host: when we close if it does not.
    leave_at: Option<Instant>,
    /// The role stops.
    drain: Option<Drain>,
    /// Nothing came for so long that the cause is known; until attached.
    stalled: bool,
    takeovers: VecDeque<Instant>,
    last_error: Option<String>,
}

impl Session {
    /// `seed` spreads the waits of agents that start together.
    pub(crate) fn new(
        settings: Settings,
        mut endpoints: Endpoints,
        identity: Identity,
        seed: u64,
        now: Instant,
    ) -> Self {
        if let Some(list) = &identity.server_list {
            endpoints.restore(list);
        }
        let limits = &settings.limits;
        Self {
            backoff: Backoff::new(limits.backoff, limits.refusal_backoff, seed),
            settings,
            endpoints,
            identity,
            state: State::Disconnected { retry_at: now },
            endpoint: None,
            link: 0,
            sequence: 0,
            startup_sequence: 0,
            ping_interval: None,
            pings: Pings::default(),
            in_flight: 0,
            in_flight_here: 0,
            check_interval: Duration::ZERO,
            check_at: None,
            migration: None,
            probe: None,
            forced: None,
            transferred: false,
            leave_at: None,
            drain: None,
            stalled: false,
            takeovers: VecDeque::new(),
            last_error: None,
        }
    }

    /// Takes one event and says what to do about it, in order.
    pub(crate) fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut out = Vec::new();
        match event {
            Event::Timer => self.on_timer(now, &mut out),
            Event::Connected => self.on_connected(now, &mut out),
            Event::ConnectFailed { error } => self.on_connect_failed(error, now, &mut out),
            Event::Request { header, commands } => {
                self.on_request(&header, commands, now, &mut out);
            }
            Event::Response { header, answers } => {
                self.on_response(&header, answers, now, &mut out);
            }
            Event::PingDue { paused } => self.on_ping_due(paused, now, &mut out),
            Event::Lost { error, by_peer } => self.on_lost(error, by_peer, now, &mut out),
            Event::CommandDone { link } => self.on_command_done(link, now),
            Event::ProbeDone { endpoint, reachable } => {
                self.on_probe_done(&endpoint, reachable, now, &mut out);
            }
            Event::Reconfigured { servers, port, limits } => {
                self.on_reconfigured(&servers, port, limits, now, &mut out);
            }
            Event::Shutdown => self.on_shutdown(now, &mut out),
        }
        self.drain_further(now, &mut out);
        out
    }

    /// When [`Event::Timer`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let of_state = match &self.state {
            State::Disconnected { retry_at } | State::Refused { retry_at } => Some(*retry_at),
            State::AwaitingStartupAnswer { deadline } => Some(*deadline),
            State::AwaitingReady { deadline, stalls_at } => {
                Some(stalls_at.map_or(*deadline, |at| at.min(*deadline)))
            }
            State::Attached(_) => {
                let migrate_at = self.migration.as_ref().map(|(at, _)| *at);
                [self.check_at, migrate_at, self.leave_at].into_iter().flatten().min()
            }
            State::Connecting | State::Closed => None,
        };
        let of_drain = self.drain.as_ref().filter(|_| self.has_link()).map(|drain| drain.deadline);
        [of_state, of_drain].into_iter().flatten().min()
    }

    /// The number of the next request of ours.
    pub(crate) fn next_sequence(&mut self) -> i64 {
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1).max(0);
        sequence
    }

    fn on_timer(&mut self, now: Instant, out: &mut Vec<Action>) {
        match &self.state {
            State::Disconnected { retry_at } | State::Refused { retry_at } if *retry_at <= now => {
                self.connect(out);
            }
            State::AwaitingStartupAnswer { deadline } if *deadline <= now => {
                let error = "the management server did not answer the startup command";
                self.drop_link(error.to_owned(), true, now, out);
            }
            State::AwaitingReady { .. } if self.in_flight_here > 0 => self.progressed(now),
            State::AwaitingReady { deadline, stalls_at } => {
                let (late, stalled) = (*deadline <= now, stalls_at.is_some_and(|at| at <= now));
                if stalled {
                    self.on_stall(out);
                }
                if late {
                    let error = self.last_error.clone().filter(|_| self.stalled);
                    let plain = "the management server did not make us ready in time";
                    self.drop_link(error.unwrap_or_else(|| plain.to_owned()), true, now, out);
                }
            }
            State::Attached(_) => self.on_attached_timer(now, out),
            _ => {}
        }
    }

    /// Nothing came since the startup answer or the last command.
    fn on_stall(&mut self, out: &mut Vec<Action>) {
        if let State::AwaitingReady { stalls_at, .. } = &mut self.state {
            *stalls_at = None;
        }
        let silence = self.settings.limits.stall_timeout;
        let guid = &self.settings.guid;
        let error = format!(
            "registering without progress for {silence:?}: the management server took our startup \
             and is silent since; as a rule it still waits, for up to an hour, for an answer that \
             an earlier process with the guid {guid} owed when it was killed; restart the \
             management server, or register with another guid"
        );
        out.push(Action::Note(Notice::Stalled { error: error.clone() }));
        self.last_error = Some(error);
        self.stalled = true;
    }

    fn connect(&mut self, out: &mut Vec<Action>) {
        let Some(endpoint) = self.forced.take().or_else(|| self.endpoints.next()) else { return };
        self.link += 1;
        self.in_flight_here = 0;
        self.leave_at = None;
        self.endpoint = Some(endpoint.clone());
        self.state = State::Connecting;
        out.push(Action::Connect { link: self.link, endpoint });
    }

    fn on_connected(&mut self, now: Instant, out: &mut Vec<Action>) {
        if !matches!(self.state, State::Connecting) {
            return;
        }
        self.pings = Pings::default();
        self.startup_sequence = self.next_sequence();
        let deadline = now + self.settings.limits.startup_timeout;
        self.state = State::AwaitingStartupAnswer { deadline };
        let facts = StartupFacts {
            guid: self.settings.guid.clone(),
            zone: self.settings.zone.clone(),
            pod: self.settings.pod.clone(),
            version: self.settings.version.clone(),
            host_id: self.identity.host_id,
            ms_host_list: self.endpoints.reported(),
            connection_transferred: std::mem::take(&mut self.transferred),
            arch: facts::arch(),
        };
        let (sequence, agent_id) = (self.startup_sequence, self.agent_id());
        out.push(Action::Startup { sequence, agent_id, facts: Box::new(facts) });
    }

    fn on_connect_failed(&mut self, error: String, now: Instant, out: &mut Vec<Action>) {
        if !matches!(self.state, State::Connecting) {
            return;
        }
        let wait = self.backoff.after_loss();
        out.push(Action::Note(Notice::ConnectFailed { error: error.clone(), retry_in: wait }));
        self.last_error = Some(error);
        self.state = State::Disconnected { retry_at: now + wait };
    }

    fn on_response(
        &mut self,
        header: &FrameHeader,
        answers: Vec<Envelope>,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        if !self.has_link() {
            return;
        }
        let sequence = header.sequence.0;
        if sequence == self.startup_sequence {
            self.on_startup_answer(answers.first(), now, out);
        } else if let Some(sent) = self.pings.answered(sequence, now) {
            self.on_ping_answer(answers.first(), sent, now, out);
        } else {
            out.push(Action::Deliver { sequence, answers });
        }
    }

    fn on_startup_answer(
        &mut self,
        answer: Option<&Envelope>,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let refusal = match answer.map(|answer| (answer, answer.open::<StartupAnswer>())) {
            Some((_, Ok(answer))) if answer.base.result => {
                let seconds = u64::try_from(answer.ping_interval).unwrap_or(0);
                let interval = Duration::from_secs(seconds);
                self.ping_interval =
                    Some(if interval.is_zero() { PING_INTERVAL } else { interval });
                if matches!(self.state, State::AwaitingStartupAnswer { .. }) {
                    self.state = State::AwaitingReady { deadline: now, stalls_at: None };
                    self.progressed(now);
                    out.push(Action::RememberServer);
                }
                return;
            }
            Some((_, Ok(answer))) => answer.base.details.unwrap_or_default(),
            Some((answer, Err(_other))) => {
                let details = answer.answer_base().ok().and_then(|base| base.details);
                details.unwrap_or_else(|| format!("startup answered by {}", answer.simple_name()))
            }
            None => "startup answered by nothing".to_owned(),
        };
        self.refused(refusal, now, out);
    }

    /// The server's words for why it does not want us.
    fn refused(&mut self, details: String, now: Instant, out: &mut Vec<Action>) {
        let wait = self.backoff.after_refusal();
        self.note_loss(out, Notice::Refused { details: details.clone(), retry_in: wait });
        self.last_error = Some(format!("the management server refused us: {details}"));
        self.end_link(out);
        self.state = State::Refused { retry_at: now + wait };
    }

    fn on_lost(&mut self, error: String, by_peer: bool, now: Instant, out: &mut Vec<Action>) {
        self.transferred = false;
        match &self.state {
            // Somebody else's turn: we are going.
            State::Attached(_) if self.drain.is_some() => self.drop_link(error, false, now, out),
            State::Attached(_) if self.leave_at.is_some() => self.leave(now, out),
            State::Attached(attachment) => {
                let age = now.saturating_duration_since(attachment.since);
                let error = if by_peer && age < TAKEOVER_AGE && self.is_taken_over(now) {
                    out.push(Action::Note(Notice::TakenOver));
                    let guid = &self.settings.guid;
                    format!(
                        "another agent uses our guid {guid}: the management server closed the \
                         link right after attaching {TAKEOVERS} times within a minute; stop one \
                         of the two, or give it a guid of its own"
                    )
                } else {
                    error
                };
                self.drop_link(error, false, now, out);
            }
            State::AwaitingStartupAnswer { .. } | State::AwaitingReady { .. } => {
                self.drop_link(format!("{error} before we were ready"), true, now, out);
            }
            State::Disconnected { .. }
            | State::Connecting
            | State::Refused { .. }
            | State::Closed => {}
        }
    }

    fn is_taken_over(&mut self, now: Instant) -> bool {
        self.takeovers.push_back(now);
        while let Some(first) = self.takeovers.front()
            && (now.saturating_duration_since(*first) > TAKEOVER_WINDOW
                || self.takeovers.len() > TAKEOVERS)
        {
            self.takeovers.pop_front();
        }
        self.takeovers.len() >= TAKEOVERS
    }

    /// Ends the link for a reason of ours or because it ended; waits, growing when the server
    /// seems not to want us.
    fn drop_link(&mut self, error: String, growing: bool, now: Instant, out: &mut Vec<Action>) {
        let wait = if growing { self.backoff.after_refusal() } else { self.backoff.after_loss() };
        self.note_loss(out, Notice::Lost { error: error.clone(), retry_in: wait });
        self.last_error = Some(error);
        self.end_link(out);
        self.state = State::Disconnected { retry_at: now + wait };
    }

    /// Leaves the link; the caller sets the next state.
    fn end_link(&mut self, out: &mut Vec<Action>) {
        out.push(Action::Close);
        if matches!(self.state, State::Attached(_)) {
            out.push(Action::Detached);
        }
        self.ping_interval = None;
        self.check_at = None;
        self.migration = None;
        self.probe = None;
        self.leave_at = None;
        self.in_flight_here = 0;
    }

    fn on_command_done(&mut self, link: u64, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if link == self.link {
            self.in_flight_here = self.in_flight_here.saturating_sub(1);
            self.progressed(now);
        }
    }

    /// The server still works on connecting us.
    fn progressed(&mut self, now: Instant) {
        if let State::AwaitingReady { deadline, stalls_at } = &mut self.state {
            *deadline = now + self.settings.limits.ready_timeout;
            *stalls_at = Some(now + self.settings.limits.stall_timeout);
        }
    }

    /// Nothing is tried again once the role stops.
    fn note_loss(&self, out: &mut Vec<Action>, notice: Notice) {
        if self.drain.is_none() {
            out.push(Action::Note(notice));
        }
    }

    fn on_attached_timer(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.leave_at.is_some_and(|at| at <= now) {
            self.leave(now, out);
            return;
        }
        if self.check_at.is_some_and(|at| at <= now) {
            let interval = self.effective_check_interval();
            self.check_at =
                (!self.endpoints.is_shuffled() && !interval.is_zero()).then(|| now + interval);
            self.check_preferred(out);
        }
        if let Some((at, _)) = &self.migration
            && *at <= now
            && let Some((_, candidates)) = self.migration.take()
        {
            self.probe = Some(Probe::Migration(candidates));
            self.probe_next(out);
        }
    }

    /// The server deleted our host: come back slowly, as a new one.
    fn leave(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.last_error = Some("the management server deleted our host".to_owned());
        self.end_link(out);
        self.state = State::Refused { retry_at: now + self.backoff.longest() };
    }

    fn has_link(&self) -> bool {
        matches!(
            self.state,
            State::AwaitingStartupAnswer { .. } | State::AwaitingReady { .. } | State::Attached(_)
        )
    }

    /// For the headers of our requests.
    pub(crate) fn agent_id(&self) -> i64 {
        self.identity.host_id.unwrap_or(agent_protocol::frame::NO_ID)
    }

    pub(crate) fn is_attached(&self) -> bool {
        matches!(self.state, State::Attached(_))
    }

    /// Commands being worked on.
    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }
}

#[cfg(test)]
mod tests;
