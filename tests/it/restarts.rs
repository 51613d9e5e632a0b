//! Backoff, giving up, and how the process ends when roles are lost for good.

use std::sync::Arc;
use std::time::Duration;

use quickcloud::exit::Outcome;
use role::{Health, PreflightError};

use crate::roles::{BAD, Behaviour, GOOD, TestRole, spec};
use crate::running::{quick, start, stock};

#[tokio::test(start_paused = true)]
async fn outside_trouble_is_retried_for_ever_at_growing_intervals() {
    let bad = TestRole::new(BAD, Behaviour::Dependency);
    let running = start(vec![spec(&bad)], stock).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let gaps = bad.gaps();
    for (gap, seconds) in gaps.iter().zip([1, 2, 4, 8, 16, 32, 60, 60, 60]) {
        let expected = seconds * 1000;
        let (low, high) = (expected * 79 / 100, expected * 121 / 100);
        assert!((low..=high).contains(gap), "{gap} ms instead of about {expected}: {gaps:?}");
    }
    assert!(gaps.len() >= 9, "{gaps:?}");
    let row = running.row(BAD);
    let error = "cannot reach the peer: connection refused";
    assert_eq!(row.last_error.unwrap().text, error);
    assert!(matches!(row.health, Health::Backoff { .. }), "{:?}", row.health);
    assert_eq!(running.stop().await, Outcome::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fifth_failure_of_our_own_is_the_last() {
    let (bad, good) =
        (TestRole::new(BAD, Behaviour::Internal), TestRole::new(GOOD, Behaviour::Serve));
    let running = start(vec![spec(&bad), spec(&good)], quick).await;
    let failed = Health::Failed { error: "lost count".to_owned() };
    running.until(BAD, "giving up", |row| row.health == failed).await;
    assert_eq!(bad.times_run(), 5);
    running.until_ready(GOOD).await;
    let (code, body) = running.get("/readyz").await;
    assert_eq!(code, 503);
    assert!(body.contains(r#"{"role":"bad","health":"failed","reason":"lost count"}"#), "{body}");
    assert_eq!(running.stop().await, Outcome::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_on_failed_role_ends_the_process() {
    let (bad, good) =
        (TestRole::new(BAD, Behaviour::Internal), TestRole::new(GOOD, Behaviour::Serve));
    let running = start(vec![spec(&bad), spec(&good)], |config| {
        quick(config);
        config.exit_on_failed_role = true;
    })
    .await;
    let board = running.board.clone();
    assert_eq!(running.ended().await, Outcome::RoleFailed);
    let healths: Vec<Health> = board.rows().into_iter().map(|row| row.health).collect();
    assert_eq!(healths, [Health::Failed { error: "lost count".to_owned() }, Health::Stopped]);
}

async fn end_of(role: Arc<TestRole>) -> Outcome {
    start(vec![spec(&role)], quick).await.ended().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_ends_with_its_last_role_and_says_why() {
    assert_eq!(end_of(TestRole::new(BAD, Behaviour::Misconfigured)).await, Outcome::Configuration);
    assert_eq!(end_of(TestRole::new(BAD, Behaviour::Panic)).await, Outcome::RoleFailed);
    let unfit = TestRole::new(BAD, Behaviour::Serve);
    let (problem, remedy) = ("no tea".to_owned(), "brew".to_owned());
    unfit.findings.lock().unwrap().push(PreflightError { problem, remedy });
    assert_eq!(end_of(unfit).await, Outcome::Unavailable);
}
