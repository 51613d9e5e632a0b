//! Role `cp`: the console proxy.
//!
//! The management server gives a user a link with an encrypted token; the user's browser brings it
//! here. We ask the management server whether the token is good, connect to the VM as a VNC client,
//! and relay its picture to the browser over a WebSocket.
//!
//! | module | what |
//! |---|---|
//! | `config` | `[roles.console_proxy]` |
//! | `service` | the role: description, start, reload, stop |
//! | `agent` | the host that the management server sees |
//! | `listeners`, `certificate` | where browsers come in, and what they are shown over TLS |
//! | `web`, `assets` | pages and upgrades |
//! | `upgrade`, `browser` | the WebSocket's opening handshake; its frames and the goodbye |
//! | [`control`], [`resume`], `parked` | what page and proxy say beside the picture; coming back |
//! | [`query`], [`token`] | a link's query, and what is in its token |
//! | `access` | the question to the management server, and its answer |
//! | [`upstream`], [`dialler`], `vnc_server` | where a VNC server is, dialling it, shaking hands with it |
//! | `console` | one console from its link to its end |
//! | `viewer`, `bridge` | handshake with the browser, and the relay |
//! | `sessions`, `ledger`, `report` | open consoles, what the server must hear, and telling it |
//! | `journal`, `audit` | what a killed run leaves for the next; who saw what |
//! | `recording`, `replay` | what viewers were shown, on disk and in the page again |
//! | `admin` | what an operator may do with consoles |
//! | `context`, `places` | what every console shares |
//! | `doctor` | what is looked at before a start, and when something is wrong |
//! | `network`, `refusal`, `metrics` | addresses, words, counters |

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests spawn"))]

mod access;
mod admin;
mod agent;
mod assets;
mod audit;
mod bridge;
mod browser;
mod certificate;
mod config;
mod console;
mod context;
pub mod control;
pub mod dialler;
mod doctor;
mod journal;
mod ledger;
mod listeners;
mod metrics;
mod network;
mod parked;
mod places;
pub mod query;
mod recording;
mod refusal;
mod replay;
mod report;
pub mod resume;
mod service;
mod sessions;
pub mod token;
mod upgrade;
pub mod upstream;
mod viewer;
mod vnc_server;
mod web;

pub use service::{DESCRIPTOR, KIND};
