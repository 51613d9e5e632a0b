//! Downloads that must fail, and how; nothing of them may stay.

use std::io::Write;

use agent_protocol::storage::{DownloadAnswer, DownloadStatus, ImageFormat, ResourceType};

use super::Bench;
use crate::bench::error_of;
use crate::images::vector;

async fn failed(bench: &Bench, path: &str, format: ImageFormat) -> DownloadAnswer {
    let mut command = bench.download(path, format);
    command.follow_redirects = true;
    let answer = bench.finish(&command).await;
    error_of(&answer);
    assert_eq!(bench.files(), Vec::<String>::new(), "{path}: left behind");
    assert!(!bench.store("template/tmpl/2/320").exists(), "{path}: an empty directory stays");
    assert!(bench.listed().await.is_empty());
    answer
}

async fn check(path: &str, format: ImageFormat, expected: &str) {
    let bench = Bench::new().await;
    let answer = failed(&bench, path, format).await;
    assert_eq!(error_of(&answer), expected, "{path}");
}

const MISMATCH: &str = "Failed to install: Template content is unsupported, or mismatch between selected format and template content. Found  : ";

/// Row 4 of the weaknesses: the original takes an error page, and what it cut off, for an image.
#[tokio::test]
async fn what_servers_say_wrong() {
    check("none", ImageFormat::Iso, " HTTP Server returned 404 (expected 200 OK) ").await;
    check("no-length/tiny.iso", ImageFormat::Iso, " Failed to receive length of download ; nobody can tell then whether it comes whole: register it with its checksum").await;
    let huge = "Download file size is too large: the limit is 53687091200 bytes";
    check("huge/tiny.iso", ImageFormat::Iso, huge).await;
    let scheme = "it redirects to a URL of \"file\"; only http and https are followed";
    check("to-file/tiny.iso", ImageFormat::Iso, scheme).await;
}

/// Rows 10 and 42 of the weaknesses: what a file is is found in this process, against the chosen format.
#[tokio::test]
async fn content_that_is_something_else() {
    let text = |found: &str| format!("{MISMATCH}{found}");
    check("golden/text.qcow2", ImageFormat::Qcow2, &text("ASCII text")).await;
    check("golden/tiny.qcow2", ImageFormat::Raw, &text("QEMU QCOW Image")).await;
    check("golden/tiny.qcow2.gz", ImageFormat::Raw, &text("QEMU QCOW Image")).await;
    check("golden/tiny.raw", ImageFormat::Qcow2, &text("data")).await;
    check("golden/tiny.raw", ImageFormat::Iso, &text("data")).await;
    let backing = "Failed post download script: The downloaded file is not a valid QCOW2: it has a backing file: make one image of both (qemu-img convert -O qcow2 IMAGE WHOLE)";
    check("golden/backing.qcow2", ImageFormat::Qcow2, backing).await;
    let vhd =
        "Failed post download script: The downloaded file is not a valid VHD: it has no VHD footer";
    check("golden/tiny.raw", ImageFormat::Vhd, vhd).await;
}

/// Row 37 of the weaknesses: every hop is looked at.
#[tokio::test]
async fn a_redirect_loop_and_a_redirect_to_a_forbidden_address() {
    let bench = Bench::new().await;
    let answer = failed(&bench, "loop/tiny.iso", ImageFormat::Iso).await;
    let expected = format!("Circular redirect to '{}'", bench.images.url("loop/tiny.iso"));
    assert_eq!(error_of(&answer), expected);
    // 127.0.0.1 is allowed, 127.0.0.2 is not: every hop is judged.
    let answer = failed(&bench, "elsewhere/tiny.iso", ImageFormat::Iso).await;
    assert!(
        error_of(&answer).starts_with("Illegal host specified in URL: 127.0.0.2 has a loopback")
    );
    assert_eq!(bench.images.requests("golden/tiny.iso"), 0);
}

#[tokio::test]
async fn private_addresses_are_refused_by_name_and_by_number() {
    let bench = Bench::with("").await;
    for host in ["127.0.0.2", "[::1]", "169.254.169.254", "10.1.2.3", "0x7f000002", "2130706434"] {
        let mut command = bench.download("golden/tiny.iso", ImageFormat::Iso);
        command.url =
            Some(format!("http://{host}:{}/golden/tiny.iso", bench.images.addr.port()).into());
        let answer = bench.finish(&command).await;
        assert!(error_of(&answer).starts_with("Illegal host"), "{host}: {answer:?}");
    }
    // A name is resolved here, and the connection goes to a judged address only.
    let mut command = bench.download("golden/tiny.iso", ImageFormat::Iso);
    command.url =
        Some(format!("http://localhost:{}/golden/tiny.iso", bench.images.addr.port()).into());
    let answer = bench.finish(&command).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
}

