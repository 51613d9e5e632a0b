//! From a file to a socket, without waiting for either longer than a slice of time. Blocks: it runs
//! on threads of whoever has the file.

use std::fs::File;
use std::io::{Error, ErrorKind, IoSlice, Result, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::sendfile::sendfile;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::stream::{Ahead, Counted};

/// A connection without TLS.
pub(crate) type Plain = Ahead<Counted<TcpStream>>;
/// What a file can be sent on.
pub(crate) type Sender = Either<Plain, Box<TlsStream<Plain>>>;

/// How long a thread stays with one connection while others wait.
const SLICE: Duration = Duration::from_millis(50);
/// How long it waits for a client that takes its bytes as they come; a slower one is waited for
/// without a thread.
const PATIENCE_MS: u8 = 5;
/// Sent by one call at most; the socket takes less.
const SEND_BLOCK: u64 = 16 << 20;
/// Encrypted and written at once: sixteen records of TLS.
const TLS_BLOCK: usize = 256 << 10;

/// How a slice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The range is sent, or others are to have the thread.
    Yield,
    /// The client has to take something first.
    Blocked,
}

/// The socket below.
pub(crate) fn socket(sender: &Sender) -> &TcpStream {
    match sender {
        Either::Left(plain) => &plain.inner.socket,
        Either::Right(tls) => &tls.get_ref().0.inner.socket,
    }
}

/// Sends from the beginning of the range, which it shortens.
pub(crate) fn slice(sender: &mut Sender, file: &File, range: &mut Range<u64>) -> Result<Step> {
    let until = Instant::now() + SLICE;
    match sender {
        Either::Left(plain) => plain_slice(&plain.inner.socket, file, range, until),
        Either::Right(tls) => tls_slice(tls, file, range, until),
    }
}

fn plain_slice(
    socket: &TcpStream,
    file: &File,
    range: &mut Range<u64>,
    until: Instant,
) -> Result<Step> {
    while !range.is_empty() {
        let sent = writing(socket, until, || send_some(socket, file, range))?;
        match sent {
            Some(0) => return Err(shorter()),
            Some(count) => range.start += count,
            None => return Ok(Step::Blocked),
        }
        if Instant::now() >= until {
            break;
        }
    }
    Ok(Step::Yield)
}

fn send_some(socket: &TcpStream, file: &File, range: &Range<u64>) -> Result<u64> {
    let mut offset = i64::try_from(range.start).map_err(Error::other)?;
    let count = usize::try_from((range.end - range.start).min(SEND_BLOCK)).unwrap_or(usize::MAX);
    Ok(sendfile(socket, file, Some(&mut offset), count)? as u64)
}

/// Something to write, tried until the client has taken nothing for a while; `None` then. The last
/// try is made through the runtime, so that it knows that the socket has to become writable first.
fn writing<T>(
    socket: &TcpStream,
    until: Instant,
    mut work: impl FnMut() -> Result<T>,
) -> Result<Option<T>> {
    loop {
        match work() {
            Ok(done) => return Ok(Some(done)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
                let writable = match poll(&mut waiting, PollTimeout::from(PATIENCE_MS)) {
                    Ok(count) => count > 0,
                    Err(Errno::EINTR) => true,
                    Err(errno) => return Err(errno.into()),
                };
                if writable && Instant::now() < until {
                    continue;
                }
                return match socket.try_io(Interest::WRITABLE, &mut work) {
                    Ok(done) => Ok(Some(done)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
                    Err(error) => Err(error),
                };
            }
            Err(error) => return Err(error),
        }
    }
}

fn tls_slice(
    tls: &mut TlsStream<Plain>,
    file: &File,
    range: &mut Range<u64>,
    until: Instant,
) -> Result<Step> {
    let (plain, session) = tls.get_mut();
    let socket = &plain.inner.socket;
    session.set_buffer_limit(Some(TLS_BLOCK * 2));
    let mut block = Vec::new();
    loop {
        while session.wants_write() {
            let written = writing(socket, until, || session.write_tls(&mut Unbuffered(socket)))?;
            match written {
                Some(0) => return Err(ErrorKind::WriteZero.into()),
                Some(_count) => {}
                None => return Ok(Step::Blocked),
            }
        }
        if range.is_empty() || Instant::now() >= until {
            return Ok(Step::Yield);
        }
        if block.is_empty() {
            block = vec![0; TLS_BLOCK];
        }
        let wanted = usize::try_from(range.end - range.start).unwrap_or(TLS_BLOCK).min(TLS_BLOCK);
        let target = block.get_mut(..wanted).unwrap_or_default();
        let count = file.read_at(target, range.start)?;
        if count == 0 {
            return Err(shorter());
        }
        session.writer().write_all(target.get(..count).unwrap_or_default())?;
        range.start += count as u64;
    }
}

fn shorter() -> Error {
    Error::new(ErrorKind::UnexpectedEof, "the file has become shorter while it was sent")
}

/// The socket without the runtime: what it does not take at once is an error of the kind
/// `WouldBlock`.
struct Unbuffered<'a>(&'a TcpStream);

impl Write for Unbuffered<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> Result<usize> {
        Ok(nix::sys::uio::writev(self.0, slices)?)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
