//! The keys that sign uploads: the one that the management server sends at set-up, which survives a
//! restart, and the configured one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bedrock::Secret;

use super::config::UploadSettings;
use super::order::UploadKey;
use crate::live::Live;
use crate::state_file::{self, StateError};

/// Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct Keys {
    path: PathBuf,
    settings: Live<UploadSettings>,
    sent: Arc<Mutex<Option<UploadKey>>>,
}

impl Keys {
    /// Reads `upload-key.json` of the role's state directory. Blocks.
    pub fn load(state: &Path, settings: Live<UploadSettings>) -> Result<Self, StateError> {
        let path = state.join("upload-key.json");
        let sent = state_file::read::<String>(&path)?.map(Secret::new);
        Ok(Self { path, settings, sent: Arc::new(Mutex::new(sent)) })
    }

    /// Remembers the server's key, in place of an earlier one. Blocks.
    pub fn take(&self, key: &UploadKey) -> Result<(), StateError> {
        // Held while saving, so that an older key never replaces a newer one.
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if !key.reveal().is_empty() && sent.as_ref() != Some(key) {
            state_file::save(&self.path, key.reveal())?;
            *sent = Some(key.clone());
            tracing::info!("the management server's upload key was taken over");
        }
        Ok(())
    }

    /// Every key that a signature may be made with, the server's first.
    pub fn all(&self) -> Vec<UploadKey> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sent.into_iter().chain(self.settings.get().key.clone()).collect()
    }
}
