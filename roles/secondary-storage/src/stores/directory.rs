//! A store that is a directory: mounted here, or by somebody else.
//!
//! Every operation opens the root anew, makes sure that it still is the store, and walks name by
//! name from there (see [`dir`]). The work runs on the store's own threads with a deadline (see
//! [`pool`]); each file being written has a thread of its own, so that one that hangs holds up
//! nothing else.

pub mod dir;
mod files;
mod listing;
pub mod mount;
pub mod mountinfo;
pub mod open;
pub mod pool;
pub mod sparse;

use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

pub use dir::{Dir, Modes};

use super::engine::{
    Engine, EngineError, Entry, EntryKind, Listed, Opened, Operation, Part, SMALL, Space,
};
use super::marker;
use super::path::{FileName, InstallPath};
use super::work::{Owned, Work};
use files::{DirectoryFile, DirectoryPart};
use pool::{Lane, Pool, Queue};

/// Longest pause between two questions to a store while a file is synced.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How deep an object's directory may be nested: archives unpack into sub-directories.
const REMOVE_DEPTH: u8 = 8;

/// The engine. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct Directory {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    modes: Modes,
    deadline: Duration,
    pool: Arc<Pool>,
    min_free: u64,
    pinned: Mutex<Option<Pinned>>,
}

/// What the root must be.
#[derive(Debug, Clone)]
struct Pinned {
    marker: Option<String>,
    /// All there is to tell an unmarked store by.
    identity: (u64, u64),
}

type Outcome<T> = Result<T, EngineError>;

impl Directory {
    pub fn new(root: PathBuf, modes: Modes, deadline: Duration, pool: Arc<Pool>) -> Self {
        let pinned = Mutex::default();
        let min_free = 0;
        Self { shared: Arc::new(Shared { root, modes, deadline, pool, min_free, pinned }) }
    }

    /// Nothing is written into the last `bytes` of the store, of a small one into its last part.
    #[must_use]
    pub fn keeping_free(mut self, bytes: u64) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.min_free = bytes;
        }
        self
    }

    /// Runs `work` on the verified root.
    fn run<T: Send + 'static>(
        &self,
        work: &Work,
        piece: impl FnOnce(&Dir, Modes) -> Outcome<T> + Send + 'static,
    ) -> Operation<T> {
        let (this, owner) = (self.clone(), work.owned());
        Box::pin(async move {
            let Shared { pool, deadline, modes, .. } = &*this.shared;
            let (shared, modes) = (Arc::clone(&this.shared), *modes);
            let piece = move || shared.open_root().and_then(|root| piece(&root, modes));
            pool.lane(Lane::Quick).run(owner, *deadline, piece).await?
        })
    }
}

impl Shared {
    /// Opens the root and makes sure it is the store.
    fn open_root(&self) -> Outcome<Dir> {
        let pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lost = || EngineError::Lost(self.root.display().to_string());
        let root = match Dir::open_root(&self.root) {
            Ok(root) => root,
            // Of a store that was there: its mount or its directory went away.
            Err(error) if error.kind() == ErrorKind::NotFound && pinned.is_some() => {
                return Err(lost());
            }
            Err(error) => return Err(error.into()),
        };
        let is_store = match &pinned {
            None => true,
            Some(Pinned { marker: None, identity }) => root.identity()? == *identity,
            Some(Pinned { marker, .. }) => {
                let found = get(&root, &[], marker::MARKER_FILE)?;
                found.as_deref().and_then(marker::text) == *marker
            }
        };
        if is_store { Ok(root) } else { Err(lost()) }
    }
}

impl Shared {
    /// Ends when the store does not answer any more.
    async fn died(self: Arc<Self>, owner: Owned) -> EngineError {
        loop {
            tokio::time::sleep(LOOK_EVERY.min(self.deadline / 8)).await;
            let shared = Arc::clone(&self);
            let look = move || shared.open_root().and_then(|root| Ok(root.space()?)).map(drop);
            let looked = self.pool.lane(Lane::Quick).run(owner.clone(), self.deadline, look).await;
            if let Err(died @ EngineError::Stalled(_)) = looked {
                return died;
            }
        }
    }
}

