//! The stop: every command is answered before the link ends.
//!
//! ```text
//! Working ── nothing under way, the server has us Up ──────────────────────▶ Leaving ──▶ closed
//!    └── drain_timeout ──▶ GivenUp ── all answered, or goodbye_timeout ─────────▲  │ by the server,
//!                          (failures of the right class)                             or goodbye_timeout
//! ```
//!
//! A thread of the server that connects us holds the host's lock while it waits for an answer, half
//! an hour and more, and does not notice that the link has gone. So a stop in the middle of it keeps
//! taking and answering commands until both ready commands are answered. A goodbye before that
//! would leave the host Up for ever; after it there is always one.

use agent_protocol::Flags;
use agent_protocol::agent::ShutdownCommand;

use super::*;

impl Session {
    pub(super) fn on_shutdown(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.drain.is_some() {
            return;
        }
        let at_most = self.settings.limits.drain_timeout;
        let deadline = now + at_most;
        self.drain = Some(Drain { phase: Phase::Working, deadline, said_goodbye: false });
        // No other server any more.
        (self.check_at, self.migration, self.probe) = (None, None, None);
        if self.has_link() && !self.is_settled() {
            out.push(Action::Note(Notice::StopsLater { at_most }));
        }
    }

    /// Both ready commands are answered, or a ping said that the host is Up.
    fn is_settled(&self) -> bool {
        matches!(&self.state, State::Attached(attachment) if attachment.is_settled())
    }

    /// Takes the stop as far as it goes. Called after every event.
    pub(super) fn drain_further(&mut self, now: Instant, out: &mut Vec<Action>) {
        let settled = self.is_settled();
        let has_link = self.has_link();
        let Some(drain) = &mut self.drain else { return };
        if !has_link {
            self.close_for_good(out);
            return;
        }
        let late = drain.deadline <= now;
        let goodbye_timeout = self.settings.limits.goodbye_timeout;
        match drain.phase {
            Phase::Working if settled && self.in_flight == 0 => self.depart(now, out),
            Phase::Working if late => {
                let commands = self.in_flight_here;
                out.push(Action::Note(Notice::GivesUp { commands, ready: settled }));
                if commands == 0 {
                    self.depart(now, out);
                } else {
                    drain.phase = Phase::GivenUp;
                    drain.deadline = now + goodbye_timeout;
                    out.push(Action::GiveUp);
                }
            }
            Phase::GivenUp if late || self.in_flight_here == 0 => self.depart(now, out),
            Phase::Leaving if late => self.close_for_good(out),
            // The server made us ready at the last moment.
            Phase::Leaving => self.say_goodbye(out),
            Phase::Working | Phase::GivenUp => {}
        }
    }

    fn depart(&mut self, now: Instant, out: &mut Vec<Action>) {
        if let Some(drain) = &mut self.drain {
            drain.phase = Phase::Leaving;
            drain.deadline = now + self.settings.limits.goodbye_timeout;
        }
        self.say_goodbye(out);
    }

    fn say_goodbye(&mut self, out: &mut Vec<Action>) {
        let (agent_id, welcome) = (self.agent_id(), self.is_settled() && self.leave_at.is_none());
        if let Some(drain) = &mut self.drain
            && welcome
            && !drain.said_goodbye
        {
            drain.said_goodbye = true;
            let farewell = Envelope::of(&ShutdownCommand::stopped());
            out.push(Action::Goodbye(Frame::request(Flags::SHUTDOWN, -1, agent_id, &[farewell])));
        }
    }

    fn close_for_good(&mut self, out: &mut Vec<Action>) {
        match self.state {
            State::Closed => return,
            // The link is ended already.
            State::Disconnected { .. } | State::Refused { .. } => {}
            _ => self.end_link(out),
        }
        self.state = State::Closed;
        out.push(Action::Finished);
    }

    /// Whether commands are only refused: the link is about to end.
    pub(super) fn refuses_commands(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.phase != Phase::Working)
    }

    /// The server was told that we go, or is about to see it.
    pub(super) fn is_leaving(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.phase == Phase::Leaving)
    }
}
