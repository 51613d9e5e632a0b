//! Reading a file in ranges, several calls at a time.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};
use nfs3::procedures::Read;
use nfs3::{Attributes, Handle, Procedure, Status};

use super::client::{Client, Session};
use super::connection::Lane;
use super::error::NfsError;
use super::root::Root;
use super::tree::{Node, shown};
use crate::stores::engine::{EngineError, Opened, Operation};
use crate::stores::path::FileName;
use crate::stores::work::Owned;

/// Calls of one range that are under way at a time.
const AT_A_TIME: usize = 4;

impl Session {
    /// The bytes of `range`, fewer only where the file ends.
    pub(super) async fn read_up_to(
        &self,
        lane: Lane,
        file: &Handle,
        range: Range<u64>,
        size: u32,
        subject: &str,
    ) -> Result<Bytes, NfsError> {
        let mut pieces = Vec::new();
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start.saturating_add(u64::from(size.max(1))));
            pieces.push(start..end);
            start = end;
        }
        let reads = pieces.into_iter().map(|piece| self.read_piece(lane, file, piece, subject));
        let mut parts: Vec<Bytes> = stream::iter(reads).buffered(AT_A_TIME).try_collect().await?;
        if parts.len() == 1 {
            return Ok(parts.pop().unwrap_or_default());
        }
        let mut all = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
        for part in parts {
            all.extend_from_slice(&part);
        }
        Ok(all.freeze())
    }

    /// One piece, asked for again where the server gave less.
    async fn read_piece(
        &self,
        lane: Lane,
        file: &Handle,
        piece: Range<u64>,
        subject: &str,
    ) -> Result<Bytes, NfsError> {
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        let mut offset = piece.start;
        while offset < piece.end {
            let count = u32::try_from(piece.end - offset).unwrap_or(u32::MAX);
            let read = Read { file: file.clone(), offset, count };
            let data = self.call(lane, &read, subject).await?;
            if data.bytes.len() as u64 > u64::from(count) {
                let problem = "is read beyond what was asked for";
                return Err(NfsError::Content { subject: subject.to_owned(), problem });
            }
            if data.bytes.is_empty() {
                break;
            }
            offset += data.bytes.len() as u64;
            if first.is_empty() {
                first = data.bytes;
            } else {
                rest.extend_from_slice(&data.bytes);
            }
            if data.is_end {
                break;
            }
        }
        if rest.is_empty() {
            return Ok(first);
        }
        let mut all = BytesMut::from(first);
        all.extend_from_slice(&rest);
        Ok(all.freeze())
    }
}

/// A file that was found once, and is found again under its name when the server forgot its handle.
#[derive(Debug)]
pub(super) struct Known {
    /// Below the export's root.
    directory: Vec<FileName>,
    name: FileName,
    handle: Mutex<Handle>,
    /// Number of the file: another file of that name is another file.
    number: u64,
}

impl Known {
    pub(super) fn new(directory: Vec<FileName>, name: FileName, node: &Node) -> Self {
        let handle = Mutex::new(node.handle.clone());
        Self { directory, name, handle, number: node.attributes.fileid }
    }

    /// The same file, found again on its own.
    pub(super) fn again(&self) -> Self {
        let Self { directory, name, number, .. } = self;
        let handle = Mutex::new(self.handle());
        Self { directory: directory.clone(), name: name.clone(), handle, number: *number }
    }

