//! Addresses and networks, as operators and the management server name them.

mod host_port;
mod network;

pub use host_port::HostPort;
pub use network::Network;
