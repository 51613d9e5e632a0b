//! Signals become [`Shutdown`]: the first asks to stop, the second to end at once.
//!
//! A terminal or `timeout` signals the process and its group within a moment: what follows the
//! first signal that closely is the same wish, not a second one.

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::supervisor::Shutdown;

/// Signals this soon after the first belong to it.
const SAME_WISH: Duration = Duration::from_millis(300);

/// The signals that stop us.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl StopSignals {
    /// Takes the signals over from their default action. Inside a runtime only.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Forwards signals, for ever.
    pub async fn forward(mut self, shutdown: Shutdown) -> std::convert::Infallible {
        let mut first = None;
        loop {
            let name = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.hang_up.recv() => "SIGHUP",
            };
            let first: &mut Instant = first.get_or_insert_with(Instant::now);
            let again = shutdown.graceful.is_cancelled();
            if again && first.elapsed() < SAME_WISH {
                tracing::debug!(signal = name, "the same wish again");
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
