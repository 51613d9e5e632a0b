//! What can happen to a session, what it wants done, and the states it knows.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use agent_protocol::agent::SetupCertificateCommand;
use agent_protocol::{Envelope, Frame, FrameHeader};
use bedrock::net::HostPort;

use crate::agent::StartupFacts;
use crate::config::LinkLimits;
use crate::endpoints::Endpoint;
use crate::state::Identity;

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// [`super::Session::deadline`] has passed.
    Timer,
    /// TCP and TLS stand.
    Connected,
    ConnectFailed {
        error: String,
    },
    /// A message of the server that wants an answer.
    Request {
        header: FrameHeader,
        commands: Vec<Envelope>,
    },
    /// A message of the server that answers one of ours.
    Response {
        header: FrameHeader,
        answers: Vec<Envelope>,
    },
    /// The heartbeat wants a ping. `paused`: nothing was read meanwhile, so that missing answers
    /// prove nothing.
    PingDue {
        paused: bool,
    },
    /// The link has ended. `by_peer`: the server or the network did it.
    Lost {
        error: String,
        by_peer: bool,
    },
    /// A command handed out by [`Action::Dispatch`] on that link is answered.
    CommandDone {
        link: u64,
    },
    ProbeDone {
        endpoint: Endpoint,
        reachable: bool,
    },
    /// Other servers and limits are configured.
    Reconfigured {
        servers: Vec<HostPort>,
        port: u16,
        limits: LinkLimits,
    },
    /// The role stops.
    Shutdown,
}

/// What to do, in order.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    Connect {
        link: u64,
        endpoint: Endpoint,
    },
    Startup {
        sequence: i64,
        agent_id: i64,
        facts: Box<StartupFacts>,
    },
    Ping {
        sequence: i64,
        agent_id: i64,
    },
    /// An answer of the session itself.
    Send(Frame),
    Dispatch(Work),
    /// An answer to somebody's request, if he still waits.
    Deliver {
        sequence: i64,
        answers: Vec<Envelope>,
    },
    /// Try a TCP connect and report [`Event::ProbeDone`].
    Probe {
        endpoint: Endpoint,
    },
    /// The server speaks the protocol: remember its certificate if it is the first.
    RememberServer,
    Persist(Identity),
    Attached {
        host_id: i64,
    },
    Detached,
    /// The role stops and waits no longer: answer every command under way now, with a failure where
    /// there is nothing better, and report each as done.
    GiveUp,
    /// Send after everything else that is queued.
    Goodbye(Frame),
    /// End the connection once what is queued is written, or drop the attempt.
    Close,
    /// Nothing will follow.
    Finished,
    Note(Notice),
}

/// The commands of one request, to be run in order and answered together.
#[derive(Debug, PartialEq)]
pub(crate) struct Work {
    pub(crate) link: u64,
    pub(crate) header: FrameHeader,
    pub(crate) steps: Vec<Step>,
}

/// How one command gets its answer.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// The session knew it.
    Answered(Envelope),
    /// The role handles it.
    Agent(Envelope),
    MakeCertificateRequest,
    InstallCertificate(Box<SetupCertificateCommand>),
}

impl Step {
    /// The answer, when the session knew it.
    pub(crate) const fn answer(&self) -> Option<&Envelope> {
        match self {
            Self::Answered(answer) => Some(answer),
            Self::Agent(_) | Self::MakeCertificateRequest | Self::InstallCertificate(_) => None,
        }
    }
}

/// Something to be logged.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Notice {
    ConnectFailed {
        error: String,
        retry_in: Duration,
    },
    Lost {
        error: String,
        retry_in: Duration,
    },
    Refused {
        details: String,
        retry_in: Duration,
    },
    TakenOver,
    Moves {
        endpoint: Endpoint,
        why: &'static str,
    },
    /// A migration found no server to go to.
    Stays,
    ServerList {
        list: String,
    },
    StartupWanted {
        honoured: bool,
    },
    /// The ping was answered by something else; still a sign of life.
    OddPingAnswer {
        class: String,
        details: Option<String>,
    },
    /// The server deleted our host.
    Deleted {
        reason: String,
    },
    /// A command came when the link was ending: it is refused, or there is nobody to answer.
    NotTaken {
        class: String,
    },
    /// The server took the startup command, and then nothing came.
    Stalled {
        error: String,
    },
    /// The role stops while the server still connects us.
    StopsLater {
        at_most: Duration,
    },
    /// The bound of the stop is reached.
    GivesUp {
        commands: usize,
        ready: bool,
    },
    /// A command of the session has a body that cannot be read.
    BadBody {
        class: String,
        error: String,
    },
}

#[derive(Debug)]
pub(super) enum State {
    Disconnected {
        retry_at: Instant,
    },
    Connecting,
    AwaitingStartupAnswer {
        deadline: Instant,
    },
    /// `stalls_at`: when silence becomes worth a word; `None` once it is said.
    AwaitingReady {
        deadline: Instant,
        stalls_at: Option<Instant>,
    },
    Attached(Attachment),
    Refused {
        retry_at: Instant,
    },
    Closed,
}

/// Being registered and ready.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) since: Instant,
    /// Ready commands answered.
    pub(super) readies: u32,
    /// A `sendStartup` in answer to a ping sent before is from a server still connecting us.
    pub(super) settled_from: Instant,
    /// A ping was answered without asking for a startup: the host is Up.
    pub(super) confirmed: bool,
}

impl Attachment {
    /// No thread of the server waits for an answer that lets it connect us. A goodbye to a server that is still connecting us would leave the host Up for ever.
    pub(super) const fn is_settled(&self) -> bool {
        self.readies >= 2 || self.confirmed
    }
}

/// The role stops: how far the link has come with it.
#[derive(Debug)]
pub(super) struct Drain {
    pub(super) phase: Phase,
    /// Of this phase.
    pub(super) deadline: Instant,
    pub(super) said_goodbye: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Commands are taken and answered until the server has us Up and nothing is under way.
    Working,
    /// The commands under way were told to answer now.
    GivenUp,
    /// The server has time to close the link; what still comes is refused.
    Leaving,
}

/// Which server is being tried out, and why.
#[derive(Debug)]
pub(super) enum Probe {
    Preferred(Endpoint),
    /// The first one; the others come after it.
    Migration(VecDeque<Endpoint>),
}
