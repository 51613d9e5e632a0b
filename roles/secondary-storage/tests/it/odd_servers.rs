//! Web servers as they are found: headers folded, lengths twice, other mirrors, other codings, away
//! for a moment. An image is there whole, of one version, or an error says why not.

use std::io::Write;

use agent_protocol::storage::{DownloadAnswer, DownloadStatus, ImageFormat};

use crate::bench::{Bench, error_of};
use crate::scripted::{Scripted, first, head, image, part, whole};

type Script = Box<dyn Fn(usize, &str) -> Vec<u8> + Send + Sync>;

/// One host for the cases of a test; each has a directory of its own.
struct Cases {
    bench: Bench,
    next: std::cell::Cell<i64>,
}

impl Cases {
    async fn new() -> Self {
        Self::on(Bench::new().await)
    }

    fn on(bench: Bench) -> Self {
        Self { bench, next: std::cell::Cell::new(400) }
    }

    async fn download(&self, server: &Scripted, path: &str, format: ImageFormat) -> DownloadAnswer {
        let id = self.next.replace(self.next.get() + 1);
        let mut command = self.bench.download("", format);
        command.install_path = Some(format!("template/tmpl/2/{id}"));
        command.id = id;
        command.name = Some(format!("{id}-2-odd"));
        command.url = Some(server.url(path).into());
        command.follow_redirects = true;
        self.bench.finish(&command).await
    }

    /// The image is installed, byte for byte. Returns the requests.
    async fn installs(
        &self,
        name: &str,
        expected: &[u8],
        format: ImageFormat,
        script: Script,
    ) -> Vec<String> {
        let server = Scripted::start(script).await;
        let answer = self.download(&server, "latest.img", format).await;
        assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{name}: {answer:?}");
        let file = self.bench.store(answer.install_path.as_deref().unwrap());
        assert!(std::fs::read(file).unwrap() == expected, "{name}: other bytes");
        server.requests()
    }

    /// Nothing is installed and nothing stays; the text has `part`.
    async fn fails(
        &self,
        name: &str,
        format: ImageFormat,
        expected: &str,
        script: Script,
    ) -> Vec<String> {
        let before = self.bench.files();
        let server = Scripted::start(script).await;
        let answer = self.download(&server, "latest.img", format).await;
        assert!(error_of(&answer).contains(expected), "{name}: {answer:?}");
        assert_eq!(self.bench.files(), before, "{name}: left behind");
        server.requests()
    }
}

fn raw_head(text: &str, body: &[u8]) -> Vec<u8> {
    [text.replace('\n', "\r\n").into_bytes(), body.to_vec()].concat()
}

