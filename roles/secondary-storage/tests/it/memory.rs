//! Stores without a directory: the second engine behind the store's trait.
//!
//! It has no directories and no threads, like an object store: files have paths, a directory is
//! there while something is below it. Operations fail and hang when a test says so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use role::BoxFuture;
use secondary_storage::stores::engine::{Connected, Engines};
use secondary_storage::stores::work::Owned;
use secondary_storage::stores::{
    Engine, EngineError, Entry, EntryKind, FileName, InstallPath, Listed, Opened, Operation, Part,
    Space, StoreError, StoreUrl, Work,
};
use tokio::sync::Semaphore;

use crate::bench::STORE;

/// A store in memory. Cloneable; clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    files: Mutex<BTreeMap<InstallPath, Vec<u8>>>,
    parts: AtomicUsize,
    /// Operations that fail, by name, and how often still.
    failing: Mutex<HashMap<&'static str, usize>>,
    /// Operations that hang once they have begun, by name.
    hanging: Mutex<BTreeSet<&'static str>>,
    /// Lets one hanging operation go on.
    gate: Semaphore,
    /// Operations that wait at the gate now.
    stuck: AtomicUsize,
    /// How long callers wait for an operation, which goes on without them.
    deadline: Mutex<Option<Duration>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            files: Mutex::default(),
            parts: AtomicUsize::new(0),
            failing: Mutex::default(),
            hanging: Mutex::default(),
            gate: Semaphore::new(0),
            stuck: AtomicUsize::new(0),
            deadline: Mutex::default(),
        }
    }
}

impl Memory {
    pub fn files(&self) -> Vec<String> {
        self.map().keys().map(ToString::to_string).collect()
    }

    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.map().get(&path.parse().unwrap()).cloned()
    }

    /// A file of somebody else.
    pub fn write(&self, path: &str, content: &[u8]) {
        self.map().insert(path.parse().unwrap(), content.to_vec());
    }

    /// Files being written that nobody has finished or dropped.
    pub fn parts(&self) -> usize {
        self.0.parts.load(Ordering::SeqCst)
    }

    /// Lets `operation` fail so many times.
    pub fn fail(&self, operation: &'static str, times: usize) {
        self.0.failing.lock().unwrap().insert(operation, times);
    }

    /// Lets `operation` hang from now on until [`Memory::release`].
    pub fn hang(&self, operation: &'static str) {
        self.0.hanging.lock().unwrap().insert(operation);
    }

    /// Hangs nothing any more; whoever hangs goes on.
    pub fn release(&self) {
        self.0.hanging.lock().unwrap().clear();
        self.0.gate.add_permits(1_000);
    }

    /// Callers wait no longer for an operation than this.
    pub fn deadline(&self, limit: Duration) {
        *self.0.deadline.lock().unwrap() = Some(limit);
    }

    /// What hangs goes on hanging, nothing else does.
    pub fn hang_no_more(&self) {
        self.0.hanging.lock().unwrap().clear();
    }

    /// As when the process ends: whoever hangs never goes on, and nothing hangs from now on.
    pub fn die(&self) {
        self.0.hanging.lock().unwrap().clear();
        self.0.stuck.store(0, Ordering::SeqCst);
    }

    pub fn stuck(&self) -> usize {
        self.0.stuck.load(Ordering::SeqCst)
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<InstallPath, Vec<u8>>> {
        self.0.files.lock().unwrap()
    }

    fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        owner: Owned,
        effect: impl FnOnce(&Self) -> Result<T, EngineError> + Send + 'static,
    ) -> Operation<T> {
        let this = self.clone();
        // As a request under way: it takes effect although nobody waits for it any more.
        let under_way = async move {
            let Some(_running) = owner.begin() else { return Err(EngineError::GivenUp) };
            let hangs = this.0.hanging.lock().unwrap().contains(name);
            if hangs {
                this.0.stuck.fetch_add(1, Ordering::SeqCst);
                this.0.gate.acquire().await.unwrap().forget();
                this.0.stuck.fetch_sub(1, Ordering::SeqCst);
            }
            if let Some(left) = this.0.failing.lock().unwrap().get_mut(name)
                && *left > 0
            {
                *left -= 1;
                return Err(std::io::Error::other(format!("{name} fails")).into());
            }
            effect(&this)
        };
        let deadline = *self.0.deadline.lock().unwrap();
        Box::pin(async move {
            let running = tokio::spawn(under_way);
            match deadline {
                Some(limit) => match tokio::time::timeout(limit, running).await {
                    Ok(outcome) => outcome.unwrap(),
                    Err(_elapsed) => Err(EngineError::Stalled(limit)),
                },
                None => running.await.unwrap(),
            }
        })
    }
}

