//! Generator and sink: VNC servers that send one static picture, viewers that throw it away. Blocking
//! threads, so that they are not the limit.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::binary::LOOPBACK;

/// One update of a paced session.
const UPDATE: usize = 8 * 1024;
/// What a key is answered with.
const ECHO: usize = 16 + 16 * 16 * 4;

/// What the VNC server does once it was asked for a picture.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Target {
    Flood,
    Paced,
    /// Answers keys.
    Quiet,
}

pub(crate) fn target(kind: Target) -> SocketAddr {
    let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    spawn(move || {
        for stream in listener.incoming().flatten() {
            spawn(move || serve(stream, kind));
        }
    });
    addr
}

fn serve(mut stream: TcpStream, kind: Target) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut buffer = [0; 64];
    stream.write_all(b"RFB 003.008\n").ok()?;
    stream.read_exact(&mut buffer[..12]).ok()?;
    stream.write_all(&[1, 1]).ok()?;
    stream.read_exact(&mut buffer[..1]).ok()?;
    stream.write_all(&[0; 4]).ok()?;
    stream.read_exact(&mut buffer[..1]).ok()?;
    let mut init = vec![5, 0, 2, 0xd0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];
    init.extend([0, 0, 0, 1, b't']);
    stream.write_all(&init).ok()?;
    match kind {
        Target::Flood => {
            let picture = vec![0x5a; 1 << 20];
            loop {
                stream.write_all(&picture).ok()?;
            }
        }
        Target::Paced => loop {
            stream.write_all(&[0x5a; UPDATE]).ok()?;
            std::thread::sleep(Duration::from_millis(30));
        },
        Target::Quiet => loop {
            stream.read_exact(&mut buffer[..8]).ok()?;
            stream.write_all(&[0x5a; ECHO]).ok()?;
        },
    }
}

/// How a viewer gets to a target.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) addr: SocketAddr,
    /// Path of a WebSocket; plain TCP without one.
    pub(crate) path: Option<String>,
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A viewer that came through the handshake.
pub(crate) struct Viewer {
    stream: Stream,
    is_websocket: bool,
}

impl Viewer {
    pub(crate) fn open(way: &Way) -> Self {
        let stream = TcpStream::connect(way.addr).unwrap();
        stream.set_nodelay(true).unwrap();
        let stream = match &way.tls {
            None => Stream::Plain(stream),
            Some(config) => {
                let name = ServerName::from(way.addr.ip());
                let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
                Stream::Tls(Box::new(StreamOwned::new(connection, stream)))
            }
        };
        let mut viewer = Self { stream, is_websocket: way.path.is_some() };
        if let Some(path) = &way.path {
            viewer.upgrade(path, way.addr);
        }
        viewer.take(12);
        viewer.send(b"RFB 003.008\n");
        viewer.take(2);
        viewer.send(&[1]);
        viewer.take(4);
        viewer.send(&[1]);
        // ServerInit up to its name, whose length differs.
        let init = viewer.take(24);
        let name = u32::from_be_bytes([init[20], init[21], init[22], init[23]]) as usize;
        if !viewer.is_websocket {
            // A WebSocket's message held it already.
            viewer.take(name);
        }
        viewer
    }

    fn upgrade(&mut self, path: &str, host: SocketAddr) {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: binary\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    }

    /// That many bytes of RFB; of a WebSocket the whole next message, which begins with them.
    fn take(&mut self, count: usize) -> Vec<u8> {
        if !self.is_websocket {
            return self.read(count);
        }
        loop {
            let head = self.read(2);
            let length = match head[1] {
                126 => self.read(2),
                127 => self.read(8),
                short => vec![short],
            };
            let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            let message = self.read(length);
            if head[0] == 0x82 {
                return message;
            }
        }
    }

    fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn send(&mut self, payload: &[u8]) {
        let mut frame = Vec::new();
        if self.is_websocket {
            frame.extend([0x82, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0]);
        }
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).unwrap();
    }

    /// Throws bytes away until told to stop.
    pub(crate) fn sink(mut self, bytes: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> JoinHandle<()> {
        spawn(move || {
            let mut buffer = vec![0; 1 << 20];
            while !stop.load(Ordering::Relaxed) {
                match self.stream.read(&mut buffer) {
                    Ok(0) | Err(_) => return,
                    Ok(count) => bytes.fetch_add(count as u64, Ordering::Relaxed),
                };
            }
        })
    }

    /// Milliseconds from keys to their answers, for `time`.
    pub(crate) fn echoes(&mut self, time: Duration) -> Vec<f64> {
        let (start, mut waits) = (Instant::now(), Vec::new());
        while start.elapsed() < time {
            let pressed = Instant::now();
            self.echo();
            waits.push(pressed.elapsed().as_secs_f64() * 1e3);
            std::thread::sleep(Duration::from_millis(10));
        }
        waits
    }

    /// A key, and its answer.
    pub(crate) fn echo(&mut self) {
        let mut answer = [0; ECHO + 4];
        let answer = &mut answer[if self.is_websocket { 0 } else { 4 }..];
        self.send(&[4, 1, 0, 0, 0, 0, 0, b'k']);
        self.stream.read_exact(answer).unwrap();
    }
}
