//! Playing a recorded server to an agent: what the server sent is sent again with its flags, fields
//! and order, and what the agent answers stands side by side with what the original agent answered.
//!
//! ```text
//! let conversation = Conversation::parse(&text)?;
//! let replay = Replay::listen(conversation, settings).await?;
//! // connect the agent under test to replay.address() with replay.ca_pem(), then
//! let report = replay.run().await?;
//! assert!(report.is_clean(), "{report}");
//! ```
//!
//! The player keeps to the recording, with three liberties: host ids, sequences and ids of the
//! server are the recorded ones, but values that an agent makes itself (a job's id, the path of an
//! image) are learned and put in place of the recorded ones; a transfer that the agent reports as
//! running is asked for until it ends, where the recorded agent had waited; and pings are answered
//! when they come.

mod compare;
mod consoles;
mod conversation;
mod player;
mod report;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;

use crate::ca::{CaError, CertificateAuthority};
use crate::token::TokenError;

pub use compare::{Difference, Mismatch};
pub use consoles::RecordedConsole;
pub use conversation::{Conversation, ConversationError, Ending, Recorded};
pub use report::{Exchange, Report, Step, Unanswered};

/// Settings of a replay.
#[derive(Debug, Clone)]
pub struct ReplaySettings {
    /// Where the agent connects; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The authority; `None` makes a new one.
    pub authority: Option<CertificateAuthority>,
    /// Parts of texts that are replaced in everything recorded, such as the address of images.
    pub substitutions: Vec<(String, String)>,
    /// Fields that get a value of their own, such as `pingInterval`; null leaves them out.
    pub overrides: Vec<(String, Value)>,
    /// Fields whose values an agent makes itself: if its value differs from the recorded one in
    /// nothing but UUIDs, it takes the recorded one's place from then on.
    pub learned: Vec<String>,
    /// Differences on purpose.
    pub differences: Vec<Difference>,
    /// How long one answer may take.
    pub answer_timeout: Duration,
    /// Time between two questions for the state of a transfer.
    pub poll_interval: Duration,
    /// How long to listen to the agent after the last command.
    pub linger: Duration,
}

impl Default for ReplaySettings {
    fn default() -> Self {
        let names = ["jobId", "installPath", "path"];
        Self {
            listen: ([127, 0, 0, 1], 0).into(),
            authority: None,
            substitutions: Vec::new(),
            overrides: Vec::new(),
            learned: names.iter().map(|name| (*name).to_owned()).collect(),
            differences: Vec::new(),
            answer_timeout: Duration::from_secs(30),
            poll_interval: Duration::from_millis(20),
            linger: Duration::ZERO,
        }
    }
}

impl ReplaySettings {
    fn replacements(&self) -> compare::Replacements {
        compare::Replacements::new(self.substitutions.clone(), self.overrides.clone())
    }
}

/// Why a replay did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The address cannot be listened on.
    #[error("listen on {address} for the agent")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// No certificate authority.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// The agent did not connect, or its link broke.
    #[error("the agent's link: {0}")]
    Link(String),
}

/// A recorded server that waits for its agent.
#[derive(Debug)]
pub struct Replay {
    conversation: Conversation,
    settings: ReplaySettings,
    authority: CertificateAuthority,
    listener: TcpListener,
    address: SocketAddr,
}

impl Replay {
    /// Binds the listener.
    ///
    /// # Errors
    /// [`ReplayError`] when the address is taken or no key can be made.
    pub async fn listen(
        conversation: Conversation,
        mut settings: ReplaySettings,
    ) -> Result<Self, ReplayError> {
        let failed = |source| ReplayError::Listen { address: settings.listen, source };
        let listener = TcpListener::bind(settings.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let authority = match settings.authority.take() {
            Some(authority) => authority,
            None => CertificateAuthority::generate()?,
        };
        Ok(Self { conversation, settings, authority, listener, address })
    }

    /// Where the agent connects.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that the player presents, PEM.
    pub fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    /// Tokens for the consoles that the recorded agent asked for, with all replacements, as for a
    /// browser at `source`. Used after the announcement of its session, each makes the agent ask
    /// again, and the recorded answer follows.
    ///
    /// # Errors
    /// [`TokenError`] when a token cannot be made.
    pub fn consoles(&self, source: IpAddr) -> Result<Vec<RecordedConsole>, TokenError> {
        consoles::tokens(&self.conversation, &self.settings.replacements(), source)
    }

    /// Takes the first agent that connects, plays the conversation and reports.
    ///
    /// # Errors
    /// [`ReplayError::Link`] when the agent does not connect in time or speaks no TLS. A link that
    /// ends early is part of the report.
    pub async fn run(self) -> Result<Report, ReplayError> {
        self.run_with(async |_: &Exchange| {}).await
    }

    /// As [`Replay::run`]; `after` runs after each answered command, before the next one is sent:
    /// the place to open the console that was just announced. The agent's own requests are
    /// answered meanwhile.
    ///
    /// # Errors
    /// As [`Replay::run`].
    pub async fn run_with(
        self,
        mut after: impl AsyncFnMut(&Exchange),
    ) -> Result<Report, ReplayError> {
        self.run_observed(async |step: Step<'_>| {
            if let Step::Answered(exchange) = step {
                after(exchange).await;
            }
        })
        .await
    }

    /// As [`Replay::run`]; `observe` runs after each command that is sent, and after each that is
    /// answered: the place to stop the agent in the middle. The agent's own requests are answered
    /// meanwhile; after its goodbye nothing more is sent, as by a server.
    ///
    /// # Errors
    /// As [`Replay::run`].
    pub async fn run_observed(
        self,
        observe: impl AsyncFnMut(Step<'_>),
    ) -> Result<Report, ReplayError> {
        let Self { conversation, settings, authority, listener, .. } = self;
        let accepted = tokio::time::timeout(settings.answer_timeout, listener.accept()).await;
        let (stream, peer) = accepted
            .map_err(|_| ReplayError::Link("no agent connected in time".to_owned()))?
            .map_err(|error| ReplayError::Link(error.to_string()))?;
        // Only one agent is played to: the next one finds the door closed.
        drop(listener);
        player::play(&conversation, &settings, &authority, stream, peer, observe).await
    }
}
