//! Servers that take their time: given up when it is too much, and never in the way of others.

use agent_protocol::storage::{DownloadStatus, ImageFormat};
use secondary_storage::ingest::Phase;

use crate::bench::{Bench, SOON, error_of};
use crate::cases::Cases;
use crate::scripted::{Scripted, first, image, part, whole};

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

/// Row 3 of the weaknesses: two slow downloads of one server hold up all others of the original.
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
    let answer = bench.ask(&command).await;
    let job = bench.parts.downloads.get(answer.job_id.as_deref().unwrap()).unwrap();
    // Only for this one: the others wait for the gate.
    assert!(job.wait(SOON).await);
    assert_eq!(job.phase(), Phase::Done, "{:?}", job.report());
    for _ in 0..4 {
        bench.images.open_gate();
    }
    for (command, answer) in waiting {
        let answer = bench.until_over(&command, answer).await;
        assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    }
}
