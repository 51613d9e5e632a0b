//! Signals become [`Shutdown`]: the first asks to stop, the second to end at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::supervisor::Shutdown;

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
        loop {
            let name = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.hang_up.recv() => "SIGHUP",
            };
            if shutdown.graceful.is_cancelled() {
                tracing::warn!(signal = name, "second signal, ending at once");
                shutdown.immediate.cancel();
            } else {
                tracing::info!(signal = name, "stopping");
                shutdown.graceful.cancel();
            }
        }
    }
}
