//! An embedded management server: the server's half of the agent protocol over real TLS and packets,
//! with a host table, images and consoles. `quickcloud dev` runs it in its own process, tests drive
//! agents with it.
//!
//! Order, flags and fields of its messages follow conversations recorded on an unmodified 4.22
//! server. It is its own code path on top of `agent-protocol` and shares nothing with the agent's
//! link, so that a misunderstanding of one side does not hide in both.
//!
//! | module | what it holds |
//! |---|---|
//! | `server` | the handle |
//! | `config` | settings |
//! | `ca`, `tls` | the certificate authority, TLS driven by hand |
//! | `serve`, `wire` | connections: packets in, packets out |
//! | `link`, `connection` | the end of one connection, and the host it is bound to |
//! | `requests`, `registration` | what agents ask; from the start-up command to Up |
//! | `attachment` | numbering, in-sequence order, waiting for answers |
//! | `hosts`, `host_table` | what is known of hosts, and the table of them |
//! | `images`, `transfers`, `uploads`, `sync_images` | templates, ISOs and volumes |
//! | `console`, `console_access`, `token` | VMs and sessions, links and decisions, tickets and tokens |
//! | `script`, `malformed` | faults for tests |
//! | `events` | what happened |
//! | [`replay`] | plays a recorded server to an agent and compares its answers |
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests start tasks of their own"))]

mod attachment;
mod ca;
mod commands;
mod config;
mod connection;
mod console;
mod console_access;
mod core;
mod events;
mod host_table;
mod hosts;
mod images;
mod link;
mod malformed;
mod random;
mod registration;
pub mod replay;
mod requests;
mod script;
mod serve;
mod server;
mod sync;
mod sync_images;
mod tasks;
mod tls;
mod token;
mod transfers;
mod uploads;
mod wire;

pub use attachment::SendError;
pub use ca::{CaError, CertificateAuthority, IssuedCertificate};
pub use config::{
    ConsoleMode, ConsoleSettings, HostKind, ImageSettings, ImageStore, ServerConfig, StrayImages,
    SystemVm, WallClock, Zone,
};
pub use console::{ConsoleError, ConsoleLink, ConsoleSession, ProxyLoad, Vm};
pub use events::{Event, EventKind, Events, Message, WaitError};
pub use hosts::{Host, HostState};
pub use images::{Image, ImageError, ImageKind, ImageLink, ImageState, NewImage, StoreUsage};
pub use random::RandomError;
pub use script::{Action, Gate, Malformation, Point, Rule, Script};
pub use server::{ManagementServer, ServerError};
pub use tls::ClientCertificates;
pub use token::{TokenError, TokenKey};
pub use uploads::UploadParameters;
