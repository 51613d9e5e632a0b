//! What the role needs of a store, whatever it is made of.
//!
//! Everything above (ingest, objects, links) speaks to these traits; a directory, a client of an
//! NFS server in user space, S3 and Swift can stand behind them. The operations are those that all
//! of them have: no descriptor, no thread and no lock shows. Paths are checked values, and every
//! operation belongs to an owner (see [`super::work`]).

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use role::BoxFuture;

use super::StoreError;
use super::config::StoreSettings;
use super::path::{FileName, InstallPath};
use super::url::StoreUrl;
use super::work::{Owned, Work};

/// An operation under way. It does nothing before it is polled first.
pub type Operation<T> = BoxFuture<'static, Result<T, EngineError>>;

/// Why an operation failed. Something that is not there is no failure: operations say so in their
/// result.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The place is not the store any more.
    #[error("{0} does not hold the store any more: is it mounted?")]
    Lost(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("the store does not answer (nothing within {0:?})")]
    Stalled(Duration),
    #[error("the store is busy: too much work is waiting")]
    Busy,
    /// The owner has ended; the operation never began.
    #[error("the work was given up before it began")]
    GivenUp,
    /// A fault of this program; the log has it.
    #[error("the work on the store failed unexpectedly, see the log of the storage host")]
    Panicked,
}

/// Bytes of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    pub capacity: u64,
    pub used: u64,
}

/// What a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    Directory,
    File,
    /// A link, a device, a socket: left alone.
    Other,
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub directory: InstallPath,
    /// Content of the file that makes the directory an object.
    pub index: Bytes,
    /// Names of everything beside it that can be a name here.
    pub names: Vec<String>,
}

/// One name in a directory, with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What cannot be read as text is replaced.
    pub name: String,
    pub kind: EntryKind,
    /// Bytes of a file; of anything else what the store says.
    pub size: u64,
    pub modified: SystemTime,
}

/// Longest file that is read or written as a whole.
pub const SMALL: u64 = 64 * 1024;

/// An opened store. Cheap to share; operations run side by side.
pub trait Engine: fmt::Debug + Send + Sync {
    /// Where it is, for people: a directory, a bucket.
    fn place(&self) -> String;

    /// Bytes that nothing is written into, unless the store is small.
    fn min_free(&self) -> u64 {
        0
    }

    /// From now on every operation first makes sure that the place still is the store it is now
    /// and has this marker, or fails with [`EngineError::Lost`]. For stores that cannot be swapped
    /// under their name this is nothing.
    fn pin(&self, work: &Work, marker: Option<String>) -> Operation<()>;

    /// Whether the store is there, with its figures.
    fn probe(&self, work: &Work) -> Operation<Space>;

    /// A small file as a whole; `None` when there is none. More than [`SMALL`] bytes are cut off.
    fn get(&self, work: &Work, path: InstallPath) -> Operation<Option<Bytes>>;

    /// Replaces a small file: readers see the old or the new one, and a crash leaves one of them.
    /// Until then it may lie beside under the name `aside`.
    fn put(&self, work: &Work, path: InstallPath, aside: FileName, content: Bytes)
    -> Operation<()>;

    /// Whether files are written under their own names, and are there when they are whole: nothing is
    /// renamed and nothing describes them. True of buckets.
    fn is_flat(&self) -> bool {
        false
    }

    /// Whether [`Engine::claim`] works here.
    fn can_claim(&self) -> bool {
        false
    }

    /// Makes a small file whole, unless there is one of that name: of several callers, on any host,
    /// one gets `true`. Until then it may lie beside under the name `aside`, which must be the
    /// caller's own. A store that cannot do it fails with [`std::io::ErrorKind::Unsupported`].
    fn claim(
        &self,
        _work: &Work,
        _path: InstallPath,
        _aside: FileName,
        _content: Bytes,
    ) -> Operation<bool> {
        Box::pin(async { Err(std::io::Error::from(std::io::ErrorKind::Unsupported).into()) })
    }

    /// Makes sure that a directory is there, where there are directories.
    fn ensure(&self, work: &Work, directory: InstallPath) -> Operation<()>;

    /// What a path leads to; `None` when there is nothing.
    fn kind(&self, work: &Work, path: InstallPath) -> Operation<Option<EntryKind>>;

    /// Everything in a directory (without one: in the root), in no order; `None` when there is no
    /// such directory.
    fn entries(
        &self,
        _work: &Work,
        _directory: Option<InstallPath>,
    ) -> Operation<Option<Vec<Entry>>> {
        Box::pin(async { Err(std::io::Error::from(std::io::ErrorKind::Unsupported).into()) })
    }

    /// Gives a directory with everything in it another place, whose parents are made if need be;
    /// durable. `false` when there is no such directory. What is at the new place already, an empty
    /// directory excepted, is never touched: [`std::io::ErrorKind::AlreadyExists`].
    fn relocate(&self, _work: &Work, _from: InstallPath, _to: InstallPath) -> Operation<bool> {
        Box::pin(async { Err(std::io::Error::from(std::io::ErrorKind::Unsupported).into()) })
    }

    /// Every directory at or below `tree` with a file called `index` in it. All or nothing: what
    /// cannot be read fails the whole listing.
    fn list(&self, work: &Work, tree: InstallPath, index: FileName) -> Operation<Vec<Listed>>;

    /// A regular file for reading in ranges; `None` when there is none.
    fn open(&self, work: &Work, path: InstallPath) -> Operation<Option<Box<dyn Opened>>>;

    /// A new file to be written, in place of an unfinished one of that name.
    fn create(
        &self,
        work: &Work,
        directory: InstallPath,
        name: FileName,
    ) -> Operation<Box<dyn Part>>;

