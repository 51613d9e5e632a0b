//! Small facts on a store, one JSON file each, which every host of the zone reads.
//!
//! A file is replaced as a whole, so a reader sees the old fact or the new one. Whoever can write to
//! the store can change it: what is read is checked like everything from outside.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::engine::SMALL;
use super::path::PathError;
use super::{EngineError, FileName, InstallPath, Store, StoreError, Work};

/// Why a fact cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum FactError {
    #[error(transparent)]
    Store(Box<StoreError>),
    #[error(transparent)]
    Name(#[from] PathError),
    #[error("{0} is not what this program wrote")]
    Content(InstallPath, #[source] serde_json::Error),
    #[error("{path} would have {length} bytes, more than the {SMALL} of a small file")]
    TooLong { path: InstallPath, length: usize },
}

impl From<StoreError> for FactError {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

impl FactError {
    /// The error of the store's own, if it is one.
    pub fn io(&self) -> Option<&std::io::Error> {
        let Self::Store(error) = self else { return None };
        match &**error {
            StoreError::Operation { source: EngineError::Io(error), .. } => Some(error),
            _ => None,
        }
    }
}

/// The fact at `path`; `None` when there is none. `doing` completes "cannot …".
pub async fn read<T: DeserializeOwned>(
    store: &Store,
    doing: &'static str,
    path: InstallPath,
) -> Result<Option<T>, FactError> {
    let work = Work::new();
    let getting = store.engine().get(&work, path.clone());
    let Some(bytes) = store.run(doing, getting).await? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| FactError::Content(path, error))
}

/// Replaces the fact `name` in `directory`, which is made if need be.
pub async fn write(
    store: &Store,
    doing: &'static str,
    directory: &InstallPath,
    name: FileName,
    value: &impl Serialize,
) -> Result<(), FactError> {
    let path = directory.join(name);
    let bytes =
        serde_json::to_vec(value).map_err(|error| FactError::Content(path.clone(), error))?;
    if bytes.len() as u64 > SMALL {
        return Err(FactError::TooLong { path, length: bytes.len() });
    }
    // Its own name: two writers never spoil each other's.
    let aside: FileName = format!(".fact.{}", uuid::Uuid::new_v4()).parse()?;
    let (engine, work) = (store.engine(), Work::new());
    store.run(doing, engine.ensure(&work, directory.clone())).await?;
    Ok(store.run(doing, engine.put(&work, path, aside, Bytes::from(bytes))).await?)
}

/// Removes the directory of a fact with everything in it, the fact `name` first.
pub async fn remove(
    store: &Store,
    doing: &'static str,
    directory: InstallPath,
    name: FileName,
) -> Result<(), FactError> {
    let work = Work::new();
    store.run(doing, store.engine().remove_tree(&work, directory, name)).await?;
    Ok(())
}
