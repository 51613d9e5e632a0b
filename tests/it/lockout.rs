//! A stop at every step of a recorded connect phase, of the real roles over the real link: the
//! server's threads wait for answers with the host locked, so none may stay open.

use management_server::replay::{Replay, ReplaySettings, Report, Step};

use crate::conversations::{Running, console, conversation, start, storage};

/// What a stop after `steps` commands were sent leaves behind; `None` when both ready commands were
/// answered before.
async fn stopped_after(
    steps: usize,
    name: &str,
    role: &str,
    settings: &[String],
) -> Option<Report> {
    let replay = Replay::listen(conversation(name), ReplaySettings::default()).await.unwrap();
    let mut running: Option<Running> = Some(start(role, &replay, settings).await);
    let (mut sent, mut readies, mut stopped) = (0_usize, 0_usize, false);
    let report = replay.run_observed(async |step: Step<'_>| match step {
        Step::Sent { .. } => {
            sent += 1;
            if sent > steps && readies < 2 {
                stopped = true;
                drop(running.take());
            } else if readies >= 2 {
                // Past the connect phase: another test's business.
                drop(running.take());
            }
        }
        Step::Answered(exchange) => readies += usize::from(exchange.command == "ReadyCommand"),
    });
    let report = report.await.unwrap();
    stopped.then_some(report)
}

async fn nothing_stays_open(name: &str, role: &str, settings: &[String], least: usize) {
    let mut steps = 0;
    while let Some(report) = stopped_after(steps, name, role, settings).await {
        assert_eq!(report.unanswered, [], "{name}: stopped after {steps} commands: {report}");
        // Ready was answered and the goodbye said: the server knows that we are gone.
        let ready = report.answers.iter().filter(|answer| answer.command == "ReadyCommand");
        assert_eq!(
            ready.filter(|answer| answer.got.is_some()).count(),
            2,
            "{name} {steps}: {report}"
        );
        steps += 1;
    }
    assert!(steps >= least, "{name} has only {steps} steps");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_at_any_step_of_a_storage_hosts_connect_leaves_nothing_open() {
    let store = tempfile::tempdir().unwrap();
    nothing_stays_open("ss-images.jsonl", "ss", &storage(store.path()), 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_at_any_step_of_a_console_proxys_connect_leaves_nothing_open() {
    for name in ["cp-consoles.jsonl", "cp-static.jsonl"] {
        let public = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        nothing_stays_open(name, "cp", &console(public), 2).await;
    }
}
