//! A host bound to a link: numbers the commands, finds the caller of an answer, and lets in-sequence
//! commands go one after the other.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_protocol::frame::NO_ID;
use agent_protocol::{Envelope, Flags, Frame, FrameHeader, Sequence};
use tokio::sync::oneshot;

use crate::link::Link;
use crate::random::{self, RandomError};
use crate::sync::lock;

/// In-sequence commands that may wait behind the current one.
const QUEUE_LIMIT: usize = 1024;

/// Why a command brought no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No agent is attached to that host.
    #[error("no agent is attached to host {0}")]
    Detached(String),
    /// The link was lost before the answer came.
    #[error("the agent's link was lost before it answered {class}")]
    Lost {
        /// Class of the command.
        class: String,
    },
    /// The answer did not come in time.
    #[error("the agent did not answer {class} within {waited:?}")]
    Timeout {
        /// Class of the command.
        class: String,
        /// How long was waited.
        waited: Duration,
    },
    /// Too many commands wait for their turn.
    #[error("too many commands wait for the agent, {class} is not queued")]
    Full {
        /// Class of the command.
        class: String,
    },
    /// The answer has a class or fields that do not fit.
    #[error("the agent answered {class} with {found}")]
    Unexpected {
        /// Class of the command.
        class: String,
        /// What came.
        found: String,
    },
}

/// A command whose answer is awaited.
#[derive(Debug)]
struct Pending {
    class: String,
    caller: oneshot::Sender<Vec<Envelope>>,
}

/// The order of commands of one attachment; holds no lock and waits for nothing.
#[derive(Debug)]
pub(crate) struct Order<T> {
    next: i64,
    current: Option<i64>,
    waiting: VecDeque<(i64, T)>,
    pending: HashMap<i64, Pending>,
    closed: bool,
}

/// What to do with a command that was just numbered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn<T> {
    /// It goes out now.
    Now(T),
    /// It waits behind the current in-sequence command.
    Later,
    /// The queue is full or the attachment is gone.
    Refused,
}

impl<T> Order<T> {
    /// Starts behind `base`, like the original with a random number in the upper 16 bits.
    pub(crate) fn new(base: i64) -> Self {
        Self {
            next: base,
            current: None,
            waiting: VecDeque::new(),
            pending: HashMap::new(),
            closed: false,
        }
    }

    /// Numbers a command, remembers who waits for its answer, and says when it goes out.
    pub(crate) fn enter(
        &mut self,
        in_sequence: bool,
        class: String,
        caller: oneshot::Sender<Vec<Envelope>>,
        build: impl FnOnce(i64) -> T,
    ) -> (i64, Turn<T>) {
        self.next = self.next.wrapping_add(1);
        let sequence = self.next;
        let queued = in_sequence && self.current.is_some();
        if self.closed || (queued && self.waiting.len() >= QUEUE_LIMIT) {
            return (sequence, Turn::Refused);
        }
        self.pending.insert(sequence, Pending { class, caller });
        let command = build(sequence);
        if queued {
            self.waiting.push_back((sequence, command));
            return (sequence, Turn::Later);
        }
        if in_sequence {
            self.current = Some(sequence);
        }
        (sequence, Turn::Now(command))
    }

    /// Hands an answer to its caller; false when nobody waits for that number.
    pub(crate) fn answer(&mut self, sequence: i64, answers: Vec<Envelope>) -> bool {
        match self.pending.remove(&sequence) {
            // A caller that gave up a moment ago is as good as one that is there.
            Some(pending) => {
                drop(pending.caller.send(answers));
                true
            }
            None => false,
        }
    }

    /// The next in-sequence command, after an answer with the in-sequence flag or a time-out of
    /// the current one.
    pub(crate) fn advance(&mut self) -> Option<T> {
        self.current = None;
        let (sequence, command) = self.waiting.pop_front()?;
        self.current = Some(sequence);
        Some(command)
    }

    /// Forgets a command whose caller gave up; the next one when it was the current one.
    pub(crate) fn forget(&mut self, sequence: i64) -> Option<T> {
        self.pending.remove(&sequence);
        self.waiting.retain(|(waiting, _)| *waiting != sequence);
        if self.current == Some(sequence) { self.advance() } else { None }
    }

    /// Wakes all callers without an answer and refuses new commands. What is returned went out and
    /// was not answered: class by sequence number.
    pub(crate) fn close(&mut self) -> Vec<(i64, String)> {
        self.closed = true;
        self.current = None;
        for (sequence, _) in self.waiting.drain(..) {
            self.pending.remove(&sequence);
        }
        let pending = self.pending.drain();
        let mut unanswered: Vec<_> =
            pending.map(|(sequence, pending)| (sequence, pending.class)).collect();
        unanswered.sort();
        unanswered
    }
}

/// A host's link, from the start-up command until the link is gone.
#[derive(Debug)]
pub(crate) struct Attachment {
    host_id: i64,
    management_id: i64,
    link: Arc<Link>,
    order: Mutex<Order<Frame>>,
}

impl Attachment {
    pub(crate) fn new(
        host_id: i64,
        management_id: i64,
        link: Arc<Link>,
    ) -> Result<Self, RandomError> {
        // Below 0x7fff in the upper bits, so that numbers stay positive for ever.
        let upper = i64::from(u16::from_be_bytes(random::bytes::<2>()?) % 0x7fff);
        Ok(Self { host_id, management_id, link, order: Mutex::new(Order::new(upper << 48)) })
    }

