//! Faults for tests: rules say at which point of a link's life what goes wrong, for one guid or for
//! all, a limited number of times; they can be changed while the server runs.

use std::sync::Mutex;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::sync::lock;

/// Where a fault can strike. Class names are full ones, as the protocol crate's constants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Point {
    /// After accept, before TLS; the guid is not known yet.
    Accepted,
    /// After the TLS handshake; the guid is not known yet.
    Secured,
    /// The start-up command was read, nothing is answered yet.
    Startup,
    /// The start-up command was answered, nothing else is done yet.
    StartupAnswered,
    /// Before a command of this class is sent.
    Command(String),
    /// After a command of this class was answered.
    Answered(String),
    /// The host is up and the last command of the connect phase is answered.
    Up,
    /// A ping was read.
    Ping,
    /// Another request of the agent was read.
    Control,
}

/// What goes wrong.
#[derive(Debug, Clone)]
pub enum Action {
    /// The socket is closed.
    Close,
    /// The socket is reset.
    Reset,
    /// The server pauses.
    Delay(Duration),
    /// The server pauses until the gate opens.
    Hold(Gate),
    /// The agent is refused with this text; only useful at [`Point::Startup`] and
    /// [`Point::StartupAnswered`].
    Refuse(String),
    /// What was to be sent next is not sent: the command, or the answer to what was read.
    Swallow,
    /// From now on nothing is sent; what comes is read and thrown away.
    Silence,
    /// From now on nothing is read or sent.
    Stall,
    /// So many requests of an unknown class, each with so many bytes of ballast, are sent in one
    /// go.
    Flood {
        /// Number of requests.
        messages: usize,
        /// Bytes of ballast in each.
        bytes: usize,
    },
    /// Broken bytes are sent.
    Malformed(Malformation),
    /// The answer to what was read carries a foreign sequence number.
    WrongSequence,
    /// The answer to a ping asks for a new start-up command.
    AskForStartup,
}

/// Kinds of broken bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformation {
    /// A packet header that announces more bytes than a packet may have.
    PacketTooLong,
    /// A packet header whose length reads as negative.
    PacketNegative,
    /// A well-formed packet without a TLS record in it.
    NoRecord,
    /// A packet that holds half a TLS record, the next one the rest.
    CutRecord,
    /// A message shorter than its header.
    ShortFrame,
    /// A message with an unknown version byte.
    UnknownVersion,
    /// A body that is not JSON.
    NotJson,
    /// A body that is an array of something else than envelopes.
    NotEnvelopes,
    /// A compressed flag on a body that is not compressed.
    NotCompressed,
    /// A compressed body whose inflated size is not the announced one.
    WrongLength,
    /// A compressed body that announces 1 MiB and inflates to 256 MiB.
    Bomb,
}

impl Malformation {
    /// All of them, for tests that try each.
    pub const ALL: [Self; 11] = [
        Self::PacketTooLong,
        Self::PacketNegative,
        Self::NoRecord,
        Self::CutRecord,
        Self::ShortFrame,
        Self::UnknownVersion,
        Self::NotJson,
        Self::NotEnvelopes,
        Self::NotCompressed,
        Self::WrongLength,
        Self::Bomb,
    ];
}

/// A gate that a test opens.
#[derive(Debug, Clone, Default)]
pub struct Gate(CancellationToken);

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens it for good.
    pub fn open(&self) {
        self.0.cancel();
    }

    pub(crate) async fn opened(&self) {
        self.0.cancelled().await;
    }
}

/// One rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The agent concerned; `None` for every agent.
    pub guid: Option<String>,
    /// Where it strikes.
    pub point: Point,
    /// What happens.
    pub action: Action,
    /// How many times; `None` for always.
    pub times: Option<u32>,
}

/// The faults of one server; empty means a well-behaved server.
#[derive(Debug, Default)]
pub struct Script {
    rules: Mutex<Vec<Rule>>,
}

impl Script {
    /// Adds a rule behind the others.
    pub fn add(&self, rule: Rule) {
        lock(&self.rules).push(rule);
    }

    /// Adds a rule for every agent that strikes once.
    pub fn once(&self, point: Point, action: Action) {
        self.add(Rule { guid: None, point, action, times: Some(1) });
    }

    /// Adds a rule for every agent that strikes always.
    pub fn always(&self, point: Point, action: Action) {
        self.add(Rule { guid: None, point, action, times: None });
    }

    /// Removes all rules.
    pub fn clear(&self) {
        lock(&self.rules).clear();
    }

    /// Takes the actions due at a point, in the order of the rules.
    pub(crate) fn take(&self, guid: Option<&str>, point: &Point) -> Vec<Action> {
        let mut rules = lock(&self.rules);
        let mut actions = Vec::new();
        for rule in rules.iter_mut() {
            let concerned = rule.guid.as_deref().is_none_or(|wanted| Some(wanted) == guid);
            if !concerned || rule.point != *point {
                continue;
            }
            match &mut rule.times {
                Some(0) => continue,
                Some(times) => *times -= 1,
                None => {}
            }
            actions.push(rule.action.clone());
        }
        rules.retain(|rule| rule.times != Some(0));
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_strike_their_guid_and_their_number_of_times() {
        let script = Script::default();
        script.once(Point::Ping, Action::Swallow);
        script.add(Rule {
            guid: Some("a".to_owned()),
            point: Point::Ping,
            action: Action::Close,
            times: Some(2),
        });
        assert_eq!(script.take(Some("b"), &Point::Up).len(), 0);
        assert_eq!(script.take(Some("b"), &Point::Ping).len(), 1);
        assert_eq!(script.take(Some("b"), &Point::Ping).len(), 0);
        assert_eq!(script.take(None, &Point::Ping).len(), 0);
        assert_eq!(script.take(Some("a"), &Point::Ping).len(), 1);
        assert_eq!(script.take(Some("a"), &Point::Ping).len(), 1);
        assert_eq!(script.take(Some("a"), &Point::Ping).len(), 0);
    }
}
