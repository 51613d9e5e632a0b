//! Stopping: within the grace period, after it, and at once.

use std::time::{Duration, Instant};

use quickcloud::exit::Outcome;
use role::Health;
use testkit::CapturedLog;

use crate::roles::{BAD, Behaviour, GOOD, TestRole, spec};
use crate::running::{LIMIT, quick, start, stock};

#[tokio::test(flavor = "multi_thread")]
async fn roles_that_stop_within_the_grace_period_make_a_clean_end() {
    let slow = TestRole::new(BAD, Behaviour::StopSlowly(Duration::from_millis(300)));
    let good = TestRole::new(GOOD, Behaviour::Serve);
    let running = start(vec![spec(&slow), spec(&good)], stock).await;
    running.until_ready(BAD).await;
    running.until_ready(GOOD).await;
    let (board, state) = (running.board.clone(), running.state.path().join("state/admin.addr"));
    assert_eq!(std::fs::read_to_string(&state).unwrap(), format!("{}\n", running.addr));
    running.shutdown.graceful.cancel();
    // While it drains the admin listener still answers, and says so.
    running.until(GOOD, "stop", |row| row.health == Health::Stopped).await;
    assert_eq!(running.status().await["state"], "stopping");
    assert_eq!(running.get("/readyz").await.0, 503);
    assert_eq!(running.ended().await, Outcome::Clean);
    assert!(board.rows().iter().all(|row| row.health == Health::Stopped));
    assert!(!state.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_does_not_stop_is_aborted_after_the_grace_period() {
    let stubborn = TestRole::new(BAD, Behaviour::NeverStop);
    let running = start(vec![spec(&stubborn)], |config| {
        config.shutdown_grace = Duration::from_millis(200);
    })
    .await;
    running.until_ready(BAD).await;
    assert_eq!(running.stop().await, Outcome::Failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_request_ends_at_once() {
    let stubborn = TestRole::new(BAD, Behaviour::NeverStop);
    let running = start(vec![spec(&stubborn)], |config| {
        config.shutdown_grace = Duration::from_secs(3600);
    })
    .await;
    running.until_ready(BAD).await;
    let asked = Instant::now();
    running.shutdown.graceful.cancel();
    running.shutdown.immediate.cancel();
    assert_eq!(running.ended().await, Outcome::Failed);
    assert!(asked.elapsed() < LIMIT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_in_backoff_stops_at_once() {
    let bad = TestRole::new(BAD, Behaviour::Dependency);
    let running = start(vec![spec(&bad)], |config| {
        quick(config);
        config.restart.first_delay = Duration::from_secs(3600);
        config.restart.max_delay = Duration::from_secs(3600);
    })
    .await;
    running.until(BAD, "backoff", |row| matches!(row.health, Health::Backoff { .. })).await;
    assert_eq!(running.stop().await, Outcome::Clean);
}

#[tokio::test(start_paused = true)]
async fn a_long_drain_says_every_five_seconds_who_is_left_and_for_how_long() {
    let captured = CapturedLog::new();
    let stubborn = TestRole::new(BAD, Behaviour::NeverStop);
    let good = TestRole::new(GOOD, Behaviour::Serve);
    let running = start(vec![spec(&stubborn), spec(&good)], |config| {
        config.shutdown_grace = Duration::from_secs(20);
    })
    .await;
    running.until_ready(BAD).await;
    running.shutdown.graceful.cancel();
    assert_eq!(running.ended().await, Outcome::Failed);
    let log = captured.text();
    let reports: Vec<&str> = log
        .lines()
        .filter_map(|line| line.split_once("waiting for roles to stop ").map(|(_, rest)| rest))
        .collect();
    let expected: Vec<String> =
        [15, 10, 5].map(|left| format!("roles=\"bad\" seconds_left={left}")).into();
    assert_eq!(reports, expected, "{log}");
    assert!(log.contains("grace period is over, aborting roles=\"bad\""), "{log}");
}