fn is_below(path: &InstallPath, directory: &InstallPath) -> bool {
    path.parts().len() > directory.parts().len() && path.parts().starts_with(directory.parts())
}

impl Engine for Memory {
    fn place(&self) -> String {
        "/memory".to_owned()
    }

    fn pin(&self, work: &Work, _marker: Option<String>) -> Operation<()> {
        self.run("pin", work.owned(), |_| Ok(()))
    }

    fn probe(&self, work: &Work) -> Operation<Space> {
        self.run("probe", work.owned(), |this| {
            let used = this.map().values().map(|file| file.len() as u64).sum();
            Ok(Space { capacity: 1 << 40, used })
        })
    }

    fn get(&self, work: &Work, path: InstallPath) -> Operation<Option<Bytes>> {
        self.run("get", work.owned(), move |this| {
            Ok(this.map().get(&path).cloned().map(Bytes::from))
        })
    }

    fn put(&self, work: &Work, path: InstallPath, _: FileName, content: Bytes) -> Operation<()> {
        self.run("put", work.owned(), move |this| {
            this.map().insert(path, content.to_vec());
            Ok(())
        })
    }

    fn ensure(&self, work: &Work, _directory: InstallPath) -> Operation<()> {
        self.run("ensure", work.owned(), |_| Ok(()))
    }

    fn kind(&self, work: &Work, path: InstallPath) -> Operation<Option<EntryKind>> {
        self.run("kind", work.owned(), move |this| {
            let files = this.map();
            Ok(if files.contains_key(&path) {
                Some(EntryKind::File)
            } else {
                files.keys().any(|other| is_below(other, &path)).then_some(EntryKind::Directory)
            })
        })
    }

    fn entries(
        &self,
        work: &Work,
        directory: Option<InstallPath>,
    ) -> Operation<Option<Vec<Entry>>> {
        self.run("entries", work.owned(), move |this| {
            let depth = directory.as_ref().map_or(0, |path| path.parts().len());
            let files = this.map();
            let below = files.iter().filter(|(path, _)| {
                directory.as_ref().is_none_or(|directory| is_below(path, directory))
            });
            let mut found: BTreeMap<String, Entry> = BTreeMap::new();
            for (path, content) in below {
                let name = path.parts()[depth].to_string();
                let is_file = path.parts().len() == depth + 1;
                let kind = if is_file { EntryKind::File } else { EntryKind::Directory };
                let (size, modified) = (content.len() as u64, SystemTime::UNIX_EPOCH);
                found.insert(name.clone(), Entry { name, kind, size, modified });
            }
            Ok((directory.is_none() || !found.is_empty()).then(|| found.into_values().collect()))
        })
    }

    fn relocate(&self, work: &Work, from: InstallPath, to: InstallPath) -> Operation<bool> {
        self.run("relocate", work.owned(), move |this| {
            let mut files = this.map();
            if files.keys().any(|path| is_below(path, &to)) {
                return Err(std::io::Error::from(std::io::ErrorKind::AlreadyExists).into());
            }
            let moved: Vec<_> =
                files.keys().filter(|path| is_below(path, &from)).cloned().collect();
            for path in &moved {
                let content = files.remove(path).unwrap();
                let rest = path.parts()[from.parts().len()..].iter().cloned();
                files.insert(rest.fold(to.clone(), |path, name| path.join(name)), content);
            }
            Ok(!moved.is_empty())
        })
    }

    fn list(&self, work: &Work, tree: InstallPath, index: FileName) -> Operation<Vec<Listed>> {
        self.run("list", work.owned(), move |this| {
            let files = this.map();
            let objects = files
                .iter()
                .filter(|(path, _)| is_below(path, &tree) && path.parts().last() == Some(&index));
            Ok(objects
                .map(|(path, content)| {
                    let directory = path.prefix(path.parts().len() - 1).unwrap();
                    let beside = files.keys().filter(|other| {
                        is_below(other, &directory)
                            && other.parts().len() == directory.parts().len() + 1
                    });
                    let names = beside.map(|path| path.parts().last().unwrap().to_string());
                    Listed {
                        names: names.collect(),
                        index: Bytes::copy_from_slice(content),
                        directory,
                    }
                })
                .collect())
        })
    }

    fn open(&self, work: &Work, path: InstallPath) -> Operation<Option<Box<dyn Opened>>> {
        self.run("open", work.owned(), move |this| {
            let content = this.map().get(&path).cloned();
            Ok(content.map(|content| Box::new(File(content.into())) as Box<dyn Opened>))
        })
    }