#[tokio::test]
async fn heads_that_browsers_and_curl_take_are_taken() {
    let cases = Cases::new().await;
    let length = image().len();
    let many: String = (0..300).map(|n| format!("X-Amz-Meta-{n}: {n}\n")).collect();
    for (name, text) in [
        ("folded", "HTTP/1.1 200 OK\nContent-Security-Policy: default-src *;\n   script-src *\nContent-Length: SIZE\n\n".to_owned()),
        ("folded by a tab", "HTTP/1.1 200 OK\nX-A: b\n\tc\nContent-Length: SIZE\n\n".to_owned()),
        ("blank before the colon", "HTTP/1.1 200 OK\nX-Cache : HIT\nContent-Length: SIZE\n\n".to_owned()),
        ("the same in the length", "HTTP/1.1 200 OK\nContent-Length  : SIZE\n\n".to_owned()),
        ("line without a colon", "HTTP/1.1 200 OK\nnonsense\nContent-Length: SIZE\n\n".to_owned()),
        ("name with a blank", "HTTP/1.1 200 OK\nX Y: z\nContent-Length: SIZE\n\n".to_owned()),
        ("control byte in a value", "HTTP/1.1 200 OK\nX-A: \x01\nContent-Length: SIZE\n\n".to_owned()),
        ("value beyond ASCII", "HTTP/1.1 200 OK\nX-Name: größe\nContent-Length: SIZE\n\n".to_owned()),
        ("no reason", "HTTP/1.1 200\ncontent-length: SIZE\n\n".to_owned()),
        ("reason beyond ASCII", "HTTP/1.1 200 Völlig\nCONTENT-LENGTH: SIZE\n\n".to_owned()),
        ("HTTP/1.0", "HTTP/1.0 200 OK\nContent-Length: SIZE\n\n".to_owned()),
        ("length twice, the same", "HTTP/1.1 200 OK\nContent-Length: SIZE\nContent-Length: SIZE\n\n".to_owned()),
        ("interim answers", "HTTP/1.1 100 Continue\n\nHTTP/1.1 103 Early Hints\nLink: x\n\nHTTP/1.1 200 OK\nContent-Length: SIZE\n\n".to_owned()),
        ("no blank after the colon", "HTTP/1.1 200 OK\nContent-Length:SIZE\n\n".to_owned()),
        ("many", format!("HTTP/1.1 200 OK\n{many}Content-Length: SIZE\n\n")),
    ] {
        let text = text.replace("SIZE", &length.to_string());
        let requests =
            cases.installs(name, &image(), ImageFormat::Qcow2, Box::new(move |_, _| raw_head(&text, &image()))).await;
        assert_eq!(requests.len(), 1, "{name}");
    }
    cases
        .installs(
            "bare line feeds",
            &image(),
            ImageFormat::Qcow2,
            Box::new(move |_, _| {
                [format!("HTTP/1.1 200 OK\nContent-Length: {length}\n\n").into_bytes(), image()]
                    .concat()
            }),
        )
        .await;
}

#[tokio::test]
async fn lengths_that_contradict_each_other_are_errors_and_chunks_win() {
    let cases = Cases::new().await;
    let chunks = |length: usize| {
        let lines = [format!("Content-Length: {length}"), "Transfer-Encoding: chunked".to_owned()];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let size = format!("{:x};extension=1\r\n", image().len()).into_bytes();
        [head("200 OK", &lines), size, image(), b"\r\n0\r\nTrailer: x\r\n\r\n".to_vec()].concat()
    };
    for difference in [7, 0] {
        let length = image().len() + difference;
        cases
            .installs("both", &image(), ImageFormat::Qcow2, Box::new(move |_, _| chunks(length)))
            .await;
    }
    cases
        .installs("a shorter one", &image(), ImageFormat::Qcow2, Box::new(move |_, _| chunks(5)))
        .await;
    cases
        .fails(
            "twice",
            ImageFormat::Qcow2,
            "content-length",
            Box::new(|_, _| whole(&image(), &["Content-Length: 5"])),
        )
        .await;
    cases
        .fails(
            "none",
            ImageFormat::Qcow2,
            "Failed to receive length",
            Box::new(|_, _| [head("200 OK", &[]), image()].concat()),
        )
        .await;
    cases
        .fails(
            "none in HTTP/1.0",
            ImageFormat::Qcow2,
            "Failed to receive length",
            Box::new(|_, _| [b"HTTP/1.0 200 OK\r\n\r\n".to_vec(), image()].concat()),
        )
        .await;
    cases
        .fails(
            "negative",
            ImageFormat::Qcow2,
            "content-length",
            Box::new(|_, _| [head("200 OK", &["Content-Length: -1"]), image()].concat()),
        )
        .await;
    let huge = format!("X-A: {}", "a".repeat(1 << 20));
    cases
        .fails(
            "a head without end",
            ImageFormat::Qcow2,
            "head",
            Box::new(move |_, _| whole(&image(), &[&huge])),
        )
        .await;
}

