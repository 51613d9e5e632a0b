//! A connection that breaks at every hundredth of an image, once and again and again.

use agent_protocol::storage::{DownloadStatus, ImageFormat};
use sha2::{Digest, Sha512};

use crate::bench::Bench;
use crate::cases::Cases;
use crate::scripted::{Scripted, first, image, part, whole};

const TAG: &str = "ETag: \"v1\"";

fn sha512(bytes: &[u8]) -> String {
    let hex: String = Sha512::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{{SHA-512}}{hex}")
}

/// The answer with only the first bytes of its body.
fn cut(answer: &[u8], body: usize) -> Vec<u8> {
    let begin = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    answer[..(begin + body).min(answer.len())].to_vec()
}

/// Row 1 of the weaknesses: the original writes what it resumes to the wrong place.
#[tokio::test]
async fn an_image_cut_at_any_hundredth_is_whole_in_the_end() {
    let cases = Cases::new().await;
    let expected = sha512(&image());
    for hundredth in 0..100 {
        let at = image().len() * hundredth / 100;
        let server = Scripted::start(move |nth, request| match (nth, first(request)) {
            (0, _) => cut(&whole(&image(), &[TAG]), at),
            (_, Some(from)) => part(&image(), from, &[TAG]),
            (_, None) => whole(&image(), &[TAG]),
        })
        .await;
        let answer = cases.download(&server, "a.qcow2", ImageFormat::Qcow2).await;
        assert_eq!(
            answer.download_status,
            Some(DownloadStatus::Downloaded),
            "{hundredth} %: {answer:?}"
        );
        assert_eq!(answer.check_sum.as_deref(), Some(expected.as_str()), "{hundredth} %");
        let requests = server.requests();
        assert_eq!(requests.len(), 2, "{hundredth} %");
        if at > 0 {
            assert_eq!(first(&requests[1]), Some(at), "{hundredth} %: it goes on there");
        }
    }
}

#[tokio::test]
async fn a_server_that_gives_a_hundredth_at_a_time_is_asked_a_hundred_times() {
    let cases = Cases::on(Bench::with("retry_delay = \"1ms\"\nretries = 1").await);
    let server = Scripted::start(|_, request| {
        let answer = match first(request) {
            Some(from) => part(&image(), from, &[TAG]),
            None => whole(&image(), &[TAG]),
        };
        cut(&answer, image().len() / 100)
    })
    .await;
    let answer = cases.download(&server, "a.qcow2", ImageFormat::Qcow2).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    assert_eq!(answer.check_sum, Some(sha512(&image())));
    assert!(server.requests().len() >= 100);
}

/// Nothing names the version: the parts are put together when a digest of the whole is given.
#[tokio::test]
async fn without_a_version_a_given_digest_judges_the_parts() {
    let cases = Cases::new().await;
    let serve = |nth: usize, request: &str, second: Vec<u8>| match (nth, first(request)) {
        (0, _) => cut(&whole(&image(), &[]), 50_000),
        (1, Some(from)) => part(&second, from, &[]),
        _ => whole(&image(), &[]),
    };
    let other: Vec<u8> = image().iter().map(|byte| byte ^ 0x5a).collect();
    for (second, requests) in [(image(), 2), (other, 3)] {
        let server = Scripted::start(move |nth, request| serve(nth, request, second.clone())).await;
        let mut command = cases.bench.download("", ImageFormat::Qcow2);
        command.url = Some(server.url("a.qcow2").into());
        command.install_path = Some(format!("template/tmpl/2/{}", 800 + requests));
        command.checksum = Some(sha512(&image()));
        let answer = cases.bench.finish(&command).await;
        assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
        let heads = server.requests();
        assert_eq!(heads.len(), requests, "a mixture is noticed, and fetched anew");
        assert!(first(&heads[1]).is_some() && !heads[1].to_lowercase().contains("if-range"));
    }
    // Without a digest it begins again at once.
    let server = Scripted::start(move |nth, request| serve(nth, request, image())).await;
    let answer = cases.download(&server, "a.qcow2", ImageFormat::Qcow2).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    assert_eq!(first(&server.requests()[1]), None);
}
