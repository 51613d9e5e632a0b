//! Connections that break off, servers that are away for a moment, and other versions in between:
//! what is put together is of one version.

use agent_protocol::storage::{DownloadStatus, ImageFormat};
use secondary_storage::ingest::digest::Expectation;

use crate::bench::error_of;
use crate::cases::Cases;
use crate::scripted::{Scripted, first, head, image, part, whole};

/// Chunks without their end, and then the server has no more: everything was there.
#[tokio::test]
async fn a_connection_that_breaks_after_the_last_byte_costs_nothing() {
    let cases = Cases::new().await;
    let tag = "ETag: \"v1\"";
    let endless = move || {
        let size = format!("{:x}\r\n", image().len()).into_bytes();
        let head = head("200 OK", &[tag, "Transfer-Encoding: chunked"]);
        [head, size, image(), b"\r\n".to_vec()].concat()
    };
    let nothing = |total: usize, tag: &str| {
        let range = format!("Content-Range: bytes */{total}");
        head("416 Range Not Satisfiable", &[tag, &range, "Content-Length: 0"])
    };
    let requests = cases
        .installs(
            "no more",
            &image(),
            ImageFormat::Qcow2,
            Box::new(move |_, request| match first(request) {
                Some(from) => nothing(from, tag),
                None => endless(),
            }),
        )
        .await;
    assert_eq!(requests.len(), 2);
    // Of another version, or of another length: it begins again.
    for (tag, more) in [("ETag: \"v2\"", 0), (tag, 1)] {
        let script = move |nth: usize, request: &str| match first(request) {
            Some(from) => nothing(from + more, tag),
            None if nth == 0 => endless(),
            None => whole(&image(), &[tag]),
        };
        let requests =
            cases.installs("another", &image(), ImageFormat::Qcow2, Box::new(script)).await;
        assert_eq!(requests.len(), 3, "{tag} {more}");
    }
}

/// A body that ends with its connection may be cut: a checksum tells.
#[tokio::test]
async fn an_image_of_unknown_length_needs_a_checksum() {
    let cases = Cases::new().await;
    let unknown = |until: usize| {
        move |_: usize, _: &str| [head("200 OK", &[]), image()[..until].to_vec()].concat()
    };
    let whole = Scripted::start(unknown(image().len())).await;
    let cut = Scripted::start(unknown(50_000)).await;
    let mut command = cases.bench.download("", ImageFormat::Qcow2);
    let mut digest = Expectation::compute("SHA-256").unwrap().start();
    digest.update(&image());
    command.checksum = Some(digest.finish().to_string());
    command.url = Some(cut.url("a.qcow2").into());
    let answer = cases.bench.finish(&command).await;
    assert!(error_of(&answer).contains("didn't match"), "{answer:?}");
    command.url = Some(whole.url("a.qcow2").into());
    let answer = cases.bench.finish(&command).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    cases
        .fails(
            "an empty file",
            ImageFormat::Qcow2,
            "the file is empty",
            Box::new(|_, _| head("200 OK", &["Content-Length: 0"])),
        )
        .await;
}

