//! What crosses the relay and what does not.

use futures_util::{SinkExt, StreamExt};
use rfb::{PixelFormat, ServerHandshake, ServerInit, ServerSecurity, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::viewer::{PATCHES, close_of, raw_path};
use crate::world::{LIMIT, Options, start, vm};

/// A screen that leads one client in and hands out the bare connection.
async fn bare_screen(listener: TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut handshake = ServerHandshake::new(ServerSecurity::None, Version::V8);
    let init =
        ServerInit { width: 8, height: 8, format: PixelFormat::RGB888, name: b"bare".into() };
    handshake.admit(init).unwrap();
    let mut buffer = [0; 256];
    loop {
        stream.write_all(&handshake.take_output()).await.unwrap();
        if handshake.is_done() {
            return stream;
        }
        let count = stream.read(&mut buffer).await.unwrap();
        handshake.receive(&buffer[..count]).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_data_frames_reach_the_vm_and_pings_are_answered_with_their_payload() {
    let world = start(Options::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.server.put_vm(vm(2, listener.local_addr().unwrap()));
    let screen = tokio::spawn(bare_screen(listener));
    let (_link, mut viewer) = world.console(2).await;
    let mut screen = screen.await.unwrap();
    viewer.socket.send(Message::Ping(b"are you there".to_vec().into())).await.unwrap();
    viewer.socket.send(Message::Pong(b"unasked".to_vec().into())).await.unwrap();
    viewer.send(b"").await;
    match timeout(LIMIT, viewer.socket.next()).await.unwrap() {
        Some(Ok(Message::Pong(payload))) => assert_eq!(&payload[..], b"are you there"),
        other => panic!("{other:?}"),
    }
    viewer.key(b'k').await;
    screen.write_all(b"picture").await.unwrap();
    assert_eq!(
        timeout(LIMIT, viewer.socket.next()).await.unwrap().unwrap().unwrap(),
        Message::binary(b"picture".to_vec())
    );
    viewer.socket.close(None).await.unwrap();
    let mut received = Vec::new();
    timeout(LIMIT, screen.read_to_end(&mut received)).await.unwrap().unwrap();
    assert_eq!(received, [4, 1, 0, 0, 0, 0, 0, b'k', 4, 0, 0, 0, 0, 0, 0, b'k']);
}

#[tokio::test(flavor = "multi_thread")]
async fn text_and_oversized_messages_end_the_console_with_the_right_code() {
    let world =
        start(Options { role: "message_limit = \"64KiB\"".into(), ..Options::default() }).await;
    let (link, mut viewer) = world.console(1).await;
    viewer.socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(
        close_of(&mut viewer.socket).await,
        Some((1003, "text messages are not accepted".into()))
    );
    world.closed_in_books(&link).await;
    let (link, mut viewer) = world.console(1).await;
    // A clipboard text of the largest size passes, one byte more does not.
    let mut paste = vec![6, 0, 0, 0, 0, 0, 0xff, 0xf8];
    paste.resize(64 * 1024, b'x');
    viewer.send(&paste).await;
    assert_eq!(viewer.patches().await, PATCHES);
    viewer.send(&vec![0; 64 * 1024 + 1]).await;
    assert_eq!(close_of(&mut viewer.socket).await, Some((1009, "a message was too big".into())));
    world.closed_in_books(&link).await;
}

/// The head of the answer to an upgrade with these extra header lines.
async fn upgrade_head(addr: std::net::SocketAddr, path: &str, lines: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(LIMIT, stream.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

#[tokio::test(flavor = "multi_thread")]
async fn deflate_is_never_negotiated_and_binary_is_echoed_only_when_offered() {
    let world = start(Options::default()).await;
    let path = raw_path(&world.link(1).await, None);
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let head = upgrade_head(world.addr, &path, offer).await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    assert!(!head.contains("extensions") && !head.contains("protocol:"), "{head}");
    let head = upgrade_head(world.addr, &path, "Sec-WebSocket-Protocol: base64, binary\r\n").await;
    assert!(head.contains("sec-websocket-protocol: binary\r\n"), "{head}");
    let head = upgrade_head(world.addr, &path, "Sec-WebSocket-Protocol: base64\r\n").await;
    assert!(!head.contains("protocol:"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_viewer_slows_the_vm_and_nothing_piles_up() {
    let world = start(Options::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.server.put_vm(vm(2, listener.local_addr().unwrap()));
    let screen = tokio::spawn(bare_screen(listener));
    let (_link, mut viewer) = world.console(2).await;
    let mut screen = screen.await.unwrap();
    // Nobody reads: the VM can write what the kernel's buffers and one message hold, then stands.
    let block = vec![7; 1 << 16];
    let mut written = 0_usize;
    while let Ok(outcome) =
        timeout(std::time::Duration::from_millis(500), screen.write(&block)).await
    {
        written += outcome.unwrap();
        assert!(written < 64 << 20, "the relay buffers without a bound");
    }
    // The other direction still works.
    viewer.key(b'k').await;
    let mut key = [0; 16];
    timeout(LIMIT, screen.read_exact(&mut key)).await.unwrap().unwrap();
    // And everything arrives once the viewer reads.
    let mut read = 0;
    while read < written {
        match timeout(LIMIT, viewer.socket.next()).await.unwrap().unwrap().unwrap() {
            Message::Binary(bytes) => read += bytes.len(),
            other => assert!(other.is_ping(), "{other:?}"),
        }
    }
    assert_eq!(read, written);
}

/// A frame as bytes: first byte, length as given, mask of zeros, payload.
fn raw_frame(first: u8, length: &[u8], payload: &[u8]) -> Vec<u8> {
    [&[first][..], length, &[0; 4], payload].concat()
}

/// What no browser sends, and clients in the field do: each is closed with its code, at once, and the
/// session is reported like any other.
#[tokio::test(flavor = "multi_thread")]
async fn frames_that_break_the_protocol_end_the_console_with_their_code() {
    let world = start(Options::default()).await;
    let huge = [&[0xff][..], &(1_u64 << 62).to_be_bytes()].concat();
    let cases: [(&str, Vec<u8>, u16); 8] = [
        ("not masked", vec![0x82, 1, b'x'], 1002),
        ("a reserved bit", raw_frame(0xc2, &[0x81], b"x"), 1002),
        ("an unknown kind", raw_frame(0x83, &[0x81], b"x"), 1002),
        ("a fragmented ping", raw_frame(0x09, &[0x80], b""), 1002),
        ("a ping too long", raw_frame(0x89, &[0xfe, 0, 126], &[0; 126]), 1002),
        ("a continuation of nothing", raw_frame(0x80, &[0x81], b"x"), 1002),
        ("a message of 4 EiB", raw_frame(0x82, &huge, b""), 1009),
        ("a close of one byte", raw_frame(0x88, &[0x81], b"x"), 1002),
    ];
    for (what, bytes, code) in cases {
        let (link, mut viewer) = world.console(1).await;
        viewer.socket.get_mut().write_all(&bytes).await.unwrap();
        let closed = close_of(&mut viewer.socket).await;
        assert_eq!(closed.map(|(code, _)| code), Some(code), "{what}");
        world.closed_in_books(&link).await;
    }
    // One that says nothing more is gone: also when it only says so for its own side.
    let (link, mut viewer) = world.console(1).await;
    viewer.socket.get_mut().shutdown().await.unwrap();
    world.closed_in_books(&link).await;
}
