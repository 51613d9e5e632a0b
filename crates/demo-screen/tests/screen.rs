//! The demo screen as viewers meet it: over TCP, with our own client's half and with vnc-rs, an
//! independent implementation.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests spawn")]

use std::net::SocketAddr;
use std::time::Duration;

use demo_screen::{DemoOptions, DemoScreen};
use rfb::{ClientHandshake, HandshakeError, PixelFormat, ServerInit, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

const LIMIT: Duration = Duration::from_secs(20);

struct Running {
    screen: DemoScreen,
    addr: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    _guard: DropGuard,
}

async fn start(options: DemoOptions) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (screen, stop) = (DemoScreen::new(options), CancellationToken::new());
    let task = tokio::spawn({
        let (screen, stop) = (screen.clone(), stop.clone());
        async move { screen.serve(listener, stop).await }
    });
    Running { screen, addr, task, _guard: stop.clone().drop_guard(), stop }
}

fn small() -> DemoOptions {
    DemoOptions { width: 320, height: 240, ..DemoOptions::default() }
}

struct Viewer {
    stream: TcpStream,
    init: ServerInit,
}

async fn connect(addr: SocketAddr, password: &str) -> Result<Viewer, HandshakeError> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let mut handshake = ClientHandshake::new(password);
    let mut buffer = [0; 1024];
    while !handshake.is_done() {
        let count = timeout(LIMIT, stream.read(&mut buffer)).await.unwrap().unwrap();
        if count == 0 {
            return Err(handshake.end_of_stream());
        }
        handshake.receive(&buffer[..count])?;
        stream.write_all(&handshake.take_output()).await.unwrap();
    }
    let (init, rest) = handshake.finish().unwrap();
    assert_eq!(rest, b"");
    Ok(Viewer { stream, init })
}

type Rect = (u16, u16, u16, u16);

impl Viewer {
    async fn request(&mut self, incremental: bool) {
        let (w, h) = (self.init.width.to_be_bytes(), self.init.height.to_be_bytes());
        let message = [3, u8::from(incremental), 0, 0, 0, 0, w[0], w[1], h[0], h[1]];
        self.stream.write_all(&message).await.unwrap();
    }

    async fn update(&mut self, bytes_per_pixel: usize) -> Vec<(Rect, Vec<u8>)> {
        let mut head = [0; 4];
        timeout(LIMIT, self.stream.read_exact(&mut head)).await.unwrap().unwrap();
        assert_eq!(head[0], 0);
        let mut rects = Vec::new();
        for _ in 0..u16::from_be_bytes([head[2], head[3]]) {
            let mut rect = [0; 12];
            self.stream.read_exact(&mut rect).await.unwrap();
            let number = |at: usize| u16::from_be_bytes([rect[at], rect[at + 1]]);
            assert_eq!(rect[8..], [0, 0, 0, 0]);
            let rect = (number(0), number(2), number(4), number(6));
            let mut pixels = vec![0; usize::from(rect.2) * usize::from(rect.3) * bytes_per_pixel];
            self.stream.read_exact(&mut pixels).await.unwrap();
            rects.push((rect, pixels));
        }
        rects
    }

    async fn key(&mut self, keysym: u32) {
        let [a, b, c, d] = keysym.to_be_bytes();
        self.stream.write_all(&[4, 1, 0, 0, a, b, c, d, 4, 0, 0, 0, a, b, c, d]).await.unwrap();
    }
}

/// The first pixel of each of the four colour patches.
fn patches(pixels: &[u8], width: usize, size: usize) -> Vec<Vec<u8>> {
    (0..4).map(|n| pixels[(8 * width + 8 + 16 * n) * size..][..size].to_vec()).collect()
}

