//! Between a bucket and a store with directories: templates, volumes and snapshots are one object each.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use disk_image::{Format, Sizes};

use super::copy::{Original, copy, copy_to};
use super::image::{format_of_name, sizes};
use super::snapshot::{ENDINGS, write_small};
use super::staging::Staging;
use super::{MoveError, Moves, Permit};
use crate::objects::inventory::{self, Description};
use crate::stores::{FileName, InstallPath, ObjectKind, Store, Work};

/// A file that goes into a bucket under its own name.
#[derive(Debug)]
pub struct Push {
    pub from: Arc<Store>,
    /// Perhaps without its ending.
    pub path: InstallPath,
    pub to: Arc<Store>,
    /// The key without the file's name.
    pub directory: InstallPath,
}

/// An object that comes from a bucket.
#[derive(Debug)]
pub struct Pull {
    pub kind: ObjectKind,
    pub from: Arc<Store>,
    /// The key.
    pub path: InstallPath,
    pub to: Arc<Store>,
    pub directory: InstallPath,
    /// What its image is registered as.
    pub format: Option<Format>,
    pub about: Description,
}

/// What is there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    pub path: InstallPath,
    pub sizes: Sizes,
    /// By the file's name.
    pub format: Option<Format>,
}

impl Moves {
    /// Copies a file into a bucket. Nothing of it is there before all of it is.
    pub async fn push(&self, push: &Push, limit: Duration) -> Result<Carried, MoveError> {
        let Push { from, path, to, directory } = push;
        let original = find(from, path).await?;
        let name = original.path().parts().last().cloned();
        let name = name.ok_or_else(|| MoveError::Refused(format!("{path} is no file")))?;
        let key = directory.join(name.clone());
        let permit = self.enter(to, &key, Some(limit)).await?;
        let _turn = permit.during(self.turn()).await?;
        let work = Work::new();
        let copying = async {
            let format = format_of_name(name.as_str());
            let sizes = sizes(&self.tasks, Arc::clone(original.file()), format).await?;
            let creating = to.engine().create(&work, directory.clone(), name.clone());
            let part = to.run("create an object", creating).await?;
            let progress = permit.progress();
            progress.expect(original.length());
            drop(copy_to(&original, to, part, &key, progress).await?);
            Ok(Carried { path: key.clone(), sizes, format })
        };
        let copied = permit.during(copying).await;
        if copied.is_err() {
            // The upload is given up; a later one must not meet its end.
            work.ended().await;
        }
        copied
    }

    /// Copies an object of a bucket to a store with directories.
    pub async fn pull(&self, pull: &Pull, limit: Duration) -> Result<Carried, MoveError> {
        let Pull { kind, path, directory, .. } = pull;
        if kind.directory(directory).is_none() {
            let text = format!("{directory} is not a place of a {}", kind.name());
            return Err(MoveError::Refused(text));
        }
        let fetched = path.parts().last().cloned();
        let fetched = fetched.ok_or_else(|| MoveError::Refused(format!("{path} is no object")))?;
        let named = format_of_name(fetched.as_str());
        let format = pull.format.or(named);
        let name: FileName = match (kind, format) {
            (ObjectKind::Snapshot, _) | (_, None) => fetched,
            (_, Some(format)) => {
                format!("{}.{}", uuid::Uuid::new_v4(), format.extension()).parse()?
            }
        };
        let target = match kind {
            ObjectKind::Snapshot => directory.join(name.clone()),
            ObjectKind::Template | ObjectKind::Volume => directory.clone(),
        };
        let permit = self.enter(&pull.to, &target, Some(limit)).await?;
        let _turn = permit.during(self.turn()).await?;
        let sizes = self.fetch(pull, &name, format, &permit).await?;
        Ok(Carried { path: directory.join(name), sizes, format })
    }

    async fn fetch(
        &self,
        pull: &Pull,
        name: &FileName,
        format: Option<Format>,
        permit: &Permit,
    ) -> Result<Sizes, MoveError> {
        let Pull { kind, from, path, to, directory, about, .. } = pull;
        let original = permit.during(Original::open(from, path)).await?;
        let mut targets = vec![(directory.clone(), name.clone())];
        let mut object = None;
        if *kind != ObjectKind::Snapshot {
            targets.push((directory.clone(), kind.properties_file()));
            object = Some((*kind, directory.clone()));
        }
        let staging = Staging::begin(self, to, object, targets).await?;
        let filling = async {
            let progress = permit.progress();
            progress.expect(original.length());
            let file = copy(&original, &staging, 0, progress).await?;
            let sizes = sizes(&self.tasks, Arc::from(file), format).await?;
            if *kind != ObjectKind::Snapshot {
                let format = format.unwrap_or(Format::Raw);
                let text = inventory::properties(*kind, about, format, name, sizes);
                let bytes: Bytes = text.to_bytes(self.host.clock.now()).into();
                write_small(&staging, 1, bytes).await?;
            }
            Ok(sizes)
        };
        let filled = permit.during(filling).await;
        staging.conclude(filled, permit).await
    }
}

/// The file, with the ending that its hypervisor gave it.
async fn find(store: &Arc<Store>, path: &InstallPath) -> Result<Original, MoveError> {
    if let Some(found) = Original::find(store, path).await? {
        return Ok(found);
    }
    if let Some((directory, name)) = path.split() {
        for ending in ENDINGS {
            let other = directory.join(format!("{name}{ending}").parse()?);
            if let Some(found) = Original::find(store, &other).await? {
                return Ok(found);
            }
        }
    }
    // The original's words.
    Err(MoveError::Refused(format!("Can't find src file:{}/{path}", store.place())))
}