    pub(super) fn name(&self) -> &str {
        self.name.as_str()
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A call on the file.
    pub(super) async fn call<P, T>(
        &self,
        session: &Session,
        lane: Lane,
        make: impl Fn(Handle) -> P,
    ) -> Result<T, NfsError>
    where
        P: Procedure<Reply = Result<T, Status>>,
    {
        match session.call(lane, &make(self.handle()), self.name()).await {
            Err(error) if error.is_stale() => {
                self.find_again(session, None).await?;
                session.call(lane, &make(self.handle()), self.name()).await
            }
            outcome => outcome,
        }
    }

    /// Looks for the file under its name: the same one with another handle, or it is gone.
    async fn find_again(&self, session: &Session, length: Option<u64>) -> Result<(), NfsError> {
        let name = self.name.as_str().as_bytes();
        let root = session.root().await?;
        session.doubt(&root).await?;
        let root = session.root().await?;
        let found = match session.walk(&root.handle, &self.directory).await? {
            Some(parent) => session.lookup(&parent, name).await?,
            None => None,
        };
        let is_same = |node: &Node| {
            let Attributes { fileid, size, .. } = node.attributes;
            fileid == self.number && length.is_none_or(|length| length == size)
        };
        match found {
            Some(node) if is_same(&node) => {
                *self.handle.lock().unwrap_or_else(PoisonError::into_inner) = node.handle;
                Ok(())
            }
            _ => {
                let problem = "was removed or replaced since it was opened";
                Err(NfsError::Content { subject: shown(name), problem })
            }
        }
    }
}

/// A regular file that stays the one it was when it was opened.
#[derive(Debug)]
pub struct Reader {
    client: Arc<Client>,
    known: Known,
    length: u64,
    modified: SystemTime,
    read_size: u32,
}

/// Opens a regular file below the export's root; `None` when there is none.
pub async fn open_regular(
    session: &Session,
    root: &Root,
    directory: &[FileName],
    name: &FileName,
) -> Result<Option<Reader>, NfsError> {
    let Some(parent) = session.walk(&root.handle, directory).await? else { return Ok(None) };
    let Some(node) = session.lookup(&parent, name.as_str().as_bytes()).await? else {
        return Ok(None);
    };
    let node = node.regular(name.as_str().as_bytes())?;
    let known = Known::new(directory.to_vec(), name.clone(), &node);
    Ok(Some(Reader::new(Arc::clone(&session.client), root, known, &node.attributes)))
}

impl Reader {
    pub(super) fn new(
        client: Arc<Client>,
        root: &Root,
        known: Known,
        attributes: &Attributes,
    ) -> Self {
        let Attributes { size: length, modified, .. } = *attributes;
        Self { client, known, length, modified, read_size: root.read_size }
    }

    pub const fn length(&self) -> u64 {
        self.length
    }

    pub const fn modified(&self) -> SystemTime {
        self.modified
    }

    /// Bytes that the server gives in one call.
    pub const fn read_size(&self) -> u32 {
        self.read_size
    }

    /// Exactly the bytes of `range`, which lies in the file.
    pub async fn read(&self, session: &Session, range: Range<u64>) -> Result<Bytes, NfsError> {
        let expected = range.end.saturating_sub(range.start);
        let subject = self.known.name();
        let mut looked = false;
        loop {
            let (handle, size) = (self.known.handle(), self.read_size);
            let read = session.read_up_to(Lane::Bulk, &handle, range.clone(), size, subject);
            match read.await {
                Ok(bytes) if bytes.len() as u64 == expected => return Ok(bytes),
                Ok(_) => {
                    let problem = "has become shorter since it was opened";
                    return Err(NfsError::Content { subject: subject.to_owned(), problem });
                }
                Err(error) if error.is_stale() && !looked => {
                    looked = true;
                    self.known.find_again(session, Some(self.length)).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The same as a file of a store.
#[derive(Debug)]
pub(super) struct StoreFile {
    pub(super) reader: Arc<Reader>,
    pub(super) owner: Owned,
}

impl Opened for StoreFile {
    fn length(&self) -> u64 {
        self.reader.length
    }

    fn modified(&self) -> SystemTime {
        self.reader.modified
    }

    fn read(&self, range: Range<u64>) -> Operation<Bytes> {
        let (reader, owner) = (Arc::clone(&self.reader), self.owner.clone());
        Box::pin(async move {
            // Nothing of a read has to be waited for: it changes nothing.
            let Some(_running) = owner.begin() else { return Err(EngineError::GivenUp) };
            let session = reader.client.session(true);
            let read = reader.read(&session, range).await;
            read.map_err(|error| error.of_engine(&reader.client.place()))
        })
    }
}