#[tokio::test]
async fn a_server_that_is_away_for_a_moment_is_asked_again() {
    let cases = Cases::new().await;
    for (name, away) in [
        ("closes without a word", Vec::new()),
        ("closes within the head", b"HTTP/1.1 200 O".to_vec()),
        ("408", head("408 Request Timeout", &["Content-Length: 0"])),
        ("429", head("429 Too Many Requests", &["Retry-After: 0", "Content-Length: 0"])),
        ("503", head("503 Service Unavailable", &["Content-Length: 0"])),
        ("502", head("502 Bad Gateway", &["Content-Length: 3"])),
        ("504", head("504 Gateway Timeout", &["Content-Length: 0"])),
        ("500", head("500 Oops", &["Content-Length: 0"])),
    ] {
        let before = away.clone();
        let requests = cases
            .installs(
                name,
                &image(),
                ImageFormat::Qcow2,
                Box::new(
                    move |nth, _| if nth == 0 { before.clone() } else { whole(&image(), &[]) },
                ),
            )
            .await;
        assert_eq!(requests.len(), 2, "{name}");
        // The same in the middle.
        let requests = cases
            .installs(
                name,
                &image(),
                ImageFormat::Qcow2,
                Box::new(move |nth, request| match nth {
                    0 => whole(&image(), &["ETag: \"v1\""])[..50_000].to_vec(),
                    1 => away.clone(),
                    _ => part(&image(), first(request).unwrap(), &["ETag: \"v1\""]),
                }),
            )
            .await;
        assert_eq!(requests.len(), 3, "{name}");
    }
    for status in ["404 Not Found", "403 Forbidden", "401 Unauthorized", "410 Gone", "501 No"] {
        let text = format!("HTTP Server returned {}", &status[..3]);
        let requests = cases
            .fails(
                status,
                ImageFormat::Qcow2,
                &text,
                Box::new(move |_, _| head(status, &["Content-Length: 0"])),
            )
            .await;
        assert_eq!(requests.len(), 1, "{status} is an answer");
    }
    let requests = cases
        .fails(
            "busy for good",
            ImageFormat::Qcow2,
            "HTTP Server returned 503",
            Box::new(|_, _| head("503 Service Unavailable", &["Content-Length: 0"])),
        )
        .await;
    assert_eq!(requests.len(), 3, "as many as retries says");
}

type Second = Box<dyn Fn(usize) -> Vec<u8> + Send + Sync>;