#[tokio::test]
async fn viewers_of_every_version_see_the_patches_and_type() {
    for version in [Version::V3, Version::V7, Version::V8] {
        for password in [None, Some("s3cretpw")] {
            let password = password.map(str::to_owned);
            let running = start(DemoOptions { version, password, ..small() }).await;
            let mut viewer = connect(running.addr, "s3cretpw and more").await.unwrap();
            assert_eq!((viewer.init.width, viewer.init.height), (320, 240));
            assert_eq!(viewer.init.name, b"QuickCloud demo screen");
            viewer.request(false).await;
            let update = viewer.update(4).await;
            assert_eq!(update.len(), 1);
            assert_eq!(update[0].0, (0, 0, 320, 240));
            let expected: [[u8; 4]; 4] =
                [[0, 0, 255, 0], [0, 255, 0, 0], [255, 0, 0, 0], [255, 255, 255, 0]];
            assert_eq!(patches(&update[0].1, 320, 4), expected);
            viewer.key(0x68).await;
            viewer.key(0x69).await;
            // The keys' line changes at once and is sent to whoever waits for a change.
            while running.screen.keys() != [0x68, 0x69] {
                viewer.request(true).await;
                viewer.update(4).await;
            }
            assert_eq!(running.screen.typed_text(), "hi");
        }
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused_with_a_reason() {
    let running = start(DemoOptions { password: Some("right".into()), ..small() }).await;
    let error = connect(running.addr, "wrong").await.err().unwrap();
    assert_eq!(error, HandshakeError::WrongPassword("wrong password".into()));
}

#[tokio::test]
async fn pixels_come_in_the_format_asked_for() {
    let running = start(small()).await;
    let check = async |format: PixelFormat, size: usize, expected: &[&[u8]]| {
        let mut viewer = connect(running.addr, "").await.unwrap();
        let mut message = vec![0, 0, 0, 0];
        message.extend(format.encode());
        viewer.stream.write_all(&message).await.unwrap();
        viewer.request(false).await;
        let update = viewer.update(size).await;
        assert_eq!(patches(&update[0].1, 320, size), expected);
    };
    let rgb565 = PixelFormat {
        bits_per_pixel: 16,
        depth: 16,
        max: [31, 63, 31],
        shift: [11, 5, 0],
        ..PixelFormat::RGB888
    };
    check(rgb565, 2, &[&[0, 0xf8], &[0xe0, 7], &[0x1f, 0], &[0xff, 0xff]]).await;
    check(
        PixelFormat { big_endian: true, ..rgb565 },
        2,
        &[&[0xf8, 0], &[7, 0xe0], &[0, 0x1f], &[0xff, 0xff]],
    )
    .await;
    let bgr233 = PixelFormat {
        bits_per_pixel: 8,
        depth: 8,
        max: [7, 7, 3],
        shift: [0, 3, 6],
        ..PixelFormat::RGB888
    };
    check(bgr233, 1, &[&[7], &[0x38], &[0xc0], &[0xff]]).await;
    check(
        PixelFormat { big_endian: true, ..PixelFormat::RGB888 },
        4,
        &[&[0, 255, 0, 0], &[0, 0, 255, 0], &[0, 0, 0, 255], &[0, 255, 255, 255]],
    )
    .await;
}

#[tokio::test]
async fn incremental_requests_get_only_what_changed() {
    let running = start(small()).await;
    let mut viewer = connect(running.addr, "").await.unwrap();
    viewer.request(false).await;
    viewer.update(4).await;
    for _ in 0..3 {
        viewer.request(true).await;
        let area: u32 =
            viewer.update(4).await.iter().map(|(r, _)| u32::from(r.2) * u32::from(r.3)).sum();
        assert!(area > 0 && area < 320 * 240 / 2, "{area}");
    }
}

#[tokio::test]
async fn a_colour_map_format_and_nonsense_end_only_that_viewer() {
    let running = start(small()).await;
    let mut good = connect(running.addr, "").await.unwrap();
    for nonsense in [
        &[0, 0, 0, 0, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
        &[99; 40],
        &[6, 0, 0, 0, 0x7f, 0, 0, 0],
    ] {
        let mut bad = connect(running.addr, "").await.unwrap();
        bad.stream.write_all(nonsense).await.unwrap();
        let mut rest = Vec::new();
        timeout(LIMIT, bad.stream.read_to_end(&mut rest)).await.unwrap().ok();
        assert_eq!(rest, b"");
    }
    good.request(false).await;
    assert_eq!(good.update(4).await.len(), 1);
}

#[tokio::test]
async fn stopping_ends_every_viewer_and_returns() {
    let running = start(small()).await;
    let mut viewers = Vec::new();
    for _ in 0..20 {
        viewers.push(connect(running.addr, "").await.unwrap());
    }
    assert_eq!(running.screen.viewers(), 20);
    running.stop.cancel();
    timeout(LIMIT, running.task).await.unwrap().unwrap();
    assert_eq!(running.screen.viewers(), 0);
    let mut rest = Vec::new();
    viewers[7].stream.read_to_end(&mut rest).await.ok();
    assert_eq!(rest, b"");
}

/// vnc-rs knows nothing of our code: it must agree on handshake, password, format and pixels.
#[tokio::test]
async fn an_independent_client_sees_the_picture_and_types() {
    use vnc::{PixelFormat as VncFormat, VncConnector, VncEncoding, VncEvent, X11Event};

    let running = start(DemoOptions { password: Some("s3cret".into()), ..small() }).await;
    let stream = TcpStream::connect(running.addr).await.unwrap();
    let client = VncConnector::new(stream)
        .set_auth_method(async { Ok("s3cret".to_owned()) })
        .add_encoding(VncEncoding::Raw)
        .add_encoding(VncEncoding::DesktopSizePseudo)
        .allow_shared(true)
        .set_pixel_format(VncFormat::rgba())
        .build()
        .unwrap()
        .try_start()
        .await
        .unwrap()
        .finish()
        .unwrap();
    client.input(X11Event::FullRefresh).await.unwrap();
    let picture = loop {
        match timeout(LIMIT, client.recv_event()).await.unwrap().unwrap() {
            VncEvent::RawImage(rect, pixels) if (rect.width, rect.height) == (320, 240) => {
                break pixels;
            }
            VncEvent::Error(error) => panic!("{error}"),
            _ => {}
        }
    };
    let seen: Vec<Vec<u8>> =
        patches(&picture, 320, 4).into_iter().map(|p| p[..3].to_vec()).collect();
    assert_eq!(seen, [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]);
    for down in [true, false] {
        client.input(X11Event::KeyEvent((0x71, down).into())).await.unwrap();
    }
    while running.screen.keys() != [0x71] {
        client.input(X11Event::Refresh).await.unwrap();
        timeout(LIMIT, client.recv_event()).await.unwrap().unwrap();
    }
    client.close().await.unwrap();
}
