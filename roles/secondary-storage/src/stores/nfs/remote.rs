//! A file of a server that is no store of this host, read and left.
//!
//! Where its export begins is not said by its path: the file's directory is asked for first, then
//! each above it. Servers give directories below an export, too.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use role::TaskScope;

use super::client::Client;
use super::error::NfsError;
use super::file::{Reader, StoreFile, open_regular};
use super::{NfsSettings, Target};
use crate::stores::engine::{EngineError, Opened};
use crate::stores::path::{FileName, InstallPath};
use crate::stores::work::Owned;

/// Where a file is.
#[derive(Debug, Clone)]
pub struct RemotePlace {
    /// Of the server. Names are resolved, and judged, by whoever asks.
    pub address: IpAddr,
    /// From the server's root on, the export included.
    pub path: InstallPath,
    pub settings: NfsSettings,
    /// How long one look or read may take.
    pub deadline: Duration,
    pub tasks: TaskScope,
}

/// Opens a regular file for reading; `None` when there is none of that path.
pub async fn open_remote(place: RemotePlace) -> Result<Option<Box<dyn Opened>>, EngineError> {
    let shown = format!("{}:/{}", place.address, place.path);
    let found = find(place).await.map_err(|error| error.of_engine(&shown))?;
    Ok(found.map(|reader| {
        let (reader, owner) = (Arc::new(reader), Owned::default());
        Box::new(StoreFile { reader, owner }) as Box<dyn Opened>
    }))
}

async fn find(place: RemotePlace) -> Result<Option<Reader>, NfsError> {
    let Some((name, directories)) = place.path.parts().split_last() else { return Ok(None) };
    let mut refused = None;
    for count in (0..=directories.len()).rev() {
        let (export, below) = directories.split_at(count);
        let target = Target {
            host: place.address.to_string(),
            export: absolute(export),
            settings: place.settings.clone(),
            deadline: place.deadline,
            tasks: place.tasks.clone(),
        };
        let session = Client::new(target).session(false);
        match session.root().await {
            Ok(root) => return open_regular(&session, &root, below, name).await,
            // That of the file's own directory says most.
            Err(error @ NfsError::Mount { .. }) => drop(refused.get_or_insert(error)),
            Err(error) => return Err(error),
        }
    }
    refused.map_or(Ok(None), Err)
}

fn absolute(parts: &[FileName]) -> String {
    let names: Vec<&str> = parts.iter().map(FileName::as_str).collect();
    format!("/{}", names.join("/"))
}
