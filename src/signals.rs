//! Signals become requests: SIGTERM and SIGINT [`Shutdown`], the first to stop, the second to end at
//! once; SIGHUP a reload where there is something to reload, else a stop.
//!
//! A terminal or `timeout` signals the process and its group within a moment: what follows the
//! first signal that closely is the same stop request, not a second one.

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::reload::ReloadSource;
use crate::supervisor::Shutdown;

/// Signals this soon after the first belong to it.
const SAME_REQUEST: Duration = Duration::from_millis(300);

/// The signals that ask something of us.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes the signals over from their default action. Inside a runtime only.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Forwards signals, for ever. Without something to reload, SIGHUP means what it means by
    /// default: stop.
    pub async fn forward(
        mut self,
        shutdown: Shutdown,
        reload: Option<ReloadSource>,
    ) -> std::convert::Infallible {
        let mut first = None;
        loop {
            let name = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.hang_up.recv() => match &reload {
                    Some(reload) => {
                        tracing::info!(signal = "SIGHUP", "reloading");
                        reload.ask();
                        continue;
                    }
                    None => "SIGHUP",
                },
            };
            let first: &mut Instant = first.get_or_insert_with(Instant::now);
            let again = shutdown.graceful.is_cancelled();
            if again && first.elapsed() < SAME_REQUEST {
                tracing::debug!(signal = name, "same stop request");
            } else if again {
                tracing::warn!(signal = name, "second signal, ending at once");
                shutdown.immediate.cancel();
            } else {
                tracing::info!(signal = name, "stopping");
                shutdown.graceful.cancel();
            }
        }
    }
}
