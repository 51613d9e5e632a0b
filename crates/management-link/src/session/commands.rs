//! The commands that the session handles itself, before a role sees anything.

use agent_protocol::agent::{
    AgentCommand, AgentControlAnswer, CheckHealthAnswer, MaintainAnswer,
    MigrateAgentConnectionAnswer, MigrateAgentConnectionCommand, PlainAnswer, ReadyAnswer,
    ReadyCommand, SetupMSListAnswer, SetupMSListCommand, ShutdownCommand,
};
use agent_protocol::{Answer, failed_answer, unsupported};
use serde_json::value::RawValue;

use super::*;

impl Session {
    /// Handles or hands out the commands of one request. A single command that the session
    /// answers never waits behind a handler.
    pub(super) fn on_request(
        &mut self,
        header: &FrameHeader,
        commands: Vec<Envelope>,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        if !self.has_link() {
            not_taken(commands.first(), out);
            return;
        }
        self.progressed(now);
        let mut steps = Vec::with_capacity(commands.len());
        for command in commands {
            match self.plan(command, now, out) {
                Some(step) => steps.push(step),
                // The link is given up: nobody is left to answer.
                None => return,
            }
        }
        let answers: Vec<Envelope> = steps.iter().map_while(Step::answer).cloned().collect();
        if answers.len() == steps.len() && (answers.len() == 1 || self.refuses_commands()) {
            // Before anything that follows from it: the server waits for the answer.
            out.insert(0, Action::Send(Frame::response(header, &answers)));
            return;
        }
        self.in_flight += 1;
        self.in_flight_here += 1;
        out.push(Action::Dispatch(Work { link: self.link, header: *header, steps }));
    }

    /// `None` when the command ended the link.
    fn plan(&mut self, command: Envelope, now: Instant, out: &mut Vec<Action>) -> Option<Step> {
        let class = command.class.clone();
        let decoded = match AgentCommand::decode(command) {
            Ok(decoded) => decoded,
            Err(error) => {
                let error_text = error.to_string();
                out.push(Action::Note(Notice::BadBody { class: class.clone(), error: error_text }));
                let command = Envelope { class, body: RawValue::NULL.to_owned() };
                return Some(Step::Answered(failed_answer(&command, &error.to_string())));
            }
        };
        Some(match decoded {
            AgentCommand::Ready(command) => Step::Answered(self.on_ready(&command, now, out)?),
            AgentCommand::Shutdown(command) => {
                Step::Answered(self.on_server_shutdown(&command, now, out))
            }
            AgentCommand::Maintain(_) => {
                let answer = MaintainAnswer { will_migrate: true, ..MaintainAnswer::default() };
                Step::Answered(Envelope::of(&answer))
            }
            AgentCommand::CheckHealth(_) => {
                Step::Answered(Envelope::of(&CheckHealthAnswer::alive(true)))
            }
            AgentCommand::AgentControl(_) => {
                Step::Answered(Envelope::of(&AgentControlAnswer::default()))
            }
            other @ (AgentCommand::SetupKeyStore(_) | AgentCommand::SetupCertificate(_))
                if self.refuses_commands() =>
            {
                refused(&other.envelope(), out)
            }
            AgentCommand::SetupKeyStore(command) if command.handle_by_agent => {
                Step::MakeCertificateRequest
            }
            AgentCommand::SetupCertificate(command) if command.handle_by_agent => {
                Step::InstallCertificate(command)
            }
            AgentCommand::SetupMSList(command) => {
                Step::Answered(self.on_setup_list(&command, now, out))
            }
            AgentCommand::MigrateAgentConnection(command) => {
                Step::Answered(self.on_migrate(&command, now, out))
            }
            other @ (AgentCommand::SetupKeyStore(_)
            | AgentCommand::SetupCertificate(_)
            | AgentCommand::PostCertificateRenewal(_)
            | AgentCommand::RollingMaintenance(_)
            | AgentCommand::SetHostParams(_)) => Step::Answered(unsupported(&other.envelope())),
            AgentCommand::Unknown(envelope) if self.refuses_commands() => refused(&envelope, out),
            AgentCommand::Unknown(envelope) => Step::Agent(envelope),
        })
    }

