//! The operations of a store in a bucket. Keys are the paths; a directory is there while a key is below
//! it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use role::TaskScope;

use super::answer::{Begun, Object};
use super::client::{Client, Head, S3Error};
use super::part::S3Part;
use crate::stores::engine::{
    Engine, EngineError, Entry, EntryKind, Listed, Opened, Operation, Part, SMALL, Space,
};
use crate::stores::path::{FileName, InstallPath};
use crate::stores::work::{Owned, Work};
use java_properties::Properties;

/// What the original tells of every bucket: it has no end.
const SPACE: Space = Space { capacity: i32::MAX as u64, used: 0 };
const PAGE: u32 = 1_000;
/// Requests of one deletion at a time.
const AT_A_TIME: usize = 8;
/// A bound on a listing; far more than a zone has.
const MAX_LISTED: usize = 200_000;
/// Uploads that began so long ago are of nobody any more, in seconds.
const DEAD: i64 = 24 * 3600;
/// Extensions that the inventory knows.
const EXTENSIONS: [&str; 8] = ["qcow2", "raw", "vhd", "iso", "ova", "vhdx", "vmdk", "tar"];

/// The engine. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct S3Engine {
    client: Arc<Client>,
    tasks: TaskScope,
}

/// `/` behind the path of a directory: what only begins alike is another one.
fn below(path: &InstallPath) -> String {
    format!("{path}/")
}

impl S3Engine {
    pub const fn new(client: Arc<Client>, tasks: TaskScope) -> Self {
        Self { client, tasks }
    }

    /// Runs a piece of work for its owner. What has begun goes on although nobody waits for it any more,
    /// so that its owner can wait for its end.
    fn run<T: Send + 'static, F>(
        &self,
        work: &Work,
        piece: impl FnOnce(Arc<Client>) -> F + Send + 'static,
    ) -> Operation<T>
    where
        F: Future<Output = Result<T, S3Error>> + Send + 'static,
    {
        let (client, owner, tasks) = (Arc::clone(&self.client), work.owned(), self.tasks.clone());
        Box::pin(async move {
            let under_way = async move {
                let Some(_running) = owner.begin() else { return Err(EngineError::GivenUp) };
                piece(client).await.map_err(|error| std::io::Error::from(error).into())
            };
            match tasks.spawn("S3 operation", under_way).await {
                Ok(Some(outcome)) => outcome,
                Ok(None) | Err(_) => Err(EngineError::Panicked),
            }
        })
    }

    /// Gives up, without waiting for it, what processes that died have begun and never ended.
    pub fn clear_dead_uploads(&self) {
        let client = Arc::clone(&self.client);
        self.tasks.spawn("clear dead uploads", async move {
            for tree in ["template/", "volumes/", "snapshots/"] {
                let begun = match client.begun(tree).await {
                    Ok(begun) => begun,
                    Err(error) => {
                        let error = bedrock::chain(&error);
                        tracing::debug!(error, "cannot list unfinished uploads of a bucket");
                        return;
                    }
                };
                let now = client.now();
                let is_dead = |upload: &Begun| {
                    upload.initiated + DEAD < now && !client.is_own(&upload.upload)
                };
                for upload in begun.into_iter().filter(is_dead) {
                    tracing::info!(key = upload.key, "an upload that nobody ended is given up");
                    drop(client.abort(&upload.key, &upload.upload).await);
                }
            }
        });
    }
}

/// Every object whose key begins with `prefix`; all pages or an error.
async fn all(client: &Client, prefix: &str) -> Result<Vec<Object>, S3Error> {
    let mut objects = Vec::new();
    let mut from: Option<String> = None;
    loop {
        let page = client.list(prefix, None, from.as_deref(), PAGE).await?;
        objects.extend(page.objects);
        if objects.len() > MAX_LISTED {
            let (status, code) = (200, "TooMany".to_owned());
            let message = format!("more than {MAX_LISTED} objects below {prefix}");
            return Err(S3Error::Refused { status, code, message });
        }
        match page.next {
            Some(next) if from.as_ref() != Some(&next) => from = Some(next),
            Some(_) => return Err(S3Error::Missing("next page")),
            None => return Ok(objects),
        }
    }
}

