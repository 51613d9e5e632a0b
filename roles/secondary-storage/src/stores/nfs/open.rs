//! From a store's URL to an engine: a server that is spoken to here, or a directory.

use std::sync::Arc;
use std::time::Duration;

use role::{BoxFuture, DoctorCheck, TaskScope};

use super::{NfsSettings, NfsStore, Target, check, export_of};
use crate::live::Live;
use crate::stores::config::StoreSettings;
use crate::stores::directory::open::{RESOLVE_TIMEOUT, resolve};
use crate::stores::engine::{Connected, Engines};
use crate::stores::{StoreError, StoreUrl};

/// The URL scheme of stores that can be spoken to.
const SCHEME: &str = "nfs";

/// Engines of both kinds. Cloneable; clones share everything.
#[derive(Debug, Clone)]
struct WithNfs {
    directories: Arc<dyn Engines>,
    settings: Live<StoreSettings>,
    tasks: TaskScope,
}

impl WithNfs {
    /// `directories` make the engines of all stores that are not spoken to.
    fn new(directories: Arc<dyn Engines>, settings: StoreSettings, tasks: TaskScope) -> Self {
        Self { directories, settings: Live::new(settings), tasks }
    }
}

/// The engines of mounted stores, and of those that are spoken to.
pub fn with_nfs(
    directories: Arc<dyn Engines>,
    settings: StoreSettings,
    tasks: TaskScope,
) -> Arc<dyn Engines> {
    Arc::new(WithNfs::new(directories, settings, tasks))
}

/// How a store is spoken to, if it is.
fn spoken_to(settings: &StoreSettings, url: &StoreUrl) -> Option<NfsSettings> {
    match settings.entry(url) {
        Some(entry) => entry.nfs.clone(),
        None => (settings.nfs_others && url.scheme() == SCHEME).then(NfsSettings::default),
    }
}

impl Engines for WithNfs {
    fn configured(&self) -> Vec<StoreUrl> {
        self.directories.configured()
    }

    fn reconfigure(&self, settings: StoreSettings) -> Box<dyn Fn(&StoreUrl) -> bool + Send> {
        self.settings.replace(settings.clone());
        self.directories.reconfigure(settings)
    }

    fn connect(
        &self,
        url: StoreUrl,
        name: Option<String>,
        version: Option<String>,
    ) -> BoxFuture<'static, Result<Connected, StoreError>> {
        let settings = self.settings.get();
        let Some(nfs) = spoken_to(&settings, &url) else {
            return self.directories.connect(url, name, version);
        };
        let target = target(&url, nfs, settings.deadline, self.tasks.clone());
        let (modes, min_free) = (settings.modes, settings.min_free);
        Box::pin(async move {
            let name = match name {
                Some(name) => name,
                None => {
                    let found = resolve(&url).await?.first().copied();
                    let host = url.host().to_owned();
                    let source = std::io::ErrorKind::NotFound.into();
                    url.directory_name(found.ok_or(StoreError::Resolve { host, source })?)
                }
            };
            let mut notes = Vec::new();
            if let Some(version) = version.filter(|version| !version.starts_with('3')) {
                notes.push(format!("it is spoken to in NFS version 3, not {version}"));
            }
            let place = format!("{}:{}", target.host, target.export);
            let engine = NfsStore::connect(target, modes).await;
            let engine =
                engine.map_err(|source| StoreError::Place { url: url.clone(), place, source })?;
            Ok(Connected { name, engine: Arc::new(engine.keeping_free(min_free)), notes })
        })
    }

    fn connect_limit(&self) -> Duration {
        self.directories.connect_limit().max(self.settings.get().deadline + RESOLVE_TIMEOUT)
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

/// One check for each store that the configuration says is spoken to.
pub fn checks(settings: &StoreSettings) -> Vec<DoctorCheck> {
    let spoken_to = settings.configured.iter().filter_map(|entry| {
        let nfs = entry.nfs.clone()?;
        Some((entry.url.clone(), nfs))
    });
    let check_of = |(url, nfs): (StoreUrl, NfsSettings)| {
        DoctorCheck::machine("store.nfs", move |_cx| {
            let (url, nfs) = (url.clone(), nfs.clone());
            async move {
                let target = target(&url, nfs, CHECK_LIMIT, TaskScope::new());
                check(&url, target).await
            }
        })
    };
    spoken_to.map(check_of).collect()
}
