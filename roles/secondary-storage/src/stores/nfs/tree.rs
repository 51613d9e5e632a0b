//! Walking, making and removing names, one directory after the other.
//!
//! The server follows no symbolic link in any of these calls, and neither does anything here: a link
//! is found as one and refused.

use bytes::{Buf, Bytes};
use nfs3::procedures::{
    Create, Creation, Found, GetAttributes, Link, Lookup, MakeDirectory, Remove, RemoveDirectory,
    Rename, SetAttributes, Stability, Write,
};
use nfs3::{Attributes, FileType, Handle, Status};
use role::BoxFuture;

use super::client::Session;
use super::connection::Lane;
use super::error::NfsError;
use crate::stores::engine::{EntryKind, SMALL};
use crate::stores::path::FileName;

/// Attempts to empty a directory that others fill meanwhile.
const REMOVE_ROUNDS: u8 = 3;
/// What every server takes in one call.
const SMALL_WRITE: usize = 8 << 10;

/// Something that a name leads to.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) handle: Handle,
    pub(super) attributes: Attributes,
}

pub(super) const fn kind_of(file_type: FileType) -> EntryKind {
    match file_type {
        FileType::Directory => EntryKind::Directory,
        FileType::Regular => EntryKind::File,
        FileType::SymbolicLink | FileType::Special => EntryKind::Other,
    }
}

/// A name for errors.
pub(super) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn bytes_of(name: &FileName) -> Bytes {
    Bytes::copy_from_slice(name.as_str().as_bytes())
}

impl Node {
    pub(super) fn directory(self, name: &[u8]) -> Result<Self, NfsError> {
        match self.attributes.file_type {
            FileType::Directory => Ok(self),
            FileType::SymbolicLink => Err(NfsError::Link(shown(name))),
            FileType::Regular | FileType::Special => Err(NfsError::NotDirectory(shown(name))),
        }
    }

    pub(super) fn regular(self, name: &[u8]) -> Result<Self, NfsError> {
        match self.attributes.file_type {
            FileType::Regular => Ok(self),
            FileType::SymbolicLink => Err(NfsError::Link(shown(name))),
            FileType::Directory | FileType::Special => Err(NfsError::NotFile(shown(name))),
        }
    }
}

impl Session {
    async fn node(&self, found: Found, name: &[u8]) -> Result<Node, NfsError> {
        let Found { handle, attributes } = found;
        let attributes = match attributes {
            Some(attributes) => attributes,
            None => self.call(Lane::Quick, &GetAttributes(handle.clone()), &shown(name)).await?,
        };
        Ok(Node { handle, attributes })
    }

    pub(super) async fn lookup(
        &self,
        directory: &Handle,
        name: &[u8],
    ) -> Result<Option<Node>, NfsError> {
        let lookup = Lookup { directory: directory.clone(), name: Bytes::copy_from_slice(name) };
        match self.exchange(Lane::Quick, &lookup).await?.reply {
            Ok(found) => self.node(found, name).await.map(Some),
            Err(Status::NOT_FOUND) => Ok(None),
            Err(status) => Err(self.client.refused("LOOKUP", shown(name), status)),
        }
    }

    /// Walks down directories; `None` when one is not there.
    pub(super) async fn walk(
        &self,
        root: &Handle,
        parts: &[FileName],
    ) -> Result<Option<Handle>, NfsError> {
        let mut current = root.clone();
        for part in parts {
            let name = part.as_str().as_bytes();
            match self.lookup(&current, name).await? {
                Some(node) => current = node.directory(name)?.handle,
                None => return Ok(None),
            }
        }
        Ok(Some(current))
    }

    /// Walks down directories that must be there.
    pub(super) async fn directory(
        &self,
        root: &Handle,
        parts: &[FileName],
    ) -> Result<Handle, NfsError> {
        let found = self.walk(root, parts).await?;
        let shown = || parts.iter().map(FileName::as_str).collect::<Vec<_>>().join("/");
        found.ok_or_else(|| self.client.refused("LOOKUP", shown(), Status::NOT_FOUND))
    }

    /// Replaces a small file: readers see the old or the new one.
    pub(super) async fn put(
        &self,
        directory: &Handle,
        name: &FileName,
        aside: &FileName,
        mode: u32,
        content: Bytes,
    ) -> Result<(), NfsError> {
        self.remove_file(directory, aside.as_str().as_bytes()).await?;
        let file = self.create_file(directory, aside, mode).await?.handle;
        self.write_small(&file, aside, content).await?;
        self.rename((directory, aside), (directory, name)).await
    }

