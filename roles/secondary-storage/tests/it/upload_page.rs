//! A real browser uploads through the page: Chromium without a window, over http and https.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agent_protocol::storage::UploadStatusState::{Completed, Error, Unknown};
use agent_protocol::storage::{ImageFormat, PostUploadOrder};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use crate::bench::Bench;
use crate::images::{raw, vector};
use crate::secure::acceptor;
use crate::upload_client::{HOST, Signed, order};

fn id(number: i64) -> String {
    format!("5b4d3c52-6b1e-4c2a-9c0e-{number:012}")
}

/// The answer of the API, as somebody pastes it.
fn answer(order: &PostUploadOrder) -> String {
    let Signed { id, metadata, expires, signature } = Signed::of(order);
    let url = format!("https://{HOST}/upload/{id}");
    json!({"postuploadtemplateresponse": {"getuploadparams": {
        "id": id, "postURL": url, "metadata": metadata, "expires": expires, "signature": signature,
    }}})
    .to_string()
}

/// What the browser says of each scenario; all of them must be as they expect.
async fn browse(directory: &Path, scenarios: &[Value]) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/browser/upload.mjs");
    let modules = script.with_file_name("node_modules");
    assert!(modules.is_dir(), "run `cargo xtask setup`, or npm ci --prefix tests/browser");
    let list = directory.join("scenarios.json");
    std::fs::write(&list, serde_json::to_vec(scenarios).unwrap()).unwrap();
    let mut command = Command::new("node");
    command.arg(script).arg(list);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let said: Vec<Value> = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    assert!(output.status.success(), "{said:#?}");
    said
}

/// TLS in front of a listener. The first connection that carries so many bytes to it breaks.
async fn over_tls(plain: SocketAddr, breaks_after: u64) -> SocketAddr {
    let parameters = rcgen::CertificateParams::new(["storage.test".to_owned()]).unwrap();
    let (acceptor, _pem) = acceptor(&parameters);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let is_broken = Arc::new(AtomicBool::new(false));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, is_broken) = (acceptor.clone(), Arc::clone(&is_broken));
            tokio::spawn(async move {
                // What the browser gives up is nothing to look at.
                let Ok(inside) = acceptor.accept(stream).await else { return };
                let (from_inside, mut to_inside) = tokio::io::split(inside);
                let outside = TcpStream::connect(plain).await.unwrap();
                let (mut from_outside, mut to_outside) = outside.into_split();
                let budget = if is_broken.load(Ordering::SeqCst) { u64::MAX } else { breaks_after };
                let mut from_inside = from_inside.take(budget);
                tokio::select! {
                    _ = tokio::io::copy(&mut from_inside, &mut to_outside) => {}
                    _ = tokio::io::copy(&mut from_outside, &mut to_inside) => {}
                }
                if from_inside.limit() == 0 {
                    is_broken.store(true, Ordering::SeqCst);
                }
            });
        }
    });
    addr
}

fn write(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_uploads_through_the_page() {
    const SIZE: usize = 3 << 20;
    let bench: Bench = Bench::new().await;
    let addr = bench.upload_site().await;
    let secure = over_tls(addr, 1 << 20).await;
    let (http, https) = (
        format!("http://storage.test:{}/upload", addr.port()),
        format!("https://storage.test:{}/upload", secure.port()),
    );
    let files = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| write(files.path(), name, bytes);
    let small = write("Größe 1.qcow2", &vector("tiny.qcow2"));
    let text = write("text.qcow2", &b"no image\n".repeat(1_000));
    let empty = write("empty.qcow2", b"");
    let big = write("big.raw", &raw(SIZE));
    let raw_order = |number| {
        let format = Some(ImageFormat::Raw);
        PostUploadOrder { image_format: format, ..order(&id(number), number) }
    };
    let of = |number| answer(&order(&id(number), number));
    let ended = {
        let signed = Signed::until(&order(&id(309), 309), "2025-10-30T13:05:09.123Z");
        format!(
            "postURL=https://{HOST}/upload/{}&metadata={}&expires={}&signature={}",
            signed.id, signed.metadata, signed.expires, signed.signature
        )
    };
    const DONE: &str = "Uploaded. CloudStack shows it within a minute.";
    const SLOW: usize = 1 << 20;
    let scenarios = [
        json!({"url": http, "order": of(300), "file": small, "how": "choose", "expect": DONE, "accessible": true}),
        json!({"url": https, "order": of(301), "by_fragment": true, "file": small, "how": "drop", "expect": DONE,
               "accessible": true, "scheme": "light", "device": "iPhone 13"}),
        json!({"url": http, "order": of(302), "file": text, "how": "drop", "accessible": true,
               "expect": "Not uploaded: File type mismatch between uploaded file and selected format. Selected file format: QCOW2. Received: ASCII text"}),
        json!({"url": http, "order": of(303), "file": empty, "how": "choose", "refused": "empty.qcow2 is empty: choose another file"}),
        json!({"url": http, "order": ended, "file": small, "how": "choose", "refused": "These values ended at"}),
        json!({"url": http, "order": answer(&raw_order(304)), "file": big, "how": "choose", "slow": SLOW, "cancel": 0.2,
               "accessible": true, "expect": "Not uploaded: cancelled"}),
        json!({"url": https, "order": answer(&raw_order(305)), "file": big, "how": "choose", "broken": true, "expect": DONE}),
        json!({"url": http, "order": answer(&raw_order(306)), "file": big, "how": "choose", "slow": SLOW, "reload": 0.3, "expect": DONE}),
    ];
    let said = browse(files.path(), &scenarios).await;
    assert!(
        said[0]["chosen"].as_str().unwrap().starts_with("Größe 1.qcow2, 512.0 KiB"),
        "{said:?}"
    );
    for (number, expected, content) in [
        (300, Completed, Some(vector("tiny.qcow2"))),
        (301, Completed, Some(vector("tiny.qcow2"))),
        (302, Error, None),
        (303, Unknown, None),
        (304, Error, None),
        (305, Completed, Some(raw(SIZE))),
        (306, Completed, Some(raw(SIZE))),
    ] {
        let answer = bench.upload_status(&id(number)).await;
        assert_eq!(answer.status, Some(expected), "{number}: {answer:?}");
        if let Some(content) = content {
            assert!(bench.read(&answer.install_path.unwrap()) == content, "{number}");
        }
    }
    assert_eq!(bench.files().len(), 8, "{:?}", bench.files());
}
