//! Whatever one role does, the other one neither notices nor restarts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use quickcloud::config::SupervisorConfig;
use quickcloud::exit::Outcome;
use role::{Health, PreflightError};

use crate::roles::{BAD, Behaviour, GOOD, TestRole, scripted, spec};
use crate::running::{Running, quick, start};

struct Pair {
    running: Running,
    good: Arc<TestRole>,
    bad: Arc<TestRole>,
}

async fn pair(bad: Behaviour, adjust: impl FnOnce(&mut SupervisorConfig)) -> Pair {
    pair_of(TestRole::new(BAD, bad), adjust).await
}

async fn pair_of(bad: Arc<TestRole>, adjust: impl FnOnce(&mut SupervisorConfig)) -> Pair {
    let good = TestRole::new(GOOD, Behaviour::Serve);
    let running = start(vec![spec(&bad), spec(&good)], |config| {
        quick(config);
        // Restarted for ever, so that the test can wait for the second time.
        config.restart.limit = usize::MAX;
        adjust(config);
    })
    .await;
    running.until_ready(GOOD).await;
    Pair { running, good, bad }
}

impl Pair {
    /// The other role was started once, is ready, and the process answers.
    async fn unharmed(self) {
        let end = self.unharmed_until_stop().await;
        assert_eq!(end, Outcome::Clean);
    }

    /// As `unharmed`; how the stop went depends on whether the other role was running just then.
    async fn unharmed_until_stop(self) -> Outcome {
        let row = self.running.row(GOOD);
        assert_eq!((row.health, row.restarts), (Health::Ready, 0));
        assert_eq!(self.good.times_run(), 1);
        assert_eq!(self.running.get("/livez").await, (200, "ok\n".to_owned()));
        self.running.stop().await
    }

