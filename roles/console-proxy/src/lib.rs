//! Role `cp`: the console proxy.
//!
//! The management server gives a user a link with an encrypted token; the user's browser brings it
//! here. We ask the management server whether the token is good, connect to the VM's screen as a
//! VNC client, and relay its picture to the browser over a WebSocket.
//!
//! | module | what |
//! |---|---|
//! | `settings` | `[roles.console_proxy]` |
//! | `proxy` | the role: description, start, stop |
//! | `agent` | the host that the management server sees |
//! | `web`, `assets` | pages and upgrades |
//! | `websocket` | the upgrade, limits, the goodbye |
//! | [`query`], [`token`] | a link's query, and what is in its token |
//! | `console` | one console from its link to its end |
//! | `viewer`, `screen`, `bridge` | handshake with the browser, with the VM, and the relay |
//! | `sessions`, `ledger`, `report` | open consoles, what the server must hear, and telling it |
//! | `service`, `network`, `refusal`, `metrics` | shared state, addresses, words, counters |

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests spawn"))]

mod agent;
mod assets;
mod bridge;
mod console;
mod ledger;
mod metrics;
mod network;
mod proxy;
pub mod query;
mod refusal;
mod report;
mod screen;
mod service;
mod sessions;
mod settings;
pub mod token;
mod viewer;
mod web;
mod websocket;

pub use proxy::{DESCRIPTOR, KIND};
