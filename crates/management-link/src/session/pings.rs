//! Pings: which are unanswered, and what an answer says.

use agent_protocol::agent::PingAnswer;

use super::*;

/// So many pings in a row without an answer mean that the server is gone.
const UNANSWERED: usize = 3;

/// Pings of the current link.
#[derive(Debug, Default)]
pub(super) struct Pings {
    /// Sequence and time of those without an answer, oldest first.
    open: VecDeque<(i64, Instant)>,
    pub(super) last_sent: Option<Instant>,
    pub(super) last_answered: Option<Instant>,
    pub(super) round_trip: Option<Duration>,
}

impl Pings {
    fn sent(&mut self, sequence: i64, now: Instant) {
        if self.open.len() >= UNANSWERED {
            self.open.pop_front();
        }
        self.open.push_back((sequence, now));
        self.last_sent = Some(now);
    }

    /// When the ping with this number was sent. It and all before it count as answered.
    pub(super) fn answered(&mut self, sequence: i64, now: Instant) -> Option<Instant> {
        let position = self.open.iter().position(|(number, _)| *number == sequence)?;
        let (_, sent) = *self.open.get(position)?;
        self.open.drain(..=position);
        self.last_answered = Some(now);
        self.round_trip = Some(now.saturating_duration_since(sent));
        Some(sent)
    }

    /// What was sent until now does not count any more.
    pub(super) fn forgive(&mut self) {
        self.open.clear();
    }
}

impl Session {
    pub(super) fn wants_pings(&self) -> bool {
        matches!(self.state, State::AwaitingReady { .. } | State::Attached(_))
            && self.leave_at.is_none()
            && !self.is_leaving()
    }

    /// Pings go out from the startup answer on, since the server measures our silence from then;
    /// their answers count only once attached, since it does not answer before.
    pub(super) fn on_ping_due(&mut self, paused: bool, now: Instant, out: &mut Vec<Action>) {
        if !self.wants_pings() {
            return;
        }
        if paused {
            self.pings.forgive();
        }
        if self.is_attached() && self.pings.open.len() >= UNANSWERED {
            let error = format!("the management server left {UNANSWERED} pings unanswered");
            self.transferred = false;
            self.drop_link(error, false, now, out);
            return;
        }
        let sequence = self.next_sequence();
        self.pings.sent(sequence, now);
        out.push(Action::Ping { sequence, agent_id: self.agent_id() });
    }

    pub(super) fn on_ping_answer(
        &mut self,
        answer: Option<&Envelope>,
        sent: Instant,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let Some(envelope) = answer else { return };
        let Ok(answer) = envelope.open::<PingAnswer>() else {
            let details = envelope.answer_base().ok().and_then(|base| base.details);
            let class = envelope.simple_name().to_owned();
            out.push(Action::Note(Notice::OddPingAnswer { class, details }));
            return;
        };
        self.endpoints.avoid(answer.avoid_ms_list.as_deref().unwrap_or_default());
        let State::Attached(attachment) = &mut self.state else {
            if answer.send_startup {
                out.push(Action::Note(Notice::StartupWanted { honoured: false }));
            }
            return;
        };
        if !answer.send_startup {
            attachment.confirmed = true;
            return;
        }
        let honoured = sent >= attachment.settled_from;
        out.push(Action::Note(Notice::StartupWanted { honoured }));
        if honoured {
            let error = "the management server asked for a new startup".to_owned();
            self.transferred = false;
            self.drop_link(error, false, now, out);
        }
    }
}
