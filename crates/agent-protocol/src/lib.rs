//! The management server's agent protocol, without any I/O: bytes in, typed messages out, and back.
//!
//! A message crosses three layers, one module each. None of them reads a clock, a socket or a
//! file, so every rule can be tested with plain bytes.
//!
//! | module | layer |
//! |---|---|
//! | [`packet`] | 4-byte headers around TLS records; a message may span several packets |
//! | [`frame`] | 40-byte header, flags, gzip |
//! | [`envelope`] | JSON array of `{class: body}`; the traits of typed bodies |
//! | [`gson`] | the peer's JSON dialect: which characters are escaped, what is read leniently |
//! | [`agent`] | bodies of the session: start-up, ready, ping, certificates, shutdown |
//! | [`storage`] | bodies for secondary storage and the objects they carry |
//! | [`console`] | bodies for the console proxy |
//! | [`decode`] | `quickcloud wire decode`: recorded bytes to readable text |
//! | [`catalogue`] | every class in one list |
//!
//! What agents ask, whatever their role, is [`AgentRequest`]; the answer that says no to any command is
//! [`failed_answer`].
//!
//! Java class names appear in this crate and nowhere else.

#[macro_use]
mod macros;
mod base;
mod members;

pub mod agent;
pub mod catalogue;
pub mod console;
pub mod decode;
pub mod envelope;
mod failure;
pub mod frame;
pub mod gson;
pub mod packet;
mod request;
pub mod storage;
pub mod text;

pub use agent::unsupported;
pub use envelope::{Answer, Body, BodyError, Command, Envelope, EnvelopeError};
pub use envelope::{encode_envelopes, parse_envelopes};
pub use failure::failed_answer;
pub use frame::{Flags, Frame, FrameError, FrameHeader, Sequence};
pub use gson::Dictionary;
pub use request::AgentRequest;
pub use text::UrlText;