    /// An unfinished file to be continued: its first `length` bytes stay, what follows is cut off.
    /// `None` when there is no file with so many, or when files cannot be continued here.
    fn append(
        &self,
        _work: &Work,
        _directory: InstallPath,
        _name: FileName,
        _length: u64,
    ) -> Operation<Option<Box<dyn Part>>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Gives a file another name in its directory; durable.
    fn rename(
        &self,
        work: &Work,
        directory: InstallPath,
        from: FileName,
        to: FileName,
    ) -> Operation<()>;

    /// Gives a file a second name in its directory, in place of another of that name: what was opened
    /// under the first stays there when that is replaced. `false` when there is no such file. A store
    /// that cannot do it fails with [`std::io::ErrorKind::Unsupported`].
    fn keep(
        &self,
        _work: &Work,
        _directory: InstallPath,
        _name: FileName,
        _second: FileName,
    ) -> Operation<bool> {
        Box::pin(async { Err(std::io::Error::from(std::io::ErrorKind::Unsupported).into()) })
    }

    /// Removes a file; `false` when there was none.
    fn remove_file(&self, work: &Work, path: InstallPath) -> Operation<bool>;

    /// Removes a directory with everything in it, the file `first` before all others. Success
    /// means that nothing of it is left; `false` that there was none.
    fn remove_tree(&self, work: &Work, directory: InstallPath, first: FileName) -> Operation<bool>;

    /// Removes a directory if nothing is in it.
    fn remove_empty(&self, work: &Work, directory: InstallPath) -> Operation<()>;
}

/// Makes engines from stores' URLs.
pub trait Engines: fmt::Debug + Send + Sync {
    /// The stores that the configuration names.
    fn configured(&self) -> Vec<StoreUrl>;

    /// Takes over other settings; says which stores mean another place, or another way to it, now.
    fn reconfigure(&self, _settings: StoreSettings) -> Box<dyn Fn(&StoreUrl) -> bool + Send> {
        Box::new(|_url| false)
    }

    /// Makes the store reachable. `name` is its directory in the management server's records,
    /// when that is known from before.
    fn connect(
        &self,
        url: StoreUrl,
        name: Option<String>,
        version: Option<String>,
    ) -> BoxFuture<'static, Result<Connected, StoreError>>;

    /// How long making a store reachable may take.
    fn connect_limit(&self) -> Duration;

    /// Drops what is kept for stores that are not asked for any more.
    fn retain(&self, in_use: &dyn Fn(&str) -> bool);
}

/// A store that can be reached, not verified yet.
#[derive(Debug)]
pub struct Connected {
    pub name: String,
    pub engine: Arc<dyn Engine>,
    /// What an operator should know about how it is reached.
    pub notes: Vec<String>,
}

/// A file being written. Dropping it leaves whatever was written.
pub trait Part: fmt::Debug + Send {
    /// Writes at `offset`; offsets follow each other without a gap.
    fn write(&mut self, offset: u64, bytes: Bytes) -> Operation<()>;

    /// Makes the file so long; what was not written in between reads as zeros, and takes no room where
    /// files can have holes. The next offset is `length`. Where that cannot be done it fails with
    /// [`std::io::ErrorKind::Unsupported`].
    fn extend(&mut self, _length: u64) -> Operation<()> {
        Box::pin(async { Err(std::io::Error::from(std::io::ErrorKind::Unsupported).into()) })
    }

    /// Copies a range of a file of this machine to the same offsets without its bytes passing through
    /// this process; they may even be shared. Tells how many bytes from the range's start on are there
    /// now: none where that cannot be done.
    fn copy_from(&mut self, _source: &LocalFile, _range: Range<u64>) -> Operation<u64> {
        Box::pin(std::future::ready(Ok(0)))
    }

    /// Pushes what was written so far towards the disk, as far as that means anything here, and
    /// waits for what was pushed the time before.
    fn sync(&mut self) -> Operation<()>;

    /// Makes the whole file durable and closes it for writing.
    fn finish(self: Box<Self>) -> Operation<Box<dyn Opened>>;
}

/// A file open for reading.
pub trait Opened: fmt::Debug + Send + Sync {
    fn length(&self) -> u64;

    fn modified(&self) -> SystemTime;

    /// Exactly the bytes of `range`, which lies in the file.
    fn read(&self, range: Range<u64>) -> Operation<Bytes>;

    /// How much is best read at once.
    fn stride(&self) -> u64 {
        1 << 20
    }

    /// The first stretch at or after `from` that is more than a hole; `None` when zeros are all that
    /// follows.
    fn data(&self, from: u64) -> Operation<Option<Range<u64>>> {
        let length = self.length();
        Box::pin(std::future::ready(Ok((from < length).then_some(from..length))))
    }

    /// The file itself, where it has a descriptor on this machine.
    fn local(&self) -> Option<LocalFile> {
        None
    }
}

/// A file with a descriptor, and the threads on which it may be used: it may lie on a server that
/// does not answer.
#[derive(Clone)]
pub struct LocalFile {
    pub file: Arc<std::fs::File>,
    pub(super) threads: Arc<dyn Threads>,
}

/// Work that is given to threads.
pub type Piece = Box<dyn FnOnce() + Send>;

/// Threads of a store.
pub trait Threads: fmt::Debug + Send + Sync {
    /// Waits for its turn, then runs the work for its owner.
    fn run(&self, owner: Owned, work: Piece) -> Operation<()>;
}

impl LocalFile {
    /// Runs work with the file. It waits for its turn as long as need be, then no longer than the
    /// store's deadline.
    pub fn run(&self, owner: Owned, work: Piece) -> Operation<()> {
        self.threads.run(owner, work)
    }
}

impl fmt::Debug for LocalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalFile").field("file", &self.file).finish_non_exhaustive()
    }
}
