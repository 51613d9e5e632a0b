//! Links on a store: one small file for each, read by every host of the zone.
//!
//! ```text
//! .quickcloud/links/<directory>/link.json      { "<file>": { "path": …, "created_ms": … } }
//! ```
//!
//! A file is replaced as a whole, so a reader sees a link or none. The server makes up a directory
//! for each link, so two hosts never write the same file but to take a link away, which comes to the
//! same whoever does it last. The file is no secret to whoever can read the store, and what stands
//! in it is checked like every path from outside: it can lead to a file of the same store only.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Kept, LinkError, LinkName};
use crate::stores::path::PathError;
use crate::stores::{FileName, InstallPath, Store, Work};

const TREE: &str = ".quickcloud/links";
const FILE: &str = "link.json";

type Content = BTreeMap<String, Kept>;

fn place(name: &LinkName) -> Result<(InstallPath, FileName), PathError> {
    let tree: InstallPath = TREE.parse()?;
    Ok((tree.join(name.directory.clone()), FILE.parse()?))
}

async fn read(store: &Store, name: &LinkName) -> Result<Content, LinkError> {
    let (directory, file) = place(name)?;
    let work = Work::new();
    let reading = store.engine().get(&work, directory.join(file));
    match store.run("read a link", reading).await? {
        Some(bytes) => {
            serde_json::from_slice(&bytes).map_err(|error| LinkError::Content(name.clone(), error))
        }
        None => Ok(Content::new()),
    }
}

/// The link on this store, if it is there.
pub(super) async fn get(store: &Store, name: &LinkName) -> Result<Option<Kept>, LinkError> {
    Ok(read(store, name).await?.remove(name.file.as_str()))
}

/// Makes or changes a link.
pub(super) async fn put(store: &Store, name: &LinkName, kept: &Kept) -> Result<(), LinkError> {
    let (directory, file) = place(name)?;
    let mut content = read(store, name).await?;
    content.insert(name.file.to_string(), kept.clone());
    let bytes =
        serde_json::to_vec(&content).map_err(|error| LinkError::Content(name.clone(), error))?;
    let aside: FileName = format!(".link.{}", uuid::Uuid::new_v4()).parse()?;
    let (engine, work) = (store.engine(), Work::new());
    store.run("keep a link", engine.ensure(&work, directory.clone())).await?;
    let writing = engine.put(&work, directory.join(file), aside, Bytes::from(bytes));
    Ok(store.run("keep a link", writing).await?)
}

/// Removes the file of a link, with every link that is in it.
pub(super) async fn remove(store: &Store, name: &LinkName) -> Result<(), LinkError> {
    let (directory, file) = place(name)?;
    let (engine, work) = (store.engine(), Work::new());
    store.run("forget a link", engine.remove_file(&work, directory.join(file))).await?;
    Ok(store.run("forget a link", engine.remove_empty(&work, directory)).await?)
}

/// Every link of the store; what is not one is told and left out.
pub(super) async fn list(store: &Store) -> Result<Vec<(LinkName, Kept)>, LinkError> {
    let work = Work::new();
    let listing = store.engine().list(&work, TREE.parse()?, FILE.parse()?);
    let mut links = Vec::new();
    for found in store.run("list the links", listing).await? {
        let Some((_, directory)) = found.directory.split() else { continue };
        let content: Content = match serde_json::from_slice(&found.index) {
            Ok(content) => content,
            Err(error) => {
                tracing::warn!(directory = %found.directory, %error, "a link is not what this program wrote");
                continue;
            }
        };
        for (file, kept) in content {
            if let Ok(name) = LinkName::new(directory.as_str(), &file) {
                links.push((name, kept));
            }
        }
    }
    Ok(links)
}
