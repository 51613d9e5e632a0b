//! VNC servers that are not ours: x11vnc as Debian has it, and servers that are broken or hostile.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use management_server::CertificateAuthority;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::browser::{Program, answers, browse, free_port};
use crate::control::page_at;
use crate::viewer::Viewer;
use crate::world::{LIMIT, Options, World, start, vm};

/// An X server of TigerVNC, and what it says in its log.
async fn display(directory: &Path) -> (Program, String) {
    let addr = free_port();
    let name = format!(":{}", addr.port());
    let log = std::fs::File::create(directory.join("x.log")).unwrap();
    let program = Command::new("Xtigervnc")
        .args([&name, "-rfbport", &addr.port().to_string(), "-localhost=1"])
        // It stays as it is when its last client leaves.
        .args(["-ac", "-noreset"])
        .args(["-SecurityTypes=None", "-geometry", "320x240", "-depth", "24", "-retro"])
        .args(["-nolisten", "tcp"])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let program = Program(program);
    answers(addr).await;
    (program, name)
}

/// x11vnc in front of that display.
async fn x11vnc(display: &str, arguments: &[&str]) -> (Program, SocketAddr) {
    let addr = free_port();
    let program = Command::new("x11vnc")
        .args(["-display", display, "-rfbport", &addr.port().to_string(), "-localhost"])
        .args(["-passwd", "vncpassw", "-forever", "-shared", "-noshm", "-quiet", "-norc"])
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("run `cargo xtask setup`, or install x11vnc");
    let program = Program(program);
    answers(addr).await;
    (program, addr)
}

/// A client of that display, which writes down each key that it sees.
struct Keyboard {
    _xev: Program,
    log: PathBuf,
}

