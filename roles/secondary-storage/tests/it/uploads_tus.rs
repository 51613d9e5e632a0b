//! Uploads that go on where they broke off.

use std::net::SocketAddr;

use agent_protocol::storage::UploadStatusState::{Completed, Error, InProgress};

use crate::bench::{Bench, OnDirectory, SOON};
use crate::images::vector;
use crate::upload_client::{Connection, HOST, Reply, Signed, order, upload};
use crate::uploads::ID;

pub async fn ask(addr: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
    let mut connection = Connection::open(addr).await;
    send(&mut connection, method, path, headers, body.len(), body).await;
    if method == "HEAD" {
        return connection.head_reply().await;
    }
    connection.reply().await
}

async fn send(
    connection: &mut Connection,
    method: &str,
    path: &str,
    headers: &str,
    length: usize,
    body: &[u8],
) {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nTus-Resumable: 1.0.0\r\nConnection: close\r\n\
         Content-Length: {length}\r\n{headers}\r\n"
    );
    connection.send(head.as_bytes()).await;
    connection.send(body).await;
}

pub async fn create(addr: SocketAddr, signed: &Signed, length: usize) -> String {
    let reply = begin(addr, signed, length).await;
    assert_eq!((reply.status, offset(&reply)), (201, 0), "{reply:?}");
    reply.header("location").unwrap().to_owned()
}

pub async fn begin(addr: SocketAddr, signed: &Signed, length: usize) -> Reply {
    let headers = format!(
        "{}Upload-Length: {length}\r\nUpload-Metadata: filename YS5xY293Mg==\r\n",
        signed.headers()
    );
    let reply = ask(addr, "POST", &format!("/upload/{}/tus", signed.id), &headers, b"").await;
    assert_eq!(reply.header("tus-resumable"), Some("1.0.0"));
    assert!(reply.status >= 400 || reply.header("upload-expires").is_some());
    reply
}

const PATCH: &str = "Content-Type: application/offset+octet-stream\r\n";

pub async fn patch(addr: SocketAddr, location: &str, offset: usize, body: &[u8]) -> Reply {
    let headers = format!("{PATCH}Upload-Offset: {offset}\r\n");
    ask(addr, "PATCH", location, &headers, body).await
}

