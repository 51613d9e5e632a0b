//! A real browser opens links in the server's form: Chromium without a window, against the demo
//! screen, TigerVNC and QEMU.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use demo_screen::DemoOptions;
use management_server::{ConsoleLink, Vm};
use serde_json::Value;

use crate::world::{LIMIT, LOCAL, Options, World, start, vm};

/// One browser at a time: each takes a few hundred megabytes.
static BROWSER: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/browser/console.mjs")
}

/// What a browser says of a link; `arguments` are its expectations.
pub(crate) async fn browse(url: &str, arguments: &[&str]) -> Value {
    let _one = BROWSER.lock().await;
    let script = script();
    let modules = script.with_file_name("node_modules");
    assert!(modules.is_dir(), "run `cargo xtask setup`, or npm ci --prefix tests/browser");
    let mut command = Command::new("node");
    command.arg(script).args(["--url", url]).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let said: Value = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    assert!(output.status.success(), "{said:#}");
    said
}

/// The link as the server wrote it, but for the port that this test happens to listen on, and a
/// name that the browser takes for another machine: pages over plain HTTP lack what browsers keep
/// for secure ones and for this machine.
fn at(world: &World, link: &ConsoleLink) -> String {
    link.url.replace("http://127.0.0.1/", &format!("http://console.test:{}/", world.addr.port()))
}

pub(crate) const PATCHES: &str = "8,8,ff0000 24,8,00ff00 40,8,0000ff 56,8,ffffff";

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_opens_a_link_sees_the_demo_screen_and_types() {
    let world = start(Options {
        screen: DemoOptions { password: Some("vncpassw".into()), ..DemoOptions::default() },
        // A window that was closed is missed for so long.
        role: "session_reconnection_window = \"1s\"".into(),
        ..Options::default()
    })
    .await;
    // With everything that a link can have: an odd extra text and a Windows guest.
    world.server.put_vm(Vm { windows: true, ..vm(1, world.screen_addr) });
    let link = world.link_for(1, LOCAL, Some("a b&c=d+e%\"<é")).await;
    let said = browse(
        &at(&world, &link),
        &["--expect-pixels", PATCHES, "--type", "hello", "--paste", "Pa$te!\n", "--keep", "300"],
    )
    .await;
    assert_eq!((&said["name"], &said["title"]), (&"vm1".into(), &"vm1 – Console".into()));
    assert_eq!(world.screen.typed_text(), "helloPa$te!<Enter>");
    world.closed_in_books(&link).await;
}

/// A way to the role that can be cut, as networks are.
async fn cuttable(to: SocketAddr, cut: Arc<tokio::sync::Notify>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let cut = Arc::clone(&cut);
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(to).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = cut.notified() => {}
                }
            });
        }
    });
    addr
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_lost_its_connection_comes_back_and_asks_nobody_again() {
    let world = start(Options::default()).await;
    let link = world.link(1).await;
    let cut = Arc::new(tokio::sync::Notify::new());
    let way = cuttable(world.addr, Arc::clone(&cut)).await;
    let url =
        link.url.replace("http://127.0.0.1/", &format!("http://console.test:{}/", way.port()));
    let expected = ["--expect-return", "--expect-pixels", PATCHES, "--type", "back"];
    let (said, ()) = tokio::join!(browse(&url, &expected), async {
        testkit::eventually("a picture", LIMIT, || {
            let sent = world.cx.health.details()["consoles"][0]["bytes_to_viewer"].as_u64();
            (sent? > 0).then_some(())
        })
        .await;
        cut.notify_waiters();
    });
    assert_eq!(said["state"], "connected", "{said:#}");
    assert_eq!(world.screen.typed_text(), "back");
}

