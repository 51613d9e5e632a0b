//! The operations of a store on an NFS server.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use nfs3::Handle;
use role::BoxFuture;

use super::Target;
use super::client::{Client, Session};
use super::error::NfsError;
use super::file::{Known, StoreFile, open_regular};
use super::listing::Named;
use super::part::{Place, StorePart};
use super::root::{Pinned, Root};
use super::tree::{kind_of, shown};
use crate::stores::engine::{
    Engine, EngineError, Entry, EntryKind, Listed, Opened, Operation, Part, Space,
};
use crate::stores::path::{FileName, InstallPath};
use crate::stores::{Modes, Work};

/// The tree, then account, then object; other parties nest no deeper.
const LIST_DEPTH: u8 = 5;
/// How deep an object's directory may be nested: archives unpack into sub-directories.
const REMOVE_DEPTH: u8 = 8;

/// The engine. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct NfsStore {
    client: Arc<Client>,
    modes: Modes,
    min_free: u64,
}

type Piece<T> = BoxFuture<'static, Result<T, NfsError>>;

impl NfsStore {
    /// Finds the server and its export; a server that is away is an error.
    pub async fn connect(target: Target, modes: Modes) -> Result<Self, EngineError> {
        let client = Client::new(target);
        let found = client.session(false).root().await;
        found.map_err(|error| error.of_engine(&client.place()))?;
        Ok(Self { client, modes, min_free: 0 })
    }

    /// Writes nothing into the last `bytes` of the file system.
    #[must_use]
    pub fn keeping_free(self, bytes: u64) -> Self {
        Self { min_free: bytes, ..self }
    }

    /// Runs `piece` on the root. What has begun goes on although nobody waits for it any more, so
    /// that its owner can wait for its end.
    fn run<T: Send + 'static>(
        &self,
        work: &Work,
        piece: impl Fn(Session, Arc<Root>) -> Piece<T> + Send + Sync + 'static,
    ) -> Operation<T> {
        let (client, owner) = (Arc::clone(&self.client), work.owned());
        Box::pin(async move {
            let tasks = client.target.tasks.clone();
            let under_way = async move {
                let Some(_running) = owner.begin() else { return Err(EngineError::GivenUp) };
                let done = client.session(true).on_root(piece).await;
                done.map_err(|error| error.of_engine(&client.place()))
            };
            match tasks.spawn("nfs operation", under_way).await {
                Ok(Some(outcome)) => outcome,
                Ok(None) | Err(_) => Err(EngineError::Panicked),
            }
        })
    }
}

/// Directory and name; a path has at least one part.
fn split(path: &InstallPath) -> Result<(&[FileName], &FileName), NfsError> {
    match path.parts() {
        [parents @ .., name] => Ok((parents, name)),
        [] => Err(NfsError::NotFile(String::new())),
    }
}

/// Removes what lay beside a file until it was whole.
async fn clear(session: &Session, directory: &Handle, aside: &FileName) {
    let removed = session.again().remove_file(directory, aside.as_str().as_bytes()).await;
    if let Err(error) = removed {
        let error = bedrock::chain(&error);
        tracing::warn!(file = %aside, error, "cannot remove an unfinished file");
    }
}

impl Engine for NfsStore {
    fn place(&self) -> String {
        self.client.place()
    }

    fn min_free(&self) -> u64 {
        self.min_free
    }

    fn pin(&self, work: &Work, marker: Option<String>) -> Operation<()> {
        let client = Arc::clone(&self.client);
        self.run(work, move |_session, root| {
            let pinned = Pinned { marker: marker.clone(), identity: root.identity };
            *client.pinned.lock().unwrap_or_else(PoisonError::into_inner) = Some(pinned);
            Box::pin(std::future::ready(Ok(())))
        })
    }

    fn probe(&self, work: &Work) -> Operation<Space> {
        self.run(work, |session, root| {
            Box::pin(async move {
                session.verify(&root).await?;
                session.space(&root).await
            })
        })
    }

    fn get(&self, work: &Work, path: InstallPath) -> Operation<Option<Bytes>> {
        self.run(work, move |session, root| {
            let path = path.clone();
            Box::pin(async move {
                let (parents, name) = split(&path)?;
                match session.walk(&root.handle, parents).await? {
                    Some(parent) => session.read_small(&parent, name.as_str().as_bytes()).await,
                    None => Ok(None),
                }
            })
        })
    }