    /// Writes a small file from its beginning; it is durable then.
    async fn write_small(
        &self,
        file: &Handle,
        name: &FileName,
        content: Bytes,
    ) -> Result<(), NfsError> {
        let (mut offset, mut rest) = (0, content);
        while !rest.is_empty() {
            let write = Write {
                file: file.clone(),
                offset,
                stability: Stability::File,
                bytes: rest.slice(..rest.len().min(SMALL_WRITE)),
            };
            let written = self.call(Lane::Quick, &write, name.as_str()).await?;
            let count = usize::try_from(written.count).unwrap_or(usize::MAX);
            if count == 0 || count > write.bytes.len() || written.stability < Stability::Data {
                let problem = "is not written as it was asked for";
                return Err(NfsError::Content { subject: name.to_string(), problem });
            }
            rest.advance(count);
            offset += u64::from(written.count);
        }
        Ok(())
    }

    /// Makes a small file whole unless there is one of that name. A call whose answer was lost looks
    /// like a name that somebody else has taken, so the content is compared: callers give each claim
    /// a content of its own. `aside` stays.
    pub(super) async fn claim(
        &self,
        directory: &Handle,
        name: &FileName,
        aside: &FileName,
        mode: u32,
        content: Bytes,
    ) -> Result<bool, NfsError> {
        self.remove_file(directory, aside.as_str().as_bytes()).await?;
        let file = self.create_file(directory, aside, mode).await?.handle;
        self.write_small(&file, aside, content.clone()).await?;
        let link = Link { file, directory: directory.clone(), name: bytes_of(name) };
        match self.exchange(Lane::Quick, &link).await?.reply {
            Ok(()) => return Ok(true),
            Err(Status::EXISTS) => {
                let found = self.read_small(directory, name.as_str().as_bytes()).await?;
                return Ok(found.is_some_and(|found| found == content));
            }
            // What it is stored on has no links.
            Err(Status::PERMISSION | Status::NOT_SUPPORTED | Status::TOO_MANY_LINKS) => {}
            Err(status) => return Err(self.client.refused("LINK", name.as_str(), status)),
        }
        let (number, _) = uuid::Uuid::new_v4().as_u64_pair();
        match self.create(directory, name, Creation::Exclusive(number.to_be_bytes()), mode).await {
            Ok(node) => self.write_small(&node.handle, name, content).await.map(|()| true),
            Err(error) if error.status() == Some(Status::EXISTS) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives a file a second name, in place of another; `false` when there is no such file.
    pub(super) async fn keep(
        &self,
        directory: &Handle,
        name: &FileName,
        second: &FileName,
    ) -> Result<bool, NfsError> {
        let Some(node) = self.lookup(directory, name.as_str().as_bytes()).await? else {
            return Ok(false);
        };
        let file = node.regular(name.as_str().as_bytes())?.handle;
        self.remove_file(directory, second.as_str().as_bytes()).await?;
        let link = Link { file, directory: directory.clone(), name: bytes_of(second) };
        match self.exchange(Lane::Quick, &link).await?.reply {
            // An answer that got lost on its way: the name was free before.
            Ok(()) | Err(Status::EXISTS) => Ok(true),
            Err(Status::NOT_FOUND) => Ok(false),
            Err(status) => Err(self.client.refused("LINK", second.as_str(), status)),
        }
    }

    /// An unfinished file, cut to `length` bytes; `None` when there is none with so many.
    pub(super) async fn cut(
        &self,
        directory: &Handle,
        name: &FileName,
        length: u64,
    ) -> Result<Option<Node>, NfsError> {
        let Some(node) = self.lookup(directory, name.as_str().as_bytes()).await? else {
            return Ok(None);
        };
        let node = node.regular(name.as_str().as_bytes())?;
        if node.attributes.size < length {
            return Ok(None);
        }
        let set = SetAttributes { file: node.handle.clone(), mode: None, size: Some(length) };
        self.call(Lane::Quick, &set, name.as_str()).await?;
        Ok(Some(node))
    }

    /// Walks down directories, making what is missing.
    pub(super) async fn make_all(
        &self,
        root: &Handle,
        parts: &[FileName],
        mode: u32,
    ) -> Result<Handle, NfsError> {
        let mut current = root.clone();
        for part in parts {
            let name = part.as_str().as_bytes();
            let node = match self.lookup(&current, name).await? {
                Some(node) => node,
                None => self.make_directory(&current, part, mode).await?,
            };
            current = node.directory(name)?.handle;
        }
        Ok(current)
    }

    async fn make_directory(
        &self,
        directory: &Handle,
        name: &FileName,
        mode: u32,
    ) -> Result<Node, NfsError> {
        let make = MakeDirectory { directory: directory.clone(), name: bytes_of(name), mode };
        let made = match self.exchange(Lane::Quick, &make).await?.reply {
            Ok(made) => made,
            // By another host meanwhile, or by this call the first time it was sent.
            Err(Status::EXISTS) => return self.made(directory, name, None).await,
            Err(status) => {
                return Err(self.client.refused("MKDIR", name.as_str(), status));
            }
        };
        let node = self.made(directory, name, made).await?;
        self.permitted(node, name, mode).await
    }

    /// A new file, empty; one of that name is emptied.
    pub(super) async fn create_file(
        &self,
        directory: &Handle,
        name: &FileName,
        mode: u32,
    ) -> Result<Node, NfsError> {
        self.create(directory, name, Creation::Emptied { mode }, mode).await
    }

    async fn create(
        &self,
        directory: &Handle,
        name: &FileName,
        how: Creation,
        mode: u32,
    ) -> Result<Node, NfsError> {
        let create = Create { directory: directory.clone(), name: bytes_of(name), how };
        let made = self.call(Lane::Quick, &create, name.as_str()).await?;
        let node = self.made(directory, name, made).await?;
        self.permitted(node.regular(name.as_str().as_bytes())?, name, mode).await
    }

    /// What was made; the server may keep its handle to itself.
    async fn made(
        &self,
        directory: &Handle,
        name: &FileName,
        made: Option<Found>,
    ) -> Result<Node, NfsError> {
        let Some(found) = made else {
            let found = self.lookup(directory, name.as_str().as_bytes()).await?;
            let gone = || self.client.refused("LOOKUP", name.as_str(), Status::NOT_FOUND);
            return found.ok_or_else(gone);
        };
        self.node(found, name.as_str().as_bytes()).await
    }

    /// The same with the permissions that were asked for: a server may have a mask of its own.
    async fn permitted(&self, node: Node, name: &FileName, mode: u32) -> Result<Node, NfsError> {
        if node.attributes.mode != mode {
            let set = SetAttributes { file: node.handle.clone(), mode: Some(mode), size: None };
            self.call(Lane::Quick, &set, name.as_str()).await?;
        }
        Ok(node)
    }

    /// Removes anything but a directory; `false` when there was none.
    pub(super) async fn remove_file(
        &self,
        directory: &Handle,
        name: &[u8],
    ) -> Result<bool, NfsError> {
        let remove = Remove { directory: directory.clone(), name: Bytes::copy_from_slice(name) };
        let answer = self.exchange(Lane::Quick, &remove).await?;
        match answer.reply {
            Ok(()) => Ok(true),
            Err(Status::NOT_FOUND) => Ok(answer.repeated),
            Err(status) => Err(self.client.refused("REMOVE", shown(name), status)),
        }
    }

    /// Removes an empty directory; `false` when there was none or it is not empty.
    pub(super) async fn remove_directory(
        &self,
        directory: &Handle,
        name: &[u8],
    ) -> Result<bool, NfsError> {
        let remove =
            RemoveDirectory { directory: directory.clone(), name: Bytes::copy_from_slice(name) };
        let answer = self.exchange(Lane::Quick, &remove).await?;
        match answer.reply {
            Ok(()) => Ok(true),
            Err(Status::NOT_FOUND) => Ok(answer.repeated),
            Err(Status::NOT_EMPTY | Status::EXISTS) => Ok(false),
            Err(status) => Err(self.client.refused("RMDIR", shown(name), status)),
        }
    }

    pub(super) async fn rename(
        &self,
        (from_directory, from): (&Handle, &FileName),
        (to_directory, to): (&Handle, &FileName),
    ) -> Result<(), NfsError> {
        let rename = Rename {
            from_directory: from_directory.clone(),
            from: bytes_of(from),
            to_directory: to_directory.clone(),
            to: bytes_of(to),
        };
        let answer = self.exchange(Lane::Quick, &rename).await?;
        match answer.reply {
            Ok(()) => Ok(()),
            // Done the first time it was sent.
            Err(Status::NOT_FOUND)
                if answer.repeated
                    && self.lookup(to_directory, to.as_str().as_bytes()).await?.is_some() =>
            {
                Ok(())
            }
            Err(status) => Err(self.client.refused("RENAME", from.as_str(), status)),
        }
    }

    /// Gives a directory another place; `false` when there is none. An empty directory is made there
    /// first and replaced: whatever else is there makes the server refuse.
    pub(super) async fn relocate(
        &self,
        root: &Handle,
        (above, name): (&[FileName], &FileName),
        (beside, target): (&[FileName], &FileName),
        mode: u32,
    ) -> Result<bool, NfsError> {
        let Some(above) = self.walk(root, above).await? else { return Ok(false) };
        let found = self.lookup(&above, name.as_str().as_bytes()).await?;
        if !found.is_some_and(|node| node.attributes.file_type == FileType::Directory) {
            return Ok(false);
        }
        let taken = || self.client.refused("RENAME", target.as_str(), Status::EXISTS);
        let beside = self.make_all(root, beside, mode).await?;
        let place = match self.lookup(&beside, target.as_str().as_bytes()).await? {
            Some(node) => node,
            None => self.make_directory(&beside, target, mode).await?,
        };
        if place.attributes.file_type != FileType::Directory {
            return Err(taken());
        }
        match self.rename((&above, name), (&beside, target)).await {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.status(), Some(Status::NOT_EMPTY | Status::EXISTS)) => {
                Err(taken())
            }
            Err(error) => {
                self.remove_directory(&beside, target.as_str().as_bytes()).await?;
                Err(error)
            }
        }
    }

    /// A small file as a whole; `None` when there is none.
    pub(super) async fn read_small(
        &self,
        directory: &Handle,
        name: &[u8],
    ) -> Result<Option<Bytes>, NfsError> {
        let Some(node) = self.lookup(directory, name).await? else { return Ok(None) };
        let node = node.regular(name)?;
        let end = node.attributes.size.min(SMALL);
        let read_size = u32::try_from(SMALL).unwrap_or(u32::MAX);
        let content =
            self.read_up_to(Lane::Quick, &node.handle, 0..end, read_size, &shown(name)).await?;
        Ok(Some(content))
    }

    /// Removes everything below `name` and `name` itself, the files named `first` before all others;
    /// `false` when there was none. Success means that the name is gone. `depth` bounds the descent.
    pub(super) fn remove_tree(
        &self,
        parent: Handle,
        name: Bytes,
        first: FileName,
        depth: u8,
        part: u32,
    ) -> BoxFuture<'static, Result<bool, NfsError>> {
        let this = self.clone();
        Box::pin(async move {
            let content = |problem| NfsError::Content { subject: shown(&name), problem };
            let Some(deeper) = depth.checked_sub(1) else {
                return Err(content("is nested too deeply"));
            };
            let mut found = false;
            for _round in 0..REMOVE_ROUNDS {
                let Some(node) = this.lookup(&parent, &name).await? else { return Ok(found) };
                let inner = node.directory(&name)?.handle;
                found = true;
                match this.remove_file(&inner, first.as_str().as_bytes()).await {
                    Ok(_) => {}
                    // A directory of that name.
                    Err(error) if error.status() == Some(Status::IS_DIRECTORY) => {}
                    Err(error) => return Err(error),
                }
                for entry in this.entries(&inner, part, &shown(&name)).await? {
                    if entry.attributes.file_type == FileType::Directory {
                        let name = entry.name;
                        this.remove_tree(inner.clone(), name, first.clone(), deeper, part).await?;
                    } else {
                        this.remove_file(&inner, &entry.name).await?;
                    }
                }
                if this.remove_directory(&parent, &name).await? {
                    return Ok(true);
                }
                // Gone already, or somebody put something into it since it was read.
            }
            match this.lookup(&parent, &name).await? {
                None => Ok(found),
                Some(_) => Err(content("is filled while it is removed")),
            }
        })
    }
}
