//! What takes the place of the NFS engine in a build without the feature `nfs`: stores are mounted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use role::{DoctorCheck, DoctorFinding, TaskScope};

pub use super::nfs_settings::NfsSettings;
use crate::stores::config::StoreSettings;
use crate::stores::engine::{EngineError, Engines, Opened};
use crate::stores::path::InstallPath;

const REMEDY: &str = "mount the export and take out engine = \"nfs\", or use a build with the \
                      feature nfs";

/// The engines of mounted stores.
pub fn with_nfs(
    directories: Arc<dyn Engines>,
    _settings: StoreSettings,
    _tasks: TaskScope,
) -> Arc<dyn Engines> {
    directories
}

/// One finding for each store that the configuration says is spoken to.
pub fn checks(settings: &StoreSettings) -> Vec<DoctorCheck> {
    let spoken_to = settings.configured.iter().filter(|entry| entry.nfs.is_some());
    let check_of = |url: String| {
        DoctorCheck::machine("store.nfs", move |_cx| {
            let problem = format!("store {url}: this build speaks no NFS");
            async move { DoctorFinding::Fault { problem, remedy: REMEDY.to_owned() } }
        })
    };
    spoken_to.map(|entry| check_of(entry.url.to_string())).collect()
}

/// Where a file is.
#[derive(Debug, Clone)]
pub struct RemotePlace {
    pub address: IpAddr,
    pub path: InstallPath,
    pub settings: NfsSettings,
    pub deadline: Duration,
    pub tasks: TaskScope,
}

/// Opens nothing, and says so.
pub async fn open_remote(_place: RemotePlace) -> Result<Option<Box<dyn Opened>>, EngineError> {
    let text =
        "this build speaks no NFS: serve the file by https, or use a build with the feature nfs";
    Err(std::io::Error::new(std::io::ErrorKind::Unsupported, text).into())
}
