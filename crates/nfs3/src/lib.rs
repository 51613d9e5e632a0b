//! NFS version 3 as a client speaks it: bytes in, values out. No socket, no clock.
//!
//! [`xdr`] is the encoding (RFC 4506), [`record`] and [`rpc`] are the calls over a stream (RFC 5531),
//! [`portmap`] and [`mount`] find the server's ports and the root of an export (RFC 1833, RFC 1813
//! appendix I), [`procedures`] are the calls of NFS itself (RFC 1813). What a server sends is bounded
//! before anything is reserved for it: a length inside a reply is believed only as far as the reply
//! has bytes, and a reply only as far as its reader allows.

pub mod mount;
pub mod portmap;
pub mod procedures;
pub mod record;
pub mod rpc;
pub mod status;
pub mod types;
pub mod xdr;

pub use rpc::{Credential, Procedure, Program};
pub use status::Status;
pub use types::{Attributes, FileType, Handle};
pub use xdr::Malformed;