/// The keyboards that a text is typed for: tables and key events, run by Node.js.
#[test]
fn keyboards_of_guests_have_their_characters_where_people_press_them() {
    let tests = script().with_file_name("layouts.test.mjs");
    let run = std::process::Command::new("node").arg("--test").arg(tests).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_typed_for_the_guests_keyboard() {
    let world = start(Options::default()).await;
    let link = world.link(1).await;
    let said = ["--locale", "de-DE", "--layout", "de", "--paste", "Grüße, 100 €", "--keep", "300"];
    let expected = [&said[..], &["--expect-bar", "Verbunden"]].concat();
    browse(&at(&world, &link), &expected).await;
    assert_eq!(world.screen.typed_text(), "Gr<fc><df>e, 100 <20ac>");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_accessible_in_light_and_dark_and_on_a_phone() {
    let world = start(Options::default()).await;
    let looks: [&[&str]; 3] = [
        &["--scheme", "dark"],
        &["--scheme", "light", "--locale", "fr-FR"],
        &["--device", "iPhone 13", "--tap-type", "hix"],
    ];
    for look in looks {
        let link = world.link(1).await;
        browse(&at(&world, &link), &[look, &["--accessible"]].concat()).await;
    }
    // Of the shortcut the guest sees the modifiers alone.
    let typed = "<Tab><Ctrl><Alt><Tab><Ctrl><Alt>hix<BS><Tab><Ctrl><Alt>";
    assert_eq!(world.screen.typed_text(), typed);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_button_of_the_page_does_what_it_says() {
    let world = start(Options::default()).await;
    browse(&at(&world, &world.link(1).await), &["--expect-pixels", PATCHES, "--tools"]).await;
    let typed = world.screen.typed_text();
    // What a stopped text had typed so far, and nothing of who only watches.
    let stopped = typed.strip_prefix("<Ctrl><Alt><Del><Ctrl><Alt><ffbf><Ctrl>x").unwrap();
    assert!(
        (1..1000).contains(&stopped.len()) && stopped.bytes().all(|key| key == b'z'),
        "{typed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_shows_why_a_console_does_not_open_or_ends() {
    let world = start(Options::default()).await;
    let (link, _viewer) = world.console(1).await;
    let failed = ["--expect-state", "failed", "--expect-reason"];
    let used = "This console link was used already; open the console again.";
    browse(&at(&world, &link), &[failed.as_slice(), &[used]].concat()).await;
    let reloaded = format!("http://{}/resource/noVNC/vnc.html", world.addr);
    browse(&reloaded, &[failed.as_slice(), &["This page has no console link."]].concat()).await;
    // Replaced by another window while the browser looks.
    let link = world.link(1).await;
    let url = at(&world, &link);
    let replaced = "The console was opened in another window.";
    // Its button takes the console back from there.
    let closed = ["--reconnect", "--expect-reason", replaced];
    let (_said, _other) = tokio::join!(browse(&url, &closed), async {
        testkit::eventually("the browser's console", LIMIT, || {
            world.session(&link).acquired.then_some(())
        })
        .await;
        // A picture flows only to a browser that is past the handshake.
        testkit::eventually("a picture", LIMIT, || {
            let sent = world.cx.health.details()["consoles"][0]["bytes_to_viewer"].as_u64();
            (sent? > 0).then_some(())
        })
        .await;
        world.console(1).await
    });
}

/// A program that ends with the test.
pub(crate) struct Program(pub(crate) Child);

impl Drop for Program {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

pub(crate) fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub(crate) async fn answers(addr: SocketAddr) {
    testkit::eventually("a program that listens", LIMIT, || {
        std::net::TcpStream::connect(addr).ok().map(drop)
    })
    .await;
}

/// A VNC password file: the password of eight letters, encrypted under a key that is the same
/// everywhere.
pub(crate) fn password_file(path: &Path, password: &str) {
    let mut block = [0; 16];
    block[..8].copy_from_slice(password.as_bytes());
    let sealed = rfb::security::vnc_response(&[23, 82, 107, 6, 35, 78, 88, 7], &block);
    std::fs::write(path, &sealed[..8]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_sees_tigervnc_and_types_into_it() {
    let world = start(Options::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("passwd");
    password_file(&file, "vncpassw");
    let addr = free_port();
    let log = directory.path().join("log");
    let display = format!(":{}", addr.port());
    let _server = Program(
        Command::new("Xtigervnc")
            .args([
                &display,
                "-rfbport",
                &addr.port().to_string(),
                "-localhost=1",
                "-SecurityTypes=VncAuth",
            ])
            .args([
                "-geometry",
                "320x240",
                "-depth",
                "24",
                "-retro",
                "-nolisten",
                "tcp",
                "-Log",
                "*:stderr:100",
            ])
            .arg(format!("-PasswordFile={}", file.display()))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap(),
    );
    answers(addr).await;
    world.server.put_vm(vm(2, addr));
    let link = world.link(2).await;
    // The stippled ground of an X server without a window manager.
    browse(&at(&world, &link), &["--expect-colours", "2", "--type", "q", "--keep", "500"]).await;
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains("Key pressed: 0x71 "), "{log}");
}

/// Machine code of a boot sector that writes each key to the screen and to the serial port:
/// wait for a key, teletype it, `out` it, again.
const BOOT: [u8; 14] =
    [0x30, 0xe4, 0xcd, 0x16, 0xb4, 0x0e, 0xcd, 0x10, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xf2];

/// Reads lines of QEMU's machine protocol until one has this key.
pub(crate) fn until_line(lines: &mut impl BufRead, key: &str) -> Value {
    loop {
        let mut line = String::new();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "QEMU closed its control socket");
        let value: Value = serde_json::from_str(&line).unwrap();
        assert!(value.get("error").is_none(), "{value}");
        if value.get(key).is_some() {
            return value;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_sees_qemu_and_types_into_its_guest() {
    let world = start(Options::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let mut sector = BOOT.to_vec();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    let disk = directory.path().join("disk.raw");
    std::fs::write(&disk, sector).unwrap();
    let (serial, control) = (directory.path().join("serial"), directory.path().join("qmp"));
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port().port().max(5901)));
    let _machine = Program(
        Command::new("qemu-system-x86_64")
            .args(["-display", "none", "-machine", "accel=tcg", "-m", "16", "-net", "none"])
            .args(["-vnc", &format!("127.0.0.1:{},password=on", addr.port() - 5900)])
            .args(["-drive", &format!("file={},format=raw,if=ide", disk.display())])
            .args(["-serial", &format!("file:{}", serial.display())])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", control.display())])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let stream = testkit::eventually("QEMU's control socket", LIMIT, || {
        std::os::unix::net::UnixStream::connect(&control).ok()
    })
    .await;
    let mut say = stream.try_clone().unwrap();
    let mut lines = BufReader::new(stream);
    until_line(&mut lines, "QMP");
    for command in [
        r#"{"execute":"qmp_capabilities"}"#,
        r#"{"execute":"set_password","arguments":{"protocol":"vnc","password":"vncpassw"}}"#,
    ] {
        writeln!(say, "{command}").unwrap();
        until_line(&mut lines, "return");
    }
    world.server.put_vm(vm(3, addr));
    let link = world.link(3).await;
    let arguments =
        ["--expect-colours", "2", "--keep", "1500", "--type", "hello", "--paste", "A1!"];
    browse(&at(&world, &link), &arguments).await;
    let mut typed = String::new();
    std::fs::File::open(&serial).unwrap().read_to_string(&mut typed).unwrap();
    assert_eq!(typed, "helloA1!");
}