impl Engine for Directory {
    fn place(&self) -> String {
        self.shared.root.display().to_string()
    }

    fn min_free(&self) -> u64 {
        self.shared.min_free
    }

    fn pin(&self, work: &Work, marker: Option<String>) -> Operation<()> {
        let shared = Arc::clone(&self.shared);
        self.run(work, move |root, _| {
            let pinned = Pinned { marker, identity: root.identity()? };
            *shared.pinned.lock().unwrap_or_else(PoisonError::into_inner) = Some(pinned);
            Ok(())
        })
    }

    fn probe(&self, work: &Work) -> Operation<Space> {
        self.run(work, |root, _| Ok(root.space()?))
    }

    fn get(&self, work: &Work, path: InstallPath) -> Operation<Option<Bytes>> {
        self.run(work, move |root, _| match path.parts() {
            [parents @ .., name] => get(root, parents, name.as_str()),
            [] => Ok(None),
        })
    }

    fn put(
        &self,
        work: &Work,
        path: InstallPath,
        aside: FileName,
        content: Bytes,
    ) -> Operation<()> {
        self.run(work, move |root, modes| {
            let (dir, name) = root.parent_of(&path)?;
            dir.remove_file(aside.as_str())?;
            let mut file = dir.create_file(aside.as_str(), modes)?;
            let written = file
                .write_all(&content)
                .and_then(|()| file.sync_all())
                .and_then(|()| dir.rename(aside.as_str(), name))
                .and_then(|()| dir.sync());
            if written.is_err()
                && let Err(error) = dir.remove_file(aside.as_str())
            {
                tracing::warn!(file = %aside, %error, "cannot remove an unfinished file");
            }
            Ok(written?)
        })
    }

    fn can_claim(&self) -> bool {
        true
    }

    fn claim(
        &self,
        work: &Work,
        path: InstallPath,
        aside: FileName,
        content: Bytes,
    ) -> Operation<bool> {
        self.run(work, move |root, modes| {
            let split = path.split().ok_or(std::io::Error::from(ErrorKind::InvalidInput));
            let (directory, name) = split?;
            let dir = root.create_all(&directory, modes)?;
            Ok(dir.claim(name.as_str(), aside.as_str(), &content, modes)?)
        })
    }

    fn ensure(&self, work: &Work, directory: InstallPath) -> Operation<()> {
        self.run(work, move |root, modes| Ok(root.create_all(&directory, modes).map(drop)?))
    }

    fn kind(&self, work: &Work, path: InstallPath) -> Operation<Option<EntryKind>> {
        self.run(work, move |root, _| {
            let Some((dir, name)) = absent(root.parent_of(&path))? else { return Ok(None) };
            Ok(dir.kind(name)?)
        })
    }

    fn entries(
        &self,
        work: &Work,
        directory: Option<InstallPath>,
    ) -> Operation<Option<Vec<Entry>>> {
        self.run(work, move |root, _| {
            let parts = directory.as_ref().map_or(&[][..], InstallPath::parts);
            let Some(dir) = absent(root.walk_parts(parts))? else { return Ok(None) };
            Ok(Some(dir.described_entries()?))
        })
    }

    fn relocate(&self, work: &Work, from: InstallPath, to: InstallPath) -> Operation<bool> {
        self.run(work, move |root, modes| Ok(Dir::relocate(root, &from, &to, modes)?))
    }

    fn list(&self, work: &Work, tree: InstallPath, index: FileName) -> Operation<Vec<Listed>> {
        self.run(work, move |root, _| match absent(root.walk(&tree))? {
            Some(start) => listing::list(&start, &tree, &index),
            None => Ok(Vec::new()),
        })
    }

    fn open(&self, work: &Work, path: InstallPath) -> Operation<Option<Box<dyn Opened>>> {
        let (shared, owner) = (Arc::clone(&self.shared), work.owned());
        self.run(work, move |root, _| {
            let Some((dir, name)) = absent(root.parent_of(&path))? else { return Ok(None) };
            let Some(file) = absent(dir.open_file(name))? else { return Ok(None) };
            let file = DirectoryFile::new(file, owner, shared)?;
            Ok(Some(Box::new(file) as Box<dyn Opened>))
        })
    }

