//! The question that decides about a console, and its answer.

use std::net::IpAddr;
use std::time::Duration;

use bedrock::Secret;
use role::BoxFuture;

use crate::upstream::Upstream;

/// A question to the management server: may this browser see this console? The texts stand as in
/// the token, since the ticket covers them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccessQuestion {
    pub(crate) host: String,
    pub(crate) port: i32,
    pub(crate) vm: String,
    pub(crate) sid: Secret<String>,
    pub(crate) ticket: Secret<String>,
    pub(crate) session: String,
    pub(crate) client: IpAddr,
    /// For a console that was admitted before: asks where its VM is now.
    pub(crate) again: bool,
}

/// What the management server says along with a yes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Admission {
    /// Where the VM's VNC server is now; told only when asked again.
    pub(crate) location: Option<Upstream>,
}

/// The management server's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AccessDecision {
    Admitted(Admission),
    Denied,
    /// It was never asked: the link is down.
    NotAsked,
    /// It was asked and did not answer, or not in words we know.
    Unanswered,
}

/// Asks the management server.
pub(crate) trait AccessAuthority: Send + Sync + 'static {
    fn may_open(
        &self,
        question: AccessQuestion,
        timeout: Duration,
    ) -> BoxFuture<'_, AccessDecision>;
}
