//! HTTP listeners: the one bounded accept loop behind all of them, and ports shared by roles.
//!
//! | module | what |
//! |---|---|
//! | `listener` | sockets, and what is spoken on them: plain or TLS, with or without PROXY headers |
//! | `serve` | the accept loop: bounds, deadlines, the graceful end |
//! | `addresses` | connections counted by client address |
//! | `front` | one port for several roles; their requests run in their scopes |
//! | `files` | files that are sent past the HTTP library |
//! | `send` | from a file to a socket: `sendfile`, or large writes of TLS records |
//! | `client` | the client's address behind trusted proxies |
//! | `tls` | certificates by name, replaced while they are served |
//! | `proxy_header` | the PROXY protocol, pure |
//! | `strict` | what HTTP itself wants of a request |

mod addresses;
mod client;
mod files;
mod front;
mod listener;
mod proxy_header;
mod send;
mod serve;
mod stream;
mod strict;
mod tls;

pub use client::{ClientAddress, TrustedProxies, client_address, parse_address};
pub use files::{FileAnswer, FileFuture, FileThreads, Files, SendError};
pub use front::{
    ANYTHING_ELSE, CONNECTIONS_PER_ADDRESS, Crowded, HttpFront, ListenerReport, Registration, Site,
};
pub use listener::{BindError, Listener, Transport};
pub use proxy_header::{ProxyHeader, ProxyHeaderError, parse_proxy_header};
pub use serve::{ClientCertificate, HttpLimits, Peer, UnixPeer, serve};
pub use tls::{CertificateError, Certificates};
