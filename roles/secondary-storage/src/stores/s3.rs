//! Stores that speak S3: a bucket behind the store's trait.
//!
//! | module | what |
//! |---|---|
//! | [`settings`] | what a command says of the bucket |
//! | [`sign`] | signature version 4 |
//! | [`client`] | single requests, with time-outs and retries |
//! | [`answer`] | what their XML says |
//! | [`engine`] | the store's operations |
//! | [`tag`] | what the tag of an object tells of its bytes |
//! | [`part`] | an object being written, in parts of bounded memory |
//!
//! An object is there when its last request was answered, so nothing is renamed: files are written
//! under their own names. The server sends the bucket's keys with each command; they are on disk only
//! within the record of a download that is to go on after a restart.

pub mod answer;
pub mod client;
pub mod engine;
pub mod part;
pub mod settings;
pub mod sign;
pub mod tag;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use agent_protocol::storage::S3TO;
use role::{Host, TaskScope};

use super::{Store, StoreError, StoreUrl, Stores};
use crate::sources::http::trust::Trust;
pub use settings::{S3Settings, SettingsError};

/// Buckets that are used at a time; a bound against a server that names ever new ones.
const MAX_BUCKETS: usize = 32;

/// Why a bucket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("cannot make an HTTP client for bucket {bucket}: {reason}")]
    Client { bucket: String, reason: String },
    #[error("there are more buckets than the {MAX_BUCKETS} this host serves")]
    TooMany,
    #[error(transparent)]
    Url(#[from] super::url::StoreUrlError),
}

/// By bucket: what was said of it, and the store.
type Open = BTreeMap<String, (S3Settings, Arc<Store>)>;

/// The buckets of commands. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct Buckets {
    /// Where whoever knows only the URL finds them.
    stores: Stores,
    tasks: TaskScope,
    host: Host,
    trust: Trust,
    open: Arc<Mutex<Open>>,
}

impl Buckets {
    pub fn new(stores: Stores, tasks: TaskScope, host: Host, trust: Trust) -> Self {
        Self { stores, tasks, host, trust, open: Arc::default() }
    }

    /// The store of a bucket. The same one as long as everything that is said of it is the same.
    pub fn store(&self, s3: &S3TO) -> Result<Arc<Store>, BucketError> {
        let settings = S3Settings::of(s3)?;
        let url: StoreUrl = settings.url().parse()?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get(&settings.key()) {
            Some((known, store)) if *known == settings => return Ok(Arc::clone(store)),
            None if open.len() >= MAX_BUCKETS => return Err(BucketError::TooMany),
            _ => {}
        }
        let client = client::Client::new(settings.clone(), &self.trust, self.host.clone());
        let client = client
            .map_err(|reason| BucketError::Client { bucket: settings.bucket.clone(), reason })?;
        let engine = engine::S3Engine::new(Arc::new(client), self.tasks.clone());
        engine.clear_dead_uploads();
        let name = settings.bucket.clone();
        let store = Arc::new(Store::of_engine(url, name, Arc::new(engine)));
        self.stores.adopt(&store);
        open.insert(settings.key(), (settings, Arc::clone(&store)));
        Ok(store)
    }
}

impl From<BucketError> for StoreError {
    fn from(error: BucketError) -> Self {
        Self::Bucket(error)
    }
}