#[tokio::test]
async fn a_closed_port_says_so() {
    let bench = Bench::new().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = bench.download("golden/tiny.iso", ImageFormat::Iso);
    command.url = Some(format!("http://{}/tiny.iso", free.local_addr().unwrap()).into());
    drop(free);
    assert_eq!(error_of(&bench.finish(&command).await), "Connection refused");
}

/// Row 2 of the weaknesses: time-outs and retries, both as configured.
#[tokio::test]
async fn a_connection_that_is_not_made_in_time_is_tried_as_often_as_configured() {
    // A queue of one that nobody empties: the kernel drops what comes then.
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    silent.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    silent.listen(0).unwrap();
    let addr = silent.local_addr().unwrap().as_socket().unwrap();
    let limit = std::time::Duration::from_millis(100);
    let mut filling = Vec::new();
    while let Ok(connection) = std::net::TcpStream::connect_timeout(&addr, limit) {
        filling.push(connection);
    }
    let bench = Bench::with("connect_timeout = \"100ms\"\nretries = 3").await;
    let mut command = bench.download("golden/tiny.iso", ImageFormat::Iso);
    command.url = Some(format!("http://{addr}/tiny.iso").into());
    let started = std::time::Instant::now();
    let answer = bench.finish(&command).await;
    let text = error_of(&answer);
    assert_eq!(text, "connection timed out after 0.1 seconds (connect_timeout)");
    assert!(started.elapsed() >= 4 * limit, "one attempt and three more");
}

/// Row 1 of the weaknesses: a range, on the condition that it still is the same file.
#[tokio::test]
async fn a_broken_connection_is_continued_where_it_broke() {
    let bench = Bench::new().await;
    let mut command = bench.download("cut-once/tiny.qcow2", ImageFormat::Qcow2);
    command.checksum = Some(
        "{SHA-256}9483232ba60b36c9228e0152ae0b810bb6fa3b5492ea558aaedfdc19a9cc8eaa".to_owned(),
    );
    let answer = bench.finish(&command).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    assert!(bench.read(answer.install_path.as_deref().unwrap()) == vector("tiny.qcow2"));
    let heads = bench.images.heads("cut-once/tiny.qcow2");
    assert_eq!(heads.len(), 2);
    let second = heads[1].to_ascii_lowercase();
    assert!(
        second.contains("range: bytes=262144-") && second.contains("if-range: \"v1\""),
        "{second}"
    );
}

#[tokio::test]
async fn an_image_that_changed_meanwhile_is_fetched_anew_not_mixed() {
    let bench = Bench::new().await;
    let answer = bench.finish(&bench.download("changed/tiny.qcow2", ImageFormat::Qcow2)).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    assert!(bench.read(answer.install_path.as_deref().unwrap()) == vector("tiny.qcow2"));
    assert_eq!(bench.images.requests("changed/tiny.qcow2"), 3, "first, refused range, whole again");
}

#[tokio::test]
async fn a_server_that_restarts_meanwhile_is_asked_again() {
    let bench = Bench::new().await;
    let answer = bench.finish(&bench.download("restarting/tiny.qcow2", ImageFormat::Qcow2)).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    assert_eq!(bench.images.requests("restarting/tiny.qcow2"), 3);
}

#[tokio::test]
async fn a_connection_that_always_breaks_is_never_called_ready() {
    let bench = Bench::new().await;
    for path in ["cut/tiny.qcow2", "chunked-cut/tiny.qcow2"] {
        let answer = failed(&bench, path, ImageFormat::Qcow2).await;
        assert!(error_of(&answer).contains("the connection broke after"), "{answer:?}");
        assert_eq!(bench.images.requests(path), 3, "first and two retries");
    }
    let answer = failed(&bench, "cut/tiny.qcow2.gz", ImageFormat::Qcow2).await;
    assert!(error_of(&answer).contains("of 100232"), "{answer:?}");
}

