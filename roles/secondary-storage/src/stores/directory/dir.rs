//! Directories of a store, held open and walked name by name.
//!
//! Hypervisor hosts and other agents write to the same export, so nothing on it is trusted. Every
//! step opens one name relative to an open directory and refuses symbolic links; there is no
//! moment between a check and a use at which somebody could swap a directory for a link. All
//! functions block: they run on a store's own threads.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::dir::{Dir as Entries, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::unistd::UnlinkatFlags;

use crate::stores::SMALL_STORE;
use crate::stores::engine::{Entry, EntryKind, Space};
use crate::stores::path::{FileName, InstallPath};

/// Permissions of what is created. Hypervisor hosts of other users read and write the same files,
/// so the process's umask must not get in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modes {
    pub directory: u32,
    pub file: u32,
}

/// An open directory at or below a store's root.
#[derive(Debug)]
pub struct Dir(OwnedFd);

impl Dir {
    /// Opens the root itself. Links in the operator's own path are followed.
    pub fn open_root(path: &Path) -> Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(nix::fcntl::open(path, flags, Mode::empty())?))
    }

    fn open_with(&self, name: &OsStr, flags: OFlag, mode: Mode) -> Result<OwnedFd> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match nix::fcntl::openat(&self.0, name, flags, mode) {
            Ok(fd) => Ok(fd),
            Err(Errno::ELOOP) => Err(Error::new(
                ErrorKind::PermissionDenied,
                format!("{} is a symbolic link, which is not followed", name.display()),
            )),
            Err(errno) => Err(errno.into()),
        }
    }

    pub fn open_dir(&self, name: impl AsRef<OsStr>) -> Result<Self> {
        self.open_with(name.as_ref(), OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()).map(Self)
    }

    /// Walks down `path`.
    pub fn walk(&self, path: &InstallPath) -> Result<Self> {
        self.walk_parts(path.parts())
    }

    pub(super) fn walk_parts(&self, parts: &[FileName]) -> Result<Self> {
        let mut current = Self(self.0.try_clone()?);
        for part in parts {
            current = current.open_dir(part.as_str())?;
        }
        Ok(current)
    }

    /// Walks down `path`, creating what is missing.
    pub fn create_all(&self, path: &InstallPath, modes: Modes) -> Result<Self> {
        let mut current = Self(self.0.try_clone()?);
        for part in path.parts() {
            current = current.make_dir(part.as_str(), modes)?;
        }
        Ok(current)
    }

    /// Opens a directory, creating it if need be.
    fn make_dir(&self, name: &str, modes: Modes) -> Result<Self> {
        let mode = Mode::from_bits_truncate(modes.directory);
        match nix::sys::stat::mkdirat(&self.0, name, mode) {
            Ok(()) => {
                let created = self.open_dir(name)?;
                nix::sys::stat::fchmod(&created.0, mode)?;
                Ok(created)
            }
            Err(Errno::EEXIST) => self.open_dir(name),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The directory that `path` names an entry of, and the entry's name.
    pub fn parent_of<'p>(&self, path: &'p InstallPath) -> Result<(Self, &'p str)> {
        let (name, parents) =
            path.parts().split_last().ok_or_else(|| Error::from(ErrorKind::InvalidInput))?;
        Ok((self.walk_parts(parents)?, name.as_str()))
    }

    /// Opens a regular file for reading.
    pub fn open_file(&self, name: &str) -> Result<File> {
        self.open_regular(name, OFlag::O_RDONLY)
    }

    /// Opens a regular file that is there, to write and to read it.
    pub fn open_to_write(&self, name: &str) -> Result<File> {
        self.open_regular(name, OFlag::O_RDWR)
    }

    fn open_regular(&self, name: &str, access: OFlag) -> Result<File> {
        // O_NONBLOCK: a FIFO of that name must not block the opener.
        let flags = access | OFlag::O_NONBLOCK;
        let file = File::from(self.open_with(name.as_ref(), flags, Mode::empty())?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(Error::new(ErrorKind::InvalidInput, format!("{name} is not a regular file")))
        }
    }

    /// Creates a file that must not exist, for writing and reading back.
    pub fn create_file(&self, name: &str, modes: Modes) -> Result<File> {
        let mode = Mode::from_bits_truncate(modes.file);
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let fd = self.open_with(name.as_ref(), flags, mode)?;
        nix::sys::stat::fchmod(&fd, mode)?;
        Ok(File::from(fd))
    }

    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        Ok(nix::fcntl::renameat(&self.0, from, &self.0, to)?)
    }

    /// Gives a file a second name, in place of another; `false` when there is no such file.
    pub fn keep(&self, name: &str, second: &str) -> Result<bool> {
        self.remove_file(second)?;
        match nix::unistd::linkat(&self.0, name, &self.0, second, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes a file whole unless there is one of that name: of several callers, on any host, one
    /// gets `true`. A hard link is what every file system makes atomically, NFS included; where there
    /// are none, an exclusive creation is, and a reader may see the file without its content. An
    /// answer that got lost on its way looks like a name taken by somebody else, so the content is
    /// compared: callers give each claim a content of its own.
    pub fn claim(&self, name: &str, aside: &str, content: &[u8], modes: Modes) -> Result<bool> {
        self.remove_file(aside)?;
        let mut file = self.create_file(aside, modes)?;
        file.write_all(content)?;
        file.sync_all()?;
        drop(file);
        let flags = AtFlags::empty();
        let linked = nix::unistd::linkat(&self.0, aside, &self.0, name, flags);
        self.remove_file(aside)?;
        let claimed = match linked {
            Ok(()) => true,
            Err(Errno::EEXIST) => {
                let mut found = Vec::new();
                self.open_file(name)?.take(content.len() as u64 + 1).read_to_end(&mut found)?;
                found == content
            }
            Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EMLINK) => {
                match self.create_file(name, modes) {
                    Ok(mut file) => {
                        file.write_all(content)?;
                        file.sync_all()?;
                        true
                    }
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
                    Err(error) => return Err(error),
                }
            }
            Err(errno) => return Err(errno.into()),
        };
        self.sync()?;
        Ok(claimed)
    }

    /// Makes created and renamed names durable.
    pub fn sync(&self) -> Result<()> {
        Ok(nix::unistd::fsync(&self.0)?)
    }

    /// Removes a file; `false` when there was none.
    pub fn remove_file(&self, name: impl AsRef<OsStr>) -> Result<bool> {
        self.unlink(name.as_ref(), UnlinkatFlags::NoRemoveDir)
    }

    /// Removes an empty directory; `false` when there was none or it is not empty.
    pub fn remove_empty(&self, name: impl AsRef<OsStr>) -> Result<bool> {
        match nix::unistd::unlinkat(&self.0, name.as_ref(), UnlinkatFlags::RemoveDir) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT | Errno::ENOTEMPTY | Errno::EEXIST) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn unlink(&self, name: &OsStr, flags: UnlinkatFlags) -> Result<bool> {
        match nix::unistd::unlinkat(&self.0, name, flags) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes everything below `name` and `name` itself, the files named `first` before all
    /// others; `false` when there was none. Whatever other parties do meanwhile: success means that
    /// the name is gone. `depth` bounds the descent.
    pub fn remove_tree(&self, name: &OsStr, first: &str, depth: u8) -> Result<bool> {
        let Some(deeper) = depth.checked_sub(1) else {
            return Err(Error::other(format!("{} is nested too deeply", name.display())));
        };
        let mut found = false;
        for _round in 0..REMOVE_ROUNDS {
            let inner = match self.open_dir(name) {
                Ok(inner) => inner,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
                Err(error) => return Err(error),
            };
            found = true;
            inner.remove_file(first).or_else(|error| {
                if error.kind() == ErrorKind::IsADirectory { Ok(false) } else { Err(error) }
            })?;
            for (entry, kind) in inner.entries()? {
                if kind == EntryKind::Directory {
                    inner.remove_tree(&entry, first, deeper)?;
                } else {
                    inner.remove_file(&entry)?;
                }
            }
            if self.remove_empty(name)? {
                return Ok(true);
            }
            // Gone already, or somebody put something into it since it was read.
        }
        match self.kind(name)? {
            None => Ok(found),
            Some(_) => {
                Err(Error::other(format!("{} is filled while it is removed", name.display())))
            }
        }
    }

    /// Type of an entry, links not followed; `None` when there is none.
    pub fn kind(&self, name: impl AsRef<OsStr>) -> Result<Option<EntryKind>> {
        match nix::sys::stat::fstatat(&self.0, name.as_ref(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(kind(&stat))),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// All entries by name, at most `MAX_ENTRIES`. Their kind is what the directory itself says, where
    /// it does: asking for each would double the time of a large listing.
    pub fn entries(&self) -> Result<Vec<(OsString, EntryKind)>> {
        let mut found = Vec::new();
        self.each(|name, told| {
            let kind = match told {
                Some(Type::Directory) => Some(EntryKind::Directory),
                Some(Type::File) => Some(EntryKind::File),
                Some(_) => Some(EntryKind::Other),
                None => self.kind(&name)?,
            };
            found.extend(kind.map(|kind| (name, kind)));
            Ok(())
        })?;
        Ok(found)
    }

    /// All entries with size and time; one that vanishes meanwhile is left out.
    pub fn described_entries(&self) -> Result<Vec<Entry>> {
        let mut found = Vec::new();
        self.each(|name, _told| {
            match nix::sys::stat::fstatat(&self.0, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => found.push(Entry {
                    name: name.to_string_lossy().into_owned(),
                    kind: kind(&stat),
                    size: u64::try_from(stat.st_size).unwrap_or(0),
                    modified: modified(&stat),
                }),
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Each name but `.` and `..`, with what the directory says of its kind.
    fn each(&self, mut visit: impl FnMut(OsString, Option<Type>) -> Result<()>) -> Result<()> {
        // A fresh descriptor: reading moves the position, and the clone would share it.
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fresh = nix::fcntl::openat(&self.0, ".", flags, Mode::empty())?;
        for (count, entry) in Entries::from_fd(fresh)?.iter().enumerate() {
            let entry = entry?;
            if count >= MAX_ENTRIES {
                return Err(Error::other("a directory has too many entries"));
            }
            // Bytes as they are: a name that is not text must still be found to be removed.
            let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
            if name != "." && name != ".." {
                visit(name, entry.file_type())?;
            }
        }
        Ok(())
    }

    /// Moves a directory to `to` below `root`; `false` when there is none. An empty directory is made
    /// at the new place first and replaced by the move: whatever else is there makes it fail, and
    /// nobody can come between. File systems of all kinds do that, the network's included.
    pub fn relocate(
        root: &Self,
        from: &InstallPath,
        to: &InstallPath,
        modes: Modes,
    ) -> Result<bool> {
        let (above, name) = match root.parent_of(from) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if above.kind(name)? != Some(EntryKind::Directory) {
            return Ok(false);
        }
        let taken = || Error::new(ErrorKind::AlreadyExists, format!("there is something at {to}"));
        let (target, parents) =
            to.parts().split_last().ok_or_else(|| Error::from(ErrorKind::InvalidInput))?;
        let mut beside = Self(root.0.try_clone()?);
        for part in parents {
            beside = beside.make_dir(part.as_str(), modes)?;
        }
        let target = target.as_str();
        match beside.make_dir(target, modes) {
            Ok(_made) => {}
            Err(error) if error.kind() == ErrorKind::NotADirectory => return Err(taken()),
            Err(error) => return Err(error),
        }
        match nix::fcntl::renameat(&above.0, name, &beside.0, target) {
            Ok(()) => {}
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => return Err(taken()),
            Err(errno) => {
                beside.remove_empty(target)?;
                return Err(errno.into());
            }
        }
        beside.sync()?;
        above.sync()?;
        Ok(true)
    }

    /// Capacity and use of the file system, in bytes, as root sees them.
    pub fn space(&self) -> Result<Space> {
        let stats = nix::sys::statvfs::fstatvfs(&self.0)?;
        let unit = stats.fragment_size();
        let total = stats.blocks().saturating_mul(unit);
        let free = stats.blocks_free().saturating_mul(unit);
        Ok(Space { capacity: total, used: total.saturating_sub(free) })
    }

    /// Identity of the directory, to tell whether a path still leads to it.
    pub fn identity(&self) -> Result<(u64, u64)> {
        let stat = nix::sys::stat::fstat(&self.0)?;
        Ok((stat.st_dev, stat.st_ino))
    }
}

/// Fails when less than `bytes` are free in the file system of an open file, or less than a part of
/// it that is smaller than that.
pub fn keep_free(file: &File, bytes: u64) -> Result<()> {
    let stats = nix::sys::statvfs::fstatvfs(file)?;
    let unit = stats.fragment_size();
    let free = stats.blocks_available().saturating_mul(unit);
    let kept = bytes.min(stats.blocks().saturating_mul(unit) / SMALL_STORE);
    if free >= kept {
        return Ok(());
    }
    let text = format!("the store is full: {free} bytes are free, and {kept} stay free (min_free)");
    Err(Error::new(ErrorKind::StorageFull, text))
}

/// Attempts to empty a directory that others fill meanwhile.
const REMOVE_ROUNDS: u8 = 3;
/// Far more than an account has templates; a bound against a runaway directory.
const MAX_ENTRIES: usize = 200_000;

fn modified(stat: &FileStat) -> SystemTime {
    let (seconds, nanos) = (u64::try_from(stat.st_mtime), u32::try_from(stat.st_mtime_nsec));
    let since = Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0).min(999_999_999));
    SystemTime::UNIX_EPOCH + since
}

fn kind(stat: &FileStat) -> EntryKind {
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => EntryKind::Directory,
        SFlag::S_IFREG => EntryKind::File,
        _ => EntryKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const MODES: Modes = Modes { directory: 0o777, file: 0o666 };

    fn root() -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open_root(temp.path()).unwrap();
        (temp, dir)
    }

    #[test]
    fn created_files_and_directories_are_open_to_other_hosts() {
        let (temp, root) = root();
        let dir = root.create_all(&"template/tmpl/2/204".parse().unwrap(), MODES).unwrap();
        dir.create_file("a", MODES).unwrap().write_all(b"x").unwrap();
        let mode = |path: &str| {
            std::fs::metadata(temp.path().join(path)).unwrap().permissions().mode() & 0o7777
        };
        assert_eq!(mode("template/tmpl/2/204"), 0o777);
        assert_eq!(mode("template/tmpl/2/204/a"), 0o666);
        assert!(dir.create_file("a", MODES).is_err(), "must not exist before");
    }

    #[test]
    fn links_are_never_followed() {
        let (temp, root) = root();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "s").unwrap();
        symlink(outside.path(), temp.path().join("template")).unwrap();
        symlink(outside.path().join("secret"), temp.path().join("file")).unwrap();
        assert!(root.walk(&"template".parse().unwrap()).is_err());
        assert!(root.create_all(&"template/x".parse().unwrap(), MODES).is_err());
        assert!(root.open_file("file").is_err());
        assert_eq!(root.kind("file").unwrap(), Some(EntryKind::Other));
        // Removing a tree with a link in it removes the link, not its target.
        std::fs::create_dir(temp.path().join("tree")).unwrap();
        symlink(outside.path(), temp.path().join("tree/link")).unwrap();
        root.remove_tree("tree".as_ref(), "none", 8).unwrap();
        assert!(outside.path().join("secret").exists());
    }

    #[test]
    fn a_fifo_does_not_block_the_opener() {
        let (temp, root) = root();
        nix::unistd::mkfifo(&temp.path().join("pipe"), Mode::S_IRWXU).unwrap();
        assert!(root.open_file("pipe").is_err());
    }

    #[test]
    fn trees_are_removed_with_the_listed_file_first() {
        let (temp, root) = root();
        let dir = root.create_all(&"a/b/c".parse().unwrap(), MODES).unwrap();
        dir.create_file("template.properties", MODES).unwrap();
        root.walk(&"a".parse().unwrap()).unwrap().create_file("x", MODES).unwrap();
        assert!(root.remove_tree("a".as_ref(), "template.properties", 2).is_err(), "too deep");
        assert!(root.remove_tree("a".as_ref(), "template.properties", 8).unwrap());
        assert!(!temp.path().join("a").exists());
        assert!(!root.remove_empty("a").unwrap());
        assert!(
            !root.remove_tree("a".as_ref(), "template.properties", 8).unwrap(),
            "twice is fine"
        );
    }

    #[test]
    fn names_that_are_no_text_go_with_their_tree() {
        let (temp, root) = root();
        let odd = OsStr::from_bytes(b"caf\xe9");
        std::fs::create_dir_all(temp.path().join("a").join(odd)).unwrap();
        std::fs::write(temp.path().join("a").join(odd).join(odd), "x").unwrap();
        std::fs::write(temp.path().join("a").join(OsStr::from_bytes(b"\xff")), "x").unwrap();
        assert!(root.remove_tree("a".as_ref(), "template.properties", 8).unwrap());
        assert!(!temp.path().join("a").exists());
    }

    #[test]
    fn a_tree_that_others_remove_and_fill_meanwhile_is_gone_or_an_error() {
        let (temp, root) = root();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let a = temp.path().join("a");
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    for n in 0..20 {
                        // Either may lose the race; that is what is tested.
                        drop(std::fs::create_dir_all(a.join(format!("d{n}"))));
                        drop(std::fs::remove_dir(a.join(format!("d{n}"))));
                    }
                }
            });
            for _round in 0..200 {
                if let Err(error) = root.remove_tree("a".as_ref(), "none", 8) {
                    let text = error.to_string();
                    assert!(text.ends_with("is filled while it is removed"), "{text}");
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            other.join().unwrap();
        });
        root.remove_tree("a".as_ref(), "none", 8).unwrap();
        assert!(!a.exists());
    }

    #[test]
    fn a_directory_is_moved_but_never_over_another() {
        let (temp, root) = root();
        let path = |text: &str| text.parse::<InstallPath>().unwrap();
        let relocate = |from: &str, to: &str| Dir::relocate(&root, &path(from), &path(to), MODES);
        root.create_all(&path("volumes/2/45"), MODES).unwrap().create_file("v", MODES).unwrap();
        assert!(!relocate("volumes/2/46", "volumes/7/46").unwrap(), "there is none");
        assert!(!temp.path().join("volumes/7").exists(), "nothing was made for it");
        root.create_all(&path("volumes/7/45"), MODES).unwrap();
        assert!(relocate("volumes/2/45", "volumes/7/45").unwrap(), "over an empty one");
        assert!(temp.path().join("volumes/7/45/v").exists());
        assert!(!temp.path().join("volumes/2/45").exists());
        root.create_all(&path("volumes/2/45"), MODES).unwrap();
        std::fs::write(temp.path().join("volumes/7/9"), "x").unwrap();
        for to in ["volumes/7/45", "volumes/7/9"] {
            let error = relocate("volumes/2/45", to).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{to}");
        }
        symlink(temp.path(), temp.path().join("volumes/8")).unwrap();
        assert!(relocate("volumes/2/45", "volumes/8/45").is_err(), "no link is followed");
        assert!(temp.path().join("volumes/2/45").exists());
    }

    #[test]
    fn entries_are_described_and_odd_names_are_no_fault() {
        let (temp, root) = root();
        std::fs::write(temp.path().join("f"), "four").unwrap();
        std::fs::create_dir(temp.path().join("d")).unwrap();
        std::fs::write(temp.path().join(OsStr::from_bytes(b"\xff")), "").unwrap();
        let mut found = root.described_entries().unwrap();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        let short: Vec<_> = found.iter().map(|e| (e.name.as_str(), e.kind)).collect();
        let (file, directory) = (EntryKind::File, EntryKind::Directory);
        assert_eq!(short, [("d", directory), ("f", file), ("\u{fffd}", file)]);
        assert_eq!(found[1].size, 4);
        assert!(found[1].modified > SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    }

    #[test]
    fn of_many_claims_one_is_granted_and_a_repeated_one_again() {
        let (temp, root) = root();
        let granted: Vec<usize> = std::thread::scope(|scope| {
            let claims: Vec<_> = (0..16)
                .map(|n: usize| {
                    let root = &root;
                    let claim = move || {
                        let content = format!("{n}");
                        root.claim("lease", &format!("aside-{n}"), content.as_bytes(), MODES)
                    };
                    scope.spawn(move || claim().unwrap().then_some(n))
                })
                .collect();
            claims.into_iter().filter_map(|claim| claim.join().unwrap()).collect()
        });
        assert_eq!(granted.len(), 1, "{granted:?}");
        let content = std::fs::read_to_string(temp.path().join("lease")).unwrap();
        assert_eq!(content, granted[0].to_string(), "whole from the first moment on");
        assert!(root.claim("lease", "again", content.as_bytes(), MODES).unwrap(), "answer lost");
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1, "nothing lies beside it");
    }

    #[test]
    fn entries_can_be_read_twice() {
        let (_temp, root) = root();
        root.create_file("f", MODES).unwrap();
        root.create_all(&"d".parse().unwrap(), MODES).unwrap();
        for _round in 0..2 {
            let mut entries = root.entries().unwrap();
            entries.sort();
            let expected = [("d".into(), EntryKind::Directory), ("f".into(), EntryKind::File)];
            assert_eq!(entries, expected.into_iter().collect::<Vec<_>>());
        }
        let mut text = String::new();
        root.open_file("f").unwrap().read_to_string(&mut text).unwrap();
        assert!(root.space().unwrap().capacity > 0);
    }
}