    fn on_ready(
        &mut self,
        command: &ReadyCommand,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Option<Envelope> {
        if let Some(details) = &command.details {
            self.refused(details.clone(), now, out);
            return None;
        }
        let host_id = command.host_id.filter(|id| *id > 0);
        match (&mut self.state, host_id) {
            (State::Attached(attachment), _) => {
                attachment.readies += 1;
                attachment.settled_from = attachment.settled_from.min(now);
            }
            (_, Some(host_id)) => self.attach(host_id, now, out),
            (_, None) => {
                let error = "the management server sent a ready command without a host id";
                self.drop_link(error.to_owned(), true, now, out);
                return None;
            }
        }
        let before = self.identity.clone();
        if host_id.is_some() {
            self.identity.host_id = host_id;
            self.identity.host_uuid.clone_from(&command.host_uuid);
            self.identity.host_name.clone_from(&command.host_name);
        }
        let (list, avoid) = (&command.ms_host_list, &command.avoid_ms_host_list);
        self.take_lists(list.as_deref(), command.lb_algorithm.as_deref(), avoid.as_deref(), out);
        self.rearm_check(command.lb_check_interval, now);
        self.persist_if_changed(&before, out);
        Some(Envelope::of(&ReadyAnswer::default()))
    }

    fn attach(&mut self, host_id: i64, now: Instant, out: &mut Vec<Action>) {
        let interval = *self.ping_interval.get_or_insert(PING_INTERVAL);
        if matches!(self.state, State::AwaitingStartupAnswer { .. }) {
            out.push(Action::RememberServer);
        }
        self.state = State::Attached(Attachment {
            since: now,
            readies: 1,
            settled_from: now + interval,
            confirmed: false,
        });
        self.pings.forgive();
        self.backoff.reset();
        self.last_error = None;
        self.stalled = false;
        if let Some(endpoint) = &self.endpoint {
            self.endpoints.attached(endpoint);
        }
        out.push(Action::Attached { host_id });
    }

    /// Servers to use and to avoid, as three commands bring them; an absent list to avoid is empty.
    fn take_lists(
        &mut self,
        hosts: Option<&[String]>,
        algorithm: Option<&str>,
        avoid: Option<&[String]>,
        out: &mut Vec<Action>,
    ) {
        self.endpoints.avoid(avoid.unwrap_or_default());
        if self.endpoints.replace(hosts.unwrap_or_default(), algorithm) {
            let list = self.endpoints.reported();
            out.push(Action::Note(Notice::ServerList { list }));
        }
        if self.endpoints.is_learned() {
            self.identity.server_list = Some(self.endpoints.reported());
        }
    }

    pub(super) fn persist_if_changed(&self, before: &Identity, out: &mut Vec<Action>) {
        if self.identity != *before {
            out.push(Action::Persist(self.identity.clone()));
        }
    }

    fn on_setup_list(
        &mut self,
        command: &SetupMSListCommand,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Envelope {
        let before = self.identity.clone();
        let (list, avoid) = (&command.ms_list, &command.avoid_ms_list);
        self.take_lists(list.as_deref(), command.lb_algorithm.as_deref(), avoid.as_deref(), out);
        self.persist_if_changed(&before, out);
        if self.is_attached() && self.drain.is_none() {
            self.rearm_check(command.lb_check_interval, now);
            if command.trigger_host_lb {
                self.check_preferred(out);
            }
        }
        Envelope::of(&SetupMSListAnswer::default())
    }

    fn on_migrate(
        &mut self,
        command: &MigrateAgentConnectionCommand,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Envelope {
        let before = self.identity.clone();
        let (list, avoid) = (&command.ms_list, &command.avoid_ms_list);
        self.take_lists(list.as_deref(), command.lb_algorithm.as_deref(), avoid.as_deref(), out);
        self.persist_if_changed(&before, out);
        let candidates = match &self.endpoint {
            Some(current) if self.is_attached() && self.drain.is_none() => {
                self.endpoints.candidates(current)
            }
            _ => VecDeque::new(),
        };
        if candidates.is_empty() {
            out.push(Action::Note(Notice::Stays));
            let details = "no other management server is known".to_owned();
            return Envelope::of(&MigrateAgentConnectionAnswer::failed(details));
        }
        self.probe = None;
        self.migration = Some((now + self.settings.limits.migration_delay, candidates));
        Envelope::of(&MigrateAgentConnectionAnswer::default())
    }

    /// Running work goes on; pings stop, the server closes the link or we do.
    fn on_server_shutdown(
        &mut self,
        command: &ShutdownCommand,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Envelope {
        let reason = command.reason.clone().unwrap_or_default();
        out.push(Action::Note(Notice::Deleted { reason }));
        let before = self.identity.clone();
        self.identity.host_id = None;
        self.persist_if_changed(&before, out);
        self.leave_at = Some(now + self.settings.limits.backoff);
        Envelope::of(&PlainAnswer::success())
    }
}

/// What becomes of a command when the role has no time left for it.
pub(crate) const STOPPING: &str = "this agent is stopping, try again when it is back";

fn refused(command: &Envelope, out: &mut Vec<Action>) -> Step {
    not_taken(Some(command), out);
    Step::Answered(failed_answer(command, STOPPING))
}

fn not_taken(command: Option<&Envelope>, out: &mut Vec<Action>) {
    let class = command.map(|command| command.simple_name().to_owned()).unwrap_or_default();
    out.push(Action::Note(Notice::NotTaken { class }));
}
