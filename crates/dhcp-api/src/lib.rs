//! The API of role `dhcp`, as types: what it is asked, what it answers, and what it refuses.
//!
//! One definition of a resource gives the stored form, the body of requests and answers, the reader
//! that finds every fault of a body at once, and the schema in the OpenAPI document. The server, a
//! command line and a dashboard share these types; nothing here knows a socket or a runtime.
//!
//! | module | what |
//! |---|---|
//! | [`words`], [`option`] | values that are safe wherever they are written |
//! | [`resource`], [`record`] | zones, subnets, ranges, reservations, DNS records |
//! | [`request`] | bodies that are not a resource: reservations, batches |
//! | [`whole`] | everything of a source, in a zone or in a file |
//! | [`answer`] | status, leases, changes, pages |
//! | [`problem`] | errors |
//! | [`read`] | JSON → typed value with every fault at once |
//! | [`operation`] | every endpoint: method, path, parameters |
//!
//! [`OPENAPI`] is the document that a server answers with. A test derives it from the types and
//! compares, so that no program carries the code that derives it.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod answer;
#[cfg(test)]
mod openapi;
pub mod operation;
pub mod option;
pub mod problem;
pub mod read;
pub mod record;
pub mod request;
pub mod resource;
#[cfg(test)]
mod schema;
pub mod whole;
pub mod words;

/// The OpenAPI 3.1 document of the API.
pub const OPENAPI: &str = include_str!("../openapi.json");