/// Row 2 of the weaknesses: the original waits for ever.
#[tokio::test]
async fn a_server_that_falls_silent_is_given_up() {
    let bench = Bench::with("stall_timeout = \"200ms\"\nconnect_timeout = \"200ms\"\n").await;
    let answer = failed(&bench, "stall/tiny.qcow2", ImageFormat::Qcow2).await;
    assert!(
        error_of(&answer)
            .contains("nothing was received for 0 seconds (after 262144 bytes of 524288)"),
        "{answer:?}"
    );
    let answer = failed(&bench, "silent/tiny.qcow2", ImageFormat::Qcow2).await;
    assert!(error_of(&answer).contains("nothing was received"), "{answer:?}");
}

/// Row 17 of the weaknesses: letters of any case, and what a digest of another length probably is.
#[tokio::test]
async fn digests_that_differ() {
    let bench = Bench::new().await;
    let mut command = bench.download("golden/tiny.qcow2", ImageFormat::Qcow2);
    command.checksum = Some("{SHA-1}00".to_owned());
    let answer = bench.finish(&command).await;
    assert!(error_of(&answer).starts_with("Failed post download script: checksum \"{SHA-1}"));
    assert_eq!(answer.check_sum.as_deref(), Some("{SHA-1}00"), "as given");
    assert_eq!(answer.download_pct, 100);
    assert_eq!(bench.files(), Vec::<String>::new());
    // Without a name it is an MD5 to the original.
    let sha256 = "9483232ba60b36c9228e0152ae0b810bb6fa3b5492ea558aaedfdc19a9cc8eaa";
    command.checksum = Some(sha256.to_owned());
    let answer = bench.finish(&command).await;
    let hint = format!("; by its length it is a SHA-256: give it as {{SHA-256}}{sha256}");
    assert!(error_of(&answer).ends_with(&hint), "{answer:?}");
    command.checksum = Some("{FOO}72".to_owned());
    assert_eq!(error_of(&bench.ask(&command).await), "invalid algorithm: {FOO}72");
    // Upper case is the same digest.
    command.checksum = Some("{MD5}1375938D2E4775AC2415D6F13CA1C628".to_owned());
    let answer = bench.finish(&command).await;
    assert_eq!(answer.check_sum.as_deref(), Some("{MD5}1375938d2e4775ac2415d6f13ca1c628"));
}

#[tokio::test]
async fn a_decompression_bomb_stops_at_its_limit() {
    let bench = Bench::with("decompressed_limit = \"1MiB\"").await;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(&vec![0; 16 << 20]).unwrap();
    bench.images.put("bomb.raw.gz", packed.finish().unwrap());
    let answer = failed(&bench, "golden/bomb.raw.gz", ImageFormat::Raw).await;
    assert_eq!(
        error_of(&answer),
        "the decompressed image is too large: the limit is 1048576 bytes"
    );
}

/// Rows 5 and 7 of the weaknesses: every refusal is an answer that the server takes, with the install path
/// in it ([`error_of`] looks).
#[tokio::test]
async fn commands_that_name_no_possible_download() {
    let bench = Bench::new().await;
    let good = bench.download("golden/tiny.iso", ImageFormat::Iso);
    let mut cases = Vec::new();
    for path in [
        "../../etc",
        "template/tmpl/2",
        "template/tmpl/2/320/x",
        "/etc/cron.d",
        "volumes/2/320",
        "",
    ] {
        let mut command = good.clone();
        command.install_path = Some(path.to_owned());
        cases.push(command);
    }
    for url in ["ftp://h/x.iso", "file:///etc/passwd", "nonsense"] {
        let mut command = good.clone();
        command.url = Some(url.into());
        cases.push(command);
    }
    let mut command = good.clone();
    command.format = Some(ImageFormat::Ova);
    cases.push(command);
    let mut command = good.clone();
    command.resource_type = Some(ResourceType::Snapshot);
    command.install_path = Some("template/tmpl/2/320".to_owned());
    cases.push(command);
    let mut command = good.clone();
    command.name = None;
    cases.push(command);
    let mut command = good.clone();
    command.url = None;
    cases.push(command);
    let mut command = good.clone();
    command.name = Some("../../escape".to_owned());
    cases.push(command);
    for command in cases {
        let answer = bench.finish(&command).await;
        let error = error_of(&answer).to_owned();
        assert!(error.len() > 5, "{error}");
        assert_eq!(bench.files(), Vec::<String>::new(), "{error}");
    }
}
