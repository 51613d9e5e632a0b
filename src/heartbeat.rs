//! The one heartbeat of the process.
//!
//! One task pings every registered link at the interval the link reports, looks whether every
//! role's main loop makes progress, and feeds the systemd watchdog while supervisor and heartbeat
//! both tick. What a ping looks like and whether its answer came is the link's business.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

use role::{Heartbeat, LinkReport, PingedLink, RoleKind};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::notify::Notifier;
use crate::supervisor::Limits;
use crate::supervisor::board::{Board, millis};

/// The longest time between two beats.
const BEAT: Duration = Duration::from_secs(1);
/// Shorter intervals than this are taken for this: a server that says 0 must not make us spin.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);
/// A beat that comes so late means that the whole process stood still, not one role.
const LATE: Duration = Duration::from_secs(5);
/// The watchdog is fed while supervisor and heartbeat ticked within this time.
pub const HEALTHY: Duration = Duration::from_secs(10);

/// When the next ping of one link is due. Pure: time and interval are arguments.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct PingSchedule {
    /// Start of the running interval, and the interval.
    running: Option<(Instant, Duration)>,
}

impl PingSchedule {
    /// Takes note of the interval the link wants now; true when a ping is due. However late the
    /// call, it is one ping, and the next one comes a full interval later.
    fn beat(&mut self, now: Instant, interval: Option<Duration>) -> bool {
        let Some(interval) = interval.map(|interval| interval.max(SHORTEST_INTERVAL)) else {
            self.running = None;
            return false;
        };
        match self.running {
            None => {
                self.running = Some((now, interval));
                false
            }
            Some((since, _)) if now.saturating_duration_since(since) >= interval => {
                self.running = Some((now, interval));
                true
            }
            Some((since, _)) => {
                self.running = Some((since, interval));
                false
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        self.running.map(|(since, interval)| since + interval)
    }
}

struct Tracked {
    /// Keeps the address from being reused while it identifies the link.
    link: Weak<dyn PingedLink>,
    schedule: PingSchedule,
}

/// The heartbeat, ready to run.
pub(crate) struct HeartbeatService {
    links: Heartbeat,
    board: Board,
    limits: Limits,
    notifier: Notifier,
    tracked: Vec<Tracked>,
    /// Hangs are not judged before this moment.
    judge_from: Instant,
    last_beat: Instant,
    fed: Option<Instant>,
}

impl HeartbeatService {
    pub(crate) fn new(links: Heartbeat, board: Board, limits: Limits, notifier: Notifier) -> Self {
        let now = Instant::now();
        Self {
            links,
            board,
            limits,
            notifier,
            tracked: Vec::new(),
            judge_from: now,
            last_beat: now,
            fed: None,
        }
    }

    /// Beats until `stop` fires.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let next = self.beat(Instant::now());
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// One beat; returns when the next one is wanted.
    fn beat(&mut self, now: Instant) -> Instant {
        if now.saturating_duration_since(self.last_beat) > BEAT + LATE {
            tracing::warn!("the process stood still for a while, progress is judged later");
            self.judge_from = now + LATE;
        }
        self.last_beat = now;
        let ping_due = self.ping(now);
        let judged = self.judge_progress(now);
        self.board.heartbeat_tick();
        self.feed_watchdog(now);
        let beat = self.notifier.watchdog().map_or(BEAT, |cadence| cadence.min(BEAT));
        let wanted = [ping_due, judged].into_iter().flatten().min();
        wanted.map_or(now + beat, |wanted| wanted.min(now + beat))
    }

    fn ping(&mut self, now: Instant) -> Option<Instant> {
        self.tracked.retain(|tracked| tracked.link.strong_count() > 0);
        let mut next = None;
        for (role, link) in self.links.links() {
            let schedule = self.schedule_of(&link);
            // A link is the role's code: a panic in it is not the heartbeat's end.
            let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
                if schedule.beat(now, link.report().ping_interval) {
                    tracing::trace!(%role, "ping due");
                    link.ping();
                }
            }));
            if outcome.is_err() {
                tracing::error!(%role, "pinging a link panicked");
            }
            next = [next, schedule.due()].into_iter().flatten().min();
        }
        next
    }

    fn schedule_of(&mut self, link: &Arc<dyn PingedLink>) -> &mut PingSchedule {
        let address = |link: *const dyn PingedLink| link.cast::<()>();
        let wanted = address(Arc::as_ptr(link));
        let known =
            self.tracked.iter().position(|tracked| address(tracked.link.as_ptr()) == wanted);
        let index = known.unwrap_or_else(|| {
            let schedule = PingSchedule::default();
            self.tracked.push(Tracked { link: Arc::downgrade(link), schedule });
            self.tracked.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "found or pushed just above")]
        &mut self.tracked[index].schedule
    }

    /// Tells the runners of silent roles; returns when the next role would count as silent, for
    /// deadlines shorter than a beat.
    fn judge_progress(&self, now: Instant) -> Option<Instant> {
        if now < self.judge_from {
            return None;
        }
        let deadline = self.limits.current().progress_deadline;
        let mut next = None;
        for (role, reporter, hung) in self.board.running() {
            let silent = reporter.silent_for();
            if silent > deadline {
                if !hung.is_cancelled() {
                    let elapsed_ms = millis(silent);
                    tracing::error!(%role, elapsed_ms, "role makes no progress");
                    hung.cancel();
                }
            } else {
                let left = deadline.saturating_sub(silent);
                let at = now + left + Duration::from_millis(1);
                next = [next, Some(at)].into_iter().flatten().min();
            }
        }
        next
    }

    fn feed_watchdog(&mut self, now: Instant) {
        let Some(cadence) = self.notifier.watchdog() else { return };
        let due = self.fed.is_none_or(|fed| now.saturating_duration_since(fed) + BEAT > cadence);
        if due && self.board.silent_for() < HEALTHY {
            self.notifier.feed_watchdog();
            self.fed = Some(now);
        }
    }
}

/// One link at one moment.
#[derive(Debug, Clone)]
pub struct LinkRow {
    pub role: RoleKind,
    pub report: LinkReport,
}

/// The one table of links: what `/status` and the metrics publish.
pub fn table(links: &Heartbeat) -> Vec<LinkRow> {
    links
        .links()
        .into_iter()
        .filter_map(|(role, link)| {
            let report = std::panic::catch_unwind(AssertUnwindSafe(|| link.report())).ok()?;
            Some(LinkRow { role, report })
        })
        .collect()
}

#[cfg(test)]
mod tests;
