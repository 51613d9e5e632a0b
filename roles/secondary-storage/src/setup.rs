//! What the management server told this host at set-up.

use std::sync::{Arc, Mutex, PoisonError};

use bedrock::net::Network;

/// Cloneable; clones share everything. The server sends it anew at each connection.
#[derive(Debug, Clone, Default)]
pub struct ServerSettings {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Networks that downloads may reach although they are private.
    internal_sites: Vec<Network>,
}

impl ServerSettings {
    /// Replaces the internal sites.
    pub fn set_internal_sites(&self, sites: Vec<Network>) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).internal_sites = sites;
    }

    pub fn internal_sites(&self) -> Vec<Network> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).internal_sites.clone()
    }
}