    fn put(
        &self,
        work: &Work,
        path: InstallPath,
        aside: FileName,
        content: Bytes,
    ) -> Operation<()> {
        let mode = self.modes.file;
        self.run(work, move |session, root| {
            let (path, aside, content) = (path.clone(), aside.clone(), content.clone());
            Box::pin(async move {
                let (parents, name) = split(&path)?;
                let parent = session.directory(&root.handle, parents).await?;
                let put = session.put(&parent, name, &aside, mode, content).await;
                if put.is_err() {
                    clear(&session, &parent, &aside).await;
                }
                put
            })
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
        let modes = self.modes;
        self.run(work, move |session, root| {
            let (path, aside, content) = (path.clone(), aside.clone(), content.clone());
            Box::pin(async move {
                let (parents, name) = split(&path)?;
                let parent = session.make_all(&root.handle, parents, modes.directory).await?;
                let claimed = session.claim(&parent, name, &aside, modes.file, content).await;
                clear(&session, &parent, &aside).await;
                claimed
            })
        })
    }

    fn ensure(&self, work: &Work, directory: InstallPath) -> Operation<()> {
        let mode = self.modes.directory;
        self.run(work, move |session, root| {
            let directory = directory.clone();
            Box::pin(async move {
                session.make_all(&root.handle, directory.parts(), mode).await.map(drop)
            })
        })
    }

    fn kind(&self, work: &Work, path: InstallPath) -> Operation<Option<EntryKind>> {
        self.run(work, move |session, root| {
            let path = path.clone();
            Box::pin(async move {
                let (parents, name) = split(&path)?;
                let Some(parent) = session.walk(&root.handle, parents).await? else {
                    return Ok(None);
                };
                let node = session.lookup(&parent, name.as_str().as_bytes()).await?;
                Ok(node.map(|node| kind_of(node.attributes.file_type)))
            })
        })
    }

    fn entries(
        &self,
        work: &Work,
        directory: Option<InstallPath>,
    ) -> Operation<Option<Vec<Entry>>> {
        self.run(work, move |session, root| {
            let directory = directory.clone();
            Box::pin(async move {
                let parts = directory.as_ref().map_or(&[][..], InstallPath::parts);
                let Some(found) = session.walk(&root.handle, parts).await? else {
                    return Ok(None);
                };
                let subject = directory.map_or_else(String::new, |path| path.to_string());
                let named = session.entries(&found, root.directory_size, &subject).await?;
                let described = named.into_iter().map(|Named { name, attributes, .. }| Entry {
                    name: shown(&name),
                    kind: kind_of(attributes.file_type),
                    size: attributes.size,
                    modified: attributes.modified,
                });
                Ok(Some(described.collect()))
            })
        })
    }

    fn relocate(&self, work: &Work, from: InstallPath, to: InstallPath) -> Operation<bool> {
        let mode = self.modes.directory;
        self.run(work, move |session, root| {
            let (from, to) = (from.clone(), to.clone());
            Box::pin(async move {
                let (from, to) = (split(&from)?, split(&to)?);
                session.relocate(&root.handle, from, to, mode).await
            })
        })
    }

    fn list(&self, work: &Work, tree: InstallPath, index: FileName) -> Operation<Vec<Listed>> {
        self.run(work, move |session, root| {
            let (tree, index) = (tree.clone(), index.clone());
            Box::pin(async move {
                // A list of nothing makes the server forget everything: it must be the store.
                session.verify(&root).await?;
                let Some(start) = session.walk(&root.handle, tree.parts()).await? else {
                    return Ok(Vec::new());
                };
                session.objects(start, tree, &index, LIST_DEPTH, root.directory_size).await
            })
        })
    }

    fn open(&self, work: &Work, path: InstallPath) -> Operation<Option<Box<dyn Opened>>> {
        let owner = work.owned();
        self.run(work, move |session, root| {
            let (path, owner) = (path.clone(), owner.clone());
            Box::pin(async move {
                let (parents, name) = split(&path)?;
                let reader = open_regular(&session, &root, parents, name).await?;
                Ok(reader.map(|reader| {
                    Box::new(StoreFile { reader: Arc::new(reader), owner }) as Box<dyn Opened>
                }))
            })
        })
    }

    fn create(
        &self,
        work: &Work,
        directory: InstallPath,
        name: FileName,
    ) -> Operation<Box<dyn Part>> {
        let (modes, min_free, owner) = (self.modes, self.min_free, work.owned());
        self.run(work, move |session, root| {
            let (directory, name) = (directory.clone(), name.clone());
            let owner = owner.clone();
            Box::pin(async move {
                session.keep_free(&root, min_free).await?;
                let parts = directory.parts();
                let mut round = 0;
                let node = loop {
                    let parent = session.make_all(&root.handle, parts, modes.directory).await?;
                    session.remove_file(&parent, name.as_str().as_bytes()).await?;
                    match session.create_file(&parent, &name, modes.file).await {
                        // A job that ended in the same directory may have removed it meanwhile.
                        Err(error) if error.is_gone() && round == 0 => round += 1,
                        outcome => break outcome?,
                    }
                };
                let known = Known::new(parts.to_vec(), name, &node);
                let place = Place { session, root, known, owner, length: 0, min_free };
                Ok(Box::new(StorePart::start(place)) as Box<dyn Part>)
            })
        })
    }

    fn append(
        &self,
        work: &Work,
        directory: InstallPath,
        name: FileName,
        length: u64,
    ) -> Operation<Option<Box<dyn Part>>> {
        let (min_free, owner) = (self.min_free, work.owned());
        self.run(work, move |session, root| {
            let (directory, name) = (directory.clone(), name.clone());
            let owner = owner.clone();
            Box::pin(async move {
                let parts = directory.parts();
                let Some(parent) = session.walk(&root.handle, parts).await? else {
                    return Ok(None);
                };
                let Some(node) = session.cut(&parent, &name, length).await? else {
                    return Ok(None);
                };
                let known = Known::new(parts.to_vec(), name, &node);
                let place = Place { session, root, known, owner, length, min_free };
                Ok(Some(Box::new(StorePart::start(place)) as Box<dyn Part>))
            })
        })
    }

    fn rename(
        &self,
        work: &Work,
        directory: InstallPath,
        from: FileName,
        to: FileName,
    ) -> Operation<()> {
        self.run(work, move |session, root| {
            let (directory, from, to) = (directory.clone(), from.clone(), to.clone());
            Box::pin(async move {
                let parent = session.directory(&root.handle, directory.parts()).await?;
                session.rename((&parent, &from), (&parent, &to)).await
            })
        })
    }

    fn keep(
        &self,
        work: &Work,
        directory: InstallPath,
        name: FileName,
        second: FileName,
    ) -> Operation<bool> {
        self.run(work, move |session, root| {
            let (directory, name, second) = (directory.clone(), name.clone(), second.clone());
            Box::pin(async move {
                match session.walk(&root.handle, directory.parts()).await? {
                    Some(parent) => session.keep(&parent, &name, &second).await,
                    None => Ok(false),
                }
            })
        })
    }

    fn remove_file(&self, work: &Work, path: InstallPath) -> Operation<bool> {
        self.run(work, move |session, root| {
            let path = path.clone();
            Box::pin(async move {
                let (parents, name) = split(&path)?;
                match session.walk(&root.handle, parents).await? {
                    Some(parent) => session.remove_file(&parent, name.as_str().as_bytes()).await,
                    None => Ok(false),
                }
            })
        })
    }

    fn remove_tree(&self, work: &Work, directory: InstallPath, first: FileName) -> Operation<bool> {
        self.run(work, move |session, root| {
            let (directory, first) = (directory.clone(), first.clone());
            Box::pin(async move {
                let (parents, name) = split(&directory)?;
                let Some(parent) = session.walk(&root.handle, parents).await? else {
                    return Ok(false);
                };
                let name = Bytes::copy_from_slice(name.as_str().as_bytes());
                let part = root.directory_size;
                session.remove_tree(parent, name, first, REMOVE_DEPTH, part).await
            })
        })
    }

    fn remove_empty(&self, work: &Work, directory: InstallPath) -> Operation<()> {
        self.run(work, move |session, root| {
            let directory = directory.clone();
            Box::pin(async move {
                let (parents, name) = split(&directory)?;
                if let Some(parent) = session.walk(&root.handle, parents).await? {
                    session.remove_directory(&parent, name.as_str().as_bytes()).await?;
                }
                Ok(())
            })
        })
    }
}
