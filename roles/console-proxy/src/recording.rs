//! What viewers were shown, on disk, where an operator wants that: one file per connection of a viewer,
//! in the format of `rfb::fbs`.
//!
//! Nothing that is typed is in it. A disk that is slow or full ends a recording and never slows or
//! ends a console; the log and the audit log say so. The oldest files go when all together are over
//! their limit.

mod writer;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rfb::{PixelFormat, ServerInit};
use role::TaskScope;
use status_api::RecordingStatus;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::audit::Audit;
use crate::config::RecordingConfig;
use crate::sessions::Session;
use writer::Writer;

/// Pieces of picture that wait for the disk: a session at full speed has 256 KiB in each.
const WAITING: usize = 64;
/// Of a file's name.
const ENDING: &str = ".fbs";
const NAME_LIMIT: usize = 200;
/// Files that are listed.
const LISTED: usize = 10_000;

/// The directory, and which of its files are being written.
#[derive(Debug)]
pub(crate) struct Recordings {
    pub(crate) config: Option<RecordingConfig>,
    active: Mutex<BTreeSet<String>>,
}

/// What is on its way to a file.
#[derive(Debug)]
enum Piece {
    Opening(ServerInit),
    Shown { at_ms: u32, bytes: Vec<u8> },
}

/// A connection's recording; it ends by drop.
#[derive(Debug)]
pub(crate) struct Recorder {
    pieces: mpsc::Sender<Piece>,
    start: Instant,
    /// Until the first piece is there: the viewer may still choose another pixel format.
    opening: Mutex<Option<ServerInit>>,
    ended: AtomicBool,
}

impl Recorder {
    /// The viewer asked for another pixel format. Before the picture begins that is what the recording
    /// is in; later it could not be played.
    pub(crate) fn format(&self, format: PixelFormat) {
        match &mut *self.opening.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(init) => init.format = format,
            None => self.end("the viewer changed its pixel format"),
        }
    }

    /// The viewer is shown this.
    pub(crate) fn shown(&self, bytes: &[u8]) {
        if self.ended.load(Ordering::Relaxed) {
            return;
        }
        let opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner).take();
        let at_ms = u32::try_from(self.start.elapsed().as_millis()).unwrap_or(u32::MAX);
        let shown = Piece::Shown { at_ms, bytes: bytes.to_vec() };
        for piece in opening.map(Piece::Opening).into_iter().chain([shown]) {
            if self.pieces.try_send(piece).is_err() {
                // Whoever wrote has said why; otherwise it is behind.
                let why = if self.pieces.is_closed() { "" } else { "the disk is too slow" };
                return self.end(why);
            }
        }
    }

    fn end(&self, why: &str) {
        if !self.ended.swap(true, Ordering::Relaxed) && !why.is_empty() {
            tracing::warn!(why, "the recording of a console ends before the console");
        }
    }
}

impl Recordings {
    pub(crate) fn new(config: Option<RecordingConfig>) -> Self {
        Self { config, active: Mutex::default() }
    }

    /// Makes the directory. Blocks.
    pub(crate) fn prepare(&self) -> Result<(), String> {
        use std::os::unix::fs::DirBuilderExt;
        let Some(config) = &self.config else { return Ok(()) };
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.directory);
        made.map_err(|error| {
            let directory = config.directory.display();
            format!("consoles are not recorded: cannot make {directory}: {error}")
        })
    }

    /// Records what this session's viewer is shown from now on, if that is wanted.
    pub(crate) fn begin(
        self: &Arc<Self>,
        session: &Session,
        init: &ServerInit,
        tasks: &TaskScope,
        audit: &Audit,
    ) -> Option<Recorder> {
        let config = self.config.clone()?;
        let name = self.new_name(&config.directory, session);
        audit.record("recorded", session, Some(&name));
        let (pieces, waiting) = mpsc::channel(WAITING);
        let writer = Writer::new(Arc::clone(self), config, name);
        tasks.spawn("recording", writer.run(waiting, tasks.clone()));
        Some(Recorder {
            pieces,
            start: Instant::now(),
            opening: Mutex::new(Some(init.clone())),
            ended: AtomicBool::new(false),
        })
    }

    /// A name that no file has, and marks it as being written.
    fn new_name(&self, directory: &Path, session: &Session) -> String {
        let now = jiff::Timestamp::now().to_string();
        let time: String = now.chars().take(19).filter(|c| *c != ':').collect();
        let plain = |text: &str, most: usize| -> String {
            let letters = text.chars().map(|c| match c {
                'a'..='z' | 'A'..='Z' | '0'..='9' | '-' => c,
                _ => '_',
            });
            letters.take(most).collect()
        };
        let (vm, uuid) = (plain(&session.display_name, 60), plain(&session.uuid, 40));
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        let names = (1_u32..).map(|number| match number {
            1 => format!("{time}Z-{vm}-{uuid}{ENDING}"),
            more => format!("{time}Z-{vm}-{uuid}-{more}{ENDING}"),
        });
        let is_free = |name: &String| !active.contains(name) && !directory.join(name).exists();
        let name = names.into_iter().find(is_free).unwrap_or_default();
        active.insert(name.clone());
        name
    }

    fn ended(&self, name: &str) {
        self.active.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    fn is_active(&self, name: &str) -> bool {
        self.active.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// The recordings that are there, oldest first. Blocks.
    pub(crate) fn list(&self) -> std::io::Result<Vec<RecordingStatus>> {
        let Some(config) = &self.config else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&config.directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() && is_name(&name) {
                let changed = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                found.push((changed, name, metadata.len()));
            }
        }
        found.sort();
        let skipped = found.len().saturating_sub(LISTED);
        let rows = found.into_iter().skip(skipped).map(|(changed, name, bytes)| RecordingStatus {
            changed: jiff::Timestamp::try_from(changed)
                .map(|at| at.to_string())
                .unwrap_or_default(),
            recording: self.is_active(&name),
            name,
            bytes,
        });
        Ok(rows.collect())
    }

    /// Where a recording of that name is; nothing outside the directory has one.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        let directory = &self.config.as_ref()?.directory;
        let path = is_name(name).then(|| directory.join(name))?;
        std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file()).then_some(path)
    }
}

/// Whether a text can be the name of a recording, and nothing else.
fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    name.len() <= NAME_LIMIT
        && name.ends_with(ENDING)
        && !name.starts_with('.')
        && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_recordings_are_names() {
        for good in ["2026-11-28T080900Z-vm1-8a11.fbs", "x.fbs"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["../x.fbs", "a/b.fbs", ".fbs", ".x.fbs", "x.fbs\0", "x", "x.png", "ü.fbs"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
