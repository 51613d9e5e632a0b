//! An NFS version 3 server of one directory, with every fault there is.
//!
//! Written from RFC 1813 for these tests: what a client does is judged by what is in the directory
//! afterwards. Port mapper aside, one port answers for the mount service and for NFS. Bytes that were
//! written unstable are on the disk at once, but a restart before their COMMIT turns them to zeros.

mod answers;

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nfs3::record::{self, Records};
use nfs3::xdr::{Decoder, Encoder};

pub const MOUNT: u32 = 100_005;
pub const NFS: u32 = 100_003;
/// Numbers of procedures.
pub mod procedure {
    pub const GETATTR: u32 = 1;
    pub const LOOKUP: u32 = 3;
    pub const READ: u32 = 6;
    pub const WRITE: u32 = 7;
    pub const CREATE: u32 = 8;
    pub const REMOVE: u32 = 12;
    pub const RENAME: u32 = 14;
    pub const LINK: u32 = 15;
    pub const READDIRPLUS: u32 = 17;
    pub const COMMIT: u32 = 21;
}

/// What the server does wrong.
#[derive(Debug, Default, Clone)]
pub struct Faults {
    /// Procedures that are refused with this status, so many times.
    pub refuse: HashMap<u32, (u32, usize)>,
    /// Procedures at which the connection is cut before, or after, they are executed; so many times.
    pub cut_before: HashMap<u32, usize>,
    pub cut_after: HashMap<u32, usize>,
    /// Calls are read and never answered.
    pub silent: bool,
    /// Connections are not accepted any more, as of a server that is down.
    pub down: bool,
    /// At most so many bytes are read or written in one call.
    pub short: Option<usize>,
    /// Replies come in fragments of so many bytes.
    pub fragments: Option<usize>,
    /// Optional attributes and handles are left out.
    pub bare: bool,
    /// Every reply is another call's.
    pub wrong_xid: bool,
    /// Replies of this procedure are these bytes instead.
    pub instead: HashMap<u32, Vec<u8>>,
    /// Records begin with this header.
    pub header: Option<[u8; 4]>,
    /// Directories go on for ever, and how.
    pub endless: Option<Endless>,
    /// So many times, the verifier of directories changes between two parts.
    pub directory_changes: usize,
    /// At most so many names in one part of a directory.
    pub part: Option<usize>,
    /// So many bytes of a terabyte are free.
    pub free: Option<u64>,
    /// The paths that may be mounted, when not all.
    pub exports: Option<Vec<String>>,
    /// The export is refused.
    pub refuse_mount: Option<u32>,
    /// Flavours of authentication that the mount service names.
    pub flavours: Option<Vec<u32>>,
    /// At so many COMMITs the server restarts before it executes them.
    pub restart_at_commit: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endless {
    /// Ever new names.
    Names,
    /// The same part again and again.
    Circle,
    /// Empty parts.
    Nothing,
}

/// The server; it ends when it is dropped.
#[derive(Debug)]
pub struct NfsServer {
    shared: Arc<Shared>,
    pub addr: SocketAddr,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    faults: Faults,
    /// Where a file of this number was seen last.
    paths: HashMap<u64, PathBuf>,
    /// Numbers of files that were created with one.
    exclusive: HashMap<PathBuf, u64>,
    /// Handles of other generations are stale.
    generation: u32,
    /// The life of the server.
    verifier: u64,
    unstable: HashMap<u64, Vec<Range<u64>>>,
    connections: Vec<TcpStream>,
    /// Calls of NFS by procedure.
    calls: HashMap<u32, usize>,
    /// Users and groups that called.
    callers: HashSet<(u32, u32)>,
    peers: Vec<u16>,
    ended: bool,
}

impl NfsServer {
    pub fn start(root: &Path) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let state = State { verifier: 1, ..State::default() };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { root: root.to_owned(), state, changed });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &accepting));
        Self { shared, addr }
    }

    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.shared.state().faults);
        self.shared.changed.notify_all();
    }

    /// The process ends and starts again: connections break, unstable bytes are lost.
    pub fn restart(&self) {
        self.shared.restart(&mut self.shared.state());
    }

    /// As a restart after which no handle of before is known.
    pub fn forget(&self) {
        let mut state = self.shared.state();
        state.generation += 1;
        state.paths.clear();
    }

    pub fn calls(&self, procedure: u32) -> usize {
        self.shared.state().calls.get(&procedure).copied().unwrap_or(0)
    }

    pub fn callers(&self) -> Vec<(u32, u32)> {
        self.shared.state().callers.iter().copied().collect()
    }

    /// Source ports of connections.
    pub fn peers(&self) -> Vec<u16> {
        self.shared.state().peers.clone()
    }
}

impl Drop for NfsServer {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.ended = true;
        state.connections.drain(..).for_each(hang_up);
        drop(state);
        self.shared.changed.notify_all();
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.addr));
    }
}

