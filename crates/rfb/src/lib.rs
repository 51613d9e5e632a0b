//! RFB (RFC 6143) as a proxy needs it: both handshakes and the client's messages, bytes in and
//! bytes out, without any I/O.
//!
//! A console proxy is a client towards the VM and a server towards the browser; the picture in
//! between it only copies. Hence there is no decoder of rectangles here.
//!
//! | module | what |
//! |---|---|
//! | [`version`] | 3.3, 3.7 and 3.8, and which of them a peer means |
//! | [`security`] | security types and the VNC authentication's answer |
//! | [`vencrypt`] | encryption that begins in the middle of the handshake |
//! | [`client`] | [`ClientHandshake`], towards the VM |
//! | [`server`] | [`ServerHandshake`], towards a viewer |
//! | [`init`] | ServerInit and the pixel format |
//! | [`message`] | the client's messages: their lengths, and a decoder |
//! | [`fbs`] | recordings of what a server sent |
//! | [`filter`] | the client's messages on their way: counted, and held back from watchers |

pub mod client;
pub mod fbs;
pub mod filter;
pub mod init;
mod input;
pub mod message;
pub mod security;
pub mod server;
pub mod vencrypt;
pub mod version;

pub use client::{ClientHandshake, HandshakeError, Next};
pub use filter::{Key, MessageFilter};
pub use init::{PixelFormat, ServerInit};
pub use message::ClientMessage;
pub use server::{ServerHandshake, ServerHandshakeError, ServerSecurity};
pub use version::Version;
