//! The id of the process in a file, for scripts that look for it there.
//!
//! The lock of the state directory is what keeps two of us apart; this file keeps us apart from
//! whoever else writes it, such as an original agent in whose place we run.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A process id has at most ten digits.
const LONGEST: u64 = 64;
/// The kernel counts a process's start in hundredths of a second, on every architecture.
const TICKS: u64 = 100;

/// Removed when it is dropped.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum PidFileError {
    #[error(
        "process {pid} ({name}) runs and is named by {}; stop it, or set another \
         supervisor.pid_file", path.display()
    )]
    Alive { path: PathBuf, pid: u32, name: String },
    #[error("cannot write the process id into {}", path.display())]
    System { path: PathBuf, source: std::io::Error },
}

impl PidFile {
    /// Writes our id, unless the file names another process that lives.
    pub(crate) fn write(path: &Path) -> Result<Self, PidFileError> {
        if let Some((pid, name)) = holder(path) {
            return Err(PidFileError::Alive { path: path.to_owned(), pid, name });
        }
        let text = format!("{}\n", std::process::id());
        bedrock::files::replace(path, text.as_bytes(), 0o644)
            .map_err(|source| PidFileError::System { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned() })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "pid file not removed");
        }
    }
}

/// The living process that the file names. One that is younger than the file got the id of a
/// process that ended without removing it.
fn holder(path: &Path) -> Option<(u32, String)> {
    let seen =
        std::fs::metadata(path).ok().filter(|seen| seen.is_file() && seen.len() <= LONGEST)?;
    let pid: u32 = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
    if pid == std::process::id() {
        return None;
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold some itself.
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1.to_owned();
    let ticks: u64 = after.split_whitespace().nth(19)?.parse().ok()?;
    let started = booted()? + Duration::from_millis(ticks * 1000 / TICKS);
    // The boot time is in whole seconds.
    let written = seen.modified().ok()? + Duration::from_secs(1);
    (started <= written).then_some((pid, name))
}

fn booted() -> Option<SystemTime> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(line.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_us_while_we_run_and_is_gone_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.pid");
        let file = PidFile::write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_living_process_is_named_a_dead_or_younger_one_and_odd_text_do_not_matter() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.pid");
        let parent = nix::unistd::getppid();
        std::fs::write(&path, format!("{parent}\n")).unwrap();
        let error = PidFile::write(&path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("process {parent} (")), "{error}");
        // As if the file had been left by a process before this parent.
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        drop(PidFile::write(&path).unwrap());
        for text in ["4194305\n", "tea", "", "-1"] {
            std::fs::write(&path, text).unwrap();
            drop(PidFile::write(&path).unwrap());
        }
        assert!(PidFile::write(&directory.path().join("none/agent.pid")).is_err());
    }
}