impl Keyboard {
    fn of(display: &str, directory: &Path) -> Self {
        let log = directory.join("xev.log");
        let xev = Command::new("xev")
            .args(["-display", display, "-root", "-event", "keyboard"])
            .stdout(std::fs::File::create(&log).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .expect("run `cargo xtask setup`, or install x11-utils");
        Self { _xev: Program(xev), log }
    }

    /// The keysyms that were pressed, without the modifiers that this display's layout wants.
    fn pressed(&self) -> Vec<u32> {
        let log = std::fs::read_to_string(&self.log).unwrap();
        let presses = log.split("\n\n").filter(|event| event.trim_start().starts_with("KeyPress"));
        let keysym = |event: &str| {
            let (_, rest) = event.split_once("(keysym 0x")?;
            u32::from_str_radix(rest.split(',').next()?, 16).ok()
        };
        presses.filter_map(keysym).filter(|keysym| !(0xffe1..=0xffee).contains(keysym)).collect()
    }

    /// Waits until these, and nothing else, were pressed after the first `skipped`.
    async fn saw(&self, skipped: usize, text: &str) {
        let wanted: Vec<u32> = text.chars().map(keysym_of).collect();
        let pressed = || self.pressed().split_off(skipped);
        testkit::eventually("all keys", LIMIT, || (pressed().len() >= wanted.len()).then_some(()))
            .await;
        assert_eq!(pressed(), wanted);
    }
}

const fn keysym_of(character: char) -> u32 {
    match character {
        '\n' => 0xff0d,
        '€' => 0x20ac,
        other => other as u32,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_of_two_thousand_reaches_the_guest_as_it_was_typed() {
    let world = start(Options::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let (_display, name) = display(directory.path()).await;
    let (_server, addr) = x11vnc(&name, &[]).await;
    let keyboard = Keyboard::of(&name, directory.path());
    world.server.put_vm(vm(2, addr));
    let mut page = page_at(world.addr, &world.link(2).await, None).await.unwrap();
    // It writes down what comes once it is there.
    while keyboard.pressed().is_empty() {
        page.key(b' ').await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    page.key(b'!').await;
    testkit::eventually("a key", LIMIT, || {
        (keyboard.pressed().last() == Some(&0x21)).then_some(())
    })
    .await;
    let skipped = keyboard.pressed().len();
    let text: String = (33..=126).map(char::from).chain("Grüße é€\n".chars()).collect();
    let text: String = text.chars().cycle().take(2000).collect();
    let events: Vec<Value> = text
        .chars()
        .flat_map(|character| [1, 0].map(|down| json!([down, keysym_of(character), 0])))
        .collect();
    page.say(&json!({"type": "type", "id": 1, "pace_ms": 2, "events": events})).await;
    let told = loop {
        let told = page.told("typing").await;
        if told["state"] != "running" {
            break told;
        }
    };
    assert_eq!((&told["state"], &told["done"]), (&"done".into(), &4000.into()));
    keyboard.saw(skipped, &text).await;
    // And by a browser's keyboard.
    let url =
        world.link(2).await.url.replace("http://127.0.0.1/", &format!("http://{}/", world.addr));
    browse(&url, &["--expect-colours", "2", "--type", "qA7%{~", "--paste", "z€\n"]).await;
    keyboard.saw(skipped + 2000, "qA7%{~z€\n").await;
}

async fn open(world: &World, addr: SocketAddr) -> Viewer {
    world.server.put_vm(vm(2, addr));
    let link = world.link(2).await;
    world.open_link(&link).await.unwrap_or_else(|refused| panic!("{refused:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn x11vnc_is_shown_in_every_version_with_its_encryption_and_in_a_browser() {
    let world =
        start(Options { role: "host_tls = \"accept-any\"".into(), ..Options::default() }).await;
    let directory = tempfile::tempdir().unwrap();
    let (_display, name) = display(directory.path()).await;
    for version in ["3.3", "3.7", "3.8"] {
        let (_server, addr) = x11vnc(&name, &["-rfbversion", version]).await;
        let mut viewer = open(&world, addr).await;
        assert_eq!((viewer.init.width, viewer.init.height), (320, 240), "{version}");
        assert!(viewer.picture().await > 0, "{version}");
    }
    // VeNCrypt by OpenSSL, with a certificate that nobody knows. It wants an RSA key.
    let made = CertificateAuthority::generate().unwrap().issue("x11vnc.example", &[]).unwrap();
    let pair = directory.path().join("pair.pem");
    std::fs::write(&pair, made.certificate_pem + &made.key_pem).unwrap();
    let pair = pair.display().to_string();
    let (_server, addr) = x11vnc(&name, &["-ssl", &pair, "-vencrypt", "nodh:only"]).await;
    let mut viewer = open(&world, addr).await;
    assert_eq!(viewer.init.name, b"vm2 (TLS backend)");
    assert!(viewer.picture().await > 0);
    let link = world.link(2).await;
    let url = link.url.replace("http://127.0.0.1/", &format!("http://{}/", world.addr));
    browse(&url, &["--expect-colours", "2"]).await;
}

/// What an odd server does, in order.
#[derive(Clone)]
enum Step {
    Says(Vec<u8>),
    Reads(usize),
    /// Keeps the connection and says nothing more.
    Holds,
}
use Step::{Holds, Reads, Says};

/// A server that does this once, and hangs up at the end.
async fn odd(steps: Vec<Step>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for step in steps {
            match step {
                // In pieces of a byte where it is short: nothing may depend on how it is cut.
                Says(bytes) if bytes.len() < 64 => {
                    for byte in bytes {
                        if stream.write_all(&[byte]).await.is_err() {
                            return;
                        }
                    }
                }
                Says(bytes) => stream.write_all(&bytes).await.unwrap(),
                Reads(count) => {
                    let mut read = vec![0; count];
                    if stream.read_exact(&mut read).await.is_err() {
                        return;
                    }
                }
                Holds => std::future::pending().await,
            }
        }
    });
    addr
}

fn says(parts: &[&[u8]]) -> Step {
    Says(parts.concat())
}

const V3: &[u8] = b"RFB 003.003\n";
const V8: &[u8] = b"RFB 003.008\n";
/// A list with None alone, chosen; accepted; our ClientInit.
const IN: [&[u8]; 2] = [&[1, 1], &[0, 0, 0, 0]];

/// A ServerInit of 8 by 8 pixels that announces so long a name.
fn init(name: u32) -> Vec<u8> {
    let format = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];
    [&[0, 8, 0, 8], &format[..], &name.to_be_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_break_their_word_are_told_by_what_they_did() {
    let role = "handshake_timeout = \"700ms\"".to_owned();
    let world = start(Options { role, ..Options::default() }).await;
    let refused = "the VNC server refused: ";
    let check = async |steps: Vec<Step>, words: String| {
        world.server.put_vm(vm(2, odd(steps).await));
        let link = world.link(2).await;
        let outcome = world.open_link(&link).await.err().unwrap();
        let mut words = format!("the virtual machine's screen cannot be reached: {words}");
        // The viewer of this test reads no more of a reason.
        words.truncate(1024);
        assert_eq!(outcome.reason, words);
        let (code, close) = outcome.close.unwrap();
        assert!(
            code == 1008 && outcome.reason.starts_with(&close) && close.len() <= 123,
            "{close}"
        );
        world.closed_in_books(&link).await;
    };
    let closed = |what: &str| format!("the VNC server closed the connection while {what}");
    check(vec![], closed("its version was awaited")).await;
    check(vec![says(&[b"RFB 003."])], closed("its version was awaited")).await;
    let long = "x".repeat(5000);
    let length = 5000_u32.to_be_bytes();
    for other in
        ["HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n", "RFB 00x.008\n", &long]
    {
        check(vec![says(&[other.as_bytes()])], "the peer does not speak RFB".to_owned()).await;
    }
    let begun = || vec![says(&[V8]), Reads(12)];
    let after = |more: &[Step]| [begun(), more.to_vec()].concat();
    check(begun(), closed("its security types were awaited")).await;
    check(after(&[says(&[&[3, 1]])]), closed("its security types were awaited")).await;
    check(
        after(&[says(&[&[2, 16, 30]])]),
        "the VNC server offers no usable security (type 16, type 30)".to_owned(),
    )
    .await;
    // No types but a reason: long, without end, not text, none, and cut off.
    let expected = format!("{refused}{}", "x".repeat(1024));
    check(after(&[says(&[&[0], &length, long.as_bytes()])]), expected).await;
    let huge = [&[0], &u32::MAX.to_be_bytes()[..], b"too many viewers"].concat();
    let expected = format!("{refused}too many viewers");
    check(after(&[Says(huge.clone()), Holds]), expected.clone()).await;
    check(after(&[Says(huge)]), expected).await;
    let bytes = [&[0, 0, 0, 0, 9][..], b"\xff\x1b[2Jno\r\n"].concat();
    check(after(&[Says(bytes)]), format!("{refused}\u{fffd} [2Jno")).await;
    check(after(&[says(&[&[0, 0, 0, 0, 0]])]), format!("{refused}no reason given")).await;
    check(
        vec![says(&[V3]), Reads(12), says(&[&[0, 0, 0, 0, 0, 0, 0, 4], b"busy"])],
        format!("{refused}busy"),
    )
    .await;
    check(
        vec![says(&[V3]), Reads(12), says(&[&[0, 0, 0, 0x13]])],
        "the VNC server offers no usable security (VeNCrypt)".to_owned(),
    )
    .await;
    // It fails after None, and with a result that does not exist.
    check(
        after(&[says(&[&[1, 1]]), Reads(1), says(&[&[0, 0, 0, 2, 0, 0, 0, 3], b"why"])]),
        format!("{refused}why"),
    )
    .await;
    // The password is not taken: without a word, and for too many attempts.
    let challenge = || [says(&[&[1, 2]]), Reads(1), Says(vec![7; 16]), Reads(16)];
    let wrong = "the VNC server did not accept the password";
    let with = |more: Step| after(&[challenge().to_vec(), vec![more]].concat());
    check(with(says(&[&[0, 0, 0, 1]])), wrong.to_owned()).await;
    let many = says(&[&[0, 0, 0, 2, 0, 0, 0, 17], b"too many failures"]);
    check(with(many), format!("{wrong}: too many failures")).await;
    // Its screen: cut short, with a name of 4 GiB.
    let shown =
        |init: &[u8]| after(&[says(&[IN[0]]), Reads(1), says(&[IN[1]]), Reads(1), says(&[init])]);
    check(shown(&init(0)[..20]), closed("its screen's size was awaited")).await;
    check(shown(&init(9)), closed("its screen's size was awaited")).await;
    check(shown(&init(u32::MAX)), "the VNC server's desktop name has 4294967295 bytes".to_owned())
        .await;
    check(after(&[Holds]), "no answer within 700ms".to_owned()).await;
    assert_eq!(world.open(), 0);
}

/// What it sends with its ServerInit, in whatever versions and pieces, arrives whole.
#[tokio::test(flavor = "multi_thread")]
async fn private_versions_are_spoken_to_as_3_8_and_nothing_that_comes_early_is_lost() {
    let world = start(Options::default()).await;
    // A new size, as the extension has it: one pseudo-rectangle with one screen.
    let size =
        [&[0, 0, 0, 1, 0, 0, 0, 0, 4, 0, 3, 0][..], &(-308_i32).to_be_bytes(), &[1, 0, 0, 0]];
    let size = [size.concat(), vec![0; 16]].concat();
    for version in [b"RFB 003.889\n", b"RFB 004.000\n", b"RFB 004.001\n", b"RFB 005.000\n"] {
        let steps = vec![
            says(&[version]),
            Reads(12),
            says(&[IN[0]]),
            Reads(1),
            says(&[IN[1]]),
            Reads(1),
            // With bytes in its name that are no text.
            says(&[&init(3), b"\xff\xfe\0", &size]),
            Holds,
        ];
        world.server.put_vm(vm(2, odd(steps).await));
        let (_link, mut viewer) = world.console(2).await;
        assert_eq!((viewer.init.width, &*viewer.init.name), (8, &b"vm2 "[..]));
        assert_eq!(viewer.exactly(size.len()).await, size);
    }
    // A guest that copies something: the page says so, and offers it.
    let copied = [&[3, 0, 0, 0, 0, 0, 0, 5][..], b"Copy!"];
    let shown = says(&[&init(1), b"g", copied[0], copied[1]]);
    let steps =
        [&[says(&[V8]), Reads(12)][..], &[says(&[IN[0]]), Reads(1), says(&[IN[1]]), Reads(1)]];
    world.server.put_vm(vm(2, odd([steps.concat(), vec![shown, Holds]].concat()).await));
    let url =
        world.link(2).await.url.replace("http://127.0.0.1/", &format!("http://{}/", world.addr));
    browse(&url, &["--expect-notice", "The guest copied"]).await;
}
