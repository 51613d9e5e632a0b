//! Binding an address beside sockets of ours that listen on a part of it.
//!
//! Linux refuses 0.0.0.0:80 while 10.0.0.1:80 listens, unless both sockets have `SO_REUSEPORT`; then
//! each connection goes to the most specific listener. The option is on for the two system calls
//! only, so that a second process like this one still finds the port in use. (Of a port with an
//! unspecified address bound in this way, the kernel remembers that it may be shared with sockets of
//! the same user that ask for it themselves.)

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket};

/// A burst beyond it waits a second for the repetition of its SYN. The kernel's own bound
/// (net.core.somaxconn, 4096 by default) cuts more.
const BACKLOG: u32 = 4096;

/// Listens on `addr`; also gives a second handle of the socket, for the next one beside it. A
/// failure changes nothing.
pub(super) fn bind_beside<'a>(
    addr: SocketAddr,
    ours: impl Iterator<Item = &'a OwnedFd>,
) -> io::Result<(TcpListener, OwnedFd)> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    let mut shared = Shared(Vec::new());
    for other in ours {
        shared.add(other)?;
    }
    if !shared.0.is_empty() {
        shared.add(&socket)?;
    }
    socket.bind(addr)?;
    let listener = socket.listen(BACKLOG)?;
    let handle = listener.as_fd().try_clone_to_owned()?;
    Ok((listener, handle))
}

/// Handles of sockets that may share their port until this is dropped.
struct Shared(Vec<OwnedFd>);

impl Shared {
    fn add(&mut self, socket: &impl AsFd) -> io::Result<()> {
        let handle = socket.as_fd().try_clone_to_owned()?;
        setsockopt(&handle, sockopt::ReusePort, &true)?;
        self.0.push(handle);
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for socket in &self.0 {
            if let Err(error) = setsockopt(socket, sockopt::ReusePort, &false) {
                tracing::warn!(%error, "a listener's port can be shared by other processes");
            }
        }
    }
}
