//! A client of the CloudStack API: signed calls, XML answers read strictly, asynchronous jobs.
//!
//! What needs it: the sync of the dhcp role, which must not be misled by what tenants write, and
//! the set-up of zones. Hence two decisions. Answers are asked for as XML, because the server's
//! JSON encoder does not escape reliably what a tenant typed; and whatever is not exactly an
//! answer to the call is an error, never an empty list.
//!
//! | module | what |
//! |---|---|
//! | [`sign`] | parameters, canonical text, signature. *Pure* |
//! | [`xml`] | an answer's document, read strictly. *Pure* |
//! | [`answer`] | answer or refusal: [`Refusal`] by kind. *Pure* |
//! | [`model`] | what the server tells: zones, machines, addresses. *Pure* |
//! | [`commands`] | what can be asked, one type per call. *Pure* |
//! | [`client`] | one connection, time-outs, several servers |
//! | [`paging`], [`job`] | lists page by page; calls that go on after their answer |

pub mod answer;
pub mod client;
pub mod commands;
pub mod job;
mod macros;
pub mod model;
pub mod paging;
pub mod sign;
mod transport;
pub mod xml;

pub use answer::{Refusal, RefusalKind};
pub use client::{ApiUrl, CallError, Client, ClientConfig};
pub use commands::{AsyncCommand, Command, ListCommand};
pub use job::{JobError, JobWait};
pub use paging::Listing;
pub use sign::{Credentials, Parameters};
