//! How a role fails.

use std::error::Error;

/// Decides what the supervisor does next. Three variants, no more.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// The configuration or the machine is wrong: restarting cannot help. The role stays down.
    #[error("{0}")]
    Misconfigured(String, #[source] Option<Box<dyn Error + Send + Sync>>),
    /// Something outside is missing or refused us. Restart with backoff, without a limit.
    #[error("{0}")]
    Dependency(String, #[source] Option<Box<dyn Error + Send + Sync>>),
    /// Our bug or an unexplained failure. Restart with backoff, counting towards the limit.
    #[error("{0}")]
    Internal(String, #[source] Option<Box<dyn Error + Send + Sync>>),
}

impl RoleError {
    /// `context` says operation and object ("cannot bind 0.0.0.0:80").
    pub fn misconfigured(
        context: impl Into<String>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self::Misconfigured(context.into(), Some(Box::new(source)))
    }

    /// See [`RoleError::Dependency`].
    pub fn dependency(
        context: impl Into<String>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self::Dependency(context.into(), Some(Box::new(source)))
    }

    /// See [`RoleError::Internal`].
    pub fn internal(
        context: impl Into<String>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self::Internal(context.into(), Some(Box::new(source)))
    }
}

/// One thing that preflight found wrong with the machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {remedy}")]
pub struct PreflightError {
    /// Names the object and its state: "/usr/sbin/dnsmasq does not exist".
    pub problem: String,
    /// What the operator can do: "install dnsmasq-base or set roles.dhcp.dnsmasq".
    pub remedy: String,
}
