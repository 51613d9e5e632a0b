//! The relay between a viewer and a VNC server after both handshakes, whatever their bytes travel
//! over.
//!
//! Both directions run independently, each with one buffer under way: whoever reads slowly slows
//! only what is sent to him. Data frames are the only bytes that reach the VM, and they pass a filter
//! that knows where messages begin: so typed texts come between them, and a viewer may be made to
//! watch only.

mod down;
mod typing;
mod up;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::browser::Browser;
use crate::control::ToPage;
use crate::recording::Recorder;
use crate::refusal::End;
use crate::resume::Tickets;
use crate::sessions::Session;
use down::Down;
use up::Up;

/// Messages to the browser beside the picture that wait for it.
const OUTGOING: usize = 16;
/// How long a VM may take to hear that keys are up again.
const RELEASE: Duration = Duration::from_secs(1);

/// Bounds of a running console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BridgeLimits {
    /// Distance of our pings to the viewer. A screen that takes no input for as long is lost: its
    /// viewer's pongs, and its leaving, wait unread behind that input.
    pub(crate) ping: Duration,
    /// Without any frame from the viewer for this long, pongs included, it is gone.
    pub(crate) idle: Duration,
    /// Without anything typed and anything shown for this long the console ends; `None` = never.
    pub(crate) quiet: Option<Duration>,
}

/// Bytes of the VM, and what is known of them.
pub(crate) struct Vm<S> {
    pub(crate) stream: S,
    /// What it sent after its handshake.
    pub(crate) ahead: Vec<u8>,
    /// Viewer and host shake hands themselves: nothing is known of where messages begin.
    pub(crate) opaque: bool,
}

/// What goes to the browser beside the picture.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Pong(Vec<u8>),
    Page(ToPage),
}

/// How long tickets are good, and who issues them.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub(crate) tickets: Tickets,
    pub(crate) length: Duration,
}

impl Window {
    pub(crate) fn millis(&self) -> u64 {
        u64::try_from(self.length.as_millis()).unwrap_or(u64::MAX)
    }
}

/// What a relay needs besides its two ends.
pub(crate) struct Terms {
    pub(crate) session: Arc<Session>,
    /// Bytes to the viewer, bytes to the VM.
    pub(crate) counters: (Counter, Counter),
    pub(crate) limits: BridgeLimits,
    /// `None` = a lost viewer cannot come back.
    pub(crate) window: Option<Window>,
    /// Keeps what the viewer is shown.
    pub(crate) recorder: Option<Recorder>,
}

/// When the viewer was last heard of, and when anything last moved, in milliseconds since the start
/// of the relay.
struct Signs {
    start: Instant,
    heard: AtomicU64,
    moved: AtomicU64,
}

impl Signs {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn age(&self, since: &AtomicU64) -> Duration {
        Duration::from_millis(self.now().saturating_sub(since.load(Ordering::Relaxed)))
    }

    fn mark(&self, what: &AtomicU64) {
        what.store(self.now(), Ordering::Relaxed);
    }
}

/// Relays until one side ends, the viewer is idle, or the session is asked to end. `ahead` is what
/// the viewer sent after its handshake. Keys that are down in the end are released.
pub(crate) async fn relay<V, S>(
    browser: &mut Browser<V>,
    vm: Vm<S>,
    ahead: &[u8],
    terms: &Terms,
) -> End
where
    V: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite,
{
    let Terms { session, counters, limits, window, recorder } = terms;
    let recorder = recorder.as_ref();
    let signs = Signs { start: Instant::now(), heard: AtomicU64::new(0), moved: AtomicU64::new(0) };
    let (vm_read, mut vm_write) = tokio::io::split(vm.stream);
    let (viewer_read, viewer_write) = tokio::io::split(&mut browser.stream);
    let (outgoing, waiting) = mpsc::channel(OUTGOING);
    let control = browser.has_control.then(|| outgoing.clone());
    session.reach_by(control.clone());
    let mut up = Up::new(viewer_read, &mut vm_write, &mut browser.incoming, vm.opaque);
    up.outgoing = Some(outgoing);
    up.has_control = control.is_some();
    let bytes = &counters.1;
    let up_terms = up::Around { session, signs: &signs, bytes, limits: *limits, recorder };
    let down = Down {
        write: viewer_write,
        read: vm_read,
        waiting,
        session,
        signs: &signs,
        bytes: &counters.0,
        ping: limits.ping,
        recorder,
    };
    let end = tokio::select! {
        end = up.run(ahead, &up_terms) => end,
        end = down.run(vm.ahead) => end,
        end = watch(&signs, *limits) => end,
        end = renew(session, control, window.as_ref()) => end,
        ended = session.ended() => ended.into(),
    };
    session.reach_by(None);
    let held = up.held();
    if !held.is_empty() {
        let release: Vec<u8> = held.iter().flat_map(|key| key.message(false)).collect();
        let written = async {
            vm_write.write_all(&release).await?;
            vm_write.flush().await
        };
        if !matches!(timeout(RELEASE, written).await, Ok(Ok(()))) {
            tracing::debug!(keys = held.len(), "the VM did not hear that keys are up again");
        }
    }
    end
}

/// Ends a relay that nobody is at the other end of.
async fn watch(signs: &Signs, limits: BridgeLimits) -> End {
    loop {
        let unheard = signs.age(&signs.heard);
        if unheard >= limits.idle {
            return End::Idle;
        }
        let mut wait = limits.idle - unheard;
        if let Some(limit) = limits.quiet {
            let unmoved = signs.age(&signs.moved);
            if unmoved >= limit {
                return End::Quiet;
            }
            wait = wait.min(limit - unmoved);
        }
        sleep(wait.max(Duration::from_millis(10))).await;
    }
}

/// Gives the page a ticket whenever the last one has used up a third of its time.
async fn renew(
    session: &Session,
    control: Option<mpsc::Sender<Outgoing>>,
    window: Option<&Window>,
) -> End {
    if let (Some(control), Some(window)) = (control, window) {
        loop {
            sleep(window.length / 3).await;
            let message = ToPage::Ticket { ticket: session.ticket(window) };
            if control.send(Outgoing::Page(message)).await.is_err() {
                break;
            }
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests;