async fn delete_all(client: Arc<Client>, keys: Vec<String>) -> Result<(), S3Error> {
    let deletions = keys.into_iter().map(move |key| {
        let client = Arc::clone(&client);
        async move { client.delete(&key).await }
    });
    stream::iter(deletions).buffer_unordered(AT_A_TIME).try_collect::<Vec<()>>().await.map(drop)
}

fn time(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// The properties that a listing needs, as far as the key tells them: of a template the part before
/// the file's name is its unique name, of a volume its id.
fn properties(directory: &InstallPath, name: &str, size: u64) -> Bytes {
    let unique_name = directory.parts().last().map(ToString::to_string).unwrap_or_default();
    let extension = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let extension = EXTENSIONS.into_iter().find(|known| *known == extension).unwrap_or("raw");
    let size = size.to_string();
    let mut properties = Properties::new();
    properties.set("id", if unique_name.parse::<u32>().is_ok() { &unique_name } else { "0" });
    properties.set("uniquename", unique_name);
    properties.set("filename", name);
    properties.set("size", &size);
    properties.set("virtualsize", &size);
    properties.set("public", "true");
    properties.set(extension, "true");
    properties.set(format!("{extension}.filename"), name);
    properties.set(format!("{extension}.size"), &size);
    properties.set(format!("{extension}.virtualsize"), &size);
    properties.to_bytes(SystemTime::UNIX_EPOCH).into()
}

impl Engine for S3Engine {
    fn place(&self) -> String {
        self.client.place()
    }

    fn is_flat(&self) -> bool {
        true
    }

    fn pin(&self, _work: &Work, _marker: Option<String>) -> Operation<()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn probe(&self, work: &Work) -> Operation<Space> {
        self.run(work, |client| async move {
            client.list("template/", None, None, 1).await.map(|_page| SPACE)
        })
    }

    fn get(&self, work: &Work, path: InstallPath) -> Operation<Option<Bytes>> {
        self.run(work, move |client| async move {
            let key = path.to_string();
            let Some(head) = client.head(&key).await? else { return Ok(None) };
            client.get(&key, 0..head.length.min(SMALL), &head.tag).await.map(Some)
        })
    }

    fn put(&self, work: &Work, path: InstallPath, _: FileName, content: Bytes) -> Operation<()> {
        self.run(work, move |client| async move { client.put(&path.to_string(), content).await })
    }

    fn ensure(&self, _work: &Work, _directory: InstallPath) -> Operation<()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn kind(&self, work: &Work, path: InstallPath) -> Operation<Option<EntryKind>> {
        self.run(work, move |client| async move {
            if client.head(&path.to_string()).await?.is_some() {
                return Ok(Some(EntryKind::File));
            }
            let page = client.list(&below(&path), None, None, 1).await?;
            Ok((!page.objects.is_empty()).then_some(EntryKind::Directory))
        })
    }

    fn entries(
        &self,
        work: &Work,
        directory: Option<InstallPath>,
    ) -> Operation<Option<Vec<Entry>>> {
        self.run(work, move |client| async move {
            let prefix = directory.as_ref().map(below).unwrap_or_default();
            let mut found: BTreeMap<String, Entry> = BTreeMap::new();
            let mut from: Option<String> = None;
            loop {
                let page = client.list(&prefix, Some("/"), from.as_deref(), PAGE).await?;
                for object in page.objects {
                    let Some(name) = object.key.strip_prefix(&prefix) else { continue };
                    if name.is_empty() {
                        continue;
                    }
                    let (kind, modified) = (EntryKind::File, time(object.modified));
                    let name = name.to_owned();
                    found.insert(name.clone(), Entry { name, kind, size: object.size, modified });
                }
                for key in page.prefixes {
                    let Some(name) = key.strip_prefix(&prefix) else { continue };
                    let name = name.trim_end_matches('/').to_owned();
                    let (kind, modified) = (EntryKind::Directory, SystemTime::UNIX_EPOCH);
                    found.insert(name.clone(), Entry { name, kind, size: 0, modified });
                }
                match page.next {
                    Some(next) if found.len() <= MAX_LISTED => from = Some(next),
                    _ => break,
                }
            }
            let is_there = directory.is_none() || !found.is_empty();
            Ok(is_there.then(|| found.into_values().collect()))
        })
    }

    /// An object is one file, and what is listed of it is in its key.
    fn list(&self, work: &Work, tree: InstallPath, _index: FileName) -> Operation<Vec<Listed>> {
        self.run(work, move |client| async move {
            let mut listed = Vec::new();
            // Below the tree the account and the object; the tree may be an object itself.
            let depth = tree.parts().len();
            let least = if depth <= 2 { depth + 2 } else { depth };
            for Object { key, size, .. } in all(&client, &below(&tree)).await? {
                let Ok(path) = key.parse::<InstallPath>() else { continue };
                let Some((directory, name)) = path.split() else { continue };
                // A directory that some program made visible.
                if key.ends_with('/') || directory.parts().len() < least {
                    continue;
                }
                let index = properties(&directory, name.as_str(), size);
                listed.push(Listed { index, names: vec![name.to_string()], directory });
            }
            Ok(listed)
        })
    }

    fn open(&self, work: &Work, path: InstallPath) -> Operation<Option<Box<dyn Opened>>> {
        let owner = work.owned();
        self.run(work, move |client| async move {
            let key = path.to_string();
            let head = client.head(&key).await?;
            Ok(head.map(|head| Box::new(S3Object { client, key, head, owner }) as Box<dyn Opened>))
        })
    }

    fn create(
        &self,
        work: &Work,
        directory: InstallPath,
        name: FileName,
    ) -> Operation<Box<dyn Part>> {
        let key = directory.join(name).to_string();
        let part = S3Part::start(Arc::clone(&self.client), key, work.owned(), &self.tasks);
        Box::pin(std::future::ready(Ok(Box::new(part) as Box<dyn Part>)))
    }

    /// Objects are written under their own names.
    fn rename(&self, _: &Work, _: InstallPath, _: FileName, _: FileName) -> Operation<()> {
        Box::pin(async { Err(std::io::Error::from(std::io::ErrorKind::Unsupported).into()) })
    }

    fn remove_file(&self, work: &Work, path: InstallPath) -> Operation<bool> {
        self.run(work, move |client| async move {
            let key = path.to_string();
            let found = client.head(&key).await?.is_some();
            if found {
                client.delete(&key).await?;
            }
            Ok(found)
        })
    }

    fn remove_tree(&self, work: &Work, directory: InstallPath, _: FileName) -> Operation<bool> {
        self.run(work, move |client| async move {
            let objects = all(&client, &below(&directory)).await?;
            let found = !objects.is_empty();
            delete_all(client, objects.into_iter().map(|object| object.key).collect()).await?;
            Ok(found)
        })
    }

    fn remove_empty(&self, _work: &Work, _directory: InstallPath) -> Operation<()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// An object, as it was when it was opened.
#[derive(Debug)]
pub struct S3Object {
    pub(super) client: Arc<Client>,
    pub(super) key: String,
    pub(super) head: Head,
    pub(super) owner: Owned,
}

impl Opened for S3Object {
    fn length(&self) -> u64 {
        self.head.length
    }

    fn modified(&self) -> SystemTime {
        self.head.modified
    }

    /// Each request costs a round trip.
    fn stride(&self) -> u64 {
        4 << 20
    }

    fn read(&self, range: Range<u64>) -> Operation<Bytes> {
        let (client, owner) = (Arc::clone(&self.client), self.owner.clone());
        let (key, tag) = (self.key.clone(), self.head.tag.clone());
        Box::pin(async move {
            let Some(_running) = owner.begin() else { return Err(EngineError::GivenUp) };
            let read = client.get(&key, range, &tag).await;
            read.map_err(|error| std::io::Error::from(error).into())
        })
    }
}
