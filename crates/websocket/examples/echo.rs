//! An echo server on the crate's frames, for `cargo xtask autobahn`: prints its port, serves until
//! it is killed. A thread for each connection, and the opening handshake as short as it can be: what
//! is looked at are the frames.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program for a test suite")]

use std::io::{self, BufRead, BufReader, Error, Read, Write};
use std::net::{TcpListener, TcpStream};

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use websocket::{CloseFrame, Event, Header, Opcode, Receiver};

/// The suite's longest message has 16 MiB.
const LIMIT: usize = 32 << 20;

fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            // A client that leaves is none of our business.
            drop(serve(stream));
        });
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let key = key(&mut reader)?;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    );
    stream.write_all(answer.as_bytes())?;
    let mut receiver = Receiver::new(LIMIT);
    let (mut message, mut chunk) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        match receiver.take() {
            Ok(Some(Event::Binary { bytes, last })) => {
                message.extend_from_slice(&bytes);
                if last {
                    send(&mut stream, Opcode::Binary, &std::mem::take(&mut message))?;
                }
            }
            Ok(Some(Event::Text(text))) => send(&mut stream, Opcode::Text, text.as_bytes())?,
            Ok(Some(Event::Ping(payload))) => send(&mut stream, Opcode::Pong, &payload)?,
            Ok(Some(Event::Pong(_))) => {}
            Ok(Some(Event::Close(frame))) => {
                let body = frame.map(|frame| CloseFrame::encode(frame.code, &frame.reason));
                return send(&mut stream, Opcode::Close, &body.unwrap_or_default());
            }
            Ok(None) => match reader.read(&mut chunk)? {
                0 => return Ok(()),
                count => receiver.receive(chunk.get(..count).unwrap_or_default()),
            },
            Err(error) => {
                let body = CloseFrame::encode(error.code(), &error.to_string());
                send(&mut stream, Opcode::Close, &body)?;
                stream.shutdown(std::net::Shutdown::Write)?;
                // What still comes is read, or the goodbye is lost with the connection.
                while reader.read(&mut chunk)? > 0 {}
                return Ok(());
            }
        }
    }
}

/// The key of the request, whose other lines are of no interest.
fn key(reader: &mut impl BufRead) -> io::Result<String> {
    let mut key = None;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("sec-websocket-key") => {
                key = Some(value.to_owned());
            }
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    key.ok_or_else(|| Error::other("no key"))
}

fn send(stream: &mut TcpStream, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
    stream.write_all(Header::new(opcode, payload.len()).as_bytes())?;
    stream.write_all(payload)
}
