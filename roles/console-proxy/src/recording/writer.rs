//! One recording on its way to its file, in the bounded pool for files.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use rfb::fbs;
use role::TaskScope;
use tokio::sync::mpsc;

use super::{Piece, Recordings, WAITING};
use crate::config::RecordingConfig;

/// After so many bytes it is looked whether older files have to go.
const LOOK: u64 = 64 << 20;

/// See the module's head.
pub(super) struct Writer {
    recordings: Arc<Recordings>,
    config: RecordingConfig,
    name: String,
    file: Option<File>,
    written: u64,
    /// When older files are looked at next.
    look_at: u64,
}

/// Why nothing more is written.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("the file has reached roles.console_proxy.recording_limit")]
    Full,
    #[error("the recordings under way need more than roles.console_proxy.recordings_limit")]
    NoRoom,
    #[error("cannot write")]
    Write(#[from] io::Error),
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.recordings.ended(&self.name);
    }
}

impl Writer {
    pub(super) fn new(recordings: Arc<Recordings>, config: RecordingConfig, name: String) -> Self {
        Self { recordings, config, name, file: None, written: 0, look_at: 0 }
    }

    /// Writes until the recorder is gone, or nothing more can be written.
    pub(super) async fn run(self, mut waiting: mpsc::Receiver<Piece>, tasks: TaskScope) {
        let mut writer = self;
        let mut pieces = Vec::new();
        while waiting.recv_many(&mut pieces, WAITING).await > 0 {
            let batch = std::mem::take(&mut pieces);
            let work = move || {
                let outcome = writer.append(&batch);
                (writer, outcome)
            };
            match tasks.blocking("recording", work).await {
                Ok((back, Ok(()))) => writer = back,
                Ok((back, Err(stop))) => {
                    let (file, error) = (&back.name, bedrock::chain(&stop));
                    tracing::warn!(
                        file,
                        error,
                        "the recording of a console ends before the console"
                    );
                    return;
                }
                Err(error) => return tracing::debug!(%error, "a recording ends"),
            }
        }
    }

    fn append(&mut self, pieces: &[Piece]) -> Result<(), Stop> {
        let mut bytes = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Opening(init) => bytes.extend(fbs::opening(init)),
                Piece::Shown { at_ms, bytes: shown } => fbs::put_block(&mut bytes, shown, *at_ms),
            }
        }
        let after = self.written.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if after > self.config.each {
            return Err(Stop::Full);
        }
        if after >= self.look_at {
            self.make_room()?;
            self.look_at = after.saturating_add(LOOK.min(self.config.total / 4));
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let mut options = std::fs::OpenOptions::new();
                let options = options.write(true).create_new(true).mode(0o600);
                self.file.insert(options.open(self.config.directory.join(&self.name))?)
            }
        };
        file.write_all(&bytes)?;
        self.written = after;
        Ok(())
    }

    /// Removes the oldest recordings until all together are within their limit.
    fn make_room(&self) -> Result<(), Stop> {
        let list = self.recordings.list()?;
        let mut total: u64 = list.iter().map(|recording| recording.bytes).sum();
        for old in list.iter().filter(|recording| !recording.recording) {
            if total <= self.config.total {
                return Ok(());
            }
            std::fs::remove_file(self.config.directory.join(&old.name))?;
            tracing::info!(file = old.name, "an old recording was removed to make room");
            total = total.saturating_sub(old.bytes);
        }
        if total > self.config.total { Err(Stop::NoRoom) } else { Ok(()) }
    }
}