#[tokio::test]
async fn redirects_may_have_raw_letters_blanks_and_every_short_form() {
    let cases = Cases::new().await;
    for (name, location) in [
        ("UTF-8", "/images/größe-für-alle.qcow2".as_bytes().to_vec()),
        ("ISO 8859-1", b"/images/gr\xf6\xdfe.qcow2".to_vec()),
        ("blanks", b"/my images/a b.qcow2".to_vec()),
        ("relative", b"images/a.qcow2".to_vec()),
        ("relative, upwards", b"../images/a.qcow2".to_vec()),
        ("query only", b"?images=1".to_vec()),
        ("fragment", b"/images/a.qcow2#part".to_vec()),
        ("without a scheme", b"//HOST/images/a.qcow2".to_vec()),
        ("complete, with user info", b"http://u:p@HOST/images/a.qcow2".to_vec()),
    ] {
        let requests = cases
            .installs(
                name,
                &image(),
                ImageFormat::Qcow2,
                Box::new(move |nth, request| {
                    if nth > 0 {
                        return whole(&image(), &[]);
                    }
                    let host = request.split("ost: ").nth(1).unwrap().split("\r\n").next().unwrap();
                    let found = String::from_utf8_lossy(&location).contains("HOST");
                    let location = if found {
                        String::from_utf8_lossy(&location).replace("HOST", host).into_bytes()
                    } else {
                        location.clone()
                    };
                    [
                        b"HTTP/1.1 302 Found\r\nLocation: ".to_vec(),
                        location,
                        b"\r\nContent-Length: 0\r\n\r\n".to_vec(),
                    ]
                    .concat()
                }),
            )
            .await;
        assert_eq!(requests.len(), 2, "{name}");
        assert!(
            requests[1].contains("images") && !requests[1].contains("uthorization"),
            "{requests:?}"
        );
    }
    let requests = cases
        .fails(
            "to nothing",
            ImageFormat::Qcow2,
            "redirects to something that is not a URL",
            Box::new(|_, _| head("302 Found", &["Location: http://", "Content-Length: 0"])),
        )
        .await;
    assert_eq!(requests.len(), 1);
    cases
        .fails(
            "to itself",
            ImageFormat::Qcow2,
            "Circular redirect",
            Box::new(|_, _| head("302 Found", &["Location: ", "Content-Length: 0"])),
        )
        .await;
    cases
        .fails(
            "without a target",
            ImageFormat::Qcow2,
            "HTTP Server returned 302",
            Box::new(|_, _| head("302 Found", &["Content-Length: 0"])),
        )
        .await;
    // Every hop is judged, in whatever form it is written.
    cases
        .fails(
            "elsewhere",
            ImageFormat::Qcow2,
            "Illegal host",
            Box::new(|_, _| {
                head("302 Found", &["Location: //127.0.0.2/größe", "Content-Length: 0"])
            }),
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

#[tokio::test]
async fn codings_nobody_asked_for_are_undone_or_named() {
    let cases = Cases::new().await;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    let fast = Compression::fast();
    let mut disk = vec![0; 510];
    disk.extend(b"\x55\xaa");
    disk.extend((0..100_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8));
    let encoded: [(&str, Vec<u8>); 4] = [
        ("deflate", {
            let mut encoder = ZlibEncoder::new(Vec::new(), fast);
            encoder.write_all(&disk).unwrap();
            encoder.finish().unwrap()
        }),
        ("deflate", {
            let mut encoder = DeflateEncoder::new(Vec::new(), fast);
            encoder.write_all(&disk).unwrap();
            encoder.finish().unwrap()
        }),
        ("gzip", gzip(&disk)),
        ("identity", disk.clone()),
    ];
    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }
    for (coding, body) in encoded {
        let line = format!("Content-Encoding: {coding}");
        cases
            .installs(coding, &disk, ImageFormat::Raw, Box::new(move |_, _| whole(&body, &[&line])))
            .await;
    }
    for coding in ["br", "zstd", "compress", "deflate, gzip"] {
        let line = format!("Content-Encoding: {coding}");
        let text = format!("in the coding \"{coding}\"");
        let body = disk.clone();
        cases
            .fails(coding, ImageFormat::Raw, &text, Box::new(move |_, _| whole(&body, &[&line])))
            .await;
    }
    // A .gz file that its server labels as gzip: its digest is that of the file.
    let packed = gzip(&disk);
    let server = Scripted::start(move |_, _| whole(&packed, &["Content-Encoding: gzip"])).await;
    let plain = cases.download(&server, "disk.raw.gz", ImageFormat::Raw).await;
    let labelled = plain.check_sum.clone().unwrap();
    assert_eq!(plain.download_status, Some(DownloadStatus::Downloaded), "{plain:?}");
    let packed = gzip(&disk);
    let server = Scripted::start(move |_, _| whole(&packed, &[])).await;
    let found = cases.download(&server, "disk.raw.gz", ImageFormat::Raw).await;
    assert_eq!(found.check_sum.unwrap(), labelled);
}

#[tokio::test]
async fn compressed_files_with_something_behind_are_installed_with_a_warning() {
    let cases = Cases::new().await;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&image()).unwrap();
    let packed = [encoder.finish().unwrap(), vec![7; 37]].concat();
    let server = Scripted::start(move |_, _| whole(&packed, &[])).await;
    let answer = cases.download(&server, "a.qcow2.gz", ImageFormat::Qcow2).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    let file = cases.bench.store(answer.install_path.as_deref().unwrap());
    assert!(std::fs::read(file).unwrap() == image());
    let status = serde_json::to_value(cases.bench.parts.downloads.status()).unwrap();
    assert_eq!(
        status[0]["warnings"][0], "37 bytes after the compressed data were ignored",
        "{status}"
    );
}

