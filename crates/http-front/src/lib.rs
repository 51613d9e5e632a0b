//! HTTP listeners: the one bounded accept loop behind all of them, and ports shared by roles.

mod front;
mod listener;

pub use front::{HttpFront, Registration};
pub use listener::{BindError, HttpLimits, Listener, Peer, serve};
