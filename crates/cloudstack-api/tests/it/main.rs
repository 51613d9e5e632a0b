//! The client against recorded documents and against a scripted server.

#![allow(clippy::disallowed_methods, reason = "tests spawn and read files as they like")]

mod recorded;
mod scripted;
mod server;
