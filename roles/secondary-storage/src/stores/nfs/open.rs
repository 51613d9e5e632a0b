//! From a store's URL to an engine: a server that is spoken to here, or a directory.

use std::sync::Arc;
use std::time::Duration;

use role::{BoxFuture, DoctorCheck, TaskScope};

use super::{NfsSettings, NfsStore, Target, check, export_of};
use crate::config::SecondaryStorageConfig;
use crate::stores::directory::open::{RESOLVE_TIMEOUT, resolve};
use crate::stores::engine::{Connected, Engines};
use crate::stores::{Modes, StoreError, StoreUrl};

/// The URL scheme of stores that can be spoken to.
const SCHEME: &str = "nfs";

/// Which stores are spoken to here instead of being mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NfsStores {
    pub listed: Vec<(StoreUrl, NfsSettings)>,
    /// Every NFS store that the configuration does not name, too.
    pub others: bool,
}

impl NfsStores {
    fn settings(&self, url: &StoreUrl, directories: &[StoreUrl]) -> Option<NfsSettings> {
        let key = url.key();
        let listed = self.listed.iter().find(|(known, _)| known.key() == key);
        match listed {
            Some((_, settings)) => Some(settings.clone()),
            None if self.others && url.scheme() == SCHEME => {
                let is_directory = directories.iter().any(|known| known.key() == key);
                (!is_directory).then(NfsSettings::default)
            }
            None => None,
        }
    }

    /// Whether nothing is ever mounted.
    pub fn replaces_mounts(&self) -> bool {
        self.others || !self.listed.is_empty()
    }
}

/// Engines of both kinds. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct WithNfs {
    directories: Arc<dyn Engines>,
    nfs: NfsStores,
    modes: Modes,
    deadline: Duration,
    tasks: TaskScope,
}

impl WithNfs {
    /// `directories` make the engines of all stores that are not spoken to.
    pub fn new(
        directories: Arc<dyn Engines>,
        config: &SecondaryStorageConfig,
        tasks: TaskScope,
    ) -> Self {
        let (nfs, modes) = (config.nfs.clone(), config.stores.modes);
        Self { directories, nfs, modes, deadline: config.stores.deadline, tasks }
    }
}

impl Engines for WithNfs {
    fn configured(&self) -> Vec<StoreUrl> {
        let listed = self.nfs.listed.iter().map(|(url, _)| url.clone());
        self.directories.configured().into_iter().chain(listed).collect()
    }

    fn connect(
        &self,
        url: StoreUrl,
        name: Option<String>,
        version: Option<String>,
    ) -> BoxFuture<'static, Result<Connected, StoreError>> {
        let Some(settings) = self.nfs.settings(&url, &self.directories.configured()) else {
            return self.directories.connect(url, name, version);
        };
        let target = target(&url, settings, self.deadline, self.tasks.clone());
        let modes = self.modes;
        Box::pin(async move {
            let name = match name {
                Some(name) => name,
                None => url.directory_name(resolve(&url).await?),
            };
            if version.as_deref().is_some_and(|version| !version.starts_with('3')) {
                tracing::info!(store = %url, version, "the store is spoken to in NFS version 3");
            }
            let place = format!("{}:{}", target.host, target.export);
            let engine = NfsStore::connect(target, modes).await;
            let engine =
                engine.map_err(|source| StoreError::Place { url: url.clone(), place, source })?;
            Ok(Connected { name, engine: Arc::new(engine) })
        })
    }

    fn connect_limit(&self) -> Duration {
        self.directories.connect_limit().max(self.deadline + RESOLVE_TIMEOUT)
    }

    fn retain(&self, in_use: &dyn Fn(&str) -> bool) {
        self.directories.retain(in_use);
    }
}

fn target(url: &StoreUrl, settings: NfsSettings, deadline: Duration, tasks: TaskScope) -> Target {
    Target { host: url.host().to_owned(), export: export_of(url), settings, deadline, tasks }
}

/// Longest look of a check.
const CHECK_LIMIT: Duration = Duration::from_secs(15);

/// One check for each store that the configuration names.
pub fn checks(nfs: &NfsStores) -> Vec<DoctorCheck> {
    let check_of = |(url, settings): &(StoreUrl, NfsSettings)| {
        let (url, settings) = (url.clone(), settings.clone());
        DoctorCheck::machine("store.nfs", move |_cx| {
            let (url, settings) = (url.clone(), settings.clone());
            async move {
                let target = target(&url, settings, CHECK_LIMIT, TaskScope::new());
                check(&url, target).await
            }
        })
    };
    nfs.listed.iter().map(check_of).collect()
}
