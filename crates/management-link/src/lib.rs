//! The link between a role and the management server: one TCP connection, one host.
//!
//! A role makes a [`ManagementLink`], hands it an [`Agent`] and lets it [`serve`]; the link
//! registers, answers the session's own commands, runs the role's, survives every loss, and says
//! goodbye at the end. What it does when is decided by a pure state machine; everything that
//! touches a socket, a file or a clock is around it.
//!
//! [`serve`]: ManagementLink::serve
//!
//! | module | what |
//! |---|---|
//! | [`config`] | `[management]` |
//! | [`agent`] | what a role supplies |
//! | [`link`] | the handle, the loop around the session, the log of outages |
//! | `session` | the state machine: events in, actions out |
//! | `endpoints` | which server next, how long to wait |
//! | `dispatch` | a request to its response |
//! | `connect` | name, TCP, TLS handshake |
//! | `transport` | packets outside TLS, one reader, one writer |
//! | `tls`, `trust` | what we offer, whom we trust, alerts in words |
//! | [`client_certificate`], `certificates` | client certificates from files, or from the server |
//! | [`own`], [`doctor`] | the certificates for an operator; why a link does not come up |
//! | `state`, `files` | what survives a restart |
//! | [`nic`] | the interface behind an address |

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests start tasks of their own"))]

pub mod agent;
mod certificates;
pub mod client_certificate;
pub mod config;
mod connect;
mod dispatch;
pub mod doctor;
mod endpoints;
mod files;
pub mod link;
pub mod nic;
pub mod own;
mod session;
mod state;
mod tls;
mod transport;
mod trust;

pub use agent::{Agent, AnswerNow, CommandContext, StartupFacts};
pub use client_certificate::ClientCertificate;
pub use config::{LinkConfig, LinkLimits, ManagementConfig};
pub use endpoints::Endpoint;
pub use link::{HostCredentials, LinkError, ManagementLink};