#[tokio::test]
async fn a_trickle_and_an_endless_download_are_given_up() {
    let slow = "min_rate = \"1MiB\"\nmin_rate_window = \"200ms\"";
    let cases = Cases::on(Bench::with(slow).await);
    let bench = &cases.bench;
    let answer = bench.finish(&bench.download("trickle/tiny.qcow2", ImageFormat::Qcow2)).await;
    assert!(error_of(&answer).contains("the server is too slow"), "{answer:?}");
    // Breaking off after each byte does not help it.
    let server = Scripted::start(|nth, request| {
        let v1 = "ETag: \"v1\"";
        if nth == 0 {
            whole(&image(), &[v1])[..200].to_vec()
        } else {
            let answer = part(&image(), first(request).unwrap_or(0), &[v1]);
            let end = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 5;
            answer[..end].to_vec()
        }
    })
    .await;
    let answer = cases.download(&server, "a.qcow2", ImageFormat::Qcow2).await;
    assert!(error_of(&answer).contains("the server is too slow"), "{answer:?}");
    assert_eq!(bench.files(), Vec::<String>::new());
    let bench: Bench = Bench::with("download_timeout = \"300ms\"").await;
    let answer = bench.finish(&bench.download("trickle/tiny.qcow2", ImageFormat::Qcow2)).await;
    assert!(
        error_of(&answer).contains("not complete after 0 seconds (download_timeout)"),
        "{answer:?}"
    );
    assert_eq!(bench.files(), Vec::<String>::new());
}

#[tokio::test]
async fn a_slow_server_leaves_turns_to_others() {
    let bench: Bench = Bench::with("max_downloads = 2").await;
    let mut waiting = Vec::new();
    for id in 330..334 {
        let mut command = bench.download("gated/tiny.raw", ImageFormat::Raw);
        command.install_path = Some(format!("template/tmpl/2/{id}"));
        waiting.push((command.clone(), bench.ask(&command).await));
    }
    // Another account, another server: it does not wait for the slow one.
    let server = Scripted::start(|_, _| whole(&image(), &[])).await;
    let mut command = bench.download("", ImageFormat::Qcow2);
    command.url = Some(server.url("a.qcow2").into());
    command.account_id = 7;
    let answer = bench.finish(&command).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    for _ in 0..4 {
        bench.images.open_gate();
    }
    for (command, answer) in waiting {
        let answer = bench.until_over(&command, answer).await;
        assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    }
}
