//! Whether a store's directory does what a store has to do: there is room, and what is written is
//! read again, at the time that our own clock tells.

use std::fs::OpenOptions;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::statvfs::statvfs;
use role::DoctorFinding;

use super::fault;

/// Room below this share of a store is told.
const LITTLE_PERCENT: u64 = 10;
/// A store's server whose clock differs by more is told: ages of files decide what is cleaned up.
const SKEW: Duration = Duration::from_secs(30);
/// A page, and longer than what a file system keeps in a directory entry.
const PROBE: [u8; 4096] = [0x51; 4096];

/// Free bytes beside what stays free.
pub(super) fn space(directory: &Path, min_free: u64) -> DoctorFinding {
    let shown = directory.display();
    let seen = match statvfs(directory) {
        Ok(seen) => seen,
        Err(error) => return DoctorFinding::Skipped(format!("cannot measure {shown}: {error}")),
    };
    let unit = seen.fragment_size();
    let free = seen.blocks_available().saturating_mul(unit);
    let all = seen.blocks().saturating_mul(unit);
    judge_space(&shown.to_string(), free, all, min_free)
}

fn judge_space(shown: &str, free: u64, all: u64, min_free: u64) -> DoctorFinding {
    // Of a small store a twentieth stays free, see min_free.
    let kept = min_free.min(all / 20);
    let mib = free >> 20;
    if free <= kept {
        let problem = format!("{shown} is full: {mib} MiB are free, and min_free keeps them");
        return fault(problem, "make room: quickcloud ss verify tells what nobody needs");
    }
    if free < all / 100 * LITTLE_PERCENT {
        return DoctorFinding::Warning {
            problem: format!("{shown} is nearly full: {mib} MiB are free"),
            remedy: "make room, or add a store (addImageStore)".to_owned(),
        };
    }
    DoctorFinding::Good(format!("{shown} has {mib} MiB free"))
}

/// Writes a file, reads it again and removes it.
pub(super) fn write(directory: &Path, now: SystemTime) -> DoctorFinding {
    let shown = directory.display();
    match probe(directory) {
        Err(error) => fault(
            format!("what is written to {shown} does not come back: {error}"),
            "look at the export's rights (no_root_squash), at its server and at the mount options",
        ),
        Ok(written) => {
            let skew = written
                .duration_since(now)
                .or_else(|_earlier| now.duration_since(written))
                .unwrap_or_default();
            if skew <= SKEW {
                return DoctorFinding::Good(format!("{shown} keeps what is written"));
            }
            DoctorFinding::Warning {
                problem: format!("the clock of {shown} differs from ours by {} s", skew.as_secs()),
                remedy: "synchronise both with chrony: what is old is told by it".to_owned(),
            }
        }
    }
}

/// When the store says that the probe was written.
fn probe(directory: &Path) -> io::Result<SystemTime> {
    let path = directory.join(format!(".quickcloud-doctor-{}", std::process::id()));
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    let outcome = (|| {
        file.write_all(&PROBE)?;
        file.sync_all()?;
        file.rewind()?;
        let mut read = Vec::new();
        (&file).take(PROBE.len() as u64 + 1).read_to_end(&mut read)?;
        if read != PROBE {
            return Err(io::Error::other("other bytes are read than were written"));
        }
        file.metadata()?.modified()
    })();
    let removed = std::fs::remove_file(&path);
    let written = outcome?;
    removed.map(|()| written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_judged_by_what_stays_free() {
        const GIB: u64 = 1 << 30;
        let told = |free: u64, all: u64| match judge_space("s", free, all, GIB) {
            DoctorFinding::Good(text) => text,
            DoctorFinding::Warning { problem, .. } | DoctorFinding::Fault { problem, .. } => {
                problem
            }
            DoctorFinding::Skipped(text) => text,
        };
        assert_eq!(told(50 * GIB, 100 * GIB), "s has 51200 MiB free");
        assert_eq!(told(5 * GIB, 100 * GIB), "s is nearly full: 5120 MiB are free");
        assert!(told(GIB, 100 * GIB).starts_with("s is full"));
        assert!(told(GIB / 2, 2 * GIB).ends_with("512 MiB free"), "a twentieth of a small one");
    }

    #[test]
    fn a_probe_leaves_nothing_and_tells_a_clock_that_is_off() {
        let folder = tempfile::tempdir().unwrap();
        let now = std::fs::metadata(folder.path()).unwrap().modified().unwrap();
        assert!(matches!(write(folder.path(), now), DoctorFinding::Good(_)));
        let off = now + Duration::from_secs(3600);
        let DoctorFinding::Warning { problem, .. } = write(folder.path(), off) else { panic!() };
        assert!(problem.contains("differs from ours by 3"), "{problem}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(matches!(write(&folder.path().join("none"), now), DoctorFinding::Fault { .. }));
    }
}