    fn create(
        &self,
        work: &Work,
        directory: InstallPath,
        name: FileName,
    ) -> Operation<Box<dyn Part>> {
        let (shared, owner) = (Arc::clone(&self.shared), work.owned());
        self.run(work, move |root, modes| {
            let create = || {
                let dir = root.create_all(&directory, modes)?;
                dir.remove_file(name.as_str())?;
                dir.create_file(name.as_str(), modes)
            };
            // A job that ended in the same directory may remove it, empty, between two steps.
            let file = create().or_else(|_gone| create())?;
            dir::keep_free(&file, shared.min_free)?;
            let thread = Queue::start("ss-write", 1)?;
            Ok(Box::new(DirectoryPart::new(file, thread, owner, shared)) as _)
        })
    }

    fn append(
        &self,
        work: &Work,
        directory: InstallPath,
        name: FileName,
        length: u64,
    ) -> Operation<Option<Box<dyn Part>>> {
        let (shared, owner) = (Arc::clone(&self.shared), work.owned());
        self.run(work, move |root, _| {
            let Some(dir) = absent(root.walk(&directory))? else { return Ok(None) };
            let Some(file) = absent(dir.open_to_write(name.as_str()))? else { return Ok(None) };
            if file.metadata()?.len() < length {
                return Ok(None);
            }
            file.set_len(length)?;
            let thread = Queue::start("ss-write", 1)?;
            Ok(Some(Box::new(DirectoryPart::new(file, thread, owner, shared)) as _))
        })
    }

    fn rename(
        &self,
        work: &Work,
        directory: InstallPath,
        from: FileName,
        to: FileName,
    ) -> Operation<()> {
        self.run(work, move |root, _| {
            let dir = root.walk(&directory)?;
            dir.rename(from.as_str(), to.as_str())?;
            Ok(dir.sync()?)
        })
    }

    fn keep(
        &self,
        work: &Work,
        directory: InstallPath,
        name: FileName,
        second: FileName,
    ) -> Operation<bool> {
        self.run(work, move |root, _| match absent(root.walk(&directory))? {
            Some(dir) => Ok(dir.keep(name.as_str(), second.as_str())?),
            None => Ok(false),
        })
    }

    fn remove_file(&self, work: &Work, path: InstallPath) -> Operation<bool> {
        self.run(work, move |root, _| {
            let Some((dir, name)) = absent(root.parent_of(&path))? else { return Ok(false) };
            Ok(dir.remove_file(name)?)
        })
    }

    fn remove_tree(&self, work: &Work, directory: InstallPath, first: FileName) -> Operation<bool> {
        self.run(work, move |root, _| {
            let Some((above, name)) = absent(root.parent_of(&directory))? else { return Ok(false) };
            let removed = above.remove_tree(name.as_ref(), first.as_str(), REMOVE_DEPTH)?;
            above.sync()?;
            Ok(removed)
        })
    }

    fn remove_empty(&self, work: &Work, directory: InstallPath) -> Operation<()> {
        self.run(work, move |root, _| {
            if let Some((above, name)) = absent(root.parent_of(&directory))? {
                above.remove_empty(name)?;
            }
            Ok(())
        })
    }
}

/// What is not there, or was deleted by another party between two steps; any other failure is one.
fn absent<T>(outcome: std::io::Result<T>) -> Outcome<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn get(root: &Dir, parents: &[FileName], name: &str) -> Outcome<Option<Bytes>> {
    let Some(dir) = absent(root.walk_parts(parents))? else { return Ok(None) };
    read_small(&dir, name)
}

fn read_small(dir: &Dir, name: &str) -> Outcome<Option<Bytes>> {
    let Some(file) = absent(dir.open_file(name))? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(SMALL).read_to_end(&mut bytes)?;
    Ok(Some(bytes.into()))
}

/// Whether a directory looks like a store that somebody mounted or filled; absent is only what the
/// kernel calls absent. Blocks.
pub fn looks_like_store(root: &Path) -> std::io::Result<bool> {
    for name in [marker::MARKER_FILE, "template", "volumes"] {
        if root.join(name).try_exists()? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests;