pub fn offset(reply: &Reply) -> usize {
    reply.header("upload-offset").unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_upload_goes_on_after_its_connection_broke() {
    let bench = Bench::<OnDirectory>::new().await;
    let addr = bench.upload_site().await;
    let image = vector("tiny.qcow2");
    let signed = Signed::of(&order(ID, 270));
    let location = create(addr, &signed, image.len()).await;
    assert_eq!(bench.parts.uploads.uploads.status()[0].file.as_deref(), Some("a.qcow2"));
    let first = patch(addr, &location, 0, &image[..100_000]).await;
    assert_eq!((first.status, offset(&first)), (204, 100_000), "{first:?}");
    // A request that is cut in its middle, and one that hangs.
    let mut cut = Connection::open(addr).await;
    let headers = format!("{PATCH}Upload-Offset: 100000\r\n");
    send(&mut cut, "PATCH", &location, &headers, 400_000, &image[100_000..200_000]).await;
    let uploads = bench.parts.uploads.uploads.clone();
    let arrived = || uploads.running(ID).filter(|upload| upload.received() > 150_000).map(|_| ());
    testkit::eventually("the cut request", SOON, arrived).await;
    assert_eq!(bench.told(ID).await.0, InProgress);
    let head = ask(addr, "HEAD", &location, "", b"").await;
    let at = offset(&head);
    assert!((150_000..=200_000).contains(&at), "{head:?}");
    assert_eq!(head.header("upload-length").unwrap(), image.len().to_string());
    // What does not begin there is refused.
    let wrong = patch(addr, &location, 7, b"x").await;
    assert!(
        wrong.status == 409 && wrong.reason().contains(&format!("has {at} bytes here")),
        "{wrong:?}"
    );
    let last = patch(addr, &location, at, &image[at..]).await;
    assert_eq!((last.status, offset(&last)), (204, image.len()), "{last:?}");
    let answer = bench.upload_status(ID).await;
    assert_eq!(answer.status, Some(Completed));
    assert!(bench.read(&answer.install_path.unwrap()) == image);
    // Whose last answer got lost asks again.
    assert_eq!(offset(&ask(addr, "HEAD", &location, "", b"").await), image.len());
    assert_eq!(patch(addr, &location, image.len(), b"").await.status, 204);
    let late = ask(addr, "DELETE", &location, "", b"").await;
    assert!(late.status == 409 && late.reason().contains("it is complete"), "{late:?}");
}

/// A client that was started anew knows no location; it has the order and the file.
#[tokio::test]
async fn whoever_begins_the_same_upload_again_goes_on_with_it() {
    let bench = Bench::<OnDirectory>::new().await;
    let addr = bench.upload_site().await;
    let image = vector("tiny.qcow2");
    let signed = Signed::of(&order(ID, 270));
    let location = create(addr, &signed, image.len()).await;
    assert_eq!(patch(addr, &location, 0, &image[..100_000]).await.status, 204);
    let again = begin(addr, &signed, image.len()).await;
    assert_eq!((again.status, offset(&again)), (200, 100_000), "{again:?}");
    assert_eq!(again.header("location"), Some(location.as_str()));
    let other = begin(addr, &signed, image.len() + 1).await;
    assert!(other.status == 400 && other.reason().contains("under way"), "another file: {other:?}");
    assert_eq!(patch(addr, &location, 100_000, &image[100_000..]).await.status, 204);
    assert_eq!(bench.upload_status(ID).await.status, Some(Completed));
    let over = begin(addr, &signed, image.len()).await;
    assert!(over.status == 400 && over.reason().contains("is complete"), "{over:?}");
}

#[tokio::test]
async fn the_last_request_says_why_an_upload_failed() {
    let bench = Bench::<OnDirectory>::new().await;
    let addr = bench.upload_site().await;
    let text = b"no image at all, but text\n".repeat(200);
    let location = create(addr, &Signed::of(&order(ID, 270)), text.len()).await;
    let reply = patch(addr, &location, 0, &text).await;
    assert!(reply.status == 400 && reply.reason().contains("Received: ASCII text"), "{reply:?}");
    assert_eq!(bench.told(ID).await, (Error, reply.reason()));
    let head = ask(addr, "HEAD", &location, "", b"").await;
    assert_eq!(head.status, 400, "{head:?}");
    assert_eq!(bench.files(), Vec::<String>::new());
}

#[tokio::test]
async fn an_upload_is_given_up_by_its_client_or_by_its_pause() {
    let bench = Bench::<OnDirectory>::with("upload_pause = \"1ms\"").await;
    let addr = bench.upload_site().await;
    let signed = Signed::of(&order(ID, 270));
    let location = create(addr, &signed, 1_000).await;
    assert_eq!(patch(addr, &location, 0, b"0123").await.status, 204);
    assert_eq!(ask(addr, "DELETE", &location, "", b"").await.status, 204);
    assert_eq!(ask(addr, "HEAD", &location, "", b"").await.status, 404);
    // Until the server asks, a client may begin again.
    let location = create(addr, &signed, 1_000).await;
    bench.parts.uploads.end_old_pauses(std::time::Duration::ZERO);
    let over = || bench.parts.uploads.uploads.running(ID).is_none().then_some(());
    testkit::eventually("the end of the pause", SOON, over).await;
    let (state, text) = bench.told(ID).await;
    assert!(state == Error && text.contains("upload_pause"), "{text}");
    assert_eq!(patch(addr, &location, 0, b"0123").await.status, 400);
    assert_eq!(bench.files(), Vec::<String>::new());
}

#[tokio::test]
async fn the_protocol_is_told_and_kept() {
    let bench = Bench::<OnDirectory>::new().await;
    let addr = bench.upload_site().await;
    let route = format!("/upload/{ID}/tus");
    let options = ask(addr, "OPTIONS", &route, "", b"").await;
    assert_eq!((options.status, options.header("tus-version")), (204, Some("1.0.0")));
    assert_eq!(options.header("tus-extension"), Some("creation,termination,expiration"));
    let signed = Signed::of(&order(ID, 270));
    let without_length = ask(addr, "POST", &route, &signed.headers(), b"").await;
    assert!(without_length.reason().contains("upload-length"), "{without_length:?}");
    let unsigned = ask(addr, "POST", &route, "Upload-Length: 10\r\n", b"").await;
    assert!(unsigned.reason().starts_with("signature, metadata and expires"), "{unsigned:?}");
    let location = create(addr, &signed, 10).await;
    let more = patch(addr, &location, 0, b"0123456789ab").await;
    assert!(more.status == 400 && more.reason().contains("more bytes"), "{more:?}");
    let odd = ask(addr, "PATCH", &location, "Upload-Offset: 0\r\n", b"").await;
    assert!(odd.reason().contains("offset+octet-stream"), "{odd:?}");
    // The secret of the URL belongs to one upload.
    let other = location.replace(ID, "6b4d3c52-6b1e-4c2a-9c0e-0d8f1a7b2c33");
    assert_eq!(patch(addr, &other, 0, b"0").await.status, 404);
    let twice = upload(addr, &signed, "a", b"x").await;
    assert!(twice.reason().contains("under way"), "{twice:?}");
}
