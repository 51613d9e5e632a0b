//! From what a command says of a store to the opened store.

use std::sync::Arc;

use agent_protocol::storage::DataStoreTO;

use super::HandlerError;
use crate::stores::s3::Buckets;
use crate::stores::{Store, StoreError, StoreUrl, Stores};

/// Cloneable; every family of commands has one.
#[derive(Debug, Clone)]
pub struct StoreAccess {
    pub stores: Stores,
    pub buckets: Buckets,
}

impl StoreAccess {
    /// The store that a command names, opened.
    pub async fn open(
        &self,
        store: Option<&DataStoreTO>,
        fallback: Option<&str>,
        version: Option<&str>,
    ) -> Result<Arc<Store>, HandlerError> {
        if let Some(DataStoreTO::S3(s3)) = store {
            return Ok(self.buckets.store(s3).map_err(StoreError::from)?);
        }
        let url = self.url(store, fallback)?;
        let own = store.and_then(DataStoreTO::as_nfs).and_then(|nfs| nfs.nfs_version.as_deref());
        Ok(self.stores.open(&url, version.or(own)).await?)
    }

    /// From the store itself, else from the URL beside it, else the only one configured.
    pub fn url(
        &self,
        store: Option<&DataStoreTO>,
        fallback: Option<&str>,
    ) -> Result<StoreUrl, HandlerError> {
        let url = match store {
            Some(DataStoreTO::Nfs(nfs)) => nfs.url.as_deref(),
            Some(DataStoreTO::S3(s3)) => {
                return Ok(self.buckets.store(s3).map_err(StoreError::from)?.url().clone());
            }
            Some(_) => return Err(HandlerError::NotSupported("this is only done on NFS stores")),
            None => None,
        };
        match url.or(fallback) {
            Some(url) => Ok(url.parse::<StoreUrl>().map_err(StoreError::from)?),
            None => Ok(self.stores.only_configured().ok_or(StoreError::NoStore)?),
        }
    }

    /// By the directory name in the server's records; the server has none for a host without a
    /// system VM's row.
    pub fn url_of_directory(
        &self,
        name: Option<&str>,
        url: Option<&str>,
    ) -> Result<StoreUrl, HandlerError> {
        let by_name = name.and_then(|name| self.stores.url_of_directory(name.trim_matches('/')));
        match by_name {
            Some(url) => Ok(url),
            None => self.url(None, url),
        }
    }
}