    pub(crate) fn host_id(&self) -> i64 {
        self.host_id
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Sends one command and waits for its answer.
    pub(crate) async fn request(
        &self,
        command: Envelope,
        in_sequence: bool,
        timeout: Duration,
    ) -> Result<Envelope, SendError> {
        let class = command.class.clone();
        let mut answers = self.request_all(&[command], in_sequence, timeout).await?;
        match (answers.pop(), answers.is_empty()) {
            (Some(answer), true) => Ok(answer),
            (last, _) => {
                let count = answers.len() + usize::from(last.is_some());
                Err(SendError::Unexpected { class, found: format!("{count} answers") })
            }
        }
    }

    /// Sends several commands in one message and waits for their answers.
    pub(crate) async fn request_all(
        &self,
        commands: &[Envelope],
        in_sequence: bool,
        timeout: Duration,
    ) -> Result<Vec<Envelope>, SendError> {
        let class = commands.first().map(|command| command.class.clone()).unwrap_or_default();
        let (caller, answer) = oneshot::channel();
        let frame = |sequence| Frame::new(self.header(sequence, in_sequence), commands);
        let (sequence, turn) = lock(&self.order).enter(in_sequence, class.clone(), caller, frame);
        match turn {
            Turn::Now(frame) => self.link.send(frame).await,
            Turn::Later => {}
            Turn::Refused if self.link.is_closed() => return Err(SendError::Lost { class }),
            Turn::Refused => return Err(SendError::Full { class }),
        }
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(answers)) => Ok(answers),
            Ok(Err(_)) => Err(SendError::Lost { class }),
            Err(_) => {
                let next = lock(&self.order).forget(sequence);
                if let Some(next) = next {
                    self.link.send(next).await;
                }
                Err(SendError::Timeout { class, waited: timeout })
            }
        }
    }

    /// Takes an answer off the link; false when nobody waits for it.
    pub(crate) async fn answered(&self, header: &FrameHeader, answers: Vec<Envelope>) -> bool {
        let (found, next) = {
            let mut order = lock(&self.order);
            let found = order.answer(header.sequence.0, answers);
            let moves_on = header.flags.contains(Flags::IN_SEQUENCE);
            (found, if moves_on { order.advance() } else { None })
        };
        if let Some(next) = next {
            self.link.send(next).await;
        }
        found
    }

    /// Wakes everybody who waits for an answer; returns the classes of what went out and was not
    /// answered, in the order of their numbers.
    pub(crate) fn close(&self) -> Vec<String> {
        lock(&self.order).close().into_iter().map(|(_, class)| class).collect()
    }

    fn header(&self, sequence: i64, in_sequence: bool) -> FrameHeader {
        let base = Flags::REQUEST | Flags::STOP_ON_ERROR | Flags::FROM_SERVER;
        FrameHeader {
            flags: if in_sequence { base | Flags::IN_SEQUENCE } else { base },
            sequence: Sequence(sequence),
            length: 0,
            management_id: self.management_id,
            agent_id: self.host_id,
            via: self.host_id,
        }
    }
}

/// Header of the message that refuses an agent: it belongs to no host and no server.
pub(crate) fn refusal_header() -> FrameHeader {
    FrameHeader {
        flags: Flags::REQUEST | Flags::STOP_ON_ERROR | Flags::IN_SEQUENCE,
        sequence: Sequence(NO_ID),
        length: 0,
        management_id: NO_ID,
        agent_id: NO_ID,
        via: NO_ID,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(order: &mut Order<i64>, in_sequence: bool) -> (i64, Turn<i64>) {
        order.enter(in_sequence, "C".to_owned(), oneshot::channel().0, |sequence| sequence)
    }

    #[test]
    fn numbers_start_behind_the_base() {
        let mut order = Order::new(5 << 48);
        assert_eq!(enter(&mut order, false), ((5 << 48) + 1, Turn::Now((5 << 48) + 1)));
        assert_eq!(enter(&mut order, false), ((5 << 48) + 2, Turn::Now((5 << 48) + 2)));
    }

    #[test]
    fn in_sequence_commands_wait_for_the_answer_of_the_current_one() {
        let mut order = Order::new(0);
        assert_eq!(enter(&mut order, true).1, Turn::Now(1));
        assert_eq!(enter(&mut order, true).1, Turn::Later);
        assert_eq!(enter(&mut order, false).1, Turn::Now(3));
        assert!(order.answer(3, Vec::new()));
        assert!(order.answer(1, Vec::new()));
        assert_eq!(order.advance(), Some(2));
        assert_eq!(order.advance(), None);
        assert_eq!(enter(&mut order, true).1, Turn::Now(4));
    }

    #[test]
    fn a_command_given_up_makes_room_for_the_next() {
        let mut order = Order::new(0);
        enter(&mut order, true);
        enter(&mut order, true);
        enter(&mut order, true);
        assert_eq!(order.forget(2), None);
        assert_eq!(order.forget(1), Some(3));
        assert!(!order.answer(1, Vec::new()));
    }

    #[test]
    fn after_the_end_nothing_is_taken() {
        let mut order = Order::new(0);
        let (caller, mut answer) = oneshot::channel();
        order.enter(true, "Sent".to_owned(), caller, |sequence| sequence);
        enter(&mut order, true);
        let (_, turn) = enter(&mut order, false);
        assert_eq!(turn, Turn::Now(3));
        assert!(order.answer(3, Vec::new()));
        assert_eq!(order.close(), [(1, "Sent".to_owned())], "2 never went out");
        assert!(matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        assert_eq!(enter(&mut order, false).1, Turn::Refused);
    }

    #[test]
    fn the_queue_has_a_bound() {
        let mut order = Order::new(0);
        enter(&mut order, true);
        for _ in 0..QUEUE_LIMIT {
            assert_eq!(enter(&mut order, true).1, Turn::Later);
        }
        assert_eq!(enter(&mut order, true).1, Turn::Refused);
    }
}