fn hang_up(connection: TcpStream) {
    // Broken already: just as well.
    drop(connection.shutdown(Shutdown::Both));
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        let mut state = shared.state();
        if state.ended {
            return;
        }
        if state.faults.down {
            continue;
        }
        state.peers.push(stream.peer_addr().unwrap().port());
        state.connections.push(stream.try_clone().unwrap());
        drop(state);
        let shared = Arc::clone(shared);
        std::thread::spawn(move || drop(serve(stream, &shared)));
    }
}

/// What is done with one call.
enum Outcome {
    Reply(Bytes),
    Cut,
}

fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut records, mut input) = (Records::new(4 << 20), BytesMut::new());
    let mut buffer = vec![0; 256 << 10];
    loop {
        while let Some(call) = records.next(&mut input).unwrap() {
            let Some(outcome) = shared.answer(call) else { return Ok(()) };
            match outcome {
                Outcome::Reply(reply) => send(&mut stream, &reply, shared)?,
                Outcome::Cut => return stream.shutdown(Shutdown::Both),
            }
        }
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        input.extend_from_slice(&buffer[..read]);
    }
}

fn send(stream: &mut TcpStream, reply: &[u8], shared: &Shared) -> std::io::Result<()> {
    let (fragments, header) = {
        let state = shared.state();
        (state.faults.fragments, state.faults.header)
    };
    if let Some(header) = header {
        stream.write_all(&header)?;
        return stream.write_all(reply);
    }
    let pieces: Vec<&[u8]> = reply.chunks(fragments.unwrap_or(usize::MAX)).collect();
    let mut all = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let mut header = record::header(piece.len());
        if at + 1 < pieces.len() {
            header[0] &= 0x7f;
        }
        all.extend_from_slice(&header);
        all.extend_from_slice(piece);
    }
    stream.write_all(&all)
}

/// Whether a counted fault strikes now.
fn strikes(counts: &mut HashMap<u32, usize>, procedure: u32) -> bool {
    match counts.get_mut(&procedure) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        _ => false,
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn restart(&self, state: &mut State) {
        state.verifier += 1;
        for (number, ranges) in state.unstable.drain() {
            let Some(path) = state.paths.get(&number) else { continue };
            let Ok(file) = std::fs::OpenOptions::new().write(true).open(path) else { continue };
            for range in ranges {
                let zeros = vec![0; (range.end - range.start) as usize];
                file.write_all_at(&zeros, range.start).unwrap();
            }
        }
        state.connections.drain(..).for_each(hang_up);
    }

    /// `None` when the server has ended.
    fn answer(&self, call: Bytes) -> Option<Outcome> {
        let mut input = Decoder::new(call);
        let xid = input.u32().unwrap();
        let (_call, _rpc) = (input.u32().unwrap(), input.u32().unwrap());
        let (program, _version) = (input.u32().unwrap(), input.u32().unwrap());
        let number = input.u32().unwrap();
        let _flavour = input.u32().unwrap();
        let mut credential = Decoder::new(input.opaque("credential", 400).unwrap());
        let _verifier = (input.u32().unwrap(), input.opaque("verifier", 400).unwrap());
        let mut state = self.state();
        while state.faults.silent && !state.ended {
            state = self.changed.wait_timeout(state, Duration::from_secs(60)).unwrap().0;
        }
        if state.ended {
            return None;
        }
        if program == NFS {
            *state.calls.entry(number).or_default() += 1;
            let _stamp = credential.u32().unwrap();
            let _host = credential.opaque("host", 255).unwrap();
            state.callers.insert((credential.u32().unwrap(), credential.u32().unwrap()));
            if strikes(&mut state.faults.cut_before, number) {
                return Some(Outcome::Cut);
            }
            if number == procedure::COMMIT && state.faults.restart_at_commit > 0 {
                state.faults.restart_at_commit -= 1;
                self.restart(&mut state);
                return Some(Outcome::Cut);
            }
        }
        let mut out = Encoder::default();
        let xid = if state.faults.wrong_xid { xid.wrapping_add(0x1000) } else { xid };
        // A reply, accepted, no verifier, executed.
        out.u32(xid).u32(1).u32(0).u32(0).u32(0).u32(0);
        let refused = match state.faults.refuse.get_mut(&number) {
            Some((status, count)) if program == NFS && *count > 0 => {
                *count -= 1;
                Some(*status)
            }
            _ => None,
        };
        match refused {
            Some(status) => {
                out.u32(status).bool(false).bool(false);
            }
            None => self.execute(&mut state, program, number, &mut input, &mut out),
        }
        if program == NFS
            && let Some(bytes) = state.faults.instead.get(&number)
        {
            out = Encoder::default();
            out.u32(xid).u32(1).u32(0).u32(0).u32(0).u32(0).fixed(bytes);
        }
        if program == NFS && strikes(&mut state.faults.cut_after, number) {
            return Some(Outcome::Cut);
        }
        Some(Outcome::Reply(out.finish()))
    }
}

fn number_of(path: &Path) -> Option<u64> {
    std::fs::symlink_metadata(path).ok().map(|metadata| metadata.ino())
}