/// Lines of the first answer, and a second one that must not be mixed with it.
fn other_seconds() -> Vec<(&'static str, &'static [&'static str], Second)> {
    let other = || image().iter().map(|byte| byte ^ 0x5a).collect::<Vec<u8>>();
    let old = "Last-Modified: Thu, 26 Nov 2026 00:00:00 GMT";
    let new = "Last-Modified: Fri, 27 Nov 2026 00:00:00 GMT";
    let longer = [image(), vec![0; 4096]].concat();
    let v1 = "ETag: \"v1\"";
    // What the second answer is; from the third on the first version is served whole.
    vec![
        (
            "another tag",
            &["ETag: \"v1\""],
            Box::new(move |from| part(&other(), from, &["ETag: \"v2\""])),
        ),
        ("no tag any more", &["ETag: \"v1\""], Box::new(move |from| part(&other(), from, &[]))),
        (
            "only a weak tag",
            &["ETag: W/\"v1\"", "X-A: b"],
            Box::new(move |from| part(&other(), from, &["ETag: W/\"v1\""])),
        ),
        (
            "another date",
            &["Last-Modified: Thu, 26 Nov 2026 00:00:00 GMT"],
            Box::new(move |from| part(&other(), from, &[new])),
        ),
        (
            "the same tag, another date",
            &["ETag: \"v1\"", "Last-Modified: Thu, 26 Nov 2026 00:00:00 GMT"],
            Box::new(move |from| part(&other(), from, &[v1, new])),
        ),
        (
            "another tag, the same date",
            &["ETag: \"v1\"", "Last-Modified: Thu, 26 Nov 2026 00:00:00 GMT"],
            Box::new(move |from| part(&other(), from, &["ETag: \"v2\"", old])),
        ),
        ("another total", &["ETag: \"v1\""], Box::new(move |from| part(&longer, from, &[v1]))),
        (
            "another beginning",
            &["ETag: \"v1\""],
            Box::new(move |from| part(&other(), from - 1, &[v1])),
        ),
        (
            "a later beginning",
            &["ETag: \"v1\""],
            Box::new(move |from| part(&other(), from + 1, &[v1])),
        ),
        (
            "no range",
            &["ETag: \"v1\""],
            Box::new(move |from| {
                let length = format!("Content-Length: {}", image().len() - from);
                [head("206 Partial Content", &[v1, &length]), other()[from..].to_vec()].concat()
            }),
        ),
        (
            "several parts",
            &["ETag: \"v1\""],
            Box::new(move |from| {
                part(&other(), from, &[v1, "Content-Type: multipart/byteranges; boundary=x"])
            }),
        ),
        (
            "another coding",
            &["ETag: \"v1\""],
            Box::new(move |from| part(&other(), from, &[v1, "Content-Encoding: gzip"])),
        ),
        ("all of it", &["ETag: \"v1\""], Box::new(move |_| whole(&other(), &["ETag: \"v2\""]))),
        (
            "no such range",
            &["ETag: \"v1\""],
            Box::new(move |_| head("416 Range Not Satisfiable", &["Content-Length: 0"])),
        ),
        (
            "condition failed",
            &["ETag: \"v1\""],
            Box::new(move |_| head("412 Precondition Failed", &["Content-Length: 0"])),
        ),
    ]
}

#[tokio::test]
async fn a_continued_image_is_of_one_version() {
    let cases = Cases::new().await;
    for (name, lines, second) in other_seconds() {
        let requests = cases
            .installs(
                name,
                &image(),
                ImageFormat::Qcow2,
                Box::new(move |nth, request| match nth {
                    0 => whole(&image(), lines)[..50_000].to_vec(),
                    1 => match first(request) {
                        Some(from) => second(from),
                        // Nothing names the version: the client did not ask for a part.
                        None => whole(&image(), lines),
                    },
                    _ => whole(&image(), lines),
                }),
            )
            .await;
        assert!((2..=3).contains(&requests.len()), "{name}: {requests:?}");
    }
}

#[tokio::test]
async fn parts_are_put_together_and_counted() {
    let cases = Cases::new().await;
    let v1 = "ETag: \"v1\"";
    // A server may send less than the rest.
    let requests = cases
        .installs(
            "small parts",
            &image(),
            ImageFormat::Qcow2,
            Box::new(move |nth, request| {
                if nth == 0 {
                    return whole(&image(), &[v1])[..20_000].to_vec();
                }
                let from = first(request).unwrap();
                let to = (from + 30_000).min(image().len());
                let range = format!("Content-Range: bytes {from}-{}/{}", to - 1, image().len());
                [
                    head("206 Partial Content", &[v1, &range, "Transfer-Encoding: chunked"]),
                    format!("{:x}\r\n", to - from).into_bytes(),
                    image()[from..to].to_vec(),
                    b"\r\n0\r\n\r\n".to_vec(),
                ]
                .concat()
            }),
        )
        .await;
    assert!(requests.len() >= 4);
    // More than the range it tells.
    cases
        .fails(
            "more than announced",
            ImageFormat::Qcow2,
            "sends more than the",
            Box::new(move |nth, request| {
                if nth == 0 {
                    return whole(&image(), &[v1])[..20_000].to_vec();
                }
                let from = first(request).unwrap();
                let range =
                    format!("Content-Range: bytes {from}-{}/{}", image().len() - 1, image().len());
                let body = [&image()[from..], &[0; 9]].concat();
                [
                    head("206 Partial Content", &[v1, &range, "Transfer-Encoding: chunked"]),
                    format!("{:x}\r\n", body.len()).into_bytes(),
                    body,
                    b"\r\n0\r\n\r\n".to_vec(),
                ]
                .concat()
            }),
        )
        .await;
    // Of chunks the total is known from the first part only.
    cases
        .installs(
            "chunks, then a part",
            &image(),
            ImageFormat::Qcow2,
            Box::new(move |nth, request| {
                if nth == 0 {
                    let cut = [b"ea60\r\n".to_vec(), image()[..50_000].to_vec()].concat();
                    return [head("200 OK", &[v1, "Transfer-Encoding: chunked"]), cut].concat();
                }
                part(&image(), first(request).unwrap(), &[v1])
            }),
        )
        .await;
    // Unasked, but everything.
    cases
        .installs(
            "206 at once",
            &image(),
            ImageFormat::Qcow2,
            Box::new(move |_, _| part(&image(), 0, &[])),
        )
        .await;
    cases
        .fails(
            "a part at once",
            ImageFormat::Qcow2,
            "HTTP Server returned 206",
            Box::new(move |_, _| part(&image(), 9, &[])),
        )
        .await;
}
