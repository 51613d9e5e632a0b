//! An image over several connections: put together in order, of one version, continued part by part.

use std::collections::HashSet;
use std::sync::Mutex;

use agent_protocol::storage::{DownloadStatus, ImageFormat};

use crate::bench::Bench;
use crate::images::raw;
use crate::scripted::{Scripted, head, part, whole};

const LENGTH: usize = 36 << 20;
const LAST: usize = LENGTH - 1;
const RANGES: &str = "Accept-Ranges: bytes";

/// First and last byte that a request asks for.
fn asked(request: &str) -> Option<(usize, usize)> {
    let lower = request.to_ascii_lowercase();
    let range = lower.split("range: bytes=").nth(1)?.split("\r\n").next()?.to_owned();
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().unwrap_or(LENGTH - 1)))
}

fn piece(image: &[u8], first: usize, last: usize, tag: &str, until: usize) -> Vec<u8> {
    let range = format!("Content-Range: bytes {first}-{last}/{}", image.len());
    let length = format!("Content-Length: {}", last + 1 - first);
    let head = head("206 Partial Content", &[tag, RANGES, &range, &length]);
    [head, image[first..(last + 1).min(first + until)].to_vec()].concat()
}

async fn installs(
    name: &str,
    more: &str,
    script: impl Fn(&[u8], usize, &str) -> Vec<u8> + Send + Sync + 'static,
) -> Vec<String> {
    let bench: Bench = Bench::with(more).await;
    let image = raw(LENGTH);
    let server = Scripted::start(move |nth, request| script(&image, nth, request)).await;
    let mut command = bench.download("", ImageFormat::Raw);
    command.url = Some(server.url("a.raw").into());
    let answer = bench.finish(&command).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{name}: {answer:?}");
    assert!(bench.read(answer.install_path.as_deref().unwrap()) == raw(LENGTH), "{name}: content");
    server.requests()
}

const FOUR: &str = "parallel_ranges = 4\nretry_delay = \"1ms\"";

#[tokio::test]
async fn parts_are_asked_for_when_the_server_gives_them_and_the_operator_wants_it() {
    let tag = "ETag: \"one\"";
    let serve = move |image: &[u8], _: usize, request: &str| match asked(request) {
        Some((first, last)) => piece(image, first, last, tag, LENGTH),
        None => whole(image, &[tag, RANGES]),
    };
    let requests = installs("four", FOUR, serve).await;
    assert_eq!(
        requests.len(),
        LENGTH.div_ceil(2 << 20),
        "the first part, and one request for each other"
    );
    assert!(requests[1].to_ascii_lowercase().contains("if-range: \"one\""));
    assert_eq!(installs("one", "", serve).await.len(), 1);
    let silent = move |image: &[u8], _: usize, _: &str| whole(image, &[tag]);
    assert_eq!(installs("no ranges announced", FOUR, silent).await.len(), 1);
    let unnamed = move |image: &[u8], _: usize, _: &str| whole(image, &[RANGES]);
    assert_eq!(installs("no version", FOUR, unnamed).await.len(), 1);
}

#[tokio::test]
async fn a_server_that_refuses_more_connections_gives_the_rest_over_one() {
    let tag = "ETag: \"one\"";
    let requests = installs("refused", FOUR, move |image, nth, request| match asked(request) {
        Some((first, LAST)) => part(image, first, &[tag, RANGES]),
        Some((first, last)) if nth < 3 => piece(image, first, last, tag, LENGTH),
        Some(_) => head("403 Forbidden", &["Content-Length: 0"]),
        None => whole(image, &[tag, RANGES]),
    });
    let requests = requests.await;
    assert!(requests.len() < 10, "{}", requests.len());
    assert!(requests.last().unwrap().contains("-\r\n"), "the rest as a whole");
}

#[tokio::test]
async fn a_part_that_breaks_is_continued_and_one_of_another_version_is_not_mixed_in() {
    let tag = "ETag: \"one\"";
    let broken = Mutex::new(HashSet::new());
    let requests =
        installs("each part breaks once", FOUR, move |image, _, request| match asked(request) {
            Some((first, last)) => {
                let is_new = broken.lock().unwrap().insert(last);
                piece(image, first, last, tag, if is_new { 100_000 } else { LENGTH })
            }
            None => whole(image, &[tag, RANGES]),
        });
    assert!(requests.await.len() > 2 * (LENGTH / (2 << 20)) - 2);
    // From the tenth request on the server has another image, and then only that one.
    let other: Vec<u8> = raw(LENGTH).into_iter().map(|byte| byte ^ 0x5a).collect();
    let requests =
        installs("another version", FOUR, move |image, nth, request| match asked(request) {
            Some((first, last)) if nth < 10 => piece(&other, first, last, tag, LENGTH),
            Some((first, last)) => piece(image, first, last, "ETag: \"two\"", LENGTH),
            None if nth < 10 => whole(&other, &[tag, RANGES]),
            None => whole(image, &["ETag: \"two\"", RANGES]),
        });
    assert!(requests.await.len() > 10);
}
