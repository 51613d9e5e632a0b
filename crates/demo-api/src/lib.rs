//! A small server of the CloudStack API: a zone with machines to start, rename, move and destroy,
//! for demonstrations and for tests of whoever reads that API.
//!
//! Objects are JSON as the server itself writes it, so that recorded documents can be put in as
//! they are; answers are XML. Signatures are checked by this crate's own reading of the rules: it
//! shares nothing with the client. What a server may do wrong, it does when it is told to.
//!
//! | module | what |
//! |---|---|
//! | [`world`] | what the server knows |
//! | [`answer`] | a question and its answer as XML. *Pure* |
//! | [`change`] | what an administrator changes: zones, system VMs, offerings. *Pure* |
//! | `set_up` | what makes networks and what they stand on. *Pure* |
//! | [`server`] | HTTP, signatures, faults |

pub mod answer;
pub mod change;
pub mod server;
mod set_up;
pub mod world;

pub use server::{DemoApi, Fault, Keys};
pub use world::World;
