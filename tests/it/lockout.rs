//! A stop and a panic at every step of a recorded connect phase, of the real roles over the real
//! link: the server's threads wait for answers with the host locked, so none may stay open.

use std::sync::Arc;
use std::time::Duration;

use management_server::replay::{Replay, ReplaySettings, Report, Step};
use role::{BoxFuture, Host, PreflightError, Resource, Role, RoleContext, RoleError, RoleSpec};
use tokio_util::sync::CancellationToken;

use crate::conversations::{Running, console, conversation, start_as, storage};

/// What ends the role in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Stop,
    Panic,
}

/// A real role whose main task panics when it is told to; the tasks of its run are its own.
#[derive(Debug)]
struct Fragile {
    role: Arc<dyn RoleSpec>,
    fault: CancellationToken,
}

impl RoleSpec for Fragile {
    fn kind(&self) -> role::RoleKind {
        self.role.kind()
    }

    fn resources(&self) -> Vec<Resource> {
        self.role.resources()
    }

    fn preflight<'a>(&'a self, host: &'a Host) -> BoxFuture<'a, Vec<PreflightError>> {
        self.role.preflight(host)
    }

    fn build(&self) -> Box<dyn Role> {
        Box::new(FragileRun { role: self.role.build(), fault: self.fault.clone() })
    }

    fn stop_grace(&self) -> Option<Duration> {
        self.role.stop_grace()
    }
}

struct FragileRun {
    role: Box<dyn Role>,
    fault: CancellationToken,
}

impl Role for FragileRun {
    fn run(self: Box<Self>, cx: RoleContext) -> BoxFuture<'static, Result<(), RoleError>> {
        Box::pin(async move {
            tokio::select! {
                end = self.role.run(cx) => end,
                () = self.fault.cancelled() => panic!("planted"),
            }
        })
    }
}

/// What a fault after `steps` commands were sent leaves behind; `None` when both ready commands
/// were answered before.
async fn ended_after(
    steps: usize,
    fault: Fault,
    name: &str,
    role: &str,
    settings: &[String],
) -> Option<Report> {
    let replay = Replay::listen(conversation(name), ReplaySettings::default()).await.unwrap();
    let planted = CancellationToken::new();
    let fragile =
        |role| -> Arc<dyn RoleSpec> { Arc::new(Fragile { role, fault: planted.clone() }) };
    let mut running: Option<Running> = Some(start_as(role, &replay, settings, fragile).await);
    let (mut sent, mut readies, mut stopped) = (0_usize, 0_usize, false);
    let report = replay.run_observed(async |step: Step<'_>| match step {
        Step::Sent { .. } => {
            sent += 1;
            if sent > steps && readies < 2 {
                stopped = true;
                match fault {
                    Fault::Stop => drop(running.take()),
                    Fault::Panic => planted.cancel(),
                }
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
    for fault in [Fault::Stop, Fault::Panic] {
        nothing_stays_open_after(fault, name, role, settings, least).await;
    }
}

async fn nothing_stays_open_after(
    fault: Fault,
    name: &str,
    role: &str,
    settings: &[String],
    least: usize,
) {
    let mut steps = 0;
    while let Some(report) = ended_after(steps, fault, name, role, settings).await {
        assert_eq!(report.unanswered, [], "{name}: {fault:?} after {steps} commands: {report}");
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
async fn a_stop_or_a_panic_at_any_step_of_a_storage_hosts_connect_leaves_nothing_open() {
    let store = tempfile::tempdir().unwrap();
    nothing_stays_open("ss-images.jsonl", "ss", &storage(store.path()), 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_or_a_panic_at_any_step_of_a_console_proxys_connect_leaves_nothing_open() {
    for name in ["cp-consoles.jsonl", "cp-static.jsonl"] {
        let public = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        nothing_stays_open(name, "cp", &console(public), 2).await;
    }
}
