//! The ping schedule as a table, the service with paused time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use role::{Host, LinkState};

use super::*;
use crate::config::SupervisorConfig;

const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

/// Beats at the given seconds with the given intervals; returns the seconds of the pings.
fn pings(beats: &[(u64, Option<u64>)]) -> Vec<u64> {
    let start = Instant::now();
    let mut schedule = PingSchedule::default();
    beats
        .iter()
        .filter(|(at, interval)| {
            schedule.beat(start + Duration::from_secs(*at), interval.map(Duration::from_secs))
        })
        .map(|(at, _)| *at)
        .collect()
}

#[test]
fn the_first_ping_comes_one_interval_after_the_link_appears() {
    let beats: Vec<_> = (5..200).map(|second| (second, Some(60))).collect();
    assert_eq!(pings(&beats), [65, 125, 185]);
}

#[test]
fn a_late_beat_makes_one_ping_not_a_burst() {
    let beats = [(0, Some(60)), (1000, Some(60)), (1001, Some(60)), (1060, Some(60))];
    assert_eq!(pings(&beats), [1000, 1060]);
}

#[test]
fn a_changed_interval_counts_from_the_last_ping() {
    let shorter = [(0, Some(60)), (20, Some(10)), (21, Some(10)), (30, Some(10))];
    assert_eq!(pings(&shorter), [20, 30]);
    let longer = [(0, Some(10)), (9, Some(60)), (10, Some(60)), (59, Some(60)), (60, Some(60))];
    assert_eq!(pings(&longer), [60]);
}

#[test]
fn a_link_that_wants_no_pings_starts_afresh_when_it_does() {
    let beats =
        [(0, Some(60)), (30, None), (60, None), (70, Some(60)), (129, Some(60)), (130, Some(60))];
    assert_eq!(pings(&beats), [130]);
}

#[test]
fn an_interval_of_zero_does_not_spin() {
    let start = Instant::now();
    let mut schedule = PingSchedule::default();
    assert!(!schedule.beat(start, Some(Duration::ZERO)));
    assert_eq!(schedule.due(), Some(start + SHORTEST_INTERVAL));
}

struct FakeLink {
    interval: Mutex<Option<Duration>>,
    pings: AtomicUsize,
    panics: bool,
}

impl FakeLink {
    fn new(interval: Option<Duration>, panics: bool) -> Arc<Self> {
        Arc::new(Self { interval: Mutex::new(interval), pings: AtomicUsize::new(0), panics })
    }
}

impl PingedLink for FakeLink {
    fn report(&self) -> LinkReport {
        LinkReport {
            state: LinkState::Attached,
            host_id: Some(1),
            ping_interval: *self.interval.lock().unwrap(),
            ..LinkReport::default()
        }
    }

    fn ping(&self) {
        assert!(!self.panics, "planted");
        self.pings.fetch_add(1, Ordering::Relaxed);
    }
}

const KIND: RoleKind = RoleKind { short: "x", title: "test", section: "test" };

fn service(links: &Heartbeat) -> HeartbeatService {
    let board = Board::new([KIND], Host::system());
    HeartbeatService::new(
        links.clone(),
        board,
        Limits::new(SupervisorConfig::default()),
        Notifier::silent(),
    )
}

#[tokio::test(start_paused = true)]
async fn every_link_is_pinged_at_its_own_interval_and_a_panic_hurts_nobody_else() {
    let links = Heartbeat::new();
    let minute = FakeLink::new(MINUTE, false);
    let second = FakeLink::new(Some(Duration::from_secs(5)), false);
    let broken = FakeLink::new(Some(Duration::from_secs(5)), true);
    let all: [Arc<dyn PingedLink>; 3] =
        [Arc::clone(&minute) as _, broken as _, Arc::clone(&second) as _];
    for link in &all {
        links.register(KIND, link);
    }
    let stop = CancellationToken::new();
    let service = service(&links);
    let run = service.run(stop.clone());
    let ten_minutes = async {
        tokio::time::sleep(Duration::from_millis(600_500)).await;
        stop.cancel();
    };
    tokio::join!(run, ten_minutes);
    assert_eq!(minute.pings.load(Ordering::Relaxed), 10);
    assert_eq!(second.pings.load(Ordering::Relaxed), 120);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_link_is_forgotten() {
    let links = Heartbeat::new();
    let link: Arc<dyn PingedLink> = FakeLink::new(MINUTE, false);
    links.register(KIND, &link);
    let mut service = service(&links);
    service.beat(Instant::now());
    assert_eq!(service.tracked.len(), 1);
    drop(link);
    service.beat(Instant::now());
    assert_eq!(service.tracked.len(), 0);
}