    async fn restarts_because(&self, text: &str) {
        let row = self.running.until(BAD, "second restart", |row| row.restarts >= 2).await;
        assert_eq!(row.last_error.unwrap().text, text);
        assert!(self.bad.times_run() >= 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_panics_is_restarted_alone() {
    let pair = pair(Behaviour::Panic, |_| {}).await;
    pair.restarts_because("panicked: planted").await;
    pair.unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_whose_vital_task_panics_is_restarted_alone() {
    let pair = pair(Behaviour::PanicInTask, |_| {}).await;
    pair.restarts_because("task pump panicked").await;
    pair.unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_returns_is_restarted_alone() {
    let pair = pair(Behaviour::Return, |_| {}).await;
    pair.restarts_because("ended although nobody asked it to stop").await;
    pair.unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_hangs_is_aborted_and_restarted_alone() {
    let pair = pair(Behaviour::Hang, |config| {
        config.progress_deadline = Duration::from_secs(1);
        config.shutdown_grace = Duration::from_millis(100);
    })
    .await;
    pair.restarts_because("hangs: no progress for 1s").await;
    let end = pair.unharmed_until_stop().await;
    assert!(matches!(end, Outcome::Clean | Outcome::Failed), "{end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_role_that_blocks_its_thread_is_given_up_until_it_lets_go() {
    let (gate, blocked) = mpsc::channel();
    let pair = pair(Behaviour::Block(Arc::new(Mutex::new(blocked))), |config| {
        config.progress_deadline = Duration::from_secs(1);
    })
    .await;
    let failed = |row: &quickcloud::supervisor::board::RoleRow| matches!(&row.health, Health::Failed { error } if error.contains("blocks its thread"));
    pair.running.until(BAD, "giving up", failed).await;
    assert_eq!(pair.bad.times_run(), 1);
    drop(gate);
    pair.running.until(BAD, "restart", |row| row.restarts >= 1).await;
    pair.unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_finds_itself_misconfigured_fails_alone() {
    let pair = pair(Behaviour::Misconfigured, |_| {}).await;
    let failed = Health::Failed { error: "bridge is a teapot".to_owned() };
    pair.running.until(BAD, "failure", |row| row.health == failed).await;
    assert_eq!(pair.bad.times_run(), 1);
    pair.unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_the_machine_is_not_fit_for_waits_alone_and_starts_when_it_is() {
    let bad = TestRole::new(BAD, Behaviour::Serve);
    bad.findings.lock().unwrap().push(PreflightError {
        problem: "/usr/sbin/tea does not exist".to_owned(),
        remedy: "install tea".to_owned(),
    });
    let pair = pair_of(bad, |_| {}).await;
    let row = pair.running.until(BAD, "second look", |row| row.restarts >= 2).await;
    assert_eq!(row.last_error.unwrap().text, "/usr/sbin/tea does not exist; install tea");
    assert_eq!(pair.bad.times_run(), 0);
    pair.bad.findings.lock().unwrap().clear();
    pair.running.until_ready(BAD).await;
    pair.unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_that_panics_harms_its_role_alone() {
    let bad = Arc::new(TestRole { preflight_panics: true, ..TestRole::raw(BAD, Behaviour::Serve) });
    let pair = pair_of(bad, |_| {}).await;
    let row = pair.running.until(BAD, "failure", |row| row.restarts >= 1).await;
    assert_eq!(row.last_error.unwrap().text, "preflight panicked: planted");
    pair.unharmed().await;
}

/// A link whose every method panics, as a broken role might register it.
struct BrokenLink(AtomicUsize);

impl role::PingedLink for BrokenLink {
    fn report(&self) -> role::LinkReport {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("planted")
    }

    fn ping(&self) {
        panic!("planted")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_sources_and_links_that_panic_hurt_no_reader() {
    let spiteful = scripted(BAD, |cx| async move {
        let link: Arc<dyn role::PingedLink> = Arc::new(BrokenLink(AtomicUsize::new(0)));
        cx.heartbeat.register(cx.kind, &link);
        cx.health.publish("sessions", || -> () { panic!("planted") });
        cx.health.started();
        cx.shutdown.cancelled().await;
    });
    let running = start(vec![spiteful], |_| {}).await;
    running.until_ready(BAD).await;
    let status = running.status().await;
    assert_eq!(status["roles"][0]["details"]["error"], "a status source panicked");
    assert_eq!(running.get("/metrics").await.0, 200);
    assert_eq!(running.get("/livez").await.0, 200);
    assert_eq!(running.stop().await, Outcome::Clean);
}

/// Panics at once, with a task that needs longer than `role_stop_grace` to give what it owes.
#[derive(Debug)]
struct Owing(Arc<Mutex<Vec<&'static str>>>);

impl role::RoleSpec for Owing {
    fn kind(&self) -> role::RoleKind {
        BAD
    }

    fn resources(&self) -> Vec<role::Resource> {
        Vec::new()
    }

    fn preflight<'a>(&'a self, _: &'a role::Host) -> role::BoxFuture<'a, Vec<PreflightError>> {
        Box::pin(async { Vec::new() })
    }

    fn build(&self) -> Box<dyn role::Role> {
        self.0.lock().unwrap().push("run");
        Box::new(Self(Arc::clone(&self.0)))
    }

    fn stop_grace(&self) -> Option<Duration> {
        Some(Duration::from_secs(20))
    }
}

impl role::Role for Owing {
    fn run(
        self: Box<Self>,
        cx: role::RoleContext,
    ) -> role::BoxFuture<'static, Result<(), role::RoleError>> {
        Box::pin(async move {
            let shutdown = cx.shutdown.clone();
            cx.tasks.spawn("link", async move {
                shutdown.cancelled().await;
                tokio::time::sleep(Duration::from_millis(300)).await;
                self.0.lock().unwrap().push("answered");
            });
            panic!("planted")
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_owes_answers_gives_them_before_it_is_started_again() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let good = spec(&TestRole::new(GOOD, Behaviour::Serve));
    let running = start(vec![Arc::new(Owing(Arc::clone(&events))), good], quick).await;
    running.until(BAD, "restart", |row| row.restarts >= 2).await;
    assert_eq!(events.lock().unwrap()[..3], ["run", "answered", "run"]);
    assert!(matches!(running.stop().await, Outcome::Clean | Outcome::Failed));
}