    fn create(
        &self,
        work: &Work,
        directory: InstallPath,
        name: FileName,
    ) -> Operation<Box<dyn Part>> {
        let owner = work.owned();
        self.run("create", work.owned(), move |this| {
            let path = directory.join(name);
            this.map().insert(path.clone(), Vec::new());
            this.0.parts.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(Upload { memory: this.clone(), path, owner }) as Box<dyn Part>)
        })
    }

    fn append(
        &self,
        work: &Work,
        directory: InstallPath,
        name: FileName,
        length: u64,
    ) -> Operation<Option<Box<dyn Part>>> {
        let owner = work.owned();
        self.run("append", work.owned(), move |this| {
            let path = directory.join(name);
            let mut files = this.map();
            let length = usize::try_from(length).unwrap();
            let Some(file) = files.get_mut(&path).filter(|file| file.len() >= length) else {
                return Ok(None);
            };
            file.truncate(length);
            drop(files);
            this.0.parts.fetch_add(1, Ordering::SeqCst);
            Ok(Some(Box::new(Upload { memory: this.clone(), path, owner }) as Box<dyn Part>))
        })
    }

    fn rename(
        &self,
        work: &Work,
        directory: InstallPath,
        from: FileName,
        to: FileName,
    ) -> Operation<()> {
        self.run("rename", work.owned(), move |this| {
            let content = this.map().remove(&directory.join(from));
            let content = content.ok_or_else(|| std::io::Error::other("nothing to rename"))?;
            this.map().insert(directory.join(to), content);
            Ok(())
        })
    }

    fn remove_file(&self, work: &Work, path: InstallPath) -> Operation<bool> {
        self.run("remove_file", work.owned(), move |this| Ok(this.map().remove(&path).is_some()))
    }

    fn remove_tree(
        &self,
        work: &Work,
        directory: InstallPath,
        _first: FileName,
    ) -> Operation<bool> {
        self.run("remove_tree", work.owned(), move |this| {
            let mut files = this.map();
            let before = files.len();
            files.retain(|path, _| !is_below(path, &directory));
            Ok(files.len() < before)
        })
    }

    fn remove_empty(&self, work: &Work, _directory: InstallPath) -> Operation<()> {
        self.run("remove_empty", work.owned(), |_| Ok(()))
    }
}

#[derive(Debug)]
struct Upload {
    memory: Memory,
    path: InstallPath,
    owner: Owned,
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.memory.0.parts.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Part for Upload {
    fn write(&mut self, offset: u64, bytes: Bytes) -> Operation<()> {
        let path = self.path.clone();
        self.memory.run("write", self.owner.clone(), move |this| {
            let mut files = this.map();
            let file = files.get_mut(&path).ok_or_else(|| std::io::Error::other("it is gone"))?;
            assert_eq!(file.len() as u64, offset, "offsets follow each other");
            file.extend_from_slice(&bytes);
            Ok(())
        })
    }

    fn sync(&mut self) -> Operation<()> {
        self.memory.run("sync", self.owner.clone(), |_| Ok(()))
    }

    fn finish(self: Box<Self>) -> Operation<Box<dyn Opened>> {
        Box::pin(async move {
            let path = self.path.clone();
            let finishing = self.memory.run("finish", self.owner.clone(), move |this| {
                let content = this.map().get(&path).cloned().unwrap_or_default();
                Ok(Box::new(File(content.into())) as Box<dyn Opened>)
            });
            finishing.await
        })
    }
}

#[derive(Debug)]
struct File(Bytes);

impl Opened for File {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn modified(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn read(&self, range: Range<u64>) -> Operation<Bytes> {
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        let bytes = self.0.slice(range);
        Box::pin(async move { Ok(bytes) })
    }
}

/// Makes every store the same one.
#[derive(Debug, Clone, Default)]
pub struct MemoryStores(pub Memory);

impl Engines for MemoryStores {
    fn configured(&self) -> Vec<StoreUrl> {
        vec![STORE.parse().unwrap()]
    }

    fn connect(
        &self,
        _url: StoreUrl,
        name: Option<String>,
        _version: Option<String>,
    ) -> BoxFuture<'static, Result<Connected, StoreError>> {
        let engine = Arc::new(self.0.clone());
        let name = name.unwrap_or_else(|| "memory".to_owned());
        Box::pin(async move { Ok(Connected { name, engine, notes: Vec::new() }) })
    }

    fn connect_limit(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn retain(&self, _in_use: &dyn Fn(&str) -> bool) {}
}
