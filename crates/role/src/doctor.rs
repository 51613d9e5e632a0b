//! Questions about machine and surroundings that a role can answer, running or not.
//!
//! A preflight says what makes a start impossible; a doctor's check says what an operator would
//! look for when something is not as it should be. `quickcloud check` asks those that look at this
//! machine only, `quickcloud doctor` asks all.

use std::fmt;
use std::sync::Arc;

use crate::BoxFuture;
use crate::host::Host;

type Ask = Arc<dyn Fn(DoctorContext) -> BoxFuture<'static, DoctorFinding> + Send + Sync>;

/// One named check.
#[derive(Clone)]
pub struct DoctorCheck {
    /// Stable, with the subject in front: "link.reachable", "store.writable".
    pub name: &'static str,
    pub reach: Reach,
    ask: Ask,
}

/// What a check touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Files, programs and addresses of this machine.
    Machine,
    /// Other machines.
    Network,
}

/// What a check gets.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DoctorContext {
    /// Clock and programs of the machine.
    pub host: Host,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DoctorFinding {
    /// All well; the text says what was seen ("10.0.0.5:8250 answers within 2 ms").
    Good(String),
    /// Works, but not as it should.
    Warning { problem: String, remedy: String },
    /// Does not work.
    Fault { problem: String, remedy: String },
    /// Could not be asked; the text says why.
    Skipped(String),
}

impl DoctorContext {
    pub const fn new(host: Host) -> Self {
        Self { host }
    }
}

impl DoctorCheck {
    /// A check of this machine.
    pub fn machine<F>(
        name: &'static str,
        ask: impl Fn(DoctorContext) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = DoctorFinding> + Send + 'static,
    {
        Self { name, reach: Reach::Machine, ask: Arc::new(move |cx| Box::pin(ask(cx))) }
    }

    /// A check that asks other machines.
    pub fn network<F>(
        name: &'static str,
        ask: impl Fn(DoctorContext) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = DoctorFinding> + Send + 'static,
    {
        Self { name, reach: Reach::Network, ask: Arc::new(move |cx| Box::pin(ask(cx))) }
    }

    /// Asks. The caller bounds the time.
    pub fn ask(&self, cx: DoctorContext) -> BoxFuture<'static, DoctorFinding> {
        (self.ask)(cx)
    }
}

impl fmt::Debug for DoctorCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DoctorCheck").field("name", &self.name).field("reach", &self.reach).finish()
    }
}
